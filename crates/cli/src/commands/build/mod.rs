//! `rbuild build`, `rbuild debug dump-llb`.

mod annotations;
pub(crate) mod attest;
mod cache;
pub(crate) mod call;
mod confined;
mod copied;
mod engine;
pub(crate) mod failure;
pub(crate) mod frontend;
pub(crate) mod input;
mod keep;
mod limits;
mod load;
mod metadata;
mod on_failure;
mod plan;
pub(crate) mod platforms;
mod provided;
pub(crate) mod record;
mod remote;
mod replaced;
pub(crate) mod request;
pub(crate) mod result;
mod special_args;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rbuild_cache::{PullMode, Store};
use rbuild_exporter::FinishedRecords;
use rbuild_frontend::Stages;
use rbuild_oci::{ImageConfig, Platform};
use rbuild_solver::{
    CacheKey, Edge, Graph, Output, Presence, Progress, Snapshot, SolveErrorKind, SolveOptions,
    VertexId, solve_keyed,
};
use rbuild_worker::{Entitlements, Provided, StepLimits, Worker};

use self::attest::{Asked, AttestPlan, Attesting, PlatformFacts};
use self::frontend::{Evaluated, Lowered};
use self::input::Input;
use self::keep::Keeping;
pub(crate) use self::limits::{checked_resource, step_limits};
use self::platforms::{Results, Wanted};
use self::record::Recording;
use self::request::Request;
use crate::args::{BuildArgs, Call, Isolation, Method};
use crate::commands::context::Ignore;
use crate::error::{CommandError, Kind};
use crate::machine::Machine;
use crate::progress::{Display, Mode, print_after};
use crate::wiring::{Bounds, Session};

/// How long work that was cancelled may take to notice.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// `rbuild build`.
pub(crate) fn build(store: Store, args: &BuildArgs, machine: &Machine) -> Result<(), CommandError> {
    if let Some(flag) = args.later.refused() {
        let error = CommandError::usage(format!("{flag} is not supported yet"));
        return Err(match flag {
            "--builder" => error.hint("there is but one builder, so leave it out"),
            "--squash" => {
                error.hint("-o type=image,layers=squash makes one layer of what the build did")
            }
            _ => error,
        });
    }
    if let Some(question) = args.question() {
        return call(store, args, question, machine);
    }
    let mut plan = plan::plan(args)?;
    annotations::add(&args.annotation, &mut plan)?;
    let on_failure = on_failure::OnFailurePlan::new(args)?;
    let cache = cache::CachePlan::new(args, &plan)?;
    let settings = machine.config.as_deref();
    replaced::check(args, (&plan, &on_failure, &cache), (store.root(), settings))?;
    let attest = request::attest_plan(args)?;
    plan.check(1, attest.is_some())?;
    let provided = provided_by(args)?;
    let (limits, warnings) = limits::step_limits(&args.limits)?;
    let keeping = Keeping::new(&store, args)?;
    let session = Session::open(store, machine, &provided)?.trusting(cache.insecure());
    let session = Arc::new(session);
    let mode = if args.quiet { Mode::Quiet } else { args.progress.unwrap_or(Mode::Auto) };
    let recording = Recording::begin(&session.store, args);
    let done = in_runtime(async {
        let log = session.store.logs().begin(recording.id(), title(args));
        let (display, progress) = Display::start_noting(mode, Some(log), recording.notes.clone());
        let own = session.store.warnings.iter().map(ToString::to_string);
        for warning in own.chain(recording.warning.clone()).chain(warnings) {
            progress.warn(warning);
        }
        if machine.isolation == Isolation::Chroot {
            progress.warn(
                "--isolation=chroot: steps share processes, network and the kernel's settings with this machine; \
                 build only what you trust"
                    .to_owned(),
            );
        }
        let plans = Plans { result: plan, on_failure, limits, cache, attest };
        let build = async {
            let reporting = session.reporting(&progress);
            let build = build_and_export(&session, args, plans, provided, &recording, progress);
            let built = build.await;
            session.images.warn_of_mirrors(&reporting);
            built
        };
        let built = keeping.during(&session, build).await;
        let mut shown = display.finish().await;
        if let Some(error) = shown.end_log(built.is_err()) {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            print_after(&format!(
                "WARN: the log of the build is incomplete: {error}{}\n",
                cause.unwrap_or_default()
            ));
        }
        built.map_err(|error| error.into_command_error(shown.failed.as_ref()))?.report(args)
    });
    let warned = |problem: &str| {
        crate::progress::print_after(&format!("WARN: {}\n", crate::printable::line(problem)));
    };
    match recording.finish(done.as_ref().copied()) {
        Ok(record) if args.explain => match super::explain::of_build(&session.store, &record) {
            Ok(text) => crate::progress::print_after(&text),
            Err(error) => warned(&error.reason()),
        },
        Ok(_) => {}
        Err(problem) => warned(&problem),
    }
    // A store that is closed is one that nothing is in use of.
    let is_due = keeping.is_due();
    if is_due {
        drop(session);
    }
    let kept = keeping.after(is_due);
    if !matches!(mode, Mode::Quiet | Mode::Rawjson) {
        print_after(&kept);
    }
    done
}

