//! Says why an outgoing TCP connection failed.
//!
//! The kernel side (`conntrace-ebpf`) watches every attempt and hands over one
//! record per ending; this agent labels it and writes a line. See
//! ARCHITECTURE.md for the way of a record and the invariants.

pub mod capture;
pub mod cli;
pub mod commands;
pub mod diagnosis;
pub mod host;
pub mod output;
pub mod pipeline;
mod port_pressure;
pub mod record;
pub mod recording;
mod sys;
