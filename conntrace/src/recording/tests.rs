use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{PermissionsExt as _, symlink},
    sync::{Mutex, MutexGuard},
};

use insta::assert_snapshot;
use proptest::prelude::*;

use crate::{
    diagnosis::{
        Undiagnosed,
        firewall_facts::{
            Direction, Firewall, FirewallPacket, Match, MatchingRule as FoundRule, PacketEnd,
            RuleVerdict,
        },
        port_facts::{Holding, LocalPorts, WiderRange},
        question::{
            Answer, AttachedProgram, BpfProgram, FullQueue, Holder, Listener, Listeners,
            NamedProcess, Neighbour, PortHolder, ProcessKey, ProxyVariable, Question, TrackedSyn,
        },
        tunnel_facts::{HeardHost, Tunnel, WireguardHandshake, WireguardPeer},
        way::{
            Covering, DeadEnd, DeadEndKind, Flow, Forwarding, Link, NetDevice, OwnAddresses, Route,
            RouteOut, RuleFacts,
        },
    },
    host::Lookup,
    output::event::{Event, tests as lines},
    record::{Counters, decode::tests::refused},
    recording::*,
};

/// File in memory with limited capacity.
#[derive(Clone)]
pub(crate) struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    room: usize,
}

impl Disk {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            bytes: Arc::default(),
            room,
        }
    }

    pub(crate) fn recorder(&self) -> Recorder {
        Recorder::new(Box::new(self.clone()), "memory".to_owned()).unwrap()
    }

    pub(crate) fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap()
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = self.bytes();
        let taken = bytes.len().min(self.room - held.len());
        held.extend(&bytes[..taken]);
        match taken {
            0 if !bytes.is_empty() => Err(io::ErrorKind::StorageFull.into()),
            taken => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start() -> Start {
    let Event::Start(start) = lines::start_line().event else {
        panic!("a start line");
    };
    start
}

fn owner(exe: &str) -> Owner {
    Owner {
        exe: Some(exe.into()),
        cgroup: Some("/system.slice/app.service".into()),
        container: None,
    }
}

fn snapshot(purpose: Purpose) -> Snapshot {
    Snapshot {
        purpose,
        counters: Counters {
            attempts: 5,
            endings: 4,
            ..Counters::default()
        },
        in_map: 1,
        malformed: 2,
        undelivered: 3,
        inspectors_abandoned: 4,
        table: None,
    }
}

fn named() -> NamedProcess {
    NamedProcess {
        pid: 812,
        comm: "postgres".to_owned(),
    }
}

fn listener() -> Listener {
    Listener {
        netns: 7,
        addr: [10, 0, 0, 5].into(),
        port: 5432,
        only_v6: false,
        device: None,
        process: Some(named()),
    }
}

fn ports() -> LocalPorts {
    LocalPorts {
        range: (32_768, 60_999),
        reserved: 1,
        tw_reuse: 2,
        states: [("TIME_WAIT".to_owned(), 3)].into(),
        connected: 3,
        bound: 4,
        connected_by: Vec::new(),
        free: 28_224,
        bound_by: vec![Holding {
            process: named(),
            sockets: 4,
        }],
        wider: Some(WiderRange {
            available: 55_534,
            listened: Some(vec![11_211]),
            reserved: Some("40000".to_owned()),
        }),
    }
}

/// Returns every question about routes, with an answer.
#[rustfmt::skip]
fn route_answers() -> Vec<(Question, Lookup)> {
    let (netns, port) = (7, 5432);
    let addr = [10, 0, 0, 5].into();
    let way = || Flow { to: addr, from: None, device: Some(2), mark: 1, uid: Some(0), port };
    let device = NetDevice { index: 2, name: "eth0".to_owned() };
    let out = RouteOut { gateway: Some(addr), device: device.clone(), prefix_len: 0, table: 254 };
    let rule = RuleFacts { priority: 5000, text: "from all lookup 51820".to_owned() };
    let dead_end = DeadEnd { kind: DeadEndKind::Blackhole, rule, table: Some(51_820), prefix: Some((addr, 8)), instead: Some(out.clone()) };
    let covering = Covering { prefix: (addr, 8), table: 254, gateway: None, device: Some(device) };
    let link = Link { name: "eth0".to_owned(), up: true, carrier: false, kind: Some("veth".to_owned()), resolves_neighbours: true, loopback: false };
    let peer = WireguardPeer { endpoint: Some((addr, 51_820).into()), handshake: WireguardHandshake::Ago(300) };
    let tunnel = Tunnel { received: 9, peer: Some(peer), heard: Some(HeardHost { addr, ago_s: 3 }) };
    let own = OwnAddresses { usable: vec![addr], any: true };
    let route = || Question::Route { netns, way: way() };
    [
        (route(), Answer::Route(Route::Out(out))),
        (route(), Answer::Route(Route::None(101))),
        (Question::DeadEnd { netns, way: way() }, Answer::DeadEnd(Some(dead_end))),
        (Question::Covering { netns, way: way() }, Answer::Covering(vec![covering])),
        (Question::Link { netns, device: 2 }, Answer::Link(Some(link))),
        (Question::Tunnel { netns, device: 2, to: addr }, Answer::Tunnel(tunnel)),
        (Question::TunHolder { netns, name: "tun0".to_owned() }, Answer::TunHolder(Some(named()))),
        (Question::OwnAddresses { netns, v6: false }, Answer::OwnAddresses(own)),
        (Question::IsOwn { netns, addr }, Answer::IsOwn(true)),
        (Question::Neighbour { netns, device: 2, addr }, Answer::Neighbour(Neighbour::Failed)),
        (Question::Owner { netns, device: 2, addr }, Answer::Owner(Some(8))),
        (Question::Holders { netns, addr }, Answer::Holders(vec![8])),
        (Question::Forwarding { netns, addr, v6: false }, Answer::Forwarding(Forwarding::OffAt("cni0".to_owned()))),
        (Question::Forwarding { netns, addr, v6: true }, Answer::Forwarding(Forwarding::Off)),
        (Question::Door { netns }, Answer::Door(Some("-t 812 -n".to_owned()))),
    ]
    .map(|(question, answer)| (question, Lookup::Answer(answer)))
    .into()
}

/// Returns every other question, and every kind of answer.
#[rustfmt::skip]
fn recorded_answers() -> Vec<RecordedAnswer> {
    let (netns, port) = (7, 5432);
    let addr = [10, 0, 0, 5].into();
    let remote = (addr, port).into();
    let process = ProcessKey { pid: 77, started_ns: 5 };
    let listeners = Listeners { on_port: vec![listener()], on_similar: Vec::new() };
    let holder = Holder { state: "ESTABLISHED".to_owned(), process: Some(named()) };
    let packet = FirewallPacket { direction: Direction::Out, remote, local: Some(addr), local_port: None, device: Some("eth0".to_owned()), leaves_by: None, asked: None, mark: Some(0), uid: None };
    let found = FoundRule { family: "inet".to_owned(), table: "t".to_owned(), chain: "c".to_owned(), handle: Some(4), comment: None, verdict: RuleVerdict::Drop, matches: Match::Fully };
    let firewall = Firewall { found: vec![found], complete: true };
    let attached = AttachedProgram { program: BpfProgram { id: 12, name: "deny".to_owned() }, cgroup: Some("/a".to_owned()) };
    let full_queue = FullQueue { listener: listener(), waiting: 2, backlog: 1, drops: 7, has_others: false };
    let tracked = TrackedSyn { client: remote, leaves_from: remote, leads_to: remote };
    let answered = |question, answer| (question, Lookup::Answer(answer));
    let rest = [
        answered(Question::Listeners { netns, addr, port }, Answer::Listeners(listeners)),
        answered(Question::FullQueue { netns, addr, port }, Answer::FullQueue(Some(full_queue))),
        answered(Question::ListenersElsewhere { netns, port }, Answer::ListenersElsewhere(vec![listener()])),
        answered(Question::Ports { netns, local: Some(addr), remote: Some(remote) }, Answer::Ports(ports())),
        answered(Question::Tuple { netns, local: remote, remote }, Answer::Tuple(Some(holder))),
        answered(Question::PortHolders { netns, port }, Answer::PortHolders(vec![PortHolder { local: remote, remote: None, only_v6: false, is_of_device: false, state: "LISTEN".to_owned(), process: Some(named()) }])),
        answered(Question::Tracked { netns, client: Some(remote), remote }, Answer::Tracked(Some(tracked))),
        answered(Question::Proxy { process, remote }, Answer::Proxy(Some(ProxyVariable::HttpProxy))),
        answered(Question::DropReason { number: 8 }, Answer::DropReason("NETFILTER_DROP".to_owned())),
        answered(Question::Firewall { netns, packet, ending: PacketEnd::Drop }, Answer::Firewall(firewall)),
        (Question::ConnectPrograms { cgroup: 9, v6: true }, Lookup::Unknown(Undiagnosed::NoAccess)),
        answered(Question::ConnectPrograms { cgroup: 9, v6: false }, Answer::ConnectPrograms(vec![attached])),
        (Question::SecurityPrograms {}, Lookup::Unknown(Undiagnosed::Unsupported)),
        (Question::Confinement { process }, Lookup::Unknown(Undiagnosed::NoTime)),
    ];
    route_answers().into_iter().chain(rest)
        .map(|(question, found)| RecordedAnswer { asked_ns: 5, netns_mix: 0, question, found })
        .collect()
}

fn note(recorder: &mut Recorder) {
    recorder.start(&"web-1".into(), (lines::at(), 7), &start());
    recorder.clock(Some(SignedDuration::new(1_700_000_000, 123)));
    recorded_answers()
        .into_iter()
        .for_each(|answer| recorder.answer(answer));
    for exe in ["/usr/bin/curl", "/usr/bin/curl", "/usr/bin/wget"] {
        recorder.record(&refused(), Some(&owner(exe)));
    }
    recorder.port_pressure(lines::at(), 50, lines::port_use());
    recorder.clock(Some(SignedDuration::new(1_700_000_000, 123)));
    // A malformed record names no caller.
    recorder.record(&[7; COMPLETE_SIZE], None);
    recorder.snapshot(lines::at(), &snapshot(Purpose::Summary));
    recorder.snapshot(lines::at(), &snapshot(Purpose::Stop("SIGTERM".into())));
}

fn recording() -> Vec<u8> {
    let disk = Disk::new(usize::MAX);
    note(&mut disk.recorder());
    disk.bytes().clone()
}

/// Reads the entries up to the end or the damage.
fn read(bytes: &[u8]) -> (Vec<Entry>, Result<(), ReadError>) {
    let mut entries = Vec::new();
    let mut reader = match RecordingReader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return (entries, Err(error)),
    };
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => return (entries, Ok(())),
            Err(error) => return (entries, Err(error)),
        }
    }
}

