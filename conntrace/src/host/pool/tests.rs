use std::{
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Sender, channel},
    },
    thread,
};

use super::*;

const SOON: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);
const LIMITS: PoolLimits = PoolLimits {
    threads: 3,
    abandoned_max: 3,
    grace: Duration::from_millis(5),
    process_max: Duration::from_millis(20),
    starved_max: Duration::from_millis(300),
};

/// Beneficiary of the requests.
const SHARE: Share = Share::User(1);

/// Request of the tests.
#[derive(Clone)]
enum Work {
    /// Hangs until the sender is dropped.
    Hang(Arc<Mutex<std::sync::mpsc::Receiver<()>>>),
    /// Likewise, but at a process, unless that is in quarantine.
    HangAt(u32, Arc<Mutex<std::sync::mpsc::Receiver<()>>>),
    /// Computes at a process until it is told to stop.
    SpinAt(u32, Arc<AtomicBool>),
    Answer(u32),
    /// Ends the first thread that serves it.
    EndOnce(Arc<AtomicBool>),
}

/// Answer of a thread that must not look at a process.
const QUARANTINED: u32 = u32::MAX;

fn pool() -> Pool<Work, u32> {
    let make = || -> Server<Work, u32> {
        Box::new(|work: &Work, _until| match work {
            Work::Answer(number) => Some(*number),
            Work::Hang(gate) => {
                let _ = lock(gate).recv();
                Some(0)
            }
            Work::HangAt(pid, gate) => {
                let Ok(_look) = attention::look_at(Subject::Process(*pid)) else {
                    return Some(QUARANTINED);
                };
                let _ = lock(gate).recv();
                Some(0)
            }
            Work::SpinAt(pid, stop) => {
                let _look = attention::look_at(Subject::Process(*pid)).unwrap();
                while !stop.load(Relaxed) {
                    std::hint::spin_loop();
                }
                Some(0)
            }
            Work::EndOnce(ended) => {
                let is_first = !ended.swap(true, Relaxed);
                (!is_first).then_some(1)
            }
        })
    };
    Pool::start("test", LIMITS, make).unwrap()
}

/// Returns a request that hangs, and what it waits for.
fn hang() -> (Sender<()>, Work) {
    let (gate, wait) = channel();
    (gate, Work::Hang(Arc::new(Mutex::new(wait))))
}

fn wait_for<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LONG;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < until, "it takes too long");
        thread::sleep(Duration::from_millis(1));
    }
}

fn answer_of(pool: &mut Pool<Work, u32>, number: u64) -> u32 {
    wait_for(|| {
        let answers = pool.answers();
        answers.into_iter().find(|(of, _)| *of == number)
    })
    .1
}

fn ask(pool: &mut Pool<Work, u32>, work: Work, within: Duration) -> u64 {
    pool.ask(work, SHARE, Instant::now() + within).unwrap()
}

fn hanging(pool: &Pool<Work, u32>) -> usize {
    lock(&pool.shared.queue).hanging.len()
}

#[test]
fn requests_are_served_while_others_hang() {
    let mut pool = pool();
    let (gate, work) = hang();
    let hung = ask(&mut pool, work, SOON);
    let number = ask(&mut pool, Work::Answer(7), LONG);
    assert_eq!(answer_of(&mut pool, number), 7);
    wait_for(|| (pool.abandon_late(Instant::now()) > 0).then_some(()));
    assert_eq!((hanging(&pool), pool.abandoned()), (1, 1));
    for at in 0..100 {
        let number = ask(&mut pool, Work::Answer(at), LONG);
        assert_eq!(answer_of(&mut pool, number), at);
    }
    // Its answer comes late.
    drop(gate);
    assert_eq!(answer_of(&mut pool, hung), 0);
    wait_for(|| (hanging(&pool) == 0).then_some(()));
}

#[test]
fn another_thread_takes_the_request_and_avoids_the_process() {
    let mut pool = pool();
    let (gate, Work::Hang(wait)) = hang() else {
        unreachable!()
    };
    let work = Work::HangAt(1, wait);
    let number = ask(&mut pool, work.clone(), LONG);
    wait_for(|| (pool.abandon_late(Instant::now()) > 0).then_some(()));
    assert_eq!(answer_of(&mut pool, number), QUARANTINED);
    assert_eq!(pool.seats.len(), LIMITS.threads);
    // Once its thread has returned it is looked at again.
    drop(gate);
    assert_eq!(answer_of(&mut pool, number), 0);
    wait_for(|| (hanging(&pool) == 0).then_some(()));
    let number = ask(&mut pool, work, LONG);
    assert_eq!(answer_of(&mut pool, number), 0);
}

/// A thread that is late because it has no processor does not hang. One that computes for too long
/// is abandoned all the same.
#[test]
fn a_thread_that_is_ready_to_run_is_spared_for_a_while() {
    let mut pool = pool();
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    ask(&mut pool, Work::SpinAt(1, Arc::clone(&stop)), LONG);
    wait_for(|| (pool.late_at()? <= Instant::now()).then_some(()));
    assert_eq!(pool.abandon_late(Instant::now()), 0);
    assert!(
        pool.late_at().unwrap() > Instant::now(),
        "not at once again"
    );
    wait_for(|| (pool.abandon_late(Instant::now()) > 0).then_some(()));
    assert!(began.elapsed() >= LIMITS.starved_max);
    stop.store(true, Relaxed);
    wait_for(|| (hanging(&pool) == 0).then_some(()));
}

#[test]
fn so_many_threads_hang_and_no_more() {
    let mut pool = pool();
    let mut gates = Vec::new();
    let mut late = 0;
    while late < LIMITS.abandoned_max + LIMITS.threads - 1 {
        let (gate, work) = hang();
        gates.push(gate);
        ask(&mut pool, work, SOON);
        thread::sleep(2 * SOON);
        late += pool.abandon_late(Instant::now());
        assert!(pool.seats.len() + hanging(&pool) <= LIMITS.abandoned_max + LIMITS.threads);
    }
    // Once they return there are as many threads as before.
    gates.clear();
    wait_for(|| (hanging(&pool) == 0).then_some(()));
    pool.abandon_late(Instant::now());
    assert_eq!(pool.seats.len(), LIMITS.threads);
    let number = ask(&mut pool, Work::Answer(9), LONG);
    assert_eq!(answer_of(&mut pool, number), 9);
}

#[test]
fn a_request_that_waited_too_long_is_not_served() {
    let mut pool = pool();
    ask(&mut pool, Work::Answer(1), Duration::ZERO);
    let number = ask(&mut pool, Work::Answer(2), LONG);
    assert_eq!(answer_of(&mut pool, number), 2);
    assert!(pool.answers().is_empty());
    assert_eq!(pool.late_at(), None);
}

#[test]
fn another_thread_takes_the_request_of_one_that_ends() {
    let mut pool = pool();
    let number = ask(&mut pool, Work::EndOnce(Arc::default()), LONG);
    assert_eq!(answer_of(&mut pool, number), 1);
    wait_for(|| {
        pool.abandon_late(Instant::now());
        let all = pool.seats.iter().all(|seat| !lock(&seat.state).has_ended);
        (all && pool.seats.len() == LIMITS.threads).then_some(())
    });
    assert_eq!((pool.abandoned(), pool.started), (0, 4));
}
