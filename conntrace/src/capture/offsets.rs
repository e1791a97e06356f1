//! Offsets and constants of the programs, resolved from the running kernel's BTF.

use conntrace_btf::{Btf, BtfError};
use conntrace_common::offsets::{
    ConntrackOffsets, DEFER_CONNECT, KernelMember, LINEAR_TIMEOUTS, MEMBERS, SYN_RETRIES,
};
use conntrace_common::record::NO_LINEAR_TIMEOUTS;

use super::drops::NotedReasons;

/// Values of the globals `OFFSETS`, `CONNTRACK_OFFSETS`, `DEFER_CONNECT_MASK`,
/// `LACKS_LINEAR_TIMEOUTS`, `DROP_REASONS`, `PACKET_DROP_REASONS`, `NO_SOCKET` and `TASK_IS_TYPED`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResolvedOffsets {
    /// Byte offsets of the members, in the order of [`MEMBERS`].
    pub(super) offsets: Vec<u32>,
    /// Byte offsets of connection tracking.
    pub(super) conntrack: ConntrackOffsets,
    /// Mask of the `DEFER_CONNECT` bit within its byte.
    pub(super) defer_connect_mask: u8,
    /// `NO_LINEAR_TIMEOUTS` if the kernel lacks that sysctl (before Linux 6.5), else 0.
    pub(super) lacks_linear_timeouts: u8,
    /// Recorded drop reasons.
    pub(super) drop_reasons: NotedReasons,
    /// 1 if the kernel has the helper `bpf_get_current_task_btf` (Linux 5.11), else 0.
    pub(super) task_is_typed: u8,
}

impl ResolvedOffsets {
    /// Returns true if the kernel reports drop reasons (Linux 5.17).
    pub(super) fn gives_drop_reasons(&self) -> bool {
        self.drop_reasons.is_any()
    }

    /// Returns true if BPF maps count against `RLIMIT_MEMLOCK`: before Linux 5.11, the version
    /// that added `bpf_get_current_task_btf`.
    pub(super) fn maps_are_locked_memory(&self) -> bool {
        self.task_is_typed == 0
    }
}

/// Enumerator of that helper in `enum bpf_func_id`.
const TYPED_TASK_HELPER: &str = "BPF_FUNC_get_current_task_btf";

/// Enumerator of the `DEFER_CONNECT` bit in `inet_sock.inet_flags` (from Linux 6.6).
const DEFER_CONNECT_BIT: &str = "INET_FLAGS_DEFER_CONNECT";
const INET_FLAGS: &str = "inet_sock.inet_flags";
/// Bitfield that holds `DEFER_CONNECT` before Linux 6.6.
const DEFER_CONNECT_FIELD: &str = "inet_sock.defer_connect";

/// Members of connection tracking, which a kernel may be built without.
const OF_CONNTRACK: [&str; 6] = [
    "sk_buff._nfct",
    "nf_conn.status",
    "nf_conn.tuplehash",
    "nf_conntrack_tuple_hash.tuple",
    "nf_conntrack_tuple.src",
    "nf_conntrack_tuple.dst",
];

/// Lists every member that is looked up. A kernel has all of them, except that
/// `DEFER_CONNECT` is in only one of its two places, that `LINEAR_TIMEOUTS` came with Linux 6.5, and that connection
/// tracking may be missing.
pub(super) fn members() -> impl Iterator<Item = &'static str> {
    let named = MEMBERS.iter().map(|member| member.path);
    named
        .filter(|&path| path != DEFER_CONNECT)
        .chain([INET_FLAGS, DEFER_CONNECT_FIELD])
        .chain(OF_CONNTRACK)
}

/// Lists every enumerator that is looked up; older kernels lack some.
pub(super) fn enumerators() -> impl Iterator<Item = String> {
    [TYPED_TASK_HELPER, DEFER_CONNECT_BIT]
        .into_iter()
        .map(str::to_owned)
}

