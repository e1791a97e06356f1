//! How much of the ring waits to be read.

use std::sync::Arc;

use super::RingPositions;

/// Bytes in the ring from which on nobody may be waited for: a quarter of it. The rest holds
/// 24,576 records, those of a tenth of a second, which a look at the host may take, at 245,000
/// endings a second.
const LARGE: usize = 2 << 20;

/// View of the records that wait in the ring; without one none wait.
#[derive(Debug, Clone, Default)]
pub struct Backlog(Option<Arc<RingPositions>>);

impl Backlog {
    /// Of the ring with these positions.
    pub(crate) fn of(positions: RingPositions) -> Self {
        Self(Some(Arc::new(positions)))
    }

    /// Returns true if so many records wait that their reader may wait for nobody.
    #[must_use]
    pub fn is_large(&self) -> bool {
        let waiting = self.0.as_ref().map(|positions| positions.waiting());
        waiting.is_some_and(|waiting| waiting >= LARGE)
    }
}
