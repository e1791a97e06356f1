//! Disposable threads, each of which serves one request at a time.
//!
//! A look at another process, namespace or filesystem can hang for as long as somebody likes. The
//! owner of the pool never waits for one: a thread that is late is abandoned, and another takes its
//! place and its request. Once it returns it ends.

mod shares;
mod spawner;

use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    sys::eventfd::{EfdFlags, EventFd},
    time::{ClockId, clock_gettime},
};

pub(crate) use self::shares::Share;
use self::{
    shares::{Job, Shares},
    spawner::Spawner,
};
use super::attention::{self, Gaze, Quarantine, Subject};

/// Limits of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct PoolLimits {
    /// Number of threads that serve requests.
    pub(super) threads: usize,
    /// Maximum number of abandoned threads that have not returned. Beyond it none is replaced.
    pub(super) abandoned_max: usize,
    /// Time after its deadline at which the thread of a request is abandoned.
    pub(super) grace: Duration,
    /// Time after which a look at one process is taken for one that hangs.
    pub(super) process_max: Duration,
    /// Maximum time that a thread is late and not abandoned, because it only waits for a processor.
    pub(super) starved_max: Duration,
}

/// Serves requests on one thread.
/// `None` if the thread is of no use any more: another one takes its place and its request.
pub(super) type Server<Request, Response> = Box<dyn FnMut(&Request, Instant) -> Option<Response>>;

type MakeServer<Request, Response> = dyn Fn() -> Server<Request, Response> + Send + Sync;

/// Threads that serve requests. Dropped, the threads end after the request at hand.
pub(super) struct Pool<Request, Response> {
    spawner: Spawner,
    limits: PoolLimits,
    make: Arc<MakeServer<Request, Response>>,
    shared: Arc<Shared<Request, Response>>,
    seats: Vec<Arc<Seat<Request>>>,
    /// Number of the last request.
    number: u64,
    /// Number of threads started so far.
    started: u64,
    /// Number of threads abandoned so far.
    abandoned: u64,
}

struct Shared<Request, Response> {
    queue: Mutex<Queue<Request>>,
    arrived: Condvar,
    answers: Mutex<Vec<(u64, Response)>>,
    /// Readable once there is an answer.
    ready: EventFd,
    quarantine: Arc<Quarantine>,
}

struct Queue<Request> {
    shares: Shares<Request>,
    /// Subjects of the abandoned threads that have not returned, by seat.
    hanging: HashMap<u64, Option<Subject>>,
    is_closed: bool,
}

/// Place of a thread.
struct Seat<Request> {
    number: u64,
    gaze: Arc<Gaze>,
    /// Its thread's entry in /proc, once that runs, such as `812/task/815`. The numbers are those of
    /// /proc, which can be another pid namespace's.
    thread: OnceLock<PathBuf>,
    state: Mutex<SeatState<Request>>,
}

struct SeatState<Request> {
    /// Request at hand.
    serving: Option<Job<Request>>,
    is_abandoned: bool,
    /// Time before which the thread is not looked at again: it was late and ready to run.
    spared_until: Option<Instant>,
    /// True if the thread ends because it is of no use any more.
    has_ended: bool,
}

impl<Request: Clone + Send + 'static, Response: Send + 'static> Pool<Request, Response> {
    /// Starts the threads. Each makes a server of its own.
    ///
    /// # Errors
    /// When no descriptor is available, or no thread can be started.
    pub(super) fn start(
        name: &'static str,
        limits: PoolLimits,
        make: impl Fn() -> Server<Request, Response> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let shared = Shared {
            queue: Mutex::new(Queue {
                shares: Shares::new(limits.threads),
                hanging: HashMap::new(),
                is_closed: false,
            }),
            arrived: Condvar::new(),
            answers: Mutex::default(),
            ready: EventFd::from_flags(flags)?,
            quarantine: Arc::default(),
        };
        let mut pool = Self {
            spawner: Spawner::start(name)?,
            limits,
            make: Arc::new(make),
            shared: Arc::new(shared),
            seats: Vec::new(),
            number: 0,
            started: 0,
            abandoned: 0,
        };
        for _ in 0..limits.threads {
            pool.add_thread()?;
        }
        Ok(pool)
    }

