use super::*;

fn host(number: usize) -> HostKey {
    key(NETNS, &format!("192.0.2.{number}"))
}

/// Notes a fact of an attempt that began 5 ms earlier, and returns what is told of it.
fn note_on(set: &mut HostSet, key: &HostKey, fact: HostFact, port: u16, at_ns: u64) -> RawHistory {
    let update = HostUpdate {
        fact,
        at_ns,
        started_ns: at_ns - 5_000_000,
        port,
        is_whole: true,
    };
    set.note(key, 0, &update).tell(port)
}

fn note(set: &mut HostSet, key: &HostKey, fact: HostFact, at_ns: u64) -> RawHistory {
    note_on(set, key, fact, PORT, at_ns)
}

fn look(set: &HostSet, key: &HostKey) -> RawHistory {
    set.look(key, 0).tell(PORT)
}

/// Returns true if anything is known of the host.
fn is_kept(set: &HostSet, key: &HostKey) -> bool {
    let facts = set.look(key, 0);
    facts.heard_ns | facts.silent_since_ns != 0
}

#[test]
fn of_a_host_that_was_never_met_nothing_is_told() {
    let mut set = HostSet::default();
    assert_eq!(look(&set, &host(1)), RawHistory::NOTHING);
    note(&mut set, &host(1), HostFact::Handshake, NOW_NS);
    assert_eq!(look(&set, &host(2)), RawHistory::NOTHING);
    let elsewhere = key(OTHER_NETNS, "192.0.2.1");
    assert_eq!(look(&set, &elsewhere), RawHistory::NOTHING);
}

#[test]
fn a_handshake_is_told_with_its_port_its_time_and_how_long_it_took() {
    let mut set = HostSet::default();
    note(&mut set, &host(1), HostFact::Handshake, NOW_NS);
    let told = look(&set, &host(1));
    assert_eq!(packed_port(told.handshake), PORT);
    assert_eq!(packed_ns(told.handshake), NOW_NS & !0xffff);
    assert_eq!(told.port_handshake_ns, packed_ns(told.handshake));
    assert_eq!(told.handshake_took_us, 5000);
    assert_eq!((told.reset, told.forgotten_ns), (0, 0));
    // A RST from another port does not hide the handshake.
    note_on(&mut set, &host(1), HostFact::Reset, 9, NOW_NS + 1);
    let told = set.look(&host(1), 0).tell(9);
    assert_eq!((packed_port(told.reset), told.port_handshake_ns), (9, 0));
    assert_eq!(packed_port(told.handshake), PORT);
}

#[test]
fn silence_begins_with_the_first_attempt_and_ends_with_any_answer() {
    for answer in [HostFact::Heard, HostFact::Reset, HostFact::Handshake] {
        let mut set = HostSet::default();
        let first = note(&mut set, &host(1), HostFact::Silence, NOW_NS);
        assert_eq!(first.silent_since_ns, NOW_NS - 5_000_000);
        let at_ns = |s: u64| NOW_NS + s * SECOND_NS;
        let second = note(&mut set, &host(1), HostFact::Silence, at_ns(9));
        assert_eq!(second.silent_since_ns, first.silent_since_ns);
        let told = note(&mut set, &host(1), answer, at_ns(10));
        assert_eq!(told.silent_since_ns, 0);
        let later = note(&mut set, &host(1), HostFact::Silence, at_ns(20));
        assert_eq!(later.silent_since_ns, 0);
    }
}

/// A stale answer is evicted without a trace.
#[test]
fn silence_is_not_told_for_longer_than_answers_are_kept() {
    let mut set = HostSet::default();
    let silence = HostUpdate {
        fact: HostFact::Silence,
        at_ns: NOW_NS,
        started_ns: SECOND_NS,
        port: PORT,
        is_whole: true,
    };
    let told = set.note(&host(1), 0, &silence).tell(PORT);
    assert_eq!(told.silent_since_ns, NOW_NS - LATELY_NS);
}

