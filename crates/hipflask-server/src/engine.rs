//! What the threads do: leading, calling the handler, asking streams, watching.
//!
//! The leader's functions take the [`Lead`] by value and give it back, unless the watchdog has given the reactor to
//! another thread meanwhile: then there is nothing to give back, and the type says so.

use std::any::Any;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use hipflask_http::response::{CONTINUE, Exchange};
use hipflask_http::{BodyDecoder, Framing, Limits, RequestHead};

use crate::body::{self, Body, Intake, Lender, Pace};
use crate::config::Config;
use crate::conn::{BATCH, Conn, Filled, Pending, Phase, Pushed, Record, Streaming};
use crate::exchange::{Answered, Notice, Refusal};
use crate::handler::{Handler, Request, Routed};
use crate::history::{Lane, RouteHistory};
use crate::pool::{Call, Done, Job, Pool};
use crate::reactor::{Accepted, BELL, Reactor, Stopping};
use crate::reply::{Answer, Payload, Reply, Standing, asked, asked_unknown};
use crate::sys::{Bell, Event};
use crate::word::{Lead, Seat};

/// Steps that one connection may take before the others get their turn.
const SHARE: usize = 64;
/// Longest time that a leader stays attached while it reads, parses and writes: the others want the interpreter too.
const HOLD: Duration = Duration::from_micros(250);
/// Files up to this size are read and sent together with the head: one call less than sendfile.
const SMALL_FILE: u64 = 32 * 1024;
/// What a lingering connection reads at most.
const LINGER_MOST: usize = 1 << 20;
/// How often the watchdog looks while a route runs inline that is not proven.
const TICK_UNPROVEN: Duration = Duration::from_millis(1);
/// How often it looks otherwise. At 5 ms it took 1.7 % of a saturated core.
const TICK: Duration = Duration::from_millis(10);
/// After so many looks that found nothing it sleeps until a leader wakes it.
const QUIET: u32 = 3;
/// The stack of a serving thread; only what is touched takes memory. As large as a main thread's, since interpreters
/// measure their recursion limit by it.
const STACK: usize = 8 << 20;

/// What all threads of a server share.
pub(crate) struct Engine<H: Handler> {
    handler: Arc<H>,
    config: Config,
    /// The limits of heads. A body's length is judged when its route is known.
    head_limits: Limits,
    pool: Pool<H::Ticket>,
    seat: Arc<Seat<Reactor<H::Ticket>>>,
    /// Connections on their way back from workers.
    inbox: Mutex<Vec<Box<Conn<H::Ticket>>>>,
    inbox_full: AtomicBool,
    /// The leader waits in the poller and must be woken.
    asleep: AtomicBool,
    bell: Bell,
    watchdog: OnceLock<Thread>,
    watchdog_sleeps: AtomicBool,
    unproven: AtomicBool,
    /// How often a stop was asked for.
    stops: AtomicU8,
    grace: Mutex<Duration>,
    /// The reactor has ended.
    ended: AtomicBool,
    names: AtomicUsize,
}

/// What belongs to one thread.
pub(crate) struct Here<H: Handler> {
    thread: H::Thread,
    attached: Option<Instant>,
    /// The last time that was read.
    clock: Instant,
    standing: Standing,
}

type Link<H> = Box<Conn<<H as Handler>::Ticket>>;
type Helm<H> = Lead<Reactor<<H as Handler>::Ticket>>;

/// What a step of the leader left.
enum Flow<H: Handler> {
    /// Reactor and connection: go on.
    On(Helm<H>, Link<H>),
    /// The connection is parked, closed or with a worker.
    Next(Helm<H>),
    /// Another thread has the reactor.
    Lost,
}

