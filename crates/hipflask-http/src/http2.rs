//! The head of a request that came by HTTP/2 (RFC 9113 §8.3).
//!
//! Frames and header compression are somebody else's. Here pseudo-header fields and fields become the same
//! [`RequestHead`] that HTTP/1.1 has, checked by the same rules: they are written down as an HTTP/1.1 head and read. What
//! HTTP/1.1 could misread is refused before.

use crate::{Error, Framing, Limits, RequestHead};

/// The pseudo-header fields of a request, and whether its body is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parts<'a> {
    /// `:method`.
    pub method: &'a [u8],
    /// `:scheme`.
    pub scheme: Option<&'a [u8]>,
    /// `:authority`.
    pub authority: Option<&'a [u8]>,
    /// `:path`.
    pub path: Option<&'a [u8]>,
    /// `:protocol` of an extended CONNECT (RFC 8441 §4).
    pub protocol: Option<&'a [u8]>,
    /// The stream has ended with the head.
    pub ends: bool,
}

/// Fields that speak about an HTTP/1.1 connection (RFC 9113 §8.2.2).
const CONNECTION_FIELDS: [&[u8]; 5] =
    [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];

impl RequestHead {
    /// Makes the head of a request of its parts.
    ///
    /// `:authority` is the host; a `Host` field must say the same, or is taken in its place. Several `cookie` fields
    /// become one (§8.2.3). A body without a length is framed as [`Framing::Chunked`]: whoever carries it writes chunks.
    ///
    /// An extended CONNECT for a WebSocket (RFC 8441 §5) is made the GET that asks for an upgrade in HTTP/1.1, without a
    /// body: what follows on its stream are frames. So applications that look for `Upgrade` find it.
    ///
    /// # Errors
    /// See [`Error`]; a connection field is [`Error::BadName`].
    pub fn from_http2<'a>(
        parts: &Parts<'_>,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        limits: &Limits,
    ) -> Result<RequestHead, Error> {
        let is_connect = parts.method == b"CONNECT";
        let method = match parts.protocol {
            None if is_connect => return Err(Error::Connect),
            None if parts.method.iter().any(|byte| *byte <= b' ') => return Err(Error::BadMethod),
            None => parts.method,
            Some(_) if !is_connect => return Err(Error::BadMethod),
            Some(protocol) if !protocol.eq_ignore_ascii_case(b"websocket") => {
                return Err(Error::UnknownProtocol);
            }
            Some(_) => b"GET",
        };
        let path = parts.path.unwrap_or_default();
        // Some carriers keep no scheme without an authority.
        let scheme = parts.scheme.unwrap_or(if parts.authority.is_none() { b"http" } else { b"" });
        let is_http = scheme.eq_ignore_ascii_case(b"https") || scheme.eq_ignore_ascii_case(b"http");
        if !is_http || !(path.starts_with(b"/") || path == b"*") || path.contains(&b' ') {
            return Err(Error::BadTarget);
        }
        let mut text = Vec::with_capacity(512);
        for part in [method, b" ", path, b" HTTP/1.1\r\n"] {
            text.extend_from_slice(part);
        }
        if let Some(authority) = parts.authority {
            if authority.iter().any(ends_line) {
                return Err(Error::BadHost);
            }
            line(&mut text, b"host", authority);
        }
        let mut cookies: Vec<u8> = Vec::new();
        for (name, value) in fields {
            if CONNECTION_FIELDS.contains(&name) || name.iter().any(|byte| *byte <= b' ' || *byte == b':') {
                return Err(Error::BadName);
            }
            if value.iter().any(ends_line) {
                return Err(Error::Control);
            }
            if value.first().is_some_and(is_space) || value.last().is_some_and(is_space) {
                return Err(Error::Folded);
            }
            if name == b"cookie" {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value);
            } else if name == b"host"
                && let Some(authority) = parts.authority
            {
                // Two hosts would let two readers choose differently (§8.3.1).
                if !value.eq_ignore_ascii_case(authority) {
                    return Err(Error::TwoHosts);
                }
            } else {
                line(&mut text, name, value);
            }
        }
        if is_connect {
            line(&mut text, b"upgrade", b"websocket");
            line(&mut text, b"connection", b"Upgrade");
        }
        if !cookies.is_empty() {
            line(&mut text, b"cookie", &cookies);
        }
        text.extend_from_slice(b"\r\n");
        let mut head = RequestHead::new();
        match head.parse(&text, limits)? {
            Some(used) if used == text.len() => {}
            // Some part holds a line end after all.
            _ => return Err(Error::Control),
        }
        let framing = match head.framing() {
            Framing::None if is_connect => Framing::None,
            // The frames of a tunnel are not a body (RFC 9110 §9.3.6).
            _ if is_connect => return Err(Error::BadLength),
            Framing::None if !parts.ends => Framing::Chunked,
            framing => framing,
        };
        head.carried_by_http2(framing, is_connect);
        Ok(head)
    }
}

/// A value must not begin or end with white space (§8.2.1).
fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Behind it HTTP/1.1 would begin another line, or some reader another text (§8.2.1).
fn ends_line(byte: &u8) -> bool {
    matches!(byte, b'\r' | b'\n' | 0)
}