/// What people know a build by, in the list of logs.
fn title(args: &BuildArgs) -> String {
    let context =
        args.context.iter().cloned().chain(args.llb.iter().map(|llb| llb.display().to_string()));
    let tags = args.tag.iter().map(|tag| format!("-t {tag}"));
    let target = args.target.iter().map(|target| format!("--target {target}"));
    tags.chain(target).chain(context).collect::<Vec<_>>().join(" ")
}

/// `rbuild build --call`: answers without building.
fn call(
    store: Store,
    args: &BuildArgs,
    question: Call,
    machine: &Machine,
) -> Result<(), CommandError> {
    let session = Session::open(store, machine, &provided_by(args)?)?;
    let mode = if args.quiet { Mode::Quiet } else { args.progress.unwrap_or(Mode::Auto) };
    in_runtime(async {
        let (display, progress) = Display::start(mode, None);
        let evaluated = evaluated(&session, args, question, &progress).await;
        drop(progress);
        display.finish().await;
        call::answer(&evaluated?, question)
    })
}

/// What there is to say of the Dockerfile.
async fn evaluated(
    session: &Session,
    args: &BuildArgs,
    question: Call,
    progress: &Progress,
) -> Result<Evaluated, CommandError> {
    let (input, mut request) = read(session, args, progress).await?;
    let (source, dockerfile) = frontend::read(&input, &request.options, progress)?;
    let stages = match question.method {
        // The file says it all.
        Method::Targets => return Ok(Evaluated::of_text(source, dockerfile)),
        Method::Check if request.options.target.is_none() => Stages::All,
        _ => Stages::Target,
    };
    remote::named(session, &mut request.options, progress).await?;
    let pull = if args.pull { PullMode::Always } else { PullMode::Missing };
    let registries = (session, pull, progress);
    Ok(frontend::evaluate(source, dockerfile, &request.options, stages, registries).await)
}

/// What the user lets the build use.
pub(crate) fn provided_by(args: &BuildArgs) -> Result<Provided, CommandError> {
    provided::provided(args, |name| {
        std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec)
    })
}

/// Reads or fetches what is built.
async fn read(
    session: &Session,
    args: &BuildArgs,
    progress: &Progress,
) -> Result<(Input, Request), CommandError> {
    let input = match remote::input(session, args, progress).await? {
        Some(input) => input,
        None => Input::read(args, &session.store.root().join("tmp"))?,
    };
    let request = Request::new(args, &input, |name| std::env::var(name).ok())?;
    Ok((input, request))
}

