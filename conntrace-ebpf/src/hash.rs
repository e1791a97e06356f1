//! One hash for all the tables that the programs look into themselves.

/// Odd, and without a pattern: 2^64 divided by the golden ratio.
pub const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads the words over 32 bits, of which each is as good as another.
#[inline(always)]
pub fn of_words(words: [u64; 3]) -> u32 {
    let mut hash = 0;
    for word in words {
        hash = (hash ^ word).wrapping_mul(SPREAD);
        hash ^= hash >> u32::BITS;
    }
    hash as u32
}

/// An address as two words.
#[inline(always)]
pub fn words_of(addr: [u8; 16]) -> [u64; 2] {
    let addr = u128::from_ne_bytes(addr);
    [addr as u64, (addr >> u64::BITS) as u64]
}
