//! `ResponseBase`: status, headers and body of a response, made in a microsecond.
//!
//! A body given as text or bytes is kept as one `bytes` object; the list that Python code sees as `response.response`
//! is made when somebody looks. Cold attributes are in Python: `werkzeug/sansio/response.py`,
//! `werkzeug/wrappers/response.py`. Does not write to the wire: [`wire`] says what there is to write.
//!
//! Implements: the constructor, status and data of werkzeug.wrappers.Response (3.1) and its rules for what goes out.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use pyo3::exceptions::{PyKeyError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyInt, PyList, PyString, PyTuple, PyType};

use crate::form::import;
use crate::headers::Headers;
use crate::slot::Slot;

/// The native half of a response.
#[pyclass(frozen, subclass, dict, weakref, module = "hipflask._core")]
pub(crate) struct ResponseBase {
    code: AtomicI64,
    /// The status line's text; empty where the code says it all.
    status: Slot,
    headers: Slot,
    /// The body: one `bytes` object, or whatever iterable was given.
    body: Slot,
    /// Whether `body` is one `bytes` object that stands for a list of it.
    single: AtomicBool,
    passthrough: AtomicBool,
    on_close: Slot,
    /// What knows the fields that are to follow the body; there only if somebody has asked for it.
    trailers: Slot,
}

/// Text types outside `text/` that have a charset.
const TEXTUAL: &[&str] = &[
    "application/ecmascript",
    "application/javascript",
    "application/sql",
    "application/xml",
    "application/xml-dtd",
    "application/xml-external-parsed-entity",
];

fn with_charset<'py>(mimetype: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyString>> {
    let py = mimetype.py();
    let text = mimetype.to_str()?;
    Ok(match text {
        "text/html" => intern!(py, "text/html; charset=utf-8").clone(),
        "text/plain" => intern!(py, "text/plain; charset=utf-8").clone(),
        _ if text.starts_with("text/") || text.ends_with("+xml") || TEXTUAL.contains(&text) => {
            PyString::new(py, &format!("{text}; charset=utf-8"))
        }
        _ => mimetype.clone(),
    })
}

