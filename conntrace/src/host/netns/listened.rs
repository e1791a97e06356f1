//! Ports that sockets listen on in each namespace, kept for a moment: so that the namespaces of a
//! machine are not all entered again for each port that is asked for.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use foldhash::HashMap;

use super::list::KEPT_MAX_NS;

/// Maximum number of ports kept. A namespace whose ports do not fit is asked for each port.
const PORTS_MAX: usize = 65_536;
/// Time for which ports are kept, for each namespace that is kept: a look at one takes an eighth of
/// it. In nanoseconds.
const KEPT_PER_NAMESPACE_NS: u64 = 800_000;

/// Ports by namespace, shared by the threads that look.
#[derive(Debug, Clone, Default)]
pub(in crate::host) struct ListenedPorts(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    by_netns: HashMap<u32, KeptPorts>,
    /// Number of ports in all of them.
    ports: usize,
    /// Time at which old ones were last forgotten, `CLOCK_BOOTTIME` nanoseconds.
    swept_ns: u64,
}

#[derive(Debug)]
struct KeptPorts {
    /// Beginning of the look, `CLOCK_BOOTTIME` nanoseconds.
    looked_ns: u64,
    /// In ascending order; `None` if they do not fit.
    ports: Option<Box<[u16]>>,
}

/// State of a port in a namespace, as last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) enum KnownPort {
    /// Nobody listened on it at this time, in nanoseconds of `CLOCK_BOOTTIME`.
    Free(u64),
    /// Somebody listened on it, or the ports did not fit: the namespace is to be asked for this port.
    Unknown,
    /// No ports are kept, or old ones: the namespace is to be asked for all, and they are to be kept.
    Unlisted,
}

impl ListenedPorts {
    /// Returns the ports that the threads of this program share.
    pub(super) fn shared() -> Self {
        static SHARED: LazyLock<ListenedPorts> = LazyLock::new(ListenedPorts::default);
        SHARED.clone()
    }

    /// Returns the state of a port, as far as it counts for an attempt that ended at `at_ns`
    /// (`CLOCK_BOOTTIME` nanoseconds).
    pub(in crate::host) fn of(&self, netns: u32, port: u16, at_ns: u64) -> KnownPort {
        let kept = self.lock();
        let Some(known) = kept.by_netns.get(&netns) else {
            return KnownPort::Unlisted;
        };
        if at_ns >= known.looked_ns.saturating_add(kept.kept_ns()) {
            return KnownPort::Unlisted;
        }
        match &known.ports {
            Some(ports) if ports.binary_search(&port).is_err() => KnownPort::Free(known.looked_ns),
            Some(_) | None => KnownPort::Unknown,
        }
    }

    /// Keeps the ports of a namespace: all that are listened on, or `None` if there are too many.
    pub(in crate::host) fn keep(&self, netns: u32, looked_ns: u64, ports: Option<BTreeSet<u16>>) {
        let mut kept = self.lock();
        kept.forget_old(looked_ns);
        let before = kept.by_netns.remove(&netns);
        kept.ports -= before.map_or(0, |before| before.len());
        let fits = |ports: &BTreeSet<u16>| kept.ports + ports.len() <= PORTS_MAX;
        let ports = ports.filter(fits).map(|ports| ports.into_iter().collect());
        let known = KeptPorts { looked_ns, ports };
        kept.ports += known.len();
        kept.by_netns.insert(netns, known);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Forgets, now and then, what is too old: of namespaces that have ended as well.
    fn forget_old(&mut self, now_ns: u64) {
        if now_ns < self.swept_ns.saturating_add(KEPT_MAX_NS) {
            return;
        }
        self.swept_ns = now_ns;
        let is_new = |known: &KeptPorts| now_ns < known.looked_ns.saturating_add(KEPT_MAX_NS);
        self.by_netns.retain(|_, known| is_new(known));
        self.ports = self.by_netns.values().map(KeptPorts::len).sum();
    }

    fn kept_ns(&self) -> u64 {
        let namespaces = self.by_netns.len() as u64;
        KEPT_MAX_NS.min(namespaces * KEPT_PER_NAMESPACE_NS)
    }
}

impl KeptPorts {
    fn len(&self) -> usize {
        self.ports.as_ref().map_or(0, |ports| ports.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_known_to_be_free_for_a_moment() {
        let listened = ListenedPorts::default();
        assert_eq!(listened.of(1, 80, 0), KnownPort::Unlisted);
        listened.keep(1, 1000, Some([22, 443].into()));
        assert_eq!(listened.of(1, 80, 1500), KnownPort::Free(1000));
        assert_eq!(
            listened.of(1, 80, 500),
            KnownPort::Free(1000),
            "before the look"
        );
        assert_eq!(listened.of(1, 443, 1500), KnownPort::Unknown);
        let over_ns = 1000 + KEPT_PER_NAMESPACE_NS;
        assert_eq!(listened.of(1, 80, over_ns), KnownPort::Unlisted);
        assert_eq!(listened.of(2, 80, 1500), KnownPort::Unlisted);
        listened.keep(2, 1000, None);
        assert_eq!(listened.of(2, 80, 1500), KnownPort::Unknown, "too many");
        // The more there are, the longer a look at all of them takes.
        assert_eq!(listened.of(1, 80, over_ns), KnownPort::Free(1000));
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let listened = ListenedPorts::default();
        let many: BTreeSet<u16> = (1..=4096).collect();
        for netns in 0..100 {
            listened.keep(netns, 1000, Some(many.clone()));
            listened.keep(netns, 1000, Some(many.clone()));
            assert!(listened.lock().ports <= PORTS_MAX);
        }
        assert_eq!(listened.of(0, 4097, 1500), KnownPort::Free(1000));
        assert_eq!(listened.of(99, 4097, 1500), KnownPort::Unknown, "no room");
    }

    #[test]
    fn namespaces_that_ended_are_forgotten() {
        let listened = ListenedPorts::default();
        for netns in 0..1000 {
            listened.keep(netns, 1000, Some([22].into()));
        }
        let later_ns = 1000 + KEPT_MAX_NS;
        listened.keep(1, later_ns, Some([22].into()));
        let kept = listened.lock();
        assert_eq!((kept.by_netns.len(), kept.ports), (1, 1));
        assert_eq!(kept.kept_ns(), KEPT_PER_NAMESPACE_NS);
    }
}
