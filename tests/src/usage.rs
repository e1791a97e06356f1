//! Processor time, memory and threads of a process.

use std::{fs, time::Duration};

use nix::unistd::{SysconfVar, sysconf};

/// Thread of a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Task {
    /// Number of the thread.
    pub tid: u32,
    /// Name of the thread.
    pub comm: String,
    /// State letter of `/proc/PID/stat`; `D` waits for the kernel.
    pub state: char,
}

/// Returns the processor time that a process has used.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let fields: Vec<_> = after_name.split(' ').collect();
    let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let per_second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
    Duration::from_secs_f64(ticks / f64::from(i32::try_from(per_second).unwrap()))
}

/// Returns the memory that only this process has, in kB.
pub fn private_kb(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    let kb = private.map(|line| line.split_whitespace().nth(1).unwrap());
    kb.map(|kb| kb.parse::<u64>().unwrap()).sum()
}

/// Returns the threads of a process.
pub fn tasks(pid: u32) -> Vec<Task> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let task = |entry: fs::DirEntry| {
        // A thread may have ended meanwhile.
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (before, after) = stat.rsplit_once(") ")?;
        let (tid, comm) = before.split_once(" (")?;
        Some(Task {
            tid: tid.parse().ok()?,
            comm: comm.to_owned(),
            state: after.chars().next()?,
        })
    };
    tasks.filter_map(|entry| task(entry.ok()?)).collect()
}
