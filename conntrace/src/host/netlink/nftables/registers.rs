//! Registers of `nf_tables` (`struct nft_regs`).

use super::truth::PartialByte;

/// Size of all data registers, in bytes.
const LEN: usize = 64;

/// Data registers during the evaluation of a rule.
#[derive(Debug, Clone)]
pub(super) struct Registers([PartialByte; LEN]);

impl Registers {
    /// Creates registers with unknown contents.
    pub(super) fn new() -> Self {
        Self([PartialByte::UNKNOWN; LEN])
    }

    /// Loads `len` bytes from a register; unknown bytes if it is out of range.
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

/// Returns the byte offset of a register. `NFT_REG_1` to 4 have 16 bytes each; `NFT_REG32_00` to 15
/// divide them into parts of 4 (`nft_parse_register`).
fn offset(register: u32) -> Option<usize> {
    let at = match register {
        1..=4 => (register - 1) * 16,
        8..=23 => (register - 8) * 4,
        _ => return None,
    };
    usize::try_from(at).ok()
}
