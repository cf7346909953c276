//! Where a registry is.

use crate::http::is_loopback;

/// `registry` without its port.
pub(super) fn host_of(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    }
}

/// The address under which `registry` (`host[:port]`) is reached. Those in `https` are no exception on the loopback.
pub(super) fn base_url(registry: &str, plain_http: &[String], https: &[String]) -> String {
    // The name in references is not the name of the machine, for historical reasons.
    let machine = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    let named = |list: &[String]| list.iter().any(|name| name == registry);
    let plain = named(plain_http) || (is_loopback(host_of(registry)) && !named(https));
    format!("{}://{machine}", if plain { "http" } else { "https" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_and_what_was_named_is_plain() {
        for (registry, expected) in [
            ("docker.io", "https://registry-1.docker.io"),
            ("quay.io", "https://quay.io"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("127.9.9.9", "http://127.9.9.9"),
            ("[::1]:80", "http://[::1]:80"),
            ("localhost:1", "http://localhost:1"),
            ("localhost.example.com", "https://localhost.example.com"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000"),
            ("old:5000", "http://old:5000"),
            ("localhost:9", "https://localhost:9"),
        ] {
            let (plain, https) = (["old:5000".to_owned()], ["localhost:9".to_owned()]);
            assert_eq!(base_url(registry, &plain, &https), expected);
        }
    }
}
