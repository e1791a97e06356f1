//! The system calls of a 32-bit process, made by this one: `int 0x80` enters the
//! kernel by the table a 32-bit process uses.
#![expect(unsafe_code, reason = "a system call of another ABI is assembly")]

use std::{net::SocketAddrV4, num::NonZeroUsize, os::fd::AsRawFd as _};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use socket2::{SockAddr, Socket};

/// Numbers of `connect` and `socketcall` in that table, and the number of connect within the
/// latter.
const CONNECT: i32 = 362;
const SOCKETCALL: i32 = 102;
const SYS_CONNECT: usize = 3;
/// Bytes for the arguments and an address.
const ROOM: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Offset of the address, after the three arguments.
const ADDRESS_AT: usize = 16;

/// Ways in which a 32-bit process calls connect.
#[derive(Debug, Clone, Copy)]
pub enum Ia32 {
    /// Through the connect system call itself.
    Connect,
    /// Through `socketcall`, as old C libraries do.
    Socketcall,
}

/// Connects as a 32-bit process does; returns the errno, or 0.
pub fn connect_as_ia32(by: Ia32, socket: &Socket, remote: SocketAddrV4) -> i32 {
    let address = SockAddr::from(remote);
    let len = usize::try_from(address.len()).unwrap();
    let fd = usize::try_from(socket.as_raw_fd()).unwrap();
    // SAFETY: a new mapping where nothing was, which only this function knows.
    let memory = unsafe {
        mmap_anonymous(
            None,
            ROOM,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_PRIVATE | low_memory(),
        )
    }
    .unwrap();
    let at = memory.addr().get() + ADDRESS_AT;
    let arguments = [fd, at, len].map(|it| u32::try_from(it).unwrap());
    // SAFETY: the room is larger than the arguments and an IPv4 address, and what
    // is written is plain bytes.
    unsafe {
        memory.cast::<[u32; 3]>().write(arguments);
        let room = memory.cast::<u8>().add(ADDRESS_AT).as_ptr();
        room.copy_from(address.as_ptr().cast::<u8>(), len);
    }
    let result = match by {
        Ia32::Connect => system_call(CONNECT, [fd, at, len]),
        Ia32::Socketcall => system_call(SOCKETCALL, [SYS_CONNECT, memory.addr().get(), 0]),
    };
    // SAFETY: the kernel keeps no pointer to it.
    unsafe { munmap(memory, ROOM.get()) }.unwrap();
    -result
}

/// Mapping flags for memory within reach of a 32-bit process's pointers.
fn low_memory() -> MapFlags {
    #[cfg(target_arch = "x86_64")]
    return MapFlags::MAP_32BIT;
    #[cfg(not(target_arch = "x86_64"))]
    MapFlags::empty()
}

/// Returns true if the kernel runs 32-bit processes, which it tries with getpid. A kernel without
/// that entry point raises SIGSEGV.
pub fn has_ia32() -> bool {
    const GETPID: i32 = 20;
    let pid = system_call(GETPID, [0; 3]);
    u32::try_from(pid).is_ok_and(|pid| pid == std::process::id())
}

#[cfg(target_arch = "x86_64")]
fn system_call(number: i32, [first, second, third]: [usize; 3]) -> i32 {
    let result;
    // SAFETY: the caller's arguments are of a call that writes no memory of ours.
    // rbx is the compiler's own and put back; the 32-bit entry may clear r8 to r11.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) first => _,
            inlateout("eax") number => result,
            in("rcx") second,
            in("rdx") third,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Other architectures have no such way in.
#[cfg(not(target_arch = "x86_64"))]
fn system_call(_number: i32, _arguments: [usize; 3]) -> i32 {
    -(nix::errno::Errno::ENOSYS as i32)
}
