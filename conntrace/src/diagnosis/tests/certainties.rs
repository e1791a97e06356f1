//! The other ways to a code, the certainty of each, and the facts that prove it.

use super::examples::{other_ways, staged};
use crate::diagnosis::{Certainty, Code, RULES, diagnose};

#[test]
fn certainties() {
    for (case, script, code, certainty) in other_ways() {
        let (cause, undiagnosed) = diagnose(&case, &mut script.clone());
        let cause = cause.unwrap_or_else(|| panic!("{code:?}: {case:?}"));
        assert_eq!((cause.code, cause.certainty), (code, certainty), "{case:?}");
        assert_eq!(undiagnosed, None, "{code:?} {case:?}");
    }
}

/// Each certainty that a cause is told with is proven by a fact that its rule names, and each
/// that a rule names is met.
#[test]
fn every_certainty_has_its_proof() {
    let others = other_ways()
        .into_iter()
        .map(|(case, script, code, _)| (code, case, script));
    let mut met = Vec::new();
    for (code, case, mut script) in staged().into_iter().chain(others) {
        let cause = diagnose(&case, &mut script).0.unwrap();
        let labels = code.info().labels;
        assert!(labels.contains(&case.label), "{code:?}: {:?}", case.label);
        met.push((code, cause.certainty));
    }
    let named = |(code, certainty): &(Code, Certainty)| {
        let of_it = RULES.iter().filter(|rule| rule.code == *code);
        of_it
            .flat_map(|rule| rule.proofs)
            .any(|(of, fact)| of == certainty && !fact.is_empty())
    };
    for one in &met {
        assert!(named(one), "{one:?} has no proof");
    }
    let mut table = String::new();
    for rule in RULES {
        for (certainty, fact) in rule.proofs {
            let is_met = met.contains(&(rule.code, *certainty));
            assert!(is_met, "{:?} {certainty:?} is never met", rule.code);
            table += &format!(
                "{:<25} {:<8} {fact}\n",
                rule.code.as_str(),
                certainty.as_str()
            );
        }
    }
    eprint!("{table}");
}
