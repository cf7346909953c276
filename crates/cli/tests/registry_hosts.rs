//! How registries are reached as files of the machine say, and `rbuild registry check`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rbuild_testdata::{Entry, Image, Layer, Registry, Reply, Scripted};

use crate::fixture::{Fixture, ran, skipped};

fn image() -> Image {
    Image::new("linux/amd64").layer(Layer::new(&[Entry::file("a", b"b")]))
}

/// A fixture whose store has an image of this name.
fn with_image(name: &str) -> Fixture {
    let fixture = Fixture::with("FROM scratch\nCOPY a /a\n");
    fixture.write("a", "b");
    fixture.build(&["-t", name]).ok();
    fixture
}

#[test]
fn privileged_an_authority_of_ones_own_is_believed_where_it_is_configured() {
    let Some(registry) = Registry::start_with_tls() else {
        skipped(
            "privileged_an_authority_of_ones_own_is_believed_where_it_is_configured",
            "there is no `openssl`",
        );
        return;
    };
    let host = registry.protected_address();
    let name = format!("{host}/app:1");
    let fixture = with_image(&name);
    // Everybody believes that the loopback speaks plain HTTP.
    let error = fixture.run(["push", &name]).fails(1);
    assert!(error.contains("answered 400 to plain HTTP"), "{error}");
    assert!(error.contains(&format!("server = \"https://{host}\"")), "{error}");
    let checked = fixture.run(["registry", "check", &host]);
    assert!(checked.text().contains("TLS         FAILED"), "{}", checked.text());
    checked.fails(1);
    let spec = format!("type=registry,name={host}/insecure:1,registry.insecure=true");
    fixture.build(&["-o", &spec]).ok();
    assert!(registry.manifest("insecure", "1").is_some());

    let folder = fixture.path(&format!(".config/rbuild/certs.d/{host}"));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("hosts.toml"), format!("server = 'https://{host}'")).expect("a file");
    let error = fixture.run(["push", &name]).fails(1);
    assert!(error.contains("TLS handshake") && error.contains("certificate"), "{error}");
    let checked = fixture.run(["registry", "check", &host]);
    assert!(checked.text().contains("connection  ok\nTLS         FAILED"), "{}", checked.text());
    assert!(checked.fails(1).contains("ca.crt"));

    fs::remove_file(folder.join("hosts.toml")).expect("the file");
    fs::copy(registry.authority(), folder.join("ca.crt")).expect("the authority");
    fixture.run(["push", &name]).ok();
    assert!(registry.manifest("app", "1").is_some());
    let command = ["pull", &name];
    ran(fixture.command("elsewhere").args(command).output().expect("rbuild starts")).ok();
    let checked = fixture.run(["registry", "check", &format!("{host}/app")]).ok().text();
    assert_eq!(checked.matches(" ok").count(), 7, "{checked}");
}

#[test]
fn privileged_a_mirror_serves_a_registry_that_is_not_there() {
    let registry = Registry::start();
    registry.push("team/base", "1", &image().publish());
    let fixture = Fixture::with("FROM registry.invalid/team/base:1\n");
    let folder = fixture.path(".config/rbuild/certs.d/registry.invalid");
    fs::create_dir_all(&folder).expect("a folder");
    let mirror =
        format!("[host.'http://{}']\ncapabilities = ['pull', 'resolve']\n", registry.address());
    fs::write(folder.join("hosts.toml"), mirror).expect("a file");
    fixture.build(&["-t", "built"]).ok();
    fs::write(folder.join("hosts.toml"), "nonsense").expect("a file");
    let error = fixture.build(&["--pull"]).fails(1);
    assert!(error.contains("hosts.toml"), "{error}");
    // Who asks no registry reads none of it.
    fixture.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    fixture.build(&[]).ok();
}

#[test]
fn who_we_are_is_shown_by_a_certificate() {
    let Some(registry) = Registry::start_with_client_certificates() else {
        skipped("who_we_are_is_shown_by_a_certificate", "there is no `openssl`");
        return;
    };
    registry.push("team/base", "1", &image().publish());
    let fixture = Fixture::new();
    let host = registry.protected_address();
    let folder = fixture.path(".config/rbuild/certs.d").join(&host);
    fs::create_dir_all(&folder).expect("a folder");
    fs::copy(registry.authority(), folder.join("ca.crt")).expect("a copy");
    let pull = || fixture.run(["pull", &format!("{host}/team/base:1")]);
    let checked = fixture.run(["registry", "check", &host]);
    assert!(checked.text().contains("TLS         FAILED"), "{}", checked.text());
    assert!(checked.fails(1).contains("us.cert and us.key"));
    let (certificate, key) = registry.client_certificate();
    fs::copy(certificate, folder.join("us.cert")).expect("a copy");
    assert!(pull().fails(1).contains("us.key` is missing"));
    // The key of somebody else.
    fs::write(folder.join("us.key"), "nonsense").expect("a file");
    assert!(pull().fails(1).contains("us.key"));
    fs::copy(key, folder.join("us.key")).expect("a copy");
    pull().ok();
}

