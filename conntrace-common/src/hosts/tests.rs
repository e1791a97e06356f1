extern crate std;

use std::{array, net::IpAddr, vec::Vec};

use super::*;
use crate::record::{RawHistory, packed_ns, packed_port};

const SECOND_NS: u64 = 1_000_000_000;
/// Start time of the tests, long after boot.
const NOW_NS: u64 = 10_000 * SECOND_NS;
const NETNS: u64 = 0x1234_5678_f000_0001;
const OTHER_NETNS: u64 = 0x8765_4321_f000_0002;
const PORT: u16 = 443;

fn key(netns: u64, addr: &str) -> HostKey {
    let addr = match addr.parse().unwrap() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    HostKey::new(netns, addr.octets())
}

fn host(number: u8) -> HostKey {
    key(NETNS, &std::format!("192.0.2.{number}"))
}

/// Returns scratch memory filled with garbage.
fn work(key: &HostKey) -> HostScratch {
    let fact = HostUpdate {
        at_ns: 0,
        started_ns: 0,
        news: HostFact::None,
        port: PORT,
        is_whole: 1,
    };
    HostScratch {
        key: *key,
        fact,
        known: HostFacts::default(),
        told: RawHistory::NOTHING,
        missed_ns: 0,
        heard_ns: 7,
        is_news: 7,
        index: 7,
        own: 7,
        cost: 7,
        check: 7,
    }
}

/// Stores a fact of an attempt that began 5 ms earlier, like the programs, and returns the
/// report.
fn note_on(
    set: &mut HostBucket,
    key: &HostKey,
    news: HostFact,
    port: u16,
    at_ns: u64,
) -> RawHistory {
    let mut work = work(key);
    work.fact.news = news;
    work.fact.port = port;
    work.fact.at_ns = at_ns;
    work.fact.started_ns = at_ns - 5_000_000;
    set.look(key, at_ns, &mut work);
    if work.known.lacks(&work.fact) {
        set.note(key, &mut work);
    }
    work.tell(set.missed_ns());
    work.told
}

fn note(set: &mut HostBucket, key: &HostKey, news: HostFact, at_ns: u64) -> RawHistory {
    note_on(set, key, news, PORT, at_ns)
}

fn look(set: &HostBucket, key: &HostKey, at_ns: u64) -> HostScratch {
    let mut work = work(key);
    set.look(key, at_ns, &mut work);
    work.tell(set.missed_ns());
    work
}

/// Returns true if the host has a slot.
fn is_kept(set: &HostBucket, key: &HostKey) -> bool {
    look(set, key, NOW_NS).index() < WAYS
}

#[test]
fn of_a_host_that_was_never_met_nothing_is_told() {
    let mut set = HostBucket::default();
    assert_eq!(look(&set, &host(1), NOW_NS).told, RawHistory::NOTHING);
    note(&mut set, &host(1), HostFact::Handshake, NOW_NS);
    assert_eq!(look(&set, &host(2), NOW_NS).told, RawHistory::NOTHING);
    let elsewhere = key(OTHER_NETNS, "192.0.2.1");
    assert_eq!(look(&set, &elsewhere, NOW_NS).told, RawHistory::NOTHING);
}

#[test]
fn a_handshake_is_told_with_its_port_its_time_and_how_long_it_took() {
    let mut set = HostBucket::default();
    note(&mut set, &host(1), HostFact::Handshake, NOW_NS);
    let told = look(&set, &host(1), NOW_NS).told;
    assert_eq!(packed_port(told.handshake), PORT);
    assert_eq!(packed_ns(told.handshake), NOW_NS & !0xffff);
    assert_eq!(told.port_handshake_ns, packed_ns(told.handshake));
    assert_eq!(told.handshake_took_us, 5000);
    assert_eq!((told.reset, told.forgotten_ns), (0, 0));
    // A RST from another port does not hide the handshake.
    note_on(&mut set, &host(1), HostFact::Reset, 9, NOW_NS + 1);
    let told = note_on(&mut set, &host(1), HostFact::None, 9, NOW_NS);
    assert_eq!((packed_port(told.reset), told.port_handshake_ns), (9, 0));
    assert_eq!(packed_port(told.handshake), PORT);
}