unsafe extern "C" {
    /// CPython's cached lookup along the method resolution order; the result is borrowed.
    fn _PyType_Lookup(class: *mut ffi::PyTypeObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// Whether `class` has, under `name`, what our own class has there.
pub(crate) fn inherits(class: &Bound<'_, PyType>, name: &Bound<'_, PyString>, ours: &Py<PyAny>) -> bool {
    // SAFETY: both are what they are said to be; the borrowed result is only compared.
    let found = unsafe { _PyType_Lookup(class.as_type_ptr(), name.as_ptr()) };
    std::ptr::eq(found, ours.as_ptr())
}

impl ResponseBase {
    fn set_code(&self, slf: &Bound<'_, PyAny>, code: i64) {
        self.code.store(code, Ordering::Relaxed);
        drop(self.status.set(slf, None));
    }

    /// Sets the status from an integer, an `HTTPStatus` or a text like `404 Not Found`.
    fn assign_status(&self, slf: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if value.is_instance_of::<PyInt>() {
            self.set_code(slf, value.extract()?);
            return Ok(());
        }
        let value = value.cast::<PyString>().map_err(|_| PyTypeError::new_err("Invalid status argument"))?;
        let text = value.to_str()?.trim();
        if text.is_empty() {
            return Err(PyValueError::new_err("Empty status argument"));
        }
        let (first, phrase) = text.split_once(' ').map_or((text, None), |(first, rest)| (first, Some(rest)));
        let line = match (first.parse::<i64>(), phrase) {
            (Ok(code), None) => {
                self.set_code(slf, code);
                return Ok(());
            }
            (Ok(code), Some(_)) => {
                self.code.store(code, Ordering::Relaxed);
                PyString::new(slf.py(), text)
            }
            (Err(_), _) => {
                self.code.store(0, Ordering::Relaxed);
                PyString::new(slf.py(), &format!("0 {text}"))
            }
        };
        drop(self.status.set(slf, Some(line.into_any().unbind())));
        Ok(())
    }

    fn status_line<'py>(&self, slf: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if let Some(status) = self.status.get(slf) {
            return Ok(status);
        }
        let code = self.code.load(Ordering::Relaxed);
        let line = match code {
            200 => intern!(py, "200 OK").clone(),
            _ => {
                static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
                let phrases = import(py, &MODULE, "hipflask.werkzeug.http")?.getattr("HTTP_STATUS_CODES")?;
                match phrases.get_item(code) {
                    Ok(phrase) => {
                        PyString::new(py, &format!("{code} {}", phrase.str()?.to_str()?.to_uppercase()))
                    }
                    Err(error) if error.is_instance_of::<PyKeyError>(py) => {
                        PyString::new(py, &format!("{code} UNKNOWN"))
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        drop(self.status.set(slf, Some(line.clone().into_any().unbind())));
        Ok(line.into_any())
    }

    fn fields<'py>(&self, slf: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.headers.get(slf) {
            Some(headers) => Ok(headers),
            None => {
                let headers = Headers::from_pairs(slf.py(), [])?.into_any();
                drop(self.headers.set(slf, Some(headers.clone().unbind())));
                Ok(headers)
            }
        }
    }

    fn put_field(
        &self,
        slf: &Bound<'_, PyAny>,
        name: &Bound<'_, PyString>,
        value: &Bound<'_, PyString>,
    ) -> PyResult<()> {
        let headers = self.fields(slf)?;
        match headers.cast_exact::<Headers>() {
            // Text with a line break takes the long way, which refuses it.
            Ok(headers) if !has_line_break(value) => {
                headers.get().put(name, value);
                Ok(())
            }
            _ => headers.set_item(name, value),
        }
    }

    /// The body as Python sees it.
    fn iterable<'py>(&self, slf: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let body = self.body.get(slf);
        if !self.single.load(Ordering::Relaxed)
            && let Some(body) = body
        {
            return Ok(body);
        }
        let list = PyList::new(py, body)?.into_any();
        self.single.store(false, Ordering::Relaxed);
        drop(self.body.set(slf, Some(list.clone().unbind())));
        Ok(list)
    }

    fn is_sequence(&self, slf: &Bound<'_, PyAny>) -> bool {
        self.single.load(Ordering::Relaxed)
            || self
                .body
                .get(slf)
                .is_none_or(|body| body.is_instance_of::<PyList>() || body.is_instance_of::<PyTuple>())
    }

    fn assign_data(&self, slf: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let (body, single) = if let Ok(text) = value.cast::<PyString>() {
            (text.encode_utf8()?.into_any(), true)
        } else if value.is_exact_instance_of::<PyBytes>() {
            (value.clone(), true)
        } else if let Ok(array) = value.cast::<PyByteArray>() {
            // A server takes bytes only, and the array could change behind its length.
            (PyBytes::new(py, &array.to_vec()).into_any(), true)
        } else {
            (PyList::new(py, [value])?.into_any(), false)
        };
        let length = if single { body.cast::<PyBytes>()?.as_bytes().len() } else { value.len()? };
        drop(self.body.set(slf, Some(body.unbind())));
        self.single.store(single, Ordering::Relaxed);
        if slf.getattr(intern!(py, "automatically_set_content_length"))?.is_truthy()? {
            let length = PyString::new(py, &length.to_string());
            self.put_field(slf, intern!(py, "Content-Length"), &length)?;
        }
        Ok(())
    }

    /// The length of the whole body, text counted as UTF-8, if it is a sequence.
    fn sequence_length(&self, slf: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let Some(body) = self.body.get(slf) else { return Ok(Some(0)) };
        if let Ok(bytes) = body.cast::<PyBytes>() {
            return Ok(Some(bytes.as_bytes().len()));
        }
        if !self.is_sequence(slf) {
            return Ok(None);
        }
        let mut total = 0;
        for piece in slf.call_method0(intern!(slf.py(), "iter_encoded"))?.try_iter()? {
            total += piece?.len()?;
        }
        Ok(Some(total))
    }
}

/// A body that can be iterated over: what a coroutine makes is taken piece by piece from its event loop.
fn iterable_of<'py>(body: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = body.py();
    let is_common = body.is_exact_instance_of::<PyList>() || body.is_exact_instance_of::<PyTuple>();
    if is_common || !body.hasattr(intern!(py, "__aiter__"))? || body.hasattr(intern!(py, "__iter__"))? {
        return Ok(body.clone());
    }
    py.import(intern!(py, "hipflask.streaming"))?.getattr(intern!(py, "AsyncPieces"))?.call1((body,))
}

