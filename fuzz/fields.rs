//! What must hold for any value of the small fields. Run by the fuzz target, and on generated input by `cargo test`.

use hipflask_http::conditional::{self, Outcome, Validators};
use hipflask_http::network::Networks;
use hipflask_http::range::{self, Ranges};
use hipflask_http::trace::TraceParent;
use hipflask_http::{Accepted, Coding};
use hipflask_http::{Limits, RequestHead, date, iri};

/// Somewhere in 2026.
const NOW: i64 = 1_790_000_000;

/// All of them, each with these bytes.
pub(crate) fn fields(data: &[u8]) {
    codings(data);
    ranges(data);
    traces(data);
    dates(data);
    conditions(data);
    let text = String::from_utf8_lossy(data);
    iris(&text);
    networks(&text);
}

/// A list means the same in one field and in several, and what is chosen was offered.
fn codings(data: &[u8]) {
    let whole = Accepted::of(std::iter::once(data));
    for (at, _) in data.iter().enumerate().filter(|(_, byte)| **byte == b',') {
        assert_eq!(Accepted::of([&data[..at], &data[at + 1..]].into_iter()), whole);
    }
    assert!(whole.best(Coding::ALL).is_none() || whole.is_any());
    for coding in Coding::ALL {
        assert!(whole.best([coding]).is_none_or(|best| best == coding));
    }
    assert_eq!(whole.best([]), None);
}

/// A part lies inside, is not empty, and is what its own name asks for.
fn ranges(data: &[u8]) {
    for length in [0, 1, 1000, u64::MAX] {
        if let Ranges::Part(part) = range::parse(data, length) {
            assert!(part.start < part.end && part.end <= length);
            let again = format!("bytes={}-{}", part.start, part.end - 1);
            assert_eq!(range::parse(again.as_bytes(), length), Ranges::Part(part.clone()));
            assert!(range::content_range(&part, length).ends_with(&format!("/{length}")));
        }
    }
}

/// What was read is written as it came.
fn traces(data: &[u8]) {
    if let Some(found) = TraceParent::parse(data) {
        let parent: String = found.parent.iter().map(|byte| format!("{byte:02x}")).collect();
        let again = format!("00-{}-{parent}-{:02x}", found.trace, found.flags);
        assert_eq!(TraceParent::parse(again.as_bytes()), Some(found));
        assert_eq!(again.as_bytes()[3..], data[3..again.len()]);
    }
}

/// A date that was read is written as one that is read alike.
fn dates(data: &[u8]) {
    if let Some(seconds) = date::parse(data, NOW) {
        assert_eq!(date::parse(&date::format(seconds), NOW), Some(seconds));
    }
}

/// Conditions are judged without a panic; those that cannot be met by any representation fail one without validators.
fn conditions(data: &[u8]) {
    let nothing = Validators::default();
    let current = Validators { etag: Some(b"\"a\""), modified: Some(NOW - 1) };
    for name in ["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"] {
        for method in ["GET", "PUT"] {
            let start = format!("{method} / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n{name}: ");
            let mut head = RequestHead::new();
            let text = [start.as_bytes(), data, b"\r\n\r\n"].concat();
            if !matches!(head.parse(&text, &Limits::default()), Ok(Some(_))) {
                return;
            }
            for validators in [nothing, current] {
                let outcome = conditional::evaluate(&head, &validators, NOW);
                assert!(method == "GET" || outcome != Outcome::NotModified);
                let applies = conditional::range_applies(&head, &validators, NOW);
                assert!(method == "GET" || !applies);
            }
        }
    }
}

/// Nothing that is shown ends the part. It keeps its meaning, so that shown again it stays the same; a percent sign that
/// begins no escape has none, and may get one from what comes behind it, as in Werkzeug.
fn iris(text: &str) {
    let digit = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
    let has_meaning = text.match_indices('%').all(|(at, _)| {
        let mut behind = text.bytes().skip(at + 1);
        digit(behind.next()) && digit(behind.next())
    });
    let (mut path, mut query) = (String::new(), String::new());
    iri::push_path(&mut path, text);
    iri::push_query(&mut query, text.as_bytes());
    for (once, push_again) in [
        (&path, iri::push_path as fn(&mut String, &str)),
        (&query, |out, part| iri::push_query(out, part.as_bytes())),
    ] {
        assert!(
            !once.contains(|char: char| char.is_ascii_control() || matches!(char, ' ' | '#')),
            "{once:?}"
        );
        let mut twice = String::new();
        push_again(&mut twice, once);
        assert!(!has_meaning || &twice == once, "{once:?} becomes {twice:?}");
    }
    assert!(!path.contains('?'));
}

/// A network that is accepted holds its own address, and is accepted as it is shown.
fn networks(text: &str) {
    if let Ok(networks) = Networks::parse([text]) {
        let shown: Vec<String> = networks.texts().collect();
        let again = Networks::parse(shown.iter().map(String::as_str));
        assert_eq!(again.map(|again| again.texts().collect()), Ok(shown.clone()));
        for shown in shown {
            let address = shown.split('/').next().unwrap_or_default();
            assert!(
                address.parse().is_ok_and(|address| networks.contains(address)) || networks.contains_unix()
            );
        }
    }
}
