use super::{Case, Evidence, ask::ProxyVariable};
use crate::{
    event::{self, Cause, Certainty, Code},
    label::Label,
};

/// Refused, timed out: the process did not try its real destination but the proxy
/// that its environment names, and that is not there.
///
/// The address is compared without DNS, so a proxy that is named and not numbered
/// is not recognised; nor is one that stands in a configuration file. Wrong when
/// the process connects to that address for another purpose.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let ended = match case.label {
        Label::Refused => "and it refused the connection",
        Label::TimedOut => "and it did not answer",
        Label::Established
        | Label::PortExhausted
        | Label::AddressUnavailable
        | Label::Unreachable
        | Label::Denied
        | Label::Aborted
        | Label::Cancelled
        | Label::Failed => return None,
    };
    let remote = case.remote_socket()?;
    let variable = variable(case, evidence)?.as_str();
    Some(Cause::new(
        Code::ProxyInPath,
        Certainty::Certain,
        &format!(
            "{remote} is the proxy that {variable} in the process's environment names, {ended}"
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

/// The variable of the process's environment that names the destination a proxy.
pub(super) fn variable(case: &Case, evidence: &mut dyn Evidence) -> Option<ProxyVariable> {
    evidence.proxy(case.process?, case.remote_socket()?)?
}
