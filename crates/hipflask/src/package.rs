//! `_hipflask`: what the importer reads of the binary. The files of the Python package lie in it (see `build.rs`).

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A file of the package.
struct File {
    /// Its path, as `hipflask/app.py`.
    name: &'static str,
    data: &'static [u8],
    /// Magic number and bytecode; empty for what is no module, or was not compiled.
    code: &'static [u8],
}

/// Sorted by path component, which is not quite by name: looked up through the dictionary that the importer makes.
static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The builtin module `_hipflask`.
#[pymodule(gil_used = false)]
pub(crate) fn _hipflask(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(names, module)?)?;
    module.add_function(wrap_pyfunction!(data, module)?)?;
    module.add_function(wrap_pyfunction!(code, module)?)
}

/// The files of the package; a file's number is its place.
#[pyfunction]
fn names() -> Vec<&'static str> {
    FILES.iter().map(|file| file.name).collect()
}

/// What a file holds.
#[pyfunction]
fn data(py: Python<'_>, number: usize) -> Bound<'_, PyBytes> {
    PyBytes::new(py, FILES.get(number).map_or(&[], |file| file.data))
}

/// The bytecode of a module, after the magic number of the Python that made it.
#[pyfunction]
fn code(py: Python<'_>, number: usize) -> Bound<'_, PyBytes> {
    PyBytes::new(py, FILES.get(number).map_or(&[], |file| file.code))
}
