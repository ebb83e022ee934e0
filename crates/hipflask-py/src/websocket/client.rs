//! The client's end of the protocol, for the test client.

use std::sync::Mutex;

use hipflask_http::websocket::{Control, Decoder, Encoder, Event, Kind, Limits, Role};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::locked;

/// Reads and writes a client's frames, without compression.
#[pyclass(frozen, module = "hipflask._core")]
pub(super) struct WebSocketCodec {
    decoder: Mutex<Decoder>,
    encoder: Mutex<Encoder>,
}

#[pymethods]
impl WebSocketCodec {
    #[new]
    fn new() -> Self {
        let limits = Limits { message: usize::MAX };
        Self {
            decoder: Mutex::new(Decoder::new(Role::Client, limits, None)),
            // For tests: nobody else chooses what is sent.
            encoder: Mutex::new(Encoder::client(None, 1)),
        }
    }

    /// Read what the server has sent.
    ///
    /// Returns:
    ///     What it says: ``("text", str)``, ``("binary", bytes)``, ``("ping", bytes)``, ``("pong", bytes)``,
    ///     ``("close", (code, reason))``; the code is None if there was none.
    ///
    /// Raises:
    ///     ValueError: If the server breaks the protocol.
    fn feed<'py>(&self, py: Python<'py>, data: &[u8]) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let mut rest = data;
        let mut events = Vec::new();
        let mut decoder = locked(&self.decoder);
        while let Some(event) =
            decoder.next(&mut rest).map_err(|error| PyValueError::new_err(error.reason()))?
        {
            events.push(match event {
                Event::Text(text) => ("text", PyString::new(py, &text)).into_pyobject(py)?,
                Event::Binary(bytes) => ("binary", PyBytes::new(py, &bytes)).into_pyobject(py)?,
                Event::Ping(bytes) => ("ping", PyBytes::new(py, &bytes)).into_pyobject(py)?,
                Event::Pong(bytes) => ("pong", PyBytes::new(py, &bytes)).into_pyobject(py)?,
                Event::Close(close) => ("close", (close.code, close.reason)).into_pyobject(py)?,
            });
        }
        Ok(events)
    }

    /// The frame of a text message.
    fn text<'py>(&self, py: Python<'py>, text: &str) -> Bound<'py, PyBytes> {
        self.message(py, Kind::Text, text.as_bytes())
    }

    /// The frame of a binary message.
    fn binary<'py>(&self, py: Python<'py>, data: &[u8]) -> Bound<'py, PyBytes> {
        self.message(py, Kind::Binary, data)
    }

    /// The frame of a ping's answer.
    ///
    /// Raises:
    ///     ValueError: If the payload is longer than 125 bytes.
    fn pong<'py>(&self, py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let mut out = Vec::new();
        let written = locked(&self.encoder).control(Control::Pong, payload, &mut out);
        written.map_err(|error| PyValueError::new_err(error.reason()))?;
        Ok(PyBytes::new(py, &out))
    }

    /// The frame that closes the connection.
    fn close<'py>(&self, py: Python<'py>, code: Option<u16>, reason: &str) -> Bound<'py, PyBytes> {
        let mut out = Vec::new();
        locked(&self.encoder).close(code, reason, &mut out);
        PyBytes::new(py, &out)
    }
}

impl WebSocketCodec {
    fn message<'py>(&self, py: Python<'py>, kind: Kind, payload: &[u8]) -> Bound<'py, PyBytes> {
        let mut out = Vec::new();
        locked(&self.encoder).message(kind, payload, &mut out);
        PyBytes::new(py, &out)
    }
}
