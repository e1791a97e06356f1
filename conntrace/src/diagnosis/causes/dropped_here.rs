use super::local_firewall;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding,
        firewall_facts::{Firewall, PacketEnd},
        place, step, way_drop, words,
    },
    record::{Label, ReplyKind, WayPacket},
};

/// This host itself dropped the packets, for a reason that is no rule of its firewall. The
/// kernel names the reason of every packet it drops (`kfree_skb`).
///
/// Reasons that only say that a neighbour or a route is missing are other rules'.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::DroppedHere,
    labels: &[Label::TimedOut],
    is: "This host dropped the packets, for a reason that no other cause covers.",
    means: "this host dropped the packets, for another reason",
    recognised: &[
        "The kernel dropped the SYN, or the answer to it, for a reason that no other cause covers: `evidence.drop_reason` is its name (enum skb_drop_reason, Linux 5.17 and later). Certain if every packet was dropped, else likely.",
        "Likely with NETFILTER_DROP: no rule that drops was found, so that connection tracking or NAT may have dropped the packet.",
    ],
    reasons: &[
        "The connection tracking table is full, or NAT has no port left (NETFILTER_DROP).",
        "A signature that is missing or wrong (TCP_MD5*, TCP_AO*): both sides need the same key.",
        "A queue was full (QDISC_DROP, TC_EGRESS).",
        "A checksum mismatch (TCP_CSUM, IP_CSUM), as offloading between virtual machines can leave it.",
        "A source address that the kernel does not take (IP_LOCAL_SOURCE, IP_INVALID_SOURCE, IP_LOCALNET).",
    ],
    steps: &[
        step(
            "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max",
            "a count at its maximum: raise nf_conntrack_max, in /etc/sysctl.d to keep it",
        ),
        step(
            "cat /proc/net/stat/nf_conntrack",
            "insert_failed and drop (hexadecimal, a line per CPU): numbers that grow with each attempt",
        ),
        step(
            "nft -a list ruleset",
            "rules that translate (snat, masquerade): a port range that is too narrow",
        ),
        step("tc -s qdisc show", "drops of each queue on each interface"),
        step(
            "nstat -z | grep -iE 'drop|csum|md5|filter'",
            "what has grown since it was run last",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "the kernel's own reason for a drop of every packet of the attempt",
        ),
        (
            Certainty::Likely,
            "the kernel's own reason for a drop of some packets, or NETFILTER_DROP without a rule",
        ),
    ],
};

/// Reasons that another rule explains, or that say nothing.
const OTHERS: [&str; 8] = [
    "DEV_READY",
    "IP_OUTNOROUTES",
    "NEIGH_CREATEFAIL",
    "NEIGH_DEAD",
    "NEIGH_FAILED",
    "NEIGH_HH_FILLFAIL",
    "NEIGH_QUEUEFULL",
    "NOT_SPECIFIED",
];

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let silent = matches!(case.reply, ReplyKind::None | ReplyKind::Local);
    if case.label != Label::TimedOut || !silent {
        return Ok(None);
    }
    let Some(drops) = case.drops else {
        return on_the_way(case, evidence);
    };
    let reason = evidence.drop_reason(drops.reason)?;
    if OTHERS.contains(&reason.as_str()) || local_firewall::who(&reason).is_some() {
        return Ok(None);
    }
    let (what, fix) = if reason == "NETFILTER_DROP" {
        match local_firewall::rules(case, PacketEnd::Drop, evidence) {
            Ok(rules) if !rules.found.is_empty() => return Ok(None),
            Ok(Firewall { complete: true, .. }) => unexplained(case.netns, evidence),
            Ok(_) | Err(_) => unread(case.netns, evidence),
        }
    } else {
        explained(case.netns, &reason, evidence)
    };
    let certainty = if drops.all && reason != "NETFILTER_DROP" {
        Certainty::Certain
    } else {
        Certainty::Likely
    };
    let which = if drops.all { "every packet" } else { "packets" };
    Ok(Some(Cause::new(
        Code::DroppedHere,
        certainty,
        &format!("this host itself dropped {which} of the attempt ({reason}): {what}"),
        &fix,
        Facts::new()
            .with("drop_reason", &reason)
            .with("remote", case.remote_socket())
            .with("all_dropped", drops.all),
    )))
}

/// A packet that was dropped after it had lost its socket: on loopback, or in another namespace.
fn on_the_way(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let Some((drop, reason)) = way_drop::named(case, evidence)? else {
        return Ok(None);
    };
    // What met no socket is refused, or came too late.
    if reason == "NO_SOCKET" || local_firewall::who(&reason).is_some() {
        return Ok(None);
    }
    let is_netfilter = reason == local_firewall::NETFILTER_DROP;
    let (what, fix) = if is_netfilter {
        match way_drop::rules(case, &drop, PacketEnd::Drop, evidence) {
            Ok(rules) if !rules.found.is_empty() => return Ok(None),
            Ok(Firewall { complete: true, .. }) => unexplained(drop.netns, evidence),
            Ok(_) | Err(_) => unread(drop.netns, evidence),
        }
    } else if reason == "IP_RPFILTER" && drop.packet == WayPacket::Syn {
        filtered_by_source(case, drop.netns, evidence)
    } else {
        explained(drop.netns, &reason, evidence)
    };
    let certainty = if drop.all && !is_netfilter && way_drop::is_on_way(case, &drop, evidence)? {
        Certainty::Certain
    } else {
        Certainty::Likely
    };
    let (packet, place) = (way_drop::packet(&drop), way_drop::place(case, drop.netns));
    let translation = way_drop::translation(case, &drop);
    let device = way_drop::device_name(&drop, evidence);
    let at = device.map_or_else(String::new, |device| format!(" at {device}"));
    Ok(Some(Cause::new(
        Code::DroppedHere,
        certainty,
        &format!("{translation}the {packet} was dropped in {place}{at} ({reason}): {what}"),
        &fix,
        way_drop::facts(case, &drop, &reason, evidence),
    )))
}

