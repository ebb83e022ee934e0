//! WebSockets: the handshake on behalf of a view, the messages of an open connection, the threads of sync views.
//!
//! The protocol is `hipflask_http::websocket`, the connection an upgraded one of the engine. The leader reads and
//! decodes, answers pings and closes, and leaves messages in the [`Socket`]'s inbox; a view takes them from there, on a
//! thread of its own or on the event loop, and sends through the connection's outlet. No thread waits for a client.
//!
//! Implements: RFC 6455 and RFC 7692 on the server's side; see `hipflask/websocket.py` for what views see.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use hipflask_http::RequestHead;
use hipflask_http::websocket::{
    self, Control, Decoder, DeflatePolicy, Encoder, Event, HandshakeError, Kind, Limits, Role, code,
};
use hipflask_server::{Deferred, Outlet, Piece, Request, RouteHistory, Runner, Task, Upgraded, Work};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyString};

use crate::answer;
use crate::channel::{self, Membership};
use crate::context;
use crate::dispatch::{Dispatcher, Ticket};
use crate::environ::{EngineRequest, environ_from_engine};
use crate::later::{Line, Ring};
use crate::serve;
use crate::wsgi::{self, Begun};

/// Messages that wait for their view, at most; then the client has to wait. 256: small ones are read in batches.
const INBOX_MESSAGES: usize = 256;
/// What they hold together, at most, before the client has to wait. 1 MiB, as much as the engine queues to be sent.
const INBOX_BYTES: usize = 1 << 20;
/// Bytes not yet taken by the client from which on sending waits, and down to which it does. 256 and 64 KiB: enough to
/// keep a fast line busy.
const SEND_HIGH: usize = 256 * 1024;
const SEND_LOW: usize = 64 * 1024;
/// Messages up to this size are framed with the interpreter held: giving it back would take longer.
const SMALL: usize = 4096;
/// Messages that a handler gets in one go before others have their turn.
const SHARE: usize = 64;
/// The stack of a thread that runs a view; only what is touched takes memory.
const STACK: usize = 8 << 20;
/// Threads that views of WebSockets may hold, unless `WEBSOCKET_THREADS` says otherwise. 64: some 50 KiB each.
const THREADS: usize = 64;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The response owed to a request, until it is written or its connection becomes a WebSocket.
pub(crate) struct Handoff {
    deferred: Mutex<Option<Deferred>>,
    dispatcher: Arc<Dispatcher>,
    line: Arc<Line>,
}

impl Handoff {
    pub(crate) fn new(deferred: Deferred, dispatcher: &Arc<Dispatcher>, line: &Arc<Line>) -> Arc<Self> {
        Arc::new(Self {
            deferred: Mutex::new(Some(deferred)),
            dispatcher: Arc::clone(dispatcher),
            line: Arc::clone(line),
        })
    }

    /// Takes the response over; `None` if somebody has.
    pub(crate) fn take(&self) -> Option<Deferred> {
        locked(&self.deferred).take()
    }

    pub(crate) fn put_back(&self, deferred: Deferred) {
        *locked(&self.deferred) = Some(deferred);
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
    ///
    /// Raises:
    ///     RuntimeError: If the handshake is bad, or the request has been answered.
    #[pyo3(signature = (protocol, headers, *, max_message_size, compression, ping_interval, ping_timeout))]
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
        let protocol_object = Link {
            socket: Arc::clone(&socket),
            decoder: Decoder::new(Role::Server, limits, deflate),
            pings,
            asking: Asking::NotYet,
            is_heard: false,
        };
        // The loop may be asked to wait for this connection.
        self.handoff.dispatcher.attend_now(py)?;
        let Some(mut deferred) = self.handoff.take() else {
            return Err(PyRuntimeError::new_err("the request has been answered already"));
        };
        let mut protocol_object = Some(Box::new(protocol_object));
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
            if let Some(object) = protocol_object.take() {
                let _ = socket.outlet.set(reply.upgrade(object));
            }
            PyResult::Ok(())
        });
        if let Err(error) = written {
            self.handoff.put_back(deferred);
            return Err(error);
        }
        py.detach(|| deferred.send());
        Ok(Connection { socket })
    }
}

