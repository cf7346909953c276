//! Logins for which a token service gives an identity token: it is stored instead of the password, and all work is done with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};

use rbuild_testdata::{Registry, Reply, Request, Scripted};

use crate::fixture::{Fixture, Ran, have, ran};

/// How the token service differs from the usual one.
#[derive(Clone, Copy, Debug, Default)]
struct Service {
    /// It knows OAuth's POST only.
    posts_only: bool,
    /// It takes an identity token once, and gives another one.
    replaces: bool,
}

/// What the service and the gate before the registry know.
#[derive(Debug, Default)]
struct State {
    /// Which tokens the registry takes.
    access: usize,
    /// Which identity token the service takes.
    identity: usize,
    /// Access tokens become invalid at the next request that sends a blob.
    expires: bool,
}

/// A registry that takes tokens of the service beside it.
struct Guarded {
    server: Scripted,
    state: Arc<Mutex<State>>,
}

impl Guarded {
    fn start(registry: &Arc<Registry>, service: Service) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, registry) = (Arc::clone(&state), Arc::clone(registry));
        let server = Scripted::start(move |request, _| {
            if request.path.starts_with("/token") {
                return tokens(request, service, &mut locked(&shared));
            }
            let good = {
                let mut state = locked(&shared);
                if state.expires && matches!(&*request.method, "PUT" | "PATCH") {
                    state.expires = false;
                    state.access += 1;
                }
                format!("Bearer access-{}", state.access)
            };
            if request.headers.get("authorization") == Some(&good) {
                return registry.forward(request);
            }
            let realm = format!("http://{}/token", request.headers["host"]);
            Reply::new(401, "")
                .header("WWW-Authenticate", &format!("Bearer realm=\"{realm}\",service=\"s\""))
        });
        Self { server, state }
    }

    fn host(&self) -> String {
        self.server.address()
    }

    /// What the service was asked.
    fn asked(&self) -> Vec<String> {
        let asked = self.server.requests().into_iter();
        let asked = asked.filter(|request| request.path.starts_with("/token"));
        asked.map(|Request { method, path, .. }| format!("{method} {path}")).collect()
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no test thread panicked")
}

