//! One request and its response on an HTTP/2 connection, with the interface of a socket.
//!
//! What the rest of the engine writes is an HTTP/1.1 response that ends with its connection: the head is read back into
//! fields, what follows goes out as DATA; a body in chunks, which only responses with trailers have, is taken out of
//! them. What it reads is the body, framed as the request's head says. Any thread may use it, one at a time; nothing
//! here waits but [`Pipe::wait`].
//!
//! An extended CONNECT (RFC 8441) makes it a tunnel: the 101 that opens a WebSocket goes out as 200, the end of the
//! stream is the end of the connection, and CANCEL is its reset (§5).

use std::fmt;
use std::io;
use std::io::Write as _;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use hipflask_http::BodyDecoder;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::Counts;
use crate::locked;
use crate::sys::Bell;
use crate::waker::Waker;

/// What is given to `h2` at once.
const CHUNK: usize = 32 * 1024;
/// What ends a head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A stream in the place of a socket.
pub(crate) struct Pipe {
    state: Mutex<State>,
    call: Arc<Call>,
    task: std::task::Waker,
    counts: Arc<Counts>,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe")
    }
}

/// Tells the leader, and a thread that waits for the body, that something has happened.
struct Call {
    waker: Arc<Waker>,
    token: AtomicU64,
    happened: Mutex<bool>,
    changed: Condvar,
    /// For those who wait with a poller of their own.
    bell: OnceLock<Bell>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *locked(&self.happened) = true;
        self.changed.notify_all();
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
        self.waker.look_after(self.token.load(Ordering::Acquire));
    }
}

/// What a request wants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A response.
    Ordinary,
    /// The head of one.
    Head,
    /// A connection of another protocol.
    Tunnel,
}

/// How far the response has come.
enum Out {
    /// Nothing has been sent.
    Head(SendResponse<Bytes>),
    /// The head has; the body has so many bytes left, if that is known.
    Body(SendStream<Bytes>, Option<u64>),
    /// All of it; or it was cut off.
    Over,
}

struct State {
    body: RecvStream,
    /// The body's length is not known, so chunks are written around it.
    chunked: bool,
    /// Read from the stream, and not asked for yet: those from `given` on.
    ready: Vec<u8>,
    given: usize,
    /// The body has ended, well or not.
    ended: bool,
    broken: bool,
    /// The trailer section, of a body whose length is known.
    tail: Vec<u8>,
    out: Out,
    /// Takes the response's body out of its chunks.
    unchunk: Option<Box<BodyDecoder>>,
    kind: Kind,
    /// The other protocol has begun.
    open_tunnel: bool,
    reset: bool,
}

impl Pipe {
    pub(crate) fn new(
        body: RecvStream,
        respond: SendResponse<Bytes>,
        (chunked, kind): (bool, Kind),
        waker: &Arc<Waker>,
        counts: &Arc<Counts>,
    ) -> Pipe {
        let call = Arc::new(Call {
            waker: Arc::clone(waker),
            token: AtomicU64::new(u64::MAX),
            happened: Mutex::new(false),
            changed: Condvar::new(),
            bell: OnceLock::new(),
        });
        counts.live.fetch_add(1, Ordering::AcqRel);
        Pipe {
            state: Mutex::new(State {
                body,
                chunked,
                ready: Vec::new(),
                given: 0,
                ended: false,
                broken: false,
                tail: Vec::new(),
                out: Out::Head(respond),
                unchunk: None,
                kind,
                open_tunnel: false,
                reset: false,
            }),
            task: std::task::Waker::from(Arc::clone(&call)),
            call,
            counts: Arc::clone(counts),
        }
    }

