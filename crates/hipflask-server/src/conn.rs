//! One connection: its buffers, what is being read and what is being written.
//!
//! Belongs to exactly one thread at a time: the leader, or the worker that runs its request. Knows no poller and no
//! threads; see `reactor.rs` and `serve.rs`.

use std::fs::File;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hipflask_http::response::BodyEncoder;
use hipflask_http::{BodyDecoder, Error, Limits, RequestHead};

use crate::body::{BodySource, Lender, Pace};
use crate::delivery::Delivery;
use crate::exchange::ConnInfo;
use crate::history::RouteHistory;
use crate::http2::Http2;
use crate::metrics::{note_received, note_sent};
use crate::outflow::Outflow;
use crate::outlet::Slice;
use crate::record::Record;
use crate::reply::Afterwards;
use crate::spool::Spooling;
use crate::transport::Transport;

/// What one read asks for; also the size of a pooled buffer.
pub(crate) const READ: usize = 16 * 1024;
/// Answers to pipelined requests are sent together up to this size.
pub(crate) const BATCH: usize = 64 * 1024;

/// Pieces of an outlet that go out in one call, at most.
const SLICES: usize = 32;

/// A routed request that waits for its body.
pub(crate) struct Pending<T> {
    pub(crate) head: Box<RequestHead>,
    pub(crate) ticket: T,
    pub(crate) history: Arc<RouteHistory>,
    pub(crate) body: Vec<u8>,
    pub(crate) wanted: usize,
    pub(crate) pace: Pace,
    /// Given back, by being dropped, when the body is handed on or the connection ends.
    pub(crate) _reserved: Reserved,
}

/// A part of what all bodies together may hold while they are being collected.
pub(crate) struct Reserved {
    budget: Arc<AtomicU64>,
    bytes: u64,
}

impl Reserved {
    /// Takes so many bytes of the budget, if there are as many left of `most`.
    pub(crate) fn take(budget: &Arc<AtomicU64>, bytes: u64, most: u64) -> Option<Reserved> {
        let before = budget.fetch_add(bytes, Ordering::Relaxed);
        let reserved = Reserved { budget: Arc::clone(budget), bytes };
        (before.saturating_add(bytes) <= most).then_some(reserved)
    }

    /// Takes more; whether it was there to be taken.
    pub(crate) fn grow(&mut self, bytes: u64, most: u64) -> bool {
        let before = self.budget.fetch_add(bytes, Ordering::Relaxed);
        let there_is = before.saturating_add(bytes) <= most;
        if there_is {
            self.bytes += bytes;
        } else {
            self.budget.fetch_sub(bytes, Ordering::Relaxed);
        }
        there_is
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a connection does next, once its output is out.
pub(crate) enum Phase<T> {
    /// Reads heads.
    Ready,
    /// Reads a small body before the call.
    Collect(Box<Pending<T>>),
    /// Writes a long body to a file before the call.
    Spool(Box<Spooling<T>>),
    /// Reads and drops what is left of a body.
    Drain(Box<(BodyDecoder, Pace)>),
    /// Asks a source for the next piece of a response.
    Stream(Box<Streaming>),
    /// An HTTP/2 connection, which carries others.
    Http2(Box<Http2>),
    /// A stream of one, whose head has come.
    Arrived(Box<RequestHead>),
    /// Sends what an outlet is given.
    Outlet(Box<Outflow>),
    /// Has said its last word and reads until the client has heard it; so many bytes at most, since then.
    Linger(usize, Instant),
}

/// A response whose body is being made.
pub(crate) struct Streaming {
    pub(crate) source: Box<dyn BodySource>,
    pub(crate) encoder: BodyEncoder,
    /// Where the response begins in the buffer, as long as none of it has been sent.
    pub(crate) begin: Option<usize>,
    /// The source is asked for trailers at its end.
    pub(crate) is_trailed: bool,
    /// Whose end of the request's body the source may be reading.
    pub(crate) lender: Option<Lender>,
    /// When it is cut off.
    pub(crate) deadline: Option<Instant>,
}

/// A file on its way out, behind what stands in the buffer.
pub(crate) struct FileTail {
    file: File,
    offset: u64,
    left: u64,
}

/// What came of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// All is out.
    Done,
    /// The client takes no more for now.
    Blocked,
    /// The connection is broken.
    Broken,
}

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Bytes.
    Some,
    /// None for now; the poller will tell.
    Nothing,
    /// The client has sent its last byte.
    End,
    /// The connection is broken.
    Broken,
}

