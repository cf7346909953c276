//! Caches at registries: what they cost, who writes at the same time, and who is believed.

use std::sync::Arc;

use rbuild_testdata::{Registry, Scripted};

use crate::fixture::{Fixture, Ran, ran};

const STEPS: &str = "FROM busybox AS made\n\
    RUN echo MARK > /made\n\
    FROM busybox\n\
    COPY --from=made /made /made\n\
    RUN cat /made > /final\n";

fn fixture(mark: &str) -> Fixture {
    Fixture::with(&STEPS.replace("MARK", mark))
}

/// How many instructions ran.
fn instructions(ran: &Ran) -> usize {
    let is_one = |step: &String| step.contains("RUN ") || step.contains("COPY ");
    ran.steps_run().into_iter().filter(is_one).count()
}

const NOTHING: [&str; 2] = ["-o", "type=cacheonly"];

#[test]
fn privileged_nothing_new_costs_two_requests() {
    let registry = Arc::new(Registry::start());
    let proxy = {
        let registry = Arc::clone(&registry);
        Scripted::start(move |request, _| registry.forward(request))
    };
    let fixture = fixture("one");
    let to = format!("type=registry,ref={}/cache,mode=max", proxy.address());
    let export = || {
        let before = proxy.requests().len();
        fixture.build(&[&NOTHING[..], &["--cache-to", &to]].concat()).ok();
        proxy.lines().split_off(before)
    };
    assert!(export().len() > 4);
    let lines = export();
    assert!(lines.len() <= 2, "{lines:?}");
    // A change sends what it made, and nothing else.
    fixture.write("Dockerfile", format!("{}RUN echo more > /more\n", STEPS.replace("MARK", "one")));
    let sent = export().iter().filter(|line| line.starts_with("PUT ")).count();
    assert_eq!(sent, 3, "a layer, the configuration, the manifest");
}

#[test]
fn privileged_two_builds_may_export_to_one_name() {
    let registry = Registry::start();
    let (one, two) = (fixture("one"), fixture("two"));
    let name = format!("{}/cache", registry.address());
    let to = format!("type=registry,ref={name},mode=max");
    let start = |fixture: &Fixture| {
        let layout = format!("busybox=oci-layout://{}:latest", fixture.busybox().display());
        let context = fixture.context();
        let mut command = fixture.command("store");
        command.args(["build", "--progress=plain", "--build-context", &layout, "--cache-to", &to]);
        command.args(NOTHING).arg(context);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().expect("rbuild starts")
    };
    let both = [start(&one), start(&two)];
    for build in both {
        ran(build.wait_with_output().expect("rbuild ends")).ok();
    }
    // It is the cache of one of them, and whole.
    let run = |fixture: &Fixture| {
        let args = [
            "--cache-from",
            &name,
            "-o",
            &format!("type=tar,dest={}", fixture.path("out").display()),
        ];
        instructions(&fixture.build_in("other", &args).ok())
    };
    let mut counts = [run(&one), run(&two)];
    counts.sort_unstable();
    assert_eq!(counts, [0, 3]);
}

#[test]
#[expect(clippy::print_stderr, reason = "says what is skipped")]
fn privileged_an_unknown_authority_is_believed_where_that_is_said() {
    let Some(registry) = Registry::start_with_tls() else {
        eprintln!(
            "SKIPPED privileged_an_unknown_authority_is_believed_where_that_is_said: no openssl"
        );
        return;
    };
    let fixture = fixture("one");
    let strict = format!("type=registry,ref={}/cache,mode=max", registry.protected_address());
    let trusting = format!("{strict},registry.insecure=true");
    let error = fixture.build(&[&NOTHING[..], &["--cache-to", &strict]].concat()).fails(1);
    assert!(error.contains("failed to export the cache"), "{error}");
    fixture.build(&[&NOTHING[..], &["--cache-to", &trusting]].concat()).ok();
    let from = |spec: &str, store: &str| {
        let spec = spec.replace(",mode=max", "");
        fixture.build_in(store, &[&NOTHING[..], &["--cache-from", &spec]].concat()).ok()
    };
    assert_eq!(instructions(&from(&trusting, "other")), 0);
    let unused = from(&strict, "third");
    assert!(unused.stderr.contains("WARN: the cache is not used"), "{}", unused.stderr);
    assert_eq!(instructions(&unused), 3);
}