/// `rbuild debug dump-llb`.
pub(crate) fn dump_llb(
    store: Store,
    args: &BuildArgs,
    machine: &Machine,
) -> Result<(), CommandError> {
    let session = Session::open(store, machine, &provided_by(args)?)?;
    in_runtime(async {
        let prepared = prepare(&session, args, &Progress::discard()).await?;
        if prepared.wanted.len() > 1 {
            return Err(CommandError::usage("a graph in LLB is for one --platform"));
        }
        let Some(target) = prepared.target else {
            return Err(CommandError::new(
                Kind::Build,
                "the build has no files, so there is no graph to write",
            ));
        };
        super::images::print(&rbuild_solver::llb::to_bytes(&prepared.graph, target))
    })
}

/// Runs a command's async part until it ends or the user interrupts it.
pub(crate) fn in_runtime(
    work: impl Future<Output = Result<(), CommandError>>,
) -> Result<(), CommandError> {
    // What is async only waits, and needs no thread of its own for that: work that takes time is done on blocking threads.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::caused(Kind::Environment, "cannot start threads", error))?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = work => result,
            () = interrupted() => Err(CommandError::new(Kind::Interrupted, "interrupted")),
        }
    });
    runtime.shutdown_timeout(LAST_WORDS);
    result
}

/// Waits for SIGINT, SIGTERM or SIGHUP.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let signals =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = signals else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// A build that is ready to be solved.
#[derive(Debug)]
struct Prepared {
    graph: Graph,
    /// Builds on all that is wanted; `None` if that has no files.
    target: Option<Edge>,
    /// `BUILDKIT_INLINE_CACHE`.
    inline_cache: bool,
    /// One a platform.
    wanted: Vec<Wanted>,
    /// See [`Results::is_split`].
    is_split: bool,
    folders: BTreeMap<String, PathBuf>,
    /// The Dockerfile, to mark lines in.
    source: Option<rbuild_frontend::Source>,
    /// The main context's ignore file, to say what hides a file.
    ignore: Option<Ignore>,
    /// What was asked for, to be said of the result.
    asked: Asked,
    /// Lines that are printed at the end.
    warnings: Vec<String>,
    /// Holds what standard input gave.
    _input: Option<Input>,
}

async fn prepare(
    session: &Session,
    args: &BuildArgs,
    progress: &Progress,
) -> Result<Prepared, CommandError> {
    if let Some(llb) = &args.llb {
        return prepare_llb(args, llb);
    }
    let (input, mut request) = read(session, args, progress).await?;
    let pull = if args.pull { PullMode::Always } else { PullMode::Missing };
    remote::named(session, &mut request.options, progress).await?;
    let Lowered { joined, source, warnings } =
        frontend::lower(session, &input, &request, pull, progress).await?;
    let mut folders = request.folders;
    folders.extend(input.context.clone().map(|context| ("context".to_owned(), context)));
    Ok(Prepared {
        graph: joined.graph,
        target: joined.all,
        wanted: joined.wanted,
        is_split: request.options.multi_platform,
        inline_cache: special_args::is_inline_cache(&request.options.build_args),
        folders,
        source: Some(source),
        ignore: input
            .ignore
            .as_ref()
            .map(|file| Ignore::parse(file.path.clone(), &file.text))
            .transpose()?,
        asked: Asked::new(&request.options, &input.name),
        warnings,
        _input: Some(input),
    })
}

/// A graph that another frontend made; its image has no configuration but the platform.
fn prepare_llb(args: &BuildArgs, path: &Path) -> Result<Prepared, CommandError> {
    let fail = |error| {
        CommandError::caused(Kind::Usage, format!("cannot read `{}`", path.display()), error)
    };
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(fail)?;
    } else {
        bytes = fs::read(path).map_err(fail)?;
    }
    let (graph, target) = rbuild_solver::llb::from_bytes(&bytes).map_err(|error| {
        CommandError::caused(Kind::Usage, format!("cannot build `{}`", path.display()), error)
    })?;
    let mut folders = BTreeMap::new();
    if let Some(context) = &args.context {
        let context = Path::new(context).canonicalize().map_err(fail)?;
        folders.insert("context".to_owned(), context);
    }
    let platform = match &request::platforms(&args.platform)?[..] {
        [] => Platform::host(),
        [platform] => platform.clone(),
        _ => return Err(CommandError::usage("--llb is for one --platform")),
    };
    let config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    };
    let target = Some(target);
    let wanted =
        vec![Wanted { platform, target, scans: Vec::new(), config, base_history: 0, epoch: None }];
    Ok(Prepared {
        graph,
        target,
        wanted,
        is_split: false,
        inline_cache: false,
        folders,
        source: None,
        ignore: None,
        asked: Asked::for_graph(),
        warnings: Vec::new(),
        _input: None,
    })
}

