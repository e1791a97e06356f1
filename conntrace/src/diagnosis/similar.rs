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

/// Lists the ports for which [`is_similar`] is true, in ascending order: at most 120.
#[must_use]
pub fn similar_ports(port: u16) -> Vec<u16> {
    let digits = port.to_string().into_bytes();
    let mut texts = vec![b"80".to_vec(), b"8080".to_vec()];
    for at in 0..=digits.len() {
        let (before, after) = digits.split_at(at);
        let all = b'0'..=b'9';
        texts.extend(all.clone().map(|digit| [before, &[digit], after].concat()));
        if let [replaced, rest @ ..] = after {
            texts.push([before, rest].concat());
            texts.extend(all.map(|digit| [before, &[digit], rest].concat()));
            if let [next, rest @ ..] = rest {
                texts.push([before, &[*next, *replaced], rest].concat());
            }
        }
    }
    let ports = texts
        .iter()
        .filter_map(|text| str::from_utf8(text).ok()?.parse().ok());
    let mut ports: Vec<u16> = ports.filter(|other| is_similar(*other, port)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_are_all_similar_ports() {
        for port in [
            0, 1, 9, 10, 80, 99, 443, 1000, 5432, 8080, 9999, 10_000, 54_321, 65_535,
        ] {
            let all: Vec<_> = (0..=u16::MAX)
                .filter(|other| is_similar(*other, port))
                .collect();
            assert_eq!(super::similar_ports(port), all, "{port}");
            assert!(all.len() <= 120);
        }
    }

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
