//! Reads the running kernel's BTF once, at the start. Of its 5 MB only the answers are kept.

use std::{fmt::Display, fs, io::ErrorKind, sync::OnceLock};

use aya::Endianness;
use conntrace_btf::Btf;

use super::{
    StartError,
    drop_reasons::DropReasons,
    failed,
    offsets::{self, ResolvedOffsets},
    programs::PROGRAMS,
    unsupported,
};

/// File in which the kernel describes its own types.
pub(crate) const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Kernel function to which BPF LSM programs attach to decide on connects.
const CONNECT_HOOK: &str = "bpf_lsm_socket_connect";

/// BTF facts needed to load and attach the programs.
pub(super) struct KernelBtf {
    pub(super) resolved: ResolvedOffsets,
    /// Bytes of reduced BTF, in which aya looks up the hooks.
    hookable: Vec<u8>,
}

impl KernelBtf {
    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    /// Names the first member that this kernel does not have.
    pub(super) fn read() -> Result<Self, StartError> {
        let (resolved, hookable) = look_up()?;
        Ok(Self { resolved, hookable })
    }

    /// Parses the BTF of the hooks for aya, which takes 72 bytes for each of the kernel's types.
    ///
    /// # Errors
    /// When aya cannot read it.
    pub(super) fn hookable(&self) -> Result<aya::Btf, StartError> {
        let hookable = aya::Btf::parse(&self.hookable, Endianness::default());
        hookable.map_err(|error| unreadable(&error))
    }
}

/// Resolves the offsets that the programs read, and cuts out the BTF of their hooks.
fn look_up() -> Result<(ResolvedOffsets, Vec<u8>), StartError> {
    let bytes = fs::read(VMLINUX_BTF).map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            unsupported(
                format!("it has no {VMLINUX_BTF}"),
                "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
            )
        } else {
            failed(&format!("reading {VMLINUX_BTF}"), error)
        }
    })?;
    let btf = Btf::parse(&bytes).map_err(|error| unreadable(&error))?;
    let resolved = offsets::resolve(&btf).map_err(|error| {
        unsupported(
            error.to_string(),
            "conntrace needs its offset and does not guess; please report this kernel version",
        )
    })?;
    FACTS.get_or_init(|| KernelFacts::of(&btf));
    let hooks = PROGRAMS.iter().filter_map(|it| it.target.prototype());
    let hookable = btf.only(hooks).map_err(|error| unreadable(&error))?;
    Ok((resolved, hookable))
}

fn unreadable(error: &dyn Display) -> StartError {
    unsupported(
        format!("its {VMLINUX_BTF} cannot be read: {error}"),
        "if nothing is mounted over it, please report this kernel version",
    )
}

/// Resolves every kernel member that the programs read, and returns their number.
///
/// # Errors
/// Names the first member that this kernel does not have.
pub fn check_members() -> Result<usize, StartError> {
    Ok(KernelBtf::read()?.resolved.offsets.len())
}

/// Kernel-specific facts that are needed while tracing.
#[derive(Debug, Default)]
pub(crate) struct KernelFacts {
    pub(crate) drop_reasons: DropReasons,
    /// BTF id of [`CONNECT_HOOK`]; `None` if the kernel has no BPF LSM.
    pub(crate) connect_hook: Option<u32>,
}

/// Facts of the running kernel, cached by the start.
static FACTS: OnceLock<KernelFacts> = OnceLock::new();

impl KernelFacts {
    fn of(btf: &Btf<'_>) -> Self {
        Self {
            drop_reasons: DropReasons::of(btf),
            connect_hook: btf.function(CONNECT_HOOK),
        }
    }

    /// Returns the running kernel's facts; empty on a kernel without BTF.
    pub(crate) fn running() -> &'static Self {
        FACTS.get_or_init(|| {
            let bytes = fs::read(VMLINUX_BTF).unwrap_or_default();
            let btf = Btf::parse(&bytes);
            btf.map(|btf| Self::of(&btf)).unwrap_or_default()
        })
    }
}
