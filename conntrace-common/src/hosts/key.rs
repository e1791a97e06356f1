//! Keys of the memory of hosts.

use super::SETS;
use crate::hash;

/// Tells a network's key from a host's. Numbers of namespaces begin at 0xeffffff0
/// (`PROC_DYNAMIC_FIRST`), so that no host's key is without this bit.
const NETWORK: u64 = 1 << 31;

/// A host as one network namespace sees it, or a private network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostKey(pub(super) [u64; 3]);

impl HostKey {
    /// Of a namespace's inode number, which a later one may have, and in the upper half its
    /// random bits, which that one has not (`net.hash_mix`); and of an address, an IPv4 one
    /// v4-mapped.
    #[inline(always)]
    #[must_use]
    pub const fn new(netns: u64, addr: [u8; 16]) -> Self {
        let [first, second] = hash::words_of(addr);
        Self([netns, first, second])
    }

    /// The set that it has its place in.
    #[inline(always)]
    #[must_use]
    pub const fn set(&self, secret: u64) -> u32 {
        hash::of_words(secret, self.0) as u32 % SETS
    }

    /// The private network that the host is in (RFC 1918, RFC 6598; of RFC 4193 a site).
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

    /// It is of this namespace, a host's or a network's key the same.
    #[inline(always)]
    pub(super) const fn is_in(&self, netns: u64) -> bool {
        (self.0[0] ^ netns) & !NETWORK == 0
    }
}

/// The mask of the private network that an IPv4 address is in; 0 if it is in none.
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
