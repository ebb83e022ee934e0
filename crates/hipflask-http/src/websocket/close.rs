//! Close frames (RFC 6455 §5.5.1, §7.4).

use super::Error;

/// Close codes that an application or a server has use for. RFC 6455 §7.4.1 and the registry behind it.
pub mod code {
    /// All is said.
    pub const NORMAL: u16 = 1000;
    /// The server stops, or the page was left.
    pub const GOING_AWAY: u16 = 1001;
    /// The other end broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// A kind of message that is not taken: text where binary is wanted.
    pub const UNSUPPORTED_DATA: u16 = 1003;
    /// Never sent: a close frame had no code.
    pub const NO_STATUS: u16 = 1005;
    /// Never sent: the connection ended without a close frame.
    pub const ABNORMAL: u16 = 1006;
    /// Text that is not UTF-8, or the like.
    pub const INVALID_DATA: u16 = 1007;
    /// A message that breaks the application's rules.
    pub const POLICY_VIOLATION: u16 = 1008;
    /// A message that is too long.
    pub const TOO_BIG: u16 = 1009;
    /// The server failed.
    pub const INTERNAL_ERROR: u16 = 1011;
    /// The server restarts: come again.
    pub const SERVICE_RESTART: u16 = 1012;
    /// The server has too much to do.
    pub const TRY_AGAIN_LATER: u16 = 1013;

    /// Whether the code may stand in a close frame.
    #[must_use]
    pub fn may_be_sent(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// What a close frame says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Close {
    /// The code; `None` where the frame was empty, which applications see as 1005.
    pub code: Option<u16>,
    /// The reason, at most 123 bytes.
    pub reason: String,
}

impl Close {
    /// Reads the body of a close frame.
    pub(super) fn parse(body: &[u8]) -> Result<Close, Error> {
        let (code, reason) = match body {
            [] => return Ok(Close::default()),
            [_] => return Err(Error::ShortClose),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        if !code::may_be_sent(code) {
            return Err(Error::BadCloseCode);
        }
        let reason = std::str::from_utf8(reason).map_err(|_| Error::BadCloseReason)?;
        Ok(Close { code: Some(code), reason: reason.to_owned() })
    }
}

/// The body of a close frame. The reason is cut, between characters, to the 123 bytes that fit; a code that may not be
/// sent gives an empty body, which also has no room for a reason.
pub(super) fn body(code: Option<u16>, reason: &str) -> Vec<u8> {
    let Some(code) = code.filter(|&code| code::may_be_sent(code)) else { return Vec::new() };
    let mut end = reason.len().min(super::CONTROL - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut body = code.to_be_bytes().to_vec();
    body.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_are_reserved_may_not_be_sent() {
        for good in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert!(code::may_be_sent(good), "{good}");
        }
        for bad in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!code::may_be_sent(bad), "{bad}");
            assert_eq!(Close::parse(&u16::to_be_bytes(bad)), Err(Error::BadCloseCode));
            assert!(body(Some(bad), "why").is_empty());
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let body = body(Some(1000), &"é".repeat(100));
        assert_eq!(body.len(), 2 + 122);
        assert_eq!(Close::parse(&body).map(|close| close.reason), Ok("é".repeat(61)));
    }
}
