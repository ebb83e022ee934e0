//! The regular expression of one part of a rule.
//!
//! Built-in converters and most converters of users need little: characters, classes, counts, and a choice of words.
//! That subset is compiled here and matched as Python's `re` would, by trying alternatives in its order. Anything else
//! (groups, anchors, `\w`, flags, back-references) is left to a [`Search`].
//!
//! Unlike `re`, the matcher remembers where it has failed once a match takes long, so that the time for a path from
//! the network is bounded by its length squared, however many variables share a segment.

use std::ops::Range;
use std::sync::Arc;

use crate::digits::digit;

/// Where a variable's text lies in the part's text, in bytes.
pub type Span = Range<usize>;

/// A regular expression engine for patterns outside the native subset.
pub trait Search: Send + Sync {
    /// Matches the whole of `text`. Pushes the span of each variable in order and, for a part that ends with an
    /// optional slash, the slash's. False, and nothing pushed, if it does not match.
    fn search(&self, text: &str, spans: &mut Vec<Span>) -> bool;
}

/// What a part consists of, before it is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text that stands for itself.
    Literal(String),
    /// A variable's regular expression.
    Variable(String),
}

/// How to match one dynamic part.
#[derive(Clone)]
pub enum Pattern {
    /// Compiled here.
    Native(Native),
    /// Left to its owner.
    Foreign(Arc<dyn Search>),
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Native {
    steps: Vec<Step>,
    variables: usize,
}

#[derive(Debug, Clone)]
enum Step {
    Literal(Box<str>),
    Repeat {
        class: Class,
        least: usize,
        most: usize,
        lazy: bool,
    },
    OneOf(Box<[Box<str>]>),
    Open(usize),
    Close(usize),
    /// A slash, if one is there and none stands before it; a variable of its own.
    LastSlash(usize),
}

#[derive(Debug, Clone)]
enum Class {
    NotSlash,
    NotNewline,
    Digit,
    Set { items: Box<[Item]>, negated: bool },
}

#[derive(Debug, Clone)]
enum Item {
    Range(char, char),
    Digit,
}

impl Pattern {
    /// Matches the whole of `text`, pushing the variables' spans.
    pub(crate) fn matches(&self, text: &str, spans: &mut Vec<Span>) -> bool {
        match self {
            Self::Native(native) => native.matches(text, spans),
            Self::Foreign(search) => search.search(text, spans),
        }
    }
}

impl Native {
    /// Compiles a part; `None` if some regular expression is outside the subset.
    pub(crate) fn compile(pieces: &[Piece], suffixed: bool) -> Option<Self> {
        let mut steps = Vec::new();
        let mut variables = 0;
        for piece in pieces {
            match piece {
                Piece::Literal(text) => steps.push(Step::Literal(text.as_str().into())),
                Piece::Variable(regex) => {
                    steps.push(Step::Open(variables));
                    compile_regex(regex, &mut steps)?;
                    steps.push(Step::Close(variables));
                    variables += 1;
                }
            }
        }
        if suffixed {
            steps.push(Step::LastSlash(variables));
            variables += 1;
        }
        Some(Self { steps, variables })
    }

    fn matches(&self, text: &str, spans: &mut Vec<Span>) -> bool {
        if let Some(accepted) = self.accepts_whole(text) {
            if accepted {
                spans.push(0..text.len());
            }
            return accepted;
        }
        let before = spans.len();
        spans.resize(before + self.variables, 0..0);
        let mut attempt = Attempt { text, steps: &self.steps, spans, before, tried: 0, failed: Vec::new() };
        let matched = attempt.run(0, 0);
        if !matched {
            spans.truncate(before);
        }
        matched
    }
    /// Whether one variable that is all of the part accepts all of the text, if that can be told without trying.
    fn accepts_whole(&self, text: &str) -> Option<bool> {
        let (first, class, least, most) = match self.steps.as_slice() {
            [Step::Open(_), Step::Repeat { class, least, most, .. }, Step::Close(_)] => {
                (None, class, least, most)
            }
            [
                Step::Open(_),
                Step::Repeat { class: first, least: 1, most: 1, .. },
                Step::Repeat { class, least, most, .. },
                Step::Close(_),
            ] => (Some(first), class, least, most),
            _ => return None,
        };
        let mut rest = text;
        if let Some(first) = first {
            let mut found = rest.chars();
            if !found.next().is_some_and(|found| first.accepts(found)) {
                return Some(false);
            }
            rest = found.as_str();
        }
        let mut count = 0;
        let all = rest.chars().inspect(|_| count += 1).all(|found| class.accepts(found));
        Some(all && (*least..=*most).contains(&count))
    }
}

/// How many steps a match may take before it starts to remember its failures. Ordinary paths take tens.
const PATIENCE: usize = 512;

struct Attempt<'a> {
    text: &'a str,
    steps: &'a [Step],
    spans: &'a mut Vec<Span>,
    before: usize,
    tried: usize,
    /// One bit for each step and position from which the rest is known not to match.
    failed: Vec<u64>,
}