fn error(bytes: &[u8]) -> String {
    read(bytes).1.unwrap_err().to_string()
}

/// Checks what holds for any bytes: damage is reported at an offset of at most `damage_at`, and the
/// entries before it are those written.
fn assert_total(bytes: &[u8], damage_at: usize, good: &[Entry]) {
    let (entries, ended) = read(bytes);
    assert!(good.starts_with(&entries));
    match ended.expect_err("damaged") {
        ReadError::Damaged { offset, .. } => {
            assert!(offset <= damage_at as u64 && offset <= bytes.len() as u64);
        }
        ReadError::Empty | ReadError::Foreign | ReadError::Version(_) => {
            assert!(entries.is_empty());
        }
        other @ (ReadError::Io(_) | ReadError::Records(_)) => panic!("{other}"),
    }
}

/// The format on disk: a change here requires another [`VERSION`].
#[test]
fn format() {
    let bytes = recording();
    let mut shown = format!("{:02x?}\n", &bytes[..HEADER_LEN]);
    let mut rest = &bytes[HEADER_LEN..];
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        let (kind_and_body, after) = after[4..].split_at(length);
        shown += &match kind_and_body.split_first().unwrap() {
            (&KIND_NOTE, json) => format!("{length} {}\n", str::from_utf8(json).unwrap()),
            (kind, record) => format!("{length} kind {kind}, {} bytes\n", record.len()),
        };
        rest = after;
    }
    assert_snapshot!(shown, @r#"
    [63, 6f, 6e, 6e, 74, 72, 63, 1a, 09, 00, 00, 00, 68, 01, 00, 00, 04, 03, 02, 01, 75, 50, e0, 40]
    705 {"start":{"host":"web-1","time":"2026-11-22T08:30:00.123456789Z","boot_ns":7,"start":{"version":"0.1.0","boot_id":"5e0a1c6e-3f0e-4d0a-9c4b-0d6b1f2a3c4d","kernel":"6.18.5","tier":"tracepoint","pid":77,"hooks":[{"name":"inet_sock_set_state","kind":"tp_btf","attached":true,"reason":null},{"name":"tcp_destroy_sock","kind":"tp_btf","attached":false,"reason":"no such tracepoint"}],"coverage":{"established":true,"rst":true,"kernel_timeout":true,"app_timeout":true,"port_exhausted":true,"tuple_in_use":true,"aborted":true,"stall":true,"icmp":true,"local_drop":false,"drops_elsewhere":false,"translations":false,"icmp6_detail":false,"no_route":false,"local_denial":false,"bind_exhausted":false},"limits":[]}}}
    55 {"clock":{"boot_to_wall":"PT472222H13M20.000000123S"}}
    269 {"told":{"asked_ns":5,"netns_mix":0,"question":{"route":{"netns":7,"way":{"to":"10.0.0.5","from":null,"device":2,"mark":1,"uid":0,"port":5432}}},"found":{"answer":{"route":{"out":{"gateway":"10.0.0.5","device":{"index":2,"name":"eth0"},"prefix_len":0,"table":254}}}}}}
    189 {"told":{"asked_ns":5,"netns_mix":0,"question":{"route":{"netns":7,"way":{"to":"10.0.0.5","from":null,"device":2,"mark":1,"uid":0,"port":5432}}},"found":{"answer":{"route":{"none":101}}}}}
    392 {"told":{"asked_ns":5,"netns_mix":0,"question":{"dead_end":{"netns":7,"way":{"to":"10.0.0.5","from":null,"device":2,"mark":1,"uid":0,"port":5432}}},"found":{"answer":{"dead_end":{"kind":"blackhole","rule":{"priority":5000,"text":"from all lookup 51820"},"table":51820,"prefix":["10.0.0.5",8],"instead":{"gateway":"10.0.0.5","device":{"index":2,"name":"eth0"},"prefix_len":0,"table":254}}}}}}
    272 {"told":{"asked_ns":5,"netns_mix":0,"question":{"covering":{"netns":7,"way":{"to":"10.0.0.5","from":null,"device":2,"mark":1,"uid":0,"port":5432}}},"found":{"answer":{"covering":[{"prefix":["10.0.0.5",8],"table":254,"gateway":null,"device":{"index":2,"name":"eth0"}}]}}}}
    209 {"told":{"asked_ns":5,"netns_mix":0,"question":{"link":{"netns":7,"device":2}},"found":{"answer":{"link":{"name":"eth0","up":true,"carrier":false,"kind":"veth","resolves_neighbours":true,"loopback":false}}}}}
    243 {"told":{"asked_ns":5,"netns_mix":0,"question":{"tunnel":{"netns":7,"device":2,"to":"10.0.0.5"}},"found":{"answer":{"tunnel":{"received":9,"peer":{"endpoint":"10.0.0.5:51820","handshake":{"ago":300}},"heard":{"addr":"10.0.0.5","ago_s":3}}}}}}
    154 {"told":{"asked_ns":5,"netns_mix":0,"question":{"tun_holder":{"netns":7,"name":"tun0"}},"found":{"answer":{"tun_holder":{"pid":812,"comm":"postgres"}}}}}
    162 {"told":{"asked_ns":5,"netns_mix":0,"question":{"own_addresses":{"netns":7,"v6":false}},"found":{"answer":{"own_addresses":{"usable":["10.0.0.5"],"any":true}}}}}
    125 {"told":{"asked_ns":5,"netns_mix":0,"question":{"is_own":{"netns":7,"addr":"10.0.0.5"}},"found":{"answer":{"is_own":true}}}}
    146 {"told":{"asked_ns":5,"netns_mix":0,"question":{"neighbour":{"netns":7,"device":2,"addr":"10.0.0.5"}},"found":{"answer":{"neighbour":"failed"}}}}
    131 {"told":{"asked_ns":5,"netns_mix":0,"question":{"owner":{"netns":7,"device":2,"addr":"10.0.0.5"}},"found":{"answer":{"owner":8}}}}
    126 {"told":{"asked_ns":5,"netns_mix":0,"question":{"holders":{"netns":7,"addr":"10.0.0.5"}},"found":{"answer":{"holders":[8]}}}}
    157 {"told":{"asked_ns":5,"netns_mix":0,"question":{"forwarding":{"netns":7,"addr":"10.0.0.5","v6":false}},"found":{"answer":{"forwarding":{"off_at":"cni0"}}}}}
    144 {"told":{"asked_ns":5,"netns_mix":0,"question":{"forwarding":{"netns":7,"addr":"10.0.0.5","v6":true}},"found":{"answer":{"forwarding":"off"}}}}
    110 {"told":{"asked_ns":5,"netns_mix":0,"question":{"door":{"netns":7}},"found":{"answer":{"door":"-t 812 -n"}}}}
    280 {"told":{"asked_ns":5,"netns_mix":0,"question":{"listeners":{"netns":7,"addr":"10.0.0.5","port":5432}},"found":{"answer":{"listeners":{"on_port":[{"netns":7,"addr":"10.0.0.5","port":5432,"only_v6":false,"device":null,"process":{"pid":812,"comm":"postgres"}}],"on_similar":[]}}}}}
    318 {"told":{"asked_ns":5,"netns_mix":0,"question":{"full_queue":{"netns":7,"addr":"10.0.0.5","port":5432}},"found":{"answer":{"full_queue":{"listener":{"netns":7,"addr":"10.0.0.5","port":5432,"only_v6":false,"device":null,"process":{"pid":812,"comm":"postgres"}},"waiting":2,"backlog":1,"drops":7,"has_others":false}}}}}
    254 {"told":{"asked_ns":5,"netns_mix":0,"question":{"listeners_elsewhere":{"netns":7,"port":5432}},"found":{"answer":{"listeners_elsewhere":[{"netns":7,"addr":"10.0.0.5","port":5432,"only_v6":false,"device":null,"process":{"pid":812,"comm":"postgres"}}]}}}}
    407 {"told":{"asked_ns":5,"netns_mix":0,"question":{"ports":{"netns":7,"local":"10.0.0.5","remote":"10.0.0.5:5432"}},"found":{"answer":{"ports":{"range":[32768,60999],"reserved":1,"tw_reuse":2,"states":{"TIME_WAIT":3},"connected":3,"bound":4,"free":28224,"connected_by":[],"bound_by":[{"process":{"pid":812,"comm":"postgres"},"sockets":4}],"wider":{"available":55534,"listened":[11211],"reserved":"40000"}}}}}}
    213 {"told":{"asked_ns":5,"netns_mix":0,"question":{"tuple":{"netns":7,"local":"10.0.0.5:5432","remote":"10.0.0.5:5432"}},"found":{"answer":{"tuple":{"state":"ESTABLISHED","process":{"pid":812,"comm":"postgres"}}}}}}
    262 {"told":{"asked_ns":5,"netns_mix":0,"question":{"port_holders":{"netns":7,"port":5432}},"found":{"answer":{"port_holders":[{"local":"10.0.0.5:5432","remote":null,"only_v6":false,"is_of_device":false,"state":"LISTEN","process":{"pid":812,"comm":"postgres"}}]}}}}
    238 {"told":{"asked_ns":5,"netns_mix":0,"question":{"tracked":{"netns":7,"client":"10.0.0.5:5432","remote":"10.0.0.5:5432"}},"found":{"answer":{"tracked":{"client":"10.0.0.5:5432","leaves_from":"10.0.0.5:5432","leads_to":"10.0.0.5:5432"}}}}}
    164 {"told":{"asked_ns":5,"netns_mix":0,"question":{"proxy":{"process":{"pid":77,"started_ns":5},"remote":"10.0.0.5:5432"}},"found":{"answer":{"proxy":"http_proxy"}}}}
    130 {"told":{"asked_ns":5,"netns_mix":0,"question":{"drop_reason":{"number":8}},"found":{"answer":{"drop_reason":"NETFILTER_DROP"}}}}
    410 {"told":{"asked_ns":5,"netns_mix":0,"question":{"firewall":{"netns":7,"packet":{"direction":"out","remote":"10.0.0.5:5432","local":"10.0.0.5","local_port":null,"device":"eth0","leaves_by":null,"asked":null,"mark":0,"uid":null},"ending":"drop"}},"found":{"answer":{"firewall":{"found":[{"family":"inet","table":"t","chain":"c","handle":4,"comment":null,"verdict":"drop","matches":"fully"}],"complete":true}}}}}
    125 {"told":{"asked_ns":5,"netns_mix":0,"question":{"connect_programs":{"cgroup":9,"v6":true}},"found":{"unknown":"no_access"}}}
    174 {"told":{"asked_ns":5,"netns_mix":0,"question":{"connect_programs":{"cgroup":9,"v6":false}},"found":{"answer":{"connect_programs":[{"id":12,"name":"deny","cgroup":"/a"}]}}}}
    108 {"told":{"asked_ns":5,"netns_mix":0,"question":{"security_programs":{}},"found":{"unknown":"unsupported"}}}
    133 {"told":{"asked_ns":5,"netns_mix":0,"question":{"confinement":{"process":{"pid":77,"started_ns":5}}},"found":{"unknown":"no_time"}}}
    88 {"owner":{"exe":"/usr/bin/curl","cgroup":"/system.slice/app.service","container":null}}
    361 kind 1, 360 bytes
    361 kind 1, 360 bytes
    88 {"owner":{"exe":"/usr/bin/wget","cgroup":"/system.slice/app.service","container":null}}
    361 kind 1, 360 bytes
    337 {"port_pressure":{"time":"2026-11-22T08:30:00.123456789Z","level":50,"found":{"netns":7,"local":"10.0.0.2","remote":"10.0.0.5:5432","range":[32768,60999],"reserved":32,"used":14100,"reusable":0,"states":{"established":90,"syn_sent":0,"syn_recv":0,"fin_wait1":0,"fin_wait2":0,"time_wait":14010,"close_wait":0,"last_ack":0,"closing":0}}}}
    361 kind 1, 360 bytes
    308 {"snapshot":{"time":"2026-11-22T08:30:00.123456789Z","snapshot":{"purpose":"summary","counters":{"attempts":5,"endings":4,"established":0,"ring_full":0,"untracked":0,"not_admitted":0,"ending_missed":0,"stall_ring_full":0,"missed_hooks":0},"in_map":1,"malformed":2,"undelivered":3,"inspectors_abandoned":4}}}
    317 {"snapshot":{"time":"2026-11-22T08:30:00.123456789Z","snapshot":{"purpose":{"stop":"SIGTERM"},"counters":{"attempts":5,"endings":4,"established":0,"ring_full":0,"untracked":0,"not_admitted":0,"ending_missed":0,"stall_ring_full":0,"missed_hooks":0},"in_map":1,"malformed":2,"undelivered":3,"inspectors_abandoned":4}}}
    "#);
}

