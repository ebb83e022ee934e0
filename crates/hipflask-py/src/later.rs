//! Requests of coroutine views: begun and finished on the thread of the process's event loop.
//!
//! The engine leaves them in a [`Line`]; the loop is woken once for all that wait. Each becomes a [`LaterExchange`],
//! which `hipflask.loop` takes through the order of hooks, view and teardown, awaiting what is to be awaited. What
//! can be done without awaiting is done by the same code as for sync views (see [`dispatch`](crate::dispatch)).

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use hipflask_server::{Deferred, Reply, Request};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::answer::{self, Rest};
use crate::asgi::AsgiExchange;
use crate::context::{self, Frame, Token};
use crate::dispatch::{Dispatcher, Exchange, Ticket, View};
use crate::plan::Hooks;
use crate::request::{self, EngineRequest, RequestBase};
use crate::serve;
use crate::steps::{self, Lent, Step, Steps};
use crate::websocket::Handoff;
use crate::{locked, put};

thread_local! {
    static IS_LOOP: Cell<bool> = const { Cell::new(false) };
}

/// Whether the current thread is the one of the process's event loop, which must not wait for a client.
pub(crate) fn is_loop_thread() -> bool {
    IS_LOOP.get()
}

/// Tell that the calling thread is the one of the process's event loop.
#[pyfunction]
fn begin_loop_thread() {
    IS_LOOP.set(true);
}

/// Tell whether the calling thread is the one of the process's event loop.
#[pyfunction]
fn on_loop_thread() -> bool {
    IS_LOOP.get()
}

/// What waits for the loop.
enum Waiting {
    Request(Box<(Request<Ticket>, Deferred)>),
    /// The client of this request is gone.
    Gone(u64),
    /// Something that a task waits for has come.
    Ring(Arc<Ring>),
}

/// The requests that wait for the loop, and how it is woken.
pub(crate) struct Line {
    waiting: Mutex<Vec<Waiting>>,
    /// Something waits that the loop has not been told of.
    untold: AtomicBool,
    /// The loop has been told and has not looked since.
    told: AtomicBool,
    tell: UnixStream,
    hear: UnixStream,
    /// What the loop has answered and not yet handed to the engine.
    leaving: Mutex<Vec<Deferred>>,
    /// The loop is inside of `take`, at whose end it hands in what is leaving.
    taking: AtomicBool,
    /// Has the loop call `hand_in` soon.
    soon: Mutex<Option<Py<PyAny>>>,
}

impl Line {
    pub(crate) fn new() -> std::io::Result<Self> {
        let (tell, hear) = UnixStream::pair()?;
        tell.set_nonblocking(true)?;
        hear.set_nonblocking(true)?;
        Ok(Self {
            waiting: Mutex::default(),
            untold: AtomicBool::new(false),
            told: AtomicBool::new(false),
            tell,
            hear,
            leaving: Mutex::default(),
            taking: AtomicBool::new(false),
            soon: Mutex::default(),
        })
    }

    /// Adds a request, for the next [`Line::tell`]. Detached, from the engine's threads.
    pub(crate) fn request(&self, request: Request<Ticket>, deferred: Deferred) {
        locked(&self.waiting).push(Waiting::Request(Box::new((request, deferred))));
        self.untold.store(true, Ordering::SeqCst);
    }

    /// Tells that a client is gone. Detached, from the engine's threads.
    pub(crate) fn gone(&self, token: u64) {
        self.add(Waiting::Gone(token));
    }

    /// Tells a task that what it waits for has come. Detached, from the engine's threads.
    pub(crate) fn ring(&self, ring: Arc<Ring>) {
        self.add(Waiting::Ring(ring));
    }

    fn add(&self, waiting: Waiting) {
        locked(&self.waiting).push(waiting);
        self.untold.store(true, Ordering::SeqCst);
        self.tell();
    }

    /// Wakes the loop if something waits that it has not been told of: once for all that have come together.
    pub(crate) fn tell(&self) {
        if !self.untold.load(Ordering::Relaxed) || !self.untold.swap(false, Ordering::SeqCst) {
            return;
        }
        if !self.told.swap(true, Ordering::SeqCst) {
            // Fails only when the pipe is full, and then it wakes the loop all the same.
            let _ = (&self.tell).write(&[1]);
        }
    }

