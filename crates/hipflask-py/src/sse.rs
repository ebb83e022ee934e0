//! Server-sent events: how one is written, and streams of them from an iterator that may be quiet for long.
//!
//! Implements: HTML Living Standard §9.2, the event stream format. `channel.rs` has streams without an iterator.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use hipflask_server::{Outlet, Piece};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::locked;

/// What keeps a quiet stream alive: a comment, which clients ignore.
const HEARTBEAT: &[u8] = b":\n\n";
/// How long clients wait before they come back when the server stops, in milliseconds: the first, and how many steps of
/// `SPREAD_STEP` there are, so that thousands do not come back in the same moment.
const BACK_AFTER: u64 = 1000;
const SPREAD: usize = 8;
const SPREAD_STEP: u64 = 500;

/// The parts of an event.
#[derive(Clone, Copy, Default)]
pub(crate) struct Event<'a> {
    pub(crate) data: Option<&'a str>,
    pub(crate) event: Option<&'a str>,
    pub(crate) id: Option<&'a str>,
    pub(crate) retry: Option<u64>,
    pub(crate) comment: Option<&'a str>,
}

impl Event<'_> {
    /// The event as it is sent, or what of it cannot be.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, &'static str> {
        let has_break = |text: &str| text.contains(['\r', '\n']);
        let mut out = Vec::with_capacity(64 + self.data.map_or(0, str::len));
        if let Some(comment) = self.comment {
            lines(&mut out, ": ", comment);
        }
        if let Some(event) = self.event {
            if has_break(event) {
                return Err("an event's name cannot have line breaks");
            }
            lines(&mut out, "event: ", event);
        }
        if let Some(id) = self.id {
            if has_break(id) || id.contains('\0') {
                return Err("an event's id cannot have line breaks or null characters");
            }
            lines(&mut out, "id: ", id);
        }
        if let Some(retry) = self.retry {
            lines(&mut out, "retry: ", &retry.to_string());
        }
        if let Some(data) = self.data {
            lines(&mut out, "data: ", data);
        }
        if out.is_empty() {
            return Err("an event needs something: data, or an id, a retry or a comment");
        }
        out.push(b'\n');
        Ok(out)
    }
}

/// Writes each line of a text behind a field's name. A line ends with CRLF, LF or CR, as clients read it.
fn lines(out: &mut Vec<u8>, name: &str, text: &str) {
    let mut rest = text;
    loop {
        let end = rest.find(['\r', '\n']);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default().as_bytes());
        out.push(b'\n');
        let Some(end) = end else { return };
        let after = rest.get(end..).unwrap_or_default();
        rest = after.strip_prefix("\r\n").or_else(|| after.get(1..)).unwrap_or_default();
    }
}

/// Write an event as it goes over the wire.
#[pyfunction]
#[pyo3(signature = (data=None, event=None, id=None, retry=None, comment=None))]
fn encode_event<'py>(
    py: Python<'py>,
    data: Option<&str>,
    event: Option<&str>,
    id: Option<&str>,
    retry: Option<u64>,
    comment: Option<&str>,
) -> PyResult<Bound<'py, PyBytes>> {
    let encoded = Event { data, event, id, retry, comment }.encode().map_err(PyValueError::new_err)?;
    Ok(PyBytes::new(py, &encoded))
}

/// The comment that keeps a stream alive, made once.
pub(crate) fn heartbeat() -> &'static Piece {
    static PIECE: OnceLock<Piece> = OnceLock::new();
    PIECE.get_or_init(|| Piece::new(HEARTBEAT))
}

/// What tells a client when to come back; `which` spreads them.
pub(crate) fn farewell(which: usize) -> Piece {
    static PIECES: OnceLock<Vec<Piece>> = OnceLock::new();
    let pieces = PIECES.get_or_init(|| {
        (0..SPREAD as u64)
            .map(|step| Piece::new(format!("retry: {}\n\n", BACK_AFTER + step * SPREAD_STEP).as_bytes()))
            .collect()
    });
    pieces.get(which % SPREAD).cloned().unwrap_or_else(|| heartbeat().clone())
}

/// Makes an outlet that of an event stream.
pub(crate) fn prepare(outlet: &Outlet, heartbeat_every: Option<Duration>, which: usize) {
    if let Some(every) = heartbeat_every {
        outlet.heartbeat(every, heartbeat().clone());
    }
    outlet.farewell(farewell(which));
}

/// A heartbeat's interval as Python has it.
pub(crate) fn interval(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    match seconds {
        None => Ok(None),
        Some(seconds) if seconds > 0.0 && seconds < 1e9 => Ok(Some(Duration::from_secs_f64(seconds))),
        Some(_) => {
            Err(PyValueError::new_err("a heartbeat's interval is a positive number of seconds, or None"))
        }
    }
}

/// The pieces of an event stream, from an iterator or an async iterator. By the engine they are sent through an outlet,
/// which keeps the stream alive while the iterator waits.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct EventBody {
    source: Mutex<Option<Py<PyAny>>>,
    heartbeat: Option<Duration>,
}

impl EventBody {
    /// Makes an outlet one for these events.
    pub(crate) fn prepare(&self, outlet: &Outlet) {
        prepare(outlet, self.heartbeat, std::ptr::from_ref(self) as usize >> 4);
    }

    /// What gives the pieces.
    pub(crate) fn source(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let source = locked(&self.source);
        source
            .as_ref()
            .map(|source| source.clone_ref(py))
            .ok_or_else(|| PyRuntimeError::new_err("the stream is closed"))
    }
}

#[pymethods]
impl EventBody {
    #[new]
    fn new(source: Py<PyAny>, heartbeat: Option<f64>) -> PyResult<Self> {
        Ok(Self { source: Mutex::new(Some(source)), heartbeat: interval(heartbeat)? })
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.source(py)?.bind(py).try_iter()?.into_any())
    }

    /// Close the iterator.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let source = locked(&self.source).take();
        if let Some(source) = source
            && let Some(close) = source.bind(py).getattr_opt("close")?
        {
            close.call0()?;
        }
        Ok(())
    }
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(encode_event, module)?)?;
    module.add_class::<EventBody>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_clients_split_them() {
        let cases = [
            ("", "data: \n"),
            ("a", "data: a\n"),
            ("a\nb\r\nc\rd", "data: a\ndata: b\ndata: c\ndata: d\n"),
            ("a\n", "data: a\ndata: \n"),
            ("\r\r\n\n", "data: \ndata: \ndata: \ndata: \n"),
            (" é: x", "data:  é: x\n"),
        ];
        for (text, expected) in cases {
            let mut out = Vec::new();
            lines(&mut out, "data: ", text);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{text:?}");
        }
    }
}
