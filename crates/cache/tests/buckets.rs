//! Objects of an S3 server that checks signatures, straight and through a proxy that puts faults between.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild_cache::{
    BlobBody, Buckets, RetryPolicy, S3Bucket, S3Client, S3Credentials, S3ErrorKind, S3Limits,
};
use rbuild_oci::{Descriptor, Digest, MediaType};
use rbuild_testdata::{BucketServer, Reply, Request, Scripted};

type Fault = dyn Fn(&Request, usize) -> Option<Reply> + Send + Sync;

/// A server behind a proxy.
struct World {
    server: Arc<BucketServer>,
    fault: Arc<Mutex<Box<Fault>>>,
    proxy: Scripted,
}

impl World {
    fn start() -> Option<Self> {
        let server = Arc::new(BucketServer::start()?);
        let fault: Arc<Mutex<Box<Fault>>> = Arc::new(Mutex::new(Box::new(|_, _| None)));
        let proxy = {
            let (server, fault) = (Arc::clone(&server), Arc::clone(&fault));
            Scripted::start(move |request, before| {
                let reply = (*fault.lock().unwrap())(request, before);
                reply.unwrap_or_else(|| server.forward(request))
            })
        };
        Some(Self { server, fault, proxy })
    }

    fn client(&self, secret: Option<&str>) -> S3Client {
        let bucket = S3Bucket {
            endpoint: format!("http://{}", self.proxy.address()),
            region: "us-east-1".to_owned(),
            bucket: "cache".to_owned(),
            use_path_style: true,
        };
        let credentials = secret.map(|secret| S3Credentials {
            access_key_id: self.server.key.0.clone(),
            secret_access_key: secret.to_owned(),
            session_token: None,
        });
        Buckets::default().client(bucket, credentials, limits())
    }

    /// Answers so whatever `fault` has an answer for; it gets the number of requests for which it had one.
    fn break_with(
        &self,
        fault: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
        times: usize,
    ) {
        let broken = AtomicUsize::new(0);
        *self.fault.lock().unwrap() = Box::new(move |request, _| {
            let reply = fault(request).filter(|_| broken.load(Ordering::Relaxed) < times)?;
            broken.fetch_add(1, Ordering::Relaxed);
            Some(reply)
        });
    }

    fn lines_of<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<String>) {
        let before = self.proxy.lines().len();
        let done = work();
        (done, self.proxy.lines().split_off(before))
    }
}

fn limits() -> S3Limits {
    let retry = RetryPolicy {
        attempts: 3,
        first_delay: Duration::ZERO,
        longest_delay: Duration::from_secs(1),
        ..RetryPolicy::default()
    };
    S3Limits { retry, uploads: 2 }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

/// Bytes that are not the same in any two places.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = vec![0; size];
    for chunk in bytes.chunks_mut(8) {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&state.to_be_bytes()[..chunk.len()]);
    }
    bytes
}

async fn read_all(
    client: &S3Client,
    key: &str,
    size: u64,
) -> Result<Vec<u8>, rbuild_cache::S3Error> {
    let mut stream = client.open(key, size).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.chunk().await? {
        bytes.extend(chunk);
    }
    Ok(bytes)
}

#[test]
#[expect(clippy::print_stderr, reason = "says what is skipped")]
fn objects_survive_what_happens_on_the_way() {
    let Some(world) = World::start() else {
        eprintln!(
            "SKIPPED objects_survive_what_happens_on_the_way: run scripts/s3-server target/s3-server"
        );
        return;
    };
    let client = world.client(Some(&world.server.key.1));
    small_objects(&world, &client);
    large_objects(&world, &client);
    who_may(&world);
}

