//! The connections' deadlines: a wheel with constant cost for setting, moving and dropping one.
//!
//! An entry is a connection's token in the slot of its tick. A deadline that moves later (the rule: each request moves
//! the idle deadline) leaves its entry where it is, and the entry is put forward when its tick comes; so a request
//! costs a store and no list operation. The deadline itself lives with the connection, see [`Timer`].

use std::time::Duration;

/// How coarse the deadlines are: late by up to this much, never early.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// One turn of the wheel is 51.2 s; later deadlines go round again.
const SLOTS: usize = 1024;
const WORDS: usize = SLOTS / 64;

/// A connection's deadline; both numbers are ticks, 0 for none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timer {
    deadline: u64,
    entry: u64,
}

/// The wheel.
pub(crate) struct Wheel {
    slots: Vec<Vec<u64>>,
    occupied: [u64; WORDS],
    /// The tick up to which slots have been emptied.
    done: u64,
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel { slots: vec![Vec::new(); SLOTS], occupied: [0; WORDS], done: 0 }
    }

    fn insert(&mut self, tick: u64, token: u64) {
        let at = (tick % SLOTS as u64) as usize;
        if let (Some(slot), Some(word)) = (self.slots.get_mut(at), self.occupied.get_mut(at / 64)) {
            slot.push(token);
            *word |= 1 << (at % 64);
        }
    }

    /// Sets a connection's deadline, `now` being the time since the wheel's start.
    pub(crate) fn set(&mut self, timer: &mut Timer, token: u64, deadline: Duration) {
        let tick = ticks(deadline).saturating_add(1).max(self.done + 1);
        timer.deadline = tick;
        if timer.entry == 0 || timer.entry > tick {
            timer.entry = tick.min(self.done + SLOTS as u64 - 1);
            self.insert(timer.entry, token);
        }
    }

    /// Drops a deadline; the entry dies when its tick comes.
    pub(crate) fn clear(timer: &mut Timer) {
        timer.deadline = 0;
    }

    /// Takes the tokens out whose tick has come, in `due`; each must then be asked with [`Wheel::is_due`].
    pub(crate) fn advance(&mut self, now: Duration, due: &mut Vec<u64>) {
        let now = ticks(now);
        if now <= self.done {
            return;
        }
        let steps = (now - self.done).min(SLOTS as u64);
        for step in 1..=steps {
            let at = ((self.done + step) % SLOTS as u64) as usize;
            let (Some(slot), Some(word)) = (self.slots.get_mut(at), self.occupied.get_mut(at / 64)) else {
                continue;
            };
            if *word & 1 << (at % 64) != 0 {
                *word &= !(1 << (at % 64));
                due.append(slot);
                // A burst of connections must not keep its memory for ever.
                slot.shrink_to(64);
            }
        }
        self.done = now;
    }

    /// Whether the deadline of a token from [`Wheel::advance`] has passed; if not, its entry is put forward.
    pub(crate) fn is_due(&mut self, timer: &mut Timer, token: u64) -> bool {
        if timer.entry == 0 || timer.entry > self.done {
            // A leftover of a deadline that has moved; another entry stands for it.
            return false;
        }
        timer.entry = 0;
        if timer.deadline == 0 {
            return false;
        }
        if timer.deadline <= self.done {
            timer.deadline = 0;
            return true;
        }
        timer.entry = timer.deadline.min(self.done + SLOTS as u64 - 1);
        self.insert(timer.entry, token);
        false
    }

    /// How long until the next entry; `None` when there is none.
    pub(crate) fn next(&self, now: Duration) -> Option<Duration> {
        let first = ((self.done + 1) % SLOTS as u64) as usize;
        for step in 0..=WORDS {
            let index = (first / 64 + step) % WORDS;
            let mut word = self.occupied.get(index).copied().unwrap_or(0);
            if step == 0 {
                word &= u64::MAX << (first % 64);
            }
            if word != 0 {
                let at = index * 64 + word.trailing_zeros() as usize;
                let distance = ((at + SLOTS - first) % SLOTS) as u64;
                let when = TICK * u32::try_from(self.done + 1 + distance).unwrap_or(u32::MAX);
                return Some(when.saturating_sub(now));
            }
        }
        None
    }
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() / TICK.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn due(wheel: &mut Wheel, timer: &mut Timer, now: Duration) -> bool {
        let mut out = Vec::new();
        wheel.advance(now, &mut out);
        out.into_iter().any(|token| wheel.is_due(timer, token))
    }

    #[test]
    fn a_deadline_is_never_early_and_late_by_two_ticks_at_most() {
        for deadline in [1, 49, 50, 51, 1000, 51_199, 51_200, 120_000, 500_000] {
            let (mut wheel, mut timer) = (Wheel::new(), Timer::default());
            wheel.set(&mut timer, 7, ms(deadline));
            let mut at = 0;
            while !due(&mut wheel, &mut timer, ms(at)) {
                at += 10;
                assert!(at <= deadline + 100, "late for {deadline}");
            }
            assert!(at >= deadline, "early for {deadline}: {at}");
        }
    }

    #[test]
    fn a_deadline_that_moves_later_is_kept_and_costs_no_new_entry() {
        let (mut wheel, mut timer) = (Wheel::new(), Timer::default());
        for now in 0..100 {
            wheel.set(&mut timer, 7, ms(now * 10 + 1000));
        }
        assert_eq!(wheel.slots.iter().map(Vec::len).sum::<usize>(), 1);
        assert!(!due(&mut wheel, &mut timer, ms(1500)));
        assert!(due(&mut wheel, &mut timer, ms(2200)));
    }

    #[test]
    fn a_deadline_that_moves_earlier_fires_once() {
        let (mut wheel, mut timer) = (Wheel::new(), Timer::default());
        wheel.set(&mut timer, 7, ms(5000));
        wheel.set(&mut timer, 7, ms(500));
        assert!(due(&mut wheel, &mut timer, ms(700)));
        assert!(!due(&mut wheel, &mut timer, ms(6000)));
    }

    #[test]
    fn a_cleared_deadline_does_not_fire() {
        let (mut wheel, mut timer) = (Wheel::new(), Timer::default());
        wheel.set(&mut timer, 7, ms(500));
        Wheel::clear(&mut timer);
        assert!(!due(&mut wheel, &mut timer, ms(1000)));
        assert_eq!(wheel.next(ms(1000)), None);
    }

    #[test]
    fn the_next_entry_is_found_around_the_wheel() {
        let (mut wheel, mut timer) = (Wheel::new(), Timer::default());
        assert_eq!(wheel.next(ms(0)), None);
        let mut out = Vec::new();
        wheel.advance(ms(51_000), &mut out);
        wheel.set(&mut timer, 7, ms(52_000));
        let next = wheel.next(ms(51_000)).unwrap();
        assert!(next >= ms(1000) && next <= ms(1100), "{next:?}");
    }
}
