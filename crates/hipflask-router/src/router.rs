//! A map of rules, compiled; never changed after that.

use std::borrow::Cow;
use std::sync::Arc;

use crate::convert::{Conversion, Value};
use crate::machine::{End, Machine, Walk};
use crate::part::{Part, parts};
use crate::pattern::{Native, Pattern, Piece, Search};
use crate::syntax::{merge_slashes, tokens};
use crate::{Error, MethodSet, MethodTable};

/// A variable of a rule, as its converter describes it.
#[derive(Debug, Clone)]
pub struct Variable {
    /// What the value is called.
    pub name: Box<str>,
    /// What the text must look like, in Python's syntax.
    pub regex: String,
    /// Lighter variables are tried earlier.
    pub weight: f64,
    /// Whether the variable stays within one segment.
    pub isolating: bool,
    /// How the text becomes a value.
    pub conversion: Conversion,
}

impl Variable {
    /// A variable within one segment, of the default weight.
    #[must_use]
    pub fn new(name: &str, regex: &str, conversion: Conversion) -> Self {
        Self { name: name.into(), regex: regex.into(), weight: 100.0, isolating: true, conversion }
    }

    /// The same with another weight.
    #[must_use]
    pub fn with_weight(self, weight: f64) -> Self {
        Self { weight, ..self }
    }

    /// The same, but taking slashes.
    #[must_use]
    pub fn with_slashes(self) -> Self {
        Self { isolating: false, ..self }
    }
}

/// Makes a [`Search`] of a regular expression; the flag says whether it ends with an optional slash.
pub type MakeSearch<'a> = dyn FnMut(&str, bool) -> Option<Arc<dyn Search>> + 'a;

/// A rule to be compiled into a [`Router`].
#[derive(Debug, Clone)]
pub struct Rule {
    domain: Vec<Part>,
    path: Vec<Part>,
    conversions: Vec<Conversion>,
    /// The methods that it accepts; `None` for all.
    pub methods: Option<Vec<Box<str>>>,
    /// For WebSocket handshakes instead of ordinary requests.
    pub websocket: bool,
    /// A path that lacks only a slash at its end is redirected, not served.
    pub strict_slashes: bool,
    /// A path that matches once doubled slashes are merged is redirected.
    pub merge_slashes: bool,
    /// Never matches.
    pub build_only: bool,
}

impl Rule {
    /// A rule for all methods with strict and merged slashes.
    ///
    /// Args: the subdomain's (or host's) rule, the path's rule, and their variables in that order.
    ///
    /// # Errors
    /// [`Error::Malformed`], or [`Error::Variables`] if `variables` are not those that the rules name.
    pub fn new(domain: &str, path: &str, variables: &[Variable]) -> Result<Self, Error> {
        let mut left = variables.iter();
        let domain = parts(&tokens(domain)?, &mut left)?;
        let path_parts = parts(&tokens(path)?, &mut left)?;
        if left.next().is_some() {
            return Err(Error::Variables(path.to_owned()));
        }
        Ok(Self {
            domain,
            path: path_parts,
            conversions: variables.iter().map(|variable| variable.conversion).collect(),
            methods: None,
            websocket: false,
            strict_slashes: true,
            merge_slashes: true,
            build_only: false,
        })
    }
}

/// What matching needs to know of a rule.
pub(crate) struct Compiled {
    pub(crate) methods: Option<MethodSet>,
    pub(crate) websocket: bool,
    pub(crate) strict_slashes: bool,
    merge_slashes: bool,
    conversions: Vec<Conversion>,
}

/// A compiled map. Immutable: share it between threads, and replace it when the map changes.
pub struct Router {
    machine: Machine,
    rules: Vec<Compiled>,
    methods: MethodTable,
    merge_slashes: bool,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<'p> {
    /// A rule.
    Found(Found<'p>),
    /// Another path, decoded: the same with a slash at its end, or with doubled slashes merged.
    Redirect(String),
    /// Nothing.
    Refused(Refusal),
}

/// A rule that matches, and its variables' values.
#[derive(Debug, Clone, PartialEq)]
pub struct Found<'p> {
    /// The rule's place in the list that the router was made of.
    pub rule: usize,
    /// The values, in the order of the rule's variables.
    pub values: Vec<Value<'p>>,
    /// The answer should the owner of a [`Value::Deferred`] turn it down.
    pub otherwise: Refusal,
}

