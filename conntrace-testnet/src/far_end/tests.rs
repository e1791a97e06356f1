use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::{FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, FAR_V6, ports};

const SEQUENCE: u32 = u32::MAX;
const LOCAL_PORT: u16 = 40_000;

#[derive(Debug, Clone, Copy)]
enum IpFamily {
    V4,
    V6,
}

const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

/// A segment from this side to a far port.
fn segment(
    family: IpFamily,
    port: u16,
    shape: impl FnOnce(&mut TcpHeader),
    payload: &[u8],
) -> Vec<u8> {
    let mut header = TcpHeader::new(LOCAL_PORT, port, SEQUENCE, 1000);
    shape(&mut header);
    let ip = match family {
        IpFamily::V4 => PacketBuilder::ipv4(FAR_LOCAL_V4.octets(), FAR_V4.octets(), 64),
        IpFamily::V6 => PacketBuilder::ipv6(FAR_LOCAL_V6.octets(), FAR_V6.octets(), 64),
    };
    let mut bytes = Vec::new();
    ip.tcp_header(header).write(&mut bytes, payload).unwrap();
    bytes
}

fn syn(family: IpFamily, port: u16) -> Vec<u8> {
    segment(family, port, |header| header.syn = true, &[])
}

/// A segment of an open connection, whose next byte from afar is number 7.
fn later(family: IpFamily, port: u16, fin: bool, payload: &[u8]) -> Vec<u8> {
    let shape = |header: &mut TcpHeader| {
        header.ack = true;
        header.acknowledgment_number = 7;
        header.fin = fin;
    };
    segment(family, port, shape, payload)
}

fn answer_once(packet: &[u8]) -> Option<Vec<u8>> {
    answer(packet, &mut FarEnd::default())
}

/// The TCP header of an answer whose addresses, ports and checksums are right.
fn tcp_of(packet: &[u8], port: u16) -> TcpHeader {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
        panic!("not TCP: {sliced:?}");
    };
    let header = tcp.to_header();
    let checksum = match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header().to_header();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(Ipv4Addr::from(ip.source), FAR_V4);
            assert_eq!(Ipv4Addr::from(ip.destination), FAR_LOCAL_V4);
            header.calc_checksum_ipv4(&ip, &[])
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header().to_header();
            assert_eq!(Ipv6Addr::from(ip.source), FAR_V6);
            assert_eq!(Ipv6Addr::from(ip.destination), FAR_LOCAL_V6);
            header.calc_checksum_ipv6(&ip, &[])
        }
        NetSlice::Arp(arp) => panic!("ARP: {arp:?}"),
    };
    assert_eq!(header.checksum, checksum.unwrap());
    assert_eq!(header.source_port, port);
    assert_eq!(header.destination_port, LOCAL_PORT);
    header
}

/// Type, code and quote of an ICMP error that came from the router.
fn icmp_of(packet: &[u8]) -> (u8, u8, Vec<u8>) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    match (sliced.net.unwrap(), sliced.transport.unwrap()) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
            let ip = ip.header().to_header();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(Ipv4Addr::from(ip.source), FAR_ROUTER_V4);
            assert_eq!(Ipv4Addr::from(ip.destination), FAR_LOCAL_V4);
            assert_eq!(
                icmp.checksum(),
                icmp.icmp_type().calc_checksum(icmp.payload())
            );
            (icmp.type_u8(), icmp.code_u8(), icmp.payload().to_vec())
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let ip = ip.header().to_header();
            assert_eq!(Ipv6Addr::from(ip.source), FAR_ROUTER_V6);
            assert_eq!(Ipv6Addr::from(ip.destination), FAR_LOCAL_V6);
            assert!(icmp.is_checksum_valid(ip.source, ip.destination));
            (icmp.type_u8(), icmp.code_u8(), icmp.payload().to_vec())
        }
        other => panic!("not ICMP: {other:?}"),
    }
}

#[test]
fn accepts() {
    for family in FAMILIES {
        let reply = tcp_of(
            &answer_once(&syn(family, ports::ACCEPTS)).unwrap(),
            ports::ACCEPTS,
        );
        assert!(reply.syn && reply.ack && !reply.rst && !reply.fin);
        assert_eq!(
            reply.acknowledgment_number, 0,
            "one past the SYN's, wrapped"
        );
        let mss = reply.options_iterator().next().unwrap().unwrap();
        let expected = match family {
            IpFamily::V4 => 1460,
            IpFamily::V6 => 1440,
        };
        assert_eq!(mss, TcpOptionElement::MaximumSegmentSize(expected));
    }
}