#[test]
fn how_long_it_took_is_not_told_of_an_attempt_that_was_found_under_way() {
    let mut set = HostBucket::default();
    let mut work = look(&set, &host(1), NOW_NS);
    work.fact.news = HostFact::Handshake;
    (work.fact.at_ns, work.fact.is_whole) = (NOW_NS, 0);
    set.note(&host(1), &mut work);
    assert_eq!(look(&set, &host(1), NOW_NS).told.handshake_took_us, 0);
}

#[test]
fn the_same_is_noted_once_a_second_and_another_port_at_once() {
    let mut set = HostBucket::default();
    let lacks = |set: &HostBucket, news: HostFact, port: u16, at_ns: u64| {
        let mut work = look(set, &host(1), at_ns);
        (work.fact.news, work.fact.port) = (news, port);
        // The end of a handshake without a record is unknown.
        work.fact.started_ns = at_ns;
        work.known.lacks(&work.fact)
    };
    note(&mut set, &host(1), HostFact::Handshake, NOW_NS);
    let later = NOW_NS + SECOND_NS;
    assert!(!lacks(&set, HostFact::Handshake, PORT, later - 100_000));
    assert!(lacks(&set, HostFact::Handshake, PORT, later));
    assert!(lacks(&set, HostFact::Handshake, PORT + 1, NOW_NS));
    assert!(lacks(&set, HostFact::Reset, PORT, NOW_NS));
    assert!(!lacks(&set, HostFact::Heard, PORT, NOW_NS));
    assert!(!lacks(&set, HostFact::None, PORT, later));
    assert!(!lacks(&set, HostFact::Silence, PORT, later));
}

#[test]
fn silence_begins_with_the_first_attempt_and_ends_with_any_answer() {
    for answer in [HostFact::Heard, HostFact::Reset, HostFact::Handshake] {
        let mut set = HostBucket::default();
        let first = note(&mut set, &host(1), HostFact::Silence, NOW_NS);
        assert_eq!(first.silent_since_ns, NOW_NS - 5_000_000);
        let second = note(
            &mut set,
            &host(1),
            HostFact::Silence,
            NOW_NS + 9 * SECOND_NS,
        );
        assert_eq!(second.silent_since_ns, first.silent_since_ns);
        // Reported before it is stored, because it is the attempt's own answer.
        let before = look(&set, &host(1), NOW_NS).told;
        assert_eq!(before.silent_since_ns, first.silent_since_ns);
        let told = note(&mut set, &host(1), answer, NOW_NS + 10 * SECOND_NS);
        assert_eq!(told.silent_since_ns, 0);
        let later = note(
            &mut set,
            &host(1),
            HostFact::Silence,
            NOW_NS + 20 * SECOND_NS,
        );
        assert_eq!(later.silent_since_ns, 0);
    }
}

/// A stale answer is evicted without a trace.
#[test]
fn silence_is_not_told_for_longer_than_answers_are_kept() {
    let mut set = HostBucket::default();
    let mut work = look(&set, &host(1), NOW_NS);
    work.fact.news = HostFact::Silence;
    (work.fact.at_ns, work.fact.started_ns) = (NOW_NS, SECOND_NS);
    set.note(&host(1), &mut work);
    let told = look(&set, &host(1), NOW_NS).told;
    assert_eq!(told.silent_since_ns, NOW_NS - LATELY_NS);
}

