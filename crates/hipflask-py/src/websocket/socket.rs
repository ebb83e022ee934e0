//! The messages of an open connection, between the leader, which reads, and whoever uses them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use hipflask_http::websocket::{self, Control, Decoder, Encoder, Event, Kind, code};
use hipflask_server::{Outlet, Piece, RouteHistory, Runner, Task, Upgraded, Work};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::context;
use crate::dispatch::Dispatcher;
use crate::later::{Line, Ring};
use crate::locked;
use crate::serve;

/// Messages that wait for their view, at most; then the client has to wait. 256: small ones are read in batches.
const INBOX_MESSAGES: usize = 256;
/// What they hold together, at most, before the client has to wait. 1 MiB, as much as the engine queues to be sent.
const INBOX_BYTES: usize = 1 << 20;
/// Messages that a handler gets in one go before others have their turn.
const SHARE: usize = 64;

/// A message from the client.
pub(super) enum Message {
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

    pub(super) fn into_python(self, py: Python<'_>) -> Bound<'_, PyAny> {
        match self {
            Self::Text(text) => PyString::new(py, &text).into_any(),
            Self::Binary(bytes) => PyBytes::new(py, &bytes).into_any(),
        }
    }
}

/// How a connection ended: a close code (RFC 6455 §7.4) and a reason.
#[derive(Clone)]
pub(super) struct Over {
    pub(super) code: u16,
    pub(super) reason: String,
}

impl Over {
    pub(super) fn new(code: u16, reason: &str) -> Self {
        Self { code, reason: reason.to_owned() }
    }

    pub(super) fn into_error(self, py: Python<'_>) -> PyErr {
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
pub(super) struct Handler {
    pub(super) on_message: Py<PyAny>,
    pub(super) on_close: Option<Py<PyAny>>,
    pub(super) on_error: Py<PyAny>,
    /// The handshake's request: each call has its context.
    pub(super) request: Py<PyAny>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) history: Arc<RouteHistory>,
    /// None if the connection was over before.
    pub(super) runner: Option<Runner>,
}

struct Output {
    encoder: Encoder,
    /// A close frame has gone out; nothing may follow it.
    closed: bool,
}

/// An open connection, shared by the leader, which reads, and by whoever uses it.
pub(super) struct Socket {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    output: Mutex<Output>,
    outlet: OnceLock<Outlet>,
    line: Arc<Line>,
    this: Weak<Self>,
}

impl Socket {
    pub(super) fn new(encoder: Encoder, line: Arc<Line>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            output: Mutex::new(Output { encoder, closed: false }),
            outlet: OnceLock::new(),
            line,
        })
    }

    pub(super) fn outlet(&self) -> PyResult<&Outlet> {
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
    pub(super) fn handle(self: &Arc<Self>, py: Python<'_>) {
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

    /// The next message, if there is one; `Err` when there is none and none will come.
    pub(super) fn poll(&self) -> Result<Option<Message>, Over> {
        let mut inbox = locked(&self.inbox);
        match (self.pop(&mut inbox), &inbox.over) {
            (None, Some(over)) => Err(over.clone()),
            (message, _) => Ok(message),
        }
    }

    /// As [`Socket::poll`], waiting until a deadline. Detached.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Result<Option<Message>, Over> {
        let mut inbox = locked(&self.inbox);
        loop {
            if let Some(message) = self.pop(&mut inbox) {
                return Ok(Some(message));
            }
            if let Some(over) = &inbox.over {
                return Err(over.clone());
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            inbox.waiting += 1;
            inbox = match left {
                None => self.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.arrived.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            inbox.waiting -= 1;
        }
    }

    /// Has a task told when there is something; false if there is already. Attached.
    pub(super) fn ring(&self, ring: Arc<Ring>) -> bool {
        let mut inbox = locked(&self.inbox);
        let waits = inbox.messages.is_empty() && inbox.over.is_none();
        let before = if waits { inbox.ring.replace(ring) } else { None };
        drop(inbox);
        // What it calls is Python's, and may be dropped only now.
        drop(before);
        waits
    }

    /// Sets what gets the messages; the caller is at it. Attached.
    pub(super) fn set_handler(&self, handler: Handler) {
        let mut inbox = locked(&self.inbox);
        inbox.handling = true;
        let before = inbox.handler.replace(Arc::new(handler));
        drop(inbox);
        drop(before);
    }

    /// How the connection ended, once it has.
    pub(super) fn ended(&self) -> Option<Over> {
        locked(&self.inbox).over.clone()
    }

    /// Where tasks are told.
    pub(super) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }

    /// Tells where messages go out.
    pub(super) fn connect(&self, outlet: Outlet) {
        let _ = self.outlet.set(outlet);
    }

    /// Notes how the connection ended, the first time.
    fn end(self: &Arc<Self>, over: Over) {
        let mut inbox = locked(&self.inbox);
        inbox.over.get_or_insert(over);
        self.tell(inbox);
    }

    /// Notes how the connection ends, says goodbye with `code`, unless that was done, and ends it when all is out.
    pub(super) fn close(self: &Arc<Self>, outlet: &Outlet, code: Option<u16>, over: Over) {
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
    pub(super) fn send(&self, outlet: &Outlet, kind: Kind, payload: &[u8]) -> bool {
        let mut output = locked(&self.output);
        if output.closed {
            return false;
        }
        let mut frame = Vec::new();
        output.encoder.message(kind, payload, &mut frame);
        outlet.give(Piece::from(frame)).is_ok()
    }

    /// How it ended, for those who find that it has.
    pub(super) fn over(&self) -> Over {
        self.ended().unwrap_or(Over::new(code::ABNORMAL, ""))
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
        // The first messages are handled while the view's context is still there.
        let (frame, token) = context::push_alone(py, app, self.request.bind(py), sessions)?;
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
pub(super) struct Link {
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
    /// `pings`: between pings, and for an answer.
    pub(super) fn new(socket: &Arc<Socket>, decoder: Decoder, pings: Option<(Duration, Duration)>) -> Self {
        Self { socket: Arc::clone(socket), decoder, pings, asking: Asking::NotYet, is_heard: false }
    }

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
