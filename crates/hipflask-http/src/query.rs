//! Percent-encoding and `application/x-www-form-urlencoded`, with Werkzeug's results.
//!
//! Escapes that are no escapes (`%zz`, a lone `%`) stay as they are. Escapes that decode to bytes which are not UTF-8
//! stay percent-encoded. Everything takes time linear in the input.

use std::borrow::Cow;
use std::fmt;
use std::str::Utf8Error;

/// Undoes percent-encoding, byte for byte. `+` means itself.
#[must_use]
pub fn percent_decode(bytes: &[u8]) -> Cow<'_, [u8]> {
    match memchr::memchr(b'%', bytes) {
        None => Cow::Borrowed(bytes),
        Some(_) => Cow::Owned(decode(bytes, false)),
    }
}

/// Undoes percent-encoding of text; with `plus`, `+` means a space.
///
/// Bytes that are not UTF-8 once decoded come out percent-encoded, in upper case.
#[must_use]
pub fn unquote(text: &str, plus: bool) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let special = if plus { memchr::memchr2(b'%', b'+', bytes) } else { memchr::memchr(b'%', bytes) };
    if special.is_none() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(match String::from_utf8(decode(bytes, plus)) {
        Ok(text) => text,
        Err(error) => requote(error.as_bytes()),
    })
}

fn decode(mut bytes: &[u8], plus: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    loop {
        match bytes {
            [] => return out,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(nibble(*high) << 4 | nibble(*low));
                bytes = rest;
            }
            [b'%', rest @ ..] => {
                out.push(b'%');
                bytes = rest;
            }
            [b'+', rest @ ..] if plus => {
                out.push(b' ');
                bytes = rest;
            }
            _ => {
                // The first byte is none of the special ones, or a plus that means itself.
                let behind = bytes.get(1..).unwrap_or_default();
                let special =
                    if plus { memchr::memchr2(b'%', b'+', behind) } else { memchr::memchr(b'%', behind) };
                let (plain, rest) = bytes.split_at(special.map_or(bytes.len(), |at| at + 1));
                out.extend_from_slice(plain);
                bytes = rest;
            }
        }
    }
}

pub(crate) fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a' - 10) & 15,
    }
}

/// Percent-encodes everything but letters, digits, `_.-~` and `safe`.
#[must_use]
pub fn quote<'a>(text: &'a str, safe: &[u8]) -> Cow<'a, str> {
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) || (byte < 128 && safe.contains(&byte))
    };
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if plain(byte) {
            out.push(byte as char);
        } else {
            escape(&mut out, byte);
        }
    }
    Cow::Owned(out)
}

fn escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    for digit in [byte >> 4, byte & 15] {
        out.push(HEX.get(usize::from(digit)).copied().unwrap_or_default() as char);
    }
}

#[cold]
pub(crate) fn requote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for &byte in chunk.invalid() {
            escape(&mut out, byte);
        }
    }
    out
}

/// The bytes of a form or query are not UTF-8 where they stand unescaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUtf8(pub Utf8Error);

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NotUtf8 {}

/// The pairs of a form, as [`parse_pairs`] finds them, decoded in the form's own memory: a long value needs no second
/// place.
///
/// # Errors
/// [`NotUtf8`] if `bytes` is not UTF-8 as it stands.
pub fn parse_pairs_in_place(bytes: &mut [u8]) -> Result<PairsInPlace<'_>, NotUtf8> {
    std::str::from_utf8(bytes).map_err(NotUtf8)?;
    Ok(PairsInPlace { rest: bytes })
}

/// See [`parse_pairs_in_place`].
#[derive(Debug)]
pub struct PairsInPlace<'a> {
    rest: &'a mut [u8],
}

impl<'a> Iterator for PairsInPlace<'a> {
    type Item = (Cow<'a, str>, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let pair = before(b'&', &mut self.rest);
            if !pair.is_empty() {
                let mut value = pair;
                let name = before(b'=', &mut value);
                return Some((unquoted_in_place(name), unquoted_in_place(value)));
            }
        }
        None
    }
}

/// Cuts off what stands before `byte`, or everything.
fn before<'a>(byte: u8, rest: &mut &'a mut [u8]) -> &'a mut [u8] {
    let all = std::mem::take(rest);
    let Some(at) = memchr::memchr(byte, all) else { return all };
    let (found, behind) = all.split_at_mut(at);
    *rest = behind.get_mut(1..).unwrap_or_default();
    found
}

