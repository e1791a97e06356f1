//! Dropped handshake packets that have lost their socket, and the attempts that they may belong to.
//!
//! A packet loses its socket on loopback and behind a veth. The kernel side reports such a drop only
//! if an attempt from the packet's client address is under way, and, of an answer, if the client's
//! port waits for one. Both are told by the time that is stored at a hash. Attempts that share a
//! hash cause a needless record at most. Nothing that a scan or flood sends is kept.

/// Number of hashes of client addresses, a power of two.
pub const ADDRS: u32 = 4096;
/// Number of hashes of client ports, a power of two.
pub const PORTS: u32 = 8192;

/// Base-2 logarithm of the unit of stored times in nanoseconds, 1.07 s.
const UNIT_BITS: u32 = 30;
/// Number of units for which an attempt counts as under way after it began, or sent its SYN again:
/// the kernel waits 120 s between two SYNs at most (`TCP_RTO_MAX`).
const ALIVE: u32 = 128;

/// Number of drops that a CPU reports in [`WINDOW_BITS`] at most.
pub const WINDOW_MAX: u64 = 1024;
/// Base-2 logarithm of that window in nanoseconds, 134 ms.
pub const WINDOW_BITS: u32 = 27;

/// Returns the time to store for an attempt that begins or goes on now, in nanoseconds of
/// `CLOCK_BOOTTIME`.
#[inline(always)]
#[must_use]
pub const fn stamp(now_ns: u64) -> u32 {
    (now_ns >> UNIT_BITS) as u32 + 1
}

/// Returns true if an attempt with this stamp may still be under way. An unused place has none.
#[inline(always)]
#[must_use]
pub const fn is_alive(stamp: u32, now_ns: u64) -> bool {
    stamp != 0 && self::stamp(now_ns).wrapping_sub(stamp) <= ALIVE
}

/// Returns the hash of a client address: of its last four bytes, as a register holds them. The upper
/// bits of the product depend on all bits of the address.
#[inline(always)]
#[must_use]
pub const fn addr_hash(last_bytes: u32) -> u32 {
    last_bytes.wrapping_mul(0x9e37_79b9) >> (u32::BITS - ADDRS.ilog2())
}

/// Returns the hash of a client port, in whatever byte order.
#[inline(always)]
#[must_use]
pub const fn port_hash(port: u16) -> u32 {
    port as u32 % PORTS
}

/// Packet of a TCP handshake that was dropped, and had no socket of an attempt (`kfree_skb`).
///
/// Addresses are v4-mapped for IPv4. Where connection tracking has an entry for the packet in the
/// namespace that dropped it (`sk_buff._nfct`), the client is the entry's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawDrop {
    /// Time of the drop, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Address of the client: source of a SYN, destination of a SYN-ACK.
    pub client: [u8; 16],
    /// Address of the other end, as the dropped packet has it.
    pub server: [u8; 16],
    /// Destination before its translation in this namespace (`IP_CT_DIR_ORIGINAL`); all zero without an
    /// entry of connection tracking.
    pub asked: [u8; 16],
    /// Inode number of the network namespace that dropped the packet.
    pub netns: u32,
    /// Index of the packet's interface (`sk_buff.dev`); 0 if it had none.
    pub device: u32,
    /// Port of the client, network order.
    pub client_port: u16,
    /// Port of the other end, network order.
    pub server_port: u16,
    /// Port of `asked`, network order.
    pub asked_port: u16,
    /// Number of the reason, of the running kernel's `enum skb_drop_reason`.
    pub reason: u16,
    /// Lower half of the client's initial sequence number: that of a SYN, and one less than a SYN-ACK
    /// acknowledges. No translation changes it, so that it tells the attempt from another one with
    /// the same address and port.
    pub isn_end: u16,
    /// [`DROPPED_SYN`] or [`DROPPED_SYN_ACK`].
    pub packet: u8,
    /// Padding, always zero.
    pub reserved: [u8; 5],
}

/// `RawDrop::packet`: a SYN without ACK.
pub const DROPPED_SYN: u8 = 1;
/// `RawDrop::packet`: a SYN with ACK.
pub const DROPPED_SYN_ACK: u8 = 2;

/// Size of a [`RawDrop`] in bytes, which tells it from other records.
pub const DROP_SIZE: usize = 80;

const _: () = assert!(size_of::<RawDrop>() == DROP_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn an_attempt_is_alive_between_two_of_its_syns() {
        let began = stamp(7 * SECOND_NS);
        for after_s in [0, 1, 60, 121, 130] {
            assert!(is_alive(began, (7 + after_s) * SECOND_NS), "{after_s}");
        }
        assert!(!is_alive(began, (7 + 140) * SECOND_NS));
        assert!(!is_alive(0, SECOND_NS), "an unused place");
    }

    #[test]
    fn neighbours_have_hashes_of_their_own() {
        for base in [[10, 0, 0, 0], [192, 168, 7, 0], [0xfd, 0, 0, 0]] {
            let mut seen = [0u8; ADDRS as usize];
            for host in 0..=255 {
                let [a, b, c, _] = base;
                let hash = addr_hash(u32::from_le_bytes([a, b, c, host]));
                seen[hash as usize] += 1;
            }
            assert_eq!(seen.iter().max(), Some(&1), "{base:?}");
        }
        // A /16, 16 addresses a hash on average.
        let mut seen = [0u8; ADDRS as usize];
        for host in 0..=u16::MAX {
            let [c, d] = host.to_be_bytes();
            seen[addr_hash(u32::from_le_bytes([10, 244, c, d])) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (1..=64).contains(&count)));
    }

    #[test]
    fn ports_that_follow_each_other_have_hashes_of_their_own() {
        for order in [u16::from_be_bytes, u16::from_le_bytes] {
            let hash = |port: u16| port_hash(order(port.to_be_bytes()));
            assert!((32_768..36_000).all(|port| hash(port) != hash(port + 1)));
        }
    }
}
