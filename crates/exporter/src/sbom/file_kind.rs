//! Which files tell of packages, by their paths, and who reads them.

use std::fs::File;

use super::input::{Packages, ReadError, bytes_of, lines_of};
use super::os_release::{self, Distribution};
use super::package::Ecosystem;
use super::{alpine, debian, golang, node, php, python, ruby, toml_lock};

/// A file that tells of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    OsRelease,
    DpkgStatus,
    ApkInstalled,
    /// RPM's database, which is not read.
    RpmDatabase,
    NpmPackage,
    NpmLock,
    YarnLock,
    PnpmLock,
    /// Of cargo, or in the same form of others.
    TomlLock(Ecosystem),
    PythonMetadata,
    Requirements,
    PipfileLock,
    GoSum,
    GemfileLock,
    Gemspec,
    Composer,
}

impl FileKind {
    /// What the file at `path`, relative to the root of the files, is.
    pub(super) fn of(path: &str) -> Option<Self> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = folder.rsplit('/').next().unwrap_or_default();
        Some(match name {
            "os-release" if matches!(folder, "etc" | "usr/lib") => Self::OsRelease,
            "status" if folder == "var/lib/dpkg" => Self::DpkgStatus,
            _ if folder == "var/lib/dpkg/status.d" && !name.ends_with(".md5sums") => {
                Self::DpkgStatus
            }
            "installed" if matches!(folder, "lib/apk/db" | "usr/lib/apk/db") => Self::ApkInstalled,
            "rpmdb.sqlite" | "Packages" | "Packages.db"
                if folder.ends_with("lib/rpm") || folder.ends_with("lib/sysimage/rpm") =>
            {
                Self::RpmDatabase
            }
            "package.json" if is_installed_module(folder) => Self::NpmPackage,
            "package-lock.json" | "npm-shrinkwrap.json" | ".package-lock.json" => Self::NpmLock,
            "yarn.lock" => Self::YarnLock,
            "pnpm-lock.yaml" => Self::PnpmLock,
            "Cargo.lock" => Self::TomlLock(Ecosystem::Cargo),
            "poetry.lock" | "uv.lock" => Self::TomlLock(Ecosystem::PyPi),
            "METADATA" if parent.ends_with(".dist-info") => Self::PythonMetadata,
            "PKG-INFO" if parent.ends_with(".egg-info") => Self::PythonMetadata,
            _ if name.ends_with(".egg-info") => Self::PythonMetadata,
            _ if name.starts_with("requirements") && name.ends_with(".txt") => Self::Requirements,
            "Pipfile.lock" => Self::PipfileLock,
            "go.sum" => Self::GoSum,
            "Gemfile.lock" => Self::GemfileLock,
            _ if name.ends_with(".gemspec") => {
                let is_installed =
                    parent == "specifications" || folder.ends_with("specifications/default");
                return is_installed.then_some(Self::Gemspec);
            }
            "composer.lock" => Self::Composer,
            "installed.json" if parent == "composer" => Self::Composer,
            _ => return None,
        })
    }

    /// What the file at `path` tells without being read; `None` if it must be.
    pub(super) fn told_by_name(
        self,
        path: &str,
        packages: &mut Packages<'_>,
    ) -> Option<Result<(), ReadError>> {
        match self {
            Self::RpmDatabase => {
                Some(Err(ReadError::Said("packages of RPM are not listed".to_owned())))
            }
            Self::Gemspec => {
                let name = path.rsplit('/').next().unwrap_or(path);
                Some(packages.extend(ruby::gemspec(name)))
            }
            _ => None,
        }
    }

    /// Reads the file. What was found before an error stays.
    pub(super) fn read(
        self,
        file: File,
        packages: &mut Packages<'_>,
    ) -> Result<Option<Distribution>, ReadError> {
        match self {
            Self::OsRelease => return Ok(os_release::read(&mut lines_of(file, packages)?)?),
            Self::RpmDatabase | Self::Gemspec => Ok(()),
            Self::DpkgStatus => debian::read(&mut lines_of(file, packages)?, packages),
            Self::ApkInstalled => alpine::read(&mut lines_of(file, packages)?, packages),
            Self::NpmPackage => node::package_json(&bytes_of(file, packages)?, packages),
            Self::NpmLock => node::package_lock(&bytes_of(file, packages)?, packages),
            Self::YarnLock => node::yarn_lock(&mut lines_of(file, packages)?, packages),
            Self::PnpmLock => node::pnpm_lock(&mut lines_of(file, packages)?, packages),
            Self::TomlLock(ecosystem) => {
                toml_lock::read(ecosystem, &mut lines_of(file, packages)?, packages)
            }
            Self::PythonMetadata => python::metadata(&mut lines_of(file, packages)?, packages),
            Self::Requirements => python::requirements(&mut lines_of(file, packages)?, packages),
            Self::PipfileLock => python::pipfile_lock(&bytes_of(file, packages)?, packages),
            Self::GoSum => golang::sums(&mut lines_of(file, packages)?, packages),
            Self::GemfileLock => ruby::gemfile_lock(&mut lines_of(file, packages)?, packages),
            Self::Composer => php::read(&bytes_of(file, packages)?, packages),
        }?;
        Ok(None)
    }
}

/// Whether this is the folder of a package in `node_modules`, with or without a scope.
fn is_installed_module(folder: &str) -> bool {
    let mut parts = folder.rsplit('/').skip(1);
    match parts.next() {
        Some("node_modules") => true,
        Some(scope) if scope.starts_with('@') => parts.next() == Some("node_modules"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_by_their_paths() {
        for (path, expected) in [
            ("var/lib/dpkg/status", Some(FileKind::DpkgStatus)),
            ("var/lib/dpkg/status.d/libc6", Some(FileKind::DpkgStatus)),
            ("var/lib/dpkg/status.d/libc6.md5sums", None),
            ("srv/var/lib/dpkg/status", None),
            ("usr/lib/os-release", Some(FileKind::OsRelease)),
            ("usr/lib/sysimage/rpm/rpmdb.sqlite", Some(FileKind::RpmDatabase)),
            ("Cargo.lock", Some(FileKind::TomlLock(Ecosystem::Cargo))),
            ("app/node_modules/a/package.json", Some(FileKind::NpmPackage)),
            ("app/node_modules/@s/a/package.json", Some(FileKind::NpmPackage)),
            ("node_modules/a/package.json", Some(FileKind::NpmPackage)),
            ("app/node_modules/a/test/package.json", None),
            ("app/package.json", None),
            ("usr/lib/python3/dist-packages/six-1.16.0.egg-info", Some(FileKind::PythonMetadata)),
            ("x/six-1.16.0.dist-info/METADATA", Some(FileKind::PythonMetadata)),
            ("x/requirements-dev.txt", Some(FileKind::Requirements)),
            ("gems/specifications/default/json-2.6.1.gemspec", Some(FileKind::Gemspec)),
            ("gems/rack-2.2/rack.gemspec", None),
            ("vendor/composer/installed.json", Some(FileKind::Composer)),
        ] {
            assert_eq!(FileKind::of(path), expected, "{path}");
        }
    }
}
