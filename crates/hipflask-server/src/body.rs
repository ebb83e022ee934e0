//! Request bodies as the application reads them, and response bodies as it makes them.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use hipflask_http::response::CONTINUE;
use hipflask_http::{BodyDecoder, Error, Trailers};

use crate::config::Timeouts;
use crate::locked;
use crate::spool::{Reader, Spool};
use crate::transport::Transport;

/// How much is read from the socket at once.
const PIECE: usize = 64 * 1024;
/// The longest body that is read before a view that is answered later: it is held in memory.
const AHEAD: usize = 16 << 20;
/// How often a blocked reader looks whether its exchange is over.
const SLICE: Duration = Duration::from_millis(100);
/// The body of a request.
#[derive(Debug)]
pub enum Body {
    /// There is none, or it is empty.
    Empty,
    /// It is here, complete and checked.
    Buffered(Vec<u8>),
    /// As [`Body::Buffered`], perhaps empty, and trailers have followed it.
    Trailed(Box<(Vec<u8>, Trailers)>),
    /// It is still arriving.
    Stream(BodyStream),
}

impl Body {
    /// How many bytes of it have come.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Body::Empty | Body::Stream(_) => 0,
            Body::Buffered(bytes) => bytes.len() as u64,
            Body::Trailed(whole) => whole.0.len() as u64,
        }
    }

    /// A body that has come whole.
    pub(crate) fn whole(bytes: Vec<u8>, trailers: Trailers) -> Body {
        match (bytes.is_empty(), trailers.is_empty()) {
            (true, true) => Body::Empty,
            (false, true) => Body::Buffered(bytes),
            (_, false) => Body::Trailed(Box::new((bytes, trailers))),
        }
    }
}

/// Why a body cannot be read or made any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Its framing is broken, or it is longer than allowed.
    Malformed(Error),
    /// The client has closed its side before the end.
    Truncated,
    /// The client sends too slowly.
    TooSlow,
    /// The request has been answered; its body is gone.
    Over,
    /// The connection failed.
    Io(io::ErrorKind),
    /// The source of a response's body failed.
    Failed,
}

impl BodyError {
    /// The status to answer with, if an answer is still possible.
    pub fn status(self) -> u16 {
        match self {
            BodyError::Malformed(error) => error.status(),
            BodyError::TooSlow => 408,
            BodyError::Truncated | BodyError::Io(_) => 400,
            BodyError::Over | BodyError::Failed => 500,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Malformed(error) => f.write_str(error.reason()),
            BodyError::Truncated => {
                f.write_str("the client closed the connection before the end of the body")
            }
            BodyError::TooSlow => f.write_str("the body arrives too slowly"),
            BodyError::Over => f.write_str("the request has been answered, its body can no longer be read"),
            BodyError::Io(kind) => write!(f, "the connection failed: {kind}"),
            BodyError::Failed => f.write_str("the source of the body failed"),
        }
    }
}

impl std::error::Error for BodyError {}

/// A body that is still arriving. Reading blocks, so do it detached; it ends with an error once the request has been
/// answered.
pub struct BodyStream {
    shared: Arc<Shared>,
}

struct Shared {
    intake: Mutex<Option<Intake>>,
    over: AtomicBool,
}

/// The reading half of a connection, lent to the application for one request.
pub(crate) struct Intake {
    pub(crate) socket: Arc<Transport>,
    /// Bytes from the socket, decoded up to `at`.
    pub(crate) raw: Vec<u8>,
    pub(crate) at: usize,
    pub(crate) decoder: BodyDecoder,
    /// Decoded bytes not yet handed out, from `given` on.
    pub(crate) decoded: Vec<u8>,
    pub(crate) given: usize,
    /// Bytes decoded so far.
    pub(crate) received: u64,
    /// The client waits for a 100 before it sends the body.
    pub(crate) owes_continue: bool,
    /// It has been heard whether trailers follow a body of a known length.
    pub(crate) settled: bool,
    /// The body was written to a file, which is read after what is decoded.
    pub(crate) spool: Option<Spool>,
    pub(crate) error: Option<BodyError>,
    pub(crate) timeouts: Timeouts,
    /// A rest up to this size is dropped rather than the connection closed.
    pub(crate) drain: u64,
    pub(crate) pace: Pace,
}

