use super::*;

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
