//! Pushing to Debian's `docker-registry`, straight and through a proxy that puts faults between.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild_cache::{
    BlobBody, Credential, Credentials, Document, ImageName, ImagePush, ImageSource,
    ImageSourceOptions, Mount, Overlay, OverlayXattrs, PullMode, PullProgress, PushError,
    PushedPlatforms, RegistryClient, RegistryErrorKind, RegistryOptions, ResolvedImage,
    RetryPolicy,
};
use rbuild_oci::{Descriptor, Digest, MediaType, Reference};
use rbuild_testdata::{
    Blob, Entry, Image, ImageIndex, Layer, Published, Registry, Reply, Request, Scripted,
};

use crate::fixture::Fixture;

/// A store with images, and what pushes them.
pub(crate) struct World {
    pub(crate) fixture: Fixture,
    pub(crate) images: ImageSource,
    push: ImagePush,
}

pub(crate) fn options() -> RegistryOptions {
    let retry = RetryPolicy {
        attempts: 3,
        first_delay: Duration::ZERO,
        longest_delay: Duration::from_secs(1),
        ..RetryPolicy::default()
    };
    RegistryOptions { retry, ..RegistryOptions::default() }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(options())
    }

    pub(crate) fn with(options: RegistryOptions) -> Self {
        let fixture = Fixture::new();
        let store = &fixture.store;
        let overlay = Arc::new(Overlay::new(OverlayXattrs::User, &store.layers));
        let registry = RegistryClient::new(options);
        let lease = store.lease().unwrap();
        let images = ImageSource::new(
            store,
            lease.clone(),
            overlay,
            registry.clone(),
            ImageSourceOptions::default(),
        );
        let push = ImagePush::new(store, lease, images.clone(), registry);
        Self { fixture, images, push }
    }

    /// Puts an image into the store; what names it.
    pub(crate) fn put(&self, published: &Published) -> Descriptor {
        for blob in published.blobs.iter().chain(&published.manifests).chain([&published.top]) {
            self.fixture.store.content.put(&blob.bytes).unwrap();
        }
        descriptor(&published.top)
    }

    pub(crate) async fn push(
        &self,
        top: &Descriptor,
        names: &[Reference],
    ) -> Result<(), PushError> {
        self.push.push(top, names, &PullProgress::discard()).await
    }

    /// Pushes the image that a registry has under one name to another; what it was found to be.
    async fn copy(&self, from: Reference, to: Reference) -> ResolvedImage {
        let platform = "linux/amd64".parse().unwrap();
        let from = ImageName::Reference(from);
        let resolved = self.images.resolve(&from, &platform, PullMode::Always).await.unwrap();
        self.push(&resolved.manifest, &[to]).await.unwrap();
        resolved
    }
}

pub(crate) fn descriptor(blob: &Blob) -> Descriptor {
    let digest = Digest::parse(&blob.digest()).unwrap();
    Descriptor::new(blob.media_type.as_str().into(), digest, blob.bytes.len() as u64)
}

pub(crate) fn name(address: &str, rest: &str) -> Reference {
    Reference::parse(&format!("{address}/{rest}")).unwrap()
}

fn layer(text: &str) -> Layer {
    Layer::new(&[Entry::directory("a"), Entry::file("a/b", text.repeat(10_000))])
}

pub(crate) fn image() -> Image {
    Image::new("linux/amd64").layer(layer("x")).layer(layer("y"))
}

