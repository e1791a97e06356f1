//! Tests how similar addresses spread over the tables keyed by addresses.

extern crate std;

use std::{collections::HashSet, net::Ipv4Addr, vec::Vec};

use super::*;
use crate::{answers, connects, host_key::HostKey};

const HOSTS: u32 = 1000;
const SECRETS: [HashSecret; 4] = [
    HashSecret::new([
        0x0123_4567_89ab_cdef,
        0xfedc_ba98_7654_3210,
        0x0f1e_2d3c_4b5a_6978,
    ]),
    HashSecret::new([
        0xd1b5_4a32_d192_ed03,
        0xaef1_7502_108e_f2d9,
        0x8b7c_a9f1_33d6_0b5d,
    ]),
    HashSecret::new([3, 5, 7]),
    HashSecret::new([u64::MAX, 1 << 63, 1 << 62]),
];
const NETNS: u64 = 0x8d1f_3c77_f000_0098;

/// Name of a pattern, and 1,000 addresses of it.
type Hosts = (&'static str, Vec<[u8; 16]>);
/// Function from a secret and an address to a table index.
type Table = fn(HashSecret, [u8; 16]) -> u32;

fn hosts_set(secret: HashSecret, addr: [u8; 16]) -> u32 {
    HostKey::new(NETNS, addr).set(secret)
}

fn answers_bucket(secret: HashSecret, addr: [u8; 16]) -> u32 {
    answers::bucket_of(destination(secret, addr))
}

/// Upper half of the hash, which tells apart the destinations of a bucket.
fn answers_fingerprint(secret: HashSecret, addr: [u8; 16]) -> u32 {
    (destination(secret, addr) >> u32::BITS) as u32
}

fn destination(secret: HashSecret, addr: [u8; 16]) -> u64 {
    of_destination(secret, NETNS as u32, words_of(addr), 443_u16.to_be())
}

fn connects_bucket(secret: HashSecret, addr: [u8; 16]) -> u32 {
    connects::bucket_of(destination(secret, addr))
}

/// Former hash, which ignored the last two octets.
fn hash_of_before(addr: [u8; 16]) -> u32 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let [first, second] = words_of(addr);
    let mut hash: u64 = 0;
    for word in [NETNS, first, second] {
        hash = (hash ^ word).wrapping_mul(SPREAD);
        hash ^= hash >> u32::BITS;
    }
    hash as u32 % 32_768
}

fn v4(addr: u32) -> [u8; 16] {
    Ipv4Addr::from_bits(addr).to_ipv6_mapped().octets()
}

fn v6(upper: u64, lower: u64) -> [u8; 16] {
    (u128::from(upper) << 64 | u128::from(lower)).to_be_bytes()
}

fn alike() -> [Hosts; 6] {
    let net = u32::from_be_bytes([10, 20, 0, 0]);
    let site = 0x2001_0db8_0001_0002;
    let v4s = |of: fn(u32) -> u32| Vec::from_iter((0..HOSTS).map(|i| v4(net + of(i))));
    let v6s = |of: fn(u64) -> u64| Vec::from_iter((0..u64::from(HOSTS)).map(|i| v6(site, of(i))));
    [
        ("four /24", v4s(|i| (i / 250) << 8 | (i % 250 + 1))),
        ("a /16", v4s(|i| i * 65)),
        ("10/8, by /24", v4s(|i| (i << 8) + 5)),
        ("10/8, by its third and second octet", v4s(|i| i * 2011)),
        ("an IPv6 /64", v6s(|i| i << 16 | 1)),
        ("an IPv6 /112", v6s(|i| i + 1)),
    ]
}

/// Returns the same pseudo-random addresses each time.
fn random() -> Vec<[u8; 16]> {
    let word = |i: u32| mix(u64::from(i) ^ 0x5bd1_e995_0000_0000);
    Vec::from_iter((0..HOSTS).map(|i| v6(word(2 * i), word(2 * i + 1))))
}

fn used(hosts: &[[u8; 16]], place: impl Fn([u8; 16]) -> u32) -> usize {
    HashSet::<u32>::from_iter(hosts.iter().map(|&addr| place(addr))).len()
}

/// Similar addresses use at least 90 % as many indexes as random addresses do.
fn is_spread(hosts: &[[u8; 16]], place: impl Fn([u8; 16]) -> u32) -> bool {
    used(hosts, &place) * 10 >= used(&random(), &place) * 9
}

#[test]
fn addresses_that_are_alike_spread_as_random_ones_do_in_every_table() {
    let tables: [(&str, Table); 4] = [
        ("hosts", hosts_set),
        ("connects", connects_bucket),
        ("answers", answers_bucket),
        ("fingerprints of answers", answers_fingerprint),
    ];
    for (table, place) in tables {
        for (name, hosts) in alike() {
            assert_eq!(hosts.len(), HOSTS as usize);
            for secret in SECRETS {
                let place = |addr| place(secret, addr);
                let count = used(&hosts, place);
                assert!(is_spread(&hosts, place), "{table}, {name}: {count}");
            }
        }
    }
}

/// The spread test rejects the former hash.
#[test]
fn the_hash_of_before_does_not_spread_them() {
    let crowded = alike().map(|(name, hosts)| (name, is_spread(&hosts, hash_of_before)));
    let crowded = Vec::from_iter(crowded.into_iter().filter(|(_, is_spread)| !is_spread));
    std::println!("{crowded:?}");
    assert!(crowded.len() >= 4, "{crowded:?}");
    assert_eq!(used(&alike()[0].1, hash_of_before), 1);
}

#[test]
fn another_secret_puts_the_same_hosts_together_elsewhere() {
    let (_, hosts) = &alike()[0];
    let sets = |secret| Vec::from_iter(hosts.iter().map(|&addr| hosts_set(secret, addr)));
    let (one, other) = (sets(SECRETS[0]), sets(SECRETS[1]));
    let pairs = (0..hosts.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    let together = Vec::from_iter(pairs.filter(|&(a, b)| one[a] == one[b]));
    let still = together.iter().filter(|&&(a, b)| other[a] == other[b]);
    assert!(together.len() > 50 && still.count() * 10 < together.len());
}
