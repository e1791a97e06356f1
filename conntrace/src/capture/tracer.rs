//! Loads and attaches the programs, and reads their ring buffer and counters. Only this module
//! uses aya's loader.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::{Map, MapData, MapError, PerCpuArray, RingBuf},
};
use aya_log::EbpfLogger;
use conntrace_common::{
    counters::{COUNTERS, Counter, PER_CPU_WORDS},
    hash::HashSecret,
    offsets::{CallOffsets, ConntrackOffsets},
};
use nix::errno::Errno;

use super::{
    ProgramMissing, StartError, Tier,
    attempt_table::AttemptTable,
    call_map::PendingCalls,
    failed,
    filter::Filter,
    filter_maps,
    hooks::{self, AttachOptions, AttachedHooks, Hook, missed_hooks},
    kernel_btf::KernelBtf,
    load,
    offsets::ResolvedOffsets,
    patch, preemption, privileges,
    source::Source,
    tracefs::{self, SyscallsError},
    unsupported,
};
use crate::{
    record::{Counters, Holding},
    sys::{self, Backlog, MissedAnswers, MissedDrops, ReaderState, RingPositions},
};

static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/conntrace.bpf.o");

/// Settings of the programs, fixed before they are loaded.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Reports completed handshakes as records; otherwise they are only counted.
    pub report_established: bool,
    /// Counts connects by destination, to detect one that uses up local ports.
    pub count_connects: bool,
    /// Makes the programs write debug lines.
    pub debug: bool,
    /// Traces system calls where functions cannot be hooked.
    pub trace_syscalls: bool,
    /// The only tier to use; `None` uses the best one available.
    pub tier: Option<Tier>,
    /// Filter of the traced attempts.
    pub filter: Filter,
    /// Path of a BPF object to load instead of the built-in one, for tests.
    pub object: Option<PathBuf>,
}

/// Attached programs, with their maps. Dropping it detaches them.
pub struct Tracer {
    ebpf: Ebpf,
    attached: AttachedHooks,
    ring: RingBuf<MapData>,
    backlog: Backlog,
    missed_answers: MissedAnswers,
    missed_drops: MissedDrops,
    reader: ReaderState,
    per_cpu: PerCpuArray<MapData, [u64; PER_CPU_WORDS]>,
    attempts: AttemptTable,
    calls: PendingCalls,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
}

impl Tracer {
    /// Loads and attaches the programs, and opens their maps.
    ///
    /// # Errors
    /// When privileges are missing, the kernel lacks a feature, or a step fails.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        privileges::check()?;
        // What several threads need for the start would stay with the agent.
        sys::limit_allocator();
        let calls = settings.trace_syscalls.then(tracefs::offsets);
        let secret = hash_secret().map_err(|error| failed("asking for random bits", error))?;
        let (vmlinux, loader) = load::beside(
            || {
                let vmlinux = KernelBtf::read();
                // Cached by aya, which asks for them when it loads the object.
                aya::features();
                vmlinux
            },
            load::new_loader,
        );
        let vmlinux = vmlinux?;
        let (ebpf, hookable) = load::beside(
            || load_object(loader, settings, &vmlinux.resolved, calls.as_ref(), secret),
            || vmlinux.hookable(),
        );
        let (hookable, mut ebpf) = (hookable?, ebpf?);
        filter_maps::set(&mut ebpf, &settings.filter)?;
        let options = AttachOptions {
            tier: settings.tier,
            calls: calls.as_ref(),
            drop_reasons: vmlinux.resolved.gives_drop_reasons(),
            preempts: preemption::preempts(),
        };
        let attached = hooks::attach_all(&mut ebpf, &options, &hookable)?;
        let ring: RingBuf<MapData> = take_map(&mut ebpf, "RECORDS")?;
        let positions = RingPositions::of(ring.as_fd())
            .map_err(|error| failed("mapping the ring's positions", error))?;
        let missed_answers: MapData = take_array(&mut ebpf, "MISSED_ANSWERS")?;
        let missed_answers = MissedAnswers::of(missed_answers.fd().as_fd(), secret)
            .map_err(|error| failed("mapping the missed answers", error))?;
        let missed_drops: MapData = take_array(&mut ebpf, "MISSED_DROPS")?;
        let missed_drops = MissedDrops::of(missed_drops.fd().as_fd())
            .map_err(|error| failed("mapping the missed drops", error))?;
        let reader: MapData = take_array(&mut ebpf, "READER_SLEEPS")?;
        let reader = ReaderState::of(reader.fd().as_fd())
            .map_err(|error| failed("mapping the reader's state", error))?;
        let log = match settings.debug {
            true => Some(open_log(&mut ebpf)?),
            false => None,
        };
        let tracer = Self {
            attached,
            ring,
            backlog: Backlog::of(positions),
            missed_answers,
            missed_drops,
            reader,
            per_cpu: take_map(&mut ebpf, "PER_CPU")?,
            attempts: AttemptTable {
                slots: take_array(&mut ebpf, "TABLE")?,
                spilled: take_map(&mut ebpf, "ATTEMPTS")?,
            },
            calls: PendingCalls::new(take_map(&mut ebpf, "CALLS")?),
            log,
            ebpf,
        };
        // The kernel's BTF and the object are no longer needed.
        drop((vmlinux, hookable));
        sys::release_freed_memory();
        sys::release_code();
        Ok(tracer)
    }

    /// Returns the best tier in which any function is hooked.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.attached.tier
    }

    /// Returns the size of each loaded program.
    ///
    /// # Errors
    /// When the kernel refuses to describe a program.
    pub fn programs(&self) -> io::Result<Vec<ProgramSize>> {
        let loaded = self
            .ebpf
            .programs()
            .filter(|(_, program)| program.fd().is_ok());
        let size = |(name, program): (&str, &aya::programs::Program)| {
            let info = program.info().map_err(io::Error::other)?;
            Ok(ProgramSize {
                name: name.to_owned(),
                verified_instructions: info.verified_instruction_count().filter(|&count| count > 0),
                jited_bytes: info.size_jitted(),
            })
        };
        loaded.map(size).collect()
    }

    /// Returns every hook that was tried, attached or not.
    #[must_use]
    pub fn hooks(&self) -> &[Hook] {
        &self.attached.hooks
    }
}