    /// Passes on a request, and returns its number. `None` if too many of this share wait.
    pub(super) fn ask(&mut self, request: Request, share: Share, until: Instant) -> Option<u64> {
        self.number += 1;
        let job = Job {
            number: self.number,
            share,
            until,
            request,
        };
        lock(&self.shared.queue).shares.add(job).then(|| {
            self.shared.arrived.notify_one();
            self.number
        })
    }

    /// Takes the answers that have come, with the numbers of their requests. A request may have two:
    /// that of a thread that was abandoned and returned, and that of another one.
    pub(super) fn answers(&mut self) -> Vec<(u64, Response)> {
        // Fails if nothing is to be read.
        let _ = self.shared.ready.read();
        std::mem::take(&mut lock(&self.shared.answers))
    }

    /// Abandons the threads that are late, and replaces them. Other threads serve their requests
    /// as far as there is time left. Returns the number of threads abandoned now.
    pub(super) fn abandon_late(&mut self, now: Instant) -> usize {
        let limits = self.limits;
        let mut count = 0;
        // Held throughout: a thread that returns meanwhile finds itself among those that hang.
        let mut queue = lock(&self.shared.queue);
        self.seats.retain(|seat| {
            let mut state = lock(&seat.state);
            let gaze = seat.gaze.now();
            let is_late = seat
                .late_at(&state, gaze, limits)
                .is_some_and(|at| at <= now)
                && !seat.is_spared(&mut state, gaze, limits, now);
            if is_late && let Some(job) = state.serving.take() {
                state.is_abandoned = true;
                count += 1;
                // One that is late by its deadline alone may be at somebody who does not hang.
                let subject = gaze.filter(|(subject, since)| {
                    matches!(subject, Subject::Namespace(_)) || *since + limits.process_max <= now
                });
                let subject = subject.map(|(subject, _)| subject);
                if let Some(subject) = subject {
                    self.shared.quarantine.add(subject);
                }
                queue.hanging.insert(seat.number, subject);
                queue.shares.done(job.share, Duration::ZERO, now);
                if now < job.until {
                    queue.shares.add_first(job);
                }
            }
            !is_late && !state.has_ended
        });
        self.abandoned += count as u64;
        let hanging = queue.hanging.len();
        drop(queue);
        let room = limits.abandoned_max.saturating_sub(hanging);
        let missing = limits.threads.saturating_sub(self.seats.len());
        if count > 0 {
            self.shared.arrived.notify_all();
        }
        for _ in 0..missing.min(room) {
            if let Err(error) = self.add_thread() {
                warn_once(&error);
                break;
            }
        }
        count
    }

    /// Returns the time at which a thread becomes late; `None` while none serves a request.
    pub(super) fn late_at(&self) -> Option<Instant> {
        let limits = self.limits;
        let late = self
            .seats
            .iter()
            .filter_map(|seat| seat.late_at(&lock(&seat.state), seat.gaze.now(), limits));
        late.min()
    }

    /// Returns the number of threads abandoned so far.
    pub(super) fn abandoned(&self) -> u64 {
        self.abandoned
    }

    fn add_thread(&mut self) -> io::Result<()> {
        let seat = Arc::new(Seat {
            number: self.started,
            gaze: Arc::default(),
            thread: OnceLock::new(),
            state: Mutex::new(SeatState {
                serving: None,
                is_abandoned: false,
                spared_until: None,
                has_ended: false,
            }),
        });
        let (shared, own) = (Arc::clone(&self.shared), Arc::clone(&seat));
        let make = Arc::clone(&self.make);
        self.spawner.spawn(move || {
            if let Ok(thread) = fs::read_link("/proc/thread-self") {
                own.thread.get_or_init(|| thread);
            }
            attention::watch(Arc::clone(&own.gaze), Arc::clone(&shared.quarantine));
            shared.serve(&own, make());
        })?;
        self.started += 1;
        self.seats.push(seat);
        Ok(())
    }
}

