//! One process' pen: what the engine calls when something happens.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::board::{Board, Counter, Gauge, Kind, LATER, Part, SLOW, Slow, State, THREADS};
use crate::exchange::Answered;
use crate::locked;

/// How long a slow request is remembered.
const REMEMBER: u64 = 600_000_000_000;

/// What stands in the place of a route where there is none: nothing has matched, or the rule is not known to the engine.
const NO_ROUTE: &str = "(none)";

/// Where a process counts. Dropping it empties its block.
#[derive(Debug)]
pub struct Stats {
    board: Arc<Board>,
    region: usize,
    block: Option<usize>,
    pid: u32,
    slow: Mutex<SlowOnes>,
    /// A request below this many nanoseconds is not among the slow ones.
    floor: AtomicU64,
    /// The first of those will be forgotten at this time.
    until: AtomicU64,
    /// A bit for each place of the board that shows a request which is answered later.
    later: AtomicU64,
}

const _: () = assert!(LATER == u64::BITS as usize, "a bit for each place");

/// Time and end of each slow request that is remembered; zeros where none is.
#[derive(Debug, Default)]
struct SlowOnes([(u64, u64); SLOW]);

/// Counts something as open for as long as it lives.
#[derive(Debug)]
pub(crate) struct Running {
    stats: Arc<Stats>,
    what: Gauge,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stats.sub(self.what);
    }
}

/// Shows a request that is answered later for as long as it lives.
#[derive(Debug)]
pub(crate) struct Shown {
    stats: Arc<Stats>,
    place: usize,
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(block) = self.stats.block {
            self.stats.board.leave(block, THREADS + self.place);
        }
        self.stats.later.fetch_and(!(1 << self.place), Relaxed);
    }
}

/// A request line up to its query, which may hold what nobody should read.
fn without_query(request: &[u8]) -> &[u8] {
    request.split(|byte| *byte == b'?').next().unwrap_or(request)
}

thread_local! {
    /// Bytes received and sent by this thread that are not counted yet: two cells cost a nanosecond, two atomics ten.
    static TRAFFIC: (Cell<u64>, Cell<u64>) = const { (Cell::new(0), Cell::new(0)) };
}

/// Notes that this thread has received bytes.
pub(crate) fn note_received(count: usize) {
    TRAFFIC.with(|(received, _)| received.set(received.get().wrapping_add(count as u64)));
}

/// Notes that this thread has sent bytes.
pub(crate) fn note_sent(count: usize) {
    TRAFFIC.with(|(_, sent)| sent.set(sent.get().wrapping_add(count as u64)));
}

impl Stats {
    /// A place on a board for this process, in the region of a slot.
    pub fn new(board: Arc<Board>, slot: usize) -> Stats {
        Stats {
            region: board.region(slot),
            block: board.claim(),
            pid: std::process::id(),
            board,
            slow: Mutex::default(),
            floor: AtomicU64::new(0),
            until: AtomicU64::new(u64::MAX),
            later: AtomicU64::new(0),
        }
    }