#[test]
fn podmans_file_says_where_registries_are() {
    let registry = Registry::start();
    registry.push("team/base", "1", &image().publish());
    let fixture = Fixture::new();
    let folder = fixture.path(".config/containers");
    fs::create_dir_all(&folder).expect("a folder");
    let said = |text: String| fs::write(folder.join("registries.conf"), text).expect("a file");
    let pull = || fixture.run(["pull", "registry.invalid/team/base:1"]);
    let entry = "[[registry]]\nlocation = 'registry.invalid'\n";
    said(format!("{entry}[[registry.mirror]]\nlocation = '{}'\n", registry.address()));
    pull().ok();
    let elsewhere = format!("location = '{}/team'\n", registry.address());
    said(format!("[[registry]]\nprefix = 'registry.invalid'\n{elsewhere}"));
    fixture.run(["pull", "registry.invalid/base:1"]).ok();
    said(format!("{entry}blocked = true\n"));
    let error = pull().fails(1);
    assert!(error.contains("`registry.invalid` is blocked by"), "{error}");
    let checked = fixture.run(["registry", "check", "registry.invalid"]);
    assert!(checked.text().contains("settings    FAILED"), "{}", checked.text());
    said("[[registry]]\nlocation = 'registry.invalid/team'\n".to_owned());
    let error = pull().fails(1);
    assert!(error.contains("a part of `registry.invalid`"), "{error}");
}

#[test]
fn a_check_looks_at_mirrors_too() {
    let fixture = Fixture::new();
    let (registry, closed) = (Registry::start(), Registry::start_with_password());
    let folder = fixture.path(".config/rbuild/certs.d/registry.invalid");
    fs::create_dir_all(&folder).expect("a folder");
    let login = closed.protected_address();
    let (good, tags) = (registry.address(), "capabilities = ['pull', 'resolve']\n");
    let text = format!(
        "server = 'http://{good}'\n[host.'http://127.0.0.1:1']\n[host.'http://{login}']\n{tags}[host.'http://{good}']\n{tags}"
    );
    fs::write(folder.join("hosts.toml"), text).expect("a file");
    let text = fixture.run(["registry", "check", "registry.invalid"]).ok().text();
    let lines: Vec<&str> = text.lines().collect();
    let gone = "mirror      FAILED: `http://127.0.0.1:1/v2`: cannot connect to `127.0.0.1`";
    assert!(lines[0].starts_with(gone), "{text}");
    assert!(lines[1].contains(&format!("without a login: `rbuild login {login}`")), "{text}");
    assert_eq!(lines[2], format!("mirror      ok: `http://{good}/v2` for pull, resolve"));
    // What `server` says comes last.
    assert_eq!(lines[3], format!("mirror      ok: `http://{good}/v2` for pull, resolve, push"));
    let used = format!("layers come from `{good}`, tags from `{good}`, pushes go to `127.0.0.1:1`");
    assert_eq!(lines[4], format!("in use      {used}"));
    assert_eq!(lines[5], "registry    not asked: others are configured in its place");
    let other = fixture.run(["registry", "check", &good]).ok().text();
    assert!(!other.contains("mirror"), "{other}");
}

#[test]
fn all_servers_that_fail_are_named() {
    let fixture = Fixture::new();
    let mirror = Scripted::start(|_, _| Reply::new(404, "there is nothing here"));
    let folder = fixture.path(".config/rbuild/certs.d/registry.invalid");
    fs::create_dir_all(&folder).expect("a folder");
    let text = format!("[host.'http://{}']\n", mirror.address());
    fs::write(folder.join("hosts.toml"), text).expect("a file");
    let error = fixture.run(["pull", "registry.invalid/base:1"]).fails(1);
    let told = format!("mirror `{}` of `registry.invalid` is passed over", mirror.address());
    assert_eq!(error.matches(&told).count(), 1, "{error}");
    assert!(error.contains("there is nothing here"), "{error}");
    assert!(error.contains("ERROR: cannot pull `registry.invalid/base:1`"), "{error}");
}