#[test]
fn a_fifth_port_takes_the_place_of_the_oldest_and_that_is_told() {
    let mut set = HostBucket::default();
    for (step, port) in (0..).zip([1, 2, 3, 4, 1]) {
        let at_ns = NOW_NS + 2 * SECOND_NS * step;
        note_on(&mut set, &host(1), HostFact::Handshake, port, at_ns);
    }
    assert_eq!(look(&set, &host(1), NOW_NS).told.forgotten_ns, 0);
    let fifth_ns = NOW_NS + 20 * SECOND_NS;
    note_on(&mut set, &host(1), HostFact::Handshake, 5, fifth_ns);
    let on = |port| note_on(&mut set.clone(), &host(1), HostFact::None, port, NOW_NS);
    assert_eq!(packed_port(on(1).handshake), 5);
    assert_eq!(on(1).forgotten_ns, fifth_ns);
    let kept = [1, 2, 3, 4, 5].map(|port| on(port).port_handshake_ns != 0);
    assert_eq!(kept, [true, false, true, true, true]);
    // A stale port is evicted without a record.
    let later_ns = fifth_ns + LATELY_NS;
    note_on(&mut set, &host(1), HostFact::Handshake, 6, later_ns);
    assert_eq!(look(&set, &host(1), NOW_NS).told.forgotten_ns, fifth_ns);
}

#[test]
fn no_namespace_evicts_what_another_was_told_lately() {
    let mut set = HostBucket::default();
    let theirs = [1, 2].map(host);
    for host in &theirs {
        note(&mut set, host, HostFact::Handshake, NOW_NS);
    }
    for number in 0..200 {
        let ours = key(OTHER_NETNS, &std::format!("198.51.100.{number}"));
        let news = [HostFact::Handshake, HostFact::Silence][number % 2];
        note(&mut set, &ours, news, NOW_NS + number as u64);
    }
    assert!(theirs.iter().all(|host| is_kept(&set, host)));
    assert!(
        theirs
            .iter()
            .all(|host| look(&set, host, NOW_NS).told.forgotten_ns == 0)
    );
    // Stale slots are available to any namespace.
    let later_ns = NOW_NS + LATELY_NS + SECOND_NS;
    for number in 0..3 {
        let ours = key(OTHER_NETNS, &std::format!("203.0.113.{number}"));
        note(&mut set, &ours, HostFact::Handshake, later_ns);
    }
    assert!(!theirs.iter().all(|host| is_kept(&set, host)));
}

#[test]
fn one_namespace_has_three_places_of_four_and_its_networks_count() {
    let mut set = HostBucket::default();
    note(
        &mut set,
        &host(0).network().unwrap_or(host(0)),
        HostFact::Heard,
        NOW_NS,
    );
    let network = key(NETNS, "10.1.2.3").network().unwrap();
    note(&mut set, &network, HostFact::Heard, NOW_NS);
    for number in 1..9 {
        note(
            &mut set,
            &host(number),
            HostFact::Handshake,
            NOW_NS + u64::from(number),
        );
    }
    let own = set
        .ways
        .iter()
        .filter(|place| place.known.is_beside(&network));
    assert_eq!(own.count() as u64, WAYS_OF_ONE);
    let free = set.ways.iter().filter(|place| place.known.host == [0; 3]);
    assert_eq!(free.count(), 1);
    let theirs = key(OTHER_NETNS, "192.0.2.1");
    note(&mut set, &theirs, HostFact::Silence, NOW_NS);
    assert!(is_kept(&set, &theirs));
}

#[test]
fn of_its_own_the_one_never_heard_goes_first_then_the_one_not_heard_for_longest() {
    let mut set = HostBucket::default();
    note(&mut set, &host(1), HostFact::Handshake, NOW_NS);
    note(&mut set, &host(2), HostFact::Silence, NOW_NS + SECOND_NS);
    note(&mut set, &host(3), HostFact::Handshake, NOW_NS + SECOND_NS);
    let told = note(
        &mut set,
        &host(4),
        HostFact::Handshake,
        NOW_NS + 2 * SECOND_NS,
    );
    assert!(!is_kept(&set, &host(2)) && is_kept(&set, &host(1)));
    assert_eq!(told.forgotten_ns, 0, "nothing was heard of it");
    let told = note(
        &mut set,
        &host(5),
        HostFact::Silence,
        NOW_NS + 3 * SECOND_NS,
    );
    assert!(!is_kept(&set, &host(1)) && is_kept(&set, &host(3)));
    assert_eq!(told.forgotten_ns, NOW_NS + 3 * SECOND_NS);
}