impl<Request> Seat<Request> {
    /// Returns true if a late thread is left alone for another while: it does not hang, a busy machine
    /// has no processor for it.
    fn is_spared(
        &self,
        state: &mut SeatState<Request>,
        gaze: Option<(Subject, Instant)>,
        limits: PoolLimits,
        now: Instant,
    ) -> bool {
        state.spared_until = None;
        let late_at = self.late_at(state, gaze, limits);
        let is_new = late_at.is_some_and(|at| now < at + limits.starved_max);
        let is_spared = is_new && self.thread.get().is_some_and(|it| is_ready_to_run(it));
        if is_spared {
            state.spared_until = Some(now + limits.process_max);
        }
        is_spared
    }

    /// Returns the time at which the thread counts as hanging.
    fn late_at(
        &self,
        state: &SeatState<Request>,
        gaze: Option<(Subject, Instant)>,
        limits: PoolLimits,
    ) -> Option<Instant> {
        let deadline = state.serving.as_ref()?.until + limits.grace;
        // A look into a namespace may take as long as its answer may.
        let process = match gaze {
            Some((Subject::Process(_), since)) => Some(since + limits.process_max),
            Some((Subject::Namespace(_), _)) | None => None,
        };
        let late_at = process.map_or(deadline, |at| at.min(deadline));
        Some(state.spared_until.map_or(late_at, |at| at.max(late_at)))
    }
}

/// Returns true if a thread of this program runs, or waits for nothing but a processor.
fn is_ready_to_run(thread: &Path) -> bool {
    let stat = fs::read(Path::new("/proc").join(thread).join("stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and ours.
    let state = stat.splitn(2, |byte| *byte == b')').nth(1);
    state.is_some_and(|rest| rest.starts_with(b" R"))
}

impl<Request: Clone, Response> Shared<Request, Response> {
    /// Serves requests until the pool is dropped, or this thread was abandoned.
    fn serve(&self, seat: &Seat<Request>, mut server: Server<Request, Response>) {
        while let Some(job) = self.next() {
            let mut state = lock(&seat.state);
            state.serving = Some(job.clone());
            state.spared_until = None;
            drop(state);
            let before = cpu_time();
            let response = server(&job.request, job.until);
            let spent = cpu_time().saturating_sub(before);
            let mut state = lock(&seat.state);
            state.serving = None;
            let is_abandoned = state.is_abandoned;
            drop(state);
            if !is_abandoned && response.is_none() {
                return self.end(seat, job);
            }
            if let Some(response) = response {
                lock(&self.answers).push((job.number, response));
            }
            // Fails only if the counter is full, and then it is readable.
            let _ = self.ready.write(1);
            let mut queue = lock(&self.queue);
            if is_abandoned {
                let subject = queue.hanging.remove(&seat.number).flatten();
                if let Some(subject) = subject {
                    self.quarantine.remove(subject);
                }
                return;
            }
            queue.shares.done(job.share, spent, Instant::now());
        }
    }

    /// Gives a request back, and leaves the seat to another thread.
    fn end(&self, seat: &Seat<Request>, job: Job<Request>) {
        let mut queue = lock(&self.queue);
        queue.shares.done(job.share, Duration::ZERO, Instant::now());
        queue.shares.add_first(job);
        drop(queue);
        lock(&seat.state).has_ended = true;
        self.arrived.notify_one();
        let _ = self.ready.write(1);
    }

    /// Waits for the next request; `None` once the pool is dropped.
    fn next(&self) -> Option<Job<Request>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.is_closed {
                return None;
            }
            let now = Instant::now();
            let wait = match queue.shares.next(now) {
                Ok(job) => return Some(job),
                Err(wait) => wait,
            };
            queue = match wait {
                Some(wait) => {
                    let waited = self.arrived.wait_timeout(queue, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.arrived.wait(queue);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

fn warn_once(error: &io::Error) {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| log::warn!("cannot start a thread that looks at the host: {error}"));
}

/// Returns the processor time that the calling thread has used.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

impl<Request, Response> AsFd for Pool<Request, Response> {
    /// Returns a descriptor that is readable once there is an answer.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }
}

impl<Request, Response> Drop for Pool<Request, Response> {
    fn drop(&mut self) {
        lock(&self.shared.queue).is_closed = true;
        self.shared.arrived.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
