//! What the leader does: takes each ready connection as far as it goes.
//!
//! Its functions take the [`Lead`](crate::word::Lead) by value and give it back, unless the watchdog has given the
//! reactor to another thread meanwhile: then there is nothing to give back, and the type says so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hipflask_http::response::CONTINUE;
use hipflask_http::{BodyDecoder, Error, Framing, Limits, RequestHead};

use crate::body::{self, Body, Intake, Lender, Pace};
use crate::client::Trust;
use crate::conn::{BATCH, Conn, Filled, Pending, Phase, Pushed, READ, Reserved};
use crate::delivery::Delivery;
use crate::exchange::Notice;
use crate::exposed::Mounted;
use crate::handler::{Handler, Routed};
use crate::held::{Lent, Stage};
use crate::history::{Compressible, Lane, RouteHistory};
use crate::locked;
use crate::metrics::Counter;
use crate::outlet;
use crate::pool::{Call, StreamJob};
use crate::reactor::{Accepted, BELL, CALL, Reactor, Stopping};
use crate::record::Record;
use crate::refusal::{Refusal, RefusalKind};
use crate::reply::{asked, asked_unknown};
use crate::spool::Spool;
use crate::sys::Event;

use super::deadline::LATE_STREAM;
use super::{Engine, Helm, Here, Link, message, plain};

/// Steps that one connection may take before the others get their turn.
const SHARE: usize = 64;
/// Outlets that are looked after between two batches.
const WOKEN: usize = 32;
/// What a lingering connection reads at most.
pub(super) const LINGER_MOST: usize = 1 << 20;

/// An answer would cost what the limit saves, a handshake most of all.
pub(super) const CROWDED: Refusal = Refusal {
    kind: RefusalKind::ManyConnections,
    status: 0,
    reason: "its address has as many connections as it may",
};

/// What a step of the leader left.
pub(super) enum Flow<H: Handler> {
    /// Reactor and connection: go on.
    On(Helm<H>, Link<H>),
    /// The connection is parked, closed or with a worker.
    Next(Helm<H>),
    /// Another thread has the reactor.
    Lost,
}

impl<H: Handler> Engine<H> {
    /// Drives the reactor until it ends or goes to another thread.
    pub(super) fn lead(self: &Arc<Self>, mut lead: Helm<H>, here: &mut Here<H>) {
        here.standing.refresh();
        while !(self.is_stopping() && self.go_on_stopping(&mut lead)) {
            match self.turn(lead, here, None) {
                Some(same) => lead = same,
                None => return,
            }
        }
        let _ = self.ended_at.set(Instant::now());
        self.ended.store(true, Ordering::SeqCst);
        // Who gave a connection back before that store counts on somebody who looks; see `give_back`.
        let late = std::mem::take(&mut *locked(&self.inbox));
        drop(late);
        lead.returned.clear();
        self.pool.end();
        self.wake_watchdog();
    }

