//! Structures inside field values: comma lists, quoted strings, values with parameters (RFC 9110 §5.6, RFC 2231,
//! RFC 8187), with Werkzeug's results: parts that are malformed are skipped, not refused.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::query::percent_decode;
use crate::token::{is_token, is_token_byte, strip};

/// A value with parameters: `text/html; charset=utf-8`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// What stands before the first `;`.
    pub value: String,
    parameters: Ordered<String>,
}

impl Options {
    /// A parameter by its name in lower case.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.find(name).map(String::as_str)
    }

    /// The parameters, names in lower case, each once.
    pub fn parameters(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.parameters.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The parameters, taken out.
    #[must_use]
    pub fn into_parameters(self) -> Vec<(String, String)> {
        self.parameters.pairs
    }
}

/// Pairs in the order in which their names first came; quick to search even where a client sends thousands.
#[derive(Debug, Clone)]
struct Ordered<V> {
    pairs: Vec<(String, V)>,
    index: HashMap<String, usize>,
}

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Ordered { pairs: Vec::new(), index: HashMap::new() }
    }
}

impl<V: PartialEq> PartialEq for Ordered<V> {
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs
    }
}

impl<V: Eq> Eq for Ordered<V> {}

impl<V> Ordered<V> {
    /// Up to this many pairs a walk is quicker than a hash.
    const SMALL: usize = 16;

    fn position(&self, name: &str) -> Option<usize> {
        if self.index.is_empty() {
            self.pairs.iter().position(|(known, _)| known == name)
        } else {
            self.index.get(name).copied()
        }
    }

    fn find(&self, name: &str) -> Option<&V> {
        self.pairs.get(self.position(name)?).map(|(_, value)| value)
    }

    /// The value under a name, made if there is none.
    fn entry(&mut self, name: &str, new: impl FnOnce() -> V) -> Option<&mut V> {
        let at = match self.position(name) {
            Some(at) => at,
            None => {
                self.pairs.push((name.to_owned(), new()));
                let at = self.pairs.len() - 1;
                if self.pairs.len() == Self::SMALL {
                    let names = self.pairs.iter().enumerate();
                    self.index = names.map(|(at, (name, _))| (name.clone(), at)).collect();
                } else if at >= Self::SMALL {
                    self.index.insert(name.to_owned(), at);
                }
                at
            }
        };
        self.pairs.get_mut(at).map(|(_, value)| value)
    }
}

/// Reads a value with parameters, with RFC 2231's character sets and continuations.
#[must_use]
pub fn parse_options(text: &str) -> Options {
    let (value, rest) = text.split_once(';').unwrap_or((text, ""));
    let value = strip(value).to_owned();
    let mut options = Options { value, ..Options::default() };
    let rest = strip(rest);
    if options.value.is_empty() || rest.is_empty() {
        return options;
    }
    let mut charset = Charset::None;
    let mut continued = Charset::None;
    for (name, raw) in parameters(rest) {
        let mut name = name.to_ascii_lowercase();
        let mut value = Cow::Borrowed(raw);
        if name.ends_with('*') {
            name.pop();
            let mut text = raw;
            if let Some((mark, behind)) = charset_mark(raw) {
                charset = Charset::named(mark);
                text = behind;
            }
            // Looser than RFC 2231: a set once named holds for what follows, even under another name.
            if charset == Charset::None {
                charset = continued;
            }
            value = Cow::Borrowed(text);
            if charset.is_known() {
                continued = charset;
                value = charset.decode(text);
            }
        }
        let value = match value.as_ref() {
            quoted if quoted.len() > 1 && quoted.starts_with('"') && quoted.ends_with('"') => {
                Cow::Owned(unescape(quoted))
            }
            "\"" => Cow::Borrowed(""),
            _ => value,
        };
        match continuation(&name) {
            Some(base) => {
                if let Some(whole) = options.parameters.entry(base, String::new) {
                    whole.push_str(&value);
                }
            }
            None => {
                if let Some(place) = options.parameters.entry(&name, String::new) {
                    place.clear();
                    place.push_str(&value);
                }
            }
        }
    }
    options
}

/// The well-formed `name=value` parts, values as they stand.
fn parameters(mut rest: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut over = false;
    std::iter::from_fn(move || {
        while !over {
            let mut found = None;
            let name = token_prefix(rest);
            if let Some(value) = rest.get(name.len()..).and_then(|behind| behind.strip_prefix('='))
                && !name.is_empty()
            {
                rest = value;
                let token = token_prefix(value);
                if !token.is_empty() {
                    found = Some((name, token));
                } else if let Some(length) = quoted_length(value.as_bytes()) {
                    let (quoted, behind) = value.split_at(length);
                    found = Some((name, quoted));
                    rest = behind;
                }
            }
            match memchr::memchr(b';', rest.as_bytes()) {
                Some(at) => rest = crate::token::strip_start(rest.get(at + 1..).unwrap_or_default()),
                None => over = true,
            }
            if found.is_some() {
                return found;
            }
        }
        None
    })
}

