//! Signals that interrupt system calls and do nothing else.
#![expect(unsafe_code, reason = "a signal handler has no safe wrapper")]

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// From now on this signal interrupts a system call and does nothing else. With
/// `SA_RESTART` among the flags the kernel calls it again.
pub fn let_interrupt(signal: Signal, flags: SaFlags) {
    let action = SigAction::new(SigHandler::Handler(ignore), flags, SigSet::empty());
    // SAFETY: the handler does nothing, which is safe at any moment.
    unsafe { sigaction(signal, &action) }.unwrap();
}

extern "C" fn ignore(_: i32) {}