/// How a body keeps to its timeouts: the longest pause, and the least average rate after a grace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    started: Instant,
    last: Instant,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Pace {
        Pace { started: now, last: now, bytes: 0 }
    }

    pub(crate) fn progress(&mut self, now: Instant, bytes: usize) {
        self.last = now;
        self.bytes += bytes as u64;
    }

    /// When the patience ends.
    pub(crate) fn deadline(&self, pause: Duration, rate: u64) -> Instant {
        let earned = self.bytes.checked_div(rate).map_or(Duration::MAX, Duration::from_secs);
        let average = self.started.checked_add(pause.saturating_add(earned));
        let longest = self.last + pause;
        average.map_or(longest, |average| average.min(longest))
    }
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodyStream")
    }
}

/// Whether a read waits for the client.
#[derive(Clone, Copy)]
enum Wait<'a> {
    /// Not at all.
    Not,
    /// Until the exchange is over.
    Until(&'a AtomicBool),
}

impl Wait<'_> {
    fn is_over(self) -> bool {
        matches!(self, Wait::Until(over) if over.load(Ordering::Acquire))
    }
}

/// What takes the connection back from a [`BodyStream`].
pub(crate) struct Lender {
    shared: Arc<Shared>,
    _reader: Option<Reader>,
}

/// Lends a connection's reading half out; `reader` counts the thread that it will hold, if it does.
pub(crate) fn lend(intake: Intake, reader: Option<Reader>) -> (BodyStream, Lender) {
    let shared = Arc::new(Shared { intake: Mutex::new(Some(intake)), over: AtomicBool::new(false) });
    (BodyStream { shared: Arc::clone(&shared) }, Lender { shared, _reader: reader })
}

impl Lender {
    /// Whether the connection can be used again after this body: it is complete, or its rest is short enough to drop.
    pub(crate) fn leaves_usable(&self) -> bool {
        let guard = self.shared.intake.try_lock();
        guard.is_ok_and(|guard| guard.as_ref().is_some_and(Intake::leaves_usable))
    }

    /// How many bytes of the body have come.
    pub(crate) fn received(&self) -> u64 {
        let guard = locked(&self.shared.intake);
        guard.as_ref().map_or(0, |intake| intake.received)
    }

    /// What somebody else can end the loan by.
    pub(crate) fn revocation(&self) -> Revocation {
        Revocation(Arc::clone(&self.shared))
    }

    /// Ends the loan. Waits, for at most a moment, if another thread is reading just now.
    pub(crate) fn take_back(&self) -> Option<Intake> {
        self.shared.over.store(true, Ordering::Release);
        locked(&self.shared.intake).take()
    }
}

/// A connection that is gone takes its body along.
impl Drop for Lender {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
    }
}

/// Takes a connection back from a [`BodyStream`] whose view has been overtaken by its deadline.
pub(crate) struct Revocation(Arc<Shared>);

impl Revocation {
    /// Ends the loan without waiting; `None` if a thread is reading just now, or somebody has taken it back before.
    pub(crate) fn revoke(&self) -> Option<Intake> {
        self.0.over.store(true, Ordering::Release);
        let guard = self.0.intake.try_lock();
        guard.ok().and_then(|mut guard| guard.take())
    }
}

