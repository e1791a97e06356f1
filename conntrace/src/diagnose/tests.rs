//! Every cause staged, every rule asked about each, and what only looks alike.

mod cases;
mod certainties;
mod look_alikes;
mod script;
mod sentences;
mod staged;

use self::script::Script;
use super::*;

/// What the rules of this code say.
fn recognised(code: Code, case: &Case, script: &Script) -> Option<Cause> {
    let rules = RULES.iter().filter(|(of, _)| *of == code);
    let mut found = rules.filter_map(|(_, rule)| rule(case, &mut script.clone()));
    found.next()
}
