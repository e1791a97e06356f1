//! Explanation of an ending, with the facts that show it.

use std::{
    hash::{BuildHasher as _, Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use foldhash::fast::FixedState;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use super::Code;
use crate::record::{Remote, sanitize};

/// Most bytes of `why` and of `fix` in a line.
pub(crate) const SENTENCE_JSON_MAX: usize = 512;
/// Most bytes of `evidence` in a line; more is left out altogether.
pub(crate) const EVIDENCE_JSON_MAX: usize = 1410;

/// Certainty of a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// A fact read from this host or a packet proves it.
    Certain,
    /// The evidence fits this explanation better than any other.
    Likely,
    /// The evidence allows this explanation.
    Possible,
}

impl Certainty {
    /// Certainty as lines write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
            Self::Possible => "possible",
        }
    }
}

/// Explanation of an ending, with the evidence that shows it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Cause {
    /// Code of the cause.
    pub code: Code,
    /// Certainty of the cause.
    pub certainty: Certainty,
    /// Sentence with the facts of this case.
    pub why: String,
    /// Concrete step that mends it.
    pub fix: String,
    /// Facts that show the cause, by name.
    pub evidence: Map<String, Value>,
}

impl Cause {
    /// Makes a cause, bounded to the room that it has in a line.
    #[must_use]
    pub fn new(code: Code, certainty: Certainty, why: &str, fix: &str, facts: Facts) -> Self {
        let Facts(evidence) = facts;
        let json = serde_json::to_string(&evidence).unwrap_or_default();
        let fits = sanitize::written_len(&json) <= EVIDENCE_JSON_MAX;
        Self {
            code,
            certainty,
            why: sanitize::bounded(why.as_bytes(), SENTENCE_JSON_MAX),
            fix: sanitize::bounded(fix.as_bytes(), SENTENCE_JSON_MAX),
            evidence: if fits { evidence } else { Map::new() },
        }
    }
}

impl Cause {
    /// Returns the cause with words before its own, and one more fact.
    pub(super) fn preceded(self, by: &str, name: &str, fact: impl Serialize) -> Self {
        let why = format!("{by}{}", self.why);
        let facts = Facts(self.evidence).with(name, fact);
        Self::new(self.code, self.certainty, &why, &self.fix, facts)
    }
}

/// A cause with its JSON, which is made once for all lines that have it.
#[derive(Debug)]
pub struct WrittenCause {
    cause: Cause,
    json: Box<RawValue>,
    /// Hash of the JSON.
    hash: u64,
}

impl From<Cause> for WrittenCause {
    fn from(cause: Cause) -> Self {
        // Its keys are strings: there is nothing in it that JSON cannot hold.
        let json = to_raw_value(&cause).unwrap_or_default();
        let hash = FixedState::default().hash_one(json.get());
        Self { cause, json, hash }
    }
}

/// Compares the JSON, which holds all of the cause.
impl PartialEq for WrittenCause {
    fn eq(&self, other: &Self) -> bool {
        self.json.get() == other.json.get()
    }
}

impl Eq for WrittenCause {}

impl Hash for WrittenCause {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Deref for WrittenCause {
    type Target = Cause;

    fn deref(&self) -> &Cause {
        &self.cause
    }
}

impl Serialize for WrittenCause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

/// Reason for which the search for a cause is incomplete.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Undiagnosed {
    /// An answer about the host did not come in time.
    NoTime,
    /// A capability is missing, or the network namespace is gone.
    NoAccess,
    /// A budget was spent, or an answer may have been forgotten.
    Incomplete,
    /// This kernel or tier does not tell what was asked.
    Unsupported,
    /// Diagnosis is turned off (`--no-diagnosis`).
    Off,
}

impl Undiagnosed {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::NoTime,
        Self::NoAccess,
        Self::Incomplete,
        Self::Unsupported,
        Self::Off,
    ];

    /// Reason as lines write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoTime => "no_time",
            Self::NoAccess => "no_access",
            Self::Incomplete => "incomplete",
            Self::Unsupported => "unsupported",
            Self::Off => "off",
        }
    }
}

/// Result of a search for a cause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct DiagnosisResult {
    /// The cause, if there is evidence for one.
    pub cause: Option<Arc<WrittenCause>>,
    /// Reason for which the search is incomplete, if it is.
    pub undiagnosed: Option<Undiagnosed>,
    /// Destination to which that of the attempt was translated, if connection tracking has it.
    pub translated_to: Option<Remote>,
}

/// Named facts that show a cause.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts(Map<String, Value>);

impl Facts {
    /// Returns an empty set of facts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fact; one that cannot be written as JSON is null.
    #[must_use]
    pub fn with(mut self, name: &str, fact: impl Serialize) -> Self {
        let fact = serde_json::to_value(fact).unwrap_or_default();
        self.0.insert(name.to_owned(), fact);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_as_it_is_named() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn a_reason_is_written_as_it_is_named() {
        for reason in Undiagnosed::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }

    #[test]
    fn a_cause_takes_no_more_than_its_room() {
        let long = "\u{1}".repeat(9000);
        let facts = Facts::new().with("long", &long);
        let cause = Cause::new(Code::NoRoute, Certainty::Certain, &long, &long, facts);
        let json = serde_json::to_string(&cause).unwrap();
        assert!(json.len() < 2 * SENTENCE_JSON_MAX + 200, "{}", json.len());
        assert!(cause.evidence.is_empty());
    }

    #[test]
    fn a_written_cause_is_the_cause() {
        let facts = Facts::new().with("quoted", "\"\n\u{7f}é");
        let cause = Cause::new(Code::NoRoute, Certainty::Likely, "why\t", "fix", facts);
        let written = WrittenCause::from(cause.clone());
        assert_eq!(
            serde_json::to_string(&written).unwrap(),
            serde_json::to_string(&cause).unwrap()
        );
    }
}
