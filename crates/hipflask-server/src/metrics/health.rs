//! What probes are told: whether the server lives, and whether it can take requests.
//!
//! **Alive** is a server one of whose engines turns. An engine that has nothing to do sleeps, so nobody beats a drum: each
//! probe asks every engine for a sign of life ([`Crew::silent`](crate::Crew::silent)), and the next one sees who has not
//! given it. One of several that does not is no reason to end them all: its supervisor replaces it.
//!
//! **Ready** is a server one of whose processes has loaded the application, turns, has a thread for requests and room in
//! its queue. A queue that is full for a moment is what queues are for.

use std::fmt::Write as _;
use std::time::Duration;

use super::board::{Board, Gauge, Process, State};

/// Why a process cannot take requests.
enum Ill {
    Loads,
    Stops,
    Silent(Duration),
    Stuck(u64),
    Full(Duration),
}

impl Ill {
    fn of(process: &Process, silent: &[(u32, Duration)], patience: Duration) -> Option<Ill> {
        match process.state {
            State::Starting => return Some(Ill::Loads),
            State::Stopping => return Some(Ill::Stops),
            State::Ready => {}
        }
        if let Some((_, silence)) = silent.iter().find(|(pid, _)| u64::from(*pid) == process.pid) {
            return Some(Ill::Silent(*silence));
        }
        let stuck = process.gauge(Gauge::Stuck);
        if stuck > process.gauge(Gauge::StuckMost) {
            return Some(Ill::Stuck(stuck));
        }
        process.full.filter(|full| *full >= patience).map(Ill::Full)
    }

    fn sentence(&self) -> String {
        match self {
            Ill::Loads => "loads the application".to_owned(),
            Ill::Stops => "stops".to_owned(),
            Ill::Silent(silence) => format!("has not turned for {:.0} s", silence.as_secs_f64()),
            Ill::Stuck(count) => format!("has {count} threads that are stuck in views"),
            Ill::Full(time) => format!("has had a full queue for {:.0} s", time.as_secs_f64()),
        }
    }
}

impl Board {
    /// Whether a process can take requests.
    pub fn is_ready(&self) -> bool {
        self.readiness().is_ok()
    }

    /// Whether a process can take requests; if none can, why, for people.
    pub(super) fn readiness(&self) -> Result<(), String> {
        if self.is_draining() {
            return Err("not ready: the server stops\n".to_owned());
        }
        let patience = self.patience();
        let silent = self.crew().late(patience);
        let mut text = "not ready\n".to_owned();
        for process in self.processes() {
            let Some(ill) = Ill::of(&process, &silent, patience) else { return Ok(()) };
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "process {} {}", process.pid, ill.sentence());
        }
        Err(text)
    }

    /// Whether an engine turns, if any has begun, and which do not, for people.
    pub(super) fn health(&self) -> Result<String, String> {
        let silent = self.crew().late(self.patience());
        let lives = silent.is_empty() || silent.len() < self.crew().len();
        let mut text = if lives { "ok\n".to_owned() } else { "not well\n".to_owned() };
        for (pid, silence) in silent {
            // As above.
            let _ = writeln!(text, "process {pid} {}", Ill::Silent(silence).sentence());
        }
        if lives { Ok(text) } else { Err(text) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::Crew;
    use crate::crew::Place;

    fn ready() -> (Board, usize) {
        let board = Board::new(1).unwrap();
        let block = board.claim().unwrap();
        board.set_state(block, State::Ready);
        (board, block)
    }

    #[test]
    fn a_server_that_loads_or_drains_is_not_ready() {
        let board = Board::new(1).unwrap();
        assert_eq!(board.readiness(), Err("not ready\n".to_owned()));
        let block = board.claim().unwrap();
        assert!(board.readiness().unwrap_err().contains("loads the application"));
        board.set_state(block, State::Ready);
        assert_eq!(board.readiness(), Ok(()));
        board.set_draining(true);
        assert!(board.readiness().unwrap_err().contains("stops"));
    }

    #[test]
    fn too_many_stuck_threads_are_not_ready_and_one_process_that_is_suffices() {
        let (board, block) = ready();
        board.gauge(block, Gauge::StuckMost).store(2, Relaxed);
        board.gauge(block, Gauge::Stuck).store(2, Relaxed);
        assert!(board.is_ready());
        board.gauge(block, Gauge::Stuck).store(3, Relaxed);
        assert!(board.readiness().unwrap_err().contains("has 3 threads that are stuck"));
        let other = board.claim().unwrap();
        board.set_state(other, State::Ready);
        assert!(board.is_ready());
    }

    #[test]
    fn a_queue_may_be_full_for_a_while() {
        let (board, block) = ready();
        board.set_full(block, true);
        assert!(board.is_ready());
        board.set_patience(Duration::ZERO);
        assert!(board.readiness().unwrap_err().contains("full queue for 0 s"));
        board.set_full(block, false);
        assert!(board.is_ready());
    }

    #[test]
    fn health_is_that_of_one_engine_that_turns() {
        let crew = Arc::new(Crew::new(2).unwrap());
        let board = Board::of(1, Arc::clone(&crew)).unwrap();
        board.set_patience(Duration::ZERO);
        assert_eq!(board.health(), Ok("ok\n".to_owned()));
        let (one, two) = (Place::take(&crew).unwrap(), Place::take(&crew).unwrap());
        // The first probe asks, and the next ones see.
        assert_eq!(board.health(), Ok("ok\n".to_owned()));
        one.answer();
        let health = board.health().unwrap();
        assert!(health.starts_with("ok\n") && health.contains("has not turned for 0 s"), "{health}");
        assert!(board.health().is_err());
        two.answer();
        one.answer();
        assert!(board.health().is_ok());
    }
}
