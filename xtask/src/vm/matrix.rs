//! Every guest, and what came of it.

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{
    NotRun,
    guest::{self, Accelerator, CommandEnd, Guest, GuestRun},
    image,
    kernels::UnpackedKernel,
    kind::GuestKind,
};

/// Time limit of a guest.
const GUEST_MAX: Duration = Duration::from_secs(1500);
/// Guests at once: their tests wait more than they compute.
const AT_ONCE: usize = 2;
/// Lines of a console that are shown of a guest that hangs.
const CONSOLE_SHOWN: usize = 40;

/// A kernel, and what its guests have.
pub(super) struct KernelHost {
    kernel: UnpackedKernel,
    initrd: PathBuf,
}

impl KernelHost {
    pub(super) fn new(folder: &Path, programs: &Path, kernel: UnpackedKernel) -> Result<Self> {
        let modules = image::pack_modules(folder, &kernel, &image::TEST_MODULES)?;
        let initrd = folder.join(format!("initrd-{}", kernel.release));
        guest::join(&[programs, &modules], &initrd)?;
        Ok(Self { kernel, initrd })
    }

    fn guest(&self, accelerator: Accelerator, append: String) -> Guest<'_> {
        Guest {
            image: &self.kernel.image,
            initrd: &self.initrd,
            accelerator,
            append,
        }
    }

    fn run(&self, kind: GuestKind, accelerator: Accelerator, logs: &Path) -> Result<GuestRow> {
        let release = &self.kernel.release;
        let log = logs.join(format!("{release}-{}.log", kind.as_str()));
        let began = Instant::now();
        let guest = self.guest(accelerator, kind.append());
        let ran = guest.run(GUEST_MAX, File::create(&log)?)?;
        let trouble = trouble(&ran);
        let row = GuestRow {
            kernel: release.clone(),
            kind: kind.as_str(),
            seconds: began.elapsed().as_secs(),
            ended: ran.ended.into_iter().collect(),
            trouble,
            ran: true,
        };
        eprintln!("{}{row}, {}", row.what_failed(), log.display());
        Ok(row)
    }
}

/// Runs a guest of every kind on every host.
pub(super) fn run(hosts: &[KernelHost], kinds: &[GuestKind], logs: &Path) -> Result<Vec<GuestRow>> {
    let Some(first) = hosts.first() else {
        return Ok(Vec::new());
    };
    let accelerator = first.guest(Accelerator::Emulation, String::new());
    let accelerator = Accelerator::find(&accelerator)?;
    let of_host = |host| kinds.iter().map(move |&kind| (host, kind));
    let queue: VecDeque<(&KernelHost, GuestKind)> = hosts.iter().flat_map(of_host).collect();
    let queue = Mutex::new(queue);
    let next = || {
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    let work = || {
        let mut rows = Vec::new();
        while let Some((host, kind)) = next() {
            rows.push(host.run(kind, accelerator, logs)?);
        }
        Ok::<_, anyhow::Error>(rows)
    };
    let mut rows = Vec::new();
    thread::scope(|scope| {
        let workers = [(); AT_ONCE].map(|()| scope.spawn(work));
        for worker in workers {
            match worker.join() {
                Ok(done) => rows.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, anyhow::Error>(())
    })?;
    // In the order they were asked for.
    rows.sort_by_key(|row: &GuestRow| {
        let host = hosts
            .iter()
            .position(|host| host.kernel.release == row.kernel);
        (
            host,
            kinds.iter().position(|kind| kind.as_str() == row.kind),
        )
    });
    Ok(rows)
}

/// Prints the table, and fails unless all is well.
pub(super) fn conclude(rows: &[GuestRow]) -> Result<()> {
    eprintln!(
        "\n{:30} {:11} {:>6} {:>6} {:>7} {:>5}",
        "kernel", "guest", "passed", "failed", "ignored", "s"
    );
    for row in rows {
        eprintln!("{row}");
    }
    let bad = rows.iter().filter(|row| row.ran && !row.is_good()).count();
    if bad > 0 {
        bail!("{bad} of {} guests failed", rows.len());
    }
    let missing = rows.iter().filter(|row| !row.ran);
    let missing: Vec<_> = missing.map(|row| row.kernel.as_str()).collect();
    if !missing.is_empty() {
        return Err(NotRun(missing.join(", ")).into());
    }
    Ok(())
}

/// Describes a guest that did not finish, with the last lines of its console.
fn trouble(ran: &GuestRun) -> Option<String> {
    if ran.off {
        return None;
    }
    let last = ran.console.len().saturating_sub(CONSOLE_SHOWN);
    for line in ran.console.iter().skip(last) {
        eprintln!("| {line}");
    }
    Some(match &ran.hangs {
        Some(program) => format!("hangs in {program}"),
        None => "did not boot".to_owned(),
    })
}

/// Row of the table: one guest.
pub(super) struct GuestRow {
    pub(super) kernel: String,
    pub(super) kind: &'static str,
    /// Results of the commands, by name.
    pub(super) ended: Vec<(String, CommandEnd)>,
    seconds: u64,
    /// Reason for missing results.
    trouble: Option<String>,
    ran: bool,
}

impl GuestRow {
    pub(super) fn not_run(version: &str, error: &anyhow::Error) -> Self {
        Self {
            kernel: version.to_owned(),
            kind: "-",
            ended: Vec::new(),
            seconds: 0,
            trouble: Some(format!("{error:#}")),
            ran: false,
        }
    }

    fn sum(&self, of: impl Fn(&CommandEnd) -> u32) -> u32 {
        self.ended.iter().map(|(_, ended)| of(ended)).sum()
    }

    /// Iterates over the commands that failed.
    fn bad(&self) -> impl Iterator<Item = &(String, CommandEnd)> {
        self.ended.iter().filter(|(_, ended)| ended.status != 0)
    }

    fn is_good(&self) -> bool {
        self.trouble.is_none() && self.bad().next().is_none() && !self.ended.is_empty()
    }

    /// Output of the failed commands.
    fn what_failed(&self) -> String {
        let mut text = String::new();
        for (name, ended) in self.bad() {
            let (kernel, kind, status) = (&self.kernel, self.kind, ended.status);
            text.push_str(&format!(
                "-- {name} on {kernel} {kind}: exit status {status}\n"
            ));
            text.extend(ended.printed.iter().map(|line| format!("| {line}\n")));
        }
        text
    }
}

impl fmt::Display for GuestRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [passed, failed, ignored] = [
            self.sum(|ended| ended.passed),
            self.sum(|ended| ended.failed),
            self.sum(|ended| ended.ignored),
        ];
        let (kernel, kind, seconds) = (&self.kernel, self.kind, self.seconds);
        write!(
            f,
            "{kernel:30} {kind:11} {passed:6} {failed:6} {ignored:7} {seconds:5}"
        )?;
        for (name, ended) in self.bad() {
            write!(f, " {name}={}", ended.status)?;
        }
        match (&self.trouble, self.ran) {
            (Some(trouble), false) => write!(f, " NOT RUN: {trouble}"),
            (Some(trouble), true) => write!(f, " {trouble}"),
            (None, _) => Ok(()),
        }
    }
}
