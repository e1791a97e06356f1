//! Capabilities of the terminal on stdout.

use std::{
    env,
    ffi::OsStr,
    io::{self, IsTerminal as _},
};

use terminal_size::{Width, terminal_size_of};

use super::Text;

/// Width of a terminal that reports none, such as a serial console, in columns.
const WIDTH_UNKNOWN: u16 = 80;

impl Text {
    /// Creates text for stdout: with a terminal's width and colours, otherwise the default.
    #[must_use]
    pub fn for_stdout() -> Self {
        if !io::stdout().is_terminal() {
            return Self::default();
        }
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        let colour = set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        Self {
            ask_width: Some(width_of_stdout),
            ..Self::for_terminal(width_of_stdout(), colour, has_utf8(locale.as_deref()))
        }
    }
}

/// Queries the width of the terminal on stdout (`TIOCGWINSZ`).
fn width_of_stdout() -> Option<u16> {
    match terminal_size_of(io::stdout()) {
        Some((Width(width), _)) => Some(width),
        None => Some(WIDTH_UNKNOWN),
    }
}

/// Returns false only for a locale of plain ASCII. Without a locale, as in many containers,
/// terminals still show UTF-8.
fn has_utf8(locale: Option<&OsStr>) -> bool {
    locale.is_none_or(|locale| locale != "C" && locale != "POSIX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plain_locale_is_ascii() {
        for (locale, utf8) in [
            (None, true),
            (Some("C"), false),
            (Some("POSIX"), false),
            (Some("C.UTF-8"), true),
            (Some("de_DE.UTF-8"), true),
        ] {
            assert_eq!(has_utf8(locale.map(OsStr::new)), utf8, "{locale:?}");
        }
    }
}