fn small_objects(world: &World, client: &S3Client) {
    let key = "a b/ü/sha256:x+y";
    let (_, lines) = world.lines_of(|| {
        block_on(async {
            assert_eq!(client.head(key).await.unwrap(), None);
            assert_eq!(client.read(key, 10).await.unwrap(), None);
            client.write_document(key, b"{}".to_vec()).await.unwrap();
            let object = client.head(key).await.unwrap().unwrap();
            assert_eq!((object.size, object.digest), (2, Some(Digest::of(b"{}"))));
            assert!(object.modified.is_some());
            assert_eq!(client.read(key, 10).await.unwrap().unwrap(), b"{}");
            let error = client.read(key, 1).await.unwrap_err();
            assert!(matches!(*error.kind, S3ErrorKind::TooLarge(1)), "{error}");
            let error = read_all(client, key, 3).await.unwrap_err();
            assert!(error.to_string().contains("it has 2 bytes there, not 3"), "{error}");
        });
    });
    assert_eq!(lines[0], "HEAD /cache/a%20b/%C3%BC/sha256%3Ax%2By");
    // Each request is sent again, whatever it is.
    for (times, reply) in [
        (2, Reply::new(503, "<Error><Code>SlowDown</Code></Error>")),
        (2, Reply::new(400, "<Error><Code>RequestTimeout</Code></Error>")),
        (2, Reply::hang_up()),
        (1, Reply::new(429, "").header("Retry-After", "0")),
    ] {
        let client = client.clone();
        let again = |fault: Reply| world.break_with(move |_| Some(fault.clone()), times);
        // The answer to HEAD says no more than its status.
        if reply.status != 400 {
            again(reply.clone());
            block_on(client.head(key)).unwrap().unwrap();
        }
        again(reply.clone());
        block_on(client.write_document(key, b"{}".to_vec())).unwrap();
        again(reply);
        assert_eq!(block_on(read_all(&client, key, 2)).unwrap(), b"{}");
    }
    world.break_with(|_| Some(Reply::new(503, "")), 3);
    let error = block_on(client.head(key)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot look for `{key}` in the bucket `cache`: the server answered 503")
    );
    world.break_with(|_| Some(Reply::new(301, "").header("x-amz-bucket-region", "eu-south-2")), 1);
    let error = block_on(client.head(key)).unwrap_err();
    assert!(error.to_string().ends_with("it is in the region `eu-south-2`: say region=eu-south-2"));
    // What is old becomes new, and stays what it is.
    world.server.age(1000);
    block_on(client.touch(key, 2)).unwrap();
    assert!(world.server.objects()[key]["age"].as_f64().unwrap() < 900.0);
    world.break_with(
        |_| Some(Reply::new(200, "<Error><Code>InternalError</Code><Message>x</Message></Error>")),
        1,
    );
    block_on(client.touch(key, 2)).unwrap();
    assert_eq!(block_on(client.read(key, 10)).unwrap().unwrap(), b"{}");
}

