//! The memory in which everything is counted.
//!
//! All of it is words that are read and written as atomics, so that processes can share it without locks and one that is
//! killed leaves nothing half locked. Three parts:
//!
//! - a **region** for each slot of a worker, with what only grows: counters, histograms, and a table of series by label.
//!   A worker that takes a dead one's place goes on counting in the same region, so nothing ever goes backwards. Two
//!   workers may share a region, while one replaces the other: additions are atomic.
//! - a **block** for each process, with what is so at the moment: gauges, running views, slow requests. It is emptied when
//!   the process has ended.
//! - a few words for the whole.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::crew::Crew;
use crate::sys::SharedWords;

/// Upper bounds of the histograms' buckets, in nanoseconds, and as Prometheus writes them. Fixed, so that histograms of
/// all processes and versions can be added; a fast view takes 10 µs, a patient client waits 10 s.
pub(super) const BOUNDS: [(u64, &str); 16] = [
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1.0"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5.0"),
    (10_000_000_000, "10.0"),
];
/// A count for each bucket, one for what is above all, and the sum in nanoseconds.
const HISTOGRAM: usize = BOUNDS.len() + 2;

/// Series of one region, at most: 150 routes with four methods and statuses each, and some. Further ones are counted
/// together.
const SERIES: usize = 1024;
/// As many entries are looked at for a place.
const PROBES: usize = 64;
/// Bytes of a series' name, at most; a longer rule is cut. Rules are seldom longer than 100.
const NAME: usize = 192;
/// Hash, meta word, name, histogram.
const ENTRY: usize = 2 + NAME / 8 + HISTOGRAM;

/// Threads whose views a process can show. A pool is seldom larger.
pub(super) const THREADS: usize = 64;
/// Requests that are answered later which it can show besides: those that wait long stay, those that come while there are
/// so many do not show.
pub(super) const LATER: usize = 64;
const RUNNING: usize = THREADS + LATER;
/// Bytes of what is shown about one.
const LABEL: usize = 104;
/// Since when, its identity, its text's length, its text.
const RUN: usize = 3 + LABEL / 8;

/// Slow requests that a process remembers.
pub(super) const SLOW: usize = 16;
/// Bytes of their request line.
pub(super) const LINE: usize = 120;
/// Changes, length, when, status, times, text.
const SLOW_ENTRY: usize = 4 + 5 + LINE / 8;

/// Words for the whole.
const HEAD: usize = 8;
const RESTARTS: usize = 0;
const DRAINING: usize = 1;
/// Nanoseconds that a process may be silent, or its queue full.
const PATIENCE: usize = 2;

/// Longer than any pause of a process that is well; a probe that comes every ten seconds sees the first that is not.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $item:ident,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub(crate) enum $name {
            $($(#[$doc])* $item,)+
        }

        impl $name {
            /// How many there are.
            pub(super) const COUNT: usize = [$($name::$item),+].len();
        }
    };
}

words! {
    /// What only grows.
    Counter {
        /// Connections accepted.
        Accepted,
        /// TLS handshakes that came to a good end.
        Handshakes,
        /// TLS handshakes that did not.
        HandshakeFailures,
        /// Connections that speak HTTP/2.
        Http2,
        /// Requests whose head has come.
        Requests,
        /// Bytes of requests, and what clients sent after upgrades, before encryption.
        Received,
        /// Bytes of responses, before encryption.
        Sent,
        /// Times that accepting paused, because descriptors or memory ran out.
        AcceptPauses,
        /// Times that the reactor was taken from a thread whose view did not come back.
        Retaken,
        /// Streams of events and WebSockets that have begun.
        Outlets,
    }
}

words! {
    /// What goes up and down.
    Gauge {
        /// Open connections.
        Connections,
        /// Requests of HTTP/2 connections that have a place.
        Http2Streams,
        /// Requests whose response is not out.
        InFlight,
        /// Requests that wait for a thread.
        Queue,
        /// Requests that may wait for a thread.
        QueueMost,
        /// Threads that serve.
        Threads,
        /// Threads inside views.
        Busy,
        /// Views that may run at the same time.
        ThreadsMost,
        /// Threads whose request was answered by its deadline while their view goes on.
        Stuck,
        /// Of those, as many as others replace.
        StuckMost,
        /// Open streams of events.
        Streams,
        /// Open WebSockets and the like.
        WebSockets,
    }
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It does not serve yet.
    Starting,
    /// It serves.
    Ready,
    /// It finishes what it has.
    Stopping,
}

