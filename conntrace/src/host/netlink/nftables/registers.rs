//! The registers of `nf_tables` (`struct nft_regs`).

use super::truth::PartialByte;

/// Bytes in all data registers.
const LEN: usize = 64;

/// The data registers while a rule is evaluated.
#[derive(Debug, Clone)]
pub(super) struct Registers([PartialByte; LEN]);

impl Registers {
    /// Nothing is known of what a rule did not load itself.
    pub(super) fn new() -> Self {
        Self([PartialByte::UNKNOWN; LEN])
    }

    /// So many bytes from a register on; unknown ones outside of all.
    pub(super) fn load(&self, register: u32, len: usize) -> Vec<PartialByte> {
        let bytes = offset(register).and_then(|at| self.0.get(at..)?.get(..len));
        bytes.map_or_else(
            || vec![PartialByte::UNKNOWN; len.min(LEN)],
            <[PartialByte]>::to_vec,
        )
    }

    /// Stores bytes, padded with zeros to whole registers of four bytes.
    pub(super) fn store(&mut self, register: u32, bytes: &[PartialByte]) {
        let Some(rest) = offset(register).and_then(|at| self.0.get_mut(at..)) else {
            return;
        };
        let padded = bytes.len().next_multiple_of(4);
        let zeros = std::iter::repeat_n(&PartialByte::ZERO, padded - bytes.len());
        for (to, from) in rest.iter_mut().zip(bytes.iter().chain(zeros)) {
            *to = *from;
        }
    }
}

/// The place of a register: `NFT_REG_1` to 4 have 16 bytes, `NFT_REG32_00` to 15 have 4
/// of the same (`nft_parse_register`).
fn offset(register: u32) -> Option<usize> {
    let at = match register {
        1..=4 => (register - 1) * 16,
        8..=23 => (register - 8) * 4,
        _ => return None,
    };
    usize::try_from(at).ok()
}
