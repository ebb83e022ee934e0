//! Steps of a coroutine, taken natively in a context of its own.
//!
//! What an event loop's task does for a coroutine, less the task: the one that runs at the moment is borrowed, and
//! becomes the coroutine's own only if that suspends.

use pyo3::exceptions::PyStopIteration;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// A coroutine on its way, with the context that its steps run in.
pub(crate) struct Steps {
    context: Py<PyAny>,
    coroutine: Py<PyAny>,
    /// Whether it is the view's own.
    pub(crate) is_view: bool,
}

/// What a step led to.
pub(crate) enum Step<'py> {
    /// The coroutine waits for this.
    Waits(Bound<'py, PyAny>),
    /// It is over, with this result.
    Returned(Bound<'py, PyAny>),
    Raised(PyErr),
}

/// Whether an object is what a coroutine function gives.
pub(crate) fn is_coroutine(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: attached, and the object lives; the function only looks at its type.
    unsafe { ffi::PyCoro_CheckExact(object.as_ptr()) != 0 }
}

/// Copies the current context.
pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: attached; gives a new reference or null with an error set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }
}

/// Runs something in a context that is not entered.
pub(crate) fn within<'py, T>(context: &Bound<'py, PyAny>, run: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    let py = context.py();
    // SAFETY: attached; `context` is a context, made by `copy_context` and kept alive by the caller.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    let result = run();
    // SAFETY: as above, and it is the one that was entered last: who enters another one in `run` leaves it there.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    result
}

/// Takes the next step of a coroutine.
pub(crate) fn step<'py>(coroutine: &Bound<'py, PyAny>) -> Step<'py> {
    let py = coroutine.py();
    let mut result = std::ptr::null_mut();
    // SAFETY: attached; both objects live, and `result` receives a new reference, or null if an error is set.
    let sent = unsafe { ffi::PyIter_Send(coroutine.as_ptr(), ffi::Py_None(), &raw mut result) };
    // SAFETY: the reference is new and nobody else's.
    let given = unsafe { Bound::from_owned_ptr_or_opt(py, result) };
    match (sent, given) {
        (ffi::PySendResult::PYGEN_NEXT, Some(awaited)) => Step::Waits(awaited),
        (ffi::PySendResult::PYGEN_RETURN, Some(value)) => Step::Returned(value),
        _ => Step::Raised(PyErr::fetch(py)),
    }
}

/// Raises an error where a coroutine waits.
pub(crate) fn throw<'py>(coroutine: &Bound<'py, PyAny>, error: PyErr) -> Step<'py> {
    let py = coroutine.py();
    match coroutine.call_method1(intern!(py, "throw"), (error.into_value(py),)) {
        Ok(awaited) => Step::Waits(awaited),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            match error.value(py).getattr(intern!(py, "value")) {
                Ok(value) => Step::Returned(value),
                Err(error) => Step::Raised(error),
            }
        }
        Err(error) => Step::Raised(error),
    }
}

impl Steps {
    pub(crate) fn new(context: Bound<'_, PyAny>, coroutine: Bound<'_, PyAny>, is_view: bool) -> Self {
        Self { context: context.unbind(), coroutine: coroutine.unbind(), is_view }
    }

    pub(crate) fn parts<'py>(&self, py: Python<'py>) -> (Bound<'py, PyAny>, Bound<'py, PyAny>) {
        (self.context.bind(py).clone(), self.coroutine.bind(py).clone())
    }
}

/// What is known about a task that was lent: whoever keeps it, or has told it something, must not meet it again in
/// another request.
pub(crate) struct Lent {
    references: isize,
    weak: usize,
}

impl Lent {
    pub(crate) fn new(task: &Bound<'_, PyAny>) -> PyResult<Self> {
        // SAFETY: attached, and the object lives.
        let references = unsafe { ffi::Py_REFCNT(task.as_ptr()) } as isize;
        Ok(Self { references, weak: weak_references(task)? })
    }

    /// Whether the task is as it was.
    pub(crate) fn is_untouched(&self, task: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = task.py();
        let now = Self::new(task)?;
        let is_idle = |name| match task.getattr_opt(name) {
            Ok(Some(value)) => value.is_truthy().map(|is| !is),
            Ok(None) => Ok(true),
            Err(error) => Err(error),
        };
        Ok(now.references == self.references
            && now.weak == self.weak
            && is_idle(intern!(py, "_must_cancel"))?
            && is_idle(intern!(py, "_callbacks"))?)
    }
}

fn weak_references(task: &Bound<'_, PyAny>) -> PyResult<usize> {
    static COUNT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = task.py();
    let count =
        COUNT.get_or_try_init(py, || py.import("weakref")?.getattr("getweakrefcount").map(Bound::unbind))?;
    count.bind(py).call1((task,))?.extract()
}
