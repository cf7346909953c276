//! What was typed. Help, completions and the man page come from these definitions.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use rbuild_cache::Compression;

use crate::cache_spec::{CacheFrom, CacheTo};
use crate::commands::{self, amounts};
use crate::config::{Config, without_emptied};
use crate::deferred::{Deferred, without_empty_variables};
use crate::error::CommandError;
use crate::hidden::without_secrets;
use crate::output::{OnFailure, OutputSpec, compression_and_level};
use crate::paths;
use crate::progress::Mode;
use crate::registry_args::RegistryArgs;

/// Builds container images from Dockerfiles: no daemon, no root, no container runtime.
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Folder of the store: cached layers, blobs and images.
    ///
    /// Default: $XDG_DATA_HOME/rbuild, or /var/lib/rbuild for root.
    #[arg(long, global = true, env = "RBUILD_ROOT", value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,

    /// How layers become one file system: `overlay` mounts them, `copy` copies their files, which takes the time and the space that
    /// this takes; `auto` mounts, and copies where the kernel refuses that.
    #[arg(
        long,
        global = true,
        env = "RBUILD_SNAPSHOTTER",
        value_name = "auto|overlay|copy",
        value_enum,
        hide_possible_values = true,
        default_value = "auto"
    )]
    pub(crate) snapshotter: Snapshotter,

    /// A file with defaults of flags, in the place of /etc/rbuild/rbuild.toml and $XDG_CONFIG_HOME/rbuild/rbuild.toml.
    #[arg(long, global = true, env = "RBUILD_CONFIG", value_name = "FILE", hide_short_help = true)]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) registries: RegistryArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What was typed, and what is set for every run.
#[derive(Debug)]
pub(crate) struct Typed {
    pub(crate) cli: Cli,
    pub(crate) config: Config,
    pub(crate) matches: clap::ArgMatches,
}

/// What was typed, with the defaults that are set; ends the process where it is wrong or asks for help.
pub(crate) fn parse() -> Result<Typed, CommandError> {
    let command = || without_empty_variables(Cli::command());
    let from = |matches: &clap::ArgMatches| {
        Cli::from_arg_matches(matches).unwrap_or_else(|error| without_secrets(error).exit())
    };
    let (typed, emptied) = without_emptied(joined(std::env::args_os()));
    let matched = |command: clap::Command| {
        let matches = command.try_get_matches_from(&typed);
        matches.unwrap_or_else(|error| without_secrets(error).exit())
    };
    let mut matches = matched(command());
    let mut cli = from(&matches);
    let variable = |name: &str| std::env::var(name).ok();
    let mut config = Config::read(cli.config.as_deref(), &paths::config_files(), variable)?;
    emptied.into_iter().for_each(|setting| config.empty(setting));
    if !config.is_empty() {
        config.check(&command())?;
        let command = command().mut_subcommand("build", Deferred::<BuildArgs>::made);
        matches = matched(config.apply(command));
        cli = from(&matches);
    }
    Ok(Typed { cli, config, matches })
}

/// Arguments with the value of a flag that may also stand alone joined to it, where it can be nothing else: `--provenance false`.
fn joined(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let is_value = |text: &OsString| {
        text.to_str().is_some_and(|text| {
            matches!(text, "true" | "false")
                || text.starts_with("mode=")
                || text.starts_with("generator=")
        })
    };
    let mut joined: Vec<OsString> = Vec::new();
    for argument in arguments {
        match joined.last_mut() {
            Some(flag) if (flag == "--provenance" || flag == "--sbom") && is_value(&argument) => {
                flag.push("=");
                flag.push(argument);
            }
            _ => joined.push(argument),
        }
    }
    joined
}

/// How steps are kept apart from the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Isolation {
    #[default]
    Auto,
    Chroot,
}