/// A message from the client.
enum Message {
    Text(String),
    Binary(Vec<u8>),
}

impl Message {
    fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    fn into_python(self, py: Python<'_>) -> Bound<'_, PyAny> {
        match self {
            Self::Text(text) => PyString::new(py, &text).into_any(),
            Self::Binary(bytes) => PyBytes::new(py, &bytes).into_any(),
        }
    }
}

/// How a connection ended: a close code (RFC 6455 §7.4) and a reason.
#[derive(Clone)]
struct Over {
    code: u16,
    reason: String,
}

impl Over {
    fn new(code: u16, reason: &str) -> Self {
        Self { code, reason: reason.to_owned() }
    }

    fn into_error(self, py: Python<'_>) -> PyErr {
        let made = py
            .import(intern!(py, "hipflask.websocket"))
            .and_then(|module| module.getattr(intern!(py, "ConnectionClosed")))
            .and_then(|class| class.call1((self.code, self.reason)));
        made.map_or_else(|error| error, PyErr::from_value)
    }
}

#[derive(Default)]
struct Inbox {
    messages: VecDeque<Message>,
    bytes: usize,
    /// The client has to wait.
    paused: bool,
    over: Option<Over>,
    /// Threads that wait.
    waiting: usize,
    /// The task that waits.
    ring: Option<Arc<Ring>>,
    /// What gets the messages instead of a view.
    handler: Option<Arc<Handler>>,
    /// A thread is at the handler, or is about to.
    handling: bool,
    /// The handler has been told of the end.
    told: bool,
}

/// Functions that the engine calls with messages, as an app's views are called.
struct Handler {
    on_message: Py<PyAny>,
    on_close: Option<Py<PyAny>>,
    on_error: Py<PyAny>,
    /// The handshake's request: each call has its context.
    request: Py<PyAny>,
    dispatcher: Arc<Dispatcher>,
    history: Arc<RouteHistory>,
    /// None if the connection was over before.
    runner: Option<Runner>,
}

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

struct Output {
    encoder: Encoder,
    /// A close frame has gone out; nothing may follow it.
    closed: bool,
}

/// An open connection, shared by the leader, which reads, and by whoever uses it.
struct Socket {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    output: Mutex<Output>,
    outlet: OnceLock<Outlet>,
    line: Arc<Line>,
    this: Weak<Self>,
}

impl Socket {
    fn new(encoder: Encoder, line: Arc<Line>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            output: Mutex::new(Output { encoder, closed: false }),
            outlet: OnceLock::new(),
            line,
        })
    }

    fn outlet(&self) -> PyResult<&Outlet> {
        self.outlet.get().ok_or_else(|| PyRuntimeError::new_err("the connection is not open yet"))
    }

    /// Wakes whoever waits for a message.
    fn tell(self: &Arc<Self>, mut inbox: MutexGuard<'_, Inbox>) {
        if inbox.waiting > 0 {
            self.arrived.notify_all();
        }
        let ring = inbox.ring.take();
        let handler = inbox.handler.as_ref().filter(|_| !inbox.handling).map(Arc::clone);
        inbox.handling |= handler.is_some();
        drop(inbox);
        if let Some(ring) = ring {
            self.line.ring(ring);
        }
        if let Some(handler) = handler {
            self.handle_soon(&handler);
        }
    }

    /// Has the engine call the handler with what is in the inbox.
    fn handle_soon(self: &Arc<Self>, handler: &Handler) {
        if let Some(runner) = &handler.runner {
            let task: Arc<dyn Task> = Arc::clone(self) as Arc<dyn Task>;
            runner.run(Work { task, history: Arc::clone(&handler.history) });
        }
    }

    /// Calls the handler with some messages, and with the end once it has come. Attached; one thread at a time.
    fn handle(self: &Arc<Self>, py: Python<'_>) {
        for count in 1.. {
            let mut inbox = locked(&self.inbox);
            let Some(handler) = inbox.handler.as_ref().map(Arc::clone) else { return };
            let message = self.pop(&mut inbox);
            let over = match (&message, &inbox.over) {
                (None, Some(over)) if !inbox.told => Some(over.clone()),
                _ => None,
            };
            inbox.told |= over.is_some();
            if message.is_none() && over.is_none() {
                inbox.handling = false;
                // Nothing comes after the end: what the handler refers to must not be kept alive by it.
                let ended = if inbox.told { inbox.handler.take() } else { None };
                drop(inbox);
                drop(ended);
                return;
            }
            drop(inbox);
            handler.call(py, message, over);
            if count >= SHARE && handler.runner.is_some() {
                return self.handle_soon(&handler);
            }
        }
    }

    /// Leaves a message to the view.
    fn deliver(self: &Arc<Self>, message: Message, outlet: &Outlet) {
        let mut inbox = locked(&self.inbox);
        if inbox.over.is_some() {
            return;
        }
        inbox.bytes += message.length();
        inbox.messages.push_back(message);
        if inbox.messages.len() >= INBOX_MESSAGES || inbox.bytes >= INBOX_BYTES {
            inbox.paused = true;
            outlet.pause_reading();
        }
        self.tell(inbox);
    }

    /// Takes the oldest message.
    fn pop(&self, inbox: &mut Inbox) -> Option<Message> {
        let message = inbox.messages.pop_front()?;
        inbox.bytes -= message.length();
        if inbox.paused && inbox.messages.len() <= INBOX_MESSAGES / 2 && inbox.bytes <= INBOX_BYTES / 2 {
            inbox.paused = false;
            if let Some(outlet) = self.outlet.get() {
                outlet.resume_reading();
            }
        }
        Some(message)
    }

    /// Notes how the connection ended, the first time.
    fn end(self: &Arc<Self>, over: Over) {
        let mut inbox = locked(&self.inbox);
        inbox.over.get_or_insert(over);
        self.tell(inbox);
    }

    /// Notes how the connection ends, says goodbye with `code`, unless that was done, and ends it when all is out.
    fn close(self: &Arc<Self>, outlet: &Outlet, code: Option<u16>, over: Over) {
        let mut output = locked(&self.output);
        if !std::mem::replace(&mut output.closed, true) {
            let mut frame = Vec::new();
            let reason = if code == Some(over.code) { over.reason.as_str() } else { "" };
            output.encoder.close(code, reason, &mut frame);
            // An error means that the connection is gone.
            let _ = outlet.give(Piece::from(frame));
            outlet.finish();
        }
        // Still locked: whoever finds it closed finds out why, and nobody who is told why is first to close it.
        self.end(over);
    }

    /// Frames and queues a message; false if the connection is over.
    fn send(&self, outlet: &Outlet, kind: Kind, payload: &[u8]) -> bool {
        let mut output = locked(&self.output);
        if output.closed {
            return false;
        }
        let mut frame = Vec::new();
        output.encoder.message(kind, payload, &mut frame);
        outlet.give(Piece::from(frame)).is_ok()
    }

    /// How it ended, for those who find that it has.
    fn over(&self) -> Over {
        let over = locked(&self.inbox).over.clone();
        over.unwrap_or(Over::new(code::ABNORMAL, ""))
    }
}