fn has_line_break(text: &Bound<'_, PyString>) -> bool {
    text.to_str().map_or(true, |text| memchr::memchr2(b'\r', b'\n', text.as_bytes()).is_some())
}

#[pymethods]
impl ResponseBase {
    #[new]
    #[pyo3(
        signature = (*_args, **_kwargs),
        text_signature = "(response=None, status=None, headers=None, mimetype=None, content_type=None, direct_passthrough=False)"
    )]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            code: AtomicI64::new(200),
            status: Slot::default(),
            headers: Slot::default(),
            body: Slot::default(),
            single: AtomicBool::new(false),
            passthrough: AtomicBool::new(false),
            on_close: Slot::default(),
            trailers: Slot::default(),
        }
    }

    #[pyo3(signature = (response=None, status=None, headers=None, mimetype=None, content_type=None, direct_passthrough=false))]
    fn __init__(
        slf: &Bound<'_, Self>,
        response: Option<&Bound<'_, PyAny>>,
        status: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        mimetype: Option<Bound<'_, PyString>>,
        content_type: Option<Bound<'_, PyString>>,
        direct_passthrough: bool,
    ) -> PyResult<()> {
        let (this, any) = (slf.get(), slf.as_any());
        Self::_init_head(slf, status, headers, mimetype, content_type)?;
        this.passthrough.store(direct_passthrough, Ordering::Relaxed);
        drop(this.on_close.set(any, None));
        drop(this.trailers.set(any, None));
        let Some(response) = response else {
            this.single.store(false, Ordering::Relaxed);
            drop(this.body.set(any, None));
            return Ok(());
        };
        let is_data = response.is_instance_of::<PyString>()
            || response.is_instance_of::<PyBytes>()
            || response.is_instance_of::<PyByteArray>();
        if !is_data {
            this.single.store(false, Ordering::Relaxed);
            drop(this.body.set(any, Some(iterable_of(response)?.unbind())));
            return Ok(());
        }
        static SET_DATA: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        let name = intern!(py, "set_data");
        let ours = SET_DATA.get_or_try_init(py, || py.get_type::<Self>().getattr(name).map(Bound::unbind))?;
        if inherits(&any.get_type(), name, ours) {
            this.assign_data(any, response)
        } else {
            any.call_method1(name, (response,)).map(drop)
        }
    }

    /// Set headers and status from the constructor's arguments.
    fn _init_head(
        slf: &Bound<'_, Self>,
        status: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        mimetype: Option<Bound<'_, PyString>>,
        content_type: Option<Bound<'_, PyString>>,
    ) -> PyResult<()> {
        let (py, this, any) = (slf.py(), slf.get(), slf.as_any());
        let given = match headers {
            Some(headers) if headers.is_instance_of::<Headers>() => Some(headers.clone()),
            Some(headers) if headers.is_truthy()? => Some(py.get_type::<Headers>().call1((headers,))?),
            _ => None,
        };
        let content_type = match (content_type, mimetype) {
            (Some(content_type), _) => Some(content_type),
            (None, Some(mimetype)) => Some(with_charset(&mimetype)?),
            (None, None) => {
                let named = match &given {
                    Some(headers) => headers.contains(intern!(py, "content-type"))?,
                    None => false,
                };
                let default = if named { None } else { Some(any.getattr(intern!(py, "default_mimetype"))?) };
                match default {
                    Some(default) if !default.is_none() => Some(with_charset(default.cast::<PyString>()?)?),
                    _ => None,
                }
            }
        };
        match (given, content_type) {
            (None, Some(content_type)) if !has_line_break(&content_type) => {
                let headers = Headers::from_pairs(py, [(intern!(py, "Content-Type").clone(), content_type)])?;
                drop(this.headers.set(any, Some(headers.into_any().unbind())));
            }
            (given, content_type) => {
                drop(this.headers.set(any, given.map(Bound::unbind)));
                if let Some(content_type) = content_type {
                    this.put_field(any, intern!(py, "Content-Type"), &content_type)?;
                }
            }
        }
        match status {
            Some(status) => this.assign_status(any, status),
            None => this.assign_status(any, &any.getattr(intern!(py, "default_status"))?),
        }
    }

    /// The header fields.
    #[getter]
    fn headers<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().fields(slf.as_any())
    }

    #[setter]
    fn set_headers(slf: &Bound<'_, Self>, value: Py<PyAny>) {
        drop(slf.get().headers.set(slf.as_any(), Some(value)));
    }

    /// The status code as a number.
    #[getter]
    fn status_code(&self) -> i64 {
        self.code.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_status_code(slf: &Bound<'_, Self>, code: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.as_any().setattr(intern!(slf.py(), "status"), code)
    }

    /// The status code with its phrase.
    #[getter]
    fn status<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().status_line(slf.as_any())
    }

    #[setter]
    fn set_status(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.get().assign_status(slf.as_any(), value)
    }

    /// The body: a list, or the iterable given.
    #[getter]
    fn response<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().iterable(slf.as_any())
    }

    #[setter]
    fn set_response(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.get().single.store(false, Ordering::Relaxed);
        drop(slf.get().body.set(slf.as_any(), Some(iterable_of(value)?.unbind())));
        Ok(())
    }

    /// Whether the body goes out as it is, uniterated by anybody but the server.
    #[getter]
    fn direct_passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_direct_passthrough(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.passthrough.store(value.is_truthy()?, Ordering::Relaxed);
        Ok(())
    }

    #[getter]
    fn _on_close<'py>(slf: &Bound<'py, Self>) -> Bound<'py, PyAny> {
        let this = slf.get();
        this.on_close.get(slf.as_any()).unwrap_or_else(|| {
            let list = PyList::empty(slf.py()).into_any();
            drop(this.on_close.set(slf.as_any(), Some(list.clone().unbind())));
            list
        })
    }

    #[getter]
    fn _trailers<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        slf.get().trailers.get(slf.as_any())
    }

    #[setter(_trailers)]
    fn set_trailers(slf: &Bound<'_, Self>, value: Option<Py<PyAny>>) {
        drop(slf.get().trailers.set(slf.as_any(), value));
    }

    /// Whether the body is a list or tuple.
    #[getter(is_sequence)]
    fn py_is_sequence(slf: &Bound<'_, Self>) -> bool {
        slf.get().is_sequence(slf.as_any())
    }

    /// Whether the body has no known length, as that of a generator.
    #[getter]
    fn is_streamed(slf: &Bound<'_, Self>) -> bool {
        let body = slf.get().body.get(slf.as_any());
        body.is_some_and(|body| body.len().is_err())
    }

    /// Call a function when the response is closed.
    fn call_on_close<'py>(slf: &Bound<'py, Self>, func: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Self::_on_close(slf).call_method1(intern!(slf.py(), "append"), (&func,))?;
        Ok(func)
    }

    /// Close the body and call what ``call_on_close`` has collected.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this, any) = (slf.py(), slf.get(), slf.as_any());
        if !this.single.load(Ordering::Relaxed)
            && let Some(body) = this.body.get(any)
            && let Some(close) = body.getattr_opt(intern!(py, "close"))?
        {
            close.call0()?;
        }
        if let Some(callbacks) = this.on_close.get(any) {
            for callback in callbacks.try_iter()? {
                callback?.call0()?;
            }
        }
        Ok(())
    }

    /// Replace the body, and set ``Content-Length`` unless ``automatically_set_content_length`` is off.
    fn set_data(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.get().assign_data(slf.as_any(), value)
    }

    /// The whole body, as text if asked.
    ///
    /// Raises:
    ///     RuntimeError: If the body may not be read into memory (``direct_passthrough``, or
    ///         ``implicit_sequence_conversion`` is off).
    #[pyo3(signature = (as_text=false))]
    fn get_data<'py>(slf: &Bound<'py, Self>, as_text: bool) -> PyResult<Bound<'py, PyAny>> {
        let (py, this, any) = (slf.py(), slf.get(), slf.as_any());
        let data = match this.body.get(any) {
            None => PyBytes::new(py, b"").into_any(),
            Some(body) if this.single.load(Ordering::Relaxed) => body,
            Some(_) => {
                any.call_method0(intern!(py, "_ensure_sequence"))?;
                let pieces = any.call_method0(intern!(py, "iter_encoded"))?;
                PyBytes::new(py, b"").call_method1(intern!(py, "join"), (pieces,))?
            }
        };
        if as_text { data.call_method0(intern!(py, "decode")) } else { Ok(data) }
    }

    /// The header fields as they go out: absolute or escaped locations, no body fields where there is no body, and
    /// the length where it is known.
    fn get_wsgi_headers<'py>(
        slf: &Bound<'py, Self>,
        environ: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Headers>> {
        let pairs = outgoing(slf, || Ok(environ.clone()))?;
        Headers::from_pairs(slf.py(), pairs)
    }

    fn __getstate__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let py = slf.py();
        let state = slf.as_any().getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?.copy()?;
        state.update(Self::_native_state(slf)?.as_mapping())?;
        Ok(state)
    }

    /// What of the response is not in its ``__dict__``, in the terms of ``__setstate__``.
    fn _native_state<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let (py, this, any) = (slf.py(), slf.get(), slf.as_any());
        let state = PyDict::new(py);
        state.set_item("headers", this.fields(any)?)?;
        state.set_item("status", this.status_line(any)?)?;
        state.set_item("response", this.iterable(any)?)?;
        state.set_item("direct_passthrough", this.passthrough.load(Ordering::Relaxed))?;
        state.set_item("_on_close", Self::_on_close(slf))?;
        if let Some(trailers) = this.trailers.get(any) {
            state.set_item("_trailers", trailers)?;
        }
        Ok(state)
    }

    fn __setstate__(slf: &Bound<'_, Self>, state: &Bound<'_, PyDict>) -> PyResult<()> {
        for (name, value) in state {
            if name.eq("_on_close")? {
                drop(slf.get().on_close.set(slf.as_any(), Some(value.unbind())));
            } else {
                slf.as_any().setattr(name.cast::<PyString>()?, value)?;
            }
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        [&self.status, &self.headers, &self.body, &self.on_close, &self.trailers]
            .into_iter()
            .try_for_each(|slot| slot.traverse(&visit))
    }

    fn __clear__(&self) {
        for slot in [&self.status, &self.headers, &self.body, &self.on_close, &self.trailers] {
            slot.clear();
        }
    }
}

