//! `hipflask._core.Server`: the engine behind a Flask app or another WSGI callable.
//!
//! Serving threads are the engine's; each keeps one interpreter thread state for its whole life. Python's main thread
//! only starts and stops the server (see `hipflask/serving.py`).

use std::cell::Cell;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hipflask_http::RequestHead;
use hipflask_server as server;
use hipflask_server::{
    AccessLog, Answered, Board, ConnInfo, Deferred, Handler, Notice, Refusal, Reply, Request, Routed, Slow,
};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::access_log;
use crate::crew::PyCrew;
use crate::dispatch::{Dispatcher, Ticket};
use crate::environ::MULTIPROCESS;
use crate::later::{LaterLine, Line};
use crate::locked;
use crate::monitor::{self, PyMonitor};
use crate::report::Reporter;
use crate::settings;
use crate::tls::PyTls;
use crate::websocket::Threads;

/// An interpreter thread state that belongs to one serving thread.
pub(crate) struct Thread {
    /// What `PyGILState_Ensure` gave when the thread began; undone when it ends.
    first: ffi::PyGILState_STATE,
    state: *mut ffi::PyThreadState,
}

thread_local! {
    static IS_SERVING: Cell<bool> = const { Cell::new(false) };
}

thread_local! {
    static BODY_IS_ARRIVING: Cell<bool> = const { Cell::new(false) };
}

/// Notes whether the body of the request that this thread answers is still arriving.
pub(crate) fn note_body(is_arriving: bool) {
    BODY_IS_ARRIVING.set(is_arriving);
}

/// Whether the body of the request that the current thread answers was still arriving when it was called.
#[pyfunction]
fn body_is_arriving() -> bool {
    BODY_IS_ARRIVING.get()
}

/// Has the current thread, which does background work, count as one of the engine's.
pub(crate) fn count_as_serving() {
    IS_SERVING.set(true);
}

/// Whether the current thread is one of the engine's.
#[pyfunction]
fn on_serving_thread() -> bool {
    IS_SERVING.get()
}

/// The application, as the engine sees it.
struct Application {
    dispatcher: Arc<Dispatcher>,
    /// Requests on their way to the event loop.
    line: Arc<Line>,
    websockets: Arc<Threads>,
    access_log: Option<AccessLog>,
    /// The path at which metrics are told, and what knows them.
    metrics: Option<(String, Arc<Board>)>,
    /// Called when something happens that the process waits for.
    tell: Option<Py<PyAny>>,
    reporter: Arc<Reporter>,
}

impl Handler for Application {
    type Ticket = Ticket;
    type Thread = Thread;

    fn start_thread(&self) -> Thread {
        IS_SERVING.set(true);
        // SAFETY: the interpreter is alive: `Server` joins every serving thread before it lets go of it. After this
        // pair the thread has a thread state of its own and is detached.
        unsafe {
            let first = ffi::PyGILState_Ensure();
            Thread { first, state: ffi::PyEval_SaveThread() }
        }
    }

    fn stop_thread(&self, thread: Thread) {
        // SAFETY: `state` is this thread's own, and the thread is detached; the state is freed here, once.
        unsafe {
            ffi::PyEval_RestoreThread(thread.state);
            ffi::PyGILState_Release(thread.first);
        }
    }

    fn attach(&self, thread: &mut Thread) {
        // SAFETY: `state` is this thread's own, and the engine pairs attach with detach.
        unsafe { ffi::PyEval_RestoreThread(thread.state) }
    }

    fn detach(&self, thread: &mut Thread) {
        // SAFETY: the thread is attached: the engine pairs attach with detach.
        thread.state = unsafe { ffi::PyEval_SaveThread() };
    }

    fn route(&self, head: &RequestHead, _conn: &ConnInfo) -> Routed<Ticket> {
        if let Some((path, board)) = &self.metrics
            && head.raw_path() == path.as_bytes()
            && matches!(head.method(), b"GET" | b"HEAD")
        {
            return monitor::page(board, head);
        }
        self.dispatcher.route(head)
    }

