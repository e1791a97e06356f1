//! Hash for every table keyed by addresses.
//!
//! It uses a secret chosen at each start, so that nobody can choose addresses that collide.

/// Mixes the bits of a word with the finaliser of `MurmurHash3`, which is a bijection.
#[inline(always)]
const fn mix(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

/// Key of the hash: odd numbers that nobody outside can know.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct HashSecret([u64; 3]);

impl HashSecret {
    /// Creates a key from random words.
    #[inline(always)]
    #[must_use]
    pub const fn new([first, second, third]: [u64; 3]) -> Self {
        Self([first | 1, second | 1, third | 1])
    }

    /// Returns the words of the key, for another process.
    #[must_use]
    pub const fn words(self) -> [u64; 3] {
        self.0
    }
}

/// Hashes three words: mixes the sum of their products with the key (multilinear hashing). Words
/// that differ have the same sum for few keys only, and an odd factor keeps those that differ in
/// one word apart. All bits of the result are equally well mixed.
#[inline(always)]
#[must_use]
pub const fn of_words(secret: HashSecret, words: [u64; 3]) -> u64 {
    let [first, second, third] = words;
    let HashSecret([by_first, by_second, by_third]) = secret;
    mix(first
        .wrapping_mul(by_first)
        .wrapping_add(second.wrapping_mul(by_second))
        .wrapping_add(third.wrapping_mul(by_third)))
}

/// Hashes a destination in a network namespace, of which any number that tells it from others is
/// given. The address is in two words ([`words_of`]), IPv4 v4-mapped.
#[inline(always)]
#[must_use]
pub const fn of_destination(
    secret: HashSecret,
    netns: u32,
    [first, second]: [u64; 2],
    port: u16,
) -> u64 {
    let rest = (netns as u64) << u16::BITS | port as u64;
    of_words(secret, [first, second, rest])
}

/// Splits an address into two words.
#[inline(always)]
#[must_use]
pub const fn words_of(addr: [u8; 16]) -> [u64; 2] {
    let addr = u128::from_ne_bytes(addr);
    [addr as u64, (addr >> u64::BITS) as u64]
}

/// Joins two words into an address.
#[inline(always)]
#[must_use]
pub const fn addr_of([first, second]: [u64; 2]) -> [u8; 16] {
    ((second as u128) << u64::BITS | first as u128).to_ne_bytes()
}

#[cfg(test)]
mod tests;