type Pairs<'py> = Vec<(Bound<'py, PyString>, Bound<'py, PyString>)>;

/// Whether a response of this status has a body at all.
fn may_have_body(code: i64) -> bool {
    !(100..200).contains(&code) && code != 204 && code != 304
}

/// The header fields that go out. `environ` is asked for only where a location has to become absolute.
fn outgoing<'py>(
    slf: &Bound<'py, ResponseBase>,
    environ: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Pairs<'py>> {
    let (py, this, any) = (slf.py(), slf.get(), slf.as_any());
    let code = this.code.load(Ordering::Relaxed);
    let headers = this.fields(any)?;
    let mut pairs = match headers.cast_exact::<Headers>() {
        Ok(headers) => headers.get().pairs(py),
        Err(_) => py.get_type::<Headers>().call1((headers,))?.cast::<Headers>()?.get().pairs(py),
    };
    let mut location = None;
    let mut content_location = None;
    let mut has_length = false;
    for (name, value) in &pairs {
        let name = name.to_string_lossy();
        if name.eq_ignore_ascii_case("location") {
            location = Some(value.clone());
        } else if name.eq_ignore_ascii_case("content-location") {
            content_location = Some(value.clone());
        } else if name.eq_ignore_ascii_case("content-length") {
            has_length = true;
        }
    }
    if let Some(location) = location {
        let mut target = to_uri(&location)?;
        if any.getattr(intern!(py, "autocorrect_location_header"))?.is_truthy()? {
            static PARSE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
            static WSGI: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
            let wsgi = import(py, &WSGI, "hipflask.werkzeug.wsgi")?;
            let current = wsgi.call_method1(intern!(py, "get_current_url"), (environ()?, false, true))?;
            let current = to_uri(current.cast::<PyString>()?)?;
            let parse = import(py, &PARSE, "urllib.parse")?;
            target = parse.call_method1(intern!(py, "urljoin"), (current, target))?.cast_into()?;
        }
        replace(&mut pairs, "Location", target);
    }
    if let Some(content_location) = content_location {
        let target = to_uri(&content_location)?;
        replace(&mut pairs, "Content-Location", target);
    }
    if (100..200).contains(&code) || code == 204 {
        pairs.retain(|(name, _)| !name.to_string_lossy().eq_ignore_ascii_case("content-length"));
    } else if code == 304 {
        pairs.retain(|(name, _)| stays_on_304(&name.to_string_lossy()));
    } else if !has_length
        && this.is_sequence(any)
        && any.getattr(intern!(py, "automatically_set_content_length"))?.is_truthy()?
        && let Some(length) = this.sequence_length(any)?
    {
        pairs.push((intern!(py, "Content-Length").clone(), PyString::new(py, &length.to_string())));
    }
    Ok(pairs)
}

