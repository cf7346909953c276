//! What a build costs that has nothing to do, counted in system calls.

use rbuild_testdata::{Registry, busybox_image};

use crate::fixture::{Fixture, have, ran};

/// Three stages, twelve instructions and steps that ran: the form of the first workload of `bench/`.
const DOCKERFILE: &str = "\
FROM BASE AS deps
WORKDIR /src
COPY manifest.txt ./
RUN sort manifest.txt > deps.txt

FROM deps AS build
ARG REV=1
ENV MODE=release
COPY src/ ./src/
RUN cat src/*/*.txt > out.bin
RUN sha256sum out.bin > out.sum

FROM BASE
WORKDIR /app
COPY --from=build /src/out.bin /src/out.sum ./
COPY --from=build /src/deps.txt ./
USER nobody
ENTRYPOINT [\"/bin/cat\", \"/app/out.sum\"]
";

/// Beyond a look at each file of the context, with the base in a registry that is asked what its tag names now. Up to 20 read what podman
/// says of registries, where it is installed, and up to 32 the log of the index.
const MOST_CALLS: usize = 400;

/// With an image with a name, or an archive of one.
const MOST_CALLS_OF_AN_IMAGE: usize = 560;

/// The calls of a build that has nothing to do.
#[derive(Debug)]
struct Calls {
    /// That look at a file of the context.
    looks: usize,
    others: Vec<String>,
}

struct Project {
    fixture: Fixture,
    _registry: Registry,
}

impl Project {
    fn with_files(files: usize) -> Self {
        let registry = Registry::start();
        registry.push("base", "latest", &busybox_image().publish());
        let base = format!("{}/base:latest", registry.address());
        let fixture = Fixture::with(&DOCKERFILE.replace("BASE", &base));
        fixture.write("manifest.txt", "b\na\n");
        for file in 0..files {
            fixture.write(&format!("src/d{}/f{file:06}.txt", file % 2), format!("{file}\n"));
        }
        Self { fixture, _registry: registry }
    }

    /// Builds twice, the second time with nothing to do, and counts the calls of the third; in a store of its own, as the log of the index
    /// grows with every build.
    fn noop(&self, store: &str, args: &[&str]) -> Calls {
        noop(&self.fixture, store, args)
    }
}

/// See [`Project::noop`].
fn noop(fixture: &Fixture, store: &str, args: &[&str]) -> Calls {
    let mut build = fixture.command(store);
    build.arg("build").args(args).arg(fixture.context());
    for _ in 0..2 {
        ran(build.output().expect("rbuild starts")).ok();
    }
    loop {
        let (done, trace) = fixture.traced(&build, &[]);
        let done = done.ok();
        assert!(done.steps_run().is_empty(), "something was done: {}", done.stderr);
        // Where others empty the disk meanwhile, the store is measured again.
        if !trace.contains("locks/usage") {
            return Calls::read(&trace);
        }
    }
}

impl Calls {
    fn read(trace: &str) -> Self {
        // The other half of a call is a line of its own; std asks that of every descriptor that it closes where assertions are on; and how
        // often threads wait depends on when they run.
        let left_out = [" resumed>", "F_GETFD", " futex(", " epoll_wait(", " restart_syscall("];
        let is_call = |line: &&str| !left_out.iter().any(|part| line.contains(part));
        let (looks, others): (Vec<_>, _) = trace
            .lines()
            .filter(is_call)
            .partition(|line| line.contains("newfstatat(") && line.contains("\"f0"));
        Self { looks: looks.len(), others: others.into_iter().map(str::to_owned).collect() }
    }

    #[track_caller]
    fn assert_few(&self, files: usize, most: usize) {
        assert_eq!(self.looks, files, "each file is looked at once");
        let others = self.others.len();
        assert!(others < most, "{others} calls:\n{}", self.others.join("\n"));
    }
}

#[test]
fn privileged_a_build_with_nothing_to_do_makes_few_calls() {
    if !have("privileged_a_build_with_nothing_to_do_makes_few_calls", "strace") {
        return;
    }
    let project = Project::with_files(200);
    project.noop("one", &["-o", "type=cacheonly"]).assert_few(200, MOST_CALLS);
    project.noop("two", &["-t", "app"]).assert_few(200, MOST_CALLS_OF_AN_IMAGE);
    let archive = format!("type=oci,dest={}", project.fixture.path("app.tar").display());
    project.noop("three", &["-o", &archive]).assert_few(200, MOST_CALLS_OF_AN_IMAGE);
}

#[test]
fn privileged_only_looks_at_files_grow_with_the_context() {
    if !have("privileged_only_looks_at_files_grow_with_the_context", "strace") {
        return;
    }
    let calls = Project::with_files(2000).noop("store", &["-o", "type=cacheonly"]);
    // A listing takes a call for each 32 KiB of names, and memory comes in pieces as well.
    calls.assert_few(2000, MOST_CALLS + 30);
}

#[test]
fn privileged_what_an_image_costs_again_does_not_grow_with_it() {
    if !have("privileged_what_an_image_costs_again_does_not_grow_with_it", "strace") {
        return;
    }
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.address());
    let calls = |mebibytes: usize| {
        let fixture = Fixture::with("FROM scratch\nCOPY data /\n");
        fixture.write("data", noise(mebibytes << 20));
        let stored = noop(&fixture, "one", &["-t", "app"]).others.len();
        let pushed = noop(&fixture, "two", &["-t", &name, "--push"]).others.len();
        [stored, pushed]
    };
    let (small, large) = (calls(1), calls(32));
    // Threads and pages of the index make some difference; to read the layer takes hundreds of calls.
    let grown = small.iter().zip(large).map(|(small, large)| large.saturating_sub(*small)).max();
    assert!(grown < Some(100), "{small:?} calls of 1 MiB, {large:?} of 32 MiB");
}

/// Bytes that nothing compresses, and the same every time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}
