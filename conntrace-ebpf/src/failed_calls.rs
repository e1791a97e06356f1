//! Detects calls of connect and bind that fail before the socket changes its state: no route,
//! a denial by policy, or no port to bind.
//!
//! The hooks are at the return of kernel functions, or of the system calls. Each failure returns
//! through only one of the hooked functions. Only `tcp_v6_connect` calls another one: it passes a
//! v4-mapped address to `tcp_v4_connect`.
//!
//! A call that opened an attempt must not be reported. With `KEPT`, the opening removes the call.
//! With `AT_RETURN`, the attempt's ending leaves a mark, which costs a successful connect nothing.
//!
//! A probe at a function's entry (kprobe) only keeps the registers of its arguments. Memory is read
//! once the function has failed.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    programs::{
        BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext, TracePointContext,
    },
};
use conntrace_common::{
    calls::{AT_RETURN, KEPT, REGISTERS_MAX, TWICE},
    counters::Counter,
    filter::kind,
    record::{KIND_BIND_FAILED, KIND_CONNECT_FAILED, RawAttempt},
};

use crate::{
    attempt_table,
    filter::{self, RemoteFields},
    kernel::{self, CallArgs, KernelSock, OpenSocket, Passed, Routing, SockAddr},
    maps::{CALLS, ENDED, PendingCall, per_cpu, registers, seen_calls},
    report,
    sync::{load, store},
};

/// Set by the agent to trace system calls where functions cannot be hooked.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the agent finds the global by name")]
static TRACE_SYSCALLS: aya_ebpf::Global<u8> = aya_ebpf::Global::new(0);

/// Largest errno that applications receive. Larger ones are internal to the kernel
/// (`ERESTARTSYS`).
const ERRNO_MAX: i64 = 511;
const EADDRINUSE: u32 = 98;
const EADDRNOTAVAIL: u32 = 99;

/// Errnos that connect returns only for an attempt that opened earlier. Its ending is reported
/// even if its opening was missed.
const OF_AN_ATTEMPT: [u32; 7] = [
    103, // ECONNABORTED
    104, // ECONNRESET
    106, // EISCONN
    110, // ETIMEDOUT
    111, // ECONNREFUSED
    114, // EALREADY
    115, // EINPROGRESS
];

/// Offset added to the socket's address in a mark by the first return program, once the call or
/// its attempt is reported. No socket has such an address. The verifier allows an addition to
/// an address, but not a bit operation.
const TOLD: u64 = 1;

/// Kind of call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    Connect,
    Bind,
}

/// First argument of a kernel function. The second is the address that was passed, the third its
/// length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FirstArg {
    Sock,
    Socket,
}

/// Level at which a function is called. The levels have different places for registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Called by none of the other functions.
    Outer,
    /// Called by a function of IPv6, for a v4-mapped address.
    Inner,
}

/// Kernel function that a call passes through.
#[derive(Clone, Copy)]
pub struct Function {
    pub what: CallKind,
    pub first: FirstArg,
    pub depth: Depth,
}

impl Function {
    /// Returns the index of the place for the registers of a thread's call.
    #[inline(always)]
    fn place(self, thread: u64) -> u32 {
        (thread as u32)
            .wrapping_mul(2)
            .wrapping_add(self.depth as u32)
            % REGISTERS_MAX
    }

    #[inline(always)]
    fn socket(self, first: u64) -> Option<OpenSocket> {
        match self.first {
            FirstArg::Sock => OpenSocket::of_sock(first),
            FirstArg::Socket => OpenSocket::of_socket(first),
        }
    }
}

/// Keeps a system call at its entry.
#[inline(always)]
pub fn syscall_enters(ctx: &TracePointContext) -> Option<()> {
    let args = CallArgs::of(ctx)?;
    keep(&describe(&OpenSocket::of_fd(args.fd)?, args.passed)?)
}

