//! Reads files of /proc and /sys as a whole.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Size of the first buffer in bytes. Most sysctls fit.
const FIRST_LEN: usize = 32 << 10;
/// Factor by which each next buffer is larger. The second holds any list of reserved ports.
const GROWTH: usize = 8;
/// Maximum size of a buffer in bytes. The kernel refuses 4 MiB (`proc_sys_call_handler`).
const LEN_MAX: usize = 2 << 20;

/// Reads the whole file as bytes.
///
/// # Errors
/// When the file cannot be read, or the answer to one read would exceed [`LEN_MAX`].
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    whole(|| File::open(&path))
}

/// Reads the whole file as text.
///
/// # Errors
/// When [`read`] fails, or the file is not UTF-8.
pub(crate) fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads a whole file that `open` opens, several times if needed.
///
/// A sysctl may answer only the first read of an open file (`proc_do_large_bitmap`), and fills
/// the buffer if the answer is truncated. The file is then reopened and read with a larger
/// buffer. Other files answer in pieces (`seq_read_iter`), and are read to the end.
fn whole<R: Read>(open: impl Fn() -> io::Result<R>) -> io::Result<Vec<u8>> {
    let mut len = FIRST_LEN;
    while len <= LEN_MAX {
        let mut file = open()?;
        let mut bytes = vec![0; len];
        let first = file.read(&mut bytes)?;
        if first < len {
            bytes.truncate(first);
            file.read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
        len *= GROWTH;
    }
    Err(io::ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Reader that answers only the first read, with as much as fits.
    struct FirstRead<'a>(&'a [u8]);

    impl Read for FirstRead<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let answer = std::mem::take(&mut self.0);
            let len = answer.len().min(buffer.len());
            buffer[..len].copy_from_slice(&answer[..len]);
            Ok(len)
        }
    }

    /// Reader that answers each read with at most 7 bytes.
    struct Pieces<'a>(&'a [u8]);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len().min(7);
            self.0.read(&mut buffer[..len])
        }
    }

    fn text(len: usize) -> Vec<u8> {
        (b'a'..=b'z').cycle().take(len).collect()
    }

    #[test]
    fn what_answers_only_the_first_read_is_read_whole() {
        for len in [0, 33, FIRST_LEN - 1, FIRST_LEN, FIRST_LEN * GROWTH - 1] {
            let text = text(len);
            let opened = Cell::new(0);
            let read = whole(|| {
                opened.set(opened.get() + 1);
                Ok(FirstRead(&text))
            });
            assert_eq!(read.unwrap(), text, "{len} bytes");
            assert_eq!(opened.get(), 1 + usize::from(len >= FIRST_LEN));
        }
        let endless = text(LEN_MAX);
        let error = whole(|| Ok(FirstRead(&endless))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_answers_in_pieces_is_read_to_its_end() {
        let text = text(100_000);
        assert_eq!(whole(|| Ok(Pieces(&text))).unwrap(), text);
    }
}