    /// One batch: does all that is ready, then waits for more, at most so long. An event loop of another kind can call
    /// this as its selector.
    pub(super) fn turn(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        here: &mut Here<H>,
        most: Option<Duration>,
    ) -> Option<Helm<H>> {
        loop {
            here.release_if_long(&*self.handler);
            if let Some(event) = lead.next_event() {
                lead = self.event(lead, event, here)?;
            } else if let Some(conn) = lead.next_due() {
                lead = self.time_out(lead, conn, here)?;
            } else if let Some(token) = lead.overdue.pop() {
                lead = self.overdue(lead, token, here)?;
            } else if let Some(mut conn) = lead.returned.pop_front() {
                lead.catch_up(&mut conn);
                lead = self.advance(lead, conn, here)?;
            } else if let Some(work) = lead.work.pop_front() {
                lead = self.assign(lead, work, here)?;
            } else if self.waker.take_call() {
                self.waker.take_tokens(&mut lead.woken);
                self.waker.take_work(&mut lead.work);
                let mut inbox = locked(&self.inbox);
                lead.returned.extend(inbox.drain(..));
            } else {
                break;
            }
        }
        // Outlets that were given something, a share of them, so that requests get their turn beside an event for
        // thousands.
        for _ in 0..WOKEN {
            let Some(token) = lead.woken.pop_front() else { break };
            if let Some(conn) = lead.check_out_woken(token) {
                lead = self.advance(lead, conn, here)?;
            } else if let Some(token) = lead.gone.take() {
                self.tell_gone(token);
            }
        }
        // Those that had their share, once each.
        for _ in 0..lead.again.len() {
            let Some(token) = lead.again.pop_front() else { break };
            if let Some(conn) = lead.check_out_again(token) {
                lead = self.advance(lead, conn, here)?;
            }
        }
        if !lead.throttled.is_empty() && self.pool.has_room() {
            let tokens = std::mem::take(&mut lead.throttled);
            for token in &tokens {
                if let Some(mut conn) = lead.check_out_again(*token) {
                    conn.throttled = false;
                    lead.park(conn);
                }
            }
            lead.again.extend(tokens);
        }
        here.detach(&*self.handler);
        self.handler.deferred();
        if let Some(stats) = self.stats() {
            stats.take_traffic();
        }
        // One that has become idle since the last call is closed before the leader waits again, and the last one that
        // was closed ends it all.
        let finishing = match lead.stopping {
            Stopping::No => false,
            Stopping::LastCall(..) => lead.is_empty(),
            Stopping::Finishing(_) => lead.is_empty() || !lead.idle().is_empty(),
        };
        let most = if lead.has_work() || finishing { Some(Duration::ZERO) } else { most };
        let most = if self.waker.sleeps() { most } else { Some(Duration::ZERO) };
        let waited = lead.wait(most);
        self.waker.woke();
        here.clock = lead.now;
        here.standing.refresh();
        if let Err(error) = waited {
            self.notice(&Notice::Panic(format!("the poller failed: {error}")));
        }
        Some(lead)
    }

    pub(super) fn event(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        event: Event,
        here: &mut Here<H>,
    ) -> Option<Helm<H>> {
        if event.token == BELL {
            self.waker.quiet();
            if self.looks.swap(false, Ordering::SeqCst) {
                lead.listen_anew();
            }
        } else if event.token == CALL || Reactor::<H::Ticket>::is_listener(event.token) {
            let accepted =
                if event.token == CALL { lead.answer_call() } else { lead.accept_some(event.token) };
            // One notice each time, not one for each attempt.
            match accepted {
                Accepted::Paused(error) if !std::mem::replace(&mut lead.exhausted, true) => {
                    self.notice(&Notice::AcceptPaused(error.to_string()));
                }
                Accepted::Fine if std::mem::take(&mut lead.exhausted) => self.notice(&Notice::AcceptResumed),
                _ => {}
            }
            for info in std::mem::take(&mut lead.turned_away) {
                self.tell_refused(&info, CROWDED);
            }
            if let Some(reloaded) = lead.reloaded.take() {
                self.notice(&match reloaded {
                    Ok(()) => Notice::CertificatesReloaded,
                    Err(error) => Notice::CertificatesKept(error.to_string()),
                });
            }
        } else if let Some(conn) = lead.check_out(event) {
            return self.advance(lead, conn, here);
        } else if let Some(token) = lead.gone.take() {
            self.tell_gone(token);
        }
        Some(lead)
    }

    /// Takes a connection as far as it goes.
    pub(super) fn advance(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        here: &mut Here<H>,
    ) -> Option<Helm<H>> {
        for _ in 0..SHARE {
            match self.step(lead, conn, here) {
                Flow::On(same, on) => (lead, conn) = (same, on),
                Flow::Next(same) => return Some(same),
                Flow::Lost => return None,
            }
        }
        lead.again.push_back(conn.token);
        lead.park(conn);
        Some(lead)
    }

