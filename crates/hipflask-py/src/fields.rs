//! The values of header fields that nearly every request has: parameters, lists, cookies, dates.
//!
//! The parsing functions are pure and take what a server has decoded as Latin-1. They accept what Werkzeug accepts and
//! give what it gives; the rarer fields are parsed in Python (`hipflask/werkzeug/http.py`).
//!
//! Implements: the functions of the same names in `werkzeug.http` (3.1); RFC 9110 §5.6, RFC 6265, RFC 8187.

use std::borrow::Cow;
use std::collections::HashMap;

use pyo3::exceptions::{PyUserWarning, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyMapping, PyString, PyType};

use crate::multidict;

/// The seconds that fit into four digits of year, from 0001-01-01 to 9999-12-31.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

// What `str.strip` removes: Unicode's white space and four separators that Rust does not count in.
fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\x1c'..='\x1f').contains(&char)
}

/// A value as a token if it is one, else as a quoted string.
pub(crate) fn quote(value: &str, allow_token: bool) -> Cow<'_, str> {
    if allow_token && !value.is_empty() && value.bytes().all(is_token) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// A value without the quotes around it, or as it is.
pub(crate) fn unquote(value: &str) -> Cow<'_, str> {
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if inner.contains('\\') => Cow::Owned(inner.replace("\\\\", "\\").replace("\\\"", "\"")),
        Some(inner) => Cow::Borrowed(inner),
        None => Cow::Borrowed(value),
    }
}

/// The items of a comma-separated list; commas inside quotes do not separate, and quotes around an item go.
pub(crate) fn list(value: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut item = String::new();
    let mut quoted = false;
    let mut chars = value.chars();
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
        let bare = strip(item);
        let bare = bare.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(bare);
        *item = bare.to_owned();
    }
    items
}

/// A value such as `text/html; charset=utf-8`: the part before the parameters, and these in order of first appearance.
///
/// Knows percent-encoded values with a character set (`filename*=UTF-8''%e2%82%ac`) and continued ones (`name*0=`).
pub(crate) fn options(header: &str) -> (&str, Vec<(String, String)>) {
    let (value, rest) = header.split_once(';').unwrap_or((header, ""));
    let (value, rest) = (strip(value), strip(rest));
    let mut found: Vec<(String, String)> = Vec::new();
    if value.is_empty() {
        return (value, found);
    }
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut charset: Option<String> = None;
    let mut continued: Option<String> = None;
    for (mut key, raw) in parameters(rest) {
        let mut text = Cow::Borrowed(raw);
        if key.ends_with('*') {
            key.pop();
            if let Some((named, encoded)) = with_charset(raw) {
                charset = Some(named.to_ascii_lowercase());
                text = Cow::Borrowed(encoded);
            }
            if charset.as_deref().is_none_or(str::is_empty) {
                charset.clone_from(&continued);
            }
            if let Some(decode) = charset.as_deref().and_then(charset_decoder) {
                continued.clone_from(&charset);
                text = Cow::Owned(decode(&hipflask_http::query::percent_decode(text.as_bytes())));
            }
        }
        let text = match text.strip_prefix('"') {
            Some("") => String::new(),
            Some(rest) if rest.ends_with('"') => {
                let inner = rest.get(..rest.len() - 1).unwrap_or_default();
                inner.replace("\\\\", "\\").replace("\\\"", "\"").replace("%22", "\"")
            }
            _ => text.into_owned(),
        };
        let continues = continuation(&key).map(str::len);
        if let Some(length) = continues {
            key.truncate(length);
        }
        match places.get(&key).and_then(|place| found.get_mut(*place)) {
            Some((_, known)) if continues.is_some() => known.push_str(&text),
            Some((_, known)) => *known = text,
            None => {
                places.insert(key.clone(), found.len());
                found.push((key, text));
            }
        }
    }
    (value, found)
}

// Name and raw value, quotes included, of every parameter that has both; what stands between is passed over.
fn parameters(mut rest: &str) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let name = rest.bytes().take_while(|byte| is_token(*byte)).count();
        if name > 0 && rest.as_bytes().get(name) == Some(&b'=') {
            let (key, value) = rest.split_at(name);
            rest = value.get(1..).unwrap_or_default();
            let token = rest.bytes().take_while(|byte| is_token(*byte)).count();
            if token > 0 {
                found.push((key.to_ascii_lowercase(), rest.get(..token).unwrap_or_default()));
            } else if let Some(end) = closing_quote(rest) {
                let (quoted, behind) = rest.split_at(end);
                found.push((key.to_ascii_lowercase(), quoted));
                rest = behind;
            }
        }
        rest = match rest.split_once(';') {
            Some((_, behind)) => behind.trim_start_matches(is_space),
            None => break,
        };
    }
    found
}

