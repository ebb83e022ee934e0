//! A map bound to a request: matching and building.

use hipflask_router::{Outcome, Refusal, origin_form, quote_path};
use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};

use super::map::{Endpoint, Entry, MapBase, Snapshot};
use crate::environ::wsgi_text;

/// The native half of `hipflask.werkzeug.routing.MapAdapter`. Not frozen, since its attributes may be assigned.
#[pyclass(subclass, dict, weakref, module = "hipflask._core")]
pub(crate) struct MapAdapterBase {
    map: Option<Py<MapBase>>,
    #[pyo3(get, set)]
    server_name: Option<Py<PyString>>,
    #[pyo3(get, set)]
    script_name: Option<Py<PyString>>,
    #[pyo3(get, set)]
    subdomain: Option<Py<PyString>>,
    #[pyo3(get, set)]
    url_scheme: Option<Py<PyString>>,
    #[pyo3(get, set)]
    path_info: Option<Py<PyString>>,
    #[pyo3(get, set)]
    default_method: Option<Py<PyString>>,
    #[pyo3(get, set)]
    query_args: Option<Py<PyAny>>,
    #[pyo3(get, set)]
    websocket: bool,
}

#[pymethods]
impl MapAdapterBase {
    #[new]
    #[pyo3(signature = (*_arguments, **_options))]
    #[pyo3(
        text_signature = "(map, server_name, script_name, subdomain, url_scheme, path_info, default_method, \
                             query_args=None)"
    )]
    fn new(_arguments: &Bound<'_, PyTuple>, _options: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            map: None,
            server_name: None,
            script_name: None,
            subdomain: None,
            url_scheme: None,
            path_info: None,
            default_method: None,
            query_args: None,
            websocket: false,
        }
    }

    #[pyo3(signature = (map, server_name, script_name, subdomain, url_scheme, path_info, default_method, query_args=None))]
    #[allow(clippy::too_many_arguments, reason = "Werkzeug's signature")]
    fn __init__(
        &mut self,
        py: Python<'_>,
        map: Py<MapBase>,
        server_name: Py<PyString>,
        script_name: Bound<'_, PyString>,
        subdomain: Option<Py<PyString>>,
        url_scheme: Py<PyString>,
        path_info: Py<PyString>,
        default_method: Py<PyString>,
        query_args: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let script = script_name.to_str()?;
        self.script_name = Some(match script.ends_with('/') {
            true => script_name.unbind(),
            false => PyString::new(py, &[script, "/"].concat()).unbind(),
        });
        self.websocket = matches!(url_scheme.bind(py).to_str()?, "ws" | "wss");
        self.map = Some(map);
        self.server_name = Some(server_name);
        self.subdomain = subdomain;
        self.url_scheme = Some(url_scheme);
        self.path_info = Some(path_info);
        self.default_method = Some(default_method);
        self.query_args = query_args;
        Ok(())
    }

    /// The map that this adapter was made by.
    #[getter]
    fn map(&self, py: Python<'_>) -> Option<Py<MapBase>> {
        self.map.as_ref().map(|map| map.clone_ref(py))
    }

    #[setter]
    fn set_map(&mut self, map: Py<MapBase>) {
        self.map = Some(map);
    }

    /// Finds the rule for a request: `(kind, what, values)`, where kind is 0 for a rule, 1 for a rule that may
    /// redirect, 2 for a redirect to an encoded path, 3 for allowed methods, 4 for the wrong protocol, 5 for nothing.
    #[pyo3(signature = (path_info=None, method=None, websocket=None))]
    fn _find<'py>(
        &self,
        py: Python<'py>,
        path_info: Option<&Bound<'py, PyString>>,
        method: Option<&Bound<'py, PyString>>,
        websocket: Option<bool>,
    ) -> PyResult<(u8, Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let map = self.bound_map(py)?;
        let snapshot = MapBase::snapshot(map)?;
        let path = path_info.or_else(|| self.path_info.as_ref().map(|path| path.bind(py)));
        let nothing = py.None().into_bound(py);
        // A path with lone surrogates cannot come from a request.
        let Ok(path) = text(path) else { return Ok((5, nothing.clone(), nothing)) };
        let method = text(method)?;
        let method = if method.is_empty() { text(bound(py, self.default_method.as_ref()))? } else { method };
        let upper;
        let method = match method.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_lowercase()) {
            true => method,
            false => {
                upper = method.to_uppercase();
                &upper
            }
        };
        let domain = match &self.subdomain {
            Some(subdomain) if !map.get().host_matching() => text(Some(subdomain.bind(py)))?,
            _ => text(bound(py, self.server_name.as_ref()))?,
        };
        let refused = match snapshot.router.matches(domain, path, method, websocket.unwrap_or(self.websocket))
        {
            Outcome::Found(found) => match snapshot.values(py, &found) {
                Ok(values) => {
                    let kind = u8::from(snapshot.is_special(found.rule));
                    let rule = snapshot.rule(found.rule).map_or(nothing, |rule| rule.bind(py).clone());
                    return Ok((kind, rule, values.into_any()));
                }
                Err(error) if is_validation_error(py, &error)? => found.otherwise,
                Err(error) => return Err(error),
            },
            Outcome::Redirect(path) => {
                let mut quoted = String::new();
                quote_path(&mut quoted, &path);
                return Ok((2, PyString::new(py, &quoted).into_any(), nothing));
            }
            Outcome::Refused(refusal) => refusal,
        };
        Ok(match refused {
            Refusal::Method(allowed) => {
                let names = PyList::new(py, snapshot.router.method_names(allowed))?;
                (3, names.into_any(), nothing)
            }
            Refusal::Protocol => (4, nothing.clone(), nothing),
            Refusal::NotFound => (5, nothing.clone(), nothing),
        })
    }

    /// Builds the URL of an endpoint.
    ///
    /// A path if it leads to the same host, else an absolute URL; with `force_external` always the latter, without a
    /// scheme if `url_scheme` is empty. Values that the rule does not use go to the query, unless `append_unknown` is
    /// false. Of several rules the first that accepts `method` and has all its values is taken.
    ///
    /// Raises `BuildError` if there is none.
    ///
    /// Implements: werkzeug.routing.MapAdapter.build (3.1).
    #[pyo3(signature = (endpoint, values=None, method=None, force_external=None, append_unknown=None, url_scheme=None))]
    #[pyo3(
        text_signature = "($self, endpoint, values=None, method=None, force_external=False, append_unknown=True, \
                             url_scheme=None)"
    )]
    #[allow(clippy::too_many_arguments, reason = "Werkzeug's signature")]
    fn build<'py>(
        slf: &Bound<'py, Self>,
        endpoint: &Bound<'py, PyAny>,
        values: Option<&Bound<'py, PyAny>>,
        method: Option<&Bound<'py, PyString>>,
        force_external: Option<&Bound<'py, PyAny>>,
        append_unknown: Option<&Bound<'py, PyAny>>,
        url_scheme: Option<&Bound<'py, PyString>>,
    ) -> PyResult<Bound<'py, PyString>> {
        let py = slf.py();
        let values = plain_values(py, values)?;
        let unknown = append_unknown.map_or(Ok(true), PyAnyMethods::is_truthy)?;
        let external = force_external.map_or(Ok(false), PyAnyMethods::is_truthy)?;
        let form = Form { method, external, scheme: url_scheme, unknown };
        match Self::build_url(slf, Endpoint::of(endpoint), Some(&values), &form)? {
            Some(url) => Ok(url),
            // A copy: the caller may go on using its own.
            None => Err(build_error(py, (endpoint, values.copy()?, method, slf))?),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.map)?;
        visit.call(&self.query_args)
    }

    fn __clear__(&mut self) {
        self.map = None;
        self.query_args = None;
    }
}

