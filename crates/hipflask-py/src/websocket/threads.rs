//! The threads of sync views.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use hipflask_server::{Deferred, Request};
use pyo3::intern;
use pyo3::prelude::*;

use super::{Handoff, locked};
use crate::answer;
use crate::dispatch::{Dispatcher, Ticket};
use crate::environ::{EngineRequest, environ_from_engine};
use crate::later::Line;
use crate::serve;
use crate::wsgi::Begun;

/// The stack of a thread that runs a view; only what is touched takes memory.
const STACK: usize = 8 << 20;
/// Threads that views of WebSockets may hold, unless `WEBSOCKET_THREADS` says otherwise. 64: some 50 KiB each.
const THREADS: usize = 64;

/// The threads that views of WebSockets run on, one for each: they wait for their client, and must not take the
/// engine's threads from other requests.
pub(crate) struct Threads {
    most: usize,
    running: Mutex<usize>,
    ended: Condvar,
}

impl Threads {
    /// As many as the app's `WEBSOCKET_THREADS`.
    pub(crate) fn of(app: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let py = app.py();
        let most = match app.getattr_opt(intern!(py, "config"))? {
            Some(config) => {
                config.call_method1(intern!(py, "get"), ("WEBSOCKET_THREADS", THREADS))?.extract()?
            }
            None => THREADS,
        };
        Ok(Arc::new(Self { most, running: Mutex::new(0), ended: Condvar::new() }))
    }

    /// How many run, and may run.
    pub(crate) fn count(&self) -> (usize, usize) {
        (*locked(&self.running), self.most)
    }

    /// Waits until none runs any more; whether that is so in time.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let running = locked(&self.running);
        let (running, _) = self
            .ended
            .wait_timeout_while(running, timeout, |running| *running > 0)
            .unwrap_or_else(PoisonError::into_inner);
        *running == 0
    }

    /// Runs a request to its end on a thread of its own, or refuses it. Detached.
    pub(crate) fn begin(
        self: &Arc<Self>,
        dispatcher: &Arc<Dispatcher>,
        line: &Arc<Line>,
        request: Request<Ticket>,
        deferred: Deferred,
    ) {
        let mut running = locked(&self.running);
        if *running >= self.most {
            drop(running);
            return refuse(deferred);
        }
        *running += 1;
        drop(running);
        let handoff = Handoff::new(deferred, dispatcher, line);
        let (threads, owed) = (Arc::clone(self), Arc::clone(&handoff));
        let run = move || {
            // Dropped in any case, whatever happens in the view.
            let _counted = Counted(&threads);
            Python::attach(|py| perform(py, request, &handoff));
        };
        let name = "hipflask-websocket".to_owned();
        if std::thread::Builder::new().name(name).stack_size(STACK).spawn(run).is_err() {
            drop(Counted(self));
            if let Some(deferred) = owed.take() {
                refuse(deferred);
            }
        }
    }
}

/// A thread that counts.
struct Counted<'a>(&'a Threads);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        *locked(&self.0.running) -= 1;
        self.0.ended.notify_all();
    }
}

/// Answers that there is no thread for the view.
fn refuse(mut deferred: Deferred) {
    let _ = deferred.write(|reply| {
        reply.start(503, None);
        // Both are valid field values.
        let _ = reply.field(b"Retry-After", b"1");
        let _ = reply.field(b"Content-Type", b"text/plain; charset=utf-8");
        reply.body(b"too many WebSockets hold a thread");
        Ok::<_, ()>(())
    });
    deferred.send();
}

/// Calls the app as a WSGI callable: the view opens the connection, or does not and its response goes out.
fn perform(py: Python<'_>, request: Request<Ticket>, handoff: &Arc<Handoff>) {
    let dispatcher = &handoff.dispatcher;
    handoff.begins();
    let Request { head, body, conn, .. } = request;
    let engine = EngineRequest { head, body, conn, handoff: Some(Arc::clone(handoff)), hints: None };
    let begun = dispatcher
        .refresh(py)
        .and_then(|()| environ_from_engine(py, engine))
        .and_then(|environ| Begun::new(dispatcher.app().bind(py), &environ));
    let failure = match (begun, handoff.take()) {
        (Ok(begun), Some(mut deferred)) => {
            let written = deferred.write(|reply| begun.write(py, reply));
            let failure = written.err();
            if failure.is_some() {
                write_error(&mut deferred);
            }
            py.detach(|| deferred.send());
            failure
        }
        (Err(error), Some(mut deferred)) => {
            write_error(&mut deferred);
            py.detach(|| deferred.send());
            Some(error)
        }
        // The connection is a WebSocket: there is nobody to send a response to.
        (Ok(_), None) => None,
        (Err(error), None) => Some(error),
    };
    if let Some(error) = failure {
        serve::log_error(py, &error, "in the application");
    }
    if let Err(error) = dispatcher.look_again(py) {
        serve::log_error(py, &error, "in the application");
    }
}

fn write_error(deferred: &mut Deferred) {
    let _ = deferred.write(|reply| {
        answer::server_error(reply);
        Ok::<_, ()>(())
    });
}
