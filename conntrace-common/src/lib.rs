//! Types, constants and algorithms shared by the kernel side and the agent.
//!
//! The crate is `no_std` and has no dependencies: `conntrace-ebpf` compiles it for the BPF
//! target, `conntrace` for the host.
#![no_std]

pub mod answers;
pub mod calls;
pub mod claim;
pub mod connects;
pub mod counters;
pub mod drops;
pub mod filter;
pub mod hash;
pub mod host_key;
pub mod offsets;
pub mod record;
pub mod shared;
pub mod shares;
pub mod table;
