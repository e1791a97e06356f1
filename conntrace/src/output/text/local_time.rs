//! Local time of day, formatted once per second.

use std::fmt::Write as _;

use jiff::{Timestamp, tz::TimeZone};

/// Formatter of the time of day in one time zone.
#[derive(Debug)]
pub(super) struct LocalTime {
    zone: TimeZone,
    /// Second since the epoch for which `text` is formatted.
    second: Option<i64>,
    text: String,
}

impl LocalTime {
    pub(super) fn of(zone: TimeZone) -> Self {
        Self {
            zone,
            second: None,
            text: String::new(),
        }
    }

    /// Sets the time. Returns true if its second differs from the last one.
    pub(super) fn set(&mut self, now: Timestamp) -> bool {
        let second = now.as_second();
        if self.second == Some(second) {
            return false;
        }
        self.second = Some(second);
        self.text.clear();
        let local = self.zone.to_datetime(now);
        let (hour, minute, second) = (local.hour(), local.minute(), local.second());
        let _ = write!(self.text, "{hour:02}:{minute:02}:{second:02}");
        true
    }

    /// Returns the time of day that was set, such as `08:30:00`.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Formats a time such as `2026-11-22 08:30:00 UTC`.
    pub(super) fn date(&self, moment: Timestamp) -> String {
        let local = moment.to_zoned(self.zone.clone());
        local.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
    }
}
