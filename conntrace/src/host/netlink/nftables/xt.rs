//! Matches and targets of iptables, as `iptables-nft` stores them in `nf_tables`. Their structures
//! are in host byte order.

use super::{
    rule::{NftVerdict, reject},
    seen::{INVALID, Mark, NEW, PacketChange, PacketFacts},
    truth::{Truth, equal},
};
use crate::{
    diagnosis::firewall_facts,
    host::netlink::{u16_at, u32_at},
};

/// Effect of a target.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct XtTarget {
    pub(super) verdict: NftVerdict,
    pub(super) change: Option<PacketChange>,
}

/// Evaluates a match; `Unknown` for those not supported.
pub(super) fn matches(name: &[u8], revision: u32, info: &[u8], seen: &PacketFacts) -> Truth {
    match (name, revision) {
        (b"tcp", 0) => tcp(info, seen),
        (b"multiport", 1) => multiport(info, seen),
        (b"mark", 1) => mark(info, seen),
        (b"owner", 1) => owner(info, seen),
        (b"addrtype", 1) => address_type(info, seen),
        (b"conntrack", 1..=3) => conntrack(revision, info, seen),
        (b"state", 0) => u32_at(info, 0).map_or(Truth::Unknown, |mask| state(mask, seen)),
        _ => Truth::Unknown,
    }
}

/// Returns the effect of the target with this name.
pub(super) fn target(name: &[u8], info: &[u8], seen: &PacketFacts) -> XtTarget {
    let changes = |change| XtTarget {
        verdict: NftVerdict::Continue,
        change: Some(change),
    };
    let translates = |verdict, change| XtTarget {
        verdict,
        change: Some(change),
    };
    let ends = |verdict| XtTarget {
        verdict: NftVerdict::End(verdict),
        change: None,
    };
    match name {
        b"REJECT" => {
            // IP6T_TCP_RESET, IPT_TCP_RESET
            let reset = if seen.is_v6 { 6 } else { 7 };
            match u32_at(info, 0) {
                Some(with) => ends(reject(with == reset)),
                None => ends(firewall_facts::RuleVerdict::Unknown),
            }
        }
        b"DNAT" | b"REDIRECT" => translates(NftVerdict::Rewrite, PacketChange::Destination),
        b"SNAT" | b"MASQUERADE" => translates(NftVerdict::Accept, PacketChange::Source),
        // Translates the source at postrouting, the destination at output.
        b"NETMAP" => translates(NftVerdict::Accept, PacketChange::Header),
        b"MARK" | b"CONNMARK" | b"HMARK" | b"SET" => changes(PacketChange::Mark),
        b"NOTRACK" => changes(PacketChange::Untracked),
        // XT_CT_NOTRACK
        b"CT" if u16_at(info, 0).is_none_or(|flags| flags & 1 != 0) => {
            changes(PacketChange::Untracked)
        }
        b"NFQUEUE" => ends(firewall_facts::RuleVerdict::Queue),
        b"CT" | b"LOG" | b"NFLOG" | b"TCPMSS" | b"CLASSIFY" | b"DSCP" | b"TOS" | b"TTL" | b"HL"
        | b"ECN" | b"CHECKSUM" | b"AUDIT" | b"TRACE" | b"SECMARK" | b"CONNSECMARK"
        | b"TCPOPTSTRIP" | b"IDLETIMER" | b"LED" | b"RATEEST" | b"TEE" => XtTarget {
            verdict: NftVerdict::Continue,
            change: None,
        },
        _ => ends(firewall_facts::RuleVerdict::Unknown),
    }
}

fn within(port: Option<u16>, low: u16, high: u16) -> Truth {
    port.map(|port| (low..=high).contains(&port)).into()
}

/// Evaluates `struct xt_addrtype_info_v1`, for the destination only.
fn address_type(info: &[u8], seen: &PacketFacts) -> Truth {
    let [source, destination] = [0, 2].map(|at| u16_at(info, at));
    // XT_ADDRTYPE_INVERT_DEST
    let (Some(0), Some(wanted), Some(flags @ (0 | 2))) = (source, destination, u32_at(info, 4))
    else {
        return Truth::Unknown;
    };
    let is_it = seen.destination_type().map(|kind| wanted >> kind & 1 == 1);
    is_it.map(|is_it| is_it != (flags == 2)).into()
}

/// Evaluates `struct xt_tcp`.
fn tcp(info: &[u8], seen: &PacketFacts) -> Truth {
    let ports = [0, 2, 4, 6].map(|at| u16_at(info, at));
    let ([Some(s_low), Some(s_high), Some(d_low), Some(d_high)], Some(rest)) =
        (ports, info.get(8..).and_then(<[u8]>::first_chunk))
    else {
        return Truth::Unknown;
    };
    let [option, mask, flags, inverted] = *rest;
    let source = within(seen.source_port, s_low, s_high).invert(inverted & 1 != 0);
    let destination = within(seen.destination_port, d_low, d_high).invert(inverted & 2 != 0);
    let flags = equal(&[seen.flags().bitwise(mask, 0)], &[flags]).invert(inverted & 4 != 0);
    let option = if option == 0 {
        Truth::True
    } else {
        Truth::Unknown
    };
    source.and(destination).and(flags).and(option)
}