/// Arguments of `rbuild doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Print a JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How layers become one file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Snapshotter {
    Auto,
    Overlay,
    Copy,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image, or files, from a Dockerfile.
    #[command(visible_alias = "b")]
    Build(Deferred<BuildArgs>),
    /// Look for what works but is probably not meant, without building.
    Check(Deferred<CheckArgs>),
    /// Look at build contexts.
    #[command(subcommand)]
    Context(ContextCommand),
    /// List the images of the local image store.
    Images(Deferred<ImagesArgs>),
    /// Show an image's documents as JSON.
    Inspect(Deferred<InspectArgs>),
    /// Give an image another name.
    Tag(Deferred<TagArgs>),
    /// Remove names from the local image store.
    Rmi(Deferred<RmiArgs>),
    /// Write an image of the local image store to an archive.
    Save(Deferred<SaveArgs>),
    /// Push an image of the local image store to the registry of its name.
    Push(Deferred<PushArgs>),
    /// Fetch an image from its registry into the local image store.
    Pull(Deferred<PullArgs>),
    /// Make and show images for several platforms at registries.
    #[command(subcommand)]
    Imagetools(ImagetoolsCommand),
    /// Log in to a registry, for this and other programs that use docker's logins.
    Login(Deferred<LoginArgs>),
    /// Forget the login for a registry.
    Logout(Deferred<LogoutArgs>),
    /// Look into how registries are reached.
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Show what the steps of a build have printed.
    Logs(Deferred<LogsArgs>),
    /// Show what the store takes on the disk.
    Du(Deferred<DuArgs>),
    /// Remove what nothing refers to: no name, no cache and no running build.
    Prune(Deferred<PruneArgs>),
    /// Say how well this machine isolates steps, why, and what would improve it.
    ///
    /// The exit code is for scripts: 0 steps run in namespaces of their own and layers are mounted; 3 the same, but files are copied
    /// for each step; 4 steps can run with `build --isolation=chroot` only; 5 no step can run here. 1 and 2 are failures of the command.
    Doctor(Deferred<DoctorArgs>),
    /// Open a shell in what a failed step has left, or in the state of another step of the last build.
    Debug(Deferred<DebugArgs>),
    /// Say why a step of the last build ran and did not come from the cache.
    #[command(visible_alias = "why")]
    Explain(Deferred<ExplainArgs>),
    /// Look at what is set for every run.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print a manual page, in roff.
    Man {
        /// Of this command, such as `build`; without it, of rbuild.
        command: Option<String>,
    },
}

/// `rbuild build`. As with docker, the last of a flag that is given twice counts.
#[derive(Args, Debug, Default)]
#[command(args_override_self = true)]
pub(crate) struct BuildArgs {
    /// Folder with the files that COPY and ADD read; `-` reads a Dockerfile or a tar archive from standard
    /// input.
    #[arg(value_name = "CONTEXT", required_unless_present = "llb")]
    pub(crate) context: Option<String>,

    /// The Dockerfile [default: CONTEXT/Dockerfile]; `-` reads it from standard input.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) file: Option<String>,

    /// Name for the image, `name[:tag]`; may be given several times.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) tag: Vec<String>,

    /// Where the result goes: `type=image|registry|oci|docker|tar|local|cacheonly[,dest=PATH][,key=value...]`, a folder, or `-` for
    /// a tar on standard output. Without it: the local image store.
    #[arg(short, long, value_name = "SPEC", value_parser = OutputSpec::parse)]
    pub(crate) output: Vec<OutputSpec>,

    /// When a step fails, write the files that it has left: as --output, and of local and tar with `src=PATH` to take only
    /// a part.
    #[arg(long, value_name = "SPEC", value_parser = OnFailure::parse)]
    pub(crate) on_failure: Vec<OnFailure>,

    /// Say at the end why the first step of each stage that ran did not come from the cache.
    #[arg(long)]
    pub(crate) explain: bool,

    /// Push the image to the registries of its names; short for `push=true` of all image outputs, or `--output=type=registry`.
    #[arg(long, value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub(crate) push: bool,

    /// Load the image into the Docker engine or podman of this machine instead of the local image store; as
    /// `--output=type=docker`.
    #[arg(long, value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub(crate) load: bool,

    /// Build up to this stage.
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,

    /// Value of an ARG; without `=VALUE` it is taken from the environment.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,

    /// Label for the image.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,

    /// Note in the image's manifest, or in another place: `manifest-descriptor`, `index` or `index-descriptor`; with
    /// `[PLATFORM]` after the type, of that platform only.
    #[arg(long, value_name = "[TYPE:]KEY=VALUE")]
    pub(crate) annotation: Vec<String>,

