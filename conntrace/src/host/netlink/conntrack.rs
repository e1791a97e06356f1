//! Entries of connection tracking in the calling thread's network namespace, asked for through
//! `ctnetlink`, one at a time.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{attributes, push};
use crate::{diagnosis::question::TrackedSyn, host::netlink};

/// `IPCTNL_MSG_CT_NEW` of `NFNL_SUBSYS_CTNETLINK`; the request `IPCTNL_MSG_CT_GET` is one more.
const ENTRY: u16 = 1 << 8;
/// `NLM_F_REQUEST | NLM_F_ACK`. The answer says that more follows (`NLM_F_MULTI`), and the
/// acknowledgement ends it.
const REQUEST: u16 = 0x1 | 0x4;
/// `NLA_F_NESTED`, of an attribute that holds attributes; the type without it and
/// `NLA_F_NET_BYTEORDER`.
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;
/// Size of `struct nfgenmsg`.
const HEADER_LEN: usize = 4;

/// `enum ctattr_type`.
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
/// `enum ctattr_tuple`, `ctattr_ip`, `ctattr_l4proto`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const V4_SRC: u16 = 1;
const V4_DST: u16 = 2;
const V6_SRC: u16 = 3;
const V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const SRC_PORT: u16 = 2;
const DST_PORT: u16 = 3;
/// `CTA_PROTOINFO_TCP` and, within it, `CTA_PROTOINFO_TCP_STATE`.
const PROTOINFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
/// `TCP_CONNTRACK_SYN_SENT`.
const SYN_SENT: u8 = 1;
/// `IPS_SEEN_REPLY`.
const SEEN_REPLY: u32 = 1 << 1;

/// Exists in a namespace if the kernel tracks connections.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// Finds the entry of a SYN by its ends, if nobody has answered it yet. An entry that was answered is
/// of an earlier connection with the same ends.
///
/// # Errors
/// See [`netlink::exchange`]. `Unsupported` if the kernel tracks connections and cannot be asked.
pub(crate) fn unanswered(client: SocketAddr, remote: SocketAddr) -> io::Result<Option<TrackedSyn>> {
    let family = match remote {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let mut body = vec![u8::try_from(family).unwrap_or_default(), 0, 0, 0];
    push(&mut body, TUPLE_ORIG | NESTED, &tuple(client, remote));
    let request = netlink::request(ENTRY + 1, REQUEST, &body)?;
    let mut found = None;
    let outcome = netlink::exchange(NETLINK_NETFILTER, &request, |kind, message| {
        if kind == ENTRY {
            found = message.get(HEADER_LEN..).and_then(unanswered_entry);
        }
        Ok(())
    })?;
    match outcome {
        Ok(()) => Ok(found.map(|(leaves_from, leads_to)| TrackedSyn {
            client,
            leaves_from,
            leads_to,
        })),
        // The part of the kernel that answers is not there (`nfnetlink_rcv_msg`).
        Err(libc::EINVAL | libc::EOPNOTSUPP) if Path::new(COUNT).exists() => {
            Err(io::ErrorKind::Unsupported.into())
        }
        Err(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Encodes the attributes of a TCP tuple.
fn tuple(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut ip = Vec::new();
    for (end, v4, v6) in [(from, V4_SRC, V6_SRC), (to, V4_DST, V6_DST)] {
        match end.ip() {
            IpAddr::V4(addr) => push(&mut ip, v4, &addr.octets()),
            IpAddr::V6(addr) => push(&mut ip, v6, &addr.octets()),
        }
    }
    let mut proto = Vec::new();
    let tcp = u8::try_from(libc::IPPROTO_TCP).unwrap_or_default();
    push(&mut proto, PROTO_NUM, &[tcp]);
    push(&mut proto, SRC_PORT, &from.port().to_be_bytes());
    push(&mut proto, DST_PORT, &to.port().to_be_bytes());
    let mut tuple = Vec::new();
    push(&mut tuple, TUPLE_IP | NESTED, &ip);
    push(&mut tuple, TUPLE_PROTO | NESTED, &proto);
    tuple
}

/// Returns source and destination of the SYN as it leaves, which are the ends of the expected answer;
/// `None` of an entry that was answered.
fn unanswered_entry(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let status = attribute(bytes, STATUS)?.first_chunk()?;
    let info = attribute(attribute(bytes, PROTOINFO)?, PROTOINFO_TCP)?;
    let state = attribute(info, TCP_STATE)?.first()?;
    if u32::from_be_bytes(*status) & SEEN_REPLY != 0 || *state != SYN_SENT {
        return None;
    }
    let reply = attribute(bytes, TUPLE_REPLY)?;
    let ip = attribute(reply, TUPLE_IP)?;
    let proto = attribute(reply, TUPLE_PROTO)?;
    let addr = |v4, v6| -> Option<IpAddr> {
        if let Some(octets) = attribute(ip, v4) {
            return Some(IpAddr::from(*octets.first_chunk::<4>()?));
        }
        Some(IpAddr::from(*attribute(ip, v6)?.first_chunk::<16>()?))
    };
    let port = |kind| Some(u16::from_be_bytes(*attribute(proto, kind)?.first_chunk()?));
    let from = SocketAddr::new(addr(V4_SRC, V6_SRC)?, port(SRC_PORT)?);
    let to = SocketAddr::new(addr(V4_DST, V6_DST)?, port(DST_PORT)?);
    Some((to, from))
}

fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut all = attributes(bytes);
    let (_, value) = all.find(|(kind, _)| kind & TYPE_MASK == wanted)?;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entry of a SYN that masquerade and DNAT translate.
    fn entry(status: u32, state: u8) -> Vec<u8> {
        let (server, node) = ("10.78.0.2:8000", "10.78.0.1:40001");
        let (client, service) = ("10.77.0.2:40001", "10.96.0.50:80");
        let tuple = |from: &str, to: &str| tuple(from.parse().unwrap(), to.parse().unwrap());
        let mut tcp = Vec::new();
        push(&mut tcp, TCP_STATE, &[state]);
        let mut info = Vec::new();
        push(&mut info, PROTOINFO_TCP | NESTED, &tcp);
        let mut bytes = Vec::new();
        push(&mut bytes, TUPLE_ORIG | NESTED, &tuple(client, service));
        push(&mut bytes, TUPLE_REPLY | NESTED, &tuple(server, node));
        push(&mut bytes, STATUS, &status.to_be_bytes());
        push(&mut bytes, PROTOINFO | NESTED, &info);
        bytes
    }

    #[test]
    fn an_entry_says_where_its_answer_comes_from() {
        let (from, to) = unanswered_entry(&entry(0x1b8, SYN_SENT)).unwrap();
        assert_eq!(from, "10.78.0.1:40001".parse().unwrap());
        assert_eq!(to, "10.78.0.2:8000".parse().unwrap());
    }

    #[test]
    fn an_answered_entry_is_of_an_earlier_connection() {
        assert_eq!(unanswered_entry(&entry(0x1b8 | SEEN_REPLY, SYN_SENT)), None);
        for state in [0, 2, 3, 7] {
            assert_eq!(unanswered_entry(&entry(0x1b8, state)), None, "{state}");
        }
    }

    #[test]
    fn a_cut_entry_says_nothing() {
        let whole = entry(0x1b8, SYN_SENT);
        for len in 0..whole.len() {
            assert_eq!(unanswered_entry(&whole[..len]), None, "{len}");
        }
    }
}
