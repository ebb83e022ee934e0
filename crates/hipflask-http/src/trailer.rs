//! Trailer sections: which fields may stand there, and who wants any (RFC 9110 §6.5, §10.1.4).
//!
//! What may not is left out of a request, as the RFC lets a recipient do, since a proxy before us may have let it pass;
//! a response never has it. Nothing is ever merged into the head's fields.

use crate::response::{FieldError, value_is_valid};
use crate::token::{is_token, trim};
use crate::{RequestHead, Version};

/// The fields of a trailer section: names and values, in order.
pub type Trailers = Vec<(Vec<u8>, Vec<u8>)>;

/// Whether a field may stand in a trailer section: none that decides about framing, routing, authentication, the
/// content's meaning, caching or the request itself (RFC 9110 §6.5.1), or that describes the client. Digests of the
/// content may, since RFC 9530 §2 and §3 has them there, and `Proxy-Status` by RFC 9209 §2.
#[must_use]
pub fn may_trail(name: &[u8]) -> bool {
    const ALLOWED: &[&[u8]] = &[b"content-digest", b"proxy-status"];
    const FORBIDDEN: &[&[u8]] = &[
        b"age",
        b"authorization",
        b"cache-control",
        b"connection",
        b"cookie",
        b"date",
        b"expect",
        b"expires",
        b"forwarded",
        b"host",
        b"keep-alive",
        b"location",
        b"max-forwards",
        b"origin",
        b"pragma",
        b"range",
        b"referer",
        b"retry-after",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"user-agent",
        b"vary",
        b"via",
        b"www-authenticate",
        b"x-real-ip",
    ];
    const PREFIXES: &[&[u8]] = &[b"content-", b"if-", b"proxy-", b"x-forwarded-", b"accept", b"sec-"];
    let is_one_of = |names: &[&[u8]]| names.iter().any(|other| name.eq_ignore_ascii_case(other));
    let begins =
        |prefix: &&[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    is_one_of(ALLOWED) || !(is_one_of(FORBIDDEN) || PREFIXES.iter().any(begins))
}

/// Checks a field that is to be sent in a trailer section.
///
/// # Errors
/// The name is no token or has no place there, or the value could be read as more than a value.
pub fn check(name: &[u8], value: &[u8]) -> Result<(), FieldError> {
    if !is_token(name) {
        return Err(FieldError::Name);
    }
    if !value_is_valid(value) {
        return Err(FieldError::Value);
    }
    if may_trail(name) { Ok(()) } else { Err(FieldError::Trailer) }
}

/// Writes what ends a body in chunks: the last chunk, the trailer section, the empty line. Fields that
/// [`check`] refuses are left out.
pub fn write_end<'a>(out: &mut Vec<u8>, fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in fields {
        if check(name, value).is_ok() {
            for part in [name, b": ", trim(value), b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

impl RequestHead {
    /// Whether the client wants trailers: it has said so, or speaks HTTP/2, where a section of them can always be told
    /// from the head.
    #[must_use]
    pub fn takes_trailers(&self) -> bool {
        match self.version() {
            Version::Http10 => false,
            Version::Http2 => true,
            Version::Http11 => self
                .field_values(b"te")
                .flat_map(|value| value.split(|&byte| byte == b','))
                .any(|coding| trim(coding).eq_ignore_ascii_case(b"trailers")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    #[test]
    fn fields_that_decide_about_the_message_have_no_place_in_its_trailers() {
        for name in
            ["X-Sum", "Server-Timing", "grpc-status", "Content-Digest", "ETag", "Repr-Digest", "Proxy-Status"]
        {
            assert!(may_trail(name.as_bytes()), "{name}");
        }
        for name in [
            "Content-Length",
            "transfer-encoding",
            "HOST",
            "Authorization",
            "Set-Cookie",
            "Content-Type",
            "Content-Encoding",
            "If-Match",
            "Proxy-Authorization",
            "Accept-Encoding",
            "Trailer",
            "TE",
            "X-Forwarded-For",
            "WWW-Authenticate",
        ] {
            assert!(!may_trail(name.as_bytes()), "{name}");
            assert_eq!(check(name.as_bytes(), b"x"), Err(FieldError::Trailer));
        }
        assert_eq!(check(b"a b", b"x"), Err(FieldError::Name));
        assert_eq!(check(b"", b"x"), Err(FieldError::Name));
        for value in [&b"a\r\nb: c"[..], b"a\nb", b"a\rb", b"a\0b"] {
            assert_eq!(check(b"a", value), Err(FieldError::Value));
        }
    }

    #[test]
    fn an_end_has_nothing_that_is_forbidden() {
        let mut out = Vec::new();
        write_end(&mut out, [(&b"X"[..], &b" y "[..]), (b"Host", b"a"), (b"Z", b"1\r\n2")]);
        assert_eq!(out, b"0\r\nX: y\r\n\r\n");
        out.clear();
        write_end(&mut out, []);
        assert_eq!(out, b"0\r\n\r\n");
    }

    #[test]
    fn who_wants_trailers_says_so() {
        for (line, fields, expected) in [
            ("GET / HTTP/1.1", "", false),
            ("GET / HTTP/1.1", "TE: trailers\r\n", true),
            ("GET / HTTP/1.1", "te: gzip;q=0.5, Trailers\r\n", true),
            ("GET / HTTP/1.1", "TE: gzip\r\nTE: trailers\r\n", true),
            ("GET / HTTP/1.1", "TE: trailersx\r\n", false),
            ("GET / HTTP/1.1", "TE:\r\n", false),
            ("GET / HTTP/1.0", "TE: trailers\r\n", false),
        ] {
            let mut head = RequestHead::new();
            let text = format!("{line}\r\nHost: a\r\n{fields}\r\n");
            assert!(head.parse(text.as_bytes(), &Limits::default()).unwrap().is_some());
            assert_eq!(head.takes_trailers(), expected, "{line} {fields}");
        }
    }
}
