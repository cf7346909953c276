//! Every kept input, through its target.

use std::fs;
use std::path::Path;

/// What all kept inputs may come to, in bytes.
const MOST_BYTES: usize = 200_000;

#[test]
fn the_corpus_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut bytes = 0;
    for &(name, check) in rbuild_fuzz::TARGETS {
        let folder = fs::read_dir(corpus.join(name)).expect("every target has inputs");
        let mut inputs: Vec<_> = folder.map(|entry| entry.expect("it is listed").path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name}");
        for input in inputs {
            let data = fs::read(&input).expect("it is listed");
            bytes += data.len();
            let done = std::panic::catch_unwind(|| check(&data));
            assert!(done.is_ok(), "replaying {}", input.display());
        }
    }
    assert!(bytes <= MOST_BYTES, "{bytes} bytes are too many to keep");
}
