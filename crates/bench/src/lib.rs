//! Inputs of the benchmarks of hot paths, which are in `benches/`: made up, and the same every time.
//!
//! They are a crate of their own so that no test compiles criterion. How they are run is in `bench/README.md`.

use std::fmt::Write;

/// A Dockerfile of a thousand instructions: twenty stages, each of which stands on the one before it and puts one more
/// folder into the path.
pub fn long_dockerfile() -> String {
    let mut text = String::new();
    for stage in 0..20 {
        let base = match stage {
            0 => "debian:trixie".to_owned(),
            _ => format!("s{}", stage - 1),
        };
        let from = format!("FROM {base} AS s{stage}\n");
        text.push_str(&from);
        (0..7).for_each(|step| text.push_str(&seven_instructions(stage, step)));
    }
    text
}

fn seven_instructions(stage: usize, step: usize) -> String {
    let path = if step == 0 { " PATH=/opt/tool-0/bin:$PATH" } else { "" };
    format!(
        "ARG VERSION_{step}=1.{step}\n\
         ENV HOME_{step}=/opt/tool-{step}{path}\n\
         RUN set -eux; \\\n    apt-get update; \\\n    apt-get install -y tool=${{VERSION_{step}}}; \\\n    \
         # why not\n    rm -rf /var/lib/apt/lists/*\n\
         COPY --chown=app:app src/{stage}/{step}/*.c include/{step}.h /src/{stage}/{step}/\n\
         WORKDIR /src/{stage}/{step}\n\
         LABEL org.example.step.{stage}.{step}=\"built by ${{HOME_{step}}}\"\n\
         RUN --mount=type=cache,target=/root/.cache,id=c{step} make -j4 \"target-{step}\"\n"
    )
}

/// A thousand directories, two levels deep, with the paths of a hundred files in each.
pub fn many_paths() -> Vec<(String, Vec<String>)> {
    const TOP: [&str; 8] =
        ["src", "node_modules", "docs", "vendor", "test", "target", "assets", "packages"];
    const ENDS: [&str; 8] = ["js", "ts", "map", "md", "rs", "o", "json", "log"];
    let file = |directory: &str, number: usize| {
        format!("{directory}/component-{number}.{}", ENDS[number % ENDS.len()])
    };
    let directory = |number: usize| {
        let directory = format!("{}/part-{number}", TOP[number % TOP.len()]);
        let files = (0..100).map(|number| file(&directory, number)).collect();
        (directory, files)
    };
    (0..1_000).map(directory).collect()
}

/// A hundred patterns as ignore files have them: folders, endings at any depth, exceptions.
pub fn usual_patterns() -> Vec<String> {
    let folders = (0..40).map(|number| format!("build-{number}/output"));
    let deep = (0..30).map(|number| format!("**/*.tmp{number}"));
    let endings = (0..10).map(|number| format!("*.bak{number}"));
    let named = ["node_modules", "target", ".git", "**/*.log", "**/.cache", "docs/**/*.md"];
    let exceptions = (0..14).map(|number| format!("!docs/part-{number}/component-3.md"));
    let named = named.map(str::to_owned).into_iter();
    folders.chain(deep).chain(endings).chain(named).chain(exceptions).collect()
}

/// A hundred patterns of which none can be ruled out by how a path begins or ends.
pub fn open_patterns() -> Vec<String> {
    (0..100).map(|number| format!("**/*part*{number}*/[a-c]*-?{number}.*s*")).collect()
}

/// Bytes that compress about as well as programs do: words, and between them numbers that do not repeat.
pub fn content(length: usize) -> Vec<u8> {
    const WORDS: [&str; 8] =
        ["static ", "return ", "layer.digest", " = ", "0x", "(value)", ";\n\t", "struct "];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut content = Vec::with_capacity(length + 32);
    while content.len() < length {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.extend(WORDS[(state >> 61) as usize].as_bytes());
        content.extend(&state.to_le_bytes()[4..6]);
    }
    content.truncate(length);
    content
}

/// A program in C of some lines, which differs by `number`.
pub fn source_file(number: usize) -> String {
    let mut text = String::new();
    for line in 0..100 {
        // A string takes everything.
        let _ = writeln!(text, "int number_{number}_{line} = {number};");
    }
    text
}
