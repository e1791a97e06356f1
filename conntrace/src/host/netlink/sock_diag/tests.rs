use std::net::{TcpListener, TcpStream};

use super::*;

fn collect(
    ask: impl FnOnce(&mut dyn FnMut(DiagSocket) -> ControlFlow<()>) -> io::Result<()>,
) -> Vec<DiagSocket> {
    let mut found = Vec::new();
    ask(&mut |sock| {
        found.push(sock);
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn listener(addr: impl Into<IpAddr>) -> (TcpListener, SocketAddr) {
    let server = TcpListener::bind((addr.into(), 0)).unwrap();
    let local = server.local_addr().unwrap();
    (server, local)
}

#[test]
fn listeners_are_found_by_their_port() {
    let (_server, local) = listener(Ipv4Addr::LOCALHOST);
    let found = collect(|each| listeners(local.port(), each));
    assert!(found.iter().all(|sock| sock.local.port() == local.port()));
    let sock = found.iter().find(|sock| sock.local == local).unwrap();
    assert!(sock.inode > 0 && sock.state == LISTEN);
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    assert_eq!(sock.uid, owner);
    // A connection to the listener has its port too.
    let _client = TcpStream::connect(local).unwrap();
    let found = collect(|each| listeners(local.port(), each));
    assert!(found.iter().all(|sock| sock.state == LISTEN));
}

#[test]
fn knows_who_takes_only_ipv6() {
    let (_server, local) = listener(Ipv6Addr::UNSPECIFIED);
    let found = collect(|each| listeners(local.port(), each));
    let sock = found.iter().find(|sock| sock.local == local).unwrap();
    assert!(!sock.only_v6);
}

#[test]
fn listeners_on_any_of_many_ports() {
    let servers = [(); 3].map(|()| listener(Ipv4Addr::LOCALHOST));
    let wanted: Vec<_> = servers.iter().map(|(_, local)| local.port()).collect();
    let on = |ports: &[u16]| {
        let found = collect(|each| listeners_on(ports, each));
        let found = found.into_iter().map(|sock| sock.local.port());
        let mut found: Vec<_> = found.filter(|port| wanted.contains(port)).collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let mut all = wanted.clone();
    all.sort_unstable();
    assert_eq!(on(&wanted), all);
    assert_eq!(on(&wanted[1..2]), [wanted[1]]);
    assert!(on(&[]).is_empty());
    // As many as there are similar ports at most, the wanted one first, within and last.
    for at in [0, 60, 120] {
        let mut ports: Vec<u16> = (1..=120).collect();
        ports.insert(at, wanted[0]);
        assert_eq!(on(&ports), [wanted[0]]);
    }
}

#[test]
fn a_socket_is_found_by_its_ends() {
    let (_server, local) = listener(Ipv4Addr::LOCALHOST);
    let client = TcpStream::connect(local).unwrap();
    let own = client.local_addr().unwrap();
    let sock = find(own, local).unwrap().unwrap();
    assert_eq!((sock.local, sock.remote), (own, local));
    assert_eq!(sock.state_name(), "ESTABLISHED");
    // Where no socket has them, the kernel answers with the listener.
    let nobody = SocketAddr::new(own.ip(), 1);
    assert_eq!(find(local, nobody).unwrap(), None);
    // A socket that waits for its end, and belongs to nobody.
    client.shutdown(std::net::Shutdown::Both).unwrap();
    drop(client);
    drop(_server);
    let sock = find(own, local).unwrap();
    assert!(sock.is_none_or(|sock| sock.inode == 0));
}

/// An IPv6 socket that talks IPv4.
#[test]
fn a_mapped_address_is_one_of_ipv4() {
    let (_server, local) = listener(Ipv4Addr::LOCALHOST);
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), local.port());
    let client = TcpStream::connect(mapped).unwrap();
    let own = client.local_addr().unwrap();
    let own = SocketAddr::new(own.ip().to_canonical(), own.port());
    assert_eq!(find(own, local).unwrap().unwrap().local, own);
}

/// The exact request does not find a socket that is bound to an interface.
#[test]
fn a_socket_bound_to_an_interface_is_found() {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockname, setsockopt,
        socket, sockopt::BindToDevice,
    };
    use std::os::fd::AsRawFd as _;
    let (_server, local) = listener(Ipv4Addr::LOCALHOST);
    let client = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )
    .unwrap();
    setsockopt(&client, BindToDevice, &"lo".into()).unwrap();
    connect(client.as_raw_fd(), &SockaddrStorage::from(local)).unwrap();
    let own: SockaddrStorage = getsockname(client.as_raw_fd()).unwrap();
    let own = SocketAddr::from(std::net::SocketAddrV4::from(*own.as_sockaddr_in().unwrap()));
    let sock = find(own, local).unwrap().unwrap();
    assert_eq!((sock.local, sock.device), (own, 1));
}

#[test]
fn finds_this_process_sockets() {
    let (_server, local) = listener(Ipv4Addr::LOCALHOST);
    let _clients = [(); 3].map(|()| TcpStream::connect(local).unwrap());
    let found = collect(|each| connected_to(local.port(), each));
    let to = found.iter().filter(|sock| sock.remote == local);
    assert_eq!(to.count(), 3);
    assert!(found.iter().all(DiagSocket::is_connected));
    let found = collect(|each| all(each));
    assert!(
        found
            .iter()
            .any(|sock| sock.local == local && sock.state == LISTEN)
    );
    assert!(found.iter().filter(|sock| sock.remote == local).count() == 3);
    let mut number = 0;
    all(|_| {
        number += 1;
        ControlFlow::Break(())
    })
    .unwrap();
    assert_eq!(number, 1, "it stops when told");
}

#[test]
fn a_dump_ends_with_its_time() {
    use std::time::{Duration, Instant};
    let past = Instant::now();
    let error = netlink::bounded(past, || all(|_| ControlFlow::Continue(()))).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    // Time passes while the answer is read.
    let (server, local) = listener(Ipv4Addr::LOCALHOST);
    // More than fit into a datagram.
    let connect = |_| (TcpStream::connect(local).unwrap(), server.accept().unwrap());
    let _both: Vec<_> = (0..200).map(connect).collect();
    let until = Instant::now() + Duration::from_millis(50);
    let error = netlink::bounded(until, || {
        all(|_| {
            std::thread::sleep(Duration::from_millis(1));
            ControlFlow::Continue(())
        })
    });
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(
        all(|_| ControlFlow::Continue(())).is_ok(),
        "the limit is gone"
    );
}
