//! Readers of a call to connect or bind: its arguments, its socket and its result.
//!
//! All of it is read by helpers, because the arguments are plain addresses, and are needed only if
//! the call failed.

use aya_ebpf::{
    helpers::{bpf_probe_read_kernel, bpf_probe_read_user},
    programs::TracePointContext,
};
use conntrace_common::record::{AF_INET, AF_INET6, RawAttempt, STATE_CLOSE};

use super::{CALL_OFFSETS, OFFSETS, Struct, at, global, task::current_task, v4_in_16};

/// Mask of the file type in a mode (`S_IFMT`), and the type of a socket (`S_IFSOCK`).
const MODE_KIND: u16 = 0o170_000;
const MODE_SOCKET: u16 = 0o140_000;
/// Socket state `SS_UNCONNECTED`.
const UNCONNECTED: u32 = 1;
/// Socket type `SOCK_STREAM`.
const STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

/// Arguments of the system calls connect and bind.
pub struct CallArgs {
    pub fd: u32,
    pub passed: Passed,
}

/// Pointer to a `struct sockaddr` that was passed, with its claimed length in bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Passed {
    pub at: u64,
    pub len: u32,
    /// 1 if it points to user memory, 0 if to kernel memory.
    pub by_user: u32,
}

impl CallArgs {
    #[inline(always)]
    pub fn of(ctx: &TracePointContext) -> Option<Self> {
        Some(Self {
            fd: field::<u64>(ctx, global!(CALL_OFFSETS.args[0]))? as u32,
            passed: Passed {
                at: field(ctx, global!(CALL_OFFSETS.args[1]))?,
                len: field::<u64>(ctx, global!(CALL_OFFSETS.args[2]))? as u32,
                by_user: 1,
            },
        })
    }
}

/// Returns the result of the system call.
#[inline(always)]
pub fn call_returned(ctx: &TracePointContext) -> Option<i64> {
    field(ctx, global!(CALL_OFFSETS.ret))
}

#[inline(always)]
fn field<T>(ctx: &TracePointContext, offset: u32) -> Option<T> {
    // SAFETY: a helper reads the field, and fails on an invalid address.
    unsafe { ctx.read_at(offset as usize) }.ok()
}

/// TCP or MPTCP socket in the state `TCP_CLOSE`. No reference is held to a socket that was found
/// by its descriptor: if another thread closes it meanwhile, the values are useless, but reading
/// them is harmless.
pub struct OpenSocket {
    pub sock: u64,
    pub family: u16,
}

impl OpenSocket {
    /// Returns the socket of a descriptor of the running task, like `sockfd_lookup_light`.
    #[inline(always)]
    pub fn of_fd(fd: u32) -> Option<Self> {
        Self::of_socket(socket_of_fd(fd)?.at as u64)
    }

    /// Returns the socket whose `struct socket` is at this address.
    #[inline(always)]
    pub fn of_socket(socket: u64) -> Option<Self> {
        let state: u32 = read(socket, global!(OFFSETS.socket_state))?;
        let kind: u16 = read(socket, global!(OFFSETS.socket_type))?;
        if state != UNCONNECTED || kind != STREAM {
            return None;
        }
        Self::of_sock(read(socket, global!(OFFSETS.socket_sk))?)
    }

    /// Returns the socket whose `struct sock` is at this address.
    #[inline(always)]
    pub fn of_sock(sock: u64) -> Option<Self> {
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

/// Fields of a socket, besides its addresses, that the kernel uses to look up a route.
pub struct Routing {
    bound_device: u32,
    mark: u32,
    uid: u32,
}

impl Routing {
    /// Reads the fields of the socket at this address.
    #[inline(always)]
    pub fn of_sock(sock: u64) -> Option<Self> {
        Some(Self {
            bound_device: read(sock, global!(OFFSETS.bound_device))?,
            mark: read(sock, global!(OFFSETS.mark))?,
            uid: read(sock, global!(OFFSETS.uid))?,
        })
    }

    #[inline(always)]
    pub fn describe(&self, attempt: &mut RawAttempt) {
        attempt.opening.bound_device = self.bound_device;
        attempt.opening.mark = self.mark;
        attempt.socket_uid = self.uid;
    }
}

/// Returns the `struct socket` of a descriptor of the running task.
#[inline(always)]
fn socket_of_fd(fd: u32) -> Option<Struct> {
    let table = current_task()
        .follow::<{ at!(files) }>()
        .follow::<{ at!(fdt) }>();
    if fd >= table.load::<{ at!(max_fds) }, u32>() {
        return None;
    }
    let files: u64 = table.load::<{ at!(fd_array) }, _>();
    let file: u64 = read(files + u64::from(fd) * 8, 0)?;
    socket_of_file(Struct::at(file))
}

/// Returns the `struct socket` of a file; `None` if the file is not a socket.
#[inline(always)]
pub(super) fn socket_of_file(file: Struct) -> Option<Struct> {
    let inode = file.follow::<{ at!(inode) }>();
    if inode.load::<{ at!(mode) }, u16>() & MODE_KIND != MODE_SOCKET {
        return None;
    }
    // A socket node in a file system, opened with O_PATH, has none.
    let socket: u64 = file.load::<{ at!(private_data) }, _>();
    (socket != 0).then_some(Struct::at(socket))
}

#[inline(always)]
fn read<T>(base: u64, offset: u32) -> Option<T> {
    let place = (base + u64::from(offset)) as *const T;
    // SAFETY: the helper accepts any address, and fails on an invalid one.
    unsafe { bpf_probe_read_kernel(place) }.ok()
}

/// Address that was passed (`struct sockaddr_in`, `struct sockaddr_in6`).
pub struct SockAddr {
    /// IP address, in the layout of `RawAttempt::remote_addr`.
    pub addr: [u8; 16],
    /// Port in network order.
    pub port: u16,
}

impl SockAddr {
    /// Reads the address, if it has this family and is long enough.
    ///
    /// Other families occur: connect with `AF_UNSPEC` ends an attempt, and `tcp_v6_connect` passes
    /// an IPv4 address to `tcp_v4_connect` for a v4-mapped one.
    #[inline(always)]
    pub fn read(passed: Passed, family: u16) -> Option<Self> {
        let (addr_at, len_min) = if family == AF_INET { (4, 16) } else { (8, 24) };
        if passed.len < len_min || passed.load::<u16>(0)? != family {
            return None;
        }
        let addr = if family == AF_INET {
            v4_in_16(passed.load(addr_at)?)
        } else {
            passed.load(addr_at)?
        };
        Some(Self {
            addr,
            port: passed.load(2)?,
        })
    }
}

impl Passed {
    #[inline(always)]
    fn load<T>(self, offset: u64) -> Option<T> {
        let place = (self.at + offset) as *const T;
        // SAFETY: the helpers accept any address, and fail on an invalid one.
        unsafe {
            if self.by_user == 0 {
                bpf_probe_read_kernel(place)
            } else {
                bpf_probe_read_user(place)
            }
        }
        .ok()
    }
}
