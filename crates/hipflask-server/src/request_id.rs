//! A name for each request, by which it is found in logs.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use hipflask_http::RequestHead;

use crate::client::Trust;

/// The longest name that is taken from a client. 128: two UUIDs and what stands between them.
const MOST: usize = 128;

/// Where requests get their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// Who gives them.
    pub source: IdSource,
    /// The field that has it, in request and response. `X-Request-ID`: what most proxies call it.
    pub field: String,
}

/// Who gives requests their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdSource {
    /// They have none.
    Off,
    /// The server.
    Generate,
    /// The client, if it does: 1 to 128 letters, digits and `-_.~+/=:@`. Where proxies are trusted, only they; where none
    /// is named, anybody, which is for servers that only one's own programs can reach.
    Trust,
}

impl Default for RequestId {
    fn default() -> RequestId {
        RequestId { source: IdSource::Off, field: "X-Request-ID".to_owned() }
    }
}

impl RequestId {
    /// Whether requests get names at all.
    pub(crate) fn is_on(&self) -> bool {
        self.source != IdSource::Off
    }

    /// Sees to it that a request has a name.
    pub(crate) fn give(&self, head: &mut RequestHead, trust: Trust) {
        let lower = self.field.to_ascii_lowercase();
        let brought =
            if self.source == IdSource::Trust && trust != Trust::No { only(head, &lower) } else { None };
        let id = brought.unwrap_or_else(fresh);
        head.identify(&self.field, &id);
    }
}

/// The name that a request brings; `None` if it brings several.
fn only(head: &RequestHead, lower_name: &str) -> Option<String> {
    let mut values = head.field_values(lower_name.as_bytes());
    let value = values.next().filter(|value| is_name(value))?;
    if values.next().is_some() {
        return None;
    }
    std::str::from_utf8(value).ok().map(str::to_owned)
}

fn is_name(value: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~+/=:@".contains(byte);
    (1..=MOST).contains(&value.len()) && value.iter().all(fits)
}

/// A name that no other request has: 32 hexadecimal digits.
fn fresh() -> String {
    thread_local! {
        /// Keys of the system's randomness, and a counter: their hash is different for each request and process.
        static STATE: (RandomState, Cell<u64>) = (RandomState::new(), Cell::new(u64::from(std::process::id()) << 32));
    }
    STATE.with(|(keys, count)| {
        count.set(count.get().wrapping_add(1));
        format!("{:016x}{:016x}", keys.hash_one((count.get(), 0)), keys.hash_one((count.get(), 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_proxies_are_trusted_only_they_name_requests() {
        for (trust, taken) in [(Trust::Unset, true), (Trust::Yes, true), (Trust::No, false)] {
            let mut head = RequestHead::new();
            let text = "GET / HTTP/1.1\r\nHost: h\r\nX-Request-ID: mine\r\n\r\n";
            head.parse(text.as_bytes(), &hipflask_http::Limits::default()).unwrap().unwrap();
            RequestId { source: IdSource::Trust, ..RequestId::default() }.give(&mut head, trust);
            assert_eq!(head.id() == Some("mine"), taken, "{trust:?}");
        }
    }

    #[test]
    fn names_differ() {
        let mut names: Vec<_> = (0..1000).map(|_| fresh()).collect();
        names.extend(std::thread::spawn(|| (0..1000).map(|_| fresh()).collect::<Vec<_>>()).join().unwrap());
        assert!(names.iter().all(|name| name.len() == 32 && is_name(name.as_bytes())));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 2000);
    }

    #[test]
    fn only_a_good_name_is_taken_and_only_if_it_is_trusted() {
        let long = "x".repeat(129);
        for (fields, trust, taken) in [
            ("X-Request-ID: abc-1.2_3~+/=:@", true, Some("abc-1.2_3~+/=:@")),
            ("X-Request-ID: abc", false, None),
            ("x-request-id: abc", true, Some("abc")),
            ("X-Request-ID: a b", true, None),
            ("X-Request-ID: a\"b", true, None),
            ("X-Request-ID: \u{e9}", true, None),
            ("X-Request-ID:", true, None),
            ("X-Request-ID: a\r\nX-Request-ID: b", true, None),
            (&*format!("X-Request-ID: {long}"), true, None),
            ("Other: 1", true, None),
        ] {
            let mut head = RequestHead::new();
            let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n");
            head.parse(text.as_bytes(), &hipflask_http::Limits::default()).unwrap().unwrap();
            let source = if trust { IdSource::Trust } else { IdSource::Generate };
            RequestId { source, ..RequestId::default() }.give(&mut head, Trust::Unset);
            let id = head.id().unwrap().to_owned();
            match taken {
                Some(taken) => assert_eq!(id, taken),
                None => assert_eq!((id.len(), id.contains(&"x".repeat(20))), (32, false), "{fields}"),
            }
            let values: Vec<_> = head.field_values(b"x-request-id").collect();
            assert_eq!(values, [id.as_bytes()], "{fields}");
        }
    }
}
