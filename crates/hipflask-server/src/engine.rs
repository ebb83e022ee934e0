//! The threads: their lives, what they share, and the watchdog. [`leader`], [`feed`] and [`work`] have what they do.

mod deadline;
mod feed;
mod greet;
mod later;
mod leader;
mod pump;
mod spooling;
mod streams;
mod work;

pub(crate) use pump::Pump;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use hipflask_http::Limits;

use crate::config::Config;
use crate::conn::Conn;
use crate::exchange::Notice;
use crate::handler::Handler;
use crate::kept::Kept;
use crate::locked;
use crate::metrics::{Counter, Gauge, State, Stats};
use crate::pool::{Done, Job, Pool, StreamJob};
use crate::reactor::Reactor;
use crate::reply::{Reply, Standing};
use crate::running::Desk;
use crate::sys::Bell;
use crate::waker::Waker;
use crate::word::{Lead, Seat};

/// Longest time that a leader stays attached while it reads, parses and writes: the others want the interpreter too.
const HOLD: Duration = Duration::from_micros(250);
/// How often the watchdog looks while a route runs inline that is not proven.
const TICK_UNPROVEN: Duration = Duration::from_millis(1);
/// How often it looks otherwise. At 5 ms it took 1.7 % of a saturated core.
const TICK: Duration = Duration::from_millis(10);
/// After so many looks that found nothing it sleeps until a leader wakes it.
const QUIET: u32 = 3;
/// How long threads get when no connection is left: they wait in sources of streams that have ended, maybe for ever.
const LAST: Duration = Duration::from_secs(1);
/// The stack of a serving thread; only what is touched takes memory. As large as a main thread's, since interpreters
/// measure their recursion limit by it.
const STACK: usize = 8 << 20;

/// What all threads of a server share.
pub(crate) struct Engine<H: Handler> {
    handler: Arc<H>,
    config: Config,
    /// The limits of heads. A body's length is judged when its route is known.
    head_limits: Limits,
    /// Files that were compressed.
    kept: Arc<Kept>,
    /// Bytes of all bodies that are being collected.
    collecting: Arc<AtomicU64>,
    /// Bytes of all bodies that wait in files.
    spooled: Arc<AtomicU64>,
    /// Views that read a body that arrives.
    readers: Arc<AtomicUsize>,
    pool: Pool<H::Ticket>,
    seat: Arc<Seat<Reactor<H::Ticket>>>,
    /// Connections on their way back from workers.
    #[allow(clippy::vec_box, reason = "they move on into the slab as they are")]
    inbox: Mutex<Vec<Box<Conn<H::Ticket>>>>,
    waker: Arc<Waker>,
    watchdog: OnceLock<Thread>,
    watchdog_sleeps: AtomicBool,
    unproven: AtomicBool,
    /// How often a stop was asked for.
    stops: AtomicU8,
    grace: Mutex<Duration>,
    /// Others accept what waits at the listeners.
    hand_over: AtomicBool,
    /// Connections may wait at the listeners of which nobody was told.
    looks: AtomicBool,
    /// The reactor has ended.
    ended: AtomicBool,
    ended_at: OnceLock<Instant>,
    names: AtomicUsize,
    /// The views that run, by thread.
    desks: Mutex<Vec<Arc<Desk>>>,
    /// For threads that are not the engine's.
    standing: Mutex<Option<Standing>>,
}

/// What belongs to one thread.
pub(crate) struct Here<H: Handler> {
    thread: H::Thread,
    attached: Option<Instant>,
    /// The last time that was read.
    clock: Instant,
    standing: Standing,
    desk: Arc<Desk>,
    /// Views called on this thread.
    calls: u64,
}

