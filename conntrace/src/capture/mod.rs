//! Loads and attaches the eBPF programs, and reads their ring buffer and counters.

mod attach_error;
mod attempt_table;
mod btf_needs;
mod call_map;
mod coverage;
mod drop_reasons;
mod drops;
mod error;
pub(crate) mod filter;
mod filter_maps;
mod hooks;
mod kernel_btf;
mod load;
#[cfg(test)]
mod loom_tests;
mod offsets;
mod patch;
mod preemption;
pub mod privileges;
mod programs;
#[cfg(test)]
mod prototype_tests;
mod source;
#[cfg(test)]
mod test_kernels;
mod tier;
mod tracefs;
mod tracer;

pub(crate) use attach_error::chain;
pub use btf_needs::btf_needs;
pub use coverage::start;
use error::{ProgramMissing, failed, unsupported};
pub use error::{StartError, release};
pub use filter::{CgroupId, Filter, NetnsInode, Network, PortRange, TaskName};
pub use hooks::{Hook, HookKind};
pub use kernel_btf::check_members;
pub(crate) use kernel_btf::{KernelFacts, VMLINUX_BTF};
pub use programs::{HookId, HookProgram, HookTarget, PROGRAMS};
pub use source::Source;
pub use tier::Tier;
pub(crate) use tracefs::{NO_TRACEFS, tracefs};
pub use tracer::{ProgramSize, Settings, Tracer};
