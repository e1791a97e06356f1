//! Decodes and labels the kernel side's records. Only `clock` reads clocks; nothing here touches
//! a file or a thread.

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

/// Record as the kernel side writes it, before decoding.
pub type WireRecord = [u8; conntrace_common::record::RECORD_SIZE];
