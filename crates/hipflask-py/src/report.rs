//! What the server says in the program's log, from a thread of its own.
//!
//! Python's logging needs the interpreter, which the leader must not wait for, and which a view may hold for as long as it
//! likes. So lines are left here. Refusals are what an attacker can cause: of each kind a few are told of one by one in a
//! second, and the rest as a number.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use hipflask_server::{Busy, ConnInfo, Refusal, RefusalKind, Slow};
use pyo3::intern;
use pyo3::prelude::*;

use crate::dispatch::Dispatcher;
use crate::later::Line;
use crate::locked;
use crate::serve::log;

/// Refusals of one kind that are told of one by one in a second. More than ten lines nobody reads.
const LINES: u32 = 10;
/// The second.
const WINDOW: Duration = Duration::from_secs(1);
/// Lines that wait to be written; further ones are counted. At 200 bytes each they take 200 KB.
const WAITING: usize = 1000;
/// How long the end waits for what is still to be said.
const LAST: Duration = Duration::from_secs(1);

/// Asks the engine for the views that run.
type AskBusy = Box<dyn Fn() -> Vec<Busy> + Send>;

/// Something to be said.
enum Report {
    Line(&'static str, String),
    Slow(Box<Slow>),
}

/// Refusals of one kind in the running second.
#[derive(Clone, Copy, Default)]
struct Window {
    since: Option<Instant>,
    told: u32,
    /// Not told of.
    more: u64,
    reason: &'static str,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Report>,
    windows: Vec<Window>,
    /// Lines that had no room.
    lost: u64,
    is_alive: bool,
    is_ended: bool,
}

/// Says things in the log.
#[derive(Default)]
pub(crate) struct Reporter {
    state: Mutex<State>,
    changed: Condvar,
    /// Asks the engine for the views that run.
    busy: Mutex<Option<AskBusy>>,
    /// Where requests that are answered later are.
    later: OnceLock<(Arc<Dispatcher>, Arc<Line>)>,
}

impl Reporter {
    pub(crate) fn new(dispatcher: &Arc<Dispatcher>, line: &Arc<Line>) -> Arc<Self> {
        let reporter = Self::default();
        let _ = reporter.later.set((Arc::clone(dispatcher), Arc::clone(line)));
        Arc::new(reporter)
    }

    /// Says how the engine is asked for the views that run; `None` when it has ended.
    pub(crate) fn ask_by(&self, busy: Option<AskBusy>) {
        let before = std::mem::replace(&mut *locked(&self.busy), busy);
        drop(before);
    }

    /// Logs a line. Never waits.
    pub(crate) fn line(self: &Arc<Self>, level: &'static str, line: String) {
        self.add(Report::Line(level, line));
    }

    /// Logs that a view runs for long, or was overtaken by its deadline. Never waits.
    pub(crate) fn slow(self: &Arc<Self>, slow: &Slow) {
        self.add(Report::Slow(Box::new(slow.clone())));
    }

    /// Logs a refusal, or counts it. Never waits.
    pub(crate) fn refused(self: &Arc<Self>, refusal: &Refusal, conn: &ConnInfo) {
        if matches!(refusal.kind, RefusalKind::Deadline) {
            // Told of with the stack of its thread.
            return;
        }
        let now = Instant::now();
        {
            let mut state = locked(&self.state);
            if state.windows.is_empty() {
                state.windows.resize(RefusalKind::ALL.len(), Window::default());
            }
            let Some(window) = state.windows.get_mut(refusal.kind as usize) else { return };
            let is_over = window.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW);
            if is_over && window.more == 0 {
                (window.since, window.told) = (Some(now), 0);
            }
            if window.told >= LINES {
                window.more += 1;
                window.reason = refusal.reason;
                if window.more == 1 {
                    // Somebody has to tell the number when the second is over.
                    drop(state);
                    self.wake();
                }
                return;
            }
            window.told += 1;
        }
        let (peer, reason, kind) = (conn.client(), refusal.reason, refusal.kind.word());
        self.line(
            "warning",
            match refusal.status {
                0 => format!("{peer}: closed: {reason} ({kind})"),
                status => format!("{peer}: refused with {status}: {reason} ({kind})"),
            },
        );
    }

