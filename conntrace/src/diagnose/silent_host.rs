use super::{Case, Evidence, ask::Route};
use crate::{
    event::{self, Cause, Certainty, Code},
    label::Label,
    reply::ReplyKind,
};

/// Before so long of tracing a host may simply not have been talked to.
const LISTENED_MIN_S: u64 = 60;

/// Timed out: the host is off, its firewall drops everything, or the address is wrong.
/// These cannot be told apart from here; what is known is that no traced attempt to it,
/// on whatever port, completed a handshake or met a RST since tracing began.
///
/// Wrong when other attempts than those traced reached the host, when all that went
/// there went to one port that is filtered, and when so many hosts were talked to that
/// this one's answer was forgotten.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    if case.label != Label::TimedOut || case.reply != ReplyKind::None {
        return None;
    }
    let silent_s = case.heard.silent_s.filter(|&s| s >= LISTENED_MIN_S)?;
    let addr = case.remote?.addr;
    if evidence.route(case.netns, addr, case.local_addr) == Some(Route::Local) {
        return None;
    }
    Some(Cause::new(
        Code::SilentHost,
        Certainty::Possible,
        &format!(
            "{addr} is off, filtered or a wrong address: it answered no attempt on any port in the \
             {silent_s} s since tracing began"
        ),
        &format!(
            "check the address; `ping {addr}` and `traceroute -n {addr}` show whether anything \
             answers there and how far packets come"
        ),
        event::Facts::new()
            .with("addr", addr)
            .with("silent_seconds", silent_s),
    ))
}
