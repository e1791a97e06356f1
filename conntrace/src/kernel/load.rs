//! Loads programs on several CPUs at once: the verifier's work is most of the start.

use std::{
    collections::HashMap,
    num::NonZero,
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{Iter, Program, ProgramError},
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::chroot,
};

use super::{
    hooks::{DROPS, Ways},
    programs::{PROGRAMS, Target},
    tier::Tier,
};

/// A folder in which there is no BTF where aya looks for it.
const NO_BTF: &str = "/sys/kernel/btf";

/// How many at once: there are no more that take long.
const THREADS_MAX: usize = 4;

/// A program that BTF tells where to attach: its name, and that of what it hooks.
type Typed = (String, &'static str);

/// What the kernel said to each program, by its name.
pub(super) type Loads = HashMap<String, Result<(), ProgramError>>;

/// A loader. aya parses all of the kernel's BTF for it, and drops that again once it is
/// given another: so a thread makes it in whose root there is none. Where a thread may not
/// have a root of its own, the start takes longer.
pub(super) fn loader<'a>() -> EbpfLoader<'a> {
    let make = || {
        // Never without its own: it would be the root of all threads.
        let _ = unshare(CloneFlags::CLONE_FS).and_then(|()| chroot(NO_BTF));
        EbpfLoader::new()
    };
    let made = thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, make).ok()?;
        thread.join().ok()
    });
    made.unwrap_or_else(EbpfLoader::new)
}

/// Loads each of them, on its own, the first ones first.
pub(super) fn load_typed(ebpf: &mut Ebpf, ways: &Ways<'_>, tiers: &[Tier], btf: &Btf) -> Loads {
    let wanted = typed(ways, tiers);
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
            // Without it the others have more to do.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    loads.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Those that are to be attached.
fn typed(ways: &Ways<'_>, tiers: &[Tier]) -> Vec<Typed> {
    let at_return: &[_] = if ways.preempts {
        &["fexit_second_", "fexit_"]
    } else {
        &["fexit_"]
    };
    let is_full = tiers.contains(&Tier::Full);
    let mut typed = Vec::new();
    for program in &PROGRAMS {
        match program.target {
            Target::Tracepoint(DROPS) if !ways.drop_reasons => {}
            Target::Tracepoint(name) | Target::Iterator(name) => {
                typed.push((program.name.to_owned(), name));
            }
            Target::Entry(name) if is_full => typed.push((format!("fentry_{name}"), name)),
            Target::Return(name) if is_full => {
                typed.extend(at_return.iter().map(|at| (format!("{at}{name}"), name)));
            }
            Target::Entry(_) | Target::Return(_) | Target::Syscall(_) => {}
        }
    }
    typed
}

/// The lock is not held while the program is loaded.
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
