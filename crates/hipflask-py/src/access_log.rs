//! The access log as Python asks for it, and the lines of the server's own log.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use hipflask_server::{AccessLog, AccessLogConfig, Place, Writer, WriterConfig, check_format};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::serve;

/// What the end waits for lines that are not written yet.
pub(crate) const END: Duration = Duration::from_secs(1);

/// Opens the log that `options` describe: False is none, True one for people on standard error, a dictionary may have
/// `to`, `format` and `sample`.
pub(crate) fn open(options: &Bound<'_, PyAny>) -> PyResult<Option<AccessLog>> {
    let py = options.py();
    let Ok(options) = options.cast::<PyDict>() else {
        return if options.is_truthy()? {
            open_for(Place::Stderr, "short".to_owned(), 1.0)
        } else {
            Ok(None)
        };
    };
    let text = |name: &Bound<'_, _>, default: &str| match options.get_item(name)? {
        Some(value) => value.extract::<String>(),
        None => Ok(default.to_owned()),
    };
    let place = text(intern!(py, "to"), "stderr")?;
    let format = text(intern!(py, "format"), "combined")?;
    let sample = match options.get_item(intern!(py, "sample"))? {
        Some(value) => value.extract()?,
        None => 1.0,
    };
    let Ok(parsed) = place.parse();
    open_for(parsed, format, sample).map_err(|error| match error.value(py).getattr(intern!(py, "errno")) {
        // With a name, by which Python tells that it is about the log.
        Ok(number) => PyOSError::new_err((number.unbind(), error.to_string(), place)),
        Err(_) => error,
    })
}

fn open_for(place: Place, format: String, sample: f64) -> PyResult<Option<AccessLog>> {
    let is_terminal = match place {
        Place::Stdout => io::stdout().is_terminal(),
        Place::Stderr => io::stderr().is_terminal(),
        _ => false,
    };
    let mut writer = WriterConfig::new(place);
    if format == "short" {
        // Whoever develops looks at it now, beside what the application prints.
        writer.delay = Duration::ZERO;
    }
    let config = AccessLogConfig { format, coloured: is_terminal, sample, writer };
    AccessLog::open(&config, Box::new(report)).map(Some).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => PyValueError::new_err(error.to_string()),
        _ => serve::os_error(error),
    })
}

/// Tells the operator about the log itself. On the log's thread.
fn report(line: &str) {
    Python::try_attach(|py| serve::log(py, "warning", line));
}

/// Look whether an access log can have a format.
///
/// Raises:
///     ValueError: If not; its text is a sentence.
#[pyfunction]
fn check_access_log_format(text: &str) -> PyResult<()> {
    check_format(text).map_err(PyValueError::new_err)
}

/// Lines for standard error that nobody waits for: a thread writes them, and those that it cannot are lost.
#[pyclass(frozen, module = "hipflask._core")]
struct LineWriter(Writer);

#[pymethods]
impl LineWriter {
    #[new]
    fn new() -> PyResult<Self> {
        let config = WriterConfig { delay: Duration::ZERO, ..WriterConfig::new(Place::Stderr) };
        Ok(Self(Writer::open(&config, Box::new(|_| {}))?))
    }

    /// Take a line, with its end.
    fn put(&self, line: &str) {
        self.0.put(line.as_bytes());
    }

    /// Wait until all is written.
    ///
    /// Args:
    ///     most: Seconds to wait.
    ///
    /// Returns:
    ///     Whether it is.
    #[pyo3(signature = (most=1.0))]
    fn flush(&self, py: Python<'_>, most: f64) -> PyResult<bool> {
        let most =
            Duration::try_from_secs_f64(most).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(py.detach(|| self.0.flush(most)))
    }
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<LineWriter>()?;
    module.add_function(wrap_pyfunction!(check_access_log_format, module)?)
}
