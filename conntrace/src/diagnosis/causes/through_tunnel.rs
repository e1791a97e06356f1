use super::proxy_in_path;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, Undiagnosed,
        place::{self, TunnelEntry},
        question::NamedProcess,
        step,
        tunnel_facts::{Tunnel, WireguardHandshake},
        words,
    },
    record::{Label, ReplyKind},
};

/// The packets leave by a tunnel, and nothing came back: its far end cannot be seen from here, and is
/// to be looked at before the destination.
///
/// Wrong when the tunnel works, nothing else has shown it lately, and the host alone is down.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::ThroughTunnel,
    labels: &[Label::TimedOut],
    is: "The packets leave by a tunnel (VPN, overlay network), and nothing came back.",
    means: "it leaves by a tunnel and nothing came back",
    recognised: &[
        "Likely: the way leads into a WireGuard interface of the kernel whose peer for the destination never completed a handshake, or not for three minutes, after which its keys have expired.",
        "Likely: the way leads into a tunnel that has not received a single packet since it was made.",
        "Possible: the way leads into a tunnel, and nothing shows that it works. The way is followed through this machine's network namespaces.",
        "Not told where the tunnel works: the host answered on whatever port in the last ten minutes, another connection from an address of the tunnel's interface was acknowledged in the last minute, or the WireGuard peer's keys are valid.",
    ],
    reasons: &[
        "The VPN's peer is off, its endpoint or key is wrong, or its port is blocked.",
        "The peer does not allow this address, or has no route back (allowed IPs, iroute, subnet router).",
        "The underlay drops the tunnel's packets: UDP ports of WireGuard or VXLAN, the protocols of GRE and ESP.",
        "The tunnel works, and the host behind it is down.",
    ],
    steps: &[
        step(
            "wg show DEVICE",
            "WireGuard: the peers, their endpoints and their latest handshakes; none means that nothing gets through",
        ),
        step(
            "ip -d -s link show DEVICE",
            "the kind of the tunnel, its far end where it has one, and how many packets it has received",
        ),
        step(
            "journalctl -b -u 'openvpn*' -u tailscaled",
            "the log of the program that holds a TUN device",
        ),
        step(
            "ip xfrm state",
            "IPsec: whether there are security associations",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Likely,
            "a tunnel on the way that has received nothing since it was made, or whose WireGuard peer \
             has no valid keys",
        ),
        (
            Certainty::Possible,
            "a tunnel on the way, of which nothing shows that it works",
        ),
    ],
};

/// Seconds after which the keys of a WireGuard session are rejected (`REJECT_AFTER_TIME`).
const KEYS_VALID_S: u64 = 180;
/// Seconds for which a sign of life of another connection shows that the tunnel works.
const ALIVE_S: u64 = 60;

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let silent = case.label == Label::TimedOut && case.reply == ReplyKind::None;
    let sent = case.own_failure.is_none() && case.drops.is_none() && case.heard.outwaited;
    if !silent || !sent || !case.is_free_of_drops()? {
        return Ok(None);
    }
    let (Some(to), Some(entry)) = (case.remote, place::tunnel(case, evidence)?) else {
        return Ok(None);
    };
    // What is led elsewhere does not go that way.
    if proxy_in_path::rewriting(case, None, evidence)?.may_be() {
        return Ok(None);
    }
    let state = evidence.tunnel(entry.netns, entry.device, to.addr)?;
    let Some(sign) = Sign::of(case, &state)? else {
        return Ok(None);
    };
    let holder = match entry.link.kind.as_deref() {
        // Nobody else is known to hold it where that could not be found out.
        Some("tun") => evidence
            .tun_holder(entry.netns, entry.link.name.clone())
            .unwrap_or_default(),
        Some(_) | None => None,
    };
    let TunnelEntry { netns, link, .. } = &entry;
    let place = if *netns == case.netns {
        String::new()
    } else {
        format!(" in network namespace {netns} of this machine")
    };
    let (name, kind) = (&link.name, kind(&entry, holder.as_ref()));
    Ok(Some(Cause::new(
        Code::ThroughTunnel,
        sign.certainty(),
        &format!(
            "the way to {} leaves by {name}{place}, {kind}, and nothing came back: {}",
            to.addr,
            sign.words(&state)
        ),
        &fix(&entry, holder.as_ref(), sign, evidence),
        facts(&entry, holder.as_ref(), &state),
    )))
}

/// Sign that the tunnel is to blame, from the surest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// The peer never completed a handshake.
    NoHandshake,
    /// The last handshake was so many seconds ago.
    KeysExpired(u64),
    /// No packet was ever received.
    NothingReceived,
    /// None.
    None,
}

