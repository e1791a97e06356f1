//! Layout of rows within the screen's width: cells in columns, and words that wrap.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar as _;

use crate::record::sanitize;

/// Minimum width of the layout: a narrower screen wraps lines itself.
pub(super) const WIDTH_MIN: usize = 40;

/// Column of the lines that continue a row.
pub(super) const INDENT: usize = 10;

/// Style of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    Red,
    BoldRed,
    Green,
    Yellow,
    Magenta,
    Cyan,
}

impl Style {
    /// Returns the SGR parameter of the escape sequence.
    fn sgr(self) -> &'static [u8] {
        match self {
            Self::Plain => b"0",
            Self::Bold => b"1",
            Self::Dim => b"2",
            Self::Red => b"31",
            Self::BoldRed => b"1;31",
            Self::Green => b"32",
            Self::Yellow => b"33",
            Self::Magenta => b"35",
            Self::Cyan => b"36",
        }
    }
}

/// Width and capabilities of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    /// Number of columns.
    pub(super) width: usize,
    /// True if colours are supported.
    pub(super) colour: bool,
    /// True if non-ASCII characters are supported.
    pub(super) utf8: bool,
}

impl Page {
    /// Escapes control characters, and characters that the screen cannot show.
    pub(super) fn shown<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if is_plain(text) {
            return Cow::Borrowed(text);
        }
        let visible = sanitize::visible(text);
        Cow::Owned(if self.utf8 { visible } else { ascii(&visible) })
    }

    /// Returns the mark of an omission.
    pub(super) fn ellipsis(&self) -> &'static str {
        if self.utf8 { "…" } else { "..." }
    }

    /// Shortens text to `max` columns by an omission in the middle.
    pub(super) fn shortened<'t>(&self, text: &'t str, max: usize) -> Cow<'t, str> {
        if width(text) <= max {
            return Cow::Borrowed(text);
        }
        let ellipsis = self.ellipsis();
        let room = max.saturating_sub(width(ellipsis));
        let (head, _) = split_at_width(text, room.div_ceil(2));
        let tail_len: usize = text
            .chars()
            .rev()
            .scan(room - width(head), |left, c| {
                *left = left.checked_sub(char_width(c))?;
                Some(c.len_utf8())
            })
            .sum();
        let tail = text.split_at_checked(text.len() - tail_len);
        let (_, tail) = tail.unwrap_or_default();
        Cow::Owned([head, ellipsis, tail].concat())
    }
}

/// Returns true if text consists of printable ASCII. A fold without an early exit is vectorised.
fn is_plain(text: &str) -> bool {
    let bounds = text.bytes().fold((b' ', b'~'), |(low, high), byte| {
        (low.min(byte), high.max(byte))
    });
    bounds == (b' ', b'~')
}

fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '…' => out.push_str("..."),
            c if c.is_ascii() => out.push(c),
            c => out.extend(c.escape_unicode()),
        }
    }
    out
}

/// Returns the maximum number of columns that text takes.
pub(super) fn width(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.chars().map(char_width).sum()
    }
}

fn char_width(c: char) -> usize {
    match c {
        // Turns the preceding character into an emoji, one column wider.
        '\u{fe0f}' => 1,
        c => c.width().unwrap_or(0),
    }
}

/// Splits text after at most `max` columns.
fn split_at_width(text: &str, max: usize) -> (&str, &str) {
    let mut left = max;
    let end = text.char_indices().find(|&(_, c)| {
        let rest = left.checked_sub(char_width(c));
        left = rest.unwrap_or(left);
        rest.is_none()
    });
    let at = end.map_or(text.len(), |(at, _)| at);
    text.split_at_checked(at).unwrap_or((text, ""))
}

/// Writer for the lines of one row.
pub(super) struct RowWriter<'a> {
    out: &'a mut Vec<u8>,
    page: &'a Page,
    /// Number of columns written on the current line.
    column: usize,
    /// Column of the next words, if they fit.
    next: usize,
    /// True if the next words start on a new line.
    breaks: bool,
}

