//! The ways to a registry, as the files of the machine say them.
//!
//! ```text
//! <folder>/<registry>/hosts.toml                 containerd's form: mirrors in order, and the registry itself
//! <folder>/<registry>/*.crt                      docker's form: authorities that sign for the registry,
//! <folder>/<registry>/NAME.cert, NAME.key        and who we are to it
//! <folder>/_default/                             the same, for registries without a folder of their own
//! ```
//!
//! The first folder that has something for a registry says everything of it. Certificates for a registry make it one
//! that speaks HTTPS, on the loopback too.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::{Table, Value};

use super::RegistryOptions;
use super::host::{base_url, host_of};
use super::registries_conf::{self, PodmanFiles, Said, SaidMirror};
use crate::http::TlsFiles;

/// Where the ways to registries are configured. Nothing is read before a registry is asked.
#[derive(Clone, Debug, Default)]
pub struct HostFiles {
    /// Folders with a folder per registry, the most important first.
    pub folders: Vec<PathBuf>,
    /// Docker's `daemon.json`, of which `registry-mirrors` and `insecure-registries` are read.
    pub daemon: Option<PathBuf>,
    /// Mirrors of registries, each `[scheme://]host[:port][/path]`, which come before all that files say of the registry. What the
    /// registry calls `a/b` is `path/a/b` there.
    pub mirrors: Vec<(String, Vec<String>)>,
    /// Podman's `registries.conf`, which counts where no `hosts.toml` says something.
    pub podman: PodmanFiles,
}

/// Why a configuration of registries cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostFilesError {
    /// A file or folder cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody is to use the registry.
    #[error("`{registry}` is blocked by `{}`", path.display())]
    Blocked {
        /// Which.
        registry: String,
        /// Who says so.
        path: PathBuf,
    },
    /// A file is not of its format.
    #[error("cannot use `{}`: {reason}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// One way to a registry.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// What paths of the API follow: `https://host:port/v2`.
    pub(super) api: Url,
    /// Whether it is another server than the one that the registry's name means. It gets no login of the registry.
    pub(super) is_mirror: bool,
    /// What it is asked.
    pub(super) rights: Rights,
    pub(super) tls: TlsFiles,
    /// What each request says besides.
    pub(super) headers: HeaderMap,
    /// It did not answer, and is not asked again.
    pub(super) is_down: AtomicBool,
}

/// What an endpoint is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    /// Blobs, and documents by their digest.
    pub(super) pull: bool,
    /// What a tag means.
    pub(super) resolve: bool,
    pub(super) push: bool,
}

impl Rights {
    const ALL: Self = Self { pull: true, resolve: true, push: true };
}

impl Endpoint {
    /// `host[:port]`, which is what logins for it are called by.
    pub(super) fn authority(&self) -> String {
        let host = self.api.host_str().unwrap_or_default();
        match self.api.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// The address of a path below `/v2`.
    pub(super) fn url(&self, registry: &str, path: &str) -> Option<Url> {
        let mut url =
            Url::parse(&format!("{}{path}", self.api.as_str().trim_end_matches('/'))).ok()?;
        if self.is_mirror {
            // A mirror of several registries learns here which one is meant.
            url.query_pairs_mut().append_pair("ns", registry);
        }
        Some(url)
    }
}

/// Finds the ways to a registry: mirrors in their order, and the registry itself last. Blocks.
pub(super) fn find(
    registry: &str,
    options: &RegistryOptions,
) -> Result<Vec<Endpoint>, HostFilesError> {
    let mut endpoints = Vec::new();
    for address in mirrors_of(registry, &options.hosts.mirrors) {
        endpoints.extend(mirror(address, options)?);
    }
    endpoints.extend(of_files(registry, options)?);
    Ok(endpoints)
}

/// The mirrors that were given for a registry.
fn mirrors_of<'a>(
    registry: &str,
    given: &'a [(String, Vec<String>)],
) -> impl Iterator<Item = &'a String> {
    given.iter().filter(move |(of, _)| of == registry).flat_map(|(_, mirrors)| mirrors)
}

