//! Says why an outgoing TCP connection failed.
//!
//! The kernel side (`conntrace-ebpf`) watches every attempt and hands over one
//! record per ending; this agent labels it and writes a line. See
//! ARCHITECTURE.md for the way of a record and the invariants.

pub mod agent;
pub mod cli;
pub mod clock;
pub mod demo;
pub mod diagnose;
pub mod diagnosis;
pub mod doctor;
pub mod errno;
pub mod event;
pub mod evidence;
pub mod explain;
pub mod filter;
pub mod kernel;
pub mod label;
pub mod limit;
pub mod live;
mod message;
pub mod output;
pub mod pressure;
mod proc_file;
pub mod recording;
pub mod replay;
pub mod reply;
pub mod service;
pub mod source;
pub mod stage;
pub mod stderr;
mod sys;
mod text;
pub mod wire;
pub mod worker;
mod wrap;
