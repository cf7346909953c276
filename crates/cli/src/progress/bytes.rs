//! Byte bars: one per blob that is fetched outside of a build. A build's own display is a layout of its own,
//! because `indicatif` hides the bars that do not fit, which would be the running steps.

use std::collections::HashMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rbuild_solver::{Event, Progress, ProgressReceiver};
use tokio::task::JoinHandle;

use super::print_after;
use crate::printable;

/// Draws bars on standard error, where that is a terminal.
#[derive(Debug)]
pub(crate) struct ByteBars {
    task: JoinHandle<()>,
}

impl ByteBars {
    /// Starts to draw what is sent.
    pub(crate) fn start() -> (Self, Progress) {
        let (progress, events) = Progress::channel();
        (Self { task: tokio::spawn(draw(events)) }, progress)
    }

    /// Waits until everything is drawn. All [`Progress`] senders must be gone.
    pub(crate) async fn finish(self) {
        // A task that only draws has nothing to say when it fails.
        let _ = self.task.await;
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