fn token_prefix(text: &str) -> &str {
    let length = text.bytes().take_while(|&byte| is_token_byte(byte)).count();
    text.get(..length).unwrap_or_default()
}

/// The length, quotes included, of the quoted string with which the bytes begin. Only `\"` and `\\` are escapes.
fn quoted_length(bytes: &[u8]) -> Option<usize> {
    let mut inside = bytes.strip_prefix(b"\"")?;
    loop {
        match inside {
            [b'\\', b'\\' | b'"', rest @ ..] => inside = rest,
            [b'"', rest @ ..] => return Some(bytes.len() - rest.len()),
            [_, rest @ ..] => inside = rest,
            [] => return None,
        }
    }
}

/// Takes the quotes off. Fields escape a quote by a backslash, forms in HTML by `%22`.
fn unescape(quoted: &str) -> String {
    let inside = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    if !inside.contains(['\\', '%']) {
        return inside.to_owned();
    }
    inside.replace("\\\\", "\\").replace("\\\"", "\"").replace("%22", "\"")
}

/// `charset'language'` before an encoded value.
fn charset_mark(text: &str) -> Option<(&str, &str)> {
    let (charset, rest) = text.split_once('\'')?;
    let (language, value) = rest.split_once('\'')?;
    let plain = |part: &str| part.bytes().all(is_token_byte);
    let value = token_prefix(value);
    (plain(charset) && plain(language) && !value.is_empty()).then_some((charset, value))
}

/// `name` of `name*0`.
fn continuation(name: &str) -> Option<&str> {
    let (base, number) = name.rsplit_once('*')?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(base)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charset {
    None,
    Unknown,
    Ascii,
    Utf8,
    Latin1,
}

impl Charset {
    fn named(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "" => Charset::None,
            "ascii" | "us-ascii" => Charset::Ascii,
            "utf-8" => Charset::Utf8,
            "iso-8859-1" => Charset::Latin1,
            _ => Charset::Unknown,
        }
    }

    fn is_known(self) -> bool {
        !matches!(self, Charset::None | Charset::Unknown)
    }

    /// Undoes percent-encoding; bytes that the set does not have become U+FFFD.
    fn decode(self, text: &str) -> Cow<'_, str> {
        if !text.contains('%') {
            return Cow::Borrowed(text);
        }
        if self == Charset::Utf8 {
            let bytes = percent_decode(text.as_bytes());
            return Cow::Owned(String::from_utf8_lossy(&bytes).into_owned());
        }
        // What stands unescaped is text already, whatever the set.
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = memchr::memchr(b'%', rest.as_bytes()) {
            let (plain, escaped) = rest.split_at(at);
            out.push_str(plain);
            let byte =
                escaped.get(1..3).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
            let byte = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let length = match byte {
                Some(byte) if byte < 128 || self == Charset::Latin1 => {
                    out.push(byte as char);
                    3
                }
                Some(_) => {
                    out.push(char::REPLACEMENT_CHARACTER);
                    3
                }
                None => {
                    out.push('%');
                    1
                }
            };
            rest = escaped.get(length..).unwrap_or_default();
        }
        out.push_str(rest);
        Cow::Owned(out)
    }
}

/// Writes a value with parameters. A name that ends in `*` announces a value that is already encoded.
#[must_use]
pub fn dump_options<'a>(value: &str, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = value.to_owned();
    for (name, value) in parameters {
        out.push_str("; ");
        out.push_str(name);
        out.push('=');
        out.push_str(&if name.ends_with('*') { Cow::Borrowed(value) } else { quote(value, true) });
    }
    out
}

/// A value as a quoted string, or as it is if it is a token and `allow_token`.
#[must_use]
pub fn quote(value: &str, allow_token: bool) -> Cow<'_, str> {
    if allow_token && is_token(value.as_bytes()) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for char in value.chars() {
        if matches!(char, '"' | '\\') {
            out.push('\\');
        }
        out.push(char);
    }
    out.push('"');
    Cow::Owned(out)
}

/// The inverse of [`quote`]; what is not quoted stays as it is.
#[must_use]
pub fn unquote(value: &str) -> Cow<'_, str> {
    match value.as_bytes() {
        [b'"', .., b'"'] => {
            let inside = value.get(1..value.len() - 1).unwrap_or_default();
            Cow::Owned(inside.replace("\\\\", "\\").replace("\\\"", "\""))
        }
        _ => Cow::Borrowed(value),
    }
}