// Where a quoted string ends, its closing quote included.
fn closing_quote(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        match (bytes.get(at)?, bytes.get(at + 1)) {
            (b'\\', Some(b'\\' | b'"')) => at += 2,
            (b'"', _) => return Some(at + 1),
            _ => at += 1,
        }
    }
}

// `charset'language'value` of RFC 8187; the language is of no use to us.
fn with_charset(value: &str) -> Option<(&str, &str)> {
    let (charset, rest) = value.split_once('\'')?;
    let (language, encoded) = rest.split_once('\'')?;
    let end = encoded.bytes().take_while(|byte| is_token(*byte)).count();
    let tokens = charset.bytes().chain(language.bytes()).all(is_token);
    (tokens && end > 0).then(|| (charset, encoded.get(..end).unwrap_or_default()))
}

fn charset_decoder(charset: &str) -> Option<fn(&[u8]) -> String> {
    match charset {
        "utf-8" => Some(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        "iso-8859-1" => Some(|bytes| bytes.iter().map(|byte| char::from(*byte)).collect()),
        "ascii" | "us-ascii" => Some(|bytes| {
            let decode =
                |byte: &u8| if byte.is_ascii() { char::from(*byte) } else { char::REPLACEMENT_CHARACTER };
            bytes.iter().map(decode).collect()
        }),
        _ => None,
    }
}

// `name` of `name*3`.
fn continuation(key: &str) -> Option<&str> {
    let bare = key.trim_end_matches(|char: char| char.is_ascii_digit());
    if bare.len() == key.len() { None } else { bare.strip_suffix('*') }
}

/// The names and values of a `Cookie` field, in order.
///
/// Werkzeug's leniency: a name may be anything but empty, a value without `=` is empty, a quoted value may hold
/// semicolons and octal escapes.
pub(crate) fn cookies(header: &str) -> Vec<(&str, Cow<'_, str>)> {
    let mut found = Vec::new();
    let mut rest = header;
    while !rest.is_empty() {
        let end = memchr::memchr2(b'=', b';', rest.as_bytes()).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        let Some(after) = behind.strip_prefix('=') else {
            push_cookie(&mut found, name, "");
            rest = next_cookie(behind);
            continue;
        };
        let after = after.trim_start_matches(is_ascii_space);
        if let Some(end) = cookie_quote(after) {
            let (value, behind) = after.split_at(end);
            push_cookie(&mut found, name, value);
            rest = next_cookie(behind.trim_start_matches(is_ascii_space));
            continue;
        }
        let end = memchr::memchr(b';', after.as_bytes()).unwrap_or(after.len());
        let (value, behind) = after.split_at(end);
        let value = value.trim_matches(is_ascii_space);
        if value.contains('\n') {
            // No value has a line break in it: what follows the equals sign is read as a new cookie.
            rest = after;
            continue;
        }
        push_cookie(&mut found, name, value);
        rest = next_cookie(behind);
    }
    found
}

fn push_cookie<'a>(found: &mut Vec<(&'a str, Cow<'a, str>)>, name: &'a str, value: &'a str) {
    let (name, value) = (strip(name), strip(value));
    if name.is_empty() {
        return;
    }
    let inner = if value.len() >= 2 {
        value.strip_prefix('"').and_then(|value| value.strip_suffix('"'))
    } else {
        None
    };
    found.push((name, inner.map_or(Cow::Borrowed(value), unslash)));
}

fn next_cookie(behind: &str) -> &str {
    behind.strip_prefix(';').unwrap_or(behind).trim_start_matches(is_ascii_space)
}

fn is_ascii_space(char: char) -> bool {
    matches!(char, ' ' | '\t'..='\r')
}

// Where a quoted cookie value ends, if nothing but space stands between it and the next semicolon.
fn cookie_quote(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => break,
            b'\\' if bytes.get(at + 1) == Some(&b'\n') => return None,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    let behind = text.get(at + 1..)?.trim_start_matches(is_ascii_space);
    (behind.is_empty() || behind.starts_with(';')).then_some(at + 1)
}

