//! The threads: who leads, who works, who waits.
//!
//! All serving threads are alike. A thread that has nothing to do takes the lead if it is free, then a request of an
//! unproven route, then one of a blocking route, then a stream. Streams never hold more than the threads minus a
//! reserve, so that requests are answered beside any number of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use hipflask_http::RequestHead;

use crate::body::{Body, Lender};
use crate::conn::Conn;
use crate::engine::Pump;
use crate::held::Held;
use crate::history::RouteHistory;
use crate::locked;
use crate::metrics::{Gauge, Stats};
use crate::reactor::Reactor;
use crate::task::Work;
use crate::word::Lead;

/// A request for a worker.
pub(crate) struct Call<T> {
    pub(crate) conn: Box<Conn<T>>,
    pub(crate) head: Box<RequestHead>,
    pub(crate) body: Body,
    pub(crate) lender: Option<Lender>,
    pub(crate) ticket: T,
    pub(crate) history: Arc<RouteHistory>,
    /// Keeps the connection, if the request has a deadline; `conn` is a stand-in then.
    pub(crate) held: Option<Arc<Held<T>>>,
}

/// What waits for a worker.
enum Queued<T> {
    Call(Box<Call<T>>),
    Work(Work),
}

/// What a thread may do next.
pub(crate) enum Job<T> {
    Lead(Lead<Reactor<T>>),
    Call(Box<Call<T>>),
    Work(Work),
    Stream(StreamJob<T>),
    End,
}

/// A stream whose next piece is to be made.
pub(crate) enum StreamJob<T> {
    /// Of a connection that waits for it.
    Conn(Box<Conn<T>>),
    /// Of a source that feeds an outlet.
    Pump(Box<Pump>),
    /// Something else of the engine's own that takes its time.
    Chore(Chore),
}

/// See [`StreamJob::Chore`]. Each is of one connection.
pub(crate) type Chore = Box<dyn FnOnce() + Send>;

struct Queues<T> {
    lead: Option<Lead<Reactor<T>>>,
    probation: VecDeque<Queued<T>>,
    calls: VecDeque<Queued<T>>,
    streams: VecDeque<StreamJob<T>>,
    /// Threads that wait for a job.
    idle: usize,
    /// Threads that live.
    threads: usize,
    running: usize,
    streaming: usize,
    /// Threads that lead, or have lost the lead in a view that goes on.
    leading: usize,
    /// Threads whose view goes on though its request has been answered by its deadline.
    stuck: usize,
    /// The queue was full, and has not been half empty since.
    full: bool,
    ended: bool,
}

/// The threads' meeting point.
pub(crate) struct Pool<T> {
    queues: Mutex<Queues<T>>,
    changed: Condvar,
    /// For those who wait for the end. Apart from `changed`: a job's one wake-up must reach a serving thread.
    left: Condvar,
    /// Calls that wait; read by the leader without the lock.
    waiting: AtomicUsize,
    /// The leader wants to hear when the queue is short again.
    wants_room: AtomicBool,
    /// A thread waits, or could be started, that would take the lead over.
    spare: AtomicBool,
    /// Stuck threads whose place others take, at most.
    most_stuck: usize,
    /// Views that run at the same time, at most.
    most: usize,
    /// Streams that are asked at the same time, at most.
    most_streams: usize,
    longest: usize,
    /// Where to count.
    stats: Option<Arc<Stats>>,
}