impl State {
    fn of(word: u64) -> State {
        match word {
            1 => State::Ready,
            2 => State::Stopping,
            _ => State::Starting,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Stopping => "stopping",
        }
    }
}

/// Parts of a request's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Part {
    Queue,
    Gil,
    View,
    Write,
}

impl Part {
    pub(super) const ALL: [(Part, &str); 4] =
        [(Part::Queue, "queue"), (Part::Gil, "gil"), (Part::View, "view"), (Part::Write, "write")];
}

/// Whose place in a region.
const PARTS_AT: usize = Counter::COUNT;
const SERIES_AT: usize = PARTS_AT + Part::ALL.len() * HISTOGRAM;
/// One entry more is for what found no place.
const REGION: usize = SERIES_AT + (SERIES + 1) * ENTRY;

/// Whose place in a block.
const PID: usize = 0;
const STATE: usize = 1;
const BEGAN: usize = 2;
/// Since when its queue has not been half empty after it was full.
const FULL: usize = 3;
const GAUGES_AT: usize = 4;
const RUNNING_AT: usize = GAUGES_AT + Gauge::COUNT;
const SLOW_AT: usize = RUNNING_AT + RUNNING * RUN;
const BLOCK: usize = SLOW_AT + SLOW * SLOW_ENTRY;

/// Replacements, and processes that end slowly, have blocks beside those that serve.
const SPARE_BLOCKS: usize = 62;

/// Where a word is asked for that is not there. Never read for anything.
static NOWHERE: AtomicU64 = AtomicU64::new(0);

/// The memory of all counts of a server.
#[derive(Debug)]
pub struct Board {
    shared: SharedWords,
    slots: usize,
    blocks: usize,
    /// The processes that serve, as far as they can be asked whether they turn.
    crew: Arc<Crew>,
    /// The beginning of all times; the same in every process, since the clock is the machine's.
    epoch: Instant,
    began: SystemTime,
}

/// A histogram, summed.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    /// Each bucket by itself, the last one above all bounds.
    pub(super) buckets: [u64; BOUNDS.len() + 1],
    pub(super) nanos: u64,
}

impl Histogram {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(super) fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine = mine.wrapping_add(theirs);
        }
        self.nanos = self.nanos.wrapping_add(other.nanos);
    }
}

/// What a series is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Requests of a rule.
    Route = 1,
    /// Refusals.
    Refusal = 2,
}

/// A series' labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label {
    pub(super) kind: Kind,
    /// A rule, or the kind of a refusal.
    pub(super) name: String,
    /// Of [`METHODS`].
    pub(super) method: &'static str,
    /// The status' first digit.
    pub(super) class: u8,
}

/// Methods that have series of their own. Clients may make up others.
pub(super) const METHODS: [&str; 10] =
    ["OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];

/// What stands where series are counted that found no place.
pub(super) const OVERFLOW: &str = "(more)";

/// A process, as its block shows it.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: u64,
    pub(super) state: State,
    /// Seconds since 1970.
    pub(super) began: u64,
    /// For how long its queue has been full.
    pub(super) full: Option<Duration>,
    pub(super) gauges: [u64; Gauge::COUNT],
    pub(super) running: Vec<Run>,
    pub(super) slow: Vec<Slow>,
}

impl Process {
    pub(super) fn gauge(&self, which: Gauge) -> u64 {
        self.gauges.get(which as usize).copied().unwrap_or(0)
    }
}

/// A view that runs.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// `None` for a request that is answered later, on no thread.
    pub(super) thread: Option<usize>,
    pub(super) text: String,
    pub(super) since: Duration,
}

/// A request that took long.
#[derive(Clone, Debug, Default)]
pub(super) struct Slow {
    pub(super) text: String,
    pub(super) status: u64,
    /// When it ended, since the board's beginning.
    pub(super) at: u64,
    /// All, queue, GIL, view, write; in nanoseconds.
    pub(super) times: [u64; 5],
}

impl Board {
    /// Memory for so many slots, and for the one process that there is.
    ///
    /// # Errors
    ///
    /// There is not enough memory, or no descriptor.
    pub fn new(slots: usize) -> io::Result<Board> {
        Board::of(slots, Arc::new(Crew::new(1)?))
    }

