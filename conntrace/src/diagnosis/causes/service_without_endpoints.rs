use super::{local_firewall, rejected_by_firewall};
use crate::diagnosis::{
    Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding,
    firewall_facts::{Match, MatchingRule, RuleVerdict},
    step, words,
};
use crate::record::Label;

/// A Kubernetes service has no ready pod, so that kube-proxy rejects or drops connections to it. The
/// rule says so itself.
///
/// Wrong when somebody else writes such a comment.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::ServiceWithoutEndpoints,
    labels: &[Label::Refused, Label::TimedOut],
    is: "A Kubernetes service has no ready pod.",
    means: "the Kubernetes service has no ready pod",
    recognised: &[
        "Certain: a rule of this machine's firewall rejected or dropped the packet, matches it in full, and says that the service has no endpoints: its comment, or kube-proxy's chain for such services.",
        "Likely: such a rule may match.",
    ],
    reasons: &[
        "No pod of the service is ready: it crashes, starts, or fails its readiness probe.",
        "The selector of the service fits no pod's labels.",
        "The deployment is scaled to zero.",
        "externalTrafficPolicy or internalTrafficPolicy is Local, and no pod of the service is on this node.",
    ],
    steps: &[
        step(
            "kubectl get endpointslices -A -l kubernetes.io/service-name=SERVICE",
            "the endpoints of the service: none, while this is the cause",
        ),
        step(
            "kubectl get pods -A -o wide",
            "whether its pods run, are ready, and on which node",
        ),
        step(
            "kubectl describe service SERVICE",
            "its selector, ports and traffic policy",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "a rule that fully matches the dropped packet and says that there are no endpoints",
        ),
        (
            Certainty::Likely,
            "such a rule that may match the dropped packet",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let found = match case.label {
        Label::Refused => rejected_by_firewall::rules(case, evidence)?,
        Label::TimedOut => local_firewall::dropping(case, evidence)?,
        Label::Established
        | Label::PortExhausted
        | Label::AddressUnavailable
        | Label::Unreachable
        | Label::Denied
        | Label::Aborted
        | Label::Cancelled
        | Label::Failed => None,
    };
    let (Some((netns, rules)), Some(remote)) = (found, case.remote_socket()) else {
        return Ok(None);
    };
    let Some(rule) = rules.found.first().filter(|rule| says_so(rule)) else {
        return Ok(None);
    };
    let certainty = match rule.matches {
        Match::Fully => Certainty::Certain,
        Match::Possibly => Certainty::Likely,
    };
    let service = service_name(rule).map_or_else(
        || format!("the Kubernetes service at {remote}"),
        |service| format!("the Kubernetes service {service} ({remote})"),
    );
    // What other nodes have endpoints for is dropped, not rejected (externalTrafficPolicy).
    let (here, correct) = match rule.verdict {
        RuleVerdict::Drop => (" on this node", "selector or traffic policy (Local)"),
        RuleVerdict::RejectByReset
        | RuleVerdict::RejectByIcmp
        | RuleVerdict::Queue
        | RuleVerdict::Rewrite
        | RuleVerdict::Unknown => ("", "selector"),
    };
    let list = words::command_in(netns, &words::list_chain(rule), evidence);
    Ok(Some(Cause::new(
        Code::ServiceWithoutEndpoints,
        certainty,
        &format!(
            "{service} has no ready endpoint{here}: {}",
            words::rule(rule)
        ),
        &format!(
            "start a pod of that service{here} and see that it is ready, or correct the service's \
             {correct}; {list} shows the rule until then"
        ),
        Facts::new()
            .with("netns", netns)
            .with("service", service_name(rule))
            .with("rules", &rules.found),
    )))
}

/// The rule of kube-proxy says that a service has no endpoints.
pub(crate) fn says_so(rule: &MatchingRule) -> bool {
    let comment = rule.comment.as_deref().unwrap_or_default();
    let of_iptables =
        comment.contains("has no endpoints") || comment.contains("has no local endpoints");
    of_iptables || is_of_map(rule)
}

/// The verdict of kube-proxy's maps of services without endpoints, or the chain that it leads to.
fn is_of_map(rule: &MatchingRule) -> bool {
    let chains = [
        "reject-chain",
        "service-endpoints-check",
        "nodeport-endpoints-check",
    ];
    rule.table == "kube-proxy" && chains.contains(&rule.chain.as_str())
}

fn service_name(rule: &MatchingRule) -> Option<&str> {
    let comment = rule.comment.as_deref()?;
    match comment.split_once(" has no ") {
        Some((name, _)) => Some(name),
        None => Some(comment).filter(|_| is_of_map(rule)),
    }
}
