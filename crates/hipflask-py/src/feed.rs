//! Bodies of responses that the event loop makes piece by piece, and how the engine calls back into that loop.
//!
//! A [`Feed`] is Python's end of an [`Outlet`]. When its client has taken enough, or has gone, a thread of the engine
//! leaves the function to call in a [`LoopBell`] without attaching; the loop calls it.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hipflask_server::{Outlet, OutletError, Piece};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};

use crate::{locked, serve, trailers};

/// A function, and the one argument that some get.
type Call = (Py<PyAny>, Option<bool>);

/// Functions that wait for the loop to call them.
struct Calls {
    waiting: Mutex<Vec<Call>>,
    /// The loop has been told and has not looked since.
    told: AtomicBool,
    tell: UnixStream,
    hear: UnixStream,
}

impl Calls {
    /// Adds a function; from any thread, attached or not.
    fn add(&self, call: Call) {
        locked(&self.waiting).push(call);
        if !self.told.swap(true, Ordering::SeqCst) {
            // Fails only when the pipe is full, and then it wakes the loop all the same.
            let _ = (&self.tell).write(&[1]);
        }
    }
}

/// Wakes an event loop for functions that threads of the engine leave for it.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct LoopBell(Arc<Calls>);

#[pymethods]
impl LoopBell {
    #[new]
    fn new() -> PyResult<Self> {
        let (tell, hear) = UnixStream::pair()?;
        tell.set_nonblocking(true)?;
        hear.set_nonblocking(true)?;
        Ok(Self(Arc::new(Calls { waiting: Mutex::default(), told: AtomicBool::new(false), tell, hear })))
    }

    /// The descriptor to wait for.
    fn fileno(&self) -> i32 {
        self.0.hear.as_raw_fd()
    }

    /// Call what waits; on the loop's thread.
    fn take(&self, py: Python<'_>) {
        let mut bytes = [0; 64];
        // Nothing to read is as good as something.
        let _ = (&self.0.hear).read(&mut bytes);
        self.0.told.store(false, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *locked(&self.0.waiting));
        for (function, argument) in waiting {
            let called = match argument {
                Some(argument) => function.call1(py, (argument,)),
                None => function.call0(py),
            };
            if let Err(error) = called {
                serve::log_error(py, &error, "in the event loop");
            }
        }
    }
}

/// The body of one response, given piece by piece.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct Feed {
    outlet: Outlet,
    /// Trailers may follow.
    is_trailed: bool,
    /// What is asked for them at the end, unless they are given then.
    trailers: Option<Py<PyAny>>,
}

impl Feed {
    pub(crate) fn new(outlet: Outlet) -> Self {
        Self { outlet, is_trailed: false, trailers: None }
    }

    /// Of a response that trailers may follow.
    pub(crate) fn trailed(outlet: Outlet) -> Self {
        Self { outlet, is_trailed: true, trailers: None }
    }

    /// The same, with what is to be asked for trailers at the end.
    pub(crate) fn with_trailers(self, source: Py<PyAny>) -> Self {
        Self { is_trailed: true, trailers: Some(source), ..self }
    }
}

#[pymethods]
impl Feed {
    /// Give a piece, bytes or text.
    ///
    /// Returns:
    ///     Whether it was taken; else the client must take what was given before.
    ///
    /// Raises:
    ///     ConnectionError: If the client has gone.
    fn send(&self, piece: &Bound<'_, PyAny>) -> PyResult<bool> {
        let given = if let Ok(bytes) = piece.cast::<PyBytes>() {
            self.outlet.send(Piece::new(bytes.as_bytes()))
        } else if let Ok(text) = piece.cast::<PyString>() {
            self.outlet.send(Piece::new(text.to_str()?.as_bytes()))
        } else if let Ok(bytes) = piece.cast::<PyByteArray>() {
            self.outlet.send(Piece::new(&bytes.to_vec()))
        } else {
            let kind = piece.get_type();
            return Err(PyTypeError::new_err(format!(
                "a response's body yielded {kind}, but its pieces must be text or bytes"
            )));
        };
        match given {
            Ok(()) => Ok(true),
            Err(OutletError::Full) => Ok(false),
            Err(OutletError::Gone) => {
                Err(pyo3::exceptions::PyConnectionError::new_err("the client has gone"))
            }
        }
    }

    /// Whether pieces are still taken.
    #[getter]
    fn is_open(&self) -> bool {
        self.outlet.is_open()
    }

    /// Bytes that the client has not yet taken.
    #[getter]
    fn queued(&self) -> usize {
        self.outlet.queued()
    }

    /// Have the loop call a function once the client has taken all but so many bytes, or has gone.
    fn notify_below(&self, bytes: usize, bell: &Bound<'_, LoopBell>, function: Py<PyAny>) {
        let calls = Arc::clone(&bell.get().0);
        self.outlet.notify_below(bytes, Box::new(move || calls.add((function, None))));
    }

    /// Have the loop call a function when nothing goes out any more, with whether all was sent.
    fn on_end(&self, bell: &Bound<'_, LoopBell>, function: Py<PyAny>) {
        let calls = Arc::clone(&bell.get().0);
        self.outlet.on_end(Box::new(move |complete| calls.add((function, Some(complete)))));
    }

    /// Tell that the body is complete.
    ///
    /// Args:
    ///     trailers: What follows it: pairs, a mapping, or a function that returns either. Left out where none can be
    ///         sent.
    ///
    /// Raises:
    ///     ValueError: If a field cannot be sent, or has no place there.
    #[pyo3(signature = (trailers=None))]
    fn finish(&self, py: Python<'_>, trailers: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        match trailers.or(self.trailers.as_ref().map(|source| source.bind(py))) {
            Some(fields) if self.is_trailed => self.outlet.finish_with(&trailers::given(fields)?),
            _ => self.outlet.finish(),
        }
        Ok(())
    }

    /// Whether trailers are sent behind the body.
    #[getter]
    fn takes_trailers(&self) -> bool {
        self.is_trailed
    }

    /// Cut the connection, so that the client does not take what it got for the whole.
    fn abort(&self) {
        self.outlet.abort();
    }
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<LoopBell>()?;
    module.add_class::<Feed>()
}
