//! Cookies: the `Cookie` field read and `Set-Cookie` written as Werkzeug does it (RFC 6265 §4.1, §5.4).
//!
//! Knows no dates: `Expires` is given as text (see [`date`](crate::date)).

use std::borrow::Cow;

use crate::query::quote;
use crate::token::strip;

/// The cookies of a `Cookie` field, in order, repeated names included. Pairs without a name are left out.
#[must_use]
pub fn parse(field: &str) -> Cookies<'_> {
    Cookies { rest: field }
}

/// See [`parse`].
#[derive(Debug, Clone)]
pub struct Cookies<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Cookies<'a> {
    type Item = (&'a str, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let (name, value, rest) = split(self.rest);
            self.rest = rest;
            let name = strip(name);
            if !name.is_empty() {
                return Some((name, unquote(strip(value))));
            }
        }
        None
    }
}

/// `name [ "=" value ] ";"`: a name runs up to the first `=` or `;`, a value up to `;`, save that a quoted value which
/// fills the whole place may hold `;`. A value with a line feed in it is none: what follows its `=` is read as a cookie.
fn split(text: &str) -> (&str, &str, &str) {
    let end = memchr::memchr2(b'=', b';', text.as_bytes()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let Some(value) = rest.strip_prefix('=') else {
        return (name, "", skip_space(rest.get(1..).unwrap_or_default()));
    };
    let value = skip_space(value);
    if let Some(length) = quoted_length(value.as_bytes()) {
        let (quoted, behind) = value.split_at(length);
        let behind = skip_space(behind);
        if let Some(rest) = behind.strip_prefix(';').or(behind.is_empty().then_some("")) {
            return (name, quoted, skip_space(rest));
        }
    }
    let end = memchr::memchr(b';', value.as_bytes()).unwrap_or(value.len());
    let (inside, rest) = value.split_at(end);
    let inside = inside.trim_end_matches(ASCII_SPACE);
    if memchr::memchr(b'\n', inside.as_bytes()).is_some() {
        return ("", "", value);
    }
    (name, inside, skip_space(rest.get(1..).unwrap_or_default()))
}

const ASCII_SPACE: [char; 6] = [' ', '\t', '\n', '\r', '\x0b', '\x0c'];

fn skip_space(text: &str) -> &str {
    text.trim_start_matches(ASCII_SPACE)
}

/// The length of the quoted string, quotes included, with which the bytes begin.
fn quoted_length(bytes: &[u8]) -> Option<usize> {
    let mut inside = bytes.strip_prefix(b"\"")?;
    loop {
        match inside {
            [b'\\', b'\n', ..] => return None,
            [b'\\', _, rest @ ..] => inside = rest,
            [b'"', rest @ ..] => return Some(bytes.len() - rest.len()),
            [_, rest @ ..] => inside = rest,
            [] => return None,
        }
    }
}

/// Takes the quotes off a value and undoes `\"`, `\\` and octal escapes such as `\303\251`.
fn unquote(value: &str) -> Cow<'_, str> {
    let [b'"', inside @ .., b'"'] = value.as_bytes() else { return Cow::Borrowed(value) };
    if memchr::memchr(b'\\', inside).is_none() {
        return Cow::Borrowed(value.get(1..value.len() - 1).unwrap_or_default());
    }
    let mut out = Vec::with_capacity(inside.len());
    let mut rest = inside;
    loop {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = behind;
            }
            [b'\\', byte @ (0..=9 | 11..), behind @ ..] | [byte, behind @ ..] => {
                out.push(*byte);
                rest = behind;
            }
            [] => break,
        }
    }
    Cow::Owned(match String::from_utf8(out) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// What a `Set-Cookie` field says beside name and value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    /// Already in ASCII (IDNA).
    pub domain: Option<&'a str>,
    /// A date in the form of [`date::format`](crate::date::format), or whatever else the application gave.
    pub expires: Option<&'a str>,
    /// In seconds.
    pub max_age: Option<i64>,
    /// Written percent-encoded.
    pub path: Option<&'a str>,
    /// Only over TLS.
    pub secure: bool,
    /// Not for scripts.
    pub http_only: bool,
    /// `Strict`, `Lax` or `None`.
    pub same_site: Option<&'a str>,
    /// Kept apart for each embedding site.
    pub partitioned: bool,
}