impl Task for Socket {
    fn run(&self) {
        // The engine has attached this thread already, so this only tells PyO3.
        if let Some(this) = self.this.upgrade() {
            Python::attach(|py| this.handle(py));
        }
    }
}

impl Handler {
    /// Calls one of the functions in the context of the handshake's request.
    fn call(&self, py: Python<'_>, message: Option<Message>, over: Option<Over>) {
        let called = self.within(py, || match (message, over) {
            (Some(message), _) => self.on_message.call1(py, (message.into_python(py),)).map(drop),
            (None, Some(over)) => match &self.on_close {
                Some(on_close) => on_close.call1(py, (over.code, over.reason)).map(drop),
                None => Ok(()),
            },
            (None, None) => Ok(()),
        });
        if let Err(error) = called {
            serve::log_error(py, &error, "while a WebSocket's message was handled");
        }
    }

    fn within(&self, py: Python<'_>, run: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
        let app = self.dispatcher.app().bind(py);
        let hooks = self.dispatcher.hooks();
        let sessions = hooks.and_then(|hooks| hooks.cookie_sessions.as_ref());
        let (frame, token) = context::push(py, app, self.request.bind(py), sessions)?;
        let ran = run();
        let error = ran.as_ref().err().map(|error| error.value(py).clone().into_any());
        let failed = match &ran {
            Ok(()) => Ok(()),
            Err(error) => {
                let value = error.value(py);
                value.setattr(intern!(py, "__traceback__"), error.traceback(py))?;
                self.on_error.call1(py, (value,)).map(drop)
            }
        };
        let ended = match hooks {
            Some(hooks) if hooks.has_no_functions(py) && !hooks.signals.any_heard(py)? => Ok(()),
            _ => app
                .call_method1(intern!(py, "do_teardown_request"), (error.clone(),))
                .and_then(|_| app.call_method1(intern!(py, "do_teardown_appcontext"), (error,)))
                .map(drop),
        };
        frame.bind(py).get().end(py)?;
        context::pop(py, &token)?;
        failed.and(ended)
    }
}

