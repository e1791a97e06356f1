use std::{
    fs::File,
    io,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
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

/// The lines say whom this host talks to: their readers are the owner and a group.
const MODE: u32 = 0o640;

/// Error of opening the file for the lines.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A link that could lead anywhere.
    #[error("cannot write lines to {0}: it is a symbolic link, which is not followed")]
    Link(PathBuf),
    /// A FIFO, a device or a folder.
    #[error(
        "cannot write lines to {0}: not a regular file; for a pipe or device redirect stdout to it"
    )]
    NotRegular(PathBuf),
    /// Its folder belongs to another user.
    #[error(
        "SIGHUP will not open {0} anew: this user may not write to its folder, and the capability to do so is given up: {1}"
    )]
    Folder(PathBuf, io::Error),
    /// Anything else.
    #[error("cannot write lines to {0}")]
    Failed(PathBuf, #[source] io::Error),
}

/// Destination of the lines: stdout, or a file that can be opened anew.
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

    /// Finds out whether the file can be opened anew, with the rights that are left.
    ///
    /// # Errors
    /// When its folder cannot be written to.
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

    /// Words for messages.
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

    /// Returns true for an error of a write whose reader has gone: a closed pipe or socket, or a
    /// terminal that is gone.
    pub(super) fn is_closed_by(&self, error: &io::Error) -> bool {
        if super::is_closed(error) {
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
        let end = end.saturating_sub(len as u64);
        self.file.set_len(end)?;
        // Without O_APPEND the next write would leave a hole.
        self.file.seek(SeekFrom::Start(end)).map(drop)
    }

    /// Returns true for a file with a path, which can be opened anew.
    pub(super) fn has_path(&self) -> bool {
        self.path.is_some()
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

fn open(path: &Path) -> Result<File, OpenError> {
    let failed = |error: io::Error| match error.raw_os_error() {
        Some(libc::ELOOP) => OpenError::Link(path.to_owned()),
        // A FIFO without a reader, a socket.
        Some(libc::ENXIO) => OpenError::NotRegular(path.to_owned()),
        _ => OpenError::Failed(path.to_owned(), error),
    };
    // O_NONBLOCK: a FIFO is not waited for. A regular file does not know it.
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
    // One that was killed on a full disk has left half a line.
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