fn tokens(request: &Request, service: Service, state: &mut State) -> Reply {
    let form = String::from_utf8_lossy(&request.body).into_owned();
    let has = |pair: &str| form.split('&').any(|given| given == pair);
    let access = format!("access-{}", state.access);
    let identity = format!("identity-{}", state.identity);
    let both = format!(r#"{{"access_token":"{access}","refresh_token":"{identity}"}}"#);
    match &*request.method {
        "GET" if service.posts_only => Reply::new(405, ""),
        "GET" => {
            let right = "Basic bmFtZTpnZWhlaW0=";
            if request.headers.get("authorization").map(String::as_str) != Some(right) {
                return Reply::new(401, "");
            }
            match request.path.contains("offline_token=true&client_id=") {
                true => Reply::new(200, both),
                false => Reply::new(200, format!(r#"{{"token":"{access}"}}"#)),
            }
        }
        _ if has("grant_type=password") && has("username=name") && has("password=geheim") => {
            assert!(has("access_type=offline"), "{form}");
            Reply::new(200, both)
        }
        _ if has("grant_type=refresh_token") && has(&format!("refresh_token={identity}")) => {
            if !service.replaces {
                return Reply::new(200, format!(r#"{{"access_token":"{access}"}}"#));
            }
            state.identity += 1;
            let next = format!("identity-{}", state.identity);
            Reply::new(200, format!(r#"{{"access_token":"{access}","refresh_token":"{next}"}}"#))
        }
        _ => Reply::new(401, ""),
    }
}

fn fixture() -> Fixture {
    let fixture = Fixture::with("FROM scratch\nCOPY one /one\nCOPY two /two\n");
    fixture.write("one", "1");
    fixture.write("two", "2");
    fixture
}

fn login(fixture: &Fixture, host: &str) -> Ran {
    fixture.run_with_input(&["login", host, "-u", "name", "--password-stdin"], b"geheim\n")
}

#[test]
fn privileged_an_identity_token_is_stored_and_used() {
    let registry = Arc::new(Registry::start());
    let guarded = Guarded::start(&registry, Service::default());
    let (host, fixture) = (guarded.host(), fixture());
    let said = login(&fixture, &host).ok();
    assert!(said.stderr.contains("the identity token is stored as plain text"), "{}", said.stderr);
    let file = fixture.path(".docker/config.json");
    let text = fs::read_to_string(&file).expect("the file");
    let stored: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    // The base64 of `name:`, as docker has it.
    let expected = serde_json::json!({"auth": "bmFtZTo=", "identitytoken": "identity-0"});
    assert_eq!(stored["auths"][&host], expected);
    assert_eq!(guarded.asked().len(), 1, "{:?}", guarded.asked());

    // A push during which the tokens run out.
    locked(&guarded.state).expires = true;
    let name = format!("{host}/app:1");
    fixture.build(&["-t", &name, "--push"]).ok();
    assert!(registry.manifest("app", "1").is_some());
    assert!(!locked(&guarded.state).expires);
    let pulled = fixture.command("other").args(["pull", &name]).output().expect("rbuild starts");
    ran(pulled).ok();
    let asked = guarded.asked();
    assert!(asked.len() >= 4 && asked[1..].iter().all(|line| line == "POST /token"), "{asked:?}");

    if have("privileged_an_identity_token_is_stored_and_used", "skopeo") {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--tls-verify=false", "--authfile"]).arg(&file);
        ran(skopeo.arg(format!("docker://{name}")).output().expect("skopeo runs")).ok();
    }
    fixture.run(["logout", &host]).ok();
    let error = fixture.run(["pull", &name]).fails(1);
    assert!(error.contains(&format!("rbuild login {host}")), "{error}");
}

#[test]
fn privileged_an_identity_token_may_be_replaced_at_each_use() {
    let registry = Arc::new(Registry::start());
    let service = Service { replaces: true, ..Service::default() };
    let guarded = Guarded::start(&registry, service);
    let (host, fixture) = (guarded.host(), fixture());
    login(&fixture, &host).ok();
    locked(&guarded.state).expires = true;
    fixture.build(&["-t", &format!("{host}/app:1"), "--push"]).ok();
    assert!(registry.manifest("app", "1").is_some());
    assert!(locked(&guarded.state).identity >= 2);
}

#[test]
fn a_service_that_knows_no_get_is_asked_by_post() {
    let registry = Arc::new(Registry::start());
    let service = Service { posts_only: true, ..Service::default() };
    let guarded = Guarded::start(&registry, service);
    let (host, fixture) = (guarded.host(), fixture());
    login(&fixture, &host).ok();
    let text = fs::read_to_string(fixture.path(".docker/config.json")).expect("the file");
    assert!(text.contains("identity-0") && !text.contains("Z2VoZWlt"), "{text}");
    let error = fixture.run(["pull", &format!("{host}/none:1")]).fails(1);
    assert!(error.contains("not found"), "{error}");
}

#[test]
fn helpers_keep_identity_tokens_under_their_name() {
    let registry = Arc::new(Registry::start());
    let guarded = Guarded::start(&registry, Service::default());
    let (host, fixture) = (guarded.host(), fixture());
    for folder in [".docker", "bin"] {
        fs::create_dir_all(fixture.path(folder)).expect("a folder");
    }
    fs::write(fixture.path(".docker/config.json"), r#"{"credsStore": "box"}"#).expect("the file");
    let helper = fixture.path("bin/docker-credential-box");
    let script =
        "#!/bin/sh\ncase $1 in\nstore) cat > \"$HOME/box\" ;;\nget) cat \"$HOME/box\" ;;\nesac\n";
    fs::write(&helper, script).expect("the helper");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("its mode");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", fixture.path("bin").display());
    let run = |args: &[&str]| {
        fs::write(fixture.path("input"), "geheim").expect("the input");
        let stdin = fs::File::open(fixture.path("input")).expect("the input");
        let mut command = fixture.command("store");
        ran(command.env("PATH", &path).args(args).stdin(stdin).output().expect("rbuild starts"))
    };
    run(&["login", &host, "-u", "name", "--password-stdin"]).ok();
    let text = fs::read_to_string(fixture.path("box")).expect("what the helper has");
    let kept: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let expected =
        serde_json::json!({"ServerURL": host, "Username": "<token>", "Secret": "identity-0"});
    assert_eq!(kept, expected);
    let error = run(&["pull", &format!("{host}/none:1")]).fails(1);
    assert!(error.contains("not found"), "{error}");
    assert_eq!(guarded.asked().last().map(String::as_str), Some("POST /token"));
}
