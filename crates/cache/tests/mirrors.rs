//! Mirrors: which are asked, what happens when they fail, and who gets which login.

use std::fs;
use std::sync::Arc;

use rbuild_cache::{
    Credentials, HostFiles, ImageName, PullMode, PullProgress, RegistryClient, RegistryOptions,
};
use rbuild_solver::{Event, Progress};
use rbuild_testdata::{Registry, Reply, Request, Scripted};

use crate::push::{World, descriptor, image, name, options, proxy, said};

/// Options with this `hosts.toml` for one registry.
fn with_hosts(folder: &tempfile::TempDir, registry: &str, text: &str) -> RegistryOptions {
    let own = folder.path().join(registry);
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("hosts.toml"), text).unwrap();
    let hosts =
        HostFiles { folders: vec![folder.path().to_owned()], daemon: None, ..HostFiles::default() };
    RegistryOptions { hosts, ..options() }
}

fn hosts(mirror: &str, origin: &str) -> String {
    format!(
        "server = 'http://{origin}'\n[host.'http://{mirror}']\ncapabilities = ['pull', 'resolve']\n"
    )
}

/// Pulls `base:1` of a registry, with its layers; what there was to warn of.
async fn pull(world: &World, registry: &str) -> Vec<String> {
    let base = ImageName::Reference(name(registry, "base:1"));
    let platform = "linux/amd64".parse().unwrap();
    let resolved = world.images.resolve(&base, &platform, PullMode::Always).await;
    let resolved = resolved.unwrap_or_else(|error| panic!("{}", said(&error)));
    let (progress, mut events) = Progress::channel();
    let progress = PullProgress { progress, ..PullProgress::discard() };
    for layer in &resolved.layers {
        let pulled = world.images.ensure_blob(&layer.descriptor, &progress).await;
        pulled.unwrap_or_else(|error| panic!("{}", said(&error)));
    }
    drop(progress);
    let mut warnings = Vec::new();
    while let Some(event) = events.recv().await {
        if let Event::Warning { message, .. } = event {
            warnings.push(message);
        }
    }
    warnings
}

#[tokio::test]
async fn a_mirror_that_has_everything_is_all_that_is_asked() {
    let registry = Arc::new(Registry::start());
    registry.push("base", "1", &image().publish());
    let mirror = proxy(&registry, |_, _, right| right());
    let folder = tempfile::tempdir().unwrap();
    // Nobody has this name: it is never looked up.
    let text = hosts(&mirror.address(), "origin.invalid");
    let world = World::with(with_hosts(&folder, "origin.invalid", &text));
    pull(&world, "origin.invalid").await;
    let requests = mirror.requests();
    assert!(requests.iter().all(|request| request.path.ends_with("?ns=origin.invalid")));
    assert_eq!(requests.len(), 4);
}

#[tokio::test]
async fn whatever_a_mirror_does_the_registry_has_the_last_word() {
    let registry = Arc::new(Registry::start());
    let published = image().publish();
    registry.push("base", "1", &published);
    let right = Arc::clone(&registry);
    type Fault = fn(&Request, &dyn Fn() -> Reply) -> Reply;
    let faults: [Fault; 6] = [
        |_, _| Reply::new(404, ""),
        |_, _| Reply::new(500, ""),
        |_, _| Reply::hang_up(),
        |_, _| Reply::new(403, ""),
        |_, right| {
            let reply = right();
            let claimed = reply.body.len();
            reply.claiming(Some(claimed)).cut(1)
        },
        |_, _| Reply::new(307, "").header("Location", "ftp://nowhere"),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let right = Arc::clone(&right);
        let mirror = Scripted::start(move |request, _| fault(request, &|| right.forward(request)));
        let folder = tempfile::tempdir().unwrap();
        let text = hosts(&mirror.address(), &registry.address());
        let world = World::with(with_hosts(&folder, &registry.address(), &text));
        pull(&world, &registry.address()).await;
        assert!(!mirror.lines().is_empty(), "fault {number}");
        for blob in &published.blobs {
            let digest = descriptor(blob).digest;
            let bytes = world.fixture.store.content.read(&digest, u64::MAX).unwrap();
            assert_eq!(bytes, blob.bytes);
        }
    }
    // One that is not there is asked once.
    let folder = tempfile::tempdir().unwrap();
    let text = hosts("127.0.0.1:1", &registry.address());
    pull(&World::with(with_hosts(&folder, &registry.address(), &text)), &registry.address()).await;
}