/// The ways to a mirror, which is reached as the registry that it is.
fn mirror(address: &str, options: &RegistryOptions) -> Result<Vec<Endpoint>, HostFilesError> {
    let (scheme, name) = match address.split_once("://") {
        Some((scheme, name)) => (Some(scheme), name),
        None => (None, address),
    };
    let (authority, path) = match name.split_once('/') {
        Some((authority, path)) => (authority, path.trim_end_matches('/')),
        None => (name, ""),
    };
    let rights = Rights { push: false, ..Rights::ALL };
    let mut own: Vec<Endpoint> = of_files(authority, options)?;
    own.retain(|endpoint| {
        !endpoint.is_mirror && scheme.is_none_or(|scheme| endpoint.api.scheme() == scheme)
    });
    if own.is_empty() {
        // It is not reached as its name says.
        let address = format!("{}://{authority}", scheme.unwrap_or("https"));
        own.push(endpoint(&address, Path::new(address.as_str()))?);
    }
    let at_path = |own: Endpoint| {
        let api = match path {
            "" => own.api,
            path => {
                let base = own.api.as_str().trim_end_matches('/');
                parse(&format!("{base}/{path}"), Path::new(address))?
            }
        };
        Ok(Endpoint { api, is_mirror: true, rights, ..own })
    };
    own.into_iter().map(at_path).collect()
}

/// What files, and what is known of the registry itself, say.
fn of_files(registry: &str, options: &RegistryOptions) -> Result<Vec<Endpoint>, HostFilesError> {
    let mut https = options.https.clone();
    let mut found = None;
    // Most are not there.
    let folders: Vec<_> = options.hosts.folders.iter().filter(|folder| folder.exists()).collect();
    for (name, folder) in [registry, "_default"]
        .into_iter()
        .flat_map(|name| folders.iter().map(move |folder| (name, folder)))
    {
        found = read_folder(&folder.join(name))?;
        if found.is_some() {
            if name == registry && matches!(found, Some(Found::Certificates(_))) {
                https.push(registry.to_owned());
            }
            break;
        }
    }
    let podman = match found {
        Some(Found::Hosts(..)) => None,
        _ => registries_conf::read(&options.hosts.podman, registry)?,
    };
    let is_insecure = options.insecure.iter().any(|name| name == registry)
        || podman.as_ref().is_some_and(|said| said.insecure);
    let base = base_url(registry, &options.plain_http, &https);
    let mut origin = endpoint(&base, Path::new(registry))?;
    origin.tls.authorities.clone_from(&options.certificates);
    let mut endpoints = Vec::new();
    match found {
        None => {
            let daemon = Daemon::read(options)?;
            endpoints.extend(daemon.mirrors_of(registry)?);
            if daemon.is_insecure(registry) || is_insecure {
                let (_, address) = base.split_once("://").unwrap_or_default();
                let mut tried = endpoint(&format!("https://{address}"), Path::new(registry))?;
                tried.tls.unverified = true;
                endpoints.push(tried);
                origin = endpoint(&format!("http://{address}"), Path::new(registry))?;
            }
        }
        Some(Found::Certificates(tls)) => {
            origin.tls.authorities.extend(tls.authorities);
            origin.tls.identity = tls.identity;
        }
        Some(Found::Hosts(file, hosts)) => {
            let mut hosts = read_hosts(&file, hosts, &base)?;
            if let Some(mut server) = hosts.server.take() {
                server.is_mirror = server.authority() != origin.authority();
                server.tls.authorities.extend(options.certificates.iter().cloned());
                origin = server;
            }
            endpoints = hosts.mirrors;
        }
    }
    endpoints.push(origin);
    match podman {
        Some(said) => with_podman(said, endpoints, options),
        None => Ok(endpoints),
    }
}

