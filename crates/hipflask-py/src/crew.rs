//! `hipflask._core.Crew`: the processes that accept from the same sockets. See `hipflask/supervisor.py`.

use std::sync::Arc;

use hipflask_server::Crew;
use pyo3::prelude::*;

/// Processes that accept from the same sockets: how many connections each has, and whether it turns.
///
/// Its memory is shared with processes that are forked later.
///
/// Args:
///     places: Processes that may take part at the same time; further ones do without.
///
/// Raises:
///     OSError: If there is not enough memory, or no descriptor.
#[pyclass(frozen, module = "hipflask._core", name = "Crew")]
pub(crate) struct PyCrew {
    crew: Arc<Crew>,
}

impl PyCrew {
    pub(crate) fn crew(&self) -> Arc<Crew> {
        Arc::clone(&self.crew)
    }
}

#[pymethods]
impl PyCrew {
    #[new]
    fn new(places: usize) -> PyResult<Self> {
        Ok(Self { crew: Arc::new(Crew::new(places)?) })
    }

    /// Free the place of a process that has ended.
    fn forget(&self, pid: u32) {
        self.crew.forget(pid);
    }

    /// Ask each process for a sign of life from its engine.
    ///
    /// Returns:
    ///     Those that have not answered the question before: number, and seconds since that question.
    fn silent(&self) -> Vec<(u32, f64)> {
        self.crew.silent().into_iter().map(|(pid, silence)| (pid, silence.as_secs_f64())).collect()
    }
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyCrew>()
}
