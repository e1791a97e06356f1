//! The part of a kernel's BTF that the agent reads. `cargo xtask btf` extracts it from each
//! kernel in the test matrix.

use conntrace_btf::{Btf, BtfError, BtfSelection};

use super::{drops, offsets, programs::PROGRAMS};

/// Lists the members, enumerators and prototypes that the agent reads from a kernel's BTF.
///
/// # Errors
/// When the programs cannot run on the kernel that this BTF describes.
pub fn btf_needs(btf: &Btf) -> Result<BtfSelection, BtfError> {
    offsets::resolve(btf)?;
    Ok(BtfSelection {
        members: offsets::members().collect(),
        enumerators: offsets::enumerators().chain(drops::enumerators()).collect(),
        prototypes: PROGRAMS
            .iter()
            .filter_map(|program| program.target.prototype())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::test_kernels;

    fn extract(bytes: &[u8]) -> Result<Vec<u8>, BtfError> {
        let btf = Btf::parse(bytes)?;
        btf.extract(&btf_needs(&btf)?)
    }

    #[test]
    fn an_extract_answers_as_the_whole_does() {
        for kernel in test_kernels::all() {
            let extract = extract(&kernel.btf).unwrap();
            let (whole, part) = (Btf::parse(&kernel.btf), Btf::parse(&extract));
            let (whole, part) = (whole.unwrap(), part.unwrap());
            assert_eq!(offsets::resolve(&part), offsets::resolve(&whole));
            for path in offsets::members() {
                assert_eq!(part.member(path), whole.member(path));
            }
            assert_eq!(super::tests::extract(&extract).unwrap(), extract);
        }
    }

    #[test]
    fn what_is_no_btf_or_has_too_little_is_refused() {
        assert_eq!(extract(b"\x7fELF"), Err(BtfError::Header));
        let empty = Btf::parse(&test_kernels::all()[0].btf)
            .unwrap()
            .extract(&BtfSelection {
                members: Vec::new(),
                enumerators: Vec::new(),
                prototypes: Vec::new(),
            });
        let error = extract(&empty.unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "this kernel has no inet_sock.defer_connect"
        );
    }
}
