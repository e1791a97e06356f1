use super::{
    Case, Evidence,
    ask::{ProxyVariable, RulePlace},
};
use crate::{
    event::{self, Cause, Certainty, Code},
    label::Label,
    reply::ReplyKind,
};

/// Refused, timed out: the process did not try its real destination but the proxy
/// that its environment names, and that is not there.
///
/// The address is compared without DNS, so a proxy that is named and not numbered
/// is not recognised; nor is one that stands in a configuration file. Wrong when
/// the process connects to that address for another purpose.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let ended = ended(case)?;
    let remote = case.remote_socket()?;
    let variable = variable(case, evidence)?.as_str();
    Some(Cause::new(
        Code::ProxyInPath,
        Certainty::Certain,
        &format!(
            "{remote} is the proxy that {variable} in the process's environment names, and it {ended}"
        ),
        &format!(
            "start the proxy at {remote}, or correct {variable} where the process is started, or \
             name the destination in no_proxy"
        ),
        event::Facts::new()
            .with("variable", variable)
            .with("proxy", remote),
    ))
}

/// Refused, timed out: a rule of this host's firewall rewrites the destination of
/// connections to this very port (REDIRECT, DNAT), such as a transparent proxy's or
/// that of a published container port, and what it leads to is not there.
///
/// Wrong when the rule has further conditions that the attempt does not meet.
pub(super) fn by_rewriting(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let ended = ended(case)?;
    let remote = case.remote_socket()?;
    let rules = rewriting(case, evidence)?;
    let RulePlace {
        family,
        table,
        chain,
        ..
    } = rules.first()?;
    let port = remote.port();
    Some(Cause::new(
        Code::ProxyInPath,
        Certainty::Likely,
        &format!(
            "a rule of this host (chain {family} {table} {chain}) rewrites the destination of \
             connections to port {port}, and what it leads to {ended}"
        ),
        &format!(
            "`nft -a list chain {family} {table} {chain}` shows where connections to {remote} go: \
             start that server, or delete the rule"
        ),
        event::Facts::new()
            .with("remote", remote)
            .with("rules", &rules),
    ))
}

fn ended(case: &Case) -> Option<&'static str> {
    match (case.label, case.reply) {
        (Label::Refused, ReplyKind::Rst) => Some("refused the connection"),
        (Label::TimedOut, ReplyKind::None) => Some("did not answer"),
        _ => None,
    }
}

/// The variable of the process's environment that names the destination a proxy.
pub(super) fn variable(case: &Case, evidence: &mut dyn Evidence) -> Option<ProxyVariable> {
    evidence.proxy(case.process?, case.remote_socket()?)?
}

/// The rules that rewrite the destination, if there are any.
pub(super) fn rewriting(case: &Case, evidence: &mut dyn Evidence) -> Option<Vec<RulePlace>> {
    let rules = evidence.rewrites(case.netns, case.remote?.port)?;
    (!rules.is_empty()).then_some(rules)
}
