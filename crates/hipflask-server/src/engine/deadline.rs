//! Deadlines of requests, and views that run for long.
//!
//! The reactor's timers wake the leader; the [`Held`] decides who answers. A leader in a view sets no timers, since nobody
//! could hear them: the watchdog sets them when it takes the reactor from it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hipflask_http::response::Exchange;
use hipflask_http::{RequestHead, Version};

use crate::body::{Lender, Revocation};
use crate::config::EarlyHints;
use crate::conn::{Conn, Phase};
use crate::exchange::Notice;
use crate::handler::Handler;
use crate::held::{Held, Lent, Stage};
use crate::history::RouteHistory;
use crate::locked;
use crate::refusal::{Refusal, RefusalKind};
use crate::running::{Busy, Desk, Slow, request_line};

use super::{Engine, Helm, Here, Link, plain};

/// A call that is found nowhere is on its way from the queue to a thread: look again.
const AGAIN: Duration = Duration::from_millis(100);

/// A connection whose request has a deadline.
pub(super) type Hold<H> = Arc<Held<<H as Handler>::Ticket>>;

const LATE: Refusal =
    Refusal { kind: RefusalKind::Deadline, status: 504, reason: "the request took longer than it may" };
const LATE_IN_QUEUE: Refusal = Refusal {
    kind: RefusalKind::QueueDeadline,
    status: 503,
    reason: "no thread was free for the request before its deadline",
};
/// The client has had a part of the response.
pub(super) const LATE_STREAM: Refusal =
    Refusal { kind: RefusalKind::StreamDeadline, status: 0, reason: "the response takes longer than it may" };

impl<H: Handler> Engine<H> {
    /// Keeps a connection if its request has a deadline; what is given instead is for the view.
    pub(super) fn hold(
        &self,
        conn: Link<H>,
        head: &RequestHead,
        (history, exchange): (&Arc<RouteHistory>, Exchange),
        lender: Option<&Lender>,
        now: Instant,
        stage: Stage,
    ) -> (Link<H>, Option<Hold<H>>) {
        let Some(timeout) = history.timeout(self.config.request_timeout) else { return (conn, None) };
        let mut request = Vec::new();
        request_line(&mut request, head.method(), head.target());
        let body = lender.map(Lender::revocation);
        let (stand_in, held) = Held::new(conn, (now, timeout), exchange, body, history, (request, stage));
        (stand_in, Some(held))
    }

    /// Has the leader look when the request is late, or its view has run for long.
    pub(super) fn watch_lent(&self, lead: &mut Helm<H>, token: u64, held: Option<&Hold<H>>, is_called: bool) {
        let slow = self.config.slow_request.filter(|_| is_called).map(|after| lead.now + after);
        let deadline = held.map(|held| held.deadline());
        if let Some(held) = held {
            lead.note_lent(token, Lent::Held(Arc::clone(held)));
        }
        if let Some(when) = slow.into_iter().chain(deadline).min() {
            lead.wake_at(token, when);
        }
    }

    /// How long a view runs until it is told of first.
    pub(super) fn patience(&self) -> Duration {
        self.config.slow_request.unwrap_or(Duration::MAX)
    }

    /// A leader is stuck in a view: it counts as a worker now, and its request is timed.
    pub(super) fn adopt(&self, lead: &mut Helm<H>) {
        let token = lead.inline.token;
        if !Desk::adopt(&mut lead.inline, self.patience()) {
            return;
        }
        let deadline = match lead.lent(token) {
            Some(Some(Lent::Held(held))) => Some(held.deadline()),
            _ => None,
        };
        let slow = self.config.slow_request.map(|after| Instant::now() + after);
        if let Some(when) = slow.into_iter().chain(deadline).min() {
            lead.wake_at(token, when);
        }
    }

    /// Somebody has had this connection for long.
    pub(super) fn overdue(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        token: u64,
        here: &mut Here<H>,
    ) -> Option<Helm<H>> {
        let now = lead.now;
        let mut next = None;
        match lead.lent(token) {
            None => return Some(lead),
            Some(Some(Lent::Until(deadline, info))) => {
                if *deadline <= now {
                    self.tell_refused(info, LATE_STREAM);
                    lead.cut_off(token);
                    return Some(lead);
                }
                next = Some(*deadline);
            }
            Some(Some(Lent::Held(held))) => {
                if held.deadline() <= now {
                    let held = Arc::clone(held);
                    return self.expire(lead, token, &held, here);
                }
                next = Some(held.deadline());
            }
            Some(None) => {}
        }
        if self.config.slow_request.is_some() {
            let again = match self.slow(token, now) {
                Some(Ok(busy)) => {
                    let took = now.saturating_duration_since(busy.since);
                    self.tell_slow(&Slow::of(busy, took, None));
                    Some(now + took)
                }
                Some(Err(left)) => Some(now + left),
                // It waits in the queue, or is answered later.
                None => self.pool.is_queued(token).then(|| now + AGAIN.max(self.patience() / 4)),
            };
            next = next.into_iter().chain(again).min();
        }
        if let Some(when) = next {
            lead.wake_at(token, when);
        }
        Some(lead)
    }

