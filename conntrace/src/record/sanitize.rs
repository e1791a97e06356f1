//! Bytes that processes chose, made fit for a line.

/// Stands where text was cut off.
const CUT: char = '…';

/// Turns bytes into text: invalid UTF-8 becomes U+FFFD, and what would take more
/// than `json_len_max` bytes inside a JSON string is cut off, which `…` says. Cutting by
/// the escaped length keeps a whole line within its limit, whatever a process calls
/// itself.
#[must_use]
pub(crate) fn bounded(bytes: &[u8], json_len_max: usize) -> String {
    // Nearly always: nothing to replace, to escape or to cut off.
    if bytes.len() <= json_len_max
        && bytes.iter().all(|&byte| is_plain(byte))
        && let Ok(plain) = str::from_utf8(bytes)
    {
        return plain.to_owned();
    }
    let mut text = String::new();
    let mut len = 0;
    // Where it is cut so that `…` has room.
    let mut cut = 0;
    for chunk in bytes.utf8_chunks() {
        let replaced = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        for c in chunk.valid().chars().chain(replaced) {
            len += json_len(c);
            if len > json_len_max {
                text.truncate(cut);
                if cut > 0 {
                    text.push(CUT);
                }
                return text;
            }
            text.push(c);
            if len + CUT.len_utf8() <= json_len_max {
                cut = text.len();
            }
        }
    }
    text
}

/// A byte that is a character of its own, and stays so inside a JSON string.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

/// Whether text takes at most this many bytes inside a JSON string.
#[must_use]
pub(crate) fn fits(text: &str, json_len_max: usize) -> bool {
    text.chars().map(json_len).sum::<usize>() <= json_len_max
}

/// Bytes that JSON takes in a line, where control characters are escaped
/// (`output::Json`).
#[must_use]
pub(crate) fn written_len(json: &str) -> usize {
    let len = |c: char| if c.is_control() { 6 } else { c.len_utf8() };
    json.chars().map(len).sum()
}

/// Bytes of a character inside a JSON string, as the lines have it.
fn json_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c.is_control() => 6,
        c => c.len_utf8(),
    }
}

/// Makes control characters visible, for a terminal: they are written as Rust
/// escapes.
#[must_use]
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_direction(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters that break a line or reorder the text around them.
fn is_direction(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_utf8_is_replaced_and_the_rest_kept() {
        assert_eq!(bounded(b"a\xffb", 100), "a\u{fffd}b");
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(bounded(b"abcdef", 6), "abcdef");
        assert_eq!(bounded(b"abcdefg", 6), "abc…");
        assert_eq!(bounded(b"abc\"\n", 6), "abc…");
        assert_eq!(bounded(b"abcd", 3), "");
    }

    #[test]
    fn control_characters_show() {
        assert_eq!(visible("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(visible("\u{202e}abc é"), "\\u{202e}abc é");
    }

    proptest! {
        #[test]
        fn stays_within_its_limit_in_json(bytes: Vec<u8>, max in 0usize..200) {
            let text = bounded(&bytes, max);
            let json = serde_json::to_string(&text).unwrap();
            prop_assert!(json.len() <= max + 2, "{json}");
            prop_assert!(fits(&text, max));
        }
    }
}
