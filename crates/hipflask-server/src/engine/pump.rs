//! Sources whose pieces go through an outlet: the connection stays with the leader while a piece is being made.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::body::BodySource;
use crate::exchange::Notice;
use crate::handler::Handler;
use crate::outlet::{Outlet, OutletError, Piece};
use crate::pool::StreamJob;

use super::{Engine, message};

/// With more than this on its way to the client no further piece is asked for.
const AHEAD: usize = 64 * 1024;
/// With less than this it is again.
const AGAIN: usize = 16 * 1024;

/// A source, and where its pieces go.
pub(crate) struct Pump {
    pub(crate) source: Box<dyn BodySource>,
    pub(crate) outlet: Outlet,
    /// A piece that had no room.
    pub(crate) held: Option<Piece>,
}

impl<H: Handler> Engine<H> {
    /// Has a worker ask a source.
    pub(super) fn queue_pump(self: &Arc<Self>, pump: Box<Pump>) {
        if self.pool.stream(StreamJob::Pump(pump)) {
            self.spawn();
        }
    }

    /// Asks a source for pieces until the client takes no more or others wait. Detached, on a worker.
    pub(super) fn pump(self: &Arc<Self>, mut pump: Box<Pump>) {
        loop {
            // Dropped here the source is closed; a body that is not finished counts as broken.
            if !pump.outlet.is_open() {
                return;
            }
            let piece = match pump.held.take() {
                Some(held) => held,
                None => {
                    let mut bytes = Vec::new();
                    let next = catch_unwind(AssertUnwindSafe(|| pump.source.next(&mut bytes)));
                    match next {
                        Ok(Ok(true)) => Piece::from(bytes),
                        Ok(Ok(false)) => {
                            pump.outlet.finish();
                            return;
                        }
                        Ok(Err(_)) => return break_off(&pump.outlet),
                        Err(panic) => {
                            self.notice(&Notice::Panic(message(&*panic)));
                            return break_off(&pump.outlet);
                        }
                    }
                }
            };
            match pump.outlet.send(piece.clone()) {
                Ok(()) => {}
                Err(OutletError::Gone) => return,
                Err(OutletError::Full) => {
                    pump.held = Some(piece);
                    return self.pump_later(pump, 0);
                }
            }
            if pump.outlet.queued() > AHEAD {
                return self.pump_later(pump, AGAIN);
            }
            if self.pool.has_streams() || self.ended.load(Ordering::Relaxed) {
                return self.queue_pump(pump);
            }
        }
    }

    /// Goes on when the client has taken all but so many bytes.
    fn pump_later(self: &Arc<Self>, pump: Box<Pump>, below: usize) {
        let engine = Arc::downgrade(self);
        let outlet = pump.outlet.clone();
        outlet.notify_below(
            below,
            Box::new(move || {
                if let Some(engine) = engine.upgrade() {
                    engine.queue_pump(pump);
                }
            }),
        );
    }
}

/// Cuts the connection once the client has what came before.
fn break_off(outlet: &Outlet) {
    let cut = outlet.clone();
    outlet.notify_below(0, Box::new(move || cut.abort()));
}
