//! A socket that goes from one process to another (`SCM_RIGHTS`).

use std::{
    io::{IoSlice, IoSliceMut, stdin},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg},
};
use socket2::Socket;

/// Starts a process that [`receive`]s this socket.
pub fn pass_on(socket: &Socket, mut receiver: Command) -> Child {
    let (ours, theirs) = UnixStream::pair().unwrap();
    receiver.stdin(Stdio::from(OwnedFd::from(theirs)));
    let receiver = receiver.spawn().unwrap();
    let descriptors = [socket.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&descriptors)];
    let data = [IoSlice::new(b"x")];
    let none = MsgFlags::empty();
    sendmsg::<UnixAddr>(ours.as_raw_fd(), &data, &message, none, None).unwrap();
    receiver
}

/// The receiver's side: the socket that its standard input brings.
pub fn receive() -> Socket {
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([RawFd; 1]);
    let input = stdin().as_raw_fd();
    let message =
        recvmsg::<UnixAddr>(input, &mut data, Some(&mut space), MsgFlags::empty()).unwrap();
    let Some(ControlMessageOwned::ScmRights(descriptors)) = message.cmsgs().unwrap().next() else {
        panic!("no descriptor came");
    };
    // SAFETY: the kernel has just made the descriptor, for nobody but us.
    #[expect(unsafe_code, reason = "nix hands descriptors out as numbers")]
    unsafe {
        Socket::from_raw_fd(descriptors[0])
    }
}