    pub(super) fn step(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        here: &mut Here<H>,
    ) -> Flow<H> {
        if conn.broken {
            self.close(&mut lead, conn);
            return Flow::Next(lead);
        }
        // Answers to pipelined requests go out together; a stream's head goes out with its first piece.
        let waits = match &conn.phase {
            Phase::Ready => {
                !conn.closing
                    && !conn.throttled
                    && conn.has_unparsed()
                    && conn.file.is_none()
                    && conn.out.len() - conn.out_at < BATCH
            }
            Phase::Stream(stream) => stream.begin.is_some(),
            // Both write by themselves.
            Phase::Outlet(_) | Phase::Http2(_) => true,
            _ => false,
        };
        if !waits && conn.has_output() {
            if conn.info.secure && (conn.file.is_some() || conn.out.len() - conn.out_at > READ) {
                // Encrypting a long body takes milliseconds: not with the interpreter held.
                here.detach(&*self.handler);
            }
            match conn.push() {
                Pushed::Done => self.tell_answers(&mut conn),
                Pushed::Blocked => {
                    lead.park(conn);
                    return Flow::Next(lead);
                }
                Pushed::Broken => {
                    self.close(&mut lead, conn);
                    return Flow::Next(lead);
                }
            }
        }
        match &conn.phase {
            Phase::Stream(stream) => {
                let deadline = stream.deadline;
                lead.lend(&conn);
                if let Some(deadline) = deadline {
                    lead.note_lent(conn.token, Lent::Until(deadline, Arc::clone(&conn.info)));
                    lead.wake_at(conn.token, deadline);
                }
                if self.pool.stream(StreamJob::Conn(conn)) {
                    self.spawn();
                }
                Flow::Next(lead)
            }
            Phase::Outlet(_) => self.feed(lead, conn, here),
            Phase::Http2(_) => self.carry(lead, conn, here),
            Phase::Arrived(_) => self.begin_stream(lead, conn, here),
            Phase::Ready if conn.closing => {
                // More has come than is read: to close now would reset, and take the answer from the client.
                if !conn.linger && !conn.readable {
                    lead.close(conn);
                    return Flow::Next(lead);
                }
                conn.socket.shutdown(std::net::Shutdown::Write);
                conn.phase = Phase::Linger(LINGER_MOST, lead.now);
                conn.readable = true;
                Flow::On(lead, conn)
            }
            Phase::Ready if conn.throttled => {
                lead.throttled.push(conn.token);
                lead.park(conn);
                Flow::Next(lead)
            }
            Phase::Ready if conn.has_unparsed() => self.parse(lead, conn, here),
            _ => self.read(lead, conn, here),
        }
    }

    pub(super) fn parse(self: &Arc<Self>, lead: Helm<H>, mut conn: Link<H>, here: &mut Here<H>) -> Flow<H> {
        if !conn.used {
            match self.begins_http2(&conn) {
                Some(false) => {}
                Some(true) => {
                    self.become_http2(&mut conn);
                    return Flow::On(lead, conn);
                }
                None => {
                    conn.starved = true;
                    return Flow::On(lead, conn);
                }
            }
        }
        match conn.parse(&self.head_limits) {
            Ok(Some(head)) => self.request(lead, conn, head, here),
            Ok(None) => Flow::On(lead, conn),
            Err(error) => {
                self.note_unread(&mut conn);
                self.refuse(&mut conn, error.into(), asked_unknown(), here);
                Flow::On(lead, conn)
            }
        }
    }

    /// Notes a request whose head cannot be read, or does not come.
    pub(super) fn note_unread(&self, conn: &mut Conn<H::Ticket>) {
        self.forget_client(conn);
        if self.config.tell_answers {
            let sent_before = conn.sent_until(conn.out.len());
            conn.records.push(Record::unread(Instant::now(), sent_before));
        }
    }

