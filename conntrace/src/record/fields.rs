//! Reads the fields of a record from its bytes.

use super::{Errno, Malformed, decode::malformed};

/// Largest errno that the kernel returns (`MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;

/// Bytes of a record, read by the field offsets of [`RawRecord`] or [`RawComplete`].
///
/// [`RawRecord`]: conntrace_common::record::RawRecord
/// [`RawComplete`]: super::history::RawComplete
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    /// Returns the bytes at an offset from `offset_of!`, zeroes beyond the end.
    pub(super) fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    pub(super) fn u8(&self, at: usize) -> u8 {
        let [byte] = self.array(at);
        byte
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.array(at))
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.array(at))
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.array(at))
    }

    /// Reads a number; `None` if it is 0, which stands for absence.
    pub(super) fn nonzero_u32(&self, at: usize) -> Option<u32> {
        Some(self.u32(at)).filter(|&value| value != 0)
    }

    /// Reads a number; `None` if it is 0, which stands for absence.
    pub(super) fn nonzero_u64(&self, at: usize) -> Option<u64> {
        Some(self.u64(at)).filter(|&value| value != 0)
    }

    pub(super) fn errno(&self, field: &'static str, at: usize) -> Result<Option<Errno>, Malformed> {
        errno(field, self.u32(at))
    }

    pub(super) fn errno16(
        &self,
        field: &'static str,
        at: usize,
    ) -> Result<Option<Errno>, Malformed> {
        errno(field, self.u16(at).into())
    }
}

fn errno(field: &'static str, value: u32) -> Result<Option<Errno>, Malformed> {
    match value {
        0 => Ok(None),
        value @ 1..=MAX_ERRNO => Ok(Some(Errno(value as i32))),
        value => Err(malformed(field, value)),
    }
}
