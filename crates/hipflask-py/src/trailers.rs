//! Trailers: those of a request as an object with header fields, those of a response as Python gives them.
//!
//! A response's are a list, a mapping, or a function that returns one of them once the body has ended. Those of a WSGI
//! application are given to what stands in its environ as `hipflask.send_trailers`.

use std::sync::{Arc, Mutex};

use hipflask_http::{Trailers, trailer};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::headers::{EnvironHeaders, FieldSource};
use crate::locked;
use crate::request::RequestBase;
use crate::wsgi::latin1;

/// The key in an environ under which a request's trailers are.
pub(crate) const RECEIVED: &str = "hipflask.trailers";
/// The key in an environ of what takes a response's, if its client does.
pub(crate) const SENT: &str = "hipflask.send_trailers";

/// A request's trailers, as they have come.
struct Received(Trailers);

impl FieldSource for Received {
    fn each(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in &self.0 {
            each(name, value);
        }
    }

    fn environ(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(PyDict::new(py).into_any().unbind())
    }
}

/// An object that shows these fields.
fn received(py: Python<'_>, fields: Trailers) -> PyResult<Bound<'_, EnvironHeaders>> {
    EnvironHeaders::from_fields(py, Arc::new(Received(fields)))
}

/// Those of a request whose body has been read to its end. In an environ stands a function that returns pairs.
pub(crate) fn of_request<'py>(request: &Bound<'py, RequestBase>) -> PyResult<Bound<'py, EnvironHeaders>> {
    let py = request.py();
    if let Some(engine) = request.get().engine() {
        let left = crate::locked_attached(py, engine.body());
        let fields = left.trailers().to_vec();
        drop(left);
        return received(py, fields);
    }
    let environ = request.getattr(intern!(py, "environ"))?;
    let fields = match environ.cast::<PyDict>()?.get_item(intern!(py, RECEIVED))? {
        Some(function) => pairs(&function.call0()?)?,
        None => Trailers::new(),
    };
    received(py, fields)
}

/// Whether a request's client takes trailers, and the server sends them.
pub(crate) fn are_taken(request: &Bound<'_, RequestBase>) -> PyResult<bool> {
    match request.get().engine() {
        Some(engine) => Ok(engine.head.takes_trailers()),
        None => request.getattr(intern!(request.py(), "environ"))?.contains(intern!(request.py(), SENT)),
    }
}

/// What a response's trailers are, asked for once its body has ended; each is checked.
///
/// # Errors
/// A field cannot be sent, or what is asked raises.
pub(crate) fn given(source: &Bound<'_, PyAny>) -> PyResult<Trailers> {
    let fields = if source.is_callable() { pairs(&source.call0()?)? } else { pairs(source)? };
    for (name, value) in &fields {
        check(name, value)?;
    }
    Ok(fields)
}

fn check(name: &[u8], value: &[u8]) -> PyResult<()> {
    let (name_text, value_text) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
    trailer::check(name, value).map_err(|error| {
        PyValueError::new_err(match error {
            hipflask_server::FieldError::Trailer => format!(
                "{name_text:?} cannot be a trailer: it decides how the message is read, so it has to stand before the body"
            ),
            _ => format!(
                "trailer {name_text:?} with value {value_text:?} has characters that are not allowed in a header"
            ),
        })
    })
}

/// Names and values of a mapping, of pairs, or of nothing.
fn pairs(fields: &Bound<'_, PyAny>) -> PyResult<Trailers> {
    let py = fields.py();
    if fields.is_none() {
        return Ok(Trailers::new());
    }
    let fields = match fields.getattr_opt(intern!(py, "items"))? {
        Some(items) => items.call0()?,
        None => fields.clone(),
    };
    let mut made = Trailers::new();
    for pair in fields.try_iter()? {
        let mut items = pair?.try_iter()?;
        let (Some(name), Some(value), None) = (items.next(), items.next(), items.next()) else {
            return Err(PyTypeError::new_err("a trailer is a pair of name and value"));
        };
        made.push((bytes_of(&name?)?, bytes_of(&value?)?));
    }
    Ok(made)
}

fn bytes_of(text: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    match text.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes().to_vec()),
        Err(_) => latin1(&text.str()?.cast_into::<PyString>()?),
    }
}

/// Takes the trailers of one response from a WSGI application: ``hipflask.send_trailers`` in its environ.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct SendTrailers(Mutex<State>);

#[derive(Default)]
struct State {
    source: Option<Py<PyAny>>,
    /// The response's head is out.
    is_late: bool,
}

impl SendTrailers {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// What was given, if anything was; it cannot be given any more.
    pub(crate) fn take(&self) -> Option<Py<PyAny>> {
        let mut state = locked(&self.0);
        state.is_late = true;
        state.source.take()
    }
}

#[pymethods]
impl SendTrailers {
    /// Give the response trailers.
    ///
    /// Args:
    ///     trailers: Names and values: pairs, a mapping, or a function that returns either, called after the last piece
    ///         of the body.
    ///
    /// Raises:
    ///     RuntimeError: If the response's head is out.
    #[allow(clippy::needless_pass_by_value, reason = "what Python gives")]
    fn __call__(&self, trailers: Py<PyAny>) -> PyResult<()> {
        let old = {
            let mut state = crate::locked(&self.0);
            if state.is_late {
                return Err(PyRuntimeError::new_err("trailers are given before the first piece of the body"));
            }
            state.source.replace(trailers)
        };
        drop(old);
        Ok(())
    }
}

/// Check the fields of a trailer section.
///
/// Args:
///     trailers: Names and values: pairs, a mapping, or a function that returns either.
///
/// Returns:
///     Pairs of bytes.
///
/// Raises:
///     ValueError: If a field cannot be sent, or has no place there.
#[pyfunction]
fn checked_trailers(
    py: Python<'_>,
    trailers: &Bound<'_, PyAny>,
) -> PyResult<Vec<(Py<PyBytes>, Py<PyBytes>)>> {
    let bytes = |bytes: &[u8]| PyBytes::new(py, bytes).unbind();
    Ok(given(trailers)?.iter().map(|(name, value)| (bytes(name), bytes(value))).collect())
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SendTrailers>()?;
    module.add_function(wrap_pyfunction!(checked_trailers, module)?)
}
