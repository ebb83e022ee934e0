//! Which trace a request belongs to: the field `traceparent`.
//!
//! Implements: W3C Trace Context, level 1 §3.2. Reads versions that are yet to come as §3.2.4 has it: what follows the
//! known part is ignored if a hyphen stands before it. Does not read `tracestate`, and does not make spans.

use std::fmt;

use crate::RequestHead;

/// The field's length in version 00, and the least in others.
const LENGTH: usize = 55;

/// The name of a trace: 16 bytes, not all zero. Displayed as 32 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// What `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span in it.
    pub parent: [u8; 8],
    /// Bit 0: the caller may have recorded it.
    pub flags: u8,
}

impl TraceParent {
    /// Reads a value. `None` for one that is malformed in any way: it is as if there were none (§3.2.5).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<TraceParent> {
        let known = value.get(..LENGTH)?;
        let version = hex::<1>(known.get(..2)?)?;
        let more = value.get(LENGTH..)?;
        let fits = match version {
            [0xff] => false,
            [0] => more.is_empty(),
            _ => more.is_empty() || more.starts_with(b"-"),
        };
        let hyphens = [2, 35, 52].iter().all(|&at| known.get(at) == Some(&b'-'));
        if !fits || !hyphens {
            return None;
        }
        let trace = hex::<16>(known.get(3..35)?)?;
        let parent = hex::<8>(known.get(36..52)?)?;
        let [flags] = hex::<1>(known.get(53..)?)?;
        if trace == [0; 16] || parent == [0; 8] {
            return None;
        }
        Some(TraceParent { trace: TraceId(trace), parent, flags })
    }

    /// Reads that of a request. `None` also if there are several, which no caller sends.
    #[must_use]
    pub fn of(head: &RequestHead) -> Option<TraceParent> {
        let mut values = head.field_values(b"traceparent");
        let value = values.next()?;
        if values.next().is_some() { None } else { TraceParent::parse(value) }
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes from hexadecimal digits in lower case (§3.2.2: upper case is not allowed).
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_good_value_is_read() {
        let found = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(found.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((found.parent, found.flags), ([0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7], 1));
    }

    #[test]
    fn later_versions_may_say_more_behind_a_hyphen() {
        for (value, good) in [
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-holds", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more", false),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
        ] {
            assert_eq!(TraceParent::parse(value.as_bytes()).is_some(), good, "{value}");
        }
    }

    #[test]
    fn anything_else_is_as_if_it_were_not_there() {
        for value in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47360-0f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(value.as_bytes()), None, "{value}");
        }
    }
}
