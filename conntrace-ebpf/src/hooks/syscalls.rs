use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::failed_calls::{self, CallKind};

// The agent reads the offsets of the arguments from tracefs.

// connect(int fd, struct sockaddr *uservaddr, int addrlen)
#[tracepoint(category = "syscalls", name = "sys_enter_connect")]
pub fn sys_enter_connect(ctx: TracePointContext) -> u32 {
    failed_calls::syscall_enters(&ctx);
    0
}

#[tracepoint(category = "syscalls", name = "sys_exit_connect")]
pub fn sys_exit_connect(ctx: TracePointContext) -> u32 {
    failed_calls::syscall_returns(&ctx, CallKind::Connect);
    0
}

// bind(int fd, struct sockaddr *umyaddr, int addrlen)
#[tracepoint(category = "syscalls", name = "sys_enter_bind")]
pub fn sys_enter_bind(ctx: TracePointContext) -> u32 {
    failed_calls::syscall_enters(&ctx);
    0
}

#[tracepoint(category = "syscalls", name = "sys_exit_bind")]
pub fn sys_exit_bind(ctx: TracePointContext) -> u32 {
    failed_calls::syscall_returns(&ctx, CallKind::Bind);
    0
}
