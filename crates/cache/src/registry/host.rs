//! Where a registry is, and the HTTP clients that reach it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{NoProxy, Proxy, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::RegistryErrorKind;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Without a byte for this long, a connection counts as broken.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

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

/// Whether a host name, without port, is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `registry` without its port.
fn host_of(registry: &str) -> &str {
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

/// Builds the client for plain HTTP, or the one for HTTPS, which has to read the system's certificates.
pub(super) fn http_client(
    proxies: &Proxies,
    certificates: Option<&[PathBuf]>,
) -> Result<reqwest::Client, RegistryErrorKind> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("rbuild/", env!("CARGO_PKG_VERSION")))
        // The client must see a redirect, to decide what goes along.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .no_proxy();
    for (scheme, address) in [("http", &proxies.http), ("https", &proxies.https)] {
        let Some(address) = address.as_deref().filter(|address| !address.is_empty()) else {
            continue;
        };
        let address = proxy_url(address)?;
        let proxy = Proxy::custom(move |url: &Url| {
            let direct = url.host_str().is_none_or(is_loopback);
            (url.scheme() == scheme && !direct).then(|| address.clone())
        });
        let exceptions = proxies.exceptions.as_deref().and_then(NoProxy::from_string);
        builder = builder.proxy(proxy.no_proxy(exceptions));
    }
    builder = builder.tls_backend_preconfigured(tls_config(certificates)?);
    builder.build().map_err(RegistryErrorKind::Setup)
}

/// A proxy may be written without its scheme.
fn proxy_url(address: &str) -> Result<Url, RegistryErrorKind> {
    let text =
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    Url::parse(&text).map_err(|_| RegistryErrorKind::Proxy(address.to_owned()))
}

/// `None` trusts nobody: a client that must never speak HTTPS.
fn tls_config(certificates: Option<&[PathBuf]>) -> Result<rustls::ClientConfig, RegistryErrorKind> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| RegistryErrorKind::Tls { what, source }
    };
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed("the protocol versions 1.2 and 1.3"))?;
    let Some(certificates) = certificates else {
        return Ok(builder
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth());
    };
    let mut extra = Vec::new();
    for path in certificates {
        extra.extend(read_certificates(path)?);
    }
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider)
        .map_err(failed("the system's certificates (Debian has them in `ca-certificates`)"))?;
    // "Dangerous" is rustls's word for any verifier that is not its own; this one wraps its own.
    let config = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryErrorKind> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| {
        RegistryErrorKind::Certificates { path: path.to_owned(), reason: error.to_string() }
    })
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
