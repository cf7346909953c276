//! Lowering: any Dockerfile, options and image configs, in rounds.

use rbuild_frontend::{
    Build, BuildOptions, Diagnostic, Dockerfile, ImageSet, Outcome, Source, Stages, evaluate,
    lower, parse,
};
use rbuild_oci::{ImageConfig, MediaType};
use rbuild_solver::llb;

use crate::options::Input;
use crate::spans::Walk;

/// The most rounds that a build can need: an image, and one that its triggers name, and so on. Triggers cannot begin a
/// stage, so that chains are as long as there are stages.
const ROUNDS: usize = 64;
/// What a build may come to at most, whatever a file says: the lowering's own limit, and what encoding it adds.
const MOST_BYTES: usize = 320 << 20;

/// Lowers a file until all images are known, and looks at what came out.
pub fn check(data: &[u8]) {
    let input = Input::new(data);
    let Ok(source) = Source::from_bytes("Dockerfile", input.dockerfile) else { return };
    let dockerfile = parse(&source);
    let mut walk = Walk::new(&source);
    let mut images = ImageSet::new();
    let mut asked = 0;
    for round in 0.. {
        assert!(round <= ROUNDS, "rounds without an end");
        match lower(&dockerfile, &input.options, &images) {
            Ok(Outcome::NeedsImages(queries)) => {
                assert!(!queries.is_empty(), "a round without a question");
                for query in &queries {
                    assert!(images.get(query).is_none(), "asked twice for {query:?}");
                    images.insert(query, input.answer(asked, query));
                    asked += 1;
                }
            }
            Ok(Outcome::Ready(build)) => {
                walk.diagnostics(&build.warnings);
                check_build(&build);
                check_evaluation(&dockerfile, &input.options, &images, &source, Some(true));
                let Ok(Outcome::Ready(again)) = lower(&dockerfile, &input.options, &images) else {
                    panic!("the second time it is something else");
                };
                assert_eq!(encoded(&again), encoded(&build), "the second time it is another build");
                assert_eq!(again.config, build.config);
                return;
            }
            Err(diagnostics) => {
                assert!(diagnostics.iter().any(Diagnostic::is_error));
                walk.diagnostics(&diagnostics);
                // What comes after a step that is refused only a check sees.
                let is_built = (!only_steps(&diagnostics)).then_some(false);
                check_evaluation(&dockerfile, &input.options, &images, &source, is_built);
                return;
            }
        }
    }
}

/// Whether all that is wrong is that steps are for a system that none can be run on: a check has nothing against that.
fn only_steps(diagnostics: &[Diagnostic]) -> bool {
    let mut errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    errors.all(|error| error.message.starts_with("RUN in a stage for "))
}

/// Every vertex can be written and read, and the config is a document.
fn check_build(build: &Build) {
    for (index, vertex) in build.graph.vertices().iter().enumerate() {
        assert!(vertex.inputs.iter().all(|input| input.vertex.index() < index));
    }
    assert!(build.stages.iter().all(|stage| !stage.name.is_empty()));
    let (_, config) = build.config.to_blob(MediaType::OciConfig);
    let again: ImageConfig = serde_json::from_slice(&config).expect("it is what we wrote");
    assert_eq!(again, build.config);
    assert!(build.base_history <= build.config.history.len());
    let Some(target) = build.target else { return };
    let bytes = encoded(build);
    assert!(bytes.len() + config.len() <= MOST_BYTES, "{} bytes", bytes.len());
    let (graph, read) = llb::from_bytes(&bytes).expect("it is what we wrote");
    assert_eq!(graph.vertex(read.vertex).digest, build.graph.vertex(target.vertex).digest);
}

fn encoded(build: &Build) -> Vec<u8> {
    build.target.map(|target| llb::to_bytes(&build.graph, target)).unwrap_or_default()
}

/// What `rbuild check` says agrees with what a build says.
fn check_evaluation(
    dockerfile: &Dockerfile,
    options: &BuildOptions,
    images: &ImageSet,
    source: &Source,
    is_built: Option<bool>,
) {
    for stages in [Stages::Target, Stages::All] {
        let found = evaluate(dockerfile, options, images, stages);
        Walk::new(source).diagnostics(&found.diagnostics);
        if let (Stages::Target, Some(is_built)) = (stages, is_built) {
            let has_errors = found.diagnostics.iter().any(Diagnostic::is_error);
            assert_eq!(!has_errors, is_built, "{:?}", found.diagnostics);
        }
    }
}
