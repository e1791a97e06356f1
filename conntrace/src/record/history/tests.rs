use std::{
    array,
    net::{IpAddr, Ipv4Addr},
};

use conntrace_common::{
    answers::AnswerBucket,
    hash,
    record::{ORIGIN_ICMP6, RECORD_SIZE, STATE_CLOSE, STATE_SYN_SENT},
};

use super::{
    facts::LATELY_NS,
    raw::{pack, packed_ns, packed_port},
    set::{WAYS, WAYS_OF_ONE},
    *,
};
use crate::record::{HostTimes, decode};

const SECOND_NS: u64 = 1_000_000_000;
/// Start time of the tests, long after boot.
const NOW_NS: u64 = 10_000 * SECOND_NS;
const NETNS: u64 = 0x5678_f000_0001;
const OTHER_NETNS: u64 = 0x4321_f000_0002;
const PORT: u16 = 443;

fn key(netns: u64, addr: &str) -> HostKey {
    let addr = match addr.parse().unwrap() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    HostKey::new(netns, addr.octets())
}

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

/// Namespace of the records: inode number, random bits, and both.
const NETNS_INODE: u32 = 0xf000_0003;
const NETNS_MIX: u16 = 0x9abc;
const NETNS_OF_RECORDS: u64 = 0x9abc_f000_0003;

