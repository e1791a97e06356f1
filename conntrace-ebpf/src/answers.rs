//! Selects the answers of remote hosts that the agent is told, and records those that it was not.
//!
//! The agent remembers what its records show of a host. A completed handshake has no record of its
//! own, unless the last one with this host and port is about a second old. Such a record does not
//! wake the agent: it waits for the next ending.

use conntrace_common::{answers, hash, host_key::HostKey};

use crate::{
    kernel::{self, KernelSock},
    maps::{answer_bucket, hash_secret, missed_answers},
    sync::{load, store},
};

/// Returns true if the agent must be told that this socket's handshake completed. `at_ns` is the
/// time of the handshake, or the start of an attempt that sent one SYN: reading the clock costs as
/// much as all the rest.
#[inline(always)]
pub fn is_news(sock: KernelSock, at_ns: u64) -> bool {
    let hash = hash_of(sock);
    let bucket = answer_bucket(answers::bucket_of(hash));
    bucket.is_some_and(|bucket| !bucket.knows(hash, at_ns))
}

/// Records that the agent was told at this time.
#[inline(always)]
pub fn told(sock: KernelSock, at_ns: u64) {
    let hash = hash_of(sock);
    if let Some(bucket) = answer_bucket(answers::bucket_of(hash)) {
        bucket.note(hash, at_ns);
    }
}

#[inline(always)]
fn hash_of(sock: KernelSock) -> u64 {
    let to = sock.remote_words_mapped();
    hash::of_destination(hash_secret(), sock.hash_mix(), to, sock.remote_port())
}

/// Records that an answer of the socket's host may have come and the agent was not told, so that
/// nothing is taken for absent: neither of the host nor of its private network.
#[inline(always)]
pub fn miss(sock: KernelSock) {
    let key = HostKey::of_words(sock.netns_for_good(), sock.remote_words_mapped());
    miss_of(&key);
    if let Some(network) = key.network() {
        miss_of(&network);
    }
}

#[inline(never)]
fn miss_of(key: &HostKey) {
    if let Some(missed_ns) = missed_answers(key.set(hash_secret())) {
        let now_ns = kernel::now_ns();
        if load(missed_ns) < now_ns {
            store(missed_ns, now_ns);
        }
    }
}