/// Writes the value of a `Set-Cookie` field, with attributes in Werkzeug's order.
pub fn dump(out: &mut Vec<u8>, name: &str, value: &str, attributes: &Attributes<'_>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(quote_value(value).as_bytes());
    let max_age = attributes.max_age.map(|seconds| seconds.to_string());
    let path = attributes.path.map(|path| quote(path, b"%!$&'()*+,/:=@"));
    let flag = |set: bool| set.then_some("");
    for (name, value) in [
        ("; Domain=", attributes.domain),
        ("; Expires=", attributes.expires),
        ("; Max-Age=", max_age.as_deref()),
        ("; Secure", flag(attributes.secure || attributes.partitioned)),
        ("; HttpOnly", flag(attributes.http_only)),
        ("; Path=", path.as_deref()),
        ("; SameSite=", attributes.same_site),
        ("; Partitioned", flag(attributes.partitioned)),
    ] {
        if let Some(value) = value {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value.as_bytes());
        }
    }
}

/// A cookie's value as it is sent: plain if every byte may stand there, else quoted, with octal escapes.
#[must_use]
pub fn quote_value(value: &str) -> Cow<'_, str> {
    if value.bytes().all(is_plain) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len() + 8);
    out.push('"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(byte as char);
            }
            // 0x1a to 0x1f stay as they are, as in Werkzeug, whose set ends at 0x19.
            b',' | b';' | 0..=0x19 | 0x7f.. => {
                out.push('\\');
                for digit in [byte >> 6, byte >> 3 & 7, byte & 7] {
                    out.push((b'0' + digit) as char);
                }
            }
            _ => out.push(byte as char),
        }
    }
    out.push('"');
    Cow::Owned(out)
}

/// What needs no quotes in a value. Werkzeug's set, which is RFC 6265's `cookie-octet`.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(field: &str) -> Vec<(&str, String)> {
        parse(field).map(|(name, value)| (name, value.into_owned())).collect()
    }

    #[test]
    fn cookies_are_split_and_unquoted() {
        for (field, expected) in [
            ("a=b; c=d", vec![("a", "b"), ("c", "d")]),
            ("a=b;a=c", vec![("a", "b"), ("a", "c")]),
            ("a=b=c; d", vec![("a", "b=c"), ("d", "")]),
            (" a = b ;; =c;", vec![("a", "b")]),
            (r#"a="b;c"; d="e\"f""#, vec![("a", "b;c"), ("d", "e\"f")]),
            (r#"a="b"c; d="e"#, vec![("a", "\"b\"c"), ("d", "\"e")]),
            (r#"a="\303\251\400\8""#, vec![("a", "é4008")]),
            (r#"a="\377""#, vec![("a", "\u{fffd}")]),
            ("", vec![]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
            assert_eq!(cookies(field), expected, "{field}");
        }
    }

    #[test]
    fn attributes_come_in_werkzeugs_order() {
        let mut out = Vec::new();
        let all = Attributes {
            domain: Some("example.org"),
            expires: Some("Sun, 06 Nov 1994 08:49:37 GMT"),
            max_age: Some(-1),
            path: Some("/a b"),
            secure: true,
            http_only: true,
            same_site: Some("Lax"),
            partitioned: true,
        };
        dump(&mut out, "k", "a b", &all);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "k=\"a b\"; Domain=example.org; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Max-Age=-1; Secure; HttpOnly; \
             Path=/a%20b; SameSite=Lax; Partitioned"
        );
        let mut out = Vec::new();
        dump(&mut out, "k", "v", &Attributes { partitioned: true, ..Attributes::default() });
        assert_eq!(out, b"k=v; Secure; Partitioned");
    }

    #[test]
    fn quotes_without_end_take_linear_time() {
        let field = "a=\"\\\";".repeat(200_000);
        assert!(parse(&field).count() > 0);
    }
}