    fn add(self: &Arc<Self>, report: Report) {
        let mut state = locked(&self.state);
        if state.waiting.len() >= WAITING {
            state.lost += 1;
            return;
        }
        state.waiting.push_back(report);
        drop(state);
        self.wake();
    }

    /// Has the thread look; starts it if there is none.
    fn wake(self: &Arc<Self>) {
        let mut state = locked(&self.state);
        if state.is_ended {
            return;
        }
        if !state.is_alive {
            let this = Arc::clone(self);
            let started =
                thread::Builder::new().name("hipflask-report".to_owned()).spawn(move || this.live());
            state.is_alive = started.is_ok();
        }
        drop(state);
        self.changed.notify_all();
    }

    fn live(&self) {
        loop {
            let (reports, is_ended) = self.next();
            if !reports.is_empty() {
                Python::attach(|py| {
                    for report in reports {
                        self.say(py, report);
                    }
                });
            } else if is_ended {
                break;
            }
        }
        locked(&self.state).is_alive = false;
        self.changed.notify_all();
    }

    /// Waits for what is to be said. At the end nothing waits any longer.
    fn next(&self) -> (VecDeque<Report>, bool) {
        let mut state = locked(&self.state);
        loop {
            let is_ended = state.is_ended;
            let mut reports = std::mem::take(&mut state.waiting);
            if state.lost > 0 {
                let lost = std::mem::take(&mut state.lost);
                reports.push_back(Report::Line("warning", format!("{lost} lines more had no room here")));
            }
            let now = Instant::now();
            let mut next: Option<Instant> = None;
            for (kind, window) in RefusalKind::ALL.iter().zip(&mut state.windows) {
                let Some(end) = window.since.map(|since| since + WINDOW).filter(|_| window.more > 0) else {
                    continue;
                };
                if end > now && !is_ended {
                    next = Some(next.map_or(end, |next| next.min(end)));
                    continue;
                }
                let (more, reason) = (std::mem::take(&mut window.more), window.reason);
                (window.since, window.told) = (Some(now), 0);
                let line = format!("and {more} more in a second: {reason} ({})", kind.word());
                reports.push_back(Report::Line("warning", line));
            }
            if !reports.is_empty() || is_ended {
                return (reports, is_ended);
            }
            state = match next {
                None => self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
                Some(next) => {
                    let left = next.saturating_duration_since(now);
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
                }
            };
        }
    }

    fn say(&self, py: Python<'_>, report: Report) {
        match report {
            Report::Line(level, line) => log(py, level, &line),
            Report::Slow(slow) => {
                if let Err(error) = self.say_slow(py, &slow) {
                    error.write_unraisable(py, None);
                }
                if slow.busy.is_none()
                    && slow.answered == Some(504)
                    && let Some((_, line)) = self.later.get()
                {
                    // What is awaited for it is cancelled, once it has been told where it was.
                    py.detach(|| line.gone(slow.token));
                }
            }
        }
    }

    fn say_slow(&self, py: Python<'_>, slow: &Slow) -> PyResult<()> {
        let request = String::from_utf8_lossy(&slow.request);
        let thread = match &slow.busy {
            Some(busy) => {
                let runs = |other: &Busy| (other.thread, other.call) == (busy.thread, busy.call);
                // Not attached while another thread's lock may be waited for.
                let still = py.detach(|| locked(&self.busy).as_ref().map(|ask| ask().iter().any(runs)));
                Some((&*busy.name, (still != Some(false)).then_some(busy.thread)))
            }
            None => None,
        };
        let line = match self.later.get() {
            Some((dispatcher, _)) if slow.busy.is_none() => dispatcher.later_line(py),
            _ => None,
        };
        py.import(intern!(py, "hipflask.stacks"))?
            .call_method1(
                intern!(py, "tell"),
                (
                    request,
                    slow.route.as_deref(),
                    slow.took.as_secs_f64(),
                    slow.answered,
                    thread,
                    line,
                    slow.token,
                ),
            )
            .map(drop)
    }

    /// Says what is left to be said, and ends. Detached.
    pub(crate) fn end(&self) {
        self.ask_by(None);
        let mut state = locked(&self.state);
        state.is_ended = true;
        self.changed.notify_all();
        let end = Instant::now() + LAST;
        while state.is_alive && Instant::now() < end {
            let waited = self.changed.wait_timeout(state, LAST);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}
