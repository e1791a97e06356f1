//! Matching rules of a packet, in the form of the answer.

use super::{
    ruleset::{ChainName, NftRule, family_name},
    truth::Truth,
};
use crate::{
    diagnosis::firewall_facts::{Direction, Match, MatchingRule, PacketEnd, RuleVerdict},
    record::sanitize,
};

/// Maximum number of rules in an answer; two already show the ambiguity.
const FOUND_MAX: usize = 4;
/// Maximum bytes of a name and of a comment in a line.
const NAME_JSON_MAX: usize = 96;
const COMMENT_JSON_MAX: usize = 128;

/// Adds a rule that the packet reaches with this certainty, or a chain's policy.
pub(super) fn add(
    all: &mut Vec<MatchingRule>,
    (family, table, chain): &ChainName,
    rule: Option<&NftRule>,
    comment: Option<&[u8]>,
    (verdict, most): (RuleVerdict, Match),
    reached: Truth,
) {
    let found = MatchingRule {
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
    let is_same = |known: &&mut MatchingRule| {
        known.handle == found.handle
            && known.family == found.family
            && known.table == found.table
            && known.chain == found.chain
    };
    if let Some(known) = all.iter_mut().find(is_same) {
        // Two jumps can lead to the same rule.
        if found.matches == Match::Fully {
            known.matches = Match::Fully;
        }
    } else if all.len() < FOUND_MAX {
        all.push(found);
    }
}

/// Returns the certainty with which this verdict explains the ending, if it can.
pub(super) fn could_give(
    ending: PacketEnd,
    verdict: RuleVerdict,
    direction: Direction,
) -> Option<Match> {
    use RuleVerdict::{Drop, Queue, RejectByIcmp, RejectByReset, Rewrite, Unknown};
    match (ending, verdict) {
        (PacketEnd::Drop, Drop)
        | (PacketEnd::RejectByReset, RejectByReset)
        | (PacketEnd::RejectByIcmp, RejectByIcmp)
        | (PacketEnd::Rewrite, Rewrite) => Some(Match::Fully),
        // The RST or ICMP error for an incoming packet goes to the peer; others can be lost.
        (PacketEnd::Drop, RejectByReset | RejectByIcmp) => Some(if direction.is_back() {
            Match::Fully
        } else {
            Match::Possibly
        }),
        (PacketEnd::Drop, Queue | Unknown) => Some(Match::Possibly),
        (PacketEnd::Drop, Rewrite)
        | (PacketEnd::RejectByReset | PacketEnd::RejectByIcmp | PacketEnd::Rewrite, _) => None,
    }
}
