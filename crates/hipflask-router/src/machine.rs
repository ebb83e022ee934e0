//! The states that a path runs through.
//!
//! One state for each sequence of parts. From a state lead static edges, found by hashing, and dynamic edges, tried in
//! the order of their weight; the first way to a rule that accepts the method wins, so a way that ends nowhere is
//! walked back. In front lies a table of the paths without variables.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::part::Part;
use crate::pattern::{Pattern, Span};
use crate::router::Compiled;
use crate::{Error, MethodSet};

/// Hashes short keys quickly. Only developers choose what is in the tables, so nobody can make them collide.
#[derive(Default)]
pub(crate) struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        const FACTOR: u64 = 0x517c_c1b7_2722_0a95;
        let mut mix = |word: u64| self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(tail) {
            *to = *from;
        }
        mix(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

/// Values by text. The empty text, which every map asks for, has a place of its own: to compare it costs a `memcmp` at
/// a dangling address, which takes current processors 50 ns.
struct Table<V> {
    empty: Option<V>,
    others: HashMap<Box<str>, V, BuildHasherDefault<Quick>>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { empty: None, others: HashMap::default() }
    }
}

impl<V> Table<V> {
    fn get(&self, text: &str) -> Option<&V> {
        if text.is_empty() { self.empty.as_ref() } else { self.others.get(text) }
    }

    fn get_or_insert_with(&mut self, text: &str, make: impl FnOnce() -> V) -> &mut V {
        if text.is_empty() {
            self.empty.get_or_insert_with(make)
        } else {
            self.others.entry(text.into()).or_insert_with(make)
        }
    }
}

/// All states; the first is the root, from which the first edge takes the domain.
#[derive(Default)]
pub(crate) struct Machine {
    states: Vec<State>,
    /// Under each domain without variables, the paths without variables.
    exact: Table<Table<usize>>,
}

#[derive(Default)]
struct State {
    statics: Table<usize>,
    dynamics: Vec<Edge>,
    rules: Vec<usize>,
}

struct Edge {
    part: Part,
    pattern: Pattern,
    to: usize,
}

/// What is looked for, and what was seen on the way.
pub(crate) struct Walk<'p> {
    pub(crate) method: MethodSet,
    pub(crate) websocket: bool,
    /// The text of each variable on the way taken.
    pub(crate) texts: Vec<&'p str>,
    /// Room for a pattern's findings.
    pub(crate) spans: Vec<Span>,
    /// Methods of rules that match but for the method.
    pub(crate) allowed: MethodSet,
    /// A rule matches but for the protocol.
    pub(crate) other_protocol: bool,
}

/// Where a walk ended.
pub(crate) enum End {
    Rule(usize),
    /// At a rule that wants another slash.
    SlashMissing,
    Nowhere,
}

impl Machine {
    /// A machine that leads nowhere.
    pub(crate) fn new() -> Self {
        Self { states: vec![State::default()], exact: Table::default() }
    }

    /// Adds a rule's way: the domain's part, then the path's.
    pub(crate) fn add(
        &mut self,
        rule: usize,
        parts: &[Part],
        compile: &mut impl FnMut(&Part) -> Result<Pattern, Error>,
    ) -> Result<(), Error> {
        let mut at = 0;
        for part in parts {
            at = match part.literal() {
                Some(text) => self.static_edge(at, text),
                None => self.dynamic_edge(at, part, compile)?,
            };
        }
        if let Some(state) = self.states.get_mut(at) {
            state.rules.push(rule);
        }
        let literals: Option<Vec<&str>> = parts.iter().map(Part::literal).collect();
        if let Some((domain, path)) = literals.as_deref().and_then(<[&str]>::split_first) {
            let paths = self.exact.get_or_insert_with(domain, Table::default);
            paths.get_or_insert_with(&path.join("/"), || at);
        }
        Ok(())
    }

    /// Puts the dynamic edges in the order in which they are tried.
    pub(crate) fn sort(&mut self) {
        for state in &mut self.states {
            state.dynamics.sort_by(|one, other| one.part.weight.order(&other.part.weight));
        }
    }

