//! How local ports are chosen in the calling thread's namespace.

use std::{fs, ops::RangeInclusive};

/// `ip_local_port_range`.
pub(super) fn port_range() -> Option<(u16, u16)> {
    let text = read("ip_local_port_range")?;
    let mut bounds = text.split_ascii_whitespace().map(str::parse);
    let (low, high) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
    (low <= high).then_some((low, high))
}

/// `ip_local_reserved_ports`.
pub(super) fn reserved_ports() -> Option<Vec<RangeInclusive<u16>>> {
    ranges(&read("ip_local_reserved_ports")?)
}

/// `tcp_tw_reuse`.
pub(super) fn tw_reuse() -> Option<u8> {
    read("tcp_tw_reuse")?.trim().parse().ok()
}

/// How long a port must have been in `TIME_WAIT` before it can be used again; `None`
/// where it cannot, for want of timestamps. Before Linux 6.14 there is no such sysctl,
/// and it is up to a second.
pub(super) fn tw_reuse_after_ms() -> Option<u32> {
    let timestamps: u8 = read("tcp_timestamps")?.trim().parse().ok()?;
    let delay = read("tcp_tw_reuse_delay").and_then(|delay| delay.trim().parse().ok());
    (timestamps != 0).then(|| delay.unwrap_or(1000))
}

/// /proc/sys/net shows the namespace of the thread that opens it.
fn read(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()
}

/// `1,5-7`
fn ranges(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let parts = text.trim().split(',').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            Some(low.parse().ok()?..=high.parse().ok()?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports() {
        assert_eq!(ranges("\n"), Some(vec![]));
        assert_eq!(ranges("1,5-7\n"), Some(vec![1..=1, 5..=7]));
        assert_eq!(ranges("x"), None);
        assert!(port_range().is_some() && tw_reuse().is_some());
    }
}
