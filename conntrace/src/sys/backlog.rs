//! Measures the unread part of the ring buffer.

use std::sync::Arc;

use super::RingPositions;

/// Unread bytes from which the worker must not wait: a quarter of the ring. The rest holds
/// 26,214 records. At 245,000 endings a second that is a tenth of a second, the time that an
/// inspection of the host may take.
const LARGE: usize = 2 << 20;

/// View of the unread records in the ring; always empty without a ring.
#[derive(Debug, Clone, Default)]
pub struct Backlog(Option<Arc<RingPositions>>);

impl Backlog {
    /// Creates the view of a ring from its positions.
    pub(crate) fn of(positions: RingPositions) -> Self {
        Self(Some(Arc::new(positions)))
    }

    /// Returns true if so many records are unread that their reader must not wait.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.bytes() >= LARGE
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
