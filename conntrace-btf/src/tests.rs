use proptest::prelude::*;

use super::*;

fn running_kernel() -> Vec<u8> {
    std::fs::read("/sys/kernel/btf/vmlinux").expect("the running kernel has BTF")
}

#[test]
fn finds_members_through_anonymous_unions_and_typedefs() {
    let bytes = running_kernel();
    let btf = Btf::parse(&bytes).unwrap();
    let daddr = btf.member("sock_common.skc_daddr").unwrap();
    assert_eq!((daddr.bit_offset, daddr.size), (0, 4));
    let dport = btf.member("sock_common.skc_dport").unwrap();
    assert_eq!((dport.bit_offset, dport.size), (96, 2));
    assert_eq!(btf.member("sock_common.skc_net.net").unwrap().size, 8);
    assert_eq!(btf.member("task_struct.comm").unwrap().size, 16);
}

#[test]
fn names_what_is_missing() {
    let bytes = running_kernel();
    let btf = Btf::parse(&bytes).unwrap();
    for path in [
        "sock.sk_nonsense",
        "nonsense.sk_err",
        "sock",
        "sock.sk_err.x",
    ] {
        let error = btf.member(path).unwrap_err();
        assert_eq!(error.to_string(), format!("this kernel has no {path}"));
    }
}

#[test]
fn finds_enumerators() {
    let bytes = running_kernel();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.enumerator("BPF_TCP_SYN_SENT"), Some(2));
    assert_eq!(btf.enumerator("BPF_TCP_NONSENSE"), None);
}

#[test]
fn a_cut_file_is_an_error() {
    let bytes = running_kernel();
    for len in [0, 1, 23, 24, 1000, bytes.len() / 2, bytes.len() - 1] {
        assert!(Btf::parse(&bytes[..len]).is_err(), "{len} bytes");
    }
}

/// Builds BTF with this body: the first half types, the second half strings.
fn btf_of(body: &[u8]) -> Vec<u8> {
    let body_len = u32::try_from(body.len()).unwrap();
    let types_len = body_len / 2;
    let mut bytes = Vec::new();
    bytes.extend(MAGIC.to_ne_bytes());
    bytes.extend([1, 0]);
    for word in [24, 0, types_len, types_len, body_len - types_len] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(body);
    bytes
}

#[test]
fn a_struct_that_holds_itself_ends() {
    let loops = [1, u32::from(KIND_STRUCT) << 24 | 8, 4];
    let words = [loops].into_iter().chain([[0, 1, 0]; 8]).flatten();
    let mut body: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
    let types_len = body.len();
    body.extend(b"\0loop\0");
    body.resize(2 * types_len, 0);
    let bytes = btf_of(&body);
    let btf = Btf::parse(&bytes).unwrap();
    assert!(btf.structs.contains_key(&b"loop"[..]) && btf.member("loop.x").is_err());
}

proptest! {
    #[test]
    fn any_types_are_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
        let bytes = btf_of(&body);
        if let Ok(btf) = Btf::parse(&bytes) {
            for name in btf.structs.keys() {
                let path = format!("{}.x.y", String::from_utf8_lossy(name));
                let _ = btf.member(&path);
            }
            let _ = btf.enumerator("x");
        }
    }
}