#[test]
fn gives_back_what_was_noted() {
    let (entries, ended) = read(&recording());
    ended.unwrap();
    let is_owner = |exe: &str, entry: &Entry| *entry == Entry::Note(Note::Owner(owner(exe)));
    assert!(entries[0].is_start());
    let (read_back, entries) = entries[2..].split_at(recorded_answers().len());
    let noted = recorded_answers()
        .into_iter()
        .map(|answer| Entry::Note(Note::Told(answer)));
    assert!(noted.eq(read_back.iter().cloned()));
    assert_eq!(entries.len(), 9, "unchanged answers are not said again");
    assert!(is_owner("/usr/bin/curl", &entries[0]) && is_owner("/usr/bin/wget", &entries[3]));
    assert_eq!(entries[1], Entry::Record(refused()));
    let pressure = Note::PortPressure {
        time: lines::at(),
        level: 50,
        found: lines::port_use(),
    };
    assert_eq!(entries[5], Entry::Note(pressure));
    assert_eq!(entries[6], Entry::Record([7; COMPLETE_SIZE]));
    assert!(entries[8].is_stop());
}

#[test]
fn what_cannot_be_replayed_says_why() {
    let good = recording();
    let with = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let resummed = |mut bytes: Vec<u8>| {
        let sum = crc32fast::hash(&bytes[..HEADER_LEN - 4]);
        bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
        bytes
    };
    let foreign = "it is not a recording: `conntrace run --record FILE` makes one";
    assert_eq!(error(b"{\"schema\":1}\n"), foreign);
    assert_eq!(error(b"x"), foreign);
    assert_snapshot!(error(&with(8, &[10])), @"its format is version 10, and this conntrace knows version 9: replay it with the version of conntrace that made it");
    assert_snapshot!(error(&resummed(with(8, &[3]))), @"its format is version 3, and this conntrace knows version 9: replay it with the version of conntrace that made it");
    assert_snapshot!(error(&resummed(with(12, &[176]))), @"its records have another size: replay it with the version of conntrace that made it, on the same architecture");
    assert_snapshot!(error(&resummed(with(16, &0x0403_0201_u32.to_ne_bytes()))), @"its records have another byte order: replay it with the version of conntrace that made it, on the same architecture");
    assert_snapshot!(error(b""), @"it is empty: `conntrace run --record FILE` makes recordings");
    assert_snapshot!(error(&good[..7]), @"it is damaged at byte 0: the file ends in the middle of what begins there");
    assert_snapshot!(error(&with(13, &[7])), @"it is damaged at byte 0: the checksum does not fit");
    assert_snapshot!(error(&with(HEADER_LEN, &[255; 4])), @"it is damaged at byte 24: an entry has an invalid length of 4294967295 bytes");
    assert_snapshot!(error(&good[..HEADER_LEN]), @"it is damaged at byte 24: the file ends without a stop; conntrace was killed, its output was closed, or the rest is missing");
    assert_snapshot!(error(&good[..good.len() - 1]), @"it is damaged at byte 9406: the file ends in the middle of what begins there; the lines before it were written");
    assert_snapshot!(error(&[&good[..], b"more"].concat()), @"it is damaged at byte 9731: something follows the stop; the lines before it were written");
}

