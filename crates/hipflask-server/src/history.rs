//! How long a route's views take: decides whether they run inline or on a worker.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// A view that takes longer on average blocks everybody for longer than a hand-off would cost (6 to 34 µs) many times
/// over, and is sent to the workers.
const INLINE_MOST: u32 = micros(500);
/// A route comes back inline only when its average has fallen to this.
const INLINE_AGAIN: u32 = micros(200);
/// Runs on workers before a new route is trusted.
const PROBATION: u32 = 8;
/// Runs after which the watchdog may look less often.
const PROVEN: u32 = 256;
/// Fast runs on workers that a route needs to come back inline once it has blocked.
const SENTENCE: u32 = 128;
/// The estimate moves by a sixteenth of the difference.
const WEIGHT: u32 = 4;
/// A single run counts as at most this: a view that once hung for a minute is not sent away for a day.
const RUN_MOST: u32 = micros(100_000);

/// Times are kept in sixteenths of a microsecond, so that the average can fall below 16 µs.
const fn micros(us: u32) -> u32 {
    us << 4
}

/// Where a route's next request runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// On the thread that parsed it.
    Inline,
    /// On a worker, before the requests of blocking routes: it may well be fast.
    Probation,
    /// On a worker, in turn.
    Worker,
    /// Given to [`Handler::defer`](crate::Handler::defer).
    Later,
}

/// Whether a route's responses may be compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compressible {
    /// As the server is set.
    #[default]
    Maybe,
    /// They are, whoever they are for: they hold no secret.
    Always,
    /// They are not.
    Never,
    /// They are static files.
    File,
    /// Which of these it is comes with each response: [`Reply::compressing`](crate::Reply::compressing).
    Told,
}

/// What is known about the run time of one route and method. Shared by all threads; every method takes `&self`.
#[derive(Debug, Default)]
pub struct RouteHistory {
    name: Option<Box<str>>,
    fixed: Option<bool>,
    timeout: Option<Duration>,
    ahead: Option<u64>,
    is_later: bool,
    takes_stream: bool,
    takes_whole: bool,
    compressible: Compressible,
    /// Moving average of wall-clock time.
    wall: AtomicU32,
    /// Runs so far, up to [`PROVEN`].
    runs: AtomicU32,
    /// Fast runs that the route still needs before it comes back inline.
    sentence: AtomicU32,
    /// Whether a leader runs it inline at this moment. If it is still so when the next request comes, that leader has
    /// been retaken: do not send a second one after it.
    inside: AtomicBool,
}

impl RouteHistory {
    /// A route that nothing is known about. `inline` overrides what is learnt later.
    pub fn new(inline: Option<bool>) -> RouteHistory {
        RouteHistory { fixed: inline, ..RouteHistory::default() }
    }

    /// A route whose requests are given to [`Handler::defer`](crate::Handler::defer).
    pub fn later() -> RouteHistory {
        RouteHistory { is_later: true, ..RouteHistory::default() }
    }

    /// As [`RouteHistory::later`], but a request is given as soon as its head is there, while its body arrives.
    pub fn later_with_stream() -> RouteHistory {
        RouteHistory { is_later: true, takes_stream: true, ..RouteHistory::default() }
    }

    /// Gives the route a name for logs: its rule, as it was written.
    #[must_use]
    pub fn named(self, name: &str) -> RouteHistory {
        RouteHistory { name: Some(name.into()), ..self }
    }

    /// The name, if there is one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The same route, whose responses are compressed as this says.
    #[must_use]
    pub fn compressing(self, compressible: Compressible) -> RouteHistory {
        RouteHistory { compressible, ..self }
    }

    /// Whether its responses may be compressed.
    pub(crate) fn compressible(&self) -> Compressible {
        self.compressible
    }

    /// Has bodies of an unknown length come whole before the view is called, in a file if they are long: then
    /// [`BodyStream::length`](crate::BodyStream::length) tells theirs.
    #[must_use]
    pub fn measuring(self) -> RouteHistory {
        RouteHistory { takes_whole: true, ..self }
    }

    /// Whether bodies of an unknown length come whole.
    pub(crate) fn takes_whole(&self) -> bool {
        self.takes_whole
    }

    /// What its requests may take, in the place of [`Config::request_timeout`](crate::Config::request_timeout); zero for
    /// as long as they like.
    #[must_use]
    pub fn within(self, timeout: Duration) -> RouteHistory {
        RouteHistory { timeout: Some(timeout), ..self }
    }

    /// Has longer bodies not be read before the view is called, which will hardly want them.
    #[must_use]
    pub fn collecting(self, most: u64) -> RouteHistory {
        RouteHistory { ahead: Some(most), ..self }
    }

    /// Whether a body of this length is read before the view is called.
    pub(crate) fn collects(&self, length: u64) -> bool {
        self.ahead.is_none_or(|most| length <= most)
    }

    /// What a request may take.
    pub(crate) fn timeout(&self, usual: Option<Duration>) -> Option<Duration> {
        self.timeout.or(usual).filter(|timeout| !timeout.is_zero())
    }

    /// Whether it runs inline though no thread could take the lead over, since whoever wrote it says that it is fast.
    pub(crate) fn is_surely_fast(&self) -> bool {
        self.fixed == Some(true)
    }

    /// Whether bodies that are still arriving are given away, too.
    pub(crate) fn takes_stream(&self) -> bool {
        self.takes_stream
    }

