use super::*;

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