/// Whether a field may stand in a 304: all but those that describe a body, save the two that caches need.
fn stays_on_304(name: &str) -> bool {
    const ENTITY: &[&str] = &[
        "allow",
        "content-encoding",
        "content-language",
        "content-length",
        "content-md5",
        "content-range",
        "content-type",
        "last-modified",
    ];
    !ENTITY.iter().any(|entity| name.eq_ignore_ascii_case(entity))
}

fn replace<'py>(pairs: &mut Pairs<'py>, name: &'static str, value: Bound<'py, PyString>) {
    let mut value = Some(value);
    pairs.retain_mut(|(known, old)| {
        if !known.to_string_lossy().eq_ignore_ascii_case(name) {
            return true;
        }
        match value.take() {
            Some(value) => {
                *known = PyString::new(old.py(), name);
                *old = value;
                true
            }
            None => false,
        }
    });
}

/// A location as a URI.
fn to_uri<'py>(location: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyString>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let py = location.py();
    // A path of harmless characters is its own URI.
    if let Ok(text) = location.to_str()
        && text.starts_with('/')
        && !text.starts_with("//")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,:;=@".contains(&byte))
    {
        return Ok(location.clone());
    }
    let urls = import(py, &MODULE, "hipflask.werkzeug.urls")?;
    Ok(urls.call_method1(intern!(py, "iri_to_uri"), (location,))?.cast_into()?)
}