/// What is to be done after responses: done when this is dropped, be it that they are out or that their connection is no
/// more.
pub(crate) struct After(pub(crate) Vec<Afterwards>);

impl Drop for After {
    fn drop(&mut self) {
        for done in self.0.drain(..) {
            // A panic must not take the others' turn, nor the thread's.
            drop(catch_unwind(AssertUnwindSafe(done)));
        }
    }
}

/// A connection.
pub(crate) struct Conn<T> {
    pub(crate) socket: Arc<Transport>,
    pub(crate) token: u64,
    pub(crate) info: Arc<ConnInfo>,
    pub(crate) phase: Phase<T>,
    /// The head being parsed, if one has begun.
    pub(crate) head: Option<Box<RequestHead>>,
    /// Bytes read; those from `at` on are not used yet.
    pub(crate) inbuf: Vec<u8>,
    pub(crate) at: usize,
    /// The parser wants more than `inbuf` has.
    pub(crate) starved: bool,
    /// The socket may hold more: it has not said otherwise since the last event.
    pub(crate) readable: bool,
    /// The poller has told that the client's last byte has come.
    pub(crate) ending: bool,
    /// That byte has been read.
    pub(crate) ended: bool,
    /// Since when a head is being read.
    pub(crate) began: Option<Instant>,
    /// Bytes to write; those before `out_at` are out.
    pub(crate) out: Vec<u8>,
    pub(crate) out_at: usize,
    pub(crate) file: Option<FileTail>,
    /// Since when the output waits, and how it goes.
    pub(crate) writing: Option<Pace>,
    /// Close once the output is out.
    pub(crate) closing: bool,
    /// Before closing, read on for a while: the client is still sending.
    pub(crate) linger: bool,
    /// Cut it off: what the client got is not the whole.
    pub(crate) broken: bool,
    /// Was refused for lack of room: is not read until there is some.
    pub(crate) throttled: bool,
    /// Whether any request has been read.
    pub(crate) used: bool,
    /// The TLS handshake, or the PROXY header before it, is not over.
    pub(crate) greeting: bool,
    /// A PROXY header has to come first.
    pub(crate) announces: bool,
    /// It is one of its address' connections, where those are counted.
    pub(crate) counted: bool,
    /// What comes is sent on to the port that has TLS.
    pub(crate) redirects: bool,
    /// A stand-in whose connection has output of earlier answers.
    pub(crate) is_behind: bool,
    /// All bytes sent so far.
    pub(crate) sent: u64,
    /// What is noted of the requests whose answers are not all out, if anything is.
    pub(crate) records: Vec<Record>,
    /// What is to be done when the output is out, or the connection has ended.
    pub(crate) after: Option<Box<After>>,
    /// What the next response is to become on its way, if it is not to go out as it is.
    pub(crate) delivery: Option<Box<Delivery>>,
}

impl<T> Conn<T> {
    pub(crate) fn new(socket: Arc<Transport>, token: u64, info: Arc<ConnInfo>) -> Conn<T> {
        Conn {
            socket,
            token,
            info,
            phase: Phase::Ready,
            head: None,
            inbuf: Vec::new(),
            at: 0,
            starved: false,
            // Registering it with the poller tells whether bytes have come already.
            readable: false,
            ending: false,
            ended: false,
            began: None,
            out: Vec::new(),
            out_at: 0,
            file: None,
            writing: None,
            closing: false,
            linger: false,
            broken: false,
            throttled: false,
            used: false,
            greeting: false,
            announces: false,
            counted: false,
            redirects: false,
            is_behind: false,
            sent: 0,
            records: Vec::new(),
            after: None,
            delivery: None,
        }
    }

