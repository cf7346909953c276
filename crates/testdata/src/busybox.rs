//! A root file system and an image of Debian's `busybox-static`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::{Entry, Image, Layer};

const PROGRAM: &str = "/bin/busybox";

/// Makes a root file system in the existing folder `root`: busybox with a link for each applet, `/etc/passwd` and
/// `/etc/group` with root and nobody, `/tmp`, `/root`, `/proc`, `/dev` and `/sys`.
pub fn busybox_rootfs(root: &Path) {
    for entry in busybox_entries(installed()) {
        let path = root.join(&entry.path);
        match &entry.kind {
            crate::EntryKind::Directory => fs::create_dir_all(&path),
            crate::EntryKind::File(content) => fs::write(&path, content),
            crate::EntryKind::Symlink(target) => symlink(target, &path),
            other => unreachable!("busybox has no {other:?}"),
        }
        .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        if !matches!(entry.kind, crate::EntryKind::Symlink(_)) {
            fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode))
                .unwrap_or_else(|error| panic!("cannot chmod {}: {error}", path.display()));
        }
    }
}

/// The same root file system as a layer.
pub fn busybox_layer() -> Layer {
    Layer::new(&busybox_entries(installed()))
}

/// An image of one layer that runs `sh`, for the platform of this machine.
pub fn busybox_image() -> Image {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    with_shell(&format!("linux/{architecture}"), busybox_layer())
}

/// The same image for another platform, with the busybox of that in `program`.
pub fn foreign_busybox_image(platform: &str, program: Vec<u8>) -> Image {
    with_shell(platform, Layer::new(&busybox_entries(program)))
}

fn with_shell(platform: &str, layer: Layer) -> Image {
    Image::new(platform).layer(layer).configured(|config| {
        config["config"]["Cmd"] = serde_json::json!(["sh"]);
        config["config"]["Env"] = serde_json::json!([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        ]);
    })
}

fn installed() -> Vec<u8> {
    fs::read(PROGRAM).unwrap_or_else(|error| {
        panic!("cannot read {PROGRAM}: {error}; install Debian's `busybox-static`")
    })
}

fn busybox_entries(program: Vec<u8>) -> Vec<Entry> {
    let listing = Command::new(PROGRAM).arg("--list").output().expect("busybox lists its applets");
    let applets = String::from_utf8(listing.stdout).expect("applets have ASCII names");
    let mut entries: Vec<Entry> =
        ["bin", "dev", "etc", "proc", "sys", "usr", "usr/bin", "var"].map(Entry::directory).into();
    entries.push(Entry::directory("root").mode(0o700));
    entries.push(Entry::directory("tmp").mode(0o1777));
    entries.push(Entry::file("bin/busybox", program).mode(0o755));
    entries.extend(
        applets
            .lines()
            .filter(|applet| *applet != "busybox")
            .map(|applet| Entry::symlink(&format!("bin/{applet}"), "busybox")),
    );
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    entries.push(Entry::file("etc/passwd", passwd));
    entries.push(Entry::file("etc/group", "root:x:0:\nnogroup:x:65534:\n"));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_file_system_has_a_shell() {
        let root = tempfile::tempdir().unwrap();
        busybox_rootfs(root.path());
        assert_eq!(fs::read_link(root.path().join("bin/sh")).unwrap(), Path::new("busybox"));
        let mode = fs::metadata(root.path().join("tmp")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o1777);
        assert_eq!(busybox_image().layers.len(), 1);
    }
}
