//! `url_for` within a request, without the context objects and the bound map that Python would make for it.
//!
//! Does what `Flask.url_for` does for an app that overrides none of the methods involved, and gives `None` for anything
//! out of the ordinary (an endpoint that cannot be built, no request): that method, which is the reference, then does
//! it all. Once functions for URL defaults have run, which may happen only once, `Flask._build_url` does the rest.

use std::borrow::Cow;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use hipflask_router::origin_form;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::context::{self, Frame, Part, Requested};
use crate::request::RequestBase;
use crate::response::inherits;
use crate::router::{
    Endpoint, Form, MapAdapterBase, MapBase, Snapshot, Wanted, is_plain_host, plain_values, same,
};

/// What building URLs knows of the app and the request of a bare frame.
pub(crate) struct Site {
    map: Py<MapBase>,
    defaults: Py<PyDict>,
    request: Py<RequestBase>,
    config: Py<PyAny>,
    method: Py<PyString>,
    /// The path that the app is mounted at, with a slash at the end.
    script: String,
    subdomain: String,
    /// The map's rules, and which compilation they are.
    rules: (Option<u64>, Arc<Snapshot>),
    /// What absolute URLs begin with, once one was built: as in Flask, later changes of the request do not count.
    origin: OnceLock<Option<Origin>>,
}

/// Scheme and host of a request.
struct Origin {
    scheme: String,
    server: String,
}

impl Site {
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.map)?;
        visit.call(&self.defaults)?;
        visit.call(&self.request)?;
        visit.call(&self.config)
    }

    /// `None` where only Python can bind the map.
    fn of(app: &Bound<'_, PyAny>, request: &Bound<'_, PyAny>) -> PyResult<Option<Box<Self>>> {
        let py = app.py();
        let own = app.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
        if !is_stock(app, &own)? || app.getattr(intern!(py, "subdomain_matching"))?.is_truthy()? {
            return Ok(None);
        }
        let config = app.getattr(intern!(py, "config"))?;
        let (Ok(request), Ok(map)) =
            (request.cast::<RequestBase>(), app.getattr(intern!(py, "url_map"))?.cast_into::<MapBase>())
        else {
            return Ok(None);
        };
        // A WebSocket's handshake has another scheme; untrusted hosts are refused.
        if map.get().host_matching()
            || !RequestBase::is_plain_exchange(request)
            || !config.get_item(intern!(py, "TRUSTED_HOSTS"))?.is_none()
        {
            return Ok(None);
        }
        let Ok(defaults) = app.getattr(intern!(py, "url_default_functions"))?.cast_into::<PyDict>() else {
            return Ok(None);
        };
        let mut script: String = request.getattr(intern!(py, "root_path"))?.extract()?;
        if !script.ends_with('/') {
            script.push('/');
        }
        let subdomain = map.getattr(intern!(py, "default_subdomain"))?;
        let subdomain = if subdomain.is_truthy()? { subdomain.extract()? } else { String::new() };
        let rules = (map.get().generation(), MapBase::snapshot(&map)?);
        Ok(Some(Box::new(Self {
            rules,
            origin: OnceLock::new(),
            map: map.unbind(),
            defaults: defaults.unbind(),
            request: request.clone().unbind(),
            config: config.unbind(),
            method: request.getattr(intern!(py, "method"))?.cast_into()?.unbind(),
            script,
            subdomain,
        })))
    }

    fn build<'py>(
        &self,
        py: Python<'py>,
        endpoint: Endpoint<'_, 'py>,
        values: Option<&Bound<'py, PyDict>>,
        form: &Form<'_, 'py>,
    ) -> PyResult<Option<Bound<'py, PyString>>> {
        let wanted = Wanted { endpoint, values, unknown: true, map: self.map.bind(py) };
        let (generation, rules) = &self.rules;
        let fresh;
        let rules = match generation.is_some() && self.map.get().generation() == *generation {
            true => rules,
            false => {
                fresh = MapBase::snapshot(wanted.map)?;
                &fresh
            }
        };
        let Some(built) = wanted.build(rules, form.method, Some(self.method.bind(py)), "")? else {
            return Ok(None);
        };
        if !form.external && !built.websocket && same(&built.domain, &self.subdomain) {
            return Ok(Some(PyString::new(py, &origin_form(&self.script, &built.path))));
        }
        let origin = match self.origin.get() {
            Some(origin) => origin,
            None => {
                let found = self.found_origin(py)?;
                self.origin.get_or_init(|| found)
            }
        };
        let Some(origin) = origin else { return Ok(None) };
        let scheme = form.scheme.map_or(Ok(&*origin.scheme), |scheme| scheme.to_str())?;
        Ok(Some(PyString::new(py, &built.absolute(scheme, &origin.server, &self.script, false))))
    }

    /// Scheme and host of absolute URLs, as the map would be bound to them; `None` if the host is no plain name.
    fn found_origin(&self, py: Python<'_>) -> PyResult<Option<Origin>> {
        let request = self.request.bind(py);
        let scheme: String = request.getattr(intern!(py, "scheme"))?.extract()?;
        let configured = self.config.bind(py).get_item(intern!(py, "SERVER_NAME"))?;
        let host = match configured.is_none() {
            true => request.getattr(intern!(py, "host"))?,
            false => configured.clone(),
        };
        let Ok(host) = host.cast_into::<PyString>() else { return Ok(None) };
        let mut server = host.to_str()?.to_ascii_lowercase();
        if !configured.is_none() {
            let port = if scheme == "https" { ":443" } else { ":80" };
            if let Some(name) = server.strip_suffix(port) {
                server.truncate(name.len());
            }
        }
        Ok(is_plain_host(&server).then_some(Origin { scheme, server }))
    }
}

