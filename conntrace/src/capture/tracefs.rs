//! Reads from tracefs the offsets of arguments and results in system call tracepoints.
//! Distributions shift these offsets.

use std::{
    io,
    path::{Path, PathBuf},
};

use conntrace_common::offsets::CallOffsets;

use crate::sys::proc_file;

/// Mount point of tracefs, and its place below debugfs.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Error text for a host without tracefs, with the remedy.
pub(crate) const NO_TRACEFS: &str =
    "tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing";

/// Error that keeps system calls from being traced.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyscallsError {
    /// Tracefs is not mounted.
    #[error("{NO_TRACEFS}")]
    NoTracefs,
    /// Tracepoint description that cannot be read.
    #[error("cannot read {path}")]
    Format {
        /// File that describes the tracepoint.
        path: PathBuf,
        /// Error of reading the file.
        #[source]
        source: io::Error,
    },
    /// Tracepoint whose description lacks a field, or has it in another size.
    #[error("{0} has no field {1} of 8 bytes")]
    Field(PathBuf, &'static str),
}

/// Reads the offsets of arguments and result.
///
/// # Errors
/// When tracefs is not mounted or lacks a field.
pub(super) fn offsets() -> Result<CallOffsets, SyscallsError> {
    let tracefs = tracefs().ok_or(SyscallsError::NoTracefs)?;
    let enter = TracepointFormat::read(tracefs, "sys_enter_connect")?;
    let exit = TracepointFormat::read(tracefs, "sys_exit_connect")?;
    Ok(CallOffsets {
        args: [
            enter.field("fd")?,
            enter.field("uservaddr")?,
            enter.field("addrlen")?,
        ],
        ret: exit.field("ret")?,
    })
}

/// Finds the mounted tracefs. An unmounted one is an empty directory.
pub(crate) fn tracefs() -> Option<&'static Path> {
    let mut folders = TRACEFS.iter().map(Path::new);
    folders.find(|folder| folder.join("events").exists())
}

/// Description of a tracepoint, from its `format` file.
struct TracepointFormat {
    path: PathBuf,
    text: String,
}

impl TracepointFormat {
    fn read(tracefs: &Path, name: &str) -> Result<Self, SyscallsError> {
        let path = tracefs.join("events/syscalls").join(name).join("format");
        match proc_file::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(SyscallsError::Format { path, source }),
        }
    }

    fn field(&self, name: &'static str) -> Result<u32, SyscallsError> {
        let offset = self.text.lines().find_map(|line| offset_of(line, name));
        offset.ok_or_else(|| SyscallsError::Field(self.path.clone(), name))
    }
}

/// Parses the offset of an 8-byte field from a line such as
/// `field:struct sockaddr * uservaddr;\toffset:24;\tsize:8;\tsigned:0;`.
fn offset_of(line: &str, name: &str) -> Option<u32> {
    let mut parts = line.trim().split(';').map(str::trim);
    let declared = parts.next()?.strip_prefix("field:")?;
    if declared.rsplit([' ', '*']).next()? != name {
        return None;
    }
    let offset = parts.next()?.strip_prefix("offset:")?.parse().ok();
    offset.filter(|_| parts.next() == Some("size:8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_format() {
        let line = "\tfield:struct sockaddr * uservaddr;\toffset:24;\tsize:8;\tsigned:0;";
        assert_eq!(offset_of(line, "uservaddr"), Some(24));
        assert_eq!(offset_of(line, "addr"), None);
        let number = "\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;";
        assert_eq!(offset_of(number, "__syscall_nr"), None, "not 8 bytes");
        assert_eq!(
            offset_of("\tfield:long ret;\toffset:16;\tsize:8;", "ret"),
            Some(16)
        );
        for other in [
            "",
            "name: sys_exit_bind",
            "field:long ret",
            "field:long ret;offset:x;size:8;",
        ] {
            assert_eq!(offset_of(other, "ret"), None);
        }
    }
}
