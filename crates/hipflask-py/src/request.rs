//! (under construction)

use pyo3::prelude::*;

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
