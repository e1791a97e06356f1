//! Facts as words.

use std::net::{IpAddr, SocketAddr};

use super::ask::{Holding, Listener, Named, Program, RulePlace};

/// `55,536`
pub(super) fn count(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `nginx[812]`, or `another process`.
pub(super) fn process(process: Option<&Named>) -> String {
    process.map_or_else(
        || "another process".to_owned(),
        |Named { pid, comm }| format!("{comm}[{pid}]"),
    )
}

/// `nginx[812] (20,000), curl[7] (3)`; empty if nobody is known.
pub(super) fn holdings(holdings: &[Holding]) -> String {
    let words: Vec<_> = holdings
        .iter()
        .map(|holding| {
            let sockets = count(holding.sockets);
            format!("{} ({sockets})", process(Some(&holding.process)))
        })
        .collect();
    words.join(", ")
}

/// `127.0.0.1:5432 (postgres[812])`, the first of them.
pub(super) fn listeners(listeners: &[Listener]) -> String {
    let words: Vec<_> = listeners
        .iter()
        .take(3)
        .map(|listener| {
            let own = SocketAddr::new(listener.addr, listener.port);
            match &listener.process {
                Some(owner) => format!("{own} ({})", process(Some(owner))),
                None => own.to_string(),
            }
        })
        .collect();
    words.join(", ")
}

/// `restrict_connect (id 12), id 13`, the first of them.
pub(super) fn programs(programs: &[Program]) -> String {
    let words: Vec<_> = programs
        .iter()
        .take(3)
        .map(|Program { id, name }| match name.as_str() {
            "" => format!("id {id}"),
            name => format!("{name} (id {id})"),
        })
        .collect();
    words.join(", ")
}

/// `table inet filter, chain output`, where it can only be that one.
pub(super) fn only_chain(places: &[RulePlace]) -> Option<String> {
    let [
        RulePlace {
            family,
            table,
            chain,
            ..
        },
    ] = places
    else {
        return None;
    };
    Some(format!("{family} {table} {chain}"))
}

/// The address of every interface, of that family.
pub(super) fn any_address(like: IpAddr) -> &'static str {
    if like.is_ipv4() { "0.0.0.0" } else { "[::]" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (27_304, "27,304"),
            (4_294_967_295, "4,294,967,295"),
        ] {
            assert_eq!(count(number), expected);
        }
    }
}
