//! Requests that are answered later, see [`Deferred`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use hipflask_http::RequestHead;
use hipflask_http::response::Exchange;

use crate::body::{Body, Lender};
use crate::deferred::{Deferred, Owed, Sending, Write};
use crate::exchange::Notice;
use crate::handler::{Handler, Request};
use crate::interim::Outbox;
use crate::locked;
use crate::metrics::Shown;
use crate::pool::{Chore, StreamJob};
use crate::reply::{Answer, Reply, Standing, asked};

use super::deadline::Hold;
use super::{Engine, Link, message, plain};

/// A connection whose response is owed.
struct Debt<H: Handler> {
    engine: Arc<Engine<H>>,
    conn: Link<H>,
    exchange: Exchange,
    /// Where the response begins in the connection's output.
    begin: usize,
    /// For interim responses, if it may have any.
    outbox: Option<Outbox>,
    answer: Option<Answer>,
    /// Takes the reading half back if the body was given while it arrived.
    lender: Option<Lender>,
    /// Keeps the connection, if the request has a deadline; `conn` is a stand-in then.
    held: Option<Hold<H>>,
    /// Shows it among the views that run.
    _shown: Option<Shown>,
}

impl<H: Handler> Engine<H> {
    /// Gives a request, and the connection with it, to the handler.
    pub(super) fn defer(
        self: &Arc<Self>,
        conn: Link<H>,
        head: Box<RequestHead>,
        (body, lender): (Body, Option<Lender>),
        ticket: H::Ticket,
        held: Option<Hold<H>>,
    ) {
        let exchange = asked(&head, !self.is_stopping());
        let token = conn.token;
        let begin = conn.out.len();
        let shown =
            self.stats().and_then(|stats| stats.show_later(head.method(), head.raw_path(), Instant::now()));
        let request = Request { head, body, ticket, conn: Arc::clone(&conn.info) };
        let outbox = self.outbox(&conn, exchange, lender.is_some());
        let informs = outbox.is_some();
        let debt = Debt {
            engine: Arc::clone(self),
            conn,
            exchange,
            begin,
            outbox,
            answer: None,
            lender,
            held,
            _shown: shown,
        };
        let deferred = Deferred::new(Box::new(debt), token, informs);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.handler.defer(request, deferred))) {
            self.notice(&Notice::Panic(message(&*panic)));
        }
    }

    /// Has a worker write a response without the handler.
    pub(super) fn answer_later(
        self: &Arc<Self>,
        conn: Link<H>,
        exchange: Exchange,
        write: impl FnOnce(&mut Reply<'_>) + Send + 'static,
    ) {
        let (begin, token) = (conn.out.len(), conn.token);
        let engine = Arc::clone(self);
        let debt = Debt {
            engine,
            conn,
            exchange,
            begin,
            outbox: None,
            answer: None,
            lender: None,
            held: None,
            _shown: None,
        };
        let mut deferred = Deferred::new(Box::new(debt), token, false);
        self.queue_chore(Box::new(move || {
            // A panic in `write` leaves a 500.
            let _ = deferred.write(|reply| {
                write(reply);
                Ok::<(), ()>(())
            });
            deferred.send();
        }));
    }

    /// Has a worker do something, detached, that is neither a view nor needs one.
    pub(super) fn queue_chore(self: &Arc<Self>, chore: Chore) {
        if self.pool.stream(StreamJob::Chore(chore)) {
            self.spawn();
        }
    }

    pub(super) fn tell_gone(&self, token: u64) {
        drop(catch_unwind(AssertUnwindSafe(|| self.handler.gone(token))));
    }
}

impl<H: Handler> Debt<H> {
    /// Lets `write` write a response with the engine's spare standing fields.
    fn fill(&mut self, write: Write<'_>) {
        let spare = &self.engine.standing;
        // Not locked while `write` runs, which may wait for the interpreter.
        let kept = locked(spare).take();
        let mut standing = kept.unwrap_or_else(|| Standing::new(&self.engine.config));
        standing.refresh();
        self.conn.out.truncate(self.begin);
        let conn = &mut *self.conn;
        let (out, record, info) = (&mut conn.out, conn.records.last(), &conn.info);
        let (exchange, lender) = (self.exchange, self.lender.as_ref());
        let written = catch_unwind(AssertUnwindSafe(|| {
            let mut reply = Reply::new(out, exchange, &standing, lender, record).to(info);
            let keep = write(&mut reply);
            keep.then(|| reply.finish())
        }));
        self.answer = written.unwrap_or_else(|panic| {
            self.engine.notice(&Notice::Panic(message(&*panic)));
            None
        });
        if self.answer.is_none() {
            self.conn.out.truncate(self.begin);
        }
        *locked(spare) = Some(standing);
    }
}

impl<H: Handler> Owed for Debt<H> {
    fn write(&mut self, write: Write<'_>) {
        self.fill(write);
    }

    fn begins(&mut self) {
        if let Some(record) = self.conn.records.last_mut() {
            record.calls(Instant::now());
        }
    }

    fn afterwards(&mut self, done: Box<dyn FnOnce() + Send>) {
        if let Some(answer) = &mut self.answer {
            answer.afterwards.push(done);
        }
    }

    fn inform(&mut self, bytes: &[u8]) -> bool {
        self.answer.is_none() && self.outbox.as_mut().is_some_and(|outbox| outbox.send(bytes))
    }

    fn send(mut self: Box<Self>, sending: Sending) {
        if let Some(outbox) = self.outbox.take() {
            let rest = outbox.into_rest();
            let count = rest.len();
            self.conn.out.splice(self.begin..self.begin, rest);
            self.begin += count;
            if let Some(answer) = &mut self.answer {
                answer.body += count;
            }
        }
        if self.answer.is_none() {
            self.fill(&mut |reply| {
                plain(reply, 500, "Internal Server Error");
                true
            });
        }
        let Debt { engine, mut conn, begin, answer, lender, held, .. } = *self;
        match answer {
            Some(mut answer) => {
                // The thread may be attached, and others wait for what it does next: a worker compresses.
                if conn.delivery.is_some() {
                    let standing = Standing::new(&engine.config);
                    engine.deliver(&mut conn, &mut answer, begin, &standing, || false);
                }
                engine.apply(&mut conn, answer, begin);
            }
            None => conn.broken = true,
        }
        if let Some(held) = held {
            match held.claim(conn) {
                Ok(kept) => conn = kept,
                // The deadline was earlier.
                Err(_) => return,
            }
        }
        if let Some(lender) = lender {
            engine.settle(&mut conn, lender);
        }
        // A stop that came meanwhile waits for no further request of this client.
        conn.closing |= engine.is_stopping() && conn.unread().is_empty();
        match sending {
            Sending::Here => engine.hand_in(conn),
            Sending::Leader => engine.leave(conn),
            Sending::LeaderNow => engine.give_back(conn),
        }
    }
}