/// Why no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Some rule would with one of these methods. Status 405.
    Method(MethodSet),
    /// Some rule would if the request were a WebSocket handshake, or were not. Status 400.
    Protocol,
    /// Status 404.
    NotFound,
}

impl Found<'_> {
    /// The same, independent of the path.
    #[must_use]
    pub fn into_owned(self) -> Found<'static> {
        let values = self.values.into_iter().map(Value::into_owned).collect();
        Found { rule: self.rule, values, otherwise: self.otherwise }
    }
}

impl Outcome<'_> {
    /// The same, independent of the path.
    #[must_use]
    pub fn into_owned(self) -> Outcome<'static> {
        match self {
            Self::Found(found) => Outcome::Found(found.into_owned()),
            Self::Redirect(path) => Outcome::Redirect(path),
            Self::Refused(refusal) => Outcome::Refused(refusal),
        }
    }
}

impl Router {
    /// Compiles rules whose regular expressions are all within the native subset.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(rules: &[Rule], merge_slashes: bool) -> Result<Self, Error> {
        Self::with_search(rules, merge_slashes, &mut |_, _| None)
    }

    /// Compiles rules. `search` is called with the regular expression of each part that is outside the native subset,
    /// its variables in groups named `v0`, `v1`, …, and tells how to match it; if the flag is set, the last unnamed
    /// group holds an optional slash, whose span [`Search`] adds.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn with_search(
        rules: &[Rule],
        merge_slashes: bool,
        search: &mut MakeSearch<'_>,
    ) -> Result<Self, Error> {
        let mut router = Self {
            machine: Machine::new(),
            rules: Vec::with_capacity(rules.len()),
            methods: MethodTable::default(),
            merge_slashes,
        };
        let mut compile = |part: &Part| {
            if let Some(native) = Native::compile(&part.pieces, part.suffixed) {
                return Ok(Pattern::Native(native));
            }
            let regex = regex(part);
            search(&regex, part.suffixed).map(Pattern::Foreign).ok_or(Error::Foreign(regex))
        };
        for (at, rule) in rules.iter().enumerate() {
            let methods = match &rule.methods {
                Some(methods) => Some(router.methods.add(methods.iter().map(|method| &**method))?),
                None => None,
            };
            router.rules.push(Compiled {
                methods,
                websocket: rule.websocket,
                strict_slashes: rule.strict_slashes,
                merge_slashes: rule.merge_slashes,
                conversions: rule.conversions.clone(),
            });
            // A request's domain is one part; a rule with a slash in its domain can only be built.
            if !rule.build_only && rule.domain.len() == 1 {
                let parts: Vec<Part> = rule.domain.iter().chain(&rule.path).cloned().collect();
                router.machine.add(at, &parts, &mut compile)?;
            }
        }
        router.machine.sort();
        Ok(router)
    }

    /// Finds the rule for a request.
    ///
    /// Args: the subdomain (with host matching: the host), the decoded path, the method in capitals, and whether the
    /// request is a WebSocket handshake. Slashes at the path's begin count as one.
    #[must_use]
    pub fn matches<'p>(&self, domain: &'p str, path: &'p str, method: &str, websocket: bool) -> Outcome<'p> {
        let stripped = path.trim_start_matches('/');
        let slash = path.len() - stripped.len();
        match path.get(slash.saturating_sub(1)..) {
            Some(path) if slash > 0 || path.is_empty() => self.look(domain, path, method, websocket),
            _ => self.look(domain, &format!("/{path}"), method, websocket).into_owned(),
        }
    }

    /// The set of one method; empty if no rule names it.
    #[must_use]
    pub fn method(&self, name: &str) -> MethodSet {
        self.methods.one(name)
    }

    /// The methods that a rule accepts; `None` for all.
    #[must_use]
    pub fn rule_methods(&self, rule: usize) -> Option<MethodSet> {
        self.rules.get(rule)?.methods
    }

    /// The names of methods in a set, sorted.
    #[must_use]
    pub fn method_names(&self, set: MethodSet) -> Vec<&str> {
        self.methods.names(set)
    }

    fn look<'p>(&self, domain: &'p str, path: &'p str, method: &str, websocket: bool) -> Outcome<'p> {
        let mut walk = Walk {
            method: self.methods.one(method),
            websocket,
            texts: Vec::new(),
            spans: Vec::new(),
            allowed: MethodSet::default(),
            other_protocol: false,
        };
        match self.machine.walk(&self.rules, domain, path, &mut walk) {
            End::Rule(rule) => self.found(rule, &walk),
            End::SlashMissing => Outcome::Redirect(format!("{path}/")),
            End::Nowhere => match merge_slashes(path) {
                Cow::Owned(merged) if self.merge_slashes => self.look_merged(domain, merged, walk),
                _ => Outcome::Refused(walk.refusal()),
            },
        }
    }

    fn look_merged(&self, domain: &str, mut path: String, before: Walk<'_>) -> Outcome<'static> {
        let mut walk = Walk { texts: Vec::new(), ..before };
        match self.machine.walk(&self.rules, domain, &path, &mut walk) {
            End::Rule(rule) if self.rules.get(rule).is_some_and(|known| known.merge_slashes) => {
                Outcome::Redirect(path)
            }
            End::SlashMissing => {
                path.push('/');
                Outcome::Redirect(path)
            }
            End::Rule(_) | End::Nowhere => Outcome::Refused(walk.refusal()),
        }
    }

    fn found<'p>(&self, rule: usize, walk: &Walk<'p>) -> Outcome<'p> {
        let conversions = self.rules.get(rule).map(|known| known.conversions.as_slice()).unwrap_or_default();
        let values: Option<Vec<Value<'p>>> =
            conversions.iter().zip(&walk.texts).map(|(conversion, text)| conversion.convert(text)).collect();
        match values {
            Some(values) => Outcome::Found(Found { rule, values, otherwise: walk.refusal() }),
            None => Outcome::Refused(walk.refusal()),
        }
    }
}

