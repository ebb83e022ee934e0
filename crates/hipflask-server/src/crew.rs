//! The processes that accept from the same sockets: how many connections each has, so that they come out even, and
//! whether each still turns.
//!
//! The kernel wakes the process that has waited longest for a connection, but whoever runs at that moment takes what has
//! come since: on few cores that is always the same one. So each process writes down how many connections it has, in
//! words that all share. One that is ahead **stands aside** for a moment and rings the bell of the one that is behind.
//!
//! Nobody relies on that being heard. Who has the fewest connections never stands aside; who does is back after
//! [`ASIDE`], and if a connection waits then, takes it, and asks the one that did not come no more until that one has
//! given a sign of life. So a process that hangs, is stopped or was killed costs one connection that time, once.
//!
//! The same bell serves to find out whether a process turns at all ([`Crew::late`]): a process that has nothing to do
//! sleeps, so its silence alone says nothing.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, SeqCst};
use std::time::{Duration, Instant};

use crate::sys::{Bell, SharedWords};

/// How long a process stands aside, at most: longer than it takes to wake another one, even on a busy machine, and
/// shorter than anybody notices.
pub(crate) const ASIDE: Duration = Duration::from_millis(5);
/// So many connections more than another process one may have before it stands aside: two, so that two requests at the
/// same moment do not send each other back and forth.
const AHEAD: usize = 2;
/// And a sixteenth of those that the other has: where there are thousands, nobody sees the difference, and each standing
/// aside costs four system calls.
const SHARE: usize = 16;

/// Words of a place: a cache line of its own.
const PLACE: usize = 8;
/// Who has it; 0 if nobody.
const PID: usize = 0;
/// Open connections and one; 0 while it does not accept.
const OPEN: usize = 1;
/// Signs of life. They go on when another process takes the place.
const SIGNS: usize = 2;
/// Since when it is asked for one, in nanoseconds; 0 if it is not.
const ASKED: usize = 3;
/// It was called to accept, and has not come yet.
const CALLED: usize = 4;

/// Places of processes that accept from the same sockets. Made before they are forked.
#[derive(Debug)]
pub struct Crew {
    shared: SharedWords,
    bells: Vec<Bell>,
    /// The beginning of all times; the same in every process, since the clock is the machine's.
    epoch: Instant,
}

impl Crew {
    /// Room for so many processes; further ones do without.
    ///
    /// # Errors
    ///
    /// There is not enough memory, or no descriptor.
    pub fn new(places: usize) -> io::Result<Crew> {
        let places = places.clamp(1, 4096);
        Ok(Crew {
            shared: SharedWords::new(places * PLACE)?,
            bells: (0..places).map(|_| Bell::new()).collect::<io::Result<_>>()?,
            epoch: Instant::now(),
        })
    }

    fn word(&self, place: usize, which: usize) -> Option<&AtomicU64> {
        self.shared.words().get(place * PLACE + which)
    }

    fn read(&self, place: usize, which: usize) -> u64 {
        self.word(place, which).map_or(0, |word| word.load(SeqCst))
    }

    fn write(&self, place: usize, which: usize, value: u64) {
        if let Some(word) = self.word(place, which) {
            word.store(value, SeqCst);
        }
    }

