//! A request's address, in whole and in parts: `url`, `base_url`, `root_url`, `host_url`, as IRIs.
//!
//! Implements: `werkzeug.sansio.utils.get_current_url` (3.1), which is asked where a host needs the IDNA codec or an
//! attribute was replaced by what is no text.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};

use super::{RequestBase, This, Value, sansio_utils};
use crate::form::import;

/// How much of the URL is wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Until {
    Host,
    Root,
    Path,
    Query,
}

fn url_until<'py>(slf: This<'_, 'py>, until: Until) -> Value<'py> {
    let py = slf.py();
    let none = || py.None().into_bound(py);
    let part = |wanted: Until, name: &Bound<'py, PyString>| {
        if until >= wanted { slf.getattr(name) } else { Ok(none()) }
    };
    let scheme = slf.getattr(intern!(py, "scheme"))?;
    let host = slf.getattr(intern!(py, "host"))?;
    let root = part(Until::Root, intern!(py, "root_path"))?;
    let path = part(Until::Path, intern!(py, "path"))?;
    let query = part(Until::Query, intern!(py, "query_string"))?;
    if let Some(origin) = origin(&scheme, &host)?
        && let Some(url) = iri(&origin, &root, &path, &query)
    {
        return Ok(PyString::new(py, &url).into_any());
    }
    sansio_utils(py)?.call_method1(intern!(py, "get_current_url"), (scheme, host, root, path, query))
}

/// Whether scheme and host stand for themselves in an IRI, without the IDNA codec.
fn is_plain_origin(scheme: &str, host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "1"));
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let name_is_plain = !name.is_empty() && name.bytes().all(plain) && !name.contains("xn--");
    let port_is_plain = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
    name_is_plain && port_is_plain && port.parse::<u16>().is_ok() && matches!(scheme, "http" | "https")
}

/// The IRI of a scheme and a host, with a slash at the end; `None` for a host that reaches into the path.
fn origin(scheme: &Bound<'_, PyAny>, host: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let py = scheme.py();
    let (Ok(scheme), Ok(host)) = (scheme.cast::<PyString>(), host.cast::<PyString>()) else {
        return Ok(None);
    };
    let (Ok(scheme), Ok(host)) = (scheme.to_str(), host.to_str()) else { return Ok(None) };
    let uri = [scheme, "://", host, "/"].concat();
    if is_plain_origin(scheme, host) {
        return Ok(Some(uri));
    }
    if host.is_empty() || host.contains(['/', '?', '#', '\\']) {
        return Ok(None);
    }
    let urls = import(py, &MODULE, "hipflask.werkzeug.urls")?;
    let iri: String = urls.call_method1(intern!(py, "uri_to_iri"), (uri,))?.extract()?;
    Ok(iri.ends_with('/').then_some(iri))
}

/// The IRI of what follows an origin; `None` for what is no text or bytes.
fn iri(
    origin: &str,
    root: &Bound<'_, PyAny>,
    path: &Bound<'_, PyAny>,
    query: &Bound<'_, PyAny>,
) -> Option<String> {
    let mut url = String::with_capacity(origin.len() + 64);
    url.push_str(origin);
    if !root.is_none() {
        url.pop();
        let root = root.cast::<PyString>().ok()?.to_str().ok()?.trim_end_matches('/');
        if !root.is_empty() && !root.starts_with('/') {
            return None;
        }
        hipflask_http::iri::push_path(&mut url, root);
        url.push('/');
    }
    if !path.is_none() {
        let path = path.cast::<PyString>().ok()?.to_str().ok()?.trim_start_matches('/');
        hipflask_http::iri::push_path(&mut url, path);
    }
    if !query.is_none() {
        let query = query.cast::<PyBytes>().ok()?.as_bytes();
        if !query.is_empty() {
            url.push('?');
            hipflask_http::iri::push_query(&mut url, query);
        }
    }
    Some(url)
}

pub(super) fn url<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    url_until(slf, Until::Query)
}

pub(super) fn base_url<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    url_until(slf, Until::Path)
}

pub(super) fn root_url<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    url_until(slf, Until::Root)
}

pub(super) fn url_root<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    slf.getattr(intern!(slf.py(), "root_url"))
}

pub(super) fn host_url<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    url_until(slf, Until::Host)
}
