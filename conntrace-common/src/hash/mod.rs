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

/// Hashes three words. All bits of the result are equally well mixed.
#[inline(always)]
#[must_use]
pub const fn of_words(secret: u64, [first, second, third]: [u64; 3]) -> u64 {
    let hash = mix(secret ^ first);
    mix(mix(hash ^ second) ^ third)
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
