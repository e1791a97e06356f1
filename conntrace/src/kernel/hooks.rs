//! The tracepoint tier: which program goes where, and what is lost without it.

use std::{any::Any, fs, io, os::fd::AsFd as _};

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, Iter, ProgramError, TracePoint, links::LinkError},
};
use conntrace_common::offsets::CallOffsets;

use super::{ProgramMissing, StartError, failed, syscalls::SyscallsError, unsupported};
use crate::{sys, text};

/// Most bytes a reason takes in the start line.
const REASON_JSON_MAX: usize = 256;

/// A hook and whether it is attached.
#[derive(Debug, Clone)]
pub struct Hook {
    /// The program's name, which says what it hooks.
    pub name: &'static str,
    /// How it is attached: `tp_btf`, `tracepoint`, or `iter` for one that ran at the
    /// start.
    pub kind: &'static str,
    /// Whether it is.
    pub attached: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// What a program is attached to.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// A BTF tracepoint.
    Tracepoint(&'static str),
    /// Everything that the kernel iterates over by this name, once at the start.
    Iterator(&'static str),
    /// A tracepoint of a system call, if these are traced.
    Syscall(&'static str),
}

impl Target {
    /// Its name in the kernel.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracepoint(name) | Self::Iterator(name) | Self::Syscall(name) => name,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Tracepoint(_) => "tp_btf",
            Self::Iterator(_) => "iter",
            Self::Syscall(_) => "tracepoint",
        }
    }

    /// Whether it is there only with `--trace-syscalls`.
    #[must_use]
    pub fn is_syscall(self) -> bool {
        matches!(self, Self::Syscall(_))
    }
}

/// A program of the object.
#[derive(Debug)]
pub struct Program {
    /// Its name, which says what it hooks.
    pub name: &'static str,
    /// What it is attached to.
    pub target: Target,
    /// Without it there is nothing to trace.
    pub required: bool,
    /// What it is there for.
    pub purpose: &'static str,
    /// What is lost without it.
    pub cost: &'static str,
}

/// Every program, in the order they are attached.
pub const PROGRAMS: [Program; 10] = [
    // The authority on beginnings and endings; attached twice, see the kernel
    // side's attempt.rs.
    Program {
        name: "set_state_first",
        target: Target::Tracepoint("inet_sock_set_state"),
        required: true,
        purpose: "sees every attempt begin and end",
        cost: "nothing can be traced",
    },
    Program {
        name: "set_state_second",
        target: Target::Tracepoint("inet_sock_set_state"),
        required: false,
        purpose: "takes over where the kernel skips the first attachment",
        cost: "an ending that the kernel skips is counted as lost.ending_missed",
    },
    Program {
        name: "tcp_retransmit_skb",
        target: Target::Tracepoint("tcp_retransmit_skb"),
        required: false,
        purpose: "sees the first SYN retransmission",
        cost: "no stall lines, so no warning before a timeout",
    },
    Program {
        name: "tcp_destroy_sock",
        target: Target::Tracepoint("tcp_destroy_sock"),
        required: false,
        purpose: "frees what is left of an attempt whose ending no program saw",
        cost: "such attempts stay in_flight and hold their entry in the attempt map",
    },
    Program {
        name: "kfree_skb",
        target: Target::Tracepoint("kfree_skb"),
        required: false,
        purpose: "sees this host drop an attempt's packets, and why",
        cost: "what this host's own firewall drops looks like silence of the other side",
    },
    // The exits first: what has entered before is not theirs.
    Program {
        name: "sys_exit_connect",
        target: Target::Syscall("sys_exit_connect"),
        required: false,
        purpose: "sees connect fail before an attempt opens",
        cost: "no route and denials are not seen",
    },
    Program {
        name: "sys_enter_connect",
        target: Target::Syscall("sys_enter_connect"),
        required: false,
        purpose: "keeps what connect is asked for until it returns",
        cost: "no route and denials are not seen",
    },
    Program {
        name: "sys_exit_bind",
        target: Target::Syscall("sys_exit_bind"),
        required: false,
        purpose: "sees bind fail for lack of a port or address",
        cost: "a bind that fails is not seen",
    },
    Program {
        name: "sys_enter_bind",
        target: Target::Syscall("sys_enter_bind"),
        required: false,
        purpose: "keeps what bind is asked for until it returns",
        cost: "a bind that fails is not seen",
    },
    // The last: what begins from now on is seen by the others.
    Program {
        name: "under_way",
        target: Target::Iterator("task_file"),
        required: false,
        purpose: "finds the attempts under way when tracing begins, and whose they are",
        cost: "such attempts are known only by their ending, and nobody knows whose they were",
    },
];

/// Every hook, and the links that hold the attached ones in place until they
/// are dropped.
pub(super) struct Attached {
    pub(super) hooks: Vec<Hook>,
    pub(super) links: Vec<Held>,
}

/// A link of whatever kind, only held until it is dropped.
type Held = Box<dyn Any + Send>;

/// Attaches every program, each on its own; those of system calls if these are
/// traced, as far as it is known where they keep what.
///
/// # Errors
/// When a required one cannot be attached.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    calls: Option<&Result<CallOffsets, SyscallsError>>,
) -> Result<Attached, StartError> {
    let btf = Btf::from_sys_fs().map_err(|e| failed("reading the kernel's BTF", e))?;
    let mut attached = Attached {
        hooks: Vec::new(),
        links: Vec::new(),
    };
    for program in &PROGRAMS {
        let tried = match (program.target.is_syscall(), calls) {
            (true, None) => continue,
            (true, Some(Err(error))) => Err(AttachError::Syscalls(chain(error))),
            (true, Some(Ok(_))) | (false, _) => attach(ebpf, program, &btf),
        };
        let reason = match tried {
            Ok(link) => {
                attached.links.extend(link);
                None
            }
            Err(error) if program.required => return Err(attach_error(program, error)),
            Err(error) => Some(text::bounded(chain(&error).as_bytes(), REASON_JSON_MAX)),
        };
        attached.hooks.push(hook(program, reason));
    }
    Ok(attached)
}