#[test]
fn resets_at_its_port_and_at_any_without_a_name() {
    for family in FAMILIES {
        for port in [ports::RESETS, 1, 5432, u16::MAX] {
            let reply = tcp_of(&answer_once(&syn(family, port)).unwrap(), port);
            assert!(reply.rst && reply.ack && !reply.syn);
            assert_eq!(reply.sequence_number, 0);
            assert_eq!(
                reply.acknowledgment_number, 0,
                "one past the SYN's, wrapped"
            );
        }
    }
}

#[test]
fn is_silent() {
    for family in FAMILIES {
        assert_eq!(answer_once(&syn(family, ports::SILENT)), None);
        assert_eq!(answer_once(&later(family, ports::SILENT, true, b"x")), None);
    }
}

#[test]
fn a_router_says_why() {
    let v4 = [
        (ports::PORT_UNREACHABLE, (3, 3)),
        (ports::HOST_UNREACHABLE, (3, 1)),
        (ports::NET_UNREACHABLE, (3, 0)),
        (ports::ADMIN_PROHIBITED, (3, 13)),
        (ports::TTL_EXCEEDED, (11, 0)),
    ];
    let v6 = [
        (ports::PORT_UNREACHABLE, (1, 4)),
        (ports::HOST_UNREACHABLE, (1, 3)),
        (ports::NET_UNREACHABLE, (1, 0)),
        (ports::ADMIN_PROHIBITED, (1, 1)),
        (ports::TTL_EXCEEDED, (3, 0)),
    ];
    for (family, table) in [(IpFamily::V4, v4), (IpFamily::V6, v6)] {
        for (port, (kind, code)) in table {
            let packet = syn(family, port);
            let reply = icmp_of(&answer_once(&packet).unwrap());
            assert_eq!(reply, (kind, code, packet));
            assert_eq!(answer_once(&later(family, port, false, b"x")), None);
        }
    }
}

#[test]
fn an_icmp_error_stays_small() {
    for (family, size) in [(IpFamily::V4, 576), (IpFamily::V6, 1280)] {
        let shape = |header: &mut TcpHeader| header.syn = true;
        let packet = segment(family, ports::HOST_UNREACHABLE, shape, &[0; 1400]);
        let reply = answer_once(&packet).unwrap();
        assert_eq!(reply.len(), size);
        let (_, _, quote) = icmp_of(&reply);
        assert!(packet.starts_with(&quote));
    }
}

#[test]
fn accepts_the_second_syn_of_an_attempt() {
    let port = ports::ACCEPTS_SECOND_SYN;
    for family in FAMILIES {
        let mut state = FarEnd::default();
        assert_eq!(answer(&syn(family, port), &mut state), None);
        for _ in 0..2 {
            let reply = answer(&syn(family, port), &mut state).unwrap();
            assert!(
                tcp_of(&reply, port).syn,
                "and again should the first be lost"
            );
        }
        let another = |header: &mut TcpHeader| {
            header.syn = true;
            header.sequence_number = 99;
        };
        let packet = segment(family, port, another, &[]);
        assert_eq!(answer(&packet, &mut state), None, "the port was used again");
        assert!(answer(&packet, &mut state).is_some());
    }
}

#[test]
fn resets_the_second_syn_of_an_attempt() {
    let port = ports::RESETS_SECOND_SYN;
    for family in FAMILIES {
        let mut state = FarEnd::default();
        assert_eq!(answer(&syn(family, port), &mut state), None);
        let reply = tcp_of(&answer(&syn(family, port), &mut state).unwrap(), port);
        assert!(reply.rst && reply.ack && !reply.syn);
        assert_eq!(reply.acknowledgment_number, SEQUENCE.wrapping_add(1));
    }
}

/// The kernel's answer to a SYN of the far end.
fn syn_ack_to(family: IpFamily, port: u16) -> Vec<u8> {
    let shape = |header: &mut TcpHeader| {
        header.syn = true;
        header.ack = true;
        header.acknowledgment_number = INITIAL_SEQUENCE + 1;
    };
    segment(family, port, shape, &[])
}

