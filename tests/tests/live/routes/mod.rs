//! Routes, rules and interfaces as conntrace reads them, compared with the kernel's connect and
//! with `ip`.

mod links;
mod rules;
mod scenes;

use std::{
    fmt::Write as _,
    net::SocketAddr,
    process::{Command, ExitCode},
    thread,
};

use conntrace::{
    diagnosis::way::{Flow, Route, RouteOut},
    host::route,
};
use conntrace_tests::{ip, run, tcp, unless, with_ip};
use nix::{
    errno::Errno,
    net::if_::{if_indextoname, if_nametoindex},
    sched::{CloneFlags, unshare},
    unistd::{Uid, setfsuid},
};
use socket2::SockAddr;

use crate::routes::scenes::{BY_SOURCE, RouteScene, SCENES};

/// Commands for two links, each with both ends in this namespace.
const LINKS: &[&str] = &[
    "link set lo up",
    "link add e0 type veth peer name p0",
    "link add e1 type veth peer name p1",
    "link set e0 up",
    "link set p0 up",
    "link set e1 up",
    "link set p1 up",
    "addr add 10.0.0.1/24 dev e0",
    "addr add 10.8.0.1/24 dev e1",
    "addr add fd00::1/64 dev e0 nodad",
    "addr add fd08::1/64 dev e1 nodad",
];

pub(crate) fn main() -> ExitCode {
    let mut tests = vec![
        with_ip("rule_texts", rules::rule_texts),
        with_ip("multipath", rules::multipath),
        with_ip("cannot_tell", rules::cannot_tell),
        with_ip("too_many_routes", rules::too_many_routes),
        with_ip("covering", rules::covering),
        with_ip("links", links::links),
        with_ip("addresses", links::addresses),
        with_ip("link_local", links::link_local),
        unless(rules::lacks_vrf(), with_ip("vrf", rules::vrf)),
    ];
    for scene in SCENES {
        tests.push(with_ip(scene.name, || play(scene)));
    }
    run(tests)
}

/// Runs a test on a thread with its own network namespace.
fn in_namespace(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test();
        });
        thread.join().unwrap();
    });
}

fn with_links(setup: &[&str], test: impl FnOnce() + Send) {
    in_namespace(|| {
        LINKS.iter().chain(setup).for_each(|words| ip(words));
        test();
    });
}

fn play(scene: &RouteScene) {
    with_links(scene.setup, || {
        for (words, route, dead_end) in scene.ways {
            let way = way(words);
            assert_eq!(shown(&way), *route, "route of {words}");
            assert_eq!(forbidden(&way), *dead_end, "what forbids {words}");
            assert_eq!(by_connect(&way), by_route(&way), "connect to {words}");
            if is_as_ip_asks(scene, &way) {
                assert_eq!(by_ip(words), without_table(route), "ip route get {words}");
            }
        }
    });
}

/// Returns true if `ip` asks the kernel the same question. It looks up only once, and a source
/// makes the device of an IPv6 request a mere preference.
fn is_as_ip_asks(scene: &RouteScene, way: &Flow) -> bool {
    let prefers = way.to.is_ipv6() && way.from.is_some() && way.device.is_some();
    scene.name != BY_SOURCE && !prefers
}

fn way(words: &str) -> Flow {
    let mut words = words.split(' ');
    let mut way = Flow {
        to: words.next().unwrap().parse().unwrap(),
        from: None,
        device: None,
        mark: 0,
        uid: Some(0),
        port: 443,
    };
    while let Some(word) = words.next() {
        let value = words.next().unwrap();
        let number = || match value.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
            None => value.parse().unwrap(),
        };
        match word {
            "from" => way.from = Some(value.parse().unwrap()),
            "oif" => way.device = Some(if_nametoindex(value).unwrap()),
            "mark" => way.mark = number(),
            "uid" => way.uid = Some(number()),
            "dport" => way.port = number().try_into().unwrap(),
            other => unreachable!("{other}"),
        }
    }
    way
}

