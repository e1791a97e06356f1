//! Where a destination is.

use std::net::IpAddr;

use super::{
    Case, Evidence,
    ask::{Neighbour, Route, RouteOut},
    proxy_in_path,
};
use crate::{errno::Errno, label::Label, reply::ReplyKind, wire::Remote};

/// The destination that refused the attempt with a RST and is no proxy of the
/// process's: of a proxy there is more to say. After SYNs that crossed
/// (`ECONNRESET`) the other side was there and spoke TCP.
pub(super) fn reset_by(case: &Case, evidence: &mut dyn Evidence) -> Option<Remote> {
    let reset = case.label == Label::Refused && case.reply == ReplyKind::Rst;
    if !reset || case.errno != Some(Errno::ECONNREFUSED) {
        return None;
    }
    let to_proxy = proxy_in_path::variable(case, evidence).is_some();
    case.remote.filter(|_| !to_proxy)
}

/// The network namespace of this host whose own address the destination is.
pub(super) fn home(case: &Case, evidence: &mut dyn Evidence) -> Option<u32> {
    let to = case.remote?.addr;
    match evidence.route(case.netns, to, case.local_addr)? {
        Route::Local => Some(case.netns),
        Route::Out(RouteOut {
            gateway: None,
            device,
            ..
        }) => evidence.owner(case.netns, device.index, to)?,
        Route::Out(_) | Route::None(_) => None,
    }
}

/// The way out that the attempt took.
pub(super) fn way_out(case: &Case, evidence: &mut dyn Evidence) -> Option<RouteOut> {
    match evidence.route(case.netns, case.remote?.addr, case.local_addr)? {
        Route::Out(out) => Some(out),
        Route::Local | Route::None(_) => None,
    }
}

/// The errno of a connect that finds no way.
pub(super) fn no_way(case: &Case, evidence: &mut dyn Evidence) -> Option<i32> {
    match evidence.route(case.netns, case.remote?.addr, case.local_addr)? {
        Route::None(errno) => Some(errno),
        Route::Local | Route::Out(_) => None,
    }
}

/// Whether a neighbour did not answer, and whether that is final.
pub(super) fn silent(
    case: &Case,
    out: &RouteOut,
    addr: IpAddr,
    evidence: &mut dyn Evidence,
) -> Option<Neighbour> {
    let state = evidence.neighbour(case.netns, out.device.index, addr)?;
    match state {
        Neighbour::Incomplete | Neighbour::Failed => Some(state),
        Neighbour::Known | Neighbour::Absent => None,
    }
}

/// Whether an address is of those that no router of the internet knows: RFC 1918,
/// RFC 6598, unique local.
pub(super) fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, ..] = addr.octets();
            addr.is_private() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(addr) => addr.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses() {
        for (addr, expected) in [
            ("10.1.2.3", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.168.0.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("169.254.1.1", false),
            ("fd00::1", true),
            ("fe80::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(addr.parse().unwrap()), expected, "{addr}");
        }
    }
}