    /// Hands an answer to the engine, with all others of this turn of the loop.
    pub(crate) fn leave(&self, py: Python<'_>, deferred: Deferred) -> PyResult<()> {
        let is_first = {
            let mut leaving = locked(&self.leaving);
            leaving.push(deferred);
            leaving.len() == 1
        };
        if self.taking.load(Ordering::Relaxed) {
            return Ok(());
        }
        let soon = locked(&self.soon).as_ref().map(|soon| soon.clone_ref(py));
        match soon {
            Some(soon) if is_first => soon.call0(py).map(drop),
            Some(_) => Ok(()),
            None => {
                self.hand_in(py);
                Ok(())
            }
        }
    }

    fn hand_in(&self, py: Python<'_>) {
        let mut leaving = std::mem::take(&mut *locked(&self.leaving));
        py.detach(|| match leaving.len() {
            // The way through the leader would cost a single one more.
            1 => leaving.drain(..).for_each(Deferred::send),
            _ => Deferred::send_all(leaving),
        });
    }

    fn take(&self) -> Vec<Waiting> {
        if self.told.load(Ordering::SeqCst) {
            let mut bytes = [0; 64];
            // Nothing to read is as good as something.
            let _ = (&self.hear).read(&mut bytes);
            self.told.store(false, Ordering::SeqCst);
        }
        std::mem::take(&mut *locked(&self.waiting))
    }
}

/// A function to be called once, on the loop.
pub(crate) struct Ring(Mutex<Option<Py<PyAny>>>);

impl Ring {
    pub(crate) fn new(call: Py<PyAny>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(call))))
    }

    fn call(&self, py: Python<'_>) {
        let call = locked(&self.0).take();
        if let Some(Err(error)) = call.map(|call| call.call0(py)) {
            serve::log_error(py, &error, "in the event loop");
        }
    }
}

/// The loop's side of a server: `hipflask.loop` calls `take` when the descriptor is readable.
#[pyclass(frozen, module = "hipflask._core", name = "LaterLine")]
pub(crate) struct LaterLine {
    dispatcher: Arc<Dispatcher>,
    line: Arc<Line>,
}

impl LaterLine {
    pub(crate) fn new(dispatcher: Arc<Dispatcher>, line: Arc<Line>) -> Self {
        Self { dispatcher, line }
    }
}

#[pymethods]
impl LaterLine {
    /// The descriptor to wait for.
    fn fileno(&self) -> i32 {
        self.line.hear.as_raw_fd()
    }

    /// The host of the ASGI application, if the server serves one.
    #[getter]
    fn host(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.dispatcher.is_asgi.then(|| self.dispatcher.app().clone_ref(py))
    }

    /// Say what has the loop call `hand_in` soon; None when the server has ended, so that nothing holds itself.
    #[pyo3(signature = (soon))]
    fn hand_in_by(&self, soon: Option<Py<PyAny>>) {
        let before = std::mem::replace(&mut *locked(&self.line.soon), soon);
        drop(before);
    }

    /// Hand what has been answered to the engine.
    fn hand_in(&self, py: Python<'_>) {
        self.line.hand_in(py);
    }

    /// Begin what waits, and hand in what that has answered.
    ///
    /// Args:
    ///     serve: Called with the list of those exchanges whose view can be run at once, if there are any.
    ///     start: Called with each other exchange.
    ///     gone: Called with the token of each exchange whose client is gone.
    fn take(
        &self,
        py: Python<'_>,
        serve: &Bound<'_, PyAny>,
        start: &Bound<'_, PyAny>,
        gone: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.line.taking.store(true, Ordering::Relaxed);
        let taken = self.begin(py, serve, start, gone);
        self.line.taking.store(false, Ordering::Relaxed);
        self.line.hand_in(py);
        taken
    }
}

