//! What an index lists when something is added to it.

use rbuild_oci::Descriptor;

/// Annotation of an attestation's entry: the manifest that it is about.
const ABOUT: &str = "vnd.docker.reference.digest";

/// The entries of an index after `new` ones were added to those that are `there`.
///
/// One for the same platform takes the place of another, whose attestations go with it. An entry that is there already
/// stays where it is.
pub(super) fn merged(there: Vec<Descriptor>, new: &[Descriptor]) -> Vec<Descriptor> {
    let mut entries = there;
    for entry in new {
        let is_same = |other: &Descriptor| other.digest == entry.digest || replaces(entry, other);
        match entries.iter().position(is_same) {
            None => entries.push(entry.clone()),
            Some(position) => {
                let old = std::mem::replace(&mut entries[position], entry.clone());
                if old.digest != entry.digest {
                    let about = old.digest.to_string();
                    entries.retain(|other| other.annotations.get(ABOUT) != Some(&about));
                }
            }
        }
    }
    entries
}

/// Whether all that was `added` to an index that listed `before` is in what it lists `now`, or has been replaced since: by
/// an image for the same platform that was not there before.
pub(super) fn are_kept(added: &[Descriptor], before: &[Descriptor], now: &[Descriptor]) -> bool {
    added.iter().all(|entry| {
        let is_new = |other: &Descriptor| !before.iter().any(|old| old.digest == other.digest);
        let is_kept = now
            .iter()
            .any(|other| other.digest == entry.digest || (replaces(entry, other) && is_new(other)));
        // What is said of an image goes with it.
        let is_gone = |about: &String| !now.iter().any(|other| other.digest.to_string() == *about);
        is_kept || entry.annotations.get(ABOUT).is_some_and(is_gone)
    })
}

/// Whether both are images for the same platform.
fn replaces(new: &Descriptor, old: &Descriptor) -> bool {
    let platform = |of: &Descriptor| {
        let platform = of.platform.clone()?.normalize();
        Some(platform).filter(|platform| platform.os != "unknown")
    };
    platform(new).is_some_and(|new| platform(old) == Some(new))
}

#[cfg(test)]
mod tests {
    use rbuild_oci::{Digest, MediaType, Platform};

    use super::*;

    fn entry(name: &str, platform: &str) -> Descriptor {
        let mut entry = Descriptor::new(MediaType::OciManifest, Digest::of(name.as_bytes()), 1);
        entry.platform = Some(match platform.split_once('/') {
            Some((os, architecture)) => Platform::new(os, architecture, ""),
            None => unreachable!("platforms have a slash"),
        });
        entry
    }

    fn about(name: &str, of: &str) -> Descriptor {
        let mut entry = entry(name, "unknown/unknown");
        entry.annotations.insert(ABOUT.to_owned(), Digest::of(of.as_bytes()).to_string());
        entry
    }

    #[test]
    fn a_platform_is_replaced_with_what_is_said_of_it() {
        let there = vec![
            entry("amd64", "linux/amd64"),
            entry("arm64", "linux/arm64"),
            about("of amd64", "amd64"),
            about("of arm64", "arm64"),
        ];
        let new = [entry("newer", "linux/x86_64"), about("of newer", "newer")];
        let expected = ["newer", "arm64", "of arm64", "of newer"];
        let digests = |entries: &[Descriptor]| -> Vec<Digest> {
            entries.iter().map(|entry| entry.digest).collect()
        };
        let merged_once = merged(there, &new);
        assert_eq!(digests(&merged_once), expected.map(|name| Digest::of(name.as_bytes())));
        assert_eq!(merged(merged_once.clone(), &new), merged_once);
    }

    #[test]
    fn what_is_lost_is_told_from_what_is_replaced() {
        let old = [entry("old", "linux/amd64")];
        let added = [entry("ours", "linux/amd64"), about("of ours", "ours")];
        let arm64 = [entry("arm64", "linux/arm64")];
        let now = merged(merged(old.to_vec(), &added), &arm64);
        assert!(are_kept(&added, &old, &now));
        assert!(!are_kept(&added, &old, &merged(old.to_vec(), &arm64)));
        assert!(!are_kept(&added, &[], &arm64));
        assert!(!are_kept(&added, &old, &now[..1]));
        let newer = merged(now, &[entry("newer", "linux/amd64")]);
        assert!(are_kept(&added, &old, &newer));
    }
}