/// Wrong bytes where right ones were asked for.
type Damage = fn(Reply) -> Reply;

const DAMAGES: [(&str, Damage); 6] = [
    ("a flipped bit", |mut reply| {
        *reply.body.last_mut().unwrap() ^= 1;
        reply
    }),
    ("cut, and it shows", |reply| {
        let length = reply.body.len();
        reply.cut(length / 2)
    }),
    ("cut, and it does not show", |reply| {
        let length = reply.body.len();
        reply.claiming(None).cut(length / 2)
    }),
    ("nothing", |reply| reply.claiming(None).cut(0)),
    ("more, and it shows", |mut reply| {
        reply.body.extend(b"more");
        let length = reply.body.len();
        reply.claiming(Some(length))
    }),
    ("more, and it does not show", |mut reply| {
        reply.body.extend(b"more");
        reply.claiming(None)
    }),
];

fn hosts_of_two(first: &str, second: &str, origin: &str) -> String {
    format!("server = 'http://{origin}'\n[host.'http://{first}']\n[host.'http://{second}']\n")
}

#[tokio::test]
async fn a_mirror_that_sends_wrong_bytes_is_left_for_the_next() {
    let registry = Arc::new(Registry::start());
    let published = image().publish();
    registry.push("base", "1", &published);
    for (damage_name, damage) in DAMAGES {
        // The manifest, the configuration, and two layers.
        for number in 0..4 {
            let case = format!("{damage_name} at {number}");
            let bad = proxy(&registry, move |_, before, right| match before == number {
                true => damage(right()),
                false => right(),
            });
            let good = proxy(&registry, |_, _, right| right());
            let folder = tempfile::tempdir().unwrap();
            // Nobody has this name.
            let origin = "origin.invalid";
            let text = hosts_of_two(&bad.address(), &good.address(), origin);
            let world = World::with(with_hosts(&folder, origin, &text));
            let warnings = pull(&world, origin).await;
            assert_eq!(bad.lines().len(), 4, "{case}");
            assert_eq!(good.lines().len(), 1, "{case}: {:?}", good.lines());
            let begins = format!("mirror `{}` of `{origin}` is passed over for ", bad.address());
            assert!(
                warnings.len() == 1 && warnings[0].starts_with(&begins),
                "{case}: {warnings:?}"
            );
            for blob in &published.blobs {
                let digest = descriptor(blob).digest;
                let bytes = world.fixture.store.content.read(&digest, u64::MAX).unwrap();
                assert_eq!(bytes, blob.bytes, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn mirrors_that_are_all_wrong_leave_the_registry() {
    let registry = Arc::new(Registry::start());
    let published = image().publish();
    registry.push("base", "1", &published);
    for (damage_name, damage) in DAMAGES {
        let bad = [(); 2].map(|()| proxy(&registry, move |_, _, right| damage(right())));
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = [bad[0].address(), bad[1].address()];
        let text = hosts_of_two(&first, &second, &registry.address());
        let world = World::with(with_hosts(&folder, &registry.address(), &text));
        let warnings = pull(&world, &registry.address()).await;
        for mirror in [&first, &second] {
            let begins = format!("mirror `{mirror}` of");
            let named = warnings.iter().filter(|warning| warning.starts_with(&begins)).count();
            // Bytes that were put together from two servers may be asked for once more.
            assert!(named >= 4, "{damage_name}: {warnings:#?}");
        }
        for blob in &published.blobs {
            let digest = descriptor(blob).digest;
            let bytes = world.fixture.store.content.read(&digest, u64::MAX).unwrap();
            assert_eq!(bytes, blob.bytes, "{damage_name}");
        }
    }
}

#[tokio::test]
async fn bytes_of_two_servers_are_verified_as_one() {
    let registry = Arc::new(Registry::start());
    let published = image().publish();
    registry.push("base", "1", &published);
    // Wrong from the first byte on, and then broken off.
    let bad = proxy(&registry, |request, _, right| {
        let mut reply = right();
        if request.path.contains("/blobs/") {
            reply.body[0] ^= 1;
            let length = reply.body.len();
            reply = reply.cut(length / 2);
        }
        reply
    });
    let folder = tempfile::tempdir().unwrap();
    let text = hosts(&bad.address(), &registry.address());
    let world = World::with(with_hosts(&folder, &registry.address(), &text));
    let warnings = pull(&world, &registry.address()).await;
    for blob in &published.blobs {
        let digest = descriptor(blob).digest;
        let bytes = world.fixture.store.content.read(&digest, u64::MAX).unwrap();
        assert_eq!(bytes, blob.bytes);
        let named = warnings.iter().filter(|warning| warning.contains(&digest.to_string()));
        assert_eq!(named.count(), 2, "{warnings:#?}");
    }
}

#[tokio::test]
async fn wrong_bytes_of_the_registry_itself_are_an_error() {
    let registry = Arc::new(Registry::start());
    let published = image().publish();
    registry.push("base", "1", &published);
    let wrong = |request: &Request, _, right: &dyn Fn() -> Reply| {
        let mut reply = right();
        if request.path.contains("/blobs/") {
            *reply.body.last_mut().unwrap() ^= 1;
        }
        reply
    };
    let (mirror, origin) = (proxy(&registry, wrong), proxy(&registry, wrong));
    let folder = tempfile::tempdir().unwrap();
    let text = hosts(&mirror.address(), &origin.address());
    let world = World::with(with_hosts(&folder, &origin.address(), &text));
    let base = ImageName::Reference(name(&origin.address(), "base:1"));
    let platform = "linux/amd64".parse().unwrap();
    let error = world.images.resolve(&base, &platform, PullMode::Always).await.unwrap_err();
    assert!(said(&error).contains("is not what was promised"), "{}", said(&error));
    for blob in &published.blobs {
        assert_eq!(world.fixture.store.content.size(&descriptor(blob).digest).unwrap(), None);
    }
}

#[tokio::test]
async fn another_manifest_than_was_asked_for_is_not_taken_from_a_mirror() {
    let registry = Registry::start();
    let published = image().publish();
    registry.push("base", "1", &published);
    let mirror = Scripted::start(|_, _| {
        Reply::new(200, "{}").header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
    });
    let folder = tempfile::tempdir().unwrap();
    let text = hosts(&mirror.address(), &registry.address());
    let client = RegistryClient::new(with_hosts(&folder, &registry.address(), &text));
    let pinned = name(&registry.address(), "base").pinned(descriptor(&published.top).digest);
    let document = client.manifest(&pinned).await.unwrap();
    assert_eq!((document.bytes, mirror.lines().len()), (published.top.bytes, 1));
}

#[tokio::test]
async fn nobody_gets_the_login_of_another() {
    let registry = Arc::new(Registry::start_with_password());
    registry.push("base", "1", &image().publish());
    let origin = registry.protected_address();
    let mirror = Scripted::start(|request, _| {
        let realm = format!("Bearer realm=\"http://{}/token\"", request.headers["host"]);
        match request.path.starts_with("/token") {
            true => Reply::new(200, r#"{"token": "t"}"#),
            false => Reply::new(401, "").header("WWW-Authenticate", &realm),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let options = with_hosts(&folder, &origin, &hosts(&mirror.address(), &origin));
    let config = folder.path().join("config.json");
    let auth = format!(r#"{{"auths": {{"{origin}": {{"auth": "bmFtZTpnZWhlaW0="}}}}}}"#);
    fs::write(&config, auth).unwrap();
    let credentials = Credentials::from_files(vec![config]);
    let world = World::with(RegistryOptions { credentials, ..options });
    pull(&world, &origin).await;
    let given: Vec<String> = mirror
        .requests()
        .iter()
        .filter_map(|request| request.headers.get("authorization").cloned())
        .collect();
    assert!(!given.is_empty() && given.iter().all(|given| given == "Bearer t"), "{given:?}");
    // What is pushed goes past a mirror that may only be read.
    let before = mirror.lines().len();
    let top = world.put(&image().publish());
    world.push(&top, &[name(&origin, "new:1")]).await.unwrap();
    assert_eq!(mirror.lines().len(), before);
}
