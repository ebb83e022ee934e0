//! Conditional requests (RFC 9110 §13): whether to answer, to say "not modified", or to refuse.
//!
//! Knows no files and no clock: the caller gives the current validators and the time.

use crate::{RequestHead, date};

/// The validators of the representation that would be sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Validators<'a> {
    /// Its entity tag as sent: `"abc"` or `W/"abc"`.
    pub etag: Option<&'a [u8]>,
    /// Its time of modification, in seconds since 1970.
    pub modified: Option<i64>,
}

/// What the conditions of a request demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were no condition.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates all conditions but `If-Range`, in the order of RFC 9110 §13.2.2. `now` helps to read old dates.
#[must_use]
pub fn evaluate(head: &RequestHead, current: &Validators<'_>, now: i64) -> Outcome {
    let reads = matches!(head.method(), b"GET" | b"HEAD");
    if head.field(b"if-match").is_some() {
        if !matches_any(head, b"if-match", current.etag, strong_equal) {
            return Outcome::Failed;
        }
    } else if let (Some(since), Some(modified)) =
        (single_date(head, b"if-unmodified-since", now), current.modified)
        && modified > since
    {
        return Outcome::Failed;
    }
    if head.field(b"if-none-match").is_some() {
        if matches_any(head, b"if-none-match", current.etag, weak_equal) {
            return if reads { Outcome::NotModified } else { Outcome::Failed };
        }
    } else if let (Some(since), Some(modified)) =
        (single_date(head, b"if-modified-since", now), current.modified)
        && reads
        && modified <= since
    {
        return Outcome::NotModified;
    }
    Outcome::Proceed
}

/// Whether a `Range` in this request is to be heeded: a GET whose `If-Range`, if any, holds (RFC 9110 §13.1.5, §14.2).
#[must_use]
pub fn range_applies(head: &RequestHead, current: &Validators<'_>, now: i64) -> bool {
    if head.method() != b"GET" || head.field(b"range").is_none() {
        return false;
    }
    let mut conditions = head.field_values(b"if-range");
    let Some(condition) = conditions.next() else { return true };
    if conditions.next().is_some() {
        return false;
    }
    match Tag::read(condition) {
        Some((tag, [])) => current.etag.and_then(Tag::whole).is_some_and(|etag| strong_equal(tag, etag)),
        _ => {
            // RFC 9110 §8.8.2.2: a date is a strong validator only once its second is over.
            let since = date::parse(condition, now);
            since.is_some() && since == current.modified && since.is_some_and(|since| since < now)
        }
    }
}

/// The one date under this name; none if there are several (§13.1.3: then the condition is ignored).
fn single_date(head: &RequestHead, name: &[u8], now: i64) -> Option<i64> {
    let mut values = head.field_values(name);
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    date::parse(value, now)
}

/// Whether `*` or one of the tags under this name matches the current one.
fn matches_any(
    head: &RequestHead,
    name: &[u8],
    current: Option<&[u8]>,
    equal: fn(Tag<'_>, Tag<'_>) -> bool,
) -> bool {
    let current = current.and_then(Tag::whole);
    head.field_values(name).any(|value| {
        if value == b"*" {
            return true;
        }
        current.is_some_and(|current| Tags { rest: value }.any(|tag| equal(tag, current)))
    })
}

/// `entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl<'a> Tag<'a> {
    /// The tag with which the bytes begin, and the rest.
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, quoted) = match bytes {
            [b'W' | b'w', b'/', rest @ ..] => (true, rest),
            _ => (false, bytes),
        };
        let inside = quoted.strip_prefix(b"\"")?;
        let (opaque, rest) = inside.split_at_checked(memchr::memchr(b'"', inside)?)?;
        Some((Tag { weak, opaque }, rest.get(1..).unwrap_or_default()))
    }

    fn whole(bytes: &'a [u8]) -> Option<Self> {
        Tag::read(bytes).and_then(|(tag, rest)| rest.is_empty().then_some(tag))
    }
}

/// The well-formed tags of a comma list.
struct Tags<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        loop {
            while let [b' ' | b'\t' | b',', rest @ ..] = self.rest {
                self.rest = rest;
            }
            if self.rest.is_empty() {
                return None;
            }
            let found = Tag::read(self.rest);
            let behind = found.map_or(self.rest, |(_, rest)| rest);
            let comma = memchr::memchr(b',', behind).unwrap_or(behind.len());
            let (junk, rest) = behind.split_at(comma);
            self.rest = rest;
            if let Some((tag, _)) = found
                && junk.iter().all(|byte| matches!(byte, b' ' | b'\t'))
            {
                return Some(tag);
            }
        }
    }
}

/// RFC 9110 §8.8.3.2.
fn strong_equal(one: Tag<'_>, other: Tag<'_>) -> bool {
    !one.weak && !other.weak && one.opaque == other.opaque
}

