//! Every fault at every request: it ends well, or what is wrong is told, and nothing is half there.

use std::sync::Arc;

use rbuild_cache::{ImageError, ImageName, PullMode, PullProgress};
use rbuild_testdata::{Registry, Reply, Request, Scripted, sha256};

use crate::push::{World, assert_complete, descriptor, image, name, proxy, said};

/// What can go wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Busy,
    Broken,
    Gone,
    NoAnswer,
    CutAnswer,
    Expired,
    SessionLost,
    WrongDigest,
    Denied,
    Forever,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::Busy,
        Self::Broken,
        Self::Gone,
        Self::NoAnswer,
        Self::CutAnswer,
        Self::Expired,
        Self::SessionLost,
        Self::WrongDigest,
        Self::Denied,
        Self::Forever,
    ];

    /// Whether a push or pull gets over it, wherever it is.
    fn passes(self) -> bool {
        !matches!(self, Self::WrongDigest | Self::Denied | Self::Forever)
    }

    fn apply(self, request: &Request, right: &dyn Fn() -> Reply) -> Reply {
        let realm = format!("Bearer realm=\"http://{}/token\"", request.headers["host"]);
        match self {
            Self::Busy => Reply::new(429, "slow down").header("Retry-After", "0"),
            Self::Broken => Reply::new(500, "boom"),
            Self::Gone => Reply::hang_up(),
            Self::NoAnswer => {
                right();
                Reply::hang_up()
            }
            Self::CutAnswer => {
                let reply = right();
                // What has no body gets one that never comes.
                let missing = if request.method == "GET" { 0 } else { 10 };
                let claimed = reply.body.len() + missing;
                reply.claiming(Some(claimed)).cut(1)
            }
            Self::Expired => Reply::new(401, "").header("WWW-Authenticate", &realm),
            Self::SessionLost if matches!(&*request.method, "PUT" | "PATCH" | "POST") => {
                match request.path.contains("/blobs/uploads/") && request.method != "POST" {
                    true => Reply::new(404, r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#),
                    false => right(),
                }
            }
            Self::SessionLost => right(),
            Self::WrongDigest => {
                let mut reply = right();
                let name = "Docker-Content-Digest";
                let is_written = request.method == "PUT";
                reply.headers.retain(|(key, _)| !is_written || !key.eq_ignore_ascii_case(name));
                if is_written {
                    return reply.header(name, &sha256(b"other"));
                }
                if let Some(last) = reply.body.last_mut() {
                    *last ^= 1;
                }
                reply
            }
            Self::Denied => Reply::new(403, "no"),
            Self::Forever => Reply::new(503, "down"),
        }
    }
}

/// A registry at which request `number` goes wrong.
fn faulty(registry: &Arc<Registry>, fault: Fault, number: usize) -> Scripted {
    proxy(registry, move |request, before, right| {
        if request.path.starts_with("/token") {
            return Reply::new(200, r#"{"token":"new"}"#);
        }
        if before == number || fault == Fault::Forever && before > number {
            return fault.apply(request, right);
        }
        right()
    })
}

#[tokio::test]
async fn of_a_push() {
    let registry = Arc::new(Registry::start());
    let published = image().publish();
    let clean = {
        let server = proxy(&registry, |_, _, right| right());
        let world = World::new();
        let top = world.put(&published);
        world.push(&top, &[name(&server.address(), "clean:1")]).await.unwrap();
        server.lines().len()
    };
    // One question and three blobs with three requests each, and the manifest.
    assert_eq!(clean, 11);
    for fault in Fault::ALL {
        for number in 0..clean {
            let repository = format!("faulty/{}-{number}", format!("{fault:?}").to_lowercase());
            let world = World::new();
            let top = world.put(&published);
            let server = faulty(&registry, fault, number);
            let to = [name(&server.address(), &format!("{repository}:1"))];
            match world.push(&top, &to).await {
                Ok(()) => assert_complete(&registry, &repository, "1", &published),
                Err(error) => {
                    assert!(!fault.passes(), "{repository}: {}", said(&error));
                    assert!(said(&error).starts_with(&server.address()), "{}", said(&error));
                    // What the last request did may be known to the registry alone.
                    if registry.manifest(&repository, "1").is_some() {
                        assert_complete(&registry, &repository, "1", &published);
                    }
                }
            }
        }
    }
}

/// Fetches an image with its layers.
async fn pull(world: &World, image: &ImageName) -> Result<(), ImageError> {
    let platform = "linux/amd64".parse().unwrap();
    let resolved = world.images.resolve(image, &platform, PullMode::Always).await?;
    for layer in &resolved.layers {
        world.images.ensure_blob(&layer.descriptor, &PullProgress::discard()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn of_a_pull() {
    let registry = Arc::new(Registry::start());
    let published = image().publish();
    registry.push("base", "1", &published);
    let clean = {
        let server = proxy(&registry, |_, _, right| right());
        let world = World::new();
        pull(&world, &ImageName::Reference(name(&server.address(), "base:1"))).await.unwrap();
        server.lines()
    };
    // The manifest, the configuration, two layers.
    assert_eq!(clean.len(), 4, "{clean:#?}");
    for fault in Fault::ALL {
        for number in 0..clean.len() {
            let world = World::new();
            let server = faulty(&registry, fault, number);
            let base = ImageName::Reference(name(&server.address(), "base:1"));
            let pulled = pull(&world, &base).await;
            if let Err(error) = &pulled {
                assert!(!fault.passes(), "{fault:?} at {number}: {}", said(error));
            }
            for blob in &published.blobs {
                let blob_descriptor = descriptor(blob);
                let content = &world.fixture.store.content;
                let is_here =
                    content.contains(&blob_descriptor.digest, blob_descriptor.size).unwrap();
                assert!(is_here || pulled.is_err(), "{fault:?} at {number}");
                if is_here {
                    let bytes = content.read(&blob_descriptor.digest, u64::MAX).unwrap();
                    assert_eq!(bytes, blob.bytes, "{fault:?} at {number}");
                }
            }
        }
    }
}
