//! Decodes and labels the kernel side's records. Only `clock` reads clocks; nothing here touches
//! a file or a thread.

mod attempt;
pub(crate) mod clock;
mod counters;
pub(crate) mod decode;
mod errno;
mod fields;
pub mod history;
mod holding;
pub(crate) mod label;
mod limits;
mod reply;
pub(crate) mod sanitize;

pub use attempt::{
    Attempt, Caller, Comm, DropUnknown, Drops, ExeId, HostTimes, IcmpError, IcmpVersion,
    RecordKind, Remote, Seen, WayDrop, WayPacket,
};
pub use clock::WallClock;
pub use counters::Counters;
pub use decode::{Malformed, decode};
pub use errno::Errno;
pub use holding::Holding;
pub(crate) use holding::{OPENING_WORDS, top_holding};
pub use label::{Label, TimeoutBy, Verdict, label};
pub use limits::{EarlyLimit, Limits, early_limit};
pub use reply::{Reply, ReplyKind, own_failure, reply};

/// Record as the kernel side writes it.
pub type WireRecord = [u8; conntrace_common::record::RECORD_SIZE];

/// Record with the history of its remote host, before decoding ([`history::RawComplete`]).
pub type CompleteRecord = [u8; history::COMPLETE_SIZE];
