//! Calls of connect and bind that fail before there is a state to change: no
//! route, a denial by policy, no port to bind.
//!
//! They are seen at the return of the kernel's own functions, or of the system
//! calls. Each failure returns through just one of the hooked functions; the only
//! one that calls another of them is `tcp_v6_connect`, which hands a mapped address
//! on to `tcp_v4_connect`. That the call made no attempt is known because the
//! opening of one lets go of the call (`KEPT`), or because its ending leaves a mark
//! (`AT_RETURN`, which costs a connect that succeeds nothing).

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    programs::{FExitContext, ProbeContext, RetProbeContext, TracePointContext},
};
use conntrace_common::{
    calls::{AT_RETURN, KEPT, TWICE},
    counters::Counter,
    filter::kind,
    record::{KIND_BIND_FAILED, KIND_CONNECT_FAILED, RawAttempt},
};

use crate::{
    attempt_table,
    filter::{self, RemoteFields},
    kernel::{self, CallArgs, CurrentTask, OpenSocket, Passed, Routing, SockAddr},
    maps::{CALLS, ENDED, PendingCall, per_cpu, seen_calls},
    report,
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

/// Added to the socket in a mark: the first program at the return has told of the call,
/// or has seen that its attempt is told. No socket lies there; and the verifier lets an
/// address be added to, but no bit be set in it.
const TOLD: u64 = 1;

/// What is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    Connect,
    Bind,
}

/// What a kernel function takes as its first argument; the second is the address
/// that was passed, the third its length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FirstArg {
    Sock,
    Socket,
}

/// A kernel function on the way of a call.
#[derive(Clone, Copy)]
pub struct Function {
    pub what: CallKind,
    pub first: FirstArg,
}

impl Function {
    #[inline(always)]
    fn socket(self, first: u64) -> Option<OpenSocket> {
        match self.first {
            FirstArg::Sock => OpenSocket::of_sock(first),
            FirstArg::Socket => OpenSocket::of_socket(first),
        }
    }
}

/// A system call begins.
#[inline(always)]
pub fn syscall_enters(ctx: &TracePointContext) -> Option<()> {
    let args = CallArgs::of(ctx)?;
    keep(&describe(&OpenSocket::of_fd(args.fd)?, args.passed)?)
}

/// A system call returns.
#[inline(always)]
pub fn syscall_returns(ctx: &TracePointContext, what: CallKind) -> Option<()> {
    let call = let_go()?;
    failed(what, &call, kernel::call_returned(ctx)?)
}

/// A function is entered (kprobe).
#[inline(always)]
pub fn enters(ctx: &ProbeContext, function: Function) -> Option<()> {
    let passed = Passed {
        at: ctx.arg(1)?,
        len: ctx.arg::<i32>(2)? as u32,
        by_user: 0,
    };
    let socket = function.socket(ctx.arg(0)?)?;
    // A mapped address in `tcp_v4_connect` is kept from `tcp_v6_connect` already.
    SockAddr::read(passed, socket.family)?;
    keep(&describe(&socket, passed)?)
}

/// A function returns (kretprobe).
#[inline(always)]
pub fn leaves(ctx: &RetProbeContext, function: Function) -> Option<()> {
    let call = let_go()?;
    failed(function.what, &call, i64::from(ctx.ret::<i32>()))
}

/// Which of the programs at a function's return runs (fexit). The kernel runs the one
/// that was attached last before the others (`bpf_trampoline_link_prog`): the first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ReturnProgram {
    First,
    Second,
}

/// A function returns, its arguments at hand (fexit).
#[inline(always)]
pub fn returns(ctx: &FExitContext, function: Function, turn: ReturnProgram) -> Option<()> {
    // The result lies behind the arguments; `bpf_get_func_ret` is newer (5.17).
    let ret: i32 = ctx.arg(3);
    if ret == 0 {
        return None;
    }
    let passed = Passed {
        at: ctx.arg(1),
        len: ctx.arg::<i32>(2) as u32,
        by_user: 0,
    };
    let socket = function.socket(ctx.arg(0))?;
    SockAddr::read(passed, socket.family)?;
    if is_told(function.what, socket.sock, turn) {
        return None;
    }
    failed(function.what, &describe(&socket, passed)?, i64::from(ret))
}

#[inline(never)]
fn describe(socket: &OpenSocket, passed: Passed) -> Option<PendingCall> {
    Some(PendingCall {
        started_ns: kernel::now_ns(),
        passed,
        sock: socket.sock,
        netns: socket.netns()?,
        local_addr: socket.local_addr()?,
        bound_port: socket.bound_port()?,
        family: socket.family,
    })
}

/// Keeps the running thread's call. One that it still has was left without its
/// return being seen.
#[inline(always)]
fn keep(call: &PendingCall) -> Option<()> {
    let thread = kernel::thread_key();
    if CALLS.insert(thread, call, u64::from(BPF_NOEXIST)).is_err() {
        per_cpu()?.others.count(Counter::CallMissed);
        // Fails where there is no room, which has just been counted.
        let _ = CALLS.insert(thread, call, u64::from(BPF_ANY));
    }
    Some(())
}