// Undoes `\ooo` and `\x`.
fn unslash(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    loop {
        rest = match rest {
            [] => break,
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                behind
            }
            [b'\\', byte, behind @ ..] if *byte != b'\n' => {
                out.push(*byte);
                behind
            }
            [byte, behind @ ..] => {
                out.push(*byte);
                behind
            }
        };
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

// A cookie's value with quotes and octal escapes if it has anything that a cookie may not have.
fn cookie_value(value: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_!#$%&'()*+-./:<=>?@[]^`{|}~".contains(&byte);
    if value.bytes().all(plain) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len() + 8);
    out.push('"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            // 0x1a to 0x1f stay, as in Werkzeug, whose set of bytes to escape ends at 0x19.
            0..=0x19 | b',' | b';' | 0x7f.. => out.push_str(&format!("\\{byte:03o}")),
            _ => out.push(char::from(byte)),
        }
    }
    out.push('"');
    Cow::Owned(out)
}

fn quoted_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~%!$&'()*+,/:=@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

// The digits of a domain as `str.encode("idna")` gives them; ASCII labels of the right length are left to themselves.
fn ascii_domain(py: Python<'_>, domain: &str) -> PyResult<String> {
    let domain = domain.split(':').next().unwrap_or_default().trim_start_matches('.');
    if domain.is_ascii() && domain.split('.').all(|label| (1..64).contains(&label.len())) {
        return Ok(domain.to_owned());
    }
    let bytes = PyString::new(py, domain).call_method1(intern!(py, "encode"), (intern!(py, "idna"),))?;
    bytes.call_method1(intern!(py, "decode"), (intern!(py, "ascii"),))?.extract()
}

/// A value as a header has it: a token if it can be one, else in quotes.
///
/// Args:
///     value: The value, which is made a string.
///     allow_token: Whether quotes may be left out.
#[pyfunction]
#[pyo3(signature = (value, allow_token=true))]
fn quote_header_value<'py>(value: &Bound<'py, PyAny>, allow_token: bool) -> PyResult<Bound<'py, PyString>> {
    let text = value.str()?;
    Ok(match quote(text.to_str()?, allow_token) {
        Cow::Borrowed(_) => text.clone(),
        Cow::Owned(quoted) => PyString::new(value.py(), &quoted),
    })
}

/// A value without the quotes around it and their escapes; one without quotes as it is.
#[pyfunction]
fn unquote_header_value<'py>(value: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyString>> {
    let text = value.to_str()?;
    if text.len() < 2 {
        return Ok(value.clone());
    }
    Ok(PyString::new(value.py(), &unquote(text)))
}

/// A header value with parameters, such as ``attachment; filename=a.txt``.
///
/// Args:
///     header: The part before the parameters, if there is one.
///     options: The parameters; those that are ``None`` are left out, those whose name ends in ``*`` are not quoted.
#[pyfunction]
fn dump_options_header(
    header: Option<&Bound<'_, PyAny>>,
    options: &Bound<'_, PyMapping>,
) -> PyResult<String> {
    let mut out = match header {
        Some(header) => header.str()?.to_str()?.to_owned(),
        None => String::new(),
    };
    let mut first = header.is_none();
    for pair in options.call_method0(intern!(options.py(), "items"))?.try_iter()? {
        let (key, value): (String, Option<Bound<'_, PyAny>>) = pair?.extract()?;
        let Some(value) = value else { continue };
        if !std::mem::take(&mut first) {
            out.push_str("; ");
        }
        let value = value.str()?;
        let value = value.to_str()?;
        out.push_str(&key);
        out.push('=');
        out.push_str(&if key.ends_with('*') { Cow::Borrowed(value) } else { quote(value, true) });
    }
    Ok(out)
}

/// The items of a comma-separated list, without the quotes around them.
#[pyfunction]
fn parse_list_header(value: &str) -> Vec<String> {
    list(value)
}

/// A header value with parameters, as the part before them and a dict.
///
/// Returns:
///     ``("", {})`` for ``None``.
#[pyfunction]
fn parse_options_header<'py>(py: Python<'py>, value: Option<&str>) -> PyResult<(String, Bound<'py, PyDict>)> {
    let (value, found) = options(value.unwrap_or_default());
    let dict = PyDict::new(py);
    for (key, option) in found {
        dict.set_item(key, option)?;
    }
    Ok((value.to_owned(), dict))
}