impl LaterLine {
    fn begin(
        &self,
        py: Python<'_>,
        serve: &Bound<'_, PyAny>,
        start: &Bound<'_, PyAny>,
        gone: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let is_plain = match self.dispatcher.hooks() {
            Some(hooks) => hooks.has_no_functions(py) && !hooks.signals.any_heard(py)?,
            None => false,
        };
        let plain = PyList::empty(py);
        for waiting in self.line.take() {
            match waiting {
                Waiting::Gone(token) => drop(gone.call1((token,))?),
                Waiting::Ring(ring) => ring.call(py),
                Waiting::Request(both) => {
                    let (request, deferred) = *both;
                    if self.dispatcher.is_asgi {
                        let exchange = AsgiExchange::new(request, deferred, &self.dispatcher, &self.line);
                        if let Err(error) = start.call1((exchange,)) {
                            serve::log_error(py, &error, "in the application");
                        }
                        continue;
                    }
                    let exchange = LaterExchange {
                        dispatcher: Arc::clone(&self.dispatcher),
                        token: deferred.token(),
                        handoff: Handoff::new(deferred, &self.dispatcher, &self.line),
                        line: Arc::clone(&self.line),
                        steps: Mutex::default(),
                        awaited: Mutex::default(),
                        request: Mutex::new(Some(request)),
                        begun: OnceLock::new(),
                        rest: Mutex::default(),
                        response: Mutex::default(),
                    };
                    if is_plain {
                        plain.append(exchange)?;
                    } else if let Err(error) = start.call1((exchange,)) {
                        serve::log_error(py, &error, "in the application");
                    }
                }
            }
        }
        if !plain.is_empty() {
            serve.call1((plain,))?;
        }
        Ok(())
    }
}

/// What was matched: the view's arguments, the endpoint, and whether OPTIONS is answered for the view.
type Found = (Py<PyDict>, Py<PyString>, bool);

/// What is known of an exchange once its context is bound.
struct Begun {
    request: Py<RequestBase>,
    frame: Py<Frame>,
    /// Until the frame is unbound.
    token: Mutex<Option<Token>>,
    ticket: Mutex<Option<Ticket>>,
    is_options: bool,
    is_heard: bool,
    has_session_cookie: bool,
    view: OnceLock<Option<Found>>,
}

/// One request on the event loop.
#[pyclass(frozen, module = "hipflask._core")]
struct LaterExchange {
    dispatcher: Arc<Dispatcher>,
    /// The exchange's name among those under way.
    #[pyo3(get)]
    token: u64,
    handoff: Arc<Handoff>,
    line: Arc<Line>,
    /// The coroutine that answers, while it is suspended.
    steps: Mutex<Option<Steps>>,
    /// What it waits for, until the task knows.
    awaited: Mutex<Option<Py<PyAny>>>,
    request: Mutex<Option<Request<Ticket>>>,
    begun: OnceLock<Begun>,
    /// What is left to do with the response once its context is gone.
    rest: Mutex<Option<Rest>>,
    /// The response object that was written, if one was.
    response: Mutex<Option<Py<PyAny>>>,
}

impl LaterExchange {
    fn hooks(&self) -> PyResult<&Hooks> {
        self.dispatcher.hooks().ok_or_else(|| PyRuntimeError::new_err("the app has no fast lane"))
    }

    fn begun(&self) -> PyResult<&Begun> {
        self.begun.get().ok_or_else(|| PyRuntimeError::new_err("the exchange has not begun"))
    }

    /// Runs something with the exchange as the dispatcher knows it.
    fn within<'py, T>(
        &self,
        py: Python<'py>,
        run: impl FnOnce(&Exchange<'_, 'py>, &Begun) -> PyResult<T>,
    ) -> PyResult<T> {
        let begun = self.begun()?;
        let app = self.dispatcher.app().bind(py);
        let exchange = Exchange::new(
            py,
            app,
            self.hooks()?,
            (begun.request.bind(py).clone(), begun.frame.bind(py).clone()),
            (begun.is_options, begun.is_heard, begun.has_session_cookie),
        );
        run(&exchange, begun)
    }

    /// Writes a response, in the place of one written before.
    fn write(&self, run: impl FnOnce(&mut Reply<'_>) -> PyResult<()>) -> PyResult<()> {
        // Not locked while `run` runs Python.
        let Some(mut deferred) = self.handoff.take() else { return Ok(()) };
        let written = deferred.write(run);
        self.handoff.put_back(deferred);
        written.map(drop)
    }

    /// Lets the loop make the body.
    fn begin_feed(&self, py: Python<'_>, rest: Rest) {
        if let Err(error) = rest.begin_feed(py) {
            serve::log_error(py, &error, "while a response's body was begun");
        }
    }

    /// Unbinds what `bind` has bound.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        let Some(begun) = self.begun.get() else { return Ok(()) };
        let token = locked(&begun.token).take();
        match token {
            Some(token) => {
                begun.frame.get().end(py)?;
                context::pop(py, &token)
            }
            None => Ok(()),
        }
    }

    /// Writes a response object. If it cannot be sent the server answers; Flask has no hand in that.
    fn write_object(&self, response: &Bound<'_, PyAny>, exchange: &Exchange<'_, '_>, reply: &mut Reply<'_>) {
        let rest = answer::response(response, exchange.request(), reply).unwrap_or_else(|error| {
            answer_unwritable(response.py(), &error, reply);
            None
        });
        // Dropped after the lock is open again: what is closed then may be Python.
        let before = std::mem::replace(&mut *locked(&self.rest), rest);
        drop(before);
        let before = locked(&self.response).replace(response.clone().unbind());
        drop(before);
    }
}