    fn call(&self, _thread: &mut Thread, request: Request<Ticket>, reply: &mut Reply<'_>) {
        // The engine has attached this thread already, so this only tells PyO3.
        Python::attach(|py| self.dispatcher.call(py, request, reply));
    }

    fn defer(&self, request: Request<Ticket>, deferred: Deferred) {
        if request.head.is_websocket() && !self.dispatcher.is_later(&request.ticket) {
            self.websockets.begin(&self.dispatcher, &self.line, request, deferred);
        } else {
            self.line.request(request, deferred);
        }
    }

    fn deferred(&self) {
        self.line.tell();
    }

    fn gone(&self, token: u64) {
        self.line.gone(token);
    }

    fn refused(&self, refusal: &Refusal, conn: &ConnInfo) {
        self.reporter.refused(refusal, conn);
    }

    fn slow(&self, slow: &Slow) {
        self.reporter.slow(slow);
    }

    fn notice(&self, notice: &Notice) {
        let (level, line) = match notice {
            Notice::AcceptPaused(why) => ("error", format!("accepting pauses: {why}")),
            Notice::AcceptResumed => ("error", "accepting goes on".to_owned()),
            Notice::Retaken => return,
            Notice::Served => return self.tell("served"),
            Notice::Closed => return self.tell("closed"),
            Notice::CertificatesReloaded => ("info", "certificates have changed and are in use".to_owned()),
            Notice::CertificatesKept(why) => {
                let what = "certificates have changed and cannot be used, those from before stay";
                ("error", format!("{what}: {why}"))
            }
            Notice::NotSent(name) => {
                let what = "which is no file that may be sent: answered with 404";
                ("error", format!("a response names {name:?}, {what}"))
            }
            Notice::Stuck(count) => {
                self.tell("stuck");
                let what = "threads are in views whose requests have been answered by their deadlines";
                ("error", format!("{count} {what}"))
            }
            Notice::Panic(what) => ("error", format!("a panic was caught: {what}")),
        };
        self.reporter.line(level, line);
    }

    fn answered(&self, answered: &Answered<'_>) {
        if let Some(log) = &self.access_log {
            log.write(answered);
        }
    }
}

impl Application {
    /// Tells the process that something has happened.
    fn tell(&self, what: &str) {
        let Some(tell) = &self.tell else { return };
        Python::attach(|py| {
            if let Err(error) = tell.call1(py, (what,)) {
                error.write_unraisable(py, None);
            }
        });
    }
}

/// Writes a line to the logger `hipflask`; never fails.
pub(crate) fn log(py: Python<'_>, level: &str, line: &str) {
    let written = serving(py)
        .and_then(|module| module.getattr(intern!(py, "server_logger")))
        .and_then(|logger| logger.call0())
        .and_then(|logger| logger.call_method1(level, ("%s", line)));
    if let Err(error) = written {
        error.write_unraisable(py, None);
    }
}

/// Logs an exception with its traceback to the logger `hipflask`; never fails.
pub(crate) fn log_error(py: Python<'_>, error: &PyErr, when: &str) {
    let written = serving(py)
        .and_then(|module| module.getattr(intern!(py, "server_logger")))
        .and_then(|logger| logger.call0())
        .and_then(|logger| {
            let options = pyo3::types::PyDict::new(py);
            options.set_item("exc_info", error.value(py))?;
            logger.call_method(intern!(py, "error"), ("Exception %s", when), Some(&options))
        });
    if let Err(failure) = written {
        failure.write_unraisable(py, None);
    }
}

/// A server for one application.
///
/// Binding happens at construction, so that a port in use is an `OSError` at once; serving begins with `start`.
#[pyclass(frozen, module = "hipflask._core", name = "Server")]
struct PyServer {
    addresses: Vec<String>,
    application: Arc<Application>,
    bound: Mutex<Option<server::Bound>>,
    running: Mutex<Option<server::Running<Application>>>,
    /// Held while the server starts. Waited for detached.
    starting: Mutex<()>,
    /// The app has prepared to serve, and not been told that it is over.
    has_begun: AtomicBool,
}

