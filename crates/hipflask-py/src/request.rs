//! `RequestBase`: a request whose hot attributes are native and worked out when first read.
//!
//! It stands on a WSGI environ, on the engine's own parsed head ([`from_engine`]), or on parts given one by one (the
//! sans-I/O `Request`). Attributes live in slots: reading one that is filled costs a descriptor call and a reference
//! count. Whatever depends on another attribute reads it through Python, so that subclasses may override each of
//! them. Cold attributes are in Python: `werkzeug/sansio/request.py`, `werkzeug/wrappers/request.py`.
//!
//! Implements: the request half of werkzeug.wrappers.Request (3.1) and flask.wrappers.Request (3.1).

use std::ffi::{CStr, c_void};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hipflask_http::{RequestHead, TraceParent, cookie, query};
use hipflask_server::{Address, Body, BodyError, ConnInfo};
use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyList, PyString, PyTuple, PyType};

use crate::body::InputStream;
use crate::environ::{Engine, latin1, optional, wsgi_bytes, wsgi_text};
pub(crate) use crate::environ::{EngineRequest, environ_from_engine};
use crate::form::import;
use crate::headers::EnvironHeaders;
use crate::multidict;
use crate::response::inherits;
use crate::slot::Slot;
use crate::{context, json, trailers, upload};

mod address;

use address::{base_url, host_url, root_url, url, url_root};

/// Where the facts come from.
enum Backing {
    Environ,
    Engine(Arc<Engine>),
}

/// The native half of a request.
#[pyclass(frozen, subclass, dict, weakref, module = "hipflask._core")]
pub(crate) struct RequestBase {
    backing: OnceLock<Backing>,
    /// Somebody assigned `headers`: then they tell, not the backing.
    own_headers: AtomicBool,
    slots: [Slot; PROPERTIES.len()],
    cached_data: Slot,
    cached_json: Slot,
    cached_silent_json: Slot,
}

type Compute = for<'py> fn(&Bound<'py, PyAny>, &RequestBase) -> PyResult<Bound<'py, PyAny>>;

/// What an attribute allows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Worked out once and kept; may be replaced and deleted.
    Kept,
    /// Worked out each time; read-only.
    Fresh,
    /// Worked out each time, unless something other than None was assigned.
    Given,
}

struct Property {
    name: &'static CStr,
    doc: &'static CStr,
    kind: Kind,
    compute: Compute,
}

macro_rules! properties {
    ($($index:ident $kind:ident $name:literal $compute:path, $doc:literal;)*) => {
        /// An attribute's place in the table and among the slots.
        #[derive(Clone, Copy)]
        #[allow(dead_code, reason = "the table names every attribute; code refers to some of them")]
        #[repr(usize)]
        enum At { $($index),* }

        const NAMES: &[&CStr] = &[$($name),*];

        static PROPERTIES: [Property; NAMES.len()] = [
            $(Property { name: $name, doc: $doc, kind: Kind::$kind, compute: $compute }),*
        ];
    };
}

properties! {
    Method Kept c"method" method, c"The method, in upper case.";
    Scheme Kept c"scheme" scheme, c"The URL's scheme: ``http`` or ``https``.";
    Server Kept c"server" server, c"Name and port of the server; the port is None for a Unix socket.";
    RootPath Kept c"root_path" root_path, c"Where the application is mounted, without a slash at the end.";
    Path Kept c"path" path, c"The path below ``root_path``, with a slash at the beginning.";
    QueryString Kept c"query_string" query_string, c"What follows the ``?`` in the URL, undecoded.";
    Headers Kept c"headers" headers, c"The header fields.";
    RemoteAddr Kept c"remote_addr" remote_addr, c"The client's address.";
    Environ Kept c"environ" environ, c"The WSGI environ; made when first asked for.";
    Shallow Kept c"shallow" shallow, c"Whether reading the body is forbidden.";
    Args Kept c"args" args, c"The URL's parameters.";
    FullPath Kept c"full_path" full_path, c"The path with the query string.";
    Url Kept c"url" url, c"The whole URL as an IRI.";
    BaseUrl Kept c"base_url" base_url, c"The URL without the query string.";
    RootUrl Kept c"root_url" root_url, c"The URL that the application is mounted at.";
    UrlRoot Kept c"url_root" url_root, c"The same as ``root_url``.";
    HostUrl Kept c"host_url" host_url, c"The URL's scheme and host.";
    Host Kept c"host" host, c"Host and port, the port only if it is not the scheme's own; checked against ``trusted_hosts``.";
    Cookies Kept c"cookies" cookies, c"The cookies sent.";
    ContentLength Kept c"content_length" content_length, c"The announced length of the body; None if it is not known beforehand.";
    Stream Kept c"stream" stream, c"The body as a file that is read once, guarded by the request's limits.";
    Data Kept c"data" data, c"The body; empty if it was a form.";
    Form Kept c"form" form, c"The fields of the form sent.";
    Files Kept c"files" files, c"The files of the form sent.";
    Values Kept c"values" values, c"``args`` and, unless the method is GET, ``form`` in one.";
    UrlRule Kept c"url_rule" nothing, c"The rule that matched the URL, or None.";
    ViewArgs Kept c"view_args" nothing, c"The values that the rule took from the URL, or None.";
    RoutingException Kept c"routing_exception" nothing, c"Why no rule matched, or None.";
    ContentType Fresh c"content_type" content_type, c"The body's media type with its parameters, or None.";
    Mimetype Fresh c"mimetype" mimetype, c"The body's media type in lower case, without parameters.";
    IsJson Fresh c"is_json" is_json, c"Whether the body's media type is a JSON type.";
    IsSecure Fresh c"is_secure" is_secure, c"Whether the scheme is a secure one.";
    ScriptRoot Fresh c"script_root" script_root, c"The same as ``root_path``.";
    WantForm Fresh c"want_form_data_parsed" want_form_data_parsed, c"Whether the request has a content type.";
    MaxContentLength Given c"_app_max_content_length" max_content_length, c"Most bytes of body; more is answered with 413. From ``MAX_CONTENT_LENGTH`` unless set here.";
    MaxFormMemorySize Given c"_app_max_form_memory_size" max_form_memory_size, c"Most bytes of one form field that is not a file. From ``MAX_FORM_MEMORY_SIZE`` unless set here.";
    MaxFormParts Given c"_app_max_form_parts" max_form_parts, c"Most parts of a multipart form. From ``MAX_FORM_PARTS`` unless set here.";
    Endpoint Fresh c"_endpoint" endpoint, c"The endpoint that matched, or None.";
    Blueprint Fresh c"_blueprint" blueprint, c"The name of the blueprint that the endpoint belongs to, or None.";
    Blueprints Fresh c"_blueprints" blueprints, c"The names of that blueprint and of those it is nested in, the innermost first.";
    Json Fresh c"json" json_body, c"The body as JSON; see ``get_json``.";
}