    fn slow(&self, token: u64, now: Instant) -> Option<Result<Busy, Duration>> {
        let desks = locked(&self.desks);
        desks.iter().find_map(|desk| desk.slow(token, now))
    }

    fn tell_slow(&self, slow: &Slow) {
        drop(catch_unwind(AssertUnwindSafe(|| self.handler.slow(slow))));
    }

    /// The views that run.
    pub(crate) fn busy(&self) -> Vec<Busy> {
        let desks = locked(&self.desks);
        desks.iter().filter_map(|desk| desk.busy()).collect()
    }

    /// The deadline has passed: answers in the place of the view.
    fn expire(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        token: u64,
        held: &Hold<H>,
        here: &mut Here<H>,
    ) -> Option<Helm<H>> {
        let Some((mut conn, stage)) = held.overtake() else { return Some(lead) };
        // Before anything else: the socket's news of the meantime are the connection's.
        lead.catch_up(&mut conn);
        here.detach(&*self.handler);
        let now = Instant::now();
        let took = now.saturating_duration_since(held.since);
        let refusal = if stage == Stage::Waits { LATE_IN_QUEUE } else { LATE };
        let mut busy = None;
        match stage {
            Stage::Waits => drop(self.pool.forget(held)),
            Stage::Runs => {
                let desks = locked(&self.desks);
                busy = desks.iter().find_map(|desk| desk.answer(token));
                drop(desks);
                let (stuck, spawn) = self.pool.lose();
                if spawn {
                    self.spawn();
                }
                if stuck == self.config.stuck_threads + 1 {
                    self.notice(&Notice::Stuck(stuck));
                }
            }
            Stage::Deferred => {}
        }
        self.tell_refused(&conn.info, refusal);
        self.tell_slow(&Slow {
            busy,
            token,
            route: held.route.name().map(str::to_owned),
            request: held.request.clone(),
            took,
            answered: Some(refusal.status),
        });
        let usable = match &held.body {
            Some(body) => self.revoke(&mut conn, body),
            None => true,
        };
        // An early hint of the view's could still come, in the middle of the next answer.
        let usable =
            usable && (held.exchange.version == Version::Http2 || self.config.early_hints != EarlyHints::All);
        if stage == Stage::Deferred && held.exchange.version != Version::Http2 {
            // A request that is answered later is known by its connection's name, which the next one must not have while it
            // ends.
            lead.rename(&mut conn);
        }
        let keep_alive = held.exchange.keep_alive && usable && !self.is_stopping();
        self.answer(&mut conn, Exchange { keep_alive, ..held.exchange }, here, |reply| {
            if refusal.status == 503 {
                reply.start(503, None);
                // Both are valid field values.
                let _ = reply.field(b"Retry-After", b"1");
                let _ = reply.field(b"Content-Type", b"text/plain; charset=utf-8");
                return reply.body(refusal.reason.as_bytes());
            }
            plain(reply, refusal.status, refusal.reason);
        });
        self.advance(lead, conn, here)
    }

    /// Takes a body back; whether the connection can be used afterwards. Does not wait for a thread that is reading it.
    fn revoke(&self, conn: &mut Conn<H::Ticket>, body: &Revocation) -> bool {
        let usable = match body.revoke() {
            Some(intake) if intake.leaves_usable() => {
                conn.inbuf = intake.raw;
                conn.at = intake.at;
                if !intake.decoder.is_done() {
                    conn.phase =
                        Phase::Drain(Box::new((intake.decoder, crate::body::Pace::new(Instant::now()))));
                }
                true
            }
            _ => false,
        };
        // The poller's edge may have been read away by the view.
        conn.readable = true;
        conn.closing |= !usable;
        conn.linger |= !usable;
        usable
    }

    /// A view has returned for whose answer nobody waits any more. Detached.
    pub(super) fn too_late(&self, stand_in: Link<H>) {
        self.pool.regain();
        drop(stand_in);
    }
}

impl Slow {
    fn of(busy: Busy, took: Duration, answered: Option<u16>) -> Slow {
        let (route, request) = (busy.route.name().map(str::to_owned), busy.request.clone());
        Slow { token: 0, route, request, took, answered, busy: Some(busy) }
    }
}
