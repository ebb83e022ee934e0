//! Who owns a reactor: one word, changed by one compare-and-swap.
//!
//! The word is `sequence | IN_CALL`. The argument that the reactor has exactly one owner:
//!
//! - Outside a call the owner is the thread that holds the [`Lead`]. There is one, it is not `Clone`, and every way to
//!   the reactor goes through it.
//! - For a call, [`Lead::step_away`] turns it into an [`Away`], through which the reactor cannot be reached, and
//!   publishes `sequence | IN_CALL` under a sequence never used before. From there the reactor has no owner, and two
//!   swaps compete for it, both from that same value: [`Away::back`] and [`Seat::retake`]. A value occurs once, so at
//!   most one of them succeeds, and only that one yields a new `Lead`.
//! - The swap that succeeds reads (acquires) what the last owner wrote (released by its store).
//!
//! A thread that loses a `Lead` by a panic leaves the word as if it were in a call without end: the watchdog gives the
//! reactor to another.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

const IN_CALL: u64 = 1;
const STEP: u64 = 2;

/// The word by itself; see the module's text.
pub(crate) struct Word(AtomicU64);

/// A value of the word, as another thread saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen(u64);

impl Seen {
    /// Whether the owner was in a call.
    pub(crate) fn in_call(self) -> bool {
        self.0 & IN_CALL != 0
    }
}

impl Word {
    pub(crate) fn new() -> Word {
        Word(AtomicU64::new(0))
    }

    /// Gives ownership up for a call. Only the owner may, with its own sequence; returns the new one.
    ///
    /// Sequentially consistent, since the owner looks next whether the watchdog sleeps, and the watchdog, before it
    /// sleeps, looks at the word.
    fn enter(&self, sequence: u64) -> u64 {
        let sequence = sequence.wrapping_add(STEP);
        self.0.store(sequence | IN_CALL, Ordering::SeqCst);
        sequence
    }