impl BodyStream {
    /// Reads the next bytes; 0 is the end of the complete body, an error never looks like one. Blocks.
    ///
    /// # Errors
    ///
    /// See [`BodyError`]; after the first error each further read gives the same.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, BodyError> {
        let mut guard = locked(&self.shared.intake);
        let intake = guard.as_mut().ok_or(BodyError::Over)?;
        if self.shared.over.load(Ordering::Acquire) {
            return Err(BodyError::Over);
        }
        match intake.read(into, Wait::Until(&self.shared.over))? {
            Some(count) => Ok(count),
            None => Ok(0),
        }
    }

    /// As [`BodyStream::read`], but does not wait: `None` if nothing has arrived.
    ///
    /// # Errors
    ///
    /// As [`BodyStream::read`].
    pub fn try_read(&mut self, into: &mut [u8]) -> Result<Option<usize>, BodyError> {
        let mut guard = locked(&self.shared.intake);
        guard.as_mut().ok_or(BodyError::Over)?.read(into, Wait::Not)
    }

    /// Takes the trailers that have followed the body: none before a read has said that it is at its end.
    pub fn take_trailers(&mut self) -> Trailers {
        let mut guard = locked(&self.shared.intake);
        guard.as_mut().map(|intake| intake.decoder.take_trailers()).unwrap_or_default()
    }

    /// The length of the whole body, if all of it has come.
    pub fn length(&self) -> Option<u64> {
        let guard = locked(&self.shared.intake);
        guard.as_ref().filter(|intake| intake.decoder.is_done()).map(|intake| intake.received)
    }

    /// The descriptor that becomes readable when there may be more, and how long the client may take for it; `None`
    /// once the request has been answered.
    pub fn awaited(&self) -> Option<(RawFd, Duration)> {
        let guard = locked(&self.shared.intake);
        let intake = guard.as_ref()?;
        Some((intake.socket.awaited()?, intake.patience()))
    }

    /// Reads all of it, unless it is longer than [`AHEAD`] or broken: then what has been read is there to be read
    /// again, before the rest or the error. Blocks.
    pub(crate) fn read_ahead(&mut self) -> Option<Body> {
        let mut guard = locked(&self.shared.intake);
        let intake = guard.as_mut()?;
        let mut bytes = Vec::new();
        let whole = loop {
            let at = bytes.len();
            bytes.resize(at + PIECE, 0);
            let read = intake.read(bytes.get_mut(at..).unwrap_or_default(), Wait::Until(&self.shared.over));
            bytes.truncate(at + read.unwrap_or(None).unwrap_or(0));
            match read {
                Ok(Some(0)) => break true,
                Ok(_) if bytes.len() <= AHEAD => {}
                _ => break false,
            }
        };
        if whole {
            return Some(Body::whole(bytes, intake.decoder.take_trailers()));
        }
        bytes.extend_from_slice(intake.decoded.get(intake.given..).unwrap_or_default());
        intake.decoded = bytes;
        intake.given = 0;
        None
    }
}

impl Intake {
    /// See [`Lender::leaves_usable`].
    pub(crate) fn leaves_usable(&self) -> bool {
        if self.error.is_some() {
            return false;
        }
        // A client that was never told to go on may send the body or not: the next bytes could be either.
        let short = self.decoder.remaining().is_some_and(|left| left <= self.drain && !self.owes_continue);
        self.decoder.is_done() || short
    }

