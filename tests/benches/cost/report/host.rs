//! Host and time of the measurement.

use std::{fs, thread};

use conntrace::capture;
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) struct BenchHost {
    date: String,
    kernel: String,
    cpu: String,
    cpus: usize,
    /// Load average at the start, which should be near zero.
    load: String,
}

impl BenchHost {
    pub(crate) fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let load = fs::read_to_string("/proc/loadavg").unwrap();
        Self {
            date: format!("{:.0}", Timestamp::now()),
            kernel: capture::release(),
            cpu: model
                .unwrap_or("unknown")
                .trim_start_matches([':', '\t', ' '])
                .to_owned(),
            cpus: thread::available_parallelism().unwrap().get(),
            load: load.split(' ').next().unwrap().to_owned(),
        }
    }

    pub(crate) fn show(&self) -> String {
        let Self {
            date,
            kernel,
            cpu,
            cpus,
            load,
        } = self;
        format!("{date}, Linux {kernel}, {cpus} CPUs ({cpu}), load average at the start {load}")
    }

    pub(crate) fn json(&self) -> Value {
        let Self {
            date,
            kernel,
            cpu,
            cpus,
            load,
        } = self;
        json!({"date": date, "kernel": kernel, "cpu": cpu, "cpus": cpus, "load": load})
    }
}
