//! What a build reads: the Dockerfile, its `.dockerignore`, and the context folder, from wherever they were
//! given (sections 1.14 and 1.15 of the behaviour reference).

use std::error::Error;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rbuild_cache::{ApplyForm, ApplyOptions, ArchiveLimits, Decoder, apply};
use rbuild_frontend::RemoteContext;
use tempfile::TempDir;

use super::confined;
use crate::args::BuildArgs;
use crate::error::{CommandError, Kind};

/// The largest Dockerfile that is read; the parser has limits of its own.
const DOCKERFILE_LIMIT: u64 = 64 << 20;
/// Bytes that nearly every Dockerfile has room in, so that it is read at once.
const DOCKERFILE_USUAL: usize = 16 << 10;
/// The name that Dockerfiles have when none is given.
pub(super) const DOCKERFILE: &str = "Dockerfile";
/// The name that is looked for next.
pub(super) const LOWER_DOCKERFILE: &str = "dockerfile";

/// What a build reads.
#[derive(Debug)]
pub(crate) struct Input {
    /// The Dockerfile's name, as shown in messages.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) dockerfile: Vec<u8>,
    /// The file of ignore patterns and its name, if there is one.
    pub(crate) ignore: Option<IgnoreFile>,
    /// The context folder; a Dockerfile on standard input alone has none.
    pub(crate) context: Option<PathBuf>,
    /// The context, if it is fetched and no folder.
    pub(crate) remote: Option<RemoteContext>,
    /// Holds the files of a context that came as an archive.
    _unpacked: Option<TempDir>,
}

/// A `.dockerignore`.
#[derive(Debug)]
pub(crate) struct IgnoreFile {
    /// Its path, for messages.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) text: String,
}

impl Input {
    /// Reads what the arguments name. `scratch` is where an archive on standard input is unpacked.
    pub(crate) fn read(args: &BuildArgs, scratch: &Path) -> Result<Self, CommandError> {
        let context = args.context.as_deref().unwrap_or(".");
        match context {
            "-" if args.file.as_deref() == Some("-") => Err(CommandError::usage(
                "the context and the Dockerfile cannot both come from standard input",
            )),
            "-" => Self::from_stdin(args, scratch),
            folder => Self::from_folder(args, Path::new(folder)),
        }
    }

    /// A Dockerfile that was fetched, and the folder that it builds.
    pub(super) fn with_dockerfile(folder: &str, dockerfile: Vec<u8>) -> Result<Self, CommandError> {
        if folder == "-" {
            return Err(CommandError::usage(
                "a Dockerfile that is fetched needs a context that is a folder, or is fetched, too",
            ));
        }
        let folder = context_folder(Path::new(folder))?;
        let ignore = ignore_file(None, &folder)?;
        let context = Some(folder);
        Ok(Self { ignore, context, ..Self::of_dockerfile(dockerfile) })
    }

    /// A Dockerfile, and a context that was fetched.
    pub(super) fn fetched(dockerfile: Vec<u8>, context: RemoteContext) -> Self {
        Self { remote: Some(context), ..Self::of_dockerfile(dockerfile) }
    }

    /// A Dockerfile that came without a name, and no context.
    fn of_dockerfile(dockerfile: Vec<u8>) -> Self {
        Self {
            name: DOCKERFILE.to_owned(),
            dockerfile,
            ignore: None,
            context: None,
            remote: None,
            _unpacked: None,
        }
    }