    fn ring(&self, place: usize) {
        if let Some(bell) = self.bells.get(place) {
            bell.ring();
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// Gives a sign of life; whether somebody has called.
    fn give_sign(&self, place: usize) -> bool {
        self.write(place, ASKED, 0);
        if let Some(word) = self.word(place, SIGNS) {
            word.fetch_add(1, SeqCst);
        }
        self.word(place, CALLED).is_some_and(|called| called.swap(0, SeqCst) != 0)
    }

    fn leave(&self, place: usize) {
        self.write(place, OPEN, 0);
        self.write(place, ASKED, 0);
        self.write(place, CALLED, 0);
        self.write(place, PID, 0);
    }

    /// Frees the place of a process that has ended.
    pub fn forget(&self, pid: u32) {
        for place in 0..self.bells.len() {
            if self.read(place, PID) == u64::from(pid) {
                self.leave(place);
            }
        }
    }

    /// Asks each process for a sign of life, and gives those that were asked before and have not given one since: number,
    /// and how long they have been silent.
    pub fn silent(&self) -> Vec<(u32, Duration)> {
        let now = self.now();
        let mut silent = Vec::new();
        for place in 0..self.bells.len() {
            let pid = self.read(place, PID);
            if pid == 0 {
                continue;
            }
            let Some(asked) = self.word(place, ASKED) else { continue };
            match asked.compare_exchange(0, now, AcqRel, SeqCst) {
                Ok(_) => self.ring(place),
                Err(since) => {
                    let silence = Duration::from_nanos(now.saturating_sub(since));
                    silent.push((u32::try_from(pid).unwrap_or(0), silence));
                }
            }
        }
        silent
    }

    /// Processes that were asked by [`Crew::silent`] so long ago and have not given a sign since.
    pub fn late(&self, most: Duration) -> Vec<(u32, Duration)> {
        let mut silent = self.silent();
        silent.retain(|(_, silence)| *silence >= most);
        silent
    }

    /// How many processes have a place.
    pub fn len(&self) -> usize {
        (0..self.bells.len()).filter(|place| self.read(*place, PID) != 0).count()
    }

    /// Whether nobody has a place.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A process' place. Dropping it makes room for another one.
#[derive(Debug)]
pub(crate) struct Place {
    crew: Arc<Crew>,
    at: usize,
    pid: u32,
    /// Who was called last, and its signs of life then.
    called: Option<(usize, u64)>,
    /// Those who did not come, with their signs of life then.
    deaf: Vec<(usize, u64)>,
}

impl Place {
    /// Takes a place for this process; `None` if all are taken.
    pub(crate) fn take(crew: &Arc<Crew>) -> Option<Box<Place>> {
        let pid = std::process::id();
        let at = (0..crew.bells.len()).find(|place| {
            let word = crew.word(*place, PID);
            word.is_some_and(|word| word.compare_exchange(0, u64::from(pid), AcqRel, SeqCst).is_ok())
        })?;
        crew.give_sign(at);
        if let Some(bell) = crew.bells.get(at) {
            // What rang for the one before.
            bell.quiet();
        }
        Some(Box::new(Place { crew: Arc::clone(crew), at, pid, called: None, deaf: Vec::new() }))
    }

    /// What the poller listens to.
    pub(crate) fn bell(&self) -> Option<RawFd> {
        self.crew.bells.get(self.at).map(Bell::as_raw_fd)
    }

    /// Writes down how many connections are open; `None` while none is accepted.
    pub(crate) fn show(&self, open: Option<usize>) {
        if let Some(word) = self.crew.word(self.at, OPEN) {
            word.store(open.map_or(0, |open| open as u64 + 1), Relaxed);
        }
    }

    /// The bell has rung; whether that was a call to accept, and no mere question.
    pub(crate) fn answer(&self) -> bool {
        if let Some(bell) = self.crew.bells.get(self.at) {
            bell.quiet();
        }
        self.crew.give_sign(self.at)
    }

    /// How many connections a process that has so many may accept; none if it is ahead of another one, which is called
    /// then.
    pub(crate) fn share(&mut self, open: usize) -> usize {
        let crew = &self.crew;
        if !self.deaf.is_empty() {
            self.deaf.retain(|(place, signs)| crew.read(*place, SIGNS) == *signs);
        }
        let others = (0..crew.bells.len()).filter(|place| *place != self.at);
        let least = others
            .filter_map(|place| {
                let theirs = crew.word(place, OPEN)?.load(Relaxed).checked_sub(1)?;
                let is_deaf = self.deaf.iter().any(|(deaf, _)| *deaf == place);
                (!is_deaf).then_some((usize::try_from(theirs).unwrap_or(usize::MAX), place))
            })
            .min();
        let Some((least, place)) = least else { return usize::MAX };
        let most = least.saturating_add(AHEAD + least / SHARE);
        if open >= most {
            self.called = Some((place, crew.read(place, SIGNS)));
            if crew.word(place, CALLED).is_some_and(|called| called.swap(1, SeqCst) == 0) {
                crew.ring(place);
            }
        }
        most.saturating_sub(open)
    }

    /// Nobody has taken what waited.
    pub(crate) fn was_not_heard(&mut self) {
        if let Some((place, signs)) = self.called.take()
            && self.crew.read(place, SIGNS) == signs
        {
            self.deaf.push((place, signs));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Not in a copy of the process: the place is its parent's.
        if self.pid == std::process::id() {
            self.crew.leave(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Arc<Crew>, Box<Place>, Box<Place>) {
        let crew = Arc::new(Crew::new(2).unwrap());
        let (one, two) = (Place::take(&crew).unwrap(), Place::take(&crew).unwrap());
        one.show(Some(0));
        two.show(Some(0));
        (crew, one, two)
    }

    #[test]
    fn who_is_ahead_stands_aside_and_who_is_behind_never_does() {
        let (_, mut one, mut two) = two();
        for (mine, theirs, share) in [
            (0, 0, 2),
            (1, 0, 1),
            (2, 0, 0),
            (3, 0, 0),
            (0, 3, 5),
            (3, 3, 2),
            (5, 3, 0),
            (1000, 1000, 64),
            (1063, 1000, 1),
            (1064, 1000, 0),
        ] {
            one.show(Some(mine));
            two.show(Some(theirs));
            assert_eq!(one.share(mine), share, "{mine} {theirs}");
            assert!(mine > theirs || one.share(mine) > 0);
            assert!(two.share(theirs) > 0 || theirs > mine);
        }
    }

    #[test]
    fn who_does_not_accept_is_not_waited_for() {
        let (crew, mut one, two) = two();
        one.show(Some(9));
        assert_eq!(one.share(9), 0);
        two.show(None);
        assert_eq!(one.share(9), usize::MAX);
        two.show(Some(0));
        assert_eq!(one.share(9), 0);
        drop(two);
        assert_eq!(one.share(9), usize::MAX);
        assert_eq!(crew.len(), 1);
    }

    #[test]
    fn who_does_not_come_is_not_waited_for_until_it_gives_a_sign() {
        let (_, mut one, two) = two();
        assert_eq!(one.share(9), 0);
        one.was_not_heard();
        assert_eq!(one.share(9), usize::MAX);
        assert!(two.answer());
        assert!(!two.answer());
        assert_eq!(one.share(9), 0);
        assert!(two.answer());
        // It came, and others were faster.
        one.was_not_heard();
        assert_eq!(one.share(9), 0);
    }

    #[test]
    fn the_place_of_one_that_was_killed_is_free_and_its_successor_is_heard() {
        let (crew, mut one, two) = two();
        assert!(Place::take(&crew).is_none());
        assert_eq!(one.share(9), 0);
        one.was_not_heard();
        std::mem::forget(two);
        crew.leave(1);
        let next = Place::take(&crew).unwrap();
        next.show(Some(0));
        assert_eq!(one.share(9), 0);
        crew.forget(std::process::id());
        assert!(crew.is_empty());
    }

    #[test]
    fn only_who_was_asked_can_be_silent() {
        let (crew, one, two) = two();
        assert_eq!(crew.silent(), []);
        assert_eq!(crew.silent().len(), 2);
        one.answer();
        let silent = crew.late(Duration::ZERO);
        assert_eq!(silent.len(), 1);
        assert_eq!(crew.late(Duration::from_secs(3600)), []);
        two.answer();
        // Asked anew by the looks before.
        one.answer();
        assert_eq!(crew.silent(), []);
    }
}