    /// A connection that a view writes to in the place of this one, which is kept until it is known who answers.
    pub(crate) fn stand_in(&mut self) -> Conn<T> {
        let mut stand_in = Conn::new(Arc::clone(&self.socket), self.token, Arc::clone(&self.info));
        stand_in.delivery = self.delivery.take();
        stand_in.records.extend(self.records.last().map(Record::copy));
        // Places are counted from where its output is going to be.
        stand_in.sent = self.sent_until(self.out.len());
        if self.out_at >= self.out.len() {
            self.out_at = 0;
            self.out.clear();
            stand_in.out = std::mem::take(&mut self.out);
        } else {
            stand_in.is_behind = true;
        }
        stand_in
    }

    /// Takes over what was written to the stand-in.
    pub(crate) fn absorb(&mut self, from: &mut Conn<T>) {
        if self.out.is_empty() {
            self.out = std::mem::take(&mut from.out);
        } else {
            if let Phase::Stream(stream) = &mut from.phase
                && let Some(begin) = &mut stream.begin
            {
                *begin += self.out.len();
            }
            self.out.append(&mut from.out);
        }
        self.phase = std::mem::replace(&mut from.phase, Phase::Ready);
        self.file = from.file.take();
        self.closing |= from.closing;
        self.linger |= from.linger;
        self.broken |= from.broken;
        self.throttled |= from.throttled;
        self.readable |= from.readable;
        if !from.inbuf.is_empty() {
            self.inbuf = std::mem::take(&mut from.inbuf);
            self.at = from.at;
        }
        if let (Some(record), Some(written)) = (self.records.last_mut(), from.records.pop()) {
            record.become_copy(written);
        }
        match (&mut self.after, from.after.take()) {
            (Some(after), Some(mut more)) => after.0.append(&mut more.0),
            (after, more) => *after = after.take().or(more),
        }
    }

    /// Bytes read and not yet used.
    pub(crate) fn unread(&self) -> &[u8] {
        self.inbuf.get(self.at..).unwrap_or_default()
    }

