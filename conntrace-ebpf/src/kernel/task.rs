//! Readers of tasks: the caller of connect, and open files.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_pid_tgid,
    bpf_get_current_task, bpf_get_current_task_btf, bpf_get_current_uid_gid,
    bpf_get_smp_processor_id,
};
use conntrace_common::{
    record::{COMM_LEN, RawOpening},
    shared::store,
};

use super::{KernelSock, Struct, TASK_IS_TYPED, at, global, put_words, sockaddr::socket_of_file};

/// Writes the running task to an attempt as its caller, without helpers if possible, because each
/// takes 40 ns. Only valid if the hook runs in the context of the caller.
#[inline(always)]
pub fn sign_current(opening: &mut RawOpening) {
    let task = current_task();
    let [pid, tid, uid] = ids(task);
    // SAFETY: no preconditions.
    store(&mut opening.cgroup_id, unsafe {
        bpf_get_current_cgroup_id()
    });
    store(&mut opening.pid, pid);
    store(&mut opening.tid_or_cpu, tid);
    store(&mut opening.uid, uid);
    sign_exe(opening, task);
    let comm = task.load_words::<{ at!(comm) }>();
    put_words(&mut opening.comm, comm);
    if pid == tid {
        sign_start(opening, task);
        put_words(&mut opening.leader_comm, comm);
    } else {
        let leader = leader(task);
        sign_start(opening, leader);
        put_words(
            &mut opening.leader_comm,
            leader.load_words::<{ at!(comm) }>(),
        );
    }
}

/// Writes the start of a process, from its thread group's leader.
#[inline(always)]
fn sign_start(opening: &mut RawOpening, leader: Struct) {
    let started_ns: u64 = leader.load::<{ at!(start_boottime) }, _>();
    store(&mut opening.process_started_ns, started_ns);
}

/// Writes the executable of a task.
#[inline(always)]
fn sign_exe(opening: &mut RawOpening, task: Struct) {
    let exe = TaskExe::of(task);
    store(&mut opening.exe_inode, exe.inode);
    store(&mut opening.exe_device, exe.device);
}

/// Returns the number of the CPU that the program runs on.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_smp_processor_id() }
}

/// Executable file of a task (`/proc/PID/exe`), also once it is renamed or deleted.
#[derive(Clone, Copy)]
struct TaskExe {
    /// Device number in the kernel's encoding.
    device: u32,
    /// Inode number; 0 if the task has no executable.
    inode: u64,
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
        let mm = task.follow::<{ at!(mm) }>();
        if mm.is_null() {
            return Self::NONE;
        }
        let file = mm.follow::<{ at!(exe_file) }>();
        if file.is_null() {
            return Self::NONE;
        }
        let inode = file.follow::<{ at!(inode) }>();
        let superblock = inode.follow::<{ at!(superblock) }>();
        Self {
            device: superblock.load::<{ at!(device) }, _>(),
            inode: inode.load::<{ at!(inode_number) }, _>(),
        }
    }
}

/// Returns process id, thread id and real user id of the running task.
#[inline(always)]
fn ids(task: Struct) -> [u32; 3] {
    if !task.typed {
        return ids_by_helpers();
    }
    let cred = task.follow::<{ at!(cred) }>();
    if cred.is_null() {
        // Never so, but some verifiers take the pointer for one that may be null.
        return ids_by_helpers();
    }
    [
        task.load::<{ at!(tgid) }, _>(),
        task.load::<{ at!(pid) }, _>(),
        cred.load::<{ at!(cred_uid) }, _>(),
    ]
}

#[inline(always)]
fn ids_by_helpers() -> [u32; 3] {
    let thread = thread_key();
    [(thread >> 32) as u32, thread as u32, current_uid()]
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
    task.follow::<{ at!(group_leader) }>()
}

/// Returns the names of the running thread and of its process.
#[inline(always)]
pub fn current_names() -> [[u8; COMM_LEN]; 2] {
    let task = current_task();
    [task, leader(task)].map(|task| task.load_name::<{ at!(comm) }>())
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
        let key: u64 = socket_of_file(Struct::typed(file))?.load::<{ at!(socket_sk) }, _>();
        Some(Self {
            task: Struct::typed(task),
            key,
            sock: KernelSock::at(key)?,
        })
    }

    /// Writes the process that has the file open to an attempt as its caller. Its thread and
    /// cgroup are unknown.
    #[inline(always)]
    pub fn sign_holder(&self, opening: &mut RawOpening) {
        let leader = leader(self.task);
        store(&mut opening.cgroup_id, 0);
        store(&mut opening.pid, self.task.load::<{ at!(tgid) }, _>());
        store(&mut opening.tid_or_cpu, 0);
        store(&mut opening.uid, self.sock.uid());
        sign_exe(opening, self.task);
        sign_start(opening, leader);
        opening.comm = self.task.load_name::<{ at!(comm) }>();
        opening.leader_comm = leader.load_name::<{ at!(comm) }>();
    }
}
