//! Order of a line's fields: those that a person looks for come first.

use serde::{
    Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::*;

#[test]
fn the_order_of_fields() {
    let check = |line: &Line, expected: &str| {
        let keys = serde_json::from_str::<Ordered>(&json(line)).unwrap().0;
        assert_eq!(
            keys.join(" "),
            format!("time hostname type {expected} schema")
        );
    };
    let subject = "message process container remote";
    let details = "local netns started elapsed_us syn reply timeout_by suppressed seen attempt_id";
    check(
        &outcome_line(),
        &format!("label errno {subject} cause undiagnosed {details}"),
    );
    check(&stall_line(), &format!("{subject} {details}"));
    check(
        &start_line(),
        "version boot_id kernel tier pid hooks coverage limits",
    );
    let totals = "attempts outcomes in_flight lost undelivered unrecorded missed_hooks \
                  suppressed undiagnosed disconnects inspectors_abandoned top";
    check(&summary_line(), totals);
    check(&stop_line(), &format!("reason {totals}"));
    check(&loss_line(), "lost undelivered table");
}

/// Keys of an object in their order.
struct Ordered(Vec<String>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Ordered;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, _)) = map.next_entry::<String, IgnoredAny>()? {
                    keys.push(key);
                }
                Ok(Ordered(keys))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}
