//! Which views run at this moment, on which threads, and since when.
//!
//! Each serving thread has a [`Desk`]. A worker puts its request there before it calls a view. A leader does not, since it
//! would cost every fast request a lock: it leaves an [`InlineCall`] with the reactor, and whoever takes the reactor from it
//! puts that on its desk. So the desks show every view that has run for longer than a few milliseconds, and what the metrics
//! show of views on threads is what lies there.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::history::RouteHistory;
use crate::locked;
use crate::metrics::Stats;
use crate::sys;

/// Longer request lines are cut: nobody reads them.
const LINE: usize = 256;

/// A view that runs.
#[derive(Clone, Debug)]
pub struct Busy {
    /// The thread's number, as `pthread_self` has it.
    pub thread: u64,
    /// The thread's name.
    pub name: Arc<str>,
    /// Its route.
    pub route: Arc<RouteHistory>,
    /// Method and target with a space between them, as they came; cut after 256 bytes.
    pub request: Vec<u8>,
    /// When it was called.
    pub since: Instant,
    /// The client has been answered by the deadline: nobody waits for this view any more.
    pub is_late: bool,
    /// Which call of its thread it is.
    pub call: u64,
    token: u64,
    /// When it is to be told of next, after it was called.
    tell_after: Duration,
}

/// What [`Handler::slow`](crate::Handler::slow) is told.
#[derive(Clone, Debug)]
pub struct Slow {
    /// The view, if one runs on a thread; `None` for one that is answered later.
    pub busy: Option<Busy>,
    /// The name of the connection of a request that is answered later, as [`Deferred::token`](crate::Deferred::token).
    pub token: u64,
    /// Its route.
    pub route: Option<String>,
    /// Method and target; cut after 256 bytes.
    pub request: Vec<u8>,
    /// How long it has run, or waited for a thread.
    pub took: Duration,
    /// The status that the client got in the place of an answer; `None` if it still waits.
    pub answered: Option<u16>,
}

/// The place of one thread.
pub(crate) struct Desk {
    thread: u64,
    name: Arc<str>,
    state: Mutex<State>,
    /// Where what lies here is shown to other processes, and as which thread.
    shown: Option<(Arc<Stats>, usize)>,
}

#[derive(Default)]
struct State {
    busy: Option<Busy>,
    /// The last call that has returned.
    returned: u64,
    /// Room for the next request line.
    spare: Vec<u8>,
}

/// A call that the leader makes.
#[derive(Default)]
pub(crate) struct InlineCall {
    desk: Option<Arc<Desk>>,
    route: Option<Arc<RouteHistory>>,
    request: Vec<u8>,
    since: Option<Instant>,
    pub(crate) token: u64,
    call: u64,
}

/// Puts a request line together.
pub(crate) fn request_line(into: &mut Vec<u8>, method: &[u8], target: &[u8]) {
    into.clear();
    into.extend_from_slice(method);
    into.push(b' ');
    let room = LINE.saturating_sub(into.len());
    into.extend_from_slice(target.get(..room).unwrap_or(target));
}

impl Desk {
    pub(crate) fn new(name: &str, shown: Option<(Arc<Stats>, usize)>) -> Desk {
        Desk { thread: sys::this_thread(), name: name.into(), state: Mutex::default(), shown }
    }

