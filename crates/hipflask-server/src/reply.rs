//! The response under construction: written straight into the connection's output buffer.
//!
//! Framing is decided by [`hipflask_http::response`]; here is what the server adds to it: files, streams, and whether
//! the connection can be used again.

use std::fmt::Write as _;
use std::fs::File;
use std::time::{Duration, Instant};

use hipflask_http::response::{BodyEncoder, BodyFraming, Exchange, Finished, ResponseWriter, Stamp};
use hipflask_http::{RequestHead, Trailers, Version};

pub use hipflask_http::response::FieldError;

use crate::body::{BodySource, Lender};
use crate::config::{Config, ProxyProtocol};
use crate::exchange::ConnInfo;
use crate::exchange::Times;
use crate::history::Compressible;
use crate::outflow::Outflow;
use crate::outlet::{Outlet, Upgraded};
use crate::record::Record;
use crate::sys;

/// What all responses share: the fields `Date` and `Server`, renewed once a second, and a setting.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    second: u64,
    server: String,
    stamp: Stamp,
    outlet_queue: usize,
    hsts: Option<String>,
    server_timing: bool,
    /// The field for the request's name.
    id_field: Option<String>,
}

impl Standing {
    pub(crate) fn new(config: &Config) -> Standing {
        let server = config.server_name.clone().unwrap_or_default();
        let second = sys::seconds();
        let stamp = Stamp::new(&server, seconds(second));
        let is_behind = !config.trusted_proxies.is_empty() || config.proxy_protocol != ProxyProtocol::Off;
        let hsts = config.hsts.clone().filter(|_| config.tls.is_some() || is_behind);
        Standing {
            second,
            stamp,
            server,
            outlet_queue: config.outlet_queue,
            hsts,
            server_timing: config.server_timing,
            id_field: config.request_id.is_on().then(|| config.request_id.field.clone()),
        }
    }

    /// Brings the date up to date; once per batch is enough.
    pub(crate) fn refresh(&mut self) {
        let second = sys::seconds();
        if second != self.second {
            self.second = second;
            self.stamp = Stamp::new(&self.server, seconds(second));
        }
    }
}

fn seconds(second: u64) -> i64 {
    i64::try_from(second).unwrap_or(i64::MAX)
}

/// What of the request decides about its response.
pub(crate) fn asked(head: &RequestHead, keep: bool) -> Exchange {
    Exchange { version: head.version(), keep_alive: keep && head.keep_alive(), head: head.is_head() }
}

/// As [`asked`], for a request whose head could not be read.
pub(crate) fn asked_unknown() -> Exchange {
    Exchange { version: Version::Http11, keep_alive: false, head: false }
}

const HSTS: &[u8] = b"Strict-Transport-Security";

/// The one 1xx that ends an exchange.
pub(crate) const SWITCHING: u16 = 101;

/// What follows what has been written.
pub(crate) enum Payload {
    /// Nothing.
    Written,
    /// A part of a file.
    File {
        /// The file, open.
        file: File,
        /// Where the part begins.
        offset: u64,
        /// How many bytes it has.
        length: u64,
    },
    /// A source, asked piece by piece.
    Stream {
        /// The source.
        source: Box<dyn BodySource>,
        /// How its pieces are framed.
        encoder: BodyEncoder,
    },
    /// An outlet that anybody feeds.
    Outlet(Box<Outflow>),
}

/// A complete response head and what follows it.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) keep: bool,
    pub(crate) payload: Payload,
    /// Where in the output the body begins.
    pub(crate) body: usize,
    pub(crate) compressible: Option<Compressible>,
    /// Trailers follow the body.
    pub(crate) is_trailed: bool,
    /// The rule that the application has found for the request.
    pub(crate) route: Option<Box<str>>,
    /// What is to be done once the response is out.
    pub(crate) afterwards: Vec<Afterwards>,
}

/// Something to be done once a response is out; see [`Reply::afterwards`].
pub(crate) type Afterwards = Box<dyn FnOnce() + Send>;

