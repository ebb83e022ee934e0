//! `hipflask._core.Monitor`: what a server counts, and the sockets at which it tells. See `hipflask/metrics.py`.

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use hipflask_http::RequestHead;
use hipflask_server::{Board, Monitor, Role, Routed, Stats, content_type, wants_open_metrics};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::crew::PyCrew;

/// The counts of a server, and the sockets at which it tells them.
///
/// Its memory is shared with processes that are forked later.
///
/// Args:
///     slots: Workers that count apart from each other.
///     crew: Those that serve, to be asked whether they turn.
///
/// Raises:
///     OSError: If there is not enough memory, or no descriptor.
#[pyclass(frozen, module = "hipflask._core", name = "Monitor")]
pub(crate) struct PyMonitor {
    monitor: Arc<Monitor>,
}

impl PyMonitor {
    /// Where this process counts.
    pub(crate) fn stats(&self, slot: usize) -> Arc<Stats> {
        Arc::new(Stats::new(Arc::clone(self.monitor.board()), slot))
    }

    pub(crate) fn board(&self) -> Arc<Board> {
        Arc::clone(self.monitor.board())
    }
}

#[pymethods]
impl PyMonitor {
    #[new]
    #[pyo3(signature = (slots, crew=None))]
    fn new(slots: usize, crew: Option<&Bound<'_, PyCrew>>) -> PyResult<Self> {
        let board = Arc::new(match crew {
            Some(crew) => Board::of(slots, crew.get().crew())?,
            None => Board::new(slots)?,
        });
        Ok(Self { monitor: Arc::new(Monitor::new(board)?) })
    }

    /// Answer at the sockets of these numbers, which are copied, and at no others. Not after `start`.
    ///
    /// Args:
    ///     listeners: Descriptors, and what is told there: ``metrics`` or ``control``.
    ///
    /// Raises:
    ///     OSError: If one does not listen.
    fn listen(&self, listeners: Vec<(RawFd, String)>) -> PyResult<()> {
        self.monitor.forget_listeners();
        for (number, role) in listeners {
            let role = match role.as_str() {
                "metrics" => Role::Metrics,
                "control" => Role::Control,
                _ => return Err(PyValueError::new_err("a role is metrics or control")),
            };
            // SAFETY: the descriptor is only copied; whoever passes its number keeps it open during this call.
            let copy = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()?;
            self.monitor.listen(copy, role)?;
        }
        Ok(())
    }

    /// A descriptor that can be read when there is something for `turn` to do.
    fn fileno(&self) -> RawFd {
        self.monitor.poll_fd()
    }

    /// Do what is there to do.
    fn turn(&self) -> PyResult<()> {
        Ok(self.monitor.turn(Some(Duration::ZERO))?)
    }

    /// Answer on a thread of its own, which never needs the interpreter.
    fn start(&self) -> PyResult<()> {
        let monitor = Arc::clone(&self.monitor);
        std::thread::Builder::new().name("hipflask-monitor".to_owned()).spawn(move || monitor.run())?;
        Ok(())
    }

    /// Answer no more, in this process.
    fn close(&self) {
        self.monitor.close();
    }

    /// Say how long an engine may be silent until it is not well, and a queue full until its process is not ready.
    fn set_patience(&self, seconds: f64) -> PyResult<()> {
        let patience =
            Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.monitor.board().set_patience(patience);
        Ok(())
    }

    /// Say that a stop has begun, or that it has not.
    fn set_draining(&self, draining: bool) {
        self.monitor.board().set_draining(draining);
    }

    /// Count a worker that takes the place of another one.
    fn count_restart(&self) {
        self.monitor.board().count_restart();
    }

    /// Forget the state of a process that has ended; its counts stay.
    fn forget(&self, pid: u32) {
        self.monitor.board().forget(pid);
    }

    /// All counts in the text format of Prometheus.
    ///
    /// Args:
    ///     open_metrics: Whether to write OpenMetrics 1.0 instead.
    ///
    /// Returns:
    ///     The text, and its content type.
    #[pyo3(signature = (open_metrics=false))]
    fn metrics(&self, py: Python<'_>, open_metrics: bool) -> (String, &'static str) {
        (py.detach(|| self.monitor.board().prometheus(open_metrics)), content_type(open_metrics))
    }

    /// All that is known, as JSON.
    fn status(&self, py: Python<'_>) -> String {
        py.detach(|| self.monitor.board().status())
    }
}

/// The answer to a request for the metrics on an app's own address.
pub(crate) fn page<T>(board: &Arc<Board>, head: &RequestHead) -> Routed<T> {
    let board = Arc::clone(board);
    let open_metrics = wants_open_metrics(head);
    Routed::Answer(Box::new(move |reply| {
        reply.start(200, None);
        // Both are valid field values.
        let _ = reply.field(b"Content-Type", content_type(open_metrics).as_bytes());
        let _ = reply.field(b"Cache-Control", b"no-store");
        reply.body(board.prometheus(open_metrics).as_bytes());
    }))
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyMonitor>()
}