/// RFC 9110 §8.8.3.2.
fn weak_equal(one: Tag<'_>, other: Tag<'_>) -> bool {
    one.opaque == other.opaque
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    const THEN: i64 = 784_111_777;
    const NOW: i64 = 1_795_000_000;

    fn head(method: &str, fields: &[&str]) -> RequestHead {
        let text = format!("{method} / HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", fields.join("\r\n"));
        let mut head = RequestHead::new();
        assert!(matches!(head.parse(text.as_bytes(), &Limits::default()), Ok(Some(_))), "{text}");
        head
    }

    const STRONG: Validators<'_> = Validators { etag: Some(b"\"a\""), modified: Some(THEN) };
    const WEAK: Validators<'_> = Validators { etag: Some(b"W/\"a\""), modified: Some(THEN) };
    const NOTHING: Validators<'_> = Validators { etag: None, modified: None };
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    #[test]
    fn conditions_are_evaluated_in_the_order_of_the_rfc() {
        use Outcome::{Failed, NotModified, Proceed};
        for (method, fields, current, expected) in [
            ("GET", vec!["X: y"], STRONG, Proceed),
            ("GET", vec!["If-Match: \"a\""], STRONG, Proceed),
            ("GET", vec!["If-Match: \"b\", \"a\""], STRONG, Proceed),
            ("GET", vec!["If-Match: \"b\"", "If-Match: \"a\""], STRONG, Proceed),
            ("GET", vec!["If-Match: \"a\""], WEAK, Failed),
            ("GET", vec!["If-Match: W/\"a\""], WEAK, Failed),
            ("GET", vec!["If-Match: *"], STRONG, Proceed),
            ("PUT", vec!["If-Match: \"b\""], STRONG, Failed),
            ("PUT", vec!["If-Match: \"b\""], NOTHING, Failed),
            ("GET", vec!["If-None-Match: \"a\""], STRONG, NotModified),
            ("HEAD", vec!["If-None-Match: \"a\""], WEAK, NotModified),
            ("GET", vec!["If-None-Match: W/\"a\""], STRONG, NotModified),
            ("GET", vec!["If-None-Match: \"b\" junk, \"a,b\" , \"a\""], STRONG, NotModified),
            ("GET", vec!["If-None-Match: a"], STRONG, Proceed),
            ("GET", vec!["If-None-Match: *"], STRONG, NotModified),
            ("PUT", vec!["If-None-Match: *"], STRONG, Failed),
            ("GET", vec!["If-None-Match: \"b\""], NOTHING, Proceed),
            ("GET", vec![&format!("If-Modified-Since: {AT}")], STRONG, NotModified),
            ("POST", vec![&format!("If-Modified-Since: {AT}")], STRONG, Proceed),
            ("GET", vec![&format!("If-Modified-Since: {BEFORE}")], STRONG, Proceed),
            ("GET", vec!["If-Modified-Since: yesterday"], STRONG, Proceed),
            ("GET", vec![&format!("If-Modified-Since: {AT}"), "If-None-Match: \"b\""], STRONG, Proceed),
            ("GET", vec![&format!("If-Unmodified-Since: {AT}")], STRONG, Proceed),
            ("PUT", vec![&format!("If-Unmodified-Since: {BEFORE}")], STRONG, Failed),
            ("PUT", vec![&format!("If-Unmodified-Since: {BEFORE}"), "If-Match: \"a\""], STRONG, Proceed),
            ("GET", vec!["If-Match: \"b\"", "If-None-Match: \"a\""], STRONG, Failed),
        ] {
            assert_eq!(evaluate(&head(method, &fields), &current, NOW), expected, "{method} {fields:?}");
        }
    }

    #[test]
    fn a_range_needs_a_strong_validator() {
        let range = "Range: bytes=0-1";
        for (method, fields, current, expected) in [
            ("GET", vec![range], STRONG, true),
            ("HEAD", vec![range], STRONG, false),
            ("GET", vec!["If-Range: \"a\""], STRONG, false),
            ("GET", vec![range, "If-Range: \"a\""], STRONG, true),
            ("GET", vec![range, "If-Range: W/\"a\""], STRONG, false),
            ("GET", vec![range, "If-Range: \"a\""], WEAK, false),
            ("GET", vec![range, "If-Range: \"b\""], STRONG, false),
            ("GET", vec![range, &format!("If-Range: {AT}")], STRONG, true),
            ("GET", vec![range, &format!("If-Range: {BEFORE}")], STRONG, false),
            ("GET", vec![range, "If-Range: soon"], NOTHING, false),
        ] {
            assert_eq!(range_applies(&head(method, &fields), &current, NOW), expected, "{method} {fields:?}");
        }
        assert!(!range_applies(&head("GET", &[range, &format!("If-Range: {AT}")]), &STRONG, THEN));
    }
}
