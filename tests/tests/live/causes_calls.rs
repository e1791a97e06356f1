//! Causes of calls that fail before a SYN exists (`--trace-syscalls`).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::{self, ExitCode},
    sync::Arc,
};

use conntrace_testnet::{DeadEndRoute, FAR_LOCAL_V4, FAR_V4, ports};
use conntrace_tests::{
    Cgroup, Denial, Live, Partner, attempt, bound, hides_hooks, in_role_to, lacks_bound_sockets,
    lacks_lsm, lacks_tracefs, live_test, remote_of_role, role, run, say_and_wait, tcp, unless,
    unless_all,
};
use serde_json::json;

const TRACE: &str = "--trace-syscalls";
const CERTAIN: &str = "certain";
const LIKELY: &str = "likely";

/// Address outside every network of the testnet.
const ELSEWHERE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const ELSEWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1);
const PORT: u16 = 5432;
/// Role of a child that connects where a policy denies it.
const BY_CGROUP: &str = "by_cgroup";
const BY_LSM: &str = "by_lsm";
/// Local port range that a test can use up.
const RANGE: [u16; 2] = [40_000, 40_001];

pub(crate) fn main() -> ExitCode {
    match role().as_deref() {
        Some(BY_CGROUP) => return denied_by_its_cgroup(),
        Some(BY_LSM) => return denied_by_lsm_of_its_own(),
        Some(_) | None => {}
    }
    let tracefs = lacks_tracefs();
    let mut tests = vec![
        live_test("cgroup_policy", cgroup_policy),
        unless(
            lacks_lsm().or_else(hides_hooks),
            live_test("security_module", security_module),
        ),
        unless(
            lacks_bound_sockets(),
            live_test("ports_held_by_bind", ports_held_by_bind),
        ),
    ];
    for (family, host) in [
        ("v4", IpAddr::from(ELSEWHERE_V4)),
        ("v6", ELSEWHERE_V6.into()),
    ] {
        tests.extend([
            live_test(&format!("no_route_{family}"), move || no_route(host)),
            live_test(&format!("unreachable_route_{family}"), move || {
                unreachable_route(host);
            }),
            live_test(&format!("prohibit_route_{family}"), move || {
                prohibit_route(host);
            }),
            live_test(&format!("source_not_local_{family}"), move || {
                source_not_local(host);
            }),
        ]);
    }
    run(unless_all(tracefs.as_deref(), tests))
}

fn live() -> Arc<Live> {
    Live::with(&[TRACE])
}

fn no_route(host: IpAddr) {
    let evidence = json!({ "route_errno": "ENETUNREACH", "to": host });
    live().expect_cause(1, ("no_route", CERTAIN), &evidence, |_| {
        attempt((host, PORT))
    });
}

fn unreachable_route(host: IpAddr) {
    let evidence = json!({ "route_errno": "EHOSTUNREACH", "to": host });
    live().expect_cause(1, ("no_route", CERTAIN), &evidence, |testnet| {
        testnet
            .add_dead_end(DeadEndRoute::Unreachable, host)
            .unwrap();
        attempt((host, PORT))
    });
}

fn prohibit_route(host: IpAddr) {
    let evidence = json!({ "route_errno": "EACCES", "to": host });
    live().expect_cause(1, ("prohibit_route", CERTAIN), &evidence, |testnet| {
        testnet.add_dead_end(DeadEndRoute::Prohibit, host).unwrap();
        attempt((host, PORT))
    });
}

fn source_not_local(host: IpAddr) {
    let evidence = json!({ "source": host, "errno": "EADDRNOTAVAIL" });
    live().expect_cause(1, ("source_not_local", CERTAIN), &evidence, |_| {
        let source = SocketAddr::new(host, 0);
        assert!(tcp(source).bind(&source.into()).is_err());
    });
}

/// A bind to port 0 fails, because all ports of the range are bound.
fn ports_held_by_bind() {
    let evidence = json!({ "range": RANGE, "available": 2, "connected": 0, "bound": 2 });
    live().expect_cause(1, ("ports_held_by_bind", CERTAIN), &evidence, |testnet| {
        let [low, high] = RANGE;
        let range = format!("{low} {high}");
        testnet
            .set_sysctl("net/ipv4/ip_local_port_range", &range)
            .unwrap();
        let held = RANGE.map(|port| bound((FAR_LOCAL_V4, port).into()));
        let source = SocketAddr::from((FAR_LOCAL_V4, 0));
        assert!(tcp(source).bind(&source.into()).is_err());
        held
    });
}

/// Runs the child's part of the test.
fn denied_by_its_cgroup() -> ExitCode {
    // The parent moves this process to the cgroup before it writes the line.
    std::io::stdin().read_line(&mut String::new()).unwrap();
    attempt(remote_of_role());
    ExitCode::SUCCESS
}

/// Keeps the BPF program loaded until the line has been printed.
fn denied_by_lsm_of_its_own() -> ExitCode {
    let _denial = Denial::new().unwrap();
    attempt(remote_of_role());
    say_and_wait("denied");
    ExitCode::SUCCESS
}

/// A BPF program denies connect as a security module, for one process only.
fn security_module() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let evidence = json!({ "remote": remote });
    let line = live().expect_cause(1, ("security_module", LIKELY), &evidence, |_| {
        Partner::start(in_role_to(BY_LSM, remote))
    });
    assert_eq!(line["errno"], "EPERM", "{line:#}");
    let programs = line["cause"]["evidence"]["programs"].as_array().unwrap();
    // The BPF program has no name.
    assert!(programs.iter().any(|it| it["name"] == ""), "{line:#}");
}

fn cgroup_policy() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let name = format!("conntrace-causes-{}", process::id());
    let cgroup = Cgroup::new(&name);
    cgroup
        .deny_connects()
        .expect("the kernel has programs at cgroups");
    let evidence = json!({ "remote": remote });
    let line = live().expect_cause(1, ("cgroup_policy", LIKELY), &evidence, |_| {
        cgroup.run(&mut in_role_to(BY_CGROUP, remote))
    });
    let programs = line["cause"]["evidence"]["programs"].as_array().unwrap();
    let of_it = |it: &serde_json::Value| it["cgroup"] == format!("/{name}");
    assert!(programs.iter().any(of_it), "{line:#}");
}