/// The elements of a comma list, without the quotes around them. Commas inside quotes do not count; empty elements do.
#[must_use]
pub fn parse_list(text: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut item = String::new();
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' if quoted => item.extend(chars.next()),
            ',' if !quoted => items.push(std::mem::take(&mut item)),
            _ => {
                quoted ^= char == '"';
                item.push(char);
            }
        }
    }
    if !item.is_empty() {
        items.push(item);
    }
    for item in &mut items {
        let stripped = strip(item);
        let inside = match stripped.as_bytes() {
            [b'"', .., b'"'] => stripped.get(1..stripped.len() - 1).unwrap_or_default(),
            _ => stripped,
        };
        if inside.len() < item.len() {
            *item = inside.to_owned();
        }
    }
    items
}

/// The elements of a comma list of `name=value`, each name once, in the order in which they first came.
#[must_use]
pub fn parse_pairs(text: &str) -> Vec<(String, Option<String>)> {
    let mut found = Ordered::default();
    for item in parse_list(text) {
        let (name, value) = match item.split_once('=') {
            Some((name, value)) => (strip(name), Some(strip(value))),
            None => (strip(&item), None),
        };
        if name.is_empty() {
            continue;
        }
        let (name, value) = match (name.strip_suffix('*'), value) {
            (Some(base), Some(value)) => {
                let (charset, value) = match charset_mark(value) {
                    Some((mark, value)) => (Charset::named(mark), value),
                    None => (Charset::None, value),
                };
                (base, Some(if charset.is_known() { charset.decode(value) } else { Cow::Borrowed(value) }))
            }
            (_, value) => (name, value.map(Cow::Borrowed)),
        };
        let value = value.map(|value| match value.as_bytes() {
            [b'"', .., b'"'] => value.get(1..value.len() - 1).unwrap_or_default().to_owned(),
            _ => value.into_owned(),
        });
        if let Some(place) = found.entry(name, || None) {
            *place = value;
        }
    }
    found.pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_with_charsets_and_continuations() {
        for (text, value, expected) in [
            ("text/html; Charset=utf-8", "text/html", vec![("charset", "utf-8")]),
            (
                r#"form-data; name="a;b"; filename="c\"d""#,
                "form-data",
                vec![("name", "a;b"), ("filename", "c\"d")],
            ),
            (r#"form-data; name="a%22b""#, "form-data", vec![("name", "a\"b")]),
            ("attachment; filename*=UTF-8''%e2%82%ac.txt", "attachment", vec![("filename", "€.txt")]),
            ("attachment; filename*=iso-8859-1'en'%a3.txt", "attachment", vec![("filename", "£.txt")]),
            ("attachment; filename*=big5''%a3.txt", "attachment", vec![("filename", "%a3.txt")]),
            ("a; b*0=c; b*1=\"d e\"", "a", vec![("b", "cd e")]),
            ("a; b; =c; d=; e=f", "a", vec![("e", "f")]),
            ("a; b=c; b=d", "a", vec![("b", "d")]),
            ("; b=c", "", vec![]),
        ] {
            let options = parse_options(text);
            assert_eq!(options.value, value, "{text}");
            assert_eq!(options.parameters().collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn thousands_of_parameters_take_linear_time_and_keep_order() {
        let text = (0..50_000).fold("a".to_owned(), |text, at| text + &format!(";p{at}={at}"));
        let options = parse_options(&text);
        assert_eq!(options.parameters().len(), 50_000);
        assert_eq!(options.parameter("p49999"), Some("49999"));
        assert_eq!(options.parameter("p3"), Some("3"));
        assert_eq!(options.parameters().nth(20_000), Some(("p20000", "20000")));
        assert_eq!(options.into_parameters().len(), 50_000);
    }

    #[test]
    fn lists_mind_quotes() {
        assert_eq!(parse_list(r#"a, "b,c" , d"e,f"g,"#), ["a", "b,c", "d\"e,f\"g"]);
        assert_eq!(parse_list("a,,b"), ["a", "", "b"]);
        let pair = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        assert_eq!(
            parse_pairs(r#"max-age=5, no-store, a="b, c", a=d, =e, f*=utf-8''%C3%A9"#),
            [pair("max-age", Some("5")), pair("no-store", None), pair("a", Some("d")), pair("f", Some("é"))]
        );
    }

    #[test]
    fn what_is_written_can_be_read() {
        assert_eq!(
            dump_options("a", [("b", "c"), ("d", "e f"), ("g*", "UTF-8''h"), ("i", "")]),
            "a; b=c; d=\"e f\"; g*=UTF-8''h; i=\"\""
        );
        assert_eq!(unquote(&quote(r#"a"b\c"#, true)), r#"a"b\c"#);
    }
}
