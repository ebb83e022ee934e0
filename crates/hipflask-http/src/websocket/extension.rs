//! The offer of permessage-deflate and the answer to it (RFC 6455 §9.1, RFC 7692 §5 and §7.1). Other extensions are
//! not known, and left out of the answer.

use crate::token::{is_token, trim};

/// What a server agrees to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeflatePolicy {
    /// How hard to try, from 1 to 9. 3 is the lowest that adapts its codes to the message; above it messages of some
    /// KiB hardly get smaller.
    pub level: u8,
    /// Messages shorter than this are sent as they are: there is little to gain.
    pub threshold: usize,
    /// Whether the server's messages may refer to earlier ones. Off: it saves bytes where messages are alike, and costs
    /// 287 KiB per connection.
    pub server_takeover: bool,
    /// Whether the client's messages may refer to earlier ones. Off: 47 KiB per connection.
    pub client_takeover: bool,
}

impl Default for DeflatePolicy {
    fn default() -> Self {
        DeflatePolicy { level: 3, threshold: 128, server_takeover: false, client_takeover: false }
    }
}

/// What both ends agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    /// Whether the server's messages may refer to earlier ones.
    pub server_takeover: bool,
    /// Whether the client's messages may refer to earlier ones.
    pub client_takeover: bool,
    /// The server's messages refer at most 2 to the power of this back, from 9 to 15.
    pub server_window_bits: u8,
    /// The client's messages refer at most 2 to the power of this back. Any window is read.
    pub client_window_bits: u8,
    /// How hard this end tries.
    pub level: u8,
    /// Messages shorter than this are sent as they are.
    pub threshold: usize,
}

/// An extension offered: its name and its parameters.
struct Offer<'a> {
    name: &'a [u8],
    parameters: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

/// Answers a client's offers, the values of `Sec-WebSocket-Extensions`: the first acceptable one of permessage-deflate.
/// Returns it with the answer. `Err` where the grammar is broken.
pub(super) fn negotiate<'a>(
    values: impl Iterator<Item = &'a [u8]>,
    policy: Option<&DeflatePolicy>,
) -> Result<Option<(Deflate, String)>, ()> {
    let mut chosen = None;
    for value in values {
        for offer in split(value, b',') {
            let offer = trim(offer);
            if offer.is_empty() {
                continue;
            }
            let offer = Offer::parse(offer)?;
            if let (None, Some(policy)) = (&chosen, policy) {
                chosen = offer.accept(policy);
            }
        }
    }
    Ok(chosen)
}

impl<'a> Offer<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, ()> {
        let mut pieces = split(text, b';').map(trim);
        let name = pieces.next().filter(|name| is_token(name)).ok_or(())?;
        let mut parameters = Vec::new();
        for piece in pieces {
            let (name, value) = match memchr::memchr(b'=', piece).and_then(|at| piece.split_at_checked(at)) {
                Some((name, value)) => (trim(name), Some(trim(value.get(1..).unwrap_or_default()))),
                None => (piece, None),
            };
            // RFC 6455 §9.1: a quoted value has to be a token too.
            let value = match value {
                Some([b'"', inner @ .., b'"']) => Some(inner),
                value => value,
            };
            if !is_token(name) || value.is_some_and(|value| !is_token(value)) {
                return Err(());
            }
            parameters.push((name, value));
        }
        Ok(Offer { name, parameters })
    }

    /// The answer; `None` declines (RFC 7692 §7.1: parameters that are unknown, repeated or out of range).
    fn accept(&self, policy: &DeflatePolicy) -> Option<(Deflate, String)> {
        if !self.name.eq_ignore_ascii_case(b"permessage-deflate") {
            return None;
        }
        let mut deflate = Deflate {
            server_takeover: policy.server_takeover,
            client_takeover: policy.client_takeover,
            server_window_bits: 15,
            client_window_bits: 15,
            level: policy.level.clamp(1, 9),
            threshold: policy.threshold,
        };
        let mut asked = [false; 4];
        for &(name, value) in &self.parameters {
            let which = match (name.to_ascii_lowercase().as_slice(), value) {
                (b"server_no_context_takeover", None) => {
                    deflate.server_takeover = false;
                    0
                }
                (b"client_no_context_takeover", None) => {
                    deflate.client_takeover = false;
                    1
                }
                (b"server_max_window_bits", Some(value)) => {
                    // zlib's smallest window is 512 bytes: who wants 256 goes without compression.
                    deflate.server_window_bits = window_bits(value).filter(|&bits| bits > 8)?;
                    2
                }
                (b"client_max_window_bits", value) => {
                    deflate.client_window_bits = value.map_or(Some(15), window_bits)?;
                    3
                }
                _ => return None,
            };
            let asked = asked.get_mut(which)?;
            if std::mem::replace(asked, true) {
                return None;
            }
        }
        let mut answer = "permessage-deflate".to_owned();
        if !deflate.server_takeover {
            answer.push_str("; server_no_context_takeover");
        }
        if !deflate.client_takeover {
            answer.push_str("; client_no_context_takeover");
        }
        if asked[2] {
            answer.push_str(&format!("; server_max_window_bits={}", deflate.server_window_bits));
        }
        Some((deflate, answer))
    }
}

