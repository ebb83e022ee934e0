//! `url_for` within a request, without the context objects and the bound map that Python would make for it.
//!
//! Does what `Flask.url_for` does for an app that overrides none of the methods involved, and gives `None` for anything
//! out of the ordinary (URL defaults that apply, an endpoint that cannot be built, no request): that method, which is
//! the reference, then does it all.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hipflask_router::origin_form;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::context::{self, Part, Requested};
use crate::request::RequestBase;
use crate::response::inherits;
use crate::router::{Form, MapAdapterBase, MapBase, Wanted, is_plain_host, plain_values};

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
        if !is_stock(app)? || app.getattr(intern!(py, "subdomain_matching"))?.is_truthy()? {
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
        Ok(Some(Box::new(Self {
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
        endpoint: &Bound<'py, PyAny>,
        values: &Bound<'py, PyDict>,
        form: &Form<'_, 'py>,
    ) -> PyResult<Option<Bound<'py, PyString>>> {
        let py = endpoint.py();
        let wanted = Wanted { endpoint, values, unknown: true, map: self.map.bind(py) };
        let Some(built) = wanted.build(form.method, Some(self.method.bind(py)), "")? else { return Ok(None) };
        if built.domain == self.subdomain && !form.external && !built.websocket {
            return Ok(Some(PyString::new(py, &origin_form(&self.script, &built.path))));
        }
        let own_scheme = self.request.bind(py).getattr(intern!(py, "scheme"))?;
        let own_scheme = own_scheme.cast::<PyString>()?.to_str()?;
        let Some(server) = self.server(py, own_scheme)? else { return Ok(None) };
        let scheme = form.scheme.map_or(Ok(own_scheme), |scheme| scheme.to_str())?;
        Ok(Some(PyString::new(py, &built.absolute(scheme, &server, &self.script, false))))
    }

    /// The host of absolute URLs, as the map would be bound to it; `None` if it is no plain name.
    fn server(&self, py: Python<'_>, scheme: &str) -> PyResult<Option<String>> {
        let configured = self.config.bind(py).get_item(intern!(py, "SERVER_NAME"))?;
        let host = match configured.is_none() {
            true => self.request.bind(py).getattr(intern!(py, "host"))?,
            false => configured.clone(),
        };
        let Ok(host) = host.cast_into::<PyString>() else { return Ok(None) };
        let mut host = host.to_str()?.to_ascii_lowercase();
        if !configured.is_none() {
            let port = if scheme == "https" { ":443" } else { ":80" };
            if let Some(name) = host.strip_suffix(port) {
                host.truncate(name.len());
            }
        }
        Ok(is_plain_host(&host).then_some(host))
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
    fn build(&self, app: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
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
        let values = plain_values(py, self.values.map(|values| values.as_any()))?;
        let form = Form { method, external, scheme, unknown: true };
        let url = match context::requested(py)? {
            None => return Ok(None),
            Some(Requested::Bare(frame)) => {
                let frame = frame.get();
                let site = frame.site(|owner, request| Site::of(owner.bind(py), request.bind(py)))?;
                let Some(site) = site else { return Ok(None) };
                if !frame.is_of(app) || frame.has_bound_map(py)? {
                    return Ok(None);
                }
                let Some(endpoint) = self.absolute_endpoint(site.request.bind(py))? else { return Ok(None) };
                if has_defaults(site.defaults.bind(py), &endpoint)? {
                    return Ok(None);
                }
                site.build(endpoint.as_any(), &values, &form)?
            }
            Some(Requested::Context(context)) => {
                if !context.getattr(intern!(py, "app"))?.is(app) || !is_stock(app)? {
                    return Ok(None);
                }
                let request = context.getattr(intern!(py, "request"))?;
                let Some(endpoint) = self.absolute_endpoint(&request)? else { return Ok(None) };
                let defaults = app.getattr(intern!(py, "url_default_functions"))?.cast_into::<PyDict>();
                let adapter = context.getattr(intern!(py, "url_adapter"))?;
                let (Ok(defaults), Some(adapter)) = (defaults, stock_adapter(&adapter)?) else {
                    return Ok(None);
                };
                if has_defaults(&defaults, &endpoint)? {
                    return Ok(None);
                }
                MapAdapterBase::build_url(adapter, endpoint.as_any(), &values, &form)?
            }
        };
        let Some(url) = url else { return Ok(None) };
        let Some(anchor) = self.anchor else { return Ok(Some(url.into_any())) };
        let Ok(anchor) = anchor.cast::<PyString>() else { return Ok(None) };
        let mut whole = url.to_str()?.to_owned();
        whole.push('#');
        quote_anchor(&mut whole, anchor.to_str()?);
        Ok(Some(PyString::new(py, &whole).into_any()))
    }

    /// The endpoint; one that begins with a dot is in the request's blueprint.
    fn absolute_endpoint(&self, request: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyString>>> {
        let py = request.py();
        let Ok(text) = self.endpoint.to_str() else { return Ok(None) };
        let Some(name) = text.strip_prefix('.') else { return Ok(Some(self.endpoint.clone())) };
        let blueprint = request.getattr(intern!(py, "blueprint"))?;
        if blueprint.is_none() {
            return Ok(Some(PyString::new(py, name)));
        }
        let blueprint = blueprint.cast::<PyString>()?.to_str()?;
        Ok(Some(PyString::new(py, &[blueprint, text].concat())))
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

/// Whether a function that gives values to URLs applies to this endpoint: one of the app, or of its blueprints.
fn has_defaults(functions: &Bound<'_, PyDict>, endpoint: &Bound<'_, PyString>) -> PyResult<bool> {
    if functions.is_empty() {
        return Ok(false);
    }
    let some = |list: Option<Bound<'_, PyAny>>| list.map_or(Ok(false), |list| list.is_truthy());
    if some(functions.get_item(functions.py().None())?)? {
        return Ok(true);
    }
    let mut name = endpoint.to_str()?;
    while let Some((blueprint, _)) = name.rsplit_once('.') {
        if some(functions.get_item(blueprint)?)? {
            return Ok(true);
        }
        name = blueprint;
    }
    Ok(false)
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

/// Whether an app has Flask's own methods wherever URLs are built.
fn is_stock(app: &Bound<'_, PyAny>) -> PyResult<bool> {
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
    let own = app.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
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
    let Some(app) = context::resolve(py, Part::App)? else {
        let message = py.import("hipflask.globals")?.getattr("_no_app_msg")?;
        return Err(PyRuntimeError::new_err((message.unbind(),)));
    };
    let endpoint = endpoint.cast::<PyString>()?;
    let call = Call { endpoint, anchor, method, scheme, external, values: values.as_ref() };
    match call.build(&app)? {
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
    Call { endpoint, anchor, method, scheme, external, values: Some(values) }.build(app)
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
        match call.build(app)? {
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
