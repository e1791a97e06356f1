use super::{Case, Evidence, ask::Route};
use crate::{
    errno::Errno,
    event::{self, Cause, Certainty, Code},
    label::Label,
};

/// Address unavailable: the application chose a source address that this host
/// does not have. It has moved away (failover, DHCP), or was copied from another
/// host's configuration.
///
/// Wrong when the address came or went between the call and the look.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    // A port that was to be had is not what was missing.
    if case.label != Label::AddressUnavailable || case.call.is_none() {
        return None;
    }
    let source = case.local_addr?;
    match evidence.route(case.netns, source, None)? {
        Route::Local => return None,
        Route::Out(_) | Route::None(_) => {}
    }
    Some(Cause::new(
        Code::SourceNotLocal,
        Certainty::Certain,
        &format!("{source} is no address of this host (of the process's network namespace)"),
        &format!(
            "let the application bind to an address that `ip -br addr` lists, or to none; or give \
             it back: `ip addr add {source} dev DEVICE`"
        ),
        event::Facts::new()
            .with("source", source)
            .with("errno", case.errno.as_ref().map(Errno::to_string)),
    ))
}