impl<T> Pool<T> {
    pub(crate) fn new(threads: usize, queue: usize, most_stuck: usize, stats: Option<Arc<Stats>>) -> Pool<T> {
        let most = threads.max(1);
        let reserve = (most / 4).max(1);
        Pool {
            queues: Mutex::new(Queues {
                lead: None,
                probation: VecDeque::new(),
                calls: VecDeque::new(),
                streams: VecDeque::new(),
                idle: 0,
                threads: 0,
                running: 0,
                streaming: 0,
                leading: 0,
                stuck: 0,
                full: false,
                ended: false,
            }),
            changed: Condvar::new(),
            left: Condvar::new(),
            waiting: AtomicUsize::new(0),
            wants_room: AtomicBool::new(false),
            spare: AtomicBool::new(true),
            most_stuck,
            most,
            most_streams: most.saturating_sub(reserve).max(1),
            longest: queue.max(1),
            stats,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues<T>> {
        locked(&self.queues)
    }

    /// Lets those who ask know how many there are.
    fn show(&self, queues: &mut Queues<T>) {
        if let Some(stats) = &self.stats {
            let queued = queues.probation.len() + queues.calls.len();
            stats.set(Gauge::Threads, queues.threads);
            stats.set(Gauge::Queue, queued);
            stats.set(Gauge::Stuck, queues.stuck);
            let full = queued >= self.longest || (queues.full && queued > self.longest / 2);
            if full != queues.full {
                queues.full = full;
                stats.set_full(full);
            }
        }
    }

    /// Whether a further call must be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= self.longest
    }

    /// Whether calls wait or run.
    pub(crate) fn is_busy(&self) -> bool {
        let queues = self.lock();
        queues.running > 0 || !queues.calls.is_empty() || !queues.probation.is_empty()
    }

    /// Whether connections that were refused may be read again; if not, the next worker that makes room tells.
    pub(crate) fn has_room(&self) -> bool {
        self.wants_room.store(true, Ordering::SeqCst);
        let room = self.waiting.load(Ordering::SeqCst) <= self.longest / 2;
        if room {
            self.wants_room.store(false, Ordering::SeqCst);
        }
        room
    }

    /// Whether a thread is needed for this job: none waits, and more are allowed.
    fn wants_thread(&self, queues: &mut Queues<T>) -> bool {
        let queued = queues.probation.len() + queues.calls.len() + queues.streams.len();
        // One more than there are jobs: it stands by to take the lead over.
        let wanted = queues.idle < queued + 1 && queues.threads < self.most_threads(queues);
        if wanted {
            queues.threads += 1;
        }
        self.note_spare(queues);
        wanted
    }

    /// Threads that may live: one leads and one stands by besides those in views.
    fn most_threads(&self, queues: &Queues<T>) -> usize {
        self.most + 2 + queues.stuck.min(self.most_stuck)
    }

    /// Whether one more view may run. Who has lost the lead in a view runs one, too.
    fn may_run(&self, queues: &Queues<T>) -> bool {
        let lost = queues.leading.saturating_sub(1);
        let places = self.most + queues.stuck.min(self.most_stuck);
        queues.running + queues.streaming + lost < places
    }

    fn note_spare(&self, queues: &Queues<T>) {
        let spare = queues.idle > 0 || queues.threads < self.most_threads(queues);
        self.spare.store(spare, Ordering::Relaxed);
    }

    /// Whether a thread waits, or could be started, that would take the lead over.
    pub(crate) fn has_spare(&self) -> bool {
        self.spare.load(Ordering::Relaxed)
    }

    /// A thread's request has been answered, and its view goes on: another thread may take its place. How many there are
    /// now; true if the caller must start a thread.
    pub(crate) fn lose(&self) -> (usize, bool) {
        let mut queues = self.lock();
        queues.stuck += 1;
        let stuck = queues.stuck;
        let thread = self.wants_thread(&mut queues);
        self.show(&mut queues);
        drop(queues);
        self.changed.notify_one();
        (stuck, thread)
    }

    /// Such a view has returned.
    pub(crate) fn regain(&self) {
        let mut queues = self.lock();
        queues.stuck = queues.stuck.saturating_sub(1);
        self.show(&mut queues);
        self.note_spare(&queues);
    }

    /// Threads whose view goes on though its request has been answered, and how many there may be.
    pub(crate) fn stuck(&self) -> (usize, usize) {
        (self.lock().stuck, self.most_stuck)
    }

    /// Takes a call out of the queue.
    pub(crate) fn forget(&self, held: &Arc<Held<T>>) -> Option<Box<Call<T>>> {
        let mut queues = self.lock();
        let is_meant = |queued: &Queued<T>| match queued {
            Queued::Call(call) => call.held.as_ref().is_some_and(|known| Arc::ptr_eq(known, held)),
            Queued::Work(_) => false,
        };
        let Queues { calls, probation, .. } = &mut *queues;
        let found = [calls, probation].into_iter().find_map(|queue| {
            let at = queue.iter().position(is_meant)?;
            queue.remove(at)
        });
        if found.is_some() {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            self.show(&mut queues);
        }
        drop(queues);
        match found {
            Some(Queued::Call(call)) => Some(call),
            _ => None,
        }
    }

    /// Whether a connection's call waits in the queue.
    pub(crate) fn is_queued(&self, token: u64) -> bool {
        let queues = self.lock();
        let mut queued = queues.calls.iter().chain(&queues.probation);
        queued.any(|queued| matches!(queued, Queued::Call(call) if call.conn.token == token))
    }

    /// Queues a call; true if the caller must start a thread.
    #[must_use]
    pub(crate) fn call(&self, call: Box<Call<T>>, probation: bool) -> bool {
        self.queue(Queued::Call(call), probation)
    }

    /// As [`Pool::call`], for work that belongs to no request.
    #[must_use]
    pub(crate) fn work(&self, work: Work, probation: bool) -> bool {
        self.queue(Queued::Work(work), probation)
    }

    fn queue(&self, call: Queued<T>, probation: bool) -> bool {
        let mut queues = self.lock();
        if probation {
            queues.probation.push_back(call);
        } else {
            queues.calls.push_back(call);
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let thread = self.wants_thread(&mut queues);
        self.show(&mut queues);
        drop(queues);
        self.changed.notify_one();
        thread
    }

    /// Queues the next piece of a stream; true if the caller must start a thread.
    #[must_use]
    pub(crate) fn stream(&self, job: StreamJob<T>) -> bool {
        let mut queues = self.lock();
        if queues.ended {
            // Nobody will take it.
            drop(queues);
            drop(job);
            return false;
        }
        queues.streams.push_back(job);
        let thread = self.wants_thread(&mut queues);
        drop(queues);
        self.changed.notify_one();
        thread
    }

    /// Whether streams wait for their next piece.
    pub(crate) fn has_streams(&self) -> bool {
        !self.lock().streams.is_empty()
    }

    /// Counts a thread in if none stands by and one more is allowed; the caller must start it.
    #[must_use]
    pub(crate) fn wants_standby(&self) -> bool {
        let mut queues = self.lock();
        self.wants_thread(&mut queues)
    }

    /// Counts a thread in that is about to start.
    pub(crate) fn admit(&self) {
        let mut queues = self.lock();
        queues.threads += 1;
        self.show(&mut queues);
        self.note_spare(&queues);
    }

    /// Counts a thread out.
    pub(crate) fn leave(&self) {
        let mut queues = self.lock();
        queues.threads -= 1;
        self.show(&mut queues);
        self.note_spare(&queues);
        drop(queues);
        self.left.notify_all();
    }

    /// Whether somebody could take the lead at once.
    pub(crate) fn has_idle(&self) -> bool {
        self.lock().idle > 0
    }

    /// Gives the lead to a waiting thread.
    pub(crate) fn lead(&self, lead: Lead<Reactor<T>>) {
        let mut queues = self.lock();
        queues.lead = Some(lead);
        drop(queues);
        // All: the one thread that notify_one picks may be the one that just left for a call.
        self.changed.notify_all();
    }

    /// Ends the threads as they become idle. What is queued is dropped.
    pub(crate) fn end(&self) {
        let mut queues = self.lock();
        queues.ended = true;
        let dropped = (
            std::mem::take(&mut queues.probation),
            std::mem::take(&mut queues.calls),
            std::mem::take(&mut queues.streams),
            queues.lead.take(),
        );
        drop(queues);
        drop(dropped);
        self.changed.notify_all();
    }

    /// The next job. `done` is what the thread has just finished. True as second result: the leader wants to hear that
    /// there is room in the queue.
    pub(crate) fn next(&self, done: Done) -> (Job<T>, bool) {
        let mut queues = self.lock();
        match done {
            Done::Nothing => {}
            Done::Lead => queues.leading -= 1,
            Done::Call => queues.running -= 1,
            Done::Stream => queues.streaming -= 1,
        }
        loop {
            if queues.ended {
                return (Job::End, false);
            }
            if let Some(lead) = queues.lead.take() {
                queues.leading += 1;
                return (Job::Lead(lead), false);
            }
            if self.may_run(&queues) {
                let call = queues.probation.pop_front().or_else(|| queues.calls.pop_front());
                if let Some(call) = call {
                    queues.running += 1;
                    self.show(&mut queues);
                    let left = self.waiting.fetch_sub(1, Ordering::SeqCst) - 1;
                    let tell = left <= self.longest / 2 && self.wants_room.swap(false, Ordering::SeqCst);
                    let job = match call {
                        Queued::Call(call) => Job::Call(call),
                        Queued::Work(work) => Job::Work(work),
                    };
                    return (job, tell);
                }
                if queues.streaming < self.most_streams
                    && let Some(job) = queues.streams.pop_front()
                {
                    queues.streaming += 1;
                    return (Job::Stream(job), false);
                }
            }
            queues.idle += 1;
            self.note_spare(&queues);
            queues = self.changed.wait(queues).unwrap_or_else(PoisonError::into_inner);
            queues.idle -= 1;
            self.note_spare(&queues);
        }
    }

    /// Waits until all threads have left, or until a deadline; whether they have.
    pub(crate) fn wait_empty(&self, timeout: std::time::Duration) -> bool {
        let queues = self.lock();
        let (queues, _) = self
            .left
            .wait_timeout_while(queues, timeout, |queues| queues.threads > 0)
            .unwrap_or_else(PoisonError::into_inner);
        queues.threads == 0
    }
}

/// What a thread has just finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Nothing,
    Lead,
    Call,
    Stream,
}
