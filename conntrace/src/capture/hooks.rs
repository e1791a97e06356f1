//! Attaches every hook in the best tier that the kernel supports.

use std::{any::Any, fs, io, os::fd::AsFd as _};

use aya::{
    Btf, Ebpf,
    maps::Array,
    programs::{
        BtfTracePoint, FEntry, FExit, Iter, KProbe, Program as Loaded, ProgramError, TracePoint,
    },
};
use conntrace_common::{
    calls::{AT_RETURN, KEPT, TWICE, UNSEEN},
    offsets::CallOffsets,
};

use super::{
    ProgramMissing, StartError,
    attach_error::{AttachError, attach_error, chain},
    failed,
    load::{Loads, load_typed},
    programs::{HookId, HookTarget, PROGRAMS},
    tier::Tier,
    tracefs::SyscallsError,
};
use crate::{output::event::REASON_JSON_MAX, record::sanitize, sys};

/// Kinds of attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum HookKind {
    /// BTF tracepoint (`BPF_TRACE_RAW_TP`).
    TpBtf,
    /// Trampoline at the entry of a function.
    Fentry,
    /// Trampoline at the return of a function.
    Fexit,
    /// Probe at the entry of a function.
    Kprobe,
    /// Probes at the entry and the return of a function.
    Kretprobe,
    /// Tracepoint of a system call.
    Tracepoint,
    /// Iterator that ran once at the start.
    Iter,
}

impl HookKind {
    /// Returns the name that lines use.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// State of a hook after the start.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Identity of the hook.
    pub id: HookId,
    /// Kind of its attachment, or of the best that was tried.
    pub kind: HookKind,
    /// True if the program is attached.
    pub attached: bool,
    /// Error that kept the program from being attached.
    pub reason: Option<String>,
    /// True if the kernel lacks the feature, which is expected and deserves no warning.
    pub is_unsupported: bool,
}

/// State of every hook, and the links of the attached ones. Dropping the links detaches them.
pub(super) struct AttachedHooks {
    pub(super) hooks: Vec<Hook>,
    pub(super) links: Vec<HeldLink>,
    /// Best tier in which any function is hooked.
    pub(super) tier: Tier,
}

/// BPF link of any type; dropping it detaches the program.
type HeldLink = Box<dyn Any + Send>;

/// Options for attaching the hooks.
pub(super) struct AttachOptions<'a> {
    /// The only tier to use; `None` tries the best first.
    pub(super) tier: Option<Tier>,
    /// Offsets of system call arguments, if system calls are traced where functions cannot be
    /// hooked.
    pub(super) calls: Option<&'a Result<CallOffsets, SyscallsError>>,
    /// True if the kernel reports drop reasons (Linux 5.17).
    pub(super) drop_reasons: bool,
    /// True if threads can be preempted within the kernel.
    pub(super) preempts: bool,
}

/// File through which kprobes are created; absent on a kernel without kprobes.
pub(super) const PROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// Attaches every program, each on its own. `btf` needs only the types of the hooks.
///
/// # Errors
/// When a required program cannot be attached.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    options: &AttachOptions<'_>,
    btf: &Btf,
) -> Result<AttachedHooks, StartError> {
    let tiers = Tier::to_try(options.tier);
    let mut loads = load_typed(ebpf, options, tiers, btf);
    let mut attached = AttachedHooks {
        hooks: Vec::new(),
        links: Vec::new(),
        tier: Tier::Tracepoint,
    };
    // Announce every way before attaching, and at the end only those in use.
    let twice = if options.preempts { TWICE } else { UNSEEN };
    set_seen_calls(ebpf, AT_RETURN | KEPT | twice)?;
    let mut seen_calls = UNSEEN;
    for program in &PROGRAMS {
        let tried = match (program.target, options.calls) {
            (HookTarget::Entry(_) | HookTarget::Return(_), _) if tiers.is_empty() => continue,
            (HookTarget::Entry(name), _) => {
                attach_best(tiers, |tier| at_entry(ebpf, &mut loads, name, tier))
            }
            (HookTarget::Return(name), _) => attach_best(tiers, |tier| {
                at_return(ebpf, &mut loads, name, tier, options.preempts)
            }),
            (HookTarget::Syscall(_), None) => continue,
            (HookTarget::Syscall(_), _) if attached.tier != Tier::Tracepoint => continue,
            (HookTarget::Syscall(_), Some(Err(error))) => Err(AttachError::Syscalls(chain(error))),
            (HookTarget::Syscall(name), Some(Ok(_))) => to_syscall(ebpf, program.id.name(), name),
            _ if program.id == HookId::KfreeSkb && !options.drop_reasons => {
                Err(AttachError::NoDropReasons)
            }
            (HookTarget::Tracepoint(_), _) => to_tracepoint(ebpf, &mut loads, program.id.name()),
            (HookTarget::Iterator(_), _) => run_iterator(ebpf, &mut loads, program.id.name()),
        };
        let is_unsupported = tried.as_ref().is_err_and(AttachError::is_unsupported);
        let (kind, reason) = match tried {
            Ok(hook) => {
                seen_calls |= hook.seen_calls(twice);
                attached.tier = attached.tier.max(hook.tier);
                attached.links.extend(hook.links);
                (hook.kind, None)
            }
            Err(error) if program.required => return Err(attach_error(program, error)),
            Err(error) => (
                best_kind(program.target, tiers),
                Some(sanitize::bounded(chain(&error).as_bytes(), REASON_JSON_MAX)),
            ),
        };
        attached.hooks.push(Hook {
            id: program.id,
            kind,
            attached: reason.is_none(),
            reason,
            is_unsupported,
        });
    }
    set_seen_calls(ebpf, seen_calls)?;
    Ok(attached)
}

