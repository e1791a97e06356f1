//! Sysctls for ephemeral ports, in the calling thread's network namespace.

use super::port_range::PortSet;
use crate::sys::proc_file;

/// Reads `ip_local_port_range`.
pub(crate) fn port_range() -> Option<(u16, u16)> {
    let text = read("ip_local_port_range")?;
    let mut bounds = text.split_ascii_whitespace().map(str::parse);
    let (low, high) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
    (low <= high).then_some((low, high))
}

/// Reads `ip_local_reserved_ports`.
pub(crate) fn reserved_ports() -> Option<String> {
    Some(read("ip_local_reserved_ports")?.trim().to_owned())
}

/// Reads `tcp_tw_reuse`.
pub(crate) fn tw_reuse() -> Option<u8> {
    read("tcp_tw_reuse")?.trim().parse().ok()
}

/// Reads the time in `TIME_WAIT` before a port may be reused, in milliseconds. `None` if reuse is
/// impossible because TCP timestamps are off. Before Linux 6.14 there is no such sysctl, and the
/// time is at most one second.
pub(crate) fn tw_reuse_after_ms() -> Option<u32> {
    let timestamps: u8 = read("tcp_timestamps")?.trim().parse().ok()?;
    let delay = read("tcp_tw_reuse_delay").and_then(|delay| delay.trim().parse().ok());
    (timestamps != 0).then(|| delay.unwrap_or(1000))
}

/// Reads a sysctl in the namespace of the calling thread: /proc/sys/net shows that one.
fn read(name: &str) -> Option<String> {
    proc_file::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()
}

/// Parses a list of ports and ranges, such as `1,5-7`.
pub(crate) fn ports(text: &str) -> Option<PortSet> {
    let mut ports = PortSet::default();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        ports.insert(low.parse().ok()?, high.parse().ok()?);
    }
    Some(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports() {
        let in_list = |list| ports(list).map(|ports| ports.iter().collect::<Vec<_>>());
        assert_eq!(in_list("\n"), Some(vec![]));
        assert_eq!(in_list("1,5-7\n"), Some(vec![1, 5, 6, 7]));
        assert_eq!(in_list("63-64,65535\n"), Some(vec![63, 64, 65535]));
        assert_eq!(in_list("x"), None);
        assert!(port_range().is_some() && tw_reuse().is_some());
    }
}
