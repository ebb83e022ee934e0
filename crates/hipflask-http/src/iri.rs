//! A request's path and query as people read them: the parts of an IRI (RFC 3987 §3.2).
//!
//! What can be shown without a change of meaning is shown, everything else stays or becomes percent-encoded: controls,
//! spaces, the percent sign, what would end or split the part, and bytes that are not UTF-8. Does not touch hosts, which
//! need the IDNA codec.
//!
//! Gives what Werkzeug's `uri_to_iri` gives for the part once `urllib.parse.quote` has made a URI of it.

use crate::query::requote;

/// Which bytes must not stand for themselves, because a reader would take them for something else.
type Unsafe = [bool; 256];

const fn table(delimiters: &[u8]) -> Unsafe {
    let mut kept = [false; 256];
    let mut at = 0;
    while at <= 32 {
        kept[at] = true;
        at += 1;
    }
    kept[b'%' as usize] = true;
    kept[0x7F] = true;
    let mut at = 0;
    while at < delimiters.len() {
        kept[delimiters[at] as usize] = true;
        at += 1;
    }
    kept
}

const PATH: Unsafe = table(b"/?#");
const QUERY: Unsafe = table(b"&=+#");

/// Appends a path. Slashes in it divide it; an escaped one stays escaped.
pub fn push_path(out: &mut String, path: &str) {
    push(out, path.as_bytes(), &PATH, b"/");
}

/// Appends a query. Its delimiters (`&=+` and `?`) divide it; escaped ones stay escaped.
pub fn push_query(out: &mut String, query: &[u8]) {
    push(out, query, &QUERY, b"&=+");
}

fn push(out: &mut String, part: &[u8], kept: &Unsafe, delimiters: &[u8]) {
    let is_plain = |byte: u8| !kept[usize::from(byte)] || delimiters.contains(&byte);
    // Text without escapes and without anything to escape is nearly all there is.
    if let Ok(text) = std::str::from_utf8(part)
        && text.bytes().all(is_plain)
    {
        out.push_str(text);
        return;
    }
    let mut bytes = Vec::with_capacity(part.len() + 16);
    let mut rest = part;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match (byte, behind) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let meant = crate::query::nibble(*high) << 4 | crate::query::nibble(*low);
                match kept[usize::from(meant)] {
                    true => bytes.extend([b'%', *high, *low]),
                    false => bytes.push(meant),
                }
                rest = after;
            }
            // An escape that is none means itself.
            (b'%', _) => bytes.push(b'%'),
            _ if is_plain(*byte) => bytes.push(*byte),
            _ => bytes.extend(format!("%{byte:02X}").bytes()),
        }
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => out.push_str(text),
        Err(_) => out.push_str(&requote(&bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> String {
        let mut out = String::new();
        push_path(&mut out, text);
        out
    }

    fn query(text: &[u8]) -> String {
        let mut out = String::new();
        push_query(&mut out, text);
        out
    }

    #[test]
    fn what_is_readable_is_shown() {
        assert_eq!(path("/a/b-._~!$&'()*+,:;=@\"<>\\^`{|}[]"), "/a/b-._~!$&'()*+,:;=@\"<>\\^`{|}[]");
        assert_eq!(path("/é%C3%A9%41%7e"), "/ééA~");
        assert_eq!(query(b"q=%C3%A9&r=%41/?"), "q=é&r=A/?");
    }

    #[test]
    fn what_would_change_the_meaning_stays_escaped() {
        assert_eq!(path("a b%20c%2f?#%zz%4%"), "a%20b%20c%2f%3F%23%zz%4%");
        assert_eq!(query(b"a=b c+d%26%3D%2B%23%25#\x7f"), "a=b%20c+d%26%3D%2B%23%25%23%7F");
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_escaped() {
        assert_eq!(query(b"\xff%fe%C3%A9%C3"), "%FF%FEé%C3");
        assert_eq!(query(b"%E2%82=\xac"), "%E2%82=%AC");
    }
}
