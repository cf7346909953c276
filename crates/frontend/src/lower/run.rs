//! RUN.

use std::borrow::Cow;

use rbuild_solver::{ExecMeta, ExecOp, Mount, MountKind, NetworkMode, Op, SecurityMode};

use super::lowering::Lowering;
use super::metadata::with_shell;
use super::place::{Fallible, Place, Scope};
use super::state::State;
use super::step_name::shown;
use crate::dockerfile::ast::{Command, Heredoc, Network, Run, Security};

/// Where a script that names its own interpreter is found.
const PIPES: &str = "/dev/pipes/";

/// What `shm_open(3)` uses.
const SHARED_MEMORY: &str = "/dev/shm";

/// The variable by which programs find an SSH agent.
const AGENT: &str = "SSH_AUTH_SOCK";

/// What a RUN comes to.
struct Line {
    args: Vec<String>,
    /// What the step's name says after the instruction.
    summary: String,
    /// A script to be found in [`PIPES`]: its name and text.
    script: Option<(String, String)>,
}

impl<'a> Lowering<'a> {
    pub(super) fn run(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        run: &Run,
    ) -> Fallible<()> {
        refuse(place, run)?;
        let state = &scope.state;
        // Checks and outlines run nothing.
        if state.platform.os != "linux" && self.outline.is_none() {
            let what = format!("RUN in a stage for {}", state.platform);
            let help = "steps run on Linux only; COPY, ADD and what sets the configuration work for other systems, too";
            return Err(place.unsupported(place.step.statement.span, &what, help));
        }
        let line = line(run, &place.step.statement.heredocs, state);
        let mut inputs = Vec::from_iter(state.root);
        let Some(mut mounts) = self.mounts(place, state, run, &mut inputs)? else { return Ok(()) };
        let state = &scope.state;
        let mut environment = state.environment.to_entries();
        if let Some(agent) = mounts.agent()
            && !state.environment.contains(AGENT)
        {
            environment.push(format!("{AGENT}={agent}"));
        }
        let words = line.args.iter().map(String::len).sum::<usize>();
        self.spend(state.environment.size() + words, place)?;
        let created_by = created_by(&line.args, state);

        mounts.push(Mount { input: state.root.map(|_| 0), ..Mount::root() });
        // Where the Dockerfile has something of its own, that counts.
        if self.options.shm_size > 0 && !mounts.has(SHARED_MEMORY) {
            mounts.push(Mount {
                input: None,
                selector: String::new(),
                dest: SHARED_MEMORY.to_owned(),
                output: None,
                readonly: false,
                kind: MountKind::Tmpfs { size: self.options.shm_size },
            });
        }
        if let Some((name, text)) = line.script {
            let node = self.inline_file(&name, 0o755, text.into_bytes());
            mounts.push(Mount {
                input: Some(inputs.len() as u32),
                selector: String::new(),
                dest: PIPES.trim_end_matches('/').to_owned(),
                output: None,
                readonly: true,
                kind: MountKind::Bind,
            });
            inputs.push(node);
        }
        // What a secret holds is not shown, nor that it is not known here.
        let mut visible = Cow::Borrowed(&state.environment);
        for secret in &mounts.secret_env {
            visible.to_mut().set(&secret.name, "****");
        }
        let secret_env = std::mem::take(&mut mounts.secret_env);
        let options = self.options;
        let hostname = match options.hostname.as_str() {
            "" => options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").cloned().unwrap_or_default(),
            hostname => hostname.to_owned(),
        };
        let exec = ExecOp {
            meta: ExecMeta {
                args: line.args,
                env: environment,
                cwd: state.directory().to_owned(),
                user: state.config.config.user.clone(),
                proxy_env: self.proxy.clone(),
                extra_hosts: options.extra_hosts.clone(),
                hostname,
                ulimits: options.ulimits.clone(),
                cgroup_parent: options.cgroup_parent.clone(),
                remove_mount_stubs_recursive: true,
                ..ExecMeta::default()
            },
            mounts: mounts.into_mounts(),
            network: match run.network.map(|network| network.value) {
                None | Some(Network::Default) => options.network,
                Some(Network::None) => NetworkMode::None,
                Some(Network::Host) => NetworkMode::Host,
            },
            // Whether it may have that is not for the Dockerfile to say.
            security: match run.security.map(|security| security.value) {
                None | Some(Security::Sandbox) => SecurityMode::Sandbox,
                Some(Security::Insecure) => SecurityMode::Insecure,
            },
            secret_env,
        };
        let command = format!("{}{}", place.step.statement.original.text(), line.summary);
        let command = shown(&command, self.shell.for_display(), &visible);
        let name = scope.names.next(
            &command,
            place.step.trigger_of.is_some(),
            &state.platform,
            &state.environment,
        );
        let meta = self.meta(place, name);
        let platform = Some(state.platform.clone());
        let node = self.draft.add(Op::Exec(Box::new(exec)), inputs, platform, meta);
        scope.state.root = Some(node);
        self.commit(place, &mut scope.state, created_by, true)
    }
}

/// Refuses what cannot be built yet.
fn refuse(place: &Place<'_, '_>, run: &Run) -> Fallible<()> {
    if let Some(device) = run.devices.first() {
        let help = "steps see the usual devices only";
        return Err(place.unsupported(device.span(), "RUN --device", help));
    }
    Ok(())
}

fn line(run: &Run, heredocs: &[Heredoc], state: &State) -> Line {
    let text = match &run.command {
        Command::Exec(words) => {
            let args = words.iter().map(|word| word.text().to_owned()).collect();
            return Line { args, summary: String::new(), script: None };
        }
        Command::Shell(text) => text.text(),
    };
    let plain =
        |text: &str| Line { args: with_shell(state, text), summary: String::new(), script: None };
    match heredocs {
        [] => plain(text),
        // A lone heredoc is the command itself, so that any shell will do.
        [only, ..] if only.word.text() == text => {
            let content = only.content().text().to_owned();
            let summary = format!(" ({})", summary(only.body.text()));
            match content.starts_with("#!") && state.config.os != "windows" {
                true => Line {
                    args: with_shell(state, &format!("{PIPES}{}", only.name)),
                    summary,
                    script: Some((only.name.clone(), content)),
                },
                false => Line { summary, ..plain(&content) },
            }
        }
        // Else the shell has to make sense of them.
        _ => {
            let mut full = text.to_owned();
            for heredoc in heredocs {
                full.push('\n');
                full.push_str(heredoc.body.text());
                full.push_str(&heredoc.name);
            }
            plain(&full)
        }
    }
}

/// The first line of a text.
fn summary(text: &str) -> String {
    let text = text.trim();
    match text.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => text.to_owned(),
    }
}

/// `RUN |2 A=1 B=2 /bin/sh -c make # buildkit`: every argument once, where it was declared first.
fn created_by(args: &[String], state: &State) -> String {
    let words: usize = args.iter().map(|word| word.len() + 1).sum();
    let mut text = String::with_capacity(64 + words + 2 * state.arguments.size());
    text.push_str("RUN");
    if state.arguments.len() > 0 {
        text.extend([" |", &state.arguments.len().to_string()]);
    }
    for (name, value) in state.arguments.iter() {
        text.extend([" ", name, "=", state.environment.get(name).unwrap_or(value)]);
    }
    for word in args {
        text.extend([" ", word]);
    }
    text.push_str(" # buildkit");
    text
}
