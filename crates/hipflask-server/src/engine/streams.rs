//! What the leader does for HTTP/2 connections: takes their requests, which then go the way of all requests, and ends
//! them in good order.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use h2::{Reason, RecvStream};
use hipflask_http::http2::Parts;
use hipflask_http::{BodyDecoder, Error, Framing, RequestHead, Trailers};
use http::Request;

use crate::body::Pace;
use crate::conn::{Conn, Phase};
use crate::handler::Handler;
use crate::http2::{Found, Http2, Kind, PREFACE, Pipe};
use crate::metrics::Counter;
use crate::reactor::Stopping;
use crate::refusal::RefusalKind;
use crate::reply::asked_unknown;
use crate::transport::Transport;

use super::leader::{Flow, LINGER_MOST};
use super::{Engine, Helm, Here, Link};

/// Whether a request breaks the rules of HTTP/2 itself, so that its stream is in error (RFC 9113 §8.1.1). What the rules
/// of HTTP forbid is answered, so that whoever has made it learns why.
fn is_malformed(error: Error, parts: &http::request::Parts) -> bool {
    match error {
        Error::BadName | Error::Control | Error::Folded | Error::TwoHosts => true,
        Error::Connect => parts.uri.authority().is_none(),
        _ => false,
    }
}

impl<H: Handler> Engine<H> {
    /// Whether a connection begins as HTTP/2 does; `None` if that cannot be told yet.
    pub(super) fn begins_http2(&self, conn: &Conn<H::Ticket>) -> Option<bool> {
        if conn.used || !self.config.http2 || conn.redirects {
            return Some(false);
        }
        let bytes = conn.unread();
        let count = bytes.len().min(PREFACE.len());
        if bytes.get(..count) != PREFACE.get(..count) {
            return Some(false);
        }
        (count == PREFACE.len()).then_some(true)
    }

    /// The trailers behind a body of a known length, which only HTTP/2 allows; `None` if the client has not said yet
    /// whether there are any.
    pub(super) fn trailers_behind(&self, conn: &Conn<H::Ticket>) -> Option<Result<Trailers, Error>> {
        match conn.socket.tail() {
            Poll::Pending => None,
            Poll::Ready(Ok(section)) if section.is_empty() => Some(Ok(Trailers::new())),
            Poll::Ready(Ok(section)) => {
                let mut decoder = BodyDecoder::new(Framing::None, &self.config.limits);
                Some(decoder.read_trailers(&section).map(|()| decoder.take_trailers()))
            }
            Poll::Ready(Err(_)) => Some(Err(Error::Truncated)),
        }
    }

    /// Makes a connection one of HTTP/2.
    pub(super) fn become_http2(&self, conn: &mut Conn<H::Ticket>) {
        let mut first = std::mem::take(&mut conn.inbuf);
        first.drain(..conn.at.min(first.len()));
        conn.at = 0;
        conn.used = true;
        conn.began = None;
        if let Some(stats) = self.stats() {
            stats.count(Counter::Http2);
        }
        let http2 = Http2::new(&conn.socket, first, &self.waker, conn.token, &self.config);
        conn.phase = Phase::Http2(Box::new(http2));
    }

    /// Goes on with a connection as far as its socket and its streams allow.
    pub(super) fn carry(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        here: &mut Here<H>,
    ) -> Flow<H> {
        let Phase::Http2(mut http2) = std::mem::replace(&mut conn.phase, Phase::Ready) else {
            return Flow::On(lead, conn);
        };
        if conn.info.secure {
            // What the streams have written is encrypted now: not with the interpreter held.
            here.detach(&*self.handler);
        }
        http2.tell(std::mem::take(&mut conn.readable), conn.ending);
        let over = loop {
            match http2.look() {
                Found::Request(request, respond) => {
                    self.arrive(&mut lead, &conn, &http2, *request, respond, here);
                }
                Found::Nothing => break None,
                Found::Over(why) => break Some(why),
            }
        };
        if let Some(why) = over {
            if let Some(why) = why {
                self.refused_silently(&conn, RefusalKind::BadHttp2, why);
            }
            return self.part(lead, conn);
        }
        if http2.is_rushing() {
            let why = "the client takes back too many of its requests";
            self.refused_silently(&conn, RefusalKind::RapidReset, why);
            http2.end(Reason::ENHANCE_YOUR_CALM);
            return self.part(lead, conn);
        }
        if lead.stopping != Stopping::No {
            http2.leave();
            if let Found::Over(_) = http2.look() {
                return self.part(lead, conn);
            }
        }
        conn.writing = match conn.writing {
            _ if !http2.is_blocked() => None,
            None => Some(Pace::new(lead.now)),
            since => since,
        };
        if http2.is_hungry() {
            lead.again.push_back(conn.token);
        }
        conn.phase = Phase::Http2(http2);
        lead.park(conn);
        Flow::Next(lead)
    }

