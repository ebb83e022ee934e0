//! Interim responses as applications send them: the callable `wsgi.early_hints` of an environ.

use std::sync::Arc;

use hipflask_http::response::interim;
use hipflask_server::Exchange;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::websocket::Handoff;
use crate::wsgi::latin1;

/// Early Hints.
const STATUS: u16 = 103;

/// Sends 103 (Early Hints) for one request: ``wsgi.early_hints`` in its environ.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct EarlyHints(Way);

enum Way {
    /// Of a request that a thread answers; `None` if the response had begun when this was made.
    Thread(Option<Exchange>),
    /// Through the response that is owed.
    Handoff(Arc<Handoff>),
}

impl EarlyHints {
    /// Those of the request that the calling thread answers; `None` if it may have none.
    pub(crate) fn here(is_http2: bool) -> Option<Self> {
        let exchange = Exchange::current();
        (exchange.is_some() || is_http2).then_some(Self(Way::Thread(exchange)))
    }

    /// Those of a request that is answered later.
    pub(crate) fn later(handoff: &Arc<Handoff>) -> Self {
        Self(Way::Handoff(Arc::clone(handoff)))
    }
}

#[pymethods]
impl EarlyHints {
    /// Send hints now.
    ///
    /// Args:
    ///     headers: Names and values.
    ///
    /// Returns:
    ///     Whether they are on their way; not if the server is not to send them, or the client takes nothing.
    ///
    /// Raises:
    ///     RuntimeError: If the response has begun.
    ///     ValueError: If a field cannot be sent.
    #[allow(clippy::needless_pass_by_value, reason = "what Python gives")]
    fn __call__(&self, headers: Vec<(Bound<'_, PyString>, Bound<'_, PyString>)>) -> PyResult<bool> {
        let mut fields = Vec::with_capacity(headers.len());
        for (name, value) in &headers {
            fields.push((latin1(name)?, latin1(value)?));
        }
        self.0.send(fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice())))
    }
}

impl Way {
    fn send<'a>(&self, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> PyResult<bool> {
        let bytes = written(fields)?;
        let sent = match self {
            Self::Thread(exchange) => exchange.as_ref().and_then(|exchange| exchange.send(&bytes).ok()),
            Self::Handoff(handoff) => handoff.inform(&bytes),
        };
        sent.ok_or_else(|| PyRuntimeError::new_err("early hints are sent before the response"))
    }
}

/// The bytes of hints.
pub(crate) fn written<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> PyResult<Vec<u8>> {
    let mut bytes = Vec::new();
    interim(&mut bytes, STATUS, fields).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(bytes)
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<EarlyHints>()
}
