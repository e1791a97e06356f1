//! Ephemeral ports of the calling thread's network namespace.

use std::ops::RangeInclusive;

use super::sysctl;

/// Rules by which the kernel chooses an ephemeral port.
pub(crate) struct PortRules {
    pub(crate) range: (u16, u16),
    reserved: PortSet,
    /// `ip_local_reserved_ports` as it stands.
    pub(crate) reserved_list: String,
    pub(crate) tw_reuse: u8,
}

impl PortRules {
    pub(crate) fn read() -> Option<Self> {
        let reserved_list = sysctl::reserved_ports()?;
        Some(Self {
            range: sysctl::port_range()?,
            reserved: sysctl::ports(&reserved_list)?,
            reserved_list,
            tw_reuse: sysctl::tw_reuse()?,
        })
    }

    fn range(&self) -> RangeInclusive<u16> {
        self.range.0..=self.range.1
    }

    pub(crate) fn has(&self, port: u16) -> bool {
        self.range().contains(&port) && !self.reserved.contains(port)
    }

    /// Returns the number of ports in the range that are not reserved.
    pub(crate) fn available(&self) -> u32 {
        let (low, high) = self.range;
        u32::from(high - low) + 1 - self.reserved_in_range()
    }

    pub(crate) fn reserved_in_range(&self) -> u32 {
        self.reserved.count_within(self.range())
    }

    /// Returns the number of these ports that are in the range and not reserved.
    pub(crate) fn count(&self, ports: &PortSet) -> u32 {
        ports.without(&self.reserved).count_within(self.range())
    }

    /// Returns the ports of a range that are not reserved, and these ones among them.
    pub(crate) fn unreserved(&self, range: (u16, u16), ports: &PortSet) -> (u32, Vec<u16>) {
        let (low, high) = range;
        let mut all = PortSet::default();
        all.insert(low, high);
        let available = all.without(&self.reserved).count_within(low..=high);
        let ports = ports.without(&self.reserved);
        let ports = (low..=high).filter(|&port| ports.contains(port)).collect();
        (available, ports)
    }

    /// Like [`count`](Self::count), but leaves out some ports.
    pub(crate) fn count_without(&self, ports: &PortSet, others: &PortSet) -> u32 {
        self.count(&ports.without(others))
    }
}

/// Bits in a word of a port set.
const WORD: u16 = 64;
/// Number of words in a port set.
const WORDS: usize = (1 << 16) / WORD as usize;

/// Set of ports: one bit for each of the 65,536.
pub(crate) struct PortSet(Box<[u64; WORDS]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl PortSet {
    /// Adds the ports from `low` to `high`, both included.
    pub(crate) fn insert(&mut self, low: u16, high: u16) {
        for (word, mask) in self.0.iter_mut().zip(masks(low..=high)) {
            *word |= mask;
        }
    }

    /// Adds one port.
    pub(crate) fn add(&mut self, port: u16) {
        if let Some(word) = self.0.get_mut(usize::from(port / WORD)) {
            *word |= 1 << (port % WORD);
        }
    }

    pub(crate) fn contains(&self, port: u16) -> bool {
        let word = self.0.get(usize::from(port / WORD));
        word.is_some_and(|word| word & (1 << (port % WORD)) != 0)
    }

    /// Returns the ports that the other set has not.
    fn without(&self, others: &Self) -> Self {
        let mut rest = Self::default();
        let words = self.0.iter().zip(others.0.iter());
        for (rest, (word, others)) in rest.0.iter_mut().zip(words) {
            *rest = word & !others;
        }
        rest
    }

    fn count_within(&self, range: RangeInclusive<u16>) -> u32 {
        let within = self.0.iter().zip(masks(range));
        within.map(|(word, mask)| (word & mask).count_ones()).sum()
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX).filter(|&port| self.contains(port))
    }
}

/// Yields the bit mask of these ports, word by word.
fn masks(range: RangeInclusive<u16>) -> impl Iterator<Item = u64> {
    let (low, high) = range.into_inner();
    (0..=u16::MAX / WORD).map(move |word| {
        let first = word * WORD;
        let from = low.saturating_sub(first);
        let beyond = (WORD - 1).saturating_sub(high.saturating_sub(first));
        if from >= WORD || high < first || low > high {
            0
        } else {
            (u64::MAX << from) & (u64::MAX >> beyond)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_as_a_list_would_have_them(
            ranges in prop::collection::vec((any::<u16>(), 0..2000u16), 0..8),
            range: (u16, u16),
        ) {
            let ranges = ranges.into_iter().map(|(low, len)| low..=low.saturating_add(len));
            let ranges: Vec<_> = ranges.collect();
            let mut reserved = PortSet::default();
            for range in &ranges {
                reserved.insert(*range.start(), *range.end());
            }
            let range = (range.0.min(range.1), range.0.max(range.1));
            let rules = PortRules { range, reserved, reserved_list: String::new(), tw_reuse: 0 };
            let listed = |port| ranges.iter().any(|range| range.contains(&port));
            let within = || range.0..=range.1;
            let open = (0..=u16::MAX).filter(|port| within().contains(port) && !listed(*port));
            prop_assert!(open.clone().eq((0..=u16::MAX).filter(|&port| rules.has(port))));
            prop_assert_eq!(rules.available() as usize, open.count());
            let reserved = within().filter(|&port| listed(port)).count();
            prop_assert_eq!(rules.reserved_in_range() as usize, reserved);
            let mut used = PortSet::default();
            (1000..=40_000).for_each(|port| used.add(port));
            let mut others = PortSet::default();
            others.insert(2000, 3000);
            let counted = (1000..=40_000).filter(|&port| rules.has(port));
            prop_assert_eq!(rules.count(&used) as usize, counted.clone().count());
            let rest = counted.filter(|port| !(2000..=3000).contains(port)).count();
            prop_assert_eq!(rules.count_without(&used, &others) as usize, rest);
        }
    }

    #[test]
    fn a_range_upside_down_has_no_ports() {
        let mut ports = PortSet::default();
        ports.insert(9, 7);
        assert_eq!(ports.count_within(0..=u16::MAX), 0);
        ports.insert(0, u16::MAX);
        assert_eq!(ports.count_within(0..=u16::MAX), 65_536);
    }
}
