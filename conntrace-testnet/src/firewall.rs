//! A firewall rule of the calling thread's namespace, by `nf_tables` itself.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// Verdict on a packet that the rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirewallVerdict {
    /// Drops the packet.
    Drop,
    /// Answers the packet with ICMP port unreachable.
    RejectByIcmp,
    /// Answers the packet with a RST.
    RejectByReset,
}

/// `NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND`.
const FLAGS: u16 = 0x1 | 0x400 | 0x800;
const NLM_F_ACK: u16 = 0x4;
const NLA_F_NESTED: u16 = 0x8000;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u8 = 10;
const NEW_TABLE: u16 = 10 << 8;
const NEW_CHAIN: u16 = (10 << 8) + 3;
const NEW_RULE: u16 = (10 << 8) + 6;
const NFPROTO_INET: u8 = 1;

/// `NF_INET_LOCAL_OUT`.
const OUTPUT_HOOK: u32 = 3;
const CHAIN: &[u8] = b"output\0";
/// `NFT_META_L4PROTO`.
const L4_PROTOCOL: u32 = 16;
const TCP: u8 = 6;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`, where TCP has the destination port.
const TRANSPORT_HEADER: u32 = 2;
const DPORT_OFFSET: u32 = 2;
const DPORT_BYTES: u32 = 2;
/// `NFT_REG_1`.
const REGISTER: u32 = 1;
/// `NFT_REJECT_TCP_RST`, `NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_PORT_UNREACH`.
const BY_RESET: u32 = 1;
const BY_ICMPX: u32 = 2;
const PORT_UNREACHABLE: u8 = 1;

/// Adds a rule for TCP packets that leave for this port, IPv4 and IPv6. Each port may have one
/// rule.
///
/// # Errors
/// When the kernel has no `nf_tables` for that, or refuses.
pub fn firewall(port: u16, verdict: FirewallVerdict) -> io::Result<()> {
    set(port, verdict)
        .map_err(|error| io::Error::new(error.kind(), format!("nf_tables takes no rule: {error}")))
}

fn set(port: u16, verdict: FirewallVerdict) -> io::Result<()> {
    let socket = &mut Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.send_to(&batch(port, verdict)?, &SocketAddr::new(0, 0), 0)?;
    // The first error, or the acknowledgement of the last message.
    let (reply, _) = socket.recv_from_full()?;
    let code = reply.get(16..20).and_then(|bytes| bytes.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("the answer is not an acknowledgement")),
    }
}

/// Builds one transaction with a table, a chain and a rule.
fn batch(port: u16, verdict: FirewallVerdict) -> io::Result<Vec<u8>> {
    let table = format!("port{port}\0").into_bytes();
    let hook = [number(1, OUTPUT_HOOK)?, number(2, 0)?].concat();
    let chain = [
        attribute(1, &table)?,
        attribute(3, CHAIN)?,
        attribute(4 | NLA_F_NESTED, &hook)?,
        attribute(7, b"filter\0")?,
    ];
    let rule = [
        attribute(1, &table)?,
        attribute(2, CHAIN)?,
        attribute(4 | NLA_F_NESTED, &expressions(port, verdict)?)?,
    ];
    Ok([
        message(BATCH_BEGIN, 0, SUBSYSTEM, &[])?,
        message(NEW_TABLE, 0, 0, &attribute(1, &table)?)?,
        message(NEW_CHAIN, 0, 0, &chain.concat())?,
        message(NEW_RULE, NLM_F_ACK, 0, &rule.concat())?,
        message(BATCH_END, 0, SUBSYSTEM, &[])?,
    ]
    .concat())
}

/// `meta l4proto tcp`, `tcp dport PORT`, and the verdict.
fn expressions(port: u16, verdict: FirewallVerdict) -> io::Result<Vec<u8>> {
    let protocol = [number(1, REGISTER)?, number(2, L4_PROTOCOL)?];
    let dport = [
        number(1, REGISTER)?,
        number(2, TRANSPORT_HEADER)?,
        number(3, DPORT_OFFSET)?,
        number(4, DPORT_BYTES)?,
    ];
    let last = match verdict {
        FirewallVerdict::Drop => {
            // NF_DROP, into the register of verdicts: both are 0.
            let code = attribute(2 | NLA_F_NESTED, &number(1, 0)?)?;
            let drop = [number(1, 0)?, attribute(2 | NLA_F_NESTED, &code)?];
            expression(b"immediate\0", &drop.concat())
        }
        FirewallVerdict::RejectByIcmp => {
            let reject = [number(1, BY_ICMPX)?, attribute(2, &[PORT_UNREACHABLE])?];
            expression(b"reject\0", &reject.concat())
        }
        FirewallVerdict::RejectByReset => expression(b"reject\0", &number(1, BY_RESET)?),
    };
    Ok([
        expression(b"meta\0", &protocol.concat())?,
        equals(&[TCP])?,
        expression(b"payload\0", &dport.concat())?,
        equals(&port.to_be_bytes())?,
        last?,
    ]
    .concat())
}

/// Compares the register with `value`.
fn equals(value: &[u8]) -> io::Result<Vec<u8>> {
    let compare = [
        number(1, REGISTER)?,
        // NFT_CMP_EQ.
        number(2, 0)?,
        attribute(3 | NLA_F_NESTED, &attribute(1, value)?)?,
    ];
    expression(b"cmp\0", &compare.concat())
}

fn expression(name: &[u8], data: &[u8]) -> io::Result<Vec<u8>> {
    let element = [attribute(1, name)?, attribute(2 | NLA_F_NESTED, data)?];
    attribute(1 | NLA_F_NESTED, &element.concat())
}

/// Encodes a number in network byte order, as `nf_tables` expects.
fn number(kind: u16, value: u32) -> io::Result<Vec<u8>> {
    attribute(kind, &value.to_be_bytes())
}

/// Encodes a `struct nlattr` and its value, padded.
fn attribute(kind: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(4 + value.len()).map_err(io::Error::other)?;
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(bytes)
}

/// `struct nlmsghdr`, `struct nfgenmsg` with its resource, and the attributes.
fn message(kind: u16, flags: u16, resource: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(16 + 4 + attributes.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((FLAGS | flags).to_ne_bytes());
    // Sequence number and port id: only one message is acknowledged.
    bytes.extend([0; 8]);
    bytes.extend([NFPROTO_INET, 0, 0, resource]);
    bytes.extend(attributes);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_messages_of_the_length_they_say() {
        for verdict in [
            FirewallVerdict::Drop,
            FirewallVerdict::RejectByIcmp,
            FirewallVerdict::RejectByReset,
        ] {
            let bytes = batch(u16::MAX, verdict).unwrap();
            let (mut rest, mut kinds) = (&bytes[..], Vec::new());
            while let Some(length) = rest.first_chunk() {
                kinds.push(u16::from_ne_bytes([rest[4], rest[5]]));
                rest = &rest[u32::from_ne_bytes(*length) as usize..];
            }
            let expected = [BATCH_BEGIN, NEW_TABLE, NEW_CHAIN, NEW_RULE, BATCH_END];
            assert_eq!(kinds, expected);
            assert!(rest.is_empty());
        }
    }
}
