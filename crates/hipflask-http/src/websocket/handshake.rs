//! The server's side of the opening handshake (RFC 6455 §4.2), and of that over HTTP/2 (RFC 8441 §5), which has neither
//! a key nor an upgrade.
//!
//! Does not look at `Origin`, which is the application's matter, and does not choose a subprotocol, but says which are
//! offered.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::extension::{Deflate, DeflatePolicy, negotiate};
use crate::token::{is_token, trim};
use crate::{Framing, RequestHead, Version};

/// What a key is joined with (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The version of the protocol, the only one.
const VERSION: &str = "13";

/// Why a request does not open a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The method is not GET.
    Method,
    /// HTTP/1.0, which cannot change protocols (RFC 9110 §7.8).
    OldHttp,
    /// No `Upgrade: websocket`, or no `Connection: upgrade`.
    NoUpgrade,
    /// The request has a body, whose bytes would be taken for frames.
    Body,
    /// No `Sec-WebSocket-Version`, or more than one.
    NoVersion,
    /// A version other than 13.
    UnknownVersion,
    /// No `Sec-WebSocket-Key`, more than one, or one that is not 16 bytes in base64.
    BadKey,
    /// `Sec-WebSocket-Protocol` that is no list of different tokens.
    BadProtocol,
    /// `Sec-WebSocket-Extensions` that breaks the grammar.
    BadExtension,
}

impl HandshakeError {
    /// The status code to answer with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            HandshakeError::Method => 405,
            HandshakeError::NoUpgrade | HandshakeError::UnknownVersion => 426,
            _ => 400,
        }
    }

    /// A sentence for the log and the answer. Holds no bytes of the request.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            HandshakeError::Method => "a WebSocket is opened with GET",
            HandshakeError::OldHttp => "a WebSocket needs HTTP/1.1",
            HandshakeError::NoUpgrade => {
                "this address is a WebSocket's: the request has to ask for an upgrade"
            }
            HandshakeError::Body => "a WebSocket's handshake has no body",
            HandshakeError::NoVersion => "the Sec-WebSocket-Version field is missing or repeated",
            HandshakeError::UnknownVersion => "the version of the WebSocket protocol is not 13",
            HandshakeError::BadKey => "the Sec-WebSocket-Key is missing, repeated or malformed",
            HandshakeError::BadProtocol => "the Sec-WebSocket-Protocol is malformed",
            HandshakeError::BadExtension => "the Sec-WebSocket-Extensions are malformed",
        }
    }

    /// The fields that belong to the answer.
    #[must_use]
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            HandshakeError::Method => &[("Allow", "GET")],
            HandshakeError::NoUpgrade => &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION)],
            HandshakeError::UnknownVersion => &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION)],
            _ => &[],
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for HandshakeError {}

/// A good handshake, to be answered with [`fields`](Self::fields) and 101; with 200 over HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// What the key is answered with, if there is one.
    accept: Option<String>,
    extensions: Option<String>,
    /// The subprotocols offered, the client's favourite first.
    pub protocols: Vec<String>,
    /// Whether and how messages are compressed; what [`Decoder`](super::Decoder) and [`Encoder`](super::Encoder) are
    /// made with.
    pub deflate: Option<Deflate>,
}

