//! Ruby: `Gemfile.lock`, and the specifications of installed gems, whose file names say it all.

use std::io::BufRead;

use super::input::{Lines, Packages, ReadError};
use super::package::{Ecosystem, Package};

/// The gems of `Gemfile.lock`: those that stand directly below a `specs:` of a `GEM` section.
pub(super) fn gemfile_lock(
    lines: &mut Lines<impl BufRead>,
    packages: &mut Packages<'_>,
) -> Result<(), ReadError> {
    let mut is_inside = false;
    let mut last = None;
    while let Some(line) = lines.next()? {
        if !line.starts_with(' ') {
            is_inside = line == "GEM";
            continue;
        }
        let entry = line.strip_prefix("    ").filter(|entry| !entry.starts_with(' '));
        let Some(entry) = entry.filter(|_| is_inside) else { continue };
        let Some((name, version)) = entry.trim_end_matches(')').split_once(" (") else { continue };
        let gem = Package::new(Ecosystem::Gem, name, without_platform(version));
        // A gem stands there once for each platform.
        if last.as_ref() != Some(&gem) {
            packages.push(gem.clone())?;
            last = Some(gem);
        }
    }
    Ok(())
}

/// A specification by its file's name, `NAME-VERSION[-PLATFORM].gemspec`.
pub(super) fn gemspec(file_name: &str) -> Option<Package> {
    let stem = file_name.strip_suffix(".gemspec")?;
    let dashes = stem.match_indices('-').map(|(at, _)| at);
    let version_at = dashes.into_iter().find(|at| {
        let version = without_platform(&stem[at + 1..]);
        version.starts_with(|first: char| first.is_ascii_digit()) && version.contains('.')
    })?;
    let version = without_platform(&stem[version_at + 1..]);
    Some(Package::new(Ecosystem::Gem, &stem[..version_at], version))
}

fn without_platform(version: &str) -> &str {
    version.split('-').next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::super::input::found;
    use super::*;

    #[test]
    fn gems() {
        let lock = "GIT\n  remote: x\n  specs:\n    own (0.1)\n\nGEM\n  remote: https://rubygems.org/\n  specs:\n    nokogiri (1.15.4-aarch64-linux)\n    nokogiri (1.15.4-x86_64-linux)\n      racc (~> 1.4)\n    racc (1.7.1)\n\nPLATFORMS\n    x (1)\n";
        let locked = found(lock, gemfile_lock);
        let locked: Vec<_> = locked.iter().map(|gem| gem.purl(None)).collect();
        assert_eq!(locked, ["pkg:gem/nokogiri@1.15.4", "pkg:gem/racc@1.7.1"]);
        for (file, expected) in [
            ("rack-2.2.8.gemspec", Some("pkg:gem/rack@2.2.8")),
            ("net-http-2-x-0.1.gemspec", Some("pkg:gem/net-http-2-x@0.1")),
            ("ffi-1.16.3-x86_64-linux.gemspec", Some("pkg:gem/ffi@1.16.3")),
            ("x.gemspec", None),
        ] {
            assert_eq!(gemspec(file).map(|gem| gem.purl(None)).as_deref(), expected, "{file}");
        }
    }
}
