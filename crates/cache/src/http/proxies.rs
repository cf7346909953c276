//! Which proxy a request goes through.
//!
//! `reqwest` does not look at the exceptions of a proxy that a function picks, so they are looked at here.

use std::net::IpAddr;

use reqwest::Url;

use super::{TransportError, is_loopback};

/// The proxies of the environment, read by the caller. Never used for the loopback.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `http://`, as in `http_proxy`.
    pub http: Option<String>,
    /// For `https://`, as in `https_proxy`.
    pub https: Option<String>,
    /// What is reached directly, as in `no_proxy`.
    pub exceptions: Option<String>,
}

/// A proxy, and what names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedProxy {
    pub(crate) address: Url,
    pub(crate) variable: &'static str,
}

impl NamedProxy {
    /// The address without a login.
    pub(crate) fn shown(&self) -> String {
        let host = self.address.host_str().unwrap_or_default();
        match self.address.port_or_known_default() {
            Some(port) => format!("{}://{host}:{port}", self.address.scheme()),
            None => format!("{}://{host}", self.address.scheme()),
        }
    }
}

impl Proxies {
    /// The proxy on the way to an address; `None` where its server is reached directly.
    pub(crate) fn of(&self, url: &Url) -> Result<Option<NamedProxy>, TransportError> {
        let (variable, address) = match url.scheme() {
            "http" => ("http_proxy", &self.http),
            "https" => ("https_proxy", &self.https),
            _ => return Ok(None),
        };
        let host = url.host_str().unwrap_or_default();
        let Some(address) = address.as_deref().filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
        let exceptions = self.exceptions.as_deref().unwrap_or_default();
        let mut exceptions = exceptions.split([',', ' ']).filter(|text| !text.is_empty());
        let port = url.port_or_known_default();
        if is_loopback(host) || exceptions.any(|text| is_exception(text, host, port)) {
            return Ok(None);
        }
        // A proxy may be written without its scheme.
        let text =
            if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let address = Url::parse(&text)
            .map_err(|_| TransportError::Proxy { variable, address: address.to_owned() })?;
        Ok(Some(NamedProxy { address, variable }))
    }
}

/// Whether an item of `no_proxy` is about a host: `*`, a domain with all below it, an address or a network, each but `*` and
/// networks perhaps with a port.
fn is_exception(text: &str, host: &str, port: Option<u16>) -> bool {
    let (name, only) = match text.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
            (name, digits.parse().ok())
        }
        _ => (text, None),
    };
    if name == "*" {
        return true;
    }
    if only.is_some() && only != port {
        return false;
    }
    if let Some(host) = address(host) {
        return match name.split_once('/') {
            None => address(name) == Some(host),
            Some((network, bits)) => address(network)
                .zip(bits.parse().ok())
                .is_some_and(|(network, bits)| is_in(host, network, bits)),
        };
    }
    let name = name.strip_prefix('*').unwrap_or(name).trim_matches('.').to_ascii_lowercase();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let below = || host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.'));
    !name.is_empty() && (host == name || below())
}

fn address(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(text).parse().ok()
}

fn is_in(host: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (host, network, width) = match (host, network) {
        (IpAddr::V4(host), IpAddr::V4(network)) => {
            (u128::from(u32::from(host)), u128::from(u32::from(network)), 32)
        }
        (IpAddr::V6(host), IpAddr::V6(network)) => (u128::from(host), u128::from(network), 128),
        _ => return false,
    };
    bits <= width && (bits == 0 || host >> (width - bits) == network >> (width - bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(exceptions: &str) -> Proxies {
        Proxies {
            http: Some("proxy.example:3128".to_owned()),
            https: Some("http://name:secret@proxy.example".to_owned()),
            exceptions: Some(exceptions.to_owned()),
        }
    }

    fn shown(proxies: &Proxies, url: &str) -> Option<String> {
        let proxy = proxies.of(&Url::parse(url).unwrap()).unwrap();
        proxy.map(|proxy| format!("{} {}", proxy.variable, proxy.shown()))
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let proxies = proxies("");
        let http = Some("http_proxy http://proxy.example:3128".to_owned());
        assert_eq!(shown(&proxies, "http://a.example/v2/"), http);
        let https = Some("https_proxy http://proxy.example:80".to_owned());
        assert_eq!(shown(&proxies, "https://a.example/"), https);
        assert_eq!(shown(&proxies, "http://127.0.0.1:5000/"), None);
        assert_eq!(shown(&Proxies::default(), "https://a.example/"), None);
        let wrong = Proxies { http: Some("http://[".to_owned()), ..Proxies::default() };
        assert!(wrong.of(&Url::parse("http://a.example").unwrap()).is_err());
    }

    #[test]
    fn exceptions_are_reached_directly() {
        for (exceptions, host, direct) in [
            ("*", "a.example", true),
            ("example", "a.example", true),
            (".a.example, other", "b.a.example", true),
            ("*.a.example", "b.a.example", true),
            ("A.Example", "a.example", true),
            ("a.example:443", "a.example", true),
            ("a.example:5000", "a.example", false),
            ("a.example:5000", "a.example:5000", true),
            ("a.example", "ba.example", false),
            ("b.a.example", "a.example", false),
            (",, ", "a.example", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("10.1.2.3:5000", "10.1.2.3:5000", true),
            ("fd00::/8", "[fd00::1]", true),
            ("[fd00::1]:443", "[fd00::1]", true),
            ("fd00::1", "[fd00::2]", false),
            ("10.0.0.0/33", "10.0.0.0", false),
        ] {
            let found = shown(&proxies(exceptions), &format!("https://{host}/"));
            assert_eq!(found.is_none(), direct, "{exceptions} {host}");
        }
    }
}
