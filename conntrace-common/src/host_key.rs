//! Keys of remote hosts, and of the private networks around them.

use crate::hash::{self, HashSecret};

/// Number of sets of hosts, a power of two. For each the kernel side keeps when an answer was last
/// missed, and the agent what it remembers of a few hosts.
pub const SETS: u32 = 4096;

/// Bit that is clear in a network's key. Inode numbers of namespaces begin at 0xeffffff0
/// (`PROC_DYNAMIC_FIRST`), so that it is set in every host's key.
const NETWORK: u64 = 1 << 31;

/// Key of a host, or of a private network, in one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostKey([u64; 3]);

impl HostKey {
    /// Creates the key of a host. The lower half of `netns` is the namespace's inode number, which
    /// the kernel can reuse. The upper half has 16 of its random bits (`net.hash_mix`). An IPv4
    /// address is v4-mapped.
    #[inline(always)]
    #[must_use]
    pub const fn new(netns: u64, addr: [u8; 16]) -> Self {
        Self::of_words(netns, hash::words_of(addr))
    }

    /// Creates the key of a host whose address is already in two words ([`hash::words_of`]).
    #[inline(always)]
    #[must_use]
    pub const fn of_words(netns: u64, [first, second]: [u64; 2]) -> Self {
        Self([netns, first, second])
    }

    /// Returns the index of the set that holds this key.
    #[inline(always)]
    #[must_use]
    pub const fn set(&self, secret: HashSecret) -> u32 {
        hash::of_words(secret, self.0) as u32 % SETS
    }

    /// Returns the key of the host's private network: RFC 1918, RFC 6598, or a /48 site of
    /// RFC 4193.
    #[inline(always)]
    #[must_use]
    pub const fn network(&self) -> Option<Self> {
        let [netns, first, second] = self.0;
        let (upper, lower) = (u64::from_be(first), u64::from_be(second));
        let netns = netns ^ NETWORK;
        if upper == 0 && lower >> u32::BITS == 0xffff {
            let mask = private_mask(lower as u32) as u64;
            let network = lower & (0xffff << u32::BITS | mask);
            return if mask == 0 {
                None
            } else {
                Some(Self([netns, first, network.to_be()]))
            };
        }
        if upper >> 57 == 0xfc >> 1 {
            return Some(Self([netns, (upper & !0xffff).to_be(), 0]));
        }
        None
    }

    /// Returns true if two keys, of hosts or networks, belong to the same namespace.
    #[must_use]
    pub const fn is_beside(&self, other: &Self) -> bool {
        (self.0[0] ^ other.0[0]) & !NETWORK == 0
    }
}

/// Returns the mask of the private network of an IPv4 address; 0 if it is not private.
#[inline(always)]
const fn private_mask(addr: u32) -> u32 {
    const NETWORKS: [([u8; 4], u32); 4] = [
        ([10, 0, 0, 0], 8),
        ([172, 16, 0, 0], 12),
        ([192, 168, 0, 0], 16),
        ([100, 64, 0, 0], 10),
    ];
    let mut index = 0;
    while index < NETWORKS.len() {
        let (network, bits) = NETWORKS[index];
        let mask = u32::MAX << (u32::BITS - bits);
        if addr & mask == u32::from_be_bytes(network) {
            return mask;
        }
        index += 1;
    }
    0
}
