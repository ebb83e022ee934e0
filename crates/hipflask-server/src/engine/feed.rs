//! What the leader does for connections that outlets feed, and for upgraded ones.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::conn::{BATCH, Conn, Filled, Phase, Pushed};
use crate::exchange::Notice;
use crate::handler::Handler;
use crate::history::Lane;
use crate::outlet::Stage;
use crate::reactor::Stopping;
use crate::task::Work;

use super::leader::Flow;
use super::{Engine, Helm, Here, Link, message};

/// What is left to do for the connection.
enum Next {
    /// Wait for an event, a piece, or a timer.
    Park,
    /// Go on with the next step.
    Go,
    Close,
}

impl<H: Handler> Engine<H> {
    /// Sends what is there, and lets an upgraded connection's protocol have what has come.
    pub(super) fn feed(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        here: &mut Here<H>,
    ) -> Flow<H> {
        // Callbacks must not run, nor pieces be dropped, with the interpreter held.
        here.detach(&*self.handler);
        if let Phase::Outlet(flow) = &mut conn.phase
            && let Some(pump) = flow.take_pump()
        {
            self.queue_pump(pump);
        }
        if matches!(&conn.phase, Phase::Outlet(flow) if flow.reads()) {
            lead.equip(&mut conn);
        }
        let stops = lead.stopping != Stopping::No;
        let now = lead.now;
        match self.feed_on(&mut conn, stops, now) {
            Next::Park => {
                lead.park(conn);
                Flow::Next(lead)
            }
            Next::Go => Flow::On(lead, conn),
            Next::Close => {
                if matches!(&conn.phase, Phase::Outlet(flow) if flow.is_upgraded()) {
                    // How a connection with another protocol ends is the protocol's own affair.
                    self.end_outlet(&mut conn);
                }
                self.close(&mut lead, conn);
                Flow::Next(lead)
            }
        }
    }

    fn feed_on(&self, conn: &mut Conn<H::Ticket>, stops: bool, now: Instant) -> Next {
        let Phase::Outlet(flow) = &mut conn.phase else { return Next::Go };
        if stops {
            flow.say_farewell();
        }
        flow.keep_time(now);
        flow.look();
        let stage = flow.stage;
        if stage == Stage::Aborting {
            conn.broken = true;
            return Next::Close;
        }
        let pushed = conn.pour();
        let Phase::Outlet(flow) = &mut conn.phase else { return Next::Go };
        match (pushed, stage) {
            (Pushed::Broken, _) => Next::Close,
            (Pushed::Done, Stage::Finishing) => {
                flow.complete();
                let lender = flow.lender.take();
                if flow.is_upgraded() {
                    // What the client is still saying must not turn our last word into a reset.
                    conn.closing = true;
                    conn.linger = true;
                }
                conn.closing |= stops;
                if let (Some(lender), Some(record)) = (&lender, conn.records.last_mut()) {
                    record.received = lender.received();
                }
                self.end_outlet(conn);
                if let Some(lender) = lender {
                    self.take_back(conn, &lender);
                }
                Next::Go
            }
            (Pushed::Blocked, Stage::Finishing) => Next::Park,
            _ if flow.reads() => self.read_upgraded(conn),
            // What an upgraded client has said before it left is for the protocol when it reads again.
            _ if flow.is_upgraded() => Next::Park,
            _ if conn.ending || conn.ended => Next::Close,
            _ => Next::Park,
        }
    }

    /// Reads once, and gives it to the protocol.
    fn read_upgraded(&self, conn: &mut Conn<H::Ticket>) -> Next {
        let Phase::Outlet(flow) = &mut conn.phase else { return Next::Go };
        if !flow.is_fresh() || conn.at >= conn.inbuf.len() {
            if conn.unread().len() >= BATCH {
                return Next::Park;
            }
            match conn.fill() {
                Filled::Some => {}
                Filled::Nothing => return Next::Park,
                Filled::End | Filled::Broken => return Next::Close,
            }
        }
        if conn.at > 0 {
            conn.inbuf.drain(..conn.at);
            conn.at = 0;
        }
        let Phase::Outlet(flow) = &mut conn.phase else { return Next::Go };
        match flow.receive(&mut conn.inbuf) {
            Ok(()) => Next::Go,
            Err(panic) => {
                self.notice(&Notice::Panic(message(&*panic)));
                conn.broken = true;
                Next::Close
            }
        }
    }

    /// Runs work here, or sends it to a worker.
    pub(super) fn assign(self: &Arc<Self>, lead: Helm<H>, work: Work, here: &mut Here<H>) -> Option<Helm<H>> {
        let lane = work.history.lane();
        if lane != Lane::Inline {
            if self.pool.work(work, lane == Lane::Probation) {
                self.spawn();
            }
            return Some(lead);
        }
        let proven = work.history.is_proven();
        if self.unproven.load(Ordering::Relaxed) == proven {
            self.unproven.store(!proven, Ordering::Relaxed);
        }
        work.history.starts_inline();
        let away = lead.step_away();
        if self.watchdog_sleeps.load(Ordering::SeqCst) {
            self.wake_watchdog();
        }
        let took = self.perform_work(&work, here);
        let back = away.back();
        match back {
            Some(_) => work.history.record(took),
            None => {
                work.history.record_retaken(took);
                here.detach(&*self.handler);
            }
        }
        work.history.ends_inline();
        back
    }

    /// Runs work on a worker.
    pub(super) fn run(&self, work: &Work, here: &mut Here<H>) {
        let took = self.perform_work(work, here);
        here.detach(&*self.handler);
        work.history.record(took);
    }

    fn perform_work(&self, work: &Work, here: &mut Here<H>) -> Duration {
        here.attach(&*self.handler);
        let before = Instant::now();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work.task.run())) {
            self.notice(&Notice::Panic(message(&*panic)));
        }
        here.clock = Instant::now();
        here.clock - before
    }

    /// Ends the part of the outlet, and tells the access log. Detached.
    pub(super) fn end_outlet(&self, conn: &mut Conn<H::Ticket>) {
        if matches!(conn.phase, Phase::Outlet(_)) {
            drop(std::mem::replace(&mut conn.phase, Phase::Ready));
            self.tell_answers(conn);
        }
    }
}
