//! Loads programs on several CPUs at once, because the verifier takes most of the start.

use std::{
    collections::HashMap,
    num::NonZero,
    sync::{Mutex, PoisonError},
    thread,
};

use super::{
    hooks::AttachOptions,
    programs::{HookId, HookTarget, PROGRAMS},
    tier::Tier,
};
use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{Iter, Program, ProgramError},
};

/// Maximum number of loading threads; no more programs than this take long to verify.
const THREADS_MAX: usize = 4;

/// Program attached by BTF type: its own name, and that of its hook.
type TypedProgram = (String, &'static str);

/// Load result of each program, by name.
pub(super) type Loads = HashMap<String, Result<(), ProgramError>>;

/// Creates a loader on another thread while the caller runs `read`. `EbpfLoader::new` always
/// parses the kernel's whole BTF, and frees it when a different BTF is set.
pub(super) fn loader_beside<T>(read: impl FnOnce() -> T) -> (EbpfLoader<'static>, T) {
    thread::scope(|scope| {
        let made = thread::Builder::new().spawn_scoped(scope, EbpfLoader::new);
        let read = read();
        let made = made.ok().and_then(|thread| thread.join().ok());
        (made.unwrap_or_default(), read)
    })
}

/// Loads each program on its own, in the order of [`PROGRAMS`].
pub(super) fn load_typed(
    ebpf: &mut Ebpf,
    options: &AttachOptions<'_>,
    tiers: &[Tier],
    btf: &Btf,
) -> Loads {
    let wanted = typed(options, tiers);
    let mut todo: Vec<_> = ebpf
        .programs_mut()
        .filter_map(|(name, program)| {
            let at = wanted.iter().position(|(wanted, _)| wanted == name)?;
            Some((at, program))
        })
        .collect();
    todo.sort_by_key(|(at, _)| *at);
    let todo = Mutex::new(todo.into_iter());
    let loads = Mutex::new(Loads::new());
    let work = || {
        while let Some((at, program)) = next(&todo)
            && let Some((name, hooked)) = wanted.get(at)
        {
            let result = load(program, hooked, btf);
            let mut loads = loads.lock().unwrap_or_else(PoisonError::into_inner);
            loads.insert(name.clone(), result);
        }
    };
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 1..cpus.min(THREADS_MAX) {
            // If a thread cannot be started, the others do its work.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    loads.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Lists the BTF programs to attach.
fn typed(options: &AttachOptions<'_>, tiers: &[Tier]) -> Vec<TypedProgram> {
    let at_return: &[_] = if options.preempts {
        &["fexit_second_", "fexit_"]
    } else {
        &["fexit_"]
    };
    let is_full = tiers.contains(&Tier::Full);
    let mut typed = Vec::new();
    for program in &PROGRAMS {
        match program.target {
            _ if program.id == HookId::KfreeSkb && !options.drop_reasons => {}
            HookTarget::Tracepoint(name) | HookTarget::Iterator(name) => {
                typed.push((program.id.name().to_owned(), name));
            }
            HookTarget::Entry(name) if is_full => typed.push((format!("fentry_{name}"), name)),
            HookTarget::Return(name) if is_full => {
                typed.extend(at_return.iter().map(|at| (format!("{at}{name}"), name)));
            }
            HookTarget::Entry(_) | HookTarget::Return(_) | HookTarget::Syscall(_) => {}
        }
    }
    typed
}

/// Takes the next program, and releases the lock before it is loaded.
fn next<T>(todo: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    todo.lock().unwrap_or_else(PoisonError::into_inner).next()
}

fn load(program: &mut Program, hooked: &str, btf: &Btf) -> Result<(), ProgramError> {
    if let Program::BtfTracePoint(program) = program {
        return program.load(hooked, btf);
    }
    if let Program::FEntry(program) = program {
        return program.load(hooked, btf);
    }
    if let Program::FExit(program) = program {
        return program.load(hooked, btf);
    }
    let program: &mut Iter = program.try_into()?;
    program.load(hooked, btf)
}