/// The body of an outgoing response.
pub(crate) enum WireBody<'py> {
    /// None: HEAD, 1xx, 204, 304.
    Empty,
    /// All of it.
    Bytes(Bound<'py, PyBytes>),
    /// All of it, in pieces.
    Pieces(Vec<Bound<'py, PyBytes>>),
    /// A part of an open file.
    File {
        /// A descriptor of its own: the response may be closed at once.
        file: File,
        /// Where the part begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// To be iterated; each piece is `str` (UTF-8) or bytes.
    Iterable(Bound<'py, PyAny>),
}

/// An outgoing response.
pub(crate) struct Wire<'py> {
    /// The status code; 0 if the app gave a status without one.
    pub(crate) code: i64,
    /// The phrase that the app gave, if it gave one.
    pub(crate) phrase: Option<String>,
    /// The header fields.
    pub(crate) fields: Pairs<'py>,
    /// The body. Whoever sends it calls `response.close()` afterwards.
    pub(crate) body: WireBody<'py>,
}

/// Whether the response is sent as our own classes send it: nothing of the WSGI side is overridden.
pub(crate) fn is_plain(slf: &Bound<'_, ResponseBase>) -> PyResult<bool> {
    static OURS: PyOnceLock<Vec<(Py<PyString>, Py<PyAny>)>> = PyOnceLock::new();
    let py = slf.py();
    let ours = OURS.get_or_try_init(py, || {
        let class = py.import("hipflask.werkzeug.wrappers.response")?.getattr("Response")?;
        ["__call__", "get_wsgi_response", "get_wsgi_headers", "get_app_iter", "iter_encoded"]
            .iter()
            .map(|name| Ok((PyString::intern(py, name).unbind(), class.getattr(*name)?.unbind())))
            .collect::<PyResult<_>>()
    })?;
    let class = slf.as_any().get_type();
    Ok(ours.iter().all(|(name, function)| inherits(&class, name.bind(py), function)))
}

/// What knows a response's trailers, if it may have any.
pub(crate) fn trailers<'py>(slf: &Bound<'py, ResponseBase>) -> Option<Bound<'py, PyAny>> {
    slf.get().trailers.get(slf.as_any())
}

