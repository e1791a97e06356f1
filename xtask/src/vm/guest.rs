//! Boots a guest and reads from its console how what it ran has ended.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::run::show;

const QEMU: &str = "qemu-system-x86_64";
/// Time limit until a guest's first program runs.
const BOOT_MAX: Duration = Duration::from_secs(60);
/// Time limit for a guest to boot with KVM, after which emulation is tried.
const KVM_BOOT_MAX: Duration = Duration::from_secs(10);

/// Accelerator that QEMU runs a guest with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    Emulation,
}

impl Accelerator {
    /// One processor where it is emulated: another can meet the breakpoint by which the
    /// kernel patches its own code only after that is gone, and die of it (int3 Oops in a
    /// function that is being hooked, seen on 6.12). Its time is the instructions that it
    /// has run, 1 ns each, and leaps where there are none to run: so that it is as fast as
    /// a real machine by its own clock, whatever else this host does.
    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host", "-smp", "2"],
            Self::Emulation => &[
                "-accel",
                "tcg",
                "-icount",
                "shift=0,sleep=off",
                "-cpu",
                "max",
                "-smp",
                "1",
            ],
        }
    }

    /// The CPU itself where a guest gets as far as its first program by it.
    pub(crate) fn find(guest: &Guest<'_>) -> Result<Self> {
        if !Path::new("/dev/kvm").exists() {
            eprintln!("There is no /dev/kvm: guests are emulated.");
            return Ok(Self::Emulation);
        }
        let tried = guest
            .with(Self::Kvm, "list=none")
            .run(KVM_BOOT_MAX, io::sink())?;
        if tried.off {
            eprintln!("Guests run by KVM.");
            return Ok(Self::Kvm);
        }
        let seconds = KVM_BOOT_MAX.as_secs();
        eprintln!("A guest did not boot by KVM within {seconds} s: guests are emulated.");
        Ok(Self::Emulation)
    }
}

/// A virtual machine.
#[derive(Clone)]
pub(crate) struct Guest<'a> {
    pub(crate) image: &'a Path,
    /// Archives of files, one after the other.
    pub(crate) initrd: &'a Path,
    pub(crate) accelerator: Accelerator,
    /// Additions to the kernel's command line.
    pub(crate) append: String,
}

/// Progress and results of a guest.
#[derive(Default)]
pub(crate) struct GuestRun {
    /// It is about to switch itself off: all its commands have ended.
    pub(crate) off: bool,
    /// Results of the commands, by name.
    pub(crate) ended: BTreeMap<String, CommandEnd>,
    /// Name of the command that is still running.
    pub(crate) hangs: Option<String>,
    /// Last lines of the console.
    pub(crate) console: Vec<String>,
}

/// Result of a command in a guest.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct CommandEnd {
    pub(crate) status: i32,
    pub(crate) seconds: u64,
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) ignored: u32,
    /// Lines that the command printed.
    pub(crate) printed: Vec<String>,
}

impl Guest<'_> {
    fn with(&self, accelerator: Accelerator, append: &str) -> Self {
        Self {
            accelerator,
            append: append.to_owned(),
            ..self.clone()
        }
    }

    fn command(&self) -> Command {
        let mut qemu = Command::new(QEMU);
        qemu.args(self.accelerator.args());
        qemu.args(["-m", "3072", "-nodefaults", "-no-reboot", "-nographic"]);
        qemu.args(["-serial", "stdio", "-kernel"]).arg(self.image);
        qemu.arg("-initrd").arg(self.initrd);
        // A kretprobe has as many instances as there may be processors where the kernel does
        // not preempt. With one, a call that sleeps hides those of all other threads.
        let append = "console=ttyS0 quiet panic=-1 mitigations=off possible_cpus=8";
        let append = format!("{append} {}", self.append);
        qemu.arg("-append").arg(append);
        qemu
    }

    /// Runs it, but no longer than this; everything it prints goes to `log` as well.
    pub(crate) fn run(&self, limit: Duration, mut log: impl io::Write) -> Result<GuestRun> {
        let mut command = self.command();
        eprintln!("$ {}", show(&command));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn();
        let mut child = child.with_context(|| format!("cannot start {QEMU}"))?;
        let stdout = child.stdout.take().context("it has an output")?;
        let ran = read(stdout, limit, &mut log);
        end(&mut child);
        ran
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

fn read(stdout: ChildStdout, limit: Duration, log: &mut impl io::Write) -> Result<GuestRun> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let began = Instant::now();
    let mut ran = GuestRun::default();
    loop {
        let booting = ran.ended.is_empty() && ran.hangs.is_none();
        let limit = if booting { limit.min(BOOT_MAX) } else { limit };
        match lines.recv_timeout(limit.saturating_sub(began.elapsed())) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                writeln!(log, "{line}")?;
                ran.take(line);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(ran),
        }
    }
}

impl GuestRun {
    fn take(&mut self, line: String) {
        // The firmware's last words may stand before the first.
        if let Some((_, name)) = line.split_once("guest: begin ") {
            self.hangs = Some(name.to_owned());
            self.ended.insert(name.to_owned(), CommandEnd::default());
        } else if let Some(end) = line.strip_prefix("guest: end ") {
            let mut words = end.split(' ');
            let ended = words.next().and_then(|name| self.ended.get_mut(name));
            if let (Some(ended), Some(status), Some(seconds)) = (ended, words.next(), words.next())
            {
                ended.status = status.parse().unwrap_or(-1);
                ended.seconds = seconds.parse().unwrap_or(0);
                self.hangs = None;
            }
        } else if line == "guest: off" {
            self.off = true;
        } else {
            if let Some(ended) = self
                .hangs
                .as_ref()
                .and_then(|name| self.ended.get_mut(name))
            {
                ended.take(&line);
            }
            self.console.push(line);
        }
    }
}

impl CommandEnd {
    /// `test result: ok. 26 passed; 0 failed; 1 ignored; 0 measured; ...`
    fn take(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            let words: Vec<_> = counts.split([' ', ';']).collect();
            let before = |what: &str| {
                let at = words.iter().position(|word| *word == what)?;
                words.get(at.checked_sub(1)?)?.parse().ok()
            };
            self.passed = before("passed").unwrap_or(0);
            self.failed = before("failed").unwrap_or(0);
            self.ignored = before("ignored").unwrap_or(0);
        }
        self.printed.push(line.to_owned());
    }
}

/// One archive of several: the kernel unpacks one after the other.
pub(crate) fn join(archives: &[&Path], into: &Path) -> Result<()> {
    let mut file = File::create(into)?;
    for archive in archives {
        io::copy(&mut File::open(archive)?, &mut file)?;
    }
    Ok(file.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_says_what_ended_how() {
        let mut ran = GuestRun::default();
        for line in [
            "guest: begin refused",
            "guest: end refused 0 9",
            "guest: begin ports",
            "test a ... ok",
            "test result: FAILED. 26 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out",
            "guest: end ports 101 8",
            "guest: begin storm",
        ] {
            ran.take(line.to_owned());
        }
        let refused = ran.ended.get("refused").unwrap();
        assert_eq!((refused.status, refused.seconds), (0, 9));
        let ports = ran.ended.get("ports").unwrap();
        assert_eq!(ports.status, 101);
        assert_eq!((ports.passed, ports.failed, ports.ignored), (26, 1, 2));
        assert_eq!(ran.hangs.as_deref(), Some("storm"));
        assert!(!ran.off);
        ran.take("guest: end storm 0 9".to_owned());
        ran.take("guest: off".to_owned());
        assert!(ran.off && ran.hangs.is_none());
    }
}
