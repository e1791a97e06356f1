//! Every cause staged, and every rule asked about each.

use std::fmt::Write as _;

use super::{
    cases::{failed_call, to},
    examples::staged,
    recognised,
    script::Script,
};
use crate::{
    diagnosis::{Certainty, Code, RULES, diagnose},
    record::{Errno, Label},
};

#[test]
fn every_staged_cause_is_recognised_by_its_rule_alone() {
    let staged = staged();
    let codes: Vec<_> = staged.iter().map(|(code, ..)| *code).collect();
    assert_eq!(codes, Code::ALL, "each is staged");
    let mut matrix = format!("{:<26}", "staged \\ rule");
    for (at, code) in Code::ALL.iter().enumerate() {
        let _ = write!(matrix, "\n{at:>2} {:<23}", code.as_str());
        let (_, case, script) = &staged[at];
        for column in Code::ALL {
            let found = recognised(column, case, script);
            assert!(found.as_ref().is_none_or(|cause| cause.code == column));
            matrix += if found.is_some() { " X" } else { " ." };
            assert_eq!(
                found.is_some(),
                column == *code,
                "{column:?} of a staged {code:?}\n{matrix}"
            );
        }
        let (cause, undiagnosed) = diagnose(case, &mut script.clone());
        let cause = cause.unwrap();
        assert_eq!((cause.code, undiagnosed), (*code, None));
        assert!(!cause.why.is_empty() && !cause.fix.is_empty() && !cause.evidence.is_empty());
        // Without evidence, no cause, but where a packet or the label is evidence.
        if let (Some(blind), _) = diagnose(case, &mut Script::blind()) {
            assert!(
                blind.code == *code || blind.certainty != Certainty::Certain,
                "{blind:?}"
            );
        }
    }
    eprintln!("{matrix}");
}

#[test]
fn rules_are_listed_by_their_codes() {
    for (at, code) in Code::ALL.into_iter().enumerate() {
        assert_eq!((code as usize, code.info().code), (at, code));
        assert!(
            RULES.iter().any(|rule| rule.code == code),
            "{code:?} has a rule"
        );
    }
}

#[test]
fn a_destination_of_no_host_is_none_of_a_server() {
    for (addr, errno) in [
        ("224.0.0.1", 101),
        ("255.255.255.255", 13),
        ("ff02::1", 101),
        ("fe80::1", 22),
    ] {
        let mut case = failed_call(Label::Failed, Errno(errno));
        case.remote = Some(to(addr));
        let (cause, _) = diagnose(&case, &mut Script::blind());
        assert_eq!(cause.unwrap().code, Code::BadDestination, "{addr}");
    }
}
