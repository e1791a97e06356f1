use core::ffi::c_void;

use crate::{attempt, kernel::OpenFile};

// proto: bpf_iter_task_file(struct bpf_iter_meta *meta, struct task_struct *task, u32 fd, struct file *file)
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
#[expect(unsafe_code, reason = "aya-ebpf has no macro for iterators")]
pub extern "C" fn under_way(ctx: *mut c_void) -> u32 {
    // SAFETY: the kernel passes this context to an iterator over task_file.
    if let Some(file) = unsafe { OpenFile::of(ctx) } {
        attempt::found(&file);
    }
    0
}
