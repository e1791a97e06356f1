//! Each answer unknown, one at a time: no rule takes that for "no".

use std::fmt::Write as _;

use super::{examples::staged, script::Script};
use crate::diagnosis::{Case, Cause, Code, Undiagnosed, diagnose, question::Question};

/// The questions that are asked about a case, each once.
fn questions(case: &Case, script: &Script) -> Vec<Question> {
    let mut script = script.clone();
    diagnose(case, &mut script);
    let mut asked = Vec::new();
    for question in script.asked {
        if !asked.contains(&question) {
            asked.push(question);
        }
    }
    asked
}

/// Causes that need less than the one before: with a question unknown they may stand in its
/// place, for all of their own facts are known.
const LESSER: [(Code, Code); 3] = [
    // Nothing listens there, be it a proxy's address or not.
    (Code::ProxyInPath, Code::NothingListening),
    // Netfilter dropped it, by whatever rule.
    (Code::LocalFirewall, Code::DroppedHere),
    // Some rule rejected it, whatever it says.
    (Code::ServiceWithoutEndpoints, Code::RejectedByFirewall),
];

fn may_replace(known: &Cause, found: &Cause) -> bool {
    known.code == found.code || LESSER.contains(&(known.code, found.code))
}

#[test]
fn an_unknown_answer_is_never_taken_for_no() {
    let mut matrix = String::new();
    let mut asked = 0;
    for (code, case, script) in staged() {
        let known = diagnose(&case, &mut script.clone()).0.unwrap();
        for question in questions(&case, &script) {
            let mut blind = script.without(&question);
            let (found, undiagnosed) = diagnose(&case, &mut blind);
            let what = format!("{code:?} without {question:?}");
            let expected = (!question.is_aside()).then_some(Undiagnosed::Unsupported);
            assert_eq!(undiagnosed, expected, "{what}: {found:?}");
            if let Some(found) = &found {
                assert!(may_replace(&known, found), "{what}: {found:?}");
                assert!(
                    found.certainty as u8 >= known.certainty as u8,
                    "{what}: {found:?}"
                );
            }
            let kept = found.map_or("none", |found| found.certainty.as_str());
            let name = format!("{question:?}");
            let name = name.split([' ', '{']).next().unwrap();
            let _ = writeln!(matrix, "{:<25} {name:<20} {kept}", code.as_str());
            asked += 1;
        }
    }
    eprintln!(
        "{matrix}{} rules x their questions: {asked}",
        Code::ALL.len()
    );
    assert!(asked > 60, "{asked}");
}

/// With nothing known at all, what is told is proven by the label or a packet alone.
#[test]
fn a_blind_host_tells_why() {
    for (code, case, _) in staged() {
        let (found, undiagnosed) = diagnose(&case, &mut Script::blind());
        let told = found.is_some_and(|found| found.code == code);
        assert!(told || undiagnosed.is_some(), "{code:?} says nothing");
    }
}
