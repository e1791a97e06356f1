//! Starts tracing, and derives the coverage from the attached hooks.

use std::{fs, path::Path};

use super::{Hook, Settings, StartError, Tracer};
use crate::{
    capture,
    output::event::{Coverage, HookState, REASON_JSON_MAX, Start},
    record::sanitize,
};

/// Attaches the programs and reports their coverage. Must run inside a tokio runtime.
///
/// # Errors
/// When privileges are missing, or the kernel does not support tracing.
pub fn start(settings: &Settings) -> Result<(Tracer, Start), StartError> {
    let tracer = Tracer::start(settings)?;
    for hook in tracer.hooks() {
        match &hook.reason {
            None => log::info!("{} is attached", hook.name),
            // A lower tier replaces functions that cannot be hooked.
            Some(reason) if hook.is_unsupported => {
                log::info!("{} is not attached: {reason}", hook.name);
            }
            Some(reason) => log::warn!("{} is not attached: {reason}", hook.name),
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
        name: hook.name.into(),
        kind: hook.kind.into(),
        attached: hook.attached,
        reason: (hook.reason.as_deref())
            .map(|reason| sanitize::bounded(reason.as_bytes(), REASON_JSON_MAX)),
    }
}

/// Derives the coverage from the attached hooks. State changes cover most endings. Failures
/// before `SYN_SENT` need hooked functions or system calls. System calls do not cover
/// `io_uring`.
fn coverage(hooks: &[Hook], has_v6: bool) -> Coverage {
    let attached = |name: &str| hooks.iter().any(|hook| hook.name == name && hook.attached);
    let both = |v4: &str, v6: &str| attached(v4) && (attached(v6) || !has_v6);
    let call = |name: &str| {
        attached(&format!("sys_enter_{name}")) && attached(&format!("sys_exit_{name}"))
    };
    let policy =
        attached("security_socket_connect") && both("tcp_v4_pre_connect", "tcp_v6_pre_connect");
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
        icmp6_detail: attached("ipv6_icmp_error"),
        no_route: both("tcp_v4_connect", "tcp_v6_connect") || call("connect"),
        local_denial: policy || call("connect"),
        bind_exhausted: both("inet_bind", "inet6_bind") || call("bind"),
    }
}
