//! Interim responses (RFC 9110 §15.2), such as 103 Early Hints: what a view tells the client before its response is made.
//!
//! A view that runs in [`Handler::call`](crate::Handler::call) finds where to through the thread it runs on, one that is
//! answered later through its [`Deferred`](crate::Deferred). They go out at once, and whole: what the client does not take now stands
//! before the response. On HTTP/1.1 none is sent while anything else may be written to the connection, earlier answers or
//! a 100.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use hipflask_http::Version;

use crate::config::EarlyHints;
use crate::locked;
use crate::transport::Transport;

/// Bytes of interim responses that one request may have; further ones are left out. 64 KiB: hundreds of links.
const MOST: usize = 64 * 1024;

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// The exchange that a thread works on.
enum Current {
    /// Nobody has asked for it.
    Own(Outbox),
    Shared(Exchange),
}

/// Where interim responses go, and what of them is still to go out.
pub(crate) struct Outbox {
    socket: Arc<Transport>,
    rest: Vec<u8>,
    left: usize,
}

impl Outbox {
    pub(crate) fn new(socket: &Arc<Transport>, allowed: bool) -> Outbox {
        Outbox { socket: Arc::clone(socket), rest: Vec::new(), left: if allowed { MOST } else { 0 } }
    }

    /// Sends the whole of an interim response; whether the client gets it before the response.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.left || !self.rest.is_empty() {
            return false;
        }
        let Ok(count) = self.socket.send(bytes, false) else { return false };
        self.left -= bytes.len();
        self.rest.extend_from_slice(bytes.get(count..).unwrap_or_default());
        true
    }

    /// What has to go out before the response.
    pub(crate) fn into_rest(self) -> Vec<u8> {
        self.rest
    }
}

/// Whether a request may have interim responses: by its version and the setting.
pub(crate) fn allows(version: Version, setting: EarlyHints) -> bool {
    match setting {
        EarlyHints::Off => false,
        EarlyHints::Http2 => version == Version::Http2,
        EarlyHints::All => version >= Version::Http11,
    }
}

/// Makes a connection the one that the thread works on, until it is dropped or left.
pub(crate) struct Scope(());

impl Scope {
    pub(crate) fn enter(outbox: Outbox) -> Scope {
        CURRENT.set(Some(Current::Own(outbox)));
        Scope(())
    }

    /// Ends it; what has to go out before the response.
    pub(crate) fn leave(self) -> Vec<u8> {
        let outbox = match CURRENT.take() {
            Some(Current::Own(outbox)) => Some(outbox),
            Some(Current::Shared(exchange)) => exchange.lock().take(),
            None => None,
        };
        outbox.map(Outbox::into_rest).unwrap_or_default()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Some(Current::Shared(exchange)) = CURRENT.take() {
            drop(exchange.lock().take());
        }
    }
}

/// A request that [`Handler::call`](crate::Handler::call) answers: any thread may send interim responses by it.
#[derive(Clone)]
pub struct Exchange(Arc<Mutex<Option<Outbox>>>);

/// The response has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLate;

impl Exchange {
    /// The one that the calling thread works on, if it may have interim responses.
    pub fn current() -> Option<Exchange> {
        CURRENT.with_borrow_mut(|current| {
            let exchange = match current.take()? {
                Current::Own(outbox) => Exchange(Arc::new(Mutex::new(Some(outbox)))),
                Current::Shared(exchange) => exchange,
            };
            *current = Some(Current::Shared(exchange.clone()));
            Some(exchange)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Outbox>> {
        locked(&self.0)
    }

    /// Sends an interim response that [`interim`](hipflask_http::response::interim) has written; whether it is on its way.
    /// Does not block.
    ///
    /// # Errors
    ///
    /// See [`TooLate`].
    pub fn send(&self, bytes: &[u8]) -> Result<bool, TooLate> {
        self.lock().as_mut().map(|outbox| outbox.send(bytes)).ok_or(TooLate)
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange")
    }
}