#[test]
fn a_check_hints_at_what_helps() {
    let fixture = Fixture::new();
    let check = |subject: &str, part: &str, words: &[&str]| {
        let mut command = fixture.command("store");
        command.env("https_proxy", "http://name:secret@127.0.0.1:1");
        let checked =
            ran(command.args(["registry", "check", subject]).output().expect("it starts"));
        let text = checked.text();
        assert!(text.contains(&format!("{part:<12}FAILED")), "{text}");
        let all = text + &checked.fails(1);
        words.iter().for_each(|words| assert!(all.contains(words), "{words}: {all}"));
        assert!(!all.contains("secret"), "{all}");
        all
    };
    for (status, hint) in [(429, "wait a while"), (500, "the registry itself fails")] {
        let server = Scripted::start(move |_, _| Reply::new(status, ""));
        check(
            &server.address(),
            "answer",
            &["TLS         none: it is spoken to by plain HTTP", hint],
        );
    }
    let html = |status| Reply::new(status, "<html>").header("Content-Type", "text/html");
    let page = Scripted::start(move |_, _| html(200));
    check(&page.address(), "answer", &["a page for people", "not another server"]);
    let half = Scripted::start(move |request, _| match &*request.method {
        _ if request.path == "/v2/" => Reply::new(200, "{}"),
        "POST" => html(200),
        _ => Reply::new(404, ""),
    });
    let checked = check(&format!("{}/app", half.address()), "push", &["that begins no upload"]);
    assert!(checked.contains("pull        ok"), "{checked}");
    let proxy = "through the proxy `http://127.0.0.1:1` (of https_proxy";
    check("registry.example", "connection", &[proxy]);

    let folder = fixture.path(".config/rbuild/certs.d/registry.example");
    fs::create_dir_all(&folder).expect("a folder");
    let hosts = folder.join("hosts.toml");
    fs::write(&hosts, "[host.'http://a.example']\ncapabilities = ['pul']\n").expect("a file");
    let checked = check("registry.example", "settings", &["`pul`", "registries.md"]);
    assert!(!checked.contains("name  "), "{checked}");

    let basic =
        Scripted::start(|_, _| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=x"));
    fs::create_dir(fixture.path(".docker")).expect("a folder");
    let config = r#"{"credsStore":"there-is-none"}"#;
    fs::write(fixture.path(".docker/config.json"), config).expect("a file");
    let words = ["`docker-credential-there-is-none` cannot be run", "install the helper"];
    check(&basic.address(), "login", &words);
    let helper = fixture.path("docker-credential-fails");
    fs::write(&helper, "#!/bin/sh\ncat > /dev/null\nexit 3\n").expect("the helper");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("its mode");
    fs::write(fixture.path(".docker/config.json"), r#"{"credsStore":"fails"}"#).expect("a file");
    let mut command = fixture.command("store");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", helper.parent().expect("a folder").display()));
    let checked =
        command.args(["registry", "check", &basic.address()]).output().expect("it starts");
    let text = ran(checked).text();
    assert!(text.contains("the credential helper `docker-credential-fails` fails"), "{text}");
}

#[test]
fn a_check_says_what_fails() {
    let fixture = Fixture::new();
    let registry = Registry::start_with_password();
    let host = registry.protected_address();
    let check = |subject: &str| fixture.run(["registry", "check", subject]);
    let anonymous = check(&host);
    assert!(anonymous.text().contains("login       FAILED"), "{}", anonymous.text());
    assert!(anonymous.fails(1).contains(&format!("rbuild login {host}")));
    let login = ["login", &host, "-u", "name", "--password-stdin"];
    fixture.run_with_input(&login, b"geheim").ok();
    let checked = check(&format!("{host}/new/one")).ok().text();
    assert!(
        checked.contains("accepts the stored login\npull        ok\npush        ok\n"),
        "{checked}"
    );

    let read_only = Scripted::start(|request, _| match &*request.method {
        "POST" => Reply::new(403, ""),
        _ if request.path == "/v2/" => Reply::new(200, "{}"),
        _ => Reply::new(404, ""),
    });
    let checked = check(&format!("{}/app", read_only.address()));
    assert!(checked.text().contains("pull        ok\npush        FAILED"), "{}", checked.text());
    assert!(checked.fails(1).contains("right to push"));

    let nobody = check("127.0.0.1:1");
    assert!(nobody.text().contains("name        ok\nconnection  FAILED"), "{}", nobody.text());
    nobody.fails(1);
    assert!(check("A B").fails(2).contains("neither a registry nor a repository"));
}

#[test]
fn privileged_a_mirror_with_other_bytes_is_told_of() {
    let registry = Arc::new(Registry::start());
    registry.push("base", "1", &image().publish());
    let right = Arc::clone(&registry);
    let mirror = Scripted::start(move |request, _| {
        let mut reply = right.forward(request);
        if request.path.contains("/blobs/") {
            *reply.body.last_mut().expect("a blob") ^= 1;
        }
        reply
    });
    let fixture = Fixture::with("FROM scratch\n");
    let name = format!("{}/base:1", registry.address());
    let folder = fixture.path(&format!(".config/rbuild/certs.d/{}", registry.address()));
    fs::create_dir_all(&folder).expect("a folder");
    let text = format!("[host.'http://{}']\n", mirror.address());
    fs::write(folder.join("hosts.toml"), text).expect("a file");
    let warning = format!("WARN: mirror `{}` of `{}`", mirror.address(), registry.address());
    let pulled = fixture.run(["pull", &name]).ok();
    // The configuration and the layer.
    assert_eq!(pulled.stderr.matches(&warning).count(), 2, "{}", pulled.stderr);
    fixture.write("Dockerfile", format!("FROM {name}\nRUN [\"/none\"]\n"));
    let built = fixture.build_in("other", &[]);
    assert_eq!(built.stderr.matches(&warning).count(), 2, "{}", built.stderr);
    assert!(built.fails(1).contains("/none"));
}