#[test]
fn what_was_forgotten_is_told_of_every_host_that_it_may_have_been() {
    let mut set = HostBucket::default();
    for number in 1..=3 {
        let at_ns = NOW_NS + u64::from(number);
        note(&mut set, &host(number), HostFact::Handshake, at_ns);
    }
    let forgot_ns = NOW_NS + SECOND_NS;
    note(&mut set, &host(4), HostFact::Handshake, forgot_ns);
    assert!(!is_kept(&set, &host(1)));
    // The evicted host, before and after it gets a slot again.
    assert_eq!(look(&set, &host(1), NOW_NS).told.forgotten_ns, forgot_ns);
    // No eviction is recorded for the hosts that stayed.
    assert_eq!(look(&set, &host(3), NOW_NS).told.forgotten_ns, 0);
    // A new host inherits the time, even after the slot that held it was evicted.
    let later_ns = forgot_ns + SECOND_NS;
    note(&mut set, &host(5), HostFact::Silence, later_ns);
    note(&mut set, &host(1), HostFact::Silence, later_ns);
    assert!(look(&set, &host(1), NOW_NS).told.forgotten_ns >= forgot_ns);
    // The eviction does not affect another namespace.
    let theirs = key(OTHER_NETNS, "192.0.2.1");
    assert_eq!(look(&set, &theirs, NOW_NS).told, RawHistory::NOTHING);
}

#[test]
fn who_is_turned_away_is_told_so_and_whoever_comes_later() {
    let mut set = HostBucket::default();
    for number in 1..=3 {
        note(&mut set, &host(number), HostFact::Handshake, NOW_NS);
    }
    let fourth = key(OTHER_NETNS, "192.0.2.1");
    note(&mut set, &fourth, HostFact::Handshake, NOW_NS);
    let third = |addr: &str| key(OTHER_NETNS ^ 1 << 40, addr);
    let away_ns = NOW_NS + SECOND_NS;
    let told = note(&mut set, &third("192.0.2.9"), HostFact::Handshake, away_ns);
    assert!(!is_kept(&set, &third("192.0.2.9")));
    assert_eq!((told.handshake, told.forgotten_ns), (0, away_ns));
    let before = look(&set, &third("192.0.2.9"), NOW_NS).told;
    assert_eq!(before.forgotten_ns, away_ns);
    // The time is kept once the host has a slot.
    let later_ns = NOW_NS + LATELY_NS + 2 * SECOND_NS;
    let told = note(&mut set, &third("192.0.2.8"), HostFact::Silence, later_ns);
    assert!(is_kept(&set, &third("192.0.2.8")));
    assert_eq!(told.forgotten_ns, away_ns);
    // No eviction is recorded for the hosts that kept their slots.
    assert_eq!(look(&set, &host(2), NOW_NS).told.forgotten_ns, 0);
}

/// Writing its own copy would undo the other CPU's update.
#[test]
fn what_another_cpu_has_noted_since_the_look_stays() {
    for has_place in [true, false] {
        let mut set = HostBucket::default();
        if has_place {
            note(&mut set, &host(1), HostFact::Handshake, NOW_NS);
        }
        let at_ns = NOW_NS + 9 * SECOND_NS;
        let mut slow = look(&set, &host(1), at_ns);
        (slow.fact.news, slow.fact.at_ns) = (HostFact::Reset, at_ns);
        note_on(&mut set, &host(1), HostFact::Handshake, 9, at_ns);
        set.note(&host(1), &mut slow);
        let told = look(&set, &host(1), at_ns).told;
        assert_eq!((packed_port(told.handshake), told.reset), (9, 0));
        assert_eq!(told.forgotten_ns, at_ns);
    }
}

