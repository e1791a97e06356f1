//! Words that `conntrace explain` knows: labels, causes, errno names, error messages.

use std::{fmt, sync::LazyLock};

use super::Topic;
use crate::{
    diagnosis::Code,
    record::{Label, sanitize::visible},
};

/// Most words of a phrase.
const PHRASE_WORDS_MAX: usize = 6;
/// From which similarity on (Jaro-Winkler, 0 to 1) a name is suggested.
const SIMILAR: f64 = 0.8;
/// Most suggestions.
const SUGGESTIONS_MAX: usize = 3;

/// Error for words of which none is known.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownTopic {
    typed: String,
    /// Names that are written alike, the most similar first.
    similar: Vec<&'static str>,
}

impl fmt::Display for UnknownTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { typed, similar } = self;
        writeln!(f, "no label, cause or errno in '{}'", visible(typed))?;
        if !similar.is_empty() {
            writeln!(f, "\n  similar: {}", similar.join(", "))?;
        }
        let labels = Label::ALL.map(Label::as_str);
        let (first, second) = labels.split_at(labels.len() / 2);
        writeln!(f, "\n  labels: {},", first.join(", "))?;
        writeln!(f, "          {}", second.join(", "))?;
        writeln!(f, "\n`conntrace explain` lists the causes as well")
    }
}

impl std::error::Error for UnknownTopic {}

/// Finds the labels and causes that these words name. A name may be in capitals and among other
/// words, as in an error message: the longest phrase that is known counts.
///
/// # Errors
/// When no word is known.
pub fn find(typed: &str) -> Result<Vec<Topic>, UnknownTopic> {
    let lower = typed.to_lowercase();
    let words: Vec<_> = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let mut found: Vec<Topic> = Vec::new();
    let mut rest = &words[..];
    while !rest.is_empty() {
        let (topics, after) =
            first_phrase(rest).unwrap_or((&[], rest.get(1..).unwrap_or_default()));
        for topic in topics {
            if !found.contains(topic) {
                found.push(*topic);
            }
        }
        rest = after;
    }
    // The label of what has no other; "failed to connect" says less than what follows it.
    if words.contains(&"failed") && found.len() > 1 {
        found.retain(|topic| *topic != label(Label::Failed));
    }
    if found.is_empty() {
        return Err(UnknownTopic {
            typed: typed.to_owned(),
            similar: similar(&words.join(" ")),
        });
    }
    Ok(found)
}

/// Returns a remark on words about a reset, which mostly comes after the handshake.
pub(super) fn remark(typed: &str) -> Option<&'static str> {
    let lower = typed.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_alphanumeric());
    words
        .any(|word| matches!(word, "econnreset" | "reset"))
        .then_some(
            "A connection that is reset after its handshake has completed is not reported by this \
         version: conntrace labels attempts to connect. An attempt ends with ECONNRESET only when \
         both sides connect to each other at once, and is labelled as follows.",
        )
}

/// The longest known phrase at the beginning, and the words after it.
fn first_phrase<'a>(words: &'a [&'a str]) -> Option<(&'static [Topic], &'a [&'a str])> {
    let lengths = (1..=PHRASE_WORDS_MAX).rev();
    lengths
        .filter_map(|len| words.split_at_checked(len))
        .find_map(|(phrase, after)| Some((topics_of(&phrase.join(" "))?, after)))
}

/// Phrase in lower case, and the labels and causes that it names. Underscores are spaces.
type KnownPhrase = (String, &'static [Topic]);

static KNOWN: LazyLock<Vec<KnownPhrase>> = LazyLock::new(|| {
    let own = Topic::all().iter().map(|topic| {
        let phrase = topic.as_str().replace('_', " ");
        (phrase, std::slice::from_ref(topic))
    });
    let others = PHRASES.iter().flat_map(|(phrases, topics)| {
        let phrases = phrases.iter();
        phrases.map(|phrase| ((*phrase).to_owned(), *topics))
    });
    own.chain(others).collect()
});

fn topics_of(phrase: &str) -> Option<&'static [Topic]> {
    let mut known = KNOWN.iter();
    known
        .find(|(own, _)| own == phrase)
        .map(|(_, topics)| *topics)
}

