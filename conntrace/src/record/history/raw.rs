//! Layout of a complete record: the kernel side's, and what the agent remembers of the host.

use conntrace_common::record::{RECORD_SIZE, RawRecord};

use crate::record::{CompleteRecord, WireRecord};

/// Record of the kernel side, completed with the history of its host. A recording keeps it so.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RawComplete {
    /// Record as the kernel side wrote it.
    pub record: RawRecord,
    /// Facts about the remote host. They include the silence of this attempt but not its answers:
    /// an answer is no evidence about the attempt itself.
    pub remembered: RawHistory,
    /// Dropped packet of the attempt that had lost its socket.
    pub way_drop: RawWayDrop,
}

/// Dropped packets of an attempt that had lost their socket: the last one, and the number of those
/// before it that were dropped in the same place for the same reason. Addresses are v4-mapped for
/// IPv4, ports in network order. Their meaning is that of `conntrace_common::drops::RawDrop`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawWayDrop {
    /// Other end, as the dropped packet has it.
    pub server: [u8; 16],
    /// Destination before its translation in the namespace of the drop; all zero if unknown.
    pub asked: [u8; 16],
    /// Time of the last drop, in nanoseconds of `CLOCK_BOOTTIME`.
    pub last_ns: u64,
    /// Inode number of the network namespace that dropped it.
    pub netns: u32,
    /// Index of the interface; 0 if there was none.
    pub device: u32,
    /// Port of `server`.
    pub server_port: u16,
    /// Port of `asked`.
    pub asked_port: u16,
    /// Number of the reason.
    pub reason: u16,
    /// `DROPPED_SYN` or `DROPPED_SYN_ACK`; 0 if no drop is known.
    pub packet: u8,
    /// Number of drops, at most 255.
    pub count: u8,
    /// 1 if a drop may not have been reported or kept, else 0.
    pub is_unknown: u8,
    /// Padding, always zero.
    pub reserved: [u8; 7],
}

impl RawWayDrop {
    /// No drop.
    pub const NOTHING: Self = Self {
        server: [0; 16],
        asked: [0; 16],
        last_ns: 0,
        netns: 0,
        device: 0,
        server_port: 0,
        asked_port: 0,
        reason: 0,
        packet: 0,
        count: 0,
        is_unknown: 0,
        reserved: [0; 7],
    };

    /// Returns true for a drop of the same kind of packet in the same place, for the same reason.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        (self.packet, self.reason, self.netns) == (other.packet, other.reason, other.netns)
            && (self.server, self.server_port) == (other.server, other.server_port)
    }

    /// Writes the bytes, in the host's byte order.
    pub(in crate::record) fn write(&self, place: &mut [u8; size_of::<Self>()]) {
        let parts: [&[u8]; 9] = [
            &self.server,
            &self.asked,
            &self.last_ns.to_ne_bytes(),
            &self.netns.to_ne_bytes(),
            &self.device.to_ne_bytes(),
            &self.server_port.to_ne_bytes(),
            &self.asked_port.to_ne_bytes(),
            &self.reason.to_ne_bytes(),
            &[self.packet, self.count, self.is_unknown],
        ];
        let bytes = parts.into_iter().flatten();
        for (place, byte) in place.iter_mut().zip(bytes) {
            *place = *byte;
        }
    }
}

/// Facts about a host, from traced attempts in the same network namespace. Times are
/// nanoseconds of `CLOCK_BOOTTIME`, 0 if there is none. A time and a port share a word
/// ([`pack`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawHistory {
    /// Time and port of the last completed handshake, packed.
    pub handshake: u64,
    /// Time of the last completed handshake on the attempt's own port.
    pub port_handshake_ns: u64,
    /// Time and source port of the last RST, packed.
    pub reset: u64,
    /// Time since which the host has been tried in vain, if it has answered nothing since.
    pub silent_since_ns: u64,
    /// Time since which hosts of its private network have been tried in vain, if none of them has
    /// answered since; 0 if the host is in none.
    pub network_silent_since_ns: u64,
    /// Last time at which a fact about the host or its network may have been evicted.
    pub forgotten_ns: u64,
    /// Duration of the last handshake in microseconds, from connect to `TCP_ESTABLISHED`; 0 if
    /// unknown.
    pub handshake_took_us: u32,
    /// Padding, always zero.
    pub reserved: u32,
}

impl RawHistory {
    /// History without any facts.
    pub const NOTHING: Self = Self {
        handshake: 0,
        port_handshake_ns: 0,
        reset: 0,
        silent_since_ns: 0,
        network_silent_since_ns: 0,
        forgotten_ns: 0,
        handshake_took_us: 0,
        reserved: 0,
    };
}

/// Bits of a packed word that hold the port.
const PORT_BITS: u64 = u16::MAX as u64;

/// Packs a time and a port into one word. The time loses 16 bits, or 66 us.
pub(in crate::record) const fn pack(at_ns: u64, port: u16) -> u64 {
    at_ns & !PORT_BITS | port as u64
}

/// Returns the time of a packed word in nanoseconds.
pub(in crate::record) const fn packed_ns(word: u64) -> u64 {
    word & !PORT_BITS
}

/// Returns the port of a packed word, in the byte order in which it was packed.
pub(in crate::record) const fn packed_port(word: u64) -> u16 {
    (word & PORT_BITS) as u16
}

/// Size of a [`RawComplete`] in bytes.
pub const COMPLETE_SIZE: usize = 296 + 64;

const _: () = assert!(size_of::<RawComplete>() == COMPLETE_SIZE);

impl RawHistory {
    /// Writes the bytes, in the host's byte order.
    fn write(&self, place: &mut [u8; size_of::<Self>()]) {
        let words = [
            self.handshake,
            self.port_handshake_ns,
            self.reset,
            self.silent_since_ns,
            self.network_silent_since_ns,
            self.forgotten_ns,
        ];
        let numbers = [self.handshake_took_us, self.reserved];
        let (of_words, of_numbers) = place.split_at_mut(size_of_val(&words));
        for (place, word) in of_words.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_ne_bytes();
        }
        for (place, number) in of_numbers.as_chunks_mut().0.iter_mut().zip(numbers) {
            *place = number.to_ne_bytes();
        }
    }
}

/// Completes a record, without a drop.
pub(super) fn complete(record: &WireRecord, history: &RawHistory) -> CompleteRecord {
    let mut complete = [0; COMPLETE_SIZE];
    let (of_record, of_history) = complete.split_at_mut(RECORD_SIZE);
    of_record.copy_from_slice(record);
    if let Some(place) = of_history.first_chunk_mut() {
        history.write(place);
    }
    complete
}

/// Adds the drop to a complete record.
pub(super) fn add_drop(complete: &mut CompleteRecord, drop: &RawWayDrop) {
    if let Some(place) = complete.last_chunk_mut() {
        drop.write(place);
    }
}
