//! Starts tracing the live kernel.

use crate::{
    event::{Coverage, HookState, Start},
    kernel::{self, Hook, Settings, StartError, Tracer},
};

/// Attaches the programs and says what they will see. Must run inside a tokio
/// runtime.
///
/// # Errors
/// When the kernel or missing privilege stands in the way.
pub fn start(settings: &Settings) -> Result<(Tracer, Start), StartError> {
    let tracer = Tracer::start(settings)?;
    for hook in tracer.hooks() {
        match &hook.reason {
            None => log::info!("{} is attached", hook.name),
            Some(reason) => log::warn!("{} is not attached: {reason}", hook.name),
        }
    }
    let start = Start {
        version: env!("CARGO_PKG_VERSION").into(),
        kernel: kernel::release(),
        tier: "tracepoint".into(),
        pid: std::process::id(),
        hooks: tracer.hooks().iter().map(state).collect(),
        coverage: coverage(tracer.hooks()),
    };
    Ok((tracer, start))
}

fn state(hook: &Hook) -> HookState {
    HookState {
        name: hook.name.into(),
        kind: hook.kind.into(),
        attached: hook.attached,
        reason: hook.reason.clone(),
    }
}

/// What the attached hooks can see. State changes alone carry most of it; what
/// never reaches `SYN_SENT` only system calls show on this tier, and those not what
/// `io_uring` does.
fn coverage(hooks: &[Hook]) -> Coverage {
    let attached = |name: &str| hooks.iter().any(|hook| hook.name == name && hook.attached);
    let call = |name: &str| {
        let both = [format!("sys_enter_{name}"), format!("sys_exit_{name}")];
        both.iter().all(|name| attached(name))
    };
    let states = attached("set_state_first");
    Coverage {
        established: states,
        rst: states,
        kernel_timeout: states,
        app_timeout: states,
        port_exhausted: states,
        tuple_in_use: states,
        aborted: states,
        stall: attached("tcp_retransmit_skb"),
        icmp: states,
        local_drop: attached("kfree_skb"),
        icmp6_detail: false,
        no_route: call("connect"),
        local_denial: call("connect"),
        bind_exhausted: call("bind"),
    }
}