#[test]
fn what_another_cpu_could_not_note_is_told_of_all_hosts_of_the_set() {
    let mut set = HostBucket::default();
    note(&mut set, &host(1), HostFact::Silence, NOW_NS);
    set.miss(NOW_NS + 7);
    assert_eq!(look(&set, &host(1), NOW_NS).told.forgotten_ns, NOW_NS + 7);
    assert_eq!(look(&set, &host(2), NOW_NS).told.forgotten_ns, NOW_NS + 7);
}

/// Returns the words of a slot, the checksum first.
fn words(place: &mut HostSlot) -> Vec<&mut u64> {
    let HostSlot { check, known } = place;
    let HostFacts {
        silent_since_ns,
        heard_ns,
        reset,
        handshake_took_us,
        forgot_ns,
        ..
    } = known;
    let mut words = Vec::from([check, silent_since_ns, heard_ns, reset, handshake_took_us]);
    words.push(forgot_ns);
    words.extend(&mut known.host);
    words.extend(&mut known.ports);
    words
}

#[test]
fn a_place_of_which_any_word_is_of_another_writer_is_not_believed() {
    let mut set = HostBucket::default();
    note(&mut set, &host(1), HostFact::Handshake, NOW_NS);
    let count = words(&mut set.ways[0]).len();
    assert_eq!(count * size_of::<u64>(), size_of::<HostSlot>());
    for word in 0..count {
        for bit in 0..u64::BITS {
            let mut torn = set;
            *words(&mut torn.ways[0])[word] ^= 1 << bit;
            let told = look(&torn, &host(1), NOW_NS + 9).told;
            assert_eq!((told.handshake, told.silent_since_ns), (0, 0));
            // A wrong word in the key: the host is not found.
            let is_found = torn.ways[0].known.is_of(&host(1));
            assert_eq!(told.forgotten_ns, if is_found { NOW_NS + 9 } else { 0 });
        }
    }
}

/// A reader detects any mix of old and new words.
#[test]
fn any_mixture_of_two_writers_is_not_believed() {
    let mut set = HostBucket::default();
    note(&mut set, &host(1), HostFact::Handshake, NOW_NS);
    let [mut old, mut new] = [set.ways[0]; 2];
    note(&mut set, &host(1), HostFact::Reset, NOW_NS + 5 * SECOND_NS);
    note_on(
        &mut set,
        &host(1),
        HostFact::Handshake,
        9,
        NOW_NS + 6 * SECOND_NS,
    );
    new.clone_from(&set.ways[0]);
    let old = Vec::from_iter(words(&mut old).into_iter().map(|word| *word));
    let new = Vec::from_iter(words(&mut new).into_iter().map(|word| *word));
    let differing = Vec::from_iter((0..old.len()).filter(|&at| old[at] != new[at]));
    assert!(differing.len() >= 5, "{differing:?}");
    for mixture in 1..(1_u32 << differing.len()) - 1 {
        let mut torn = set.ways[0];
        for (nth, &at) in differing.iter().enumerate() {
            let is_old = mixture >> nth & 1 == 0;
            *words(&mut torn)[at] = if is_old { old[at] } else { new[at] };
        }
        assert!(!torn.read(&mut work(&host(1))), "{mixture:b}");
    }
}

#[test]
fn a_torn_place_is_written_anew_and_says_that_it_forgot() {
    let mut set = HostBucket::default();
    note(&mut set, &host(1), HostFact::Handshake, NOW_NS);
    set.ways[0].check ^= 1;
    let later_ns = NOW_NS + SECOND_NS;
    note(&mut set, &host(1), HostFact::Reset, later_ns);
    let told = look(&set, &host(1), NOW_NS).told;
    assert_eq!((told.handshake, told.forgotten_ns), (0, later_ns));
    assert_eq!(packed_port(told.reset), PORT);
}

