//! What is hooked, and what is lost without it.

use conntrace_btf::Prototype;

/// What a program is attached to.
#[derive(Debug, Clone, Copy)]
pub enum HookTarget {
    /// A BTF tracepoint.
    Tracepoint(&'static str),
    /// Everything that the kernel iterates over by this name, once at the start.
    Iterator(&'static str),
    /// A kernel function, at its entry.
    Entry(&'static str),
    /// A kernel function, at its return.
    Return(&'static str),
    /// A tracepoint of a system call, if these are traced.
    Syscall(&'static str),
}

impl HookTarget {
    /// Its name in the kernel.
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

    /// What BTF knows its arguments by. Those of a system call's tracepoint are
    /// described in tracefs alone.
    pub(super) fn prototype(self) -> Option<Prototype> {
        match self {
            Self::Tracepoint(name) => Some(Prototype::Tracepoint(name)),
            Self::Iterator(name) => Some(Prototype::Function(format!("bpf_iter_{name}"))),
            Self::Entry(name) | Self::Return(name) => Some(Prototype::Function(name.to_owned())),
            Self::Syscall(_) => None,
        }
    }

    /// Whether it is there only with `--trace-syscalls`.
    #[must_use]
    pub fn is_syscall(self) -> bool {
        matches!(self, Self::Syscall(_))
    }
}

/// Hooks of the kernel side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum HookId {
    /// First attachment to `inet_sock_set_state`.
    SetStateFirst,
    /// Second attachment to `inet_sock_set_state`.
    SetStateSecond,
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
    /// Returns the name that lines and the object use.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// A hook: a program of the object, or, for a function, the programs of every tier
/// that can hook it.
#[derive(Debug)]
pub struct HookProgram {
    /// Identity of the hook.
    pub id: HookId,
    /// What it is attached to.
    pub target: HookTarget,
    /// Without it there is nothing to trace.
    pub required: bool,
    /// What it is there for.
    pub purpose: &'static str,
    /// What is lost without it.
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

const NO_POLICY: &str = "what policy denies is not seen";
const NO_ROUTE: &str = "no route and what else ends before the SYN is not seen";
const NO_BIND: &str = "a bind that fails is not seen";

/// Every hook, in the order they are attached.
pub const PROGRAMS: [HookProgram; 18] = [
    // The authority on beginnings and endings; attached twice, see the kernel
    // side's attempt.rs.
    HookProgram {
        id: HookId::SetStateFirst,
        target: HookTarget::Tracepoint("inet_sock_set_state"),
        required: true,
        purpose: "sees every attempt begin and end",
        cost: "nothing can be traced",
    },
    HookProgram {
        id: HookId::SetStateSecond,
        target: HookTarget::Tracepoint("inet_sock_set_state"),
        required: false,
        purpose: "takes over where the kernel skips the first attachment",
        cost: "an ending that the kernel skips is counted as lost.ending_missed",
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
        purpose: "frees what is left of an attempt whose ending no program saw",
        cost: "such attempts stay in_flight and hold their entry in the attempt map",
    },
    HookProgram {
        id: HookId::KfreeSkb,
        target: HookTarget::Tracepoint("kfree_skb"),
        required: false,
        purpose: "sees this host drop an attempt's packets, and why",
        cost: "what this host's own firewall drops looks like silence of the other side",
    },
    function(
        HookId::Ipv6IcmpError,
        HookTarget::Entry("ipv6_icmp_error"),
        "sees which ICMPv6 error came, and from whom",
        "such an error is known by its errno alone, and not even by that if the application \
         reads it and closes",
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
        "sees a cgroup's program deny connect, IPv4",
        NO_POLICY,
    ),
    function(
        HookId::TcpV6PreConnect,
        HookTarget::Return("tcp_v6_pre_connect"),
        "sees a cgroup's program deny connect, IPv6",
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
    // The exits first: what has entered before is not theirs.
    HookProgram {
        id: HookId::SysExitConnect,
        target: HookTarget::Syscall("sys_exit_connect"),
        required: false,
        purpose: "sees connect fail before an attempt opens",
        cost: "no route and denials are not seen",
    },
    HookProgram {
        id: HookId::SysEnterConnect,
        target: HookTarget::Syscall("sys_enter_connect"),
        required: false,
        purpose: "keeps what connect is asked for until it returns",
        cost: "no route and denials are not seen",
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
        purpose: "keeps what bind is asked for until it returns",
        cost: NO_BIND,
    },
    // The last: what begins from now on is seen by the others.
    HookProgram {
        id: HookId::UnderWay,
        target: HookTarget::Iterator("task_file"),
        required: false,
        purpose: "finds the attempts under way when tracing begins, and whose they are",
        cost: "such attempts are known only by their ending, and nobody knows whose they were",
    },
];
