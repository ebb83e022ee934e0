//! What Python has of an open connection.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hipflask_http::websocket::{Kind, code};
use hipflask_server::{Outlet, RouteHistory};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyString};

use super::socket::{Handler, Over, Socket};
use super::{Handshake, locked};
use crate::channel::{self, Membership};
use crate::later::Ring;

/// Bytes not yet taken by the client from which on sending waits, and down to which it does. 256 and 64 KiB: enough to
/// keep a fast line busy.
const SEND_HIGH: usize = 256 * 1024;
const SEND_LOW: usize = 64 * 1024;
/// Messages up to this size are framed with the interpreter held: giving it back would take longer.
const SMALL: usize = 4096;

/// How long the handlers of a route's messages take; decides where they run.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct HandlerTimes(Arc<RouteHistory>);

#[pymethods]
impl HandlerTimes {
    #[new]
    fn new() -> Self {
        Self(Arc::new(RouteHistory::new(None)))
    }
}

/// An open WebSocket. `hipflask.websocket` has what views get.
#[pyclass(frozen, module = "hipflask._core")]
pub(super) struct Connection {
    socket: Arc<Socket>,
    /// Of the channel joined when it was opened.
    membership: Mutex<Option<Membership>>,
}

impl Connection {
    pub(super) fn new(socket: Arc<Socket>, membership: Option<Membership>) -> Self {
        Self { socket, membership: Mutex::new(membership) }
    }
}