/// Handles the return of a system call.
#[inline(always)]
pub fn syscall_returns(ctx: &TracePointContext, what: CallKind) -> Option<()> {
    let call = let_go()?;
    failed(what, &call, kernel::call_returned(ctx)?)
}

/// Keeps the registers of a call at the entry of a function (kprobe).
#[inline(always)]
pub fn enters(ctx: &ProbeContext, function: Function) -> Option<()> {
    let thread = kernel::thread_key();
    let place = registers(function.place(thread))?;
    if load(&place.thread) == thread {
        // Its return was missed.
        per_cpu()?.others.count(Counter::CallMissed);
    }
    let (first, addr): (u64, u64) = (ctx.arg(0)?, ctx.arg(1)?);
    store(&mut place.thread, thread);
    store(&mut place.first, first);
    store(&mut place.addr, addr);
    store(&mut place.addr_len, ctx.arg::<u64>(2)? as u32);
    store(&mut place.check, check_of(thread, first, addr));
    Some(())
}

/// Returns a checksum of the registers of a call. Two threads that enter at once can share a place.
#[inline(always)]
fn check_of(thread: u64, first: u64, addr: u64) -> u32 {
    (thread ^ first ^ addr) as u32
}

/// Handles the return of a function (kretprobe).
#[inline(always)]
pub fn leaves(ctx: &RetProbeContext, function: Function) -> Option<()> {
    let thread = kernel::thread_key();
    let place = registers(function.place(thread))?;
    let is_own = load(&place.thread) == thread;
    if is_own {
        store(&mut place.thread, 0);
    }
    let ret: i32 = ctx.ret();
    if ret == 0 {
        return None;
    }
    let (first, addr) = (load(&place.first), load(&place.addr));
    if !is_own || load(&place.check) != check_of(thread, first, addr) {
        // Another thread's call took its place meanwhile, or it entered before tracing.
        per_cpu()?.others.count(Counter::CallMissed);
        return None;
    }
    let passed = Passed {
        at: addr,
        len: load(&place.addr_len),
        by_user: 0,
    };
    returned(function, first, passed, ret, ReturnProgram::First)
}

/// The program at a function's return that runs (fexit). The kernel runs the one attached last
/// first (`bpf_trampoline_link_prog`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ReturnProgram {
    First,
    Second,
}

/// Returns true if the function returned an error (fexit). The result follows the arguments;
/// `bpf_get_func_ret` needs Linux 5.17.
#[inline(always)]
pub fn has_failed(ctx: &FExitContext) -> bool {
    ctx.arg::<i32>(3) != 0
}

/// Handles the failure of a function with its arguments (fexit).
#[inline(always)]
pub fn returns(ctx: &FExitContext, function: Function, turn: ReturnProgram) -> Option<()> {
    let passed = Passed {
        at: ctx.arg(1),
        len: ctx.arg::<i32>(2) as u32,
        by_user: 0,
    };
    returned(function, ctx.arg(0), passed, ctx.arg(3), turn)
}

