//! Werkzeug's rule language: matching paths to rules, and building paths from rules.
//!
//! Implements the behaviour of `werkzeug.routing` 3.1. Knows no socket, thread or Python: a variable whose regular
//! expression is beyond [`Pattern`]'s own subset comes in through [`Search`], and a value that only its owner can
//! convert leaves as [`Value::Deferred`].
//!
//! ```
//! use hipflask_router::{Conversion, Outcome, Router, Rule, Variable};
//!
//! let id = Variable::new("id", r"\d+", Conversion::integer()).with_weight(50.0);
//! let router = Router::new(&[Rule::new("", "/user/<int:id>", &[id])?], true)?;
//! let Outcome::Found(found) = router.matches("", "/user/7", "GET", false) else { panic!("matches") };
//! assert_eq!(found.rule, 0);
//! # Ok::<(), hipflask_router::Error>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may fail loudly")
)]

mod build;
mod convert;
mod digits;
mod machine;
mod methods;
mod part;
mod pattern;
mod quote;
mod router;
mod syntax;

pub use build::{Place, Template, origin_form, redirect_url};
pub use convert::{Conversion, Limits, Value};
pub use methods::{MethodSet, MethodTable};
pub use part::Weight;
pub use pattern::{Pattern, Search, Span};
pub use quote::{quote_path, quote_query};
pub use router::{Found, MakeSearch, Outcome, Refusal, Router, Rule, Variable};
pub use syntax::{Token, merge_slashes, tokens};

/// What is wrong with a rule. Found while a map is built, never while it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A `<` that does not open a variable: `/<`, `/<int:>`, `/<1a>`.
    Malformed(String),
    /// A rule with more or fewer variables than were described for it.
    Variables(String),
    /// More than [`MethodSet::MOST`] different methods in one map.
    Methods,
    /// A regular expression outside the native subset came without a [`Search`].
    Foreign(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(rule) => write!(out, "malformed url rule: {rule}"),
            Self::Variables(rule) => write!(out, "the variables of {rule} are not those described"),
            Self::Methods => write!(out, "more than {} different methods in one map", MethodSet::MOST),
            Self::Foreign(regex) => write!(out, "no search given for the regular expression {regex}"),
        }
    }
}

impl std::error::Error for Error {}