    /// The platform to build for, such as linux/amd64. Several, with commas or repeated, make one image for all of them.
    #[arg(long, value_name = "PLATFORM[,..]", env = "DOCKER_DEFAULT_PLATFORM")]
    pub(crate) platform: Vec<String>,

    /// How steps are kept apart from the machine. `auto` uses namespaces and fails without; `chroot` gives them a root directory of
    /// their own and little else, so only for what you trust.
    #[arg(
        long,
        value_name = "auto|chroot",
        value_enum,
        hide_possible_values = true,
        default_value = "auto"
    )]
    pub(crate) isolation: Isolation,

    /// Do not use what earlier builds made.
    #[arg(long, value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub(crate) no_cache: bool,

    /// Do not use what earlier builds made of these stages.
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,

    /// Use what another machine built: `type=registry,ref=NAME`, a name, `type=local,src=FOLDER[,tag=NAME][,digest=DIGEST]`, or `type=s3,bucket=NAME,region=NAME`.
    #[arg(long, value_name = "SPEC", value_parser = CacheFrom::parse)]
    pub(crate) cache_from: Vec<CacheFrom>,

    /// Write what was built for other machines: `type=registry,ref=NAME`, `type=local,dest=FOLDER`, `type=s3,bucket=NAME,region=NAME`, with `mode=min|max` and more.
    #[arg(long, value_name = "SPEC", value_parser = CacheTo::parse)]
    pub(crate) cache_to: Vec<CacheTo>,

    /// How layers are compressed where --output and --cache-to do not say: gzip, zstd, estargz or uncompressed, with `:LEVEL`
    /// [default: gzip]. What is loaded into an engine is not compressed.
    #[arg(long, value_name = "TYPE[:LEVEL]", value_parser = compression_and_level)]
    pub(crate) compression: Option<Compression>,

    /// Ask the registry for newer base images, even where the local image store has them.
    #[arg(long, value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub(crate) pull: bool,

    /// Line for /etc/hosts of the steps; `host-gateway` stands for the address of this machine.
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,

    /// Another context, for COPY --from and FROM: `NAME=FOLDER`, `NAME=docker-image://REF`,
    /// `NAME=oci-layout://FOLDER[:TAG]`, the address of a git repository, or one of HTTP; `NAME=target:STAGE` for a stage of
    /// the Dockerfile.
    #[arg(long, value_name = "NAME=SOURCE")]
    pub(crate) build_context: Vec<String>,

    /// Network of the steps that name none: `default` is one that the steps of the build have for themselves, with a way out if
    /// `pasta` is installed (else the host's), `none` only a loopback device. `host` allows `network.host`.
    #[arg(long, value_name = "MODE", default_value = "default", value_parser = ["default", "host", "none"])]
    pub(crate) network: String,

    /// A secret for steps that mount it: `id=NAME`, `id=NAME,src=PATH` or `id=NAME,env=VARIABLE`. It is in no layer and
    /// no cache key.
    #[arg(long, value_name = "SPEC")]
    pub(crate) secret: Vec<String>,

    /// An SSH agent for steps that mount it, and (`default`) for git: `default`, `ID=SOCKET`, or `ID=KEY,..` with private keys.
    #[arg(long, value_name = "ID[=PATH,..]")]
    pub(crate) ssh: Vec<String>,

    /// What steps may ask for beyond the sandbox: `security.insecure` runs those that say so without confinement,
    /// `network.host` on the host's network.
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',', value_parser = ["security.insecure", "network.host"])]
    pub(crate) allow: Vec<String>,

    /// Print only the image's id, which is the digest of its configuration.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// How progress is shown.
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        env = "BUILDKIT_PROGRESS",
        value_name = "MODE"
    )]
    pub(crate) progress: Option<Mode>,

    /// Write the image's id, which is the digest of its configuration, to this file.
    #[arg(long, value_name = "PATH")]
    pub(crate) iidfile: Option<PathBuf>,

    /// Write what was built, as JSON, to this file.
    #[arg(long, value_name = "PATH")]
    pub(crate) metadata_file: Option<PathBuf>,

    /// Say how the result was made, as SLSA provenance: `true`, `mode=min|max` and more.
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) provenance: Option<String>,

    /// Say of which packages the result is, as SPDX, by what package managers have noted in it.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) sbom: Option<String>,

    /// The same in long form: `type=provenance,mode=max`, `type=sbom`.
    #[arg(long, value_name = "SPEC")]
    pub(crate) attest: Vec<String>,

    /// Build a graph in LLB's protobuf form instead of a Dockerfile; `-` reads it from standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "target", "label", "build_arg", "no_cache_filter"])]
    pub(crate) llb: Option<PathBuf>,

    /// Ask about the build instead of running it: `check`, `outline` (what it can be given) or `targets`; with
    /// `,format=json` for programs.
    #[arg(long, value_name = "METHOD", value_parser = Call::parse, conflicts_with = "llb")]
    pub(crate) call: Option<Call>,

    /// Short for `--call=check`.
    #[arg(long, conflicts_with_all = ["call", "llb"])]
    pub(crate) check: bool,

    /// What docker does always, too: nothing of a step outlives it.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) rm: Option<bool>,

    /// The same.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) force_rm: Option<bool>,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    #[command(flatten)]
    pub(crate) space: SpaceArgs,

    #[command(flatten)]
    pub(crate) later: LaterArgs,
}

