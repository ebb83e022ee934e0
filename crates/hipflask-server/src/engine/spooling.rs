//! What the leader does with long bodies when enough threads read others already: it writes them to files, and calls
//! their views when they are whole.

use std::sync::Arc;

use hipflask_http::RequestHead;
use hipflask_http::response::CONTINUE;

use crate::body::{self, Body, Intake, Pace};
use crate::conn::{Conn, Phase};
use crate::handler::Handler;
use crate::refusal::{Refusal, RefusalKind};
use crate::reply::asked;
use crate::spool::{Reader, Spool, Spooling};

use super::leader::Flow;
use super::{Engine, Helm, Here, Link};

/// What is decoded at once.
const PIECE: usize = 64 * 1024;
const FULL: Refusal = Refusal {
    kind: RefusalKind::SpoolFull,
    status: 503,
    reason: "the bodies that arrive take too much room together",
};

impl<H: Handler> Engine<H> {
    /// A thread for a view that reads its body as it arrives, unless half of them have one.
    pub(super) fn reader(&self) -> Option<Reader> {
        Reader::admit(&self.readers, self.config.threads / 2)
    }

    /// Has a body go to a file.
    pub(super) fn spool(
        self: &Arc<Self>,
        lead: Helm<H>,
        mut conn: Link<H>,
        mut spooling: Box<Spooling<H::Ticket>>,
        decoded: &[u8],
        owes_continue: bool,
        here: &mut Here<H>,
    ) -> Flow<H> {
        if owes_continue {
            conn.out.extend_from_slice(CONTINUE);
        }
        here.detach(&*self.handler);
        if let Err(refusal) = self.keep(&mut spooling.file, decoded) {
            self.refuse(&mut conn, refusal, asked(&spooling.head, false), here);
            return Flow::On(lead, conn);
        }
        conn.phase = Phase::Spool(spooling);
        Flow::On(lead, conn)
    }

    fn keep(&self, file: &mut Spool, bytes: &[u8]) -> Result<(), Refusal> {
        match file.write(bytes, self.config.spool_bodies) {
            Ok(true) => Ok(()),
            // The disk may be as full as the limit.
            Ok(false) | Err(_) => Err(FULL),
        }
    }

    /// Goes on with a body of which more has come.
    pub(super) fn spool_on(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        mut spooling: Box<Spooling<H::Ticket>>,
        here: &mut Here<H>,
    ) -> Flow<H> {
        here.detach(&*self.handler);
        let mut decoded = Vec::new();
        let result = spooling.decoder.decode(conn.unread(), &mut decoded, PIECE).map_err(Refusal::from);
        let result = result.and_then(|used| {
            spooling.pace.progress(lead.now, used);
            conn.take(used);
            self.keep(&mut spooling.file, &decoded)
        });
        if let Err(refusal) = result {
            self.refuse(&mut conn, refusal, asked(&spooling.head, false), here);
            return Flow::On(lead, conn);
        }
        if !spooling.decoder.is_done() {
            conn.phase = Phase::Spool(spooling);
            return Flow::On(lead, conn);
        }
        let Spooling { head, ticket, history, decoder, file, .. } = *spooling;
        if self.pool.is_full() {
            self.refuse_full(&mut conn, asked(&head, !self.is_stopping()), here);
            return Flow::On(lead, conn);
        }
        lead.equip(&mut conn);
        let pace = Pace::new(lead.now);
        let intake =
            Intake { received: file.len(), spool: Some(file), ..self.intake(&mut conn, decoder, pace) };
        let (stream, lender) = body::lend(intake, None);
        self.invoke(lead, conn, head, (Body::Stream(stream), Some(lender)), ticket, history, here)
    }

    /// A request whose body shall go to a file.
    pub(super) fn spooling(
        &self,
        head: Box<RequestHead>,
        ticket: H::Ticket,
        history: Arc<crate::history::RouteHistory>,
        decoder: hipflask_http::BodyDecoder,
        file: Spool,
        pace: Pace,
    ) -> Box<Spooling<H::Ticket>> {
        Box::new(Spooling { head, ticket, history, decoder, pace, file })
    }

    /// A connection's reading half, to be lent.
    pub(super) fn intake(
        &self,
        conn: &mut Conn<H::Ticket>,
        decoder: hipflask_http::BodyDecoder,
        pace: Pace,
    ) -> Intake {
        Intake {
            socket: Arc::clone(&conn.socket),
            raw: std::mem::take(&mut conn.inbuf),
            at: std::mem::take(&mut conn.at),
            decoder,
            decoded: Vec::new(),
            given: 0,
            received: 0,
            owes_continue: false,
            settled: conn.socket.stream().is_none(),
            spool: None,
            error: None,
            timeouts: self.config.timeouts.clone(),
            drain: self.config.drain_body,
            pace,
        }
    }
}