pub(crate) fn said(error: &dyn Error) -> String {
    let below = error.source().map(said);
    [Some(error.to_string()), below].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

/// A proxy that passes everything on and counts on.
pub(crate) fn proxy(
    registry: &Arc<Registry>,
    fault: impl Fn(&Request, usize, &dyn Fn() -> Reply) -> Reply + Send + Sync + 'static,
) -> Scripted {
    let registry = Arc::clone(registry);
    Scripted::start(move |request, before| fault(request, before, &|| registry.forward(request)))
}

fn blob_is_there(registry: &Registry, repository: &str, blob: &Blob) -> bool {
    let request = Request {
        method: "GET".to_owned(),
        path: format!("/v2/{repository}/blobs/{}", blob.digest()),
        headers: [("host".to_owned(), registry.address())].into(),
        body: Vec::new(),
    };
    let reply = registry.forward(&request);
    reply.status == 200 && reply.body == blob.bytes
}

/// Asserts that a tag names the whole image.
pub(crate) fn assert_complete(
    registry: &Registry,
    repository: &str,
    tag: &str,
    published: &Published,
) {
    assert_eq!(registry.manifest(repository, tag).as_ref(), Some(&published.top), "{repository}");
    for manifest in &published.manifests {
        assert_eq!(registry.manifest(repository, &manifest.digest()).as_ref(), Some(manifest));
    }
    for blob in &published.blobs {
        assert!(blob_is_there(registry, repository, blob), "{repository}: {}", blob.digest());
    }
}

#[tokio::test]
async fn pushes_images_and_indexes_under_many_names() {
    let registry = Registry::start();
    let world = World::new();
    let other = Image::new("linux/arm64").layer(layer("x")).layer(layer("z"));
    let index = ImageIndex::new().image(&image()).image(&other);
    for (repository, published) in [
        ("plain", image().publish()),
        ("docker", image().docker().publish()),
        ("many/platforms", index.publish()),
    ] {
        let top = world.put(&published);
        let names = [
            name(&registry.address(), &format!("{repository}:1")),
            name(&registry.address(), &format!("{repository}:2")),
            name(&registry.address(), &format!("copy/{repository}:1")),
        ];
        world.push(&top, &names).await.unwrap();
        for (repository, tag) in
            [(repository, "1"), (repository, "2"), (&*format!("copy/{repository}"), "1")]
        {
            assert_complete(&registry, repository, tag, &published);
        }
    }
    let published = image().publish();
    let top = world.put(&published);
    world.push(&top, &[name(&registry.address(), "untagged")]).await.unwrap();
    assert_complete(&registry, "untagged", &published.digest(), &published);
    assert!(registry.manifest("untagged", "latest").is_none());
}

#[tokio::test]
async fn what_is_there_costs_one_request_a_tag() {
    let registry = Arc::new(Registry::start());
    let world = World::new();
    let top = world.put(&image().publish());
    let server = proxy(&registry, |_, _, right| right());
    let names = [name(&server.address(), "a:1"), name(&server.address(), "a:2")];
    world.push(&top, &names).await.unwrap();
    let lines = server.lines();
    assert_eq!(lines.iter().filter(|line| line.starts_with("PUT /v2/a/manifests/")).count(), 2);
    // Manifests come after all blobs.
    let last_blob = lines.iter().rposition(|line| line.contains("/blobs/")).unwrap();
    assert_eq!(lines.len() - last_blob, 3, "{lines:#?}");
    world.push(&top, &names).await.unwrap();
    let again = server.lines().split_off(lines.len());
    assert_eq!(again, ["HEAD /v2/a/manifests/1", "HEAD /v2/a/manifests/2"]);
    // Another tag in the same place: nothing but questions, and the manifest.
    world.push(&top, &[name(&server.address(), "a:3")]).await.unwrap();
    let third = server.lines().split_off(lines.len() + 2);
    assert!(third.iter().all(|line| !line.starts_with("POST")), "{third:?}");
}

#[tokio::test]
async fn what_a_registry_did_not_find_is_sent_again() {
    let registry = Arc::new(Registry::start());
    let refusals = Mutex::new(2);
    let server = proxy(&registry, move |request, _, right| {
        let mut left = refusals.lock().unwrap();
        if request.method == "PUT" && request.path.ends_with("/manifests/1") && *left > 0 {
            *left -= 1;
            let said = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
            return Reply::new(400, said);
        }
        right()
    });
    let world = World::new();
    let published = ImageIndex::new().image(&image()).publish();
    let top = world.put(&published);
    world.push(&top, &[name(&server.address(), "a:1")]).await.unwrap();
    assert_complete(&registry, "a", "1", &published);
    // What is there by now is not written again.
    let manifest = format!("PUT /v2/a/manifests/{}", published.manifests[0].digest());
    let written = server.lines().into_iter().filter(|line| *line == manifest).count();
    assert_eq!(written, 1, "{:#?}", server.lines());
}

#[tokio::test]
async fn mounts_what_another_repository_has() {
    let registry = Arc::new(Registry::start());
    let server = proxy(&registry, |_, _, right| right());
    let published = image().publish();
    registry.push("base", "1", &published);
    // None of its layers is fetched: they go from one repository to the other.
    let world = World::new();
    let resolved =
        world.copy(name(&server.address(), "base:1"), name(&server.address(), "copy:1")).await;
    assert_complete(&registry, "copy", "1", &published);
    let lines = server.lines();
    let from_base = lines.iter().filter(|line| line.contains("&from=base"));
    assert_eq!(from_base.count(), 2, "{lines:#?}");
    let layers: Vec<String> =
        resolved.layers.iter().map(|layer| layer.descriptor.digest.to_string()).collect();
    let is_layer = |line: &&String| layers.iter().any(|digest| line.ends_with(digest.as_str()));
    let moved: Vec<&String> = lines.iter().filter(is_layer).collect();
    assert!(moved.iter().all(|line| line.starts_with("HEAD")), "{moved:#?}");
}

#[tokio::test]
async fn a_layer_that_is_elsewhere_is_fetched_and_sent() {
    let (from, to) = (Registry::start(), Registry::start());
    let published = image().publish();
    from.push("base", "1", &published);
    let world = World::new();
    world.copy(name(&from.address(), "base:1"), name(&to.address(), "copy:1")).await;
    assert_complete(&to, "copy", "1", &published);
}

#[tokio::test]
async fn a_registry_that_does_not_mount_gets_the_blob() {
    let registry = Arc::new(Registry::start());
    // As one does that may not read the source: it begins an upload instead.
    let behind = Arc::clone(&registry);
    let server = proxy(&registry, move |request, _, right| {
        if !request.path.contains("?mount=") {
            return right();
        }
        let mut plain = request.clone();
        plain.path = plain.path.split('?').next().unwrap().to_owned();
        behind.forward(&plain)
    });
    let published = image().publish();
    registry.push("base", "1", &published);
    let world = World::new();
    world.copy(name(&server.address(), "base:1"), name(&server.address(), "copy:1")).await;
    assert_complete(&registry, "copy", "1", &published);
}

#[tokio::test]
async fn renews_a_token_and_asks_for_the_rights_that_it_needs() {
    let registry = Arc::new(Registry::start());
    let (behind, tokens) = (Arc::clone(&registry), Arc::new(Mutex::new(Vec::<String>::new())));
    let given = Arc::clone(&tokens);
    // Each token is good for four requests.
    let uses = Mutex::new(std::collections::HashMap::<String, usize>::new());
    let server = Scripted::start(move |request, _| {
        if let Some(query) = request.path.strip_prefix("/token?") {
            let mut given = given.lock().unwrap();
            given.push(query.to_owned());
            return Reply::new(200, format!(r#"{{"token":"t{}"}}"#, given.len()));
        }
        let token = request.headers.get("authorization").cloned().unwrap_or_default();
        let used = {
            let mut uses = uses.lock().unwrap();
            let used = uses.entry(token.clone()).or_insert(0);
            *used += 1;
            *used
        };
        if token.is_empty() || used > 4 {
            let realm = format!("Bearer realm=\"http://{}/token\"", request.headers["host"]);
            let challenge = format!("{realm},service=\"s\",scope=\"repository:copy:pull\"");
            return Reply::new(401, "").header("WWW-Authenticate", &challenge);
        }
        behind.forward(request)
    });
    let published = image().publish();
    registry.push("base", "1", &published);
    let world = World::new();
    world.copy(name(&server.address(), "base:1"), name(&server.address(), "copy:1")).await;
    assert_complete(&registry, "copy", "1", &published);
    let tokens = tokens.lock().unwrap().clone();
    let has = |scopes: &str| tokens.iter().any(|query| query.starts_with(scopes));
    assert!(has("scope=repository%3Acopy%3Apull%2Cpush&service=s"), "{tokens:#?}");
    let mount = "scope=repository%3Acopy%3Apull%2Cpush&scope=repository%3Abase%3Apull&service=s";
    assert!(has(mount), "{tokens:#?}");
}

#[tokio::test]
async fn sends_smaller_pieces_where_it_must() {
    const SIZE: usize = 20 << 20;
    let registry = Arc::new(Registry::start());
    let bytes: Vec<u8> = (0..SIZE as u32).map(|at| (at ^ at >> 9) as u8).collect();
    let digest = Digest::of(&bytes);
    let blob = Descriptor::new(MediaType::OciLayer, digest, SIZE as u64);
    for (limit, expected) in [(usize::MAX, 0), (8 << 20, 3), (1 << 20, 20)] {
        let server = proxy(&registry, move |request, _, right| {
            if request.body.len() > limit { Reply::new(413, "too much") } else { right() }
        });
        let to = name(&server.address(), &format!("pieces-{expected}"));
        let client = RegistryClient::new(options());
        let body = BlobBody::from_bytes(bytes.clone());
        client.put_blob(&to, &blob, &body, None).await.unwrap();
        assert!(client.has_blob(&to, &digest).await.unwrap());
        let lines = server.requests();
        let taken =
            lines.iter().filter(|request| request.method == "PATCH" && request.body.len() <= limit);
        assert_eq!(taken.count(), expected);
    }
    let server = proxy(&registry, |request, _, right| {
        if request.body.is_empty() { right() } else { Reply::new(413, "nothing at all") }
    });
    let to = name(&server.address(), "no/pieces");
    let body = BlobBody::from_bytes(bytes);
    let client = RegistryClient::new(options());
    let error = client.put_blob(&to, &blob, &body, None).await.unwrap_err();
    assert!(said(&error).contains("answered 413"), "{}", said(&error));
}

#[tokio::test]
async fn an_upload_that_stands_still_is_begun_again() {
    let mut options = options();
    options.retry.idle_limit = Duration::from_millis(300);
    let registry = Arc::new(Registry::start());
    let bytes = b"hello".repeat(10_000);
    let blob = Descriptor::new(MediaType::OciLayer, Digest::of(&bytes), bytes.len() as u64);
    let body = BlobBody::from_bytes(bytes);
    let stalled = AtomicBool::new(false);
    let server = proxy(&registry, move |request, _, right| {
        match request.method == "PUT" && !stalled.swap(true, Ordering::Relaxed) {
            true => Reply::new(201, "").stalling_after(0),
            false => right(),
        }
    });
    let to = name(&server.address(), "still");
    let client = RegistryClient::new(options.clone());
    client.put_blob(&to, &blob, &body, None).await.unwrap();
    assert!(client.has_blob(&to, &blob.digest).await.unwrap());
    let puts = server.requests().iter().filter(|request| request.method == "PUT").count();
    assert_eq!(puts, 2);

    // Nobody takes what is sent: more than the kernel keeps for a connection.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let there = format!("http://{}/upload", deaf.local_addr().unwrap());
    let server = proxy(&registry, move |request, _, right| match &*request.method {
        "POST" => Reply::new(202, "").header("Location", &there),
        _ => right(),
    });
    let to = name(&server.address(), "deaf");
    let bytes = vec![7; 32 << 20];
    let blob = Descriptor::new(MediaType::OciLayer, Digest::of(&bytes), bytes.len() as u64);
    let body = BlobBody::from_bytes(bytes);
    let error = RegistryClient::new(options).put_blob(&to, &blob, &body, None).await.unwrap_err();
    assert!(said(&error).contains("`127.0.0.1` took nothing for"), "{}", said(&error));
    let begun = server.requests().iter().filter(|request| request.method == "POST").count();
    assert_eq!(begun, 3);
}

#[tokio::test]
async fn a_blob_that_cannot_be_read_is_told_from_a_broken_connection() {
    let registry = Registry::start();
    let client = RegistryClient::new(options());
    let to = name(&registry.address(), "x");
    let blob = Descriptor::new(MediaType::OciLayer, Digest::of(b"hello"), 5);
    let short = BlobBody::from_bytes(&b"hell"[..]);
    let error = client.put_blob(&to, &blob, &short, None).await.unwrap_err();
    assert!(said(&error).contains("it has fewer bytes than it should"), "{}", said(&error));
    let other = BlobBody::from_bytes(&b"olleh"[..]);
    let error = client.put_blob(&to, &blob, &other, None).await.unwrap_err();
    assert!(said(&error).contains("digest"), "{}", said(&error));
    let closed = BlobBody::new(|_| Err(std::io::Error::other("no such disk")));
    let error = client.put_blob(&to, &blob, &closed, None).await.unwrap_err();
    assert!(said(&error).contains("no such disk"), "{}", said(&error));
    let empty = Descriptor::new(MediaType::OciLayer, Digest::of(b""), 0);
    client.put_blob(&to, &empty, &BlobBody::from_bytes(&b""[..]), None).await.unwrap();
}

#[tokio::test]
async fn passwords_and_private_authorities_serve_pushes_too() {
    let registry = Registry::start_with_password();
    let address = registry.protected_address();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    // base64 of `name:geheim`.
    let auth = format!(r#"{{"auths": {{"{address}": {{"auth": "bmFtZTpnZWhlaW0="}}}}}}"#);
    std::fs::write(&path, auth).unwrap();
    let credentials = Credentials::from_files(vec![path]);
    let published = image().publish();
    let world = World::with(RegistryOptions { credentials, ..options() });
    let top = world.put(&published);
    world.push(&top, &[name(&address, "private:1")]).await.unwrap();
    assert_complete(&registry, "private", "1", &published);
    let anonymous = World::new();
    let top = anonymous.put(&published);
    let error = anonymous.push(&top, &[name(&address, "private:2")]).await.unwrap_err();
    assert!(said(&error).contains("needs a login"), "{}", said(&error));

    let Some(registry) = Registry::start_with_tls() else {
        #[expect(clippy::print_stderr, reason = "the report that a test did not run")]
        {
            eprintln!(
                "SKIPPED passwords_and_private_authorities_serve_pushes_too: there is no `openssl`"
            );
        }
        return;
    };
    let world = World::with(RegistryOptions {
        certificates: vec![registry.authority()],
        https: vec![registry.protected_address()],
        ..options()
    });
    let top = world.put(&published);
    world.push(&top, &[name(&registry.protected_address(), "tls:1")]).await.unwrap();
    assert_complete(&registry, "tls", "1", &published);
}

#[tokio::test]
async fn an_upload_elsewhere_gets_the_blob_and_no_login() {
    let elsewhere = Scripted::start(|_, _| Reply::new(201, ""));
    let to = elsewhere.address();
    let server = Scripted::start(move |request, _| match &*request.method {
        _ if !request.headers.contains_key("authorization") => {
            Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")
        }
        "POST" => Reply::new(202, "").header("Location", &format!("http://{to}/here?signed=yes")),
        _ => Reply::new(404, ""),
    });
    let of = name(&server.address(), "a:1");
    let login = Credential::Password { name: "name".to_owned(), password: "geheim".to_owned() };
    let credentials = Credentials::given(of.registry(), login);
    let client = RegistryClient::new(RegistryOptions { credentials, ..options() });
    let blob = Descriptor::new(MediaType::OciLayer, Digest::of(b"hello"), 5);
    let body = BlobBody::from_bytes(&b"hello"[..]);
    client.put_blob(&of, &blob, &body, None).await.unwrap();
    let requests = elsewhere.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(request.body, b"hello");
    assert_eq!(request.path, format!("/here?signed=yes&digest={}", blob.digest));
    assert!(!request.headers.contains_key("authorization"), "{request:?}");
}

#[tokio::test]
async fn a_login_that_may_only_read_is_told() {
    let server = Scripted::start(|_, _| Reply::new(403, ""));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let address = server.address();
    let auth = format!(r#"{{"auths": {{"{address}": {{"auth": "bmFtZTpnZWhlaW0="}}}}}}"#);
    std::fs::write(&path, auth).unwrap();
    let credentials = Credentials::from_files(vec![path]);
    let client = RegistryClient::new(RegistryOptions { credentials, ..options() });
    let document = Document {
        media_type: MediaType::OciManifest,
        digest: Digest::of(b"{}"),
        bytes: b"{}".to_vec(),
    };
    let error = client.put_manifest(&name(&address, "a:1"), &document).await.unwrap_err();
    assert!(matches!(*error.kind, RegistryErrorKind::PushDenied { .. }), "{error}");
    assert!(error.to_string().contains("may not push"), "{error}");
}

#[tokio::test]
async fn mounting_says_what_became_of_it() {
    let registry = Registry::start();
    let client = RegistryClient::new(options());
    registry.push_blob("from", b"hello");
    let (to, digest) = (name(&registry.address(), "to"), Digest::of(b"hello"));
    assert!(matches!(client.mount_blob(&to, &digest, "from").await.unwrap(), Mount::Done));
    assert!(client.has_blob(&to, &digest).await.unwrap());
    let other = Digest::of(b"other");
    let Mount::Refused(session) = client.mount_blob(&to, &other, "from").await.unwrap() else {
        panic!("there is no such blob");
    };
    let blob = Descriptor::new(MediaType::OciLayer, other, 5);
    let body = BlobBody::from_bytes(&b"other"[..]);
    client.put_blob(&to, &blob, &body, Some(session)).await.unwrap();
    assert!(client.has_blob(&to, &other).await.unwrap());
}

#[test]
fn an_incomplete_index_is_pushed_only_as_far_as_it_makes_sense() {
    let world = World::new();
    let arm = Image::new("linux/arm64").layer(layer("z"));
    let published = ImageIndex::new().image(&image()).image(&arm).publish();
    let top = world.put(&published);
    let select = |platforms| world.push.select(&top, &platforms);
    let digest = |picked: Result<Descriptor, PushError>| picked.unwrap().digest;
    assert_eq!(digest(select(PushedPlatforms::Available)), top.digest);
    assert_eq!(digest(select(PushedPlatforms::All)), top.digest);
    let arm64 = "linux/arm64".parse().unwrap();
    let of_arm = Digest::parse(&arm.publish().digest()).unwrap();
    assert_eq!(digest(select(PushedPlatforms::One(arm64))), of_arm);
    let riscv = PushedPlatforms::One("linux/riscv64".parse().unwrap());
    assert!(said(&select(riscv).unwrap_err()).contains("is not for linux/riscv64"));

    world.fixture.store.content.remove(&of_arm).unwrap();
    let of_amd = Digest::parse(&image().publish().digest()).unwrap();
    assert_eq!(digest(select(PushedPlatforms::Available)), of_amd);
    let error = said(&select(PushedPlatforms::All).unwrap_err());
    assert!(error.contains("linux/arm64 are missing"), "{error}");
}