/// Bind a map to a WSGI environment, as `Map.bind_to_environ` does it for a map that does not match hosts.
///
/// Returns:
///     None for what needs more thought: a WebSocket, a host that is no plain name, no host at all.
#[pyfunction]
pub(super) fn bind_environ<'py>(
    map: &Bound<'py, MapBase>,
    environ: &Bound<'py, PyDict>,
    subdomain: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = map.py();
    let get = |name: &Bound<'py, PyString>| {
        PyResult::Ok(environ.get_item(name)?.and_then(|value| value.cast_into::<PyString>().ok()))
    };
    let (Some(host), Some(scheme), Some(method)) = (
        get(intern!(py, "HTTP_HOST"))?,
        get(intern!(py, "wsgi.url_scheme"))?,
        get(intern!(py, "REQUEST_METHOD"))?,
    ) else {
        return Ok(None);
    };
    let port = match scheme.to_str() {
        Ok("http") => ":80",
        Ok("https") => ":443",
        _ => return Ok(None),
    };
    let Ok(host) = host.to_str() else { return Ok(None) };
    let host = host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    if !is_plain_host(&host) || environ.contains(intern!(py, "HTTP_UPGRADE"))? {
        return Ok(None);
    }
    let part = |name: &Bound<'py, PyString>, absent: &Bound<'py, PyString>| match get(name)? {
        Some(text) => wsgi_text(&text),
        None => Ok(absent.clone()),
    };
    let slash = intern!(py, "/");
    let query = match get(intern!(py, "QUERY_STRING"))? {
        Some(query) => Some(wsgi_text(&query)?),
        None => None,
    };
    let arguments = (
        map,
        host,
        part(intern!(py, "SCRIPT_NAME"), slash)?,
        subdomain,
        scheme,
        part(intern!(py, "PATH_INFO"), slash)?,
        method,
        query,
    );
    CLASS.import(py, "hipflask.werkzeug.routing.map", "MapAdapter")?.call1(arguments).map(Some)
}

