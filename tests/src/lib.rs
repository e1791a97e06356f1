//! Shared parts of the live tests: a traced `conntrace`, a test network per scenario, and the
//! complete line expected of an attempt.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a panic is a failed test"
)]

mod agent;
mod binary;
mod bpf;
mod cause;
mod cgroup;
mod child;
mod fuse;
mod group;
mod ia32;
mod line;
mod loaded;
mod lsm;
mod mounts;
mod nft;
mod passed;
mod raw_syn;
mod recording;
mod routed;
mod sample;
mod signal;
mod socket;
mod storm;
mod suite;
mod tracer;
mod uring;
mod usage;
mod user;
mod written;

pub use agent::{Agent, LinesFile};
pub use binary::{as_under_test, binary, conntrace, copy_program};
pub use cause::{assert_cause, connect_until_failure, give_up, wait_out};
pub use cgroup::{Cgroup, own_cgroup};
pub use child::{
    Partner, assert_has, expect_child, in_role, in_role_to, program_comm, remote_of_role, role,
    say_and_wait,
};
pub use fuse::{HeldFile, lacks_fuse, make_fuse_device};
pub use group::{Group, is_list, run_groups};
pub use ia32::{Ia32, connect_as_ia32, has_ia32};
pub use line::{ExpectedLine, ExpectedReply, Unless, remote_end};
pub use loaded::{Loaded, held_by, loaded, namespaces, wait_until_freed};
pub use lsm::{Denial, hides_hooks, lacks_lsm};
pub use mounts::{in_private_mounts, lacks_tracefs, mount_tracefs, without_tracefs};
pub use nft::{ip, link_into, nft, with_ip, with_iptables, with_nft};
pub use passed::{pass_on, receive};
pub use raw_syn::RawSyns;
pub use recording::{
    Dir, Recording, conntrace_as_nobody, matching, replay, run_one_by_one_with_replay,
    run_with_replay, stderr, stdout,
};
pub use routed::{
    CLIENT_V4, NODE_V4, RoutedNet, SERVER_V4, SERVER_V6, SERVICE_V4, SERVICE_V6, here, holder,
    inside, netns_of, play_routed, rules, server, within,
};
pub use sample::sample;
pub use signal::let_interrupt;
pub use socket::{
    Attempted, attempt, attempt_on, bound, has_syn_sent, lacks_mptcp, mptcp, tcp, wait_for_syn_sent,
};
pub use storm::{
    AgentOutput, StormOutcome, Thread, active_opens, at_rate, has_ended, without_linger,
};
pub use suite::{
    HostTest, Live, PlayedScenario, accounted, assert_adds_up, is_covered, is_root, is_slow,
    kernel_version, lacks_bound_sockets, lacks_drop_reasons, lacks_functions, lacks_port_range,
    live_test, own_netns, plain_test, run, run_one_by_one, unless, unless_all,
};
pub use tracer::{TracerProcess, check};
pub use uring::{Uring, lacks_uring, lacks_uring_bind};
pub use usage::{Task, cpu_time, private_kb, tasks};
pub use user::{enter_own_namespaces, in_role_again};
pub use written::{
    checked, count, each_line, number, of_type, told_lost, told_undelivered, told_without_place,
};
