//! The oracle for eStargz: follows a blob's footer and table of contents, as a runtime that fetches single files does, and compares
//! all that it finds with the archive that the blob is for everybody else.

use std::io::Read as _;

use flate2::read::{GzDecoder, MultiGzDecoder};
use serde_json::Value;

use crate::sha256;

const FOOTER: usize = 51;
const TABLE: &str = "stargz.index.json";

/// A blob that is right.
#[derive(Clone, Debug)]
pub struct Table {
    /// The names of the entries, in their order.
    pub names: Vec<String>,
    /// The length of all that the blob decompresses to.
    pub uncompressed: u64,
}

/// Reads a blob by its table, and compares each entry.
///
/// # Errors
///
/// What is wrong with the blob, or that its table has not this digest.
pub fn check(blob: &[u8], table_digest: &str) -> Result<Table, String> {
    let table_at = footer(blob)?;
    let json = table(&blob[table_at..blob.len() - FOOTER])?;
    if sha256(&json) != table_digest {
        return Err(format!("the table has digest {}, not {table_digest}", sha256(&json)));
    }
    let table: Value = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
    if table["version"] != 1 {
        return Err(format!("the table has version {}", table["version"]));
    }
    let listed = table["entries"].as_array().ok_or("the table has no entries")?;
    let mut listed = listed.iter().peekable();
    let mut archive = Vec::new();
    let read = MultiGzDecoder::new(&blob[..table_at]).read_to_end(&mut archive);
    read.map_err(|error| format!("the archive: {error}"))?;
    let mut archive = tar::Archive::new(archive.as_slice());
    let mut names = Vec::new();
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let mut entry = entry.map_err(|error| error.to_string())?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(|error| error.to_string())?;
        let file = listed.next().ok_or("the table has less than the archive")?;
        let mut chunks = vec![file];
        while let Some(chunk) = listed.next_if(|next| next["type"] == "chunk") {
            chunks.push(chunk);
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        compare(file, &mut entry, &content).map_err(|error| format!("`{name}`: {error}"))?;
        check_chunks(blob, &chunks, &content).map_err(|error| format!("`{name}`: {error}"))?;
        names.push(name);
    }
    let uncompressed = std::io::copy(&mut MultiGzDecoder::new(blob), &mut std::io::sink());
    let uncompressed = uncompressed.map_err(|error| format!("the blob: {error}"))?;
    match listed.next() {
        None => Ok(Table { names, uncompressed }),
        Some(more) => Err(format!("the table has more than the archive: {more}")),
    }
}

/// Where the table's member begins.
fn footer(blob: &[u8]) -> Result<usize, String> {
    let footer = blob.len().checked_sub(FOOTER).map(|start| &blob[start..]);
    let footer = footer.ok_or("there is no footer")?;
    let mut nothing = Vec::new();
    let mut member = GzDecoder::new(footer);
    member.read_to_end(&mut nothing).map_err(|error| format!("the footer: {error}"))?;
    let extra = member.header().and_then(|header| header.extra()).ok_or("no extra field")?;
    if !nothing.is_empty() || extra.len() != 26 || !extra.starts_with(b"SG\x16\0") {
        return Err(format!("the footer is {footer:?}"));
    }
    let said = String::from_utf8_lossy(&extra[4..]);
    let position = said.strip_suffix("STARGZ").and_then(|hex| usize::from_str_radix(hex, 16).ok());
    position.filter(|at| *at < blob.len() - FOOTER).ok_or(format!("the footer says {said}"))
}

/// The table in its own archive, which is one member.
fn table(member: &[u8]) -> Result<Vec<u8>, String> {
    let mut archive = Vec::new();
    let mut decoder = GzDecoder::new(member);
    decoder.read_to_end(&mut archive).map_err(|error| format!("the table: {error}"))?;
    if !decoder.into_inner().is_empty() {
        return Err("the table's member does not end at the footer".to_owned());
    }
    let mut archive = tar::Archive::new(archive.as_slice());
    let mut entries = archive.entries().map_err(|error| error.to_string())?;
    let first = entries.next().ok_or("the table's archive is empty")?;
    let mut first = first.map_err(|error| error.to_string())?;
    let mut json = Vec::new();
    first.read_to_end(&mut json).map_err(|error| error.to_string())?;
    match (first.path_bytes().as_ref() == TABLE.as_bytes(), entries.next()) {
        (true, None) => Ok(json),
        _ => Err("the table's archive has other files".to_owned()),
    }
}

