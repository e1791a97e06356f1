use super::{
    Case, Evidence, Finding, Rule,
    ask::{ProxyVariable, RulePlace},
    words,
};
use crate::{
    event::{self, Cause, Certainty, Code, Undiagnosed},
    label::Label,
    reply::ReplyKind,
};

/// Refused, timed out: the process did not try its real destination but the proxy
/// that its environment names, and that is not there.
///
/// The address is compared without DNS, so a proxy that is named and not numbered
/// is not recognised; nor is one that stands in a configuration file. Wrong when
/// the process connects to that address for another purpose.
pub(super) const RULE: Rule = Rule {
    code: Code::ProxyInPath,
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
        event::Facts::new()
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
pub(super) fn variable(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<ProxyVariable>, Undiagnosed> {
    match (case.process, case.remote_socket()) {
        (Some(process), Some(remote)) => evidence.proxy(process, remote),
        _ => Ok(None),
    }
}

/// The rules that rewrite the destination, if there are any.
pub(super) fn rewriting(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<Vec<RulePlace>>, Undiagnosed> {
    let Some(remote) = case.remote else {
        return Ok(None);
    };
    let rules = evidence.rewrites(case.netns, remote.port)?;
    Ok((!rules.is_empty()).then_some(rules))
}

/// The same cause, by a rule of this host's firewall.
pub(super) mod rewritten {
    use super::*;

    /// Refused, timed out: a rule of this host's firewall rewrites the destination of
    /// connections to this very port (REDIRECT, DNAT), such as a transparent proxy's or
    /// that of a published container port, and what it leads to is not there.
    ///
    /// Wrong when the rule has further conditions that the attempt does not meet.
    pub(in super::super) const RULE: Rule = Rule {
        code: Code::ProxyInPath,
        look,
        proofs: &[(
            Certainty::Likely,
            "a rule that rewrites the destination of connections to this very port",
        )],
    };

    fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
        let (Some(ended), Some(remote)) = (ended(case), case.remote_socket()) else {
            return Ok(None);
        };
        let Some(rules) = rewriting(case, evidence)? else {
            return Ok(None);
        };
        let Some(RulePlace {
            family,
            table,
            chain,
            ..
        }) = rules.first()
        else {
            return Ok(None);
        };
        let port = remote.port();
        let list = format!("nft -a list chain {family} {table} {chain}");
        let list = words::command(case, &list, evidence);
        Ok(Some(Cause::new(
            Code::ProxyInPath,
            Certainty::Likely,
            &format!(
                "a rule of this host (chain {family} {table} {chain}) rewrites the destination of \
                 connections to port {port}, and what it leads to {ended}"
            ),
            &format!(
                "{list} shows where connections to {remote} go: start that server, or delete the rule"
            ),
            event::Facts::new()
                .with("remote", remote)
                .with("rules", &rules),
        )))
    }
}
