//! Ports that are mistaken for one another.

/// Returns true if one port is easily typed for another: a digit more, less or other, or two
/// neighbouring ones swapped.
#[must_use]
pub fn is_similar(one: u16, other: u16) -> bool {
    let (one, other) = (one.to_string(), other.to_string());
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let (short, long) = if one.len() <= other.len() {
        (one, other)
    } else {
        (other, one)
    };
    let same_start = short.iter().zip(long).take_while(|(a, b)| a == b).count();
    let rest =
        |digits: &[u8], skipped: usize| digits.get(same_start + skipped..).map(<[u8]>::to_vec);
    match long.len() - short.len() {
        // Equal: the same port.
        0 if same_start == long.len() => false,
        0 => {
            let replaced = rest(short, 1) == rest(long, 1);
            let pair =
                |digits: &[u8]| Some((*digits.get(same_start)?, *digits.get(same_start + 1)?));
            let swapped = pair(short).map(|(a, b)| (b, a)) == pair(long)
                && pair(long).is_some()
                && rest(short, 2) == rest(long, 2);
            replaced || swapped
        }
        1 => rest(short, 0) == rest(long, 1),
        // Where these are mistaken for one another it is by habit: 80, 8080.
        2 => short == b"80" && long == b"8080",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_ports() {
        for (one, other) in [
            (5432, 5433),
            (8080, 8008),
            (8080, 80),
            (443, 8443),
            (3306, 3360),
            (9092, 9902),
            (80, 81),
            (6379, 63790),
        ] {
            assert!(
                is_similar(one, other) && is_similar(other, one),
                "{one} {other}"
            );
        }
        for (one, other) in [
            (80, 80),
            (22, 5432),
            (5432, 5423 + 100),
            (80, 443),
            (1, 65535),
            (7777, 22),
        ] {
            assert!(
                !is_similar(one, other) && !is_similar(other, one),
                "{one} {other}"
            );
        }
    }
}