/// Handles a call that returned an error, with the first argument of its function.
#[inline(always)]
fn returned(
    function: Function,
    first: u64,
    passed: Passed,
    ret: i32,
    turn: ReturnProgram,
) -> Option<()> {
    let socket = function.socket(first)?;
    // Not so for the IPv4 function in a call with a v4-mapped address.
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

/// Keeps the call of the running thread. If the thread still has one, its return was missed.
#[inline(always)]
fn keep(call: &PendingCall) -> Option<()> {
    let thread = kernel::thread_key();
    if CALLS.insert(thread, call, u64::from(BPF_NOEXIST)).is_err() {
        per_cpu()?.others.count(Counter::CallMissed);
        // Fails if the map is full, which has just been counted.
        let _ = CALLS.insert(thread, call, u64::from(BPF_ANY));
    }
    Some(())
}

/// Removes and returns the call of the running thread.
#[inline(always)]
fn let_go() -> Option<PendingCall> {
    let thread = kernel::thread_key();
    let kept = CALLS.get_ptr(thread)?;
    #[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
    // SAFETY: the map is preallocated, and only this thread uses this entry.
    let call = unsafe { *kept };
    let _ = CALLS.remove(thread);
    Some(call)
}

/// Removes the running thread's call when its attempt opens, because the attempt is then
/// reported by its ending. An MPTCP socket, which gets here as well, has no attempt of its own.
#[inline(always)]
pub fn opened(ctx: &BtfTracePointContext) {
    if TRACE_SYSCALLS.load() != 0 && seen_calls() & KEPT != 0 && KernelSock::from_arg(ctx).is_some()
    {
        // There is no entry if the call was not hooked.
        let _ = CALLS.remove(kernel::thread_key());
    }
}

/// Leaves a mark for the return of the running call, when its attempt ends within it: the SYN
/// was never sent.
#[inline(always)]
pub fn ended_within(sock: u64) {
    if seen_calls() & AT_RETURN != 0 {
        // Cannot fail: the oldest mark is evicted, which has long been read.
        let _ = ENDED.insert(kernel::thread_key(), sock, u64::from(BPF_ANY));
    }
}

/// Returns true if the running thread's failed call is already reported. Either it opened an
/// attempt, whose ending left a mark or was missed, or the first program has run before the
/// second. The first program ignores its own mark: it is left over from an earlier call for
/// which the kernel skipped the second.
#[inline(always)]
fn is_told(what: CallKind, sock: u64, turn: ReturnProgram) -> bool {
    let thread = kernel::thread_key();
    let mark = ENDED.get_ptr(thread);
    #[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
    // SAFETY: only this thread writes the value under its key.
    let mark = mark.map_or(0, |mark| unsafe { *mark });
    let by_first = sock.wrapping_add(TOLD);
    let told = mark == sock
        || (turn == ReturnProgram::Second && mark == by_first)
        || (what == CallKind::Connect && attempt_table::is_under_way(sock));
    if turn == ReturnProgram::First && seen_calls() & TWICE != 0 {
        // Cannot fail: the oldest mark is evicted, which has long been read.
        let _ = ENDED.insert(thread, by_first, u64::from(BPF_ANY));
    } else if mark != 0 {
        let _ = ENDED.remove(thread);
    }
    told
}

/// Reports a call that returned an error and opened no attempt, if it matches the filters. Not
/// inlined, because more than a dozen programs call it, and rarely.
#[inline(never)]
fn failed(what: CallKind, call: &PendingCall, ret: i64) -> Option<()> {
    if !(-ERRNO_MAX..0).contains(&ret) {
        return None;
    }
    let errno = ret.unsigned_abs() as u32;
    let asked = SockAddr::read(call.passed, call.family)?;
    if !(wanted(what, errno)
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

/// Returns true for errors to report. For bind, these are the ones that outgoing connections
/// meet: no port left, a port that is taken, or an address that is not assigned to this host.
#[inline(always)]
fn wanted(what: CallKind, errno: u32) -> bool {
    match what {
        CallKind::Connect => !OF_AN_ATTEMPT.contains(&errno),
        CallKind::Bind => errno == EADDRNOTAVAIL || errno == EADDRINUSE,
    }
}

/// Returns true if the call matches the filters of its socket. A bind has no destination.
#[inline(always)]
fn passes(what: CallKind, call: &PendingCall, asked: &SockAddr) -> bool {
    if what == CallKind::Bind && filter::is_set(kind::OF_REMOTE) {
        return false;
    }
    filter::destination_passes(&CallTarget { call, asked })
}

/// Destination of a call to connect.
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

/// Fills in the attempt that the call would have opened. For bind, that is only the local
/// address and port.
#[inline(always)]
fn fill(attempt: &mut RawAttempt, what: CallKind, call: &PendingCall, asked: &SockAddr) {
    attempt.opening.started_ns = call.started_ns;
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
    kernel::sign_current(&mut attempt.opening);
}