/// What bounds the steps of a build. None of it is part of a cache key but `--ulimit`, `--shm-size` and
/// `--cgroup-parent`, as with BuildKit.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Limits of steps")]
pub(crate) struct LimitArgs {
    /// Most memory of a step, such as 2g or 512m.
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,

    /// Most memory and swap together of a step; -1 for any amount of swap. Without it, twice the memory.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,

    /// Share of the processors relative to others, which have 1024.
    #[arg(short = 'c', long, value_name = "NUMBER")]
    pub(crate) cpu_shares: Option<String>,

    /// Microseconds of a period in which `--cpu-quota` holds.
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<String>,

    /// Microseconds of processor time that a step may use in a period; -1 for any.
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<String>,

    /// Processors that steps may run on, such as 0-2,4.
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,

    /// Memory nodes that steps may use, such as 0.
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,

    /// The same as pairs: `memory=2g,cpu-quota=50000`. `best-effort` warns of a limit that this machine cannot keep, instead of
    /// refusing to build.
    #[arg(long, value_name = "NAME=VALUE,..", value_parser = commands::checked_resource)]
    pub(crate) resource: Vec<String>,

    /// Control group, or systemd slice, in which those of steps are made.
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,

    /// Limit of a step's processes, such as nofile=1024:2048; -1 is no limit.
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,

    /// Size of /dev/shm, such as 1g [default: 64m].
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,

    /// Steps that run at the same time, or none for all that are ready [default: none].
    #[arg(short, long, value_name = "NUMBER", value_parser = amounts::checked_jobs)]
    pub(crate) jobs: Option<NonZeroUsize>,

    /// Kill a step that runs for longer than this, such as 1h30m.
    #[arg(long, value_name = "DURATION", value_parser = amounts::checked_time_limit)]
    pub(crate) timeout: Option<String>,

    /// Kill a step that prints nothing for longer than this.
    #[arg(long, value_name = "DURATION", value_parser = amounts::checked_time_limit)]
    pub(crate) idle_timeout: Option<String>,
}

/// What `--call` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Whether the answer is JSON.
    pub(crate) json: bool,
    /// Whether warnings leave the exit code alone.
    pub(crate) ignore_status: bool,
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Nothing: build.
    Build,
    /// What works but is probably not meant.
    Check,
    /// What the target can be given.
    Outline,
    /// What can be built.
    Targets,
}

impl Call {
    /// `--check`.
    pub(crate) const CHECK: Self =
        Self { method: Method::Check, json: false, ignore_status: false };

    /// Reads `METHOD[,format=text|json][,ignorestatus[=BOOL]]`.
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let method = match parts.next().unwrap_or_default() {
            "build" => Method::Build,
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            other => {
                return Err(format!("unknown method `{other}`: build, check, outline or targets"));
            }
        };
        let mut call = Self { method, ..Self::CHECK };
        for part in parts {
            match part {
                "format=json" => call.json = true,
                "format=text" => call.json = false,
                "ignorestatus" | "ignorestatus=true" => call.ignore_status = true,
                "ignorestatus=false" => call.ignore_status = false,
                other => {
                    return Err(format!("unknown option `{other}`: format=text or format=json"));
                }
            }
        }
        Ok(call)
    }
}

