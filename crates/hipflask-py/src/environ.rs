//! A request as the engine has it, and the WSGI environ made of it when somebody asks.
//!
//! Field names with underscores never get here (the head drops them), so that no client can pose as a proxy's
//! `X-Forwarded-For`.
//!
//! Implements: PEP 3333.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hipflask_http::{Framing, RequestHead, Version};
use hipflask_server::{Address, Body, ConnInfo};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use pyo3::{IntoPyObjectExt, intern};

use crate::body::{self, InputStream, Shared};
use crate::early_hints::EarlyHints;
use crate::headers::FieldSource;
use crate::locked;
use crate::response;
use crate::trailers::{self, SendTrailers};
use crate::websocket::{Handoff, Handshake};

/// Whether other processes serve the same application.
pub(crate) static MULTIPROCESS: AtomicBool = AtomicBool::new(false);

/// What the server hands over.
pub(crate) struct EngineRequest {
    /// Its head.
    pub(crate) head: Box<RequestHead>,
    /// Its body.
    pub(crate) body: Body,
    /// The connection's ends.
    pub(crate) conn: Arc<ConnInfo>,
    /// There if the connection can become a WebSocket.
    pub(crate) handoff: Option<Arc<Handoff>>,
    /// There if interim responses go another way than through the thread of the view.
    pub(crate) hints: Option<Arc<Handoff>>,
}

/// The same, shared by the request object, its headers and its environ.
pub(crate) struct Engine {
    pub(crate) head: Box<RequestHead>,
    pub(crate) conn: Arc<ConnInfo>,
    pub(crate) body: OnceLock<Shared>,
    arrived: std::sync::Mutex<Option<Body>>,
    handoff: Option<Arc<Handoff>>,
    hints: Option<Arc<Handoff>>,
    environ: OnceLock<Py<PyDict>>,
}

impl Engine {
    pub(crate) fn new(request: EngineRequest) -> Self {
        let EngineRequest { head, body, conn, handoff, hints } = request;
        Self {
            head,
            conn,
            body: OnceLock::new(),
            arrived: std::sync::Mutex::new(Some(body)),
            handoff,
            hints,
            environ: OnceLock::new(),
        }
    }

    /// What is left of the body.
    pub(crate) fn body(&self) -> &Shared {
        self.body.get_or_init(|| {
            let arrived = locked(&self.arrived).take();
            body::shared(arrived.unwrap_or(Body::Empty))
        })
    }

