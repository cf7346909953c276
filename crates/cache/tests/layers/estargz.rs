//! eStargz blobs of archives at the borders of what there is, read by the oracle.

use std::io::Write as _;

use rbuild_cache::{
    Compression, EntryKind, FinishedBlob, LayerBlobReader, LayerBlobWriter, TOC_DIGEST, TarEntry,
    TarWriter, UNCOMPRESSED_SIZE,
};
use rbuild_testdata::estargz;

/// What a runtime fetches at least.
const CHUNK: usize = 4 << 20;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * at / 7 + at / 1000) as u8).collect()
}

/// An archive with a file of each of these lengths, and without an end.
fn archive(lengths: &[usize]) -> Vec<u8> {
    let mut archive = TarWriter::new(Vec::new(), None);
    for length in lengths {
        let path = format!("{length}-{}", "long".repeat(40));
        let entry = TarEntry {
            path: path.as_bytes(),
            kind: EntryKind::File { size: *length as u64 },
            mode: 0o4755,
            uid: 1,
            gid: 2,
            mtime: 1_000_000_000,
            xattrs: &[],
        };
        archive.append_file(&entry, &mut content(*length).as_slice()).unwrap();
    }
    archive.into_inner()
}

fn blob(archive: &[u8], piece: usize) -> std::io::Result<FinishedBlob<Vec<u8>>> {
    let mut writer = LayerBlobWriter::new(Vec::new(), Compression::Estargz { level: 1 })?;
    for piece in archive.chunks(piece) {
        writer.write_all(piece)?;
    }
    writer.finish()
}

fn check(blob: &FinishedBlob<Vec<u8>>) -> Result<estargz::Table, String> {
    estargz::check(&blob.out, &blob.annotations[TOC_DIGEST])
}

#[test]
fn files_of_all_lengths_are_where_the_table_says() {
    let lengths = [0, 1, 511, 512, 513, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7];
    let archive = archive(&lengths);
    let made = blob(&archive, 1_000_000).unwrap();
    let table = check(&made).unwrap();
    assert_eq!(table.names.len(), lengths.len());
    assert_eq!(made.annotations[UNCOMPRESSED_SIZE], table.uncompressed.to_string());
    // The diff id is that of all that is in the blob.
    let mut reader = LayerBlobReader::new(made.out.as_slice()).unwrap();
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    assert_eq!(reader.diff_id(), made.diff_id);
    // The bytes do not depend on how the archive comes, on the number of threads, or on what follows the archive's end.
    assert!(blob(&archive, 4097).unwrap().out == made.out);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert!(pool.install(|| blob(&archive, 1_000_000)).unwrap().out == made.out);
    let longer = [&archive[..], &[0; 10 << 10], b"more"].concat();
    assert!(blob(&longer, 1_000_000).unwrap().out == made.out);
}

#[test]
fn nothing_at_all_has_an_empty_table() {
    assert_eq!(check(&blob(&[], 1).unwrap()).unwrap().names, [""; 0]);
}

#[test]
fn the_oracle_notices_other_bytes() {
    let made = blob(&archive(&[10, CHUNK + 1]), 1 << 20).unwrap();
    check(&made).unwrap();
    for at in [20, made.out.len() / 2, made.out.len() - 100, made.out.len() - 20] {
        let mut out = made.out.clone();
        out[at] ^= 1;
        let damaged = FinishedBlob { out, annotations: made.annotations.clone(), ..made };
        assert!(check(&damaged).is_err(), "{at}");
    }
    assert!(estargz::check(&made.out, "sha256:other").is_err());
}

#[test]
fn archives_that_it_cannot_be_made_of_are_refused() {
    let whole = archive(&[1000]);
    for cut in [100, 600, whole.len() - 1] {
        let error = blob(&whole[..cut], 1000).unwrap_err().to_string();
        assert!(error.contains("in the middle of an entry"), "{cut}: {error}");
    }
    let mut damaged = whole.clone();
    let position = damaged.len() - 1024 - 512;
    damaged[position] ^= 0xff;
    assert!(blob(&damaged, 1000).is_err());
    let mut archive = TarWriter::new(Vec::new(), None);
    let entry = TarEntry {
        path: b"stargz.index.json",
        kind: EntryKind::File { size: 0 },
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: &[],
    };
    archive.append(&entry).unwrap();
    let error = blob(&archive.into_inner(), 1000).unwrap_err().to_string();
    assert!(error.contains("`stargz.index.json`"), "{error}");
}