#[test]
fn opens_simultaneously() {
    for family in FAMILIES {
        for port in [
            ports::SYN_THEN_ACCEPTS,
            ports::SYN_THEN_RESETS,
            ports::SYN_THEN_SILENT,
        ] {
            let reply = tcp_of(&answer_once(&syn(family, port)).unwrap(), port);
            assert!(reply.syn && !reply.ack && !reply.rst && !reply.fin);
            assert_eq!(reply.sequence_number, INITIAL_SEQUENCE);
            assert!(reply.options_iterator().next().is_some());
        }
        let port = ports::SYN_THEN_ACCEPTS;
        let reply = tcp_of(&answer_once(&syn_ack_to(family, port)).unwrap(), port);
        assert!(reply.ack && !reply.syn && !reply.rst && !reply.fin);
        assert_eq!(reply.sequence_number, INITIAL_SEQUENCE + 1);
        assert_eq!(reply.acknowledgment_number, SEQUENCE.wrapping_add(1));

        let port = ports::SYN_THEN_RESETS;
        let reply = tcp_of(&answer_once(&syn_ack_to(family, port)).unwrap(), port);
        assert!(reply.rst && !reply.syn && !reply.ack);
        assert_eq!(reply.sequence_number, INITIAL_SEQUENCE + 1);

        let port = ports::SYN_THEN_SILENT;
        assert_eq!(answer_once(&syn_ack_to(family, port)), None);
    }
}

#[test]
fn answers_another_syn() {
    for family in FAMILIES {
        for (port, is_reset) in [(ports::WRONG_SYN_ACK, false), (ports::WRONG_RESET, true)] {
            let reply = tcp_of(&answer_once(&syn(family, port)).unwrap(), port);
            assert!(reply.ack && reply.rst == is_reset && reply.syn != is_reset);
            assert_ne!(reply.acknowledgment_number, SEQUENCE.wrapping_add(1));
            assert_eq!(answer_once(&later(family, port, true, b"x")), None);
        }
    }
}

#[test]
fn remembers_a_limited_number_of_attempts() {
    let mut state = FarEnd::default();
    for sequence in 0..10_000 {
        let shape = |header: &mut TcpHeader| {
            header.syn = true;
            header.sequence_number = sequence;
        };
        let packet = segment(IpFamily::V4, ports::ACCEPTS_SECOND_SYN, shape, &[]);
        assert_eq!(answer(&packet, &mut state), None);
        assert!(state.syns.len() <= ATTEMPTS_MAX);
    }
}

#[test]
fn takes_data_and_resets_what_is_closed() {
    for family in FAMILIES {
        for port in [
            ports::ACCEPTS,
            ports::ACCEPTS_SECOND_SYN,
            ports::SYN_THEN_ACCEPTS,
        ] {
            assert_eq!(answer_once(&later(family, port, false, &[])), None);

            let reply = tcp_of(
                &answer_once(&later(family, port, false, b"hello")).unwrap(),
                port,
            );
            assert!(reply.ack && !reply.rst);
            assert_eq!(reply.sequence_number, 7);
            assert_eq!(reply.acknowledgment_number, SEQUENCE.wrapping_add(5));

            let reply = tcp_of(
                &answer_once(&later(family, port, true, b"bye")).unwrap(),
                port,
            );
            assert!(reply.rst && !reply.ack);
            assert_eq!(reply.sequence_number, 7);
        }
    }
}

#[test]
fn leaves_resets_alone() {
    for family in FAMILIES {
        for port in [ports::ACCEPTS, ports::RESETS] {
            let packet = segment(family, port, |header| header.rst = true, &[]);
            assert_eq!(answer_once(&packet), None);
        }
    }
}

#[test]
fn ignores_what_is_cut_short_or_in_fragments() {
    for family in FAMILIES {
        let packet = syn(family, ports::RESETS);
        for length in 0..packet.len() {
            assert_eq!(answer_once(&packet[..length]), None, "{family:?} {length}");
        }
    }
    let mut fragment = syn(IpFamily::V4, ports::RESETS);
    fragment[6] = 0x20;
    assert_eq!(answer_once(&fragment), None);
}

proptest! {
    #[test]
    fn survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = answer_once(&bytes);
    }

    #[test]
    fn survives_a_segment_with_any_bytes_changed(
        v6: bool,
        port in 78_u16..97,
        changes in proptest::collection::vec((0_usize..80, any::<u8>()), 0..6),
    ) {
        let mut packet = syn(if v6 { IpFamily::V6 } else { IpFamily::V4 }, port);
        for (index, value) in changes {
            let length = packet.len();
            packet[index % length] = value;
        }
        if let Some(reply) = answer_once(&packet) {
            prop_assert!(SlicedPacket::from_ip(&reply).is_ok());
        }
    }
}
