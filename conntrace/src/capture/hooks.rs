//! Attaches every hook, each on its own and in the best way there is.

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
use crate::{record::sanitize, sys};

/// Most bytes a reason takes in the start line.
const REASON_JSON_MAX: usize = 256;

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

/// A hook and the result of attaching it.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Identity of the hook.
    pub id: HookId,
    /// Kind of its attachment, or of the best that was tried.
    pub kind: HookKind,
    /// Whether it is.
    pub attached: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Whether that is the kernel's nature, and nothing to be warned of.
    pub by_nature: bool,
}

/// Every hook, and the links that hold the attached ones in place until they
/// are dropped.
pub(super) struct AttachedHooks {
    pub(super) hooks: Vec<Hook>,
    pub(super) links: Vec<HeldLink>,
    /// The best by which a function is hooked.
    pub(super) tier: Tier,
}

/// A link of whatever kind, only held until it is dropped.
type HeldLink = Box<dyn Any + Send>;

/// How to attach.
pub(super) struct AttachOptions<'a> {
    /// Only this tier.
    pub(super) tier: Option<Tier>,
    /// System calls are to be traced where functions cannot be hooked, as far as it
    /// is known where they keep what.
    pub(super) calls: Option<&'a Result<CallOffsets, SyscallsError>>,
    /// Whether the kernel says why it drops a packet.
    pub(super) drop_reasons: bool,
    /// Whether a thread can be preempted within the kernel.
    pub(super) preempts: bool,
}

/// By what a kernel that has kprobes lets them be made.
pub(super) const PROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// Attaches every program, each on its own. `btf` needs the types of the hooks only.
///
/// # Errors
/// When a required one cannot be attached.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    ways: &AttachOptions<'_>,
    btf: &Btf,
) -> Result<AttachedHooks, StartError> {
    let tiers = Tier::to_try(ways.tier);
    let mut loads = load_typed(ebpf, ways, tiers, btf);
    let mut attached = AttachedHooks {
        hooks: Vec::new(),
        links: Vec::new(),
        tier: Tier::Tracepoint,
    };
    // Before they are attached all that may be, and in the end what is.
    let twice = if ways.preempts { TWICE } else { UNSEEN };
    tell_seen_calls(ebpf, AT_RETURN | KEPT | twice)?;
    let mut seen_calls = UNSEEN;
    for program in &PROGRAMS {
        let tried = match (program.target, ways.calls) {
            (HookTarget::Entry(_) | HookTarget::Return(_), _) if tiers.is_empty() => continue,
            (HookTarget::Entry(name), _) => {
                attach_best(tiers, |tier| at_entry(ebpf, &mut loads, name, tier))
            }
            (HookTarget::Return(name), _) => attach_best(tiers, |tier| {
                at_return(ebpf, &mut loads, name, tier, ways.preempts)
            }),
            (HookTarget::Syscall(_), None) => continue,
            (HookTarget::Syscall(_), _) if attached.tier != Tier::Tracepoint => continue,
            (HookTarget::Syscall(_), Some(Err(error))) => Err(AttachError::Syscalls(chain(error))),
            (HookTarget::Syscall(name), Some(Ok(_))) => to_syscall(ebpf, program.id.name(), name),
            _ if program.id == HookId::KfreeSkb && !ways.drop_reasons => {
                Err(AttachError::NoDropReasons)
            }
            (HookTarget::Tracepoint(_), _) => to_tracepoint(ebpf, &mut loads, program.id.name()),
            (HookTarget::Iterator(_), _) => run_over(ebpf, &mut loads, program.id.name()),
        };
        let by_nature = tried.as_ref().is_err_and(AttachError::is_by_nature);
        let (kind, reason) = match tried {
            Ok(made) => {
                seen_calls |= made.seen_calls(twice);
                attached.tier = attached.tier.max(made.tier);
                attached.links.extend(made.links);
                (made.kind, None)
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
            by_nature,
        });
    }
    tell_seen_calls(ebpf, seen_calls)?;
    Ok(attached)
}

/// What attaching has made.
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

    /// How calls that fail are seen by it (`conntrace_common::calls`).
    fn seen_calls(&self, twice: u32) -> u32 {
        match self.kind {
            HookKind::Fexit => AT_RETURN | twice,
            HookKind::Kretprobe | HookKind::Tracepoint => KEPT,
            HookKind::TpBtf | HookKind::Fentry | HookKind::Kprobe | HookKind::Iter => UNSEEN,
        }
    }
}

/// Tries each of these tiers on a function until one can hook it.
fn attach_best(
    tiers: &[Tier],
    mut attach: impl FnMut(Tier) -> Result<AttachedHook, AttachError>,
) -> Result<AttachedHook, AttachError> {
    let mut reasons = Vec::new();
    for &tier in tiers {
        match attach(tier) {
            Ok(made) => return Ok(AttachedHook { tier, ..made }),
            Err(error) => reasons.push(format!("{}: {}", tier.as_str(), chain(&error))),
        }
    }
    Err(AttachError::Function(reasons.join("; ")))
}

/// How it would be attached at best.
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
        // What is attached last runs first.
        links.push(by_fexit(ebpf, loads, &format!("fexit_{name}"))?);
        return Ok(AttachedHook::new(HookKind::Fexit, links));
    }
    // The return first: what has entered before is not its own.
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
    // Before the verifier is: it takes its time, also where nothing can be attached.
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

/// Runs an iterator, which has nothing to stay attached to.
fn run_over(ebpf: &mut Ebpf, loads: &mut Loads, named: &str) -> Result<AttachedHook, AttachError> {
    let hook: &mut Iter = loaded(ebpf, loads, named)?;
    let link = hook.attach()?;
    let mut run = hook.take_link(link)?.into_file()?;
    // It writes nothing; reading is what makes it run.
    io::copy(&mut run, &mut io::sink())?;
    Ok(AttachedHook::new(HookKind::Iter, Vec::new()))
}

/// The program, if the kernel took it.
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

/// Tells the programs how calls that fail are seen.
fn tell_seen_calls(ebpf: &mut Ebpf, seen: u32) -> Result<(), StartError> {
    let mut tell = || -> Result<(), AttachError> {
        let missing = || ProgramMissing("SEEN_CALLS".to_owned());
        let map = ebpf.map_mut("SEEN_CALLS").ok_or_else(missing)?;
        Ok(Array::<_, u32>::try_from(map)?.set(0, seen, 0)?)
    };
    tell().map_err(|error| failed("telling the programs how calls are seen", error))
}

/// How many runs of our programs the kernel skipped because the program was
/// already active on that CPU.
///
/// # Errors
/// When the kernel does not say.
pub(super) fn missed_hooks(ebpf: &Ebpf) -> io::Result<u64> {
    let mut missed = 0;
    for (_, program) in ebpf.programs() {
        // Those that are not asked for are not loaded, and have none.
        if let Ok(fd) = program.fd() {
            missed += sys::skipped_runs(fd.as_fd())?;
        }
    }
    Ok(missed)
}
