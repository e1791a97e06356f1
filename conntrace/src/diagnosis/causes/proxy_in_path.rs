use std::net::{IpAddr, SocketAddr};

use super::local_firewall;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, CauseRule, Certainty, Code, Evidence, Facts, Finding, Undiagnosed,
        firewall_facts::{Direction, Firewall, FirewallPacket, Match, MatchingRule, PacketEnd},
        place::{self, Home},
        question::ProxyVariable,
        step, translation, words,
    },
    record::{Label, Remote, ReplyKind},
};

/// The process did not try its real destination but the proxy that its environment names, and
/// that is not there.
///
/// The address is compared without DNS, so a proxy that is named and not numbered is not
/// recognised; nor is one that stands in a configuration file. Wrong when the process connects
/// to that address for another purpose.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::ProxyInPath,
    labels: &[Label::Refused, Label::TimedOut],
    is: "The connection leads to a proxy.",
    means: "the connection goes to a proxy",
    recognised: &[
        "Certain: the destination is the address and port that http_proxy, https_proxy or all_proxy names in the environment of the process. Names are not looked up, and nothing else of the environment is looked at.",
        "Certain: a rule of this host's firewall redirects the SYN, which met no socket there. Likely: a rule of this host's firewall (nftables, or iptables by it) whose conditions the SYN meets rewrites its destination (redirect, dnat). Possible: some of its conditions cannot be evaluated. Legacy iptables cannot be read.",
    ],
    reasons: &[
        "The proxy is down, or its address is out of date.",
        "A destination that needs no proxy is not in no_proxy.",
        "The variables came along from a login or an image.",
        "A transparent proxy or a service mesh has left its rule, or a published container port its own.",
    ],
    steps: &[
        step(
            "tr '\\0' '\\n' < /proc/PID/environ | grep -i _proxy",
            "the variables (they may hold a password)",
        ),
        step(
            "nft -a list ruleset | grep -e redirect -e dnat",
            "rules that rewrite destinations, and where to",
        ),
        step(
            "curl -v --proxy 'http://ADDR:PORT' https://example.com",
            "whether the proxy works from here; an IPv6 address stands in brackets",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Certain,
        "a proxy variable of the process's environment that names this address and port",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let (Some(ended), Some(remote)) = (ended(case), case.remote_socket()) else {
        return Ok(None);
    };
    let Some(variable) = variable(case, evidence)?.map(ProxyVariable::as_str) else {
        return Ok(None);
    };
    Ok(Some(Cause::new(
        Code::ProxyInPath,
        Certainty::Certain,
        &format!(
            "{remote} is the proxy that {variable} in the process's environment names, and it {ended}"
        ),
        &format!(
            "start the proxy at {remote}, or correct {variable} where the process is started, or \
             name the destination in no_proxy"
        ),
        Facts::new()
            .with("variable", variable)
            .with("proxy", remote),
    )))
}

fn ended(case: &Case) -> Option<&'static str> {
    match (case.label, case.reply) {
        (Label::Refused, ReplyKind::Rst) => Some("refused the connection"),
        (Label::TimedOut, ReplyKind::None) => Some("did not answer"),
        _ => None,
    }
}