/// Returns the record of an attempt that began 5 ms before its end.
fn record(kind: u8, state: u8, addr: &str, at_ns: u64, fields: &[(usize, &[u8])]) -> WireRecord {
    let (family, addr) = match addr.parse().unwrap() {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    };
    let mut bytes = [0; RECORD_SIZE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(offset_of!(RawRecord, kind), &[kind]);
    put(offset_of!(RawRecord, state), &[state]);
    put(offset_of!(RawRecord, version), &[RECORD_VERSION]);
    put(offset_of!(RawRecord, at_ns), &at_ns.to_ne_bytes());
    let started_ns = at_ns - 5_000_000;
    put(STARTED, &started_ns.to_ne_bytes());
    let at = offset_of!(RawRecord, attempt.family);
    put(at, &family.to_ne_bytes());
    put(offset_of!(RawRecord, attempt.remote_addr), &addr);
    let at = offset_of!(RawRecord, attempt.remote_port);
    put(at, &PORT.to_be_bytes());
    let at = offset_of!(RawRecord, attempt.netns);
    put(at, &NETNS_INODE.to_ne_bytes());
    let at = offset_of!(RawRecord, attempt.netns_mix);
    put(at, &NETNS_MIX.to_ne_bytes());
    for (at, value) in fields {
        put(*at, value);
    }
    bytes
}

const STARTED: usize = offset_of!(RawRecord, attempt.opening.started_ns);
const ICMP_ORIGIN: usize = offset_of!(RawRecord, icmp_origin);
const ICMP_FROM: usize = offset_of!(RawRecord, icmp_from);
const ERROR: usize = offset_of!(RawRecord, error);
const FLAGS: usize = offset_of!(RawRecord, flags);
const RETRANSMITTED: usize = offset_of!(RawRecord, syn_retransmitted);

fn refused(addr: &str, at_ns: u64) -> WireRecord {
    let error = ECONNREFUSED.to_ne_bytes();
    let fields = [(ERROR, &error[..]), (FLAGS, &[FLAG_HEARD])];
    record(KIND_ENDING, STATE_CLOSE, addr, at_ns, &fields)
}

fn silent(addr: &str, at_ns: u64) -> WireRecord {
    let retransmitted = 1_u32.to_ne_bytes();
    let fields = [(RETRANSMITTED, &retransmitted[..])];
    record(KIND_ENDING, STATE_CLOSE, addr, at_ns, &fields)
}

fn stalled(addr: &str, at_ns: u64) -> WireRecord {
    let retransmitted = 1_u32.to_ne_bytes();
    let fields = [(RETRANSMITTED, &retransmitted[..])];
    record(KIND_STALL, STATE_SYN_SENT, addr, at_ns, &fields)
}

fn answered(addr: &str, at_ns: u64) -> WireRecord {
    let fields = [(FLAGS, &[FLAG_HEARD][..])];
    record(KIND_ANSWER, STATE_ESTABLISHED, addr, at_ns, &fields)
}

/// Table under test, and the last time at which an answer of a host or network was missed.
struct Tested {
    table: HostTable,
    missed: Option<(HostKey, u64)>,
}

impl Tested {
    fn new() -> Self {
        Self {
            table: HostTable::new(SECRET),
            missed: None,
        }
    }

    fn complete(&mut self, record: &WireRecord) -> Option<HostTimes> {
        let missed_ns = |key: &HostKey| {
            let missed = self.missed.filter(|(missed, _)| missed == key);
            missed.map_or(0, |(_, at_ns)| at_ns)
        };
        let complete = self.table.complete(record, missed_ns)?;
        assert_eq!(&complete[..RECORD_SIZE], record);
        Some(decode(&complete).unwrap().remembered)
    }

    fn told(&mut self, record: &WireRecord) -> HostTimes {
        self.complete(record).expect("a record that makes a line")
    }
}

/// Hosts of a private network, of both families and of none.
const ADDRS: [&str; 3] = ["192.0.2.1", "2001:db8::1", "10.1.2.3"];

#[test]
fn an_answer_makes_no_line_and_is_told_of_later_attempts() {
    for addr in ADDRS {
        let mut tested = Tested::new();
        assert_eq!(tested.complete(&answered(addr, NOW_NS)), None);
        let told = tested.told(&silent(addr, NOW_NS + SECOND_NS));
        let at_ns = packed_ns(pack(NOW_NS, PORT));
        assert_eq!(told.handshake, Some((at_ns, PORT)));
        assert_eq!(told.on_this_port_ns, Some(at_ns));
        assert_eq!(told.handshake_took_us, Some(5000));
        assert_eq!(told.silent_since_ns, None);
        assert_eq!(told.network_silent_since_ns, None);
        assert_eq!(told.forgotten_ns, None);
    }
}

#[test]
fn how_long_it_took_is_not_told_of_an_attempt_that_was_found_under_way() {
    for flag in [FLAG_JOINED_LATE, FLAG_UNTRACKED] {
        let mut tested = Tested::new();
        let fields = [(FLAGS, &[flag | FLAG_HEARD][..])];
        let answer = record(KIND_ANSWER, STATE_ESTABLISHED, "192.0.2.1", NOW_NS, &fields);
        tested.complete(&answer);
        let told = tested.told(&silent("192.0.2.1", NOW_NS + SECOND_NS));
        assert!(told.handshake.is_some() && told.handshake_took_us.is_none());
    }
}

#[test]
fn the_silence_of_an_attempt_is_told_of_it_and_its_answer_is_not() {
    for addr in ADDRS {
        let mut tested = Tested::new();
        let told = tested.told(&stalled(addr, NOW_NS));
        assert_eq!(told.silent_since_ns, Some(NOW_NS - 5_000_000));
        let told = tested.told(&refused(addr, NOW_NS + SECOND_NS));
        assert_eq!(told.silent_since_ns, Some(NOW_NS - 5_000_000));
        assert_eq!(told.reset, None);
        let told = tested.told(&refused(addr, NOW_NS + 2 * SECOND_NS));
        assert_eq!(told.silent_since_ns, None);
        assert_eq!(told.reset.map(|(_, port)| port), Some(PORT));
    }
}

#[test]
fn a_network_is_silent_until_one_of_its_hosts_answers() {
    let at_ns = |s: u64| NOW_NS + s * SECOND_NS;
    for answer in [answered, refused] {
        let mut tested = Tested::new();
        let told = tested.told(&silent("10.1.0.1", at_ns(0)));
        assert_eq!(told.network_silent_since_ns, Some(NOW_NS - 5_000_000));
        let told = tested.told(&silent("10.2.0.2", at_ns(1)));
        assert_eq!(told.network_silent_since_ns, Some(NOW_NS - 5_000_000));
        assert_eq!(told.silent_since_ns, Some(at_ns(1) - 5_000_000));
        tested.complete(&answer("10.3.0.3", at_ns(2)));
        let told = tested.told(&silent("10.2.0.2", at_ns(3)));
        assert_eq!(told.network_silent_since_ns, None);
        assert_eq!(told.silent_since_ns, Some(at_ns(1) - 5_000_000));
        // A public host says nothing of it.
        let told = tested.told(&silent("192.0.2.1", at_ns(4)));
        assert_eq!(told.network_silent_since_ns, None);
    }
}

#[test]
fn a_host_that_no_longer_answers_makes_no_network_silent() {
    let at_ns = |s: u64| NOW_NS + s * SECOND_NS;
    let mut tested = Tested::new();
    tested.complete(&answered("10.1.0.1", at_ns(0)));
    let told = tested.told(&silent("10.1.0.1", at_ns(9)));
    assert_eq!(
        (told.silent_since_ns, told.network_silent_since_ns),
        (None, None)
    );
    let told = tested.told(&silent("10.2.0.2", at_ns(10)));
    assert_eq!(told.network_silent_since_ns, None);
}

/// Returns the ending of an attempt to 192.0.2.1 with these fields.
fn ending(fields: &[(usize, &[u8])]) -> WireRecord {
    record(KIND_ENDING, STATE_CLOSE, "192.0.2.1", NOW_NS, fields)
}

#[test]
fn an_attempt_that_shows_nothing_changes_nothing() {
    let retransmitted = 1_u32.to_ne_bytes();
    let unreachable = 113_u32.to_ne_bytes();
    let nothing = [
        // Given up before a retransmission.
        ending(&[]),
        // A router answered, or this host itself.
        ending(&[
            (RETRANSMITTED, &retransmitted),
            (FLAGS, &[FLAG_ICMP]),
            (ICMP_ORIGIN, &[ORIGIN_ICMP]),
            (ICMP_FROM, &[192, 0, 2, 254]),
        ]),
        ending(&[
            (RETRANSMITTED, &retransmitted),
            (offset_of!(RawRecord, soft_error), &unreachable),
        ]),
        ending(&[(RETRANSMITTED, &retransmitted), (ERROR, &unreachable)]),
        // Restored by TCP_REPAIR.
        record(KIND_ENDING, STATE_ESTABLISHED, "192.0.2.1", NOW_NS, &[]),
        record(KIND_ANSWER, STATE_ESTABLISHED, "192.0.2.1", NOW_NS, &[]),
    ];
    for shows_nothing in nothing {
        let mut tested = Tested::new();
        if let Some(told) = tested.complete(&shows_nothing) {
            assert_eq!(told, HostTimes::default());
        }
        let later = tested.told(&silent("192.0.2.1", NOW_NS + SECOND_NS));
        let since_ns = NOW_NS + SECOND_NS - 5_000_000;
        assert_eq!(later.silent_since_ns, Some(since_ns));
        assert_eq!((later.reset, later.handshake), (None, None));
    }
}

/// A packet that this host dropped may have been its answer, and so may an error from nobody.
#[test]
fn a_host_that_may_have_answered_is_not_silent() {
    let drops = offset_of!(RawRecord, drops);
    let retransmitted = 1_u32.to_ne_bytes();
    let refused = ECONNREFUSED.to_ne_bytes();
    let mapped = conntrace_common::filter::mapped([192, 0, 2, 1]);
    let answers = [
        ending(&[(FLAGS, &[FLAG_HEARD]), (drops, &[1])]),
        ending(&[(RETRANSMITTED, &retransmitted), (drops, &[1])]),
        ending(&[(FLAGS, &[FLAG_ICMP]), (ICMP_ORIGIN, &[ORIGIN_ICMP])]),
        ending(&[(FLAGS, &[FLAG_ICMP]), (ICMP_ORIGIN, &[ORIGIN_ICMP6])]),
        ending(&[
            (FLAGS, &[FLAG_ICMP]),
            (ICMP_ORIGIN, &[ORIGIN_ICMP]),
            (ICMP_FROM, &[192, 0, 2, 1]),
        ]),
        ending(&[
            (FLAGS, &[FLAG_ICMP]),
            (ICMP_ORIGIN, &[ORIGIN_ICMP]),
            (ICMP_FROM, &[192, 0, 2, 1]),
            (
                offset_of!(RawRecord, attempt.family),
                &AF_INET6.to_ne_bytes(),
            ),
            (offset_of!(RawRecord, attempt.remote_addr), &mapped),
        ]),
        ending(&[(RETRANSMITTED, &retransmitted), (ERROR, &refused)]),
    ];
    for answer in answers {
        let mut tested = Tested::new();
        tested.told(&silent("192.0.2.1", NOW_NS - SECOND_NS));
        tested.complete(&answer);
        let later = tested.told(&silent("192.0.2.1", NOW_NS + SECOND_NS));
        assert_eq!((later.silent_since_ns, later.reset), (None, None));
    }
}

#[test]
fn what_could_not_be_told_is_forgotten() {
    let before_ns = NOW_NS - SECOND_NS;
    let network = key(NETNS_OF_RECORDS, "10.1.2.3").network().unwrap();
    for (addr, missed) in [
        ("192.0.2.1", key(NETNS_OF_RECORDS, "192.0.2.1")),
        ("2001:db8::1", key(NETNS_OF_RECORDS, "2001:db8::1")),
        ("::ffff:192.0.2.1", key(NETNS_OF_RECORDS, "192.0.2.1")),
        ("10.1.2.3", key(NETNS_OF_RECORDS, "10.1.2.3")),
        ("10.1.2.3", network),
    ] {
        let mut tested = Tested::new();
        tested.missed = Some((missed, before_ns));
        let told = tested.told(&silent(addr, NOW_NS));
        assert_eq!(told.forgotten_ns, Some(before_ns), "{addr}");
        let other = tested.told(&silent("198.51.100.1", NOW_NS));
        assert_eq!(other.forgotten_ns, None);
    }
}

/// An answer that was missed ends the silence before it, however long ago that was.
#[test]
fn silence_is_not_told_across_an_answer_that_was_missed() {
    let at_ns = |s: u64| NOW_NS + s * SECOND_NS;
    let mut tested = Tested::new();
    tested.told(&silent("192.0.2.1", at_ns(0)));
    tested.missed = Some((key(NETNS_OF_RECORDS, "192.0.2.1"), at_ns(300)));
    let told = tested.told(&refused("192.0.2.1", at_ns(3000)));
    assert_eq!(told.silent_since_ns, None);
    let mut tested = Tested::new();
    tested.told(&silent("192.0.2.1", at_ns(0)));
    tested.missed = Some((key(NETNS_OF_RECORDS, "192.0.2.1"), at_ns(300)));
    let told = tested.told(&silent("192.0.2.1", at_ns(3000)));
    assert_eq!(told.silent_since_ns, Some(at_ns(3000) - 5_000_000));
    let told = tested.told(&silent("192.0.2.1", at_ns(3600)));
    assert_eq!(told.silent_since_ns, Some(at_ns(3000) - 5_000_000));
}

/// Its record comes after those of later answers.
#[test]
fn of_an_ending_that_was_recovered_nothing_is_known_and_nothing_learned() {
    let mut tested = Tested::new();
    tested.complete(&answered("192.0.2.1", NOW_NS));
    let error = ECONNREFUSED.to_ne_bytes();
    let fields = [(ERROR, &error[..]), (FLAGS, &[FLAG_HEARD | FLAG_RECOVERED])];
    let late = record(KIND_ENDING, STATE_CLOSE, "192.0.2.1", NOW_NS + 1, &fields);
    let told = tested.told(&late);
    assert_eq!(
        (told.handshake, told.forgotten_ns),
        (None, Some(NOW_NS + 1))
    );
    let told = tested.told(&silent("192.0.2.1", NOW_NS + SECOND_NS));
    assert_eq!(told.reset, None);
}

#[test]
fn a_malformed_record_teaches_nothing() {
    let version = offset_of!(RawRecord, version);
    let family = offset_of!(RawRecord, attempt.family);
    let answer = |state: u8, at: usize, value: &[u8]| {
        record(KIND_ANSWER, state, "192.0.2.1", NOW_NS, &[(at, value)])
    };
    for malformed in [
        answer(STATE_ESTABLISHED, version, &[RECORD_VERSION + 1]),
        answer(STATE_ESTABLISHED, family, &3_u16.to_ne_bytes()),
        answer(STATE_CLOSE, version, &[RECORD_VERSION]),
    ] {
        let mut tested = Tested::new();
        // It is counted as malformed.
        let complete = tested.table.complete(&malformed, |_| 0).unwrap();
        assert!(decode(&complete).is_err());
        assert!(complete[RECORD_SIZE..].iter().all(|&byte| byte == 0));
        let told = tested.told(&silent("192.0.2.1", NOW_NS + SECOND_NS));
        assert_eq!(told.handshake, None);
    }
}

/// More hosts than the table has room for take no more memory.
#[test]
fn the_table_has_a_limit() {
    let mut tested = Tested::new();
    for number in 0..100_000_u32 {
        let addr = Ipv4Addr::from_bits(0xc612_0000 + number).to_string();
        tested.complete(&answered(&addr, NOW_NS + u64::from(number)));
    }
    let kept = tested.table.sets.values().map(HostSet::len).sum::<usize>();
    // One namespace has three places of four.
    assert_eq!(kept, 3 * 4096);
    let told = tested.told(&silent("198.18.0.0", NOW_NS + SECOND_NS));
    assert!(told.handshake.is_some() || told.forgotten_ns.is_some());
}

/// Secret of the tests.
const SECRET: HashSecret = HashSecret::new([3, 5 << 40 | 9, 7 << 50 | 11]);

/// Attempt of the random test.
struct Random {
    host: usize,
    port: u16,
    started_ns: u64,
    ended_ns: u64,
    /// True if its SYN was sent again.
    is_slow: bool,
    answers: bool,
    /// True if the kernel side cannot tell its answer.
    is_missed: bool,
}

/// Returns attempts that last up to two minutes, in the order of their ends.
fn random_attempts() -> Vec<Random> {
    let mut state = 7_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 33) % below
    };
    // Of eight attempts, how many each host answers.
    let answered = [8, 6, 1, 1, 0, 4];
    let mut attempts = Vec::from_iter((0..60_000).map(|_| {
        let started_ns = NOW_NS + random(40_000) * SECOND_NS + random(SECOND_NS);
        let is_slow = random(3) == 0;
        let lasts_ms = if is_slow {
            1_000 + random(130_000)
        } else {
            random(1_000)
        };
        let host = usize::try_from(random(6)).unwrap();
        Random {
            host,
            port: 443 + u16::try_from(random(3)).unwrap(),
            started_ns,
            ended_ns: started_ns + lasts_ms * 1_000_000,
            is_slow,
            answers: random(8) < answered[host],
            is_missed: random(50) == 0,
        }
    }));
    attempts.sort_by_key(|attempt| attempt.ended_ns);
    attempts
}

