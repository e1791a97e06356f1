//! The rules that are found, as an answer has them.

use super::{
    ruleset::{Name, Rule, family_name},
    truth::Truth,
};
use crate::{
    diagnosis::firewall_facts::{Direction, Ending, Found, Match, Verdict},
    record::sanitize,
};

/// Most rules in an answer: two already say that it could be either.
const FOUND_MAX: usize = 4;
/// Most bytes of a name and of a comment in a line.
const NAME_JSON_MAX: usize = 96;
const COMMENT_JSON_MAX: usize = 128;

/// Adds a rule that the packet meets with this certainty, or the policy of the chain.
pub(super) fn add(
    all: &mut Vec<Found>,
    (family, table, chain): &Name,
    rule: Option<&Rule>,
    comment: Option<&[u8]>,
    (verdict, most): (Verdict, Match),
    reached: Truth,
) {
    let comment = comment.or_else(|| rule.and_then(Rule::comment));
    let found = Found {
        family: family_name(*family).to_owned(),
        table: sanitize::bounded(table, NAME_JSON_MAX),
        chain: sanitize::bounded(chain, NAME_JSON_MAX),
        handle: rule.and_then(|rule| rule.handle),
        comment: comment.map(|comment| sanitize::bounded(comment, COMMENT_JSON_MAX)),
        verdict,
        matches: match reached {
            Truth::True => most,
            Truth::Unknown | Truth::False => Match::Possibly,
        },
    };
    let is_same = |known: &&mut Found| {
        known.handle == found.handle
            && known.family == found.family
            && known.table == found.table
            && known.chain == found.chain
    };
    if let Some(known) = all.iter_mut().find(is_same) {
        // Two jumps may lead to it.
        if found.matches == Match::Fully {
            known.matches = Match::Fully;
        }
    } else if all.len() < FOUND_MAX {
        all.push(found);
    }
}

/// The certainty that this verdict gives this ending, if it can.
pub(super) fn could_give(ending: Ending, verdict: Verdict, direction: Direction) -> Option<Match> {
    use Verdict::{Drop, Queue, RejectByIcmp, RejectByReset, Rewrite, Unknown};
    match (ending, verdict) {
        (Ending::Drop, Drop)
        | (Ending::RejectByReset, RejectByReset)
        | (Ending::RejectByIcmp, RejectByIcmp)
        | (Ending::Rewrite, Rewrite) => Some(Match::Fully),
        // The answer goes to the other end, or may have been lost on its way.
        (Ending::Drop, RejectByReset | RejectByIcmp) => Some(match direction {
            Direction::In => Match::Fully,
            Direction::Out | Direction::Arriving => Match::Possibly,
        }),
        (Ending::Drop, Queue | Unknown) => Some(Match::Possibly),
        (Ending::Drop, Rewrite)
        | (Ending::RejectByReset | Ending::RejectByIcmp | Ending::Rewrite, _) => None,
    }
}
