//! Shares of the threads' time. Each user has one, and for root each network namespace.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::record::Attempt;

/// Maximum number of requests that wait.
const WAITING_MAX: usize = 8192;
/// Maximum number of requests of one share that wait.
const OF_SHARE_MAX: usize = 2048;
/// Processor time that a share may use in a second.
const PER_SECOND: Duration = Duration::from_millis(250);
/// Processor time that a share may use at once, after a while without looks.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Maximum number of shares whose use is remembered.
const SHARES_MAX: usize = 1024;

/// Beneficiary of a look: nobody spends the time of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Share {
    /// User that is not root, in whatever namespace.
    User(u32),
    /// Root, or unknown users, in the network namespace with this inode number.
    Namespace(u32),
}

impl Share {
    /// Returns the share of an attempt's caller.
    pub(crate) fn of(attempt: &Attempt) -> Self {
        let user = attempt.caller.as_ref().map(|caller| caller.uid);
        match user {
            None | Some(0) => Self::Namespace(attempt.netns),
            Some(user) => Self::User(user),
        }
    }
}

/// Request that waits for a thread, or is being served.
#[derive(Debug, Clone)]
pub(super) struct Job<Request> {
    pub(super) number: u64,
    pub(super) share: Share,
    /// Time at which nobody waits for the answer any more.
    pub(super) until: Instant,
    pub(super) request: Request,
}

/// Requests that wait, by share. The shares take turns.
pub(super) struct Shares<Request> {
    /// Shares with waiting requests, in the order of their turns.
    turns: VecDeque<Share>,
    waiting: HashMap<Share, VecDeque<Job<Request>>>,
    use_of: HashMap<Share, Use>,
    count: usize,
    threads: usize,
}

/// Use that a share makes of the threads.
#[derive(Debug, Clone, Copy)]
struct Use {
    /// Number of threads that serve it.
    threads: usize,
    /// Processor time left at `at`.
    left: Duration,
    /// Processor time spent on credit at `at`.
    owed: Duration,
    at: Instant,
}

impl Use {
    fn new(now: Instant) -> Self {
        Self {
            threads: 0,
            left: AT_ONCE,
            owed: Duration::ZERO,
            at: now,
        }
    }

    /// Adds what has become free since `at`.
    fn refill(&mut self, now: Instant) {
        let more = now
            .saturating_duration_since(self.at)
            .mul_f64(PER_SECOND.as_secs_f64());
        self.at = now;
        let paid = more.min(self.owed);
        self.owed -= paid;
        self.left = (self.left + (more - paid)).min(AT_ONCE);
    }

    fn spend(&mut self, spent: Duration) {
        let from_left = spent.min(self.left);
        self.left -= from_left;
        self.owed += spent - from_left;
    }

    /// Returns the time until the share has processor time; `None` if it has some.
    fn wait(&self) -> Option<Duration> {
        (self.left.is_zero()).then(|| {
            let owed = self.owed + Duration::from_millis(1);
            owed.div_f64(PER_SECOND.as_secs_f64())
        })
    }

    fn is_idle(&self) -> bool {
        self.threads == 0 && self.left == AT_ONCE
    }
}

impl<Request> Shares<Request> {
    /// Returns an empty queue for this number of threads.
    pub(super) fn new(threads: usize) -> Self {
        Self {
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            use_of: HashMap::new(),
            count: 0,
            threads,
        }
    }

    /// Adds a request. Returns false if there is no room for it.
    pub(super) fn add(&mut self, job: Job<Request>) -> bool {
        let of_share = self.waiting.get(&job.share).map_or(0, VecDeque::len);
        if self.count >= WAITING_MAX || of_share >= OF_SHARE_MAX {
            return false;
        }
        self.insert(job, VecDeque::push_back);
        true
    }

    /// Puts a request back in front of all of its share.
    pub(super) fn add_first(&mut self, job: Job<Request>) {
        self.insert(job, VecDeque::push_front);
    }

    fn insert(&mut self, job: Job<Request>, to: fn(&mut VecDeque<Job<Request>>, Job<Request>)) {
        let share = job.share;
        let waiting = self.waiting.entry(share).or_default();
        if waiting.is_empty() {
            self.turns.push_back(share);
        }
        to(waiting, job);
        self.count += 1;
    }

