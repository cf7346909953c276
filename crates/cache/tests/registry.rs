//! Pulling from Debian's `docker-registry`, and from servers that misbehave.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rbuild_cache::{
    Credentials, RegistryClient, RegistryError, RegistryErrorKind, RegistryOptions, RetryPolicy,
    TransportError,
};
use rbuild_oci::{Descriptor, Digest, MediaType, Reference};
use rbuild_testdata::{
    Blob, Compression, Entry, Image, ImageIndex, Layer, Published, Registry, Reply, Request,
    Scripted, serve_image, sha256,
};

/// Retries at once: no test waits.
fn impatient() -> RegistryOptions {
    let retry = RetryPolicy {
        attempts: 3,
        first_delay: Duration::ZERO,
        longest_delay: Duration::from_secs(1),
        ..RetryPolicy::default()
    };
    RegistryOptions { retry, ..RegistryOptions::default() }
}

fn client() -> RegistryClient {
    RegistryClient::new(impatient())
}

fn image() -> Image {
    let files = [Entry::directory("a"), Entry::file("a/b", "x".repeat(100_000))];
    Image::new("linux/amd64").layer(Layer::new(&files))
}

fn reference(address: &str, rest: &str) -> Reference {
    Reference::parse(&format!("{address}/{rest}")).unwrap()
}

fn descriptor(blob: &Blob) -> Descriptor {
    let digest = Digest::parse(&blob.digest()).unwrap();
    Descriptor::new(blob.media_type.as_str().into(), digest, blob.bytes.len() as u64)
}

/// The message of an error and of what is below it.
fn said(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn pulls_by_tag_and_by_digest() {
    let registry = Registry::start();
    let plain = Image::new("linux/arm64").layer(Layer::compressed(&[], Compression::None));
    let index = ImageIndex::new().image(&image()).image(&plain);
    for published in [image().publish(), image().docker().publish(), index.publish()] {
        let digest = registry.push("some/where", "tag", &published);
        let by_tag = reference(&registry.address(), "some/where:tag");
        let document = client().manifest(&by_tag).await.unwrap();
        assert_eq!(document.bytes, published.top.bytes);
        assert_eq!(document.media_type, MediaType::from(published.top.media_type.as_str()));
        assert_eq!(document.digest.to_string(), digest);
        let by_digest = by_tag.pinned(document.digest);
        assert_eq!(client().manifest(&by_digest).await.unwrap(), document);
        for blob in &published.blobs {
            let bytes = client().small_blob(&by_tag, &descriptor(blob)).await.unwrap();
            assert_eq!(bytes, blob.bytes);
        }
    }
}

#[tokio::test]
async fn another_client_sees_the_same() {
    let registry = Registry::start();
    registry.push("x", "1", &image().publish());
    let ours = client().manifest(&reference(&registry.address(), "x:1")).await.unwrap();
    let address = registry.address();
    // The second opinion's TLS needs a provider, even to speak plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let theirs = oci_client::Client::new(oci_client::client::ClientConfig {
        protocol: oci_client::client::ClientProtocol::HttpsExcept(vec![address.clone()]),
        ..Default::default()
    });
    let name: oci_client::Reference = format!("{address}/x:1").parse().unwrap();
    let anonymous = oci_client::secrets::RegistryAuth::Anonymous;
    let accepted = ["application/vnd.oci.image.manifest.v1+json"];
    let (bytes, digest) = theirs.pull_manifest_raw(&name, &anonymous, &accepted).await.unwrap();
    assert_eq!((bytes.to_vec(), digest), (ours.bytes, ours.digest.to_string()));
}

#[tokio::test]
async fn logs_in_with_a_password() {
    let registry = Registry::start_with_password();
    registry.push("private/x", "1", &image().publish());
    let reference = reference(&registry.protected_address(), "private/x:1");
    let folder = tempfile::tempdir().unwrap();
    let with = |password: &str| {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("name:{password}"));
        let config =
            format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, registry.protected_address());
        let path = folder.path().join(password);
        std::fs::write(&path, config).unwrap();
        let credentials = Credentials::from_files(vec![path]);
        RegistryClient::new(RegistryOptions { credentials, ..impatient() })
    };
    with("geheim").manifest(&reference).await.unwrap();
    let error = client().manifest(&reference).await.unwrap_err();
    assert!(matches!(*error.kind, RegistryErrorKind::LoginNeeded { .. }), "{error}");
    assert!(error.to_string().contains(&format!("rbuild login {}", reference.registry())));
    let error = with("wrong").manifest(&reference).await.unwrap_err();
    assert!(matches!(*error.kind, RegistryErrorKind::LoginRefused { .. }), "{error}");
}

