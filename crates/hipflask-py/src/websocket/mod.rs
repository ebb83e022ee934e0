//! WebSockets: the handshake on behalf of a view, the messages of an open connection, the threads of sync views.
//!
//! The protocol is `hipflask_http::websocket`, the connection an upgraded one of the engine. The leader reads and
//! decodes, answers pings and closes, and leaves messages in the [`Socket`]'s inbox; a view takes them from there, on a
//! thread of its own or on the event loop, and sends through the connection's outlet. No thread waits for a client.
//!
//! Implements: RFC 6455 and RFC 7692 on the server's side; see `hipflask/websocket.py` for what views see.

mod client;
mod connection;
mod socket;
mod threads;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hipflask_http::RequestHead;
use hipflask_http::websocket::{self, Decoder, DeflatePolicy, Encoder, HandshakeError, Limits, Role};
use hipflask_server::Deferred;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::channel;
use crate::dispatch::Dispatcher;
use crate::later::Line;
use crate::wsgi;
use crate::{locked, put};

use client::WebSocketCodec;
use connection::{Connection, HandlerTimes};
use socket::{Link, Socket};

pub(crate) use threads::Threads;

/// The response owed to a request, until it is written or its connection becomes a WebSocket.
pub(crate) struct Handoff {
    deferred: Mutex<Option<Deferred>>,
    dispatcher: Arc<Dispatcher>,
    line: Arc<Line>,
    /// Whether the request may have interim responses.
    informs: bool,
}

impl Handoff {
    pub(crate) fn new(deferred: Deferred, dispatcher: &Arc<Dispatcher>, line: &Arc<Line>) -> Arc<Self> {
        Arc::new(Self {
            informs: deferred.informs(),
            deferred: Mutex::new(Some(deferred)),
            dispatcher: Arc::clone(dispatcher),
            line: Arc::clone(line),
        })
    }

    /// Tells the engine that the request's turn has come.
    pub(crate) fn begins(&self) {
        if let Some(deferred) = &mut *locked(&self.deferred) {
            deferred.begins();
        }
    }

    /// Takes the response over; `None` if somebody has.
    pub(crate) fn take(&self) -> Option<Deferred> {
        locked(&self.deferred).take()
    }

    /// Whether the request may have interim responses.
    pub(crate) fn informs(&self) -> bool {
        self.informs
    }

    /// Sends an interim response; whether it is on its way. `None` if the response has been taken over.
    pub(crate) fn inform(&self, bytes: &[u8]) -> Option<bool> {
        locked(&self.deferred).as_mut().map(|deferred| deferred.inform(bytes))
    }

    pub(crate) fn put_back(&self, deferred: Deferred) {
        put(&self.deferred, Some(deferred));
    }
}

/// A request to open a WebSocket, in the environ as ``hipflask.websocket``.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct Handshake {
    judged: Result<websocket::Handshake, HandshakeError>,
    handoff: Arc<Handoff>,
}

impl Handshake {
    pub(crate) fn new(head: &RequestHead, handoff: Arc<Handoff>) -> Self {
        Self { judged: websocket::accept(head, Some(&DeflatePolicy::default())), handoff }
    }
}

#[pymethods]
impl Handshake {
    /// Why the request opens no WebSocket, or None: status, reason, header fields of the answer.
    #[getter]
    #[allow(clippy::type_complexity, reason = "a tuple for Python")]
    fn refusal(&self) -> Option<(u16, &'static str, Vec<(&'static str, &'static str)>)> {
        let error = self.judged.as_ref().err()?;
        Some((error.status(), error.reason(), error.fields().to_vec()))
    }

    /// The subprotocols offered, the client's favourite first.
    #[getter]
    fn protocols(&self) -> Vec<String> {
        self.judged.as_ref().map(|handshake| handshake.protocols.clone()).unwrap_or_default()
    }

    /// Open the WebSocket.
    ///
    /// Args:
    ///     protocol: The subprotocol chosen, one of those offered.
    ///     headers: Further fields of the answer.
    ///     max_message_size: The most bytes of a message from the client.
    ///     compression: Whether messages may be compressed.
    ///     ping_interval: Seconds between pings; None for none.
    ///     ping_timeout: Seconds that a client has to answer one.
    ///     channel: Joined before the client knows that the connection is open.
    ///
    /// Raises:
    ///     RuntimeError: If the handshake is bad, or the request has been answered.
    #[pyo3(signature = (protocol, headers, *, max_message_size, compression, ping_interval, ping_timeout, channel=None))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "what Python gives")]
    fn accept(
        &self,
        py: Python<'_>,
        protocol: Option<&str>,
        headers: Vec<(Bound<'_, PyString>, Bound<'_, PyString>)>,
        max_message_size: usize,
        compression: bool,
        ping_interval: Option<f64>,
        ping_timeout: f64,
        channel: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Connection> {
        let handshake = self.judged.as_ref().map_err(|error| PyRuntimeError::new_err(error.reason()))?;
        let seconds = |number: f64| {
            Duration::try_from_secs_f64(number).map_err(|error| PyValueError::new_err(error.to_string()))
        };
        let pings = ping_interval.map(|every| PyResult::Ok((seconds(every)?, seconds(ping_timeout)?)));
        let pings = pings.transpose()?;
        let deflate = handshake.deflate.as_ref().filter(|_| compression);
        let socket = Socket::new(Encoder::server(deflate), Arc::clone(&self.handoff.line));
        let limits = Limits { message: max_message_size };
        let decoder = Decoder::new(Role::Server, limits, deflate);
        let link = Link::new(&socket, decoder, pings);
        // The loop may be asked to wait for this connection.
        self.handoff.dispatcher.attend_now(py)?;
        let Some(mut deferred) = self.handoff.take() else {
            return Err(PyRuntimeError::new_err("the request has been answered already"));
        };
        let mut link = Some(Box::new(link));
        let written = deferred.write(|reply| {
            reply.start(101, None);
            for (name, value) in handshake.fields(protocol) {
                if name != "Sec-WebSocket-Extensions" || deflate.is_some() {
                    wsgi::write_field(reply, name.as_bytes(), value.as_bytes())?;
                }
            }
            for (name, value) in &headers {
                wsgi::write_field(reply, &wsgi::latin1(name)?, &wsgi::latin1(value)?)?;
            }
            if let Some(link) = link.take() {
                socket.connect(reply.upgrade(link));
            }
            PyResult::Ok(())
        });
        if let Err(error) = written {
            self.handoff.put_back(deferred);
            return Err(error);
        }
        let membership = match (channel, socket.outlet()) {
            (Some(channel), Ok(outlet)) => channel::join(channel, outlet).map(Some),
            _ => Ok(None),
        };
        py.detach(|| deferred.send());
        Ok(Connection::new(socket, membership?))
    }
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Handshake>()?;
    module.add_class::<Connection>()?;
    module.add_class::<HandlerTimes>()?;
    module.add_class::<WebSocketCodec>()
}
