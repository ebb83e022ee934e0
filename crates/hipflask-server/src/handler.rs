//! What the server asks of the application behind it.
//!
//! For each request: [`Handler::route`] on the thread that parsed the head, never attached to an interpreter; then,
//! unless the router answered by itself, [`Handler::call`] on the same thread or on a worker, attached.

use std::sync::Arc;

use hipflask_http::RequestHead;

use crate::{Body, BodySource, ConnInfo, Deferred, FileReply, Notice, Reply, RouteHistory};

/// An application that answers requests.
pub trait Handler: Send + Sync + 'static {
    /// What routing found; handed back to [`Handler::call`]. Dropped detached when the request is refused for lack of
    /// room, so let it hold nothing that only an attached thread may drop.
    type Ticket: Send;
    /// A thread's own state, for example its interpreter thread state.
    type Thread;

    /// Called once on each serving thread; leaves it detached.
    fn start_thread(&self) -> Self::Thread;
    /// Called on the same thread before it ends; detached.
    fn stop_thread(&self, thread: Self::Thread);
    /// Attaches the thread to the interpreter (takes the GIL). The server calls it at most once per batch of ready
    /// connections, and never blocks in the poller, on a socket or on a lock while attached.
    fn attach(&self, thread: &mut Self::Thread);
    /// Gives the interpreter back.
    fn detach(&self, thread: &mut Self::Thread);

    /// Decides, detached and without blocking, who answers.
    fn route(&self, head: &RequestHead, conn: &ConnInfo) -> Routed<Self::Ticket>;

    /// Answers, attached. Anything wrong inside becomes a response here; a panic is caught by the server and becomes
    /// a 500. `reply` is complete when this returns: a body given, or a file or stream promised.
    fn call(&self, thread: &mut Self::Thread, request: Request<Self::Ticket>, reply: &mut Reply<'_>);

    /// Takes over a request of a route made by [`RouteHistory::later`], to answer it when it likes. Detached; must not
    /// block. A request whose body is too long to be read ahead is given to [`Handler::call`] instead.
    fn defer(&self, request: Request<Self::Ticket>, deferred: Deferred) {
        let _ = (request, deferred);
    }

    /// Tells that the requests given to [`Handler::defer`] so far need wait for no others: the leader has given all that
    /// were ready, or is about to do something else. Must not block; may come without any.
    fn deferred(&self) {}

    /// Tells that the client of a deferred request has closed its side, or that the server will wait no longer.
    /// Detached; must not block. The request may have been answered meanwhile.
    fn gone(&self, token: u64) {
        let _ = token;
    }

    /// Tells that a request was refused by the engine itself (malformed, too large, too slow, queue full).
    fn refused(&self, refusal: &crate::Refusal, conn: &ConnInfo);

    /// Tells that a view runs for long, or was overtaken by its deadline. Detached; must not block.
    fn slow(&self, slow: &crate::Slow) {
        let _ = slow;
    }

    /// Tells that a response is out, for the access log. Detached; must not block.
    fn answered(&self, answered: &crate::Answered<'_>) {
        let _ = answered;
    }

    /// Tells something about the server itself that its operator should know. Must not block.
    fn notice(&self, notice: &Notice) {
        let _ = notice;
    }
}

/// Who answers a request.
pub enum Routed<T> {
    /// A view.
    Call {
        /// Handed back to [`Handler::call`].
        ticket: T,
        /// How long this route's views have taken so far; decides between inline and worker.
        history: Arc<RouteHistory>,
        /// Most bytes of body that this route accepts; `None` for the server's limit.
        max_body: Option<u64>,
    },
    /// The router itself (404, 405, redirect, OPTIONS): writes the whole reply, detached.
    Answer(Box<dyn FnOnce(&mut Reply<'_>) + Send>),
    /// A file, sent without the interpreter.
    File(FileReply),
}

/// A request on its way to a view.
pub struct Request<T> {
    /// Its head. Owned: a request object may keep it as long as it likes.
    pub head: Box<RequestHead>,
    /// Its body: nothing, bytes already read, or a stream still arriving.
    pub body: Body,
    /// What [`Handler::route`] found.
    pub ticket: T,
    /// The connection's addresses.
    pub conn: Arc<ConnInfo>,
}

/// What a stream of body pieces must do; see [`Reply::stream`].
pub type Stream = Box<dyn BodySource>;