/// The arguments of `url_for`.
struct Call<'a, 'py> {
    endpoint: &'a Bound<'py, PyString>,
    anchor: Option<&'a Bound<'py, PyAny>>,
    method: Option<&'a Bound<'py, PyAny>>,
    scheme: Option<&'a Bound<'py, PyAny>>,
    external: Option<&'a Bound<'py, PyAny>>,
    values: Option<&'a Bound<'py, PyDict>>,
}

impl<'py> Call<'_, 'py> {
    /// The URL, if `app` is the current one and it can be built here.
    fn build(
        &self,
        app: &Bound<'py, PyAny>,
        frame: Option<&Bound<'py, Frame>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = app.py();
        let external = match (self.external, self.scheme) {
            (Some(external), _) => external.is_truthy()?,
            (None, scheme) => scheme.is_some(),
        };
        let (Some(method), Some(scheme)) = (text_or_nothing(self.method), text_or_nothing(self.scheme))
        else {
            return Ok(None);
        };
        if scheme.is_some() && !external {
            return Ok(None);
        }
        let form = Form { method, external, scheme, unknown: true };
        let url = match frame.and_then(context::requested) {
            None => return Ok(None),
            Some(Requested::Bare(frame)) => {
                let frame = frame.get();
                let site = frame.site(|owner, request| Site::of(owner.bind(py), request.bind(py)))?;
                let Some(site) = site else { return Ok(None) };
                if !frame.is_of(app) || frame.has_bound_map(py)? {
                    return Ok(None);
                }
                let request = site.request.bind(py);
                let Some(endpoint) = self.absolute_endpoint(|| RequestBase::blueprint(request))? else {
                    return Ok(None);
                };
                let defaults = site.defaults.bind(py);
                self.with_defaults(app, defaults, &endpoint, external, |values| {
                    site.build(py, Endpoint::Name(&endpoint), values, &form)
                })?
            }
            Some(Requested::Context(context)) => {
                let own = app.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
                if !context.getattr(intern!(py, "app"))?.is(app) || !is_stock(app, &own)? {
                    return Ok(None);
                }
                let blueprint = || {
                    let request = context.getattr(intern!(py, "request"))?;
                    let blueprint = request.getattr(intern!(py, "blueprint"))?;
                    if blueprint.is_none() { Ok(None) } else { blueprint.extract().map(Some) }
                };
                let Some(endpoint) = self.absolute_endpoint(blueprint)? else { return Ok(None) };
                let defaults = app.getattr(intern!(py, "url_default_functions"))?.cast_into::<PyDict>();
                let adapter = context.getattr(intern!(py, "url_adapter"))?;
                let (Ok(defaults), Some(adapter)) = (defaults, stock_adapter(&adapter)?) else {
                    return Ok(None);
                };
                self.with_defaults(app, &defaults, &endpoint, external, |values| {
                    MapAdapterBase::build_url(adapter, Endpoint::Name(&endpoint), values, &form)
                })?
            }
        };
        let (url, anchor) = match (url, self.anchor) {
            (Made::Built(url), None) => return Ok(Some(url.into_any())),
            (Made::Built(url), Some(anchor)) => (url, anchor),
            (Made::Rescued(url), _) => return Ok(Some(url)),
            (Made::Nothing, _) => return Ok(None),
        };
        let Ok(anchor) = anchor.cast::<PyString>() else { return Ok(None) };
        let (url, anchor) = (url.to_str()?, anchor.to_str()?);
        let mut whole = String::with_capacity(url.len() + 1 + anchor.len());
        whole.push_str(url);
        whole.push('#');
        quote_anchor(&mut whole, anchor);
        Ok(Some(PyString::new(py, &whole).into_any()))
    }

    /// The endpoint; one that begins with a dot is in the request's blueprint.
    fn absolute_endpoint(
        &self,
        blueprint: impl FnOnce() -> PyResult<Option<String>>,
    ) -> PyResult<Option<Cow<'_, str>>> {
        let Ok(text) = self.endpoint.to_str() else { return Ok(None) };
        let Some(name) = text.strip_prefix('.') else { return Ok(Some(Cow::Borrowed(text))) };
        Ok(Some(match blueprint()? {
            None => Cow::Borrowed(name),
            Some(mut endpoint) => {
                endpoint.push_str(text);
                Cow::Owned(endpoint)
            }
        }))
    }

    /// Builds a URL of the values given and of those that the app's functions for this endpoint add.
    fn with_defaults(
        &self,
        app: &Bound<'py, PyAny>,
        functions: &Bound<'py, PyDict>,
        endpoint: &str,
        external: bool,
        build: impl Fn(Option<&Bound<'py, PyDict>>) -> PyResult<Option<Bound<'py, PyString>>>,
    ) -> PyResult<Made<'py>> {
        let py = app.py();
        let functions = match functions.is_empty() {
            true => Vec::new(),
            false => default_functions(functions, endpoint)?,
        };
        if functions.is_empty() {
            let values = match self.values {
                Some(values) => Some(plain_values(py, Some(values.as_any()))?),
                None => None,
            };
            return Ok(build(values.as_ref())?.map_or(Made::Nothing, Made::Built));
        }
        if self.anchor.is_some_and(|anchor| anchor.cast::<PyString>().is_err()) {
            return Ok(Made::Nothing);
        }
        let name = PyString::new(py, endpoint);
        let values = match self.values {
            Some(values) => values.clone(),
            None => PyDict::new(py),
        };
        for function in functions {
            for function in function.try_iter()? {
                function?.call1((&name, &values))?;
            }
        }
        let plain = plain_values(py, Some(values.as_any()))?;
        if let Some(url) = build(Some(&plain))? {
            return Ok(Made::Built(url));
        }
        let adapter = py
            .import(intern!(py, "hipflask.globals"))?
            .getattr(intern!(py, "_cv_request"))?
            .call_method0(intern!(py, "get"))?
            .getattr(intern!(py, "url_adapter"))?;
        let given = (adapter, name, values, self.anchor, self.method, self.scheme, external);
        app.call_method1(intern!(py, "_build_url"), given).map(Made::Rescued)
    }

    /// `app.url_for(...)`, as Python does it.
    fn delegate(&self, app: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = app.py();
        let options = match self.values {
            Some(values) => values.copy()?,
            None => PyDict::new(py),
        };
        options.set_item(intern!(py, "_anchor"), self.anchor)?;
        options.set_item(intern!(py, "_method"), self.method)?;
        options.set_item(intern!(py, "_scheme"), self.scheme)?;
        options.set_item(intern!(py, "_external"), self.external)?;
        app.call_method(intern!(py, "url_for"), (self.endpoint,), Some(&options))
    }
}