impl Attempt<'_> {
    fn run(&mut self, step: usize, at: usize) -> bool {
        self.tried += 1;
        if self.tried < PATIENCE {
            return self.step(step, at);
        }
        let bit = step * (self.text.len() + 1) + at;
        if self.failed.is_empty() {
            self.failed = vec![0; (self.steps.len() + 1) * (self.text.len() + 1) / 64 + 1];
        }
        let (word, mask) = (bit / 64, 1 << (bit % 64));
        if self.failed.get(word).is_some_and(|known| known & mask != 0) {
            return false;
        }
        let matched = self.step(step, at);
        if !matched && let Some(known) = self.failed.get_mut(word) {
            *known |= mask;
        }
        matched
    }

    fn step(&mut self, step: usize, at: usize) -> bool {
        let steps = self.steps;
        let Some(rest) = self.text.get(at..) else { return false };
        match steps.get(step) {
            None => rest.is_empty(),
            Some(Step::Literal(literal)) => {
                rest.starts_with(&**literal) && self.run(step + 1, at + literal.len())
            }
            Some(Step::OneOf(words)) => {
                words.iter().any(|word| rest.starts_with(&**word) && self.run(step + 1, at + word.len()))
            }
            Some(Step::Open(variable)) => {
                if let Some(span) = self.spans.get_mut(self.before + variable) {
                    span.start = at;
                }
                self.run(step + 1, at)
            }
            Some(Step::Close(variable)) => {
                if let Some(span) = self.spans.get_mut(self.before + variable) {
                    span.end = at;
                }
                self.run(step + 1, at)
            }
            Some(Step::LastSlash(variable)) => {
                let slash = usize::from(rest == "/");
                if self.text.get(..at).is_some_and(|before| before.ends_with('/')) || rest.len() != slash {
                    return false;
                }
                if let Some(span) = self.spans.get_mut(self.before + variable) {
                    *span = at..at + slash;
                }
                self.run(step + 1, at + slash)
            }
            Some(Step::Repeat { class, least, most, lazy }) => {
                self.repeat(step, at, class, (*least, *most), *lazy)
            }
        }
    }

    fn repeat(&mut self, step: usize, at: usize, class: &Class, count: (usize, usize), lazy: bool) -> bool {
        let (least, most) = count;
        let Some(rest) = self.text.get(at..) else { return false };
        let mut taken = 0;
        let mut end = at;
        let mut accepted = rest.chars().take_while(|&found| class.accepts(found));
        if lazy {
            loop {
                if taken >= least && self.run(step + 1, end) {
                    return true;
                }
                if taken == most {
                    return false;
                }
                let Some(found) = accepted.next() else { return false };
                taken += 1;
                end += found.len_utf8();
            }
        }
        for found in accepted.take(most) {
            taken += 1;
            end += found.len_utf8();
        }
        while taken >= least {
            if self.run(step + 1, end) {
                return true;
            }
            let Some(last) = self.text.get(at..end).and_then(|piece| piece.chars().next_back()) else {
                return false;
            };
            taken -= 1;
            end -= last.len_utf8();
        }
        false
    }
}

impl Class {
    fn accepts(&self, found: char) -> bool {
        match self {
            Self::NotSlash => found != '/',
            Self::NotNewline => found != '\n',
            Self::Digit => digit(found).is_some(),
            Self::Set { items, negated } => {
                let hit = items.iter().any(|item| match item {
                    Item::Range(first, last) => (*first..=*last).contains(&found),
                    Item::Digit => digit(found).is_some(),
                });
                hit != *negated
            }
        }
    }
}