    /// Says by which name the leader knows it.
    pub(crate) fn name(&self, token: u64) {
        self.call.token.store(token, Ordering::Release);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Whether the client has taken the request back; if not, the leader is told when it does.
    pub(crate) fn watch(&self) -> bool {
        let mut context = Context::from_waker(&self.task);
        let mut state = self.state();
        let reset = match &mut state.out {
            Out::Head(respond) => respond.poll_reset(&mut context).is_ready(),
            Out::Body(stream, _) => stream.poll_reset(&mut context).is_ready(),
            Out::Over => false,
        };
        state.reset |= reset;
        reset
    }

    /// See [`Transport::awaited`](crate::transport::Transport::awaited).
    pub(crate) fn awaited(&self) -> Option<RawFd> {
        if let Some(bell) = self.call.bell.get() {
            return Some(bell.as_raw_fd());
        }
        let bell = self.call.bell.get_or_init(Bell::new().ok().map(|bell| || bell)?);
        // Something may have happened before there was a bell.
        bell.ring();
        Some(bell.as_raw_fd())
    }

    pub(crate) fn recv(&self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let mut context = Context::from_waker(&self.task);
        let mut state = self.state();
        if let Some(bell) = self.call.bell.get() {
            bell.quiet();
        }
        let before = into.len();
        loop {
            let ready = state.ready.get(state.given..).unwrap_or_default();
            let count = ready.len().min(most - (into.len() - before));
            into.extend_from_slice(ready.get(..count).unwrap_or_default());
            state.given += count;
            if into.len() - before >= most || state.ended {
                break;
            }
            state.ready.clear();
            state.given = 0;
            if !state.more(&mut context) {
                break;
            }
        }
        match into.len() - before {
            0 if state.broken => Err(io::ErrorKind::UnexpectedEof.into()),
            0 if state.ended => Ok(0),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    /// See [`Transport::tail`](crate::transport::Transport::tail).
    pub(crate) fn tail(&self) -> Poll<io::Result<Vec<u8>>> {
        let mut context = Context::from_waker(&self.task);
        let mut state = self.state();
        if state.chunked {
            // It stands behind the chunks.
            return Poll::Ready(Ok(Vec::new()));
        }
        if let Some(bell) = self.call.bell.get() {
            bell.quiet();
        }
        while !state.ended {
            if !state.more(&mut context) {
                return Poll::Pending;
            }
        }
        if state.broken {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(Ok(state.tail.clone()))
    }

    /// Whether a read ends or fails now.
    pub(crate) fn is_over(&self) -> bool {
        self.state().ended
    }

    /// See [`Transport::send`](crate::transport::Transport::send).
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut context = Context::from_waker(&self.task);
        let mut state = self.state();
        let mut used = 0;
        while let Out::Head(_) = state.out {
            let rest = bytes.get(used..).unwrap_or_default();
            let Some(end) = rest.windows(HEAD_END.len()).position(|window| window == HEAD_END) else {
                // The engine writes a head in one piece.
                return if used > 0 { Ok(used) } else { Err(io::ErrorKind::BrokenPipe.into()) };
            };
            let head = rest.get(..end).unwrap_or_default();
            used += end + HEAD_END.len();
            state.send_head(head, &mut context)?;
        }
        let rest = bytes.get(used..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(used);
        }
        match state.send_body(rest, &mut context) {
            Ok(count) => Ok(used + count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && used > 0 => Ok(used),
            Err(error) => Err(error),
        }
    }

    /// Ends the response where its body is whole, and cuts it off where it is not.
    pub(crate) fn finish(&self) {
        let mut state = self.state();
        let is_cut = state.unchunk.is_some();
        match &mut state.out {
            Out::Head(respond) => respond.send_reset(Reason::INTERNAL_ERROR),
            Out::Body(stream, None | Some(0)) if !is_cut => {
                if stream.send_data(Bytes::new(), true).is_err() {
                    stream.send_reset(Reason::INTERNAL_ERROR);
                    state.reset = true;
                }
            }
            Out::Body(stream, _) => stream.send_reset(Reason::INTERNAL_ERROR),
            Out::Over => {}
        }
        state.out = Out::Over;
        // What the other end of a tunnel says last is heard, as on a socket.
        state.ended |= !state.open_tunnel;
    }

    /// Cuts the response off.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        let reason = if state.kind == Kind::Tunnel { Reason::CANCEL } else { Reason::INTERNAL_ERROR };
        match &mut state.out {
            Out::Head(respond) => respond.send_reset(reason),
            Out::Body(stream, _) => stream.send_reset(reason),
            Out::Over => {}
        }
        state.out = Out::Over;
        state.ended = true;
        state.broken = true;
    }

    /// Blocks until something has happened, at most so long; whether it has.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let happened = locked(&self.call.happened);
        let (mut happened, _) = self
            .call
            .changed
            .wait_timeout_while(happened, timeout, |happened| !*happened)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut happened)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.counts.live.fetch_sub(1, Ordering::AcqRel);
        if self.state().reset {
            self.counts.resets.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl State {
    /// Reads the next piece of the body; false if there is none yet.
    fn more(&mut self, context: &mut Context<'_>) -> bool {
        match self.body.poll_data(context) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(bytes))) => {
                // What is asked for is taken: the client may send as much again.
                let _ = self.body.flow_control().release_capacity(bytes.len());
                if !self.chunked {
                    self.ready.extend_from_slice(&bytes);
                } else if !bytes.is_empty() {
                    // A vector takes whatever is written.
                    let _ = write!(self.ready, "{:x}\r\n", bytes.len());
                    self.ready.extend_from_slice(&bytes);
                    self.ready.extend_from_slice(b"\r\n");
                }
            }
            Poll::Ready(Some(Err(_))) => {
                self.ended = true;
                self.broken = true;
                self.reset = true;
            }
            Poll::Ready(None) => {
                let trailers = match self.body.poll_trailers(context) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(trailers)) => trailers,
                    Poll::Ready(Err(_)) => {
                        self.broken = true;
                        None
                    }
                };
                self.ended = true;
                if self.chunked && !self.broken {
                    self.ready.extend_from_slice(b"0\r\n");
                    write_section(trailers.as_ref(), &mut self.ready);
                } else if let Some(trailers) = trailers {
                    write_section(Some(&trailers), &mut self.tail);
                }
                // Handed out by the next turn of the reader's loop, which stops at the end.
            }
        }
        true
    }

    /// Sends a head that the engine has written.
    fn send_head(&mut self, head: &[u8], context: &mut Context<'_>) -> io::Result<()> {
        let mut lines =
            head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let status = lines.next().and_then(|line| line.get(9..12)).ok_or_else(broken)?;
        let status = StatusCode::from_bytes(status).map_err(|_| broken())?;
        let opens = status == StatusCode::SWITCHING_PROTOCOLS;
        let status = match self.kind {
            Kind::Tunnel if opens => StatusCode::OK,
            // The client would take it for an open tunnel (RFC 9110 §9.3.6).
            Kind::Tunnel if status.is_success() => StatusCode::BAD_REQUEST,
            _ if opens => return Err(broken()),
            _ => status,
        };
        let mut response = Response::new(());
        *response.status_mut() = status;
        let mut length = None;
        for line in lines {
            let colon = memchr(b':', line).ok_or_else(broken)?;
            let (name, value) = line.split_at(colon);
            let value = value.get(2..).unwrap_or_default();
            let name = HeaderName::from_bytes(name).map_err(|_| broken())?;
            if name == http::header::TRANSFER_ENCODING {
                self.unchunk = Some(Box::new(BodyDecoder::of_response()));
            }
            if matches!(
                name.as_str(),
                "connection" | "keep-alive" | "transfer-encoding" | "upgrade" | "proxy-connection"
            ) {
                continue;
            }
            if name == http::header::CONTENT_LENGTH {
                length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            }
            let value = HeaderValue::from_bytes(value).map_err(|_| broken())?;
            response.headers_mut().append(name, value);
        }
        let Out::Head(respond) = &mut self.out else { return Ok(()) };
        if status.is_informational() {
            // `h2` would send it behind a reset (RFC 9113 §5.1).
            if respond.poll_reset(context).is_ready() {
                self.reset = true;
                return Err(broken());
            }
            return respond.send_informational(response).map_err(|_| broken());
        }
        let is_empty = length == Some(0) && self.unchunk.is_none();
        let bare = self.kind == Kind::Head || matches!(status.as_u16(), 204 | 205 | 304) || is_empty;
        let stream = respond.send_response(response, bare).map_err(|_| broken())?;
        self.open_tunnel = opens;
        if bare {
            self.unchunk = None;
        }
        self.out = if bare { Out::Over } else { Out::Body(stream, length) };
        Ok(())
    }

    /// Sends as much of a body as the client takes.
    fn send_body(&mut self, bytes: &[u8], context: &mut Context<'_>) -> io::Result<usize> {
        if self.unchunk.is_some() {
            return self.send_chunks(bytes, context);
        }
        let wanted = bytes.len().min(CHUNK);
        self.wait_for_room(wanted, context)?;
        let Out::Body(stream, left) = &mut self.out else { return Err(broken()) };
        let count = wanted.min(stream.capacity());
        let piece = bytes.get(..count).unwrap_or_default();
        let rest = left.map(|left| left.saturating_sub(count as u64));
        let is_last = rest == Some(0);
        if stream.send_data(Bytes::copy_from_slice(piece), is_last).is_err() {
            self.reset = true;
            return Err(broken());
        }
        *left = rest;
        if is_last {
            self.out = Out::Over;
        }
        Ok(count)
    }

    /// Has room for so many bytes, or fewer, or says by `WouldBlock` that there is none.
    fn wait_for_room(&mut self, wanted: usize, context: &mut Context<'_>) -> io::Result<()> {
        let Out::Body(stream, _) = &mut self.out else { return Err(broken()) };
        stream.reserve_capacity(wanted);
        while stream.capacity() == 0 {
            match stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => {
                    self.reset = true;
                    return Err(broken());
                }
                Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
        Ok(())
    }

    /// As [`State::send_body`], of a body in chunks: what is in them goes out, and what follows them as trailers.
    fn send_chunks(&mut self, bytes: &[u8], context: &mut Context<'_>) -> io::Result<usize> {
        let mut used = 0;
        let mut data = Vec::new();
        loop {
            let (Out::Body(stream, left), Some(decoder)) = (&mut self.out, &mut self.unchunk) else {
                return Err(broken());
            };
            let rest = bytes.get(used..).unwrap_or_default();
            let room = stream.capacity().min(CHUNK);
            data.clear();
            // The engine has written the chunks; of the framing as much is taken as there is, whatever the room.
            used += decoder.decode(rest, &mut data, room).map_err(|_| broken())?;
            let mut failed = false;
            if !data.is_empty() {
                let fits = left.is_none_or(|left| data.len() as u64 <= left);
                *left = left.map(|left| left.saturating_sub(data.len() as u64));
                failed = !fits || stream.send_data(Bytes::copy_from_slice(&data), false).is_err();
            }
            if decoder.is_done() && !failed {
                failed |= left.is_some_and(|left| left > 0);
                let trailers = headers_of(decoder);
                failed |= match trailers {
                    _ if failed => true,
                    None => true,
                    Some(trailers) if trailers.is_empty() => stream.send_data(Bytes::new(), true).is_err(),
                    Some(trailers) => stream.send_trailers(trailers).is_err(),
                };
                if !failed {
                    self.out = Out::Over;
                    self.unchunk = None;
                    return Ok(used);
                }
            }
            if failed {
                self.reset = true;
                return Err(broken());
            }
            if used >= bytes.len() {
                return Ok(used);
            }
            match self.wait_for_room(bytes.len() - used, context) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && used > 0 => return Ok(used),
                Err(error) => return Err(error),
            }
        }
    }
}

fn broken() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

/// A trailer section as HTTP/1.1 has it.
fn write_section(trailers: Option<&HeaderMap>, out: &mut Vec<u8>) {
    for (name, value) in trailers.into_iter().flatten() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The trailers that have been decoded.
fn headers_of(decoder: &BodyDecoder) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in decoder.trailers() {
        headers.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}

fn memchr(needle: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == needle)
}
