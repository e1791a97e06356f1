//! Policy of a security module like `AppArmor` or `SELinux`, as a BPF program.

use std::{fs, os::fd::OwnedFd, process};

use aya_obj::btf::{Btf, BtfKind};
use nix::errno::Errno;

use crate::{bpf, kernel_version};

/// `BPF_LSM_MAC`: how such a program is attached.
const AT_HOOK: u32 = 27;
/// The hook of connect, in the kernel's BTF.
const CONNECT: &str = "bpf_lsm_socket_connect";

/// Policy that denies this process every connect until dropped.
pub struct Denial {
    _link: OwnedFd,
}

impl Denial {
    /// Attaches a program that denies with EPERM.
    ///
    /// # Errors
    /// When the kernel has no such programs.
    pub fn new() -> nix::Result<Self> {
        let pid = u64::from(process::id());
        let program = [
            // r0 = bpf_get_current_pid_tgid() >> 32
            14 << 32 | 0x85,
            32 << 32 | 0x77,
            // Others may: if r0 == pid goto the last two.
            pid << 32 | 2 << 16 | 0x15,
            0xb7,
            0x95,
            // r0 = -1 (EPERM)
            0xffff_ffff << 32 | 0xb7,
            0x95,
        ];
        let program = bpf::load(bpf::LSM, AT_HOOK, hook().ok_or(Errno::ENOSYS)?, &program)?;
        let link = bpf::attach(&program)?;
        Ok(Self { _link: link })
    }
}

fn hook() -> Option<u32> {
    let btf = Btf::from_sys_fs().ok()?;
    btf.id_by_type_name_kind(CONNECT, BtfKind::Func).ok()
}

/// Returns the missing requirement if the kernel does not report the attach target of a program.
pub fn hides_hooks() -> Option<&'static str> {
    (kernel_version() < (5, 13)).then_some("needs Linux 5.13, which tells what programs decide on")
}

/// Returns the missing requirement if there are no BPF security modules here.
pub fn lacks_lsm() -> Option<&'static str> {
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let has = modules.trim_end().split(',').any(|module| module == "bpf");
    (!has).then_some("needs the security module bpf (boot with lsm=...,bpf)")
}
