//! Three-valued logic, and bytes with unknown bits.

use std::cmp::Ordering;

/// Value of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

use Truth::{False, True, Unknown};

impl Truth {
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (False, _) | (_, False) => False,
            (True, True) => True,
            (Unknown, _) | (_, Unknown) => Unknown,
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    pub(super) fn not(self) -> Self {
        match self {
            True => False,
            False => True,
            Unknown => Unknown,
        }
    }

    /// Negates the value if `is_inverted` is set.
    pub(super) fn invert(self, is_inverted: bool) -> Self {
        if is_inverted { self.not() } else { self }
    }
}

impl From<bool> for Truth {
    fn from(is_true: bool) -> Self {
        if is_true { True } else { False }
    }
}

impl From<Option<bool>> for Truth {
    fn from(known: Option<bool>) -> Self {
        known.map_or(Unknown, Self::from)
    }
}

/// Byte with unknown bits, which are 0 in `value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartialByte {
    value: u8,
    known: u8,
}

impl PartialByte {
    pub(super) const UNKNOWN: Self = Self { value: 0, known: 0 };
    pub(super) const ZERO: Self = Self::known(0);

    pub(super) const fn known(value: u8) -> Self {
        Self {
            value,
            known: u8::MAX,
        }
    }

    /// Creates a byte of which only the bits in `known` are known.
    pub(super) const fn masked(value: u8, known: u8) -> Self {
        Self {
            value: value & known,
            known,
        }
    }

    /// Keeps the bits that are known and equal in both.
    pub(super) fn shared(self, other: Self) -> Self {
        let known = self.known & other.known & !(self.value ^ other.value);
        Self::masked(self.value, known)
    }

    /// Computes `(byte & mask) ^ xor`, as the expression `bitwise` does.
    pub(super) fn bitwise(self, mask: u8, xor: u8) -> Self {
        let known = self.known | !mask;
        Self::masked((self.value & mask) ^ xor, known)
    }
}

/// Converts a known value; without one, returns as many unknown bytes.
pub(super) fn bytes<const N: usize>(known: Option<[u8; N]>) -> [PartialByte; N] {
    known.map_or([PartialByte::UNKNOWN; N], |value| {
        value.map(PartialByte::known)
    })
}

/// Returns the values of the bytes if all of them are known.
pub(super) fn known(bytes: &[PartialByte]) -> Option<Vec<u8>> {
    let values = bytes
        .iter()
        .map(|byte| (byte.known == u8::MAX).then_some(byte.value));
    values.collect()
}

/// Compares bytes for equality; `Unknown` if the lengths differ.
pub(super) fn equal(bytes: &[PartialByte], other: &[u8]) -> Truth {
    if bytes.len() != other.len() {
        return Unknown;
    }
    let each = bytes.iter().zip(other).map(|(byte, &other)| {
        if byte.value != other & byte.known {
            False
        } else if byte.known == u8::MAX {
            True
        } else {
            Unknown
        }
    });
    each.fold(True, Truth::and)
}

/// Compares as `memcmp` does, as far as the known bits decide.
pub(super) fn order(bytes: &[PartialByte], other: &[u8]) -> Option<Ordering> {
    if bytes.len() != other.len() {
        return None;
    }
    for (byte, other) in bytes.iter().zip(other) {
        if byte.value | !byte.known < *other {
            return Some(Ordering::Less);
        }
        if byte.value > *other {
            return Some(Ordering::Greater);
        }
        if byte.known != u8::MAX {
            return None;
        }
    }
    Some(Ordering::Equal)
}

/// Tests for a range that includes both ends.
pub(super) fn within(bytes: &[PartialByte], low: &[u8], high: &[u8]) -> Truth {
    let from = Truth::from(order(bytes, low).map(Ordering::is_ge));
    from.and(order(bytes, high).map(Ordering::is_le).into())
}