    /// `None` if nothing has arrived and it was not to wait.
    fn read(&mut self, into: &mut [u8], wait: Wait<'_>) -> Result<Option<usize>, BodyError> {
        if into.is_empty() {
            return Ok(Some(0));
        }
        loop {
            let ready = self.decoded.get(self.given..).unwrap_or_default();
            if !ready.is_empty() {
                let count = ready.len().min(into.len());
                for (to, from) in into.iter_mut().zip(ready) {
                    *to = *from;
                }
                self.given += count;
                return Ok(Some(count));
            }
            if let Some(error) = self.error {
                return Err(error);
            }
            if let Some(spool) = &mut self.spool {
                let count = spool.read(into).map_err(|error| BodyError::Io(error.kind()))?;
                if count > 0 {
                    return Ok(Some(count));
                }
            }
            self.decoded.clear();
            self.given = 0;
            let is_done = self.decoder.is_done();
            let heard = if is_done { self.settle(wait) } else { self.more(into.len(), wait) };
            match heard {
                Ok(true) if is_done => return Ok(Some(0)),
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => {
                    if error != BodyError::Over {
                        self.error = Some(error);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Hears whether trailers follow a complete body; false if the client has not said yet.
    fn settle(&mut self, wait: Wait<'_>) -> Result<bool, BodyError> {
        while !self.settled {
            match self.socket.tail() {
                Poll::Ready(Ok(section)) => {
                    self.settled = true;
                    if !section.is_empty() {
                        self.decoder.read_trailers(&section).map_err(BodyError::Malformed)?;
                    }
                }
                Poll::Ready(Err(_)) => return Err(BodyError::Truncated),
                Poll::Pending if self.pause(wait)? => {}
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Decodes what is here, else reads from the socket; whether there was anything.
    fn more(&mut self, most: usize, wait: Wait<'_>) -> Result<bool, BodyError> {
        if self.at >= self.raw.len() {
            self.raw.clear();
            self.at = 0;
            if !self.receive(wait)? {
                return Ok(false);
            }
        }
        let raw = self.raw.get(self.at..).unwrap_or_default();
        let most = most.clamp(1, PIECE);
        let had = self.decoded.len();
        self.at += self.decoder.decode(raw, &mut self.decoded, most).map_err(BodyError::Malformed)?;
        self.received += (self.decoded.len() - had) as u64;
        Ok(true)
    }

    /// How long the client may take until it has sent more.
    fn patience(&self) -> Duration {
        let deadline = self.pace.deadline(self.timeouts.body, self.timeouts.body_rate);
        deadline.saturating_duration_since(Instant::now())
    }

    fn receive(&mut self, wait: Wait<'_>) -> Result<bool, BodyError> {
        if std::mem::take(&mut self.owes_continue) {
            self.send_continue(wait)?;
        }
        loop {
            match self.socket.recv(&mut self.raw, PIECE) {
                Ok(0) => return Err(BodyError::Truncated),
                Ok(count) => {
                    crate::metrics::note_received(count);
                    self.pace.progress(Instant::now(), count);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.pause(wait)? {
                        return Ok(false);
                    }
                }
                // A TLS session that was cut off rather than ended.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(BodyError::Truncated);
                }
                Err(error) => return Err(BodyError::Io(error.kind())),
            }
        }
    }

    /// Waits a while for the client; false if it is not to wait.
    fn pause(&self, wait: Wait<'_>) -> Result<bool, BodyError> {
        let left = self.patience();
        if left.is_zero() {
            return Err(BodyError::TooSlow);
        }
        let Wait::Until(over) = wait else { return Ok(false) };
        self.socket.wait_readable(left.min(SLICE)).map_err(|error| BodyError::Io(error.kind()))?;
        if over.load(Ordering::Acquire) { Err(BodyError::Over) } else { Ok(true) }
    }

    fn send_continue(&mut self, wait: Wait<'_>) -> Result<(), BodyError> {
        let mut left = CONTINUE;
        let deadline = Instant::now() + self.timeouts.write;
        while !left.is_empty() {
            match self.socket.send(left, false) {
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() > deadline || wait.is_over() {
                        return Err(BodyError::TooSlow);
                    }
                    self.socket.wait_writable(SLICE).map_err(|error| BodyError::Io(error.kind()))?;
                }
                Err(error) => return Err(BodyError::Io(error.kind())),
            }
        }
        Ok(())
    }
}

/// Makes the body of a response piece by piece.
pub trait BodySource: Send {
    /// Appends the next piece to `out`; false when there is none any more. Called detached on a worker, never by two
    /// threads at once; a source that needs the interpreter attaches by itself. A piece goes out as soon as it is
    /// made, and the next is asked for when the client has taken it.
    ///
    /// # Errors
    ///
    /// Whatever went wrong: the connection is cut, so that the client does not take the part for the whole. If nothing
    /// has been sent yet, the client gets a 500 instead.
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, BodyError>;

    /// What follows the last piece, asked for once after it, if [`Reply::trail`](crate::Reply::trail) was called.
    ///
    /// # Errors
    ///
    /// As for [`BodySource::next`].
    fn trailers(&mut self) -> Result<Trailers, BodyError> {
        Ok(Trailers::new())
    }
}