fn unquoted_in_place(bytes: &mut [u8]) -> Cow<'_, str> {
    let end = decode_in_place(bytes);
    match std::str::from_utf8(bytes.get(..end).unwrap_or_default()) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(requote(bytes.get(..end).unwrap_or_default())),
    }
}

/// As [`decode`] with `plus`; returns where the result, which is never longer, ends.
fn decode_in_place(bytes: &mut [u8]) -> usize {
    let Some(first) = memchr::memchr2(b'%', b'+', bytes) else { return bytes.len() };
    let (mut from, mut to) = (first, first);
    while let Some(&byte) = bytes.get(from) {
        let escaped = match (byte, bytes.get(from + 1), bytes.get(from + 2)) {
            (b'%', Some(high), Some(low)) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                Some(nibble(*high) << 4 | nibble(*low))
            }
            _ => None,
        };
        from += if escaped.is_some() { 3 } else { 1 };
        if let Some(place) = bytes.get_mut(to) {
            *place = escaped.unwrap_or(if byte == b'+' { b' ' } else { byte });
        }
        to += 1;
    }
    to
}

/// The pairs of a query or of a urlencoded form, in order, blank values included.
///
/// # Errors
/// [`NotUtf8`] if `bytes` is not UTF-8 as it stands. (Escaped bytes may be anything.)
pub fn parse_pairs(bytes: &[u8]) -> Result<Pairs<'_>, NotUtf8> {
    std::str::from_utf8(bytes).map(|rest| Pairs { rest }).map_err(NotUtf8)
}

/// See [`parse_pairs`].
#[derive(Debug, Clone)]
pub struct Pairs<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Cow<'a, str>, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let (pair, rest) = self.rest.split_once('&').unwrap_or((self.rest, ""));
            self.rest = rest;
            if !pair.is_empty() {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                return Some((unquote(name, true), unquote(value, true)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let pairs = parse_pairs(text.as_bytes()).unwrap();
        pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    #[test]
    fn pairs_keep_order_repetition_and_blanks() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs("a=1&b=2&a=3"), [pair("a", "1"), pair("b", "2"), pair("a", "3")]);
        assert_eq!(pairs("a&b=&=c&&="), [pair("a", ""), pair("b", ""), pair("", "c"), pair("", "")]);
        assert_eq!(pairs("a=b=c;d=e"), [pair("a", "b=c;d=e")]);
        assert_eq!(pairs("%3D=%26&x+y=%2B"), [pair("=", "&"), pair("x y", "+")]);
        assert_eq!(pairs(""), []);
    }

    #[test]
    fn decoding_in_place_gives_the_same() {
        let texts = [
            "a=1&b=2&a=3",
            "a&b=&=c&&=",
            "%3D=%26&x+y=%2B",
            "%c3%A9%ff%e2%82=%",
            "100%+1%zz%4",
            "%=%4&é=+%e9",
            "",
            "&",
            "a=%%41%4%341",
            "=%ff%fe&%00=+",
        ];
        for text in texts {
            let mut bytes = text.as_bytes().to_vec();
            let found: Vec<_> = parse_pairs_in_place(&mut bytes).unwrap().collect();
            let expected: Vec<_> = parse_pairs(text.as_bytes()).unwrap().collect();
            assert_eq!(found, expected, "{text}");
        }
        assert!(parse_pairs_in_place(&mut b"a=\xff".to_vec()).is_err());
    }

    #[test]
    fn bytes_that_are_not_utf8_stay_escaped() {
        assert_eq!(unquote("%c3%A9%ff%e2%82", false), "é%FF%E2%82");
        assert_eq!(unquote("100%+1%zz%4", true), "100% 1%zz%4");
        assert!(parse_pairs(b"a=\xff").is_err());
        assert_eq!(&*percent_decode(b"%ff+%2"), b"\xff+%2");
    }

    #[test]
    fn quoting_leaves_only_what_is_safe() {
        assert_eq!(quote("a b/é?", b"/"), "a%20b/%C3%A9%3F");
        assert_eq!(quote("a_b.c-d~", b""), "a_b.c-d~");
        assert!(matches!(quote("plain", b""), Cow::Borrowed(_)));
    }

    #[test]
    fn every_escape_is_decoded() {
        for byte in 0..=255_u8 {
            for text in [format!("%{byte:02x}"), format!("%{byte:02X}")] {
                assert_eq!(&*percent_decode(text.as_bytes()), [byte]);
            }
        }
    }
}
