//! Line about port pressure: connections to one destination use up the local ports.

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
    /// Local address of the connections; its port is null because each has another.
    pub local: Endpoint,
    /// Destination of the connections.
    pub remote: Endpoint,
    /// Range of ephemeral ports, first and last (`ip_local_port_range`).
    pub range: (u16, u16),
    /// Number of ports in the range that are reserved (`ip_local_reserved_ports`).
    pub reserved: u32,
    /// Number of ports in the range that connections to the destination use.
    pub used: u32,
    /// Number of ports in `TIME_WAIT` that the next connection may reuse (`tcp_tw_reuse`); not part
    /// of `used`.
    pub reusable: u32,
    /// Value of `used` in percent of the range without reserved ports.
    pub percent: u32,
    /// Highest level reached (50, 80 or 95 percent), or 0 when usage has fallen below 40.
    pub level: u8,
    /// Number of sockets to the destination by state, including ports outside the range.
    pub states: States,
}

/// Port usage of connections from one address to one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortUse {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local address of the connections.
    pub local: IpAddr,
    /// Destination of the connections.
    pub remote: SocketAddr,
    /// Range of ephemeral ports, first and last (`ip_local_port_range`).
    pub range: (u16, u16),
    /// Number of reserved ports in the range.
    pub reserved: u32,
    /// Number of ports in use in the range.
    pub used: u32,
    /// Number of ports in `TIME_WAIT` that the next connection may reuse.
    pub reusable: u32,
    /// Number of sockets by state.
    pub states: States,
}

impl PortUse {
    /// Returns the number of ports in the range that are not reserved.
    #[must_use]
    pub fn available(&self) -> u32 {
        let (low, high) = self.range;
        let ports = (u32::from(high) + 1).saturating_sub(u32::from(low));
        ports.saturating_sub(self.reserved)
    }

    /// Returns the usage in whole percent; 100 if there are no ports.
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
                    // Half-open sockets of servers, bound and closed ones: they have no
                    // destination, or another one.
                    _ => {}
                }
            }

            /// Yields the states with sockets, named as in `ss`, most frequent first.
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

/// Builds the content of a port pressure line.
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
