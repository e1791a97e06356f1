//! What the terminal on stdout is able to show.

use std::{env, ffi::OsStr, io, io::IsTerminal as _};

use terminal_size::{Width, terminal_size_of};

use super::Text;

/// Width of a terminal that tells none, such as a serial console.
const WIDTH_UNKNOWN: u16 = 80;

impl Text {
    /// Text that fits stdout: on a terminal of its width and with its colours, elsewhere as
    /// by default.
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

/// Width of the terminal on stdout now (`TIOCGWINSZ`).
fn width_of_stdout() -> Option<u16> {
    match terminal_size_of(io::stdout()) {
        Some((Width(width), _)) => Some(width),
        None => Some(WIDTH_UNKNOWN),
    }
}

/// Only a locale that was set to plain ASCII is taken for that: where none is set, as in
/// many containers, terminals show UTF-8 all the same.
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