/// The kernel side, and the agent that it tells.
struct BothSides {
    table: HostTable,
    buckets: [AnswerBucket; 3],
    hosts: Vec<Ipv4Addr>,
    missed_ns: [u64; 6],
}

impl BothSides {
    fn new() -> Self {
        // Of one set, so that they evict each other.
        let all = (0..u32::MAX).map(|number| Ipv4Addr::from_bits(0xc000_0000 + number));
        let of_set = |addr: &Ipv4Addr| Self::key(*addr).set(SECRET) == 5;
        Self {
            table: HostTable::new(SECRET),
            buckets: Default::default(),
            hosts: all.filter(of_set).take(6).collect(),
            missed_ns: [0; 6],
        }
    }

    fn key(addr: Ipv4Addr) -> HostKey {
        HostKey::new(NETNS_OF_RECORDS, addr.to_ipv6_mapped().octets())
    }

    /// Completes the record of an attempt.
    fn complete(&mut self, attempt: &Random, kind: u8, state: u8) -> Option<HostTimes> {
        let started = attempt.started_ns.to_ne_bytes();
        let retransmitted = u32::from(attempt.is_slow).to_ne_bytes();
        let port = attempt.port.to_be_bytes();
        let flags = [if attempt.answers { FLAG_HEARD } else { 0 }];
        let fields = [
            (STARTED, &started[..]),
            (offset_of!(RawRecord, attempt.remote_port), &port),
            (RETRANSMITTED, &retransmitted),
            (FLAGS, &flags),
        ];
        let addr = self.hosts[attempt.host].to_string();
        let record = record(kind, state, &addr, attempt.ended_ns, &fields);
        let missed_ns = |asked: &HostKey| {
            let place = self
                .hosts
                .iter()
                .position(|addr| Self::key(*addr) == *asked);
            place.map_or(0, |place| self.missed_ns[place])
        };
        let complete = self.table.complete(&record, missed_ns)?;
        Some(decode(&complete).unwrap().remembered)
    }