/// A string or nothing; `None` for what is neither.
fn text_or_nothing<'a, 'py>(
    value: Option<&'a Bound<'py, PyAny>>,
) -> Option<Option<&'a Bound<'py, PyString>>> {
    match value {
        None => Some(None),
        Some(value) => value.cast::<PyString>().ok().filter(|text| text.to_str().is_ok()).map(Some),
    }
}

/// What became of a URL.
enum Made<'py> {
    Built(Bound<'py, PyString>),
    /// Python was asked in the middle of it.
    Rescued(Bound<'py, PyAny>),
    /// Python has to do it all.
    Nothing,
}

/// The functions that give values to URLs of this endpoint: those of the app, then of its blueprints from the outermost
/// in.
fn default_functions<'py>(table: &Bound<'py, PyDict>, endpoint: &str) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let mut found = Vec::new();
    found.extend(table.get_item(table.py().None())?);
    for (end, _) in endpoint.match_indices('.') {
        found.extend(endpoint.get(..end).map_or(Ok(None), |blueprint| table.get_item(blueprint))?);
    }
    Ok(found)
}

/// The adapter, if it is none of a subclass.
fn stock_adapter<'a, 'py>(
    adapter: &'a Bound<'py, PyAny>,
) -> PyResult<Option<&'a Bound<'py, MapAdapterBase>>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(adapter.py(), "hipflask.werkzeug.routing.map", "MapAdapter")?;
    Ok(if adapter.get_type().is(class) { adapter.cast().ok() } else { None })
}