/// Whether two domains are the same. Most are empty: glibc's `memcmp` by AVX-512 takes 50 ns to find out that nothing
/// equals nothing if it stands at Rust's address for empty strings, where nothing can be read.
pub(crate) fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

/// Whether a host in lower case needs no IDNA codec, which may refuse it.
pub(crate) fn is_plain_host(host: &str) -> bool {
    let length = memchr::memchr(b':', host.as_bytes()).unwrap_or(host.len());
    let name = host.as_bytes().get(..length).unwrap_or_default();
    // The plainest names are seen at a glance.
    let is_bare = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    (1..=63).contains(&length)
        && host.is_ascii()
        && (is_bare || (!name.starts_with(b".") && !name.windows(2).any(|pair| pair == b"..")))
}

/// How a URL is to be built.
pub(crate) struct Form<'a, 'py> {
    /// The method that the rule has to accept.
    pub(crate) method: Option<&'a Bound<'py, PyString>>,
    /// Whether the URL is absolute in any case.
    pub(crate) external: bool,
    /// The scheme, if not the request's.
    pub(crate) scheme: Option<&'a Bound<'py, PyString>>,
    /// Whether values that the rule does not use go to the query.
    pub(crate) unknown: bool,
}

/// What is to be built.
pub(crate) struct Wanted<'a, 'py> {
    pub(crate) endpoint: Endpoint<'a, 'py>,
    /// Without `None`: see [`plain_values`].
    pub(crate) values: Option<&'a Bound<'py, PyDict>>,
    pub(crate) unknown: bool,
    pub(crate) map: &'a Bound<'py, MapBase>,
}

/// A rule's part of a URL.
pub(crate) struct Built {
    pub(crate) domain: String,
    pub(crate) path: String,
    pub(crate) websocket: bool,
}

