//! Proxy variables in a process's environment. Only the name of a variable that holds a known
//! address leaves this file: no host name, user or password.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::diagnosis::question::ProxyVariable;

/// Names that curl and most libraries use, compared without case.
const VARIABLES: [(&[u8], ProxyVariable); 3] = [
    (b"http_proxy", ProxyVariable::HttpProxy),
    (b"https_proxy", ProxyVariable::HttpsProxy),
    (b"all_proxy", ProxyVariable::AllProxy),
];

/// Returns the variable whose value is `remote`. Host names are not resolved.
pub(crate) fn variable(environment: &[u8], remote: SocketAddr) -> Option<ProxyVariable> {
    let mut entries = environment.split(|&byte| byte == 0);
    entries.find_map(|entry| {
        let equals = entry.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (entry.get(..equals)?, entry.get(equals + 1..)?);
        let known = VARIABLES
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known));
        let (_, variable) = known?;
        let named = address(str::from_utf8(value).ok()?)?;
        (named == SocketAddr::new(remote.ip().to_canonical(), remote.port())).then_some(*variable)
    })
}

/// Parses `[SCHEME://][USER[:PASSWORD]@]ADDRESS[:PORT][/...]`.
fn address(url: &str) -> Option<SocketAddr> {
    let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_and_port = authority.rsplit('@').next()?;
    let (host, port) = match host_and_port.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match host_and_port.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host_and_port, None),
        },
    };
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) => port.parse().ok()?,
        None => default_port(scheme)?,
    };
    let ip: IpAddr = if host.eq_ignore_ascii_case("localhost") {
        Ipv4Addr::LOCALHOST.into()
    } else {
        host.parse().ok()?
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

/// Default port of a proxy's scheme, as in curl.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Some(443),
        "http" | "socks4" | "socks4a" | "socks5" | "socks5h" => Some(1080),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(environment: &str, remote: &str) -> Option<ProxyVariable> {
        variable(environment.as_bytes(), remote.parse().unwrap())
    }

    #[test]
    fn addresses_are_compared_as_numbers() {
        for (value, remote) in [
            ("http://10.0.0.1:3128", "10.0.0.1:3128"),
            ("10.0.0.1:3128", "10.0.0.1:3128"),
            ("http://user:secret@10.0.0.1:3128/", "10.0.0.1:3128"),
            ("http://us%40er:p@ss@10.0.0.1:3128", "10.0.0.1:3128"),
            ("HTTP://[::1]:8080", "[::1]:8080"),
            ("http://[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("socks5h://localhost", "127.0.0.1:1080"),
            ("https://10.0.0.1/path?x=@", "10.0.0.1:443"),
        ] {
            for name in ["http_proxy", "HTTP_PROXY", "Http_Proxy"] {
                let environment = format!("A=1\0{name}={value}\0B=2\0");
                let variable = found(&environment, remote);
                assert_eq!(variable, Some(ProxyVariable::HttpProxy), "{value}");
                assert_eq!(found(&environment, "10.0.0.9:1"), None);
            }
        }
    }

    #[test]
    fn what_names_no_such_address_is_none() {
        for environment in [
            "",
            "http_proxy=",
            "http_proxy=http://proxy.example:3128",
            "my_http_proxy=http://10.0.0.1:3128",
            "no_proxy=10.0.0.1:3128",
            "A=http_proxy=http://10.0.0.1:3128",
            "http_proxy=http://10.0.0.1:99999",
            "http_proxy=http://user:10.0.0.1:3128/@10.0.0.2:1",
        ] {
            assert_eq!(found(environment, "10.0.0.1:3128"), None, "{environment}");
        }
        let both = "https_proxy=http://10.0.0.1:3128\0http_proxy=http://10.0.0.2:3128";
        assert_eq!(
            found(both, "10.0.0.1:3128"),
            Some(ProxyVariable::HttpsProxy)
        );
        let all = found("all_proxy=10.0.0.1:3128", "10.0.0.1:3128");
        assert_eq!(all, Some(ProxyVariable::AllProxy));
    }

    proptest! {
        #[test]
        fn any_environment_is_survived(bytes: Vec<u8>, value: String) {
            let remote = "10.0.0.1:3128".parse().unwrap();
            prop_assert_eq!(variable(&bytes, remote), None);
            let _ = variable(&[b"all_proxy=", value.as_bytes()].concat(), remote);
        }
    }
}
