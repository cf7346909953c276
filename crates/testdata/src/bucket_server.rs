//! An S3 server on a free loopback port.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use serde_json::Value;

use crate::registry::forward;
use crate::{Reply, Request};

const PROGRAM: &str = include_str!("bucket_server.py");

/// A running server with one empty bucket, `cache`, in `us-east-1`, which checks who asks; it ends with this value. It is moto's, which
/// `scripts/s3-server` installs.
#[derive(Debug)]
pub struct BucketServer {
    child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    port: u16,
    /// Who may do everything: the id of the key, and the key.
    pub key: (String, String),
}

impl BucketServer {
    /// Starts one; `None` when it is not installed.
    ///
    /// Panics when the server does not answer.
    pub fn start() -> Option<Self> {
        // Tests are in `target/debug/deps`, it is in `target/s3-server`.
        let test = std::env::current_exe().expect("a test knows its program");
        let target = test.ancestors().nth(3).expect("a folder");
        let python = target.join("s3-server/bin/python");
        if !python.exists() {
            return None;
        }
        let mut child = Command::new(python)
            .args(["-c", PROGRAM])
            .env_remove("AWS_PROFILE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Python starts");
        let input = child.stdin.take().expect("the input is a pipe");
        let output = child.stdout.take().expect("the output is a pipe");
        let pipes = Mutex::new((input, BufReader::new(output)));
        let mut server = Self { child, pipes, port: 0, key: Default::default() };
        let said = server.answer();
        let text = |key: &str| said[key].as_str().expect("a text").to_owned();
        server.port = said["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
        server.key = (text("id"), text("secret"));
        Some(server)
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The objects by their keys, each with `size`, `age` in seconds, `metadata`, whether it has `parts`, and its `text` if it is small.
    pub fn objects(&self) -> serde_json::Map<String, Value> {
        match self.ask("objects") {
            Value::Object(objects) => objects,
            other => panic!("the server answers {other}"),
        }
    }

    /// Makes all objects so many seconds old.
    pub fn age(&self, seconds: u64) {
        self.ask(&format!("age {seconds}"));
    }

    /// Removes an object.
    pub fn delete(&self, key: &str) {
        self.ask(&format!("delete {key}"));
    }

    /// Changes the bytes of an object, not their number.
    pub fn damage(&self, key: &str) {
        self.ask(&format!("damage {key}"));
    }

    /// Passes a request on as it is, and the answer back: the ground on which a [`crate::Scripted`] puts its faults.
    pub fn forward(&self, request: &Request) -> Reply {
        forward(self.port, request)
    }

    fn ask(&self, command: &str) -> Value {
        {
            let mut pipes = self.pipes.lock().expect("no test thread panicked");
            writeln!(pipes.0, "{command}").expect("the server reads");
        }
        self.answer()
    }

    fn answer(&self) -> Value {
        let mut pipes = self.pipes.lock().expect("no test thread panicked");
        let mut line = String::new();
        pipes.1.read_line(&mut line).expect("the server writes");
        serde_json::from_str(&line).expect("the S3 server starts and answers")
    }
}

impl Drop for BucketServer {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing else to do about an error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
