//! Header: host, hooks, gaps in coverage, and the names of the columns.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{
    page::{RowWriter, Style},
    rows::Rows,
};
use crate::output::event::{Coverage, Start};

impl Rows {
    /// Writes the header.
    pub(super) fn header(&self, start: &Start, host: &str, now: Timestamp, out: &mut Vec<u8>) {
        let mut row = RowWriter::new(out, &self.page);
        let Start {
            version,
            kernel,
            tier,
            hooks,
            ..
        } = start;
        let attached = hooks.iter().filter(|hook| hook.attached).count();
        row.styled(2, &format!("conntrace {version}"), Style::Bold);
        row.words(
            2,
            &format!(
                "on {host}, kernel {kernel}: {tier} tier, {attached} of {} hooks, from {}",
                hooks.len(),
                self.time.date(now),
            ),
        );
        row.end();
        let mut row = RowWriter::new(out, &self.page);
        let unseen = unseen(start.coverage);
        if unseen.is_empty() {
            row.words(2, "every kind of ending is seen");
        } else {
            row.styled(2, "not seen:", Style::Yellow);
            row.words(2, &unseen);
            row.words(2, "(see conntrace doctor)");
        }
        row.end();
        out.push(b'\n');
        self.heads(out);
    }
}

/// Lists the kinds of endings that are not seen, in words.
fn unseen(coverage: Coverage) -> String {
    // Destructured in full, so that a new key cannot be missed.
    let Coverage {
        established,
        rst,
        kernel_timeout,
        app_timeout,
        port_exhausted,
        tuple_in_use,
        aborted,
        stall,
        icmp,
        local_drop,
        drops_elsewhere,
        translations,
        icmp6_detail,
        no_route,
        local_denial,
        bind_exhausted,
    } = coverage;
    let mut words = String::new();
    for (seen, what) in [
        (established, "completed handshakes"),
        (rst, "resets"),
        (kernel_timeout, "timeouts of the kernel"),
        (app_timeout, "timeouts of applications"),
        (port_exhausted, "exhausted ports"),
        (tuple_in_use, "addresses in use"),
        (aborted, "killed sockets"),
        (stall, "stalls"),
        (icmp, "ICMP errors"),
        (local_drop, "packets dropped by this host"),
        (drops_elsewhere, "packets dropped in other namespaces"),
        (translations, "translated destinations"),
        (icmp6_detail, "who sent an ICMPv6 error"),
        (no_route, "attempts without a route"),
        (local_denial, "denials by this host"),
        (bind_exhausted, "binds without a free port"),
    ] {
        if !seen {
            let before = if words.is_empty() { "" } else { ", " };
            let _ = write!(words, "{before}{what}");
        }
    }
    words
}