fn large_objects(world: &World, client: &S3Client) {
    let bytes = noise((37 << 20) + 5);
    let blob = Descriptor::new(MediaType::OciLayer, Digest::of(&bytes), bytes.len() as u64);
    let body = BlobBody::from_bytes(bytes.clone());
    let sent = Arc::new(Mutex::new(0));
    let write = |key: &'static str| {
        let sent = Arc::clone(&sent);
        block_on(client.write_blob(key, &blob, &body, move |now| *sent.lock().unwrap() = now))
    };
    // A part is refused, another one is lost, and so is the answer to the end of it all.
    let (refused, lost, ended) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let server = Arc::clone(&world.server);
    world.break_with(
        move |request| {
            let once = |count: &AtomicUsize| count.fetch_add(1, Ordering::Relaxed) == 0;
            if request.path.contains("partNumber=2&") && once(&refused) {
                return Some(Reply::new(500, ""));
            }
            if request.path.contains("partNumber=3&") && once(&lost) {
                server.forward(request);
                return Some(Reply::hang_up());
            }
            if request.method == "POST" && request.path.contains("?uploadId=") && once(&ended) {
                server.forward(request);
                return Some(Reply::hang_up());
            }
            None
        },
        usize::MAX,
    );
    write("large").unwrap();
    assert_eq!(*sent.lock().unwrap(), blob.size);
    let object = world.server.objects()["large"].clone();
    assert_eq!((object["size"].as_u64(), object["parts"].as_bool()), (Some(blob.size), Some(true)));
    // What is read breaks off twice, and goes on where it was; a server may ignore the range.
    for ignores in [false, true] {
        let (server, whole) = (Arc::clone(&world.server), Mutex::new(None));
        world.break_with(
            move |request| {
                let mut whole = whole.lock().unwrap();
                let reply = match &*whole {
                    Some(reply) if ignores => Reply::clone(reply),
                    _ => server.forward(request),
                };
                whole.get_or_insert_with(|| reply.clone());
                let length = reply.body.len();
                Some(reply.cut(length / 2))
            },
            2,
        );
        assert!(block_on(read_all(client, "large", blob.size)).unwrap() == bytes);
    }
    world.break_with(|_| Some(Reply::new(206, "abc").header("content-range", "bytes 7-9/10")), 1);
    let error = block_on(read_all(client, "large", blob.size)).unwrap_err();
    assert!(error.to_string().contains("another range"), "{error}");
    // An upload that cannot be finished is given up.
    let is_part = |request: &Request| request.path.contains("partNumber=1&");
    world.break_with(move |request| is_part(request).then(|| Reply::new(403, "")), usize::MAX);
    let (failed, lines) = world.lines_of(|| write("other"));
    assert!(failed.unwrap_err().to_string().contains("access denied; the credentials need"));
    assert!(lines.last().unwrap().starts_with("DELETE /cache/other?uploadId="), "{lines:?}");
    world.break_with(|_| None, 0);
    assert_eq!(block_on(client.head("other")).unwrap(), None);
    // And a body that cannot be read is an error of its own.
    let broken = BlobBody::new(|_| {
        let broken = std::io::empty().chain(std::io::empty());
        Ok(Box::new(broken))
    });
    let error = block_on(client.write_blob("other", &blob, &broken, |_| {})).unwrap_err();
    assert!(error.to_string().contains("cannot be read to send it: it has fewer bytes"), "{error}");
}

fn who_may(world: &World) {
    world.break_with(|_| None, 0);
    let wrong = block_on(world.client(Some("another")).write_document("x", b"{}".to_vec()));
    let error = wrong.unwrap_err().to_string();
    assert!(error.contains("access denied (SignatureDoesNotMatch"), "{error}");
    assert!(!error.contains("another"), "{error}");
    let error = block_on(world.client(Some("line\nbreak")).head("x")).unwrap_err();
    assert!(matches!(*error.kind, S3ErrorKind::Denied(None, true)), "{error}");
    world.break_with(|_| Some(Reply::new(403, "")), 1);
    let error = block_on(world.client(None).head("x")).unwrap_err().to_string();
    assert!(error.contains("no credentials were found"), "{error}");
    let asked = world.proxy.requests().pop().unwrap();
    assert!(!asked.headers.contains_key("authorization"));
}

#[test]
fn who_says_nothing_is_not_waited_for() {
    // Connections are taken by the kernel, and never looked at.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut limits = limits();
    limits.retry.answer_limit = Duration::from_millis(50);
    let bucket = S3Bucket {
        endpoint: format!("http://{}", silent.local_addr().unwrap()),
        region: "us-east-1".to_owned(),
        bucket: "cache".to_owned(),
        use_path_style: true,
    };
    let client = Buckets::default().client(bucket, None, limits);
    let error = block_on(client.read("a", 10)).unwrap_err();
    assert!(error.to_string().contains("gives no answer"), "{error}");
    silent.set_nonblocking(true).unwrap();
    assert_eq!(silent.incoming().take_while(Result::is_ok).count(), 2);
}