fn compare(file: &Value, entry: &mut tar::Entry<'_, &[u8]>, content: &[u8]) -> Result<(), String> {
    let header = entry.header().clone();
    let number = |field: std::io::Result<u64>| field.unwrap_or_default();
    let kind = match header.entry_type() {
        tar::EntryType::Regular => "reg",
        tar::EntryType::Directory => "dir",
        tar::EntryType::Symlink => "symlink",
        tar::EntryType::Link => "hardlink",
        tar::EntryType::Char => "char",
        tar::EntryType::Block => "block",
        tar::EntryType::Fifo => "fifo",
        other => return Err(format!("an entry of type {other:?}")),
    };
    let link = entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned());
    let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let numbers = [
        ("size", content.len() as u64),
        ("mode", number(header.mode().map(u64::from)) & 0o7777),
        ("uid", number(header.uid())),
        ("gid", number(header.gid())),
        ("devMajor", u64::from(header.device_major().ok().flatten().unwrap_or_default())),
        ("devMinor", u64::from(header.device_minor().ok().flatten().unwrap_or_default())),
    ];
    for (key, expected) in numbers {
        if file[key].as_u64().unwrap_or_default() != expected {
            return Err(format!("{key} is {}, not {expected}", file[key]));
        }
    }
    let texts = [("name", path.as_str()), ("type", kind), ("linkName", &link.unwrap_or_default())];
    for (key, expected) in texts {
        if file[key].as_str().unwrap_or_default() != expected {
            return Err(format!("{key} is {}, not {expected}", file[key]));
        }
    }
    let has_time = number(header.mtime()) != 0;
    if file["modtime"].is_string() != has_time {
        return Err(format!("the time is {}", file["modtime"]));
    }
    let extensions = entry.pax_extensions().map_err(|error| error.to_string())?;
    let records = extensions.into_iter().flatten().flatten();
    let xattrs = records.filter(|record| record.key_bytes().starts_with(b"SCHILY.xattr.")).count();
    match file["xattrs"].as_object().map_or(0, serde_json::Map::len) == xattrs {
        true => Ok(()),
        false => Err(format!("the extended attributes are {}", file["xattrs"])),
    }
}

/// Reads each chunk from its member alone.
fn check_chunks(blob: &[u8], chunks: &[&Value], content: &[u8]) -> Result<(), String> {
    let number = |value: &Value| value.as_u64().unwrap_or_default() as usize;
    if chunks[0]["type"] == "reg" && chunks[0]["digest"] != sha256(content) {
        return Err(format!("the digest is {}", chunks[0]["digest"]));
    }
    if content.is_empty() {
        return match chunks.len() {
            1 => Ok(()),
            _ => Err("there are chunks of nothing".to_owned()),
        };
    }
    let mut position = 0;
    for chunk in chunks {
        let (offset, at) = (number(&chunk["offset"]), number(&chunk["chunkOffset"]));
        let size = match number(&chunk["chunkSize"]) {
            0 => content.len() - at,
            size => size,
        };
        let expected = content.get(at..at + size).filter(|_| at == position);
        let expected = expected.ok_or_else(|| format!("a chunk is not in its place: {chunk}"))?;
        let mut bytes = vec![0; size];
        let mut member = GzDecoder::new(blob.get(offset..).ok_or("a chunk is behind the end")?);
        member.read_exact(&mut bytes).map_err(|error| format!("{chunk}: {error}"))?;
        if bytes != expected || chunk["chunkDigest"] != sha256(expected) {
            return Err(format!("another chunk: {chunk}"));
        }
        position += size;
    }
    match position == content.len() {
        true => Ok(()),
        false => Err("chunks are missing".to_owned()),
    }
}
