//! What any thread does with a connection that it holds: calls the handler, asks streams, writes the server's own
//! answers.

use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hipflask_http::response::Exchange;
use hipflask_http::{BodyDecoder, Framing, Limits, RequestHead, Trailers, Version};

use crate::body::{Body, Lender, Pace};
use crate::conn::{After, Conn, Phase, Pushed, Streaming};
use crate::exchange::{ConnInfo, Notice};
use crate::exposed;
use crate::handler::{Handler, Request};
use crate::held::Stage;
use crate::history::Lane;
use crate::interim::{self, Outbox, Scope};
use crate::outlet::Delegate;
use crate::pool::Call;
use crate::record::Record;
use crate::refusal::{Refusal, RefusalKind};
use crate::reply::{Answer, Payload, Reply, SWITCHING, Standing, asked, asked_unknown};

use super::{Engine, Here, Link, message, plain};

/// Files up to this size are read and sent together with the head: one call less than sendfile, and one record of TLS or
/// frame of HTTP/2.
const SMALL_FILE: u64 = 32 * 1024;
/// The same where the kernel sends a file without copying it: 1 KiB costs 3.4 µs so and 4.6 µs with sendfile, but 4 KiB
/// 6.9 and 4.7, and 10 KiB 9.0 and 4.3.
const SMALL_UNCOPIED_FILE: u64 = 2 * 1024;

impl<H: Handler> Engine<H> {
    /// Runs a view on a worker.
    pub(super) fn work(self: &Arc<Self>, call: Call<H::Ticket>, here: &mut Here<H>) {
        let Call { mut conn, head, mut body, lender, ticket, history, held } = call;
        here.standing.refresh();
        if held.as_ref().is_some_and(|held| !held.enter(Stage::Runs)) {
            // The deadline was earlier.
            return;
        }
        if history.lane() == Lane::Later
            && let Some(lender) = &lender
            && let Body::Stream(stream) = &mut body
            && let Some(whole) = stream.read_ahead()
        {
            self.take_back(&mut conn, lender);
            if held.as_ref().is_none_or(|held| held.enter(Stage::Deferred)) {
                self.defer(conn, head, (whole, None), ticket, held);
            }
            return self.handler.deferred();
        }
        here.calls += 1;
        here.desk.begin(here.calls, conn.token, &history, (head.method(), head.target()), self.patience());
        let took = self.perform(&mut conn, head, body, lender.as_ref(), ticket, here);
        here.detach(&*self.handler);
        here.desk.end(here.calls);
        history.record(took);
        if let Some(held) = held {
            match held.claim(conn) {
                Ok(kept) => conn = kept,
                Err(stand_in) => return self.too_late(stand_in),
            }
        }
        if let Some(lender) = lender {
            self.settle(&mut conn, lender);
        }
        self.hand_in(conn);
    }

    /// Writes what can be written, and gives the connection back.
    pub(super) fn hand_in(&self, mut conn: Link<H>) {
        let waits = match &conn.phase {
            Phase::Stream(stream) => stream.begin.is_some(),
            // The leader sends the head and what is there of the body together.
            Phase::Outlet(flow) => flow.has_news(),
            _ => false,
        };
        if !waits {
            match conn.push() {
                Pushed::Done => self.tell_answers(&mut conn),
                Pushed::Blocked => {}
                Pushed::Broken => conn.broken = true,
            }
        }
        if let Some(stats) = self.stats() {
            stats.take_traffic();
        }
        self.give_back(conn);
    }

