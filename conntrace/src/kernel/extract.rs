//! What the agent asks of a kernel's BTF, cut out of it: `cargo xtask btf` keeps
//! this of each kernel in the matrix, for the tests.

use super::{
    btf::{Btf, BtfError, Wanted},
    drops, offsets,
    programs::PROGRAMS,
};

/// BTF that answers the agent as this one does, and has little else.
///
/// # Errors
/// When it is no BTF, or the programs cannot run on that kernel.
pub fn extract(bytes: &[u8]) -> Result<Vec<u8>, BtfError> {
    let btf = Btf::parse(bytes)?;
    // Here, where it is a kernel's whole BTF, and not in every test.
    offsets::resolve(&btf)?;
    btf.extract(&wanted())
}

fn wanted() -> Wanted {
    Wanted {
        members: offsets::members().collect(),
        enumerators: offsets::enumerators().chain(drops::enumerators()).collect(),
        prototypes: PROGRAMS
            .iter()
            .filter_map(|program| program.target.prototype())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::kernels, *};

    #[test]
    fn an_extract_answers_as_the_whole_does() {
        for kernel in kernels::all() {
            let extract = extract(&kernel.btf).unwrap();
            let (whole, part) = (Btf::parse(&kernel.btf), Btf::parse(&extract));
            let (whole, part) = (whole.unwrap(), part.unwrap());
            assert_eq!(offsets::resolve(&part), offsets::resolve(&whole));
            for path in offsets::members() {
                assert_eq!(part.member(path), whole.member(path));
            }
            assert_eq!(super::extract(&extract).unwrap(), extract);
        }
    }

    #[test]
    fn what_is_no_btf_or_has_too_little_is_refused() {
        assert_eq!(extract(b"\x7fELF"), Err(BtfError::Header));
        let empty = Btf::parse(&kernels::all()[0].btf)
            .unwrap()
            .extract(&Wanted {
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