/// Puts the mirrors of podman's file before all others, and the place where it says that the registry is in place of the registry, to
/// which only pushes go then.
fn with_podman(
    said: Said,
    mut endpoints: Vec<Endpoint>,
    options: &RegistryOptions,
) -> Result<Vec<Endpoint>, HostFilesError> {
    let Said { mirrors, location, insecure } = said;
    let elsewhere =
        location.map(|location| SaidMirror { location, insecure, by_digest_only: false });
    if elsewhere.is_some() {
        for own in &mut endpoints {
            own.rights = Rights { pull: false, resolve: false, push: !own.is_mirror };
        }
    }
    let mut all = Vec::new();
    for SaidMirror { location, insecure, by_digest_only } in mirrors.into_iter().chain(elsewhere) {
        // What the file says of a mirror's own name is not for mirrors.
        let mut options = options.clone();
        options.hosts.podman = PodmanFiles::default();
        if insecure {
            options.insecure.push(location.split('/').next().unwrap_or_default().to_owned());
        }
        let found = mirror(&location, &options)?.into_iter();
        all.extend(found.map(|mut mirror| {
            mirror.rights.resolve &= !by_digest_only;
            mirror
        }));
    }
    all.extend(endpoints);
    Ok(all)
}

/// What a folder says.
enum Found {
    Certificates(TlsFiles),
    Hosts(PathBuf, Table),
}

/// Whether something is not there, or for others, such as the daemon's own files.
pub(super) fn is_not_for_us(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

fn read_folder(folder: &Path) -> Result<Option<Found>, HostFilesError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| HostFilesError::Read { path, source }
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_not_for_us(&error) => {
            return Ok(None);
        }
        Err(error) => return Err(read(folder)(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(read(folder))?.path());
    }
    files.sort();
    let hosts = folder.join("hosts.toml");
    if files.contains(&hosts) {
        let text = fs::read_to_string(&hosts).map_err(read(&hosts))?;
        let table = text.parse::<Table>().map_err(|error| HostFilesError::Format {
            path: hosts.clone(),
            reason: error.message().to_owned(),
        })?;
        return Ok(Some(Found::Hosts(hosts, table)));
    }
    let with = |extension: &'static str| {
        files.iter().filter(move |file| file.extension().is_some_and(|of| of == extension))
    };
    let mut tls = TlsFiles { authorities: with("crt").cloned().collect(), ..TlsFiles::default() };
    for certificate in with("cert") {
        let key = certificate.with_extension("key");
        if !files.contains(&key) {
            let reason = format!("its key `{}` is missing", key.display());
            return Err(HostFilesError::Format { path: certificate.clone(), reason });
        }
        if tls.identity.is_none() {
            tls.identity = Some((certificate.clone(), key));
        }
    }
    let is_empty = tls == TlsFiles::default();
    Ok((!is_empty).then_some(Found::Certificates(tls)))
}

struct Hosts {
    server: Option<Endpoint>,
    mirrors: Vec<Endpoint>,
}

/// `base` is the address of the registry itself, where the file does not say it.
fn read_hosts(file: &Path, mut table: Table, base: &str) -> Result<Hosts, HostFilesError> {
    let mut mirrors = Vec::new();
    match table.remove("host") {
        None => {}
        Some(Value::Table(hosts)) => {
            for (address, said) in hosts {
                let Value::Table(said) = said else {
                    return Err(wrong_form(file, format!("`host.\"{address}\"` is no table")));
                };
                mirrors.push(Endpoint { is_mirror: true, ..host(file, &address, said)? });
            }
        }
        Some(_) => return Err(wrong_form(file, "`host` is no table")),
    }
    let server = match table.remove("server") {
        None if table.is_empty() => None,
        None => Some(host(file, base, table)?),
        Some(Value::String(address)) => Some(host(file, &address, table)?),
        Some(_) => return Err(wrong_form(file, "`server` is no text")),
    };
    Ok(Hosts { server, mirrors })
}