    fn from_folder(args: &BuildArgs, folder: &Path) -> Result<Self, CommandError> {
        let folder = context_folder(folder)?;
        if args.file.as_deref() == Some("-") {
            let dockerfile = read_limited(io::stdin().lock(), "standard input")?;
            let ignore = ignore_file(None, &folder)?;
            let context = Some(folder);
            return Ok(Self { ignore, context, ..Self::of_dockerfile(dockerfile) });
        }
        let path = dockerfile_path(args, &folder);
        let file = File::open(&path).map_err(|error| {
            let error = CommandError::caused(
                Kind::Usage,
                format!("cannot open `{}`", path.display()),
                error,
            );
            if args.file.is_none() { error.hint("give the Dockerfile with -f") } else { error }
        })?;
        if !file.metadata().is_ok_and(|metadata| !metadata.is_dir()) {
            return Err(CommandError::usage(format!(
                "`{}` is a folder, not a Dockerfile",
                path.display()
            )));
        }
        let dockerfile = read_limited(file, &path.display().to_string())?;
        let name = match path.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => path.display().to_string(),
        };
        let ignore = ignore_file(Some(&path), &folder)?;
        Ok(Self { name, ignore, context: Some(folder), ..Self::of_dockerfile(dockerfile) })
    }

    /// Standard input is an archive with the context, or a Dockerfile that needs none.
    fn from_stdin(args: &BuildArgs, scratch: &Path) -> Result<Self, CommandError> {
        let mut stdin = io::stdin().lock();
        let folder =
            tempfile::Builder::new().prefix("context-").tempdir_in(scratch).map_err(|error| {
                let message = "cannot make a folder for the context";
                CommandError::caused(Kind::Environment, message, error)
            })?;
        let mut head = Vec::new();
        let fail = |error| CommandError::caused(Kind::Usage, "cannot read standard input", error);
        stdin.by_ref().take(512).read_to_end(&mut head).map_err(fail)?;
        if !is_archive(&head) {
            if args.file.is_some() {
                return Err(CommandError::usage(
                    "standard input is no archive, so -f finds no file in it",
                ));
            }
            let dockerfile = read_limited(head.as_slice().chain(stdin), "standard input")?;
            // Its context is there and has nothing in it.
            let input = Self::of_dockerfile(dockerfile);
            let context = Some(folder.path().to_owned());
            return Ok(Self { context, _unpacked: Some(folder), ..input });
        }
        let archive = Decoder::for_archive(head.as_slice().chain(stdin)).map_err(cannot_unpack)?;
        let root = File::open(folder.path()).map_err(cannot_unpack)?;
        let options = ApplyOptions {
            form: ApplyForm::Plain,
            ignore_chown_errors: true,
            owner: None,
            limits: ArchiveLimits::default(),
        };
        apply(archive, root.as_fd(), &options).map_err(cannot_unpack)?;
        Self::from_archive(args, &root, folder)
    }

    /// The files of an archive, which may be of somebody who is not trusted. Who packed it has chosen what is in it: no ignore
    /// file counts, as in BuildKit.
    fn from_archive(args: &BuildArgs, root: &File, folder: TempDir) -> Result<Self, CommandError> {
        let path = match &args.file {
            Some(file) => file.as_str(),
            None if confined::open(root, DOCKERFILE).is_err()
                && confined::open(root, LOWER_DOCKERFILE).is_ok() =>
            {
                LOWER_DOCKERFILE
            }
            None => DOCKERFILE,
        };
        let file = confined::open(root, path).map_err(|error| {
            let message = format!("cannot open `{path}` in the archive on standard input");
            CommandError::caused(Kind::Usage, message, error)
        })?;
        let dockerfile = read_limited(file, path)?;
        let name = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
        let input = Self::of_dockerfile(dockerfile);
        Ok(Self {
            name: name.unwrap_or_else(|| path.to_owned()),
            context: Some(folder.path().to_owned()),
            _unpacked: Some(folder),
            ..input
        })
    }
}

fn cannot_unpack(error: impl Error + Send + Sync + 'static) -> CommandError {
    CommandError::caused(Kind::Usage, "cannot unpack the archive on standard input", error)
}

/// The folder of a context, as an absolute path.
fn context_folder(folder: &Path) -> Result<PathBuf, CommandError> {
    let fail = |error| {
        CommandError::caused(
            Kind::Usage,
            format!("cannot use `{}` as the build context", folder.display()),
            error,
        )
    };
    let folder = folder.canonicalize().map_err(fail)?;
    if !folder.is_dir() {
        return Err(CommandError::usage(format!(
            "the build context `{}` is not a folder",
            folder.display()
        )));
    }
    Ok(folder)
}

