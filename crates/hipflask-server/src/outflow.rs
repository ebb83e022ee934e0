//! A connection's end of an [`Outlet`](crate::Outlet): what is on its way out, and the protocol of an upgraded one.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hipflask_http::Coding;
use hipflask_http::response::BodyFraming;

use crate::body::{BodySource, Lender};
use crate::engine::Pump;
use crate::metrics::{Counter, Gauge, Running, Stats};
use crate::outlet::{Delegate, Outlet, Shared, Slice, Stage, Upgraded};
use crate::waker::Waker;

/// Room kept for the pieces of a quiet stream.
const KEEP: usize = 8;

/// What a connection holds while an outlet feeds it. Dropping it tells the outlet that it is over.
pub(crate) struct Outflow {
    shared: Arc<Shared>,
    going: VecDeque<Slice>,
    pub(crate) stage: Stage,
    /// Present for an upgraded connection.
    upgrade: Option<Upgrade>,
    /// What is to make the pieces, until a worker has it.
    pump: Option<Box<Pump>>,
    /// Whose end of the request's body the source may be reading.
    pub(crate) lender: Option<Lender>,
    heartbeat: Option<Duration>,
    /// When it is cut off.
    pub(crate) deadline: Option<Instant>,
    is_timed: bool,
    /// When bytes went out last.
    last: Instant,
    complete: bool,
    /// Counts it as open.
    running: Option<Running>,
}

struct Upgrade {
    protocol: Box<dyn Upgraded>,
    outlet: Outlet,
    /// When the protocol's timer rings; not known before it was asked.
    tick: Option<Instant>,
    asked: bool,
    /// The protocol knows that the server stops.
    told: bool,
    paused: bool,
    /// There are bytes that the protocol has not seen.
    fresh: bool,
}

impl Outflow {
    pub(crate) fn new(outlet: &Outlet, protocol: Option<Box<dyn Upgraded>>) -> Outflow {
        let upgrade = protocol.map(|protocol| Upgrade {
            protocol,
            outlet: outlet.clone(),
            tick: None,
            asked: false,
            told: false,
            paused: false,
            fresh: true,
        });
        Outflow {
            shared: Arc::clone(outlet.shared()),
            going: VecDeque::new(),
            stage: Stage::Open,
            upgrade,
            pump: None,
            lender: None,
            heartbeat: None,
            deadline: None,
            is_timed: false,
            last: Instant::now(),
            complete: false,
            running: None,
        }
    }

    /// Has it counted for as long as it is open.
    pub(crate) fn count(&mut self, stats: &Arc<Stats>) {
        stats.count(Counter::Outlets);
        let what = if self.is_upgraded() { Gauge::WebSockets } else { Gauge::Streams };
        self.running = Some(stats.open(what));
    }

    /// Has the deadline of the request hold for the body, too.
    pub(crate) fn set_timed(&mut self) {
        self.is_timed = true;
    }

    pub(crate) fn is_timed(&self) -> bool {
        self.is_timed
    }

    /// Has a source make the pieces.
    pub(crate) fn set_pump(&mut self, source: Box<dyn BodySource>, outlet: &Outlet) {
        self.pump = Some(Box::new(Pump { source, outlet: outlet.clone(), held: None }));
    }

    /// Has what goes out compressed, by workers. False if it is over.
    pub(crate) fn compress(&self, coding: Coding, framing: BodyFraming, delegate: Delegate) -> bool {
        self.shared.compress(coding, framing, delegate)
    }

    /// What a worker is to be given.
    pub(crate) fn take_pump(&mut self) -> Option<Box<Pump>> {
        self.pump.take()
    }

    /// Tells the outlet where its connection is.
    pub(crate) fn connect(&self, waker: &Arc<Waker>, token: u64) {
        self.shared.connect(waker, token);
    }

    pub(crate) fn is_upgraded(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Whether pieces wait that have not been looked at.
    pub(crate) fn has_news(&self) -> bool {
        self.shared.has_queued()
    }

    /// What is on its way and has met a client that takes no more.
    pub(crate) fn going(&self) -> &VecDeque<Slice> {
        &self.going
    }

    /// Takes over what was given since the last look. Detached.
    pub(crate) fn look(&mut self) {
        let look = self.shared.look(&mut self.going);
        self.stage = look.stage;
        self.heartbeat = look.heartbeat;
        if look.owes_call {
            self.shared.took(0);
        }
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.paused = look.paused;
            upgrade.fresh |= look.resumed;
        }
    }

    /// Counts out what the kernel has taken. Detached.
    pub(crate) fn took(&mut self, count: usize, now: Instant) {
        self.last = now;
        let mut left = count;
        while left > 0
            && let Some(slice) = self.going.front_mut()
        {
            let length = slice.length();
            if left < length {
                slice.skip(left);
                break;
            }
            left -= length;
            self.going.pop_front();
        }
        if self.going.is_empty() && self.going.capacity() > KEEP {
            self.going = VecDeque::new();
        }
        self.shared.took(count);
    }

    /// The server stops. Detached.
    pub(crate) fn say_farewell(&mut self) {
        if let Some(upgrade) = &mut self.upgrade
            && !std::mem::replace(&mut upgrade.told, true)
        {
            let Upgrade { protocol, outlet, .. } = upgrade;
            drop(catch_unwind(AssertUnwindSafe(|| protocol.stops(outlet))));
        }
        self.shared.say_farewell();
    }

    /// All is out.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// When it wants to be looked after though nothing happens.
    pub(crate) fn due(&self) -> Option<Instant> {
        let beat = self.heartbeat.and_then(|every| self.last.checked_add(every));
        let tick = self.upgrade.as_ref().and_then(|upgrade| upgrade.tick);
        beat.into_iter().chain(tick).min()
    }

    /// Does what is due by now. Detached.
    pub(crate) fn keep_time(&mut self, now: Instant) {
        if self.heartbeat.is_some_and(|every| self.last.checked_add(every).is_some_and(|due| due <= now)) {
            self.last = now;
            self.shared.beat();
        }
        if let Some(upgrade) = &mut self.upgrade
            && (!upgrade.asked || upgrade.tick.is_some_and(|tick| tick <= now))
        {
            upgrade.asked = true;
            let Upgrade { protocol, outlet, .. } = upgrade;
            let next = catch_unwind(AssertUnwindSafe(|| protocol.tick(outlet)));
            upgrade.tick = next.unwrap_or(None).and_then(|next| now.checked_add(next));
        }
    }

    /// Whether the protocol takes bytes at the moment.
    pub(crate) fn reads(&self) -> bool {
        self.stage == Stage::Open && self.upgrade.as_ref().is_some_and(|upgrade| !upgrade.paused)
    }

    /// Whether the protocol has bytes to look at.
    pub(crate) fn is_fresh(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.fresh)
    }

    /// Gives the protocol what has come. Detached. `Err` is what a panic said.
    pub(crate) fn receive(&mut self, input: &mut Vec<u8>) -> std::thread::Result<()> {
        if let Some(Upgrade { protocol, outlet, fresh, .. }) = &mut self.upgrade {
            *fresh = false;
            if !catch_unwind(AssertUnwindSafe(|| protocol.receive(input, outlet)))? {
                outlet.finish();
            }
        }
        Ok(())
    }
}

impl Drop for Outflow {
    fn drop(&mut self) {
        // First: who finds the outlet without a connection finds that the protocol knows.
        if let Some(Upgrade { protocol, .. }) = &mut self.upgrade {
            drop(catch_unwind(AssertUnwindSafe(|| protocol.gone())));
        }
        self.shared.end(self.complete);
    }
}