    /// `https` or `http`: what the connection is, or a trusted proxy says, whatever the client writes into its target.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.conn.is_secure() { "https" } else { "http" }
    }

    /// Host and port that the client has asked for.
    fn host(&self) -> &[u8] {
        self.conn.host().unwrap_or(self.head.host())
    }

    /// All values of a field in one, as a WSGI server joins them.
    pub(crate) fn field<'a>(&'a self, lower_name: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if lower_name == b"host" {
            let host = self.host();
            return (!host.is_empty() || self.head.field(b"host").is_some()).then_some(Cow::Borrowed(host));
        }
        let mut values = self.head.field_values(lower_name);
        let first = values.next()?;
        let mut joined = Cow::Borrowed(first);
        for value in values {
            let separator: &[u8] = if lower_name == b"cookie" { b"; " } else { b"," };
            joined.to_mut().extend_from_slice(separator);
            joined.to_mut().extend_from_slice(value);
        }
        Some(joined)
    }

    /// Name and port of the end at our side, or of the proxy's as the client knows it; the port is missing for a Unix
    /// socket.
    pub(crate) fn server(&self) -> (String, Option<u16>) {
        if let Some(host) = self.conn.host() {
            return self.forwarded_server(&String::from_utf8_lossy(host));
        }
        self.own_server()
    }

    /// What stands in a host that a proxy has given: its port is the scheme's own if it has none.
    fn forwarded_server(&self, host: &str) -> (String, Option<u16>) {
        let behind_brackets = host.rfind(']').map_or(0, |at| at + 1);
        let (name, port) = match host.get(behind_brackets..).and_then(|rest| rest.find(':')) {
            Some(colon) => host.split_at(behind_brackets + colon),
            None => (host, ""),
        };
        let usual = if self.conn.is_secure() { 443 } else { 80 };
        (name.to_owned(), Some(port.trim_start_matches(':').parse().unwrap_or(usual)))
    }

    fn own_server(&self) -> (String, Option<u16>) {
        match &self.conn.local {
            Address::Tcp(address) => (address.ip().to_string(), Some(address.port())),
            Address::Unix(path) => {
                (path.as_ref().map_or_else(String::new, |path| path.display().to_string()), None)
            }
        }
    }

    /// The client's address.
    pub(crate) fn remote_addr(&self) -> Option<String> {
        self.conn.client().address().map(|address| address.to_string())
    }

    /// The WSGI environ, the same one each time.
    pub(crate) fn environ<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        if let Some(environ) = self.environ.get() {
            return Ok(environ.bind(py).clone());
        }
        let made = self.build(py)?.unbind();
        Ok(self.environ.get_or_init(|| made).bind(py).clone())
    }

    fn build<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let environ = PyDict::new(py);
        let head = &self.head;
        let (server, port) = self.server();
        let port = port.unwrap_or(if self.conn.is_secure() { 443 } else { 80 });
        let protocol = match head.version() {
            Version::Http10 => intern!(py, "HTTP/1.0"),
            Version::Http11 => intern!(py, "HTTP/1.1"),
            Version::Http2 => intern!(py, "HTTP/2"),
        };
        environ.set_item(intern!(py, "REQUEST_METHOD"), latin1(py, head.method())?)?;
        environ.set_item(intern!(py, "SCRIPT_NAME"), latin1(py, self.conn.root_path().as_bytes())?)?;
        environ.set_item(intern!(py, "PATH_INFO"), latin1(py, &head.path())?)?;
        environ.set_item(intern!(py, "QUERY_STRING"), latin1(py, head.query())?)?;
        environ.set_item(intern!(py, "REQUEST_URI"), latin1(py, head.target())?)?;
        environ.set_item(intern!(py, "RAW_URI"), latin1(py, head.target())?)?;
        environ.set_item(intern!(py, "SERVER_PROTOCOL"), protocol)?;
        environ.set_item(intern!(py, "SERVER_SOFTWARE"), concat!("hipflask/", env!("CARGO_PKG_VERSION")))?;
        environ.set_item(intern!(py, "SERVER_NAME"), server)?;
        environ.set_item(intern!(py, "SERVER_PORT"), port.to_string())?;
        let client = self.conn.client();
        if let Some(address) = client.address() {
            environ.set_item(intern!(py, "REMOTE_ADDR"), address.to_string())?;
        }
        if let Some(port) = client.port() {
            environ.set_item(intern!(py, "REMOTE_PORT"), port.to_string())?;
        }
        if let Some(route) = self.conn.route() {
            environ.set_item(intern!(py, "hipflask.trusted_route"), route)?;
        }
        if let Some(tls) = &self.conn.tls {
            environ.set_item(intern!(py, "HTTPS"), intern!(py, "on"))?;
            environ.set_item(intern!(py, "SSL_PROTOCOL"), tls.version)?;
            environ.set_item(intern!(py, "SSL_CIPHER"), tls.cipher)?;
            let verified = if tls.client_certificate.is_some() { "SUCCESS" } else { "NONE" };
            environ.set_item(intern!(py, "SSL_CLIENT_VERIFY"), verified)?;
            if let Some(certificate) = &tls.client_certificate {
                environ.set_item(intern!(py, "SSL_CLIENT_CERT"), crate::tls::pem(certificate))?;
            }
        }
        environ.set_item(intern!(py, "wsgi.version"), (1, 0))?;
        environ.set_item(intern!(py, "wsgi.url_scheme"), self.scheme())?;
        let input = InputStream::new(Arc::clone(self.body()), false, None);
        let input = Bound::new(py, input)?;
        environ.set_item(intern!(py, "wsgi.input"), &input)?;
        let is_http2 = head.version() == Version::Http2;
        if head.framing() == Framing::Chunked || (is_http2 && head.framing() != Framing::None) {
            let trailers = input.getattr(intern!(py, "trailers"))?;
            environ.set_item(intern!(py, trailers::RECEIVED), trailers)?;
        }
        if self.handoff.is_none() && head.takes_trailers() && !head.is_head() {
            environ.set_item(intern!(py, trailers::SENT), Bound::new(py, SendTrailers::new())?)?;
        }
        if !matches!(head.framing(), Framing::Length(_)) {
            // Where the length is known, a stream that somebody puts around this one is read up to it, never to an
            // end: not everybody's `read` works without a size.
            environ.set_item(intern!(py, "wsgi.input_terminated"), true)?;
        }
        let errors = py.import(intern!(py, "sys"))?.getattr(intern!(py, "stderr"))?;
        environ.set_item(intern!(py, "wsgi.errors"), errors)?;
        environ.set_item(intern!(py, "wsgi.multithread"), true)?;
        environ.set_item(intern!(py, "wsgi.multiprocess"), MULTIPROCESS.load(Ordering::Relaxed))?;
        environ.set_item(intern!(py, "wsgi.run_once"), false)?;
        if let Some(id) = head.id() {
            environ.set_item(intern!(py, "hipflask.request_id"), id)?;
        }
        environ.set_item(intern!(py, "wsgi.file_wrapper"), response::file_classes(py)?.0)?;
        if let Some(handoff) = &self.handoff {
            let handshake = Handshake::new(head, Arc::clone(handoff));
            environ.set_item(intern!(py, "hipflask.websocket"), Bound::new(py, handshake)?)?;
        }
        let hints = match &self.hints {
            Some(handoff) => Some(EarlyHints::later(handoff)),
            // That of a WebSocket is no response to hint at.
            None if self.handoff.is_some() => None,
            None => EarlyHints::here(is_http2),
        };
        if let Some(hints) = hints {
            environ.set_item(intern!(py, "wsgi.early_hints"), Bound::new(py, hints)?)?;
        }
        self.fields(&environ)?;
        Ok(environ)
    }

    fn fields(&self, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = environ.py();
        let mut key = String::new();
        let mut lower = Vec::new();
        for (name, _) in self.head.fields() {
            lower.clear();
            lower.extend(name.iter().map(u8::to_ascii_lowercase));
            key.clear();
            if !matches!(lower.as_slice(), b"content-type" | b"content-length") {
                key.push_str("HTTP_");
            }
            key.extend(lower.iter().map(|&byte| match byte {
                b'-' => '_',
                byte => char::from(byte.to_ascii_uppercase()),
            }));
            if let Some(value) = self.field(&lower) {
                environ.set_item(PyString::intern(py, &key), latin1(py, &value)?)?;
            }
        }
        if !self.host().is_empty() {
            environ.set_item(intern!(py, "HTTP_HOST"), latin1(py, self.host())?)?;
        }
        Ok(())
    }
}

