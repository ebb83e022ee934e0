//! Requests for an ASGI application: what its scope is made of, its body, and the ways to answer.
//!
//! They come to the event loop as those of coroutine views do (see [`later`](crate::later)), with nothing of Flask
//! around them. `hipflask/asgi.py` makes ASGI's `receive` and `send` of what is here.
//!
//! Implements: ASGI 3.0, HTTP and WebSocket specification 2.3.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex};

use hipflask_http::Version;
use hipflask_server::{Address, Body, Deferred, Reply, Request};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyIterator, PyList, PyString};

use crate::answer;
use crate::body::InputStream;
use crate::dispatch::{Dispatcher, Ticket};
use crate::early_hints;
use crate::environ::{Engine, EngineRequest};
use crate::feed::Feed;
use crate::headers::FieldSource as _;
use crate::later::Line;
use crate::locked;
use crate::plan::loaded_module;
use crate::websocket::{Handoff, Handshake};
use crate::wsgi;

/// Whether an app is the host of an ASGI application. Its class is imported by whoever has made it.
pub(crate) fn is_host(app: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = app.py();
    match loaded_module(py, intern!(py, "hipflask.asgi"))? {
        Some(module) => app.is_instance(&module.getattr(intern!(py, "Host"))?),
        None => Ok(false),
    }
}

/// One request for an ASGI application.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct AsgiExchange {
    engine: Engine,
    handoff: Arc<Handoff>,
    line: Arc<Line>,
    is_websocket: bool,
    has_body: bool,
    /// The exchange's name among those under way.
    #[pyo3(get)]
    token: u64,
    /// Of an answer that was begun and not sent: status and fields.
    head: Mutex<Option<Head>>,
}

struct Head {
    status: u16,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    length: Option<u64>,
}

impl AsgiExchange {
    pub(crate) fn new(
        request: Request<Ticket>,
        deferred: Deferred,
        dispatcher: &Arc<Dispatcher>,
        line: &Arc<Line>,
    ) -> Self {
        let token = deferred.token();
        let handoff = Handoff::new(deferred, dispatcher, line);
        handoff.begins();
        let Request { head, body, conn, .. } = request;
        let is_websocket = head.is_websocket();
        let has_body = !matches!(body, Body::Empty);
        let engine = Engine::new(EngineRequest { head, body, conn, handoff: None, hints: None });
        Self {
            engine,
            handoff,
            line: Arc::clone(line),
            is_websocket,
            has_body,
            token,
            head: Mutex::new(None),
        }
    }

    /// Writes the head that was begun, and what `complete` adds; then sends.
    fn answer<T>(
        &self,
        py: Python<'_>,
        complete: impl FnOnce(&mut Reply<'_>, Option<u64>) -> PyResult<T>,
    ) -> PyResult<T> {
        let Some(head) = locked(&self.head).take() else {
            return Err(PyRuntimeError::new_err("the response has not been started"));
        };
        let Some(mut deferred) = self.handoff.take() else {
            return Err(PyRuntimeError::new_err("the request has been answered already"));
        };
        let written = deferred.write(|reply| {
            reply.start(head.status, None);
            for (name, value) in &head.fields {
                wsgi::write_field(reply, name, value)?;
            }
            complete(reply, head.length)
        });
        match written {
            Ok(Some(made)) => {
                self.line.leave(py, deferred)?;
                Ok(made)
            }
            Ok(None) => Err(PyRuntimeError::new_err("the connection is over")),
            Err(error) => {
                self.handoff.put_back(deferred);
                Err(error)
            }
        }
    }
}

#[pymethods]
impl AsgiExchange {
    /// Whether the client wants a WebSocket.
    #[getter]
    fn is_websocket(&self) -> bool {
        self.is_websocket
    }

    /// The request's body; None if it has none.
    fn body(&self) -> Option<InputStream> {
        self.has_body.then(|| InputStream::new(Arc::clone(self.engine.body()), true, None))
    }

    /// The request to open a WebSocket.
    fn handshake(&self) -> Handshake {
        Handshake::new(&self.engine.head, Arc::clone(&self.handoff))
    }

