//! Byte ranges (RFC 9110 §14): which bytes of a representation a client asks for, and how to answer.
//!
//! Does not decide whether ranges apply at all (see [`conditional::range_applies`](crate::conditional::range_applies)).

use std::ops::Range;

/// What a `Range` field asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// Another unit, to be ignored: send the whole.
    Ignored,
    /// Not in the grammar, or several ranges. RFC 9110 §14.2 lets a server refuse these, and Werkzeug answers 416.
    Malformed,
    /// The range does not overlap the representation: 416.
    Unsatisfiable,
    /// These bytes: inside the representation, and not empty.
    Part(Range<u64>),
}

/// Reads a `Range` field for a representation of this length.
///
/// `Range = "bytes=" ( first "-" [ last ] / "-" suffix-length )`
#[must_use]
pub fn parse(field: &[u8], length: u64) -> Ranges {
    let Ok(text) = std::str::from_utf8(field) else { return Ranges::Malformed };
    let Some((unit, spec)) = text.split_once('=') else { return Ranges::Malformed };
    if !unit.trim_matches([' ', '\t']).eq_ignore_ascii_case("bytes") {
        return Ranges::Ignored;
    }
    let range = match spec.trim_matches([' ', '\t']).split_once('-') {
        None | Some(("", "")) => None,
        Some(("", suffix)) => number(suffix).map(|suffix| length.saturating_sub(suffix)..length),
        Some((first, "")) => number(first).map(|first| first..length),
        Some((first, last)) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Some(first..last.saturating_add(1).min(length)),
            _ => None,
        },
    };
    match range {
        None => Ranges::Malformed,
        Some(range) if range.is_empty() => Ranges::Unsatisfiable,
        Some(range) => Ranges::Part(range),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_cut_to_the_length() {
        for (field, expected) in [
            ("bytes=0-499", Ranges::Part(0..500)),
            ("bytes=500-999", Ranges::Part(500..1000)),
            ("bytes=500-", Ranges::Part(500..1000)),
            ("bytes=-1", Ranges::Part(999..1000)),
            ("bytes=-2000", Ranges::Part(0..1000)),
            ("bytes=999-99999999999999999999999", Ranges::Part(999..1000)),
            ("BYTES = 1-1 ", Ranges::Part(1..2)),
            ("bytes=0-0,2-3", Ranges::Malformed),
            ("bytes=0-0,", Ranges::Malformed),
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
    fn the_answers_name_the_bytes() {
        assert_eq!(content_range(&(0..500), 1000), "bytes 0-499/1000");
        assert_eq!(unsatisfied_range(1000), "bytes */1000");
    }
}