/// Size of a program in the kernel (`struct bpf_prog_info`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramSize {
    /// Name of the program in the object.
    pub name: String,
    /// Number of instructions that the verifier processed (`verified_insns`); unknown before
    /// Linux 5.16.
    pub verified_instructions: Option<u32>,
    /// Size of the compiled machine code in bytes (`jited_prog_len`).
    pub jited_bytes: u32,
}

impl Source for Tracer {
    fn drain(&mut self, max: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while taken < max
            && let Some(record) = self.ring.next()
        {
            each(&record);
            taken += 1;
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
        taken
    }

    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let log = self.log.as_ref().map(AsFd::as_fd);
        [Some(self.ring.as_fd()), log]
    }

    fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }

    fn missed_answers(&self) -> MissedAnswers {
        self.missed_answers.clone()
    }

    fn missed_drops(&self) -> MissedDrops {
        self.missed_drops.clone()
    }

    fn set_sleeping(&self, sleeps: bool) {
        self.reader.set(sleeps);
    }

    fn counters(&mut self) -> io::Result<Counters> {
        let missed_calls = self.calls.missed().map_err(io::Error::other)?;
        let sums = self.sum_over_cpus()?;
        let of = |counter: Counter| sums.get(counter as usize).copied().unwrap_or(0);
        let sum = |counters: &[Counter]| counters.iter().map(|&counter| of(counter)).sum();
        Ok(Counters {
            attempts: sum(&[
                Counter::Attempts,
                Counter::JoinedLate,
                Counter::CallFailed,
                Counter::CallRingFull,
            ]),
            endings: sum(&[Counter::Endings, Counter::CallFailed]),
            established: of(Counter::Established),
            ring_full: sum(&[Counter::RingFull, Counter::CallRingFull]),
            untracked: of(Counter::MapFull),
            not_admitted: of(Counter::NotAdmitted),
            ending_missed: of(Counter::EndingMissed),
            stall_ring_full: of(Counter::StallRingFull),
            missed_hooks: missed_hooks(&self.ebpf)?
                + of(Counter::CallMissed)
                + of(Counter::Nested)
                + missed_calls,
        })
    }

    fn in_map(&self) -> io::Result<u64> {
        self.attempts.count()
    }

    fn holders(&self) -> io::Result<Vec<Holding>> {
        self.attempts.holders()
    }

    fn detach(&mut self) {
        // In reverse: the state of sockets is followed longest, so that none of them is destroyed
        // with an ending that was not seen.
        while self.attached.links.pop().is_some() {}
        self.calls.expire_all();
    }
}

impl Tracer {
    fn sum_over_cpus(&self) -> io::Result<[u64; COUNTERS]> {
        let per_cpu = self.per_cpu.get(&0, 0).map_err(io::Error::other)?;
        let mut sums = [0u64; COUNTERS];
        for cpu in per_cpu.iter() {
            for set in cpu.chunks_exact(COUNTERS).take(2) {
                for (sum, count) in sums.iter_mut().zip(set) {
                    *sum = sum.wrapping_add(*count);
                }
            }
        }
        Ok(sums)
    }
}

/// Returns a new key of the hash of addresses.
fn hash_secret() -> io::Result<HashSecret> {
    let words = [sys::random()?, sys::random()?, sys::random()?];
    Ok(HashSecret::new(words))
}