type Link<H> = Box<Conn<<H as Handler>::Ticket>>;
type Helm<H> = Lead<Reactor<<H as Handler>::Ticket>>;

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
            pool: Pool::new(config.threads, config.queue, config.stuck_threads, config.stats.clone()),
            grace: Mutex::new(config.grace),
            head_limits: Limits { body: u64::MAX, ..config.limits.clone() },
            kept: Kept::new(config.compression.kept),
            config,
            collecting: Arc::default(),
            spooled: Arc::default(),
            readers: Arc::default(),
            seat,
            inbox: Mutex::new(Vec::new()),
            waker: Arc::new(Waker::new(bell)),
            watchdog: OnceLock::new(),
            watchdog_sleeps: AtomicBool::new(false),
            unproven: AtomicBool::new(false),
            stops: AtomicU8::new(0),
            hand_over: AtomicBool::new(false),
            looks: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            ended_at: OnceLock::new(),
            names: AtomicUsize::new(0),
            desks: Mutex::default(),
            standing: Mutex::new(None),
        });
        if let Some(stats) = engine.stats() {
            stats.set(Gauge::ThreadsMost, engine.config.threads);
            stats.set(Gauge::QueueMost, engine.config.queue);
            stats.set(Gauge::StuckMost, engine.config.stuck_threads);
        }
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
        if let Some(stats) = engine.stats() {
            stats.set_state(State::Ready);
        }
        Ok(engine)
    }

    pub(crate) fn stop(&self, grace: Option<Duration>) {
        if let Some(grace) = grace {
            *locked(&self.grace) = grace;
        }
        if let Some(stats) = self.stats() {
            // Before anything else: who sends requests shall send them elsewhere from now on.
            stats.set_state(State::Stopping);
        }
        self.stops.fetch_add(1, Ordering::SeqCst);
        self.waker.ring();
    }

    pub(crate) fn hand_over(&self, grace: Option<Duration>) {
        self.hand_over.store(true, Ordering::SeqCst);
        self.stop(grace);
    }

    pub(crate) fn look(&self) {
        self.looks.store(true, Ordering::SeqCst);
        self.waker.ring();
    }

    /// Waits until all is over; false when the time is. Threads whose view does not come back are not waited for.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        self.pool.wait_empty(timeout)
            || (self.ended.load(Ordering::SeqCst) && self.stops.load(Ordering::SeqCst) > 1)
            || self.ended_at.get().is_some_and(|at| at.elapsed() >= LAST)
    }

    /// See [`Running::stuck_threads`](crate::Running::stuck_threads).
    pub(crate) fn stuck_threads(&self) -> (usize, usize) {
        self.pool.stuck()
    }

    /// Whether a serving thread lives.
    pub(crate) fn has_threads(&self) -> bool {
        !self.pool.wait_empty(Duration::ZERO)
    }

    fn is_stopping(&self) -> bool {
        self.stops.load(Ordering::Relaxed) > 0
    }

    /// Starts a thread that the pool has counted already.
    fn spawn(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let name = format!("hipflask-worker-{number}");
        let started = thread::Builder::new()
            .name(name.clone())
            .stack_size(STACK)
            .spawn(move || engine.serve(number, &name));
        if let Err(error) = started {
            // The threads that live will do it.
            self.pool.leave();
            self.notice(&Notice::Panic(format!("cannot start a thread: {error}")));
        }
    }

    /// The life of a serving thread.
    fn serve(self: Arc<Self>, number: usize, name: &str) {
        let desk = Arc::new(Desk::new(name, self.stats().map(|stats| (Arc::clone(stats), number))));
        locked(&self.desks).push(Arc::clone(&desk));
        let mut here: Here<H> = Here {
            thread: self.handler.start_thread(),
            attached: None,
            clock: Instant::now(),
            standing: Standing::new(&self.config),
            desk,
            calls: 0,
        };
        let mut done = Done::Nothing;
        loop {
            let (job, tell) = self.pool.next(done);
            if tell {
                self.waker.ring();
            }
            done = Done::Nothing;
            let lived = catch_unwind(AssertUnwindSafe(|| match job {
                Job::End => None,
                Job::Lead(lead) => {
                    done = Done::Lead;
                    self.lead(lead, &mut here);
                    Some(Done::Lead)
                }
                Job::Call(call) => {
                    done = Done::Call;
                    self.work(*call, &mut here);
                    Some(Done::Call)
                }
                Job::Work(work) => {
                    done = Done::Call;
                    self.run(&work, &mut here);
                    Some(Done::Call)
                }
                Job::Stream(stream) => {
                    done = Done::Stream;
                    match stream {
                        StreamJob::Conn(conn) => self.ask(conn, &mut here),
                        StreamJob::Pump(pump) => self.pump(pump),
                        StreamJob::Chore(chore) => chore(),
                    }
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
        locked(&self.desks).retain(|desk| !Arc::ptr_eq(desk, &here.desk));
        self.handler.stop_thread(here.thread);
        self.pool.leave();
    }

    /// Where to count, if anybody wants to know.
    fn stats(&self) -> Option<&Arc<Stats>> {
        self.config.stats.as_ref()
    }

    fn notice(&self, notice: &Notice) {
        match (notice, self.stats()) {
            (Notice::Retaken, Some(stats)) => stats.count(Counter::Retaken),
            (Notice::AcceptPaused(_), Some(stats)) => stats.count(Counter::AcceptPauses),
            _ => {}
        }
        drop(catch_unwind(AssertUnwindSafe(|| self.handler.notice(notice))));
    }

    /// Gives a connection back to the reactor.
    fn give_back(&self, conn: Link<H>) {
        locked(&self.inbox).push(conn);
        self.waker.call();
        if self.ended.load(Ordering::SeqCst) {
            // Nobody will look again, and whoever feeds it must hear that it is over.
            let late = std::mem::take(&mut *locked(&self.inbox));
            drop(late);
        }
    }

    /// Gives a connection back without waking the leader: another one follows that does.
    fn leave(&self, conn: Link<H>) {
        locked(&self.inbox).push(conn);
        self.waker.fill();
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
                if self.pool.wants_standby() {
                    self.spawn();
                }
                // Without a thread to take it there is no point in taking it, unless none may be started: then the next
                // that has nothing to do takes it.
                if (self.pool.has_idle() || !self.pool.has_spare())
                    && let Some(mut lead) = self.seat.retake(seen)
                {
                    self.adopt(&mut lead);
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
