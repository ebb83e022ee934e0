//! Compressing files beforehand, for `hipflask compress`.

use hipflask_http::Coding;
use hipflask_server::{Effort, compress as compress_bytes};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Compress bytes as small as can be, without the GIL.
///
/// Args:
///     data: The bytes.
///     coding: `br`, `zstd` or `gzip`.
///
/// Raises:
///     ValueError: For any other coding.
#[pyfunction]
fn compress<'py>(py: Python<'py>, data: &[u8], coding: &str) -> PyResult<Bound<'py, PyBytes>> {
    let coding = Coding::ALL
        .into_iter()
        .find(|known| known.token() == coding)
        .ok_or_else(|| PyValueError::new_err(format!("{coding:?} is none of br, zstd, gzip")))?;
    let small = py.detach(|| compress_bytes(coding, Effort::Best, data))?;
    Ok(PyBytes::new(py, &small))
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(compress, module)?)
}
