//! Packets that this machine drops outside of the client's network namespace: in the node that
//! forwards them, and where the server is. The client's is that of the scene.

mod flood;
mod node;
mod silence;
mod strangers;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use conntrace_testnet::enter_bare;
use conntrace_tests::{
    Attempted, Live, Partner, bound, lacks_drop_reasons, play_routed, remote_of_role, role,
    run_one_by_one, say_and_wait, server, tcp, unless_all, with_nft,
};

/// Port that the server listens on, one that it does not, and that of the service.
const OPEN: u16 = 8000;
const CLOSED: u16 = 5999;
const SERVICE_PORT: u16 = 80;

const CERTAIN: &str = "certain";

pub(crate) fn main() -> ExitCode {
    match role().as_deref() {
        Some("serve_nobody") => return serve_nobody(),
        Some(role) => return play_routed(role),
        None => {}
    }
    let mut tests = node::tests();
    tests.push(with_nft("flood_of_strangers", flood::of_strangers));
    tests.push(with_nft("flood_of_a_neighbour", flood::of_a_neighbour));
    tests.extend(silence::tests());
    tests.extend(strangers::tests());
    // One at a time: a namespace that is not known yet is searched for once a while only, and clients in
    // different scenes have the same address.
    run_one_by_one(unless_all(lacks_drop_reasons(), tests))
}

/// Plays a server that accepts no connection, and whose accept queue holds one.
fn serve_nobody() -> ExitCode {
    enter_bare().unwrap();
    let listener = tcp(remote_of_role());
    listener.set_freebind_v4(true).unwrap();
    listener.bind(&remote_of_role().into()).unwrap();
    listener.listen(0).unwrap();
    say_and_wait("listens");
    ExitCode::SUCCESS
}

/// Listens on all addresses.
fn open_server() -> Partner {
    server((Ipv6Addr::UNSPECIFIED, OPEN))
}

fn live() -> Arc<Live> {
    Live::get()
}

/// Connects from this port, and gives up after a while.
fn from_port(
    local: (Ipv4Addr, u16),
    remote: impl Into<SocketAddr>,
    deadline: Duration,
) -> Attempted {
    let socket = bound(SocketAddr::new(IpAddr::from(local.0), local.1));
    Attempted::within(deadline, &socket, remote)
}
