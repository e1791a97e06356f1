//! Control flow of a packet through a chain, with uncertain conditions.

use super::truth::Truth;

/// Position of a packet in a chain that it has reached.
pub(super) struct Position {
    /// Certainty that the packet is at the current rule.
    pub(super) here: Truth,
    /// Certainty that the packet has returned to the calling chain.
    left: Truth,
    /// True if a rule could have ended the base chain for this packet.
    can_end: bool,
}

impl Position {
    /// Starts at the chain's first rule.
    pub(super) fn new() -> Self {
        Self {
            here: Truth::True,
            left: Truth::False,
            can_end: false,
        }
    }

    /// Applies a rule that ends the base chain.
    pub(super) fn ends(&mut self, condition: Truth) {
        self.can_end = true;
        self.here = self.here.and(condition.not());
    }

    /// Applies a rule that leaves the chain: `through` is the certainty of a return to the caller.
    pub(super) fn leaves(&mut self, condition: Truth, through: Truth) {
        self.can_end |= through != Truth::True;
        self.left = self.left.or(self.here.and(condition).and(through));
        self.here = self.here.and(condition.not());
    }

    /// Applies a jump: `through` is the certainty of a return from the called chain.
    pub(super) fn returns(&mut self, condition: Truth, through: Truth) {
        self.can_end |= through != Truth::True;
        if through != Truth::True {
            self.here = self.here.and(condition.not().or(through));
        }
    }

    /// Returns the certainty that the packet returns to the calling chain.
    pub(super) fn through(&self) -> Truth {
        if self.can_end {
            self.left.or(self.here)
        } else {
            Truth::True
        }
    }
}
