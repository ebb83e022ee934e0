//! `hipflask._core`: the native half of Hipflask. This file is its table of contents.

mod context;
mod dispatch;
mod fields;
mod form;
mod headers;
mod json;
mod local;
mod multidict;
mod request;
mod response;
mod router;
mod serve;
mod session;

use pyo3::prelude::*;

/// The extension module `hipflask._core`.
#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    context::register(module)?;
    dispatch::register(module)?;
    fields::register(module)?;
    form::register(module)?;
    headers::register(module)?;
    json::register(module)?;
    local::register(module)?;
    multidict::register(module)?;
    request::register(module)?;
    response::register(module)?;
    router::register(module)?;
    serve::register(module)?;
    session::register(module)
}