/// Hook that was just attached.
struct AttachedHook {
    kind: HookKind,
    tier: Tier,
    links: Vec<HeldLink>,
}

impl AttachedHook {
    fn new(kind: HookKind, links: Vec<HeldLink>) -> Self {
        Self {
            kind,
            tier: Tier::Tracepoint,
            links,
        }
    }

    /// Returns how this attachment detects failed calls, as bits of `conntrace_common::calls`.
    fn seen_calls(&self, twice: u32) -> u32 {
        match self.kind {
            HookKind::Fexit => AT_RETURN | twice,
            HookKind::Kretprobe => AT_RETURN,
            HookKind::Tracepoint => KEPT,
            HookKind::TpBtf | HookKind::Fentry | HookKind::Kprobe | HookKind::Iter => UNSEEN,
        }
    }
}

/// Tries the tiers in order until one can hook the function.
fn attach_best(
    tiers: &[Tier],
    mut attach: impl FnMut(Tier) -> Result<AttachedHook, AttachError>,
) -> Result<AttachedHook, AttachError> {
    let mut reasons = Vec::new();
    for &tier in tiers {
        match attach(tier) {
            Ok(hook) => return Ok(AttachedHook { tier, ..hook }),
            Err(error) => reasons.push(format!("{}: {}", tier.as_str(), chain(&error))),
        }
    }
    Err(AttachError::Function(reasons.join("; ")))
}

/// Returns the best kind of attachment for a target.
fn best_kind(target: HookTarget, tiers: &[Tier]) -> HookKind {
    let full = tiers.contains(&Tier::Full);
    match target {
        HookTarget::Tracepoint(_) => HookKind::TpBtf,
        HookTarget::Iterator(_) => HookKind::Iter,
        HookTarget::Syscall(_) => HookKind::Tracepoint,
        HookTarget::Entry(_) if full => HookKind::Fentry,
        HookTarget::Entry(_) => HookKind::Kprobe,
        HookTarget::Return(_) if full => HookKind::Fexit,
        HookTarget::Return(_) => HookKind::Kretprobe,
    }
}

fn at_entry(
    ebpf: &mut Ebpf,
    loads: &mut Loads,
    name: &str,
    tier: Tier,
) -> Result<AttachedHook, AttachError> {
    if tier == Tier::Full {
        let hook: &mut FEntry = loaded(ebpf, loads, &format!("fentry_{name}"))?;
        let link = hook.attach()?;
        return Ok(AttachedHook::new(
            HookKind::Fentry,
            vec![Box::new(hook.take_link(link)?)],
        ));
    }
    let link = probe(ebpf, "kprobe_", name)?;
    Ok(AttachedHook::new(HookKind::Kprobe, vec![link]))
}

fn at_return(
    ebpf: &mut Ebpf,
    loads: &mut Loads,
    name: &str,
    tier: Tier,
    preempts: bool,
) -> Result<AttachedHook, AttachError> {
    if tier == Tier::Full {
        let mut links = Vec::new();
        if preempts {
            links.push(by_fexit(ebpf, loads, &format!("fexit_second_{name}"))?);
        }
        // The program attached last runs first.
        links.push(by_fexit(ebpf, loads, &format!("fexit_{name}"))?);
        return Ok(AttachedHook::new(HookKind::Fexit, links));
    }
    // Attach the return first, so that it ignores calls that entered earlier.
    let links = ["kretprobe_", "kprobe_"].map(|at| probe(ebpf, at, name));
    let links = links.into_iter().collect::<Result<_, _>>()?;
    Ok(AttachedHook::new(HookKind::Kretprobe, links))
}

