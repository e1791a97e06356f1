//! Readers of tasks: the caller of connect, and open files.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_pid_tgid,
    bpf_get_current_task, bpf_get_current_task_btf, bpf_get_current_uid_gid,
    bpf_get_smp_processor_id,
};
use conntrace_common::record::{COMM_LEN, RawAttempt};

use super::{KernelSock, OFFSETS, Struct, TASK_IS_TYPED, global, sockaddr::socket_of_file};

/// Identity of a task, as it is written to a record.
pub struct CurrentTask {
    pub pid: u32,
    pub tid_or_cpu: u32,
    pub uid: u32,
    pub cgroup_id: u64,
    pub process_started_ns: u64,
    pub exe: TaskExe,
    pub comm: [u8; COMM_LEN],
    pub leader_comm: [u8; COMM_LEN],
}

impl CurrentTask {
    /// Returns the caller of an attempt without an entry. The thread id is the CPU number, which
    /// tells apart two such attempts of the same time.
    #[inline(always)]
    pub fn unknown() -> Self {
        Self {
            pid: 0,
            // SAFETY: no preconditions.
            tid_or_cpu: unsafe { bpf_get_smp_processor_id() },
            uid: 0,
            cgroup_id: 0,
            process_started_ns: 0,
            exe: TaskExe::NONE,
            comm: [0; COMM_LEN],
            leader_comm: [0; COMM_LEN],
        }
    }

    /// Writes the task to an attempt, as its caller.
    #[inline(always)]
    pub fn sign(self, attempt: &mut RawAttempt) {
        attempt.process_started_ns = self.process_started_ns;
        attempt.exe_inode = self.exe.inode;
        attempt.exe_device = self.exe.device;
        attempt.cgroup_id = self.cgroup_id;
        attempt.pid = self.pid;
        attempt.tid_or_cpu = self.tid_or_cpu;
        attempt.uid = self.uid;
        attempt.comm = self.comm;
        attempt.leader_comm = self.leader_comm;
    }

    /// Reads the running task, without helpers if possible, because each takes 40 ns. Only valid if
    /// the hook runs in the context of the caller.
    #[inline(always)]
    pub fn current() -> Self {
        let task = current_task();
        let leader = leader(task);
        let comm = global!(OFFSETS.comm);
        let [pid, tid, uid] = ids(task);
        Self {
            pid,
            tid_or_cpu: tid,
            uid,
            cgroup_id: cgroup_id(task),
            process_started_ns: leader.load(global!(OFFSETS.start_boottime)),
            exe: TaskExe::of(task),
            comm: task.load_name(comm),
            leader_comm: leader.load_name(comm),
        }
    }
}

/// Executable file of a task (`/proc/PID/exe`), also once it is renamed or deleted.
#[derive(Clone, Copy)]
pub struct TaskExe {
    /// Device number in the kernel's encoding.
    pub device: u32,
    /// Inode number; 0 if the task has no executable.
    pub inode: u64,
}

impl TaskExe {
    /// Value for a kernel thread, which has no executable.
    const NONE: Self = Self {
        device: 0,
        inode: 0,
    };

    /// Reads the executable of a task, like `get_mm_exe_file` but without taking a reference.
    #[inline(always)]
    fn of(task: Struct) -> Self {
        let mm = task.follow(global!(OFFSETS.mm));
        if mm.is_null() {
            return Self::NONE;
        }
        let file = mm.follow(global!(OFFSETS.exe_file));
        if file.is_null() {
            return Self::NONE;
        }
        let inode = file.follow(global!(OFFSETS.inode));
        let superblock = inode.follow(global!(OFFSETS.superblock));
        Self {
            device: superblock.load(global!(OFFSETS.device)),
            inode: inode.load(global!(OFFSETS.inode_number)),
        }
    }
}