/// The protocol of a connection, as the engine drives it.
struct Link {
    socket: Arc<Socket>,
    decoder: Decoder,
    /// Between pings, and for an answer.
    pings: Option<(Duration, Duration)>,
    asking: Asking,
    /// Something has come since the last ping.
    is_heard: bool,
}

/// Where the round of pings is.
#[derive(Clone, Copy)]
enum Asking {
    NotYet,
    Quiet,
    /// A ping is out.
    Asked,
}

impl Link {
    /// Decodes what has come. Gives false when nothing more is to be read.
    fn decode(&mut self, input: &mut &[u8], outlet: &Outlet) -> bool {
        let socket = &self.socket;
        while !locked(&socket.inbox).paused {
            match self.decoder.next(input) {
                Ok(None) => return true,
                Ok(Some(Event::Text(text))) => socket.deliver(Message::Text(text), outlet),
                Ok(Some(Event::Binary(bytes))) => socket.deliver(Message::Binary(bytes), outlet),
                Ok(Some(Event::Ping(payload))) => {
                    let output = locked(&socket.output);
                    if !output.closed {
                        // One that the client has no room for is not missed.
                        let pong = websocket::control(Control::Pong, &payload).to_vec();
                        let _ = outlet.send(Piece::from(pong));
                    }
                }
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close(close))) => {
                    let over = Over { code: close.code.unwrap_or(code::NO_STATUS), reason: close.reason };
                    socket.close(outlet, close.code, over);
                    return false;
                }
                Err(error) => {
                    socket.close(outlet, Some(error.code()), Over::new(error.code(), error.reason()));
                    return false;
                }
            }
        }
        true
    }
}

impl Upgraded for Link {
    fn receive(&mut self, input: &mut Vec<u8>, outlet: &Outlet) -> bool {
        self.is_heard = true;
        let mut rest = input.as_slice();
        let goes_on = self.decode(&mut rest, outlet);
        let used = input.len() - rest.len();
        input.drain(..used);
        goes_on
    }

    fn tick(&mut self, outlet: &Outlet) -> Option<Duration> {
        let (every, timeout) = self.pings?;
        match self.asking {
            Asking::NotYet => self.asking = Asking::Quiet,
            Asking::Quiet => {
                self.asking = Asking::Asked;
                self.is_heard = false;
                let ping = websocket::control(Control::Ping, b"").to_vec();
                let _ = outlet.send(Piece::from(ping));
                return Some(timeout);
            }
            // A client that has to wait for the view cannot be heard.
            Asking::Asked if !self.is_heard && !locked(&self.socket.inbox).paused => {
                self.socket.end(Over::new(code::ABNORMAL, "the client does not answer pings"));
                outlet.abort();
                return None;
            }
            Asking::Asked => {
                self.asking = Asking::Quiet;
                return Some(every.saturating_sub(timeout).max(Duration::from_millis(1)));
            }
        }
        Some(every)
    }

