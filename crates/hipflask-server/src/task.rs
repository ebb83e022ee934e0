//! Work that belongs to no request: what the messages of an upgraded connection cause.

use std::fmt;
use std::sync::Arc;

use crate::history::RouteHistory;
use crate::waker::Waker;

/// Something that the engine runs as it runs a view: on the leader if it is fast, on a worker if it blocks.
pub trait Task: Send + Sync {
    /// Does it. Attached, as [`Handler::call`](crate::Handler::call) is.
    fn run(&self);
}

/// A task and how long its kind takes.
pub struct Work {
    /// What to do.
    pub task: Arc<dyn Task>,
    /// Decides where it runs, and learns from it.
    pub history: Arc<RouteHistory>,
}

/// Gives tasks to an engine, from any thread. After the engine has ended they are dropped.
#[derive(Clone)]
pub struct Runner(Arc<Waker>);

impl Runner {
    pub(crate) fn new(waker: &Arc<Waker>) -> Runner {
        Runner(Arc::clone(waker))
    }

    /// Queues a task; the queue has no bound of its own, so give each thing that causes tasks one at a time.
    pub fn run(&self, work: Work) {
        self.0.run(work);
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runner")
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("history", &self.history).finish()
    }
}
