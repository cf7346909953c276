//! The recipes for CI in the README: their own lines, run as a CI system runs them, against a registry on the loopback.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rbuild_testdata::{Registry, busybox_image};

use crate::fixture::{Fixture, Ran, have, ran};

/// A recipe of the README.
struct Recipe {
    /// What each shell of a job runs.
    shells: Vec<String>,
    /// What the README has in the place of the loopback.
    registry: &'static str,
    /// What the CI system, and the user in its settings, give it.
    variables: Vec<(&'static str, String)>,
    /// The tag that it pushes.
    tag: String,
}

/// A project with tests, and the machine that builds it.
struct Project {
    fixture: Fixture,
    registry: Registry,
    host: String,
}

impl Project {
    fn new() -> Self {
        let registry = Registry::start_with_password();
        registry.push("team/base", "1", &busybox_image().publish());
        let host = registry.protected_address();
        let fixture = Fixture::with(&format!(
            "FROM {host}/team/base:1 AS test\nWORKDIR /src\nCOPY . .\nRUN mkdir reports && sh tests.sh > reports/tests.txt\n\
             FROM {host}/team/base:1\nCOPY --from=test /src/reports /reports\n"
        ));
        fixture.write(".dockerignore", ".git\n");
        let project = Self { fixture, registry, host };
        project.git(&["init", "--quiet"]);
        project.commit("echo all of 3 passed\n");
        // What a recipe asks of root of the machine is not done to this one.
        let sudo =
            "#!/bin/sh\ntest \"$*\" = 'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0'\n";
        let folder = project.fixture.path("bin");
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("sudo"), sudo).expect("a program");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.join("sudo"), mode).expect("a program");
        project
    }

    fn git(&self, args: &[&str]) -> String {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
        let mut git = Command::new("git");
        git.args(identity).args(args).current_dir(self.fixture.context());
        git.env("HOME", self.fixture.path(""));
        let output = git.output().expect("git runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Changes the tests of the project.
    fn commit(&self, tests: &str) {
        self.fixture.write("tests.sh", tests);
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "-m", "tests"]);
    }

    /// Runs a recipe on a machine with an empty store and no logins.
    fn run(&self, recipe: &Recipe, machine: &str) -> Ran {
        let home = self.fixture.path(machine);
        fs::create_dir(&home).expect("a home");
        let rbuild = Path::new(env!("CARGO_BIN_EXE_rbuild")).parent().expect("its folder");
        let mut path = vec![self.fixture.path("bin"), rbuild.to_owned()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").expect("a PATH")));
        let mut all = Ran { code: 0, stdout: Vec::new(), stderr: String::new() };
        for shell in &recipe.shells {
            let mut command = Command::new("sh");
            command.args(["-e", "-c", &shell.replace(recipe.registry, &self.host)]);
            command.env_clear().env("PATH", std::env::join_paths(&path).expect("a PATH"));
            command.env("HOME", &home).env("RBUILD_ROOT", home.join("store"));
            command.envs(recipe.variables.iter().map(|(name, value)| (name, value)));
            let one = ran(command.current_dir(self.fixture.context()).output().expect("a shell"));
            all.code = one.code;
            all.stderr.push_str(&one.stderr);
            if all.code != 0 {
                break;
            }
        }
        all
    }

    /// The files that a job keeps when it fails.
    fn reports(&self) -> PathBuf {
        self.fixture.context().join("reports")
    }

    /// A job that succeeds, the same on the next machine, and one whose tests fail.
    fn check(&self, test: &str, recipe: impl Fn(&Self) -> Recipe) {
        let first = recipe(self);
        let built = self.run(&first, &format!("{test}-1")).ok();
        assert!(
            built.steps_run().iter().any(|step| step.contains("RUN mkdir")),
            "{}",
            built.stderr
        );
        assert!(self.registry.manifest("team/app", &first.tag).is_some(), "{}", first.tag);
        assert!(self.registry.manifest("team/app/cache", "latest").is_some(), "the cache");
        let again = self.run(&first, &format!("{test}-2")).ok();
        assert_eq!(again.steps_run(), Vec::<String>::new(), "{}", again.stderr);
        assert!(
            again.steps_cached().iter().any(|step| step.contains("RUN mkdir")),
            "{}",
            again.stderr
        );

        self.commit("echo 1 of 3 failed; exit 3\n");
        let failing = recipe(self);
        assert_ne!(failing.tag, first.tag);
        let error = self.run(&failing, &format!("{test}-3")).fails(1);
        assert!(error.contains("exit code: 3"), "{error}");
        let report = fs::read_to_string(self.reports().join("tests.txt")).expect("the report");
        assert_eq!(report, "1 of 3 failed\n");
        assert!(self.registry.manifest("team/app", &failing.tag).is_none());
    }
}

