//! Classes of bytes (RFC 9110 §5.6, RFC 3986 §2) and the reading of a field line.

use crate::{Error, Limits, Underscores};

/// `tchar` of RFC 9110 §5.6.2.
const TOKEN: u8 = 1;
/// An underscore, which is a token character too.
const UNDERSCORE: u8 = 2;
/// Any byte that may stand in a request target: visible ASCII but `#`.
const TARGET: u8 = 4;
/// `unreserved`, `sub-delims` of RFC 3986: what a registered host name is made of, beside `%` escapes.
const HOST: u8 = 8;

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let mut class = 0;
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            class |= TOKEN;
        }
        if byte == b'_' {
            class |= UNDERSCORE;
        }
        if byte > b' ' && byte < 127 && byte != b'#' {
            class |= TARGET;
        }
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            )
        {
            class |= HOST;
        }
        table[at] = class;
        at += 1;
    }
    table
}

fn class(byte: u8) -> u8 {
    CLASS[usize::from(byte)]
}

/// Whether the byte may stand in a token.
#[must_use]
pub(crate) fn is_token_byte(byte: u8) -> bool {
    class(byte) & TOKEN != 0
}

/// Whether the bytes are a token: at least one, all of them token characters.
#[must_use]
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// Whether the byte may stand in a request target.
pub(crate) fn is_target_byte(byte: u8) -> bool {
    class(byte) & TARGET != 0
}

/// Whether the byte may stand unescaped in a registered host name.
pub(crate) fn is_host_byte(byte: u8) -> bool {
    class(byte) & HOST != 0
}

/// Strips spaces and tabs (`OWS`) from both ends.
#[must_use]
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// A field line taken apart. The value is trimmed.
pub(crate) struct FieldLine<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
    /// Whether the field is to be left out because of an underscore in its name.
    pub(crate) dropped: bool,
}

/// Reads `field-name ":" OWS field-value OWS` (RFC 9112 §5) from a line without its end. The value's bytes have been
/// checked by the caller.
pub(crate) fn field_line<'a>(line: &'a [u8], limits: &Limits) -> Result<FieldLine<'a>, Error> {
    let mut seen = 0;
    let mut length = 0;
    for &byte in line {
        let class = class(byte);
        if class & TOKEN == 0 {
            break;
        }
        seen |= class;
        length += 1;
    }
    let (name, rest) = line.split_at_checked(length).ok_or(Error::BadName)?;
    let Some((b':', value)) = rest.split_first() else { return Err(bad_name(name, rest)) };
    if name.is_empty() {
        return Err(Error::BadName);
    }
    let dropped = seen & UNDERSCORE != 0 && drops(name, limits)?;
    Ok(FieldLine { name, value: trim(value), dropped })
}

#[cold]
fn bad_name(name: &[u8], rest: &[u8]) -> Error {
    match rest.first() {
        Some(b' ' | b'\t') if name.is_empty() => Error::Folded,
        Some(b' ' | b'\t') if trim(rest).first() == Some(&b':') => Error::SpaceBeforeColon,
        _ if memchr::memchr(b':', rest).is_none() => Error::NoColon,
        _ => Error::BadName,
    }
}

#[cold]
fn drops(name: &[u8], limits: &Limits) -> Result<bool, Error> {
    match limits.underscores {
        Underscores::Keep => Ok(false),
        Underscores::Refuse => Err(Error::ShadowingName),
        Underscores::Guard if shadows(name) => Err(Error::ShadowingName),
        Underscores::Guard => Ok(true),
    }
}

/// Names with a dash that decide about framing, about who the client is and what it may do; a prefix ends in `-`.
const TRUSTED: &[&str] = &[
    "accept-encoding",
    "client-ip",
    "content-",
    "http-",
    "keep-alive",
    "proxy-",
    "remote-",
    "script-name",
    "ssl-",
    "transfer-encoding",
    "true-client-ip",
    "x-client-",
    "x-forwarded-",
    "x-original-",
    "x-real-ip",
    "x-remote-",
    "x-rewrite-url",
    "x-scheme",
    "x-ssl-",
];

fn shadows(name: &[u8]) -> bool {
    let folded: Vec<u8> =
        name.iter().map(|&byte| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }).collect();
    TRUSTED.iter().any(|&trusted| {
        if trusted.ends_with('-') {
            folded.starts_with(trusted.as_bytes())
        } else {
            folded == trusted.as_bytes()
        }
    })
}

/// What Python's `str.strip` takes off: Unicode white space and the four ASCII separators.
fn is_python_space(char: char) -> bool {
    char.is_whitespace() || ('\x1c'..='\x1f').contains(&char)
}

/// Python's `str.strip`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_python_space)
}

/// Python's `str.lstrip`.
pub(crate) fn strip_start(text: &str) -> &str {
    text.trim_start_matches(is_python_space)
}