/// The running thread's call, which is kept no longer.
#[inline(always)]
fn let_go() -> Option<PendingCall> {
    let thread = kernel::thread_key();
    let kept = CALLS.get_ptr(thread)?;
    #[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
    // SAFETY: the map is preallocated, and only this thread has this entry.
    let call = unsafe { *kept };
    let _ = CALLS.remove(thread);
    Some(call)
}

/// The running thread's attempt opens: how it ends is seen without the call.
#[inline(always)]
pub fn opened() {
    if seen_calls() & KEPT != 0 {
        // Nothing is there when the call was not hooked.
        let _ = CALLS.remove(kernel::thread_key());
    }
}

/// An attempt ends whose SYN was never sent: within the call that opened it. A mark
/// says so to the return of that call.
#[inline(always)]
pub fn ended_within(sock: u64) {
    if seen_calls() & AT_RETURN != 0 {
        // Cannot fail: the oldest mark gives way, which has long been read.
        let _ = ENDED.insert(kernel::thread_key(), sock, u64::from(BPF_ANY));
    }
}

/// Whether the running thread's call, which fails now, is told already: it made an
/// attempt, whose ending has left a mark or has been missed, or it is the second's turn
/// and the first has run. A mark of the first's that the second did not see, because it
/// was skipped, is of an earlier call by the time that the first finds it.
#[inline(always)]
fn is_told(what: CallKind, sock: u64, turn: ReturnProgram) -> bool {
    let thread = kernel::thread_key();
    let mark = ENDED.get_ptr(thread);
    #[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
    // SAFETY: only this thread writes what lies under its key.
    let mark = mark.map_or(0, |mark| unsafe { *mark });
    let by_first = sock.wrapping_add(TOLD);
    let told = mark == sock
        || (turn == ReturnProgram::Second && mark == by_first)
        || (what == CallKind::Connect && attempt_table::find(sock).is_some());
    if turn == ReturnProgram::First && seen_calls() & TWICE != 0 {
        // Cannot fail: the oldest mark gives way, which has long been read.
        let _ = ENDED.insert(thread, by_first, u64::from(BPF_ANY));
    } else if mark != 0 {
        let _ = ENDED.remove(thread);
    }
    told
}

/// A call returned this and made no attempt. A function of its own: more than a dozen
/// programs end here, seldom.
#[inline(never)]
fn failed(what: CallKind, call: &PendingCall, ret: i64) -> Option<()> {
    if !(-ERRNO_MAX..0).contains(&ret) {
        return None;
    }
    let errno = ret.unsigned_abs() as u32;
    let asked = SockAddr::read(call.passed, call.family)?;
    if !(wanted(what, errno, &asked)
        && passes(what, call, &asked)
        && filter::caller_passes(&filter::Current))
    {
        return None;
    }
    let routing = Routing::of_sock(call.sock)?;
    let kind = match what {
        CallKind::Connect => KIND_CONNECT_FAILED,
        CallKind::Bind => KIND_BIND_FAILED,
    };
    let counter = report::report_call(kind, errno, |attempt| {
        routing.describe(attempt);
        fill(attempt, what, call, &asked);
    });
    per_cpu()?.others.count(counter);
    Some(())
}

/// Of bind only what an outgoing connection would meet: no port left, or an address
/// that is not this host's.
#[inline(always)]
fn wanted(what: CallKind, errno: u32, asked: &SockAddr) -> bool {
    match what {
        CallKind::Connect => !OF_AN_ATTEMPT.contains(&errno),
        CallKind::Bind => errno == EADDRNOTAVAIL || (errno == EADDRINUSE && asked.port == 0),
    }
}

/// Whether it fits the filters of its socket. A bind has no destination to fit.
#[inline(always)]
fn passes(what: CallKind, call: &PendingCall, asked: &SockAddr) -> bool {
    if what == CallKind::Bind && filter::is_set(kind::OF_REMOTE) {
        return false;
    }
    filter::destination_passes(&CallTarget { call, asked })
}

/// Where a call to connect wants to.
struct CallTarget<'a> {
    call: &'a PendingCall,
    asked: &'a SockAddr,
}

impl RemoteFields for CallTarget<'_> {
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

/// The attempt that such a call was to make, or, of bind, the address that one was to
/// come from.
#[inline(always)]
fn fill(attempt: &mut RawAttempt, what: CallKind, call: &PendingCall, asked: &SockAddr) {
    attempt.started_ns = call.started_ns;
    attempt.netns = call.netns;
    attempt.family = call.family;
    match what {
        CallKind::Connect => {
            attempt.remote_addr = asked.addr;
            attempt.remote_port = asked.port;
            attempt.local_addr = call.local_addr;
            attempt.bound_port = call.bound_port;
        }
        CallKind::Bind => {
            attempt.local_addr = asked.addr;
            attempt.bound_port = u16::from_be(asked.port);
        }
    }
    CurrentTask::current().sign(attempt);
}
