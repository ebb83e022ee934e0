//! What the leader does for connections that outlets feed, and for upgraded ones.

use std::sync::Arc;

use crate::conn::{BATCH, Conn, Filled, Phase, Pushed};
use crate::exchange::Notice;
use crate::handler::Handler;
use crate::outlet::Stage;
use crate::reactor::Stopping;

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
        if conn.readable
            && conn.inbuf.capacity() == 0
            && matches!(&conn.phase, Phase::Outlet(flow) if flow.reads())
        {
            conn.inbuf = lead.buffer();
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
                self.end_outlet(&mut conn);
                lead.close(conn);
                Flow::Next(lead)
            }
        }
    }

    fn feed_on(&self, conn: &mut Conn<H::Ticket>, stops: bool, now: std::time::Instant) -> Next {
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
                if flow.is_upgraded() {
                    // What the client is still saying must not turn our last word into a reset.
                    conn.closing = true;
                    conn.linger = true;
                }
                conn.closing |= stops;
                self.end_outlet(conn);
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

    /// Ends the part of the outlet, and tells the access log. Detached.
    pub(super) fn end_outlet(&self, conn: &mut Conn<H::Ticket>) {
        if matches!(conn.phase, Phase::Outlet(_)) {
            drop(std::mem::replace(&mut conn.phase, Phase::Ready));
            self.tell_answers(conn);
        }
    }
}