    /// Where the next request should run.
    pub fn lane(&self) -> Lane {
        match self.fixed {
            _ if self.is_later => Lane::Later,
            Some(true) if !self.inside.load(Relaxed) => Lane::Inline,
            Some(_) => Lane::Worker,
            None if self.sentence.load(Relaxed) > 0 => Lane::Worker,
            None if self.runs.load(Relaxed) < PROBATION || self.inside.load(Relaxed) => Lane::Probation,
            None => Lane::Inline,
        }
    }

    /// Whether the watchdog may take its time.
    pub fn is_proven(&self) -> bool {
        self.runs.load(Relaxed) >= PROVEN
    }

    /// The average time of a run.
    pub fn average(&self) -> Duration {
        Duration::from_nanos(u64::from(self.wall.load(Relaxed)) * 1000 / 16)
    }

    /// Tells that an inline run starts.
    pub(crate) fn starts_inline(&self) {
        self.inside.store(true, Relaxed);
    }

    /// Tells that an inline run has ended.
    pub(crate) fn ends_inline(&self) {
        self.inside.store(false, Relaxed);
    }

    /// Learns from one run. Concurrent runs may overwrite each other's lesson: it is an estimate.
    pub fn record(&self, took: Duration) {
        let run = u32::try_from(took.as_nanos() * 16 / 1000).unwrap_or(RUN_MOST).min(RUN_MOST);
        let runs = self.runs.load(Relaxed);
        if runs < PROVEN {
            self.runs.store(runs + 1, Relaxed);
        }
        let old = self.wall.load(Relaxed);
        // The first run is the best guess there is.
        let new = if runs == 0 { run } else { old - (old >> WEIGHT) + (run >> WEIGHT) };
        self.wall.store(new, Relaxed);
        let sentence = self.sentence.load(Relaxed);
        if new > INLINE_MOST || (sentence > 0 && run > INLINE_MOST) {
            self.sentence.store(SENTENCE, Relaxed);
        } else if sentence > 1 || (sentence == 1 && new < INLINE_AGAIN) {
            self.sentence.store(sentence - 1, Relaxed);
        }
    }

    /// Learns from a run during which the watchdog took the reactor away. A short one was not at fault: the thread
    /// waited for the interpreter.
    pub(crate) fn record_retaken(&self, took: Duration) {
        self.record(took);
        if took.as_micros() > u128::from(INLINE_MOST >> 4) {
            self.sentence.store(SENTENCE, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_micros(20);
    const SLOW: Duration = Duration::from_millis(50);

    fn after(runs: &[(usize, Duration)]) -> RouteHistory {
        let history = RouteHistory::new(None);
        for (count, took) in runs {
            for _ in 0..*count {
                history.record(*took);
            }
        }
        history
    }

    #[test]
    fn a_new_route_is_on_probation() {
        assert_eq!(RouteHistory::new(None).lane(), Lane::Probation);
        assert_eq!(after(&[(PROBATION as usize - 1, FAST)]).lane(), Lane::Probation);
    }

    #[test]
    fn a_fast_route_runs_inline_and_a_blocking_one_on_workers() {
        assert_eq!(after(&[(8, FAST)]).lane(), Lane::Inline);
        assert_eq!(after(&[(1, SLOW)]).lane(), Lane::Worker);
        assert_eq!(after(&[(8, Duration::from_millis(1))]).lane(), Lane::Worker);
    }

    #[test]
    fn one_slow_run_sends_a_fast_route_away_and_only_many_fast_ones_bring_it_back() {
        assert_eq!(after(&[(100, FAST), (1, SLOW)]).lane(), Lane::Worker);
        assert_eq!(after(&[(100, FAST), (1, SLOW), (100, FAST)]).lane(), Lane::Worker);
        assert_eq!(after(&[(100, FAST), (1, SLOW), (200, FAST)]).lane(), Lane::Inline);
    }

    #[test]
    fn a_route_with_one_slow_run_in_twenty_stays_on_workers() {
        let history = after(&[(100, FAST)]);
        for _ in 0..20 {
            history.record(SLOW);
            for _ in 0..19 {
                history.record(FAST);
                assert_eq!(history.lane(), Lane::Worker);
            }
        }
    }

    #[test]
    fn an_override_wins_over_what_is_learnt() {
        let history = RouteHistory::new(Some(true));
        history.record(SLOW);
        assert_eq!(history.lane(), Lane::Inline);
        let history = RouteHistory::new(Some(false));
        history.record(FAST);
        assert_eq!(history.lane(), Lane::Worker);
    }

    #[test]
    fn a_route_that_lost_the_reactor_is_sent_away_only_if_it_was_slow_itself() {
        let history = after(&[(100, FAST)]);
        history.record_retaken(FAST);
        assert_eq!(history.lane(), Lane::Inline);
        history.record_retaken(Duration::from_millis(2));
        assert_eq!(history.lane(), Lane::Worker);
    }

    #[test]
    fn a_route_that_holds_a_leader_is_not_run_inline_a_second_time() {
        for history in [after(&[(20, FAST)]), RouteHistory::new(Some(true))] {
            history.starts_inline();
            assert_ne!(history.lane(), Lane::Inline);
            history.ends_inline();
            assert_eq!(history.lane(), Lane::Inline);
        }
    }
}