/// The variable of the process's environment that names the destination a proxy.
pub(crate) fn variable(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<ProxyVariable>, Undiagnosed> {
    match (case.process, case.remote_socket()) {
        (Some(process), Some(remote)) => evidence.proxy(process, remote),
        _ => Ok(None),
    }
}

/// The rules that lead the attempt to another destination, here or where it arrives.
#[derive(Debug, Default)]
pub(crate) struct Rewriting {
    /// Those of the client's namespace, the first of them the surest.
    pub(crate) rules: Vec<MatchingRule>,
    /// There is none there either where it arrives, and no rule was left out.
    pub(crate) is_ruled_out: bool,
    /// There may be one where it arrives.
    pub(crate) may_be_at_home: bool,
}

impl Rewriting {
    /// A rule is known that leads the attempt elsewhere, or may do so.
    pub(crate) fn may_be(&self) -> bool {
        !self.rules.is_empty() || self.may_be_at_home
    }

    /// A rule of the client's namespace leads the attempt elsewhere.
    pub(crate) fn is_sure(&self) -> bool {
        let first = self.rules.first();
        first.is_some_and(|rule| rule.matches == Match::Fully)
    }
}

/// Looks for them in the client's namespace, and in the destination's where that is another.
pub(crate) fn rewriting(
    case: &Case,
    home: Option<u32>,
    evidence: &mut dyn Evidence,
) -> Result<Rewriting, Undiagnosed> {
    let Some(syn) = local_firewall::syn(case, evidence)? else {
        return Ok(Rewriting::default());
    };
    let Firewall { found, complete } = evidence.firewall(case.netns, syn, PacketEnd::Rewrite)?;
    let mut rewriting = Rewriting {
        rules: found,
        is_ruled_out: complete,
        may_be_at_home: false,
    };
    if let (Some(home), Some(remote)) = (home.filter(|home| *home != case.netns), case.remote) {
        let there = at_arrival(home, remote, case.local_addr, evidence)?;
        rewriting.is_ruled_out &= there.complete;
        rewriting.may_be_at_home = !there.found.is_empty();
    }
    rewriting.is_ruled_out &= !rewriting.may_be();
    Ok(rewriting)
}

/// The rules of a namespace that lead a SYN elsewhere which arrives there.
pub(crate) fn at_arrival(
    netns: u32,
    remote: Remote,
    local: Option<IpAddr>,
    evidence: &mut dyn Evidence,
) -> Result<Firewall, Undiagnosed> {
    let arriving = FirewallPacket {
        direction: Direction::Arriving,
        remote: SocketAddr::new(remote.addr, remote.port),
        // It may have been translated on its way.
        local,
        local_port: None,
        device: None,
        leaves_by: None,
        asked: None,
        mark: None,
        uid: None,
    };
    evidence.firewall(netns, arriving, PacketEnd::Rewrite)
}

/// A rule of this host's firewall rewrites the destination of the attempt (REDIRECT, DNAT),
/// such as a transparent proxy's or that of a published container port, and what it leads to is
/// not there.
///
/// Only possible where a condition of the rule cannot be evaluated.
pub(crate) const REWRITTEN: CauseRule = CauseRule {
    code: Code::ProxyInPath,
    look: look_for_proxy,
    proofs: &[
        (
            Certainty::Certain,
            "a redirected SYN that met no socket where it was led",
        ),
        (
            Certainty::Likely,
            "a rule whose conditions the SYN meets rewrites its destination",
        ),
        (
            Certainty::Possible,
            "a rule that rewrites destinations, of whose conditions some are unknown",
        ),
    ],
};

/// The same of what did not answer, and of which nothing else is known.
pub(crate) const UNANSWERED: CauseRule = CauseRule {
    look: look_for_rewriting,
    ..REWRITTEN
};

fn look_for_proxy(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    // Of a place that is known, and where no proxy of this host is, other rules say more.
    let place = translation(case, evidence)?;
    if place.is_some_and(|place| !place.to.addr.is_loopback()) {
        return Ok(None);
    }
    look_for_rewriting(case, evidence)
}

fn look_for_rewriting(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let (Some(ended), Some(remote)) = (ended(case), case.remote_socket()) else {
        return Ok(None);
    };
    let Rewriting { rules, .. } = rewriting(case, None, evidence)?;
    let Some(rule) = rules.first() else {
        return Ok(None);
    };
    let (certainty, may) = match rule.matches {
        Match::Fully => (Certainty::Likely, "rewrites"),
        Match::Possibly => (Certainty::Possible, "may rewrite"),
    };
    let list = words::command(case, &words::list_chain(rule), evidence);
    if let Some(home) = place::home(case, evidence)?.filter(|home| home.is_witnessed) {
        return Ok(Some(nobody_behind(
            case,
            &home,
            (&rules, rule),
            &list,
            evidence,
        )));
    }
    Ok(Some(Cause::new(
        Code::ProxyInPath,
        certainty,
        &format!(
            "{} {may} the destination of connections to {remote}, and what it leads to {ended}",
            words::rule(rule)
        ),
        &format!(
            "{list} shows where connections to {remote} go: start that server, or delete the rule"
        ),
        Facts::new().with("remote", remote).with("rules", &rules),
    )))
}

/// The SYN itself met no socket where the rule led it: the proxy does not listen.
fn nobody_behind(
    case: &Case,
    home: &Home,
    (rules, rule): (&[MatchingRule], &MatchingRule),
    list: &str,
    evidence: &mut dyn Evidence,
) -> Cause {
    let at = SocketAddr::new(home.at.addr, home.at.port);
    let by = match rule.matches {
        Match::Fully => "by",
        Match::Possibly if rules.len() > 1 => "by one of several rules, perhaps",
        Match::Possibly => "probably by",
    };
    let listeners = format!("ss -ltnp 'sport = :{}'", at.port());
    let listeners = words::command_in(home.netns, &listeners, evidence);
    Cause::new(
        Code::ProxyInPath,
        Certainty::Certain,
        &format!(
            "{}no socket listens there; it is led there {by} {}, as to a proxy or sidecar",
            place::translation(case, home),
            words::rule(rule)
        ),
        &format!(
            "start the proxy that should listen on {at}, or let the client wait until it does; \
             {listeners} shows it then, {list} the rule"
        ),
        Facts::new()
            .with("remote", case.remote_socket())
            .with("translated_to", at)
            .with("netns", home.netns)
            .with("rules", rules),
    )
}