    /// The board.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    pub(crate) fn count(&self, what: Counter) {
        self.count_many(what, 1);
    }

    pub(crate) fn count_many(&self, what: Counter, number: u64) {
        self.board.counter(self.region, what).fetch_add(number, Relaxed);
    }

    pub(crate) fn set(&self, what: Gauge, value: usize) {
        if let Some(block) = self.block {
            self.board.gauge(block, what).store(value as u64, Relaxed);
        }
    }

    /// Notes that the queue has become full, or has room again.
    pub(crate) fn set_full(&self, full: bool) {
        if let Some(block) = self.block {
            self.board.set_full(block, full);
        }
    }

    fn add(&self, what: Gauge) {
        if let Some(block) = self.block {
            self.board.gauge(block, what).fetch_add(1, Relaxed);
        }
    }

    fn sub(&self, what: Gauge) {
        if let Some(block) = self.block {
            self.board.gauge(block, what).fetch_sub(1, Relaxed);
        }
    }

    /// Counts something as open until the guard is dropped.
    pub(crate) fn open(self: &Arc<Self>, what: Gauge) -> Running {
        self.add(what);
        Running { stats: Arc::clone(self), what }
    }

    pub(crate) fn set_state(&self, state: State) {
        if let Some(block) = self.block {
            self.board.set_state(block, state);
        }
    }

    /// Counts the bytes that this thread has noted.
    pub(crate) fn take_traffic(&self) {
        let (received, sent) = TRAFFIC.with(|(received, sent)| (received.take(), sent.take()));
        if received > 0 {
            self.count_many(Counter::Received, received);
        }
        if sent > 0 {
            self.count_many(Counter::Sent, sent);
        }
    }

    /// A thread goes into a view, or has come back.
    pub(crate) fn is_busy(&self, busy: bool) {
        if busy { self.add(Gauge::Busy) } else { self.sub(Gauge::Busy) }
    }

    /// Shows the view that a thread runs.
    pub(crate) fn show(&self, thread: usize, request: &[u8], since: Instant) {
        if let Some(block) = self.block
            && thread < THREADS
        {
            self.board.enter(block, thread, [without_query(request), b"", b""], since);
        }
    }

    /// Shows that it has come back.
    pub(crate) fn hide(&self, thread: usize) {
        if let Some(block) = self.block
            && thread < THREADS
        {
            self.board.leave(block, thread);
        }
    }

    /// Shows a request that is answered later, until the guard is dropped. `None` if so many are shown already.
    pub(crate) fn show_later(self: &Arc<Self>, method: &[u8], path: &[u8], since: Instant) -> Option<Shown> {
        let block = self.block?;
        let taken = self
            .later
            .fetch_update(Relaxed, Relaxed, |taken| (taken != u64::MAX).then(|| taken | (taken + 1)));
        // The lowest one that was free.
        let place = taken.ok()?.trailing_ones() as usize;
        self.board.enter(block, THREADS + place, [method, b" ", path], since);
        Some(Shown { stats: Arc::clone(self), place })
    }

    pub(crate) fn refused(&self, kind: &str, status: u16) {
        let class = status / 100;
        let name = kind.as_bytes();
        self.board.observe_series(self.region, Kind::Refusal, name, b"", class, Duration::ZERO);
    }

    pub(crate) fn answered(&self, answered: &Answered<'_>) {
        let Answered { method, target, route, status, times, .. } = *answered;
        let name = route.unwrap_or(NO_ROUTE).as_bytes();
        self.board.observe_series(self.region, Kind::Route, name, method, status / 100, times.total);
        let parts = [times.queue, times.gil, times.view, times.write];
        // Of a request that no view was called for only the whole is worth knowing.
        if !times.view.is_zero() {
            for ((part, _), took) in Part::ALL.into_iter().zip(parts) {
                self.board.observe_part(self.region, part, took);
            }
        }
        self.remember(method, target, status, times.total, parts);
    }

    /// Keeps a request if it is one of the slowest of late.
    fn remember(&self, method: &[u8], target: &[u8], status: u16, total: Duration, parts: [Duration; 4]) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let total = nanos(total);
        let now = self.board.now().max(1);
        if total <= self.floor.load(Relaxed) && now < self.until.load(Relaxed) {
            return;
        }
        let Some(block) = self.block else { return };
        let mut slow = locked(&self.slow);
        let is_old = |ended: u64| now.saturating_sub(ended) > REMEMBER;
        for (place, entry) in slow.0.iter_mut().enumerate() {
            if entry.1 != 0 && is_old(entry.1) {
                *entry = (0, 0);
                self.board.write_slow(block, place, &Slow::default());
            }
        }
        let least = slow.0.iter_mut().enumerate().min_by_key(|(_, entry)| **entry);
        if let Some((place, entry)) = least
            && total > entry.0
        {
            *entry = (total, now);
            let [queue, gil, view, write] = parts.map(nanos);
            let text = String::from_utf8_lossy(&[method, b" ", target].concat()).into_owned();
            let times = [total, queue, gil, view, write];
            self.board.write_slow(block, place, &Slow { text, status: status.into(), at: now, times });
        }
        self.floor.store(slow.0.iter().map(|entry| entry.0).min().unwrap_or(0), Relaxed);
        let first = slow.0.iter().map(|entry| entry.1).filter(|ended| *ended != 0).min();
        self.until.store(first.map_or(u64::MAX, |ended| ended.saturating_add(REMEMBER)), Relaxed);
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        // Not in a copy of the process: the block is its parent's.
        if let Some(block) = self.block
            && self.pid == std::process::id()
        {
            self.board.empty(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Arc<Stats> {
        Arc::new(Stats::new(Arc::new(Board::new(1).unwrap()), 0))
    }

    #[test]
    fn the_slowest_requests_are_remembered() {
        let stats = stats();
        for number in 0..100u64 {
            let took = Duration::from_millis(number * 37 % 100);
            stats.remember(b"GET", format!("/{number}").as_bytes(), 200, took, [Duration::ZERO; 4]);
        }
        let mut found: Vec<u64> =
            stats.board.processes()[0].slow.iter().map(|slow| slow.times[0] / 1_000_000).collect();
        found.sort_unstable();
        assert_eq!(found, (84..100).collect::<Vec<_>>());
    }

    #[test]
    fn requests_that_are_answered_later_are_shown_while_there_is_room() {
        let stats = stats();
        let begun = Instant::now();
        let mut shown: Vec<_> = (0..LATER)
            .map(|number| stats.show_later(b"GET", format!("/{number}").as_bytes(), begun))
            .collect();
        assert!(shown.iter().all(Option::is_some));
        assert!(stats.show_later(b"GET", b"/more", begun).is_none());
        drop(shown.swap_remove(7));
        drop(shown.swap_remove(63 - 1));
        let again = stats.show_later(b"GET", b"/again", begun).expect("a place is free");
        stats.show(3, b"GET /view?secret", begun);
        let running = &stats.board.processes()[0].running;
        assert_eq!(running.len(), LATER);
        assert_eq!((running[0].thread, running[0].text.as_str()), (Some(3), "GET /view"));
        assert!(running.iter().any(|run| run.thread.is_none() && run.text == "GET /again"));
        drop((shown, again));
        stats.hide(3);
        assert!(stats.board.processes()[0].running.is_empty());
    }

    #[test]
    fn what_is_open_is_counted_until_it_is_dropped() {
        let stats = stats();
        let open = [stats.open(Gauge::InFlight), stats.open(Gauge::InFlight)];
        assert_eq!(stats.board.processes()[0].gauge(Gauge::InFlight), 2);
        drop(open);
        assert_eq!(stats.board.processes()[0].gauge(Gauge::InFlight), 0);
    }

    #[test]
    fn bytes_are_counted_when_the_thread_says_so() {
        let stats = stats();
        note_received(3);
        note_received(4);
        note_sent(5);
        assert_eq!(stats.board.total(Counter::Received), 0);
        stats.take_traffic();
        stats.take_traffic();
        assert_eq!((stats.board.total(Counter::Received), stats.board.total(Counter::Sent)), (7, 5));
    }
}
