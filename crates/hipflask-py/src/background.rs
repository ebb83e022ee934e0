//! The queue of an app's background work: jobs that are not to hold up a request.
//!
//! Python's side (`hipflask/background.py`) has the threads that take jobs, and says what a job is. This half is native
//! so that the engine can add the job of a response that is out without attaching to the interpreter.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hipflask_server::Reply;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::locked;

#[derive(Default)]
struct State {
    jobs: VecDeque<Py<PyAny>>,
    /// Jobs whose response is not out yet.
    expected: usize,
    /// Jobs that run on a thread.
    running: usize,
    /// Jobs that run on the event loop.
    looping: usize,
    /// Threads that live, and those of them that wait.
    threads: usize,
    idle: usize,
    finished: u64,
    failed: u64,
    refused: u64,
}

impl State {
    fn is_still(&self) -> bool {
        self.jobs.is_empty() && self.expected == 0 && self.running == 0 && self.looping == 0
    }
}

/// The jobs of an app, bounded.
struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    stilled: Condvar,
    /// Jobs that wait, at most.
    most: usize,
    threads: usize,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody waits for the interpreter while holding it, so that an attached thread may wait for it.
        locked(&self.state)
    }

    fn add(&self, job: Py<PyAny>) -> Result<(), Py<PyAny>> {
        let mut state = self.lock();
        if state.jobs.len() >= self.most {
            state.refused += 1;
            return Err(job);
        }
        state.jobs.push_back(job);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    fn still(&self, state: MutexGuard<'_, State>) {
        let is_still = state.is_still();
        drop(state);
        if is_still {
            self.stilled.notify_all();
        }
    }

    fn wait_still(&self, timeout: Option<Duration>) -> bool {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        while !state.is_still() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(left) if left.is_zero() => return false,
                Some(left) => {
                    self.stilled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.stilled.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        true
    }
}

/// A job that will come once its response is out; counted so that no thread leaves meanwhile.
struct Expected(Arc<Queue>);

impl Expected {
    /// One more for a `BackgroundTasks`, which starts a thread for it unless one waits.
    fn by(tasks: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = tasks.py();
        let queue = tasks.getattr(intern!(py, "_queue"))?.cast_into::<JobQueue>()?;
        queue.get().0.lock().expected += 1;
        let expected = Self(Arc::clone(&queue.get().0));
        tasks.call_method0(intern!(py, "_provide_thread"))?;
        Ok(expected)
    }

    /// The response is out.
    fn arrive(self, job: Py<PyAny>) {
        if let Err(job) = self.0.add(job) {
            Python::attach(|py| {
                crate::serve::log(
                    py,
                    "error",
                    "work after a response was dropped: the queue of background work is full",
                );
                drop(job);
            });
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.expected -= 1;
        self.0.still(state);
    }
}

/// The jobs of an app that wait for a thread, and the counts of all of them.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct JobQueue(Arc<Queue>);

#[pymethods]
impl JobQueue {
    /// Make a queue of at most ``most`` waiting jobs, for at most ``threads`` threads.
    #[new]
    fn new(most: usize, threads: usize) -> PyResult<Self> {
        if most == 0 || threads == 0 {
            return Err(PyValueError::new_err("a queue needs room for a job, and a thread"));
        }
        Ok(Self(Arc::new(Queue {
            state: Mutex::default(),
            arrived: Condvar::new(),
            stilled: Condvar::new(),
            most,
            threads,
        })))
    }

    /// Add a job; False if the queue is full.
    fn put(&self, job: Py<PyAny>) -> bool {
        // A refused job is dropped here, attached.
        self.0.add(job).is_ok()
    }

    /// Whether a thread must be started; it is counted in.
    fn wants_thread(&self) -> bool {
        let mut state = self.0.lock();
        // A response that goes out needs a thread that waits already.
        let wanted = state.jobs.len().max(state.expected.min(1));
        let wants = state.idle < wanted && state.threads < self.0.threads;
        if wants {
            state.threads += 1;
        }
        wants
    }

    /// Count a thread out that could not be started.
    fn leave(&self) {
        self.0.lock().threads -= 1;
    }

    /// Take a job, on a thread that was counted in; None if the thread is to end, since none came for ``patience`` seconds.
    fn take(&self, py: Python<'_>, patience: f64) -> PyResult<Option<Py<PyAny>>> {
        let patience = seconds(patience)?;
        // What a job awaits runs on the process's event loop, as in requests.
        crate::serve::count_as_serving();
        let queue = &*self.0;
        Ok(py.detach(|| {
            let mut state = queue.lock();
            loop {
                if let Some(job) = state.jobs.pop_front() {
                    state.running += 1;
                    return Some(job);
                }
                state.idle += 1;
                let (woken, timed) =
                    queue.arrived.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                state.idle -= 1;
                if timed.timed_out() && state.jobs.is_empty() && state.expected == 0 {
                    state.threads -= 1;
                    return None;
                }
            }
        }))
    }

    /// Tell that a taken job has ended.
    fn done(&self, failed: bool) {
        let mut state = self.0.lock();
        state.running -= 1;
        state.finished += 1;
        state.failed += u64::from(failed);
        self.0.still(state);
    }

    /// Count a job in that runs on the event loop; False if as many run there as may wait here.
    fn loop_starts(&self) -> bool {
        let mut state = self.0.lock();
        let fits = state.looping < self.0.most;
        if fits {
            state.looping += 1;
        } else {
            state.refused += 1;
        }
        fits
    }

    /// Tell that a job of the event loop has ended.
    fn loop_done(&self, failed: bool) {
        let mut state = self.0.lock();
        state.looping -= 1;
        state.finished += 1;
        state.failed += u64::from(failed);
        self.0.still(state);
    }

    /// Wait until nothing waits or runs, at most ``timeout`` seconds; whether it is so.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let timeout = timeout.map(seconds).transpose()?;
        Ok(py.detach(|| self.0.wait_still(timeout)))
    }

    /// Jobs that wait, run, have ended, have failed, were refused; and threads.
    fn counts(&self) -> (usize, usize, u64, u64, u64, usize) {
        let state = self.0.lock();
        (
            state.jobs.len() + state.expected,
            state.running + state.looping,
            state.finished,
            state.failed,
            state.refused,
            state.threads,
        )
    }
}

fn seconds(number: f64) -> PyResult<Duration> {
    // What is too long for a clock is for ever.
    let number = number.clamp(0.0, 1e9);
    Duration::try_from_secs_f64(number).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// What the engine is to do once a response is out, if there is anything.
///
/// `context` is the request's context, with the functions of `after_response`.
pub(crate) fn after_response<'py>(
    app: &Bound<'py, PyAny>,
    context: &Bound<'py, PyAny>,
    response: &Bound<'py, PyAny>,
) -> PyResult<Option<Box<dyn FnOnce() + Send>>> {
    let py = app.py();
    let prepare = py.import(intern!(py, "hipflask.background"))?.getattr(intern!(py, "_prepare"))?;
    let prepared = prepare.call1((app, context, response))?;
    if prepared.is_none() {
        return Ok(None);
    }
    let (tasks, job): (Bound<'py, PyAny>, Py<PyAny>) = prepared.extract()?;
    let expected = Expected::by(&tasks)?;
    Ok(Some(Box::new(move || expected.arrive(job))))
}

/// What the engine puts into a WSGI environ: called with a `BackgroundTasks` and a job, has the job queued after the
/// response.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct AfterResponse(Mutex<Vec<(Expected, Py<PyAny>)>>);

#[pymethods]
impl AfterResponse {
    fn __call__(&self, tasks: &Bound<'_, PyAny>, job: Py<PyAny>) -> PyResult<()> {
        let expected = Expected::by(tasks)?;
        locked(&self.0).push((expected, job));
        Ok(())
    }
}

impl AfterResponse {
    /// The key in the environ.
    pub(crate) const KEY: &'static str = "hipflask.after_response";

    pub(crate) fn new(py: Python<'_>) -> PyResult<Bound<'_, Self>> {
        Bound::new(py, Self(Mutex::default()))
    }

    /// Hands what was collected to the engine.
    pub(crate) fn schedule(&self, reply: &mut Reply<'_>) {
        let collected = std::mem::take(&mut *locked(&self.0));
        for (expected, job) in collected {
            reply.afterwards(Box::new(move || expected.arrive(job)));
        }
    }
}

/// Whether a request's context has functions of `after_response`.
pub(crate) fn is_wanted(context: &Bound<'_, PyAny>) -> PyResult<bool> {
    let functions = context.getattr(intern!(context.py(), "_after_response_functions"))?;
    Ok(!functions.cast_into::<PyList>()?.is_empty())
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<JobQueue>()?;
    module.add_class::<AfterResponse>()
}