const INVOLVED: [&str; 4] =
    ["url_for", "create_url_adapter", "inject_url_defaults", "handle_url_build_error"];

/// Whether an app, whose `__dict__` is `own`, has Flask's own methods wherever URLs are built.
fn is_stock(app: &Bound<'_, PyAny>, own: &Bound<'_, PyDict>) -> PyResult<bool> {
    static OURS: PyOnceLock<[(Py<PyString>, Py<PyAny>); INVOLVED.len()]> = PyOnceLock::new();
    let py = app.py();
    let ours = OURS.get_or_try_init(py, || {
        let class = py.import("hipflask.app")?.getattr("Flask")?;
        let method =
            |name| PyResult::Ok((PyString::intern(py, name).unbind(), class.getattr(name)?.unbind()));
        let [build, bind, inject, rescue] = INVOLVED;
        PyResult::Ok([method(build)?, method(bind)?, method(inject)?, method(rescue)?])
    })?;
    let class = app.get_type();
    for (name, method) in ours {
        if !inherits(&class, name.bind(py), method) || own.contains(name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Percent-encodes what may not stand in a fragment as it is (RFC 3986 §3.5); escapes pass.
fn quote_anchor(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            _ if b"_.-~%!#$&'()*+,/:;=?@".contains(&byte) => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// Python's `hipflask.url_for`, by the calling convention that makes neither a tuple nor a dictionary.
static DEFINITION: Definition = Definition(UnsafeCell::new(ffi::PyMethodDef {
    ml_name: c"url_for".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: url_for },
    ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
    ml_doc:
        c"url_for(endpoint, *, _anchor=None, _method=None, _scheme=None, _external=None, **values)\n--\n\n\
Build the URL of an endpoint of the current app. See `Flask.url_for`.\n\n\
Raises:\n    BuildError: If there is no such endpoint, or a value is missing or wrong.\n    \
RuntimeError: If there is neither a request nor a `SERVER_NAME`."
            .as_ptr(),
}));

struct Definition(UnsafeCell<ffi::PyMethodDef>);

// SAFETY: nobody writes to it: CPython takes a mutable pointer, but reads only.
unsafe impl Sync for Definition {}

/// # Safety
/// Called by CPython as a function of this convention: attached, with `count` positional arguments, followed by those
/// that `names`, a tuple of strings or null, names.
unsafe extern "C" fn url_for(
    _module: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    Python::attach(|py| {
        let done = catch_unwind(AssertUnwindSafe(|| {
            let count = usize::try_from(count).unwrap_or(0);
            // SAFETY: the caller keeps the tuple alive.
            let names = unsafe { Bound::from_borrowed_ptr_or_opt(py, names) };
            let names = names.map(Bound::cast_into::<PyTuple>).transpose()?;
            let total = count + names.as_ref().map_or(0, |names| names.len());
            let given = match total {
                0 => &[],
                // SAFETY: there are that many arguments, each alive during the call; a reference to an object has the
                // layout of its pointer.
                _ => unsafe {
                    std::slice::from_raw_parts(arguments.cast::<Borrowed<'_, '_, PyAny>>(), total)
                },
            };
            let (positional, named) = given.split_at_checked(count).unwrap_or_default();
            called(py, positional, names.as_ref(), named)
        }));
        match done {
            Ok(Ok(url)) => return url.into_ptr(),
            Ok(Err(error)) => error.restore(py),
            Err(_) => PanicException::new_err("the URL could not be built").restore(py),
        }
        std::ptr::null_mut()
    })
}

fn called<'py>(
    py: Python<'py>,
    positional: &[Borrowed<'_, 'py, PyAny>],
    names: Option<&Bound<'py, PyTuple>>,
    named: &[Borrowed<'_, 'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let mut endpoint = positional.first().map(|endpoint| &**endpoint);
    let (mut anchor, mut method, mut scheme, mut external) = (None, None, None, None);
    let mut values = None;
    if let Some(names) = names {
        for (name, value) in names.iter_borrowed().zip(named) {
            let slot = match name.cast::<PyString>()?.to_str()? {
                "endpoint" if endpoint.is_none() => &mut endpoint,
                "endpoint" => {
                    return Err(PyTypeError::new_err(
                        "url_for() got multiple values for argument 'endpoint'",
                    ));
                }
                "_anchor" => &mut anchor,
                "_method" => &mut method,
                "_scheme" => &mut scheme,
                "_external" => &mut external,
                _ => {
                    values.get_or_insert_with(|| PyDict::new(py)).set_item(name, value)?;
                    continue;
                }
            };
            *slot = (!value.is_none()).then_some(&**value);
        }
    }
    let (Some(endpoint), 0 | 1) = (endpoint, positional.len()) else {
        let message = match endpoint {
            None => "url_for() missing 1 required positional argument: 'endpoint'".to_owned(),
            Some(_) => format!("url_for() takes 1 positional argument but {} were given", positional.len()),
        };
        return Err(PyTypeError::new_err(message));
    };
    let frame = context::current(py)?;
    let app = frame.as_ref().map_or(Ok(None), |frame| Frame::resolve(frame, Part::App))?;
    let Some(app) = app else {
        let message = py.import("hipflask.globals")?.getattr("_no_app_msg")?;
        return Err(PyRuntimeError::new_err((message.unbind(),)));
    };
    let endpoint = endpoint.cast::<PyString>()?;
    let call = Call { endpoint, anchor, method, scheme, external, values: values.as_ref() };
    match call.build(&app, frame.as_ref())? {
        Some(url) => Ok(url),
        None => call.delegate(&app),
    }
}

/// What `Flask.url_for` tries first: the URL, or None where Python has to build it.
#[pyfunction]
fn quick_url_for<'py>(
    app: &Bound<'py, PyAny>,
    endpoint: &Bound<'py, PyAny>,
    values: &Bound<'py, PyDict>,
    anchor: Option<&Bound<'py, PyAny>>,
    method: Option<&Bound<'py, PyAny>>,
    scheme: Option<&Bound<'py, PyAny>>,
    external: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Ok(endpoint) = endpoint.cast::<PyString>() else { return Ok(None) };
    Call { endpoint, anchor, method, scheme, external, values: Some(values) }
        .build(app, context::current(app.py())?.as_ref())
}

/// `Flask.url_for` of one app, as templates call it.
///
/// Args:
///     app: The app.
#[pyclass(frozen, module = "hipflask._core")]
struct UrlFor {
    app: Py<PyAny>,
}

#[pymethods]
impl UrlFor {
    #[new]
    fn new(app: Py<PyAny>) -> Self {
        Self { app }
    }

    #[pyo3(signature = (endpoint, /, *, _anchor=None, _method=None, _scheme=None, _external=None, **values))]
    fn __call__<'py>(
        &self,
        endpoint: &Bound<'py, PyAny>,
        _anchor: Option<&Bound<'py, PyAny>>,
        _method: Option<&Bound<'py, PyAny>>,
        _scheme: Option<&Bound<'py, PyAny>>,
        _external: Option<&Bound<'py, PyAny>>,
        values: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let app = self.app.bind(endpoint.py());
        let endpoint = endpoint.cast::<PyString>()?;
        let call =
            Call { endpoint, anchor: _anchor, method: _method, scheme: _scheme, external: _external, values };
        match call.build(app, context::current(app.py())?.as_ref())? {
            Some(url) => Ok(url),
            None => call.delegate(app),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.app)
    }
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<UrlFor>()?;
    module.add_function(wrap_pyfunction!(quick_url_for, module)?)?;
    let py = module.py();
    // SAFETY: the definition lives for ever; the name is an object that the function keeps.
    let function = unsafe {
        let name = PyString::new(py, "hipflask.helpers");
        let made = ffi::PyCFunction_NewEx(DEFINITION.0.get(), std::ptr::null_mut(), name.as_ptr());
        Bound::from_owned_ptr_or_err(py, made)?
    };
    module.add("url_for", function)
}