fn hook(program: &Program, reason: Option<String>) -> Hook {
    Hook {
        name: program.name,
        kind: program.target.kind(),
        attached: reason.is_none(),
        reason,
    }
}

/// Attaches a program, or runs it where it has nothing to stay attached to.
fn attach(ebpf: &mut Ebpf, program: &Program, btf: &Btf) -> Result<Option<Held>, AttachError> {
    let hook = ebpf
        .program_mut(program.name)
        .ok_or(ProgramMissing(program.name))?;
    match program.target {
        Target::Tracepoint(name) => {
            let hook: &mut BtfTracePoint = hook.try_into()?;
            hook.load(name, btf)?;
            let link = hook.attach()?;
            Ok(Some(Box::new(hook.take_link(link)?)))
        }
        Target::Syscall(name) => {
            let hook: &mut TracePoint = hook.try_into()?;
            hook.load()?;
            let link = hook.attach("syscalls", name)?;
            Ok(Some(Box::new(hook.take_link(link)?)))
        }
        Target::Iterator(name) => {
            let hook: &mut Iter = hook.try_into()?;
            hook.load(name, btf)?;
            let link = hook.attach()?;
            let mut run = hook.take_link(link)?.into_file()?;
            // It writes nothing; reading is what makes it run.
            io::copy(&mut run, &mut io::sink())?;
            Ok(None)
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(transparent)]
    Missing(#[from] ProgramMissing),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("cannot run it")]
    Run(#[from] io::Error),
    #[error("{0}")]
    Syscalls(String),
}

/// Why a required program is not there: a refusal by policy is not the same as
/// a kernel that cannot.
fn attach_error(program: &Program, error: AttachError) -> StartError {
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return unsupported(
            "it is locked down (confidentiality)".to_owned(),
            "boot with lockdown=integrity or none",
        );
    }
    failed(&format!("attaching to {}", program.target.name()), error)
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        // The verifier's log runs to pages; its last line says what it was.
        let inner_text = inner.to_string();
        text.push_str(": ");
        text.push_str(inner_text.lines().last().unwrap_or_default());
        source = inner.source();
    }
    text
}

/// How many runs of our programs the kernel skipped because the program was
/// already active on that CPU.
///
/// # Errors
/// When the kernel does not say.
pub(super) fn missed_hooks(ebpf: &Ebpf) -> io::Result<u64> {
    let mut missed = 0;
    for program in PROGRAMS {
        // One that is not loaded, because it is not asked for, has none.
        if let Some(Ok(fd)) = ebpf.program(program.name).map(aya::programs::Program::fd) {
            missed += sys::skipped_runs(fd.as_fd())?;
        }
    }
    Ok(missed)
}
