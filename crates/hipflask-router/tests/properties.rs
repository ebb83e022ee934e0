//! The checks that fuzzing runs, on generated input.

#[path = "../../../fuzz/route.rs"]
#[allow(clippy::expect_used, clippy::panic, reason = "a check fails by a panic")]
mod route;

use proptest::prelude::*;

/// 2,000 cases each, or what the environment variable `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => ProptestConfig { cases: 2000, ..config },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_path_leads_somewhere(path in "[/ab.x0-9٣é-]{0,24}") {
        route::path(path.as_bytes());
    }

    #[test]
    fn any_bytes_are_a_path(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        route::path(&bytes);
        route::rule(&bytes);
    }

    #[test]
    fn any_text_is_a_rule_or_an_error(rule in r"[\[\]a-c{},0-9*+?.\\d()|^$<>:é/-]{0,16}", path in "/a/[abc/9-]{0,16}") {
        route::rule([rule, path].join("\n").as_bytes());
    }
}