/// Invalid entries with valid checksums.
#[test]
fn nonsense_with_a_good_checksum_is_refused() {
    let header = &recording()[..HEADER_LEN];
    let entry = |kind: u8, body: &[u8]| {
        let length = u32::try_from(1 + body.len()).unwrap().to_le_bytes();
        let sum = checksum(length, &[&[kind], body]).to_le_bytes();
        [header, &length, &sum, &[kind], body].concat()
    };
    assert_snapshot!(error(&entry(9, b"?")), @"it is damaged at byte 24: an entry has an unknown kind 9, or a length that does not match it");
    assert_snapshot!(error(&entry(KIND_RECORD, &[0; 10])), @"it is damaged at byte 24: an entry has an unknown kind 1, or a length that does not match it");
    assert_snapshot!(error(&entry(KIND_RECORD, &[0; COMPLETE_SIZE])), @"it is damaged at byte 24: a start is missing, or in the wrong place");
    assert_snapshot!(error(&entry(KIND_NOTE, b"{\"gossip\":1}")), @"it is damaged at byte 24: a note is invalid (unknown variant `gossip`, expected one of `start`, `clock`, `owner`, `told`, `no_time`, `port_pressure`, `snapshot` at line 1 column 9)");
}

/// Entries are limited like lines, so that the lines of any valid recording fit.
#[test]
fn what_no_line_could_hold_is_refused() {
    let with_host = |len: usize| {
        let disk = Disk::new(usize::MAX);
        let mut recorder = disk.recorder();
        recorder.start(&"x".repeat(len).into(), (lines::at(), 7), &start());
        drop(recorder);
        error(&disk.bytes())
    };
    assert!(with_host(HOST_JSON_MAX).contains("ends without a stop"));
    assert_snapshot!(with_host(HOST_JSON_MAX + 1), @"it is damaged at byte 24: a note is invalid (a text exceeds the limit of a line)");
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let bytes = recording();
    let (good, _) = read(&bytes);
    for at in 0..bytes.len() {
        assert_total(&bytes[..at], at, &good);
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert_total(&flipped, at, &good);
        }
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_is_counted() {
    let whole = recording();
    let (good, _) = read(&whole);
    for room in (HEADER_LEN..whole.len()).step_by(7) {
        let disk = Disk::new(room);
        let mut recorder = disk.recorder();
        note(&mut recorder);
        recorder.record(&refused(), None);
        recorder.flush();
        assert_eq!(*disk.bytes(), whole[..room]);
        assert_total(&disk.bytes(), room, &good);
        let kept = read(&disk.bytes()).0;
        let kept = kept.iter().filter(|e| matches!(e, Entry::Record(_)));
        let (kept, unrecorded) = (kept.count() as u64, recorder.unrecorded());
        assert!(kept + unrecorded >= 5 && unrecorded <= 5, "{room}");
    }
    let no_room = Recorder::new(Box::new(Disk::new(3)), String::new());
    assert_eq!(no_room.unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn makes_only_new_files_for_their_owner_alone() {
    let dir = std::env::temp_dir().join(format!("conntrace-recorder-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let file = dir.join("new");
    drop(Recorder::create(&file).unwrap());
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refusal = |path: &str| {
        let error = Recorder::create(&dir.join(path)).unwrap_err().to_string();
        error.replace(dir.to_str().unwrap(), "DIR")
    };
    symlink("nowhere", dir.join("link")).unwrap();
    symlink(&file, dir.join("link-to-file")).unwrap();
    for path in ["new", "link", "link-to-file"] {
        assert!(
            refusal(path).ends_with("it exists, and a recording replaces nothing; name a new file")
        );
    }
    assert_eq!(refusal("no/such"), "cannot record to DIR/no/such");
    assert!(!dir.join("nowhere").exists());
    assert_eq!(fs::read(&file).unwrap().len(), HEADER_LEN);
    fs::remove_dir_all(&dir).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_say_why(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        with_header: bool,
    ) {
        let header = &recording()[..if with_header { HEADER_LEN } else { 0 }];
        let bytes = [header, &bytes].concat();
        assert_total(&bytes, bytes.len(), &[]);
    }

    #[test]
    fn any_damage_to_a_recording_is_found(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 1_u8..), 0..8),
        cut: prop::sample::Index,
    ) {
        let whole = recording();
        let good = read(&whole).0;
        let mut bytes = whole[..cut.index(whole.len())].to_vec();
        for (at, mask) in damage.iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
        }
        let first = bytes.iter().zip(&whole).position(|(a, b)| a != b);
        assert_total(&bytes, first.unwrap_or(bytes.len()), &good);
    }
}
