//! `hipflask_http`'s field values for Python: parameters, lists, cookies, dates.
//!
//! The rarer fields are parsed in Python (`hipflask/werkzeug/http.py`).
//!
//! Implements: the functions of the same names in `werkzeug.http` (3.1).

use std::borrow::Cow;
use std::ffi::CString;

use hipflask_http::cookie::{self, Attributes};
use hipflask_http::{date, field};
use pyo3::exceptions::{PyUserWarning, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyMapping, PyString, PyType};

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
    Ok(match field::quote(text.to_str()?, allow_token) {
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
    Ok(PyString::new(value.py(), &field::unquote(text)))
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
        out.push_str(&if key.ends_with('*') { Cow::Borrowed(value) } else { field::quote(value, true) });
    }
    Ok(out)
}

/// The items of a comma-separated list, without the quotes around them.
#[pyfunction]
fn parse_list_header(value: &str) -> Vec<String> {
    field::parse_list(value)
}

/// A header value with parameters, as the part before them and a dict.
///
/// Returns:
///     ``("", {})`` for ``None``.
#[pyfunction]
fn parse_options_header<'py>(py: Python<'py>, value: Option<&str>) -> PyResult<(String, Bound<'py, PyDict>)> {
    let mut options = field::parse_options(value.unwrap_or_default());
    let value = std::mem::take(&mut options.value);
    let dict = PyDict::new(py);
    for (key, option) in options.into_parameters() {
        dict.set_item(key, option)?;
    }
    Ok((value, dict))
}

/// A comma-separated list of ``key=value`` as a dict; a key that stands alone has ``None``.
///
/// The value of a key that ends in ``*`` is decoded if it names a character set that we know.
#[pyfunction]
fn parse_dict_header<'py>(py: Python<'py>, value: &str) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, value) in field::parse_pairs(value) {
        dict.set_item(key, value)?;
    }
    Ok(dict)
}

// The public `parse_cookie` functions differ in what they take; this is what they share.
#[pyfunction]
#[pyo3(signature = (cookie, cls=None))]
fn parse_cookie<'py>(
    py: Python<'py>,
    cookie: Option<&str>,
    cls: Option<&Bound<'py, PyType>>,
) -> PyResult<Bound<'py, PyAny>> {
    let found = cookie::parse(cookie.unwrap_or_default());
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
    Ok(Some(String::from_utf8_lossy(&date::format(whole)).into_owned()))
}

fn http_date<'py>(moment: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = moment.py();
    py.import(intern!(py, "hipflask.werkzeug.http"))?.call_method1(intern!(py, "http_date"), (moment,))
}

// `int(delta.total_seconds())` of a `timedelta`, `int` of everything else.
fn seconds<'py>(age: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if age.is_exact_instance_of::<PyInt>() {
        return Ok(age.clone());
    }
    let py = age.py();
    let number = match age.getattr_opt(intern!(py, "total_seconds"))? {
        Some(total) => total.call0()?,
        None => age.clone(),
    };
    py.get_type::<PyInt>().call1((number,))
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

    let expires = expires.map(|expires| expires.str()).transpose()?;
    let attributes = Attributes {
        domain: domain.as_deref(),
        expires: expires.as_ref().map(|expires| expires.to_str()).transpose()?,
        max_age: max_age.map(|age| age.extract()).transpose()?,
        path,
        secure,
        http_only: httponly,
        same_site: samesite,
        partitioned,
    };
    let mut out = Vec::with_capacity(key.len() + value.len() + 64);
    cookie::dump(&mut out, key, value, &attributes);
    if let Some(most) = max_size.filter(|most| *most > 0 && out.len() > *most) {
        let used = cookie::quote_value(value).len();
        let text = format!(
            "The '{key}' cookie is too large: the value was {used} bytes but the header required {} extra bytes. \
             The final size was {} bytes but the limit is {most} bytes. Browsers may silently ignore cookies larger \
             than this.",
            out.len() - used,
            out.len(),
        );
        let text = CString::new(text.replace('\0', "\\x00")).unwrap_or_default();
        PyErr::warn(py, &py.get_type::<PyUserWarning>(), &text, 1)?;
    }
    // One character for each byte, as WSGI wants it; only the name can have others than ASCII.
    Ok(out.into_iter().map(char::from).collect())
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(quote_header_value, module)?)?;
    module.add_function(wrap_pyfunction!(unquote_header_value, module)?)?;
    module.add_function(wrap_pyfunction!(dump_options_header, module)?)?;
    module.add_function(wrap_pyfunction!(parse_list_header, module)?)?;
    module.add_function(wrap_pyfunction!(parse_options_header, module)?)?;
    module.add_function(wrap_pyfunction!(parse_dict_header, module)?)?;
    module.add_function(wrap_pyfunction!(parse_cookie, module)?)?;
    module.add_function(wrap_pyfunction!(format_date, module)?)?;
    module.add_function(wrap_pyfunction!(dump_cookie, module)?)
}
