//! What the running kernel's BTF says, which is read once.

use std::fs;

use super::drop_reasons::DropReasons;
use crate::kernel::btf::Btf;

const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Where BPF programs decide on connects, as a security module.
const CONNECT_HOOK: &str = "bpf_lsm_socket_connect";

/// What moves from kernel to kernel.
#[derive(Debug, Default)]
pub(super) struct KernelFacts {
    pub(super) drop_reasons: DropReasons,
    /// The type's id of the function that programs attach to.
    pub(super) connect_hook: Option<u32>,
}

impl KernelFacts {
    /// The running kernel's; none where it has no BTF.
    pub(super) fn read() -> Self {
        let bytes = fs::read(BTF).unwrap_or_default();
        let Ok(btf) = Btf::parse(&bytes) else {
            return Self::default();
        };
        Self {
            drop_reasons: DropReasons::of(&btf),
            connect_hook: btf.function(CONNECT_HOOK),
        }
    }
}