fn out(out: &RouteOut) -> String {
    let mut shown = out
        .gateway
        .map(|it| format!("via {it} "))
        .unwrap_or_default();
    let (name, len, table) = (&out.device.name, out.prefix_len, out.table);
    write!(shown, "dev {name} /{len} table {table}").unwrap();
    shown
}

fn shown(way: &Flow) -> String {
    match route::route(way).unwrap() {
        Route::Local => "local".to_owned(),
        Route::Out(found) => out(&found),
        Route::None(errno) => format!("{:?}", Errno::from_raw(errno)),
    }
}

fn forbidden(way: &Flow) -> String {
    let Some(found) = route::dead_end(way).unwrap() else {
        return String::new();
    };
    let mut shown = format!(
        "{:?} by {}: {}",
        found.kind, found.rule.priority, found.rule.text
    );
    if let (Some((addr, len)), Some(table)) = (found.prefix, found.table) {
        write!(shown, "; {addr}/{len} in {table}").unwrap();
    }
    if let Some(instead) = &found.instead {
        write!(shown, "; instead {}", out(instead)).unwrap();
    }
    shown
}

/// Connects, and returns the errno if no route is found.
fn by_connect(way: &Flow) -> Option<Errno> {
    let remote = SocketAddr::new(way.to, way.port);
    // The kernel takes a socket's user from the thread that creates it.
    setfsuid(Uid::from_raw(way.uid.unwrap()));
    let socket = tcp(remote);
    setfsuid(Uid::from_raw(0));
    socket.set_nonblocking(true).unwrap();
    if let Some(device) = way.device {
        let name = if_indextoname(device).unwrap();
        socket.bind_device(Some(name.as_bytes())).unwrap();
    }
    socket.set_mark(way.mark).unwrap();
    if let Some(from) = way.from {
        // The bind may use an address that is not assigned here.
        if from.is_ipv4() {
            socket.set_freebind_v4(true).unwrap();
        }
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    }
    let errno = socket.connect(&SockAddr::from(remote)).err();
    let errno = errno.and_then(|error| error.raw_os_error());
    let errno = errno.map(Errno::from_raw);
    // This host itself has no listener.
    errno.filter(|errno| ![Errno::EINPROGRESS, Errno::ECONNREFUSED].contains(errno))
}

fn by_route(way: &Flow) -> Option<Errno> {
    match route::route(way).unwrap() {
        Route::None(errno) => Some(Errno::from_raw(errno)),
        Route::Local | Route::Out(_) => None,
    }
}

/// Runs `ip route get`; returns `local`, `via X dev Y`, or the errno.
fn by_ip(words: &str) -> String {
    let port = if words.contains("dport") {
        ""
    } else {
        " dport 443"
    };
    let uid = if words.contains("uid") { "" } else { " uid 0" };
    let all = format!("route get {words}{port}{uid} ipproto 6");
    let (errors, found) = output(&all.split(' ').collect::<Vec<_>>());
    for (text, errno) in [
        ("No route to host", "EHOSTUNREACH"),
        ("Network is unreachable", "ENETUNREACH"),
        ("Invalid argument", "EINVAL"),
        ("Permission denied", "EACCES"),
    ] {
        if errors.contains(text) {
            return errno.to_owned();
        }
    }
    if found.starts_with("local ") {
        return "local".to_owned();
    }
    let mut words = found.split_whitespace().skip(1);
    let mut shown = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "via" | "dev" => shown.extend([word, words.next().unwrap()]),
            _ => {}
        }
    }
    shown.join(" ")
}

fn without_table(route: &str) -> &str {
    route.split(" /").next().unwrap()
}

/// Returns the stderr and stdout of `ip`.
fn output(words: &[&str]) -> (String, String) {
    let output = Command::new("ip").args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stderr), text(output.stdout))
}