/// Compiles `regex` onto `steps`; `None` if it is outside the subset.
fn compile_regex(regex: &str, steps: &mut Vec<Step>) -> Option<()> {
    if let Some(words) = words(regex) {
        steps.push(Step::OneOf(words));
        return Some(());
    }
    let mut rest = regex;
    while let Some(first) = rest.chars().next() {
        let after = rest.get(first.len_utf8()..)?;
        let (class, after) = match first {
            '[' => set(after)?,
            '.' => (Class::NotNewline, after),
            '\\' => escape(after)?,
            '(' | ')' | '|' | '^' | '$' | '*' | '+' | '?' | '{' | '}' | ']' => return None,
            other => (Class::Set { items: Box::new([Item::Range(other, other)]), negated: false }, after),
        };
        let (least, most, after) = count(after)?;
        let (lazy, after) = match after.chars().next() {
            Some('?') if (least, most) != (1, 1) => (true, after.get(1..)?),
            // A count after a count is an error in Python before 3.11, and possessive or atomic from then on.
            Some('*' | '+' | '?' | '{') => return None,
            _ => (false, after),
        };
        steps.push(Step::Repeat { class, least, most, lazy });
        rest = after;
    }
    Some(())
}

/// A choice of words as the `any` converter writes it: `(?:one|two\-three)`.
fn words(regex: &str) -> Option<Box<[Box<str>]>> {
    let inner = regex.strip_prefix("(?:")?.strip_suffix(')')?;
    let mut words = vec![String::new()];
    let mut rest = inner.chars();
    while let Some(found) = rest.next() {
        let literal = match found {
            '|' => {
                words.push(String::new());
                continue;
            }
            '\\' => rest.next().filter(|&escaped| !escaped.is_alphanumeric())?,
            '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' | '.' | '*' | '+' | '?' => return None,
            other => other,
        };
        words.last_mut()?.push(literal);
    }
    Some(words.into_iter().map(String::into_boxed_str).collect())
}

fn set(text: &str) -> Option<(Class, &str)> {
    let (negated, text) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
    let mut items = Vec::new();
    let mut rest = text.chars();
    loop {
        let item = match rest.next()? {
            ']' if items.is_empty() => return None,
            ']' => break,
            '\\' => match rest.next()? {
                'd' => {
                    items.push(Item::Digit);
                    if rest.as_str().starts_with('-') && !rest.as_str().starts_with("-]") {
                        return None;
                    }
                    continue;
                }
                letter if letter.is_alphanumeric() => return None,
                literal => literal,
            },
            // Python reserves these for set operations.
            '[' => return None,
            doubled @ ('-' | '&' | '~' | '|') if rest.as_str().starts_with(doubled) => return None,
            literal => literal,
        };
        let last = match rest.as_str().strip_prefix('-') {
            Some(tail) if !tail.starts_with(']') => {
                rest = tail.chars();
                match rest.next()? {
                    '\\' => rest.next().filter(|&escaped| !escaped.is_alphanumeric())?,
                    '[' | '-' => return None,
                    literal => literal,
                }
            }
            _ => item,
        };
        if last < item {
            return None;
        }
        items.push(Item::Range(item, last));
    }
    let class = match (items.as_slice(), negated) {
        ([Item::Range('/', '/')], true) => Class::NotSlash,
        ([Item::Digit], false) => Class::Digit,
        _ => Class::Set { items: items.into(), negated },
    };
    Some((class, rest.as_str()))
}

fn escape(text: &str) -> Option<(Class, &str)> {
    let found = text.chars().next()?;
    let rest = text.get(found.len_utf8()..)?;
    match found {
        'd' => Some((Class::Digit, rest)),
        'D' => Some((Class::Set { items: Box::new([Item::Digit]), negated: true }, rest)),
        letter if letter.is_alphanumeric() => None,
        literal => {
            Some((Class::Set { items: Box::new([Item::Range(literal, literal)]), negated: false }, rest))
        }
    }
}