    /// The kernel side at the end of a handshake.
    fn answer(&mut self, attempt: &Random) {
        let addr = self.hosts[attempt.host].to_ipv6_mapped().octets();
        let netns = u32::from(NETNS_MIX);
        let hash = hash::of_destination(SECRET, netns, hash::words_of(addr), attempt.port);
        let bucket = usize::from(attempt.port - 443);
        let asked_ns = if attempt.is_slow {
            attempt.ended_ns
        } else {
            attempt.started_ns
        };
        if self.buckets[bucket].knows(hash, asked_ns) {
            return;
        }
        if attempt.is_missed {
            self.missed_ns[attempt.host] = attempt.ended_ns;
            return;
        }
        let told = self.complete(attempt, KIND_ANSWER, STATE_ESTABLISHED);
        assert!(told.is_none());
        self.buckets[bucket].note(hash, attempt.ended_ns);
    }
}

/// Kernel side and agent together: answers are not told because others were, are missed, or are
/// evicted.
#[test]
fn of_what_the_kernel_side_told_nothing_is_ever_said_that_was_not() {
    let mut sides = BothSides::new();
    let mut heard: [Vec<(u64, u16)>; 6] = array::from_fn(|_| Vec::new());
    let (mut silences, mut handshakes) = (0, 0);
    for attempt in &random_attempts() {
        let Random { host, port, .. } = *attempt;
        if attempt.answers {
            sides.answer(attempt);
            heard[host].push((attempt.ended_ns, port));
            continue;
        }
        let told = sides.complete(attempt, KIND_ENDING, STATE_CLOSE).unwrap();
        let forgotten_ns = told.forgotten_ns.unwrap_or(0);
        if let Some(since_ns) = told.silent_since_ns {
            silences += 1;
            let answer = heard[host].last().map_or(0, |(at_ns, _)| *at_ns);
            assert!(answer <= since_ns || forgotten_ns >= answer, "{told:?}");
        }
        let on_port = heard[host].iter().rfind(|(_, at)| *at == port);
        if let Some(&(answer, _)) = on_port
            && attempt.ended_ns - answer < LATELY_NS
            && forgotten_ns < answer
        {
            handshakes += 1;
            let told_ns = told.on_this_port_ns.expect("it was told, or is forgotten");
            assert!(answer - told_ns < UNTOLD_NS + (1 << 16), "{told:?}");
        }
    }
    assert!(
        silences > 1_000 && handshakes > 1_000,
        "{silences}, {handshakes}"
    );
}
