//! The program that the sandbox tests start: a sandbox process when it is asked to be one, as `rbuild` is, and else a build of one step.
//!
//! `rbuild-sandbox-fixture ROOT SPEC [BIND ...]` enters a user namespace unless it is root, runs the step that `SPEC` describes in JSON
//! over the directory `ROOT`, with the opened `BIND`s as the spec's descriptors, and prints an `Outcome`.
//!
//! `rbuild-sandbox-fixture /overwrite` asks whether it could write to itself, and prints the answer.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use rbuild_worker::{
    Exit, OutputStream, Sandbox, SandboxSpec, enter_user_namespace, init_main_if_requested,
};
use rustix::fs::{Access, CWD, Mode, OFlags, access, openat};
use rustix::mount::{OpenTreeFlags, open_tree};
use serde::Serialize;

#[derive(Serialize)]
struct Outcome {
    identity: String,
    exit: Result<Exit, String>,
    stdout: String,
    stderr: String,
}

fn main() -> ExitCode {
    if let Some(code) = init_main_if_requested() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text = if arguments == ["/overwrite"] {
        // Opening would fail with ETXTBSY first, on kernels that have that.
        let writable = access("/proc/self/exe", Access::WRITE_OK).map_err(std::io::Error::from);
        Ok(format!("{writable:?}"))
    } else {
        build(&arguments)
    };
    match text.map(|text| writeln!(std::io::stdout(), "{text}")) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(_)) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn build(arguments: &[String]) -> Result<String, Box<dyn std::error::Error>> {
    let program = std::env::current_exe()?;
    let identity = format!("{:?}", enter_user_namespace()?);
    let [root, spec, binds @ ..] = arguments else {
        return Err("usage: ROOT SPEC [BIND ...]".into());
    };
    let root =
        open_tree(CWD, root, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let spec: SandboxSpec = serde_json::from_str(spec)?;
    let binds = binds
        .iter()
        .map(|path| openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))
        .collect::<Result<Vec<OwnedFd>, _>>()?;
    let binds: Vec<BorrowedFd<'_>> = binds.iter().map(AsFd::as_fd).collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sandbox = Sandbox::open(&program)?;
    let exit =
        runtime.block_on(sandbox.run(&spec, root.as_fd(), &binds, |stream, bytes| match stream {
            OutputStream::Stdout => stdout.extend_from_slice(bytes),
            OutputStream::Stderr => stderr.extend_from_slice(bytes),
        }));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let exit = exit.map_err(|error| error.to_string());
    Ok(serde_json::to_string(&Outcome {
        identity,
        exit,
        stdout: text(&stdout),
        stderr: text(&stderr),
    })?)
}