#[test]
fn a_fifth_port_takes_the_place_of_the_oldest_and_that_is_told() {
    let mut set = HostSet::default();
    for (step, port) in (0..).zip([1, 2, 3, 4, 1]) {
        let at_ns = NOW_NS + 2 * SECOND_NS * step;
        note_on(&mut set, &host(1), HostFact::Handshake, port, at_ns);
    }
    assert_eq!(look(&set, &host(1)).forgotten_ns, 0);
    let fifth_ns = NOW_NS + 20 * SECOND_NS;
    note_on(&mut set, &host(1), HostFact::Handshake, 5, fifth_ns);
    let on = |port| set.look(&host(1), 0).tell(port);
    assert_eq!(packed_port(on(1).handshake), 5);
    assert_eq!(on(1).forgotten_ns, forgotten_at(fifth_ns));
    let kept = [1, 2, 3, 4, 5].map(|port| on(port).port_handshake_ns != 0);
    assert_eq!(kept, [true, false, true, true, true]);
    // A stale port is evicted without a record.
    let later_ns = fifth_ns + LATELY_NS;
    note_on(&mut set, &host(1), HostFact::Handshake, 6, later_ns);
    assert_eq!(look(&set, &host(1)).forgotten_ns, forgotten_at(fifth_ns));
}

#[test]
fn no_namespace_evicts_what_another_was_told_lately() {
    let mut set = HostSet::default();
    let theirs = [1, 2].map(host);
    for host in &theirs {
        note(&mut set, host, HostFact::Handshake, NOW_NS);
    }
    for number in 0..200 {
        let ours = key(OTHER_NETNS, &format!("198.51.100.{number}"));
        let fact = [HostFact::Handshake, HostFact::Silence][number % 2];
        note(&mut set, &ours, fact, NOW_NS + number as u64);
    }
    assert!(theirs.iter().all(|host| is_kept(&set, host)));
    let forgotten = theirs.iter().map(|host| look(&set, host).forgotten_ns);
    assert!(forgotten.into_iter().all(|ns| ns == 0));
    // Stale places are free for any namespace.
    let later_ns = NOW_NS + LATELY_NS + SECOND_NS;
    for number in 0..3 {
        let ours = key(OTHER_NETNS, &format!("203.0.113.{number}"));
        note(&mut set, &ours, HostFact::Handshake, later_ns);
    }
    assert!(!theirs.iter().all(|host| is_kept(&set, host)));
}

#[test]
fn one_namespace_has_three_places_of_four_and_its_networks_count() {
    let mut set = HostSet::default();
    let network = key(NETNS, "10.1.2.3").network().unwrap();
    note(&mut set, &network, HostFact::Heard, NOW_NS);
    for number in 1..9 {
        let at_ns = NOW_NS + number as u64;
        note(&mut set, &host(number), HostFact::Handshake, at_ns);
    }
    let own = (1..9).map(host).chain([network]);
    let kept = own.filter(|host| is_kept(&set, host)).count();
    assert_eq!(kept, WAYS_OF_ONE);
    let theirs = key(OTHER_NETNS, "192.0.2.1");
    note(&mut set, &theirs, HostFact::Silence, NOW_NS);
    assert!(is_kept(&set, &theirs));
    assert_eq!(kept + 1, WAYS);
}

#[test]
fn of_its_own_the_one_never_heard_goes_first_then_the_one_not_heard_for_longest() {
    let mut set = HostSet::default();
    let at_ns = |s: u64| NOW_NS + s * SECOND_NS;
    note(&mut set, &host(1), HostFact::Handshake, NOW_NS);
    note(&mut set, &host(2), HostFact::Silence, at_ns(1));
    note(&mut set, &host(3), HostFact::Handshake, at_ns(1));
    let told = note(&mut set, &host(4), HostFact::Handshake, at_ns(2));
    assert!(!is_kept(&set, &host(2)) && is_kept(&set, &host(1)));
    assert_eq!(told.forgotten_ns, 0, "nothing was heard of it");
    let told = note(&mut set, &host(5), HostFact::Silence, at_ns(3));
    assert!(!is_kept(&set, &host(1)) && is_kept(&set, &host(3)));
    assert_eq!(told.forgotten_ns, forgotten_at(at_ns(3)));
}

#[test]
fn what_was_forgotten_is_told_of_every_host_that_it_may_have_been() {
    let mut set = HostSet::default();
    for number in 1..=3 {
        let at_ns = NOW_NS + number as u64;
        note(&mut set, &host(number), HostFact::Handshake, at_ns);
    }
    let evicted_ns = NOW_NS + SECOND_NS;
    note(&mut set, &host(4), HostFact::Handshake, evicted_ns);
    assert!(!is_kept(&set, &host(1)));
    // The evicted host, before and after it gets a place again.
    let forgotten_ns = forgotten_at(evicted_ns);
    assert_eq!(look(&set, &host(1)).forgotten_ns, forgotten_ns);
    // No eviction is recorded for the hosts that stayed.
    assert_eq!(look(&set, &host(3)).forgotten_ns, 0);
    // A new host inherits the time, even after the one that held it was evicted.
    let later_ns = evicted_ns + SECOND_NS;
    note(&mut set, &host(5), HostFact::Silence, later_ns);
    note(&mut set, &host(1), HostFact::Silence, later_ns);
    assert!(look(&set, &host(1)).forgotten_ns >= forgotten_ns);
    // The eviction does not affect another namespace.
    let theirs = key(OTHER_NETNS, "192.0.2.1");
    assert_eq!(look(&set, &theirs), RawHistory::NOTHING);
}

