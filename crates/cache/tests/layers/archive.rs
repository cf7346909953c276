//! Archives for tests, also such as no decent tool would write.

use std::io;

/// Builds archives entry by entry.
pub(super) struct Archive(Vec<u8>);

impl Archive {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn file(self, name: &str, content: &str) -> Self {
        self.raw(b'0', name, "", content.as_bytes())
    }

    pub(super) fn dir(self, name: &str) -> Self {
        self.raw(b'5', name, "", b"")
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(b'2', name, target, b"")
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Self {
        self.raw(b'1', name, target, b"")
    }

    /// An entry of any type, with mode 0755 and time 1000.
    pub(super) fn raw(self, kind: u8, name: &str, link: &str, content: &[u8]) -> Self {
        self.with(kind, name, link, content, |_| {})
    }

    pub(super) fn with(
        mut self,
        kind: u8,
        name: &str,
        link: &str,
        content: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(kind));
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1000);
        header.set_size(content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A PAX header for the next entry.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length =
                (rest..).find(|length| rest + length.to_string().len() == *length).unwrap();
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.raw(b'x', "pax", "", &content)
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    pub(super) fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

/// The names and types in an archive, as an independent reader sees them.
pub(super) fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(io::Cursor::new(archive));
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.path_bytes().escape_ascii().to_string();
            match entry.link_name_bytes() {
                Some(link) => format!("{name} -> {}", link.escape_ascii()),
                None => name,
            }
        })
        .collect()
}
