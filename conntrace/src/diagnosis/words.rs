//! Facts as words.

use std::net::{IpAddr, SocketAddr};

use super::{
    Case, Evidence,
    firewall_facts::MatchingRule,
    port_facts::Holding,
    question::{BpfProgram, Listener, NamedProcess},
};
use crate::record::Remote;

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
pub(super) fn process(process: Option<&NamedProcess>) -> String {
    process.map_or_else(
        || "another process".to_owned(),
        |NamedProcess { pid, comm }| format!("{comm}[{pid}]"),
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
    let words: Vec<_> = listeners.iter().take(3).map(listener).collect();
    words.join(", ")
}

/// `[::]:80 (nginx[812], IPv6 only, bound to eth0)`
fn listener(listener: &Listener) -> String {
    let owner = listener.process.as_ref();
    let owner = owner.map(|owner| process(Some(owner)));
    let only_v6 = listener.only_v6.then(|| "IPv6 only".to_owned());
    let device = listener.device.as_ref();
    let device = device.map(|device| format!("bound to {}", device.name));
    let about: Vec<_> = [owner, only_v6, device].into_iter().flatten().collect();
    let own = SocketAddr::new(listener.addr, listener.port);
    if about.is_empty() {
        own.to_string()
    } else {
        format!("{own} ({})", about.join(", "))
    }
}

/// `restrict_connect (id 12), id 13`, the first of them.
pub(super) fn programs(programs: &[BpfProgram]) -> String {
    let words: Vec<_> = programs
        .iter()
        .take(3)
        .map(|BpfProgram { id, name }| match name.as_str() {
            "" => format!("id {id}"),
            name => format!("{name} (id {id})"),
        })
        .collect();
    words.join(", ")
}

/// `rule 4 of inet filter output ("no mail")`, or a chain's policy.
pub(super) fn rule(found: &MatchingRule) -> String {
    let MatchingRule {
        family,
        table,
        chain,
        handle,
        comment,
        ..
    } = found;
    let chain = format!("{family} {table} {chain}");
    let comment = comment.as_ref();
    let comment = comment.map_or_else(String::new, |comment| format!(" ({comment:?})"));
    match handle {
        Some(handle) => format!("rule {handle} of chain {chain}{comment}"),
        None => format!("the policy of chain {chain}"),
    }
}

/// The step that mends what a rule does: who owns it says what that is.
pub(super) fn mend_rule(case: &Case, found: &MatchingRule) -> String {
    let is_in = |names: &[&str]| names.iter().any(|name| found.chain.starts_with(name));
    let comment = found.comment.as_deref().unwrap_or_default();
    if comment.contains("no endpoints") || comment.contains("no local endpoints") {
        "Kubernetes owns it: start a ready pod of that service, or correct the service's selector"
    } else if is_in(&["DOCKER-ISOLATION", "DOCKER-INTERNAL", "NETAVARK-ISOLATION"]) {
        "It keeps two container networks apart: connect both containers to one network \
         (docker network connect NETWORK CONTAINER), and use the container's name and own port"
    } else if is_in(&["KUBE-POD-FW", "KUBE-NWPLCY", "cali-", "WEAVE-NPC", "ANTREA", "CILIUM"]) {
        "A network policy of the cluster owns it: allow this connection in a NetworkPolicy of the pod"
    } else if is_in(&["ufw"]) {
        "ufw owns it: allow the port or the route with ufw allow or ufw route allow"
    } else if is_in(&["f2b-"]) {
        let client = case.local_addr;
        let client = client.map_or_else(|| "ADDRESS".to_owned(), |client| client.to_string());
        return format!(
            "fail2ban has banned the address: unban it with fail2ban-client unban {client}, or as \
             what it arrives there"
        );
    } else if found.table == "firewalld" {
        "firewalld owns it: open the port in the zone with firewall-cmd, permanently and now"
    } else if found.handle.is_none() && found.chain == "FORWARD" {
        "Accept the traffic in that chain; where Docker set the policy, in its chain DOCKER-USER"
    } else if found.handle.is_none() && found.chain == "INPUT" {
        "Accept the traffic in that chain; where ufw set the policy, with ufw allow"
    } else if found.chain.starts_with("DOCKER") {
        "Docker owns it: publish the port, or accept the traffic in its chain DOCKER-USER"
    } else {
        "Let this connection and its answers pass there"
    }
    .to_owned()
}

/// The command that lists the chain of a rule.
pub(super) fn list_chain(found: &MatchingRule) -> String {
    let MatchingRule {
        family,
        table,
        chain,
        ..
    } = found;
    format!("nft -a list chain {family} {table} {chain}")
}

/// A command as it can be run on this host: inside the attempt's network namespace by
/// `nsenter`, where that is another.
pub(super) fn command(case: &Case, command: &str, evidence: &mut dyn Evidence) -> String {
    command_in(case.netns, command, evidence)
}

/// A command as it can be run on this host, inside that network namespace.
pub(super) fn command_in(netns: u32, command: &str, evidence: &mut dyn Evidence) -> String {
    match evidence.door(netns) {
        Ok(Some(options)) => quoted(&format!("nsenter {options} {command}")),
        Ok(None) => quoted(command),
        Err(_) => format!("(in network namespace {netns}) {}", quoted(command)),
    }
}

/// `10.96.0.50:80 is translated on its way to 10.244.0.6:8080; `
pub(super) fn translation(from: Remote, to: Remote) -> String {
    let [from, to] = [from, to].map(|end| SocketAddr::new(end.addr, end.port));
    format!("{from} is translated on its way to {to}; ")
}

/// The `ip` command for the family of an address.
pub(super) fn ip(of: IpAddr) -> &'static str {
    if of.is_ipv4() { "ip" } else { "ip -6" }
}

/// A command in quotes.
pub(super) fn quoted(command: &str) -> String {
    format!("`{command}`")
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
