//! What is said.

use super::{
    cases::{dropped, failed_call},
    script::far,
    staged::staged,
};
use crate::{diagnose::diagnose, errno::Errno, event::Code, label::Label};

/// A chain is named where no other can be meant.
#[test]
fn the_only_chain_that_drops_is_named() {
    let why = |chains: &[&str]| {
        let mut script = far().drop_reason("NETFILTER_DROP").drops_in(chains);
        diagnose(&dropped(), &mut script).unwrap().why
    };
    assert!(why(&["output"]).ends_with(", in the only chain that drops, inet filter output"));
    assert!(why(&["output", "input"]).ends_with("(NETFILTER_DROP)"));
    assert!(why(&[]).ends_with("(NETFILTER_DROP)"));
}

#[test]
fn programs_are_named_where_they_have_a_name() {
    let mut script = far().security_programs(&["deny", ""]);
    let case = failed_call(Label::Denied, Errno::EPERM);
    let cause = diagnose(&case, &mut script).unwrap();
    assert!(cause.why.ends_with(": deny (id 12), id 13"), "{cause:?}");
}

#[test]
fn sentences_have_the_facts_of_the_case() {
    let sentences = |code: Code| {
        let staged = staged();
        let (_, case, script) = staged.iter().find(|(of, ..)| *of == code).unwrap();
        let cause = diagnose(case, &mut script.clone()).unwrap();
        format!("{}\n{}", cause.why, cause.fix)
    };
    let told = [
        Code::EphemeralRangeUsedUp,
        Code::ListeningElsewhere,
        Code::WrongPort,
        Code::NothingListening,
        Code::HostDown,
        Code::PrivateAddressNotLocal,
        Code::LocalFirewall,
        Code::TupleInUse,
        Code::RemoteFiltered,
        Code::SilentHost,
    ]
    .map(sentences);
    insta::assert_snapshot!(told.join("\n"), @r#"
    connections to 10.0.0.5:5432 hold 28,232 of the 28,232 ports of the range 32768 60999: 100 ESTABLISHED, 28,132 TIME_WAIT; most by crawler[9] (100)
    `sysctl -w net.ipv4.ip_local_port_range="10000 65535"` has 55,536 ports and adds 27,304; `sysctl -w net.ipv4.tcp_tw_reuse=1` lets the 28,132 in TIME_WAIT be used again after a second; keep connections open (a pool) instead of one per request
    port 5432 is listened on, but not on 10.0.0.5: 127.0.0.1:5432 (postgres[812])
    connect to 127.0.0.1:5432, or let the server listen on 10.0.0.5 or 0.0.0.0, port 5432
    nothing listens on port 5432 of 10.0.0.5, an address of this host, but: 0.0.0.0:5433 (postgres[812])
    connect to port 5433 if that is the server meant; else start it on port 5432
    10.0.0.5 is an address of this host, and no socket listens on port 5432
    start the server that should listen on port 5432; `ss -ltnp` lists those that do
    10.0.0.5 should be on the network of eth0 and does not answer ARP
    start the host or correct its address; `ip neigh show 10.0.0.5` and `arping -I eth0 10.0.0.5` show whether it is back
    10.0.0.5 is a private address, no network of this host has it, and it is looked for behind the default gateway 203.0.113.1 on eth0
    use the public address of that server, or connect this host to its network (VPN, peering: a route for 10.0.0.5 other than the default one)
    this host itself dropped packets of the attempt: a firewall rule (NETFILTER_DROP)
    find the rule with `nft list ruleset | grep -n drop` (or `iptables-save -c | grep DROP`), policies of chains included, at output and input; let tcp to 10.0.0.5:5432 and its answers pass
    the connection 10.0.0.2:40000 -> 10.0.0.5:5432 is there already, in TIME_WAIT
    do not bind port 40000 before connect (bind the address with IP_BIND_ADDRESS_NO_PORT), or wait until `ss -tanpo 'sport = :40000'` no longer shows it
    10.0.0.5 completed a handshake on port 22 12 s before, but answers nothing on port 5432
    let tcp dport 5432 from this host pass in the firewall of 10.0.0.5, its cloud security group or hosting panel; on 10.0.0.5: `nft list ruleset | grep -n drop`
    10.0.0.5 is off, filtered or a wrong address: it answered no attempt on any port in the 60 s since tracing began
    check the address; `ping 10.0.0.5` and `traceroute -n 10.0.0.5` show whether anything answers there and how far packets come
    "#);
}