// The public `parse_cookie` functions differ in what they take; this is what they share.
#[pyfunction]
#[pyo3(signature = (cookie, cls=None))]
fn parse_cookie<'py>(
    py: Python<'py>,
    cookie: Option<&str>,
    cls: Option<&Bound<'py, PyType>>,
) -> PyResult<Bound<'py, PyAny>> {
    let found = cookies(cookie.unwrap_or_default());
    match cls {
        Some(cls) => multidict::of_class(cls, found),
        None => multidict::from_pairs(py, false, found).map(Bound::into_any),
    }
}

// Seconds since 1970 as HTTP has them, or `None` where the year has no four digits.
#[pyfunction]
fn format_date(seconds: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    let whole = if !seconds.is_instance_of::<PyInt>() {
        // Rounded to microseconds before the fraction goes, as `datetime.fromtimestamp` does.
        let value: f64 = seconds.extract()?;
        let micros = ((value - value.floor()) * 1e6).round_ties_even();
        let whole = value.floor() + if micros >= 1e6 { 1.0 } else { 0.0 };
        if !(-1e12..1e12).contains(&whole) {
            return Ok(None);
        }
        whole as i64
    } else {
        match seconds.extract::<i64>() {
            Ok(whole) => whole,
            Err(_) => return Ok(None),
        }
    };
    if !SECONDS.contains(&whole) {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&hipflask_http::date::format(whole)).into_owned()))
}

fn http_date<'py>(moment: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = moment.py();
    py.import(intern!(py, "hipflask.werkzeug.http"))?.call_method1(intern!(py, "http_date"), (moment,))
}

// `int(delta.total_seconds())` of a `timedelta`, everything else as it is.
fn seconds<'py>(age: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if age.is_instance_of::<PyInt>() {
        return Ok(age.clone());
    }
    match age.getattr_opt(intern!(age.py(), "total_seconds"))? {
        Some(total) => Ok(PyInt::new(age.py(), total.call0()?.extract::<f64>()? as i64).into_any()),
        None => Ok(age.clone()),
    }
}

