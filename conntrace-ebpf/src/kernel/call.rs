//! A system call: its arguments, its socket and its result.
//!
//! Programs at a system call's tracepoints get no typed pointer but the task's:
//! the table of files holds plain addresses, read by a helper from there on.

use aya_ebpf::{
    helpers::{bpf_probe_read_kernel, bpf_probe_read_user},
    programs::TracePointContext,
};
use conntrace_common::record::{AF_INET, AF_INET6, STATE_CLOSE};

use super::{CALL_OFFSETS, OFFSETS, global, task::current_task, v4_in_16};

/// `S_IFMT` and `S_IFSOCK`.
const MODE_KIND: u16 = 0o170_000;
const MODE_SOCKET: u16 = 0o140_000;
/// `SS_UNCONNECTED`.
const UNCONNECTED: u32 = 1;
/// `SOCK_STREAM`.
const STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

/// What a caller passes to connect or bind.
pub struct CallArgs {
    pub fd: u32,
    pub user_addr: u64,
    pub user_addr_len: u32,
}

impl CallArgs {
    #[inline(always)]
    pub fn of(ctx: &TracePointContext) -> Option<Self> {
        Some(Self {
            fd: field::<u64>(ctx, global!(CALL_OFFSETS.args[0]))? as u32,
            user_addr: field(ctx, global!(CALL_OFFSETS.args[1]))?,
            user_addr_len: field::<u64>(ctx, global!(CALL_OFFSETS.args[2]))? as u32,
        })
    }
}

/// What the call returned.
#[inline(always)]
pub fn call_returned(ctx: &TracePointContext) -> Option<i64> {
    field(ctx, global!(CALL_OFFSETS.ret))
}

#[inline(always)]
fn field<T>(ctx: &TracePointContext, offset: u32) -> Option<T> {
    // SAFETY: read by a helper, which fails where there is nothing.
    unsafe { ctx.read_at(offset as usize) }.ok()
}

/// A TCP or MPTCP socket that the running task has open and that is in no state
/// yet. Nothing holds it: should another thread close it in this very moment, what
/// is read is of no use, but reading it does no harm.
pub struct OpenSocket {
    sock: u64,
    pub family: u16,
}

impl OpenSocket {
    /// The one behind this descriptor, as `sockfd_lookup_light` finds it.
    #[inline(always)]
    pub fn of_fd(fd: u32) -> Option<Self> {
        let socket = socket_of_fd(fd)?;
        let state: u32 = read(socket, global!(OFFSETS.socket_state))?;
        let kind: u16 = read(socket, global!(OFFSETS.socket_type))?;
        if state != UNCONNECTED || kind != STREAM {
            return None;
        }
        let sock: u64 = read(socket, global!(OFFSETS.socket_sk))?;
        let family: u16 = read(sock, global!(OFFSETS.family))?;
        let protocol: u16 = read(sock, global!(OFFSETS.protocol))?;
        let tcp = protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
        if !(family == AF_INET || family == AF_INET6) || !tcp {
            return None;
        }
        let state: u8 = read(sock, global!(OFFSETS.state))?;
        (state == STATE_CLOSE).then_some(Self { sock, family })
    }

    #[inline(always)]
    pub fn netns(&self) -> Option<u32> {
        let net: u64 = read(self.sock, global!(OFFSETS.net))?;
        read(net, global!(OFFSETS.net_inum))
    }

    #[inline(always)]
    pub fn bound_port(&self) -> Option<u16> {
        read(self.sock, global!(OFFSETS.num))
    }

    #[inline(always)]
    pub fn local_addr(&self) -> Option<[u8; 16]> {
        if self.family == AF_INET {
            read(self.sock, global!(OFFSETS.rcv_saddr)).map(v4_in_16)
        } else {
            read(self.sock, global!(OFFSETS.v6_rcv_saddr))
        }
    }
}

/// Address of the `struct socket` behind a descriptor of the running task.
#[inline(always)]
fn socket_of_fd(fd: u32) -> Option<u64> {
    let table = current_task()
        .follow(global!(OFFSETS.files))
        .follow(global!(OFFSETS.fdt));
    if fd >= table.load::<u32>(global!(OFFSETS.max_fds)) {
        return None;
    }
    let files: u64 = table.load(global!(OFFSETS.fd_array));
    let file: u64 = read(files + u64::from(fd) * 8, 0)?;
    let inode: u64 = read(file, global!(OFFSETS.inode))?;
    let mode: u16 = read(inode, global!(OFFSETS.mode))?;
    if mode & MODE_KIND != MODE_SOCKET {
        return None;
    }
    read(file, global!(OFFSETS.private_data))
}

#[inline(always)]
fn read<T>(base: u64, offset: u32) -> Option<T> {
    let place = (base + u64::from(offset)) as *const T;
    // SAFETY: the helper reads any address, and fails where there is nothing.
    unsafe { bpf_probe_read_kernel(place) }.ok()
}

/// An address that a caller passes (`struct sockaddr_in`, `sockaddr_in6`).
pub struct UserAddr {
    /// Laid out like `Attempt::remote_addr`.
    pub addr: [u8; 16],
    /// Network order.
    pub port: u16,
}

impl UserAddr {
    /// Reads it, if it is one of this family (with `AF_UNSPEC` connect ends an
    /// attempt) and as long as one must be (`tcp_v4_connect`, `tcp_v6_connect`).
    #[inline(always)]
    pub fn read(at: u64, len: u32, family: u16) -> Option<Self> {
        let (addr_at, len_min) = if family == AF_INET { (4, 16) } else { (8, 24) };
        if len < len_min || read_user::<u16>(at)? != family {
            return None;
        }
        let addr = if family == AF_INET {
            v4_in_16(read_user(at + addr_at)?)
        } else {
            read_user(at + addr_at)?
        };
        Some(Self {
            addr,
            port: read_user(at + 2)?,
        })
    }
}

#[inline(always)]
fn read_user<T>(at: u64) -> Option<T> {
    // SAFETY: the helper reads any address, and fails where there is nothing.
    unsafe { bpf_probe_read_user(at as *const T) }.ok()
}
