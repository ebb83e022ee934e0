//! The values of header fields that nearly every request has: parameters, lists, cookies, dates.
//!
//! What `hipflask_http` reads and writes, as Python's functions; the rarer fields are parsed in Python
//! (`hipflask/werkzeug/http.py`).
//!
//! Implements: the functions of the same names in `werkzeug.http` (3.1); RFC 9110 §5.6, RFC 6265, RFC 8187.

use std::borrow::Cow;

use hipflask_http::field::{parse_list, parse_options, quote, unquote};
use hipflask_http::query;
use pyo3::exceptions::{PyUserWarning, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyMapping, PyString, PyType};

use crate::multidict;

/// The seconds that fit into four digits of year, from 0001-01-01 to 9999-12-31.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

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
    parse_list(value)
}

/// A header value with parameters, as the part before them and a dict.
///
/// Returns:
///     ``("", {})`` for ``None``.
#[pyfunction]
fn parse_options_header<'py>(py: Python<'py>, value: Option<&str>) -> PyResult<(String, Bound<'py, PyDict>)> {
    let options = parse_options(value.unwrap_or_default());
    let dict = PyDict::new(py);
    for (key, option) in options.parameters() {
        dict.set_item(key, option)?;
    }
    Ok((options.value, dict))
}

// The public `parse_cookie` functions differ in what they take; this is what they share.
#[pyfunction]
#[pyo3(signature = (cookie, cls=None))]
fn parse_cookie<'py>(
    py: Python<'py>,
    cookie: Option<&str>,
    cls: Option<&Bound<'py, PyType>>,
) -> PyResult<Bound<'py, PyAny>> {
    let found = hipflask_http::cookie::parse(cookie.unwrap_or_default());
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

    let value = hipflask_http::cookie::quote_value(value);
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
        attribute("Path", Some(&query::quote(path, b"%!$&'()*+,/:=@")));
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
