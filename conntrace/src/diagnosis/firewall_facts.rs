//! A packet, and the firewall rules that could have ended its way: the question and
//! the answer of a walk of the `nf_tables` ruleset.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A packet of a TCP handshake as this host's firewall sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FirewallPacket {
    /// The direction, and with it the TCP flags.
    pub direction: Direction,
    /// The other end: the destination of a SYN, the source of a SYN-ACK.
    pub remote: SocketAddr,
    /// This end's address.
    pub local: Option<IpAddr>,
    /// This end's port.
    pub local_port: Option<u16>,
    /// Name of the interface that the packet leaves or arrives by. The destination is
    /// this host itself if it is `lo`.
    pub device: Option<String>,
    /// Name of the interface that a forwarded packet leaves by.
    pub leaves_by: Option<String>,
    /// Other end before its translation in the namespace, if there is one.
    pub asked: Option<SocketAddr>,
    /// The packet's mark (`SO_MARK` of a SYN).
    pub mark: Option<u32>,
    /// The socket's user id in the first user namespace. `None` where it is not known, or
    /// the rules are of a network namespace that may belong to another user namespace.
    pub uid: Option<u32>,
}

/// The direction of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A SYN that leaves: hooks `output` and `postrouting`.
    Out,
    /// A SYN-ACK that arrives: hooks `prerouting` and `input`.
    In,
    /// A SYN that arrives in another namespace than it was sent from: where the hook
    /// `prerouting` leads it.
    Arriving,
    /// A SYN that arrives and is delivered in another namespace: hooks `prerouting` and `input`.
    Delivered,
    /// A SYN on its way through another namespace: hooks `prerouting`, `forward` and `postrouting`.
    Forwarded,
    /// A SYN-ACK on its way through another namespace: the same hooks.
    ForwardedBack,
    /// A SYN-ACK that leaves the server's namespace: hooks `output` and `postrouting`.
    OutBack,
}

impl Direction {
    /// Returns true for the way of a SYN-ACK.
    #[must_use]
    pub fn is_back(self) -> bool {
        match self {
            Self::In | Self::ForwardedBack | Self::OutBack => true,
            Self::Out | Self::Arriving | Self::Delivered | Self::Forwarded => false,
        }
    }
}

/// The observed end of a packet at a firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PacketEnd {
    /// It was dropped, and no answer was seen.
    Drop,
    /// It was answered with a RST.
    RejectByReset,
    /// It was answered with ICMP.
    RejectByIcmp,
    /// It went on to another destination.
    Rewrite,
}

/// The rules that could have ended a packet's way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// Those that match fully first, then in the order the packet meets them; at most
    /// four.
    pub found: Vec<MatchingRule>,
    /// Every rule that the packet may meet was looked at. If not, an empty `found`
    /// proves nothing: legacy iptables tables are loaded, the ruleset changed while it
    /// was read, or it exceeds a limit.
    pub complete: bool,
}

/// A rule, or the policy of a chain, that could have ended a packet's way so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchingRule {
    /// The table's family, as `nft` names it.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's handle; `None` for the policy of the chain.
    pub handle: Option<u64>,
    /// The rule's comment, or else that of the map's element whose verdict led there.
    pub comment: Option<String>,
    /// The verdict of the rule.
    pub verdict: RuleVerdict,
    /// The certainty that the packet meets the verdict.
    pub matches: Match,
}

/// The verdict of a rule that ends a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleVerdict {
    /// Drops the packet.
    Drop,
    /// Drops it and sends a RST to its source.
    RejectByReset,
    /// Drops it and sends an ICMP error to its source.
    RejectByIcmp,
    /// Hands it to a program (`NFQUEUE`), which may drop it.
    Queue,
    /// Gives it another destination (DNAT, REDIRECT, a transparent proxy).
    Rewrite,
    /// One that is unknown: of an iptables target, or of a map that could not be read.
    Unknown,
}

/// The certainty that a packet meets the verdict of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// Every condition of the rule and of the jumps to it holds, and no earlier rule
    /// could have ended the packet's way.
    Fully,
    /// A condition cannot be evaluated, or an earlier rule may have ended its way.
    Possibly,
}
