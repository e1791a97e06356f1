//! Loads programs on several CPUs at once, because the verifier takes most of the start.

use std::{
    collections::HashMap,
    num::NonZero,
    sync::{Mutex, PoisonError},
    thread,
};

use super::{
    hooks::AttachOptions,
    programs::{HookId, HookProgram, HookTarget, PROGRAMS},
    tier::Tier,
};
use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{Iter, Program, ProgramError},
};

/// Maximum number of loading threads; no more programs than this take long to verify.
const THREADS_MAX: usize = 4;

/// Programs attached by BTF type to one hook: their own names, and that of the hook. If one of them
/// is refused, those after it are not loaded, because they cannot be used without it.
type TypedPrograms = (Vec<String>, &'static str);

/// Load result of each program, by name.
pub(super) type Loads = HashMap<String, Result<(), ProgramError>>;

/// Runs `there` on another thread while the caller runs `here`, or afterwards if no thread can be
/// started.
pub(super) fn beside<A, B: Send>(here: impl FnOnce() -> A, there: impl Fn() -> B + Sync) -> (A, B) {
    thread::scope(|scope| {
        let other = thread::Builder::new().spawn_scoped(scope, &there);
        let here = here();
        let done = other.ok().and_then(|other| other.join().ok());
        (here, done.unwrap_or_else(&there))
    })
}

/// Creates a loader without BTF. `EbpfLoader::new` always parses the kernel's whole BTF, which this
/// frees.
pub(super) fn new_loader() -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    loader
}

/// Loads the programs of each hook on their own, in the order of [`PROGRAMS`].
pub(super) fn load_typed(
    ebpf: &mut Ebpf,
    options: &AttachOptions<'_>,
    tiers: &[Tier],
    btf: &Btf,
) -> Loads {
    let mut programs: HashMap<_, _> = ebpf.programs_mut().collect();
    let wanted = typed(options, tiers).into_iter();
    let todo = wanted.map(|(names, hook)| {
        let programs = names
            .into_iter()
            .filter_map(|name| programs.remove(name.as_str()).map(|it| (name, it)));
        (Vec::from_iter(programs), hook)
    });
    let todo = Mutex::new(Vec::from_iter(todo).into_iter());
    let loads = Mutex::new(Loads::new());
    let work = || {
        while let Some((programs, hook)) = next(&todo) {
            for (name, program) in programs {
                let result = load(program, hook, btf);
                let is_refused = result.is_err();
                let mut loads = loads.lock().unwrap_or_else(PoisonError::into_inner);
                loads.insert(name, result);
                if is_refused {
                    break;
                }
            }
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

/// Lists the BTF programs to attach, in the order of [`PROGRAMS`].
fn typed(options: &AttachOptions<'_>, tiers: &[Tier]) -> Vec<TypedPrograms> {
    let at_return: &[_] = if options.preempts {
        &["fexit_second_", "fexit_"]
    } else {
        &["fexit_"]
    };
    let is_full = tiers.contains(&Tier::Full);
    let named = |program: &HookProgram| match program.target {
        _ if program.id == HookId::KfreeSkb && !options.drop_reasons => None,
        HookTarget::Tracepoint(name) | HookTarget::Iterator(name) => {
            Some((vec![program.id.name().to_owned()], name))
        }
        HookTarget::Entry(name) if is_full => Some((vec![format!("fentry_{name}")], name)),
        HookTarget::Return(name) if is_full => {
            let names = at_return.iter().map(|at| format!("{at}{name}"));
            Some((names.collect(), name))
        }
        HookTarget::Entry(_) | HookTarget::Return(_) | HookTarget::Syscall(_) => None,
    };
    PROGRAMS.iter().filter_map(named).collect()
}

/// Takes the next hook, and releases the lock before its programs are loaded.
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