#[pymethods]
impl PyServer {
    /// Bind.
    ///
    /// Args:
    ///     app: A Flask app, any WSGI callable, or the ``hipflask.asgi.Host`` of an ASGI application.
    ///     binds: Where to listen: ``host:port``, ``[::1]:port``, ``unix:path`` or ``fd:number``.
    ///     threads: The most threads that views run on.
    ///     access_log: Whether to write a line for each answer to standard error; or a dictionary that may say where
    ///         ``to``, in which ``format``, and which ``sample`` of them.
    ///     settings: Further settings by name (see ``engine_settings``).
    ///     shared: Whether other processes accept from the same listeners.
    ///     tell: Called with ``"served"`` after `most` requests, and with ``"closed"`` when a stop has begun and no more
    ///         connections are accepted.
    ///     most: A number of requests.
    ///     tls: What is needed to speak TLS on all of ``binds``.
    ///     redirects: Where to listen only to send clients to the first of ``binds``.
    ///     redirect_port: The port to send them to, if it is another one for them.
    ///     monitor: Where to count what happens.
    ///     slot: In whose place there.
    ///     metrics_path: The path at which the counts are told, in the place of the app.
    ///     crew: The processes that accept from the same listeners.
    #[new]
    #[pyo3(signature = (app, binds, *, threads=None, access_log=None, settings=None, shared=false, tell=None, most=None,
        tls=None, redirects=None, redirect_port=None, monitor=None, slot=0, metrics_path=None, crew=None))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords to Python")]
    fn new(
        app: &Bound<'_, PyAny>,
        binds: Vec<String>,
        threads: Option<usize>,
        access_log: Option<&Bound<'_, PyAny>>,
        settings: Option<&Bound<'_, PyDict>>,
        shared: bool,
        tell: Option<Py<PyAny>>,
        most: Option<u64>,
        tls: Option<&Bound<'_, PyTls>>,
        redirects: Option<Vec<String>>,
        redirect_port: Option<u16>,
        monitor: Option<&Bound<'_, PyMonitor>>,
        slot: usize,
        metrics_path: Option<String>,
        crew: Option<&Bound<'_, PyCrew>>,
    ) -> PyResult<Self> {
        let access_log = access_log.map(access_log::open).transpose()?.flatten();
        let mut config = server::Config {
            binds: parse_binds(binds)?,
            redirect_binds: parse_binds(redirects.unwrap_or_default())?,
            redirect_port,
            tls: tls.map(|tls| Arc::clone(&tls.get().tls)),
            tell_answers: access_log.is_some() || monitor.is_some(),
            tell_fields: access_log.as_ref().map(|log| log.fields().to_vec()).unwrap_or_default(),
            stats: monitor.map(|monitor| monitor.get().stats(slot)),
            shared,
            crew: crew
                .map(|crew| crew.get().crew())
                .or_else(|| monitor.map(|monitor| Arc::clone(monitor.get().board().crew()))),
            tell_after: most,
            ..server::Config::default()
        };
        if let Some(threads) = threads {
            config.threads = threads;
        }
        if let Some(settings) = settings {
            settings::apply(&mut config, settings)?;
        }
        let bound = server::Server::bind(config).map_err(os_error)?;
        MULTIPROCESS.fetch_or(shared, Ordering::SeqCst);
        let dispatcher = Arc::new(Dispatcher::new(app)?);
        let line = Arc::new(Line::new()?);
        let reporter = Reporter::new(&dispatcher, &line);
        Ok(Self {
            addresses: bound.local_addrs().iter().map(ToString::to_string).collect(),
            application: Arc::new(Application {
                dispatcher,
                line,
                websockets: Threads::of(app)?,
                access_log,
                metrics: metrics_path.zip(monitor.map(|monitor| monitor.get().board())),
                tell,
                reporter,
            }),
            bound: Mutex::new(Some(bound)),
            running: Mutex::new(None),
            starting: Mutex::new(()),
            has_begun: AtomicBool::new(false),
        })
    }

    /// Where the server listens, with the ports that the system chose.
    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// Open the access log's file anew, since it was moved away.
    fn reopen_log(&self) {
        if let Some(log) = &self.application.access_log {
            log.writer().reopen();
        }
    }

    /// How many lines of the access log were lost, since they came faster than they were taken.
    #[getter]
    fn lost_log_lines(&self) -> u64 {
        self.application.access_log.as_ref().map_or(0, |log| log.writer().dropped())
    }

    /// How many threads are held by views of WebSockets, and how many may be.
    #[getter]
    fn websocket_threads(&self) -> (usize, usize) {
        self.application.websockets.count()
    }

    /// The views that have run for longer than some milliseconds.
    ///
    /// Returns:
    ///     For each the number and name of its thread, its rule, method and target, seconds, and whether its request has
    ///     been answered by the deadline.
    fn running(&self) -> Vec<(u64, String, Option<String>, String, f64, bool)> {
        let running = locked(&self.running).clone();
        let busy = running.map(|running| running.busy()).unwrap_or_default();
        busy.into_iter()
            .map(|busy| {
                let request = String::from_utf8_lossy(&busy.request).into_owned();
                let route = busy.route.name().map(str::to_owned);
                let took = busy.since.elapsed().as_secs_f64();
                (busy.thread, busy.name.to_string(), route, request, took, busy.is_late)
            })
            .collect()
    }

    /// How many threads run views whose requests have been answered by their deadlines, and how many may.
    #[getter]
    fn stuck_threads(&self) -> (usize, usize) {
        let running = locked(&self.running).clone();
        running.map_or((0, 0), |running| running.stuck_threads())
    }

    /// Begin to serve, on threads of the engine; returns as soon as the app has prepared to serve.
    ///
    /// Raises:
    ///     BaseException: What a function of `before_serving` raised.
    fn start(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (this, py) = (slf.get(), slf.py());
        if locked(&this.bound).is_some() {
            let app = this.application.dispatcher.app();
            serving(py)?.call_method1(intern!(py, "begin_lifespan"), (app,))?;
            this.has_begun.store(true, Ordering::SeqCst);
        }
        let bound = locked(&this.bound)
            .take()
            .ok_or_else(|| PyRuntimeError::new_err("the server was started already"))?;
        shorten_switch_interval(py)?;
        let application = Arc::clone(&this.application);
        let (dispatcher, line) = (Arc::clone(&application.dispatcher), Arc::clone(&application.line));
        application.dispatcher.serve_later(py, Py::new(py, LaterLine::new(dispatcher, line))?)?;
        let serving = serving(py)?;
        // From here on an end of the process waits until the server can be stopped.
        let starting = locked(&this.starting);
        serving.call_method1(intern!(py, "stop_at_exit"), (slf,))?;
        let running = match py.detach(move || bound.run(application)) {
            Ok(running) => running,
            Err(error) => {
                serving.call_method1(intern!(py, "is_stopped"), (slf,))?;
                return Err(error.into());
            }
        };
        let asked = running.clone();
        this.application.reporter.ask_by(Some(Box::new(move || asked.busy())));
        *locked(&this.running) = Some(running);
        drop(starting);
        Ok(())
    }

    /// Look whether connections wait at listeners that other processes have too; call it when one of those has died.
    fn look(&self) {
        if let Some(running) = &*locked(&self.running) {
            running.look();
        }
    }

    /// Stop: accept nothing more, finish what runs for at most `grace` seconds, then cut the rest.
    ///
    /// May be called again, with less grace, from another thread.
    ///
    /// Args:
    ///     grace: Seconds that requests get to finish.
    ///     wait: The most seconds to wait for the end; as long as it takes if None.
    ///     hand_over: Whether connections that are not accepted yet are left to other processes.
    ///
    /// Returns:
    ///     Whether every serving thread has ended. A view that does not come back keeps its thread.
    #[pyo3(signature = (grace=30.0, wait=None, hand_over=false))]
    fn stop(slf: &Bound<'_, Self>, grace: f64, wait: Option<f64>, hand_over: bool) -> PyResult<bool> {
        let (this, py) = (slf.get(), slf.py());
        let seconds = |number| {
            Duration::try_from_secs_f64(number).map_err(|error| PyValueError::new_err(error.to_string()))
        };
        let (grace, wait) = (seconds(grace)?, wait.map(seconds).transpose()?);
        locked(&this.bound).take();
        py.detach(|| drop(locked(&this.starting)));
        let running = locked(&this.running).clone();
        let begun = Instant::now();
        let ended = running.is_none_or(|running| {
            py.detach(|| {
                match hand_over {
                    true => running.hand_over(Some(grace)),
                    false => running.stop(Some(grace)),
                }
                match wait {
                    Some(wait) => {
                        running.wait_timeout(wait);
                    }
                    None => running.wait(),
                }
                !running.has_threads() && this.application.websockets.wait(wait.unwrap_or(grace))
            })
        });
        if let Some(log) = &this.application.access_log {
            py.detach(|| log.flush(access_log::END));
        }
        py.detach(|| this.application.reporter.end());
        this.application.dispatcher.serve_no_later(py)?;
        if this.has_begun.swap(false, Ordering::SeqCst) {
            let app = this.application.dispatcher.app();
            let most = wait.map(|wait| wait.as_secs_f64());
            let left = grace.saturating_sub(begun.elapsed()).as_secs_f64();
            serving(py)?.call_method1(intern!(py, "end_lifespan"), (app, most, left))?;
        }
        if ended {
            serving(py)?.call_method1(intern!(py, "is_stopped"), (slf,))?;
        }
        Ok(ended)
    }
}

