//! Thin: a kernel function or tracepoint per file, its prototype quoted above
//! it. A test holds the prototypes against BTF.

mod inet_sock_set_state;
mod kfree_skb;
mod syscalls;
mod task_file;
mod tcp_destroy_sock;
mod tcp_retransmit_skb;