impl BuildArgs {
    /// What is asked instead of building, if anything.
    pub(crate) fn question(&self) -> Option<Call> {
        let call = if self.check { Some(Call::CHECK) } else { self.call };
        call.filter(|call| call.method != Method::Build)
    }
}

/// `rbuild check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Folder that is the build context.
    #[arg(value_name = "CONTEXT", default_value = ".")]
    pub(crate) context: String,
    /// The Dockerfile [default: CONTEXT/Dockerfile]; `-` reads it from standard input.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) file: Option<String>,
    /// Look only into this stage and those that it needs.
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Value of an ARG; without `=VALUE` it is taken from the environment.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Change the Dockerfile where a warning says how.
    #[arg(long)]
    pub(crate) fix: bool,
    /// How warnings are written.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) format: CheckFormat,
}

/// How warnings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CheckFormat {
    /// With the lines that they are about, for people.
    Text,
    /// As `rbuild build --call=check,format=json` does.
    Json,
    /// SARIF 2.1.0, for code hosts.
    Sarif,
}

/// `rbuild context`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List what a build sees of a folder, and how large it is.
    Ls(Deferred<ContextLsArgs>),
}

/// `rbuild context ls`.
#[derive(Args, Debug)]
pub(crate) struct ContextLsArgs {
    /// The folder.
    #[arg(value_name = "CONTEXT", default_value = ".")]
    pub(crate) context: String,
    /// The Dockerfile whose ignore file counts [default: CONTEXT/Dockerfile].
    #[arg(short, long, value_name = "PATH")]
    pub(crate) file: Option<String>,
    /// Say of this path, relative to the folder, whether a build sees it, and which pattern decides; may be given again.
    #[arg(long, value_name = "PATH")]
    pub(crate) why: Vec<String>,
    /// List what is ignored, too, with the pattern that decides.
    #[arg(long)]
    pub(crate) ignored: bool,
    /// The largest first.
    #[arg(short = 'S', long)]
    pub(crate) size: bool,
    /// Print JSON, one entry a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `docker buildx build` that rbuild does not have yet: known, so that they are refused with a
/// reason and never taken for something else.
#[derive(Args, Debug, Default)]
pub(crate) struct LaterArgs {
    #[arg(long, hide = true)]
    pub(crate) builder: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub(crate) squash: bool,
}

impl LaterArgs {
    /// The first of these flags that was given and asks for something.
    pub(crate) fn refused(&self) -> Option<&'static str> {
        let given = [(self.builder.is_some(), "--builder"), (self.squash, "--squash")];
        given.into_iter().find_map(|(is_given, flag)| is_given.then_some(flag))
    }
}

/// `rbuild images`.
#[derive(Args, Debug)]
pub(crate) struct ImagesArgs {
    /// Print only digests.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print digests in full.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print JSON, one image a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rbuild inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Name or digest (or its beginning) of an image.
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
    /// Of an image for several platforms, show this one by itself.
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
}

/// `rbuild tag`.
#[derive(Args, Debug)]
pub(crate) struct TagArgs {
    /// Name or digest (or its beginning) of an image.
    pub(crate) image: String,
    /// The new name.
    pub(crate) name: String,
}

/// `rbuild rmi`.
#[derive(Args, Debug)]
pub(crate) struct RmiArgs {
    /// Names or digests (or their beginnings) of images.
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

/// `rbuild save`.
#[derive(Args, Debug)]
pub(crate) struct SaveArgs {
    /// Name or digest (or its beginning) of an image.
    pub(crate) image: String,
    /// The archive; `-` is standard output.
    #[arg(short, long, value_name = "PATH", default_value = "-")]
    pub(crate) output: String,
    /// Which kind of archive.
    #[arg(long, default_value = "docker", value_parser = ["docker", "oci"])]
    pub(crate) format: String,
    /// Of an image for several platforms, write this one by itself; else all, which only `--format=oci` can hold.
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
}

/// `rbuild logs`.
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// A step: its number in plain progress (`7` or `#7`), a part of its name, or the beginning of its vertex's digest.
    /// Without it, the steps are listed.
    pub(crate) step: Option<String>,
    /// Which build, by id or the beginning of one; `last` is the one that began last.
    #[arg(long, value_name = "ID", default_value = "last")]
    pub(crate) build: String,
    /// List the builds whose logs are kept.
    #[arg(long, conflicts_with = "step")]
    pub(crate) builds: bool,
    /// Only what the step wrote to this.
    #[arg(long, value_name = "STREAM", value_parser = ["stdout", "stderr"])]
    pub(crate) stream: Option<String>,
    /// Print JSON, one build or step a line.
    #[arg(long, conflicts_with = "step")]
    pub(crate) json: bool,
}