#[test]
fn private_networks_have_a_place_that_is_no_hosts() {
    let network = |addr: &str| key(NETNS, addr).network();
    let same: [(&str, &str); 5] = [
        ("10.0.0.1", "10.255.3.4"),
        ("172.16.0.1", "172.31.9.9"),
        ("192.168.0.1", "192.168.255.1"),
        ("100.64.0.1", "100.127.255.1"),
        ("fd00:1:2:3::1", "fd00:1:2:4::5"),
    ];
    let mut all = Vec::new();
    for (one, other) in same {
        let own = network(one);
        assert!(own.is_some() && own == network(other), "{one}");
        all.push(own);
    }
    all.push(network("fd00:1:3::1"));
    all.push(key(OTHER_NETNS, "10.0.0.1").network());
    let differ = |at: usize| all.iter().filter(|it| **it == all[at]).count() == 1;
    assert!((0..all.len()).all(differ));
    let public = [
        "9.255.255.255",
        "11.0.0.0",
        "172.15.0.1",
        "172.32.0.1",
        "192.167.0.1",
        "192.169.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "127.0.0.1",
        "fe80::1",
        "fb00::1",
        "2001:db8::1",
        "::ffff:0:a00:1",
    ];
    assert!(public.iter().all(|addr| network(addr).is_none()));
    // The first address of the network is an ordinary host.
    for first in ["10.0.0.0", "fd00:1:2::"] {
        let host = key(NETNS, first);
        assert_ne!(host.network(), Some(host));
        assert!(host.network().unwrap().is_in(NETNS));
    }
}

#[test]
fn of_what_was_noted_in_any_order_nothing_is_ever_told_that_was_not() {
    let mut set = HostBucket::default();
    let mut handshakes: [Vec<(u64, u16)>; 8] = array::from_fn(|_| Vec::new());
    let mut heard_ns = [0; 8];
    let mut random = 1_u64;
    for step in 0..20_000_u64 {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let at = (random >> 33) as usize % 8;
        let netns = [NETNS, OTHER_NETNS][at % 2];
        let host = key(netns, &std::format!("192.0.2.{at}"));
        let at_ns = NOW_NS + step * 7 * SECOND_NS;
        let port = PORT + (random >> 40) as u16 % 6;
        let news = match random >> 50 & 7 {
            0 => HostFact::Handshake,
            1 => HostFact::Reset,
            2 => HostFact::Heard,
            _ => HostFact::Silence,
        };
        let told = look(&set, &host, at_ns).told;
        check(&told, &handshakes[at], heard_ns[at], at_ns);
        note_on(&mut set, &host, news, port, at_ns);
        if news == HostFact::Handshake {
            handshakes[at].push((at_ns, port));
        }
        if news != HostFact::Silence {
            heard_ns[at] = at_ns;
        }
    }
}

/// Reported facts are true. Recent facts that are not reported are marked as possibly evicted.
fn check(told: &RawHistory, handshakes: &[(u64, u16)], heard_ns: u64, at_ns: u64) {
    let is_late = |then_ns: u64| at_ns - then_ns < LATELY_NS;
    if told.handshake != 0 {
        let told = (packed_ns(told.handshake), packed_port(told.handshake));
        let is_told = |&(then_ns, port): &(u64, u16)| (then_ns & !0xffff, port) == told;
        assert!(handshakes.iter().any(is_told));
    }
    if told.silent_since_ns != 0 && told.forgotten_ns < told.silent_since_ns {
        assert!(heard_ns <= told.silent_since_ns);
    }
    let on_port = handshakes.iter().rfind(|(_, port)| *port == PORT);
    let missing = |then_ns: u64| then_ns & !0xffff > told.port_handshake_ns;
    if let Some(&(then_ns, _)) = on_port.filter(|(then_ns, _)| is_late(*then_ns)) {
        assert!(!missing(then_ns) || told.forgotten_ns >= then_ns);
    }
}