/// What to send. `head`: the request's method is HEAD; `environ` is called only for an absolute location.
pub(crate) fn wire<'py>(
    slf: &Bound<'py, ResponseBase>,
    head: bool,
    environ: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Wire<'py>> {
    let (this, any) = (slf.get(), slf.as_any());
    let fields = outgoing(slf, environ)?;
    let code = this.code.load(Ordering::Relaxed);
    let phrase = match this.status.get(any) {
        Some(status) => status.str()?.to_str()?.split_once(' ').map(|(_, phrase)| phrase.to_owned()),
        None => None,
    };
    let body = if head || !may_have_body(code) { WireBody::Empty } else { body_of(slf, &fields)? };
    Ok(Wire { code, phrase, fields, body })
}

fn body_of<'py>(slf: &Bound<'py, ResponseBase>, fields: &Pairs<'py>) -> PyResult<WireBody<'py>> {
    let (this, any) = (slf.get(), slf.as_any());
    let Some(body) = this.body.get(any) else { return Ok(WireBody::Pieces(Vec::new())) };
    if this.single.load(Ordering::Relaxed) {
        return Ok(WireBody::Bytes(body.cast_into()?));
    }
    if this.is_sequence(any) {
        let mut pieces = Vec::new();
        for piece in body.try_iter()? {
            let piece = piece?;
            pieces.push(match piece.cast::<PyString>() {
                Ok(text) => text.encode_utf8()?,
                Err(_) => match piece.cast_into::<PyBytes>() {
                    Ok(bytes) => bytes,
                    Err(_) => return Ok(WireBody::Iterable(body)),
                },
            });
        }
        return Ok(WireBody::Pieces(pieces));
    }
    if this.passthrough.load(Ordering::Relaxed)
        && let Some(part) = file_part(&body, fields)?
    {
        return Ok(part);
    }
    Ok(WireBody::Iterable(body))
}

