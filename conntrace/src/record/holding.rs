//! Holders of the attempts under way, as the entries of the kernel side's table name them.

use std::mem::offset_of;

use conntrace_common::record::{COMM_LEN, OPENING_SIZE, RawOpening};

use super::Comm;

/// Number of words of an entry that name its holder.
pub(crate) const OPENING_WORDS: usize = OPENING_SIZE / size_of::<u64>();

/// Process that holds an attempt under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Real user id.
    pub uid: u32,
    /// Process id.
    pub pid: u32,
    /// Id of the cgroup; 0 if unknown.
    pub cgroup_id: u64,
    /// Name of the process.
    pub leader_comm: Comm,
}

impl Holding {
    /// Decodes the first words of an entry. The kernel may be writing them: a holder may be mixed
    /// of two.
    pub(crate) fn of(words: &[u64; OPENING_WORDS]) -> Self {
        let u32_at = |at: usize| u32::from_ne_bytes(bytes_at(words, at));
        Self {
            uid: u32_at(offset_of!(RawOpening, uid)),
            pid: u32_at(offset_of!(RawOpening, pid)),
            cgroup_id: u64::from_ne_bytes(bytes_at(words, offset_of!(RawOpening, cgroup_id))),
            leader_comm: Comm::of(bytes_at::<COMM_LEN>(
                words,
                offset_of!(RawOpening, leader_comm),
            )),
        }
    }

    /// Returns the owner: a user, or a cgroup of root, which owns the processes of most containers.
    fn owner(&self) -> (u32, u64) {
        let cgroup_id = if self.uid == 0 { self.cgroup_id } else { 0 };
        (self.uid, cgroup_id)
    }
}

fn bytes_at<const N: usize>(words: &[u64], at: usize) -> [u8; N] {
    let mut bytes = words.iter().flat_map(|word| word.to_ne_bytes()).skip(at);
    std::array::from_fn(|_| bytes.next().unwrap_or_default())
}

/// Owner of the most attempts, and the process of theirs that holds the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopHolding {
    /// Number of attempts of the owner.
    pub(crate) attempts: u64,
    /// Number of attempts of the process.
    pub(crate) of_process: u64,
    /// Process, with its user and cgroup.
    pub(crate) process: Holding,
}

/// Finds the owner of the most attempts; `None` if there are none.
pub(crate) fn top_holding(mut held: Vec<Holding>) -> Option<TopHolding> {
    held.sort_unstable_by_key(|it| (it.owner(), it.pid));
    let by_owner = held.chunk_by(|a, b| a.owner() == b.owner());
    let owned = by_owner.max_by_key(|owned| owned.len())?;
    let by_process = owned.chunk_by(|a, b| a.pid == b.pid);
    let of_process = by_process.max_by_key(|held| held.len())?;
    Some(TopHolding {
        attempts: owned.len() as u64,
        of_process: of_process.len() as u64,
        process: *of_process.first()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(uid: u32, cgroup_id: u64, pid: u32) -> Holding {
        let mut leader_comm = [0; COMM_LEN];
        leader_comm[..4].copy_from_slice(b"fill");
        Holding {
            uid,
            pid,
            cgroup_id,
            leader_comm: Comm(leader_comm),
        }
    }

    fn top(held: &[(Holding, usize)]) -> Option<(u64, u64, Holding)> {
        // In turn, as hashes would mix them.
        let most = held.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let mixed = (0..most).flat_map(|at| held.iter().filter(move |(_, count)| at < *count));
        let top = top_holding(mixed.map(|(holding, _)| *holding).collect())?;
        Some((top.attempts, top.of_process, top.process))
    }

    #[test]
    fn an_entry_names_its_holder() {
        let mut bytes = [0xff; OPENING_SIZE];
        for (at, value) in [
            (offset_of!(RawOpening, uid), &65_534_u32.to_ne_bytes()[..]),
            (offset_of!(RawOpening, pid), &4242_u32.to_ne_bytes()),
            (offset_of!(RawOpening, cgroup_id), &9_u64.to_ne_bytes()),
            (offset_of!(RawOpening, leader_comm), b"fill\0left over"),
        ] {
            bytes[at..at + value.len()].copy_from_slice(value);
        }
        let (words, _) = bytes.as_chunks();
        let words: Vec<_> = words.iter().copied().map(u64::from_ne_bytes).collect();
        let found = Holding::of(&words.try_into().unwrap());
        assert_eq!(found, holding(65_534, 9, 4242));
    }

    #[test]
    fn a_user_counts_as_a_whole() {
        let (one, two) = (holding(1000, 1, 10), holding(1000, 2, 11));
        let other = holding(1001, 1, 12);
        let found = top(&[(one, 20), (two, 30), (other, 40)]);
        assert_eq!(found, Some((50, 30, two)));
    }

    #[test]
    fn root_counts_by_cgroup() {
        let (one, two) = (holding(0, 1, 10), holding(0, 2, 11));
        let other = holding(1001, 1, 12);
        let found = top(&[(one, 20), (two, 30), (other, 40)]);
        assert_eq!(found, Some((40, 40, other)));
    }

    #[test]
    fn nobody_holds_nothing() {
        assert_eq!(top(&[]), None);
    }
}