    /// Has said its last word. Windows and answers to pings may still be on their way here, and to close now would reset
    /// the connection, which takes the last frames from the client.
    fn part(&self, lead: Helm<H>, mut conn: Link<H>) -> Flow<H> {
        conn.socket.shutdown(Shutdown::Write);
        conn.phase = Phase::Linger(LINGER_MOST, lead.now);
        conn.readable = true;
        Flow::On(lead, conn)
    }

    /// Gives a request a place of its own.
    fn arrive(
        self: &Arc<Self>,
        lead: &mut Helm<H>,
        below: &Conn<H::Ticket>,
        http2: &Http2,
        request: Request<RecvStream>,
        mut respond: h2::server::SendResponse<bytes::Bytes>,
        here: &Here<H>,
    ) {
        let (parts, body) = request.into_parts();
        let protocol = parts.extensions.get::<h2::ext::Protocol>();
        let made = RequestHead::from_http2(
            &Parts {
                method: parts.method.as_str().as_bytes(),
                scheme: parts.uri.scheme_str().map(str::as_bytes),
                authority: parts.uri.authority().map(|authority| authority.as_str().as_bytes()),
                path: parts.uri.path_and_query().map(|path| path.as_str().as_bytes()),
                protocol: protocol.map(|protocol| protocol.as_str().as_bytes()),
                ends: body.is_end_stream(),
            },
            parts.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
            &self.head_limits,
        );
        if let Err(error) = &made
            && is_malformed(*error, &parts)
        {
            http2.counts().resets.fetch_add(1, Ordering::Relaxed);
            self.refused_silently(below, (*error).into(), error.reason());
            return respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        let chunked = made.as_ref().is_ok_and(|head| head.framing() == Framing::Chunked);
        let kind = match parts.method {
            http::Method::HEAD => Kind::Head,
            // Whatever protocol it asks for: no 2xx may answer it but one that opens a tunnel.
            http::Method::CONNECT => Kind::Tunnel,
            _ => Kind::Ordinary,
        };
        let pipe = Pipe::new(body, respond, (chunked, kind), &self.waker, http2.counts());
        let Ok(mut conn) = lead.seat(Transport::Stream(Box::new(pipe)), Arc::clone(&below.info)) else {
            // Takes no descriptor, so it cannot fail; dropped, the stream is reset.
            return;
        };
        conn.readable = true;
        match made {
            Ok(head) => conn.phase = Phase::Arrived(Box::new(head)),
            Err(error) => {
                self.refuse(&mut conn, error.into(), asked_unknown(), here);
            }
        }
        lead.returned.push_back(conn);
    }

    /// An idle connection has been open for long enough, or has not begun in time.
    pub(super) fn give_up_http2(&self, lead: &mut Helm<H>, mut conn: Link<H>) {
        if let Phase::Http2(http2) = &mut conn.phase {
            if !http2.is_open() {
                let why = "the HTTP/2 connection begins too slowly";
                self.refused_silently(&conn, RefusalKind::SlowHttp2, why);
                return lead.close(conn);
            }
            http2.end(Reason::NO_ERROR);
        }
        lead.returned.push_back(conn);
    }

    /// Ends a connection without requests because the server stops.
    pub(super) fn end_idle_http2(&self, lead: &mut Helm<H>, mut conn: Link<H>) {
        match &mut conn.phase {
            Phase::Http2(http2) if !http2.has_streams() => http2.end(Reason::NO_ERROR),
            _ => return lead.park(conn),
        }
        lead.returned.push_back(conn);
    }

    /// What a stream's head is answered with is the same as for any other.
    pub(super) fn begin_stream(
        self: &Arc<Self>,
        lead: Helm<H>,
        mut conn: Link<H>,
        here: &mut Here<H>,
    ) -> Flow<H> {
        match std::mem::replace(&mut conn.phase, Phase::Ready) {
            Phase::Arrived(head) => self.request(lead, conn, head, here),
            _ => Flow::On(lead, conn),
        }
    }
}
