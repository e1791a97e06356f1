//! What the kernel side and the agent must agree on, byte for byte.
//!
//! `no_std` and without dependencies: `conntrace-ebpf` compiles it for the BPF
//! target, `conntrace` for the host.
#![no_std]

pub mod calls;
pub mod claim;
pub mod connects;
pub mod counters;
pub mod filter;
pub mod hash;
pub mod hosts;
pub mod offsets;
pub mod record;
pub mod shared;
