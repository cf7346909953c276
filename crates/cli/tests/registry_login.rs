//! `rbuild login` and `rbuild logout`, against a registry that asks for a password and a token server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rbuild_testdata::{Registry, Reply, Scripted};

use crate::fixture::{Fixture, Ran};

fn login(fixture: &Fixture, host: &str, password: &str) -> Ran {
    fixture.run_with_input(&["login", host, "-u", "name", "--password-stdin"], password.as_bytes())
}

#[test]
fn a_login_is_verified_and_stored_for_its_owner_alone() {
    let registry = Registry::start_with_password();
    let host = registry.protected_address();
    let fixture = Fixture::new();
    let file = fixture.path(".docker/config.json");
    let refused = login(&fixture, &host, "falsch\n").fails(1);
    assert!(refused.contains("does not accept this name and password"), "{refused}");
    assert!(!refused.contains("falsch") && !file.exists(), "{refused}");

    let accepted = login(&fixture, &host, "geheim\n").ok();
    assert_eq!(accepted.text(), "Login succeeded\n");
    assert!(accepted.stderr.contains("plain text") && !accepted.stderr.contains("geheim"));
    assert_eq!(fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
    let typed = fixture.run(["login", &host, "-u", "name", "-p", "geheim"]).ok();
    assert!(typed.stderr.contains("--password-stdin reads it"), "{}", typed.stderr);
    let name = format!("{host}/none:1");
    let error = fixture.run(["pull", &name]).fails(1);
    assert!(error.contains("not found"), "{error}");

    let logout = |text: &str| assert_eq!(fixture.run(["logout", &host]).ok().text(), text);
    logout(&format!("Removed the login for {host}\n"));
    logout(&format!("There is no login for {host}\n"));
    let error = fixture.run(["pull", &name]).fails(1);
    assert!(error.contains(&format!("rbuild login {host}")), "{error}");
}

#[test]
fn a_token_service_verifies_the_login() {
    let server = Scripted::start(|request, _| {
        let right = "Basic bmFtZTpnZWhlaW0=";
        let given = request.headers.get("authorization").map(String::as_str);
        match request.path.split('?').next().unwrap_or_default() {
            "/token" if given == Some(right) => Reply::new(200, r#"{"token": "good"}"#),
            "/token" => Reply::new(401, given.unwrap_or_default()),
            "/v2/" if given == Some("Bearer good") => Reply::new(200, "{}"),
            _ => {
                let realm = format!("Bearer realm=\"http://{}/token\"", request.headers["host"]);
                Reply::new(401, "").header("WWW-Authenticate", &realm)
            }
        }
    });
    let fixture = Fixture::new();
    let error = login(&fixture, &server.address(), "falsch").fails(1);
    assert!(error.contains("does not accept this name and password"), "{error}");
    login(&fixture, &server.address(), "geheim").ok();
    let lines = server.lines();
    assert!(
        lines.contains(&"GET /token?account=name&offline_token=true&client_id=rbuild".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn helpers_keep_what_they_are_configured_for() {
    let registry = Registry::start_with_password();
    let host = registry.protected_address();
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path(".docker")).expect("a folder");
    let file = fixture.path(".docker/config.json");
    let config = format!(r#"{{"credHelpers": {{"{host}": "box"}}, "detachKeys": "ctrl-x"}}"#);
    fs::write(&file, config).expect("the file");
    let helper = fixture.path("bin/docker-credential-box");
    fs::create_dir_all(fixture.path("bin")).expect("a folder");
    let script = "#!/bin/sh\ncase $1 in\nstore) cat > \"$HOME/box\" ;;\nget) cat \"$HOME/box\" ;;\n\
         erase) rm \"$HOME/box\" ;;\nesac\n";
    fs::write(&helper, script).expect("the helper");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("its mode");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", fixture.path("bin").display());
    let run = |args: &[&str], input: &str| {
        let stdin = fixture.path("input");
        fs::write(&stdin, input).expect("the input");
        let stdin = fs::File::open(stdin).expect("the input");
        let mut command = fixture.command("store");
        crate::fixture::ran(
            command.env("PATH", &path).args(args).stdin(stdin).output().expect("rbuild starts"),
        )
    };
    let args = ["login", &host, "-u", "name", "--password-stdin"];
    assert!(!run(&args, "geheim").ok().stderr.contains("plain text"));
    let stored = fs::read_to_string(fixture.path("box")).expect("what the helper has");
    assert!(stored.contains("geheim") && stored.contains(&host), "{stored}");
    let text = fs::read_to_string(&file).expect("the file");
    assert!(text.contains("detachKeys") && !text.contains("Z2VoZWlt"), "{text}");
    let name = format!("{host}/none:1");
    let error = run(&["pull", &name], "").fails(1);
    assert!(error.contains("not found"), "{error}");
    run(&["logout", &host], "").ok();
    assert!(!fixture.path("box").exists());
    assert!(fs::read_to_string(&file).expect("the file").contains("credHelpers"));
}

#[test]
fn a_login_that_cannot_be_is_told() {
    let fixture = Fixture::new();
    let open = Registry::start();
    let stored = login(&fixture, &open.address(), "x").ok();
    assert!(stored.stderr.contains("nobody has verified"), "{}", stored.stderr);
    for (args, input, code, part) in [
        (&["login", "a.b"][..], "", 2, "--password-stdin"),
        (&["login", "a.b", "--password-stdin"], "x", 2, "needs --username"),
        (&["login", "a.b", "-p", "x"], "", 2, "--password needs --username"),
        (&["login", "a.b/c", "-u", "x", "--password-stdin"], "x", 2, "is no registry"),
        (&["login", "a.b", "-u", "x", "--password-stdin"], "", 2, "needs a name and a password"),
        (&["login", "a.b", "-u", "x:y", "--password-stdin"], "x", 2, "cannot have a colon"),
        (&["login", "127.0.0.1:1", "-u", "x", "--password-stdin"], "x", 1, "cannot connect"),
    ] {
        let error = fixture.run_with_input(args, input.as_bytes()).fails(code);
        assert!(error.contains(part), "{error}");
    }
    fs::write(fixture.path(".docker/config.json"), "{").expect("the file");
    let error = login(&fixture, &open.address(), "x").fails(1);
    assert!(error.contains("it is no JSON object"), "{error}");
}
