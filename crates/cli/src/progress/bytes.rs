//! Byte bars: one per blob that is fetched outside of a build, or a line for each that is done where nobody watches. A build's own display is a layout of its own,
//! because `indicatif` hides the bars that do not fit, which would be the running steps.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rbuild_solver::{Event, Progress, ProgressReceiver};
use tokio::task::JoinHandle;

use super::{format, print_after};
use crate::printable;

/// Draws bars on standard error where that is a terminal, and else prints lines.
#[derive(Debug)]
pub(crate) struct ByteBars {
    task: JoinHandle<()>,
}

impl ByteBars {
    /// Starts to draw what is sent; warnings alone if it is to be `quiet`.
    pub(crate) fn start(quiet: bool) -> (Self, Progress) {
        let (progress, events) = Progress::channel();
        let task = match quiet || !io::stderr().is_terminal() {
            true => tokio::spawn(print(events, quiet)),
            false => tokio::spawn(draw(events)),
        };
        (Self { task }, progress)
    }

    /// Waits until everything is drawn. All [`Progress`] senders must be gone.
    pub(crate) async fn finish(self) {
        // A task that only draws has nothing to say when it fails.
        let _ = self.task.await;
    }
}

async fn print(mut events: ProgressReceiver, quiet: bool) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Status(status) if !quiet && status.completed.is_some() => {
                let size = match status.total {
                    0 => String::new(),
                    total => format!(" {}", format::bytes(total)),
                };
                print_after(&format!("{}{size} done\n", printable::line(&status.id)));
            }
            Event::Warning { message, .. } => {
                print_after(&format!("WARN: {}\n", printable::line(&message)));
            }
            _ => {}
        }
    }
}

async fn draw(mut events: ProgressReceiver) {
    let style =
        ProgressStyle::with_template("{prefix} {bar:30} {bytes} / {total_bytes} {bytes_per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    let all = MultiProgress::new();
    let mut bars: HashMap<String, ProgressBar> = HashMap::new();
    while let Some(event) = events.recv().await {
        let status = match event {
            Event::Status(status) => status,
            Event::Warning { message, .. } => {
                let message = printable::line(&message);
                all.suspend(|| print_after(&format!("WARN: {message}\n")));
                continue;
            }
            _ => continue,
        };
        let bar = bars.entry(status.id.clone()).or_insert_with(|| {
            let bar = all.add(ProgressBar::new(status.total).with_style(style.clone()));
            bar.with_prefix(status.id.chars().take("sha256:".len() + 12).collect::<String>())
        });
        bar.set_position(status.current);
        if status.completed.is_some() {
            bar.finish();
        }
    }
}