impl FieldSource for Engine {
    fn each(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        let mut host_seen = false;
        for (name, value) in self.head.fields() {
            if name.eq_ignore_ascii_case(b"host") {
                host_seen = true;
                each(name, self.host());
            } else {
                each(name, value);
            }
        }
        if !host_seen && !self.host().is_empty() {
            each(b"Host", self.host());
        }
    }

    fn environ(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(Engine::environ(self, py)?.into_any().unbind())
    }
}

/// The WSGI environ of a request, for those who call a WSGI application with it.
pub(crate) fn environ_from_engine<'py>(
    py: Python<'py>,
    request: EngineRequest,
) -> PyResult<Bound<'py, PyDict>> {
    Engine::new(request).build(py)
}

/// Bytes as the text that WSGI wants: each byte is one character.
pub(crate) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: pointer and length belong to one slice; a null `errors` means strict, which Latin-1 never needs.
    unsafe {
        let text = ffi::PyUnicode_DecodeLatin1(
            bytes.as_ptr().cast(),
            bytes.len() as ffi::Py_ssize_t,
            std::ptr::null(),
        );
        Ok(Bound::from_owned_ptr_or_err(py, text)?.cast_into_unchecked())
    }
}

/// The raw bytes behind a WSGI string.
pub(crate) fn wsgi_bytes<'py>(text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyBytes>> {
    // SAFETY: `text` is a string.
    unsafe {
        let bytes = ffi::PyUnicode_AsLatin1String(text.as_ptr());
        Ok(Bound::from_owned_ptr_or_err(text.py(), bytes)?.cast_into_unchecked())
    }
}

/// The text behind a WSGI string: UTF-8, what is not becomes U+FFFD.
pub(crate) fn wsgi_text<'py>(text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyString>> {
    // Text that is ASCII is its own meaning.
    if text.to_str().is_ok_and(str::is_ascii) {
        return Ok(text.clone());
    }
    let bytes = wsgi_bytes(text)?;
    Ok(PyString::new(text.py(), &String::from_utf8_lossy(bytes.as_bytes())))
}

/// `None` or a value, as a Python object.
pub(crate) fn optional<'py, T: IntoPyObject<'py>>(
    py: Python<'py>,
    value: Option<T>,
) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Some(value) => value.into_bound_py_any(py),
        None => Ok(py.None().into_bound(py)),
    }
}