#[test]
fn who_is_turned_away_is_told_so_and_whoever_comes_later() {
    let mut set = HostSet::default();
    for number in 1..=3 {
        note(&mut set, &host(number), HostFact::Handshake, NOW_NS);
    }
    let fourth = key(OTHER_NETNS, "192.0.2.1");
    note(&mut set, &fourth, HostFact::Handshake, NOW_NS);
    let third = |addr: &str| key(OTHER_NETNS ^ 1 << 40, addr);
    let away_ns = NOW_NS + SECOND_NS;
    let told = note(&mut set, &third("192.0.2.9"), HostFact::Handshake, away_ns);
    assert!(!is_kept(&set, &third("192.0.2.9")));
    let forgotten_ns = forgotten_at(away_ns);
    assert_eq!((told.handshake, told.forgotten_ns), (0, forgotten_ns));
    assert_eq!(look(&set, &third("192.0.2.9")).forgotten_ns, forgotten_ns);
    // The time is kept once the host has a place.
    let later_ns = NOW_NS + LATELY_NS + 2 * SECOND_NS;
    let told = note(&mut set, &third("192.0.2.8"), HostFact::Silence, later_ns);
    assert!(is_kept(&set, &third("192.0.2.8")));
    assert_eq!(told.forgotten_ns, forgotten_ns);
    // No eviction is recorded for the hosts that stayed.
    assert_eq!(look(&set, &host(2)).forgotten_ns, 0);
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
        assert!(host.network().unwrap().is_beside(&host));
        assert!(!host.is_beside(&key(OTHER_NETNS, first)));
    }
}

#[test]
fn of_what_was_noted_in_any_order_nothing_is_ever_told_that_was_not() {
    let mut set = HostSet::default();
    let mut handshakes: [Vec<(u64, u16)>; 8] = array::from_fn(|_| Vec::new());
    let mut heard_ns = [0; 8];
    let mut random = 1_u64;
    for step in 0..20_000_u64 {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let at = (random >> 33) as usize % 8;
        let netns = [NETNS, OTHER_NETNS][at % 2];
        let host = key(netns, &format!("192.0.2.{at}"));
        let at_ns = NOW_NS + step * 7 * SECOND_NS;
        let port = PORT + u16::try_from(random >> 40 & 7).unwrap();
        let fact = match random >> 50 & 7 {
            0 => HostFact::Handshake,
            1 => HostFact::Reset,
            2 => HostFact::Heard,
            _ => HostFact::Silence,
        };
        check(&look(&set, &host), &handshakes[at], heard_ns[at], at_ns);
        note_on(&mut set, &host, fact, port, at_ns);
        if fact == HostFact::Handshake {
            handshakes[at].push((at_ns, port));
        }
        if fact != HostFact::Silence {
            heard_ns[at] = at_ns;
        }
    }
}

/// Fails if anything untrue is told, or if something is left out and not marked as possibly evicted.
fn check(told: &RawHistory, handshakes: &[(u64, u16)], heard_ns: u64, at_ns: u64) {
    let is_late = |then_ns: u64| at_ns - then_ns < LATELY_NS;
    if told.handshake != 0 {
        let told = (packed_ns(told.handshake), packed_port(told.handshake));
        let is_told = |&(then_ns, port): &(u64, u16)| (then_ns & !0xffff, port) == told;
        assert!(handshakes.iter().any(is_told));
    }
    if told.silent_since_ns != 0 {
        assert!(heard_ns <= told.silent_since_ns);
    }
    let on_port = handshakes.iter().rfind(|(_, port)| *port == PORT);
    let missing = |then_ns: u64| then_ns & !0xffff > told.port_handshake_ns;
    if let Some(&(then_ns, _)) = on_port.filter(|(then_ns, _)| is_late(*then_ns)) {
        assert!(!missing(then_ns) || told.forgotten_ns >= then_ns);
    }
}
