//! Shares of the map of attempts, so that one network namespace or user cannot fill it.
//!
//! The counts are kept by hash. Owners with the same hash share a count; the hash has a secret, so
//! that nobody can choose with whom.

use crate::{
    hash::{self, HashSecret},
    table::SPILLED_MAX,
};

/// Number of counts of namespaces, and of users; a power of two.
pub const OWNERS: u32 = 2048;
/// Index of the count of all attempts in the map, after those of namespaces and users.
pub const TOTAL: u32 = 2 * OWNERS;
/// Number of counts.
pub const COUNTS: u32 = TOTAL + 1;

/// Number of attempts in the map from which a namespace is held to its share.
const HALF: u32 = SPILLED_MAX / 2;
/// Number of attempts in the map from which a user is held to a share, too.
const NEARLY_FULL: u32 = SPILLED_MAX / 4 * 3;
/// Share of a namespace or user.
const SHARE: u32 = SPILLED_MAX / 16;

/// Returns the index of a namespace's count.
#[inline(always)]
#[must_use]
pub const fn of_netns(secret: HashSecret, netns: u64) -> u32 {
    hash::of_words(secret, [netns, 0, 0]) as u32 % OWNERS
}

/// Returns the index of a user's count.
#[inline(always)]
#[must_use]
pub const fn of_user(secret: HashSecret, uid: u32) -> u32 {
    OWNERS + hash::of_words(secret, [uid as u64, 1, 0]) as u32 % OWNERS
}

/// Numbers of attempts in the map when another one asks for a place.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// All attempts.
    pub total: u32,
    /// Attempts of the same namespace.
    pub of_netns: u32,
    /// Attempts of the same user.
    pub of_user: u32,
}

impl Held {
    /// Returns true if another attempt by this user may have a place.
    ///
    /// A single namespace fills at most half of the map. An unprivileged user can have many
    /// namespaces, but together they fill at most three quarters. Root is not held to a user's
    /// share, because it owns the processes of most containers.
    #[inline(always)]
    #[must_use]
    pub const fn admits(self, uid: u32) -> bool {
        if self.total < HALF {
            return true;
        }
        if self.of_netns >= SHARE {
            return false;
        }
        self.total < NEARLY_FULL || uid == 0 || self.of_user < SHARE
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashMap;

    use super::*;

    const SECRET: HashSecret = HashSecret::new([0x9e37_79b9, 0x1234_5678_9abc, 7]);

    /// Map of attempts that admits by shares.
    #[derive(Default)]
    struct Map {
        total: u32,
        owners: HashMap<u32, u32>,
    }

    impl Map {
        fn opens(&mut self, netns: u64, uid: u32) -> bool {
            let owners = [of_netns(SECRET, netns), of_user(SECRET, uid)];
            let [of_netns, of_user] = owners.map(|it| self.owners.get(&it).copied().unwrap_or(0));
            let held = Held {
                total: self.total,
                of_netns,
                of_user,
            };
            let is_admitted = self.total < SPILLED_MAX && held.admits(uid);
            if is_admitted {
                self.total += 1;
                for owner in owners {
                    *self.owners.entry(owner).or_default() += 1;
                }
            }
            is_admitted
        }

        /// Opens attempts until one is refused or this many are under way.
        fn fill(&mut self, max: u32, netns: impl Fn(u32) -> u64, uid: u32) -> u32 {
            (0..max)
                .take_while(|&at| self.opens(netns(at), uid))
                .count() as u32
        }
    }

    #[test]
    fn one_namespace_leaves_half_to_others() {
        let mut map = Map::default();
        assert_eq!(map.fill(SPILLED_MAX, |_| 1, 1000), HALF);
        assert!(map.opens(2, 1000), "another namespace of the same user");
        assert!(map.opens(3, 0));
        assert!(!map.opens(1, 0), "another user of the same namespace");
    }

    #[test]
    fn one_user_with_many_namespaces_leaves_a_quarter_to_others() {
        let mut map = Map::default();
        let held = map.fill(SPILLED_MAX, |at| 100 + u64::from(at % 500), 1000);
        assert_eq!(held, NEARLY_FULL);
        assert!(map.opens(2, 1001) && map.opens(3, 0));
    }

    #[test]
    fn nobody_is_held_to_a_share_of_an_emptier_map() {
        let mut map = Map::default();
        assert_eq!(map.fill(HALF, |_| 1, 0), HALF);
    }

    #[test]
    fn root_in_many_containers_may_fill_the_map() {
        let mut map = Map::default();
        let held = map.fill(SPILLED_MAX, |at| 100 + u64::from(at % 500), 0);
        assert_eq!(held, SPILLED_MAX);
    }
}