    /// Memory for so many slots, and for processes that can be asked whether they turn.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    pub fn of(slots: usize, crew: Arc<Crew>) -> io::Result<Board> {
        let slots = slots.clamp(1, 4096);
        let blocks = slots + SPARE_BLOCKS;
        let shared = SharedWords::new(HEAD + slots * REGION + blocks * BLOCK)?;
        let board = Board { shared, slots, blocks, crew, epoch: Instant::now(), began: SystemTime::now() };
        board.set_patience(DEFAULT_PATIENCE);
        Ok(board)
    }

    /// The processes that can be asked whether they turn.
    pub fn crew(&self) -> &Arc<Crew> {
        &self.crew
    }

    /// Sets how long a process may be silent, and its queue full, until it counts as ill.
    pub fn set_patience(&self, patience: Duration) {
        let nanos = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        self.word(PATIENCE).store(nanos, Relaxed);
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_nanos(self.read(PATIENCE))
    }

    pub(super) fn word(&self, at: usize) -> &AtomicU64 {
        self.shared.words().get(at).unwrap_or(&NOWHERE)
    }

    fn read(&self, at: usize) -> u64 {
        self.word(at).load(Relaxed)
    }

    /// Nanoseconds since the board's beginning.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Seconds since 1970 at which it began.
    pub(super) fn start_time(&self) -> f64 {
        self.began.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }

    // The whole.

    /// Counts a worker that took the place of another one.
    pub fn count_restart(&self) {
        self.word(RESTARTS).fetch_add(1, Relaxed);
    }

    pub(super) fn restarts(&self) -> u64 {
        self.read(RESTARTS)
    }

    /// Says that a stop has begun, or that it has not.
    pub fn set_draining(&self, draining: bool) {
        self.word(DRAINING).store(u64::from(draining), Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.read(DRAINING) != 0
    }

    // Blocks.

    fn block_at(&self, block: usize) -> usize {
        HEAD + self.slots * REGION + block * BLOCK
    }

    /// Takes a block for this process. `None` if all are taken.
    pub(super) fn claim(&self) -> Option<usize> {
        let pid = u64::from(std::process::id());
        let at = (0..self.blocks)
            .map(|block| self.block_at(block))
            .find(|at| self.word(at + PID).compare_exchange(0, pid, AcqRel, Relaxed).is_ok())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.word(at + BEGAN).store(now, Relaxed);
        Some(at)
    }

    /// Empties the block of a process that has ended.
    pub fn forget(&self, pid: u32) {
        for block in 0..self.blocks {
            let at = self.block_at(block);
            if self.read(at + PID) == u64::from(pid) {
                self.empty(at);
            }
        }
    }

    pub(super) fn empty(&self, at: usize) {
        for word in at + 1..at + BLOCK {
            if self.read(word) != 0 {
                self.word(word).store(0, Relaxed);
            }
        }
        self.word(at + PID).store(0, Release);
    }

    pub(super) fn set_state(&self, block: usize, state: State) {
        let word = match state {
            State::Starting => 0,
            State::Ready => 1,
            State::Stopping => 2,
        };
        self.word(block + STATE).store(word, Relaxed);
    }

    /// Notes that a process' queue has become full, or has room again.
    pub(super) fn set_full(&self, block: usize, full: bool) {
        let since = if full { self.now().max(1) } else { 0 };
        self.word(block + FULL).store(since, Relaxed);
    }

    pub(super) fn gauge(&self, block: usize, which: Gauge) -> &AtomicU64 {
        self.word(block + GAUGES_AT + which as usize)
    }

    /// Shows that a view runs: at the place of its thread, or at one of those behind them.
    pub(super) fn enter(&self, block: usize, place: usize, parts: [&[u8]; 3], since: Instant) {
        if place >= RUNNING {
            return;
        }
        let at = block + RUNNING_AT + place * RUN;
        let since = since.saturating_duration_since(self.epoch).as_nanos();
        let length = self.write_text(at + 3, LABEL, parts);
        self.word(at + 2).store(length as u64, Relaxed);
        self.word(at + 1).fetch_add(1, Relaxed);
        self.word(at).store(u64::try_from(since).unwrap_or(u64::MAX).max(1), Release);
    }

    /// Shows that it does no longer.
    pub(super) fn leave(&self, block: usize, place: usize) {
        if place < RUNNING {
            self.word(block + RUNNING_AT + place * RUN).store(0, Release);
        }
    }

    /// Writes one of the slow requests.
    pub(super) fn write_slow(&self, block: usize, which: usize, slow: &Slow) {
        let at = block + SLOW_AT + which * SLOW_ENTRY;
        let changes = self.word(at);
        // Odd while it changes.
        changes.fetch_add(1, AcqRel);
        let length = self.write_text(at + 9, LINE, [slow.text.as_bytes(), b"", b""]);
        self.word(at + 1).store(length as u64, Relaxed);
        self.word(at + 2).store(slow.at, Relaxed);
        self.word(at + 3).store(slow.status, Relaxed);
        for (place, time) in slow.times.iter().enumerate() {
            self.word(at + 4 + place).store(*time, Relaxed);
        }
        changes.fetch_add(1, AcqRel);
    }

    pub(super) fn processes(&self) -> Vec<Process> {
        (0..self.blocks).filter_map(|block| self.process(self.block_at(block))).collect()
    }

    fn process(&self, at: usize) -> Option<Process> {
        let pid = self.word(at + PID).load(Acquire);
        if pid == 0 {
            return None;
        }
        let mut gauges = [0; Gauge::COUNT];
        for (place, gauge) in gauges.iter_mut().enumerate() {
            // A difference of additions by several threads may be below zero for an instant.
            *gauge = u64::try_from(self.read(at + GAUGES_AT + place).cast_signed()).unwrap_or(0);
        }
        let now = self.now();
        let running = (0..RUNNING).filter_map(|place| self.run(at + RUNNING_AT + place * RUN, place, now));
        let slow = (0..SLOW).filter_map(|which| self.slow(at + SLOW_AT + which * SLOW_ENTRY));
        let full = self.read(at + FULL);
        Some(Process {
            pid,
            full: (full != 0).then(|| Duration::from_nanos(now.saturating_sub(full))),
            state: State::of(self.read(at + STATE)),
            began: self.read(at + BEGAN),
            gauges,
            running: running.collect(),
            slow: slow.collect(),
        })
    }

    fn run(&self, at: usize, place: usize, now: u64) -> Option<Run> {
        let since = self.word(at).load(Acquire);
        let identity = self.word(at + 1).load(Acquire);
        let text = self.read_text(at + 3, LABEL, self.read(at + 2));
        // Another view may have begun on the thread meanwhile.
        let same = since != 0 && self.word(at + 1).load(Acquire) == identity && self.read(at) == since;
        let thread = (place < THREADS).then_some(place);
        same.then(|| Run { thread, text, since: Duration::from_nanos(now.saturating_sub(since)) })
    }

    fn slow(&self, at: usize) -> Option<Slow> {
        let changes = self.word(at).load(Acquire);
        let mut times = [0; 5];
        for (place, time) in times.iter_mut().enumerate() {
            *time = self.read(at + 4 + place);
        }
        let text = self.read_text(at + 9, LINE, self.read(at + 1));
        let slow = Slow { text, status: self.read(at + 3), at: self.read(at + 2), times };
        let whole = changes.is_multiple_of(2) && self.word(at).load(Acquire) == changes;
        (whole && slow.at != 0).then_some(slow)
    }

    // Regions.

    /// Where the counts of a slot are. Slots beyond those that were foreseen share them.
    pub(super) fn region(&self, slot: usize) -> usize {
        HEAD + slot % self.slots * REGION
    }

    pub(super) fn counter(&self, region: usize, which: Counter) -> &AtomicU64 {
        self.word(region + which as usize)
    }

    /// The sum over all processes, those that have ended too.
    pub(super) fn total(&self, which: Counter) -> u64 {
        let counts = (0..self.slots).map(|slot| self.counter(self.region(slot), which).load(Relaxed));
        counts.fold(0, u64::wrapping_add)
    }

    pub(super) fn observe_part(&self, region: usize, which: Part, took: Duration) {
        self.observe(region + PARTS_AT + which as usize * HISTOGRAM, took);
    }

    pub(super) fn part(&self, which: Part) -> Histogram {
        let mut sum = Histogram::default();
        for slot in 0..self.slots {
            sum.add(&self.histogram(self.region(slot) + PARTS_AT + which as usize * HISTOGRAM));
        }
        sum
    }

    fn observe(&self, at: usize, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().take_while(|(bound, _)| nanos > *bound).count();
        self.word(at + bucket).fetch_add(1, Relaxed);
        self.word(at + HISTOGRAM - 1).fetch_add(nanos, Relaxed);
    }

    fn histogram(&self, at: usize) -> Histogram {
        let mut found = Histogram::default();
        for (place, bucket) in found.buckets.iter_mut().enumerate() {
            *bucket = self.read(at + place);
        }
        found.nanos = self.read(at + HISTOGRAM - 1);
        found
    }

    /// Counts one of a series, which is made if there is room for it.
    pub(super) fn observe_series(
        &self,
        region: usize,
        kind: Kind,
        name: &[u8],
        method: &[u8],
        class: u16,
        took: Duration,
    ) {
        let method = METHODS.iter().position(|known| known.as_bytes() == method).unwrap_or(0);
        let meta = 1 << 63 | (kind as u64) << 48 | u64::from(class) << 32 | (method as u64) << 16;
        let hash = hash(meta, name);
        let series = region + SERIES_AT;
        for probe in 0..PROBES {
            let at = series + (hash as usize).wrapping_add(probe) % SERIES * ENTRY;
            let found = self.word(at).load(Acquire);
            if found != hash {
                let mine = found == 0 && self.take(at, hash);
                if !mine {
                    continue;
                }
            }
            // Whoever took the place writes the name; so does whoever finds that it came to nothing.
            if self.read(at + 1) == 0 {
                let length = self.write_text(at + 2, NAME, [name, b"", b""]);
                self.word(at + 1).store(meta | length as u64, Release);
            }
            return self.observe(at + 2 + NAME / 8, took);
        }
        let at = series + SERIES * ENTRY;
        let meta = 1 << 63 | (kind as u64) << 48 | OVERFLOW.len() as u64;
        self.write_text(at + 2, NAME, [OVERFLOW.as_bytes(), b"", b""]);
        self.word(at + 1).store(meta, Release);
        self.observe(at + 2 + NAME / 8, took);
    }

    /// Takes a place in the table, unless another one is faster; whether it is now for this hash.
    fn take(&self, at: usize, hash: u64) -> bool {
        match self.word(at).compare_exchange(0, hash, AcqRel, Acquire) {
            Ok(_) => true,
            Err(found) => found == hash,
        }
    }

    /// All series, those of one label summed, in order.
    pub(super) fn series(&self) -> Vec<(Label, Histogram)> {
        let mut found = std::collections::BTreeMap::<Label, Histogram>::new();
        for slot in 0..self.slots {
            let series = self.region(slot) + SERIES_AT;
            for entry in 0..=SERIES {
                let at = series + entry * ENTRY;
                let meta = self.word(at + 1).load(Acquire);
                if meta == 0 {
                    continue;
                }
                let label = Label {
                    kind: if meta >> 48 & 0xff == Kind::Route as u64 { Kind::Route } else { Kind::Refusal },
                    name: self.read_text(at + 2, NAME, meta & 0xffff),
                    method: METHODS.get((meta >> 16 & 0xff) as usize).copied().unwrap_or("OTHER"),
                    class: (meta >> 32 & 0xff) as u8,
                };
                found.entry(label).or_default().add(&self.histogram(at + 2 + NAME / 8));
            }
        }
        found.into_iter().collect()
    }

    // Texts.

    /// Writes as many bytes as there is room for, and returns how many.
    fn write_text(&self, at: usize, room: usize, parts: [&[u8]; 3]) -> usize {
        let mut bytes = parts.into_iter().flatten().copied().take(room);
        let mut length = 0;
        for place in 0..room / 8 {
            let mut word = [0; 8];
            let taken = word.iter_mut().zip(bytes.by_ref()).map(|(to, byte)| *to = byte).count();
            length += taken;
            self.word(at + place).store(u64::from_ne_bytes(word), Relaxed);
            if taken < 8 {
                break;
            }
        }
        length
    }

    fn read_text(&self, at: usize, room: usize, length: u64) -> String {
        let length = usize::try_from(length).map_or(room, |length| length.min(room));
        let bytes = (0..length.div_ceil(8)).flat_map(|place| self.read(at + place).to_ne_bytes());
        let bytes: Vec<u8> = bytes.take(length).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A hash that is never zero (FNV-1a, eight bytes at a time, then mixed). Rules are the application's own: nobody else
/// chooses them.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = seed ^ PRIME;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        for (to, byte) in word.iter_mut().zip(chunk) {
            *to = *byte;
        }
        hash = (hash ^ u64::from_ne_bytes(word)).wrapping_mul(PRIME);
        hash ^= hash >> 29;
    }
    (hash ^ bytes.len() as u64).wrapping_mul(PRIME).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn board() -> Board {
        Board::new(2).unwrap()
    }

    #[test]
    fn series_of_all_slots_are_summed_by_label() {
        let board = board();
        for slot in [0, 1, 1] {
            board.observe_series(board.region(slot), Kind::Route, b"/a/<b>", b"GET", 2, MS);
        }
        board.observe_series(board.region(0), Kind::Route, b"/a/<b>", b"BREW", 4, MS);
        let found = board.series();
        let counts: Vec<_> = found
            .iter()
            .map(|(label, sum)| (label.name.as_str(), label.method, label.class, sum.count()))
            .collect();
        assert_eq!(counts, [("/a/<b>", "GET", 2, 3), ("/a/<b>", "OTHER", 4, 1)]);
        assert_eq!(found[0].1.nanos, 3_000_000);
        assert_eq!(found[0].1.buckets[3], 3);
    }

    #[test]
    fn series_beyond_the_room_are_counted_together() {
        let board = board();
        for number in 0..2 * SERIES {
            let name = format!("/{number}");
            board.observe_series(board.region(0), Kind::Route, name.as_bytes(), b"GET", 2, MS);
        }
        let found = board.series();
        assert!(found.len() <= SERIES + 1);
        assert_eq!(found.iter().map(|(_, sum)| sum.count()).sum::<u64>(), 2 * SERIES as u64);
        assert!(found.iter().any(|(label, _)| label.name == OVERFLOW));
    }

    #[test]
    fn a_long_rule_is_cut() {
        let board = board();
        board.observe_series(board.region(0), Kind::Route, &[b'x'; 500], b"GET", 2, MS);
        assert_eq!(board.series()[0].0.name.len(), NAME);
    }

    #[test]
    fn a_histogram_knows_its_bounds() {
        let board = board();
        for (nanos, bucket) in
            [(0, 0), (100_000, 0), (100_001, 1), (10_000_000_000, 15), (10_000_000_001, 16)]
        {
            let before = board.part(Part::View).buckets[bucket];
            board.observe_part(board.region(1), Part::View, Duration::from_nanos(nanos));
            assert_eq!(board.part(Part::View).buckets[bucket], before + 1, "{nanos}");
        }
    }

    #[test]
    fn a_process_that_has_ended_leaves_its_counts_and_nothing_else() {
        let board = board();
        let block = board.claim().unwrap();
        board.counter(board.region(0), Counter::Accepted).fetch_add(7, Relaxed);
        board.gauge(block, Gauge::Connections).store(3, Relaxed);
        board.set_state(block, State::Ready);
        board.enter(block, 5, [b"GET", b" ", b"/slow"], Instant::now());
        let process = &board.processes()[0];
        assert_eq!(process.gauge(Gauge::Connections), 3);
        assert_eq!(process.running[0].text, "GET /slow");
        assert_eq!(process.running[0].thread, Some(5));
        assert!(board.is_ready());
        board.forget(std::process::id());
        assert!(board.processes().is_empty());
        assert!(!board.is_ready());
        assert_eq!(board.total(Counter::Accepted), 7);
        assert!(board.processes().is_empty());
    }

    #[test]
    fn a_server_that_drains_is_not_ready() {
        let board = board();
        let block = board.claim().unwrap();
        assert!(!board.is_ready());
        board.set_state(block, State::Ready);
        assert!(board.is_ready());
        board.set_draining(true);
        assert!(!board.is_ready());
    }

    #[test]
    fn slow_requests_are_read_as_they_were_written() {
        let board = board();
        let block = board.claim().unwrap();
        let slow = Slow { text: "GET /é?x=1".to_owned(), status: 200, at: 5, times: [9, 1, 2, 3, 4] };
        board.write_slow(block, 3, &slow);
        let found = &board.processes()[0].slow;
        assert_eq!(found.len(), 1);
        assert_eq!(format!("{:?}", found[0]), format!("{slow:?}"));
    }
}
