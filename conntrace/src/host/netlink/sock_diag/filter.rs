//! Selection of sockets by the kernel: `struct inet_diag_req_v2`, and the bytecode of
//! `inet_diag_bc_run` where a port or address is not enough.

use std::net::IpAddr;

use super::{AF_INET, AF_INET6};
use crate::host::netlink::push;

const IPPROTO_TCP: u8 = 6;
/// Attribute `INET_DIAG_REQ_BYTECODE`.
const BYTECODE: u16 = 1;
/// Extension `INET_DIAG_INFO`, as a bit of `idiag_ext`.
const WITH_INFO: u8 = 1 << 1;
/// Bit of the extension `INET_DIAG_SKMEMINFO`.
const MEMORY: u8 = 1 << (7 - 1);
/// Instructions `INET_DIAG_BC_JMP`, `_S_COND` and `_D_COND`.
const JUMP: u8 = 1;
const SOURCE_IS: u8 = 7;
const DESTINATION_IS: u8 = 8;
/// Size of `struct inet_diag_bc_op`, and of `struct inet_diag_hostcond` without an address.
const OP_LEN: usize = 4;
const CONDITION_LEN: usize = 8;
/// Port of a condition that any port meets.
const ANY_PORT: i32 = -1;

/// Sockets to ask for.
#[derive(Debug, Clone, Default)]
pub(super) struct SocketFilter {
    states: u32,
    local_port: u16,
    remote_port: u16,
    ends: Option<(IpAddr, IpAddr)>,
    code: Vec<u8>,
    extensions: u8,
}

impl SocketFilter {
    /// Selects sockets in these states, a bit each.
    pub(super) fn of(states: u32) -> Self {
        Self {
            states,
            ..Self::default()
        }
    }

    pub(super) fn local_port(self, local_port: u16) -> Self {
        Self { local_port, ..self }
    }

    /// Asks for `SK_MEMINFO` as well.
    pub(super) fn with_memory(self) -> Self {
        Self {
            extensions: MEMORY,
            ..self
        }
    }

    pub(super) fn remote_port(self, remote_port: u16) -> Self {
        Self {
            remote_port,
            ..self
        }
    }

    /// Selects sockets that the bytecode accepts.
    pub(super) fn code(self, code: Vec<u8>) -> Self {
        Self { code, ..self }
    }

    /// Asks for `struct tcp_info` as well.
    pub(super) fn with_info(self) -> Self {
        Self {
            extensions: WITH_INFO,
            ..self
        }
    }

    /// Selects the one with these addresses. A dump ignores them.
    pub(super) fn exact(&self, local: IpAddr, remote: IpAddr) -> Self {
        Self {
            ends: Some((local, remote)),
            ..self.clone()
        }
    }

    /// Encodes the request for sockets of this family.
    pub(super) fn body(&self, family: u8) -> Vec<u8> {
        // The extensions, and a byte of padding.
        let mut body = vec![family, IPPROTO_TCP, self.extensions, 0];
        body.extend(self.states.to_ne_bytes());
        body.extend(self.local_port.to_be_bytes());
        body.extend(self.remote_port.to_be_bytes());
        let (local, remote) = self.ends.unzip();
        body.extend(padded(local));
        body.extend(padded(remote));
        // Any interface, and INET_DIAG_NOCOOKIE.
        body.extend(0_u32.to_ne_bytes());
        body.extend([0xff; 8]);
        if !self.code.is_empty() {
            push(&mut body, BYTECODE, &self.code);
        }
        body
    }
}

fn padded(addr: Option<IpAddr>) -> [u8; 16] {
    let mut bytes = [0; 16];
    let octets = addr.map(octets).unwrap_or_default();
    for (to, from) in bytes.iter_mut().zip(octets) {
        *to = from;
    }
    bytes
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().into(),
        IpAddr::V6(addr) => addr.octets().into(),
    }
}

/// Bytecode that accepts sockets with this remote address. A condition of IPv4 accepts v4-mapped
/// addresses of IPv6 sockets too.
pub(super) fn to(remote: IpAddr) -> Vec<u8> {
    end_is(DESTINATION_IS, remote)
}

/// Bytecode that accepts sockets with this local address, as [`to`] does.
pub(super) fn from(local: IpAddr) -> Vec<u8> {
    end_is(SOURCE_IS, local)
}

fn end_is(instruction: u8, addr: IpAddr) -> Vec<u8> {
    let octets = octets(addr);
    let family = if addr.is_ipv4() { AF_INET } else { AF_INET6 };
    let len = OP_LEN + CONDITION_LEN + octets.len();
    let mut code = op(instruction, len, len + OP_LEN);
    code.extend(condition(family, octets.len() * 8, ANY_PORT));
    code.extend(octets);
    code
}

/// Bytecode that accepts sockets on one of these local ports: a condition for each, followed by a
/// jump to the end. The last one rejects, which is a jump beyond the end.
pub(super) fn one_of(ports: &[u16]) -> Vec<u8> {
    const LEN: usize = OP_LEN + CONDITION_LEN;
    const STEP: usize = LEN + OP_LEN;
    let mut code = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let rest = (ports.len() - at) * STEP;
        let is_last = at + 1 == ports.len();
        let next = if is_last { STEP + OP_LEN } else { STEP };
        code.extend(op(SOURCE_IS, LEN, next));
        code.extend(condition(0, 0, i32::from(*port)));
        code.extend(op(JUMP, OP_LEN, rest - LEN));
    }
    code
}

/// Encodes `struct inet_diag_bc_op`: the distances to the next instruction.
fn op(code: u8, yes: usize, no: usize) -> Vec<u8> {
    // Programs are at most a few thousand bytes long.
    let (yes, no) = (
        u8::try_from(yes).unwrap_or(u8::MAX),
        u16::try_from(no).unwrap_or(u16::MAX),
    );
    let mut bytes = vec![code, yes];
    bytes.extend(no.to_ne_bytes());
    bytes
}

/// Encodes `struct inet_diag_hostcond` without the address.
fn condition(family: u8, prefix_len: usize, port: i32) -> Vec<u8> {
    let mut bytes = vec![family, u8::try_from(prefix_len).unwrap_or(u8::MAX), 0, 0];
    bytes.extend(port.to_ne_bytes());
    bytes
}
