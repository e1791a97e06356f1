//! Verdict of the kernel's verifier on each program, on every tier.

use std::process::ExitCode;

use conntrace::capture::{Settings, Tier, Tracer};
use conntrace_tests::{is_root, lacks_functions, lacks_tracefs, live_test, run, unless};

/// Maximum number of instructions that the verifier may process, to notice a program that grows
/// with its input. The kernel's own limit is a million.
const VERIFIED_MAX: u32 = 30_000;

pub(crate) fn main() -> ExitCode {
    // The system calls' programs can be loaded only with tracefs.
    let tracefs = lacks_tracefs();
    let tiers = [Tier::Full, Tier::Kprobe, Tier::Tracepoint].map(|tier| {
        let functions = tier != Tier::Tracepoint && is_root();
        let lacks = functions.then(|| lacks_functions(Some(tier.as_str())));
        let test = live_test(&format!("budget_{}", tier.as_str()), move || budget(tier));
        unless(lacks.flatten().or_else(|| tracefs.clone()), test)
    });
    run(tiers.into())
}

/// Every program stays within the budget, with and without its debug lines.
fn budget(tier: Tier) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let start = |debug: bool| {
        let settings = Settings {
            debug,
            trace_syscalls: true,
            tier: Some(tier),
            ..Settings::default()
        };
        let tracer = Tracer::start(&settings).unwrap();
        let attached = tracer.hooks().iter().filter(|hook| hook.attached).count();
        (attached, tracer.programs().unwrap())
    };
    let (attached, programs) = start(false);
    for program in &programs {
        let verified = program.verified_instructions;
        let shown = verified.map_or_else(|| "-".to_owned(), |count| count.to_string());
        println!("verifier {} {shown} {}", program.name, program.jited_bytes);
        assert!(
            verified.is_none_or(|count| count <= VERIFIED_MAX),
            "{program:?}"
        );
    }
    assert!(programs.len() >= attached, "{programs:?}");
    assert_eq!(start(true).0, attached, "hooks with debug lines");
}
