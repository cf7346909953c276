//! Where things are and how they are reached: the one place that looks at the environment for it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rbuild_cache::{HostFiles, PodmanFiles, Proxies};

use crate::aws::AwsSettings;
use crate::error::{CommandError, Kind};

/// The folder of the store: as given, else by the user's kind. To be called before a user namespace makes
/// everybody root.
pub(crate) fn store_root(given: Option<&Path>) -> Result<PathBuf, CommandError> {
    if let Some(given) = given {
        return std::path::absolute(given)
            .map_err(|error| CommandError::caused(Kind::Usage, "--root needs a folder", error));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/rbuild"));
    }
    let folder =
        |variable: &str| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_DATA_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("rbuild"))
        .ok_or_else(|| {
            CommandError::new(
                Kind::Environment,
                "neither XDG_DATA_HOME nor HOME says where the store is",
            )
            .hint("give it with --root or RBUILD_ROOT")
        })
}

/// Where settings are, the machine's before the user's.
pub(crate) fn config_files() -> Vec<PathBuf> {
    let folder = |variable: &str| env::var_os(variable).map(PathBuf::from);
    let user = folder("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let home = || folder("HOME").filter(|path| path.is_absolute());
    let user = user.or_else(|| home().map(|home| home.join(".config")));
    let folders = std::iter::once(PathBuf::from("/etc")).chain(user);
    folders.map(|folder| folder.join("rbuild/rbuild.toml")).collect()
}

/// Where `rbuild login` stores, which is where logins are looked for first.
pub(crate) fn login_file() -> Option<PathBuf> {
    let folder = |variable: &str| env::var_os(variable).map(PathBuf::from);
    let docker = folder("DOCKER_CONFIG");
    let docker = docker.or_else(|| folder("HOME").map(|home| home.join(".docker")));
    docker.map(|docker| docker.join("config.json"))
}

/// Where the ways to registries are configured, for rbuild and for others whose form is the same.
pub(crate) fn host_files() -> HostFiles {
    let folder = |variable: &str| env::var_os(variable).map(PathBuf::from);
    let configuration =
        folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
    let own = ["rbuild", "containers", "docker"];
    let folders = configuration.iter().flat_map(|folder| own.map(|name| folder.join(name)));
    let system =
        ["rbuild", "containerd", "containers", "docker"].map(|name| Path::new("/etc").join(name));
    HostFiles {
        folders: folders.chain(system).map(|folder| folder.join("certs.d")).collect(),
        daemon: Some(PathBuf::from("/etc/docker/daemon.json")),
        mirrors: Vec::new(),
        podman: podman_files(configuration.as_deref()),
    }
}

/// Where podman's `registries.conf` is.
fn podman_files(user: Option<&Path>) -> PodmanFiles {
    let given = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty());
    if let Some(file) = given("CONTAINERS_REGISTRIES_CONF").or(given("REGISTRIES_CONFIG_PATH")) {
        return PodmanFiles { files: vec![PathBuf::from(file)], folders: Vec::new() };
    }
    let user = user.map(|folder| folder.join("containers"));
    let system = PathBuf::from("/etc/containers");
    PodmanFiles {
        files: user.iter().chain([&system]).map(|at| at.join("registries.conf")).collect(),
        folders: [&system]
            .into_iter()
            .chain(&user)
            .map(|at| at.join("registries.conf.d"))
            .collect(),
    }
}

/// Where docker and podman keep their logins.
pub(crate) fn credential_files() -> Vec<PathBuf> {
    let folder = |variable: &str| env::var_os(variable).map(PathBuf::from);
    let home = folder("HOME");
    let podman = folder("REGISTRY_AUTH_FILE")
        .or_else(|| folder("XDG_RUNTIME_DIR").map(|run| run.join("containers/auth.json")));
    let podman_home = home.map(|home| home.join(".config/containers/auth.json"));
    login_file().into_iter().chain(podman).chain(podman_home).collect()
}

/// The proxies that the environment names, in either letter case.
pub(crate) fn proxies() -> Proxies {
    let text = |name: &str| {
        let value = env::var(name).or_else(|_| env::var(name.to_uppercase())).ok();
        value.filter(|value| !value.is_empty())
    };
    Proxies { http: text("http_proxy"), https: text("https_proxy"), exceptions: text("no_proxy") }
}

/// What AWS's variables and files say.
pub(crate) fn aws_settings() -> Result<AwsSettings, CommandError> {
    let home = env::var_os("HOME").map(PathBuf::from);
    AwsSettings::read(|name| env::var(name).ok(), home.as_deref())
}

/// The first file of this name in the absolute folders of PATH that can be executed.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    rbuild_worker::find_program(name, &programs())
}

/// Where this program is. It may have been replaced meanwhile; whoever needs it is told then.
pub(crate) fn own_program() -> PathBuf {
    env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"))
}

/// What git may know of the environment: how to reach the network. The agent comes with `--ssh`.
pub(crate) fn git_environment() -> Vec<(OsString, OsString)> {
    const NAMES: [&str; 14] = [
        "PATH",
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
        "no_proxy",
        "NO_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "GIT_SSL_CAINFO",
        "GIT_SSL_CAPATH",
        "LD_LIBRARY_PATH",
        "TMPDIR",
    ];
    NAMES.iter().filter_map(|name| Some(((*name).into(), env::var_os(name)?))).collect()
}

/// The hosts that the user's ssh knows.
pub(crate) fn known_hosts() -> Option<PathBuf> {
    env::var_os("HOME").map(|home| PathBuf::from(home).join(".ssh/known_hosts"))
}

/// Where programs are looked for.
pub(crate) fn programs() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    env::split_paths(&path).collect()
}
