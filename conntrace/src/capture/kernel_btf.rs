//! The running kernel's BTF: read once, at the start, and asked then for all that is
//! needed of it. It has 5 MB, of which only what was found is kept.

use std::{fmt::Display, fs, io::ErrorKind, sync::OnceLock};

use aya::Endianness;
use conntrace_btf::Btf;

use super::{
    StartError, drop_reasons::DropReasons, failed, offsets, offsets::ResolvedOffsets,
    programs::PROGRAMS, unsupported,
};

/// Where the kernel describes its own types.
pub(crate) const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Where BPF programs decide on connects, as a security module.
const CONNECT_HOOK: &str = "bpf_lsm_socket_connect";

/// What it takes to load and attach the programs.
pub(super) struct KernelBtf {
    pub(super) resolved: ResolvedOffsets,
    /// What aya looks up the hooks in.
    pub(super) hookable: aya::Btf,
}

impl KernelBtf {
    /// The running kernel's.
    ///
    /// # Errors
    /// Names the first member that this kernel does not have.
    pub(super) fn read() -> Result<Self, StartError> {
        let (resolved, hookable) = look_up()?;
        // The whole is gone by now: aya's comes in its place.
        let hookable = aya::Btf::parse(&hookable, Endianness::default());
        Ok(Self {
            resolved,
            hookable: hookable.map_err(|error| unreadable(&error))?,
        })
    }
}

/// What the programs read, and BTF of what they are attached to.
fn look_up() -> Result<(ResolvedOffsets, Vec<u8>), StartError> {
    let bytes = fs::read(VMLINUX_BTF).map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            unsupported(
                format!("it has no {VMLINUX_BTF}"),
                "it needs one built with CONFIG_DEBUG_INFO_BTF=y",
            )
        } else {
            failed(&format!("reading {VMLINUX_BTF}"), error)
        }
    })?;
    let btf = Btf::parse(&bytes).map_err(|error| unreadable(&error))?;
    let resolved = offsets::resolve(&btf).map_err(|error| {
        unsupported(
            error.to_string(),
            "conntrace reads this member and will not guess; please report the kernel",
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
        "if nothing is mounted over it, please report the kernel",
    )
}

/// Looks for every kernel member the programs read; returns how many there are.
///
/// # Errors
/// Names the first that this kernel does not have.
pub fn check_members() -> Result<usize, StartError> {
    Ok(KernelBtf::read()?.resolved.offsets.len())
}

/// What moves from kernel to kernel, and is asked for while tracing.
#[derive(Debug, Default)]
pub(crate) struct KernelFacts {
    pub(crate) drop_reasons: DropReasons,
    /// The type's id of the function that programs attach to.
    pub(crate) connect_hook: Option<u32>,
}

/// The running kernel's: what the start has found is not looked for again.
static FACTS: OnceLock<KernelFacts> = OnceLock::new();

impl KernelFacts {
    fn of(btf: &Btf<'_>) -> Self {
        Self {
            drop_reasons: DropReasons::of(btf),
            connect_hook: btf.function(CONNECT_HOOK),
        }
    }

    /// The running kernel's; none where it has no BTF.
    pub(crate) fn running() -> &'static Self {
        FACTS.get_or_init(|| {
            let bytes = fs::read(VMLINUX_BTF).unwrap_or_default();
            let btf = Btf::parse(&bytes);
            btf.map(|btf| Self::of(&btf)).unwrap_or_default()
        })
    }
}