pub(crate) fn entitlements(args: &BuildArgs) -> Entitlements {
    let is_allowed = |name: &str| args.allow.iter().any(|allowed| allowed == name);
    Entitlements {
        security_insecure: is_allowed("security.insecure"),
        // As with buildx: who gives it to all steps has allowed it.
        network_host: is_allowed("network.host") || args.network == "host",
    }
}

/// Refuses a build that would be refused at its last step, or that only an earlier run with `--allow` has made.
fn check(
    prepared: &Prepared,
    target: Edge,
    entitlements: Entitlements,
) -> Result<(), failure::BuildError> {
    let graph = &prepared.graph;
    let reachable = graph.reachable(&[target]);
    let needed = graph.vertices().iter().zip(reachable).filter(|(_, needed)| *needed);
    needed.map(|(vertex, _)| vertex).try_for_each(|vertex| {
        entitlements.check(&vertex.op).map_err(|error| {
            failure::BuildError::not_allowed(error, vertex, prepared.source.as_ref())
        })
    })
}

/// What is to be written, and where, and within which bounds.
#[derive(Debug)]
struct Plans {
    result: plan::Plan,
    /// When a step fails.
    on_failure: on_failure::OnFailurePlan,
    /// What bounds steps.
    limits: StepLimits,
    /// Of other machines, and for them.
    cache: cache::CachePlan,
    /// What is said of the result.
    attest: AttestPlan,
}

impl Plans {
    /// What must be there of the layers of the targets: what only a cache is kept of need not be made.
    fn need(&self) -> Presence {
        let is_archived = self.cache.is_written() || self.attest.is_some();
        let need = self.result.need();
        if is_archived { need.max(Presence::Archive) } else { need }
    }
}

