//! The instructions of paths: COPY, ADD and VOLUME.

use super::ast::{Add, Copy, Transfer};
use super::heredoc;
use super::mapped::Mapped;
use super::parts::Parts;
use super::sink::Sink;

impl Parts<'_> {
    pub(super) fn copy(&self, sink: &mut Sink) -> Option<Copy> {
        Some(Copy {
            transfer: self.transfer(sink)?,
            // An empty name is none.
            from: self.flags.text("from").filter(|from| !from.text().is_empty()),
            chown: self.flags.text("chown"),
            chmod: self.flags.text("chmod"),
            link: self.flags.boolean("link"),
            parents: self.flags.boolean("parents"),
            exclude: self.flags.all("exclude").collect(),
        })
    }

    pub(super) fn add(&self, sink: &mut Sink) -> Option<Add> {
        Some(Add {
            transfer: self.transfer(sink)?,
            chown: self.flags.text("chown"),
            chmod: self.flags.text("chmod"),
            link: self.flags.boolean("link"),
            keep_git_dir: self.flags.boolean("keep-git-dir"),
            checksum: self.flags.text("checksum"),
            unpack: self.flags.boolean("unpack"),
            exclude: self.flags.all("exclude").collect(),
        })
    }

    fn transfer(&self, sink: &mut Sink) -> Option<Transfer> {
        let mut words = self.list(sink)?;
        let Some(destination) = words.pop().filter(|_| !words.is_empty()) else {
            let message = format!(
                "{} requires at least two arguments, but only one was provided. Destination could not be determined",
                self.name
            );
            self.error(&self.arguments, message, sink);
            return None;
        };
        // In the JSON form no heredoc was read, and `<<EOF` is the name of a file.
        if self.heredocs.is_empty() {
            return Some(Transfer { sources: words, inline: Vec::new(), destination });
        }
        if heredoc::opener(destination.clone()).is_some() {
            self.error(
                &destination,
                format!("{} cannot accept a heredoc as a destination", self.name),
                sink,
            );
            return None;
        }
        let mut sources = Vec::new();
        let mut inline = Vec::new();
        for word in words {
            // By place: a name may be used twice, but bodies follow in the order of their words.
            let span = word.span();
            match self
                .heredocs
                .binary_search_by_key(&span.start, |heredoc| heredoc.word.span().start)
            {
                Ok(index) if self.heredocs[index].word.span() == span => {
                    inline.push(self.heredocs[index].clone());
                }
                _ => sources.push(word),
            }
        }
        Some(Transfer { sources, inline, destination })
    }

    pub(super) fn volume(&self, sink: &mut Sink) -> Option<Vec<Mapped>> {
        let paths = self.list(sink)?;
        if paths.is_empty() {
            self.error(&self.arguments, "VOLUME requires at least one argument".into(), sink);
            return None;
        }
        if paths.iter().any(|path| path.trim().is_empty()) {
            self.error(&self.arguments, "VOLUME specified can not be an empty string".into(), sink);
            return None;
        }
        Some(paths.iter().map(Mapped::trim).collect())
    }
}
