//! Control flow through a chain.

use super::truth::Truth;

/// A packet inside a chain that it has reached.
pub(super) struct Position {
    /// It is at the rule.
    pub(super) here: Truth,
    /// It has left the chain to where that was called.
    left: Truth,
    /// A rule could have ended its way in this base chain.
    can_end: bool,
}

impl Position {
    /// It begins at the first rule.
    pub(super) fn new() -> Self {
        Self {
            here: Truth::True,
            left: Truth::False,
            can_end: false,
        }
    }

    /// A rule ends its way in the base chain.
    pub(super) fn ends(&mut self, condition: Truth) {
        self.can_end = true;
        self.here = self.here.and(condition.not());
    }

    /// A rule sends it away from the chain, and with this certainty back to the caller.
    pub(super) fn leaves(&mut self, condition: Truth, through: Truth) {
        self.can_end |= through != Truth::True;
        self.left = self.left.or(self.here.and(condition).and(through));
        self.here = self.here.and(condition.not());
    }

    /// A rule sends it to a chain, and with this certainty back.
    pub(super) fn returns(&mut self, condition: Truth, through: Truth) {
        self.can_end |= through != Truth::True;
        if through != Truth::True {
            self.here = self.here.and(condition.not().or(through));
        }
    }

    /// The certainty that it leaves the chain for where that was called.
    pub(super) fn through(&self) -> Truth {
        if self.can_end {
            self.left.or(self.here)
        } else {
            Truth::True
        }
    }
}