fn by_fexit(ebpf: &mut Ebpf, loads: &mut Loads, named: &str) -> Result<HeldLink, AttachError> {
    let hook: &mut FExit = loaded(ebpf, loads, named)?;
    let link = hook.attach()?;
    Ok(Box::new(hook.take_link(link)?))
}

fn probe(ebpf: &mut Ebpf, at: &str, name: &str) -> Result<HeldLink, AttachError> {
    let hook: &mut KProbe = program(ebpf, &format!("{at}{name}"))?;
    // Check before loading: the verifier is slow even if nothing can be attached.
    fs::metadata(PROBES).map_err(AttachError::NoProbes)?;
    hook.load()?;
    let link = hook.attach(name, 0)?;
    Ok(Box::new(hook.take_link(link)?))
}

fn to_tracepoint(
    ebpf: &mut Ebpf,
    loads: &mut Loads,
    named: &str,
) -> Result<AttachedHook, AttachError> {
    let hook: &mut BtfTracePoint = loaded(ebpf, loads, named)?;
    let link = hook.attach()?;
    Ok(AttachedHook::new(
        HookKind::TpBtf,
        vec![Box::new(hook.take_link(link)?)],
    ))
}

fn to_syscall(ebpf: &mut Ebpf, named: &str, name: &str) -> Result<AttachedHook, AttachError> {
    let hook: &mut TracePoint = program(ebpf, named)?;
    hook.load()?;
    let link = hook.attach("syscalls", name)?;
    Ok(AttachedHook::new(
        HookKind::Tracepoint,
        vec![Box::new(hook.take_link(link)?)],
    ))
}

/// Runs an iterator once; it leaves no link.
fn run_iterator(
    ebpf: &mut Ebpf,
    loads: &mut Loads,
    named: &str,
) -> Result<AttachedHook, AttachError> {
    let hook: &mut Iter = loaded(ebpf, loads, named)?;
    let link = hook.attach()?;
    let mut run = hook.take_link(link)?.into_file()?;
    // Reading runs the iterator, which writes nothing.
    io::copy(&mut run, &mut io::sink())?;
    Ok(AttachedHook::new(HookKind::Iter, Vec::new()))
}

/// Returns a program that the kernel has accepted, or its load error.
fn loaded<'a, T>(
    ebpf: &'a mut Ebpf,
    loads: &mut Loads,
    name: &str,
) -> Result<&'a mut T, AttachError>
where
    &'a mut T: TryFrom<&'a mut Loaded, Error = ProgramError>,
{
    let missing = || ProgramMissing(name.to_owned());
    loads.remove(name).ok_or_else(missing)??;
    program(ebpf, name)
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T, AttachError>
where
    &'a mut T: TryFrom<&'a mut Loaded, Error = ProgramError>,
{
    let missing = || ProgramMissing(name.to_owned());
    Ok(ebpf.program_mut(name).ok_or_else(missing)?.try_into()?)
}

/// Writes the ways in which failed calls are detected to the map `SEEN_CALLS`.
fn set_seen_calls(ebpf: &mut Ebpf, seen: u32) -> Result<(), StartError> {
    let mut set = || -> Result<(), AttachError> {
        let missing = || ProgramMissing("SEEN_CALLS".to_owned());
        let map = ebpf.map_mut("SEEN_CALLS").ok_or_else(missing)?;
        Ok(Array::<_, u32>::try_from(map)?.set(0, seen, 0)?)
    };
    set().map_err(|error| failed("writing the map SEEN_CALLS", error))
}

/// Counts the program runs that the kernel skipped because the program was already active
/// on that CPU.
///
/// # Errors
/// When the kernel refuses to describe a program.
pub(super) fn missed_hooks(ebpf: &Ebpf) -> io::Result<u64> {
    let mut missed = 0;
    for (_, program) in ebpf.programs() {
        // Programs that are not needed are not loaded, and have no descriptor.
        if let Ok(fd) = program.fd() {
            missed += sys::skipped_runs(fd.as_fd())?;
        }
    }
    Ok(missed)
}