    fn stops(&mut self, outlet: &Outlet) {
        let over = Over::new(code::GOING_AWAY, "the server stops");
        self.socket.close(outlet, Some(code::GOING_AWAY), over);
    }

    fn gone(&mut self) {
        let mut output = locked(&self.socket.output);
        output.closed = true;
        self.socket.end(Over::new(code::ABNORMAL, ""));
    }
}

/// An open WebSocket. `hipflask.websocket` has what views get.
#[pyclass(frozen, module = "hipflask._core")]
struct Connection {
    socket: Arc<Socket>,
}

#[pymethods]
impl Connection {
    /// Have the data of a channel's events sent as text messages, until the connection ends or leaves the channel.
    fn join(&self, channel: &Bound<'_, PyAny>) -> PyResult<Membership> {
        channel::join(channel, self.socket.outlet()?)
    }

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
        let found = py.detach(|| {
            let mut inbox = locked(&socket.inbox);
            loop {
                if let Some(message) = socket.pop(&mut inbox) {
                    return Ok(Some(message));
                }
                if let Some(over) = &inbox.over {
                    return Err(over.clone());
                }
                inbox.waiting += 1;
                inbox = match deadline {
                    None => socket.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                    Some(deadline) => {
                        let left = deadline.saturating_duration_since(Instant::now());
                        if left.is_zero() {
                            inbox.waiting -= 1;
                            return Ok(None);
                        }
                        socket.arrived.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0
                    }
                };
                inbox.waiting -= 1;
            }
        });
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
        let mut inbox = locked(&self.socket.inbox);
        let message = self.socket.pop(&mut inbox);
        let over = if message.is_none() { inbox.over.clone() } else { None };
        drop(inbox);
        match (message, over) {
            (Some(message), _) => Ok(Some(message.into_python(py))),
            (None, Some(over)) => Err(over.into_error(py)),
            (None, None) => Ok(None),
        }
    }

    /// Have a function called on the event loop when there is a message, or the connection is over.
    ///
    /// Returns:
    ///     False if that is so already: then it is not called.
    fn when_received(&self, call: Py<PyAny>) -> bool {
        let ring = Ring::new(call);
        let mut inbox = locked(&self.socket.inbox);
        let waits = inbox.messages.is_empty() && inbox.over.is_none();
        let before = if waits { inbox.ring.replace(ring) } else { None };
        drop(inbox);
        // What it calls is Python's, and may be dropped only now.
        drop(before);
        waits
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
        let (ring, line) = (Ring::new(call), Arc::clone(&self.socket.line));
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
            runner: self.socket.outlet.get().and_then(Outlet::runner),
        };
        let mut inbox = locked(&self.socket.inbox);
        inbox.handling = true;
        let before = inbox.handler.replace(Arc::new(handler));
        drop(inbox);
        drop(before);
        // What has come already, and may be all that comes.
        self.socket.handle(py);
    }

    /// Close code and reason once the connection is over, else None.
    #[getter]
    fn over(&self) -> Option<(u16, String)> {
        locked(&self.socket.inbox).over.clone().map(|over| (over.code, over.reason))
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

/// The threads that views of WebSockets run on, one for each: they wait for their client, and must not take the
/// engine's threads from other requests.
pub(crate) struct Threads {
    most: usize,
    running: Mutex<usize>,
    ended: Condvar,
}

impl Threads {
    /// As many as the app's `WEBSOCKET_THREADS`.
    pub(crate) fn of(app: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let py = app.py();
        let most = match app.getattr_opt(intern!(py, "config"))? {
            Some(config) => {
                config.call_method1(intern!(py, "get"), ("WEBSOCKET_THREADS", THREADS))?.extract()?
            }
            None => THREADS,
        };
        Ok(Arc::new(Self { most, running: Mutex::new(0), ended: Condvar::new() }))
    }

    /// How many run, and may run.
    pub(crate) fn count(&self) -> (usize, usize) {
        (*locked(&self.running), self.most)
    }

    /// Waits until none runs any more; whether that is so in time.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let running = locked(&self.running);
        let (running, _) = self
            .ended
            .wait_timeout_while(running, timeout, |running| *running > 0)
            .unwrap_or_else(PoisonError::into_inner);
        *running == 0
    }

    /// Runs a request to its end on a thread of its own, or refuses it. Detached.
    pub(crate) fn begin(
        self: &Arc<Self>,
        dispatcher: &Arc<Dispatcher>,
        line: &Arc<Line>,
        request: Request<Ticket>,
        deferred: Deferred,
    ) {
        let mut running = locked(&self.running);
        if *running >= self.most {
            drop(running);
            return refuse(deferred);
        }
        *running += 1;
        drop(running);
        let handoff = Handoff::new(deferred, dispatcher, line);
        let (threads, owed) = (Arc::clone(self), Arc::clone(&handoff));
        let run = move || {
            // Dropped in any case, whatever happens in the view.
            let _counted = Counted(&threads);
            Python::attach(|py| perform(py, request, &handoff));
        };
        let name = "hipflask-websocket".to_owned();
        if std::thread::Builder::new().name(name).stack_size(STACK).spawn(run).is_err() {
            drop(Counted(self));
            if let Some(deferred) = owed.take() {
                refuse(deferred);
            }
        }
    }
}

