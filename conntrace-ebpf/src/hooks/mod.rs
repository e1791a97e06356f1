//! Entry points of the programs, with the prototype of the kernel function quoted above each.
//!
//! A test compares the prototypes with the BTF of several kernels. A note in parentheses limits
//! a prototype to some versions. `...` allows further arguments, which are not used.

mod bind;
mod connect;
mod inet_sock_set_state;
mod ipv6_icmp_error;
mod kfree_skb;
mod syscalls;
mod task_file;
mod tcp_destroy_sock;
mod tcp_retransmit_skb;

/// Defines the programs for a kernel function that a call passes through: two at its return
/// (fexit), the second for preemptible kernels, or probes at its entry and return.
macro_rules! function {
    ($what:ident, $first:ident, $depth:ident, $fexit:ident, $second:ident, $kprobe:ident, $kretprobe:ident) => {
        #[::aya_ebpf::macros::fexit]
        pub fn $fexit(ctx: ::aya_ebpf::programs::FExitContext) -> u32 {
            if crate::failed_calls::has_failed(&ctx) {
                function!(@failed ctx, $what, $first, $depth, First);
            }
            0
        }

        #[::aya_ebpf::macros::fexit]
        pub fn $second(ctx: ::aya_ebpf::programs::FExitContext) -> u32 {
            if crate::failed_calls::has_failed(&ctx) {
                function!(@failed ctx, $what, $first, $depth, Second);
            }
            0
        }

        #[::aya_ebpf::macros::kprobe]
        pub fn $kprobe(ctx: ::aya_ebpf::programs::ProbeContext) -> u32 {
            crate::failed_calls::enters(&ctx, function!($what, $first, $depth));
            0
        }

        #[::aya_ebpf::macros::kretprobe]
        pub fn $kretprobe(ctx: ::aya_ebpf::programs::RetProbeContext) -> u32 {
            crate::failed_calls::leaves(&ctx, function!($what, $first, $depth));
            0
        }
    };
    // In a function of its own, so that a call that succeeds saves no registers.
    (@failed $ctx:ident, $what:ident, $first:ident, $depth:ident, $turn:ident) => {{
        #[inline(never)]
        fn failed(ctx: *mut ::core::ffi::c_void) {
            let ctx = ::aya_ebpf::programs::FExitContext::new(ctx);
            let function = function!($what, $first, $depth);
            let turn = crate::failed_calls::ReturnProgram::$turn;
            crate::failed_calls::returns(&ctx, function, turn);
        }
        failed(::aya_ebpf::EbpfContext::as_ptr(&$ctx));
    }};
    ($what:ident, $first:ident, $depth:ident) => {
        crate::failed_calls::Function {
            what: crate::failed_calls::CallKind::$what,
            first: crate::failed_calls::FirstArg::$first,
            depth: crate::failed_calls::Depth::$depth,
        }
    };
}
use function;
