//! Makes bytes from untrusted processes safe for event lines and terminals.

/// Mark at the end of truncated text.
const CUT: char = '…';

/// Converts bytes to text. Invalid UTF-8 becomes U+FFFD. Text that exceeds `json_len_max` bytes
/// inside a JSON string is truncated and ends in `…`. The escaped length counts, so that a
/// whole line stays within its limit for any bytes.
#[must_use]
pub(crate) fn bounded(bytes: &[u8], json_len_max: usize) -> String {
    // Fast path: nothing to replace, escape or truncate.
    if bytes.len() <= json_len_max
        && bytes.iter().all(|&byte| is_plain(byte))
        && let Ok(plain) = str::from_utf8(bytes)
    {
        return plain.to_owned();
    }
    let mut text = String::new();
    let mut len = 0;
    // Length of the text at which `…` still fits.
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

/// Returns true for printable ASCII that JSON does not escape.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

/// Returns true if the text takes at most `json_len_max` bytes inside a JSON string.
#[must_use]
pub(crate) fn fits(text: &str, json_len_max: usize) -> bool {
    text.chars().map(json_len).sum::<usize>() <= json_len_max
}

/// Returns the length of JSON text in a line, in bytes, after control characters are escaped
/// (`output::Json`).
#[must_use]
pub(crate) fn written_len(json: &str) -> usize {
    let len = |c: char| if c.is_control() { 6 } else { c.len_utf8() };
    json.chars().map(len).sum()
}

/// Returns the length of a character inside a JSON string, in bytes.
fn json_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c.is_control() => 6,
        c => c.len_utf8(),
    }
}

/// Replaces control characters by Rust escapes, for a terminal.
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

/// Returns true for characters that break a line or reorder the text around them.
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