    /// Walks to a rule. `path` is empty or begins with a slash.
    pub(crate) fn walk<'p>(
        &self,
        rules: &[Compiled],
        domain: &'p str,
        path: &'p str,
        walk: &mut Walk<'p>,
    ) -> End {
        let known =
            self.exact.get(domain).and_then(|paths| paths.get(path)).and_then(|&at| self.states.get(at));
        if let Some(rule) =
            known.and_then(|state| state.rules.iter().find(|&&rule| walk.would_take(rules, rule)))
        {
            return End::Rule(*rule);
        }
        let Some(root) = self.states.first() else { return End::Nowhere };
        if let Some(&to) = root.statics.get(domain) {
            match self.follow(rules, to, Some(path), walk) {
                End::Nowhere => {}
                end => return end,
            }
        }
        // A domain's variable that takes the rest of the path, too, leaves nothing for the rule behind it.
        for edge in root.dynamics.iter().filter(|edge| !edge.part.takes_rest) {
            match self.cross(rules, edge, domain, Some(path), walk) {
                End::Nowhere => {}
                end => return end,
            }
        }
        End::Nowhere
    }

    /// Goes on from a state; `rest` is what follows the last slash, or nothing if there was none.
    fn follow<'p>(&self, rules: &[Compiled], at: usize, rest: Option<&'p str>, walk: &mut Walk<'p>) -> End {
        let Some(state) = self.states.get(at) else { return End::Nowhere };
        let Some(rest) = rest else { return self.arrive(rules, state, walk) };
        let (segment, after) =
            rest.split_once('/').map_or((rest, None), |(segment, after)| (segment, Some(after)));
        if let Some(&to) = state.statics.get(segment) {
            match self.follow(rules, to, after, walk) {
                End::Nowhere => {}
                end => return end,
            }
        }
        for edge in &state.dynamics {
            let (text, after) = if edge.part.takes_rest { (rest, None) } else { (segment, after) };
            match self.cross(rules, edge, text, after, walk) {
                End::Nowhere => {}
                end => return end,
            }
        }
        if rest.is_empty() {
            let lenient = state.rules.iter().find(|&&rule| {
                rules.get(rule).is_some_and(|known| !known.strict_slashes) && walk.takes(rules, rule)
            });
            if let Some(rule) = lenient {
                return End::Rule(*rule);
            }
        }
        End::Nowhere
    }

    fn cross<'p>(
        &self,
        rules: &[Compiled],
        edge: &Edge,
        text: &'p str,
        mut after: Option<&'p str>,
        walk: &mut Walk<'p>,
    ) -> End {
        let mark = walk.texts.len();
        let mut spans = std::mem::take(&mut walk.spans);
        spans.clear();
        let matched = edge.pattern.matches(text, &mut spans);
        if matched && edge.part.suffixed && spans.pop().is_some_and(|slash| !slash.is_empty()) {
            after = Some("");
        }
        walk.texts.extend(spans.iter().map(|span| text.get(span.clone()).unwrap_or_default()));
        walk.spans = spans;
        if !matched {
            return End::Nowhere;
        }
        let end = self.follow(rules, edge.to, after, walk);
        if matches!(end, End::Nowhere) {
            walk.texts.truncate(mark);
        }
        end
    }

    fn arrive(&self, rules: &[Compiled], state: &State, walk: &mut Walk<'_>) -> End {
        if let Some(rule) = state.rules.iter().find(|&&rule| walk.takes(rules, rule)) {
            return End::Rule(*rule);
        }
        let with_slash = state.statics.get("").and_then(|&to| self.states.get(to));
        let beyond =
            with_slash.and_then(|state| state.rules.iter().find(|&&rule| walk.would_take(rules, rule)));
        match beyond {
            Some(&rule) if rules.get(rule).is_some_and(|known| known.strict_slashes) => End::SlashMissing,
            Some(&rule) => End::Rule(rule),
            None => End::Nowhere,
        }
    }

    fn static_edge(&mut self, from: usize, text: &str) -> usize {
        let next = self.states.len();
        let Some(state) = self.states.get_mut(from) else { return from };
        let to = *state.statics.get_or_insert_with(text, || next);
        self.reach(to)
    }

    fn dynamic_edge(
        &mut self,
        from: usize,
        part: &Part,
        compile: &mut impl FnMut(&Part) -> Result<Pattern, Error>,
    ) -> Result<usize, Error> {
        let next = self.states.len();
        let Some(state) = self.states.get_mut(from) else { return Ok(from) };
        if let Some(edge) = state.dynamics.iter().find(|edge| edge.part == *part) {
            return Ok(edge.to);
        }
        state.dynamics.push(Edge { part: part.clone(), pattern: compile(part)?, to: next });
        Ok(self.reach(next))
    }

    fn reach(&mut self, state: usize) -> usize {
        if state == self.states.len() {
            self.states.push(State::default());
        }
        state
    }
}

impl Walk<'_> {
    /// Whether the rule accepts the method and protocol.
    fn would_take(&self, rules: &[Compiled], rule: usize) -> bool {
        rules.get(rule).is_some_and(|known| {
            known.websocket == self.websocket
                && known.methods.is_none_or(|methods| methods.meets(self.method))
        })
    }

    /// The same; a refusal's reason is noted.
    fn takes(&mut self, rules: &[Compiled], rule: usize) -> bool {
        let Some(known) = rules.get(rule) else { return false };
        match known.methods {
            Some(methods) if !methods.meets(self.method) => self.allowed = self.allowed.union(methods),
            _ if known.websocket != self.websocket => self.other_protocol = true,
            _ => return true,
        }
        false
    }
}