    /// Put what the request says into a scope: all but ``asgi``, ``state``, ``extensions`` and ``subprotocols``.
    ///
    /// Args:
    ///     scope: The scope.
    ///     root_path: Where the application is mounted.
    fn describe(&self, py: Python<'_>, scope: &Bound<'_, PyDict>, root_path: &str) -> PyResult<()> {
        let (engine, head) = (&self.engine, &self.engine.head);
        let secure = engine.conn.is_secure();
        let (kind, scheme) = match (self.is_websocket, secure) {
            (true, true) => (intern!(py, "websocket"), intern!(py, "wss")),
            (true, false) => (intern!(py, "websocket"), intern!(py, "ws")),
            (false, true) => (intern!(py, "http"), intern!(py, "https")),
            (false, false) => (intern!(py, "http"), intern!(py, "http")),
        };
        scope.set_item(intern!(py, "type"), kind)?;
        scope.set_item(
            intern!(py, "http_version"),
            match head.version() {
                Version::Http10 => intern!(py, "1.0"),
                Version::Http11 => intern!(py, "1.1"),
                Version::Http2 => intern!(py, "2"),
            },
        )?;
        if !self.is_websocket {
            scope.set_item(
                intern!(py, "method"),
                PyString::new(py, &String::from_utf8_lossy(head.method()).to_uppercase()),
            )?;
        }
        scope.set_item(intern!(py, "scheme"), scheme)?;
        let root_path = match engine.conn.root_path() {
            "" => root_path,
            root => root,
        };
        let path = head.path();
        let raw = PyBytes::new(py, head.raw_path());
        let text = String::from_utf8_lossy(&path);
        scope.set_item(intern!(py, "path"), format!("{root_path}{text}"))?;
        scope.set_item(intern!(py, "raw_path"), raw)?;
        scope.set_item(intern!(py, "query_string"), PyBytes::new(py, head.query()))?;
        scope.set_item(intern!(py, "root_path"), root_path)?;
        let headers = PyList::empty(py);
        let mut failed = None;
        let mut lower = Vec::new();
        engine.each(&mut |name, value| {
            lower.clear();
            lower.extend(name.iter().map(u8::to_ascii_lowercase));
            if let Err(error) = headers.append((PyBytes::new(py, &lower), PyBytes::new(py, value))) {
                failed = Some(error);
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        scope.set_item(intern!(py, "headers"), headers)?;
        let client = engine.conn.client();
        // ASGI wants a port: 0 stands for one that no proxy has told.
        let client = client.address().map(|address| (address.to_string(), client.port().unwrap_or(0)));
        scope.set_item(intern!(py, "client"), client)?;
        match &engine.conn.local {
            Address::Tcp(local) => {
                scope.set_item(intern!(py, "server"), (local.ip().to_string(), local.port()))
            }
            Address::Unix(Some(path)) => {
                let path = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
                scope.set_item(intern!(py, "server"), (path, py.None()))
            }
            Address::Unix(None) => scope.set_item(intern!(py, "server"), py.None()),
        }
    }

    /// Whether the client may be sent early hints.
    #[getter]
    fn informs(&self) -> bool {
        self.handoff.informs()
    }

    /// Send 103 (Early Hints) now.
    ///
    /// Args:
    ///     links: Values of ``Link`` fields, bytes.
    ///
    /// Returns:
    ///     Whether they are on their way.
    fn hint(&self, links: &Bound<'_, PyAny>) -> PyResult<bool> {
        let mut values = Vec::new();
        for link in links.try_iter()? {
            values.push(bytes_of(&link?)?.as_bytes().to_vec());
        }
        let fields = values.iter().map(|value| (&b"Link"[..], value.as_slice()));
        Ok(self.handoff.inform(&early_hints::written(fields)?).unwrap_or(false))
    }

    /// Begin the answer. Nothing goes out before its body begins.
    ///
    /// Args:
    ///     status: 200 to 999.
    ///     headers: Pairs of bytes.
    fn start(&self, status: i64, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let status = wsgi::final_status(status)?;
        let mut head = Head { status, fields: Vec::new(), length: None };
        for pair in headers.try_iter()? {
            let (name, value) = pair_of(&pair?)?;
            if name.eq_ignore_ascii_case(b"content-length") {
                head.length = std::str::from_utf8(&value).ok().and_then(|digits| digits.parse().ok());
            }
            head.fields.push((name, value));
        }
        *locked(&self.head) = Some(head);
        Ok(())
    }

    /// Send the answer with all of its body.
    fn finish(&self, py: Python<'_>, body: &Bound<'_, PyAny>) -> PyResult<()> {
        let body = bytes_of(body)?;
        let body = body.as_bytes();
        self.answer(py, |reply, _| {
            reply.body(body);
            Ok(())
        })
    }

    /// Whether the client takes trailers.
    #[getter]
    fn takes_trailers(&self) -> bool {
        self.engine.head.takes_trailers() && !self.is_websocket
    }

    /// Send the answer's head; the body goes into what is returned.
    ///
    /// Args:
    ///     trailed: Whether trailers follow.
    #[pyo3(signature = (trailed=false))]
    fn stream(&self, py: Python<'_>, trailed: bool) -> PyResult<Feed> {
        self.answer(py, |reply, length| {
            if !trailed {
                return Ok(Feed::new(reply.outlet(length)));
            }
            reply.trail();
            Ok(Feed::trailed(reply.outlet(length)))
        })
    }

    /// Send the answer with a file as its body.
    ///
    /// Raises:
    ///     OSError: If the file cannot be opened.
    fn finish_with_file(&self, py: Python<'_>, path: std::path::PathBuf) -> PyResult<()> {
        let (file, length) = py.detach(|| {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            PyResult::Ok((file, length))
        })?;
        self.answer(py, |reply, _| {
            reply.file(file, 0, length);
            Ok(())
        })
    }

    /// Send a 500, in the place of what was begun, unless an answer has gone out.
    ///
    /// Returns:
    ///     Whether it was sent.
    fn fail(&self, py: Python<'_>) -> PyResult<bool> {
        let Some(mut deferred) = self.handoff.take() else { return Ok(false) };
        let _ = deferred.write(|reply| {
            answer::server_error(reply);
            Ok::<_, ()>(())
        });
        self.line.leave(py, deferred)?;
        Ok(true)
    }
}

/// Name and value of a header field.
fn pair_of(pair: &Bound<'_, PyAny>) -> PyResult<(Vec<u8>, Vec<u8>)> {
    let mut items: Bound<'_, PyIterator> = pair.try_iter()?;
    let mut next = || {
        let item = items.next().transpose()?;
        let item = item.ok_or_else(|| PyTypeError::new_err("a header is a pair of name and value"))?;
        bytes_of(&item).map(|bytes| bytes.as_bytes().to_vec())
    };
    Ok((next()?, next()?))
}

/// Bytes, whatever kind of them.
fn bytes_of<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(bytes.clone());
    }
    if let Ok(bytes) = value.cast::<PyByteArray>() {
        return Ok(PyBytes::new(value.py(), &bytes.to_vec()));
    }
    if value.is_instance_of::<pyo3::types::PyMemoryView>() {
        return Ok(value.py().get_type::<PyBytes>().call1((value,))?.cast_into::<PyBytes>()?);
    }
    Err(PyTypeError::new_err(format!("bytes are needed, not {}", value.get_type().name()?)))
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<AsgiExchange>()
}