/// A thread that counts.
struct Counted<'a>(&'a Threads);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        *locked(&self.0.running) -= 1;
        self.0.ended.notify_all();
    }
}

/// Answers that there is no thread for the view.
fn refuse(mut deferred: Deferred) {
    let _ = deferred.write(|reply| {
        reply.start(503, None);
        // Both are valid field values.
        let _ = reply.field(b"Retry-After", b"1");
        let _ = reply.field(b"Content-Type", b"text/plain; charset=utf-8");
        reply.body(b"too many WebSockets hold a thread");
        Ok::<_, ()>(())
    });
    deferred.send();
}

/// Calls the app as a WSGI callable: the view opens the connection, or does not and its response goes out.
fn perform(py: Python<'_>, request: Request<Ticket>, handoff: &Arc<Handoff>) {
    let dispatcher = &handoff.dispatcher;
    let Request { head, body, conn, .. } = request;
    let engine = EngineRequest { head, body, conn, handoff: Some(Arc::clone(handoff)) };
    let begun = dispatcher
        .refresh(py)
        .and_then(|()| environ_from_engine(py, engine))
        .and_then(|environ| Begun::new(dispatcher.app().bind(py), &environ));
    let failure = match (begun, handoff.take()) {
        (Ok(begun), Some(mut deferred)) => {
            let written = deferred.write(|reply| begun.write(py, reply));
            let failure = written.err();
            if failure.is_some() {
                write_error(&mut deferred);
            }
            py.detach(|| deferred.send());
            failure
        }
        (Err(error), Some(mut deferred)) => {
            write_error(&mut deferred);
            py.detach(|| deferred.send());
            Some(error)
        }
        // The connection is a WebSocket: there is nobody to send a response to.
        (Ok(_), None) => None,
        (Err(error), None) => Some(error),
    };
    if let Some(error) = failure {
        serve::log_error(py, &error, "in the application");
    }
    if let Err(error) = dispatcher.look_again(py) {
        serve::log_error(py, &error, "in the application");
    }
}

fn write_error(deferred: &mut Deferred) {
    let _ = deferred.write(|reply| {
        answer::server_error(reply);
        Ok::<_, ()>(())
    });
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Handshake>()?;
    module.add_class::<Connection>()?;
    module.add_class::<HandlerTimes>()
}