/// Resolves every member the programs read.
///
/// # Errors
/// Names the first member that the kernel lacks, or whose size differs.
pub(super) fn resolve(btf: &Btf<'_>) -> Result<ResolvedOffsets, BtfError> {
    let (defer_connect, defer_connect_mask) = defer_connect(btf)?;
    let has_linear_timeouts = btf.member(LINEAR_TIMEOUTS).is_ok();
    let place_of = |member: &KernelMember| match member.path {
        DEFER_CONNECT => Ok(defer_connect),
        // The programs do not use what they load in its place.
        LINEAR_TIMEOUTS if !has_linear_timeouts => offset_of(btf, SYN_RETRIES, &[1, 4]),
        SYN_RETRIES => offset_of(btf, SYN_RETRIES, &[1, 4]),
        path => offset_of(btf, path, &[member.size]),
    };
    Ok(ResolvedOffsets {
        offsets: MEMBERS.iter().map(place_of).collect::<Result<_, _>>()?,
        conntrack: conntrack(btf).unwrap_or(ConntrackOffsets::POISONED),
        defer_connect_mask,
        lacks_linear_timeouts: if has_linear_timeouts {
            0
        } else {
            NO_LINEAR_TIMEOUTS
        },
        drop_reasons: NotedReasons::of(btf),
        task_is_typed: u8::from(btf.enumerator(TYPED_TASK_HELPER).is_some()),
    })
}

/// Returns the offsets of connection tracking; `None` if the kernel has none, or if its tuples are not
/// as the programs read them.
fn conntrack(btf: &Btf<'_>) -> Option<ConntrackOffsets> {
    let member = |path| {
        let found = btf.member(path).ok()?;
        (found.bitfield.is_none() && found.bit_offset % 8 == 0)
            .then_some((found.bit_offset / 8, found.size))
    };
    let [entry, status, tuples, tuple, src, dst] = OF_CONNTRACK.map(member);
    // Address, port and family of the source, then address, port and protocol of the destination.
    let is_as_read = src? == (0, 20) && dst? == (20, 20) && entry?.1 == 8 && status?.1 == 8;
    is_as_read.then_some(ConntrackOffsets {
        entry: entry?.0,
        status: status?.0,
        original: tuples?.0 + tuple?.0,
    })
}

/// Returns the byte offset of a member that has one of these sizes.
fn offset_of(btf: &Btf<'_>, path: &str, sizes: &[u32]) -> Result<u32, BtfError> {
    let found = btf.member(path)?;
    if found.bitfield.is_some() || found.bit_offset % 8 != 0 || !sizes.contains(&found.size) {
        return Err(BtfError::Missing(format!("{path} of {sizes:?} bytes")));
    }
    Ok(found.bit_offset / 8)
}

/// Returns the byte offset and the mask of `DEFER_CONNECT`.
fn defer_connect(btf: &Btf<'_>) -> Result<(u32, u8), BtfError> {
    let bit = match btf.enumerator(DEFER_CONNECT_BIT) {
        Some(bit) => btf.member(INET_FLAGS)?.bit_offset + bit,
        None => btf.member(DEFER_CONNECT_FIELD)?.bit_offset,
    };
    Ok((bit / 8, 1 << (bit % 8)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::test_kernels;

    #[test]
    fn resolves_everything_on_every_kernel() {
        for kernel in test_kernels::all() {
            let version = kernel.version;
            let resolved = resolve(&Btf::parse(&kernel.btf).unwrap())
                .unwrap_or_else(|error| panic!("{version:?}: {error}; if new: cargo xtask btf"));
            assert_eq!(resolved.offsets.len(), MEMBERS.len());
            assert!(resolved.offsets.iter().all(|&offset| offset < 0x4000));
            assert_eq!(resolved.defer_connect_mask.count_ones(), 1);
            let has_conntrack = resolved.conntrack != ConntrackOffsets::POISONED;
            assert!(kernel.is_running || has_conntrack, "{version:?}");
            // Of the running kernel a distribution may have backported it.
            let lacks = resolved.lacks_linear_timeouts == NO_LINEAR_TIMEOUTS;
            assert!(
                kernel.is_running || lacks == (version < (6, 5)),
                "{version:?}"
            );
            let has_helper = kernel.is_running || version >= (5, 11);
            assert!(
                resolved.task_is_typed == u8::from(has_helper),
                "{version:?}"
            );
        }
    }

    #[test]
    fn the_flag_and_the_bitfield_are_found_where_the_kernel_has_them() {
        for kernel in test_kernels::all() {
            let btf = Btf::parse(&kernel.btf).unwrap();
            let is_flag = btf.enumerator(DEFER_CONNECT_BIT).is_some();
            assert!(kernel.is_running || is_flag == (kernel.version >= (6, 6)));
            assert_eq!(btf.member(DEFER_CONNECT_FIELD).is_err(), is_flag);
        }
    }
}