/// A response under construction. [`Reply::body`], [`Reply::pieces`], [`Reply::file`], [`Reply::stream`],
/// [`Reply::outlet`] and [`Reply::upgrade`] complete it; whatever is asked of it afterwards has no effect, except for
/// [`Reply::reset`], which takes the response back.
pub struct Reply<'a> {
    writer: ResponseWriter<'a>,
    standing: &'a Standing,
    is_head: bool,
    /// The request's body, if it is being streamed: what is left of it decides about the connection.
    lender: Option<&'a Lender>,
    close: bool,
    afterwards: Vec<Afterwards>,
    compressible: Option<Compressible>,
    is_trailed: bool,
    route: Option<Box<str>>,
    /// `Strict-Transport-Security` is still to be written.
    owes_hsts: bool,
    /// Whether the client speaks TLS.
    is_secure: bool,
    /// What is noted of the request.
    record: Option<&'a Record>,
    /// The request's name is still to be written.
    owes_id: bool,
    /// Once the response is complete.
    answer: Option<Answer>,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(
        out: &'a mut Vec<u8>,
        exchange: Exchange,
        standing: &'a Standing,
        lender: Option<&'a Lender>,
        record: Option<&'a Record>,
    ) -> Reply<'a> {
        let writer = ResponseWriter::new(out, exchange);
        let owes_id = standing.id_field.is_some();
        Reply {
            writer,
            standing,
            is_head: exchange.head,
            lender,
            close: false,
            owes_hsts: false,
            is_secure: false,
            owes_id,
            record,
            afterwards: Vec::new(),
            compressible: None,
            is_trailed: false,
            route: None,
            answer: None,
        }
    }

    /// The same to whoever is at the other end: a client that speaks TLS is told to come back so.
    pub(crate) fn to(mut self, conn: &ConnInfo) -> Reply<'a> {
        self.is_secure = self.standing.hsts.is_some() && conn.is_secure();
        self.owes_hsts = self.is_secure;
        self
    }

    /// Begins the response, dropping what was begun before. A status that cannot be sent becomes a 500, a reason that
    /// cannot be sent the usual one.
    pub fn start(&mut self, status: u16, reason: Option<&str>) {
        if self.answer.is_none() {
            // Another 1xx is never a final response (RFC 9110 §15.2).
            let fits = (200..1000).contains(&status) || status == SWITCHING;
            let status = if fits { status } else { 500 };
            if self.writer.start(status, reason).is_err() {
                // Cannot fail: the status is good and there is no reason.
                let _ = self.writer.start(status, None);
            }
        }
    }

    /// Adds a field. Those that frame the response are the server's: `Connection: close` is obeyed, a `Content-Length`
    /// holds where no body contradicts it, `Transfer-Encoding` and the other connection fields are dropped.
    ///
    /// # Errors
    ///
    /// The name or value cannot be sent; nothing is added.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldError> {
        if self.owes_hsts && name.eq_ignore_ascii_case(HSTS) {
            // The application knows better.
            self.owes_hsts = false;
        }
        if self.owes_id
            && let Some(field) = &self.standing.id_field
            && name.eq_ignore_ascii_case(field.as_bytes())
        {
            self.owes_id = false;
        }
        self.started().map_or(Ok(()), |writer| writer.field(name, value))
    }

    /// The writer, with a status line, while the response is not complete.
    fn started(&mut self) -> Option<&mut ResponseWriter<'a>> {
        if self.answer.is_some() {
            return None;
        }
        if self.writer.status() == 0 {
            self.start(200, None);
        }
        Some(&mut self.writer)
    }

    /// Completes the response with this body.
    pub fn body(&mut self, bytes: &[u8]) {
        self.complete(|writer, stamp| (writer.finish(stamp, bytes), None));
    }

    /// Completes the response with a body in pieces.
    pub fn pieces(&mut self, pieces: &[&[u8]]) {
        self.complete(|writer, stamp| (writer.finish_with_pieces(stamp, pieces), None));
    }

    /// As [`Reply::pieces`], with trailers behind them; for a client that
    /// [takes some](hipflask_http::RequestHead::takes_trailers). Those that may not be sent are left out.
    pub fn pieces_with_trailers(&mut self, pieces: &[&[u8]], trailers: &Trailers) {
        self.is_trailed = true;
        self.complete(|writer, stamp| (writer.finish_with_trailers(stamp, pieces, trailers), None));
    }

    /// Has trailers follow the stream or outlet that completes the response; for a client that
    /// [takes some](hipflask_http::RequestHead::takes_trailers). Such a response is not compressed, since its trailers
    /// may tell about its bytes.
    pub fn trail(&mut self) {
        if let Some(writer) = self.started() {
            writer.trail();
            self.is_trailed = true;
        }
    }

    /// Completes the response with a part of a file, sent by the kernel.
    pub fn file(&mut self, file: File, offset: u64, length: u64) {
        self.complete(|writer, stamp| {
            let finished = writer.finish_with_length(stamp, length);
            let payload = match finished.framing {
                BodyFraming::Length(length) if length > 0 => Some(Payload::File { file, offset, length }),
                _ => None,
            };
            (finished, payload)
        });
    }

    /// Completes the response with a body made piece by piece; `length` is that of the whole, where it is known. A
    /// source that does not keep to it cuts the connection.
    pub fn stream(&mut self, source: Box<dyn BodySource>, length: Option<u64>) {
        let is_trailed = self.is_trailed;
        self.complete(|writer, stamp| {
            let finished = match length {
                Some(length) if !is_trailed => writer.finish_with_length(stamp, length),
                _ => writer.finish_with_stream(stamp),
            };
            let payload = match finished.framing {
                BodyFraming::None => None,
                framing => Some(Payload::Stream { source, encoder: BodyEncoder::new(framing) }),
            };
            (finished, payload)
        });
    }

    /// Completes the response's head; its body is what the outlet is given, from any thread, now or later, and ends
    /// with [`Outlet::finish`]. `length` is that of the whole, where it is known. A response that has no body (to HEAD,
    /// 204, 304) has an outlet that is over from the start.
    ///
    /// A client that closes its side counts as gone while the body is not finished, as one does that only reads: it
    /// cannot be told from one that has left.
    pub fn outlet(&mut self, length: Option<u64>) -> Outlet {
        let most = self.standing.outlet_queue;
        let mut outlet = None;
        let is_trailed = self.is_trailed;
        self.complete(|writer, stamp| {
            let finished = match length {
                Some(length) if !is_trailed => writer.finish_with_length(stamp, length),
                _ => writer.finish_with_stream(stamp),
            };
            let made = outlet.insert(Outlet::new(finished.framing, most, false));
            let payload = match finished.framing {
                BodyFraming::None => None,
                _ => Some(Payload::Outlet(Box::new(Outflow::new(made, None)))),
            };
            (finished, payload)
        });
        outlet.unwrap_or_else(|| Outlet::new(BodyFraming::None, most, false))
    }

    /// As [`Reply::stream`], but the connection waits with the engine and not with the source: heartbeat and farewell of
    /// the outlet go out while a piece is being made. If the source fails before its first piece the body is broken, as
    /// after it.
    pub fn pump(&mut self, source: Box<dyn BodySource>, length: Option<u64>) -> Outlet {
        let was_complete = self.is_complete();
        let outlet = self.outlet(length);
        if !was_complete && let Some(Answer { payload: Payload::Outlet(flow), .. }) = &mut self.answer {
            flow.set_pump(source, &outlet);
        }
        outlet
    }

    /// Has the deadline of the request hold for what an outlet is given, as it does for a stream. Without it an outlet
    /// may be fed for as long as somebody likes: event streams are.
    pub fn keep_deadline(&mut self) {
        if let Some(Answer { payload: Payload::Outlet(flow), .. }) = &mut self.answer {
            flow.set_timed();
        }
    }

    /// Completes the response with 101 Switching Protocols: what comes behind the request's head, and what is sent, is
    /// the protocol's from then on. Write the fields before, after [`Reply::start`] with 101.
    pub fn upgrade(&mut self, protocol: Box<dyn Upgraded>) -> Outlet {
        let most = self.standing.outlet_queue;
        if self.writer.status() != SWITCHING && !self.is_complete() {
            self.start(SWITCHING, None);
        }
        let outlet = Outlet::new(BodyFraming::Close, most, true);
        // Dropped, and so told that it is over, if the response is complete already.
        let flow = Box::new(Outflow::new(&outlet, Some(protocol)));
        self.complete(|writer, stamp| {
            let finished = writer.finish_with_stream(stamp);
            (finished, Some(Payload::Outlet(flow)))
        });
        outlet
    }

    /// Drops what was begun or completed: nothing of it has been sent yet. A file is closed, a stream dropped.
    pub fn reset(&mut self) {
        self.answer = None;
        self.afterwards.clear();
        self.is_trailed = false;
        self.owes_hsts = self.is_secure;
        self.owes_id = self.standing.id_field.is_some();
        self.writer.reset();
    }

    /// Leaves `Strict-Transport-Security` out: RFC 6797 §7.2 has it on encrypted connections only.
    pub(crate) fn in_the_clear(&mut self) {
        self.owes_hsts = false;
    }

    /// Says whether this response may be compressed, for a route that is [`Compressible::Told`].
    pub fn compressing(&mut self, compressible: Compressible) {
        self.compressible = Some(compressible);
    }

    /// Whether anything is noted of the request, so that [`Reply::route`] is worth calling.
    pub fn is_noted(&self) -> bool {
        self.record.is_some()
    }

    /// Says which rule the request was for, if only the application knows; see [`Answered::route`](crate::Answered).
    pub fn route(&mut self, rule: &str) {
        self.route = Some(rule.into());
    }

    /// Closes the connection after this response.
    pub fn close(&mut self) {
        self.close = true;
    }

    /// Has `done` called once the last byte of this response has been given to the kernel, or when the connection ends
    /// before that. It is called once, detached, on a thread of the engine, and must not block. [`Reply::reset`] drops
    /// it uncalled.
    pub fn afterwards(&mut self, done: Box<dyn FnOnce() + Send>) {
        self.afterwards.push(done);
    }

    /// The status given so far; 0 before [`Reply::start`].
    pub fn status(&self) -> u16 {
        self.answer.as_ref().map_or_else(|| self.writer.status(), |answer| answer.status)
    }

    /// Whether the request wants the head only.
    pub fn is_head(&self) -> bool {
        self.is_head
    }

    /// Whether the response is complete.
    pub fn is_complete(&self) -> bool {
        self.answer.is_some()
    }

    /// The server's clock, in seconds since 1970.
    pub(crate) fn seconds(&self) -> i64 {
        seconds(self.standing.second)
    }

    fn complete(
        &mut self,
        finish: impl FnOnce(&mut ResponseWriter<'a>, &Stamp) -> (Finished, Option<Payload>),
    ) {
        let close = self.close || self.lender.is_some_and(|lender| !lender.leaves_usable());
        let standing = self.standing;
        let hsts = standing.hsts.as_deref().filter(|_| self.owes_hsts);
        let (record, owes_id) = (self.record, self.owes_id);
        if let Some(writer) = self.started() {
            if let Some(hsts) = hsts {
                // A value that cannot be sent was refused when the server was made.
                let _ = writer.field(HSTS, hsts.as_bytes());
            }
            if let Some(record) = record {
                note(writer, standing, record, owes_id);
            }
            if close {
                writer.close();
            }
            let status = writer.status();
            let (finished, payload) = finish(writer, &standing.stamp);
            let payload = payload.unwrap_or(Payload::Written);
            let afterwards = Vec::new();
            let body = writer.body_begins();
            let keep = finished.keep_alive;
            self.answer = Some(Answer {
                status,
                keep,
                payload,
                body,
                compressible: None,
                is_trailed: false,
                route: None,
                afterwards,
            });
        }
    }

    /// The complete response; an incomplete one becomes a 500.
    pub(crate) fn finish(mut self) -> Answer {
        let is_upgrade =
            |answer: &Answer| matches!(&answer.payload, Payload::Outlet(flow) if flow.is_upgraded());
        if self.answer.as_ref().is_none_or(|answer| answer.status == SWITCHING && !is_upgrade(answer)) {
            self.reset();
            self.start(500, None);
            self.body(b"");
        }
        let (close, afterwards, compressible) = (self.close, self.afterwards, self.compressible);
        let (route, is_trailed) = (self.route, self.is_trailed);
        let mut answer = self.answer.unwrap_or(Answer {
            status: 500,
            keep: false,
            payload: Payload::Written,
            body: 0,
            compressible: None,
            is_trailed: false,
            route: None,
            afterwards: Vec::new(),
        });
        answer.keep &= !close;
        answer.compressible = compressible;
        answer.is_trailed = is_trailed;
        answer.route = route;
        answer.afterwards = afterwards;
        answer
    }
}

/// Writes what is to be told of the request itself.
fn note(writer: &mut ResponseWriter<'_>, standing: &Standing, record: &Record, owes_id: bool) {
    if let (true, Some(field), Some(id)) = (owes_id, &standing.id_field, record.id()) {
        // Both were checked: the one when the server was made, the other when the request came.
        let _ = writer.field(field.as_bytes(), id.as_bytes());
    }
    if standing.server_timing && record.is_called() {
        let Times { receive, queue, gil, view, .. } = record.times(Instant::now());
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let mut value = String::with_capacity(72);
        if !receive.is_zero() {
            // A string takes whatever is written.
            let _ = write!(value, "receive;dur={:.3}, ", ms(receive));
        }
        let (queue, gil, view) = (ms(queue), ms(gil), ms(view));
        let _ = write!(value, "queue;dur={queue:.3}, gil;dur={gil:.3}, view;dur={view:.3}");
        let _ = writer.field(b"Server-Timing", value.as_bytes());
    }
}