/// The value of a ``Set-Cookie`` field.
///
/// Args:
///     key: The cookie's name.
///     value: Its value, which is quoted and escaped if need be.
///     max_age: Seconds, or a ``timedelta``, that the cookie lives; without it, as long as the browser runs.
///     expires: The moment it ends: a ``datetime``, a timestamp, or text that is taken as it is.
///     path: Below which path it is sent.
///     domain: To which other domain it is sent, sub-domains included.
///     secure: Whether only over HTTPS.
///     httponly: Whether hidden from scripts.
///     sync_expires: Whether ``max_age`` sets ``expires`` when that is not given.
///     max_size: Above how many bytes to warn; 0 for never.
///     samesite: ``Strict``, ``Lax`` or ``None``, as text.
///     partitioned: Whether kept apart for each top-level site; implies ``secure``.
///
/// Raises:
///     ValueError: If ``samesite`` is something else.
#[pyfunction]
#[pyo3(signature = (
    key, value="", max_age=None, expires=None, path=Some("/"), domain=None, secure=false, httponly=false,
    sync_expires=true, max_size=4093, samesite=None, partitioned=false
), text_signature = "(key, value='', max_age=None, expires=None, path='/', domain=None, secure=False, httponly=False, \
sync_expires=True, max_size=4093, samesite=None, partitioned=False)")]
#[allow(clippy::too_many_arguments, reason = "Werkzeug's signature")]
fn dump_cookie(
    py: Python<'_>,
    key: &str,
    value: &str,
    max_age: Option<&Bound<'_, PyAny>>,
    expires: Option<&Bound<'_, PyAny>>,
    path: Option<&str>,
    domain: Option<&str>,
    secure: bool,
    httponly: bool,
    sync_expires: bool,
    max_size: Option<usize>,
    samesite: Option<&str>,
    partitioned: bool,
) -> PyResult<String> {
    let domain = match domain {
        Some(domain) if !domain.is_empty() => Some(ascii_domain(py, domain)?),
        domain => domain.map(str::to_owned),
    };
    let max_age = max_age.map(seconds).transpose()?;
    let expires = match (expires, &max_age) {
        (Some(expires), _) if expires.is_instance_of::<PyString>() => Some(expires.clone()),
        (Some(expires), _) => Some(http_date(expires)?),
        (None, Some(age)) if sync_expires => {
            let now = py.import(intern!(py, "time"))?.call_method0(intern!(py, "time"))?;
            Some(http_date(&now.add(age)?)?)
        }
        (None, _) => None,
    };
    let samesite = match samesite.map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some("strict") => Some("Strict"),
        Some("lax") => Some("Lax"),
        Some("none") => Some("None"),
        Some(_) => return Err(PyValueError::new_err("SameSite must be 'Strict', 'Lax', or 'None'.")),
    };

    let value = cookie_value(value);
    // One character for each byte of the name's UTF-8, as WSGI wants it.
    let mut out: String = key.bytes().map(char::from).collect();
    out.push('=');
    out.push_str(&value);
    let mut attribute = |name: &str, value: Option<&str>| {
        out.push_str("; ");
        out.push_str(name);
        if let Some(value) = value {
            out.push('=');
            out.push_str(value);
        }
    };
    if let Some(domain) = domain {
        attribute("Domain", Some(&domain));
    }
    if let Some(expires) = expires {
        attribute("Expires", Some(expires.str()?.to_str()?));
    }
    // A flag stands for itself.
    let flag = |age: &Bound<'_, PyAny>| age.cast::<PyBool>().ok().map(|flag| flag.is_true());
    match (&max_age, max_age.as_ref().and_then(flag)) {
        (Some(_), Some(true)) => attribute("Max-Age", None),
        (Some(age), None) => attribute("Max-Age", Some(age.str()?.to_str()?)),
        (Some(_), Some(false)) | (None, _) => {}
    }
    if secure || partitioned {
        attribute("Secure", None);
    }
    if httponly {
        attribute("HttpOnly", None);
    }
    if let Some(path) = path {
        attribute("Path", Some(&quoted_path(path)));
    }
    if let Some(samesite) = samesite {
        attribute("SameSite", Some(samesite));
    }
    if partitioned {
        attribute("Partitioned", None);
    }
    if let Some(most) = max_size.filter(|most| *most > 0) {
        let (size, used) = (out.chars().count(), value.chars().count());
        if size > most {
            let text = format!(
                "The '{key}' cookie is too large: the value was {used} bytes but the header required {} extra bytes. \
                 The final size was {size} bytes but the limit is {most} bytes. Browsers may silently ignore cookies \
                 larger than this.",
                size - used
            );
            let text = std::ffi::CString::new(text.replace('\0', "\\x00")).unwrap_or_default();
            PyErr::warn(py, &py.get_type::<PyUserWarning>(), &text, 1)?;
        }
    }
    Ok(out)
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(quote_header_value, module)?)?;
    module.add_function(wrap_pyfunction!(unquote_header_value, module)?)?;
    module.add_function(wrap_pyfunction!(dump_options_header, module)?)?;
    module.add_function(wrap_pyfunction!(parse_list_header, module)?)?;
    module.add_function(wrap_pyfunction!(parse_options_header, module)?)?;
    module.add_function(wrap_pyfunction!(parse_cookie, module)?)?;
    module.add_function(wrap_pyfunction!(format_date, module)?)?;
    module.add_function(wrap_pyfunction!(dump_cookie, module)?)
}

#[cfg(test)]
mod tests {
    use super::{cookies, list, options, quote};

    #[test]
    fn a_cookie_may_hold_a_quoted_semicolon_and_octal_escapes() {
        let found = cookies(r#"a="x;\342\202\254"; b ; c = d"#);
        let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        assert_eq!(found, [("a", "x;€"), ("b", ""), ("c", "d")]);
    }

    #[test]
    fn a_continued_parameter_is_joined_and_decoded() {
        let (value, found) = options("form-data; n*0*=UTF-8''%e2%82; n*1*=%ac; m=\"a\\\"b\"");
        assert_eq!(value, "form-data");
        assert_eq!(found.get(1), Some(&("m".to_owned(), "a\"b".to_owned())));
    }

    #[test]
    fn quotes_keep_commas_together() {
        assert_eq!(list(r#"a, "b,c" ,d"#), ["a", "b,c", "d"]);
        assert_eq!(quote("a b", true), "\"a b\"");
    }
}
