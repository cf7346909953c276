//! `rbuild logs`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::fixture::{Fixture, Ran};

const TWO: &str =
    "FROM busybox\nRUN echo out; echo err >&2; printf partial\nRUN echo second; exit 3\n";

fn number(ran: &Ran, name: &str) -> String {
    let line = ran.stderr.lines().find(|line| line.starts_with('#') && line.contains(name));
    line.and_then(|line| line.split(' ').next()).expect("the step's number").to_owned()
}

#[test]
fn privileged_what_steps_printed_is_found_by_number_name_and_digest() {
    let fixture = Fixture::with(TWO);
    let built = fixture.build(&[]);
    assert_eq!(built.code, 1);
    let step = number(&built, "RUN echo out");
    for wanted in [step.as_str(), step.trim_start_matches('#'), "RUN echo out"] {
        let log = fixture.run(["logs", wanted]).ok();
        assert!(log.text().contains("out\n") && log.text().contains("err\n"), "{}", log.text());
        assert!(log.text().contains("partial"));
    }
    assert_eq!(fixture.run(["logs", "--stream=stderr", &step]).ok().text(), "err\n");
    assert_eq!(fixture.run(["logs", "--stream=stdout", &step]).ok().text(), "out\npartial");

    let list = fixture.run(["logs"]).ok().text();
    assert!(list.lines().next().unwrap().contains("(failed)"), "{list}");
    let row = |name: &str| list.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(row("RUN echo out").contains("done"), "{list}");
    assert!(row("RUN echo second").contains("failed"), "{list}");

    let json = fixture.run(["logs", "--json"]).ok().text();
    let steps: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let second =
        steps.iter().find(|step| step["name"].as_str().unwrap().contains("second")).unwrap();
    assert_eq!((&second["state"], &second["bytes"]), (&"failed".into(), &7.into()));
    let digest = second["vertex"].as_str().unwrap().trim_start_matches("sha256:");
    assert_eq!(fixture.run(["logs", &digest[..12]]).ok().text(), "second\n");

    assert!(fixture.run(["logs", "RUN"]).fails(2).contains("several steps"));
    assert!(fixture.run(["logs", "nothing like it"]).fails(1).contains("has no step"));
    assert!(fixture.run(["logs", "--build", "1999"]).fails(1).contains("no log of a build"));
}

#[test]
fn privileged_a_cached_step_has_the_log_of_the_run_that_made_it() {
    let fixture = Fixture::with(
        "FROM busybox\nCOPY file /\nRUN cat /file; cat /proc/sys/kernel/random/uuid\n",
    );
    let printed = |content: &str| {
        fixture.write("file", content);
        fixture.build(&["-o", "type=cacheonly"]).ok();
        fixture.run(["logs", "RUN cat"]).ok().text()
    };
    let first = printed("one\n");
    assert!(first.starts_with("one\n"), "{first}");
    let second = printed("two\n");
    assert!(second.starts_with("two\n"), "{second}");
    // Cached now, and of the earlier of the two runs.
    assert_eq!(printed("one\n"), first);
    let list = fixture.run(["logs"]).ok().text();
    assert!(list.contains("cached"), "{list}");
    let builds = fixture.run(["logs", "--builds"]).ok().text();
    assert_eq!(builds.lines().count(), 4, "{builds}");

    let du = fixture.run(["du"]).ok().text();
    let row = du.lines().find(|line| line.starts_with("Logs")).expect("a row");
    assert!(row.split_whitespace().nth(1) == Some("3"), "{du}");
    fixture.run(["prune"]).ok();
    fixture.run(["logs"]).ok();
    let pruned = fixture.run(["prune", "--all"]).ok().text();
    assert!(pruned.contains("3 logs"), "{pruned}");
    assert!(fixture.run(["logs"]).fails(1).contains("no log of any build"));
}

#[test]
fn privileged_a_killed_build_leaves_its_log_so_far() {
    let fixture =
        Fixture::with("FROM busybox\nRUN echo before; sleep 1; echo ready; sleep 100000\n");
    let mut command = fixture.build_command("store", &["-o", "type=cacheonly"]);
    let mut build = command.stderr(Stdio::piped()).spawn().expect("rbuild starts");
    let lines = BufReader::new(build.stderr.take().expect("a pipe")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("ready")));
    // While it runs, and from another process.
    assert!(fixture.run(["logs"]).ok().text().contains("(running)"));
    build.kill().unwrap();
    build.wait().unwrap();
    assert!(fixture.run(["logs", "RUN"]).ok().text().starts_with("before\n"));
    let list = fixture.run(["logs"]).ok().text();
    assert!(list.contains("(interrupted)"), "{list}");
    fixture.write("Dockerfile", "FROM busybox\nRUN echo fine\n");
    fixture.build(&["-o", "type=cacheonly"]).ok();
    assert_eq!(fixture.run(["logs", "RUN"]).ok().text(), "fine\n");
}

#[test]
fn privileged_rawjson_keeps_the_streams_apart_and_quiet_keeps_the_log() {
    let fixture = Fixture::with("FROM busybox\nRUN echo out; echo err >&2\n");
    let built = fixture.build(&["--progress=rawjson", "-o", "type=cacheonly"]).ok();
    let mut seen = Vec::new();
    for line in built.stderr.lines() {
        let status: serde_json::Value = serde_json::from_str(line).unwrap();
        for log in status["logs"].as_array().into_iter().flatten() {
            seen.push((log["stream"].as_u64().unwrap(), log["data"].as_str().unwrap().to_owned()));
        }
    }
    seen.sort();
    assert_eq!(seen, [(1, "b3V0Cg==".to_owned()), (2, "ZXJyCg==".to_owned())]);
    fixture.build(&["--quiet", "--no-cache", "-o", "type=cacheonly"]).ok();
    assert_eq!(fixture.run(["logs", "--stream=stderr", "RUN"]).ok().text(), "err\n");
}
