//! The programs' offsets and other numbers, resolved from the running kernel's BTF.

use conntrace_common::offsets::{DEFER_CONNECT, DROP_REASON_WORDS, MEMBERS};

use super::{
    btf::{Btf, BtfError},
    drops,
};

/// Values of the globals `OFFSETS`, `DEFER_CONNECT_MASK` and `DROP_REASONS`.
#[derive(Debug)]
pub(super) struct Resolved {
    /// In the order of [`MEMBERS`].
    pub(super) offsets: Vec<u32>,
    /// The bit within the byte that the offset of `DEFER_CONNECT` names.
    pub(super) defer_connect_mask: u8,
    /// A bit for each drop reason that is noted.
    pub(super) drop_reasons: [u64; DROP_REASON_WORDS],
}

/// Resolves every member the programs read.
///
/// # Errors
/// Names the first member the kernel does not have, or has in another shape.
pub(super) fn resolve(btf: &Btf<'_>) -> Result<Resolved, BtfError> {
    let (defer_connect, defer_connect_mask) = defer_connect(btf)?;
    let offset_of = |member: &conntrace_common::offsets::Member| {
        if member.path == DEFER_CONNECT {
            return Ok(defer_connect);
        }
        let found = btf.member(member.path)?;
        if found.bitfield.is_some() || found.bit_offset % 8 != 0 || found.size != member.size {
            let shape = format!("{} of {} bytes", member.path, member.size);
            return Err(BtfError::Missing(shape));
        }
        Ok(found.bit_offset / 8)
    };
    Ok(Resolved {
        offsets: MEMBERS.iter().map(offset_of).collect::<Result<_, _>>()?,
        defer_connect_mask,
        drop_reasons: drops::noted(btf),
    })
}

/// Byte and bit of `DEFER_CONNECT`: from Linux 6.6 bit
/// `INET_FLAGS_DEFER_CONNECT` of `inet_flags`, before that a bitfield.
fn defer_connect(btf: &Btf<'_>) -> Result<(u32, u8), BtfError> {
    let bit = match btf.enumerator("INET_FLAGS_DEFER_CONNECT") {
        Some(bit) => btf.member("inet_sock.inet_flags")?.bit_offset + bit,
        None => btf.member("inet_sock.defer_connect")?.bit_offset,
    };
    Ok((bit / 8, 1 << (bit % 8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_everything_on_the_running_kernel() {
        let bytes = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        let resolved = resolve(&Btf::parse(&bytes).unwrap()).unwrap();
        assert_eq!(resolved.offsets.len(), MEMBERS.len());
        assert!(resolved.offsets.iter().all(|&offset| offset < 1 << 16));
        assert_eq!(resolved.defer_connect_mask.count_ones(), 1);
    }
}
