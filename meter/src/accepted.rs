//! Accepting side alone: the far client is packets written by hand to a TUN device.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
};

use anyhow::{Result, ensure};
use conntrace_testnet::tunnel;
use etherparse::{IpSlice, PacketBuilder, TcpHeader, TcpSlice};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const PORT: u16 = 7000;
/// Range of the far client's ports.
const FAR_PORTS: [u16; 2] = [1025, 60_000];
const HOP_LIMIT: u8 = 64;
/// Sequence number of every SYN of the far client.
const SEQUENCE: u32 = 1000;

/// Far host that opens and closes connections, and the listener here.
pub(crate) struct FarClient {
    device: File,
    listener: TcpListener,
    port: u16,
}

impl FarClient {
    pub(crate) fn new() -> Result<Self> {
        let device = tunnel(LOCAL)?;
        fcntl(&device, FcntlArg::F_SETFL(OFlag::empty()))?;
        Ok(Self {
            device,
            listener: TcpListener::bind((LOCAL, PORT))?,
            port: FAR_PORTS[0],
        })
    }

    /// Handshake, close by the far client, then by the socket that was accepted.
    pub(crate) fn connects_and_closes(&mut self) -> Result<()> {
        let [first, last] = FAR_PORTS;
        self.port = if self.port >= last {
            first
        } else {
            self.port + 1
        };
        self.send(SEQUENCE, None, |segment| segment.syn = true)?;
        let theirs = self.receive(|segment| segment.syn() && segment.ack())?;
        let next = theirs.wrapping_add(1);
        self.send(SEQUENCE + 1, Some(next), |_| {})?;
        let (mut accepted, _) = self.listener.accept()?;
        self.send(SEQUENCE + 1, Some(next), |segment| segment.fin = true)?;
        ensure!(accepted.read(&mut [0])? == 0, "the end of the stream");
        drop(accepted);
        self.receive(|segment| segment.fin() && segment.ack())?;
        self.send(SEQUENCE + 2, Some(next.wrapping_add(1)), |_| {})
    }

    fn send(
        &mut self,
        sequence: u32,
        acknowledged: Option<u32>,
        flags: impl FnOnce(&mut TcpHeader),
    ) -> Result<()> {
        let mut segment = TcpHeader::new(self.port, PORT, sequence, u16::MAX);
        segment.ack = acknowledged.is_some();
        segment.acknowledgment_number = acknowledged.unwrap_or(0);
        flags(&mut segment);
        let builder = PacketBuilder::ipv4(FAR.octets(), LOCAL.octets(), HOP_LIMIT);
        let builder = builder.tcp_header(segment);
        let mut packet = Vec::with_capacity(builder.size(0));
        builder.write(&mut packet, &[])?;
        Ok(self.device.write_all(&packet)?)
    }

    /// Waits for a segment to the far client's port, and returns its sequence number.
    fn receive(&mut self, is_wanted: impl Fn(&TcpSlice<'_>) -> bool) -> Result<u32> {
        let mut packet = [0; 2048];
        loop {
            let length = self.device.read(&mut packet)?;
            let packet = packet.get(..length).unwrap_or_default();
            // IPv6 asks for routers on this device too.
            let Ok(ip) = IpSlice::from_slice(packet) else {
                continue;
            };
            if let Ok(segment) = TcpSlice::from_slice(ip.payload().payload)
                && segment.destination_port() == self.port
                && is_wanted(&segment)
            {
                return Ok(segment.sequence_number());
            }
        }
    }
}
