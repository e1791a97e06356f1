//! From which ports the kernel chooses in the calling thread's namespace.

use std::ops::RangeInclusive;

use super::sysctl;

/// From which ports the kernel chooses.
pub(super) struct PortRules {
    pub(super) range: (u16, u16),
    reserved: Vec<RangeInclusive<u16>>,
    pub(super) tw_reuse: u8,
}

impl PortRules {
    pub(super) fn read() -> Option<Self> {
        Some(Self {
            range: sysctl::port_range()?,
            reserved: sysctl::reserved_ports()?,
            tw_reuse: sysctl::tw_reuse()?,
        })
    }

    fn is_reserved(&self, port: u16) -> bool {
        self.reserved.iter().any(|range| range.contains(&port))
    }

    pub(super) fn has(&self, port: u16) -> bool {
        let (low, high) = self.range;
        (low..=high).contains(&port) && !self.is_reserved(port)
    }

    /// How many ports there are to choose from.
    pub(super) fn available(&self) -> u32 {
        let (low, high) = self.range;
        u32::from(high - low) + 1 - self.reserved_in_range()
    }

    pub(super) fn reserved_in_range(&self) -> u32 {
        let (low, high) = self.range;
        let reserved = (low..=high).filter(|&port| self.is_reserved(port));
        u32::try_from(reserved.count()).unwrap_or(u32::MAX)
    }
}
