use std::{
    fs::File,
    io::{self, ErrorKind, Seek as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The lines say whom this host talks to: their readers are the owner and a group.
const MODE: u32 = 0o640;

/// Why a file cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A link that could lead anywhere.
    #[error("cannot write lines to {0}: it is a symbolic link, and none is followed")]
    Link(PathBuf),
    /// A FIFO, a device or a folder.
    #[error(
        "cannot write lines to {0}: not a regular file; a pipe or device is written to by stdout"
    )]
    NotRegular(PathBuf),
    /// Anything else.
    #[error("cannot write lines to {0}")]
    Failed(PathBuf, #[source] io::Error),
}

/// Where lines are written to: stdout, or a file that can be opened anew.
#[derive(Debug)]
pub struct Destination {
    file: File,
    /// Path of a file that is opened anew on request.
    path: Option<PathBuf>,
    is_regular: bool,
}

impl Destination {
    /// Standard output, whatever that is.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn stdout() -> io::Result<Self> {
        Self::open_file(io::stdout().as_fd().try_clone_to_owned()?.into())
    }

    /// A file, a pipe, or anything else that is open for writing.
    ///
    /// # Errors
    /// When its kind cannot be told (`fstat`).
    pub fn open_file(file: File) -> io::Result<Self> {
        Ok(Self {
            is_regular: file.metadata()?.is_file(),
            file,
            path: None,
        })
    }

    /// The regular file at this path, which is made with mode 0640 where there is none, and
    /// appended to.
    ///
    /// # Errors
    /// When it is something else, or cannot be opened.
    pub fn file(path: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            file: open(path)?,
            path: Some(path.to_owned()),
            is_regular: true,
        })
    }

    /// Words for messages.
    pub(super) fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "stdout".to_owned(),
        }
    }

    /// Whether a failed write may succeed later, as after a full disk.
    pub(super) fn may_recover(&self) -> bool {
        self.is_regular
    }

    /// Whether this error says that nobody reads any more: a closed pipe or socket, or a
    /// terminal that is gone.
    pub(super) fn is_closed_by(&self, error: &io::Error) -> bool {
        let kind = error.kind();
        if matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) {
            return true;
        }
        let gone = matches!(error.raw_os_error(), Some(libc::EIO | libc::ENXIO));
        let kind = self.file.metadata().map(|meta| meta.file_type());
        gone && kind.is_ok_and(|kind| kind.is_char_device())
    }

    /// Writes as much as the destination takes now.
    ///
    /// # Errors
    /// As for `write(2)`; a regular file that takes nothing is `StorageFull`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write(bytes) {
            Ok(0) if !bytes.is_empty() => Err(ErrorKind::StorageFull.into()),
            done => done,
        }
    }

    /// Waits until a pipe that is not blocking takes more, though not for ever.
    pub(super) fn wait_writable(&self) {
        const AT_MOST: Duration = Duration::from_secs(1);
        let mut polled = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        // An error is the next write's as well.
        let _ = poll(
            &mut polled,
            PollTimeout::try_from(AT_MOST).unwrap_or(PollTimeout::MAX),
        );
    }

    /// Takes back the last `len` bytes, the beginning of a line, if nothing was written
    /// after them.
    ///
    /// # Errors
    /// When it cannot be told, or the file cannot be cut.
    pub(super) fn cut(&mut self, len: usize) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        // O_APPEND moves the position to the end of what was written.
        if !self.is_regular || self.file.stream_position()? != end {
            return Err(ErrorKind::Unsupported.into());
        }
        self.file.set_len(end.saturating_sub(len as u64))
    }

    /// Opens the file anew, after a rotation has renamed it. The old one is kept where that
    /// fails. Anything but a file with a path stays as it is.
    ///
    /// # Errors
    /// As for [`file`](Self::file).
    pub(super) fn reopen(&mut self) -> Result<(), OpenError> {
        if let Some(path) = &self.path {
            self.file = open(path)?;
        }
        Ok(())
    }
}

impl AsFd for Destination {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open(path: &Path) -> Result<File, OpenError> {
    let failed = |error: io::Error| match error.raw_os_error() {
        Some(libc::ELOOP) => OpenError::Link(path.to_owned()),
        // A FIFO without a reader, a socket.
        Some(libc::ENXIO) => OpenError::NotRegular(path.to_owned()),
        _ => OpenError::Failed(path.to_owned(), error),
    };
    // O_NONBLOCK: a FIFO is not waited for. A regular file does not know it.
    let file = File::options()
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(OpenError::NotRegular(path.to_owned()));
    }
    Ok(file)
}