/// The given Dockerfile, or `Dockerfile` in the folder, or `dockerfile` there.
pub(crate) fn dockerfile_path(args: &BuildArgs, folder: &Path) -> PathBuf {
    if let Some(file) = &args.file {
        return PathBuf::from(file);
    }
    let usual = folder.join(DOCKERFILE);
    let lower = folder.join(LOWER_DOCKERFILE);
    if !usual.exists() && lower.exists() { lower } else { usual }
}

/// `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` in the folder.
pub(crate) fn ignore_file(
    dockerfile: Option<&Path>,
    folder: &Path,
) -> Result<Option<IgnoreFile>, CommandError> {
    let beside = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in beside.into_iter().chain([folder.join(".dockerignore")]) {
        match std::fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Ok(Some(IgnoreFile { path, text }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(CommandError::caused(
                    Kind::Usage,
                    format!("cannot read `{}`", path.display()),
                    error,
                ));
            }
        }
    }
    Ok(None)
}

/// Whether bytes begin a tar archive, possibly compressed.
pub(super) fn is_archive(head: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"];
    MAGIC.iter().any(|magic| head.starts_with(magic))
        || head.get(257..262) == Some(b"ustar")
        || is_old_tar(head)
}

/// A tar header of before POSIX has no magic, but a checksum over itself with the checksum's own place blank.
fn is_old_tar(head: &[u8]) -> bool {
    let Some(stored) = head.get(148..156).filter(|_| head.len() == 512) else { return false };
    let digits: String =
        stored.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_digit).collect();
    let sum: u32 = head
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    u32::from_str_radix(&digits, 8) == Ok(sum)
}

pub(super) fn read_limited(reader: impl io::Read, what: &str) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::with_capacity(DOCKERFILE_USUAL);
    reader.take(DOCKERFILE_LIMIT + 1).read_to_end(&mut bytes).map_err(|error| {
        CommandError::caused(Kind::Usage, format!("cannot read `{what}`"), error)
    })?;
    if bytes.len() as u64 > DOCKERFILE_LIMIT {
        return Err(CommandError::usage(format!(
            "`{what}` is larger than any Dockerfile may be (64 MiB)"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(folder: &Path, file: Option<&str>) -> Result<Input, CommandError> {
        let file = file.map(|file| folder.join(file).display().to_string());
        let context = Some(folder.display().to_string());
        Input::read(&BuildArgs { context, file, ..BuildArgs::default() }, folder)
    }

    #[test]
    fn the_file_beside_the_dockerfile_replaces_the_ignore_file() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in
            [("a.Dockerfile", "FROM a"), ("dockerfile", "FROM b"), (".dockerignore", "x")]
        {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let lower = read(folder.path(), None).unwrap();
        assert_eq!((lower.name.as_str(), lower.ignore.unwrap().text.as_str()), ("dockerfile", "x"));
        fs::write(folder.path().join("a.Dockerfile.dockerignore"), "y").unwrap();
        assert_eq!(read(folder.path(), Some("a.Dockerfile")).unwrap().ignore.unwrap().text, "y");
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("/Dockerfile`") && error.contains("-f"), "{error}");
        let error = read(&folder.path().join("nowhere"), None).unwrap_err().to_string();
        assert!(error.contains("nowhere` as the build context"), "{error}");
    }

    #[test]
    fn archives_are_told_from_dockerfiles() {
        assert!(is_archive(b"\x1f\x8b\x08"));
        assert!(!is_archive(b"FROM scratch\n"));
        let mut header = tar::Header::new_old();
        header.set_path("a").unwrap();
        header.set_size(0);
        header.set_cksum();
        assert!(is_archive(header.as_bytes()));
    }
}
