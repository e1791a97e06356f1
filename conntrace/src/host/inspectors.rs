//! Inspectors: threads that look at the host, for a worker that never waits.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Once,
    time::{Duration, Instant},
};

use super::{
    answer_cache::Lookup,
    inspector::HostInspector,
    netns::AttemptRef,
    pool::{Pool, PoolLimits, Server, Share},
    port_usage::{PortScan, PortScanResult},
    procfs::exe::{ExeKey, ExeLookup, ExeRequest},
};
use crate::{
    diagnosis::{Undiagnosed, question::Question},
    record::clock,
};

const LIMITS: PoolLimits = PoolLimits {
    threads: 3,
    abandoned_max: 32,
    grace: Duration::from_millis(250),
    process_max: Duration::from_millis(100),
    starved_max: Duration::from_secs(2),
};

/// Look at the host.
#[derive(Debug, Clone)]
enum LookRequest {
    /// Question of a rule, and the attempt it is about.
    Question(Question, AttemptRef),
    /// Look for the path of an executable.
    Exe(Box<ExeRequest>),
    /// Scan of the sockets connected to a remote port.
    Ports(PortScan),
}

/// Result of a look.
#[derive(Debug)]
pub(crate) enum LookAnswer {
    /// Answer to the question with the number that [`Inspectors::ask`] returned, and the time of the
    /// oldest look that it is based on, in nanoseconds of `CLOCK_BOOTTIME`.
    Question(u64, (Lookup, u64)),
    /// Path of an executable.
    Exe(ExeKey, ExeLookup),
    /// Local ports in use.
    Ports(PortScanResult),
}

/// Threads that look at the host. Each has its own namespace and caches; one that hangs is abandoned.
pub(crate) struct Inspectors(Pool<LookRequest, Answered>);

/// Answer of a thread.
enum Answered {
    Question((Lookup, u64)),
    Exe(ExeKey, ExeLookup),
    /// `None` if this thread looks at nothing.
    Ports(Option<PortScanResult>),
}

impl Inspectors {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread cannot be started, or no descriptor is available.
    pub(crate) fn start() -> io::Result<Self> {
        Pool::start("conntrace-look", LIMITS, inspector).map(Self)
    }

    /// Asks a question about an attempt, and returns the number of its answer; `None` if too many
    /// wait.
    pub(crate) fn ask(
        &mut self,
        question: Question,
        about: AttemptRef,
        share: Share,
        until: Instant,
    ) -> Option<u64> {
        let request = LookRequest::Question(question, about);
        self.0.ask(request, share, until)
    }

    /// Looks for the path of an executable. Returns false if too many looks wait.
    pub(crate) fn find_exe(
        &mut self,
        request: Box<ExeRequest>,
        share: Share,
        until: Instant,
    ) -> bool {
        let request = LookRequest::Exe(request);
        self.0.ask(request, share, until).is_some()
    }

    /// Scans the sockets connected to a remote port. Returns false if too many looks wait.
    pub(crate) fn scan_ports(&mut self, scan: PortScan, until: Instant) -> bool {
        let share = Share::Namespace(scan.netns);
        self.0.ask(LookRequest::Ports(scan), share, until).is_some()
    }

    /// Takes the answers that have come, and abandons the threads that hang.
    pub(crate) fn answers(&mut self, now: Instant) -> Vec<LookAnswer> {
        if self.0.abandon_late(now) > 0 {
            warn_once();
        }
        let answers = self.0.answers().into_iter();
        let answers = answers.filter_map(|(number, answer)| match answer {
            Answered::Question(found) => Some(LookAnswer::Question(number, found)),
            Answered::Exe(key, lookup) => Some(LookAnswer::Exe(key, lookup)),
            Answered::Ports(result) => result.map(LookAnswer::Ports),
        });
        answers.collect()
    }

    /// Returns the time at which a thread is taken for one that hangs; `None` while all are idle.
    pub(crate) fn late_at(&self) -> Option<Instant> {
        self.0.late_at()
    }

    /// Returns the number of threads that were abandoned.
    pub(crate) fn abandoned(&self) -> u64 {
        self.0.abandoned()
    }
}

impl AsFd for Inspectors {
    /// Returns a descriptor that is readable once there is an answer.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the server of a thread. One that could not return to its own namespace ends: it must not
/// keep another one alive, and must not look from there.
fn inspector() -> Server<LookRequest, Answered> {
    // Made by the first question: without diagnosis there is none.
    let mut inspector: Option<Option<HostInspector>> = None;
    Box::new(move |request, until| match request {
        LookRequest::Question(question, about) => {
            let answered = match usable(&mut inspector)? {
                Some(inspector) => inspector.answer(question, about, until),
                None => (Lookup::Unknown(Undiagnosed::NoAccess), clock::boot_ns()),
            };
            Some(Answered::Question(answered))
        }
        LookRequest::Exe(request) => Some(Answered::Exe(request.key(), request.look())),
        LookRequest::Ports(scan) => {
            let inspector = usable(&mut inspector)?;
            let result = inspector.map(|inspector| inspector.scan(scan, until));
            Some(Answered::Ports(result))
        }
    })
}

/// Returns the inspector, made by the first call: `Some(None)` if it cannot be made, and `None` if
/// its thread could not return to its own namespace.
fn usable(inspector: &mut Option<Option<HostInspector>>) -> Option<Option<&mut HostInspector>> {
    let inspector = inspector.get_or_insert_with(host_inspector).as_mut();
    let is_stranded = inspector.as_ref().is_some_and(|it| it.is_stranded());
    (!is_stranded).then_some(inspector)
}

fn host_inspector() -> Option<HostInspector> {
    static WARNED: Once = Once::new();
    HostInspector::new()
        .inspect_err(|error| {
            WARNED.call_once(|| {
                log::warn!("no causes: cannot open this thread's network namespace: {error}");
            });
        })
        .ok()
}

fn warn_once() {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        log::warn!(
            "a look at a process or namespace hangs; its thread is abandoned \
             (`inspectors_abandoned` in the summary)"
        );
    });
}
