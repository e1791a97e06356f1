//! Text wrapped to a limited width.

/// Wraps text between words into lines of at most `width` columns; a longer word exceeds them. The
/// first line begins with `first`, further ones with `next`. A command between backticks is not
/// broken if it fits on one line.
#[must_use]
pub fn wrap(text: &str, first: &str, next: &str, width: usize) -> String {
    let columns = |text: &str| text.chars().count();
    let room = width.saturating_sub(columns(next));
    let mut lines = String::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    let mut add = |word: &str| {
        if !is_empty && columns(&line) + 1 + columns(word) > width {
            lines.push_str(line.trim_end());
            lines.push('\n');
            next.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    };
    for word in words(text) {
        if columns(word) > room {
            word.split(' ').for_each(&mut add);
        } else {
            add(word);
        }
    }
    lines + line.trim_end() + "\n"
}

/// Splits text at spaces that are not between backticks.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut in_command = false;
    text.split(move |c| {
        in_command ^= c == '`';
        c == ' ' && !in_command
    })
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("a b", "- ", "  ", 5), "- a b\n");
        assert_eq!(wrap("a bc", "- ", "  ", 5), "- a\n  bc\n");
        assert_eq!(wrap("a abcdef b", "- ", "  ", 5), "- a\n  abcdef\n  b\n");
        assert_eq!(wrap("é é é", "", "", 3), "é é\né\n");
        assert_eq!(wrap("", "why", "", 9), "why\n");
    }

    #[test]
    fn commands_stay_whole_where_they_fit() {
        assert_eq!(wrap("run `a b c`", "", "", 8), "run\n`a b c`\n");
        assert_eq!(wrap("run `a b c d`", "", "", 8), "run `a b\nc d`\n");
    }
}