#[tokio::test]
async fn speaks_https_with_a_private_authority() {
    let Some(registry) = Registry::start_with_tls() else {
        #[expect(clippy::print_stderr, reason = "the report that a test did not run")]
        {
            eprintln!("SKIPPED speaks_https_with_a_private_authority: there is no `openssl`");
        }
        return;
    };
    registry.push("x", "1", &image().publish());
    let reference = reference(&registry.protected_address(), "x:1");
    let https = vec![registry.protected_address()];
    let trusting = RegistryClient::new(RegistryOptions {
        certificates: vec![registry.authority()],
        https: https.clone(),
        ..impatient()
    });
    trusting.manifest(&reference).await.unwrap();
    let strict = RegistryClient::new(RegistryOptions { https, ..impatient() });
    let error = said(&strict.manifest(&reference).await.unwrap_err());
    // Without any certificate on the machine there is another message, which is right too.
    assert!(error.contains("UnknownIssuer") || error.contains("ca-certificates"), "{error}");
}

/// Serves [`image`] with a fault: `fault` sees the request, its number and the right answer.
fn faulty(
    fault: impl Fn(&Request, usize, Reply) -> Reply + Send + Sync + 'static,
) -> (Scripted, Published) {
    let published = image().publish();
    let right = serve_image("a/b", "x", &published);
    (Scripted::start(move |request, before| fault(request, before, right(request))), published)
}

/// Fetches everything of the image.
async fn pull(server: &Scripted, published: &Published) -> Result<(), RegistryError> {
    let (client, reference) = (client(), reference(&server.address(), "a/b:x"));
    client.manifest(&reference).await?;
    for blob in &published.blobs {
        let bytes = client.small_blob(&reference, &descriptor(blob)).await?;
        assert_eq!(sha256(&bytes), blob.digest());
    }
    Ok(())
}

#[tokio::test]
async fn survives_what_passes() {
    type Fault = fn(&Request, usize, Reply) -> Reply;
    let faults: [(&str, Fault); 7] = [
        ("nothing", |_, _, right| right),
        ("503 first", |_, before, right| if before == 0 { Reply::new(503, "") } else { right }),
        ("429 first", |_, before, right| match before {
            0 | 1 => Reply::new(429, "slow down").header("Retry-After", "0"),
            _ => right,
        }),
        (
            "hangs up each other time",
            |_, before, right| {
                if before % 2 == 0 { Reply::hang_up() } else { right }
            },
        ),
        ("cuts each body once", |request, _, right| match request.headers.contains_key("range") {
            false if right.body.len() > 50 && request.path.contains("/blobs/") => right.cut(50),
            true => {
                let (rest, range) =
                    (right.body[50..].to_vec(), format!("bytes 50-/{}", right.body.len()));
                Reply::new(206, rest).header("Content-Range", &range)
            }
            false => right,
        }),
        ("cuts without a length, ignores ranges", |request, _, right| {
            if request.path.contains("/blobs/") && !request.headers.contains_key("range") {
                right.cut(50).claiming(None)
            } else {
                right
            }
        }),
        ("cuts manifests", |request, before, right| match before {
            0 if request.path.contains("/manifests/") => right.cut(10),
            _ => right,
        }),
    ];
    for (name, fault) in faults {
        let (server, published) = faulty(fault);
        let result = pull(&server, &published).await;
        assert!(result.is_ok(), "{name}: {}", said(&result.unwrap_err()));
    }
}