/// The fenced block of the README's section on CI that begins like this.
fn block(language: &str, first: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).expect("the README");
    let (_, section) = readme.split_once("### 4. Build in CI").expect("the section");
    let fence = format!("```{language}\n{first}");
    let (_, block) = section.split_once(&fence).unwrap_or_else(|| panic!("no {fence}"));
    let (block, _) = block.split_once("\n```").expect("its end");
    format!("{first}{block}\n")
}

/// The commands of a list in YAML: items after `key`, in one line or as a block (`|`).
fn commands(yaml: &str, key: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut lines = yaml.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(command) = line.trim_start().strip_prefix(key) else { continue };
        if command != "|" {
            commands.push(command.to_owned());
            continue;
        }
        let indent = |line: &str| line.len() - line.trim_start().len();
        let (mut block, outer) = (String::new(), indent(line));
        while let Some(inner) = lines.next_if(|inner| indent(inner) > outer) {
            block.push_str(inner);
            block.push('\n');
        }
        commands.push(block);
    }
    commands
}

#[test]
fn privileged_the_recipe_for_a_shell() {
    if !have("privileged_the_recipe_for_a_shell", "git") {
        return;
    }
    let project = Project::new();
    project.check("shell", |project| Recipe {
        shells: vec![block("sh", "image=")],
        registry: "registry.example.com",
        variables: vec![
            ("REGISTRY_USER", "name".to_owned()),
            ("REGISTRY_PASSWORD", "geheim".to_owned()),
        ],
        tag: project.git(&["rev-parse", "--short", "HEAD"]),
    });
}

#[test]
fn privileged_the_recipe_for_github() {
    if !have("privileged_the_recipe_for_github", "git") {
        return;
    }
    let yaml = block("yaml", "# .github");
    assert!(
        yaml.contains("IMAGE: ghcr.io/example/app\n      TOKEN: ${{ secrets.GITHUB_TOKEN }}\n")
    );
    let shells = commands(&yaml, "- run: ");
    assert_eq!(shells.len(), 3, "{shells:?}");
    let project = Project::new();
    project.check("github", |project| {
        let tag = project.git(&["rev-parse", "HEAD"]);
        Recipe {
            shells: shells.clone(),
            registry: "ghcr.io",
            variables: vec![
                ("IMAGE", format!("{}/team/app", project.host)),
                ("TOKEN", "geheim".to_owned()),
                ("GITHUB_ACTOR", "name".to_owned()),
                ("GITHUB_SHA", tag.clone()),
            ],
            tag,
        }
    });
}

#[test]
fn privileged_the_recipe_for_gitlab() {
    if !have("privileged_the_recipe_for_gitlab", "git") {
        return;
    }
    let scripts = commands(&block("yaml", "# .gitlab"), "- ");
    assert_eq!(scripts.len(), 2, "{scripts:?}");
    let project = Project::new();
    project.check("gitlab", |project| {
        let tag = project.git(&["rev-parse", "--short", "HEAD"]);
        Recipe {
            // One shell runs the lines of a job.
            shells: vec![scripts.join("\n")],
            registry: "registry.example.com",
            variables: vec![
                ("CI_REGISTRY", project.host.clone()),
                ("CI_REGISTRY_IMAGE", format!("{}/team/app", project.host)),
                ("CI_REGISTRY_USER", "name".to_owned()),
                ("CI_REGISTRY_PASSWORD", "geheim".to_owned()),
                ("CI_COMMIT_SHORT_SHA", tag.clone()),
            ],
            tag,
        }
    });
}
