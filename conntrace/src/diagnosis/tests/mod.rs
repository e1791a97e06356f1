//! Every cause staged, every rule asked about each, and what only looks alike.

mod cases;
mod certainties;
mod examples;
mod look_alikes;
mod script;
mod sentences;
mod staged;
mod translations;
mod unknown;

pub(super) use self::{
    cases::exhausted,
    script::{Script, wider},
};
use super::*;

/// The finding of the rules of this code.
fn recognised(code: Code, case: &Case, script: &Script) -> Option<Cause> {
    let rules = RULES.iter().filter(|rule| rule.code == code);
    let mut found = rules.filter_map(|rule| (rule.look)(case, &mut script.clone()).ok().flatten());
    found.next()
}