    /// Calls the handler; the response is in the connection's hands afterwards.
    pub(super) fn perform(
        self: &Arc<Self>,
        conn: &mut Conn<H::Ticket>,
        head: Box<RequestHead>,
        body: Body,
        lender: Option<&Lender>,
        ticket: H::Ticket,
        here: &mut Here<H>,
    ) -> Duration {
        let exchange = asked(&head, !self.is_stopping());
        let mut begin = conn.out.len();
        let scope = self.outbox(conn, exchange, lender.is_some()).map(Scope::enter);
        let request = Request { head, body, ticket, conn: Arc::clone(&conn.info) };
        if let Some(stats) = self.stats() {
            stats.is_busy(true);
        }
        if here.attached.is_none()
            && let Some(record) = conn.records.last_mut()
        {
            record.begins(Instant::now());
        }
        here.attach(&*self.handler);
        let before = Instant::now();
        if let Some(record) = conn.records.last_mut() {
            record.calls(before);
        }
        let Here { thread, standing, .. } = here;
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut reply =
                Reply::new(&mut conn.out, exchange, standing, lender, conn.records.last()).to(&conn.info);
            self.handler.call(thread, request, &mut reply);
            reply.finish()
        }));
        here.clock = Instant::now();
        if let Some(stats) = self.stats() {
            stats.is_busy(false);
        }
        let mut interim = 0;
        if let Some(scope) = scope {
            let rest = scope.leave();
            interim = rest.len();
            conn.out.splice(begin..begin, rest);
            begin += interim;
        }
        match result {
            Ok(mut answer) => {
                answer.body += interim;
                let mut compresses = false;
                let Here { thread, attached, standing, .. } = here;
                self.deliver(conn, &mut answer, begin, standing, || {
                    if attached.take().is_some() {
                        self.handler.detach(thread);
                    }
                    compresses = true;
                    true
                });
                if compresses {
                    // It counts as the view's time: one whose response takes long goes to a worker.
                    here.clock = Instant::now();
                }
                self.apply(conn, answer, begin);
            }
            Err(panic) => {
                conn.delivery = None;
                self.notice(&Notice::Panic(message(&*panic)));
                self.replace(conn, begin, here);
            }
        }
        here.clock - before
    }

    /// Where a request's interim responses go; `None` if it may have none.
    pub(super) fn outbox(
        &self,
        conn: &Conn<H::Ticket>,
        exchange: Exchange,
        reads_body: bool,
    ) -> Option<Outbox> {
        let allowed = interim::allows(exchange.version, self.config.early_hints);
        if exchange.version == Version::Http2 {
            return Some(Outbox::new(&conn.socket, allowed));
        }
        // Whoever reads the body may write a 100, and what was written before comes first.
        (allowed && !reads_body && !conn.is_behind && conn.out_at >= conn.out.len() && !conn.socket.owes())
            .then(|| Outbox::new(&conn.socket, true))
    }

    /// Puts a 500 in the place of a response that came to nothing, and closes.
    pub(super) fn replace(&self, conn: &mut Conn<H::Ticket>, begin: usize, here: &Here<H>) {
        conn.out.truncate(begin);
        conn.file = None;
        conn.phase = Phase::Ready;
        let record = conn.records.last();
        let mut reply =
            Reply::new(&mut conn.out, asked_unknown(), &here.standing, None, record).to(&conn.info);
        plain(&mut reply, 500, "Internal Server Error");
        let answer = reply.finish();
        self.apply(conn, answer, begin);
    }

    /// Has a complete response compressed, if that was wanted; see [`Delivery`](crate::delivery::Delivery).
    pub(super) fn deliver(
        self: &Arc<Self>,
        conn: &mut Conn<H::Ticket>,
        answer: &mut Answer,
        begin: usize,
        standing: &Standing,
        ready: impl FnOnce() -> bool,
    ) {
        if let Some(delivery) = conn.delivery.take() {
            if let Some(asked) = &delivery.asked
                && let Some(missing) = exposed::send_named(
                    &self.config.files.exposed,
                    asked,
                    answer,
                    (&mut conn.out, begin),
                    standing,
                )
            {
                self.notice(&Notice::NotSent(missing));
            }
            let delegate = || {
                let engine = Arc::downgrade(self);
                let delegate: Delegate = Arc::new(move |chore| {
                    if let Some(engine) = engine.upgrade() {
                        engine.queue_chore(chore);
                    }
                });
                delegate
            };
            delivery.deliver(answer, &mut conn.out, begin, &self.kept, ready, delegate);
        }
    }

    /// Makes a complete response the connection's next output.
    pub(super) fn apply(&self, conn: &mut Conn<H::Ticket>, answer: Answer, begin: usize) {
        conn.closing |= !answer.keep;
        let body_from = conn.sent_until(answer.body);
        if let Some(record) = conn.records.last_mut() {
            // A tunnel of HTTP/2 is opened by 200 (RFC 8441 §5).
            let is_tunnel = answer.status == SWITCHING && conn.socket.stream().is_some();
            let status = if is_tunnel { 200 } else { answer.status };
            record.is_made(Instant::now(), status, body_from);
            record.rule = answer.route;
        }
        if !answer.afterwards.is_empty() {
            let after = conn.after.get_or_insert_with(|| Box::new(After(Vec::new())));
            after.0.extend(answer.afterwards);
        }
        match answer.payload {
            Payload::Written => {}
            Payload::File { file, offset, length } if length <= small_file(conn) => {
                let at = conn.out.len();
                conn.out.resize(at + length as usize, 0);
                let read = conn.out.get_mut(at..).map(|room| file.read_exact_at(room, offset));
                if !matches!(read, Some(Ok(()))) {
                    // The file has become shorter since its length was told: the client must notice.
                    conn.out.truncate(at);
                    conn.broken = true;
                }
            }
            Payload::File { file, offset, length } => conn.send_file(file, offset, length),
            Payload::Stream { source, encoder } => {
                conn.phase = Phase::Stream(Box::new(Streaming {
                    source,
                    encoder,
                    begin: Some(begin),
                    is_trailed: answer.is_trailed,
                    lender: None,
                    deadline: None,
                }));
            }
            Payload::Outlet(mut flow) => {
                if let Some(stats) = self.stats() {
                    flow.count(stats);
                }
                flow.connect(&self.waker, conn.token);
                conn.phase = Phase::Outlet(flow);
            }
        }
    }

    /// Ends the loan of a body, unless the response goes on and its source may be reading it.
    pub(super) fn settle(&self, conn: &mut Conn<H::Ticket>, lender: Lender) {
        match &mut conn.phase {
            Phase::Stream(stream) => stream.lender = Some(lender),
            Phase::Outlet(flow) if !flow.is_upgraded() => flow.lender = Some(lender),
            _ => self.take_back(conn, &lender),
        }
    }

    /// Ends the loan of a body: what is left of it is dropped, or the connection ends.
    pub(super) fn take_back(&self, conn: &mut Conn<H::Ticket>, lender: &Lender) {
        let Some(intake) = lender.take_back() else {
            conn.closing = true;
            return;
        };
        if let Some(record) = conn.records.last_mut() {
            record.received = intake.received;
        }
        let usable = intake.leaves_usable();
        conn.inbuf = intake.raw;
        conn.at = intake.at;
        if !usable {
            conn.closing = true;
            conn.linger = true;
        } else if !intake.decoder.is_done() && matches!(conn.phase, Phase::Ready) {
            conn.phase = Phase::Drain(Box::new((intake.decoder, Pace::new(Instant::now()))));
        } else if !intake.decoder.is_done() {
            if matches!(&conn.phase, Phase::Outlet(flow) if flow.is_upgraded()) {
                // The rest of the body would be taken for the other protocol's bytes.
                conn.broken = true;
            }
            conn.closing = true;
            conn.linger = true;
        }
        // The poller's edge may have been read away by the stream.
        conn.readable = true;
    }

    /// Asks a stream for pieces until the client takes no more or others wait.
    pub(super) fn ask(&self, mut conn: Link<H>, here: &mut Here<H>) {
        let mut piece = Vec::new();
        let lender = match &mut conn.phase {
            Phase::Stream(stream) => stream.lender.take(),
            _ => None,
        };
        while let Phase::Stream(stream) = &mut conn.phase {
            piece.clear();
            let is_trailed = stream.is_trailed;
            let next = catch_unwind(AssertUnwindSafe(|| match stream.source.next(&mut piece)? {
                true => Ok((true, Trailers::new())),
                false if is_trailed => stream.source.trailers().map(|trailers| (false, trailers)),
                false => Ok((false, Trailers::new())),
            }));
            let Ok(Ok((more, trailers))) = next else {
                let begin = stream.begin;
                if let Err(panic) = next {
                    self.notice(&Notice::Panic(message(&*panic)));
                }
                match begin {
                    Some(begin) => self.replace(&mut conn, begin, here),
                    None => conn.broken = true,
                }
                break;
            };
            // Bytes beyond the announced length are dropped by the encoder; missing ones only closing can tell.
            let _ = stream.encoder.write(&piece, &mut conn.out);
            if !more || stream.encoder.is_full() {
                conn.closing |= stream.encoder.end_with(&trailers, &mut conn.out).is_err();
                conn.phase = Phase::Ready;
                break;
            }
            if piece.is_empty() {
                continue;
            }
            stream.begin = None;
            match conn.push() {
                Pushed::Done => {}
                Pushed::Blocked => break,
                Pushed::Broken => {
                    conn.broken = true;
                    break;
                }
            }
            if self.pool.has_streams() || self.ended.load(Ordering::Relaxed) {
                break;
            }
        }
        if let Some(lender) = lender {
            self.settle(&mut conn, lender);
        }
        self.hand_in(conn);
    }

    /// Writes a response without the handler's call.
    pub(super) fn answer(
        self: &Arc<Self>,
        conn: &mut Conn<H::Ticket>,
        exchange: Exchange,
        here: &Here<H>,
        write: impl FnOnce(&mut Reply<'_>),
    ) {
        let begin = conn.out.len();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut reply =
                Reply::new(&mut conn.out, exchange, &here.standing, None, conn.records.last()).to(&conn.info);
            write(&mut reply);
            reply.finish()
        }));
        match result {
            Ok(mut answer) => {
                self.deliver(conn, &mut answer, begin, &here.standing, || true);
                self.apply(conn, answer, begin);
            }
            Err(panic) => {
                conn.delivery = None;
                self.notice(&Notice::Panic(message(&*panic)));
                self.replace(conn, begin, here);
            }
        }
    }

    /// Refuses a request and ends the connection.
    pub(super) fn refuse(
        self: &Arc<Self>,
        conn: &mut Conn<H::Ticket>,
        refusal: Refusal,
        exchange: Exchange,
        here: &Here<H>,
    ) {
        self.tell_refused(&conn.info, refusal);
        self.answer(conn, Exchange { keep_alive: false, ..exchange }, here, |reply| {
            plain(reply, refusal.status, refusal.reason);
        });
        conn.closing = true;
        // The client may be sending still, and a reset would take the answer from it.
        conn.linger = true;
    }

    pub(super) fn refuse_full(
        self: &Arc<Self>,
        conn: &mut Conn<H::Ticket>,
        exchange: Exchange,
        here: &Here<H>,
    ) {
        let reason = "all workers are busy and the queue is full";
        self.tell_refused(&conn.info, Refusal { kind: RefusalKind::QueueFull, status: 503, reason });
        self.answer(conn, exchange, here, |reply| {
            reply.start(503, None);
            // Both are valid field values.
            let _ = reply.field(b"Retry-After", b"1");
            let _ = reply.field(b"Content-Type", b"text/plain; charset=utf-8");
            reply.body(reason.as_bytes());
        });
        conn.throttled = true;
    }

    /// Skips the body of a request whose answer does not need it; whether the connection can be used afterwards.
    pub(super) fn skip_body(&self, conn: &mut Conn<H::Ticket>, head: &RequestHead, now: Instant) -> bool {
        let framing = head.framing();
        if matches!(framing, Framing::None | Framing::Length(0)) {
            return true;
        }
        let limits = Limits { body: u64::MAX, ..self.config.limits.clone() };
        let mut decoder = BodyDecoder::new(framing, &limits);
        let mut dropped = Vec::new();
        let had = !conn.unread().is_empty();
        if let Ok(used) = decoder.decode(conn.unread(), &mut dropped, usize::MAX) {
            conn.take(used);
            if decoder.is_done() {
                return true;
            }
            let waits = head.expects_continue() && !had;
            if !waits && decoder.remaining().is_some_and(|left| left <= self.config.drain_body) {
                conn.phase = Phase::Drain(Box::new((decoder, Pace::new(now))));
                return true;
            }
        }
        conn.linger = true;
        false
    }

    /// The client has closed its side; tells if something was half done.
    pub(super) fn ended_early(&self, conn: &mut Conn<H::Ticket>) {
        match conn.phase {
            Phase::Ready if !conn.is_idle() => {
                self.forget_client(conn);
                self.refused_silently(conn, RefusalKind::CutHead, "the connection ended within a head");
            }
            Phase::Collect(_) | Phase::Spool(_) => {
                self.refused_silently(conn, RefusalKind::CutBody, "the connection ended within a body");
            }
            _ => {}
        }
    }

    pub(super) fn refused_silently(&self, conn: &Conn<H::Ticket>, kind: RefusalKind, reason: &'static str) {
        self.tell_refused(&conn.info, Refusal { kind, status: 0, reason });
    }

    pub(super) fn tell_refused(&self, info: &ConnInfo, refusal: Refusal) {
        if let Some(stats) = self.stats() {
            stats.refused(refusal.kind.word(), refusal.status);
        }
        drop(catch_unwind(AssertUnwindSafe(|| self.handler.refused(&refusal, info))));
    }

    /// Tells about the responses that are out, and does what was to be done after them.
    pub(super) fn tell_answers(&self, conn: &mut Conn<H::Ticket>) {
        let is_under_way = matches!(conn.phase, Phase::Stream(_) | Phase::Outlet(_));
        if (conn.records.is_empty() && conn.after.is_none()) || is_under_way {
            return;
        }
        drop(conn.after.take());
        self.tell_records(conn, conn.sent);
    }

    /// Tells about the responses of a connection that ends before all of them are out.
    pub(super) fn tell_cut(&self, conn: &mut Conn<H::Ticket>) {
        if !conn.records.is_empty() {
            self.tell_records(conn, u64::MAX);
        }
    }

    /// Tells what was noted, of responses the last of which ends at `end`; in order.
    fn tell_records(&self, conn: &mut Conn<H::Ticket>, end: u64) {
        if conn.records.is_empty() {
            return;
        }
        let records = std::mem::take(&mut conn.records);
        if !self.config.tell_answers {
            return;
        }
        let now = Instant::now();
        let ends = records.iter().skip(1).map(Record::sent_before).chain([end]);
        for (record, end) in records.iter().zip(ends) {
            // One that has got no answer was refused without a word.
            if record.status != 0 {
                record.tell(&conn.info, now, (conn.sent, end), |answered| {
                    if let Some(stats) = self.stats() {
                        stats.answered(answered);
                    }
                    drop(catch_unwind(AssertUnwindSafe(|| self.handler.answered(answered))));
                });
            }
        }
    }
}

/// Up to which size a file is sent with the head of its response.
fn small_file<T>(conn: &Conn<T>) -> u64 {
    if conn.socket.sends_files() { SMALL_UNCOPIED_FILE } else { SMALL_FILE }
}