/// Returns process id, thread id and real user id of the running task.
#[inline(always)]
fn ids(task: Struct) -> [u32; 3] {
    if !task.typed {
        let thread = thread_key();
        return [(thread >> 32) as u32, thread as u32, current_uid()];
    }
    let cred = task.follow(global!(OFFSETS.cred));
    [
        task.load(global!(OFFSETS.tgid)),
        task.load(global!(OFFSETS.pid)),
        cred.load(global!(OFFSETS.cred_uid)),
    ]
}

/// Returns the cgroup id of the running task (`task_dfl_cgroup`, `cgroup_id`).
#[inline(always)]
fn cgroup_id(task: Struct) -> u64 {
    if !task.typed {
        // SAFETY: no preconditions.
        return unsafe { bpf_get_current_cgroup_id() };
    }
    task.follow(global!(OFFSETS.cgroups))
        .follow(global!(OFFSETS.dfl_cgrp))
        .follow(global!(OFFSETS.cgroup_kn))
        .load(global!(OFFSETS.kn_id))
}

/// Returns the running task.
#[inline(always)]
pub(super) fn current_task() -> Struct {
    if global!(TASK_IS_TYPED) == 0 {
        // SAFETY: no preconditions; the running task exists while the program runs.
        Struct::at(unsafe { bpf_get_current_task() })
    } else {
        // SAFETY: no preconditions; the running task exists while the program runs.
        Struct::typed(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
    }
}

/// Returns the thread group leader of a task.
#[inline(always)]
fn leader(task: Struct) -> Struct {
    task.follow(global!(OFFSETS.group_leader))
}

/// Returns the names of the running thread and of its process.
#[inline(always)]
pub fn current_names() -> [[u8; COMM_LEN]; 2] {
    let task = current_task();
    [task, leader(task)].map(|task| task.load_name(global!(OFFSETS.comm)))
}

/// Returns the real user id of the running task.
#[inline(always)]
pub fn current_uid() -> u32 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_current_uid_gid() as u32 }
}

/// Returns process and thread id of the running task, as a map key.
#[inline(always)]
pub fn thread_key() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_current_pid_tgid() }
}

/// Returns the id of the running task's ancestor cgroup at a depth, where the root has depth 0.
/// Returns 0 below the task's own cgroup.
#[inline(always)]
pub fn ancestor_cgroup_id(level: i32) -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_current_ancestor_cgroup_id(level) }
}

/// Open TCP socket of a task, from the iterator `bpf_iter__task_file` (`task_file_seq_show`).
pub struct OpenFile {
    task: Struct,
    pub sock: KernelSock,
    /// Address of the socket, the key of its attempt.
    pub key: u64,
}

impl OpenFile {
    /// Reads the iterator's context; `None` unless the file is a TCP socket. The last call of an
    /// iteration has neither task nor file.
    ///
    /// # Safety
    /// `ctx` must be the context of an iterator over `task_file`.
    #[inline(always)]
    pub unsafe fn of(ctx: *mut c_void) -> Option<Self> {
        // SAFETY: the context is meta, task, fd and file, eight bytes each.
        let (task, file) = unsafe {
            let fields = ctx.cast::<*mut u8>();
            (fields.add(1).read(), fields.add(3).read())
        };
        if task.is_null() || file.is_null() {
            return None;
        }
        let key: u64 = socket_of_file(Struct::typed(file))?.load(global!(OFFSETS.socket_sk));
        Some(Self {
            task: Struct::typed(task),
            key,
            sock: KernelSock::at(key)?,
        })
    }

    /// Returns the process that has the file open, as the caller. Its thread and cgroup are
    /// unknown.
    #[inline(always)]
    pub fn holder(&self) -> CurrentTask {
        let leader = leader(self.task);
        CurrentTask {
            pid: self.task.load(global!(OFFSETS.tgid)),
            tid_or_cpu: 0,
            uid: self.sock.uid(),
            cgroup_id: 0,
            process_started_ns: leader.load(global!(OFFSETS.start_boottime)),
            exe: TaskExe::of(self.task),
            comm: self.task.load_name(global!(OFFSETS.comm)),
            leader_comm: leader.load_name(global!(OFFSETS.comm)),
        }
    }
}