impl MapAdapterBase {
    fn bound_map<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<&'a Bound<'py, MapBase>> {
        let map = self.map.as_ref().map(|map| map.bind(py));
        map.ok_or_else(|| PyTypeError::new_err("MapAdapter.__init__ was not called"))
    }

    /// What `build` returns; `None` where it raises `BuildError`.
    pub(crate) fn build_url<'py>(
        slf: &Bound<'py, Self>,
        endpoint: Endpoint<'_, 'py>,
        values: Option<&Bound<'py, PyDict>>,
        form: &Form<'_, 'py>,
    ) -> PyResult<Option<Bound<'py, PyString>>> {
        let py = slf.py();
        let this = slf.try_borrow()?;
        let map = this.bound_map(py)?;
        let wanted = Wanted { endpoint, values, unknown: form.unknown, map };
        let server = text(bound(py, this.server_name.as_ref()))?;
        let rules = MapBase::snapshot(map)?;
        let default_method = bound(py, this.default_method.as_ref());
        let Some(built) = wanted.build(&rules, form.method, default_method, server)? else { return Ok(None) };
        let script = text(bound(py, this.script_name.as_ref()))?;
        let host_matching = map.get().host_matching();
        let here = match &this.subdomain {
            _ if host_matching => same(&built.domain, server),
            Some(subdomain) => same(&built.domain, text(Some(subdomain.bind(py)))?),
            None => false,
        };
        if here && !form.external && !built.websocket {
            return Ok(Some(PyString::new(py, &origin_form(script, &built.path))));
        }
        let scheme = text(form.scheme.or_else(|| bound(py, this.url_scheme.as_ref())))?;
        Ok(Some(PyString::new(py, &built.absolute(scheme, server, script, host_matching))))
    }
}

impl<'py> Wanted<'_, 'py> {
    /// The first rule that can be built, for this method or else for the default one; with host matching, the first
    /// for the host `server`, if any.
    pub(crate) fn build(
        &self,
        snapshot: &Snapshot,
        method: Option<&Bound<'py, PyString>>,
        default_method: Option<&Bound<'py, PyString>>,
        server: &str,
    ) -> PyResult<Option<Built>> {
        if method.is_none()
            && let Some(built) = self.first_suitable(snapshot, default_method, server)?
        {
            return Ok(Some(built));
        }
        self.first_suitable(snapshot, method, server)
    }

    fn first_suitable(
        &self,
        snapshot: &Snapshot,
        method: Option<&Bound<'py, PyString>>,
        server: &str,
    ) -> PyResult<Option<Built>> {
        let host_matching = self.map.get().host_matching();
        let mut first = None;
        for (rule, entry) in snapshot.rules_of(self.endpoint)? {
            let Some(built) = build_rule(snapshot, (rule, entry), self, method)? else { continue };
            if !host_matching || built.domain == server {
                return Ok(Some(built));
            }
            if first.is_none() {
                first = Some(built);
            }
        }
        Ok(first)
    }
}

impl Built {
    /// The absolute URL; without a scheme if `scheme` is empty.
    pub(crate) fn absolute(&self, scheme: &str, server: &str, script: &str, host_matching: bool) -> String {
        let secure = matches!(scheme, "https" | "wss");
        let scheme = match (self.websocket, secure, scheme.is_empty()) {
            (true, true, _) => "wss:",
            (true, false, _) => "ws:",
            (false, _, true) => "",
            (false, true, false) => "https:",
            (false, false, false) => "http:",
        };
        let mut script = script.chars();
        script.next_back();
        let (subdomain, dot, server) = match (host_matching, self.domain.is_empty()) {
            (true, _) => (&*self.domain, "", ""),
            (false, true) => ("", "", server),
            (false, false) => (&*self.domain, ".", server),
        };
        let path = self.path.trim_start_matches('/');
        [scheme, "//", subdomain, dot, server, script.as_str(), "/", path].concat()
    }
}