    /// Reads, and does with it what the phase says.
    pub(super) fn read(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        here: &mut Here<H>,
    ) -> Flow<H> {
        if conn.greeting {
            return self.greet(lead, conn, here);
        }
        // A body that is being collected is read into its place, with nothing of what follows it.
        if conn.unread().is_empty() && matches!(conn.phase, Phase::Collect(_)) {
            if matches!(&conn.phase, Phase::Collect(pending) if pending.body.len() >= pending.wanted) {
                return self.collected(lead, conn, here);
            }
            let Phase::Collect(mut pending) = std::mem::replace(&mut conn.phase, Phase::Ready) else {
                return Flow::On(lead, conn);
            };
            let (had, want) = (pending.body.len(), pending.wanted.saturating_sub(pending.body.len()));
            let filled = conn.fill_body(&mut pending.body, want);
            pending.pace.progress(lead.now, pending.body.len() - had);
            let is_complete = pending.body.len() >= pending.wanted;
            conn.phase = Phase::Collect(pending);
            if filled == Filled::Some && is_complete {
                return self.collected(lead, conn, here);
            }
            return match filled {
                Filled::Some => Flow::On(lead, conn),
                Filled::Nothing => {
                    lead.park(conn);
                    Flow::Next(lead)
                }
                Filled::End | Filled::Broken => {
                    self.ended_early(&mut conn);
                    lead.close(conn);
                    Flow::Next(lead)
                }
            };
        }
        lead.equip(&mut conn);
        // What was read with the head, or before this step, comes first.
        let filled = if matches!(conn.phase, Phase::Ready) || conn.unread().is_empty() {
            conn.fill()
        } else {
            Filled::Some
        };
        match filled {
            Filled::Some => {}
            Filled::Nothing => {
                lead.park(conn);
                return Flow::Next(lead);
            }
            Filled::End | Filled::Broken => {
                self.ended_early(&mut conn);
                lead.close(conn);
                return Flow::Next(lead);
            }
        }
        match std::mem::replace(&mut conn.phase, Phase::Ready) {
            Phase::Collect(mut pending) => {
                let want = pending.wanted.saturating_sub(pending.body.len());
                let bytes = conn.unread();
                let bytes = bytes.get(..want.min(bytes.len())).unwrap_or_default();
                pending.body.extend_from_slice(bytes);
                let count = bytes.len();
                pending.pace.progress(lead.now, count);
                conn.take(count);
                let is_complete = pending.body.len() >= pending.wanted;
                conn.phase = Phase::Collect(pending);
                if is_complete { self.collected(lead, conn, here) } else { Flow::On(lead, conn) }
            }
            Phase::Spool(spooling) => self.spool_on(lead, conn, spooling, here),
            Phase::Drain(mut drain) => {
                let (decoder, pace) = &mut *drain;
                let mut dropped = Vec::new();
                match decoder.decode(conn.unread(), &mut dropped, usize::MAX) {
                    Ok(used) => {
                        pace.progress(lead.now, used);
                        conn.take(used);
                        if !decoder.is_done() {
                            conn.phase = Phase::Drain(drain);
                        }
                    }
                    Err(_) => conn.closing = true,
                }
                Flow::On(lead, conn)
            }
            Phase::Linger(left, since) => {
                let count = conn.unread().len();
                conn.take(count);
                let left = left.saturating_sub(count);
                if left == 0 {
                    lead.close(conn);
                    return Flow::Next(lead);
                }
                conn.phase = Phase::Linger(left, since);
                Flow::On(lead, conn)
            }
            Phase::Ready => Flow::On(lead, conn),
            other @ (Phase::Stream(_) | Phase::Outlet(_) | Phase::Http2(_) | Phase::Arrived(_)) => {
                conn.phase = other;
                Flow::On(lead, conn)
            }
        }
    }

