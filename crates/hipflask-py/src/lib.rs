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

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;

// How this crate locks. A thread that is attached to the interpreter may wait only for what no thread holds that waits
// for the interpreter: else each waits for the other. So:
//
// - `locked`, `read_locked`, `write_locked` are for locks under which no Python code runs, nothing is called that might
//   attach or detach, and no Python object is dropped, since its finalizer may run anything: what is replaced is taken
//   out and dropped after the lock. Then it does not matter whether the thread is attached.
// - `locked_attached` is for locks that are held while Python may run: it detaches while it waits. The code below it
//   must not come back for the same lock on the same thread.
//
// A thread that panicked while it held a lock has left something that is whole, since nothing is changed by halves:
// what it left is taken as it is. A panic is reported where it is caught, once, and not by everybody who locks later.

/// Locks what no Python code runs under.
fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces what no Python code runs under; what was there is dropped when the lock is free again.
fn put<T>(mutex: &Mutex<T>, value: T) {
    let old = std::mem::replace(&mut *locked(mutex), value);
    drop(old);
}

/// Locks for reading what no Python code runs under.
fn read_locked<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing what no Python code runs under.
fn write_locked<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Locks what Python code may run under; others may attach while this thread waits.
fn locked_attached<'a, T>(py: Python<'_>, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
    mutex.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
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
