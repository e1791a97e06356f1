//! Traces failed outgoing TCP connections and explains why they failed.
//!
//! The kernel side (`conntrace-ebpf`) tracks every attempt and sends one record per ending. This
//! agent labels it and writes a line. See ARCHITECTURE.md for the path of a record and the
//! invariants.

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
