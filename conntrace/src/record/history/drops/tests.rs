use super::*;

const SECOND_NS: u64 = 1_000_000_000;
/// Time at which the attempts of the tests begin.
const BEGAN: u64 = 1000 * SECOND_NS;
const CLIENT: Client = (addr(1), 40_000);
const NETFILTER: u16 = 8;
const NO_SOCKET: u16 = 3;

/// Address of a client.
const fn addr(number: u32) -> [u8; 16] {
    let [a, b, c, d] = number.to_be_bytes();
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

/// SYN of a client that its node drops.
fn syn((client, key): Client, at_ns: u64) -> RawDrop {
    let [client_port, isn_end] = [key & 0xffff, key >> u16::BITS];
    let [client_port, isn_end] = [client_port, isn_end].map(|half| u16::try_from(half).unwrap());
    RawDrop {
        at_ns,
        client,
        server: addr(9),
        asked: addr(8),
        netns: 77,
        device: 3,
        client_port,
        server_port: 443_u16.to_be(),
        asked_port: 80_u16.to_be(),
        reason: NETFILTER,
        isn_end,
        packet: DROPPED_SYN,
        reserved: [0; 5],
    }
}

fn bytes(drop: &RawDrop) -> DropRecord {
    let mut record = [0; DROP_SIZE];
    for (at, value) in [
        (offset_of!(RawDrop, at_ns), &drop.at_ns.to_ne_bytes()[..]),
        (offset_of!(RawDrop, client), &drop.client),
        (offset_of!(RawDrop, server), &drop.server),
        (offset_of!(RawDrop, asked), &drop.asked),
        (offset_of!(RawDrop, netns), &drop.netns.to_ne_bytes()),
        (offset_of!(RawDrop, device), &drop.device.to_ne_bytes()),
        (
            offset_of!(RawDrop, client_port),
            &drop.client_port.to_ne_bytes(),
        ),
        (
            offset_of!(RawDrop, server_port),
            &drop.server_port.to_ne_bytes(),
        ),
        (
            offset_of!(RawDrop, asked_port),
            &drop.asked_port.to_ne_bytes(),
        ),
        (offset_of!(RawDrop, reason), &drop.reason.to_ne_bytes()),
        (offset_of!(RawDrop, isn_end), &drop.isn_end.to_ne_bytes()),
        (offset_of!(RawDrop, packet), &[drop.packet]),
    ] {
        record[at..at + value.len()].copy_from_slice(value);
    }
    record
}

fn note(table: &mut DropTable, drop: &RawDrop) {
    let client = table.note(&bytes(drop));
    assert_eq!(
        client,
        Some((drop.client, key_of(drop.client_port, drop.isn_end)))
    );
}

const UNKNOWN: RawWayDrop = RawWayDrop {
    is_unknown: 1,
    ..RawWayDrop::NOTHING
};

#[test]
fn a_drop_is_joined_with_its_attempt_and_taken_once() {
    let mut table = DropTable::default();
    note(&mut table, &syn(CLIENT, BEGAN + 5));
    let other_port = (CLIENT.0, CLIENT.1 + 1);
    let other_addr = (addr(2), CLIENT.1);
    for other in [other_port, other_addr] {
        assert_eq!(table.take(other, BEGAN, 0), RawWayDrop::NOTHING);
    }
    let told = table.take(CLIENT, BEGAN, 0);
    let expected = RawWayDrop {
        server: addr(9),
        asked: addr(8),
        last_ns: BEGAN + 5,
        netns: 77,
        device: 3,
        server_port: 443_u16.to_be(),
        asked_port: 80_u16.to_be(),
        reason: NETFILTER,
        packet: DROPPED_SYN,
        count: 1,
        is_unknown: 0,
        reserved: [0; 7],
    };
    assert_eq!(told, expected);
    assert_eq!(table.take(CLIENT, BEGAN, 0), RawWayDrop::NOTHING);
    assert_eq!(table.by_client.len() + table.by_addr.len(), 0);
}

#[test]
fn a_drop_of_an_earlier_attempt_with_the_port_says_nothing() {
    let mut table = DropTable::default();
    note(&mut table, &syn(CLIENT, BEGAN - 1));
    assert_eq!(table.take(CLIENT, BEGAN, 0), RawWayDrop::NOTHING);
    assert_eq!(table.by_client.len(), 0, "it does not stay either");
}

#[test]
fn drops_of_one_kind_are_counted() {
    let mut table = DropTable::default();
    for at in [0, 1, 3] {
        note(&mut table, &syn(CLIENT, BEGAN + at * SECOND_NS));
    }
    let told = table.take(CLIENT, BEGAN, 0);
    assert_eq!((told.count, told.last_ns), (3, BEGAN + 3 * SECOND_NS));
    for at in 0..300 {
        note(&mut table, &syn(CLIENT, BEGAN + at));
    }
    assert_eq!(table.take(CLIENT, BEGAN, 0).count, u8::MAX);
}

#[test]
fn another_kind_of_drop_restarts_the_count() {
    let first = syn(CLIENT, BEGAN);
    let others = [
        RawDrop {
            reason: NO_SOCKET,
            ..first
        },
        RawDrop { netns: 78, ..first },
        RawDrop {
            server: addr(10),
            ..first
        },
        RawDrop {
            server_port: 1,
            ..first
        },
        RawDrop {
            packet: DROPPED_SYN_ACK,
            ..first
        },
    ];
    for other in others {
        let mut table = DropTable::default();
        note(&mut table, &first);
        note(&mut table, &first);
        note(&mut table, &other);
        let told = table.take(CLIENT, BEGAN, 0);
        assert_eq!((told.count, told.reason), (1, other.reason), "{other:?}");
        assert_eq!((told.netns, told.packet), (other.netns, other.packet));
    }
}

/// An attempt that was established after its first SYN was dropped takes nothing.
#[test]
fn drops_before_the_attempt_are_not_counted_as_its_own() {
    let mut table = DropTable::default();
    note(&mut table, &syn(CLIENT, BEGAN - 3 * SECOND_NS));
    note(&mut table, &syn(CLIENT, BEGAN + 1));
    let told = table.take(CLIENT, BEGAN, 0);
    assert_eq!(told.count, 1, "one of two SYNs was dropped");
}

/// Clients in other namespaces can have the same address and port.
#[test]
fn a_twin_has_a_sequence_of_its_own() {
    let mut table = DropTable::default();
    let of = |isn_end| (CLIENT.0, key_of(9, isn_end));
    note(&mut table, &syn(of(7), BEGAN + 1));
    assert_eq!(table.take(of(8), BEGAN, 0), RawWayDrop::NOTHING);
    assert_eq!(table.take(of(7), BEGAN, 0).count, 1);
}

#[test]
fn an_address_takes_no_more_than_its_places() {
    let mut table = DropTable::default();
    let of_other = (addr(2), 1);
    note(&mut table, &syn(of_other, BEGAN));
    let ports = 0..u32::try_from(OF_ADDR_MAX).unwrap() + 1;
    for port in ports {
        note(&mut table, &syn((CLIENT.0, port), BEGAN));
    }
    assert_eq!(table.by_client.len(), OF_ADDR_MAX + 1);
    assert_eq!(table.take((CLIENT.0, 0), BEGAN, 0), UNKNOWN, "evicted");
    assert_eq!(table.take((CLIENT.0, 60_000), BEGAN, 0), UNKNOWN);
    assert_eq!(table.take((CLIENT.0, 1), BEGAN, 0).count, 1);
    assert_eq!(table.take((addr(2), 2), BEGAN, 0), RawWayDrop::NOTHING);
    assert_eq!(table.take(of_other, BEGAN, 0).count, 1);
    // One that begins later has lost none.
    assert_eq!(table.take((CLIENT.0, 0), BEGAN + 1, 0), RawWayDrop::NOTHING);
}

#[test]
fn all_addresses_take_no_more_than_all_places() {
    let mut table = DropTable::default();
    let of_quiet = (addr(2), 1);
    note(&mut table, &syn(of_quiet, BEGAN));
    for number in 0..6 {
        for port in 0..u32::try_from(OF_ADDR_MAX).unwrap() {
            note(&mut table, &syn((addr(100 + number), port), BEGAN));
        }
    }
    assert_eq!(table.by_client.len(), CLIENTS_MAX);
    assert_eq!(table.take(of_quiet, BEGAN, 0).count, 1);
    assert_eq!(table.take(of_quiet, BEGAN, 0), RawWayDrop::NOTHING);
    assert_eq!(table.take((addr(100), 0), BEGAN, 0), UNKNOWN);
}

/// A flood from ever new addresses, such as of one IPv6 suffix with all prefixes, whose hash is that
/// of an attempt under way.
#[test]
fn ever_new_addresses_take_no_more_than_all_places() {
    let mut table = DropTable::default();
    for number in 0..u32::try_from(5 * CLIENTS_MAX).unwrap() {
        note(&mut table, &syn((addr(number), 1), BEGAN));
    }
    assert!(
        table.by_client.len() <= CLIENTS_MAX,
        "{}",
        table.by_client.len()
    );
    assert!(
        table.by_addr.len() <= CLIENTS_MAX,
        "{}",
        table.by_addr.len()
    );
    assert_eq!(table.by_number.len(), table.by_addr.len());
    assert!(table.evicted_ns.len() <= EVICTED_MAX);
}

#[test]
fn an_old_drop_is_evicted_silently() {
    let mut table = DropTable::default();
    let later_ns = BEGAN + ATTEMPT_NS_MAX;
    note(&mut table, &syn((CLIENT.0, 0), BEGAN));
    for port in 1..=u32::try_from(OF_ADDR_MAX).unwrap() {
        note(&mut table, &syn((CLIENT.0, port), later_ns));
    }
    let told = table.take((CLIENT.0, 60_000), BEGAN, 0);
    assert_eq!(told, RawWayDrop::NOTHING);
}

#[test]
fn a_drop_that_was_not_reported_is_unknown() {
    let mut table = DropTable::default();
    assert_eq!(table.take(CLIENT, BEGAN, BEGAN - 1), RawWayDrop::NOTHING);
    assert_eq!(table.take(CLIENT, BEGAN, BEGAN), UNKNOWN);
    note(&mut table, &syn(CLIENT, BEGAN));
    let told = table.take(CLIENT, BEGAN, BEGAN + 1);
    assert_eq!((told.is_unknown, told.count), (0, 1), "this one was");
}

#[test]
fn a_malformed_record_is_refused() {
    let mut table = DropTable::default();
    for packet in [0, 3, u8::MAX] {
        let malformed = RawDrop {
            packet,
            ..syn(CLIENT, BEGAN)
        };
        assert_eq!(table.note(&bytes(&malformed)), None);
    }
    assert_eq!(table.take(CLIENT, BEGAN, 0), RawWayDrop::NOTHING);
}