impl Sign {
    /// `None` if the tunnel works.
    fn of(case: &Case, state: &Tunnel) -> Result<Option<Self>, Undiagnosed> {
        match state.peer.as_ref().map(|peer| peer.handshake) {
            Some(WireguardHandshake::Never) => return Ok(Some(Self::NoHandshake)),
            Some(WireguardHandshake::Ago(ago_s)) if ago_s > KEYS_VALID_S => {
                return Ok(Some(Self::KeysExpired(ago_s)));
            }
            Some(WireguardHandshake::Ago(_)) => return Ok(None),
            None => {}
        }
        let heard = &case.heard;
        let host_answered = heard.handshake_lately().is_some() || heard.reset_lately().is_some();
        let other_heard = state.heard.is_some_and(|other| other.ago_s <= ALIVE_S);
        if host_answered || other_heard {
            return Ok(None);
        }
        if state.received == 0 {
            return Ok(Some(Self::NothingReceived));
        }
        if heard.may_be_forgotten {
            return Err(Undiagnosed::Incomplete);
        }
        Ok(Some(Self::None))
    }

    fn certainty(self) -> Certainty {
        match self {
            Self::NoHandshake | Self::KeysExpired(_) | Self::NothingReceived => Certainty::Likely,
            Self::None => Certainty::Possible,
        }
    }

    fn words(self, state: &Tunnel) -> String {
        let endpoint = state.peer.as_ref().and_then(|peer| peer.endpoint);
        let peer = endpoint.map_or_else(
            || "its WireGuard peer, which has no endpoint,".to_owned(),
            |endpoint| format!("its WireGuard peer {endpoint}"),
        );
        match self {
            Self::NoHandshake => {
                format!("{peer} has not completed a handshake since it was configured")
            }
            Self::KeysExpired(ago_s) => {
                format!(
                    "{peer} completed its last handshake {ago_s} s ago, and its keys have expired"
                )
            }
            Self::NothingReceived => {
                "the tunnel has not received a packet since it was made".to_owned()
            }
            Self::None => "the tunnel, its far end or the host behind it may be down".to_owned(),
        }
    }
}

/// `a TUN device of openvpn[7]`
fn kind(entry: &TunnelEntry, holder: Option<&NamedProcess>) -> String {
    match (entry.link.kind.as_deref().unwrap_or_default(), holder) {
        ("tun", Some(holder)) => format!("a TUN device of {}", words::process(Some(holder))),
        ("tun", None) => "a TUN device".to_owned(),
        ("wireguard", _) => "a WireGuard interface".to_owned(),
        ("vxlan", _) => "a VXLAN interface".to_owned(),
        (kind, _) => format!("a tunnel interface ({kind})"),
    }
}

fn fix(
    entry: &TunnelEntry,
    holder: Option<&NamedProcess>,
    sign: Sign,
    evidence: &mut dyn Evidence,
) -> String {
    let name = &entry.link.name;
    let comm = holder.map(|holder| holder.comm.as_str());
    let comm = comm.unwrap_or_default();
    let is_wireguard = entry.link.kind.as_deref() == Some("wireguard")
        || ["wireguard", "boringtun"]
            .iter()
            .any(|it| comm.contains(it));
    let (command, shows) = if is_wireguard {
        (
            format!("wg show {name}"),
            "the latest handshake with each peer: where there is none, mend endpoint, keys and the \
             way of its UDP packets",
        )
    } else if comm == "tailscaled" {
        (
            "tailscale status".to_owned(),
            "whether the peer is online, and the routes that it offers are accepted",
        )
    } else {
        (
            format!("ip -d -s link show {name}"),
            "its far end, where that has an address, and the packets that came back (RX)",
        )
    };
    let command = words::command_in(entry.netns, &command, evidence);
    let log = holder.map_or_else(String::new, |holder| {
        let holder = words::process(Some(holder));
        format!("; look into the log of {holder}")
    });
    let then = match sign {
        Sign::None => "; if the tunnel works, look at the host",
        Sign::NoHandshake | Sign::KeysExpired(_) | Sign::NothingReceived => "",
    };
    format!("look at the tunnel first: {command} shows {shows}{log}{then}")
}

fn facts(entry: &TunnelEntry, holder: Option<&NamedProcess>, state: &Tunnel) -> Facts {
    let peer = state.peer.as_ref();
    let shaken_s = peer.and_then(|peer| match peer.handshake {
        WireguardHandshake::Never => None,
        WireguardHandshake::Ago(ago_s) => Some(ago_s),
    });
    Facts::new()
        .with("device", &entry.link.name)
        .with("device_kind", entry.link.kind.as_deref())
        .with("netns", entry.netns)
        .with("holder", holder)
        .with("received_packets", state.received)
        .with("peer_endpoint", peer.and_then(|peer| peer.endpoint))
        .with("handshake_seconds_ago", shaken_s)
        .with("other_host_heard", state.heard)
}