/// The file behind a `FileWrapper` or a range of one, if it is a real one.
fn file_part<'py>(body: &Bound<'py, PyAny>, fields: &Pairs<'py>) -> PyResult<Option<WireBody<'py>>> {
    static CLASSES: PyOnceLock<(Py<PyAny>, Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
    let py = body.py();
    let (wrapper, range, plain) = CLASSES.get_or_try_init(py, || {
        let wsgi = py.import("hipflask.werkzeug.wsgi")?;
        let wrapper = wsgi.getattr("FileWrapper")?.unbind();
        let range = wsgi.getattr("_RangeWrapper")?.unbind();
        PyResult::Ok((wrapper, range, py.import("io")?.getattr("BufferedReader")?.unbind()))
    })?;
    let (source, part) = if body.get_type().is(range) {
        let start: u64 = body.getattr(intern!(py, "start_byte"))?.extract()?;
        let length: Option<u64> = body.getattr(intern!(py, "byte_range"))?.extract()?;
        (body.getattr(intern!(py, "iterable"))?, Some((start, length)))
    } else {
        (body.clone(), None)
    };
    if !source.get_type().is(wrapper) {
        return Ok(None);
    }
    let Some((opened, position, size)) = open_file(&source, plain.bind(py))? else { return Ok(None) };
    let (offset, wanted) = part.unwrap_or((position, None));
    let announced = fields
        .iter()
        .find(|(name, _)| name.to_string_lossy().eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.to_string_lossy().parse::<u64>().ok());
    let there = size.saturating_sub(offset);
    let length = wanted.or(announced).map_or(there, |wanted| wanted.min(there));
    Ok(Some(WireBody::File { file: opened, offset, length }))
}

/// The class that `wsgi.file_wrapper` is, and that of the files that it may wrap.
pub(crate) fn file_classes(py: Python<'_>) -> PyResult<(&Bound<'_, PyAny>, &Bound<'_, PyAny>)> {
    static CLASSES: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
    let (wrapper, plain) = CLASSES.get_or_try_init(py, || {
        let wrapper = py.import("hipflask.werkzeug.wsgi")?.getattr("FileWrapper")?.unbind();
        PyResult::Ok((wrapper, py.import("io")?.getattr("BufferedReader")?.unbind()))
    })?;
    Ok((wrapper.bind(py), plain.bind(py)))
}

/// The file, where it stands and its size, if a WSGI iterable is a `wsgi.file_wrapper` around a real one.
pub(crate) fn wrapped_file(iterable: &Bound<'_, PyAny>) -> PyResult<Option<(File, u64, u64)>> {
    let (wrapper, plain) = file_classes(iterable.py())?;
    if iterable.get_type().is(wrapper) { open_file(iterable, plain) } else { Ok(None) }
}

/// What a wrapper wraps, if it is a real file: open anew, where it stands, and its size.
fn open_file(wrapper: &Bound<'_, PyAny>, plain: &Bound<'_, PyAny>) -> PyResult<Option<(File, u64, u64)>> {
    let py = wrapper.py();
    let file = wrapper.getattr(intern!(py, "file"))?;
    if !file.get_type().is(plain) {
        return Ok(None);
    }
    let descriptor: i32 = file.call_method0(intern!(py, "fileno"))?.extract()?;
    let position: u64 = file.call_method0(intern!(py, "tell"))?.extract()?;
    // SAFETY: `file` is an open file object that owns the descriptor and lives until the copy is made.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let Ok(owned) = borrowed.try_clone_to_owned() else { return Ok(None) };
    let opened = File::from(owned);
    let Ok(about) = opened.metadata() else { return Ok(None) };
    if !about.is_file() {
        return Ok(None);
    }
    Ok(Some((opened, position, about.len())))
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ResponseBase>()
}