impl<H: Handler> Engine<H> {
    pub(crate) fn start(
        handler: Arc<H>,
        config: Config,
        reactor: Reactor<H::Ticket>,
        bell: Bell,
    ) -> io::Result<Arc<Engine<H>>> {
        let (seat, lead) = Seat::new(reactor);
        let engine = Arc::new(Engine {
            handler,
            pool: Pool::new(config.threads, config.queue),
            grace: Mutex::new(config.grace),
            head_limits: Limits { body: u64::MAX, ..config.limits.clone() },
            config,
            seat,
            inbox: Mutex::new(Vec::new()),
            inbox_full: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            bell,
            watchdog: OnceLock::new(),
            watchdog_sleeps: AtomicBool::new(false),
            unproven: AtomicBool::new(false),
            stops: AtomicU8::new(0),
            ended: AtomicBool::new(false),
            names: AtomicUsize::new(0),
        });
        engine.pool.lead(lead);
        let watching = Arc::clone(&engine);
        let watchdog =
            thread::Builder::new().name("hipflask-watch".to_owned()).spawn(move || watching.watch())?;
        drop(engine.watchdog.set(watchdog.thread().clone()));
        // One leads, one stands by: starting a thread may need the interpreter, which a stuck leader may hold.
        for _ in 0..2 {
            engine.pool.admit();
            engine.spawn();
        }
        Ok(engine)
    }

    pub(crate) fn stop(&self, grace: Option<Duration>) {
        if let Some(grace) = grace {
            *self.grace.lock().unwrap_or_else(PoisonError::into_inner) = grace;
        }
        self.stops.fetch_add(1, Ordering::SeqCst);
        self.bell.ring();
    }

