//! Writes the offsets of kernel members into the instructions that load them.
//!
//! The compiler for BPF emits no relocations for members of kernel structs. Each load has a mark
//! instead ([`offsets::mark`](conntrace_common::offsets::mark)), which is replaced here. An offset
//! in the instruction saves three others, and the read of a table.

use conntrace_common::offsets::marked;
use object::{
    LittleEndian as LE,
    elf::{FileHeader64, SHF_EXECINSTR},
    read::elf::{FileHeader as _, SectionHeader as _},
};

/// Size of an instruction in bytes (`struct bpf_insn`): opcode, registers, a 16-bit offset and a
/// 32-bit constant.
const INSTRUCTION: usize = 8;
/// Class of instructions that load from memory (`BPF_LDX`), and the mode of plain loads (`BPF_MEM`),
/// with the masks of both.
const CLASS: u8 = 0x07;
const LDX: u8 = 0x01;
const MODE: u8 = 0xe0;
const MEM: u8 = 0x60;

/// Error of an object whose loads cannot be patched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatchError {
    /// The object is not a 64-bit little-endian ELF file.
    #[error("the object is damaged: {0}")]
    Elf(String),
    /// A load is marked with a member that the agent does not know.
    #[error("the object was built with other members of kernel structs than this agent")]
    OtherMembers,
    /// A member lies so far from the start of its struct that no instruction can load it.
    #[error("member {0} of the kernel's structs is at {1}, beyond the reach of a load")]
    TooFar(usize, u32),
}

/// Returns the object with the offset of each member in the loads of that member.
///
/// # Errors
/// When the object is damaged, or a load has a mark that stands for none of the offsets.
pub(super) fn patched(object: &[u8], offsets: &[u32]) -> Result<Vec<u8>, PatchError> {
    let damaged = |error: object::Error| PatchError::Elf(error.to_string());
    let header = FileHeader64::<LE>::parse(object).map_err(damaged)?;
    header.endian().map_err(damaged)?;
    let sections = header.section_headers(LE, object).map_err(damaged)?;
    let mut patched = object.to_vec();
    for section in sections {
        if section.sh_flags(LE) & u64::from(SHF_EXECINSTR) == 0 {
            continue;
        }
        let range = section.file_range(LE).unwrap_or_default();
        let start = usize::try_from(range.0).unwrap_or(usize::MAX);
        let len = usize::try_from(range.1).unwrap_or(usize::MAX);
        let code = start
            .checked_add(len)
            .and_then(|end| patched.get_mut(start..end));
        let code = code.ok_or_else(|| PatchError::Elf("a section is cut off".to_owned()))?;
        patch_code(code, offsets)?;
    }
    Ok(patched)
}

fn patch_code(code: &mut [u8], offsets: &[u32]) -> Result<(), PatchError> {
    for instruction in code.chunks_exact_mut(INSTRUCTION) {
        let [opcode, _, low, high, ..] = instruction else {
            continue;
        };
        if *opcode & CLASS != LDX || *opcode & MODE != MEM {
            continue;
        }
        let Some((distance, member)) = marked(i16::from_le_bytes([*low, *high])) else {
            continue;
        };
        let offset = *offsets.get(member).ok_or(PatchError::OtherMembers)?;
        let place = offset
            .checked_add(distance)
            .and_then(|it| i16::try_from(it).ok());
        let place = place.filter(|&it| marked(it).is_none());
        [*low, *high] = place
            .ok_or(PatchError::TooFar(member, offset))?
            .to_le_bytes();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use conntrace_common::offsets::{MEMBERS, mark};
    use object::{Object as _, ObjectSection as _, SectionKind};

    use super::*;

    static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/conntrace.bpf.o");

    fn load(offset: i16) -> [u8; 8] {
        let [low, high] = offset.to_le_bytes();
        [0x79, 0x21, low, high, 0, 0, 0, 0]
    }

    #[test]
    fn a_marked_load_gets_the_offset_and_others_stay() {
        let mut code = [load(mark(1, 0)), load(mark(0, 1)), load(24), load(-8)].concat();
        // The second half of a 64-bit constant looks like nothing, and a store is no load.
        let mut store = load(mark(1, 0));
        store[0] = 0x7b;
        code.extend(store);
        patch_code(&mut code, &[100, 200]).unwrap();
        let mut expected = [load(200), load(108), load(24), load(-8)].concat();
        expected.extend(store);
        assert_eq!(code, expected);
    }

    #[test]
    fn a_member_that_no_load_reaches_is_an_error() {
        let mut code = load(mark(0, 0));
        let error = patch_code(&mut code, &[u32::MAX]).unwrap_err();
        assert_eq!(error, PatchError::TooFar(0, u32::MAX));
        let error = patch_code(&mut load(mark(3, 0)), &[0; 3]).unwrap_err();
        assert_eq!(error, PatchError::OtherMembers);
    }

    #[test]
    fn the_object_has_loads_to_patch_and_none_is_left() {
        let offsets = vec![0; MEMBERS.len()];
        let done = patched(OBJECT, &offsets).unwrap();
        let changed = OBJECT.iter().zip(&done).filter(|(a, b)| a != b).count();
        assert!(changed > 200, "{changed} bytes");
        let file = object::read::elf::ElfFile64::<LE>::parse(&*done).unwrap();
        let code = file.sections().filter(|it| it.kind() == SectionKind::Text);
        let data: Vec<&[u8]> = code.map(|it| it.data().unwrap()).collect();
        // Of any instruction that accesses memory.
        let left = data
            .iter()
            .flat_map(|it| it.as_chunks::<INSTRUCTION>().0)
            .filter(|it| (1..=3).contains(&(it[0] & CLASS)))
            .filter(|it| marked(i16::from_le_bytes([it[2], it[3]])).is_some());
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn any_bytes_are_an_error_not_a_panic() {
        for len in 0..200 {
            assert!(patched(OBJECT.get(..len).unwrap(), &[]).is_err());
        }
        assert!(patched(&[0xff; 4096], &[]).is_err());
    }
}