    fn show(&self, state: &mut State, busy: Busy) {
        if let Some((stats, number)) = &self.shown {
            stats.show(*number, &busy.request, busy.since);
        }
        state.busy = Some(busy);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// A worker calls a view.
    pub(crate) fn begin(
        &self,
        call: u64,
        token: u64,
        route: &Arc<RouteHistory>,
        (method, target): (&[u8], &[u8]),
        tell_after: Duration,
    ) {
        let mut state = self.state();
        let mut request = std::mem::take(&mut state.spare);
        request_line(&mut request, method, target);
        let busy = Busy {
            thread: self.thread,
            name: Arc::clone(&self.name),
            route: Arc::clone(route),
            request,
            since: Instant::now(),
            is_late: false,
            token,
            call,
            tell_after,
        };
        self.show(&mut state, busy);
    }

    /// A leader's call has lost it the reactor: it counts as a worker's, unless it has returned meanwhile. True if it
    /// counts.
    pub(crate) fn adopt(inline: &mut InlineCall, tell_after: Duration) -> bool {
        let (Some(desk), Some(route), Some(since)) = (inline.desk.take(), inline.route.take(), inline.since)
        else {
            return false;
        };
        let mut state = desk.state();
        if state.returned >= inline.call {
            return false;
        }
        let busy = Busy {
            thread: desk.thread,
            name: Arc::clone(&desk.name),
            route,
            request: std::mem::take(&mut inline.request),
            since,
            is_late: false,
            token: inline.token,
            call: inline.call,
            tell_after,
        };
        desk.show(&mut state, busy);
        true
    }

    /// The view has returned.
    pub(crate) fn end(&self, call: u64) {
        let mut state = self.state();
        state.returned = call;
        if let Some(busy) = state.busy.take() {
            if let Some((stats, number)) = &self.shown {
                stats.hide(*number);
            }
            state.spare = busy.request;
        }
    }

    /// The view that runs here.
    pub(crate) fn busy(&self) -> Option<Busy> {
        self.state().busy.clone()
    }

    /// Notes that the client of a connection has been answered; the view that it was about, if it runs here.
    pub(crate) fn answer(&self, token: u64) -> Option<Busy> {
        let mut state = self.state();
        let busy = state.busy.as_mut().filter(|busy| busy.token == token && !busy.is_late)?;
        busy.is_late = true;
        Some(busy.clone())
    }

    /// The view that runs here for a connection, if it has run for so long that it is to be told of; `Err` is how long
    /// until then.
    pub(crate) fn slow(&self, token: u64, now: Instant) -> Option<Result<Busy, Duration>> {
        let mut state = self.state();
        let busy = state.busy.as_mut().filter(|busy| busy.token == token && !busy.is_late)?;
        let took = now.saturating_duration_since(busy.since);
        if took < busy.tell_after {
            return Some(Err(busy.tell_after - took));
        }
        busy.tell_after = took * 2;
        Some(Ok(busy.clone()))
    }
}

impl InlineCall {
    /// The leader calls a view.
    pub(crate) fn begin(
        &mut self,
        desk: &Arc<Desk>,
        call: u64,
        token: u64,
        route: &Arc<RouteHistory>,
        (method, target): (&[u8], &[u8]),
        since: Instant,
    ) {
        if !self.desk.as_ref().is_some_and(|known| Arc::ptr_eq(known, desk)) {
            self.desk = Some(Arc::clone(desk));
        }
        if !self.route.as_ref().is_some_and(|known| Arc::ptr_eq(known, route)) {
            self.route = Some(Arc::clone(route));
        }
        request_line(&mut self.request, method, target);
        self.since = Some(since);
        self.token = token;
        self.call = call;
    }

    /// It has returned, and its thread still leads.
    pub(crate) fn end(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn route() -> Arc<RouteHistory> {
        Arc::new(RouteHistory::new(None).named("/a"))
    }

    #[test]
    fn a_call_that_lost_the_reactor_is_shown_until_it_returns() {
        let desk = Arc::new(Desk::new("thread", None));
        let mut inline = InlineCall::default();
        inline.begin(&desk, 1, 7, &route(), (b"GET", b"/a"), Instant::now());
        assert!(desk.busy().is_none());
        assert!(Desk::adopt(&mut inline, LONG));
        let busy = desk.busy().expect("it runs");
        assert_eq!((busy.request.as_slice(), busy.route.name()), (&b"GET /a"[..], Some("/a")));
        desk.end(1);
        assert!(desk.busy().is_none());
    }

    #[test]
    fn a_call_that_has_returned_meanwhile_is_not_shown() {
        let desk = Arc::new(Desk::new("thread", None));
        let mut inline = InlineCall::default();
        inline.begin(&desk, 1, 7, &route(), (b"GET", b"/a"), Instant::now());
        desk.end(1);
        assert!(!Desk::adopt(&mut inline, LONG));
        assert!(desk.busy().is_none());
        inline.begin(&desk, 2, 7, &route(), (b"GET", b"/a"), Instant::now());
        inline.end();
        assert!(!Desk::adopt(&mut inline, LONG), "it has come back to the reactor");
    }

    #[test]
    fn a_slow_view_is_told_of_whenever_its_time_has_doubled() {
        let desk = Desk::new("thread", None);
        desk.begin(1, 7, &route(), (b"GET", b"/a"), LONG);
        let begun = desk.busy().expect("it runs").since;
        let told: Vec<u64> = (0..300)
            .filter(|second| matches!(desk.slow(7, begun + Duration::from_secs(*second)), Some(Ok(_))))
            .collect();
        assert_eq!(told, [30, 60, 120, 240]);
        assert!(desk.slow(8, begun + LONG).is_none(), "another connection");
    }

    #[test]
    fn long_request_lines_are_cut() {
        let mut line = Vec::new();
        request_line(&mut line, b"GET", &[b'a'; 1000]);
        assert_eq!(line.len(), LINE);
    }
}