impl RequestBase {
    #[inline]
    fn slot(&self, at: At) -> &Slot {
        // The table and the slots have one length, which the compiler sees.
        &self.slots[at as usize]
    }

    fn all_slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().chain([&self.cached_data, &self.cached_json, &self.cached_silent_json])
    }

    fn put(&self, slf: &Bound<'_, PyAny>, at: At, value: Bound<'_, PyAny>) {
        drop(self.slot(at).set(slf, Some(value.unbind())));
    }

    pub(crate) fn engine(&self) -> Option<&Arc<Engine>> {
        match self.backing.get() {
            Some(Backing::Engine(engine)) => Some(engine),
            _ => None,
        }
    }

    /// A header field's value.
    pub(crate) fn field<'py>(
        &self,
        slf: &Bound<'py, PyAny>,
        lower: &[u8],
        environ_key: &Bound<'py, PyString>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        if !self.own_headers.load(Ordering::Relaxed) {
            match self.backing.get() {
                Some(Backing::Engine(engine)) => {
                    return engine.field(lower).map(|value| Ok(latin1(py, &value)?.into_any())).transpose();
                }
                Some(Backing::Environ) => {
                    if let Some(environ) = self.slot(At::Environ).get(slf)
                        && let Ok(environ) = environ.cast::<PyDict>()
                    {
                        return environ.get_item(environ_key);
                    }
                }
                None => {}
            }
        }
        let headers = slf.getattr(intern!(py, "headers"))?;
        let name = PyString::new(py, &String::from_utf8_lossy(lower));
        let value = headers.call_method1(intern!(py, "get"), (name,))?;
        Ok((!value.is_none()).then_some(value))
    }

    /// The dispatcher's: which rule matched, and the values it took from the URL.
    pub(crate) fn set_matched(slf: &Bound<'_, Self>, rule: Bound<'_, PyAny>, view_args: Bound<'_, PyAny>) {
        let this = slf.get();
        this.put(slf.as_any(), At::UrlRule, rule);
        this.put(slf.as_any(), At::ViewArgs, view_args);
    }

    /// The dispatcher's: why no rule matched.
    pub(crate) fn set_routing_exception(slf: &Bound<'_, Self>, error: Bound<'_, PyAny>) {
        slf.get().put(slf.as_any(), At::RoutingException, error);
    }

    /// Whether this is an ordinary request of the engine: its environ, which code might have changed, was not asked for,
    /// and it does not ask for another protocol.
    pub(crate) fn is_plain_exchange(slf: &Bound<'_, Self>) -> bool {
        let this = slf.get();
        this.engine().is_some_and(|engine| engine.head.field(b"upgrade").is_none())
            && !this.slot(At::Environ).is_set(slf.as_any())
    }

    /// The first cookie of this name, as `cookies` has it.
    pub(crate) fn cookie(slf: &Bound<'_, Self>, name: &Bound<'_, PyString>) -> PyResult<Option<String>> {
        static OURS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, this, any) = (slf.py(), slf.get(), slf.as_any());
        let attribute = intern!(py, "cookies");
        let ours =
            OURS.get_or_try_init(py, || py.get_type::<Self>().getattr(attribute).map(Bound::unbind))?;
        if let Some(engine) = this.engine()
            && !this.own_headers.load(Ordering::Relaxed)
            && !this.slot(At::Cookies).is_set(any)
            && inherits(&any.get_type(), attribute, ours)
        {
            let wanted = name.to_str()?;
            let Some(field) = engine.field(b"cookie") else { return Ok(None) };
            let field: String = field.iter().map(|&byte| char::from(byte)).collect();
            let found = cookie::parse(&field).find(|(name, _)| *name == wanted);
            return Ok(found.map(|(_, value)| value.into_owned()));
        }
        let cookies = any.getattr(attribute)?;
        cookies.call_method1(intern!(py, "get"), (name,))?.extract()
    }

    /// `request.blueprint`, without the string that Python would get where nobody has overridden anything.
    pub(crate) fn blueprint(slf: &Bound<'_, Self>) -> PyResult<Option<String>> {
        static OURS: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
        let (py, any) = (slf.py(), slf.as_any());
        let (blueprint, endpoint) = OURS.get_or_try_init(py, || {
            let class = py.get_type::<Self>();
            PyResult::Ok((class.getattr("_blueprint")?.unbind(), class.getattr("_endpoint")?.unbind()))
        })?;
        let class = any.get_type();
        if inherits(&class, intern!(py, "blueprint"), blueprint)
            && inherits(&class, intern!(py, "endpoint"), endpoint)
        {
            let rule = any.getattr(intern!(py, "url_rule"))?;
            if rule.is_none() {
                return Ok(None);
            }
            let endpoint = rule.getattr(intern!(py, "endpoint"))?;
            let Ok(endpoint) = endpoint.cast::<PyString>() else { return Ok(None) };
            return Ok(endpoint.to_str()?.rsplit_once('.').map(|(name, _)| name.to_owned()));
        }
        let blueprint = any.getattr(intern!(py, "blueprint"))?;
        if blueprint.is_none() { Ok(None) } else { blueprint.extract().map(Some) }
    }

    /// Closes the uploaded files, if there are any; what `close` does when it is not overridden.
    pub(crate) fn close_files(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let Some(files) = slf.get().slot(At::Files).get(slf.as_any()) else { return Ok(()) };
        if files.len().is_ok_and(|count| count == 0) {
            return Ok(());
        }
        let keyword = [(intern!(py, "multi"), true)].into_py_dict(py)?;
        let items = files.call_method(intern!(py, "items"), (), Some(&keyword))?;
        for item in items.try_iter()? {
            item?.get_item(1)?.call_method0(intern!(py, "close"))?;
        }
        Ok(())
    }
}