/// One or several of something.
#[derive(Deserialize)]
#[serde(untagged)]
enum Several<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> Several<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

fn host(file: &Path, address: &str, said: Table) -> Result<Endpoint, HostFilesError> {
    let full =
        if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let mut endpoint = endpoint(&full, file)?;
    let beside = |path: String| file.parent().unwrap_or(Path::new("/")).join(path);
    let mut own_path = false;
    for (key, value) in said {
        let wrong = |_| wrong_form(file, format!("`{key}` of `{address}` is not of its form"));
        match key.as_str() {
            "capabilities" => {
                let names: Vec<String> = value.try_into().map_err(wrong)?;
                let is_known = |name: &&String| {
                    ["pull", "resolve", "push", "referrers"].contains(&name.as_str())
                };
                if let Some(other) = names.iter().find(|name| !is_known(name)) {
                    let message = format!(
                        "`{other}` of `{address}` is no capability: pull, resolve and push are"
                    );
                    return Err(wrong_form(file, message));
                }
                let has = |name: &str| names.iter().any(|given| given == name);
                endpoint.rights =
                    Rights { pull: has("pull"), resolve: has("resolve"), push: has("push") };
            }
            "ca" => {
                let paths: Several<String> = value.try_into().map_err(wrong)?;
                endpoint.tls.authorities = paths.into_vec().into_iter().map(beside).collect();
            }
            "client" => {
                let pairs: Several<Several<String>> = value.try_into().map_err(wrong)?;
                let first = pairs.into_vec().into_iter().next().map(Several::into_vec);
                let files: Vec<PathBuf> = first
                    .into_iter()
                    .flatten()
                    .filter(|path| !path.is_empty())
                    .map(beside)
                    .collect();
                endpoint.tls.identity = match files.as_slice() {
                    [] => None,
                    [both] => Some((both.clone(), both.clone())),
                    [certificate, key, ..] => Some((certificate.clone(), key.clone())),
                };
            }
            "skip_verify" => endpoint.tls.unverified = value.try_into().map_err(wrong)?,
            "override_path" => own_path = value.try_into().map_err(wrong)?,
            "header" => {
                let headers: std::collections::BTreeMap<String, Several<String>> =
                    value.try_into().map_err(wrong)?;
                for (name, values) in headers {
                    let bad = || wrong_form(file, format!("`{name}` of `{address}` is no header"));
                    let name = HeaderName::try_from(&name).map_err(|_| bad())?;
                    for value in values.into_vec() {
                        let mut value = HeaderValue::try_from(value).map_err(|_| bad())?;
                        value.set_sensitive(true);
                        endpoint.headers.append(name.clone(), value);
                    }
                }
            }
            // How long containerd waits, and other things that change no answer.
            "dial_timeout" => {}
            _ => return Err(wrong_form(file, format!("`{key}` of `{address}` is not known here"))),
        }
    }
    if own_path {
        endpoint.api = parse(&full, file)?;
    }
    Ok(endpoint)
}

/// The endpoint of an address, with all rights.
fn endpoint(address: &str, file: &Path) -> Result<Endpoint, HostFilesError> {
    let api = parse(&format!("{}/v2", address.trim_end_matches('/')), file)?;
    Ok(Endpoint {
        api,
        is_mirror: false,
        rights: Rights::ALL,
        tls: TlsFiles::default(),
        headers: HeaderMap::new(),
        is_down: AtomicBool::new(false),
    })
}

fn parse(address: &str, file: &Path) -> Result<Url, HostFilesError> {
    let url = Url::parse(address).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.query().is_none()
    });
    url.ok_or_else(|| {
        // It may hold a password.
        let shown = if address.contains('@') { "what has an `@`" } else { address };
        wrong_form(file, format!("`{shown}` is no address of a registry"))
    })
}

