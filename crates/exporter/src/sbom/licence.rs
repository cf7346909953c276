//! Licences as SPDX writes them.

/// Identifiers of the SPDX list that packages commonly have. What is not here becomes a `LicenseRef-`, which is always right.
const KNOWN: &[&str] = &[
    "0BSD",
    "AFL-2.1",
    "AFL-3.0",
    "AGPL-3.0",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-1.0",
    "Artistic-1.0-Perl",
    "Artistic-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-2-Clause-Patent",
    "BSD-3-Clause",
    "BSD-4-Clause",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDDL-1.0",
    "CDDL-1.1",
    "CPL-1.0",
    "EPL-1.0",
    "EPL-2.0",
    "FTL",
    "GFDL-1.3-only",
    "GFDL-1.3-or-later",
    "GPL-1.0-only",
    "GPL-1.0-or-later",
    "GPL-2.0",
    "GPL-2.0+",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0",
    "GPL-3.0+",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "HPND",
    "ICU",
    "IJG",
    "ISC",
    "LGPL-2.0-only",
    "LGPL-2.0-or-later",
    "LGPL-2.1",
    "LGPL-2.1+",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0",
    "LGPL-3.0+",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "Libpng",
    "MIT",
    "MIT-0",
    "MPL-1.1",
    "MPL-2.0",
    "MS-PL",
    "NCSA",
    "OFL-1.1",
    "OLDAP-2.8",
    "OpenSSL",
    "PHP-3.01",
    "PSF-2.0",
    "PostgreSQL",
    "Python-2.0",
    "Python-2.0.1",
    "Ruby",
    "SGI-B-2.0",
    "TCL",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Vim",
    "W3C",
    "WTFPL",
    "X11",
    "ZPL-2.1",
    "Zlib",
    "bzip2-1.0.6",
    "curl",
    "zlib-acknowledgement",
];

/// Exceptions that may follow `WITH`.
const EXCEPTIONS: &[&str] = &[
    "Autoconf-exception-2.0",
    "Autoconf-exception-3.0",
    "Bison-exception-2.2",
    "Classpath-exception-2.0",
    "GCC-exception-2.0",
    "GCC-exception-3.1",
    "LLVM-exception",
    "Linux-syscall-note",
    "OpenSSL-exception",
    "openvpn-openssl-exception",
];

/// How SPDX says a licence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Declared {
    /// Nothing is known.
    Nothing,
    /// An expression of known identifiers.
    Expression(String),
    /// Something else, which is quoted below this identifier.
    Reference { id: String },
}

/// Reads what a package manager has noted.
pub(super) fn declared(text: &str) -> Declared {
    let text = text.trim();
    if text.is_empty() || matches!(text, "UNKNOWN" | "NONE" | "NOASSERTION") {
        return Declared::Nothing;
    }
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    match is_or(&words) {
        Some([]) => Declared::Expression(text.to_owned()),
        _ => Declared::Reference { id: format!("LicenseRef-{}", slug(text)) },
    }
}

/// What is left after an expression; `None` if there is none. `AND` and `OR` are read alike: only the form matters.
fn is_or<'a, 'b>(words: &'a [&'b str]) -> Option<&'a [&'b str]> {
    // Deep nesting is nothing that anybody writes.
    if words.len() > 64 {
        return None;
    }
    let mut rest = is_term(words)?;
    while let ["AND" | "OR", more @ ..] = rest {
        rest = is_term(more)?;
    }
    Some(rest)
}

fn is_term<'a, 'b>(words: &'a [&'b str]) -> Option<&'a [&'b str]> {
    match words {
        ["(", inner @ ..] => match is_or(inner)? {
            [")", rest @ ..] => Some(rest),
            _ => None,
        },
        [id, "WITH", exception, rest @ ..]
            if KNOWN.contains(id) && EXCEPTIONS.contains(exception) =>
        {
            Some(rest)
        }
        [id, rest @ ..] if KNOWN.contains(id) => Some(rest),
        _ => None,
    }
}

/// The letters, digits, dots and dashes of the beginning, and a hash so that no two texts have one.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for char in text.chars().take(40) {
        if char.is_ascii_alphanumeric() || char == '.' {
            slug.push(char);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let hash = rbuild_oci::Digest::of(text.as_bytes()).hex();
    format!("{}-{}", slug.trim_matches('-'), &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_and_other_texts() {
        for text in [
            "MIT",
            "MIT OR Apache-2.0",
            "(MIT OR GPL-2.0-or-later WITH Classpath-exception-2.0) AND BSD-3-Clause",
        ] {
            assert_eq!(declared(text), Declared::Expression(text.to_owned()), "{text}");
        }
        for text in
            ["MIT/Apache-2.0", "MIT AND", "(MIT", "MIT Apache-2.0", "MIT WITH x", "custom: my own"]
        {
            assert!(matches!(declared(text), Declared::Reference { .. }), "{text}");
        }
        assert_eq!(declared(" "), Declared::Nothing);
        let Declared::Reference { id } = declared("BSD (3 clause)") else { panic!() };
        assert!(id.starts_with("LicenseRef-BSD-3-clause-"), "{id}");
    }
}
