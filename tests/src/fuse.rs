//! Filesystem (FUSE) with one file, whose closing waits until the test answers.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    os::fd::AsRawFd as _,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, makedev, mknod},
};

use crate::{is_root, mounts::leave_mounts};

/// Number of the device `/dev/fuse`.
const DEVICE: (u64, u64) = (10, 229);
/// Name of the file. Every name leads to it.
const FILE: &str = "file";
/// Size of the buffer for a request. The kernel asks for 8 KiB at least.
const REQUEST_MAX: usize = 64 * 1024;
/// Length of `struct fuse_out_header`.
const OUT_HEADER_LEN: usize = 16;
/// Inode number of the root directory.
const ROOT: u64 = 1;

/// Returns the missing requirement if this kernel has no FUSE.
pub fn lacks_fuse() -> Option<&'static str> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap();
    let has = known.lines().any(|line| line == "nodev\tfuse");
    (is_root() && !has).then_some("needs FUSE in the kernel (modprobe fuse)")
}

/// Makes a device node like `/dev/fuse` that every user may open.
pub fn make_fuse_device(at: &Path) {
    let device = makedev(DEVICE.0, DEVICE.1);
    mknod(at, SFlag::S_IFCHR, Mode::empty(), device).unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(at, all).unwrap();
}

/// Mounted filesystem. A process that closes its file waits until [`answer`](Self::answer).
pub struct HeldFile {
    device: Arc<File>,
    unanswered: Arc<Mutex<Vec<u64>>>,
    closings: Receiver<()>,
}

impl HeldFile {
    /// Mounts the filesystem at this directory, for the calling process and its children only. The
    /// process needs a user namespace in which it is root.
    pub fn mount(device: &Path, at: &Path) -> Self {
        leave_mounts().unwrap();
        let device = File::options().read(true).write(true).open(device);
        let device = Arc::new(device.unwrap());
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("fuse"), at, Some("fuse"), flags, Some(&*options)).unwrap();
        let (sender, closings) = mpsc::channel();
        let held = Self {
            device,
            unanswered: Arc::default(),
            closings,
        };
        let (device, unanswered) = (Arc::clone(&held.device), Arc::clone(&held.unanswered));
        thread::spawn(move || serve(&device, &unanswered, &sender));
        held
    }

    /// Opens the file of a filesystem that is mounted at this directory. The file is closed by
    /// exec.
    pub fn open(at: &Path) -> File {
        File::open(at.join(FILE)).unwrap()
    }

    /// Waits until a process is held by closing the file.
    pub fn wait_for_closing(&self) {
        self.closings.recv().unwrap();
    }

    /// Lets the processes go on that have closed the file.
    pub fn answer(&self) {
        for unique in self.unanswered.lock().unwrap().drain(..) {
            reply(&self.device, unique, 0, &[]);
        }
    }
}

/// Answers requests until the device is closed; those that close the file are kept.
fn serve(mut device: &File, unanswered: &Mutex<Vec<u64>>, closings: &Sender<()>) {
    let mut request = vec![0; REQUEST_MAX];
    loop {
        match device.read(&mut request) {
            Ok(_) => {}
            // A request was interrupted before it was read.
            Err(error) if [ErrorKind::Interrupted, ErrorKind::NotFound].contains(&error.kind()) => {
                continue;
            }
            Err(_) => return,
        }
        // struct fuse_in_header: length, opcode, number of the request, inode number.
        let opcode = u32::from_ne_bytes(request[4..8].try_into().unwrap());
        let unique = u64::from_ne_bytes(request[8..16].try_into().unwrap());
        let inode = u64::from_ne_bytes(request[16..24].try_into().unwrap());
        match opcode {
            // FORGET, INTERRUPT, BATCH_FORGET: nobody waits for an answer.
            2 | 36 | 42 => {}
            // FLUSH
            25 => {
                unanswered.lock().unwrap().push(unique);
                let _ = closings.send(());
            }
            // LOOKUP, GETATTR, OPEN, RELEASE, INIT, OPENDIR
            1 => reply(device, unique, 0, &entry()),
            3 => reply(device, unique, 0, &attributes_of(inode)),
            14 | 27 => reply(device, unique, 0, &[0; 16]),
            18 => reply(device, unique, 0, &[]),
            26 => reply(device, unique, 0, &init()),
            _ => reply(device, unique, -(Errno::ENOSYS as i32), &[]),
        }
    }
}

/// Writes an answer: `struct fuse_out_header` and its body.
fn reply(mut device: &File, unique: u64, error: i32, body: &[u8]) {
    let len = u32::try_from(OUT_HEADER_LEN + body.len()).unwrap();
    let parts = [
        &len.to_ne_bytes()[..],
        &error.to_ne_bytes(),
        &unique.to_ne_bytes(),
        body,
    ];
    // Fails if whoever asked has been killed.
    let _ = device.write(&parts.concat());
}

/// Returns a `struct fuse_init_out` of version 7.31.
fn init() -> Vec<u8> {
    let mut init = vec![0; 64];
    init[..4].copy_from_slice(&7_u32.to_ne_bytes());
    init[4..8].copy_from_slice(&31_u32.to_ne_bytes());
    // max_write
    init[20..24].copy_from_slice(&4096_u32.to_ne_bytes());
    init
}

/// Returns the `struct fuse_entry_out` of the file, which is never cached.
fn entry() -> Vec<u8> {
    let file = ROOT + 1;
    let head = [file, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
    [head, attributes(file)].concat()
}

/// Returns a `struct fuse_attr_out` that is never cached.
fn attributes_of(inode: u64) -> Vec<u8> {
    [vec![0; 16], attributes(inode)].concat()
}

/// Returns a `struct fuse_attr`.
fn attributes(inode: u64) -> Vec<u8> {
    let mode = if inode == ROOT {
        SFlag::S_IFDIR.bits() | 0o755
    } else {
        SFlag::S_IFREG.bits() | 0o644
    };
    let wide = [inode, 0, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
    // Nanoseconds, mode, links, user, group, device, block size, flags.
    let narrow = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes);
    [wide, narrow.concat()].concat()
}
