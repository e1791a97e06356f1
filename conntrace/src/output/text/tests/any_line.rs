//! Properties of any line on a screen of any width.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(Into::into),
        any::<[u16; 8]>().prop_map(IpAddr::from),
        any::<[u16; 8]>()
            .prop_map(|groups| groups.map(|group| group | 0x1000))
            .prop_map(Into::into),
    ]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (address(), any::<u16>()).prop_map(|(addr, port)| Endpoint {
        addr: Some(addr),
        port: Some(port),
    })
}

/// Text that a process, a server's name or a firewall's comment may hold.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,15}",
        "[ -~]{0,40}",
        "[a-f0-9:.]{0,100}",
        r"(\PC|[\u{1b}\u{202e}\u{200d}\u{fe0f}\n漢é❤1]){0,80}",
        "(a-word |another,? |[(]in brackets[)] ){0,40}",
    ]
}

fn written(end: Endpoint) -> String {
    let mut text = String::new();
    crate::output::message::endpoint(&mut text, end);
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_line_is_wider_than_the_screen(
        width in 80u16..=220,
        (remote, local, asked) in (endpoint(), endpoint(), endpoint()),
        (comm, name, container, why) in (hostile(), hostile(), hostile(), hostile()),
        pid in any::<u32>(),
        label in prop::sample::select(&crate::record::Label::ALL[..]),
        certainty in prop::sample::select(
            &[Certainty::Certain, Certainty::Likely, Certainty::Possible][..]
        ),
        utf8 in any::<bool>(),
    ) {
        let why = format!("{why} {} ({comm}) at {}, {why}", written(asked), written(local));
        let mut line = explained(
            outcome_line(), Code::PrivateAddressNotLocal, certainty, &why, &why,
        );
        let outcome = outcome_mut(&mut line);
        // Not truncated, so that it holds every address.
        let cause = Cause { why: why.clone(), fix: why, ..Cause::clone(outcome.cause.as_ref().unwrap()) };
        outcome.cause = Some(Arc::new(cause.into()));
        outcome.label = label;
        outcome.details.local = local;
        outcome.subject.remote.addr = remote.addr;
        outcome.subject.remote.port = remote.port;
        outcome.subject.remote.name = Some(name.into());
        outcome.subject.remote.asked = Some(asked);
        outcome.subject.process.comm = Some(comm);
        outcome.subject.process.pid = Some(pid);
        outcome.subject.container = Some(Container {
            name: Some(container.into()),
            ..Container::default()
        });
        let mut text = text_of_width(Some(width));
        text.rows.page.utf8 = utf8;
        let shown = render(text, &[line.clone(), line]);
        for line in shown.lines() {
            prop_assert!(line.width() <= width.into(), "{} columns: {line}\n{shown}", line.width());
            prop_assert!(!line.contains(char::is_control), "{line:?}");
        }
        prop_assert!(utf8 || shown.is_ascii(), "{shown}");
        for end in [remote, local, asked] {
            prop_assert!(shown.contains(&written(end)), "{} in {shown}", written(end));
        }
        prop_assert!(shown.contains(&format!("[{pid}]")), "{shown}");
        prop_assert!(shown.lines().any(|line| line.ends_with(" 1 more")
            || line.contains(" 1 more ")), "{shown}");
    }

    #[test]
    fn every_width_shows_the_same_words(width in 80u16..=220) {
        let words = |width| {
            let lines = [refused(), silent(), rejected(), exhausted()];
            let shown = render(text_of_width(width), &lines);
            let mut words: Vec<_> = shown.split_whitespace().map(str::to_owned).collect();
            // At 100 and 120 columns, further columns appear.
            words.retain(|word| !word.starts_with('E') && !word.starts_with("(E")
                && !word.starts_with("10.0.0.2:") && !word.contains("nam["));
            words
        };
        prop_assert_eq!(words(Some(width)), words(None));
    }
}