fn build_rule(
    snapshot: &Snapshot,
    (rule, entry): (usize, &Entry),
    wanted: &Wanted<'_, '_>,
    method: Option<&Bound<'_, PyString>>,
) -> PyResult<Option<Built>> {
    let py = wanted.map.py();
    if entry.overridden {
        let rule = entry.rule.bind(py);
        let values = wanted.values.cloned().unwrap_or_else(|| PyDict::new(py));
        if !rule.call_method1(intern!(py, "suitable_for"), (&values, method))?.is_truthy()? {
            return Ok(None);
        }
        let built = rule.call_method1(intern!(py, "build"), (values, wanted.unknown))?;
        let built: Option<(String, String)> = built.extract()?;
        return Ok(built.map(|(domain, path)| Built { domain, path, websocket: entry.websocket }));
    }
    if let (Some(methods), Some(method)) = (snapshot.router.rule_methods(rule), method)
        && !methods.meets(snapshot.router.method(method.to_str()?))
    {
        return Ok(None);
    }
    for name in &entry.required {
        if !wanted.values.map_or(Ok(false), |values| values.contains(name))? {
            return Ok(None);
        }
    }
    for (name, only) in &entry.fixed {
        if let Some(values) = wanted.values
            && let Some(value) = values.get_item(name)?
            && only.bind(py).ne(value)?
        {
            return Ok(None);
        }
    }
    match entry.compiled.get().assemble(py, wanted.values, wanted.unknown, wanted.map) {
        Ok(built) => Ok(built.map(|(domain, path)| Built { domain, path, websocket: entry.websocket })),
        Err(error) if is_validation_error(py, &error)? => Ok(None),
        Err(error) => Err(error),
    }
}

/// The values as a dict without `None`; of a `MultiDict` single values as themselves, several as a list.
pub(crate) fn plain_values<'py>(
    py: Python<'py>,
    values: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    static MULTI_DICT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let Some(values) = values else { return Ok(PyDict::new(py)) };
    if let Ok(values) = values.cast_exact::<PyDict>()
        && values.iter().all(|(_, value)| !value.is_none())
    {
        return Ok(values.clone());
    }
    let plain = PyDict::new(py);
    if !values.is_truthy()? {
        return Ok(plain);
    }
    let multi_dict = MULTI_DICT.import(py, "hipflask.werkzeug.datastructures", "MultiDict")?;
    if values.is_instance(multi_dict)? {
        let lists = py.get_type::<PyDict>().call_method1(intern!(py, "items"), (values,))?;
        for pair in lists.try_iter()? {
            let (key, list): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
            match list.len()? {
                0 => {}
                1 => plain.set_item(key, list.get_item(0)?)?,
                _ => plain.set_item(key, list)?,
            }
        }
        return Ok(plain);
    }
    for pair in values.call_method0(intern!(py, "items"))?.try_iter()? {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
        if !value.is_none() {
            plain.set_item(key, value)?;
        }
    }
    Ok(plain)
}

fn bound<'a, 'py, T>(py: Python<'py>, value: Option<&'a Py<T>>) -> Option<&'a Bound<'py, T>> {
    value.map(|value| value.bind(py))
}

/// A string's text; nothing is empty text.
fn text<'a>(string: Option<&'a Bound<'_, PyString>>) -> PyResult<&'a str> {
    string.map_or(Ok(""), |string| string.to_str())
}

fn is_validation_error(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    static VALIDATION_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = VALIDATION_ERROR.import(py, "hipflask.werkzeug.routing.converters", "ValidationError")?;
    Ok(error.is_instance(py, class))
}

fn build_error<'py>(py: Python<'py>, arguments: impl pyo3::call::PyCallArgs<'py>) -> PyResult<PyErr> {
    static BUILD_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = BUILD_ERROR.import(py, "hipflask.werkzeug.routing.exceptions", "BuildError")?;
    Ok(PyErr::from_value(class.call1(arguments)?))
}