    /// Waits until all is over; false when the time is. Threads whose view does not come back are not waited for.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        self.pool.wait_empty(timeout)
            || (self.ended.load(Ordering::SeqCst) && self.stops.load(Ordering::SeqCst) > 1)
    }

    fn is_stopping(&self) -> bool {
        self.stops.load(Ordering::Relaxed) > 0
    }

    /// Starts a thread that the pool has counted already.
    fn spawn(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        let name = format!("hipflask-worker-{}", self.names.fetch_add(1, Ordering::Relaxed));
        let started = thread::Builder::new().name(name).stack_size(STACK).spawn(move || engine.serve());
        if let Err(error) = started {
            // The threads that live will do it.
            self.pool.leave();
            self.notice(&Notice::Panic(format!("cannot start a thread: {error}")));
        }
    }

    /// The life of a serving thread.
    fn serve(self: Arc<Self>) {
        let mut here: Here<H> = Here {
            thread: self.handler.start_thread(),
            attached: None,
            clock: Instant::now(),
            standing: Standing::new(self.config.server_name.as_deref()),
        };
        let mut done = Done::Nothing;
        loop {
            let (job, tell) = self.pool.next(done);
            if tell {
                self.bell.ring();
            }
            done = Done::Nothing;
            let lived = catch_unwind(AssertUnwindSafe(|| match job {
                Job::End => None,
                Job::Lead(lead) => {
                    self.lead(lead, &mut here);
                    Some(Done::Nothing)
                }
                Job::Call(call) => {
                    done = Done::Call;
                    self.work(*call, &mut here);
                    Some(Done::Call)
                }
                Job::Stream(conn) => {
                    done = Done::Stream;
                    self.ask(conn, &mut here);
                    Some(Done::Stream)
                }
            }));
            here.detach(&*self.handler);
            match lived {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(panic) => {
                    // A bug of the server's own. The connection is lost; a lost reactor is found by the watchdog.
                    self.notice(&Notice::Panic(message(&*panic)));
                    self.wake_watchdog();
                }
            }
        }
        self.handler.stop_thread(here.thread);
        self.pool.leave();
    }

    fn notice(&self, notice: &Notice) {
        drop(catch_unwind(AssertUnwindSafe(|| self.handler.notice(notice))));
    }

    /// Gives a connection back to the reactor.
    fn give_back(&self, conn: Link<H>) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        self.inbox_full.store(true, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.bell.ring();
        }
    }

    // The leader.

    /// Drives the reactor until it ends or goes to another thread.
    fn lead(self: &Arc<Self>, mut lead: Helm<H>, here: &mut Here<H>) {
        here.standing.refresh();
        while !(self.is_stopping() && self.go_on_stopping(&mut lead)) {
            match self.turn(lead, here, None) {
                Some(same) => lead = same,
                None => return,
            }
        }
        self.ended.store(true, Ordering::SeqCst);
        self.pool.end();
        self.wake_watchdog();
    }

    /// One batch: does all that is ready, then waits for more, at most so long. An event loop of another kind can call
    /// this as its selector.
    fn turn(
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
            } else if let Some(mut conn) = lead.returned.pop_front() {
                lead.catch_up(&mut conn);
                lead = self.advance(lead, conn, here)?;
            } else if self.inbox_full.load(Ordering::Acquire) {
                self.inbox_full.store(false, Ordering::SeqCst);
                let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
                lead.returned.extend(inbox.drain(..));
            } else {
                break;
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
        let most = if lead.has_work() { Some(Duration::ZERO) } else { most };
        self.asleep.store(true, Ordering::SeqCst);
        let most = if self.inbox_full.load(Ordering::SeqCst) { Some(Duration::ZERO) } else { most };
        let waited = lead.wait(most);
        self.asleep.store(false, Ordering::Relaxed);
        here.clock = lead.now;
        here.standing.refresh();
        if let Err(error) = waited {
            self.notice(&Notice::Panic(format!("the poller failed: {error}")));
        }
        Some(lead)
    }

    fn event(self: &Arc<Self>, mut lead: Helm<H>, event: Event, here: &mut Here<H>) -> Option<Helm<H>> {
        if event.token == BELL {
            self.bell.quiet();
        } else if Reactor::<H::Ticket>::is_listener(event.token) {
            if let Accepted::Paused(error) = lead.accept_some(event.token) {
                self.notice(&Notice::AcceptPaused(error.to_string()));
            }
        } else if let Some(conn) = lead.check_out(event) {
            return self.advance(lead, conn, here);
        }
        Some(lead)
    }

    /// Takes a connection as far as it goes.
    fn advance(
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

    fn step(self: &Arc<Self>, mut lead: Helm<H>, mut conn: Link<H>, here: &mut Here<H>) -> Flow<H> {
        if conn.broken {
            lead.close(conn);
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
            _ => false,
        };
        if !waits && conn.has_output() {
            match conn.push() {
                Pushed::Done => self.tell_answers(&mut conn),
                Pushed::Blocked => {
                    lead.park(conn);
                    return Flow::Next(lead);
                }
                Pushed::Broken => {
                    lead.close(conn);
                    return Flow::Next(lead);
                }
            }
        }
        match &conn.phase {
            Phase::Stream(_) => {
                lead.lend(&conn);
                if self.pool.stream(conn) {
                    self.spawn();
                }
                Flow::Next(lead)
            }
            Phase::Ready if conn.closing => {
                if !conn.linger {
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

    fn parse(self: &Arc<Self>, lead: Helm<H>, mut conn: Link<H>, here: &mut Here<H>) -> Flow<H> {
        match conn.parse(&self.head_limits) {
            Ok(Some(head)) => self.request(lead, conn, head, here),
            Ok(None) => Flow::On(lead, conn),
            Err(error) => {
                self.refuse(&mut conn, error.status(), error.reason(), asked_unknown(), here);
                Flow::On(lead, conn)
            }
        }
    }

    /// Reads, and does with it what the phase says.
    fn read(self: &Arc<Self>, mut lead: Helm<H>, mut conn: Link<H>, here: &mut Here<H>) -> Flow<H> {
        if conn.readable && conn.inbuf.capacity() == 0 {
            conn.inbuf = lead.buffer();
        }
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
                self.ended_early(&conn);
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
                if pending.body.len() < pending.wanted {
                    conn.phase = Phase::Collect(pending);
                    return Flow::On(lead, conn);
                }
                let Pending { head, ticket, history, body, .. } = *pending;
                self.invoke(lead, conn, head, (Body::Buffered(body), None), ticket, history, here)
            }
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
            stream @ Phase::Stream(_) => {
                conn.phase = stream;
                Flow::On(lead, conn)
            }
        }
    }

    /// A head has arrived: asks the handler who answers it.
    fn request(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        head: Box<RequestHead>,
        here: &mut Here<H>,
    ) -> Flow<H> {
        conn.used = true;
        conn.began = None;
        if conn.out.capacity() == 0 {
            conn.out = lead.buffer();
        }
        if self.config.tell_answers {
            let sent_before = conn.sent + (conn.out.len() - conn.out_at) as u64;
            let request = [head.method(), b" ", head.target()].concat();
            conn.records.push(Record { request, status: 0, since: here.clock, sent_before });
        }
        let routed = match catch_unwind(AssertUnwindSafe(|| self.handler.route(&head, &conn.info))) {
            Ok(routed) => routed,
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
            Routed::File(file) => {
                let usable = self.skip_body(&mut conn, &head, lead.now);
                let exchange = asked(&head, usable && !self.is_stopping());
                self.answer(&mut conn, exchange, here, |reply| file.answer(&head, reply));
                Flow::On(lead, conn)
            }
            Routed::Call { ticket, history, max_body } => self.receive(
                lead,
                conn,
                head,
                ticket,
                history,
                max_body.unwrap_or(self.config.limits.body),
                here,
            ),
        }
    }

    /// Decides how a view gets its body.
    #[allow(clippy::too_many_arguments, reason = "the parts of one request, used once")]
    fn receive(
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
            Framing::None | Framing::Length(0) => {
                return self.invoke(lead, conn, head, (Body::Empty, None), ticket, history, here);
            }
            Framing::Length(length) if length > most => {
                self.refuse(&mut conn, 413, "the body is longer than allowed", asked(&head, false), here);
                return Flow::On(lead, conn);
            }
            Framing::Length(length) if length <= self.config.buffer_body => {
                let wanted = usize::try_from(length).unwrap_or(usize::MAX);
                if let Some(bytes) = conn.unread().get(..wanted) {
                    let bytes = bytes.to_vec();
                    conn.take(wanted);
                    return self.invoke(
                        lead,
                        conn,
                        head,
                        (Body::Buffered(bytes), None),
                        ticket,
                        history,
                        here,
                    );
                }
                if head.expects_continue() && conn.unread().is_empty() {
                    conn.out.extend_from_slice(CONTINUE);
                }
                let (body, pace) = (Vec::with_capacity(wanted), Pace::new(lead.now));
                conn.phase = Phase::Collect(Box::new(Pending { head, ticket, history, body, wanted, pace }));
                return Flow::On(lead, conn);
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
                self.refuse(&mut conn, error.status(), error.reason(), asked(&head, false), here);
                return Flow::On(lead, conn);
            }
        }
        if decoder.is_done() {
            let body = if decoded.is_empty() { Body::Empty } else { Body::Buffered(decoded) };
            return self.invoke(lead, conn, head, (body, None), ticket, history, here);
        }
        if self.pool.is_full() {
            self.refuse_full(&mut conn, asked(&head, false), here);
            conn.linger = true;
            return Flow::On(lead, conn);
        }
        // Nothing may come between earlier answers and the 100: if they do not go out now, none is sent, and the
        // client sends its body after a while (RFC 9110 §10.1.1).
        let owes_continue = head.expects_continue() && !had && conn.push() == Pushed::Done;
        let (stream, lender) = body::lend(Intake {
            socket: Arc::clone(&conn.socket),
            raw: std::mem::take(&mut conn.inbuf),
            at: std::mem::take(&mut conn.at),
            decoder,
            decoded,
            given: 0,
            owes_continue,
            error: None,
            timeouts: self.config.timeouts.clone(),
            drain: self.config.drain_body,
            pace: Pace::new(lead.now),
        });
        self.invoke(lead, conn, head, (Body::Stream(stream), Some(lender)), ticket, history, here)
    }

    /// Calls the view here, or sends it to a worker.
    #[allow(clippy::too_many_arguments, reason = "the parts of one request, used once")]
    fn invoke(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        head: Box<RequestHead>,
        (body, lender): (Body, Option<Lender>),
        ticket: H::Ticket,
        history: Arc<RouteHistory>,
        here: &mut Here<H>,
    ) -> Flow<H> {
        let lane = if lender.is_some() { Lane::Worker } else { history.lane() };
        if lane != Lane::Inline {
            if lender.is_none() && self.pool.is_full() {
                self.refuse_full(&mut conn, asked(&head, !self.is_stopping()), here);
                return Flow::On(lead, conn);
            }
            // Earlier answers must not wait for this view. What the client does not take now goes out with it.
            let _ = conn.push();
            lead.lend(&conn);
            let call = Box::new(Call { conn, head, body, lender, ticket, history });
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
        let away = lead.step_away();
        if self.watchdog_sleeps.load(Ordering::SeqCst) {
            self.wake_watchdog();
        }
        let took = self.perform(&mut conn, head, body, None, ticket, here);
        match away.back() {
            Some(lead) => {
                history.ends_inline();
                history.record(took);
                Flow::On(lead, conn)
            }
            None => {
                history.record_retaken(took);
                history.ends_inline();
                here.detach(&*self.handler);
                self.hand_in(conn);
                Flow::Lost
            }
        }
    }

    // The workers.

    /// Runs a view on a worker.
    fn work(&self, call: Call<H::Ticket>, here: &mut Here<H>) {
        let Call { mut conn, head, body, lender, ticket, history } = call;
        here.standing.refresh();
        let took = self.perform(&mut conn, head, body, lender.as_ref(), ticket, here);
        here.detach(&*self.handler);
        history.record(took);
        if let Some(lender) = lender {
            self.take_back(&mut conn, &lender);
        }
        self.hand_in(conn);
    }

    /// Writes what can be written, and gives the connection back.
    fn hand_in(&self, mut conn: Link<H>) {
        let starts_stream = matches!(&conn.phase, Phase::Stream(stream) if stream.begin.is_some());
        if !starts_stream {
            match conn.push() {
                Pushed::Done => self.tell_answers(&mut conn),
                Pushed::Blocked => {}
                Pushed::Broken => conn.broken = true,
            }
        }
        self.give_back(conn);
    }

    /// Calls the handler; the response is in the connection's hands afterwards.
    fn perform(
        &self,
        conn: &mut Conn<H::Ticket>,
        head: Box<RequestHead>,
        body: Body,
        lender: Option<&Lender>,
        ticket: H::Ticket,
        here: &mut Here<H>,
    ) -> Duration {
        let exchange = asked(&head, !self.is_stopping());
        let begin = conn.out.len();
        let request = Request { head, body, ticket, conn: Arc::clone(&conn.info) };
        here.attach(&*self.handler);
        let before = Instant::now();
        let Here { thread, standing, .. } = here;
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut reply = Reply::new(&mut conn.out, exchange, standing, lender);
            self.handler.call(thread, request, &mut reply);
            reply.finish()
        }));
        here.clock = Instant::now();
        match result {
            Ok(answer) => self.apply(conn, answer, begin),
            Err(panic) => {
                self.notice(&Notice::Panic(message(&*panic)));
                self.replace(conn, begin, here);
            }
        }
        here.clock - before
    }

    /// Puts a 500 in the place of a response that came to nothing, and closes.
    fn replace(&self, conn: &mut Conn<H::Ticket>, begin: usize, here: &Here<H>) {
        conn.out.truncate(begin);
        conn.file = None;
        conn.phase = Phase::Ready;
        let mut reply = Reply::new(&mut conn.out, asked_unknown(), &here.standing, None);
        plain(&mut reply, 500, "Internal Server Error");
        let answer = reply.finish();
        self.apply(conn, answer, begin);
    }

    /// Makes a complete response the connection's next output.
    fn apply(&self, conn: &mut Conn<H::Ticket>, answer: Answer, begin: usize) {
        conn.closing |= !answer.keep;
        if let Some(record) = conn.records.last_mut() {
            record.status = answer.status;
        }
        match answer.payload {
            Payload::Written => {}
            Payload::File { file, offset, length } if length <= SMALL_FILE => {
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
                conn.phase = Phase::Stream(Box::new(Streaming { source, encoder, begin: Some(begin) }));
            }
        }
    }

    /// Ends the loan of a body: what is left of it is dropped, or the connection ends.
    fn take_back(&self, conn: &mut Conn<H::Ticket>, lender: &Lender) {
        let Some(intake) = lender.take_back() else {
            conn.closing = true;
            return;
        };
        let usable = intake.leaves_usable();
        conn.inbuf = intake.raw;
        conn.at = intake.at;
        if !usable {
            conn.closing = true;
            conn.linger = true;
        } else if !intake.decoder.is_done() && matches!(conn.phase, Phase::Ready) {
            conn.phase = Phase::Drain(Box::new((intake.decoder, Pace::new(Instant::now()))));
        } else if !intake.decoder.is_done() {
            // A stream answers while the body is still coming: too rare to keep the connection for.
            conn.closing = true;
            conn.linger = true;
        }
        // The poller's edge may have been read away by the stream.
        conn.readable = true;
    }

    /// Asks a stream for pieces until the client takes no more or others wait.
    fn ask(&self, mut conn: Link<H>, here: &mut Here<H>) {
        let mut piece = Vec::new();
        loop {
            let Phase::Stream(stream) = &mut conn.phase else { break };
            piece.clear();
            let next = catch_unwind(AssertUnwindSafe(|| stream.source.next(&mut piece)));
            let more = match next {
                Ok(Ok(more)) => more,
                Ok(Err(_)) | Err(_) => {
                    if let Err(panic) = next {
                        self.notice(&Notice::Panic(message(&*panic)));
                    }
                    match stream.begin {
                        Some(begin) => self.replace(&mut conn, begin, here),
                        None => conn.broken = true,
                    }
                    break;
                }
            };
            // Bytes beyond the announced length are dropped by the encoder; missing ones only closing can tell.
            let _ = stream.encoder.write(&piece, &mut conn.out);
            if !more || stream.encoder.is_full() {
                conn.closing |= stream.encoder.end(&mut conn.out).is_err();
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
        self.hand_in(conn);
    }

    // Answers of the server's own.

    /// Writes a response without the handler's call.
    fn answer(
        &self,
        conn: &mut Conn<H::Ticket>,
        exchange: Exchange,
        here: &Here<H>,
        write: impl FnOnce(&mut Reply<'_>),
    ) {
        let begin = conn.out.len();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut reply = Reply::new(&mut conn.out, exchange, &here.standing, None);
            write(&mut reply);
            reply.finish()
        }));
        match result {
            Ok(answer) => self.apply(conn, answer, begin),
            Err(panic) => {
                self.notice(&Notice::Panic(message(&*panic)));
                self.replace(conn, begin, here);
            }
        }
    }

    /// Refuses a request and ends the connection.
    fn refuse(
        &self,
        conn: &mut Conn<H::Ticket>,
        status: u16,
        reason: &'static str,
        exchange: Exchange,
        here: &Here<H>,
    ) {
        let refusal = Refusal { status, reason };
        drop(catch_unwind(AssertUnwindSafe(|| self.handler.refused(&refusal, &conn.info))));
        self.answer(conn, Exchange { keep_alive: false, ..exchange }, here, |reply| {
            plain(reply, status, reason);
        });
        conn.closing = true;
        // The client may be sending still, and a reset would take the answer from it.
        conn.linger = true;
    }

    fn refuse_full(&self, conn: &mut Conn<H::Ticket>, exchange: Exchange, here: &Here<H>) {
        let reason = "all workers are busy and the queue is full";
        let refusal = Refusal { status: 503, reason };
        drop(catch_unwind(AssertUnwindSafe(|| self.handler.refused(&refusal, &conn.info))));
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
    fn skip_body(&self, conn: &mut Conn<H::Ticket>, head: &RequestHead, now: Instant) -> bool {
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

    /// A deadline has passed.
    fn time_out(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        here: &mut Here<H>,
    ) -> Option<Helm<H>> {
        if conn.throttled && !conn.has_output() {
            lead.park(conn);
            return Some(lead);
        }
        let reason = match &conn.phase {
            _ if conn.has_output() => {
                self.refused_silently(&conn, "the client takes the response too slowly");
                conn.broken = true;
                lead.close(conn);
                return Some(lead);
            }
            Phase::Ready if !conn.is_idle() => "the head arrives too slowly",
            Phase::Collect(_) => "the body arrives too slowly",
            Phase::Ready | Phase::Drain(_) | Phase::Stream(_) | Phase::Linger(..) => {
                lead.close(conn);
                return Some(lead);
            }
        };
        let dropped = std::mem::replace(&mut conn.phase, Phase::Ready);
        drop(dropped);
        self.refuse(&mut conn, 408, reason, asked_unknown(), here);
        self.advance(lead, conn, here)
    }

    /// The client has closed its side; tells if something was half done.
    fn ended_early(&self, conn: &Conn<H::Ticket>) {
        match conn.phase {
            Phase::Ready if !conn.is_idle() => {
                self.refused_silently(conn, "the connection ended within a head");
            }
            Phase::Collect(_) => self.refused_silently(conn, "the connection ended within a body"),
            _ => {}
        }
    }

    fn refused_silently(&self, conn: &Conn<H::Ticket>, reason: &'static str) {
        let refusal = Refusal { status: 0, reason };
        drop(catch_unwind(AssertUnwindSafe(|| self.handler.refused(&refusal, &conn.info))));
    }

    /// Tells about the responses that are out.
    fn tell_answers(&self, conn: &mut Conn<H::Ticket>) {
        if conn.records.is_empty() || matches!(conn.phase, Phase::Stream(_)) {
            return;
        }
        let now = Instant::now();
        let mut end = conn.sent;
        for record in conn.records.drain(..).rev() {
            let answered = Answered {
                conn: &conn.info,
                request: &record.request,
                status: record.status,
                sent: end.saturating_sub(record.sent_before),
                took: now.saturating_duration_since(record.since),
            };
            end = record.sent_before;
            drop(catch_unwind(AssertUnwindSafe(|| self.handler.answered(&answered))));
        }
    }

    // Stopping and watching.

    /// Brings a stop further; true when nothing is left to do.
    fn go_on_stopping(&self, lead: &mut Helm<H>) -> bool {
        let now = Instant::now();
        let grace = *self.grace.lock().unwrap_or_else(PoisonError::into_inner);
        if lead.stopping == Stopping::No {
            lead.stop_listening();
            lead.stopping = Stopping::LastCall(now + self.config.timeouts.last_call, now + grace);
        }
        if let Stopping::LastCall(first, last) = lead.stopping
            && first <= now {
                lead.stopping = Stopping::Finishing(last);
            }
        if let Stopping::Finishing(_) = lead.stopping {
            // Whoever is idle now has had the time to send a request that was under way.
            for token in lead.idle() {
                if let Some(conn) = lead.check_out_again(token) {
                    lead.close(conn);
                }
            }
        }
        if lead.open == 0 {
            return true;
        }
        let late = match lead.stopping {
            Stopping::LastCall(_, last) | Stopping::Finishing(last) => last <= now,
            Stopping::No => false,
        };
        if late || self.stops.load(Ordering::SeqCst) > 1 {
            lead.cut();
            self.stops.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        false
    }

    fn wake_watchdog(&self) {
        self.watchdog_sleeps.store(false, Ordering::SeqCst);
        if let Some(thread) = self.watchdog.get() {
            thread.unpark();
        }
    }

    /// The watchdog: takes the reactor from a leader that two looks find in the same call.
    fn watch(self: Arc<Self>) {
        let mut last = self.seat.seen();
        let mut quiet = 0;
        while !self.ended.load(Ordering::SeqCst) {
            let unproven = self.unproven.load(Ordering::Relaxed);
            thread::park_timeout(if unproven { TICK_UNPROVEN } else { TICK });
            let seen = self.seat.seen();
            if seen != last {
                quiet = 0;
            } else if seen.in_call() {
                // Without a thread to take it there is no point in taking it.
                if self.pool.has_idle()
                    && let Some(lead) = self.seat.retake(seen) {
                        self.notice(&Notice::Retaken);
                        self.pool.lead(lead);
                    }
                if self.pool.wants_standby() {
                    self.spawn();
                }
            } else {
                quiet += 1;
                if quiet >= QUIET {
                    self.watchdog_sleeps.store(true, Ordering::SeqCst);
                    while self.watchdog_sleeps.load(Ordering::SeqCst)
                        && self.seat.seen() == seen
                        && !self.ended.load(Ordering::SeqCst)
                    {
                        thread::park();
                    }
                    self.watchdog_sleeps.store(false, Ordering::SeqCst);
                    quiet = 0;
                }
            }
            last = seen;
        }
    }
}

impl<H: Handler> Here<H> {
    fn attach(&mut self, handler: &H) {
        if self.attached.is_none() {
            handler.attach(&mut self.thread);
            self.clock = Instant::now();
            self.attached = Some(self.clock);
        }
    }

    fn detach(&mut self, handler: &H) {
        if self.attached.take().is_some() {
            handler.detach(&mut self.thread);
        }
    }

    /// Lets the others have the interpreter if this batch has had it for long.
    fn release_if_long(&mut self, handler: &H) {
        if self.attached.is_some_and(|since| self.clock - since > HOLD) {
            self.detach(handler);
        }
    }
}

/// A short plain response.
fn plain(reply: &mut Reply<'_>, status: u16, text: &str) {
    reply.start(status, None);
    // A valid field value.
    let _ = reply.field(b"Content-Type", b"text/plain; charset=utf-8");
    reply.body(text.as_bytes());
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}
