//! What the kernel side hands over, decoded and labelled. Nothing in here touches a clock, a
//! file or a thread, but for reading the distance between two clocks.

pub(crate) mod clock;
mod counters;
pub(crate) mod decode;
mod errno;
pub(crate) mod label;
mod reply;
pub(crate) mod sanitize;

pub use clock::WallClock;
pub use counters::Counters;
pub use decode::*;
pub use errno::*;
pub use label::*;
pub use reply::*;

/// Bytes of a record.
pub type WireRecord = [u8; conntrace_common::record::RECORD_SIZE];