    /// A head has arrived: asks the handler who answers it.
    pub(super) fn request(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        mut head: Box<RequestHead>,
        here: &mut Here<H>,
    ) -> Flow<H> {
        conn.used = true;
        conn.began = None;
        lead.served += 1;
        if let Some(stats) = self.stats() {
            stats.count(Counter::Requests);
        }
        if self.config.tell_after == Some(lead.served) {
            self.notice(&Notice::Served);
        }
        if conn.out.capacity() == 0 {
            conn.out = lead.buffer();
        }
        if self.config.request_id.is_on() {
            self.config.request_id.give(&mut head, conn.info.trust);
        }
        let identified = match conn.info.trust {
            Trust::Yes => self.identify(&mut conn, &head),
            Trust::No | Trust::Unset => Ok(()),
        };
        if self.config.notes() {
            here.clock = Instant::now();
            let sent_before = conn.sent_until(conn.out.len());
            // Most connections have one request at a time.
            conn.records.reserve_exact(usize::from(conn.records.is_empty()));
            let mut record = Record::new(&head, &self.config, here.clock, sent_before);
            record.comes_from(&conn.info);
            conn.records.push(record);
        }
        if let Err(error) = identified {
            self.refuse(&mut conn, error.into(), asked(&head, false), here);
            return Flow::On(lead, conn);
        }
        if conn.redirects {
            return self.redirect(lead, conn, &head, here);
        }
        let route = || match self.config.files.find(&head) {
            Some(Mounted::File(file)) => Ok(Routed::File(file)),
            Some(Mounted::Slash(location)) => Ok(Routed::Answer(Box::new(move |reply| {
                reply.start(308, None);
                // Of a path that could be sent.
                let _ = reply.field(b"Location", &location);
                reply.body(b"");
            }))),
            Some(Mounted::Listing(listing)) => Err(listing),
            None => Ok(self.handler.route(&head, &conn.info)),
        };
        let routed = match catch_unwind(AssertUnwindSafe(route)) {
            Ok(Ok(routed)) => routed,
            Ok(Err(listing)) => {
                let usable = self.skip_body(&mut conn, &head, lead.now);
                let exchange = asked(&head, usable && !self.is_stopping());
                conn.delivery = Delivery::of(&head, &self.config, Compressible::File);
                let _ = conn.push();
                lead.lend(&conn);
                here.detach(&*self.handler);
                self.answer_later(conn, exchange, move |reply| listing.answer(&head, reply));
                return Flow::Next(lead);
            }
            Err(panic) => {
                self.notice(&Notice::Panic(message(&*panic)));
                let usable = self.skip_body(&mut conn, &head, lead.now);
                self.answer(&mut conn, asked(&head, usable && !self.is_stopping()), here, |reply| {
                    plain(reply, 500, "Internal Server Error");
                });
                return Flow::On(lead, conn);
            }
        };
        match routed {
            Routed::Answer(write) => {
                let usable = self.skip_body(&mut conn, &head, lead.now);
                self.answer(&mut conn, asked(&head, usable && !self.is_stopping()), here, |reply| {
                    write(reply);
                });
                Flow::On(lead, conn)
            }
            Routed::File(mut file) => {
                if let Some(record) = conn.records.last_mut() {
                    record.route = file.route.take();
                }
                let usable = self.skip_body(&mut conn, &head, lead.now);
                let exchange = asked(&head, usable && !self.is_stopping());
                conn.delivery = Delivery::of(&head, &self.config, Compressible::File);
                self.answer(&mut conn, exchange, here, |reply| {
                    file.answer(&head, reply, &self.config.files);
                });
                Flow::On(lead, conn)
            }
            Routed::Call { ticket, history, max_body } => {
                conn.delivery = Delivery::of(&head, &self.config, history.compressible());
                if let Some(record) = conn.records.last_mut() {
                    record.route = Some(Arc::clone(&history));
                }
                let most = max_body.unwrap_or(self.config.limits.body);
                self.receive(lead, conn, head, ticket, history, most, here)
            }
        }
    }