fn line(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        text.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Version;

    const GET: Parts<'static> = Parts {
        method: b"GET",
        scheme: Some(b"https"),
        authority: Some(b"a.test:8443"),
        path: Some(b"/x%20y?q=1"),
        protocol: None,
        ends: true,
    };

    const TUNNEL: Parts<'static> =
        Parts { method: b"CONNECT", protocol: Some(b"websocket"), ends: false, ..GET };

    fn made(parts: &Parts<'_>, fields: &[(&str, &str)]) -> Result<RequestHead, Error> {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        RequestHead::from_http2(parts, fields, &Limits::default())
    }

    #[test]
    fn parts_become_a_head() {
        let head = made(&GET, &[("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2")]).unwrap();
        assert_eq!(head.version(), Version::Http2);
        assert_eq!((head.method(), head.target()), (&b"GET"[..], &b"/x%20y?q=1"[..]));
        assert_eq!((head.path().as_ref(), head.query()), (&b"/x y"[..], &b"q=1"[..]));
        assert_eq!(head.host(), b"a.test:8443");
        assert_eq!(head.field(b"cookie"), Some(&b"a=1; b=2"[..]));
        assert_eq!(head.framing(), Framing::None);
        assert!(!head.keep_alive());
    }

    #[test]
    fn the_body_is_framed_by_its_length_or_by_chunks() {
        let open = Parts { method: b"POST", ends: false, ..GET };
        assert_eq!(made(&open, &[]).unwrap().framing(), Framing::Chunked);
        assert_eq!(made(&open, &[("content-length", "5")]).unwrap().framing(), Framing::Length(5));
        let ended = Parts { method: b"POST", ..GET };
        assert_eq!(made(&ended, &[("content-length", "0")]).unwrap().framing(), Framing::Length(0));
    }

    #[test]
    fn what_could_be_misread_is_refused() {
        type Case<'a> = (Parts<'a>, &'a [(&'a str, &'a str)], Error);
        let refused: &[Case<'_>] = &[
            (Parts { method: b"CONNECT", ..GET }, &[], Error::Connect),
            (Parts { protocol: Some(b"websocket"), ..GET }, &[], Error::BadMethod),
            (Parts { protocol: Some(b"connect-udp"), ..TUNNEL }, &[], Error::UnknownProtocol),
            (Parts { protocol: Some(b""), ..TUNNEL }, &[], Error::UnknownProtocol),
            (Parts { path: None, ..TUNNEL }, &[], Error::BadTarget),
            (Parts { path: Some(b"*"), ..TUNNEL }, &[], Error::Asterisk),
            (Parts { authority: None, ..TUNNEL }, &[], Error::NoHost),
            (TUNNEL, &[("content-length", "5")], Error::BadLength),
            (TUNNEL, &[("upgrade", "websocket")], Error::BadName),
            (Parts { method: b"", ..GET }, &[], Error::BadMethod),
            (Parts { method: b"\r\nGET", ..GET }, &[], Error::BadMethod),
            (Parts { method: b"GET / HTTP/1.1\r\na:", ..GET }, &[], Error::BadMethod),
            (Parts { method: b"G T", ..GET }, &[], Error::BadMethod),
            (Parts { path: None, ..GET }, &[], Error::BadTarget),
            (Parts { path: Some(b""), ..GET }, &[], Error::BadTarget),
            (Parts { path: Some(b"x"), ..GET }, &[], Error::BadTarget),
            (Parts { path: Some(b"http://b.test/"), ..GET }, &[], Error::BadTarget),
            (Parts { path: Some(b"/ HTTP/1.1"), ..GET }, &[], Error::BadTarget),
            (Parts { path: Some(b"*"), ..GET }, &[], Error::Asterisk),
            (Parts { scheme: None, ..GET }, &[], Error::BadTarget),
            (Parts { scheme: Some(b"ftp"), ..GET }, &[], Error::BadTarget),
            (Parts { authority: None, ..GET }, &[], Error::NoHost),
            (Parts { authority: Some(b""), ..GET }, &[], Error::BadHost),
            (Parts { authority: Some(b"u@a.test"), ..GET }, &[], Error::BadHost),
            (GET, &[("host", "b.test")], Error::TwoHosts),
            (GET, &[("connection", "close")], Error::BadName),
            (GET, &[("transfer-encoding", "chunked")], Error::BadName),
            (GET, &[("upgrade", "websocket")], Error::BadName),
            (GET, &[("a", "b\r\nc: d")], Error::Control),
            (Parts { authority: Some(b"a\r\nb: c"), ..GET }, &[], Error::BadHost),
            (GET, &[("a: b\r\nc", "d")], Error::BadName),
            (GET, &[("a", " b")], Error::Folded),
            (GET, &[("a", "b\t")], Error::Folded),
            (GET, &[("content-length", "1"), ("content-length", "1")], Error::TwoLengths),
            (GET, &[("content-length", "+1")], Error::BadLength),
            (GET, &[("x_forwarded_for", "1")], Error::ShadowingName),
        ];
        for (parts, fields, error) in refused {
            assert_eq!(made(parts, fields).err(), Some(*error), "{parts:?} {fields:?}");
        }
    }

    #[test]
    fn an_extended_connect_asks_for_a_websocket() {
        let head = made(&TUNNEL, &[("sec-websocket-version", "13")]).unwrap();
        assert!(head.is_websocket());
        assert_eq!((head.method(), head.framing()), (&b"GET"[..], Framing::None));
        assert_eq!((head.version(), head.target()), (Version::Http2, &b"/x%20y?q=1"[..]));
        assert!(!made(&GET, &[]).unwrap().is_websocket());
    }

    #[test]
    fn a_host_field_may_stand_for_the_authority() {
        let none = Parts { authority: None, scheme: None, ..GET };
        assert_eq!(made(&none, &[("host", "b.test")]).unwrap().host(), b"b.test");
        assert_eq!(made(&GET, &[("host", "A.test:8443")]).unwrap().host(), b"a.test:8443");
    }
}
