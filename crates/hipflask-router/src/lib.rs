//! Werkzeug's rule language: matching paths to rules, and building paths from rules.
//!
//! Knows no socket, thread or Python; converters written by users come in through `trait Convert`.
#![forbid(unsafe_code)]
