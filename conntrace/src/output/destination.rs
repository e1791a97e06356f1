use std::{
    fs::File,
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{AccessFlags, eaccess},
};

/// Mode of a new file: the lines name this host's peers, so only owner and group may read.
const MODE: u32 = 0o640;

/// Error of opening the output file.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path is a symbolic link.
    #[error("cannot write lines to {0}: it is a symbolic link, which is not followed")]
    Link(PathBuf),
    /// The path is a FIFO, a device or a directory.
    #[error(
        "cannot write lines to {0}: not a regular file; for a pipe or device redirect stdout to it"
    )]
    NotRegular(PathBuf),
    /// The file cannot be reopened: its directory belongs to another user.
    #[error(
        "SIGHUP cannot reopen {0}: no permission to write to its directory (make it writable for this user): {1}"
    )]
    Folder(PathBuf, io::Error),
    /// The file cannot be opened.
    #[error("cannot write lines to {0}")]
    Failed(PathBuf, #[source] io::Error),
}

/// Destination of the lines: stdout, or a file that can be reopened.
#[derive(Debug)]
pub struct Destination {
    file: File,
    /// Path of the file to reopen; `None` for stdout.
    path: Option<PathBuf>,
    is_regular: bool,
}

impl Destination {
    /// Returns true for a file with a path, which can be opened again.
    pub(super) fn is_named(&self) -> bool {
        self.path.is_some()
    }

    /// Writes to standard output.
    ///
    /// # Errors
    /// Fails when no file descriptor is available.
    pub fn stdout() -> io::Result<Self> {
        Self::open_file(io::stdout().as_fd().try_clone_to_owned()?.into())
    }

    /// Writes to a file, a pipe, or anything else that is open for writing.
    ///
    /// # Errors
    /// Fails when its type cannot be determined (`fstat`).
    pub fn open_file(file: File) -> io::Result<Self> {
        Ok(Self {
            is_regular: file.metadata()?.is_file(),
            file,
            path: None,
        })
    }

    /// Appends to the regular file at this path, created with mode 0640 if missing.
    ///
    /// # Errors
    /// Fails when the path is not a regular file, or cannot be opened.
    pub fn file(path: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            file: open(path)?,
            path: Some(path.to_owned()),
            is_regular: true,
        })
    }

    /// Checks that the file can be reopened with the remaining privileges.
    ///
    /// # Errors
    /// Fails when its directory is not writable.
    pub fn check_reopening(&self) -> Result<(), OpenError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            Some(_) | None => Path::new("."),
        };
        eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK)
            .map_err(|error| OpenError::Folder(path.to_owned(), error.into()))
    }

    /// Returns the name for messages.
    pub(super) fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "stdout".to_owned(),
        }
    }

    /// Returns true if a failed write may succeed later, as after a full disk.
    pub(super) fn may_recover(&self) -> bool {
        self.is_regular
    }

    /// Returns true if a write failed because the reader has gone: a closed pipe or socket, or a
    /// terminal that was closed.
    pub(super) fn is_closed_by(&self, error: &io::Error) -> bool {
        if super::is_closed(error) {
            return true;
        }
        let gone = matches!(error.raw_os_error(), Some(libc::EIO | libc::ENXIO));
        let kind = self.file.metadata().map(|meta| meta.file_type());
        gone && kind.is_ok_and(|kind| kind.is_char_device())
    }

    /// Writes as much as the destination accepts now.
    ///
    /// # Errors
    /// Fails like `write(2)`; a regular file that accepts nothing is `StorageFull`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write(bytes) {
            Ok(0) if !bytes.is_empty() => Err(ErrorKind::StorageFull.into()),
            done => done,
        }
    }

    /// Waits until a non-blocking pipe is writable, for a second at most.
    pub(super) fn wait_writable(&self) {
        const AT_MOST: Duration = Duration::from_secs(1);
        let mut polled = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        // The next write reports the error as well.
        let _ = poll(
            &mut polled,
            PollTimeout::try_from(AT_MOST).unwrap_or(PollTimeout::MAX),
        );
    }

    /// Removes the last `len` bytes, the beginning of a line, if they end the file.
    ///
    /// # Errors
    /// Fails when the file's end is not ours, or the file cannot be truncated.
    pub(super) fn cut(&mut self, len: usize) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        // O_APPEND moves the position to the end of the last write.
        if !self.is_regular || self.file.stream_position()? != end {
            return Err(ErrorKind::Unsupported.into());
        }
        let end = end.saturating_sub(len as u64);
        self.file.set_len(end)?;
        // Without O_APPEND the next write would leave a hole.
        self.file.seek(SeekFrom::Start(end)).map(drop)
    }

    /// Returns true for a file with a path, which can be reopened.
    pub(super) fn has_path(&self) -> bool {
        self.path.is_some()
    }

    /// Reopens the file after a rotation has renamed it. On failure the old file is kept. A
    /// destination without a path is not changed.
    ///
    /// # Errors
    /// Fails like [`file`](Self::file).
    pub(super) fn reopen(&mut self) -> Result<(), OpenError> {
        if let Some(path) = &self.path {
            self.file = open(path)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, OpenError> {
    let failed = |error: io::Error| match error.raw_os_error() {
        Some(libc::ELOOP) => OpenError::Link(path.to_owned()),
        // For a FIFO without a reader, or a socket.
        Some(libc::ENXIO) => OpenError::NotRegular(path.to_owned()),
        _ => OpenError::Failed(path.to_owned(), error),
    };
    // O_NONBLOCK: does not wait for a FIFO's reader; a regular file ignores it.
    let mut file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(OpenError::NotRegular(path.to_owned()));
    }
    // An agent killed on a full disk leaves a partial line.
    if ends_within_a_line(&mut file).map_err(failed)? {
        file.write_all(b"\n").map_err(failed)?;
    }
    Ok(file)
}

fn ends_within_a_line(file: &mut File) -> io::Result<bool> {
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok(last != [b'\n'])
}