#[pymethods]
impl RequestBase {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            backing: OnceLock::new(),
            own_headers: AtomicBool::new(false),
            slots: std::array::from_fn(|_| Slot::default()),
            cached_data: Slot::default(),
            cached_json: Slot::default(),
            cached_silent_json: Slot::default(),
        }
    }

    #[pyo3(signature = (*_args, **_kwargs))]
    fn __init__(&self, _args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) {}

    /// Copy the object: what was worked out is shared, the body behind it too.
    fn __copy__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let class = slf.get_type();
        let copy = class.call_method1(intern!(py, "__new__"), (&class,))?;
        let other = copy.cast::<Self>()?.get();
        let _ = match this.backing.get() {
            Some(Backing::Engine(engine)) => other.backing.set(Backing::Engine(Arc::clone(engine))),
            Some(Backing::Environ) => other.backing.set(Backing::Environ),
            None => Ok(()),
        };
        other.own_headers.store(this.own_headers.load(Ordering::Relaxed), Ordering::Relaxed);
        for (from, to) in this.all_slots().zip(other.all_slots()) {
            drop(to.set(&copy, from.get(slf.as_any()).map(Bound::unbind)));
        }
        let attributes = slf.getattr(intern!(py, "__dict__"))?;
        copy.getattr(intern!(py, "__dict__"))?.call_method1(intern!(py, "update"), (attributes,))?;
        Ok(copy)
    }

    /// The parsed JSON, as ``get_json`` keeps it: without and with ``silent``; an ellipsis where nothing is kept.
    #[getter(_cached_json)]
    fn kept_json<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyAny>, Bound<'py, PyAny>) {
        let (py, this, any) = (slf.py(), slf.get(), slf.as_any());
        let kept = |slot: &Slot| slot.get(any).unwrap_or_else(|| py.Ellipsis().into_bound(py));
        (kept(&this.cached_json), kept(&this.cached_silent_json))
    }

    #[setter(_cached_json)]
    fn keep_json(slf: &Bound<'_, Self>, kept: (Bound<'_, PyAny>, Bound<'_, PyAny>)) {
        let (this, any) = (slf.get(), slf.as_any());
        for (slot, value) in [(&this.cached_json, kept.0), (&this.cached_silent_json, kept.1)] {
            let value = (!value.is(value.py().Ellipsis())).then(|| value.unbind());
            drop(slot.set(any, value));
        }
    }

    /// The name that the server has given to the request.
    #[getter]
    fn _request_id<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        match slf.get().engine() {
            Some(engine) => Ok(engine.head.id().map(|id| PyString::new(py, id).into_any())),
            None => {
                let environ = slf.as_any().getattr(intern!(py, "environ"))?;
                let id = environ.call_method1(intern!(py, "get"), (intern!(py, "hipflask.request_id"),))?;
                Ok((!id.is_none()).then_some(id))
            }
        }
    }

    /// The trace that the request belongs to, by its field ``traceparent``.
    #[getter]
    fn _trace_id(slf: &Bound<'_, Self>) -> PyResult<Option<String>> {
        let name = intern!(slf.py(), "HTTP_TRACEPARENT");
        let value = slf.get().field(slf.as_any(), b"traceparent", name)?;
        let Some(value) = value else { return Ok(None) };
        let parent = TraceParent::parse(value.extract::<&str>()?.as_bytes());
        Ok(parent.map(|parent| parent.trace.to_string()))
    }

    /// Whether there is a WSGI environ: an engine's request has none until somebody asks for it.
    #[getter]
    fn _has_environ(slf: &Bound<'_, Self>) -> bool {
        slf.get().engine().is_none() || slf.get().slot(At::Environ).is_set(slf.as_any())
    }

    /// Stand on a WSGI environ; what the URL, method and client's address say is read now.
    fn _bind_environ(slf: &Bound<'_, Self>, environ: &Bound<'_, PyDict>, shallow: bool) -> PyResult<()> {
        let (py, this, any) = (slf.py(), slf.get(), slf.as_any());
        let _ = this.backing.set(Backing::Environ);
        let method = text_at(environ, intern!(py, "REQUEST_METHOD"))?;
        let method = method.unwrap_or_else(|| intern!(py, "GET").clone());
        this.put(any, At::Method, upper(&method)?);
        let scheme = text_at(environ, intern!(py, "wsgi.url_scheme"))?;
        this.put(any, At::Scheme, scheme.unwrap_or_else(|| intern!(py, "http").clone()).into_any());
        let root = text_at(environ, intern!(py, "SCRIPT_NAME"))?.unwrap_or_else(|| intern!(py, "").clone());
        this.put(any, At::RootPath, without_slash_behind(&wsgi_text(&root)?)?);
        let path = text_at(environ, intern!(py, "PATH_INFO"))?.unwrap_or_else(|| intern!(py, "").clone());
        this.put(any, At::Path, with_slash_before(&wsgi_text(&path)?)?);
        let query = text_at(environ, intern!(py, "QUERY_STRING"))?.unwrap_or_else(|| intern!(py, "").clone());
        this.put(any, At::QueryString, wsgi_bytes(&query)?.into_any());
        let address = environ.get_item(intern!(py, "REMOTE_ADDR"))?;
        this.put(any, At::RemoteAddr, optional(py, address)?);
        this.put(any, At::Environ, environ.clone().into_any());
        this.put(any, At::Shallow, optional(py, Some(shallow))?);
        Ok(())
    }

    /// Parse the form, if there is one, and fill ``form``, ``files`` and ``stream``.
    fn _load_form_data(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this, any) = (slf.py(), slf.get(), slf.as_any());
        if this.slot(At::Form).is_set(any) {
            return Ok(());
        }
        let (stream, form, files) = if !any.getattr(intern!(py, "want_form_data_parsed"))?.is_truthy()? {
            let class = any.getattr(intern!(py, "parameter_storage_class"))?;
            (any.getattr(intern!(py, "stream"))?, class.call0()?, class.call0()?)
        } else if let Some(parsed) = upload::without_parser(any, this)? {
            parsed
        } else {
            let parser = any.call_method0(intern!(py, "make_form_data_parser"))?;
            let stream = any.call_method0(intern!(py, "_get_stream_for_parsing"))?;
            let mimetype = any.getattr(intern!(py, "mimetype"))?;
            let length = any.getattr(intern!(py, "content_length"))?;
            let options = any.getattr(intern!(py, "mimetype_params"))?;
            parser.call_method1(intern!(py, "parse"), (stream, mimetype, length, options))?.extract()?
        };
        this.put(any, At::Stream, stream);
        this.put(any, At::Form, form);
        this.put(any, At::Files, files);
        Ok(())
    }

    /// The stream that a form is parsed from: what ``get_data`` has kept, or ``stream``.
    fn _get_stream_for_parsing<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, any) = (slf.py(), slf.as_any());
        match slf.get().cached_data.get(any) {
            Some(data) => py.import(intern!(py, "io"))?.call_method1(intern!(py, "BytesIO"), (data,)),
            None => any.getattr(intern!(py, "stream")),
        }
    }

    /// Read the whole body.
    ///
    /// Args:
    ///     cache: Keep it, so that it can be read again.
    ///     as_text: Decode it as UTF-8; what is not becomes U+FFFD.
    ///     parse_form_data: Parse a form first, which then is not in the result.
    ///
    /// Raises:
    ///     RequestEntityTooLarge: If it is longer than ``max_content_length``.
    ///     ClientDisconnected: If it breaks off.
    ///
    /// Implements: werkzeug.wrappers.Request.get_data (3.1).
    #[pyo3(signature = (cache=true, as_text=false, parse_form_data=false))]
    fn get_data<'py>(
        slf: &Bound<'py, Self>,
        cache: bool,
        as_text: bool,
        parse_form_data: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this, any) = (slf.py(), slf.get(), slf.as_any());
        let data = match this.cached_data.get(any) {
            Some(data) => data,
            None => {
                if parse_form_data {
                    any.call_method0(intern!(py, "_load_form_data"))?;
                }
                let data = read_all(&any.getattr(intern!(py, "stream"))?)?;
                if cache {
                    drop(this.cached_data.set(any, Some(data.clone().unbind())));
                }
                data
            }
        };
        if !as_text {
            return Ok(data);
        }
        match data.cast::<PyBytes>() {
            Ok(bytes) => Ok(PyString::new(py, &String::from_utf8_lossy(bytes.as_bytes())).into_any()),
            Err(_) => data.call_method1(intern!(py, "decode"), ("utf-8", "replace")),
        }
    }

    /// Parse the body as JSON.
    ///
    /// Args:
    ///     force: Parse whatever the media type is.
    ///     silent: Return None instead of failing.
    ///     cache: Keep the result for the next call.
    ///
    /// Raises:
    ///     UnsupportedMediaType: If the media type is not JSON.
    ///     BadRequest: If the body is not JSON.
    ///
    /// Implements: werkzeug.wrappers.Request.get_json (3.1).
    #[pyo3(signature = (force=false, silent=false, cache=true))]
    fn get_json<'py>(
        slf: &Bound<'py, Self>,
        force: bool,
        silent: bool,
        cache: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this, any) = (slf.py(), slf.get(), slf.as_any());
        let (loud_slot, silent_slot) = (&this.cached_json, &this.cached_silent_json);
        if cache && let Some(known) = if silent { silent_slot } else { loud_slot }.get(any) {
            return Ok(known);
        }
        if !force && !any.getattr(intern!(py, "is_json"))?.is_truthy()? {
            if silent {
                return Ok(py.None().into_bound(py));
            }
            return any.call_method1(intern!(py, "on_json_loading_failed"), (py.None(),));
        }
        let data = if has_own_get_data(any)? {
            Self::get_data(slf, cache, false, false)?
        } else {
            let keyword = [(intern!(py, "cache"), cache)].into_py_dict(py)?;
            any.call_method(intern!(py, "get_data"), (), Some(&keyword))?
        };
        let module = any.getattr(intern!(py, "json_module"))?;
        let loaded = match load_natively(&module, &data)? {
            Some(value) => Ok(value),
            None => module.call_method1(intern!(py, "loads"), (data,)),
        };
        let (value, both) = match loaded {
            Ok(value) => (value, true),
            Err(error) if !error.is_instance_of::<PyValueError>(py) => return Err(error),
            Err(_) if silent => (py.None().into_bound(py), false),
            Err(error) => {
                let error = error.into_value(py);
                let raised = any.call_method1(intern!(py, "on_json_loading_failed"), (&error,));
                if let Err(raised) = &raised {
                    // As inside an `except` block, so that the traceback shows both.
                    if raised.value(py).getattr(intern!(py, "__context__"))?.is_none() {
                        raised.value(py).setattr(intern!(py, "__context__"), &error)?;
                    }
                }
                (raised?, false)
            }
        };
        if cache {
            if both || !silent {
                drop(loud_slot.set(any, Some(value.clone().unbind())));
            }
            if both || silent {
                drop(silent_slot.set(any, Some(value.clone().unbind())));
            }
        }
        Ok(value)
    }

    /// Close the uploaded files.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::close_files(slf)
    }

    /// The fields that have followed the body.
    #[getter]
    fn _trailers<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, EnvironHeaders>> {
        trailers::of_request(slf)
    }

    /// The client and the proxies behind it, as far as the server knows them for certain; None where it trusts none.
    #[getter(_trusted_route)]
    fn trusted_route<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        match slf.get().backing.get() {
            Some(Backing::Engine(engine)) => {
                engine.conn.route().map(|route| Ok(route.into_pyobject(py)?.into_any())).transpose()
            }
            Some(Backing::Environ) => {
                let environ = slf.getattr(intern!(py, "environ"))?;
                environ.cast::<PyDict>()?.get_item(intern!(py, "hipflask.trusted_route"))
            }
            None => Ok(None),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for slot in self.all_slots() {
            slot.traverse(&visit)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        for slot in self.all_slots() {
            slot.clear();
        }
    }
}