/// `rbuild push`.
#[derive(Args, Debug)]
pub(crate) struct PushArgs {
    /// Name of an image, which is where it goes.
    pub(crate) image: String,
    /// Of an image for several platforms, push all, or fail when one is not in the local image store. Without it, the only one
    /// that is there is pushed by itself, unless that would take the place of the index that it came from.
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all_platforms: bool,
    /// Of an image for several platforms, push this one by itself.
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Add it to the index that has the name at the registry, in the place of what that lists for the same platform. It is tried
    /// again where others add to it at the same time.
    #[arg(long)]
    pub(crate) partial: bool,
    /// Print nothing.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rbuild imagetools`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagetoolsCommand {
    /// Make an index of what other names stand for, or add to one.
    Create(Deferred<ImagetoolsCreateArgs>),
    /// Show what a name stands for.
    Inspect(Deferred<ImagetoolsInspectArgs>),
}

/// `rbuild imagetools create`.
#[derive(Args, Debug)]
pub(crate) struct ImagetoolsCreateArgs {
    /// Names of images, in one or several registries, or digests in the repository of --tag. Of two for one platform the last
    /// counts.
    pub(crate) sources: Vec<String>,
    /// Name for the index.
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
    /// Add to what --tag names. It is tried again where others add to it at the same time.
    #[arg(long)]
    pub(crate) append: bool,
    /// Note in the index, or (`manifest-descriptor[PLATFORM]:`) in its entries.
    #[arg(long, value_name = "[TYPE:]KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Print the index and push nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// A file with a descriptor, as JSON, of something in the repository of --tag.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) file: Vec<PathBuf>,
}

/// `rbuild imagetools inspect`.
#[derive(Args, Debug)]
pub(crate) struct ImagetoolsInspectArgs {
    /// Name of an image.
    pub(crate) image: String,
    /// Print the document as it is.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Print one field: `{{.Name}}`, `{{json .Manifest}}`, `{{.Manifest.Digest}}` and so on.
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "raw")]
    pub(crate) format: Option<String>,
}

/// `rbuild pull`.
#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// Name of an image.
    pub(crate) image: String,
    /// The platform to fetch, such as linux/arm64 [default: this machine's].
    #[arg(long, value_name = "PLATFORM", env = "DOCKER_DEFAULT_PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Fetch the image for all platforms that it is for, with what is said of it, whatever --platform says.
    #[arg(long)]
    pub(crate) all_platforms: bool,
    /// Print nothing.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rbuild login`.
#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// The registry, such as registry.example.com:5000 [default: docker.io].
    pub(crate) registry: Option<String>,
    /// The name to log in with; it is asked for if missing.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// The password; others on this machine may see it, so give it with --password-stdin.
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password from standard input.
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

/// `rbuild logout`.
#[derive(Args, Debug)]
pub(crate) struct LogoutArgs {
    /// The registry [default: docker.io].
    pub(crate) registry: Option<String>,
}

/// `rbuild registry`.
#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Say which of name, connection, TLS, login and rights of a registry fails, and what to do.
    Check(Deferred<RegistryCheckArgs>),
}

/// `rbuild registry check`.
#[derive(Args, Debug)]
pub(crate) struct RegistryCheckArgs {
    /// The registry, or one of its repositories to check rights for: registry.example.com[/team/app].
    #[arg(value_name = "HOST[/REPOSITORY]")]
    pub(crate) subject: String,
}

/// `rbuild config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// List all settings, with what they come to and where from.
    Show(Deferred<ConfigShowArgs>),
}

/// `rbuild config show`.
#[derive(Args, Debug)]
pub(crate) struct ConfigShowArgs {
    /// Print JSON, one setting a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rbuild du`.
#[derive(Args, Debug)]
pub(crate) struct DuArgs {
    /// List everything: layers, blobs, cache mounts, and what is remembered; short for --format=pretty.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// How it is written.
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "verbose")]
    pub(crate) format: Option<DuFormat>,
    /// Only what is meant; see `rbuild prune`.
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) filter: Vec<String>,
}