/// Least, most, and what follows the count.
fn count(text: &str) -> Option<(usize, usize, &str)> {
    match text.chars().next() {
        Some('*') => Some((0, usize::MAX, text.get(1..)?)),
        Some('+') => Some((1, usize::MAX, text.get(1..)?)),
        Some('?') => Some((0, 1, text.get(1..)?)),
        Some('{') => {
            let (inner, rest) = text.get(1..)?.split_once('}')?;
            let number = |digits: &str| {
                digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u32>().ok()).flatten()
            };
            let (least, most) = match inner.split_once(',') {
                None => (number(inner)?, number(inner)? as usize),
                Some((least, "")) => (number(least)?, usize::MAX),
                Some(("", most)) => (0, number(most)? as usize),
                Some((least, most)) => (number(least)?, number(most)? as usize),
            };
            let least = least as usize;
            (least <= most).then_some((least, most, rest))
        }
        _ => Some((1, 1, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str) -> Piece {
        match text.strip_prefix('=') {
            Some(literal) => Piece::Literal(literal.into()),
            None => Piece::Variable(text.into()),
        }
    }

    fn captured<'t>(pieces: &[&str], suffixed: bool, text: &'t str) -> Option<Vec<&'t str>> {
        let pieces: Vec<Piece> = pieces.iter().map(|text| piece(text)).collect();
        let mut spans = Vec::new();
        let native = Native::compile(&pieces, suffixed).expect("in the subset");
        native.matches(text, &mut spans).then(|| spans.into_iter().map(|span| &text[span]).collect())
    }

    #[test]
    fn greedy_and_lazy_variables_share_a_segment_as_in_python() {
        assert_eq!(captured(&["[^/]{1,}", "=-", "[^/]{1,}"], false, "a-b-c"), Some(vec!["a-b", "c"]));
        assert_eq!(captured(&["[^/].*?", "=-", "[^/]+"], false, "a-b-c"), Some(vec!["a", "b-c"]));
        assert_eq!(captured(&[r"\d+", r"\d+"], false, "123"), Some(vec!["12", "3"]));
        assert_eq!(captured(&[r"-?\d+\.\d+", "=x"], false, "-1.5x"), Some(vec!["-1.5"]));
        assert_eq!(captured(&["(?:a|ab)", "=c"], false, "abc"), Some(vec!["ab"]));
        assert_eq!(captured(&["[^/]{2}"], false, "éü"), Some(vec!["éü"]));
        assert_eq!(captured(&["[^/]{2}"], false, "éüä"), None);
        assert_eq!(captured(&["[^/].*?"], false, "a\nb"), None);
        assert_eq!(captured(&["[^/]+"], false, "a\n"), Some(vec!["a\n"]));
    }

    #[test]
    fn a_last_slash_is_split_off_unless_another_stands_before_it() {
        assert_eq!(captured(&["[^/].*?"], true, "a/b"), Some(vec!["a/b", ""]));
        assert_eq!(captured(&["[^/].*?"], true, "a/b/"), Some(vec!["a/b", "/"]));
        assert_eq!(captured(&["[^/].*?"], true, "a//"), None);
    }

    #[test]
    fn what_the_subset_lacks_is_left_to_others() {
        for regex in
            [r"\w+", "(a)", "a|b", "^a", "a$", "a++", "a**", "[[a]", "[a--b]", "a{,", r"[\w]", "]", r"\bx"]
        {
            assert!(Native::compile(&[piece(regex)], false).is_none(), "{regex}");
        }
        for regex in
            ["[a-z0-9_-]+", "[^/]*", "abc", r"a\.b", r"[\d.]{2,3}?", "(?:a|b\\-c|)", r"\D", "", "[]a]"]
        {
            let known = Native::compile(&[piece(regex)], false).is_some();
            assert_eq!(known, regex != "[]a]", "{regex}");
        }
    }

    #[test]
    fn many_variables_on_a_hostile_path_take_bounded_time() {
        let pieces: Vec<&str> = ["[^/].*?", "=x"].into_iter().cycle().take(24).collect();
        assert_eq!(captured(&pieces, false, &"x".repeat(2000).replace("xxxxxxxx", "xxxxxxx-")), None);
    }
}
