//! Git servers that are up to no good, below the level of repositories.

use std::error::Error as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rbuild_cache::{DownloadsOptions, PullProgress, Store};
use rbuild_solver::SourceOp;
use rbuild_worker::{GitOptions, Provided, RemoteSources};

/// What comes of asking for the branch `main` of a server that does this with the one connection that it takes.
fn ask(options: GitOptions, serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("git://{address}/r");
    let serving = thread::spawn(move || serve(listener.accept().unwrap().0));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let environment = vec![("PATH".into(), std::env::var_os("PATH").unwrap())];
    let sources = RemoteSources::new(
        &store,
        store.lease().unwrap(),
        DownloadsOptions::default(),
        GitOptions { environment, ..options },
        &Provided::default(),
    );
    let mut source = SourceOp::new("git://h/r#main");
    source.attrs.insert("git.fullurl".to_owned(), url);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked = runtime.block_on(sources.key(&source, &PullProgress::discard()));
    let error = asked.unwrap_err();
    // The program is gone, and with it the connection; if it went before it connected, this is what the server takes.
    drop(TcpStream::connect(address));
    serving.join().unwrap();
    format!("{error}: {}", error.source().unwrap())
}

fn read_all(mut stream: &TcpStream) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let options = GitOptions { patience: Duration::from_millis(1), ..GitOptions::default() };
    let error = ask(options, |stream| read_all(&stream));
    assert!(error.contains("git ls-remote has heard nothing"), "{error}");
}

#[test]
fn references_without_end_are_not_read_to_their_end() {
    let error = ask(GitOptions::default(), |mut stream| {
        let id = "0123456789012345678901234567890123456789";
        // All of them end in the name that is asked for, so all of them are listed.
        for at in 0..400_000 {
            let line = format!("{id} refs/heads/{at:06}/main");
            let line = if at == 0 { format!("{line}\0x\n") } else { format!("{line}\n") };
            if write!(stream, "{:04x}{line}", line.len() + 4).is_err() {
                return;
            }
        }
        let _ = stream.write_all(b"0000");
        read_all(&stream);
    });
    assert!(error.contains("printed more than can be right"), "{error}");
}
