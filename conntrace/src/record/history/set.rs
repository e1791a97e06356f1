//! Set of hosts with the same hash.

use conntrace_common::host_key::HostKey;

use super::{
    facts::{HostFacts, HostUpdate, LATELY_NS},
    forgotten_at,
};

/// Maximum number of hosts and networks in a set.
pub(super) const WAYS: usize = 4;
/// Maximum number of them in one network namespace.
pub(super) const WAYS_OF_ONE: usize = 3;

/// Hosts and private networks that share a hash.
#[derive(Clone, Debug, Default)]
pub(super) struct HostSet {
    kept: Vec<HostFacts>,
    /// Last time at which a host or network was not kept because the set was full.
    turned_away_ns: u64,
}

/// Rank of a host that may be evicted; the lowest is evicted first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Nothing that counts is known of it, since this time.
    Stale(u64),
    /// It has not answered, since this time.
    OwnSilent(u64),
    /// It answered last at this time.
    OwnHeard(u64),
}

impl HostSet {
    /// Returns what is known of a host. Of one that is not kept that is only when it may have been
    /// evicted. `missed_ns` is the last time at which an answer of it was not told; 0 if none was.
    pub(super) fn look(&self, host: &HostKey, missed_ns: u64) -> HostFacts {
        let kept = self.kept.iter().find(|facts| facts.host == *host);
        let mut facts = kept.copied().unwrap_or_else(|| {
            let beside = self.kept.iter().filter(|facts| facts.host.is_beside(host));
            let forgotten_ns = beside.map(|facts| facts.forgotten_ns).max().unwrap_or(0);
            HostFacts::nothing(*host, forgotten_ns.max(self.turned_away_ns))
        });
        facts.forget(missed_ns);
        facts
    }

    /// Returns the number of hosts and networks that are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Notes a fact about a host, and returns what is known then.
    pub(super) fn note(
        &mut self,
        host: &HostKey,
        missed_ns: u64,
        update: &HostUpdate,
    ) -> HostFacts {
        let mut facts = self.look(host, missed_ns);
        if let Some(kept) = self.kept.iter_mut().find(|facts| facts.host == *host) {
            facts.note(update);
            *kept = facts;
            return facts;
        }
        let own = self.kept.iter().filter(|kept| kept.host.is_beside(host));
        if own.count() < WAYS_OF_ONE && self.kept.len() < WAYS {
            facts.note(update);
            self.kept.push(facts);
            return facts;
        }
        let Some((rank, index)) = self.evictable(host, update.at_ns) else {
            self.turned_away_ns = forgotten_at(update.at_ns);
            facts.forget(self.turned_away_ns);
            return facts;
        };
        if matches!(rank, Rank::OwnHeard(_)) {
            facts.forget(forgotten_at(update.at_ns));
        }
        facts.note(update);
        if let Some(place) = self.kept.get_mut(index) {
            *place = facts;
        }
        facts
    }

    /// Chooses whom to evict for a new host: a stale one, or one of the same namespace. Of another
    /// namespace, what was learned lately stays. A namespace that has its share gets no more.
    fn evictable(&self, host: &HostKey, now_ns: u64) -> Option<(Rank, usize)> {
        let is_own = |facts: &HostFacts| facts.host.is_beside(host);
        let has_share = self.kept.iter().filter(|facts| is_own(facts)).count() >= WAYS_OF_ONE;
        let ranked = self.kept.iter().enumerate().filter_map(|(index, facts)| {
            if has_share && !is_own(facts) {
                return None;
            }
            let newest_ns = facts.newest_ns();
            let rank = if newest_ns == 0 || now_ns.saturating_sub(newest_ns) >= LATELY_NS {
                Rank::Stale(newest_ns)
            } else if !is_own(facts) {
                return None;
            } else if facts.heard_ns == 0 {
                Rank::OwnSilent(newest_ns)
            } else {
                Rank::OwnHeard(newest_ns)
            };
            Some((rank, index))
        });
        ranked.min()
    }
}