impl<'a> RowWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, page: &'a Page) -> Self {
        Self {
            out,
            page,
            column: 0,
            next: 0,
            breaks: false,
        }
    }

    /// Writes a cell at its column, on the next line if the column is taken or the cell does not
    /// fit. If nothing wraps, a late cell follows directly.
    pub(super) fn cell(&mut self, at: usize, text: &str, style: Style) {
        let len = width(text);
        let passed = self.column > 0 && self.column >= at;
        if self.page.width == usize::MAX {
            let at = if passed { self.column + 1 } else { at };
            return self.put(at, text, len, style);
        }
        if self.column > 0 && (passed || !self.fits(at, len)) {
            self.line_feed();
        }
        let at = if self.fits(at, len) {
            at
        } else {
            INDENT.min(self.page.width.saturating_sub(len))
        };
        self.put(at, text, len, style);
    }

    /// Returns the number of columns written on the current line.
    pub(super) fn written(&self) -> usize {
        self.column
    }

    /// Writes a cell that ends at a column.
    pub(super) fn cell_right(&mut self, end: usize, text: &str) {
        self.cell(end.saturating_sub(width(text)), text, Style::Plain);
    }

    /// Sets the column of the words that follow; they start a new line if it is taken.
    pub(super) fn column(&mut self, at: usize) {
        self.breaks = self.column >= at;
        self.next = at;
    }

    /// Writes words, which wrap to column `indent`.
    pub(super) fn words(&mut self, indent: usize, text: &str) {
        self.styled(indent, text, Style::Plain);
    }

    /// Writes words in a style, which wrap to column `indent`.
    pub(super) fn styled(&mut self, indent: usize, text: &str, style: Style) {
        let text = self.page.shown(text);
        if self.breaks {
            let at = self.next;
            self.line_feed();
            self.next = at;
        }
        let mut rest = &*text;
        // Writes as many words at once as fit.
        while let Some((line, more)) = self.line_of(rest) {
            self.put_words(self.next, line, line.len(), style);
            let Some(more) = more else {
                return;
            };
            self.line_feed();
            (self.next, rest) = (indent, more);
        }
        for word in rest.split(' ') {
            self.word(indent, word, style);
        }
    }

    /// Splits off the words that fit on this line. `None` if the first word does not fit, or the
    /// text is not ASCII.
    fn line_of<'t>(&self, text: &'t str) -> Option<(&'t str, Option<&'t str>)> {
        if !text.is_ascii() {
            return None;
        }
        let room = self
            .page
            .width
            .checked_sub(self.next.max(self.column))
            .filter(|room| *room > 0)?;
        if text.len() <= room {
            return Some((text, None));
        }
        // One more, because a space at the line's end needs no room.
        let (start, _) = text.split_at_checked(room + 1)?;
        let (line, _) = start.rsplit_once(' ')?;
        let (_, more) = text.split_at_checked(line.len() + 1)?;
        Some((line, Some(more)))
    }

    fn word(&mut self, indent: usize, word: &str, style: Style) {
        let len = width(word);
        if self.fits(self.next.max(self.column), len) {
            return self.put_words(self.next, word, len, style);
        }
        if self.column > 0 {
            self.line_feed();
        }
        let start = indent.min(self.page.width.saturating_sub(len));
        if self.fits(start, len) {
            return self.put_words(start, word, len, style);
        }
        let mut rest = word;
        loop {
            let (line, more) = split_word(rest, self.page.width);
            self.put_words(0, line, width(line), style);
            if more.is_empty() {
                return;
            }
            self.line_feed();
            rest = more;
        }
    }

    fn put_words(&mut self, at: usize, text: &str, len: usize, style: Style) {
        self.put(at, text, len, style);
        self.next = self.column + 1;
    }

    fn put(&mut self, at: usize, text: &str, len: usize, style: Style) {
        if self.column < at {
            self.out.extend(std::iter::repeat_n(b' ', at - self.column));
            self.column = at;
        }
        if style == Style::Plain || !self.page.colour {
            self.out.extend_from_slice(text.as_bytes());
        } else {
            for part in [b"\x1b[", style.sgr(), b"m", text.as_bytes(), b"\x1b[0m"] {
                self.out.extend_from_slice(part);
            }
        }
        self.column += len;
        self.next = self.column;
    }

    fn fits(&self, start: usize, len: usize) -> bool {
        start
            .checked_add(len)
            .is_some_and(|end| end <= self.page.width)
    }

    fn line_feed(&mut self) {
        self.out.push(b'\n');
        (self.column, self.next, self.breaks) = (0, 0, false);
    }

    /// Ends the row.
    pub(super) fn end(mut self) {
        self.line_feed();
    }
}