/// How long a view that computes may keep the interpreter from the others, in seconds.
///
/// CPython's default is ten times that, and each time a fast view waits so long for it. Measured beside views that burn
/// CPU: the 99th percentile of fast ones falls from 8.7 to 3.6 ms.
const SWITCH_INTERVAL: f64 = 0.000_5;
const DEFAULT_SWITCH_INTERVAL: f64 = 0.005;

fn serving(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "hipflask.serving"))
}

/// Sets the interval unless the program has chosen one.
fn shorten_switch_interval(py: Python<'_>) -> PyResult<()> {
    let sys = py.import(intern!(py, "sys"))?;
    let now: f64 = sys.call_method0(intern!(py, "getswitchinterval"))?.extract()?;
    if (now - DEFAULT_SWITCH_INTERVAL).abs() < 1e-9 {
        sys.call_method1(intern!(py, "setswitchinterval"), (SWITCH_INTERVAL,))?;
    }
    Ok(())
}

/// An error of the system with its number, by which Python tells what it is.
pub(crate) fn os_error(error: std::io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string())),
        None => error.into(),
    }
}

fn parse_binds(texts: Vec<String>) -> PyResult<Vec<server::Bind>> {
    let found: Vec<_> = texts.into_iter().map(|text| parse_bind(&text)).collect::<PyResult<_>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// Where a text says to listen: a name may stand for several addresses.
fn parse_bind(text: &str) -> PyResult<Vec<server::Bind>> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(vec![server::Bind::Unix(path.into())]);
    }
    if let Some(number) = text.strip_prefix("fd:") {
        let number: RawFd = number
            .parse()
            .map_err(|_| PyValueError::new_err(format!("{text:?} names no file descriptor")))?;
        // SAFETY: the descriptor is only copied; whoever passes its number keeps it open during this call.
        let copy = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()?;
        return Ok(vec![server::Bind::Listener(copy)]);
    }
    let mut addresses: Vec<SocketAddr> = text.to_socket_addrs()?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.first().is_some_and(|address| address.port() == 0) {
        // Each address would get another port.
        addresses.truncate(1);
    }
    Ok(addresses.into_iter().map(server::Bind::Tcp).collect())
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyServer>()?;
    module.add_function(wrap_pyfunction!(body_is_arriving, module)?)?;
    module.add_function(wrap_pyfunction!(on_serving_thread, module)?)
}
