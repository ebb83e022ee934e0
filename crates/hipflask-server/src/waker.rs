//! How other threads tell the leader that there is something to do.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::locked;
use crate::sys::Bell;
use crate::task::Work;

/// Wakes the leader; shared by the engine and by whoever feeds a connection from outside.
pub(crate) struct Waker {
    bell: Bell,
    /// The leader waits in the poller and must be woken.
    asleep: AtomicBool,
    /// There is something in an inbox.
    full: AtomicBool,
    /// Connections whose outlets have changed, each at most once.
    tokens: Mutex<Vec<u64>>,
    /// Work from outside.
    work: Mutex<Vec<Work>>,
}

impl Waker {
    pub(crate) fn new(bell: Bell) -> Waker {
        Waker {
            bell,
            asleep: AtomicBool::new(false),
            full: AtomicBool::new(false),
            tokens: Mutex::new(Vec::new()),
            work: Mutex::new(Vec::new()),
        }
    }

    /// Ends the leader's wait, now or the next one.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    /// Makes the bell silent again.
    pub(crate) fn quiet(&self) {
        self.bell.quiet();
    }

    /// Lets the leader look into its inboxes. Many calls while it is awake ring once at most.
    pub(crate) fn call(&self) {
        self.full.store(true, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.bell.ring();
        }
    }

    /// Lets the leader look into its inboxes when it does anyway.
    pub(crate) fn fill(&self) {
        self.full.store(true, Ordering::SeqCst);
    }

    /// Lets the leader look after a connection.
    pub(crate) fn look_after(&self, token: u64) {
        locked(&self.tokens).push(token);
        self.call();
    }

    /// Queues work for the engine.
    pub(crate) fn run(&self, work: Work) {
        locked(&self.work).push(work);
        self.call();
    }

    /// The work that has come since the last time.
    pub(crate) fn take_work(&self, into: &mut impl Extend<Work>) {
        into.extend(locked(&self.work).drain(..));
    }

    /// Whether something has come that nobody has looked at.
    pub(crate) fn has_call(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    /// Whether the inboxes hold something; cheap. From now on new things are told anew.
    pub(crate) fn take_call(&self) -> bool {
        self.full.load(Ordering::Acquire) && self.full.swap(false, Ordering::SeqCst)
    }

    /// The connections to look after since the last time.
    pub(crate) fn take_tokens(&self, into: &mut impl Extend<u64>) {
        into.extend(locked(&self.tokens).drain(..));
    }

    /// Tells that the leader is about to wait; false if something has come meanwhile.
    pub(crate) fn sleeps(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        !self.full.load(Ordering::SeqCst)
    }

    /// Tells that the leader has come back.
    pub(crate) fn woke(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}
