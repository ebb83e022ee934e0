//! Text of clients, written so that it can neither end a line, nor a quoted text in it, nor steer a terminal.

use std::io::Write as _;

/// As Apache and nginx write it between quotes: what is no printable ASCII becomes `\xhh`.
pub(super) fn quoted(text: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    for (at, &byte) in text.iter().enumerate() {
        if !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\') {
            out.extend_from_slice(text.get(from..at).unwrap_or_default());
            from = at + 1;
            // A vector takes whatever is written.
            let _ = match byte {
                b'"' | b'\\' => out.write_all(&[b'\\', byte]),
                _ => write!(out, "\\x{byte:02x}"),
            };
        }
    }
    out.extend_from_slice(text.get(from..).unwrap_or_default());
}

/// As a string of JSON, in ASCII. Bytes that are no UTF-8 become U+FFFD.
pub(crate) fn json(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if text.iter().all(|&byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        out.extend_from_slice(text);
    } else {
        for character in String::from_utf8_lossy(text).chars() {
            let _ = match character {
                '"' | '\\' => write!(out, "\\{character}"),
                ' '..='~' => write!(out, "{character}"),
                _ => character.encode_utf16(&mut [0; 2]).iter().try_for_each(|u| write!(out, "\\u{u:04x}")),
            };
        }
    }
    out.push(b'"');
}

/// For people: readable characters stay as they are.
pub(super) fn readable(text: &[u8], out: &mut Vec<u8>) {
    for character in String::from_utf8_lossy(text).chars() {
        let _ = match character {
            _ if is_invisible(character) => write!(out, "{}", character.escape_default()),
            _ => write!(out, "{character}"),
        };
    }
}

/// Control characters, and those that change the direction of text or take no room.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_on_its_line_and_between_its_quotes() {
        let rows: [(&[u8], &str, &str, &str); 7] = [
            (b"plain/text?a=1", "plain/text?a=1", "\"plain/text?a=1\"", "plain/text?a=1"),
            (b"a\" 200 1 \"", "a\\\" 200 1 \\\"", "\"a\\\" 200 1 \\\"\"", "a\" 200 1 \""),
            (b"a\r\nb\0", "a\\x0d\\x0ab\\x00", "\"a\\u000d\\u000ab\\u0000\"", "a\\r\\nb\\u{0}"),
            (b"\x1b[31m\x7f", "\\x1b[31m\\x7f", "\"\\u001b[31m\\u007f\"", "\\u{1b}[31m\\u{7f}"),
            (b"\\", "\\\\", "\"\\\\\"", "\\"),
            (b"\xff\x9b", "\\xff\\x9b", "\"\\ufffd\\ufffd\"", "\u{fffd}\u{fffd}"),
            (
                "\u{e9}\u{202e}\u{1f600}".as_bytes(),
                "\\xc3\\xa9\\xe2\\x80\\xae\\xf0\\x9f\\x98\\x80",
                "\"\\u00e9\\u202e\\ud83d\\ude00\"",
                "\u{e9}\\u{202e}\u{1f600}",
            ),
        ];
        for (text, in_quotes, in_json, for_people) in rows {
            for (escape, wanted) in
                [(quoted as fn(&[u8], &mut Vec<u8>), in_quotes), (json, in_json), (readable, for_people)]
            {
                let mut out = Vec::new();
                escape(text, &mut out);
                assert_eq!(String::from_utf8(out).unwrap(), wanted);
            }
        }
    }
}
