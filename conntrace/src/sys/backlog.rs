//! Measures the unread part of the ring buffer.

use std::sync::Arc;

use super::RingPositions;

/// View of the unread records in the ring; always empty without a ring.
#[derive(Debug, Clone, Default)]
pub struct Backlog(Option<Arc<RingPositions>>);

impl Backlog {
    /// Creates the view of a ring from its positions.
    pub(crate) fn of(positions: RingPositions) -> Self {
        Self(Some(Arc::new(positions)))
    }

    /// Returns true if no record is unread, nor reserved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |positions| positions.waiting())
    }
}