/// Loads the object. `calls` has the offsets of system call arguments, if these are traced.
fn load_object(
    loader: EbpfLoader<'static>,
    settings: &Settings,
    resolved: &ResolvedOffsets,
    calls: Option<&Result<CallOffsets, SyscallsError>>,
    secret: HashSecret,
) -> Result<Ebpf, StartError> {
    let call_offsets = match calls {
        Some(Ok(offsets)) => *offsets,
        Some(Err(_)) | None => CallOffsets::POISONED,
    };
    let log_level = if settings.debug { u8::MAX } else { 0 };
    let report_established = u8::from(settings.report_established);
    let count_connects = u8::from(settings.count_connects);
    let filters = settings.filter.kinds();
    let trace_syscalls = u8::from(settings.trace_syscalls);
    let secret = secret.words();
    let ConntrackOffsets {
        entry,
        status,
        original,
    } = resolved.conntrack;
    let (conntrack, reasons) = ([entry, status, original], &resolved.drop_reasons);
    let [fd, addr, addr_len] = call_offsets.args;
    let call_offset_words = [fd, addr, addr_len, call_offsets.ret];
    // Shortens the lifetime to that of the values set below.
    let mut loader: EbpfLoader<'_> = loader;
    // The programs need no relocation by BTF. One that did would fail for want of its type.
    let no_types = Btf::new();
    loader
        .btf(Some(&no_types))
        .override_global("OFFSETS", resolved.offsets.as_slice(), true)
        .override_global("DEFER_CONNECT_MASK", &resolved.defer_connect_mask, true)
        .override_global("CONNTRACK_OFFSETS", &conntrack[..], true)
        .override_global("DROP_REASONS", &reasons.of_socket[..], true)
        .override_global("PACKET_DROP_REASONS", &reasons.of_packet[..], true)
        .override_global("NO_SOCKET", &reasons.no_socket, true)
        .override_global(
            "LACKS_LINEAR_TIMEOUTS",
            &resolved.lacks_linear_timeouts,
            true,
        )
        .override_global("FILTERS", &filters, true)
        .override_global("REPORT_ESTABLISHED", &report_established, true)
        .override_global("COUNT_CONNECTS", &count_connects, true)
        .override_global("HASH_SECRET", &secret, true)
        .override_global("CALL_OFFSETS", &call_offset_words, true)
        .override_global("TASK_IS_TYPED", &resolved.task_is_typed, true)
        .override_global("TRACE_SYSCALLS", &trace_syscalls, true)
        .override_global(aya_log::LEVEL, &log_level, true);
    let patched = |object: &[u8]| {
        patch::patched(object, &resolved.offsets)
            .map_err(|error| failed("writing offsets into the programs", error))
    };
    match &settings.object {
        None => loader.load(&patched(OBJECT)?),
        Some(path) => loader.load(&patched(&read_object(path)?)?),
    }
    .map_err(|error| load_error(settings.object.as_deref(), resolved, error))
}

fn load_error(object: Option<&Path>, resolved: &ResolvedOffsets, error: EbpfError) -> StartError {
    if let EbpfError::MapError(MapError::CreateError { name, io_error, .. }) = &error {
        match io_error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EINVAL) if name == "RECORDS" => {
                return unsupported(
                    "it has no BPF ring buffer".to_owned(),
                    "use Linux 5.8 or newer",
                );
            }
            Some(Errno::EPERM) if resolved.maps_are_locked_memory() => {
                let names = "CAP_SYS_RESOURCE (before Linux 5.11 maps count as locked memory)";
                return StartError::Privilege(names.to_owned());
            }
            // The process has the capabilities, but only in a user namespace.
            Some(Errno::EPERM) => {
                let names = "CAP_BPF and CAP_PERFMON of the host's user namespace";
                return StartError::Privilege(names.to_owned());
            }
            Some(_) | None => {}
        }
    }
    let what = object.map_or_else(
        || "loading the programs".to_owned(),
        |path| format!("loading the programs of {}", path.display()),
    );
    failed(&what, error)
}

fn read_object(path: &Path) -> Result<Vec<u8>, StartError> {
    fs::read(path).map_err(|error| failed(&format!("reading {}", path.display()), error))
}

fn take_map<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, StartError>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| failed("opening the maps", ProgramMissing(name.to_owned())))?;
    M::try_from(map).map_err(|e| failed(&format!("opening the map {name}"), e))
}

/// Takes an array that is only mapped.
fn take_array(ebpf: &mut Ebpf, name: &str) -> Result<MapData, StartError> {
    if let Some(Map::Array(map)) = ebpf.take_map(name) {
        return Ok(map);
    }
    Err(failed("opening the maps", ProgramMissing(name.to_owned())))
}

fn open_log(ebpf: &mut Ebpf) -> Result<EbpfLogger<&'static dyn log::Log>, StartError> {
    EbpfLogger::init(ebpf).map_err(|e| failed("opening the programs' log", e))
}