/// Solves and exports. `progress` is gone afterwards, so that the display can end.
async fn build_and_export(
    session: &Arc<Session>,
    args: &BuildArgs,
    mut plans: Plans,
    provided: Provided,
    recording: &Recording,
    progress: Progress,
) -> Result<result::Built, failure::BuildError> {
    let (prepared, ()) =
        tokio::join!(prepare(session, args, &progress), plans.cache.import(session, &progress));
    let mut prepared = prepared?;
    plans.result.check(prepared.wanted.len(), prepared.is_split)?;
    let platforms = prepared.wanted.iter().map(|wanted| &wanted.platform);
    let is_index = prepared.is_split || plans.attest.is_some();
    annotations::check(&plans.result, platforms, is_index)?;
    let Some(target) = prepared.target else {
        let made = Made::default();
        return exported(session, &plans, &prepared, made, (recording, &progress)).await;
    };
    let entitlements = entitlements(args);
    check(&prepared, target, entitlements)?;
    recording.planned(&prepared.graph, target, &progress);
    recording.folders(&prepared.folders, &session.store.root().join("tmp"));
    let limits = std::mem::replace(&mut plans.limits, StepLimits::none());
    let bounds = Bounds { entitlements, limits, jobs: args.limits.jobs };
    let folders = std::mem::take(&mut prepared.folders);
    let worker = session.worker(folders, bounds, provided, &progress)?.keeping_failed();
    // A time of the build's is in the copies themselves.
    let has_time = prepared.wanted.iter().any(|wanted| wanted.epoch.is_some());
    let worker = match copied::archiver(session, &plans).filter(|_| !has_time) {
        Some(archiver) => worker.archiving(archiver),
        None => worker,
    };
    let mut targets = prepared.wanted.iter().filter_map(|wanted| wanted.target).collect::<Vec<_>>();
    let images = targets.len();
    let scans = prepared.wanted.iter().flat_map(|wanted| &wanted.scans);
    targets.extend(scans.map(|scan| scan.target));
    let (plans, prepared, targets, worker) = (&plans, &prepared, &targets, &worker);
    let work = Work { session, plans, prepared, targets, images, worker };
    let is_inline = prepared.inline_cache || plans.cache.is_inline();
    let mut keyed = Vec::new();
    let (built, images) = loop {
        let solved = work.solve(recording, &progress, &mut keyed).await;
        let (built, images) = match solved {
            Ok(mut snapshots) => {
                let scanned = snapshots.split_off(work.images);
                let finished = work.finished(&keyed, Some(snapshots.clone()));
                let cache = is_inline.then(|| cache::collect(session, true, &finished));
                let inline_cache = cache.transpose()?;
                let made = Made { images: &snapshots, scanned: &scanned, inline_cache };
                let built = exported(session, plans, prepared, made, (recording, &progress));
                let built = built.await;
                (built, Some(snapshots))
            }
            Err(Unsolved::Again) => continue,
            Err(Unsolved::Failed(error)) => (Err(error), None),
        };
        if built.is_ok() || images.is_none() || !cache::try_again(session, &progress) {
            break (built, images);
        }
    };
    let finished = work.finished(&keyed, images);
    let mut failed = plans.cache.export(session, &finished, &progress).await;
    match built {
        Ok(built) if failed.is_empty() => Ok(built),
        Ok(_) => {
            let first = failed.remove(0);
            Err(failed.into_iter().fold(first, CommandError::and).into())
        }
        Err(error) => Err(error.with_more(failed)),
    }
}

/// Writes the outputs of a build.
async fn exported(
    session: &Arc<Session>,
    plans: &Plans,
    prepared: &Prepared,
    made: Made<'_>,
    (recording, progress): (&Recording, &Progress),
) -> Result<result::Built, failure::BuildError> {
    let mut snapshots = made.images.iter().cloned();
    let each = prepared.wanted.iter().map(|wanted| {
        let files = wanted.target.and_then(|_| snapshots.next());
        wanted.result(files.unwrap_or_default(), made.inline_cache.clone())
    });
    let each: Vec<_> = each.collect();
    let attesting = match plans.attest.is_some() {
        true => Some(attesting(session, plans, prepared, made.scanned, recording, progress).await?),
        false => None,
    };
    let results = Results { each, is_split: prepared.is_split, attesting };
    let mut built = result::export(session, plans.result.clone(), &results, progress).await?;
    built.warnings.clone_from(&prepared.warnings);
    Ok(built)
}

/// The files that a solve has made.
#[derive(Debug, Default)]
struct Made<'a> {
    /// Of all that is wanted and has any.
    images: &'a [Snapshot],
    /// Of what is looked into for packages beside that, a platform after the other.
    scanned: &'a [Snapshot],
    /// What goes into each image, as far as it is of it.
    inline_cache: Option<FinishedRecords>,
}

/// What there is to say of the results.
async fn attesting(
    session: &Session,
    plans: &Plans,
    prepared: &Prepared,
    scanned: &[Snapshot],
    recording: &Recording,
    progress: &Progress,
) -> Result<Attesting, CommandError> {
    let done = attest::Done {
        graph: &prepared.graph,
        asked: &prepared.asked,
        source: prepared.source.as_ref(),
        started: recording.started(),
        id: recording.id().as_str(),
    };
    let mut scanned = scanned.iter().cloned();
    let mut platforms = Vec::with_capacity(prepared.wanted.len());
    for wanted in &prepared.wanted {
        let build = match plans.attest.has_provenance() {
            true => {
                Some(attest::facts(session, done, wanted.target, wanted.epoch, progress).await?)
            }
            false => None,
        };
        let scans =
            wanted.scans.iter().filter_map(|scan| Some((scan.name.clone(), scanned.next()?)));
        platforms.push(PlatformFacts { build, epoch: wanted.epoch, scans: scans.collect() });
    }
    Ok(Attesting { plan: plans.attest.clone(), platforms: Arc::new(platforms) })
}