/// How `rbuild du` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DuFormat {
    /// What each kind takes.
    Table,
    /// Everything by itself, and what each kind takes.
    Pretty,
    /// JSON, one thing a line.
    Json,
}

/// `rbuild prune`.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// Ask nothing, which it never does: for scripts that were written for docker.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Also give up the cache, and what is remembered of builds: only what images and running builds need stays.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Give up cache that was not used within this time, such as 24h.
    #[arg(long, value_name = "DURATION")]
    pub(crate) keep_duration: Option<String>,
    #[command(flatten)]
    pub(crate) space: SpaceArgs,
    /// Give up only what is meant: type=KIND (regular, blob, exec.cachemount, source.local, source.git.checkout, debug, log, build),
    /// id=, parents=, description=, each also with != and ~= (a pattern); inuse, shared, private, mutable, immutable;
    /// until=24h for what was not used within this time. All that is given must hold.
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) filter: Vec<String>,
    /// List what went.
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// How much space the store may take: an amount (10GB, 1GiB), a part of the disk (20%), or `none`.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Space of the store")]
pub(crate) struct SpaceArgs {
    /// The store may take this much in any case; given alone, `prune` leaves no more [default of a build: 10% of the disk, or 10GB].
    #[arg(long, visible_alias = "keep-storage", value_name = "SIZE", value_parser = amounts::checked_space)]
    pub(crate) reserved_space: Option<String>,
    /// Give up cache, the least valuable first, until the store takes no more than this [default of a build: 80% of the disk, or
    /// 100GB].
    #[arg(long, value_name = "SIZE", value_parser = amounts::checked_space)]
    pub(crate) max_used_space: Option<String>,
    /// Give up cache until this much of the disk is free [default of a build: 20%].
    #[arg(long, value_name = "SIZE", value_parser = amounts::checked_space)]
    pub(crate) min_free_space: Option<String>,
}

/// `rbuild debug`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DebugArgs {
    #[command(subcommand)]
    pub(crate) inner: Option<DebugCommand>,
    /// Which step: its number, such as 7 or #7, or its name, or a part of it [default: the one that failed].
    pub(crate) step: Option<String>,
    /// Open it as it was before the step ran.
    #[arg(long)]
    pub(crate) before: bool,
    /// The shell [default: the step's own, or else /bin/sh].
    #[arg(long, value_name = "PROGRAM", conflicts_with = "command")]
    pub(crate) shell: Option<String>,
    /// A build other than the last: its name, or the beginning of it.
    #[arg(long, value_name = "BUILD")]
    pub(crate) build: Option<String>,
    /// A secret that the step mounts, as for the build: none is kept.
    #[arg(long, value_name = "SPEC")]
    pub(crate) secret: Vec<String>,
    /// An SSH agent that the step mounts, as for the build.
    #[arg(long, value_name = "ID[=SOCKET]")]
    pub(crate) ssh: Vec<String>,
    /// What the step asks for beyond the sandbox, as for the build.
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',', value_parser = ["security.insecure", "network.host"])]
    pub(crate) allow: Vec<String>,
    /// As of `build`: `chroot` where that was built with it.
    #[arg(
        long,
        value_name = "auto|chroot",
        value_enum,
        hide_possible_values = true,
        default_value = "auto"
    )]
    pub(crate) isolation: Isolation,
    /// Run this in place of a shell; the exit code is its own.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `rbuild explain`.
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// Which step: its number, such as 7 or #7, or its name, or a part of it [default: the first of each stage that ran].
    pub(crate) step: Option<String>,
    /// All steps, those from the cache too.
    #[arg(short, long, conflicts_with = "step")]
    pub(crate) all: bool,
    /// How long the steps took, and which of them the build waited for.
    #[arg(long, conflicts_with_all = ["step", "all"])]
    pub(crate) timings: bool,
    /// A build other than the last: its name, or the beginning of it.
    #[arg(long, value_name = "BUILD")]
    pub(crate) build: Option<String>,
    /// Print JSON, one step a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `rbuild debug` does beside.
#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Write the graph of a build, as LLB in protobuf form, to standard output.
    DumpLlb(Deferred<BuildArgs>),
}
