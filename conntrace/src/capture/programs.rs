//! List of the hooks, with the purpose of each and the cost of its absence.

use conntrace_btf::Prototype;

/// Kernel object that a program is attached to.
#[derive(Debug, Clone, Copy)]
pub enum HookTarget {
    /// BTF tracepoint (`tp_btf`).
    Tracepoint(&'static str),
    /// BPF iterator, run once at the start.
    Iterator(&'static str),
    /// Entry of a kernel function.
    Entry(&'static str),
    /// Return of a kernel function.
    Return(&'static str),
    /// Tracepoint of a system call, used with `--trace-syscalls`.
    Syscall(&'static str),
}

impl HookTarget {
    /// Returns the name in the kernel.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracepoint(name)
            | Self::Iterator(name)
            | Self::Entry(name)
            | Self::Return(name)
            | Self::Syscall(name) => name,
        }
    }

    /// Returns the prototype that describes the arguments in BTF. Only tracefs describes those of
    /// a system call's tracepoint.
    pub(super) fn prototype(self) -> Option<Prototype> {
        match self {
            Self::Tracepoint(name) => Some(Prototype::Tracepoint(name)),
            Self::Iterator(name) => Some(Prototype::Function(format!("bpf_iter_{name}"))),
            Self::Entry(name) | Self::Return(name) => Some(Prototype::Function(name.to_owned())),
            Self::Syscall(_) => None,
        }
    }

    /// Returns true if it is attached only with `--trace-syscalls`.
    #[must_use]
    pub fn is_syscall(self) -> bool {
        matches!(self, Self::Syscall(_))
    }
}

/// Hooks of the kernel side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum HookId {
    /// Tracepoint `inet_sock_set_state`.
    InetSockSetState,
    /// Tracepoint `tcp_retransmit_skb`.
    TcpRetransmitSkb,
    /// Tracepoint `tcp_destroy_sock`.
    TcpDestroySock,
    /// Tracepoint `kfree_skb`.
    KfreeSkb,
    /// Entry of `ipv6_icmp_error`.
    Ipv6IcmpError,
    /// Return of `security_socket_connect`.
    SecuritySocketConnect,
    /// Return of `tcp_v4_pre_connect`.
    TcpV4PreConnect,
    /// Return of `tcp_v6_pre_connect`.
    TcpV6PreConnect,
    /// Return of `tcp_v4_connect`.
    TcpV4Connect,
    /// Return of `tcp_v6_connect`.
    TcpV6Connect,
    /// Return of `inet_bind`.
    InetBind,
    /// Return of `inet6_bind`.
    Inet6Bind,
    /// Tracepoint `sys_exit_connect` of a system call.
    SysExitConnect,
    /// Tracepoint `sys_enter_connect` of a system call.
    SysEnterConnect,
    /// Tracepoint `sys_exit_bind` of a system call.
    SysExitBind,
    /// Tracepoint `sys_enter_bind` of a system call.
    SysEnterBind,
    /// Iterator over the files of all tasks, run once at the start.
    UnderWay,
}

impl HookId {
    /// Returns the name that lines use. Programs of functions have a prefix before it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Hook of the agent: one program of the object, or for a function one per tier.
#[derive(Debug)]
pub struct HookProgram {
    /// Identity of the hook.
    pub id: HookId,
    /// Kernel object that it is attached to.
    pub target: HookTarget,
    /// True if tracing cannot start without it.
    pub required: bool,
    /// Purpose, such as "sees every attempt begin and end".
    pub purpose: &'static str,
    /// Effect of its absence on the output.
    pub cost: &'static str,
}

const fn function(
    id: HookId,
    target: HookTarget,
    purpose: &'static str,
    cost: &'static str,
) -> HookProgram {
    HookProgram {
        id,
        target,
        required: false,
        purpose,
        cost,
    }
}

const NO_POLICY: &str = "connects denied by policy are not seen";
const NO_ROUTE: &str = "failures before the SYN, such as no route, are not seen";
const NO_BIND: &str = "failed binds are not seen";

/// Every hook, in the order they are attached.
pub const PROGRAMS: [HookProgram; 17] = [
    // Source of all beginnings and endings.
    HookProgram {
        id: HookId::InetSockSetState,
        target: HookTarget::Tracepoint("inet_sock_set_state"),
        required: true,
        purpose: "sees every attempt begin and end",
        cost: "nothing can be traced",
    },
    HookProgram {
        id: HookId::TcpRetransmitSkb,
        target: HookTarget::Tracepoint("tcp_retransmit_skb"),
        required: false,
        purpose: "sees the first SYN retransmission",
        cost: "no stall lines, so no warning before a timeout",
    },
    HookProgram {
        id: HookId::TcpDestroySock,
        target: HookTarget::Tracepoint("tcp_destroy_sock"),
        required: false,
        purpose: "finds an attempt whose ending no program saw",
        cost: "an attempt whose ending is missed stays in_flight and keeps its place in the table",
    },
    HookProgram {
        id: HookId::KfreeSkb,
        target: HookTarget::Tracepoint("kfree_skb"),
        required: false,
        purpose: "sees this host drop packets of an attempt, with the reason",
        cost: "drops by this host's firewall look like a peer that does not answer",
    },
    function(
        HookId::Ipv6IcmpError,
        HookTarget::Entry("ipv6_icmp_error"),
        "sees type, code and sender of an ICMPv6 error",
        "ICMPv6 errors are known only by errno, and not at all if the application reads it and \
         closes the socket",
    ),
    function(
        HookId::SecuritySocketConnect,
        HookTarget::Return("security_socket_connect"),
        "sees a security module deny connect",
        NO_POLICY,
    ),
    function(
        HookId::TcpV4PreConnect,
        HookTarget::Return("tcp_v4_pre_connect"),
        "sees a cgroup BPF program deny connect, IPv4",
        NO_POLICY,
    ),
    function(
        HookId::TcpV6PreConnect,
        HookTarget::Return("tcp_v6_pre_connect"),
        "sees a cgroup BPF program deny connect, IPv6",
        NO_POLICY,
    ),
    function(
        HookId::TcpV4Connect,
        HookTarget::Return("tcp_v4_connect"),
        "sees connect fail before an attempt opens, IPv4",
        NO_ROUTE,
    ),
    function(
        HookId::TcpV6Connect,
        HookTarget::Return("tcp_v6_connect"),
        "sees connect fail before an attempt opens, IPv6",
        NO_ROUTE,
    ),
    function(
        HookId::InetBind,
        HookTarget::Return("inet_bind"),
        "sees bind fail for lack of a port or address, IPv4",
        NO_BIND,
    ),
    function(
        HookId::Inet6Bind,
        HookTarget::Return("inet6_bind"),
        "sees bind fail for lack of a port or address, IPv6",
        NO_BIND,
    ),
    // Attach the exits first, so that they ignore calls that entered earlier.
    HookProgram {
        id: HookId::SysExitConnect,
        target: HookTarget::Syscall("sys_exit_connect"),
        required: false,
        purpose: "sees connect fail before an attempt opens",
        cost: "denied connects and those without a route are not seen",
    },
    HookProgram {
        id: HookId::SysEnterConnect,
        target: HookTarget::Syscall("sys_enter_connect"),
        required: false,
        purpose: "keeps the arguments of connect until it returns",
        cost: "denied connects and those without a route are not seen",
    },
    HookProgram {
        id: HookId::SysExitBind,
        target: HookTarget::Syscall("sys_exit_bind"),
        required: false,
        purpose: "sees bind fail for lack of a port or address",
        cost: NO_BIND,
    },
    HookProgram {
        id: HookId::SysEnterBind,
        target: HookTarget::Syscall("sys_enter_bind"),
        required: false,
        purpose: "keeps the arguments of bind until it returns",
        cost: NO_BIND,
    },
    // Run last: the other hooks see every attempt that begins from now on.
    HookProgram {
        id: HookId::UnderWay,
        target: HookTarget::Iterator("task_file"),
        required: false,
        purpose: "finds the attempts under way when tracing begins, with their processes",
        cost: "attempts under way at the start are reported only at their ending, without a process",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_of_functions_and_calls_have_their_names() {
        for program in &PROGRAMS {
            match program.target {
                HookTarget::Entry(name) | HookTarget::Return(name) | HookTarget::Syscall(name) => {
                    assert_eq!(program.id.name(), name);
                }
                HookTarget::Tracepoint(_) | HookTarget::Iterator(_) => {}
            }
        }
    }
}
