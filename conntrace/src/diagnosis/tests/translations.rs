//! Destinations that connection tracking translates, of attempts that nobody answers.

use std::net::SocketAddr;

use super::{
    cases::case,
    script::{CONTAINER, FAR, NETNS, OWN, PORT, Script, ip, link, out, socket},
};
use crate::{
    diagnosis::{
        Case, Code, HostHistory, Undiagnosed, diagnose,
        question::{Answer, Neighbour, Question, TrackedSyn},
        translation,
    },
    record::{Label, Remote, ReplyKind},
};

const BEHIND: &str = "10.9.0.7";
const CLIENT_PORT: u16 = 40_000;

fn silent() -> Case {
    Case {
        heard: HostHistory {
            outwaited: true,
            silent_s: Some(3),
            network_silent_s: Some(3),
            ..HostHistory::default()
        },
        ..case(Label::TimedOut, ReplyKind::None)
    }
}

fn tracked(script: Script, netns: u32, from: Option<SocketAddr>, to: &str) -> Script {
    let client = socket(OWN, CLIENT_PORT);
    let syn = TrackedSyn {
        client,
        leaves_from: client,
        leads_to: socket(to, 8080),
    };
    let question = Question::Tracked {
        netns,
        client: from,
        remote: socket(FAR, PORT),
    };
    script.with(question, Answer::Tracked(Some(syn)))
}

/// The namespace itself leads it to a host by its gateway.
fn here() -> Script {
    let script = Script::default().route(FAR, out(Some("10.0.0.1"), 0));
    tracked(script, NETNS, None, BEHIND).route(BEHIND, out(Some("10.0.0.1"), 0))
}

fn found(case: &Case, script: &Script) -> Option<Remote> {
    let found = translation(case, &mut script.clone()).unwrap();
    found.map(|found| found.to)
}

#[test]
fn a_silent_destination_is_judged_where_it_is() {
    let (cause, undiagnosed) = diagnose(&silent(), &mut here());
    let cause = cause.unwrap();
    assert_eq!((cause.code, undiagnosed), (Code::SilentHost, None));
    let words = "10.0.0.5:5432 is translated on its way to 10.9.0.7:8080; 10.9.0.7 is off, filtered or a \
                 wrong address: no traced attempt to 10.0.0.5 got an answer in the last 3 s";
    assert_eq!(cause.why, words);
    assert_eq!(cause.evidence["translated_to"], "10.9.0.7:8080");
}

#[test]
fn the_next_namespace_may_translate_it() {
    let question = |netns| Question::Owner {
        netns,
        device: 2,
        addr: ip("10.0.0.1"),
    };
    let script = Script::default()
        .route(FAR, out(Some("10.0.0.1"), 0))
        .link(link(true, Some("veth")))
        .with(question(NETNS), Answer::Owner(Some(CONTAINER)))
        .route_in(CONTAINER, BEHIND, None, out(None, 24));
    let script = tracked(script, CONTAINER, None, BEHIND);
    let to = found(&silent(), &script).unwrap();
    assert_eq!((to.addr, to.port), (ip(BEHIND), 8080));
    // The packet waits for its neighbour: it has come no further.
    let script = script.neighbour("10.0.0.1", Neighbour::Incomplete);
    assert_eq!(found(&silent(), &script), None);
}

#[test]
fn what_was_answered_or_dropped_is_not_looked_for() {
    for (label, reply) in [
        (Label::Refused, ReplyKind::Rst),
        (Label::TimedOut, ReplyKind::SynAck),
        (Label::Unreachable, ReplyKind::Local),
    ] {
        let case = case(label, reply);
        let mut script = here();
        assert_eq!(translation(&case, &mut script), Ok(None));
        assert!(script.asked.is_empty(), "{label:?}");
    }
}

/// An attempt that takes no part in the answer to another one's question asks its own.
#[test]
fn a_client_is_asked_for_by_its_port() {
    let client = socket(OWN, 40_001);
    let case = Case {
        client: Some(client),
        ..silent()
    };
    let mut script = here();
    assert_eq!(translation(&case, &mut script), Ok(None));
    let question = Question::Tracked {
        netns: NETNS,
        client: Some(client),
        remote: socket(FAR, PORT),
    };
    assert!(script.asked.contains(&question));
    // Nothing is said of a place that is not known.
    let mut blind = here().without(&question);
    let (cause, undiagnosed) = diagnose(&case, &mut blind);
    assert_eq!((cause, undiagnosed), (None, Some(Undiagnosed::Unsupported)));
}