/// A request object for a request of the engine.
///
/// Makes an instance of `class` without running its `__init__`, unless a subclass of our `Request` has its own, or its
/// own `__new__`: then the class is called with the environ, as Flask does.
pub(crate) fn from_engine<'py>(
    py: Python<'py>,
    class: &Bound<'py, PyType>,
    request: EngineRequest,
) -> PyResult<Bound<'py, RequestBase>> {
    static OURS: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
    let (init, new) = OURS.get_or_try_init(py, || {
        let wrappers = py.import("hipflask.werkzeug.wrappers.request")?;
        let init = wrappers.getattr("Request")?.getattr("__init__")?.unbind();
        PyResult::Ok((init, py.get_type::<RequestBase>().getattr("__new__")?.unbind()))
    })?;
    if !inherits(class, intern!(py, "__init__"), init) || !inherits(class, intern!(py, "__new__"), new) {
        let environ = environ_from_engine(py, request)?;
        return Ok(class.call1((environ,))?.cast_into::<RequestBase>()?);
    }
    let empty = PyTuple::empty(py);
    // SAFETY: `class` is a type; its `tp_new` is called as `type.__call__` would, with an empty tuple.
    let made = unsafe {
        let Some(new) = (*class.as_type_ptr()).tp_new else {
            return Err(PyTypeError::new_err("the request class cannot be instantiated"));
        };
        Bound::from_owned_ptr_or_err(py, new(class.as_type_ptr(), empty.as_ptr(), std::ptr::null_mut()))?
    };
    let made = made.cast_into::<RequestBase>()?;
    let _ = made.get().backing.set(Backing::Engine(Arc::new(Engine::new(request))));
    Ok(made)
}

