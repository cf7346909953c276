//! Expansion of variables, by laws that hold whatever a word says.
//!
//! ```text
//! word NUL NAME=value NUL NAME=value ..
//! ```

use rbuild_frontend::{
    BuildOptions, ImageSet, Instruction, Outcome, ResolvedImage, Source, lower, parse,
};
use rbuild_oci::{ContainerConfig, ImageConfig, Platform};
use rbuild_solver::SourceOp;

/// The limit of the lowering.
const MOST_GROWTH: usize = 4 << 20;
/// What the law of patterns can try all parts of.
const LONGEST_VALUE: usize = 64;
const MOST_STARS: usize = 4;

/// What a stage has though its base says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Expands a word in an environment.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.split('\0');
    let word = parts.next().unwrap_or_default();
    let env = parts.filter(|entry| entry.contains('=')).take(6).map(str::to_owned).collect();
    let world = World::new(env);
    let Some(expanded) = world.expand(word) else { return };
    if let Ok(value) = &expanded {
        assert!(value.len() <= world.most_growth(word));
        assert!(value.len() <= word.len() + MOST_GROWTH);
        if !word.contains(['$', '"', '\'', '\\']) {
            assert_eq!(value, word);
        }
        check_parts(&world, word, value);
        check_default(&world, word, value);
    }
    check_literal(&world, word);
    check_patterns(&world, word);
}

/// What is quoted or escaped is what it is.
fn check_literal(world: &World, word: &str) {
    if !word.contains('\'') {
        world.says(&format!("'{word}'"), word);
    }
    let escaped: String = word.chars().flat_map(|c| ['\\', c]).collect();
    world.says(&escaped, word);
    let is_special = |c: char| matches!(c, '"' | '$' | '\\');
    let quoted: String =
        word.chars().flat_map(|c| is_special(c).then_some('\\').into_iter().chain([c])).collect();
    world.says(&format!("\"{quoted}\""), word);
}

/// A word beside a word is both.
fn check_parts(world: &World, word: &str, value: &str) {
    let escapes = word.len() - word.trim_end_matches('\\').len();
    if escapes == 0 {
        world.says(&format!("{word}/x"), &format!("{value}/x"));
        world.says(&format!("{word}/{word}"), &format!("{value}/{value}"));
    }
    world.says(&format!("x/{word}"), &format!("x/{value}"));
}

/// A word as the default of a variable is itself.
fn check_default(world: &World, word: &str, value: &str) {
    // A brace or an escape would mean something else there.
    if word.contains(['{', '}', '\\']) {
        return;
    }
    world.says(&format!("${{UNSET_:-{word}}}"), value);
    world.says(&format!("${{UNSET_-{word}}}"), value);
    world.says(&format!("${{UNSET_:+{word}}}"), "");
    world.says(&format!("${{SET_+{word}}}"), value);
    world.says(&format!("${{SET_:+{word}}}"), value);
    world.says(&format!("${{SET_:-{word}}}"), "set");
}

/// `#`, `##`, `%` and `%%` take away the shortest or longest part that matches.
fn check_patterns(world: &World, word: &str) {
    let Some((name, value)) = world.env.iter().rev().find_map(|entry| entry.split_once('=')) else {
        return;
    };
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " .:/-_*?é[]".contains(c);
    let is_small = value.len() <= LONGEST_VALUE && word.matches('*').count() <= MOST_STARS;
    if !is_name || !is_small || !word.chars().all(is_plain) || word.is_empty() {
        return;
    }
    let pattern: Vec<char> = word.chars().collect();
    let borders = || value.char_indices().map(|(at, _)| at).chain([value.len()]);
    let is_match = |part: &str| matches(&pattern, &part.chars().collect::<Vec<_>>());
    let starts: Vec<usize> = borders().filter(|at| is_match(&value[..*at])).collect();
    let ends: Vec<usize> = borders().filter(|at| is_match(&value[*at..])).collect();
    let after = |at: Option<&usize>| at.map_or(value, |at| &value[*at..]);
    let before = |at: Option<&usize>| at.map_or(value, |at| &value[..*at]);
    world.says(&format!("${{{name}#{word}}}"), after(starts.first()));
    world.says(&format!("${{{name}##{word}}}"), after(starts.last()));
    world.says(&format!("${{{name}%{word}}}"), before(ends.last()));
    world.says(&format!("${{{name}%%{word}}}"), before(ends.first()));
}

/// Neither wildcard stands for a line break.
fn matches(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => {
            let most = text.iter().position(|c| *c == '\n').unwrap_or(text.len());
            (0..=most).any(|length| matches(rest, &text[length..]))
        }
        [one, rest @ ..] => text.split_first().is_some_and(|(first, after)| {
            let eats = if *one == '?' { *first != '\n' } else { one == first };
            eats && matches(rest, after)
        }),
    }
}

/// An image whose variables a word can name.
struct World {
    env: Vec<String>,
    images: ImageSet,
}

impl World {
    fn new(env: Vec<String>) -> Self {
        let source = Source::new("Dockerfile", "FROM base").expect("it is small");
        let mut images = ImageSet::new();
        let Ok(Outcome::NeedsImages(queries)) = lower(&parse(&source), &options(), &images) else {
            panic!("the base is not asked for")
        };
        let env_and_one = env.iter().cloned().chain(["SET_=set".to_owned()]).collect();
        let config = ContainerConfig { env: env_and_one, ..ContainerConfig::default() };
        let config = ImageConfig { config, ..ImageConfig::default() };
        let source = SourceOp::new("docker-image://base");
        images.insert(&queries[0], ResolvedImage { source, config });
        Self { env, images }
    }

    /// The most bytes that a word can become: each of its bytes stands for a value at most, and each `//` for one that has
    /// what comes after it in the place of each of its bytes, and once more.
    ///
    /// So it is linear in the word and polynomial in the values, of a degree that a writer of `n` bytes sets to `n / 8` at
    /// most, and the lowering's limit is what keeps it small.
    fn most_growth(&self, word: &str) -> usize {
        let values = self.env.iter().map(String::len).sum::<usize>() + DEFAULT_PATH.len();
        let replacements = u32::try_from(word.matches("//").count()).unwrap_or(u32::MAX);
        word.len().saturating_mul((values + 1).saturating_pow(replacements.saturating_add(1)))
    }

    /// The value of a word, or the code of an error; `None` for what cannot be written in a line.
    fn expand(&self, word: &str) -> Option<Result<String, &'static str>> {
        let source = Source::new("Dockerfile", &format!("FROM base\nUSER {word}")).ok()?;
        let dockerfile = parse(&source);
        if dockerfile.has_errors() || dockerfile.statements.len() != 2 {
            return None;
        }
        let Instruction::User(user) = &dockerfile.statements[1].instruction else { return None };
        if user.text() != word {
            return None;
        }
        match lower(&dockerfile, &options(), &self.images) {
            Ok(Outcome::Ready(build)) => Some(Ok(build.config.config.user)),
            Ok(Outcome::NeedsImages(_)) => panic!("all images are known"),
            Err(errors) => Some(Err(errors[0].code)),
        }
    }

    /// Asserts the value of a word, if it can be written.
    fn says(&self, word: &str, value: &str) {
        if self.env.iter().any(|entry| entry.starts_with("UNSET_") || entry.starts_with("SET_")) {
            return;
        }
        if let Some(found) = self.expand(word) {
            assert_eq!(found.as_deref(), Ok(value), "{word:?} with {:?}", self.env);
        }
    }
}

fn options() -> BuildOptions {
    BuildOptions::new(Platform::new("linux", "amd64", ""))
}