/// What `LaterExchange.run` says: the answer is given, but somebody has kept the task that it was given in.
const TOUCHED: u8 = 1;
/// The coroutine waits.
const SUSPENDED: u8 = 2;

impl LaterExchange {
    /// Binds, and calls the view.
    fn call(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.bind(py)?;
        self.open(py)?;
        self.call_view(py).map(Bound::unbind)
    }

    /// Does what comes after the view; gives a coroutine if that may have to wait.
    fn complete<'py>(
        slf: &Bound<'py, Self>,
        returned: PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, this) = (slf.py(), slf.get());
        let error = match returned {
            Ok(value) if this.is_plain(py)? => match this.write_value(py, &value) {
                Ok(()) if this.request_ctx(py)?.is_none() => {
                    this.close_files(py)?;
                    this.send(py)?;
                    return Ok(None);
                }
                Ok(()) => return tail(py, "_end", (slf,)),
                Err(error) => (error, false),
            },
            Ok(value) => return tail(py, "_complete", (slf, value)),
            Err(error) => (error, true),
        };
        tail(py, "_recover", (slf, error.0.into_value(py), error.1))
    }

    /// Whether nothing but the engine has to see the response.
    fn is_plain(&self, py: Python<'_>) -> PyResult<bool> {
        let hooks = self.hooks()?;
        Ok(hooks.has_no_functions(py) && !hooks.signals.any_heard(py)? && self.request_ctx(py)?.is_none())
    }

    /// Goes on with a coroutine, the view's or one that `complete` gave, as far as it goes; gives what it waits for.
    fn go_on<'py>(
        slf: &Bound<'py, Self>,
        context: Bound<'py, PyAny>,
        mut coroutine: Bound<'py, PyAny>,
        mut is_view: bool,
        thrown: Option<PyErr>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut next = match thrown {
            Some(error) => steps::throw(&coroutine, error),
            None => steps::step(&coroutine),
        };
        loop {
            let returned = match next {
                Step::Waits(awaited) => {
                    let steps = Steps::new(context, coroutine, is_view);
                    put(&slf.get().steps, Some(steps));
                    return Ok(Some(awaited));
                }
                Step::Returned(value) => Ok(value),
                Step::Raised(error) => Err(error),
            };
            if !is_view {
                return returned.map(|_| None);
            }
            match Self::complete(slf, returned)? {
                Some(tail) => (coroutine, is_view) = (tail, false),
                None => return Ok(None),
            }
            next = steps::step(&coroutine);
        }
    }

    /// Goes on where it was suspended.
    fn resume<'py>(slf: &Bound<'py, Self>, thrown: Option<PyErr>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let steps = locked(&slf.get().steps).take();
        let Some(steps) = steps else { return Ok(None) };
        let (context, coroutine) = steps.parts(slf.py());
        steps::within(&context, || Self::go_on(slf, context.clone(), coroutine, steps.is_view, thrown))
    }
}

/// Calls a coroutine function of `hipflask.later`.
fn tail<'py>(
    py: Python<'py>,
    name: &str,
    arguments: impl pyo3::call::PyCallArgs<'py>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    py.import(intern!(py, "hipflask.later"))?.getattr(name)?.call1(arguments).map(Some)
}

fn answer_unwritable(py: Python<'_>, error: &PyErr, reply: &mut Reply<'_>) {
    serve::log_error(py, error, "in the application");
    reply.reset();
    answer::server_error(reply);
}