    /// Whether nothing has come of the next request yet.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Ready) && self.at >= self.inbuf.len() && !self.has_output()
    }

    /// Whether the parser has something to look at.
    pub(crate) fn has_unparsed(&self) -> bool {
        self.at < self.inbuf.len() && !self.starved
    }

    /// What of the connection's bytes come before the ones at this place of the buffer.
    pub(crate) fn sent_until(&self, at: usize) -> u64 {
        self.sent + at.saturating_sub(self.out_at) as u64
    }

    pub(crate) fn has_output(&self) -> bool {
        self.out_at < self.out.len()
            || self.file.is_some()
            || match &self.phase {
                Phase::Outlet(flow) => !flow.going().is_empty(),
                Phase::Http2(http2) => http2.is_blocked(),
                _ => false,
            }
            || self.socket.owes()
    }

    /// Marks bytes as used.
    pub(crate) fn take(&mut self, count: usize) {
        self.at = (self.at + count).min(self.inbuf.len());
        self.starved = false;
        if self.at == self.inbuf.len() {
            self.inbuf.clear();
            self.at = 0;
        }
    }

    /// Parses the next head. `Ok(None)` wants more bytes.
    pub(crate) fn parse(&mut self, limits: &Limits) -> Result<Option<Box<RequestHead>>, Error> {
        let mut head = self.head.take().unwrap_or_default();
        match head.parse(self.inbuf.get(self.at..).unwrap_or_default(), limits) {
            Ok(Some(used)) => {
                self.take(used);
                Ok(Some(head))
            }
            Ok(None) => {
                self.starved = true;
                self.head = Some(head);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads what the socket has now into `inbuf`.
    pub(crate) fn fill(&mut self) -> Filled {
        if !self.readable {
            return Filled::Nothing;
        }
        if self.at > 0 {
            self.inbuf.drain(..self.at);
            self.at = 0;
        }
        let mut inbuf = std::mem::take(&mut self.inbuf);
        let filled = self.receive(&mut inbuf, READ);
        self.inbuf = inbuf;
        filled
    }

    /// Reads at most `want` bytes from the socket behind what `body` holds, not touching what comes after.
    pub(crate) fn fill_body(&mut self, body: &mut Vec<u8>, want: usize) -> Filled {
        if self.readable { self.receive(body, want) } else { Filled::Nothing }
    }

    fn receive(&mut self, into: &mut Vec<u8>, most: usize) -> Filled {
        loop {
            return match self.socket.recv(into, most) {
                Ok(0) => {
                    self.ended = true;
                    Filled::End
                }
                Ok(count) => {
                    note_received(count);
                    self.starved = false;
                    // A short read has emptied the socket (epoll(7)); what comes later is a new event. The end of the
                    // stream may have come with these bytes, and is no new event.
                    if count < most && !self.ending && !self.socket.is_over() {
                        self.readable = false;
                    }
                    Filled::Some
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    Filled::Nothing
                }
                Err(_) => Filled::Broken,
            };
        }
    }

    /// Puts a file behind what stands in the buffer.
    pub(crate) fn send_file(&mut self, file: File, offset: u64, left: u64) {
        self.file = Some(FileTail { file, offset, left });
    }

    /// Writes as much as the socket takes.
    pub(crate) fn push(&mut self) -> Pushed {
        while self.out_at < self.out.len() {
            match self.socket.send(self.out.get(self.out_at..).unwrap_or_default(), self.file.is_some()) {
                Ok(count) => self.wrote(count, true),
                Err(error) => match self.stopped(&error) {
                    None => continue,
                    Some(pushed) => return pushed,
                },
            }
        }
        self.out.clear();
        self.out_at = 0;
        while let Some(tail) = &self.file {
            match self.socket.send_file(&tail.file, tail.offset, tail.left) {
                // The file became shorter than promised: only closing tells the client.
                Ok(0) => return Pushed::Broken,
                Ok(count) => self.wrote(count, false),
                Err(error) => match self.stopped(&error) {
                    None => {}
                    Some(pushed) => return pushed,
                },
            }
        }
        self.settle()
    }

    /// Writes what the transport has taken and not sent.
    fn settle(&mut self) -> Pushed {
        while let Err(error) = self.socket.flush() {
            if let Some(pushed) = self.stopped(&error) {
                return pushed;
            }
        }
        self.writing = None;
        Pushed::Done
    }

    /// Writes the buffer and what an outlet was given, as much as the socket takes. Detached.
    pub(crate) fn pour(&mut self) -> Pushed {
        loop {
            let Phase::Outlet(flow) = &self.phase else { return Pushed::Done };
            let mut slices = [IoSlice::new(&[]); SLICES];
            let head = self.out.get(self.out_at..).unwrap_or_default();
            let pieces = flow.going().iter().map(Slice::bytes);
            let parts = std::iter::once(head).filter(|head| !head.is_empty()).chain(pieces);
            let count = slices.iter_mut().zip(parts).map(|(slice, part)| *slice = IoSlice::new(part)).count();
            if count == 0 {
                self.out.clear();
                self.out_at = 0;
                return self.settle();
            }
            let head = head.len();
            match self.socket.send_slices(slices.get(..count).unwrap_or_default()) {
                Ok(count) => {
                    let from_buffer = count.min(head);
                    self.wrote(from_buffer, true);
                    self.poured(count - from_buffer);
                }
                Err(error) => {
                    if let Some(pushed) = self.stopped(&error) {
                        return pushed;
                    }
                }
            }
        }
    }

    fn poured(&mut self, count: usize) {
        note_sent(count);
        self.sent += count as u64;
        let now = Instant::now();
        if let Some(pace) = &mut self.writing {
            pace.progress(now, count);
        }
        if let Phase::Outlet(flow) = &mut self.phase {
            flow.took(count, now);
        }
    }

    fn wrote(&mut self, count: usize, from_buffer: bool) {
        note_sent(count);
        self.sent += count as u64;
        if from_buffer {
            self.out_at += count;
        } else if let Some(tail) = &mut self.file {
            tail.offset += count as u64;
            tail.left = tail.left.saturating_sub(count as u64);
            if tail.left == 0 {
                self.file = None;
            }
        }
        if let Some(pace) = &mut self.writing {
            pace.progress(Instant::now(), count);
        }
    }

    /// What an error of writing means; `None` is to try again.
    fn stopped(&mut self, error: &io::Error) -> Option<Pushed> {
        match error.kind() {
            io::ErrorKind::Interrupted => None,
            io::ErrorKind::WouldBlock => {
                if self.writing.is_none() {
                    self.writing = Some(Pace::new(Instant::now()));
                }
                Some(Pushed::Blocked)
            }
            _ => Some(Pushed::Broken),
        }
    }
}