/// Evaluates `struct xt_multiport_v1`.
fn multiport(info: &[u8], seen: &PacketFacts) -> Truth {
    const PORTS: usize = 15;
    let (Some([flags, count]), Some(&inverted)) = (info.first_chunk(), info.get(47)) else {
        return Truth::Unknown;
    };
    let ends = [seen.source_port, seen.destination_port];
    let ends = match flags {
        0 => ends.get(..1),
        1 => ends.get(1..),
        2 => ends.get(..),
        _ => None,
    };
    let Some(ends) = ends else {
        return Truth::Unknown;
    };
    let port = |at| u16_at(info, 2 + 2 * at);
    let mut found = Truth::False;
    let mut at = 0;
    while at < usize::from(*count).min(PORTS) {
        let is_range = info.get(32 + at).is_some_and(|&flag| flag != 0);
        let last = at + usize::from(is_range);
        let (Some(low), Some(high)) = (port(at), port(last)) else {
            return Truth::Unknown;
        };
        for end in ends {
            found = found.or(within(*end, low, high));
        }
        at = last + 1;
    }
    found.invert(inverted != 0)
}

/// Evaluates `struct xt_mark_mtinfo1`.
fn mark(info: &[u8], seen: &PacketFacts) -> Truth {
    let (Some(mark), Some(mask), Some(&inverted)) = (u32_at(info, 0), u32_at(info, 4), info.get(8))
    else {
        return Truth::Unknown;
    };
    let masked = masked(seen.mark, mask, 0);
    equal(&masked, &mark.to_ne_bytes()).invert(inverted != 0)
}

/// Computes `(mark & mask) ^ xor`.
fn masked(mark: Mark, mask: u32, xor: u32) -> Mark {
    let (mask, xor) = (mask.to_ne_bytes(), xor.to_ne_bytes());
    let mut bytes = mark;
    for (byte, (mask, xor)) in bytes.iter_mut().zip(mask.into_iter().zip(xor)) {
        *byte = byte.bitwise(mask, xor);
    }
    bytes
}

/// Returns the mark that the target MARK sets (`struct xt_mark_tginfo2`).
pub(super) fn new_mark(name: &[u8], info: &[u8], seen: &PacketFacts) -> Option<Mark> {
    if name != b"MARK" || info.len() != 8 {
        return None;
    }
    let (mark, mask) = (u32_at(info, 0)?, u32_at(info, 4)?);
    Some(masked(seen.mark, !mask, mark))
}

/// Evaluates `struct xt_owner_match_info`.
fn owner(info: &[u8], seen: &PacketFacts) -> Truth {
    const UID: u8 = 1;
    let (Some(low), Some(high)) = (u32_at(info, 0), u32_at(info, 4)) else {
        return Truth::Unknown;
    };
    let (Some(&asked), Some(&inverted)) = (info.get(16), info.get(17)) else {
        return Truth::Unknown;
    };
    let uid = if asked & UID == 0 {
        Truth::True
    } else {
        let is_it = Truth::from(seen.uid.map(|uid| (low..=high).contains(&uid)));
        is_it.invert(inverted & UID != 0)
    };
    // The group, and the existence of a socket, are unknown.
    let rest = if asked & !UID == 0 {
        Truth::True
    } else {
        Truth::Unknown
    };
    uid.and(rest)
}

/// Evaluates `struct xt_conntrack_mtinfo1` to 3, if only states are compared.
fn conntrack(revision: u32, info: &[u8], seen: &PacketFacts) -> Truth {
    const STATE: u16 = 1;
    const STATE_ALIAS: u16 = 1 << 13;
    let (Some(asked), Some(inverted)) = (u16_at(info, 146), u16_at(info, 148)) else {
        return Truth::Unknown;
    };
    let mask = if revision == 1 {
        info.get(150).map(|&mask| u32::from(mask))
    } else {
        u16_at(info, 150).map(u32::from)
    };
    let Some(mask) = mask else {
        return Truth::Unknown;
    };
    let states = if asked & STATE == 0 {
        Truth::True
    } else {
        state(mask, seen).invert(inverted & STATE != 0)
    };
    let rest = if asked & !(STATE | STATE_ALIAS) == 0 {
        Truth::True
    } else {
        Truth::Unknown
    };
    states.and(rest)
}

/// Returns the certainty that the packet is in one of these states (`XT_CONNTRACK_STATE_BIT`). See
/// [`PacketFacts::state`].
fn state(mask: u32, seen: &PacketFacts) -> Truth {
    const ESTABLISHED_RELATED: u32 = 2 | 4;
    let new = u32::from(NEW);
    // An entry of connection tracking rules out INVALID.
    let invalid = if seen.is_tracked {
        u32::from(INVALID)
    } else {
        0
    };
    if !seen.is_new {
        Truth::Unknown
    } else if mask & new != 0 {
        Truth::True
    } else if mask & !(ESTABLISHED_RELATED | invalid) == 0 {
        Truth::False
    } else {
        Truth::Unknown
    }
}