/// A request object for the bytes of a request, as the engine would make it: for tests and benchmarks.
///
/// Args:
///     cls: The request class.
///     head: Request line and header fields, with the empty line at the end.
///     body: The decoded body.
///
/// Raises:
///     ValueError: If the head is malformed or incomplete.
#[pyfunction]
#[pyo3(signature = (cls, head, body=None))]
fn _request_from_wire<'py>(
    cls: &Bound<'py, PyType>,
    head: &[u8],
    body: Option<Vec<u8>>,
) -> PyResult<Bound<'py, RequestBase>> {
    let mut parsed = Box::new(RequestHead::new());
    match parsed.parse(head, &hipflask_http::Limits::default()) {
        Ok(Some(_)) => {}
        Ok(None) => return Err(PyValueError::new_err("incomplete head")),
        Err(error) => return Err(PyValueError::new_err(error.reason())),
    }
    let end = |port| Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
    let conn = Arc::new(ConnInfo::new(end(50_000), end(8000)));
    let body = body.map_or(Body::Empty, Body::Buffered);
    from_engine(cls.py(), cls, EngineRequest { head: parsed, body, conn, handoff: None, hints: None })
}

/// The error for a body or field that is too large (413).
pub(crate) fn too_large(py: Python<'_>) -> PyErr {
    http_error(py, "RequestEntityTooLarge")
}

/// The HTTP error for a body that cannot be read to its end.
pub(crate) fn body_error(py: Python<'_>, error: BodyError) -> PyErr {
    match error.status() {
        500.. => PyRuntimeError::new_err(error.to_string()),
        408 => http_error(py, "RequestTimeout"),
        413 => http_error(py, "RequestEntityTooLarge"),
        _ => http_error(py, "ClientDisconnected"),
    }
}

fn http_error(py: Python<'_>, name: &str) -> PyErr {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let made =
        import(py, &MODULE, "hipflask.werkzeug.exceptions").and_then(|module| module.getattr(name)?.call0());
    match made {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

pub(crate) type Value<'py> = PyResult<Bound<'py, PyAny>>;
/// A stream that was read, and the fields and files that were in it.
pub(crate) type Parsed<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);
pub(crate) type This<'a, 'py> = &'a Bound<'py, PyAny>;

fn unknown(name: &str) -> PyErr {
    PyAttributeError::new_err(format!("the request was made without '{name}'"))
}

fn nothing<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    Ok(slf.py().None().into_bound(slf.py()))
}

/// A string in an environ; None is as good as missing.
fn text_at<'py>(
    environ: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyString>>> {
    match environ.get_item(key)? {
        Some(value) if !value.is_none() => Ok(Some(value.cast_into::<PyString>()?)),
        _ => Ok(None),
    }
}

fn upper<'py>(text: &Bound<'py, PyString>) -> Value<'py> {
    if text.to_str().is_ok_and(|text| text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_lowercase()))
    {
        return Ok(text.clone().into_any());
    }
    text.call_method0(intern!(text.py(), "upper"))
}

fn with_slash_before<'py>(path: &Bound<'py, PyString>) -> Value<'py> {
    let text = path.to_string_lossy();
    if text.starts_with('/') && !text.starts_with("//") {
        return Ok(path.clone().into_any());
    }
    let rest = path.call_method1(intern!(path.py(), "lstrip"), (intern!(path.py(), "/"),))?;
    intern!(path.py(), "/").as_any().add(rest)
}

fn without_slash_behind<'py>(path: &Bound<'py, PyString>) -> Value<'py> {
    path.call_method1(intern!(path.py(), "rstrip"), (intern!(path.py(), "/"),))
}

fn method<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let py = slf.py();
    let engine = this.engine().ok_or_else(|| unknown("method"))?;
    Ok(match engine.head.method() {
        b"GET" => intern!(py, "GET").clone().into_any(),
        b"POST" => intern!(py, "POST").clone().into_any(),
        b"HEAD" => intern!(py, "HEAD").clone().into_any(),
        b"PUT" => intern!(py, "PUT").clone().into_any(),
        b"PATCH" => intern!(py, "PATCH").clone().into_any(),
        b"DELETE" => intern!(py, "DELETE").clone().into_any(),
        b"OPTIONS" => intern!(py, "OPTIONS").clone().into_any(),
        other => latin1(py, &other.to_ascii_uppercase())?.into_any(),
    })
}

fn scheme<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let py = slf.py();
    let engine = this.engine().ok_or_else(|| unknown("scheme"))?;
    Ok(if engine.conn.is_secure() { intern!(py, "https") } else { intern!(py, "http") }.clone().into_any())
}