#[tokio::test]
async fn says_what_does_not_pass() {
    type Fault = fn(&Request, usize, Reply) -> Reply;
    let faults: [(Fault, &str); 13] = [
        (|_, _, _| Reply::new(500, "boo\nm"), "answered 500 to `GET /v2/a/b/manifests/x`: boo m"),
        (|_, _, _| Reply::new(429, "").header("Retry-After", "9999"), "limits requests (429)"),
        (|_, _, _| Reply::new(404, ""), "`x` not found"),
        (|_, _, _| Reply::new(403, ""), "rbuild login 127.0.0.1"),
        (|_, _, _| Reply::new(401, ""), "neither Basic nor Bearer"),
        (|_, _, _| Reply::hang_up(), "the connection to `127.0.0.1` broke"),
        (|_, _, _| Reply::new(307, "").header("Location", "/v2/a/b/manifests/x"), "ten redirects"),
        (|_, _, _| Reply::new(302, "").header("Location", "file:///etc/passwd"), "not an HTTP"),
        (|_, _, _| Reply::new(200, vec![b' '; 5 << 20]).claiming(None), "larger than 4194304"),
        (|_, _, right| right.claiming(Some(1 << 40)), "larger than 4194304"),
        (
            |request, _, right| match request.path.contains("/blobs/") {
                true => Reply::new(404, ""),
                false => right,
            },
            "is missing at the registry",
        ),
        (
            |request, _, right| match request.path.contains("/blobs/") {
                true => Reply::new(200, [&right.body[..], b"more"].concat()),
                false => right,
            },
            "the manifest says",
        ),
        (
            |request, _, right| match request.path.contains("/blobs/") {
                true => Reply::new(200, [&right.body[..], b"more"].concat()).claiming(None),
                false => right,
            },
            "the manifest says",
        ),
    ];
    for (fault, expected) in faults {
        let (server, published) = faulty(fault);
        let error = said(&pull(&server, &published).await.unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert!(error.starts_with(&format!("{}/a/b: ", server.address())), "{error}");
    }
}

#[tokio::test]
async fn refuses_another_manifest_than_the_digest_says() {
    let (server, _) = faulty(|_, _, right| Reply::new(200, [&right.body[..], b" "].concat()));
    let digest = image().publish().digest();
    let pinned = reference(&server.address(), &format!("a/b@{digest}"));
    let error = said(&client().manifest(&pinned).await.unwrap_err());
    assert!(error.contains("is not what was asked for: content has digest"), "{error}");
}

#[tokio::test]
async fn the_words_of_a_refusal_are_passed_on() {
    for status in [403, 404] {
        let body = r#"{"errors":[{"code":"DENIED","message":"quota exceeded for x"}]}"#;
        let server = Scripted::start(move |_, _| Reply::new(status, body));
        let error = client().manifest(&reference(&server.address(), "a:1")).await.unwrap_err();
        assert!(error.to_string().contains("the registry says: quota exceeded for x"), "{error}");
    }
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    // Connections are taken by the kernel, and never looked at.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = impatient();
    options.retry.answer_limit = Duration::from_millis(50);
    options.retry.idle_limit = Duration::from_millis(50);
    let of = reference(&silent.local_addr().unwrap().to_string(), "a:1");
    let client = RegistryClient::new(options);
    let blob = Descriptor::new(MediaType::OciLayer, Digest::of(b"x"), 1);
    let asked = [client.manifest(&of).await.map(drop), client.blob(&of, &blob).await.map(drop)];
    silent.set_nonblocking(true).unwrap();
    for asked in asked {
        let error = asked.unwrap_err();
        let RegistryErrorKind::Transport(TransportError::NoAnswer { .. }) = &*error.kind else {
            panic!("{error}");
        };
    }
    // Each once more than once, whatever the policy says of others.
    assert_eq!(silent.incoming().take_while(Result::is_ok).count(), 4);
}

/// As [`impatient`], also with what stands still.
fn impatient_of_standstill() -> RegistryOptions {
    let mut options = impatient();
    options.retry.idle_limit = Duration::from_millis(500);
    options
}

#[tokio::test]
async fn a_layer_that_stands_still_is_asked_for_again() {
    let published = image().publish();
    let blob = published.blobs.iter().max_by_key(|blob| blob.bytes.len()).unwrap().clone();
    let half = blob.bytes.len() / 2;
    for stalls in [1, usize::MAX] {
        let right = serve_image("a/b", "x", &published);
        let bytes = blob.bytes.clone();
        let server = Scripted::start(move |request, before| {
            let Some(range) = request.headers.get("range") else {
                let reply = right(request);
                return if before < stalls { reply.stalling_after(half) } else { reply };
            };
            let start = range.trim_start_matches("bytes=").trim_end_matches('-');
            let start: usize = start.parse().expect("a position");
            assert!(start >= half);
            let of = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            let rest = Reply::new(206, &bytes[start..]).header("Content-Range", &of);
            if before < stalls { rest.stalling_after(1) } else { rest }
        });
        let client = RegistryClient::new(impatient_of_standstill());
        let of = reference(&server.address(), "a/b:x");
        let fetched = client.small_blob(&of, &descriptor(&blob)).await;
        match stalls {
            1 => assert_eq!(fetched.unwrap(), blob.bytes),
            _ => {
                let error = said(&fetched.unwrap_err());
                assert!(
                    error.contains("`127.0.0.1` stopped sending before all was there"),
                    "{error}"
                );
                assert_eq!(server.requests().len(), 3);
            }
        }
    }
}

#[tokio::test]
async fn nobody_there() {
    let gone = Scripted::start(|_, _| Reply::hang_up()).address();
    let error = client().manifest(&reference(&gone, "x")).await.unwrap_err();
    assert!(said(&error).contains("cannot connect to `127.0.0.1`"), "{}", said(&error));
    assert!(said(&error).contains("Connection refused"), "{}", said(&error));
    let unresolved = reference("registry.invalid.localhost.invalid", "x");
    let error = client().manifest(&unresolved).await.unwrap_err();
    assert!(said(&error).contains("does not resolve"), "{}", said(&error));
}

/// A registry that wants a token of its own token service.
fn with_tokens(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Scripted {
    let right = serve_image("a/b", "x", &image().publish());
    Scripted::start(move |request, _| {
        if request.path.starts_with("/token") {
            return answer(request);
        }
        if request.headers.get("authorization").is_some_and(|value| value == "Bearer good") {
            return right(request);
        }
        let realm = format!("http://{}/token", request.headers["host"]);
        let challenge =
            format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:a/b:pull\"");
        Reply::new(401, "").header("WWW-Authenticate", &challenge)
    })
}

#[tokio::test]
async fn fetches_a_token_once() {
    let server = with_tokens(|_| Reply::new(200, r#"{"token":"good"}"#));
    pull(&server, &image().publish()).await.unwrap();
    let lines = server.lines();
    assert_eq!(
        lines[..3],
        [
            "GET /v2/a/b/manifests/x",
            "GET /token?scope=repository%3Aa%2Fb%3Apull&service=s",
            "GET /v2/a/b/manifests/x",
        ]
    );
    assert_eq!(lines.iter().filter(|line| line.contains("/token")).count(), 1);
}

#[tokio::test]
async fn exchanges_an_identity_token() {
    let server = with_tokens(|request| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        let wanted = request.method == "POST" && body.contains("refresh_token=identity");
        Reply::new(if wanted { 200 } else { 401 }, r#"{"access_token":"good"}"#)
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.json");
    let login = r#""identitytoken": "identity""#;
    std::fs::write(&path, format!(r#"{{"auths": {{"{}": {{{login}}}}}}}"#, server.address()))
        .unwrap();
    let credentials = Credentials::from_files(vec![path]);
    let client = RegistryClient::new(RegistryOptions { credentials, ..impatient() });
    client.manifest(&reference(&server.address(), "a/b:x")).await.unwrap();
}

#[tokio::test]
async fn token_services_that_refuse() {
    for (reply, expected) in [
        (Reply::new(200, "{}"), "answered 200: there is no token in it"),
        (Reply::new(500, "x"), "answered 500: x"),
        (Reply::new(401, ""), "needs a login"),
        (Reply::new(200, r#"{"token":"bad"}"#), "needs a login"),
        (Reply::new(200, vec![b' '; 1 << 20]), "larger than"),
    ] {
        let server = with_tokens(move |_| reply.clone());
        let error = said(&pull(&server, &image().publish()).await.unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn redirects_do_not_carry_the_authorization_away() {
    let published = Arc::new(image().publish());
    let blobs = Arc::clone(&published);
    let elsewhere = Scripted::start(move |request, _| {
        let wanted = blobs.blobs.iter().find(|blob| request.path.ends_with(&blob.digest()));
        Reply::new(200, wanted.unwrap().bytes.clone())
    });
    let target = elsewhere.address();
    let right = serve_image("a/b", "x", &published);
    let server = Scripted::start(move |request, _| {
        if request.path.starts_with("/token") {
            Reply::new(200, r#"{"token":"good"}"#)
        } else if !request.headers.contains_key("authorization") {
            let realm = format!("http://{}/token", request.headers["host"]);
            Reply::new(401, "").header("WWW-Authenticate", &format!("Bearer realm=\"{realm}\""))
        } else if request.path.contains("/blobs/") {
            let digest = request.path.rsplit('/').next().unwrap();
            Reply::new(307, "").header("Location", &format!("http://{target}/data/{digest}"))
        } else {
            right(request)
        }
    });
    pull(&server, &published).await.unwrap();
    let received = elsewhere.requests();
    assert_eq!(received.len(), published.blobs.len());
    assert!(received.iter().all(|request| !request.headers.contains_key("authorization")));
}