/// Solves a prepared build.
struct Work<'a> {
    session: &'a Arc<Session>,
    plans: &'a Plans,
    prepared: &'a Prepared,
    /// What is wanted, and then what is only looked into for packages.
    targets: &'a [Edge],
    /// How many are wanted.
    images: usize,
    worker: &'a Worker,
}

/// Why there is no result.
enum Unsolved {
    /// What failed was promised by a cache; it is no longer believed.
    Again,
    Failed(failure::BuildError),
}

impl Work<'_> {
    /// What caches are made of. `images` are the files of all targets, if the build came so far.
    fn finished<'a>(
        &'a self,
        keyed: &'a [(VertexId, CacheKey)],
        images: Option<Vec<Snapshot>>,
    ) -> cache::Finished<'a> {
        let Prepared { graph, wanted, .. } = self.prepared;
        let epoch = wanted.iter().find_map(|wanted| wanted.epoch);
        cache::Finished { graph, targets: &self.targets[..self.images], keyed, images, epoch }
    }

    /// The files of each target. `keyed` gets the fast keys of vertices.
    async fn solve(
        &self,
        recording: &Recording,
        progress: &Progress,
        keyed: &mut Vec<(VertexId, CacheKey)>,
    ) -> Result<Vec<Snapshot>, Unsolved> {
        let Self { session, plans, prepared, targets, worker, .. } = *self;
        let records = session.records();
        let options =
            SolveOptions { max_parallelism: session.max_parallelism(), need: plans.need() };
        let graph = &prepared.graph;
        let solved = solve_keyed(graph, targets, worker, &records, progress, options, keyed).await;
        if solved.is_err() && cache::try_again(session, progress) {
            return Err(Unsolved::Again);
        }
        // What was read of the context is worth remembering whatever became of the build, and not worth
        // failing for.
        if let Err(error) = worker.save_contexts() {
            progress.warn(format!("cannot remember what was read of the context: {error}"));
        }
        if let Some(refusal) = session.overlay.refusal() {
            progress.warn(format!(
                "files are copied for each step, which takes time and space: {}",
                crate::error::chain(refusal)
            ));
        }
        recording.solved(&session.store, graph, worker, progress);
        let outputs = match solved {
            Ok(outputs) => outputs,
            Err(error) => {
                let vertex = graph.vertex(error.vertex);
                let left = recording.left_by(&vertex.digest);
                let also = plans.on_failure.clone().export(
                    session,
                    worker,
                    vertex,
                    left.as_ref(),
                    progress,
                );
                let also = also.await;
                let ignore = prepared.ignore.as_ref();
                let advice = match &error.kind {
                    SolveErrorKind::Execute(error) => failure::advice(error),
                    _ => None,
                };
                let debug = match session.isolation() {
                    Isolation::Auto => "rbuild debug",
                    Isolation::Chroot => "rbuild debug --isolation=chroot",
                };
                let look = || format!("{debug} opens a shell in what the step has left");
                let hint = advice.or_else(|| left.is_some().then(look));
                let error = failure::BuildError::step(error, prepared.source.as_ref(), ignore)
                    .with_warnings(&prepared.warnings)
                    .with_more(also);
                return Err(Unsolved::Failed(
                    hint.iter().fold(error, |error, hint| error.with_hint(hint)),
                ));
            }
        };
        let files = |output| match output {
            Output::Snapshot(snapshot) => Ok(snapshot),
            Output::Local(_) => {
                let message = "the result is a local folder, not files";
                Err(Unsolved::Failed(CommandError::new(Kind::Build, message).into()))
            }
        };
        outputs.into_iter().map(files).collect()
    }
}