fn server<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let py = slf.py();
    match this.backing.get() {
        Some(Backing::Engine(engine)) => Ok(engine.server().into_pyobject(py)?.into_any()),
        Some(Backing::Environ) => {
            let environ = slf.getattr(intern!(py, "environ"))?;
            wsgi(py)?.call_method1(intern!(py, "_get_server"), (environ,))
        }
        None => Err(unknown("server")),
    }
}

fn root_path<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let engine = this.engine().ok_or_else(|| unknown("root_path"))?;
    Ok(match engine.conn.root_path() {
        "" => intern!(slf.py(), "").clone().into_any(),
        root => PyString::new(slf.py(), root).into_any(),
    })
}

fn path<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let engine = this.engine().ok_or_else(|| unknown("path"))?;
    let path = engine.head.path();
    let text = String::from_utf8_lossy(&path);
    if text.starts_with('/') && !text.starts_with("//") {
        return Ok(PyString::new(slf.py(), &text).into_any());
    }
    Ok(PyString::new(slf.py(), &format!("/{}", text.trim_start_matches('/'))).into_any())
}

fn query_string<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let engine = this.engine().ok_or_else(|| unknown("query_string"))?;
    Ok(PyBytes::new(slf.py(), engine.head.query()).into_any())
}

fn headers<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let py = slf.py();
    match this.backing.get() {
        Some(Backing::Engine(engine)) => {
            let fields = Arc::clone(engine);
            Ok(EnvironHeaders::from_fields(py, fields)?.into_any())
        }
        Some(Backing::Environ) => {
            let environ = slf.getattr(intern!(py, "environ"))?;
            Ok(EnvironHeaders::from_environ(py, &environ)?.into_any())
        }
        None => Err(unknown("headers")),
    }
}

fn remote_addr<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let engine = this.engine().ok_or_else(|| unknown("remote_addr"))?;
    optional(slf.py(), engine.remote_addr())
}

fn environ<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let engine = this.engine().ok_or_else(|| unknown("environ"))?;
    Ok(engine.environ(slf.py())?.into_any())
}

fn shallow<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    optional(slf.py(), Some(false))
}

fn args<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let py = slf.py();
    let class = slf.getattr(intern!(py, "parameter_storage_class"))?.cast_into::<PyType>()?;
    if let Some(engine) = this.engine()
        && !this.slot(At::QueryString).is_set(slf)
    {
        return pairs_as(&class, engine.head.query());
    }
    let query = slf.getattr(intern!(py, "query_string"))?;
    let query: &[u8] = query.extract()?;
    pairs_as(&class, query)
}

fn pairs_as<'py>(class: &Bound<'py, PyType>, query: &[u8]) -> Value<'py> {
    match query::parse_pairs(query) {
        Ok(pairs) => multidict::of_class(class, pairs),
        Err(_) => {
            // Raw bytes that are not UTF-8 mean the same as if they had been escaped.
            let mut escaped = String::with_capacity(query.len() + 16);
            for chunk in query.utf8_chunks() {
                escaped.push_str(chunk.valid());
                for byte in chunk.invalid() {
                    escaped.push_str(&format!("%{byte:02X}"));
                }
            }
            match query::parse_pairs(escaped.as_bytes()) {
                Ok(pairs) => multidict::of_class(class, pairs),
                Err(error) => Err(PyValueError::new_err(error.to_string())),
            }
        }
    }
}

fn full_path<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    let py = slf.py();
    let path = slf.getattr(intern!(py, "path"))?;
    let query = slf.getattr(intern!(py, "query_string"))?;
    let query: &[u8] = query.extract()?;
    let query = PyString::new(py, &String::from_utf8_lossy(query));
    path.add(intern!(py, "?"))?.add(query)
}

fn host<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let py = slf.py();
    let scheme = slf.getattr(intern!(py, "scheme"))?;
    let trusted = slf.getattr(intern!(py, "trusted_hosts"))?;
    let sent = this.field(slf, b"host", intern!(py, "HTTP_HOST"))?;
    if let Some(sent) = &sent
        && trusted.is_none()
        && let (Ok(text), Ok(scheme)) = (sent.extract::<&str>(), scheme.extract::<&str>())
    {
        let port = match scheme {
            "http" | "ws" => ":80",
            "https" | "wss" => ":443",
            _ => return Ok(sent.clone()),
        };
        return Ok(match text.strip_suffix(port) {
            Some(name) => PyString::new(py, name).into_any(),
            None => sent.clone(),
        });
    }
    let server = slf.getattr(intern!(py, "server"))?;
    sansio_utils(py)?.call_method1(intern!(py, "get_host"), (scheme, optional(py, sent)?, server, trusted))
}

fn cookies<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let py = slf.py();
    let class = slf.getattr(intern!(py, "dict_storage_class"))?;
    let sent = if this.backing.get().is_some() {
        this.field(slf, b"cookie", intern!(py, "HTTP_COOKIE"))?
    } else {
        let all = slf.getattr(intern!(py, "headers"))?.call_method1(intern!(py, "getlist"), ("Cookie",))?;
        Some(intern!(py, ";").call_method1(intern!(py, "join"), (all,))?)
    };
    let sansio_http = import(py, &MODULE, "hipflask.werkzeug.sansio.http")?;
    sansio_http.call_method1(intern!(py, "parse_cookie"), (optional(py, sent)?, class))
}

fn content_length<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let py = slf.py();
    let coding = this.field(slf, b"transfer-encoding", intern!(py, "HTTP_TRANSFER_ENCODING"))?;
    let length = this.field(slf, b"content-length", intern!(py, "CONTENT_LENGTH"))?;
    if let (Some(length), None) = (&length, &coding)
        && let Ok(text) = length.extract::<&str>()
        && let Ok(length) = text.parse::<u32>()
        && text.bytes().all(|byte| byte.is_ascii_digit())
    {
        return optional(py, Some(length));
    }
    let (length, coding) = (optional(py, length)?, optional(py, coding)?);
    sansio_utils(py)?.call_method1(intern!(py, "get_content_length"), (length, coding))
}

