//! Files behind HTTP addresses, from servers that behave and servers that do not.

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rbuild_cache::{
    Download, DownloadError, Downloaded, Downloads, DownloadsOptions, Pace, PruneOptions,
    PullProgress, RetryPolicy, prune,
};
use rbuild_solver::SourceOp;
use rbuild_testdata::{Reply, Request, Scripted};

use crate::fixture::Fixture;

const TIME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const SECONDS: i64 = 784_111_777;

fn downloads(fixture: &Fixture) -> Downloads {
    let retry = RetryPolicy {
        attempts: 3,
        first_delay: Duration::ZERO,
        longest_delay: Duration::from_secs(1),
        ..RetryPolicy::default()
    };
    let options = DownloadsOptions { retry, limit: 1000, ..DownloadsOptions::default() };
    Downloads::new(&fixture.store, fixture.store.lease().unwrap(), options)
}

fn source(url: &str, attrs: &[(&str, &str)]) -> Download {
    let mut source = SourceOp::new(url);
    source.attrs.extend(attrs.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    Download::of(&source).unwrap()
}

/// Fetches as a new build does.
async fn fetch(fixture: &Fixture, download: &Download) -> Result<Downloaded, DownloadError> {
    downloads(fixture).fetch(download, &PullProgress::discard()).await
}

fn said(error: &DownloadError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Checks what a server that answers so leads to.
async fn check_refused(
    answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    words: &str,
) {
    let fixture = Fixture::new();
    let server = Scripted::start(answer);
    let error = fetch(&fixture, &source(&format!("http://{}/f", server.address()), &[])).await;
    let error = said(&error.unwrap_err());
    assert!(error.contains(words), "{error}");
    assert_eq!(fs::read_dir(fixture.root().join("layers")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_is_a_layer_with_name_mode_and_time() {
    let fixture = Fixture::new();
    let server = Scripted::start(|_, _| Reply::new(200, "content").header("Last-Modified", TIME));
    let url = format!("http://{}/dir/f%20x?q", server.address());
    let file = fetch(&fixture, &source(&url, &[("http.perm", "0640")])).await.unwrap();
    assert_eq!(file.modified, Some(SECONDS));
    let path = fixture.store.layers.path(&file.layer).join("f%20x");
    assert_eq!(fs::read_to_string(&path).unwrap(), "content");
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o640, SECONDS));
    let timeless = Scripted::start(|_, _| Reply::new(200, "content"));
    let url = format!("http://{}/f", timeless.address());
    let file = fetch(&fixture, &source(&url, &[("http.filename", "n")])).await.unwrap();
    let path = fixture.store.layers.path(&file.layer).join("n");
    assert_eq!(fs::metadata(path).unwrap().mtime(), 0);
}

#[tokio::test]
async fn an_unchanged_file_is_not_sent_again() {
    for (header, condition, value) in
        [("ETag", "if-none-match", "\"v1\""), ("Last-Modified", "if-modified-since", TIME)]
    {
        let fixture = Fixture::new();
        let server = Scripted::start(move |request, _| {
            match request.headers.get(condition).map(String::as_str) {
                Some(known) if known == value => Reply::new(304, ""),
                _ => Reply::new(200, "content").header(header, value),
            }
        });
        let download = source(&format!("http://{}/f", server.address()), &[]);
        let first = fetch(&fixture, &download).await.unwrap();
        assert_eq!(fetch(&fixture, &download).await.unwrap(), first);
        assert_eq!(server.requests().len(), 2);
        assert_eq!(server.requests()[1].headers.get(condition).unwrap(), value);
        // One build asks once, however often it needs the file.
        let build = downloads(&fixture);
        let progress = PullProgress::discard();
        let (key, file) =
            tokio::join!(build.key(&download, &progress), build.fetch(&download, &progress));
        assert_eq!((file.unwrap(), server.requests().len()), (first, 3));
        assert_eq!(build.key(&download, &progress).await.unwrap(), key.unwrap());
        // Without the layer everything has to come again.
        fixture.store.layers.remove(&first.layer).unwrap();
        assert_eq!(fetch(&fixture, &download).await.unwrap(), first);
        assert!(fixture.store.layers.contains(&first.layer).unwrap());
    }
}

#[tokio::test]
async fn a_changed_file_has_another_key() {
    let fixture = Fixture::new();
    let server = Scripted::start(|_, before| {
        Reply::new(200, if before == 0 { "one" } else { "two" }).header("ETag", "x")
    });
    let download = source(&format!("http://{}/f", server.address()), &[]);
    let mut keys = Vec::new();
    for _ in 0..3 {
        let key = downloads(&fixture).key(&download, &PullProgress::discard()).await.unwrap();
        keys.push(key);
    }
    assert!(keys[0] != keys[1] && keys[1] == keys[2]);
}

#[tokio::test]
async fn a_checksum_is_verified_and_spares_questions() {
    let fixture = Fixture::new();
    let server = Scripted::start(|_, _| Reply::new(200, "content"));
    let url = format!("http://{}/f", server.address());
    let right = rbuild_oci::Digest::of(b"content").to_string();
    let wrong = rbuild_oci::Digest::of(b"other").to_string();
    let good = source(&url, &[("http.checksum", &right)]);
    let bad = source(&url, &[("http.checksum", &wrong)]);
    let build = downloads(&fixture);
    build.key(&good, &PullProgress::discard()).await.unwrap();
    assert_eq!(server.requests().len(), 0);
    let error = said(&fetch(&fixture, &bad).await.unwrap_err());
    assert!(error.contains(&format!("digest mismatch {right}: {wrong}")), "{error}");
    fetch(&fixture, &good).await.unwrap();
    fetch(&fixture, &good).await.unwrap();
    assert_eq!(server.requests().len(), 2);
    // The server insists on what is here, which is not what was asked for.
    let stubborn = Scripted::start(|_, before| match before {
        0 => Reply::new(200, "content").header("ETag", "x"),
        _ => Reply::new(304, ""),
    });
    let url = format!("http://{}/f", stubborn.address());
    fetch(&fixture, &source(&url, &[])).await.unwrap();
    let bad = source(&url, &[("http.checksum", &wrong)]);
    assert!(said(&fetch(&fixture, &bad).await.unwrap_err()).contains("digest mismatch"));
    // SHA-512 of `content`.
    let long_digits = "b2d1d285b5199c85f988d03649c37e44fd3dde01e5d69c50fef90651962f48110e9340b60d49a479c4c0b53f5f07d690686dd87d2481937a512e8b85ee7c617f";
    let url = format!("http://{}/g", server.address());
    let long = |digits: &str| source(&url, &[("http.checksum", &format!("sha512:{digits}"))]);
    fetch(&fixture, &long(long_digits)).await.unwrap();
    let error = said(&fetch(&fixture, &long(&long_digits.replace('b', "c"))).await.unwrap_err());
    assert!(error.contains("digest mismatch sha512:"), "{error}");
}

#[tokio::test]
async fn what_passes_is_survived() {
    let fixture = Fixture::new();
    let server = Scripted::start(|_, before| match before {
        0 => Reply::new(503, ""),
        // Less than it claimed to be.
        1 => Reply::new(200, "content").cut(3),
        _ => Reply::new(200, "content"),
    });
    let download = source(&format!("http://{}/f", server.address()), &[]);
    let file = fetch(&fixture, &download).await.unwrap();
    assert_eq!(file.content, rbuild_oci::Digest::of(b"content"));
}

#[tokio::test]
async fn hostile_servers_are_refused() {
    check_refused(|_, _| Reply::new(404, ""), "invalid response status 404").await;
    check_refused(|_, _| Reply::hang_up(), "broke").await;
    check_refused(|_, _| Reply::new(200, "content").cut(3), "broke").await;
    check_refused(|_, _| Reply::new(304, ""), "invalid response status 304").await;
    let endless = |_: &Request, _| Reply::new(200, vec![b'x'; 5000]).claiming(None);
    check_refused(endless, "larger than 1000 bytes").await;
    check_refused(|_, _| Reply::new(200, "").claiming(Some(1 << 40)), "larger than 1000").await;
    let round =
        |_: &Request, before: usize| Reply::new(302, "").header("Location", &format!("/{before}"));
    check_refused(round, "ten redirects").await;
    check_refused(
        |_, _| Reply::new(302, "").header("Location", "file:///etc/passwd"),
        "not an HTTP address",
    )
    .await;
    check_refused(|_, _| Reply::new(302, ""), "not an HTTP address").await;
}

#[tokio::test]
async fn a_body_that_trickles_is_not_waited_for() {
    let fixture = Fixture::new();
    let server = Scripted::start(|_, _| Reply::new(200, "content").claiming(None));
    let download = source(&format!("http://{}/f", server.address()), &[]);
    // Whatever has come is too little for no time at all.
    let slowest = Pace { bytes: 100, every: Duration::ZERO };
    let options = DownloadsOptions { slowest, ..DownloadsOptions::default() };
    let downloads = Downloads::new(&fixture.store, fixture.store.lease().unwrap(), options);
    let error = downloads.fetch(&download, &PullProgress::discard()).await.unwrap_err();
    assert!(said(&error).contains("fewer than 100 bytes"), "{}", said(&error));
}

/// What is no reasonable header is neither kept nor said again, and a body is what was sent.
#[tokio::test]
async fn strange_headers_do_no_harm() {
    check_refused(
        |_, _| {
            (0..5000).fold(Reply::new(200, ""), |reply, at| reply.header(&format!("X-{at}"), "x"))
        },
        "broke",
    )
    .await;
    let fixture = Fixture::new();
    let tag = "x".repeat(5000);
    let server = Scripted::start(move |_, _| {
        Reply::new(200, b"\x1f\x8bno gzip".to_vec())
            .header("ETag", &tag)
            .header("Content-Encoding", "gzip")
            .header("Last-Modified", "never")
    });
    let download = source(&format!("http://{}/f", server.address()), &[]);
    let file = fetch(&fixture, &download).await.unwrap();
    assert_eq!(file.content, rbuild_oci::Digest::of(b"\x1f\x8bno gzip"));
    fetch(&fixture, &download).await.unwrap();
    let headers = &server.requests()[1].headers;
    assert!(!headers.contains_key("if-none-match"));
    assert_eq!(headers.get("if-modified-since").map(String::as_str), Some("never"));
}

/// A password is in no name of anything that is kept, not even as a digest.
#[tokio::test]
async fn who_asks_is_no_part_of_what_is_remembered() {
    let fixture = Fixture::new();
    let server = Scripted::start(|request, _| match request.headers.get("if-none-match") {
        Some(_) => Reply::new(304, ""),
        None => Reply::new(200, "content").header("ETag", "x"),
    });
    for user in ["", "me:secret@"] {
        let download = source(&format!("http://{user}{}/f", server.address()), &[]);
        fetch(&fixture, &download).await.unwrap();
    }
    assert!(server.requests()[1].headers.contains_key("if-none-match"));
}

/// More than was announced is not read.
#[tokio::test]
async fn a_lying_length_ends_the_file() {
    let fixture = Fixture::new();
    let server = Scripted::start(|_, _| Reply::new(200, "content").claiming(Some(3)));
    let download = source(&format!("http://{}/f", server.address()), &[]);
    let file = fetch(&fixture, &download).await.unwrap();
    assert_eq!(file.content, rbuild_oci::Digest::of(b"con"));
}

#[tokio::test]
async fn passwords_stay_with_their_origin() {
    let fixture = Fixture::new();
    let other = Scripted::start(|_, _| Reply::new(200, "content"));
    let away = format!("http://evil:twin@{}/away", other.address());
    let server = Scripted::start(move |request, _| match request.path.as_str() {
        "/f" => Reply::new(302, "").header("Location", "/g"),
        _ => Reply::new(302, "").header("Location", &away),
    });
    let download = source(&format!("http://me:secret@{}/f", server.address()), &[]);
    fetch(&fixture, &download).await.unwrap();
    let sent = |server: &Scripted| {
        let requests = server.requests();
        requests.iter().map(|it| it.headers.get("authorization").cloned()).collect::<Vec<_>>()
    };
    let basic = Some("Basic bWU6c2VjcmV0".to_owned());
    assert_eq!((sent(&server), sent(&other)), (vec![basic.clone(), basic], vec![None]));
    let index = fs::read(fixture.root().join("index.db")).unwrap();
    let log = fs::read(fixture.root().join("index.db-wal")).unwrap_or_default();
    let all = String::from_utf8_lossy(&[index, log].concat()).into_owned();
    assert!(all.contains("xxxxx:xxxxx@127.0.0.1") && !all.contains("secret"));
}

#[tokio::test]
async fn what_is_collected_is_forgotten() {
    let fixture = Fixture::new();
    let server = Scripted::start(|_, _| Reply::new(200, "content").header("ETag", "x"));
    let download = source(&format!("http://{}/f", server.address()), &[]);
    let file = fetch(&fixture, &download).await.unwrap();
    let pruned = prune(&fixture.store, &PruneOptions { all: true, ..PruneOptions::default() });
    assert_eq!(pruned.unwrap().layers, [file.layer]);
    fetch(&fixture, &download).await.unwrap();
    assert!(!server.requests()[1].headers.contains_key("if-none-match"));
}