/// `8` to `15`, without a leading zero (RFC 7692 §7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// Splits at a separator that stands outside quotes.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |&byte| {
        if escaped {
            escaped = false;
        } else if quoted && byte == b'\\' {
            escaped = true;
        } else if byte == b'"' {
            quoted = !quoted;
        }
        !quoted && byte == separator
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(policy: &DeflatePolicy, offers: &[&str]) -> Result<Option<String>, ()> {
        let result = negotiate(offers.iter().map(|offer| offer.as_bytes()), Some(policy))?;
        Ok(result.map(|(_, answer)| answer))
    }

    #[test]
    fn offers_are_answered() {
        let policy =
            DeflatePolicy { server_takeover: true, client_takeover: true, ..DeflatePolicy::default() };
        let plain = Some("permessage-deflate");
        for (offers, expected) in [
            (&["permessage-deflate"][..], plain),
            (&["permessage-deflate; client_max_window_bits"], plain),
            (&["Permessage-Deflate;client_max_window_bits=9"], plain),
            (&["permessage-deflate; client_max_window_bits=\"10\""], plain),
            (&["foo, permessage-deflate"], plain),
            (&["foo; bar=\"baz\"", ", permessage-deflate,"], plain),
            (
                &["permessage-deflate; server_max_window_bits=10"],
                Some("permessage-deflate; server_max_window_bits=10"),
            ),
            (
                &["permessage-deflate; server_no_context_takeover; client_no_context_takeover"],
                Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
            ),
            // A browser's fallback: the first acceptable offer is taken.
            (&["permessage-deflate; server_max_window_bits=8, permessage-deflate"], plain),
            (&["permessage-deflate; server_max_window_bits=8"], None),
            (&["permessage-deflate; server_max_window_bits"], None),
            (&["permessage-deflate; server_max_window_bits=010"], None),
            (&["permessage-deflate; server_max_window_bits=16"], None),
            (&["permessage-deflate; client_max_window_bits=7"], None),
            (&["permessage-deflate; server_no_context_takeover=1"], None),
            (&["permessage-deflate; server_no_context_takeover; server_no_context_takeover"], None),
            (&["permessage-deflate; unknown"], None),
            (&["x-webkit-deflate-frame"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(answer(&policy, offers), Ok(expected.map(str::to_owned)), "{offers:?}");
        }
        for bad in
            ["permessage-deflate;", "a b", "a; b=", "a; =b", "a; b=\"c d\"", "a; b=\"c", "\"a\"", "a;;b", "é"]
        {
            assert_eq!(answer(&policy, &[bad]), Err(()), "{bad}");
        }
    }

    #[test]
    fn by_default_no_context_is_kept() {
        assert_eq!(
            answer(&DeflatePolicy::default(), &["permessage-deflate; client_max_window_bits"]),
            Ok(Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned()))
        );
        assert_eq!(negotiate([&b"permessage-deflate"[..]].into_iter(), None), Ok(None));
        assert_eq!(negotiate([&b"permessage-deflate;"[..]].into_iter(), None), Err(()));
    }
}
