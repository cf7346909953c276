//! Who lives how long: killed builds, dropped steps, children left behind, endless output.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use rbuild_worker::{ExitStatus, OutputStream, SandboxSpec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::support::{
    FIXTURE, Root, bind, command, open_path, require_root, runtime, sandbox, script,
};

/// A directory with a pipe in it, which a step keeps open as long as one of its processes lives.
struct Shared {
    path: PathBuf,
}

impl Shared {
    fn new(root: &Root) -> Self {
        let path = root.directory.path().join("shared");
        fs::create_dir(&path).unwrap();
        mknodat(CWD, path.join("alive"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
        Self { path }
    }

    /// A step that never ends, and has a child in a session of its own which does not either and which alone holds the pipe.
    fn step() -> SandboxSpec {
        let mut spec = script(
            "setsid sh -c 'exec 3>/shared/alive; echo ready >&3; sleep 1000000' & sleep 1000000",
        );
        spec.mounts.push(bind("/shared", false));
        spec
    }

    /// Waits for the step's child.
    fn wait_until_ready(&self) -> Ready {
        let mut pipe = File::open(self.path.join("alive")).unwrap();
        let mut line = [0; 6];
        pipe.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"ready\n");
        Ready { pipe }
    }
}

struct Ready {
    pipe: File,
}

impl Ready {
    /// Waits until no process of the step is left; for ever if one survives.
    fn wait_until_dead(mut self) {
        assert_eq!(self.pipe.read(&mut [0; 1]).unwrap(), 0);
    }
}

fn start_fixture(root: &Root, shared: &Path, spec: &SandboxSpec) -> Child {
    Command::new(FIXTURE)
        .arg(&root.path)
        .arg(serde_json::to_string(spec).unwrap())
        .arg(shared)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn privileged_killed_build_takes_its_step_along() {
    require_root!();
    let root = Root::new();
    let shared = Shared::new(&root);
    let mut build = start_fixture(&root, &shared.path, &Shared::step());
    let ready = shared.wait_until_ready();
    build.kill().unwrap();
    build.wait().unwrap();
    ready.wait_until_dead();
}

#[test]
fn privileged_killed_sandbox_process_takes_its_step_along() {
    require_root!();
    let root = Root::new();
    let shared = Shared::new(&root);
    let directory = open_path(&shared.path);
    let mount = root.mount();
    let ready = runtime().block_on(async {
        let sandbox = sandbox();
        let process = sandbox.spawn(&Shared::step(), mount.as_fd(), &[directory.as_fd()]).unwrap();
        let ready = shared.wait_until_ready();
        let init = i32::try_from(process.id().unwrap()).unwrap();
        let init = rustix::process::Pid::from_raw(init).unwrap();
        rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
        let error = process.wait().await.unwrap_err();
        assert!(
            error.to_string().starts_with("the sandbox process ended without a report: signal: 9"),
            "{error}"
        );
        ready
    });
    ready.wait_until_dead();
}

#[test]
fn privileged_dropped_step_dies() {
    require_root!();
    let root = Root::new();
    let shared = Shared::new(&root);
    let directory = open_path(&shared.path);
    let mount = root.mount();
    let sandbox = sandbox();
    let ready = runtime().block_on(async {
        let spec = Shared::step();
        let descriptors = [directory.as_fd()];
        let run = sandbox.run(&spec, mount.as_fd(), &descriptors, |_, _| {});
        let ready = tokio::task::spawn_blocking(move || shared.wait_until_ready());
        tokio::select! {
            result = run => panic!("the step ended: {result:?}"),
            ready = ready => ready.unwrap(),
        }
    });
    ready.wait_until_dead();
}

#[test]
fn privileged_children_left_behind_die_with_the_step() {
    require_root!();
    let root = Root::new();
    let shared = Shared::new(&root);
    let reader = thread::spawn({
        let path = shared.path.clone();
        move || Shared { path }.wait_until_ready().wait_until_dead()
    });
    // The child keeps the step's output open as well; without its death the run would never end.
    let mut spec = script(
        "mkfifo /tmp/go; setsid sh -c 'exec 3>/shared/alive; echo ready >&3; echo >/tmp/go; sleep 1000000' &
         cat /tmp/go; exit 7",
    );
    spec.mounts.push(bind("/shared", false));
    let done = root.try_run(&spec, &[&shared.path]).unwrap();
    assert_eq!(done.exit.status, ExitStatus::Code(7));
    reader.join().unwrap();
}

#[test]
fn privileged_step_cannot_kill_its_parents() {
    require_root!();
    let root = Root::new();
    let output = root.output(&script("kill -9 1; kill -9 -1; kill -9 $PPID; echo alive"));
    assert_eq!(output, "alive\n");
}

#[test]
fn privileged_hundred_megabytes_of_output_arrive() {
    require_root!();
    let root = Root::new();
    let spec = script(
        "exec 3>&2; dd if=/dev/zero bs=1M count=60 2>/dev/null & dd if=/dev/zero bs=1M count=40 2>/dev/null >&3; wait",
    );
    let mount = root.mount();
    let (mut stdout, mut stderr) = (0, 0);
    let sandbox = sandbox();
    let exit = runtime()
        .block_on(sandbox.run(&spec, mount.as_fd(), &[], |stream, bytes| match stream {
            OutputStream::Stdout => stdout += bytes.len(),
            OutputStream::Stderr => stderr += bytes.len(),
        }))
        .unwrap();
    assert_eq!(exit.status, ExitStatus::Code(0));
    assert_eq!((stdout, stderr), (60 << 20, 40 << 20));
}

#[test]
fn privileged_steps_side_by_side_do_not_meet() {
    require_root!();
    let roots: Vec<Root> = (0..8).map(|_| Root::new()).collect();
    let sandbox = sandbox();
    runtime().block_on(async {
        let runs = roots.iter().enumerate().map(|(number, root)| {
            let sandbox = &sandbox;
            async move {
                let mut output = Vec::new();
                let mount = root.mount();
                let spec = script(&format!("echo {number} >/own; cat /own; exit {number}"));
                let exit = sandbox
                    .run(&spec, mount.as_fd(), &[], |_, bytes| output.extend_from_slice(bytes))
                    .await;
                (exit.unwrap().status, String::from_utf8(output).unwrap())
            }
        });
        for (number, (status, output)) in
            futures_util::future::join_all(runs).await.into_iter().enumerate()
        {
            assert_eq!(status, ExitStatus::Code(i32::try_from(number).unwrap()));
            assert_eq!(output, format!("{number}\n"));
        }
    });
}

/// The processes that this thread has started and that live.
fn children() -> Vec<Pid> {
    let text = fs::read_to_string("/proc/thread-self/children").unwrap();
    let lives = |id: &&str| {
        fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    let ids = text.split_whitespace().filter(lives);
    ids.map(|id| Pid::from_raw(id.parse().unwrap()).unwrap()).collect()
}

/// Waits for the end of a process that somebody else will ask for its status.
fn wait_until_ended(process: &OwnedFd) {
    poll(&mut [PollFd::new(process, PollFlags::IN)], None).unwrap();
}

#[test]
fn privileged_process_of_the_next_step_starts_ahead_and_ends_with_the_build() {
    require_root!();
    let root = Root::new();
    let sandbox = sandbox();
    let runtime = runtime();
    let run = || {
        let mount = root.mount();
        runtime.block_on(async {
            let process = sandbox.spawn(&command(&["true"]), mount.as_fd(), &[]).unwrap();
            let id = Pid::from_raw(i32::try_from(process.id().unwrap()).unwrap()).unwrap();
            let own = pidfd_open(id, PidfdFlags::empty()).unwrap();
            assert_eq!(process.wait().await.unwrap().status, ExitStatus::Code(0));
            wait_until_ended(&own);
            id
        })
    };
    run();
    assert_eq!(children(), [], "a build of one step starts one process");
    run();
    let waiting = children();
    assert_eq!(waiting, [run()]);

    let waiting = pidfd_open(children()[0], PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&waiting, Signal::KILL).unwrap();
    wait_until_ended(&waiting);
    run();

    // The step's first process waits below it, and when that is gone it ends as well.
    let waiting = children()[0];
    let own = pidfd_open(waiting, PidfdFlags::empty()).unwrap();
    let id = waiting.as_raw_pid();
    let first = loop {
        let below = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        if let Ok(first) = below.trim().parse() {
            break Pid::from_raw(first).unwrap();
        }
    };
    kill_process(first, Signal::KILL).unwrap();
    wait_until_ended(&own);
    run();

    let waiting = children().into_iter().map(|id| pidfd_open(id, PidfdFlags::empty()).unwrap());
    let waiting: Vec<OwnedFd> = waiting.collect();
    drop(sandbox);
    waiting.iter().for_each(wait_until_ended);
}