impl Walk<'_> {
    fn refusal(&self) -> Refusal {
        if !self.allowed.is_empty() {
            Refusal::Method(self.allowed)
        } else if self.other_protocol {
            Refusal::Protocol
        } else {
            Refusal::NotFound
        }
    }
}

/// A part as one regular expression in Python's syntax.
fn regex(part: &Part) -> String {
    let mut regex = String::new();
    let mut variables = 0;
    for piece in &part.pieces {
        match piece {
            Piece::Literal(text) => {
                for found in text.chars() {
                    if found.is_ascii() && !found.is_ascii_alphanumeric() && found != '_' {
                        regex.push('\\');
                    }
                    regex.push(found);
                }
            }
            Piece::Variable(inner) => {
                regex.push_str(&format!("(?P<v{variables}>{inner})"));
                variables += 1;
            }
        }
    }
    regex.push_str(if part.suffixed { r"(?<!/)(/?)\Z" } else { r"\Z" });
    regex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> Variable {
        Variable::new(name, "[^/]{1,}", Conversion::Text)
    }

    fn integer(name: &str) -> Variable {
        Variable::new(name, r"\d+", Conversion::integer()).with_weight(50.0)
    }

    fn path(name: &str) -> Variable {
        Variable::new(name, "[^/].*?", Conversion::Text).with_weight(200.0).with_slashes()
    }

    fn rule(path: &str, variables: &[Variable]) -> Rule {
        Rule::new("", path, variables).unwrap()
    }

    fn only(rule: Rule, methods: &[&str]) -> Rule {
        Rule { methods: Some(methods.iter().map(|&method| method.into()).collect()), ..rule }
    }

    fn found(router: &Router, path: &str) -> Option<usize> {
        match router.matches("", path, "GET", false) {
            Outcome::Found(found) => Some(found.rule),
            _ => None,
        }
    }

    #[test]
    fn the_most_specific_rule_wins_whatever_the_order() {
        let rules = [
            rule("/<path:p>", &[path("p")]),
            rule("/<s>", &[text("s")]),
            rule("/<int:i>", &[integer("i")]),
            rule("/x<s>", &[text("s")]),
            rule("/exact", &[]),
            rule("/<path:p>/edit", &[path("p")]),
        ];
        let router = Router::new(&rules, true).unwrap();
        let paths = ["/exact", "/xy", "/12", "/word", "/a/b", "/a/b/edit", "/"];
        let rules = paths.map(|path| found(&router, path));
        assert_eq!(rules, [Some(4), Some(3), Some(2), Some(1), Some(0), Some(5), None]);
    }

    #[test]
    fn a_way_that_ends_nowhere_is_walked_back() {
        let rules = [rule("/a/b", &[]), rule("/<s>/c", &[text("s")])];
        let router = Router::new(&rules, true).unwrap();
        assert_eq!(found(&router, "/a/c"), Some(1));
        let Outcome::Found(found) = router.matches("", "/a/c", "GET", false) else { panic!() };
        assert_eq!(found.values, [Value::Text("a".into())]);
    }

    #[test]
    fn a_missing_slash_redirects_where_slashes_are_strict() {
        let lenient = Rule { strict_slashes: false, ..rule("/l/", &[]) };
        let leaf = Rule { strict_slashes: false, ..rule("/leaf", &[]) };
        let rules = [rule("/s/", &[]), lenient, leaf, rule("/p/<path:p>/", &[path("p")]), rule("/", &[])];
        let router = Router::new(&rules, true).unwrap();
        assert_eq!(router.matches("", "/s", "GET", false), Outcome::Redirect("/s/".into()));
        assert_eq!(router.matches("", "/p/a/b", "GET", false), Outcome::Redirect("/p/a/b/".into()));
        assert_eq!(router.matches("", "", "GET", false), Outcome::Redirect("/".into()));
        let paths = ["/s/", "/l", "/l/", "/leaf", "/leaf/", "/p/a/b/", "///"];
        let rules = paths.map(|path| found(&router, path));
        assert_eq!(rules, [Some(0), Some(1), Some(1), Some(2), Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn doubled_slashes_redirect_to_the_merged_path() {
        let kept = Rule { merge_slashes: false, ..rule("/no/merge", &[]) };
        let router = Router::new(&[rule("/a/b", &[]), rule("/c/", &[]), kept], true).unwrap();
        assert_eq!(router.matches("", "/a//b", "GET", false), Outcome::Redirect("/a/b".into()));
        assert_eq!(router.matches("", "a//b", "GET", false), Outcome::Redirect("/a/b".into()));
        assert_eq!(router.matches("", "/c//", "GET", false), Outcome::Redirect("/c/".into()));
        assert_eq!(router.matches("", "/no//merge", "GET", false), Outcome::Refused(Refusal::NotFound));
        assert_eq!(found(&router, "//a/b"), Some(0));
    }

    #[test]
    fn a_wrong_method_names_the_right_ones() {
        let rules = [
            only(rule("/x", &[]), &["POST"]),
            only(rule("/<s>", &[text("s")]), &["DELETE", "GET"]),
            Rule { websocket: true, ..rule("/ws", &[]) },
        ];
        let router = Router::new(&rules, true).unwrap();
        assert_eq!(found(&router, "/x"), Some(1));
        let Outcome::Refused(Refusal::Method(allowed)) = router.matches("", "/x", "BREW", false) else {
            panic!()
        };
        assert_eq!(router.method_names(allowed), ["DELETE", "GET", "POST"]);
        assert_eq!(
            Router::new(&rules[2..], true).unwrap().matches("", "/ws", "GET", false),
            Outcome::Refused(Refusal::Protocol)
        );
    }

    #[test]
    fn subdomains_match_by_text_or_by_variable() {
        let rules = [Rule::new("www", "/", &[]).unwrap(), Rule::new("<s>", "/", &[text("s")]).unwrap()];
        let router = Router::new(&rules, true).unwrap();
        let rule_of = |domain| match router.matches(domain, "/", "GET", false) {
            Outcome::Found(found) => Some(found.rule),
            _ => None,
        };
        assert_eq!(["www", "me", ""].map(rule_of), [Some(0), Some(1), None]);
    }

    #[test]
    fn a_number_outside_its_limits_matches_nothing() {
        let limits = crate::Limits { max: Some(9), ..crate::Limits::none() };
        let number = Variable { conversion: Conversion::Integer(limits), ..integer("n") };
        let router =
            Router::new(&[rule("/<int(max=9):n>", &[number]), rule("/<s>", &[text("s")])], true).unwrap();
        assert_eq!(found(&router, "/9"), Some(0));
        assert_eq!(router.matches("", "/10", "GET", false), Outcome::Refused(Refusal::NotFound));
    }
}