/// Splits a word that is longer than a line, but not within an address.
fn split_word(word: &str, width: usize) -> (&str, &str) {
    let (line, rest) = split_at_width(word, width);
    let (Some(before), Some(after)) = (line.chars().next_back(), rest.chars().next()) else {
        return (line, rest);
    };
    if !is_of_address(before) || !is_of_address(after) {
        return (line, rest);
    }
    let start = line.trim_end_matches(is_of_address).len();
    let (before, address) = word.split_at_checked(start).unwrap_or((line, rest));
    let len = address.find(|c| !is_of_address(c));
    let len = len.unwrap_or(address.len());
    let Some((whole, more)) = address.split_at_checked(len) else {
        return (line, rest);
    };
    if len > ADDRESS_LEN_MAX || !whole.contains([':', '.']) {
        (line, rest)
    } else if before.is_empty() {
        // The screen is too narrow for the address.
        (whole, more)
    } else {
        (before, address)
    }
}

/// Length of the longest address, `[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535`.
const ADDRESS_LEN_MAX: usize = 47;

/// Returns true for a character of an IP address with a port.
fn is_of_address(c: char) -> bool {
    c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '[' | ']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(width: usize) -> Page {
        Page {
            width,
            colour: false,
            utf8: true,
        }
    }

    #[test]
    fn the_middle_is_left_out() {
        let check = |text: &str, max, expected: &str| {
            let page = page(80);
            let shortened = page.shortened(text, max);
            assert_eq!(shortened, expected);
            assert!(width(&shortened) <= max);
        };
        check("curl", 4, "curl");
        check("a-long-task", 8, "a-lo…ask");
        check("größer-als", 7, "grö…als");
        check("漢字漢字漢字", 7, "漢…漢字");
        let plain = Page {
            utf8: false,
            ..page(80)
        };
        assert_eq!(plain.shortened("a-long-task", 8), "a-l...sk");
    }

    #[test]
    fn words_wrap_whole() {
        let check = |width, words: &str, expected: &str| {
            let (mut out, page) = (Vec::new(), page(width));
            let mut row = RowWriter::new(&mut out, &page);
            row.cell(0, "08:30:00", Style::Plain);
            row.column(INDENT);
            row.words(INDENT, words);
            row.end();
            assert_eq!(str::from_utf8(&out).unwrap(), expected);
        };
        check(40, "short", "08:30:00  short\n");
        check(
            40,
            "words that have no room on one line, or two of these",
            "08:30:00  words that have no room on one\n          line, or two of these\n",
        );
        // A smaller indent is used if that helps.
        check(
            40,
            "at [2001:db8:1111:2222:3333:4444:5555]:80 and on",
            "08:30:00  at\n  [2001:db8:1111:2222:3333:4444:5555]:80\n          and on\n",
        );
        check(
            40,
            "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeee end",
            "08:30:00\naaaaaaaaaabbbbbbbbbbccccccccccdddddddddd\neeeeeeeeee end\n",
        );
        // A narrower screen wraps an address itself, so that it is copied whole.
        check(
            40,
            "at [2001:db8:1111:2222:3333:4444:5555:6666]:80, and on",
            "08:30:00  at\n[2001:db8:1111:2222:3333:4444:5555:6666]:80\n, and on\n",
        );
    }
}