/// The names of labels, causes and errnos that are written most like these words.
fn similar(words: &str) -> Vec<&'static str> {
    let names = Topic::all().iter().map(|topic| topic.as_str());
    let errnos = PHRASES.iter().filter_map(|(phrases, _)| {
        let mut phrases = phrases.iter();
        phrases.find(|phrase| !phrase.contains(' ')).copied()
    });
    let mut rated: Vec<_> = names
        .chain(errnos)
        .map(|name| (strsim::jaro_winkler(&name.replace('_', " "), words), name))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .collect();
    rated.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    rated.truncate(SUGGESTIONS_MAX);
    rated.into_iter().map(|(_, name)| name).collect()
}

const fn label(label: Label) -> Topic {
    Topic::Label(label)
}

const fn cause(code: Code) -> Topic {
    Topic::Cause(code)
}

/// Errnos first, then what C libraries and languages make of them.
#[rustfmt::skip]
const PHRASES: &[(&[&str], &[Topic])] = &[
    (&["econnrefused", "connection refused", "connect refused", "actively refused", "rst"],
     &[label(Label::Refused)]),
    (&["econnreset", "connection reset by peer", "connection reset", "reset by peer", "reset"],
     &[label(Label::Refused)]),
    (&["etimedout", "connection timed out", "operation timed out", "timeout", "timeouts", "time out",
       "deadline exceeded", "no answer", "no response"],
     &[label(Label::TimedOut)]),
    (&["backlog", "listen backlog", "somaxconn", "accept queue", "listen queue overflow", "listenoverflows",
       "listendrops"],
     &[cause(Code::AcceptQueueFull)]),
    (&["enetunreach", "network is unreachable", "network unreachable"],
     &[label(Label::Unreachable)]),
    (&["ehostunreach", "no route to host", "host is unreachable", "host unreachable", "icmp"],
     &[label(Label::Unreachable)]),
    (&["eaddrnotavail", "cannot assign requested address", "can t assign requested address",
       "address not available"],
     &[label(Label::PortExhausted), label(Label::AddressUnavailable)]),
    (&["eaddrinuse", "address already in use", "address in use"],
     &[label(Label::PortExhausted), label(Label::AddressUnavailable), cause(Code::PortInUse)]),
    (&["eperm", "operation not permitted"],
     &[label(Label::Denied)]),
    (&["eacces", "permission denied"],
     &[label(Label::Denied), label(Label::Unreachable)]),
    (&["econnaborted", "software caused connection abort", "connection aborted", "killed"],
     &[label(Label::Aborted)]),
    (&["ecanceled", "operation canceled", "context canceled", "canceled"],
     &[label(Label::Cancelled)]),
    (&["self connect", "self connection", "connected to itself", "simultaneous open"],
     &[cause(Code::ConnectedToItself)]),
    (&["einval", "invalid argument"],
     &[label(Label::Failed), cause(Code::BadDestination), cause(Code::BlackholeRoute)]),
    (&["macvlan", "ipvlan", "netmask"],
     &[cause(Code::WrongNetwork)]),
    (&["ip forward", "ip forwarding", "forwarding"],
     &[cause(Code::NotForwarded)]),
    (&["vpn", "wireguard", "openvpn", "tailscale", "vxlan", "ipsec", "tunnel"],
     &[cause(Code::ThroughTunnel)]),
    (&["blackhole", "black hole", "null route"],
     &[cause(Code::BlackholeRoute)]),
    (&["enobufs", "no buffer space available"],
     &[label(Label::Failed)]),
    (&["ehostdown", "host is down"],
     &[cause(Code::HostDown)]),
    (&["enetdown", "network is down", "link down"],
     &[cause(Code::OwnLinkDown)]),
    (&["out of ports", "no ports left", "no port left", "ports exhausted", "port exhaustion", "ephemeral ports",
       "time wait"],
     &[label(Label::PortExhausted), cause(Code::EphemeralRangeUsedUp)]),
    (&["firewall", "blocked"],
     &[cause(Code::LocalFirewall), cause(Code::RejectedByFirewall), cause(Code::RemoteFiltered)]),
    (&["proxy"],
     &[cause(Code::ProxyInPath)]),
    (&["no endpoints", "no local endpoints"],
     &[cause(Code::ServiceWithoutEndpoints)]),
    (&["deadline", "connect timeout too short"],
     &[cause(Code::DeadlineTooShort)]),
    (&["asymmetric routing", "asymmetric route", "hairpin"],
     &[cause(Code::AnswerFromElsewhere), cause(Code::DroppedHere)]),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// `typed | what it is about`, a case per line.
    fn check(table: &str) {
        for case in table.lines() {
            let (typed, expected) = case.split_once('|').unwrap();
            let found = find(typed).unwrap_or_default();
            let names: Vec<_> = found.into_iter().map(Topic::as_str).collect();
            assert_eq!(names.join(" "), expected.trim(), "{typed}");
        }
    }

    #[test]
    fn names_are_taken_as_people_write_them() {
        check(
            "\
refused                            | refused
REFUSED                            | refused
Timed-Out                          | timed_out
timed out                          | timed_out
nothing listening                  | nothing_listening
no_route                           | no_route
refused denied refused             | refused denied
",
        );
        for topic in Topic::all() {
            assert_eq!(find(topic.as_str()), Ok(vec![*topic]));
        }
    }

    #[test]
    fn errnos_and_messages_lead_to_labels() {
        check(
            "\
ECONNREFUSED                       | refused
ETIMEDOUT                          | timed_out
EADDRNOTAVAIL                      | port_exhausted address_unavailable
ENETUNREACH                        | unreachable
EHOSTUNREACH                       | unreachable
EPERM                              | denied
EACCES                             | denied unreachable
EADDRINUSE                         | port_exhausted address_unavailable port_in_use
ECONNABORTED                       | aborted
ECONNRESET                         | refused
timeout                            | timed_out
Connection refused                 | refused
no route to host                   | unreachable
Cannot assign requested address    | port_exhausted address_unavailable
can't assign requested address     | port_exhausted address_unavailable
Permission denied                  | denied unreachable
dial tcp 10.0.0.5:5432: connect: connection refused | refused
dial tcp 10.0.0.5:443: i/o timeout | timed_out
connect to 10.0.0.5 port 80 failed: No route to host | unreachable
curl: (7) Failed to connect to db port 5432 after 0 ms: Connection refused | refused
failed                             | failed
",
        );
    }

    #[test]
    fn a_reset_is_mostly_none_of_an_attempt() {
        for typed in ["ECONNRESET", "read: connection reset by peer", "reset"] {
            assert!(remark(typed).is_some(), "{typed}");
            assert_eq!(find(typed), Ok(vec![label(Label::Refused)]), "{typed}");
        }
        for typed in ["ECONNREFUSED", "refused", "presets"] {
            assert_eq!(remark(typed), None, "{typed}");
        }
    }

    #[test]
    fn an_unknown_word_is_answered_with_similar_ones() {
        let similar = |typed: &str| find(typed).unwrap_err().similar;
        assert_eq!(similar("refusd").first(), Some(&"refused"));
        assert_eq!(similar("ECONREFUSED").first(), Some(&"econnrefused"));
        assert_eq!(
            similar("nothing listens").first(),
            Some(&"nothing_listening")
        );
        assert_eq!(similar("xyzzy"), Vec::<&str>::new());
        assert_eq!(similar(""), Vec::<&str>::new());
        let said = find("refusd").unwrap_err().to_string();
        assert!(said.contains("'refusd'\n\n  similar: refused"), "{said}");
    }

    #[test]
    fn every_phrase_is_found_as_it_is_split() {
        for (phrases, topics) in PHRASES {
            for phrase in *phrases {
                assert!(phrase.split(' ').count() <= PHRASE_WORDS_MAX);
                assert_eq!(find(phrase).as_deref(), Ok(*topics), "{phrase}");
            }
        }
    }
}