    /// Takes ownership back after the call; false when somebody else has it.
    fn leave(&self, sequence: u64) -> bool {
        self.0.compare_exchange(sequence | IN_CALL, sequence, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The word as it is now.
    pub(crate) fn seen(&self) -> Seen {
        Seen(self.0.load(Ordering::SeqCst))
    }

    /// Takes ownership from a thread still in the call that was seen; the new owner's sequence.
    fn retake(&self, seen: Seen) -> Option<u64> {
        if !seen.in_call() {
            return None;
        }
        let sequence = (seen.0 & !IN_CALL).wrapping_add(STEP);
        self.0
            .compare_exchange(seen.0, sequence, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
            .then_some(sequence)
    }
}

/// Where a reactor sits; shared by all its threads.
pub(crate) struct Seat<T> {
    word: Word,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through the one `Lead`, which moves between threads: `T: Send` is enough.
unsafe impl<T: Send> Sync for Seat<T> {}

impl<T> Seat<T> {
    /// Seats a reactor; the first owner gets the `Lead`.
    pub(crate) fn new(value: T) -> (Arc<Seat<T>>, Lead<T>) {
        let seat = Arc::new(Seat { word: Word::new(), value: UnsafeCell::new(value) });
        let lead = Lead { seat: Arc::clone(&seat), sequence: 0 };
        (seat, lead)
    }

    /// The word as it is now.
    pub(crate) fn seen(&self) -> Seen {
        self.word.seen()
    }

    /// Takes the reactor from an owner still in the call that was seen.
    pub(crate) fn retake(self: &Arc<Self>, seen: Seen) -> Option<Lead<T>> {
        let sequence = self.word.retake(seen)?;
        Some(Lead { seat: Arc::clone(self), sequence })
    }
}

/// The ownership of a reactor.
pub(crate) struct Lead<T> {
    seat: Arc<Seat<T>>,
    sequence: u64,
}

impl<T> Lead<T> {
    /// Gives the reactor up for a call; whoever is quicker, this thread coming back or the watchdog, has it next.
    pub(crate) fn step_away(self) -> Away<T> {
        let sequence = self.seat.word.enter(self.sequence);
        let lead = std::mem::ManuallyDrop::new(self);
        // SAFETY: `lead` is never dropped nor used again, so its `Arc` is moved, not doubled.
        let seat = unsafe { std::ptr::read(&raw const lead.seat) };
        Away { seat, sequence }
    }
}

impl<T> Deref for Lead<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this is the one `Lead` (see the module's text), and it is borrowed.
        unsafe { &*self.seat.value.get() }
    }
}

impl<T> DerefMut for Lead<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the one `Lead` (see the module's text), and it is borrowed mutably.
        unsafe { &mut *self.seat.value.get() }
    }
}

impl<T> Drop for Lead<T> {
    fn drop(&mut self) {
        self.seat.word.enter(self.sequence);
    }
}

/// A former owner in a call.
pub(crate) struct Away<T> {
    seat: Arc<Seat<T>>,
    sequence: u64,
}

impl<T> Away<T> {
    /// Comes back from the call; `None` when the reactor has been given to another thread.
    pub(crate) fn back(self) -> Option<Lead<T>> {
        let Away { seat, sequence } = self;
        if seat.word.leave(sequence) { Some(Lead { seat, sequence }) } else { None }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_owner_that_comes_back_in_time_keeps_the_reactor() {
        let (seat, lead) = Seat::new(1);
        let seen_before = seat.seen();
        let away = lead.step_away();
        assert!(seat.seen().in_call());
        let mut lead = away.back().expect("nobody retook it");
        *lead += 1;
        assert!(!seat.seen().in_call());
        assert_ne!(seen_before, seat.seen(), "no value occurs twice");
    }

    #[test]
    fn an_owner_that_comes_back_late_finds_the_reactor_gone() {
        let (seat, lead) = Seat::new(1);
        let away = lead.step_away();
        let mut thief = seat.retake(seat.seen()).expect("in a call");
        *thief += 1;
        assert!(away.back().is_none());
        assert_eq!(*thief, 2);
    }

    #[test]
    fn a_reactor_outside_a_call_cannot_be_retaken() {
        let (seat, lead) = Seat::new(());
        assert!(seat.retake(seat.seen()).is_none());
        let away = lead.step_away();
        let old = seat.seen();
        let lead = away.back();
        assert!(seat.retake(old).is_none());
        drop(lead);
    }

    #[test]
    fn a_reactor_whose_owner_panicked_can_be_retaken() {
        let (seat, lead) = Seat::new(());
        let died = std::thread::spawn(move || {
            let _lead = lead;
            panic!("expected by this test");
        });
        assert!(died.join().is_err());
        assert!(seat.retake(seat.seen()).is_some());
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    /// A leader that steps away twice, and a watchdog that tries to retake whatever it sees: loom explores every
    /// interleaving and fails on any two threads inside the cell at once, or on a write not seen by the next owner.
    #[test]
    fn exactly_one_thread_owns_the_reactor() {
        loom::model(|| {
            let shared = Arc::new((Word::new(), UnsafeCell::new(0u32)));
            let touch = |shared: &(Word, UnsafeCell<u32>)| shared.1.with_mut(|value| unsafe { *value += 1 });

            let watched = Arc::clone(&shared);
            let watchdog = thread::spawn(move || {
                for _ in 0..2 {
                    if let Some(mut sequence) = watched.0.retake(watched.0.seen()) {
                        watched.1.with_mut(|value| unsafe { *value += 1 });
                        sequence = watched.0.enter(sequence);
                        if watched.0.leave(sequence) {
                            watched.1.with_mut(|value| unsafe { *value += 1 });
                        }
                        return;
                    }
                }
            });

            let mut sequence = 0;
            for _ in 0..2 {
                touch(&shared);
                sequence = shared.0.enter(sequence);
                if !shared.0.leave(sequence) {
                    break;
                }
            }
            drop(watchdog.join());
        });
    }
}