impl Handshake {
    /// The first of the server's subprotocols that the client offers.
    #[must_use]
    pub fn choose<'a>(&self, supported: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        supported.into_iter().find(|name| self.protocols.iter().any(|offered| offered == name))
    }

    /// The fields of the answer, but for `Connection`. `protocol` has to be one that was offered.
    #[must_use]
    pub fn fields<'a>(&'a self, protocol: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
        let mut fields = Vec::with_capacity(4);
        if let Some(accept) = &self.accept {
            fields.extend([("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept.as_str())]);
        }
        if let Some(protocol) = protocol {
            fields.push(("Sec-WebSocket-Protocol", protocol));
        }
        if let Some(extensions) = &self.extensions {
            fields.push(("Sec-WebSocket-Extensions", extensions));
        }
        fields
    }
}

/// Judges a request to open a WebSocket. `deflate` is what compression to agree to, if any.
///
/// # Errors
/// See [`HandshakeError`]. The connection stays one of HTTP: the error's answer is an ordinary response.
pub fn accept(head: &RequestHead, deflate: Option<&DeflatePolicy>) -> Result<Handshake, HandshakeError> {
    if head.method() != b"GET" {
        return Err(HandshakeError::Method);
    }
    if head.version() < Version::Http11 {
        return Err(HandshakeError::OldHttp);
    }
    if !head.is_websocket() {
        return Err(HandshakeError::NoUpgrade);
    }
    if !matches!(head.framing(), Framing::None | Framing::Length(0)) {
        return Err(HandshakeError::Body);
    }
    let version = only(head, b"sec-websocket-version").ok_or(HandshakeError::NoVersion)?;
    if version != VERSION.as_bytes() {
        return Err(HandshakeError::UnknownVersion);
    }
    let accept = if head.version() == Version::Http2 {
        None
    } else {
        let key = only(head, b"sec-websocket-key").filter(|key| is_key(key)).ok_or(HandshakeError::BadKey)?;
        Some(accept_key(key))
    };
    let protocols = protocols(head)?;
    let extensions = head.field_values(b"sec-websocket-extensions");
    let agreed = negotiate(extensions, deflate).map_err(|()| HandshakeError::BadExtension)?;
    let (deflate, extensions) = agreed.unzip();
    Ok(Handshake { accept, extensions, protocols, deflate })
}

/// What a server answers a key with: `Sec-WebSocket-Accept` (RFC 6455 §4.2.2).
#[must_use]
pub fn accept_key(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// A field's value, if there is exactly one.
fn only<'a>(head: &'a RequestHead, name: &'a [u8]) -> Option<&'a [u8]> {
    let mut values = head.field_values(name);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Whether a key is 16 bytes in base64. The last digit's spare bits do not matter.
fn is_key(key: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.split_last_chunk::<2>()
        .is_some_and(|(digits, end)| digits.len() == 22 && end == b"==" && digits.iter().all(digit))
}

fn protocols(head: &RequestHead) -> Result<Vec<String>, HandshakeError> {
    let mut all: Vec<String> = Vec::new();
    for value in head.field_values(b"sec-websocket-protocol") {
        for item in value.split(|&byte| byte == b',').map(trim).filter(|item| !item.is_empty()) {
            let name = std::str::from_utf8(item).map_err(|_| HandshakeError::BadProtocol)?;
            if !is_token(item) || all.iter().any(|known| known == name) || all.len() >= MOST_PROTOCOLS {
                return Err(HandshakeError::BadProtocol);
            }
            all.push(name.to_owned());
        }
    }
    if all.is_empty() && head.field(b"sec-websocket-protocol").is_some() {
        return Err(HandshakeError::BadProtocol);
    }
    Ok(all)
}

/// Each name is compared with all before it, so their number is bounded; nobody offers more than a handful.
const MOST_PROTOCOLS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    const GOOD: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn judge(text: &str) -> Result<Handshake, HandshakeError> {
        let mut head = RequestHead::new();
        assert_eq!(head.parse(text.as_bytes(), &Limits::default()), Ok(Some(text.len())), "{text}");
        accept(&head, Some(&DeflatePolicy::default()))
    }

    #[test]
    fn the_example_of_rfc_6455_is_answered() {
        let handshake = judge(GOOD).unwrap();
        assert_eq!(handshake.protocols, ["chat", "superchat"]);
        assert_eq!(handshake.choose(["mqtt", "superchat", "chat"]), Some("superchat"));
        assert_eq!(handshake.choose(["mqtt"]), None);
        assert_eq!(
            handshake.fields(Some("chat")),
            [
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
                ("Sec-WebSocket-Protocol", "chat"),
            ]
        );
    }

    #[test]
    fn compression_is_agreed_on() {
        let text = GOOD.replace("Host:", "Sec-WebSocket-Extensions: permessage-deflate\r\nHost:");
        let handshake = judge(&text).unwrap();
        assert!(handshake.deflate.is_some());
        assert_eq!(
            handshake.fields(None).last(),
            Some(&(
                "Sec-WebSocket-Extensions",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            ))
        );
    }

    #[test]
    fn bad_handshakes_are_refused() {
        use HandshakeError::*;
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for (old, new, error, status) in [
            ("GET", "POST", Method, 405),
            ("HTTP/1.1", "HTTP/1.0", OldHttp, 400),
            ("Upgrade: websocket\r\n", "", NoUpgrade, 426),
            ("Upgrade: websocket", "Upgrade: h2c", NoUpgrade, 426),
            ("keep-alive, Upgrade", "keep-alive", NoUpgrade, 426),
            ("Host:", "Content-Length: 5\r\nHost:", Body, 400),
            ("Host:", "Transfer-Encoding: chunked\r\nHost:", Body, 400),
            ("Sec-WebSocket-Version: 13\r\n", "", NoVersion, 400),
            ("Host:", "Sec-WebSocket-Version: 13\r\nHost:", NoVersion, 400),
            ("Version: 13", "Version: 8", UnknownVersion, 426),
            ("Version: 13", "Version: 14", UnknownVersion, 426),
            ("Version: 13", "Version: 013", UnknownVersion, 426),
            ("Version: 13", "Version:", UnknownVersion, 426),
            (key, "", BadKey, 400),
            ("Host:", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost:", BadKey, 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "", BadKey, 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", BadKey, 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", BadKey, 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZTE=", BadKey, 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBs SBub25jZQ==", BadKey, 400),
            ("chat, superchat", "chat, chat", BadProtocol, 400),
            ("chat, superchat", "chat; superchat", BadProtocol, 400),
            ("chat, superchat", "", BadProtocol, 400),
            ("Host:", "Sec-WebSocket-Extensions: a b\r\nHost:", BadExtension, 400),
        ] {
            let text = GOOD.replacen(old, new, 1);
            assert_ne!(text, GOOD);
            assert_eq!(judge(&text), Err(error), "{text}");
            assert_eq!(error.status(), status);
            assert!(!error.reason().ends_with('.'));
            let version = error.fields().contains(&("Sec-WebSocket-Version", "13"));
            assert_eq!(version, status == 426, "{error}");
        }
    }
}
