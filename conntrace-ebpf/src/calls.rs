//! Calls of connect and bind that fail before there is a state to change: no
//! route, a denial by policy, no port to bind. Only with `--trace-syscalls`.

use aya_ebpf::{bindings::BPF_ANY, programs::TracePointContext};
use conntrace_common::{
    counters::Counter,
    filter::kind,
    record::{Attempt, KIND_BIND_FAILED, KIND_CONNECT_FAILED},
};

use crate::{
    emit,
    filter::{self, Destination},
    kernel::{self, CallArgs, Caller, OpenSocket, UserAddr},
    maps::{CALLS, Call, per_cpu},
};

/// The largest errno that an application is told; those above are the kernel's own
/// (`ERESTARTSYS`).
const ERRNO_MAX: i64 = 511;
const EADDRINUSE: u32 = 98;
const EADDRNOTAVAIL: u32 = 99;

/// What connect returns only of an attempt that was made, or is under way. Should
/// its opening have been missed, its ending is reported all the same.
const OF_AN_ATTEMPT: [u32; 7] = [
    103, // ECONNABORTED
    104, // ECONNRESET
    106, // EISCONN
    110, // ETIMEDOUT
    111, // ECONNREFUSED
    114, // EALREADY
    115, // EINPROGRESS
];

/// Set by the agent: calls are traced.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the agent finds the global by name")]
static TRACE_CALLS: aya_ebpf::Global<u8> = aya_ebpf::Global::new(0);

/// Which call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Syscall {
    Connect,
    Bind,
}

/// A call begins.
#[inline(always)]
pub fn enters(ctx: &TracePointContext) -> Option<()> {
    let args = CallArgs::of(ctx)?;
    let socket = OpenSocket::of_fd(args.fd)?;
    let call = Call {
        started_ns: kernel::now_ns(),
        user_addr: args.user_addr,
        user_addr_len: args.user_addr_len,
        netns: socket.netns()?,
        local_addr: socket.local_addr()?,
        bound_port: socket.bound_port()?,
        family: socket.family,
        reserved: 0,
    };
    let kept = CALLS.insert(kernel::thread_key(), call, u64::from(BPF_ANY));
    if kept.is_err() {
        per_cpu()?.others.count(Counter::CallMissed);
    }
    Some(())
}

/// The running thread's attempt opens: how it ends is seen without the call.
#[inline(always)]
pub fn opened() {
    if TRACE_CALLS.load() != 0 {
        // Nothing is there when io_uring or the kernel itself connects.
        let _ = CALLS.remove(kernel::thread_key());
    }
}

/// A call returns: one that is still kept made no attempt that opened.
#[inline(always)]
pub fn exits(ctx: &TracePointContext, syscall: Syscall) -> Option<()> {
    let thread = kernel::thread_key();
    let kept = CALLS.get_ptr(thread)?;
    #[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
    // SAFETY: the map is preallocated, and only this thread has this entry.
    let call = unsafe { *kept };
    let _ = CALLS.remove(thread);
    let ret = kernel::call_returned(ctx)?;
    if !(-ERRNO_MAX..0).contains(&ret) {
        return None;
    }
    let errno = ret.unsigned_abs() as u32;
    let asked = UserAddr::read(call.user_addr, call.user_addr_len, call.family)?;
    if !(wanted(syscall, errno, &asked)
        && passes(syscall, &call, &asked)
        && filter::caller_passes(&filter::Current))
    {
        return None;
    }
    let caller = Caller::current();
    let (attempt, kind) = match syscall {
        Syscall::Connect => (connect(&call, &asked, caller), KIND_CONNECT_FAILED),
        Syscall::Bind => (bind(&call, &asked, caller), KIND_BIND_FAILED),
    };
    let counter = emit::report_call(&attempt, kind, errno);
    per_cpu()?.others.count(counter);
    Some(())
}

/// Of bind only what an outgoing connection would meet: no port left, or an address
/// that is not this host's.
#[inline(always)]
fn wanted(syscall: Syscall, errno: u32, asked: &UserAddr) -> bool {
    match syscall {
        Syscall::Connect => !OF_AN_ATTEMPT.contains(&errno),
        Syscall::Bind => errno == EADDRNOTAVAIL || (errno == EADDRINUSE && asked.port == 0),
    }
}

/// Whether it fits the filters of its socket. A bind has no destination to fit.
#[inline(always)]
fn passes(syscall: Syscall, call: &Call, asked: &UserAddr) -> bool {
    if syscall == Syscall::Bind && filter::is_set(kind::OF_REMOTE) {
        return false;
    }
    filter::destination_passes(&Asked { call, asked })
}

/// Where a call to connect wants to.
struct Asked<'a> {
    call: &'a Call,
    asked: &'a UserAddr,
}

impl Destination for Asked<'_> {
    #[inline(always)]
    fn netns(&self) -> u32 {
        self.call.netns
    }

    #[inline(always)]
    fn family(&self) -> u16 {
        self.call.family
    }

    #[inline(always)]
    fn remote_addr(&self) -> [u8; 16] {
        self.asked.addr
    }

    #[inline(always)]
    fn remote_port(&self) -> u16 {
        self.asked.port
    }
}

#[inline(always)]
fn connect(call: &Call, asked: &UserAddr, caller: Caller) -> Attempt {
    Attempt {
        remote_addr: asked.addr,
        remote_port: asked.port,
        local_addr: call.local_addr,
        bound_port: call.bound_port,
        ..of_call(call, caller)
    }
}

#[inline(always)]
fn bind(call: &Call, asked: &UserAddr, caller: Caller) -> Attempt {
    Attempt {
        local_addr: asked.addr,
        bound_port: u16::from_be(asked.port),
        ..of_call(call, caller)
    }
}

#[inline(always)]
fn of_call(call: &Call, caller: Caller) -> Attempt {
    Attempt {
        started_ns: call.started_ns,
        process_started_ns: caller.process_started_ns,
        cgroup_id: caller.cgroup_id,
        pid: caller.pid,
        tid: caller.tid,
        uid: caller.uid,
        netns: call.netns,
        remote_addr: [0; 16],
        local_addr: [0; 16],
        remote_port: 0,
        bound_port: 0,
        family: call.family,
        reserved: 0,
        comm: caller.comm,
        leader_comm: caller.leader_comm,
    }
}
