//! The line that says how far connections to one destination use up the local ports.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Endpoint;
use crate::output::message;

/// Connections from one address of this host to one destination use up the local ports,
/// or no longer do.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PortPressure {
    /// Sentence for a person.
    pub message: String,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local address of the connections. Its port is null: each has another.
    pub local: Endpoint,
    /// Destination of the connections.
    pub remote: Endpoint,
    /// Range of ephemeral ports, first and last (`ip_local_port_range`).
    pub range: (u16, u16),
    /// Number of ports of the range that `ip_local_reserved_ports` leaves out.
    pub reserved: u32,
    /// Number of ports of the range that connections to the destination use.
    pub used: u32,
    /// Number of ports in `TIME_WAIT` that the next connection may have (`tcp_tw_reuse`),
    /// which `used` does not count.
    pub reusable: u32,
    /// Share of `used`, in percent of the range without the reserved ports.
    pub percent: u32,
    /// Highest of 50, 80 and 95 percent that was reached; 0 when use has fallen
    /// back below 40.
    pub level: u8,
    /// Number of sockets to the destination by state, those on ports outside the range included.
    pub states: States,
}

/// What connections from one address to one destination use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortUse {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Our address.
    pub local: IpAddr,
    /// The destination.
    pub remote: SocketAddr,
    /// `ip_local_port_range`.
    pub range: (u16, u16),
    /// Ports of the range that are reserved.
    pub reserved: u32,
    /// Ports of the range in use.
    pub used: u32,
    /// Those in `TIME_WAIT` that the next connection may have.
    pub reusable: u32,
    /// The sockets.
    pub states: States,
}

impl PortUse {
    /// How many ports there are to use.
    #[must_use]
    pub fn available(&self) -> u32 {
        let (low, high) = self.range;
        let ports = (u32::from(high) + 1).saturating_sub(u32::from(low));
        ports.saturating_sub(self.reserved)
    }

    /// How much of them is used: whole percent, and all of them where there are none.
    #[must_use]
    pub fn percent(&self) -> u32 {
        let hundredths = u64::from(self.used) * 100;
        let percent = hundredths.checked_div(self.available().into());
        percent.map_or(100, |percent| u32::try_from(percent).unwrap_or(u32::MAX))
    }
}

macro_rules! states {
    ($($number:literal $name:ident: $shown:literal,)+) => {
        /// Number of sockets by state.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[expect(missing_docs, reason = "they are named as the kernel names them")]
        pub struct States {
            $(pub $name: u32,)+
        }

        impl States {
            /// Counts a socket in this state (`net/tcp_states.h`).
            pub(crate) fn count(&mut self, state: u8) {
                match state {
                    $($number => self.$name += 1,)+
                    // A server's half-open ones, and what is bound or closed: they
                    // have no destination, or not this one.
                    _ => {}
                }
            }

            /// Those that there are any of, as `ss` names them, most first.
            pub(crate) fn present(&self) -> impl Iterator<Item = (&'static str, u32)> {
                let mut all = [$(($shown, self.$name)),+];
                all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
                all.into_iter().filter(|(_, count)| *count > 0)
            }
        }
    };
}

states! {
    1 established: "ESTABLISHED",
    2 syn_sent: "SYN_SENT",
    3 syn_recv: "SYN_RECV",
    4 fin_wait1: "FIN_WAIT1",
    5 fin_wait2: "FIN_WAIT2",
    6 time_wait: "TIME_WAIT",
    8 close_wait: "CLOSE_WAIT",
    9 last_ack: "LAST_ACK",
    11 closing: "CLOSING",
}

/// The line's content.
#[must_use]
pub fn port_pressure(level: u8, found: &PortUse) -> PortPressure {
    PortPressure {
        message: message::port_pressure(level, found),
        netns: found.netns,
        local: Endpoint {
            addr: Some(found.local),
            port: None,
        },
        remote: Endpoint {
            addr: Some(found.remote.ip()),
            port: Some(found.remote.port()),
        },
        range: found.range,
        reserved: found.reserved,
        used: found.used,
        reusable: found.reusable,
        percent: found.percent(),
        level,
        states: found.states,
    }
}