    /// Takes the request whose turn it is. Requests that nobody waits for any more are dropped.
    ///
    /// # Errors
    /// The time until a request may be served, if none may be now; `None` if none waits, or until
    /// a thread has served its request.
    pub(super) fn next(&mut self, now: Instant) -> Result<Job<Request>, Option<Duration>> {
        let mut wait: Option<Duration> = None;
        for _ in 0..self.turns.len() {
            let Some(share) = self.turns.pop_front() else {
                break;
            };
            let Some(waiting) = self.waiting.get_mut(&share) else {
                continue;
            };
            let before = waiting.len();
            while waiting.front().is_some_and(|job| job.until <= now) {
                waiting.pop_front();
            }
            self.count -= before - waiting.len();
            let usage = self.use_of.entry(share).or_insert_with(|| Use::new(now));
            usage.refill(now);
            // One thread stays free for the others.
            let is_free = usage.threads + 1 < self.threads.max(2);
            let job = match usage.wait() {
                _ if !is_free => None,
                None => waiting.pop_front(),
                Some(until) => {
                    wait = Some(wait.map_or(until, |wait| wait.min(until)));
                    None
                }
            };
            if waiting.is_empty() {
                self.waiting.remove(&share);
            } else {
                self.turns.push_back(share);
            }
            if let Some(job) = job {
                usage.threads += 1;
                self.count -= 1;
                return Ok(job);
            }
        }
        Err(wait)
    }

    /// Notes that a thread has served a request of this share, or was abandoned.
    pub(super) fn done(&mut self, share: Share, spent: Duration, now: Instant) {
        if let Some(usage) = self.use_of.get_mut(&share) {
            usage.refill(now);
            usage.spend(spent);
            usage.threads = usage.threads.saturating_sub(1);
        }
        if self.use_of.len() > SHARES_MAX {
            self.use_of.retain(|_, usage| {
                usage.refill(now);
                !usage.is_idle()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn job(number: u64, user: u32, now: Instant) -> Job<()> {
        Job {
            number,
            share: Share::User(user),
            until: now + LONG,
            request: (),
        }
    }

    fn next(shares: &mut Shares<()>, now: Instant) -> Option<u64> {
        let job = shares.next(now).ok()?;
        shares.done(job.share, Duration::ZERO, now);
        Some(job.number)
    }

    #[test]
    fn shares_take_turns() {
        let now = Instant::now();
        let mut shares = Shares::new(3);
        for number in 0..4 {
            assert!(shares.add(job(number, 1, now)));
        }
        assert!(shares.add(job(10, 2, now)) && shares.add(job(20, 3, now)));
        let order: Vec<u64> = std::iter::from_fn(|| next(&mut shares, now)).collect();
        assert_eq!(order, [0, 10, 20, 1, 2, 3]);
        assert_eq!((shares.count, shares.turns.len()), (0, 0));
    }

    #[test]
    fn a_share_leaves_a_thread_to_the_others() {
        let now = Instant::now();
        let mut shares = Shares::new(3);
        for number in 0..3 {
            shares.add(job(number, 1, now));
        }
        assert_eq!(shares.next(now).unwrap().number, 0);
        assert_eq!(shares.next(now).unwrap().number, 1);
        assert_eq!(shares.next(now).unwrap_err(), None);
        shares.add(job(10, 2, now));
        assert_eq!(shares.next(now).unwrap().number, 10);
        shares.done(Share::User(1), Duration::ZERO, now);
        assert_eq!(shares.next(now).unwrap().number, 2);
    }

    #[test]
    fn a_share_has_so_much_time_a_second() {
        let mut now = Instant::now();
        let mut shares = Shares::new(3);
        for number in 0..OF_SHARE_MAX as u64 {
            assert!(shares.add(job(number, 1, now)));
        }
        assert!(!shares.add(job(0, 1, now)), "there is no room");
        let (began, mut served) = (now, 0);
        let look = Duration::from_millis(10);
        while now < began + Duration::from_secs(10) {
            match shares.next(now) {
                Ok(job) => {
                    now += look;
                    served += 1;
                    shares.done(job.share, look, now);
                }
                Err(wait) => now += wait.unwrap(),
            }
        }
        // 500 ms at once, and 250 ms a second.
        assert!((295..=305).contains(&served), "{served}");
        // It takes nothing from the others.
        shares.add(job(9999, 2, now));
        let order: Vec<u64> = (0..2).filter_map(|_| next(&mut shares, now)).collect();
        assert!(order.contains(&9999), "{order:?}");
    }

    #[test]
    fn what_nobody_waits_for_is_dropped() {
        let now = Instant::now();
        let mut shares = Shares::new(3);
        let past = Job {
            until: now,
            ..job(1, 1, now)
        };
        shares.add(past);
        shares.add(job(2, 1, now));
        assert_eq!(next(&mut shares, now), Some(2));
        assert_eq!(shares.count, 0);
        assert_eq!(shares.next(now).unwrap_err(), None);
    }

    #[test]
    fn idle_shares_are_forgotten() {
        let mut now = Instant::now();
        let mut shares = Shares::new(3);
        for user in 0..5000 {
            shares.add(job(0, user, now));
            let served = shares.next(now).unwrap();
            now += Duration::from_millis(10);
            shares.done(served.share, Duration::from_millis(1), now);
        }
        assert!(shares.use_of.len() <= SHARES_MAX + 1);
    }
}