fn wrong_form(file: &Path, reason: impl Into<String>) -> HostFilesError {
    HostFilesError::Format { path: file.to_owned(), reason: reason.into() }
}

/// What is read of Docker's `daemon.json`.
#[derive(Default, Deserialize)]
struct Daemon {
    #[serde(default, rename = "registry-mirrors")]
    mirrors: Vec<String>,
    #[serde(default, rename = "insecure-registries")]
    insecure: Vec<String>,
    #[serde(skip)]
    file: PathBuf,
}

impl Daemon {
    fn read(options: &RegistryOptions) -> Result<Self, HostFilesError> {
        let Some(file) = options.hosts.daemon.as_deref() else { return Ok(Self::default()) };
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if is_not_for_us(&error) => return Ok(Self::default()),
            Err(source) => return Err(HostFilesError::Read { path: file.to_owned(), source }),
        };
        let daemon: Self = serde_json::from_slice(&bytes)
            .map_err(|_| wrong_form(file, "it is not JSON of Docker's form"))?;
        Ok(Self { file: file.to_owned(), ..daemon })
    }

    /// Docker has mirrors of its own registry only.
    fn mirrors_of(&self, registry: &str) -> Result<Vec<Endpoint>, HostFilesError> {
        let rights = Rights { push: false, ..Rights::ALL };
        let mirror = |address: &String| {
            Ok(Endpoint { is_mirror: true, rights, ..endpoint(address, &self.file)? })
        };
        self.mirrors.iter().filter(|_| registry == "docker.io").map(mirror).collect()
    }

    /// Whether a registry is named, or its address is in a network that is.
    fn is_insecure(&self, registry: &str) -> bool {
        let address = host_of(registry).trim_matches(['[', ']']).parse::<IpAddr>().ok();
        self.insecure.iter().any(|named| {
            named == registry || address.is_some_and(|address| is_in_network(address, named))
        })
    }
}

