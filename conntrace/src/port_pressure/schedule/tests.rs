use super::*;
use crate::output::event::States;

const PORT: Port = (7, 5432);
const NOW_AND_THEN: Duration = Duration::from_millis(1);

fn about() -> AttemptRef {
    AttemptRef {
        process: None,
        tid: None,
        netns_mix: 0,
        at_ns: 0,
        client: None,
    }
}

/// Returns usage of a range of 10,000 ports.
fn used(host: u8, used: u32) -> PortUse {
    PortUse {
        netns: PORT.0,
        local: [10, 0, 0, 1].into(),
        remote: ([10, 0, 0, host], PORT.1).into(),
        range: (40_000, 49_999),
        reserved: 0,
        used,
        reusable: 0,
        states: States::default(),
    }
}

fn uses(reported: &[PortUse], most_of_others: u32) -> ScannedPorts {
    ScannedPorts {
        reported: reported.to_vec(),
        available: 10_000,
        most_of_others,
        has_more: false,
    }
}

/// Schedule under test, and the current time.
struct ScheduleTest {
    schedule: ScanSchedule,
    now: Instant,
}

impl ScheduleTest {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            schedule: ScanSchedule::new(now),
            now,
        }
    }

    fn hint(&mut self, count: u32) {
        self.now += NOW_AND_THEN;
        self.schedule.hint(PORT, about(), count, self.now);
    }

    /// Returns the number of connects until a scan is requested.
    fn connects_until_look(&mut self) -> u32 {
        for count in 1..1_000_000 {
            if connects::is_hint(count) {
                self.hint(count);
            }
            self.now += Duration::from_secs(1);
            if self.schedule.next_scan().is_some_and(|at| at <= self.now) {
                return count;
            }
        }
        panic!("no scan");
    }

    /// Runs the due scan with this result; returns the levels reported.
    fn scan(&mut self, found: Option<ScannedPorts>) -> Vec<u8> {
        self.now += PAUSE;
        let scan = self.schedule.start_scan(self.now).expect("a scan is due");
        assert!(
            self.schedule.start_scan(self.now).is_none(),
            "one at a time"
        );
        assert_eq!((scan.netns, scan.port), PORT);
        let result = PortScanResult {
            scan,
            took: NOW_AND_THEN,
            found,
        };
        let lines = self.schedule.finish_scan(&result, self.now);
        lines.into_iter().map(|(level, _)| level).collect()
    }
}

#[test]
fn looks_often_enough_and_seldom() {
    let mut scene = ScheduleTest::new();
    assert_eq!(scene.schedule.next_scan(), None);
    assert_eq!(scene.connects_until_look(), connects::FIRST);
    // Every connect leaves a socket: each scan comes before half the room is used.
    let (mut scans, mut total) = (0, connects::FIRST);
    let levels = loop {
        let levels = scene.scan(Some(uses(&[used(2, total)], 0)));
        scans += 1;
        if !levels.is_empty() {
            break levels;
        }
        let room = 5000 - total;
        let connects = scene.connects_until_look();
        assert!(
            connects <= room / 2 + connects::STEP,
            "{connects} of {room}"
        );
        total += connects;
    };
    assert_eq!(levels, [50]);
    assert!((5000..5700).contains(&total), "{total}");
    assert!(scans <= 12, "{scans}");
}

#[test]
fn what_leaves_no_socket_is_seldom_looked_at() {
    let mut scene = ScheduleTest::new();
    scene.hint(64);
    scene.scan(Some(uses(&[], 0)));
    assert!(scene.connects_until_look() >= 2000);
}

#[test]
fn each_level_once_until_it_has_fallen_back() {
    let mut scene = ScheduleTest::new();
    let steps: [(u32, &[u8]); 11] = [
        (4999, &[]),
        (5000, &[50]),
        (7999, &[]),
        (4500, &[]),
        (8000, &[80]),
        (8500, &[]),
        (9999, &[95]),
        (4000, &[]),
        (3999, &[0]),
        (100, &[]),
        (9600, &[95]),
    ];
    for (count, expected) in steps {
        scene.hint(64);
        scene.now += RELIEF_CHECK;
        // Makes a scan due regardless of hints.
        scene.schedule.ports.get_mut(&PORT).unwrap().room = 0;
        let levels = scene.scan(Some(uses(&[used(2, count)], 0)));
        assert_eq!(levels, expected, "{count}");
    }
}

#[test]
fn looks_again_only_while_one_is_above_a_level() {
    let mut scene = ScheduleTest::new();
    scene.hint(64);
    assert_eq!(
        scene.scan(Some(uses(&[used(2, 5000), used(3, 4500)], 9))),
        [50]
    );
    let again = scene.schedule.next_scan().expect("a scan is due later");
    assert_eq!(again, scene.now + RELIEF_CHECK);
    scene.now = again;
    assert_eq!(scene.scan(Some(uses(&[used(2, 3000)], 9))), [0]);
    assert_eq!(scene.schedule.next_scan(), None, "and nothing wakes us");
}

#[test]
fn a_look_that_fails_claims_nothing() {
    let mut scene = ScheduleTest::new();
    scene.hint(64);
    assert_eq!(scene.scan(Some(uses(&[used(2, 9000)], 0))), [80]);
    scene.now += RELIEF_CHECK;
    assert!(scene.scan(None).is_empty());
    assert_eq!(scene.schedule.next_scan(), None);
    assert!(scene.connects_until_look() >= AFTER_FAILURE / 2);
}

#[test]
fn looking_takes_a_twentieth_of_the_time() {
    let mut scene = ScheduleTest::new();
    scene.hint(64);
    let scan = scene.schedule.start_scan(scene.now).unwrap();
    let took = Duration::from_millis(50);
    let result = PortScanResult {
        scan,
        took,
        found: Some(uses(&[used(2, 4990)], 0)),
    };
    scene.schedule.finish_scan(&result, scene.now);
    let ended = scene.now;
    scene.hint(64);
    assert_eq!(
        scene.schedule.next_scan(),
        Some(ended + took * PAUSE_FACTOR)
    );
    assert!(scene.schedule.start_scan(scene.now).is_none());
}

#[test]
fn there_is_an_end_to_what_is_watched() {
    let mut scene = ScheduleTest::new();
    scene.hint(64);
    scene.scan(Some(uses(&[used(2, 9000)], 0)));
    for other in 1..=2 * u16::try_from(PORTS_MAX).unwrap() {
        scene.now += NOW_AND_THEN;
        scene.schedule.hint((8, other), about(), 64, scene.now);
        assert!(scene.schedule.ports.len() <= PORTS_MAX);
    }
    assert!(
        scene.schedule.ports.contains_key(&PORT),
        "it is above a level"
    );
    assert!(scene.schedule.ports.contains_key(&(8, 128)), "the newest");
}

#[test]
fn a_range_without_ports_is_used_up() {
    let none = PortUse {
        reserved: 10_000,
        ..used(2, 0)
    };
    assert_eq!((none.available(), none.percent()), (0, 100));
    let odd = PortUse {
        range: (5, 4),
        reserved: 7,
        ..used(2, u32::MAX)
    };
    assert_eq!((odd.available(), odd.percent()), (0, 100));
}
