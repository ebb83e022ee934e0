//! Byte ranges (RFC 9110 §14): which bytes of a representation a client asks for, and how to answer.
//!
//! Does not decide whether ranges apply at all (see [`conditional::range_applies`](crate::conditional::range_applies)).

use std::ops::Range;

/// Most ranges that are answered. More than a few serve nobody but an attacker (RFC 9110 §14.2, §17.15).
pub const MOST_RANGES: usize = 16;

/// What a `Range` field asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// Another unit, to be ignored: send the whole.
    Ignored,
    /// Not in the grammar, or too many. RFC 9110 lets a server ignore or refuse these; Werkzeug answers 416.
    Malformed,
    /// None of the ranges overlaps the representation: 416.
    Unsatisfiable,
    /// These bytes, in the order asked for, each range inside the representation and not empty.
    Parts(Vec<Range<u64>>),
}

/// Reads a `Range` field for a representation of this length.
///
/// `Range = "bytes=" 1#( first "-" [ last ] / "-" suffix-length )`
#[must_use]
pub fn parse(field: &[u8], length: u64) -> Ranges {
    let Ok(text) = std::str::from_utf8(field) else { return Ranges::Malformed };
    let Some((unit, set)) = text.split_once('=') else { return Ranges::Malformed };
    if !unit.trim_matches([' ', '\t']).eq_ignore_ascii_case("bytes") {
        return Ranges::Ignored;
    }
    let mut parts = Vec::new();
    let mut count = 0;
    for spec in set.split(',').map(|spec| spec.trim_matches([' ', '\t'])) {
        count += 1;
        if count > MOST_RANGES {
            return Ranges::Malformed;
        }
        let Some((first, last)) = spec.split_once('-') else { return Ranges::Malformed };
        let range = match (first, last) {
            ("", "") => return Ranges::Malformed,
            ("", suffix) => number(suffix).map(|suffix| length.saturating_sub(suffix)..length),
            (first, "") => number(first).map(|first| first..length),
            (first, last) => match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => Some(first..last.saturating_add(1).min(length)),
                _ => None,
            },
        };
        let Some(range) = range else { return Ranges::Malformed };
        if range.start < range.end {
            parts.push(range);
        }
    }
    if parts.is_empty() { Ranges::Unsatisfiable } else { Ranges::Parts(parts) }
}

/// Digits only; more than 64 bits count as the largest number.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// The value of `Content-Range` for a part.
#[must_use]
pub fn content_range(part: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", part.start, part.end.saturating_sub(1))
}

/// The value of `Content-Range` in a 416.
#[must_use]
pub fn unsatisfied_range(length: u64) -> String {
    format!("bytes */{length}")
}

/// What stands before a part of a `multipart/byteranges` body (RFC 9110 §14.6).
#[must_use]
pub fn part_head(boundary: &str, content_type: &str, part: &Range<u64>, length: u64) -> String {
    let range = content_range(part, length);
    format!("\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {range}\r\n\r\n")
}

/// What stands behind the last part.
#[must_use]
pub fn last_boundary(boundary: &str) -> String {
    format!("\r\n--{boundary}--\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_cut_to_the_length() {
        let parts = |parts: &[(u64, u64)]| Ranges::Parts(parts.iter().map(|&(from, to)| from..to).collect());
        for (field, expected) in [
            ("bytes=0-499", parts(&[(0, 500)])),
            ("bytes=500-999", parts(&[(500, 1000)])),
            ("bytes=500-", parts(&[(500, 1000)])),
            ("bytes=-1", parts(&[(999, 1000)])),
            ("bytes=-2000", parts(&[(0, 1000)])),
            ("bytes=999-99999999999999999999999", parts(&[(999, 1000)])),
            ("BYTES = 1-1 , 3-4", parts(&[(1, 2), (3, 5)])),
            ("bytes=1000-, 0-0", parts(&[(0, 1)])),
            ("bytes=1000-", Ranges::Unsatisfiable),
            ("bytes=-0", Ranges::Unsatisfiable),
            ("items=0-1", Ranges::Ignored),
            ("bytes", Ranges::Malformed),
            ("bytes=", Ranges::Malformed),
            ("bytes=-", Ranges::Malformed),
            ("bytes=2-1", Ranges::Malformed),
            ("bytes=+1-2", Ranges::Malformed),
            ("bytes=--1", Ranges::Malformed),
            ("bytes=1-2-3", Ranges::Malformed),
            ("bytes=a-b", Ranges::Malformed),
            ("bytes=1 -2", Ranges::Malformed),
        ] {
            assert_eq!(parse(field.as_bytes(), 1000), expected, "{field}");
        }
        assert_eq!(parse(b"bytes=0-", 0), Ranges::Unsatisfiable);
    }

    #[test]
    fn more_ranges_than_anybody_needs_are_refused() {
        let field = format!("bytes={}", vec!["0-0"; MOST_RANGES + 1].join(","));
        assert_eq!(parse(field.as_bytes(), 10), Ranges::Malformed);
    }

    #[test]
    fn the_answers_name_the_bytes() {
        assert_eq!(content_range(&(0..500), 1000), "bytes 0-499/1000");
        assert_eq!(unsatisfied_range(1000), "bytes */1000");
        assert_eq!(
            part_head("b", "text/plain", &(1..2), 3),
            "\r\n--b\r\nContent-Type: text/plain\r\nContent-Range: bytes 1-1/3\r\n\r\n"
        );
    }
}
