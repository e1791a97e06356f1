//! The commands beside `run`.

pub mod demo;
pub mod doctor;
pub mod explain;