fn stream<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let py = slf.py();
    if slf.getattr(intern!(py, "shallow"))?.is_truthy()? {
        return Err(PyRuntimeError::new_err(
            "This request was created with 'shallow=True', reading from the input stream is disabled.",
        ));
    }
    let limit = slf.getattr(intern!(py, "max_content_length"))?;
    let engine = if has_replaced_input(slf, this)? { None } else { this.engine() };
    let Some(engine) = engine else {
        let environ = slf.getattr(intern!(py, "environ"))?;
        let keyword = [(intern!(py, "max_content_length"), limit)].into_py_dict(py)?;
        return wsgi(py)?.call_method(intern!(py, "get_input_stream"), (environ,), Some(&keyword));
    };
    let limit: Option<u64> = limit.extract()?;
    if let (Some(limit), hipflask_http::Framing::Length(length)) = (limit, engine.head.framing())
        && length > limit
    {
        return Err(too_large(py));
    }
    Ok(Bound::new(py, InputStream::new(Arc::clone(engine.body()), true, limit))?.into_any())
}

/// Whether somebody has put a stream of their own into the environ of an engine's request.
fn has_replaced_input<'py>(slf: This<'_, 'py>, this: &RequestBase) -> PyResult<bool> {
    let Some(environ) = this.slot(At::Environ).get(slf) else { return Ok(false) };
    let input = environ.cast::<PyDict>()?.get_item(intern!(slf.py(), "wsgi.input"))?;
    Ok(input.is_some_and(|input| !input.is_instance_of::<InputStream>()))
}

pub(crate) fn read_all<'py>(stream: &Bound<'py, PyAny>) -> Value<'py> {
    match stream.cast::<InputStream>() {
        Ok(stream) => Ok(stream.get().read_all(stream.py())?.into_any()),
        Err(_) => stream.call_method0(intern!(stream.py(), "read")),
    }
}

fn data<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    let py = slf.py();
    let keyword = [(intern!(py, "parse_form_data"), true)].into_py_dict(py)?;
    slf.call_method(intern!(py, "get_data"), (), Some(&keyword))
}

fn form<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    slf.call_method0(intern!(slf.py(), "_load_form_data"))?;
    this.slot(At::Form).get(slf).ok_or_else(|| unknown("form"))
}

fn files<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    slf.call_method0(intern!(slf.py(), "_load_form_data"))?;
    this.slot(At::Files).get(slf).ok_or_else(|| unknown("files"))
}

fn values<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let py = slf.py();
    let structures = import(py, &MODULE, "hipflask.werkzeug.datastructures")?;
    let plain = structures.getattr(intern!(py, "MultiDict"))?;
    let mut sources = vec![slf.getattr(intern!(py, "args"))?];
    if !slf.getattr(intern!(py, "method"))?.eq(intern!(py, "GET"))? {
        sources.push(slf.getattr(intern!(py, "form"))?);
    }
    for source in &mut sources {
        if !source.is_instance(&plain)? {
            *source = plain.call1((&*source,))?;
        }
    }
    structures.call_method1(intern!(py, "CombinedMultiDict"), (sources,))
}

fn content_type<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let value = this.field(slf, b"content-type", intern!(slf.py(), "CONTENT_TYPE"))?;
    optional(slf.py(), value)
}

/// The media type in lower case.
fn media_type(slf: This<'_, '_>, this: &RequestBase) -> PyResult<String> {
    let Some(value) = this.field(slf, b"content-type", intern!(slf.py(), "CONTENT_TYPE"))? else {
        return Ok(String::new());
    };
    let value = value.str()?;
    let value = value.to_string_lossy();
    Ok(value.split(';').next().unwrap_or_default().trim().to_lowercase())
}

fn mimetype<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    Ok(PyString::new(slf.py(), &media_type(slf, this)?).into_any())
}

fn is_json<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    let kind = slf.getattr(intern!(slf.py(), "mimetype"))?;
    let kind: &str = kind.extract()?;
    let json = kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
    optional(slf.py(), Some(json))
}

/// Whether `get_data` is ours.
fn has_own_get_data(slf: This<'_, '_>) -> PyResult<bool> {
    static OURS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = slf.py();
    let name = intern!(py, "get_data");
    let ours = OURS.get_or_try_init(py, || py.get_type::<RequestBase>().getattr(name).map(Bound::unbind))?;
    Ok(inherits(&slf.get_type(), name, ours))
}

/// What `json_module.loads` gives, where that is Flask's and ends in the native reader; `None` where Python has to read,
/// or to explain what is wrong.
fn load_natively<'py>(
    module: &Bound<'py, PyAny>,
    data: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = module.py();
    let Ok(data) = data.cast_exact::<PyBytes>() else { return Ok(None) };
    let provider = match module.is(import(py, &MODULE, "hipflask.json")?) {
        true => match context::resolve(py, context::Part::App)? {
            Some(app) => app.getattr(intern!(py, "json"))?,
            None => return Ok(None),
        },
        false => module.clone(),
    };
    let class = json::default_provider(py)?;
    let name = intern!(py, "loads");
    let ours = LOADS.get_or_try_init(py, || class.getattr(name).map(Bound::unbind))?;
    if !provider.is_instance(class)? || !inherits(&provider.get_type(), name, ours) {
        return Ok(None);
    }
    let own = provider.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
    if own.contains(name)? { Ok(None) } else { json::loads(py, data.as_bytes()) }
}

fn is_secure<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    let scheme = slf.getattr(intern!(slf.py(), "scheme"))?;
    optional(slf.py(), Some(matches!(scheme.extract::<&str>(), Ok("https" | "wss"))))
}

fn script_root<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    slf.getattr(intern!(slf.py(), "root_path"))
}

fn want_form_data_parsed<'py>(slf: This<'_, 'py>, this: &RequestBase) -> Value<'py> {
    let value = this.field(slf, b"content-type", intern!(slf.py(), "CONTENT_TYPE"))?;
    optional(slf.py(), Some(value.map_or(Ok(false), |value| value.is_truthy())?))
}

fn json_body<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    slf.call_method0(intern!(slf.py(), "get_json"))
}

/// A limit of the current app's configuration; outside of an app, the default.
fn limit_of_app<'py>(slf: This<'_, 'py>, key: &Bound<'py, PyString>, default: Option<u64>) -> Value<'py> {
    let py = slf.py();
    match context::resolve(py, context::Part::App)? {
        Some(app) => app.getattr(intern!(py, "config"))?.get_item(key),
        None => optional(py, default),
    }
}

