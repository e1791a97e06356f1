use conntrace_common::record::COMM_LEN;
use proptest::prelude::*;

use super::*;
use crate::record::history::pack;

/// Complete record of a refused IPv4 attempt.
pub(crate) fn refused() -> [u8; COMPLETE_SIZE] {
    let mut bytes = [0; COMPLETE_SIZE];
    for (at, value) in [
        (offset_of!(RawRecord, kind), &[KIND_ENDING][..]),
        (offset_of!(RawRecord, state), &[STATE_CLOSE]),
        (offset_of!(RawRecord, version), &[RECORD_VERSION]),
        (offset_of!(RawRecord, flags), &[FLAG_HEARD]),
        (
            offset_of!(RawRecord, attempt.family),
            &AF_INET.to_ne_bytes(),
        ),
        (
            offset_of!(RawRecord, attempt.opening.started_ns),
            &1_000_u64.to_ne_bytes(),
        ),
        (offset_of!(RawRecord, at_ns), &311_000_u64.to_ne_bytes()),
        (
            offset_of!(RawRecord, attempt.opening.pid),
            &4242_u32.to_ne_bytes(),
        ),
        (
            offset_of!(RawRecord, attempt.opening.tid_or_cpu),
            &4243_u32.to_ne_bytes(),
        ),
        (offset_of!(RawRecord, attempt.netns), &7_u32.to_ne_bytes()),
        (
            offset_of!(RawRecord, attempt.socket_uid),
            &1000_u32.to_ne_bytes(),
        ),
        (
            offset_of!(RawRecord, attempt.opening.exe_device),
            &0x80_0001_u32.to_ne_bytes(),
        ),
        (
            offset_of!(RawRecord, attempt.opening.exe_inode),
            &77_u64.to_ne_bytes(),
        ),
        (offset_of!(RawRecord, attempt.opening.comm), b"curl"),
        (offset_of!(RawRecord, attempt.opening.leader_comm), b"curl"),
        (offset_of!(RawRecord, attempt.local_addr), &[10, 0, 0, 2]),
        (offset_of!(RawRecord, attempt.remote_addr), &[10, 0, 0, 5]),
        (
            offset_of!(RawRecord, attempt.remote_port),
            &5432_u16.to_be_bytes(),
        ),
        (offset_of!(RawRecord, local_port), &43210_u16.to_be_bytes()),
        (offset_of!(RawRecord, error), &111_u32.to_ne_bytes()),
        (
            offset_of!(RawRecord, syns_or_connects),
            &1_u32.to_ne_bytes(),
        ),
    ] {
        put(&mut bytes, at, value);
    }
    bytes
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[test]
fn decodes_what_the_kernel_side_writes() {
    let attempt = decode(&refused()).unwrap();
    assert_eq!(attempt.moment, RecordKind::Closed);
    let caller = attempt.caller.unwrap();
    assert_eq!((caller.pid, caller.tid), (4242, Some(4243)));
    assert_eq!(caller.comm.as_bytes(), b"curl");
    let (device, inode) = (0x80_0001, 77);
    assert_eq!(caller.exe, Some(ExeId { device, inode }));
    assert_eq!((attempt.socket_uid, attempt.mark), (Some(1000), 0));
    assert_eq!(attempt.bound_device, None);
    let remote = attempt.remote.unwrap();
    assert_eq!(remote.addr.to_string(), "10.0.0.5");
    assert_eq!(remote.port, 5432);
    assert_eq!(attempt.local_port, Some(43210));
    assert_eq!(attempt.error, Some(Errno(111)));
    assert!(attempt.heard && !attempt.port_bound && attempt.icmp.is_none());
}

#[test]
fn limits_are_those_of_the_socket_or_its_namespace() {
    let limits = |user_timeout_ms: u32, retries: u8, linear: u8| {
        let mut bytes = refused();
        let at = offset_of!(RawRecord, user_timeout_ms);
        put(&mut bytes, at, &user_timeout_ms.to_ne_bytes());
        let at = offset_of!(RawRecord, syn_retries);
        put(&mut bytes, at, &[retries, linear]);
        decode(&bytes).unwrap().limits
    };
    assert_eq!(limits(0, 0, 0), None);
    let of_netns = Limits {
        user_timeout_ms: None,
        syn_retries: 6,
        is_of_socket: false,
        linear_timeouts: Some(4),
    };
    assert_eq!(limits(0, 6, 4), Some(of_netns));
    let of_socket = Limits {
        user_timeout_ms: Some(2500),
        syn_retries: 127,
        is_of_socket: true,
        linear_timeouts: None,
    };
    let retries = 127 | SYN_RETRIES_OF_SOCKET;
    assert_eq!(limits(2500, retries, NO_LINEAR_TIMEOUTS), Some(of_socket));
}

#[test]
fn what_was_not_seen_whole_knows_less_of_its_caller() {
    let mut bytes = refused();
    put(
        &mut bytes,
        offset_of!(RawRecord, flags),
        &[FLAG_JOINED_LATE],
    );
    let joined = decode(&bytes).unwrap();
    let caller = joined.caller.unwrap();
    assert_eq!(joined.seen, Seen::JoinedLate);
    assert_eq!(
        (caller.pid, caller.tid, caller.cgroup_id),
        (4242, None, None)
    );
    put(&mut bytes, offset_of!(RawRecord, flags), &[FLAG_UNTRACKED]);
    put(
        &mut bytes,
        offset_of!(RawRecord, attempt.opening.pid),
        &[0; 4],
    );
    let untracked = decode(&bytes).unwrap();
    assert_eq!((untracked.seen, untracked.caller), (Seen::Untracked, None));
    assert_eq!(untracked.socket_uid, None);
    put(&mut bytes, offset_of!(RawRecord, flags), &[FLAG_RECOVERED]);
    put(&mut bytes, offset_of!(RawRecord, attempt.opening.pid), &[7]);
    let recovered = decode(&bytes).unwrap();
    assert_eq!(recovered.seen, Seen::EndingRecovered);
    assert_eq!(recovered.caller.unwrap().tid, Some(4243));
    let both = FLAG_JOINED_LATE | FLAG_UNTRACKED;
    put(&mut bytes, offset_of!(RawRecord, flags), &[both]);
    assert!(decode(&bytes).is_err());
}

#[test]
fn a_call_that_failed_has_its_errno_and_a_bind_no_remote() {
    let mut bytes = refused();
    put(
        &mut bytes,
        offset_of!(RawRecord, kind),
        &[KIND_CONNECT_FAILED],
    );
    let connect = decode(&bytes).unwrap();
    assert_eq!(connect.moment, RecordKind::ConnectFailed(Errno(111)));
    assert!(connect.remote.is_some() && connect.error.is_none());
    put(&mut bytes, offset_of!(RawRecord, kind), &[KIND_BIND_FAILED]);
    let bind = decode(&bytes).unwrap();
    assert_eq!(bind.moment, RecordKind::BindFailed(Errno(111)));
    assert!(bind.remote.is_none() && bind.error.is_none());
    put(&mut bytes, offset_of!(RawRecord, error), &[0; 4]);
    let nothing = decode(&bytes).unwrap_err().to_string();
    assert_eq!(nothing, "error cannot be 0");
}

#[test]
fn a_hint_has_its_count() {
    let mut bytes = refused();
    put(&mut bytes, offset_of!(RawRecord, kind), &[KIND_CONNECTS]);
    let closed = decode(&bytes).unwrap_err().to_string();
    assert_eq!(closed, "state cannot be 7");
    put(&mut bytes, offset_of!(RawRecord, state), &[STATE_SYN_SENT]);
    put(
        &mut bytes,
        offset_of!(RawRecord, syns_or_connects),
        &512_u32.to_ne_bytes(),
    );
    let hint = decode(&bytes).unwrap();
    assert_eq!(hint.moment, RecordKind::Connects(512));
    assert!(hint.remote.is_some() && hint.caller.is_some());
}

#[test]
fn drops_are_told_only_where_there_are_any() {
    let mut bytes = refused();
    put(
        &mut bytes,
        offset_of!(RawRecord, drop_reason),
        &12_u16.to_ne_bytes(),
    );
    assert_eq!(decode(&bytes).unwrap().drops, None);
    put(&mut bytes, offset_of!(RawRecord, drops), &[3]);
    let drops = Drops {
        count: 3,
        reason: 12,
    };
    assert_eq!(decode(&bytes).unwrap().drops, Some(drops));
}

#[test]
fn the_device_the_mark_and_no_executable_are_told_as_they_are() {
    let mut bytes = refused();
    let mut put = |at, value: &[u8]| {
        put(&mut bytes, at, value);
        decode(&bytes).unwrap()
    };
    let device = offset_of!(RawRecord, attempt.opening.bound_device);
    let bound = put(device, &3_u32.to_ne_bytes());
    assert_eq!(bound.bound_device, Some(3));
    let mark = put(
        offset_of!(RawRecord, attempt.opening.mark),
        &[0, 0, 0, 0x80],
    );
    assert_eq!(mark.mark, 0x8000_0000);
    let by_root = put(offset_of!(RawRecord, attempt.socket_uid), &[0; 4]);
    assert_eq!(by_root.socket_uid, Some(0));
    let by_kernel = put(offset_of!(RawRecord, attempt.opening.exe_inode), &[0; 8]);
    assert_eq!(by_kernel.caller.unwrap().exe, None);
}

#[test]
fn what_is_remembered_of_the_remote_is_told_where_there_is_anything() {
    let mut bytes = refused();
    assert_eq!(decode(&bytes).unwrap().remembered, HostTimes::default());
    let mut told = HostTimes::default();
    let mut put = |at, word: u64, told: &HostTimes| {
        put(&mut bytes, at, &word.to_ne_bytes());
        assert_eq!(decode(&bytes).unwrap().remembered, *told);
    };
    // The lower 16 bits of the time hold the port.
    let (then_ns, port) = (0x1234_5678_9abc, 80_u16);
    let word = pack(then_ns, port.to_be());
    told.handshake = Some((0x1234_5678_0000, 80));
    put(offset_of!(RawComplete, remembered.handshake), word, &told);
    told.reset = told.handshake;
    put(offset_of!(RawComplete, remembered.reset), word, &told);
    told.on_this_port_ns = Some(5);
    put(
        offset_of!(RawComplete, remembered.port_handshake_ns),
        5,
        &told,
    );
    told.silent_since_ns = Some(6);
    put(
        offset_of!(RawComplete, remembered.silent_since_ns),
        6,
        &told,
    );
    told.network_silent_since_ns = Some(7);
    let at = offset_of!(RawComplete, remembered.network_silent_since_ns);
    put(at, 7, &told);
    told.forgotten_ns = Some(8);
    put(offset_of!(RawComplete, remembered.forgotten_ns), 8, &told);
    told.handshake_took_us = Some(9);
    put(
        offset_of!(RawComplete, remembered.handshake_took_us),
        9,
        &told,
    );
}

#[test]
fn mapped_addresses_are_ipv4() {
    let mut bytes = refused();
    put(
        &mut bytes,
        offset_of!(RawRecord, attempt.family),
        &AF_INET6.to_ne_bytes(),
    );
    let mapped = "::ffff:192.0.2.7".parse::<Ipv6Addr>().unwrap();
    put(
        &mut bytes,
        offset_of!(RawRecord, attempt.remote_addr),
        &mapped.octets(),
    );
    let attempt = decode(&bytes).unwrap();
    assert_eq!(attempt.remote.unwrap().addr.to_string(), "192.0.2.7");
}

#[test]
fn refuses_what_no_kernel_side_writes() {
    let bad = |at: usize, value: &[u8]| {
        let mut bytes = refused();
        put(&mut bytes, at, value);
        decode(&bytes).unwrap_err().to_string()
    };
    assert_eq!(bad(offset_of!(RawRecord, kind), &[9]), "kind cannot be 9");
    assert_eq!(bad(offset_of!(RawRecord, state), &[4]), "state cannot be 4");
    assert_eq!(
        bad(offset_of!(RawRecord, flags), &[0x80]),
        "flags cannot be 128"
    );
    assert_eq!(
        bad(offset_of!(RawRecord, attempt.family), &[1, 0]),
        "family cannot be 1"
    );
    assert_eq!(
        bad(offset_of!(RawRecord, at_ns), &[0; 8]),
        "at_ns cannot be 0"
    );
    assert_eq!(
        bad(offset_of!(RawRecord, error), &[255; 4]),
        "error cannot be 4294967295"
    );
    assert_eq!(
        bad(offset_of!(RawRecord, version), &[1]),
        "version cannot be 1"
    );
    assert_eq!(
        bad(offset_of!(RawRecord, flags), &[FLAG_ICMP]),
        "icmp_origin cannot be 0"
    );
    let short = decode(&refused()[1..]).unwrap_err().to_string();
    assert_eq!(short, "a record has 360 bytes, not 359");
}

proptest! {
    #[test]
    fn any_bytes_of_any_length_decode_or_say_why(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let decoded = decode(&bytes);
        prop_assert!(bytes.len() == COMPLETE_SIZE || decoded == Err(Malformed::Length(bytes.len())));
    }

    #[test]
    fn any_damage_to_a_record_decodes_or_says_why(at in 0..COMPLETE_SIZE, value: u8, more: [u8; 8]) {
        let mut bytes = refused();
        bytes[at] = value;
        for (i, byte) in more.iter().enumerate() {
            bytes[(at * 7 + i * 13) % COMPLETE_SIZE] ^= byte;
        }
        if let Ok(attempt) = decode(&bytes) {
            prop_assert!(attempt.at_ns >= attempt.since_ns);
            let caller = attempt.caller;
            prop_assert!(caller.is_none_or(|caller| caller.comm.as_bytes().len() <= COMM_LEN));
        }
    }
}