#[pymethods]
impl Connection {
    /// Take the next message, waiting for it.
    ///
    /// Args:
    ///     timeout: The most seconds to wait; as long as it takes if None.
    ///
    /// Returns:
    ///     Text or bytes; None if none came in time.
    ///
    /// Raises:
    ///     ConnectionClosed: If there is none left and the connection is over.
    #[pyo3(signature = (timeout=None))]
    fn receive<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let deadline = match timeout {
            Some(seconds) => Duration::try_from_secs_f64(seconds.max(0.0))
                .ok()
                .and_then(|timeout| Instant::now().checked_add(timeout)),
            None => None,
        };
        let socket = &self.socket;
        if let Some(message) = self.poll(py)? {
            return Ok(Some(message));
        }
        let found = py.detach(|| socket.wait(deadline));
        match found {
            Ok(message) => Ok(message.map(|message| message.into_python(py))),
            Err(over) => Err(over.into_error(py)),
        }
    }

    /// Take the next message if there is one.
    ///
    /// Returns:
    ///     Text or bytes, or None.
    ///
    /// Raises:
    ///     ConnectionClosed: If there is none left and the connection is over.
    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.socket.poll() {
            Ok(message) => Ok(message.map(|message| message.into_python(py))),
            Err(over) => Err(over.into_error(py)),
        }
    }

    /// Have a function called on the event loop when there is a message, or the connection is over.
    ///
    /// Returns:
    ///     False if that is so already: then it is not called.
    fn when_received(&self, call: Py<PyAny>) -> bool {
        self.socket.ring(Ring::new(call))
    }

    /// Send a message, waiting until the client has taken enough of what was sent before.
    ///
    /// Args:
    ///     data: Text, or bytes for a binary message.
    ///
    /// Raises:
    ///     ConnectionClosed: If the connection is over.
    fn send(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let outlet = self.socket.outlet()?;
        if outlet.queued() > SEND_HIGH {
            // The engine cuts a client off that takes nothing for too long: that ends this loop.
            let waited = py.detach(|| {
                loop {
                    match outlet.wait_below(SEND_LOW, Duration::from_secs(60)) {
                        Ok(false) => {}
                        other => return other,
                    }
                }
            });
            if waited.is_err() {
                return Err(self.socket.over().into_error(py));
            }
        }
        self.put(py, data)
    }

    /// Send a message if the client has taken enough of what was sent before.
    ///
    /// Returns:
    ///     Whether it was sent.
    ///
    /// Raises:
    ///     ConnectionClosed: If the connection is over.
    fn send_now(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<bool> {
        if self.socket.outlet()?.queued() > SEND_HIGH {
            return Ok(false);
        }
        self.put(py, data).map(|()| true)
    }

    /// Have a function called on the event loop when messages can be sent again, or the connection is over.
    fn when_sent(&self, call: Py<PyAny>) -> PyResult<()> {
        let outlet = self.socket.outlet()?;
        let (ring, line) = (Ring::new(call), self.socket.line());
        outlet.notify_below(SEND_LOW, Box::new(move || line.ring(ring)));
        Ok(())
    }

    /// Close the connection.
    ///
    /// Args:
    ///     code: The close code.
    ///     reason: Why, in at most 123 bytes of UTF-8; what is longer is cut.
    fn close(&self, py: Python<'_>, code: u16, reason: &str) -> PyResult<()> {
        if !code::may_be_sent(code) {
            return Err(PyValueError::new_err(format!("{code} is no close code that may be sent")));
        }
        let outlet = self.socket.outlet()?;
        py.detach(|| {
            self.socket.close(outlet, Some(code), Over::new(code, reason));
        });
        Ok(())
    }

    /// Have functions called with what comes, on the engine's threads, instead of receiving it. Returns at once.
    ///
    /// Args:
    ///     handshake: What opened the connection.
    ///     request: Each call has the context of this request.
    ///     times: Those of the route.
    ///     on_message: Called with each message, one at a time.
    ///     on_close: Called with close code and reason after the last message.
    ///     on_error: Called with what one of them raised.
    fn hold(
        &self,
        py: Python<'_>,
        handshake: &Bound<'_, Handshake>,
        request: Py<PyAny>,
        times: &Bound<'_, HandlerTimes>,
        functions: (Py<PyAny>, Option<Py<PyAny>>, Py<PyAny>),
    ) {
        let (on_message, on_close, on_error) = functions;
        let handler = Handler {
            on_message,
            on_close,
            on_error,
            request,
            dispatcher: Arc::clone(&handshake.get().handoff.dispatcher),
            history: Arc::clone(&times.get().0),
            runner: self.socket.outlet().ok().and_then(Outlet::runner),
        };
        self.socket.set_handler(handler);
        // What has come already, and may be all that comes.
        self.socket.handle(py);
    }

    /// Have the data of a channel's events sent as text messages, until the connection ends or leaves the channel.
    ///
    /// Raises:
    ///     TypeError: If it is no channel.
    fn join(&self, channel: &Bound<'_, PyAny>) -> PyResult<Membership> {
        channel::join(channel, self.socket.outlet()?)
    }

    /// The membership of the channel that was joined when the connection was opened; given once.
    fn first_membership(&self) -> Option<Membership> {
        locked(&self.membership).take()
    }

    /// Close code and reason once the connection is over, else None.
    #[getter]
    fn over(&self) -> Option<(u16, String)> {
        self.socket.ended().map(|over| (over.code, over.reason))
    }
}

impl Connection {
    fn put(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let outlet = self.socket.outlet()?;
        let socket = &self.socket;
        let send = |kind, payload: &[u8]| {
            if payload.len() <= SMALL {
                socket.send(outlet, kind, payload)
            } else {
                py.detach(|| socket.send(outlet, kind, payload))
            }
        };
        let sent = if let Ok(text) = data.cast::<PyString>() {
            send(Kind::Text, text.to_str()?.as_bytes())
        } else if let Ok(bytes) = data.cast::<PyBytes>() {
            send(Kind::Binary, bytes.as_bytes())
        } else if data.is_instance_of::<PyByteArray>() || data.is_instance_of::<PyMemoryView>() {
            let copy = data.py().get_type::<PyBytes>().call1((data,))?.cast_into::<PyBytes>()?;
            send(Kind::Binary, copy.as_bytes())
        } else {
            let kind = data.get_type();
            return Err(PyTypeError::new_err(format!("a message is str or bytes, not {}", kind.name()?)));
        };
        if sent { Ok(()) } else { Err(self.socket.over().into_error(py)) }
    }
}