#[pymethods]
impl LaterExchange {
    /// The coroutine that it waits for, as coroutines have it.
    #[getter]
    fn cr_await(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        locked(&self.steps).as_ref().map(|steps| steps.parts(py).1.unbind())
    }

    /// The app.
    #[getter]
    fn app(&self, py: Python<'_>) -> Py<PyAny> {
        self.dispatcher.app().clone_ref(py)
    }

    /// Answer, as far as that goes without waiting, in a context of its own; for an exchange without hooks.
    ///
    /// Args:
    ///     task: The running task. It is lent to the view, and is its own from then on if the view suspends.
    ///
    /// Returns:
    ///     0 if the answer is given; 1 if it is, but somebody has kept the task; 2 if the view waits: then this is to be
    ///     awaited.
    fn run(slf: &Bound<'_, Self>, task: &Bound<'_, PyAny>) -> PyResult<u8> {
        let py = slf.py();
        let lent = Lent::new(task)?;
        let context = steps::copy_context(py)?;
        let awaited = steps::within(&context, || {
            let called = slf.get().call(py).map(|value| value.into_bound(py));
            let coroutine = match called {
                Ok(value) if steps::is_coroutine(&value) => Some((value, true)),
                Ok(value) => match value.getattr_opt(intern!(py, "__await__"))? {
                    Some(method) => Some((method.call0()?, true)),
                    None => Self::complete(slf, Ok(value))?.map(|tail| (tail, false)),
                },
                Err(error) => Self::complete(slf, Err(error))?.map(|tail| (tail, false)),
            };
            match coroutine {
                Some((coroutine, is_view)) => Self::go_on(slf, context.clone(), coroutine, is_view, None),
                None => Ok(None),
            }
        })?;
        if let Some(awaited) = awaited {
            put(&slf.get().awaited, Some(awaited.unbind()));
            return Ok(SUSPENDED);
        }
        Ok(if lent.is_untouched(task)? { 0 } else { TOUCHED })
    }

    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let awaited = locked(&slf.get().awaited).take();
        match awaited {
            Some(awaited) => Ok(Some(awaited.into_bound(slf.py()))),
            None => Self::resume(slf, None),
        }
    }

    /// Raise an error where the view waits.
    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw<'py>(
        slf: &Bound<'py, Self>,
        kind: Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        traceback: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = traceback;
        let error = match value.filter(|value| !value.is_none()) {
            Some(value) => PyErr::from_value(value),
            None => PyErr::from_value(kind),
        };
        put(&slf.get().awaited, None);
        match Self::resume(slf, Some(error))? {
            Some(awaited) => Ok(awaited),
            None => Err(PyStopIteration::new_err(())),
        }
    }

    /// End the view where it waits.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let steps = locked(&slf.get().steps).take();
        let Some(steps) = steps else { return Ok(()) };
        let (context, coroutine) = steps.parts(slf.py());
        let name = intern!(slf.py(), "close");
        steps::within(&context, || coroutine.call_method0(name).map(drop))
    }

    /// Make the request object and bind it in the current context.
    fn bind(&self, py: Python<'_>) -> PyResult<()> {
        let Some(request) = locked(&self.request).take() else {
            return Err(PyRuntimeError::new_err("the exchange has begun already"));
        };
        self.handoff.begins();
        let hooks = self.hooks()?;
        let Request { head, body, ticket, conn } = request;
        let handoff = head.is_websocket().then(|| Arc::clone(&self.handoff));
        let hints = self.handoff.informs().then(|| Arc::clone(&self.handoff));
        let engine = EngineRequest { head, body, conn, handoff, hints };
        let is_options = engine.head.method() == b"OPTIONS";
        let has_session_cookie = hooks.has_session_cookie(py, &engine.head)?;
        let request = request::from_engine(py, hooks.request_class.bind(py), engine)?;
        let (frame, token) = context::push(
            py,
            self.dispatcher.app().bind(py),
            request.as_any(),
            hooks.cookie_sessions.as_ref(),
        )?;
        let is_heard = hooks.signals.any_heard(py)?;
        let begun = Begun {
            request: request.unbind(),
            frame,
            token: Mutex::new(Some(token)),
            ticket: Mutex::new(Some(ticket)),
            is_options,
            is_heard,
            has_session_cookie,
            view: OnceLock::new(),
        };
        let _ = self.begun.set(begun);
        Ok(())
    }

    /// Open the session where it has to be open, and match the URL.
    fn open(&self, py: Python<'_>) -> PyResult<()> {
        self.within(py, |exchange, begun| {
            let ticket = locked(&begun.ticket).take();
            let found = match &ticket {
                Some(Ticket::Found(found)) => Some(found),
                _ => None,
            };
            let view = exchange.open(found)?;
            let view =
                view.map(|view| (view.kwargs.unbind(), view.endpoint.unbind(), view.automatic_options));
            let _ = begun.view.set(view);
            Ok(())
        })
    }

    /// Call the view.
    ///
    /// Returns:
    ///     What it returned, to be awaited if it is awaitable.
    fn call_view<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.within(py, |exchange, begun| {
            let view = begun.view.get().and_then(Option::as_ref).map(|(kwargs, endpoint, automatic)| View {
                kwargs: kwargs.bind(py).clone(),
                endpoint: endpoint.bind(py).clone(),
                automatic_options: *automatic,
            });
            exchange.call_bare_view(view.as_ref())
        })
    }

    /// Write what a view returned, with the session; for an exchange without hooks.
    fn write_value(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.within(py, |exchange, _| {
            self.write(|reply| match exchange.finalize(value, reply)? {
                Some(response) => {
                    self.write_object(&response, exchange, reply);
                    Ok(())
                }
                None => Ok(()),
            })
        })
    }

    /// Write a response.
    fn write_response(&self, py: Python<'_>, response: &Bound<'_, PyAny>) -> PyResult<()> {
        self.within(py, |exchange, _| {
            self.write(|reply| {
                self.write_object(response, exchange, reply);
                Ok(())
            })
        })
    }

    /// Write the answer to what nobody handled.
    fn write_error(&self) -> PyResult<()> {
        let dropped = (locked(&self.rest).take(), locked(&self.response).take());
        drop(dropped);
        self.write(|reply| {
            answer::server_error(reply);
            Ok(())
        })
    }

    /// Save the session in a response, if there is one to save.
    fn save_session<'py>(&self, py: Python<'py>, response: &Bound<'py, PyAny>) -> PyResult<()> {
        self.within(py, |exchange, _| exchange.save_session(response))
    }

    /// The request context, if anybody has asked for it.
    #[getter]
    fn request_ctx<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.begun()?.frame.bind(py).get().request_ctx(py))
    }

    /// The request.
    #[getter]
    fn request<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, RequestBase>> {
        Ok(self.begun()?.request.bind(py).clone())
    }

    /// Close the files of the request's form.
    fn close_files(&self, py: Python<'_>) -> PyResult<()> {
        RequestBase::close_files(self.begun()?.request.bind(py))
    }

    /// Unbind the request, and send what was written; without that, a 500. Call it in the context of `bind`.
    fn send(&self, py: Python<'_>) -> PyResult<()> {
        let ended = self.end(py);
        let rest = locked(&self.rest).take();
        match rest {
            Some(rest @ Rest::Feed(..)) => self.begin_feed(py, rest),
            Some(rest @ Rest::Pieces(_)) => self.write(|reply| {
                if let Err(error) = rest.finish(py, reply) {
                    answer_unwritable(py, &error, reply);
                }
                Ok(())
            })?,
            Some(Rest::Close(closed)) => answer::close(closed.bind(py))?,
            None => {}
        }
        let response = locked(&self.response).take();
        if let Some(mut deferred) = self.handoff.take() {
            if let Some(response) = response {
                let response = response.bind(py);
                match self.within(py, |exchange, _| exchange.after_response(response)) {
                    Ok(Some(done)) => deferred.afterwards(done),
                    Ok(None) => {}
                    Err(error) => serve::log_error(py, &error, "in the application"),
                }
            }
            self.line.leave(py, deferred)?;
        }
        ended.and_then(|()| self.dispatcher.look_again(py))
    }
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<LaterLine>()?;
    module.add_class::<LaterExchange>()?;
    module.add_function(wrap_pyfunction!(on_loop_thread, module)?)?;
    module.add_function(wrap_pyfunction!(begin_loop_thread, module)?)
}