/// Netfilter dropped it, and its rules are unknown.
fn unread(netns: u32, evidence: &mut dyn Evidence) -> (String, String) {
    let [nft, legacy] = ["nft list ruleset", "iptables-legacy-save"]
        .map(|list| words::command_in(netns, list, evidence));
    (
        "netfilter did, and not all of its rules could be read".to_owned(),
        format!("look for rules that drop in {nft} and {legacy}"),
    )
}

/// Netfilter dropped it, and no rule that drops was found.
fn unexplained(netns: u32, evidence: &mut dyn Evidence) -> (String, String) {
    let used = "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max";
    let [used, count] = [used, "conntrack -S"].map(|it| words::command_in(netns, it, evidence));
    (
        "no rule that drops it was found, so that connection tracking or NAT may have: its table \
         is full, or it has no port left"
            .to_owned(),
        format!(
            "{used} compares the table with its size; {count} counts insert_failed and drop; widen the ports of MASQUERADE or SNAT rules"
        ),
    )
}

/// The reverse path filter of a namespace on the way dropped the SYN.
fn filtered_by_source(case: &Case, netns: u32, evidence: &mut dyn Evidence) -> (String, String) {
    let source = case.local_addr;
    let from = source.map_or_else(|| "SOURCE".to_owned(), |source| source.to_string());
    let source = source.map_or_else(String::new, |source| format!(" {source}"));
    let left_by = place::way_out(case, evidence).ok().flatten();
    let left_by = left_by.map_or_else(String::new, |out| {
        format!("; the client sends it by {}", out.device.name)
    });
    let loose = words::command_in(netns, "sysctl -w net.ipv4.conf.all.rp_filter=2", evidence);
    (
        format!(
            "the reverse path filter dropped it, because the way back to its source{source} is \
             another interface than it came by{left_by}"
        ),
        format!(
            "send it from an address of the interface that it leaves by, or route that source by its \
             own uplink (`ip rule add from {from} table TABLE` with a default route in that table); or \
             {loose} (rp_filter; also in /etc/sysctl.d) where such a way is meant"
        ),
    )
}

/// Reasons that are worth a sentence; the kernel's name says the others.
fn explained(netns: u32, reason: &str, evidence: &mut dyn Evidence) -> (String, String) {
    let (what, fix) = match reason {
        "IP_RPFILTER" => {
            let loose =
                words::command_in(netns, "sysctl -w net.ipv4.conf.all.rp_filter=2", evidence);
            return (
                "the reverse path filter dropped the answer, because the way back to its sender, \
                 looked up without the socket's mark, is another interface than it came by"
                    .to_owned(),
                format!(
                    "{loose} (rp_filter; also in /etc/sysctl.d); where routes go by marks, \
                     net.ipv4.conf.all.src_valid_mark=1; or mend the route back"
                ),
            );
        }
        reason if reason.starts_with("TCP_MD5") || reason.starts_with("TCP_AO") => (
            "the two sides do not agree on TCP MD5 or TCP-AO signatures",
            "set the same key on both sides, or on neither (BGP session passwords)",
        ),
        reason if reason.starts_with("QDISC") || reason.starts_with("FQ_") => {
            let show = words::command_in(netns, "tc -s qdisc show", evidence);
            return (
                "the queue of the interface was full, or its policy dropped the packet".to_owned(),
                format!("{show} counts the drops: raise the limit or the rate"),
            );
        }
        "IP_INADDRERRORS" | "IP_INNOROUTES" => {
            let show = words::command_in(netns, "sysctl net.ipv4.ip_forward", evidence);
            let routes = words::command_in(netns, "ip route", evidence);
            return (
                "there is no way on from there: it does not forward, or has no route to the \
                 destination or back"
                    .to_owned(),
                format!("{show} must be 1 where it is the gateway; {routes} shows its routes"),
            );
        }
        "IP_LOCAL_SOURCE" => (
            "the source address is one of that namespace's own, and packets from itself do not come \
             from outside: a hairpin, or a mark with src_valid_mark",
            "connect to the destination's own address instead of the translated one, or masquerade \
             connections that come back to their own network",
        ),
        "IP_LOCALNET" => {
            let route = "sysctl -w net.ipv4.conf.all.route_localnet=1";
            let route = words::command_in(netns, route, evidence);
            return (
                "127.0.0.0/8 came from outside of loopback, or loopback is down".to_owned(),
                format!(
                    "{route} allows translations to it; or let the server listen on another address"
                ),
            );
        }
        reason if reason.starts_with("NEIGH_") => (
            "the next host there does not answer for its link-layer address",
            "start that host, or correct the address or the route to it",
        ),
        "TCP_LISTEN_OVERFLOW" => (
            "the server's accept queue is full",
            "let the server accept faster, or raise its backlog and net.core.somaxconn",
        ),
        "TCP_MINTTL" => (
            "the server wants a smaller distance (IP_MINTTL, such as a BGP session's TTL security)",
            "connect from a neighbour of the server, or raise the permitted number of hops there",
        ),
        _ => (
            "the kernel names no more than this reason",
            "search for the reason in include/net/dropreason-core.h of the kernel source; \
             `perf trace -e skb:kfree_skb` shows where it is dropped",
        ),
    };
    (what.to_owned(), fix.to_owned())
}
