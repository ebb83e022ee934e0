//! Percent-encoding for the two places of a built URL.
//!
//! Unreserved characters (RFC 3986 §2.3) always stay; what else stays follows the WHATWG URL standard's sets for path
//! segments and queries, as Werkzeug chose them.

const fn table(extra: &[u8]) -> [bool; 256] {
    let mut safe = [false; 256];
    let mut at = 0;
    while at < 128 {
        let byte = at as u8;
        safe[at] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        at += 1;
    }
    let mut at = 0;
    while at < extra.len() {
        safe[extra[at] as usize] = true;
        at += 1;
    }
    safe
}

const PATH: [bool; 256] = table(b"!$&'()*+,/:;=@");
const QUERY: [bool; 256] = table(b"!$'()*,/:;?@");

/// Appends `text` as a piece of a path.
pub fn quote_path(out: &mut String, text: &str) {
    quote(out, text.as_bytes(), &PATH, false);
}

/// Appends bytes as a key or value of a query, a space as `+`.
pub fn quote_query(out: &mut String, text: &[u8]) {
    quote(out, text, &QUERY, true);
}

fn quote(out: &mut String, text: &[u8], safe: &[bool; 256], plus: bool) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    if let Some(whole) =
        std::str::from_utf8(text).ok().filter(|_| text.iter().all(|&byte| safe[usize::from(byte)]))
    {
        out.push_str(whole);
        return;
    }
    out.reserve(text.len());
    for &byte in text {
        if safe[usize::from(byte)] {
            out.push(char::from(byte));
        } else if plus && byte == b' ' {
            out.push('+');
        } else {
            out.push('%');
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_what_a_segment_may_hold() {
        let mut out = String::new();
        quote_path(&mut out, "/a b-._~!$&'()*+,:;=@%?#[]é\"<>\\^`{|}");
        assert_eq!(out, "/a%20b-._~!$&'()*+,:;=@%25%3F%23%5B%5D%C3%A9%22%3C%3E%5C%5E%60%7B%7C%7D");
    }

    #[test]
    fn a_query_writes_spaces_as_plus_and_plus_as_itself_encoded() {
        let mut out = String::new();
        quote_query(&mut out, "a b+c&d=e/é?".as_bytes());
        assert_eq!(out, "a+b%2Bc%26d%3De/%C3%A9?");
    }
}
