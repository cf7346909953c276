//! What a RUN runs, as far as that can be said without being a shell.

use crate::dockerfile::ast::{Command, Run, Statement};

/// Programs that take no part in a pipeline's meaning: what they run comes after them.
const PREFIXES: [&str; 6] = ["sudo", "exec", "time", "env", "then", "do"];

/// The whole text of a RUN, with its heredocs.
pub(super) fn text(statement: &Statement, run: &Run) -> String {
    let mut text = match &run.command {
        Command::Shell(text) => text.text().to_owned(),
        Command::Exec(words) => {
            let words: Vec<&str> = words.iter().map(|word| word.text()).collect();
            words.join(" ")
        }
    };
    for heredoc in &statement.heredocs {
        text.push('\n');
        text.push_str(heredoc.body.text());
    }
    text
}

/// The commands of a text, each as its words from the program on.
pub(super) fn commands(text: &str) -> Vec<Vec<&str>> {
    text.split(['\n', ';', '&', '|', '(', ')', '{', '}'])
        .map(|command| {
            let words = command.split_ascii_whitespace();
            let is_first = |word: &&str| {
                let sets = word.split_once('=').is_some_and(|(name, _)| is_name(name));
                !sets && !PREFIXES.contains(word)
            };
            words.skip_while(|word| !is_first(word)).collect()
        })
        .filter(|words: &Vec<&str>| !words.is_empty())
        .collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether a text has a word in it, and not only as a part of another.
pub(super) fn mentions(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        !text[..at].ends_with(is_part) && !text[at + name.len()..].starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_behind_what_is_in_front_of_them() {
        let found = commands("A=1 sudo apt-get update && (cd /x; make)|tee y");
        let programs: Vec<&str> = found.iter().map(|words| words[0]).collect();
        assert_eq!(programs, ["apt-get", "cd", "make", "tee"]);
        assert!(commands(" && ;").is_empty());
    }

    #[test]
    fn names_are_whole_words() {
        assert!(mentions("echo ${A:-1}", "A"));
        assert!(!mentions("echo $AB $B_A", "A"));
    }
}
