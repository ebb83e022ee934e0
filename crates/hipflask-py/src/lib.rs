//! `hipflask._core`: the native half of Hipflask. This file is its table of contents.

mod access_log;
mod answer;
mod asgi;
mod background;
mod body;
mod channel;
mod collector;
mod context;
mod cookie_session;
mod crew;
mod dispatch;
mod early_hints;
mod ensured;
mod environ;
mod feed;
mod fields;
mod form;
mod headers;
mod json;
mod later;
mod local;
mod monitor;
mod multidict;
mod plan;
mod precompress;
mod report;
mod request;
mod response;
mod router;
mod routes;
mod serve;
mod session;
mod settings;
mod slot;
mod sse;
mod steps;
mod tls;
mod trailers;
mod unattended;
mod upload;
mod url_for;
mod watch;
mod websocket;
mod wsgi;

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Locks; what a thread left that panicked meanwhile is taken as it is. Not for a lock that is held while Python runs.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The extension module `hipflask._core`.
#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    refuse_subinterpreters()?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    access_log::register(module)?;
    asgi::register(module)?;
    background::register(module)?;
    body::register(module)?;
    channel::register(module)?;
    context::register(module)?;
    crew::register(module)?;
    early_hints::register(module)?;
    feed::register(module)?;
    fields::register(module)?;
    form::register(module)?;
    headers::register(module)?;
    json::register(module)?;
    later::register(module)?;
    local::register(module)?;
    monitor::register(module)?;
    multidict::register(module)?;
    plan::register(module)?;
    precompress::register(module)?;
    request::register(module)?;
    response::register(module)?;
    router::register(module)?;
    routes::register(module)?;
    serve::register(module)?;
    session::register(module)?;
    settings::register(module)?;
    sse::register(module)?;
    tls::register(module)?;
    trailers::register(module)?;
    url_for::register(module)?;
    watch::register(module)?;
    websocket::register(module)
}

/// Refuses to be imported where it would hang: threads of the engine can attach to the main interpreter alone.
fn refuse_subinterpreters() -> PyResult<()> {
    // SAFETY: the module is being imported, so this thread is attached to an interpreter.
    let number = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if number == 0 {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "hipflask works in Python's main interpreter only: mod_wsgi needs 'WSGIApplicationGroup %{GLOBAL}', and uWSGI \
         'single-interpreter'",
    ))
}