fn max_content_length<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    limit_of_app(slf, intern!(slf.py(), "MAX_CONTENT_LENGTH"), None)
}

fn max_form_memory_size<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    limit_of_app(slf, intern!(slf.py(), "MAX_FORM_MEMORY_SIZE"), Some(500_000))
}

fn max_form_parts<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    limit_of_app(slf, intern!(slf.py(), "MAX_FORM_PARTS"), Some(1000))
}

fn endpoint<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    let rule = slf.getattr(intern!(slf.py(), "url_rule"))?;
    if rule.is_none() { Ok(rule) } else { rule.getattr(intern!(slf.py(), "endpoint")) }
}

fn blueprint<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    let py = slf.py();
    let endpoint = slf.getattr(intern!(py, "endpoint"))?;
    let name = match endpoint.cast::<PyString>() {
        Ok(endpoint) => endpoint.to_str()?.rsplit_once('.').map(|(name, _)| PyString::new(py, name)),
        Err(_) => None,
    };
    optional(py, name)
}

fn blueprints<'py>(slf: This<'_, 'py>, _: &RequestBase) -> Value<'py> {
    let py = slf.py();
    let names = PyList::empty(py);
    let innermost = slf.getattr(intern!(py, "blueprint"))?;
    if let Ok(innermost) = innermost.cast::<PyString>() {
        let mut name = Some(innermost.to_str()?);
        while let Some(text) = name {
            names.append(text)?;
            name = text.rsplit_once('.').map(|(outer, _)| outer);
        }
    }
    Ok(names.into_any())
}

fn wsgi(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    import(py, &MODULE, "hipflask.werkzeug.wsgi")
}

fn sansio_utils(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    import(py, &MODULE, "hipflask.werkzeug.sansio.utils")
}

/// Runs the slow part of a descriptor: attached as PyO3 counts it, with panics as Python exceptions.
fn guarded(
    object: *mut ffi::PyObject,
    work: impl FnOnce(&Bound<'_, PyAny>, &RequestBase) -> PyResult<*mut ffi::PyObject>,
) -> *mut ffi::PyObject {
    Python::attach(|py| {
        // SAFETY: the getset descriptor has checked that `object` is a `RequestBase`, and its caller keeps it alive.
        let object = unsafe { Bound::from_borrowed_ptr(py, object) };
        let this = object.clone();
        let done = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: as above.
            let this = unsafe { this.cast_unchecked::<RequestBase>() };
            work(&object, this.get())
        }));
        let error = match done {
            Ok(Ok(result)) => return result,
            Ok(Err(error)) => error,
            Err(_) => PanicException::new_err("a request attribute could not be worked out"),
        };
        error.restore(py);
        std::ptr::null_mut()
    })
}

/// # Safety
/// Called by a getset descriptor made in [`register`]: attached, with a `RequestBase` and one of [`PROPERTIES`].
unsafe extern "C" fn get(object: *mut ffi::PyObject, property: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: `register` gave the descriptor a reference into the static table.
    let property: &'static Property = unsafe { &*property.cast::<Property>() };
    let at = index(property);
    if property.kind != Kind::Fresh {
        // SAFETY: the descriptor's caller is attached and keeps `object`, a `RequestBase`, alive.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: as above.
        let object = unsafe { Borrowed::from_ptr(py, object) };
        // SAFETY: as above.
        let this = unsafe { object.cast_unchecked::<RequestBase>() };
        if let Some(value) = this.get().slots.get(at).and_then(|slot| slot.get(&object)) {
            return value.into_ptr();
        }
    }
    guarded(object, |object, this| {
        let value = (property.compute)(object, this)?;
        if property.kind == Kind::Kept
            && let Some(slot) = this.slots.get(at)
        {
            drop(slot.set(object, Some(value.clone().unbind())));
        }
        Ok(value.into_ptr())
    })
}

/// # Safety
/// As for [`get`]; `value` is null for a deletion.
unsafe extern "C" fn set(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    property: *mut c_void,
) -> std::ffi::c_int {
    // SAFETY: as in `get`.
    let property: &'static Property = unsafe { &*property.cast::<Property>() };
    let at = index(property);
    let done = guarded(object, |object, this| {
        // SAFETY: the caller keeps `value`, if it is not null, alive.
        let value = unsafe { Bound::from_borrowed_ptr_or_opt(object.py(), value) };
        let deleted = value.is_none();
        if at == At::Headers as usize {
            this.own_headers.store(!deleted, Ordering::Relaxed);
        }
        let Some(slot) = this.slots.get(at) else { return Ok(std::ptr::null_mut()) };
        let value = value.filter(|value| property.kind != Kind::Given || !value.is_none());
        let old = slot.set(object, value.map(Bound::unbind));
        if deleted && old.is_none() {
            return Err(PyAttributeError::new_err(property.name.to_string_lossy().into_owned()));
        }
        Ok(object.as_ptr())
    });
    if done.is_null() { -1 } else { 0 }
}

/// A property's place in the table.
fn index(property: &'static Property) -> usize {
    (std::ptr::from_ref(property) as usize - PROPERTIES.as_ptr() as usize) / size_of::<Property>()
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RequestBase>()?;
    let class = module.py().get_type::<RequestBase>();
    for property in &PROPERTIES {
        let definition = Box::leak(Box::new(ffi::PyGetSetDef {
            name: property.name.as_ptr(),
            get: Some(get),
            set: (property.kind != Kind::Fresh).then_some(set as ffi::setter),
            doc: property.doc.as_ptr(),
            closure: std::ptr::from_ref(property).cast_mut().cast(),
        }));
        // SAFETY: the definition and what it points to live for ever; the functions take what a descriptor of this
        // class gives them.
        let descriptor = unsafe {
            let made = ffi::PyDescr_NewGetSet(class.as_type_ptr(), definition);
            Bound::from_owned_ptr_or_err(module.py(), made)?
        };
        class.setattr(property.name.to_string_lossy().as_ref(), descriptor)?;
    }
    module.add_function(wrap_pyfunction!(_request_from_wire, module)?)
}
