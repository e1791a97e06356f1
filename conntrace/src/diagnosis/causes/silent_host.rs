use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding,
        question::Neighbour,
        step,
        way::{Route, RouteOut},
        words,
    },
    record::{Label, ReplyKind},
};

/// The host is off, its firewall drops everything, or the address is wrong. These cannot be told apart
/// from here; it was tried, and no traced attempt was answered since, on whatever port.
///
/// Wrong when other attempts than those traced reached the host, and when all that went there went to
/// one port that is filtered.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::SilentHost,
    labels: &[Label::TimedOut],
    is: "The remote host is off or filtered, or the address is wrong.",
    means: "the host is off, filtered or a wrong address",
    recognised: &[
        "Possible: there is a record that the host was tried, and since then no traced attempt to it, from the same network namespace and on whatever port, was answered. `why` says since when.",
    ],
    reasons: &[
        "The machine is off, or its network is.",
        "A firewall drops everything for it.",
        "The address is wrong or out of date.",
        "Answers are lost on the way back (asymmetric routes).",
    ],
    steps: &[
        step("ping -c 3 ADDR", "whether it answers at all"),
        step("traceroute -n ADDR", "how far packets come"),
        step(
            "getent ahosts NAME",
            "which addresses the name leads to now",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Possible,
        "a record that the host was tried, and no answer since",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let unanswered = case.label == Label::TimedOut && case.reply == ReplyKind::None;
    if !unanswered || !case.heard.outwaited || case.own_failure.is_some() {
        return Ok(None);
    }
    if !case.is_free_of_drops()? {
        return Ok(None);
    }
    let (Some(silent_s), Some(way)) = (case.heard.silent()?, case.way()) else {
        return Ok(None);
    };
    let addr = way.to;
    let Route::Out(out) = evidence.route(case.netns, way)? else {
        return Ok(None);
    };
    // It answered ARP at some time, or was entered by hand.
    let resolves = is_neighbour(case, &out, addr, evidence);
    let what = if resolves {
        format!("{addr} has a link-layer address in the neighbour table, but")
    } else {
        format!("{addr} is off, filtered or a wrong address:")
    };
    let ping = words::command(case, &format!("ping -c 3 -W 1 {addr}"), evidence);
    let check = if resolves {
        format!("look at the firewall of {addr}; {ping} shows whether it answers anything")
    } else {
        let trace = words::command(case, &format!("traceroute -n -q 1 -w 1 {addr}"), evidence);
        format!(
            "check the address; {ping} and {trace} show whether anything answers there and how far \
             packets come"
        )
    };
    // What was heard is that of the address that the program used.
    let (to, from) = match case.asked {
        Some(asked) => (format!(" to {}", asked.addr), ""),
        None => (String::new(), " from it"),
    };
    Ok(Some(Cause::new(
        Code::SilentHost,
        Certainty::Possible,
        &format!("{what} no traced attempt{to} got an answer{from} in the last {silent_s} s"),
        &check,
        Facts::new()
            .with("addr", addr)
            .with("silent_seconds", silent_s)
            .with("resolves", resolves),
    )))
}

fn is_neighbour(
    case: &Case,
    out: &RouteOut,
    addr: std::net::IpAddr,
    evidence: &mut dyn Evidence,
) -> bool {
    out.gateway.is_none()
        && evidence.neighbour(case.netns, out.device.index, addr) == Ok(Neighbour::Known)
}
