//! Who answers a request that has a deadline: its view, or the deadline.
//!
//! The connection waits in a [`Held`]; the view gets a stand-in for it, into which it writes as into any other. Whoever
//! takes the connection out first answers: the view's thread puts what the stand-in has onto the connection, the leader at
//! the deadline writes an answer of its own. The other one finds nothing, and what it has is dropped. The lock is held for
//! a move, never for a wait or a call, so that nothing can be stuck in it.
//!
//! A request without a deadline has none of this.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hipflask_http::response::Exchange;

use crate::body::Revocation;
use crate::conn::{Conn, Phase};
use crate::exchange::ConnInfo;
use crate::history::RouteHistory;
use crate::locked;

/// Where the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In the queue.
    Waits,
    /// A thread runs its view.
    Runs,
    /// It is answered later.
    Deferred,
}

struct State<T> {
    conn: Option<Box<Conn<T>>>,
    stage: Stage,
}

/// A connection whose request has a deadline.
pub(crate) struct Held<T> {
    state: Mutex<State<T>>,
    pub(crate) since: Instant,
    pub(crate) timeout: Duration,
    pub(crate) exchange: Exchange,
    /// Takes the body back that the view may be reading.
    pub(crate) body: Option<Revocation>,
    pub(crate) route: Arc<RouteHistory>,
    /// Method and target, for the log.
    pub(crate) request: Vec<u8>,
}

/// What the reactor notes about a connection that somebody else has.
pub(crate) enum Lent<T> {
    /// A request with a deadline.
    Held(Arc<Held<T>>),
    /// A response that is being made, with what is left of its deadline.
    Until(Instant, Arc<ConnInfo>),
}

/// Has the record of the request show its view's time, should the deadline answer. How long the view waited for the
/// interpreter only its own thread knows; it counts as the view's.
fn note<T>(conn: &mut Conn<T>, stage: Stage, now: Instant) {
    if let Some(record) = conn.records.last_mut().filter(|_| stage != Stage::Waits) {
        record.calls(now);
    }
}

impl<T> Held<T> {
    /// Keeps a connection, and gives the stand-in for it.
    pub(crate) fn new(
        mut conn: Box<Conn<T>>,
        (since, timeout): (Instant, Duration),
        exchange: Exchange,
        body: Option<Revocation>,
        route: &Arc<RouteHistory>,
        (request, stage): (Vec<u8>, Stage),
    ) -> (Box<Conn<T>>, Arc<Held<T>>) {
        let stand_in = Box::new(conn.stand_in());
        note(&mut conn, stage, since);
        let state = Mutex::new(State { conn: Some(conn), stage });
        let route = Arc::clone(route);
        (stand_in, Arc::new(Held { state, since, timeout, exchange, body, route, request }))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        locked(&self.state)
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.since + self.timeout
    }

    /// The request goes on to another stage; false if it has been answered.
    pub(crate) fn enter(&self, stage: Stage) -> bool {
        let mut state = self.state();
        state.stage = stage;
        if let Some(conn) = &mut state.conn {
            note(conn, stage, Instant::now());
        }
        state.conn.is_some()
    }

    /// The answer is there: takes the connection, with the answer on it. `None` if the deadline was earlier; then the
    /// stand-in is given back, to be dropped.
    pub(crate) fn claim(&self, mut stand_in: Box<Conn<T>>) -> Result<Box<Conn<T>>, Box<Conn<T>>> {
        let Some(mut conn) = self.state().conn.take() else { return Err(stand_in) };
        conn.absorb(&mut stand_in);
        match &mut conn.phase {
            Phase::Stream(stream) => stream.deadline = Some(self.deadline()),
            Phase::Outlet(flow) if flow.is_timed() => flow.deadline = Some(self.deadline()),
            _ => {}
        }
        Ok(conn)
    }

    /// The deadline has passed: takes the connection, unless its answer is on the way.
    pub(crate) fn overtake(&self) -> Option<(Box<Conn<T>>, Stage)> {
        let mut state = self.state();
        state.conn.take().map(|conn| (conn, state.stage))
    }
}
