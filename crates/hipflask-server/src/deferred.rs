//! A response that comes later, from any thread.
//!
//! A handler that answers on an event loop of its own gets a [`Deferred`] with the request. Until it is sent the
//! connection belongs to it: no thread waits, and no further request of that connection is read.

use std::fmt;

use crate::reply::Reply;

/// Writes one response into a connection; returns whether it is to be kept.
pub(crate) type Write<'a> = &'a mut dyn FnMut(&mut Reply<'_>) -> bool;

/// What the engine does for a [`Deferred`].
pub(crate) trait Owed: Send {
    /// Replaces what was written before.
    fn write(&mut self, write: Write<'_>);
    /// Notes that the request's turn has come.
    fn begins(&mut self);
    /// See [`Reply::afterwards`].
    fn afterwards(&mut self, done: Box<dyn FnOnce() + Send>);
    /// Sends an interim response now.
    fn inform(&mut self, bytes: &[u8]) -> bool;
    /// Gives the connection back with what was written, else with a 500.
    fn send(self: Box<Self>, sending: Sending);
}

/// Who hands the bytes to the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// The calling thread.
    Here,
    /// The leader, when it looks next.
    Leader,
    /// The leader, which is told to look.
    LeaderNow,
}

/// The response still owed to a request. Dropped without [`Deferred::send`] it answers with what was written, or with
/// a 500.
pub struct Deferred {
    owed: Option<Box<dyn Owed>>,
    token: u64,
    informs: bool,
}

impl Deferred {
    pub(crate) fn new(owed: Box<dyn Owed>, token: u64, informs: bool) -> Deferred {
        Deferred { owed: Some(owed), token, informs }
    }

    /// Whether the request may have interim responses.
    pub fn informs(&self) -> bool {
        self.informs
    }

    /// Sends an interim response that [`interim`](hipflask_http::response::interim) has written; whether it is on its way.
    /// Does not block.
    pub fn inform(&mut self, bytes: &[u8]) -> bool {
        self.owed.as_mut().is_some_and(|owed| owed.inform(bytes))
    }

    /// The name of its connection in [`Handler::gone`](crate::Handler::gone): no two requests at the same time share
    /// one.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Writes the response, in the place of one written before. Nothing goes out before [`Deferred::send`].
    ///
    /// # Errors
    ///
    /// That of `write`; then nothing is written.
    pub fn write<T, E>(
        &mut self,
        write: impl FnOnce(&mut Reply<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let mut write = Some(write);
        let mut result = None;
        if let Some(owed) = &mut self.owed {
            owed.write(&mut |reply| {
                result = write.take().map(|write| write(reply));
                matches!(result, Some(Ok(_)))
            });
        }
        result.transpose()
    }

    /// Tells that the request's turn has come: until now it has waited. Only for [`Times`](crate::Times).
    pub fn begins(&mut self) {
        if let Some(owed) = &mut self.owed {
            owed.begins();
        }
    }

    /// As [`Reply::afterwards`], for what was written last.
    pub fn afterwards(&mut self, done: Box<dyn FnOnce() + Send>) {
        if let Some(owed) = &mut self.owed {
            owed.afterwards(done);
        }
    }

    /// Sends what was written.
    pub fn send(mut self) {
        if let Some(owed) = self.owed.take() {
            owed.send(Sending::Here);
        }
    }

    /// Sends several, of one server: the leader, woken once, hands them to the kernel. Costs less than sending each, and
    /// keeps the calling thread from it.
    pub fn send_all(all: Vec<Deferred>) {
        let mut left = all.len();
        for mut deferred in all {
            let sending = match left {
                1 => Sending::LeaderNow,
                _ => Sending::Leader,
            };
            left -= 1;
            if let Some(owed) = deferred.owed.take() {
                owed.send(sending);
            }
        }
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        if let Some(owed) = self.owed.take() {
            owed.send(Sending::Here);
        }
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred").field("token", &self.token).finish()
    }
}
