//! Starts tracing, and derives the coverage from the attached hooks.

use std::{fs, path::Path};

use super::{Hook, HookId, Settings, StartError, Tracer};
use crate::{
    capture,
    output::event::{Coverage, HookState, Start},
};

/// Attaches the programs and reports their coverage. Must run inside a tokio runtime.
///
/// # Errors
/// When privileges are missing, or the kernel does not support tracing.
pub fn start(settings: &Settings) -> Result<(Tracer, Start), StartError> {
    let tracer = Tracer::start(settings)?;
    for hook in tracer.hooks() {
        match &hook.reason {
            None => log::info!("{} is attached", hook.id.name()),
            // A lower tier replaces functions that cannot be hooked.
            Some(reason) if hook.is_unsupported => {
                log::info!("{} is not attached: {reason}", hook.id.name());
            }
            Some(reason) => log::warn!("{} is not attached: {reason}", hook.id.name()),
        }
    }
    let has_v6 = Path::new("/proc/sys/net/ipv6").exists();
    let start = Start {
        version: env!("CARGO_PKG_VERSION").into(),
        boot_id: boot_id(),
        kernel: capture::release(),
        tier: tracer.tier().as_str().into(),
        pid: std::process::id(),
        hooks: tracer.hooks().iter().map(state).collect(),
        coverage: coverage(tracer.hooks(), has_v6),
        limits: Vec::new(),
    };
    Ok((tracer, start))
}

/// Reads the boot id, a UUID of 36 characters; `None` without /proc.
fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim_end().to_owned())
}

fn state(hook: &Hook) -> HookState {
    HookState {
        name: hook.id.name().into(),
        kind: hook.kind.name().into(),
        attached: hook.attached,
        reason: hook.reason.clone(),
    }
}

/// Derives the coverage from the attached hooks. State changes cover most endings. Failures
/// before `SYN_SENT` need hooked functions or system calls. System calls do not cover
/// `io_uring`.
fn coverage(hooks: &[Hook], has_v6: bool) -> Coverage {
    let attached = |id: HookId| hooks.iter().any(|hook| hook.id == id && hook.attached);
    let both = |v4: HookId, v6: HookId| attached(v4) && (attached(v6) || !has_v6);
    let connect_call = attached(HookId::SysEnterConnect) && attached(HookId::SysExitConnect);
    let bind_call = attached(HookId::SysEnterBind) && attached(HookId::SysExitBind);
    let policy = attached(HookId::SecuritySocketConnect)
        && both(HookId::TcpV4PreConnect, HookId::TcpV6PreConnect);
    let states = attached(HookId::InetSockSetState);
    Coverage {
        established: states,
        rst: states,
        kernel_timeout: states,
        app_timeout: states,
        port_exhausted: states,
        tuple_in_use: states,
        aborted: states,
        stall: attached(HookId::TcpRetransmitSkb),
        icmp: states,
        local_drop: attached(HookId::KfreeSkb),
        drops_elsewhere: attached(HookId::KfreeSkb),
        translations: attached(HookId::KfreeSkb),
        icmp6_detail: attached(HookId::Ipv6IcmpError),
        no_route: both(HookId::TcpV4Connect, HookId::TcpV6Connect) || connect_call,
        local_denial: policy || connect_call,
        bind_exhausted: both(HookId::InetBind, HookId::Inet6Bind) || bind_call,
    }
}