/// Whether an address is in a network such as `10.0.0.0/8`.
fn is_in_network(address: IpAddr, network: &str) -> bool {
    let Some((first, length)) = network.split_once('/') else { return false };
    let (Ok(first), Ok(length)) = (first.parse::<IpAddr>(), length.parse::<u32>()) else {
        return false;
    };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let ((address, size), (first, other_size)) = (bits(address), bits(first));
    size == other_size && length <= size && (address ^ first).leading_zeros() >= length
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The endpoints of a registry as text: address, `m` for a mirror, rights, `u` for unverified.
    fn shown(registry: &str, options: &RegistryOptions) -> Vec<String> {
        let shown = |endpoint: &Endpoint| {
            let Rights { pull, resolve, push } = endpoint.rights;
            let flags = [
                (endpoint.is_mirror, 'm'),
                (pull, 'p'),
                (resolve, 'r'),
                (push, 'w'),
                (endpoint.tls.unverified, 'u'),
            ];
            let flags: String =
                flags.iter().filter(|(is, _)| *is).map(|(_, letter)| *letter).collect();
            format!("{} {flags}", endpoint.api)
        };
        find(registry, options).unwrap().iter().map(shown).collect()
    }

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn options(folder: &Path) -> RegistryOptions {
        let hosts = HostFiles {
            folders: vec![folder.join("first"), folder.join("second")],
            daemon: Some(folder.join("daemon.json")),
            ..HostFiles::default()
        };
        RegistryOptions { hosts, ..RegistryOptions::default() }
    }

    #[test]
    fn the_forms_of_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let options = options(folder);
        assert_eq!(shown("a.b", &options), ["https://a.b/v2 prw"]);
        assert_eq!(shown("localhost:5", &options), ["http://localhost:5/v2 prw"]);
        let toml = r#"
server = "https://a.b"
[host."https://z.b"]
capabilities = ["pull"]
skip_verify = true
[host."http://c.b:5000/sub"]
override_path = true
ca = "ca.pem"
client = [["c.pem", "/k.pem"]]
[host."http://c.b:5000/sub".header]
x-key = ["1", "2"]
"#;
        write(folder, "second/a.b/hosts.toml", toml);
        write(folder, "second/localhost:5/ca.crt", "");
        write(folder, "second/localhost:5/us.cert", "");
        write(folder, "second/localhost:5/us.key", "");
        assert_eq!(
            shown("a.b", &options),
            ["https://z.b/v2 mpu", "http://c.b:5000/sub mprw", "https://a.b/v2 prw"]
        );
        let endpoints = find("a.b", &options).unwrap();
        let [_, second, _] = endpoints.as_slice() else { panic!("three") };
        let own = folder.join("second/a.b");
        assert_eq!(second.tls.authorities, [own.join("ca.pem")]);
        assert_eq!(second.tls.identity, Some((own.join("c.pem"), PathBuf::from("/k.pem"))));
        assert_eq!(second.headers.get_all("x-key").iter().count(), 2);
        assert_eq!(second.authority(), "c.b:5000");
        let url = second.url("a.b", "/x/manifests/1").unwrap();
        assert_eq!(url.as_str(), "http://c.b:5000/sub/x/manifests/1?ns=a.b");

        assert_eq!(shown("localhost:5", &options), ["https://localhost:5/v2 prw"]);
        let endpoints = find("localhost:5", &options).unwrap();
        let own = folder.join("second/localhost:5");
        assert_eq!(endpoints[0].tls.identity, Some((own.join("us.cert"), own.join("us.key"))));

        // What is said of the server counts also where its name says where it is.
        write(folder, "first/a.b/hosts.toml", "ca = 'ca.pem'\n[host.'https://m.b']");
        assert_eq!(shown("a.b", &options), ["https://m.b/v2 mprw", "https://a.b/v2 prw"]);
        let endpoints = find("a.b", &options).unwrap();
        assert_eq!(endpoints[1].tls.authorities, [folder.join("first/a.b/ca.pem")]);

        // A server of another name is a mirror to which nothing is fallen back from.
        write(folder, "first/a.b/hosts.toml", "server = 'https://other.b'");
        assert_eq!(shown("a.b", &options), ["https://other.b/v2 mprw"]);
        write(folder, "first/_default/hosts.toml", "[host.'https://all.b']");
        assert_eq!(shown("x.y", &options), ["https://all.b/v2 mprw", "https://x.y/v2 prw"]);
    }

    #[test]
    fn mirrors_that_were_given_come_first_and_are_reached_as_registries() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut options = options(folder);
        let mirrors = [
            "one.b",
            "http://two.b/sub/",
            "localhost:5/x",
            "in.b:5",
            "tls.b",
            "https://localhost:6",
        ];
        options.hosts.mirrors =
            vec![("m.m".to_owned(), mirrors.iter().map(|mirror| (*mirror).to_owned()).collect())];
        options.insecure.push("in.b:5".to_owned());
        write(folder, "first/tls.b/ca.crt", "");
        write(folder, "first/m.m/hosts.toml", "[host.'https://file.b']");
        let expected = [
            "https://one.b/v2 mpr",
            "http://two.b/v2/sub mpr",
            "http://localhost:5/v2/x mpr",
            "https://in.b:5/v2 mpru",
            "http://in.b:5/v2 mpr",
            "https://tls.b/v2 mpr",
            "https://localhost:6/v2 mpr",
            "https://file.b/v2 mprw",
            "https://m.m/v2 prw",
        ];
        assert_eq!(shown("m.m", &options), expected);
        let endpoints = find("m.m", &options).unwrap();
        assert_eq!(endpoints[5].tls.authorities, [folder.join("first/tls.b/ca.crt")]);
        assert_eq!(shown("one.b", &options), ["https://one.b/v2 prw"]);
        options.hosts.mirrors[0].1 = vec!["a b".to_owned()];
        let error = find("m.m", &options).unwrap_err().to_string();
        assert!(error.contains("no address of a registry"), "{error}");
    }

    #[test]
    fn dockers_own_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut options = options(folder);
        let json = r#"{"registry-mirrors": ["https://m.b/"], "insecure-registries": ["a.b:5", "10.0.0.0/8"], "x": 1}"#;
        write(folder, "daemon.json", json);
        assert_eq!(
            shown("docker.io", &options),
            ["https://m.b/v2 mpr", "https://registry-1.docker.io/v2 prw"]
        );
        assert_eq!(shown("a.b", &options), ["https://a.b/v2 prw"]);
        assert_eq!(shown("a.b:5", &options), ["https://a.b:5/v2 prwu", "http://a.b:5/v2 prw"]);
        assert_eq!(shown("10.1.2.3:9", &options).len(), 2);
        assert_eq!(shown("11.1.2.3:9", &options).len(), 1);
        options.insecure.push("a.b".to_owned());
        assert_eq!(shown("a.b", &options), ["https://a.b/v2 prwu", "http://a.b/v2 prw"]);
    }

    #[test]
    fn podmans_own_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut options = options(folder);
        options.hosts.podman.files = vec![folder.join("registries.conf")];
        let text = "[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]\nlocation = 'm.b/x'\n\
                    [[registry.mirror]]\nlocation = 'n.b:5'\ninsecure = true\npull-from-mirror = 'digest-only'\n\
                    [[registry]]\nprefix = 'c.d'\nlocation = 'a.b/hub'\n\
                    [[registry]]\nlocation = 'u.v'\ninsecure = true\n";
        write(folder, "registries.conf", text);
        let expected = [
            "https://m.b/v2/x mpr",
            "https://n.b:5/v2 mpu",
            "http://n.b:5/v2 mp",
            "https://a.b/v2 prw",
        ];
        assert_eq!(shown("a.b", &options), expected);
        // The mirrors of where it is are for those who call it by that name.
        assert_eq!(shown("c.d", &options), ["https://a.b/v2/hub mpr", "https://c.d/v2 w"]);
        assert_eq!(shown("u.v", &options), ["https://u.v/v2 prwu", "http://u.v/v2 prw"]);
        // Certificates come from elsewhere, and a hosts.toml says everything.
        write(folder, "first/a.b/ca.crt", "");
        assert_eq!(shown("a.b", &options), expected);
        write(folder, "first/a.b/hosts.toml", "[host.'https://z.b']");
        assert_eq!(shown("a.b", &options), ["https://z.b/v2 mprw", "https://a.b/v2 prw"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let options = options(folder);
        for (text, part) in [
            ("server = 1", "`server` is no text"),
            ("server = 'ftp://a'", "no address"),
            ("server = 'https://name:geheim@a'", "`what has an `@`` is no address"),
            ("host = 1", "`host` is no table"),
            ("[host.'https://m']\nca = 1", "`ca` of `https://m`"),
            ("[host.'https://m']\nnope = 1", "`nope` of `https://m` is not known"),
            ("[host.'https://m'.header]\n'a b' = 'c'", "is no header"),
            ("= 1", "hosts.toml`: "),
            ("servr = 'https://a.b'", "`servr` of `https://a.b` is not known"),
        ] {
            write(folder, "first/a.b/hosts.toml", text);
            let error = find("a.b", &options).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("first/a.b/hosts.toml"), "{error}");
        }
        write(folder, "first/c.d/us.cert", "");
        let error = find("c.d", &options).unwrap_err().to_string();
        assert!(error.contains("us.key` is missing"), "{error}");
        write(folder, "daemon.json", "[");
        assert!(find("e.f", &options).unwrap_err().to_string().contains("daemon.json"));
    }
}
