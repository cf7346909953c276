//! Image references and platforms.

use rbuild_oci::{Digest, Platform, Reference};

/// What is accepted is complete, stays what it is when it is written and read, and has nothing dangerous in it.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = Reference::parse(text) {
        let shown = reference.to_string();
        assert!(shown.len() <= text.len() + "docker.io/library/".len());
        assert_eq!(Reference::parse(&shown).as_ref(), Ok(&reference), "{shown}");
        let familiar = reference.familiar();
        assert_eq!(Reference::parse(&familiar).as_ref(), Ok(&reference), "{familiar}");
        let pinned = reference.pinned(Digest::of(b"")).to_string();
        assert!(Reference::parse(&pinned).is_ok(), "{pinned}");
        assert!(Reference::parse(&reference.name()).is_ok(), "{shown}");
        // It becomes a part of addresses and of file names.
        let is_tame = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]".contains(c);
        assert!(shown.chars().all(is_tame), "{shown:?}");
        let elements = reference.repository().split('/');
        assert!(elements.clone().all(|element| !element.is_empty() && !element.starts_with('.')));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        let shown = platform.to_string();
        let again = shown.parse::<Platform>();
        assert_eq!(again.map(|again| again.to_string()).as_deref(), Ok(&*shown), "{text:?}");
        assert_eq!(platform.clone().normalize().normalize(), platform.clone().normalize());
        assert!(platform.distance(&platform).is_some());
    }
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(digest.to_string(), text);
    }
}