    /// Asks a trusted proxy's request whose it is.
    fn identify(&self, conn: &mut Conn<H::Ticket>, head: &RequestHead) -> Result<(), Error> {
        match conn.info.for_request(head, &self.config) {
            Ok(Some(info)) => conn.info = Arc::new(info),
            Ok(None) => {}
            Err(error) => {
                self.forget_client(conn);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Calls the view whose body has been collected, once it is known whether trailers follow.
    fn collected(self: &Arc<Self>, mut lead: Helm<H>, mut conn: Link<H>, here: &mut Here<H>) -> Flow<H> {
        let Some(heard) = self.trailers_behind(&conn) else {
            conn.readable = false;
            lead.park(conn);
            return Flow::Next(lead);
        };
        let Phase::Collect(pending) = std::mem::replace(&mut conn.phase, Phase::Ready) else {
            return Flow::On(lead, conn);
        };
        let Pending { head, ticket, history, body, .. } = *pending;
        match heard {
            Ok(trailers) => {
                let body = Body::whole(body, trailers);
                self.invoke(lead, conn, head, (body, None), ticket, history, here)
            }
            Err(error) => {
                self.refuse(&mut conn, error.into(), asked(&head, false), here);
                Flow::On(lead, conn)
            }
        }
    }

    /// Forgets whose the last request was: what comes of the connection now may be somebody else's.
    pub(super) fn forget_client(&self, conn: &mut Conn<H::Ticket>) {
        if let Some(info) = conn.info.without_request() {
            conn.info = Arc::new(info);
        }
    }

    /// Room for a body to be collected in, unless all bodies together hold too much already.
    fn reserve(&self, length: u64) -> Option<Reserved> {
        Reserved::take(&self.collecting, length, self.config.buffer_bodies)
    }

    /// Decides how a view gets its body.
    #[allow(clippy::too_many_arguments, reason = "the parts of one request, used once")]
    pub(super) fn receive(
        self: &Arc<Self>,
        lead: Helm<H>,
        mut conn: Link<H>,
        head: Box<RequestHead>,
        ticket: H::Ticket,
        history: Arc<RouteHistory>,
        most: u64,
        here: &mut Here<H>,
    ) -> Flow<H> {
        let framing = head.framing();
        match framing {
            Framing::None => {
                return self.invoke(lead, conn, head, (Body::Empty, None), ticket, history, here);
            }
            Framing::Length(0) if conn.socket.stream().is_none() => {
                return self.invoke(lead, conn, head, (Body::Empty, None), ticket, history, here);
            }
            Framing::Length(length) if length > most => {
                self.refuse(&mut conn, Error::LongBody.into(), asked(&head, false), here);
                return Flow::On(lead, conn);
            }
            Framing::Length(length) if length <= self.config.buffer_body && history.collects(length) => {
                let wanted = usize::try_from(length).unwrap_or(usize::MAX);
                if let Some(bytes) = conn.unread().get(..wanted)
                    && let Some(Ok(trailers)) = self.trailers_behind(&conn)
                {
                    let body = Body::whole(bytes.to_vec(), trailers);
                    conn.take(wanted);
                    return self.invoke(lead, conn, head, (body, None), ticket, history, here);
                }
                // A client that asks first is asked to send no more than would be dropped if the view does not read it.
                let asks_first = head.expects_continue() && conn.unread().is_empty();
                if (!asks_first || length <= self.config.drain_body)
                    && !history.takes_stream()
                    && let Some(reserved) = self.reserve(length)
                {
                    if asks_first {
                        conn.out.extend_from_slice(CONTINUE);
                    }
                    let (body, pace) = (Vec::with_capacity(wanted), Pace::new(lead.now));
                    let pending = Pending { head, ticket, history, body, wanted, pace, _reserved: reserved };
                    conn.phase = Phase::Collect(Box::new(pending));
                    return Flow::On(lead, conn);
                }
            }
            Framing::Length(_) | Framing::Chunked => {}
        }
        let limits = Limits { body: most, ..self.config.limits.clone() };
        let mut decoder = BodyDecoder::new(framing, &limits);
        let mut decoded = Vec::new();
        let buffer = usize::try_from(self.config.buffer_body).unwrap_or(usize::MAX);
        let had = !conn.unread().is_empty();
        match decoder.decode(conn.unread(), &mut decoded, buffer) {
            Ok(used) => conn.take(used),
            Err(error) => {
                self.refuse(&mut conn, error.into(), asked(&head, false), here);
                return Flow::On(lead, conn);
            }
        }
        if decoder.is_done()
            && let Some(Ok(mut trailers)) = self.trailers_behind(&conn)
        {
            trailers.append(&mut decoder.take_trailers());
            let body = Body::whole(decoded, trailers);
            return self.invoke(lead, conn, head, (body, None), ticket, history, here);
        }
        if self.pool.is_full() && !history.takes_stream() {
            self.refuse_full(&mut conn, asked(&head, false), here);
            conn.linger = true;
            return Flow::On(lead, conn);
        }
        // Nothing may come between earlier answers and the 100: if they do not go out now, none is sent, and the
        // client sends its body after a while (RFC 9110 §10.1.1).
        let owes_continue = head.expects_continue() && !had && conn.push() == Pushed::Done;
        let is_measured = framing == Framing::Chunked && history.takes_whole();
        let reader = if history.takes_stream() || is_measured { None } else { self.reader() };
        if reader.is_none()
            && !history.takes_stream()
            && !decoder.is_done()
            && let Ok(file) = Spool::new(&self.spooled)
        {
            let spooling = self.spooling(head, ticket, history, decoder, file, Pace::new(lead.now));
            return self.spool(lead, conn, spooling, &decoded, owes_continue, here);
        }
        let pace = Pace::new(lead.now);
        let intake = Intake {
            received: decoded.len() as u64,
            decoded,
            owes_continue,
            ..self.intake(&mut conn, decoder, pace)
        };
        let (stream, lender) = body::lend(intake, reader);
        self.invoke(lead, conn, head, (Body::Stream(stream), Some(lender)), ticket, history, here)
    }

    /// Calls the view here, or sends it to a worker.
    #[allow(clippy::too_many_arguments, reason = "the parts of one request, used once")]
    pub(super) fn invoke(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        head: Box<RequestHead>,
        (body, lender): (Body, Option<Lender>),
        ticket: H::Ticket,
        history: Arc<RouteHistory>,
        here: &mut Here<H>,
    ) -> Flow<H> {
        if let (Body::Buffered(_) | Body::Trailed(_), Some(record)) = (&body, conn.records.last_mut()) {
            record.is_ready(Instant::now(), body.length());
        }
        let mut lane =
            if lender.is_some() && !history.takes_stream() { Lane::Worker } else { history.lane() };
        if lane == Lane::Inline && !self.pool.has_spare() && !history.is_surely_fast() {
            // Nobody could take the lead over if this view were slow for once.
            lane = Lane::Worker;
        }
        let exchange = asked(&head, !self.is_stopping());
        let token = conn.token;
        if lane == Lane::Later {
            let _ = conn.push();
            lead.lend(&conn);
            lead.expect_end(&conn);
            here.detach(&*self.handler);
            let route = (&history, exchange);
            let (conn, held) = self.hold(conn, &head, route, lender.as_ref(), lead.now, Stage::Deferred);
            self.watch_lent(&mut lead, token, held.as_ref(), false);
            self.defer(conn, head, (body, lender), ticket, held);
            return Flow::Next(lead);
        }
        if lane != Lane::Inline {
            if lender.is_none() && self.pool.is_full() {
                self.refuse_full(&mut conn, asked(&head, !self.is_stopping()), here);
                return Flow::On(lead, conn);
            }
            // Earlier answers must not wait for this view. What the client does not take now goes out with it.
            let _ = conn.push();
            lead.lend(&conn);
            if history.lane() == Lane::Later {
                lead.expect_end(&conn);
            }
            let route = (&history, exchange);
            let (conn, held) = self.hold(conn, &head, route, lender.as_ref(), lead.now, Stage::Waits);
            self.watch_lent(&mut lead, token, held.as_ref(), true);
            let call = Box::new(Call { conn, head, body, lender, ticket, history, held });
            if self.pool.call(call, lane == Lane::Probation) {
                self.spawn();
            }
            return Flow::Next(lead);
        }
        lead.lend(&conn);
        let proven = history.is_proven();
        if self.unproven.load(Ordering::Relaxed) == proven {
            self.unproven.store(!proven, Ordering::Relaxed);
        }
        history.starts_inline();
        self.handler.deferred();
        let (mut conn, held) = self.hold(conn, &head, (&history, exchange), None, here.clock, Stage::Runs);
        if let Some(held) = &held {
            lead.note_lent(token, Lent::Held(Arc::clone(held)));
        }
        here.calls += 1;
        lead.inline.begin(
            &here.desk,
            here.calls,
            token,
            &history,
            (head.method(), head.target()),
            here.clock,
        );
        let away = lead.step_away();
        if self.watchdog_sleeps.load(Ordering::SeqCst) {
            self.wake_watchdog();
        }
        let took = self.perform(&mut conn, head, body, None, ticket, here);
        match away.back() {
            Some(mut lead) => {
                lead.inline.end();
                history.ends_inline();
                history.record(took);
                if let Some(held) = held {
                    lead.unlend(token);
                    match held.claim(conn) {
                        Ok(kept) => conn = kept,
                        // Only another leader could have answered.
                        Err(stand_in) => {
                            self.too_late(stand_in);
                            return Flow::Next(lead);
                        }
                    }
                }
                Flow::On(lead, conn)
            }
            None => {
                here.desk.end(here.calls);
                history.record_retaken(took);
                history.ends_inline();
                here.detach(&*self.handler);
                let claimed = match held {
                    Some(held) => held.claim(conn),
                    None => Ok(conn),
                };
                match claimed {
                    Ok(conn) => self.hand_in(conn),
                    Err(stand_in) => self.too_late(stand_in),
                }
                Flow::Lost
            }
        }
    }

    /// Closes a connection whose responses may not all be out.
    pub(super) fn close(&self, lead: &mut Helm<H>, mut conn: Link<H>) {
        self.tell_cut(&mut conn);
        // Whoever feeds it hears of its end.
        if matches!(conn.phase, Phase::Outlet(_)) {
            drop(std::mem::replace(&mut conn.phase, Phase::Ready));
        }
        lead.close(conn);
    }

    /// A deadline has passed.
    pub(super) fn time_out(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        here: &mut Here<H>,
    ) -> Option<Helm<H>> {
        if conn.throttled && !conn.has_output() {
            lead.park(conn);
            return Some(lead);
        }
        if let Phase::Outlet(flow) = &mut conn.phase {
            here.detach(&*self.handler);
            flow.keep_time(lead.now);
            let is_late = flow.deadline.is_some_and(|deadline| deadline <= lead.now);
            if !is_late && lead.patience_ends(&conn).is_none_or(|end| end > lead.now) {
                // Those of thousands of streams may be due at the same time.
                lead.woken.push_back(conn.token);
                lead.park(conn);
                return Some(lead);
            }
        }
        let deadline = match &conn.phase {
            Phase::Stream(stream) => stream.deadline,
            Phase::Outlet(flow) if flow.stage != outlet::Stage::Finishing => flow.deadline,
            _ => None,
        };
        if deadline.is_some_and(|deadline| deadline <= lead.now) {
            here.detach(&*self.handler);
            self.tell_refused(&conn.info, LATE_STREAM);
            conn.broken = true;
            self.close(&mut lead, conn);
            return Some(lead);
        }
        if conn.greeting {
            self.give_up_greeting(&conn);
            lead.close(conn);
            return Some(lead);
        }
        let (kind, reason) = match &conn.phase {
            _ if conn.has_output() => {
                let why = "the client takes the response too slowly";
                self.refused_silently(&conn, RefusalKind::SlowReader, why);
                conn.broken = true;
                self.close(&mut lead, conn);
                return Some(lead);
            }
            Phase::Http2(_) => {
                self.give_up_http2(&mut lead, conn);
                return Some(lead);
            }
            Phase::Ready if !conn.is_idle() => (RefusalKind::SlowHead, "the head arrives too slowly"),
            Phase::Collect(_) | Phase::Spool(_) => (RefusalKind::SlowBody, "the body arrives too slowly"),
            Phase::Ready
            | Phase::Arrived(_)
            | Phase::Drain(_)
            | Phase::Stream(_)
            | Phase::Outlet(_)
            | Phase::Linger(..) => {
                self.close(&mut lead, conn);
                return Some(lead);
            }
        };
        if !matches!(conn.phase, Phase::Collect(_)) {
            self.note_unread(&mut conn);
        }
        let dropped = std::mem::replace(&mut conn.phase, Phase::Ready);
        drop(dropped);
        self.refuse(&mut conn, Refusal { kind, status: 408, reason }, asked_unknown(), here);
        self.advance(lead, conn, here)
    }

    /// Brings a stop further; true when nothing is left to do.
    pub(super) fn go_on_stopping(&self, lead: &mut Helm<H>) -> bool {
        let now = Instant::now();
        let grace = *locked(&self.grace);
        if lead.stopping == Stopping::No {
            lead.stop_listening(self.hand_over.load(Ordering::SeqCst));
            self.notice(&Notice::Closed);
            lead.stopping = Stopping::LastCall(now + self.config.timeouts.last_call, now + grace);
            let outlets = lead.outlets();
            lead.woken.extend(outlets);
            let http2 = lead.http2();
            lead.woken.extend(http2);
        }
        if let Stopping::LastCall(first, last) = lead.stopping
            && first <= now
        {
            lead.stopping = Stopping::Finishing(last);
        }
        if let Stopping::Finishing(_) = lead.stopping {
            // Whoever is idle now has had the time to send a request that was under way. What has come to the socket
            // but not yet to us counts.
            for token in lead.http2() {
                if let Some(conn) = lead.check_out_again(token) {
                    self.end_idle_http2(lead, conn);
                }
            }
            for token in lead.idle() {
                let Some(mut conn) = lead.check_out_again(token) else { continue };
                conn.readable = true;
                if conn.announces && conn.socket.peek(1).is_ok_and(|bytes| !bytes.is_empty()) {
                    lead.park(conn);
                    lead.again.push_back(token);
                    continue;
                }
                if conn.fill() == Filled::Some {
                    lead.park(conn);
                    lead.again.push_back(token);
                } else {
                    lead.close(conn);
                }
            }
        }
        if lead.is_empty() && lead.work.is_empty() && !self.waker.has_call() && !self.pool.is_busy() {
            return true;
        }
        let late = match lead.stopping {
            Stopping::LastCall(_, last) | Stopping::Finishing(last) => last <= now,
            Stopping::No => false,
        };
        if late || self.stops.load(Ordering::SeqCst) > 1 {
            for token in lead.outlets() {
                if let Some(mut conn) = lead.check_out_again(token) {
                    conn.broken = true;
                    self.close(lead, conn);
                }
            }
            for token in lead.cut() {
                self.tell_gone(token);
            }
            self.stops.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        false
    }
}
