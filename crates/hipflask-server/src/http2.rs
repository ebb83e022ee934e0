//! HTTP/2 connections (RFC 9113): the `h2` crate, driven by the reactor without a runtime.
//!
//! The leader polls a connection when its socket or one of its streams has something for it. Each request becomes a
//! [`Conn`](crate::conn::Conn) of its own whose transport is the stream (`stream.rs`): it is routed, called, queued, limited
//! and timed as any other. What is here is the connection below them, and its defences.

mod stream;

use std::cell::Cell;
use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake};

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake};
use h2::{Reason, RecvStream};
use hipflask_http::frames::Frames;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) use stream::{Kind, Pipe};

use crate::config::Config;
use crate::transport::Transport;
use crate::waker::Waker;

/// What a client sends first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Where the kind of the first frame stands: behind the preface and the frame's length.
const FIRST_KIND: usize = PREFACE.len() + 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// What a client may send of one body before anybody reads it. 64 KiB.
const WINDOW: u32 = 64 * 1024;
/// What it may send of all bodies. 1 MiB: a fast line needs that much under way.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What a response may have given to `h2` before the client takes it.
const SEND_BUFFER: usize = 64 * 1024;
/// What is read of one connection before the others get their turn.
const SHARE: usize = 256 * 1024;
/// Requests that a client may take back before it counts, and then at most half of them: CVE-2023-44487.
const RESETS: usize = 100;

thread_local! {
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a connection and its streams share.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Requests that are not answered, also those that the client has taken back.
    pub(crate) live: AtomicUsize,
    /// Requests that the client has taken back.
    pub(crate) resets: AtomicUsize,
}

/// What `h2` and the reactor tell each other about the socket.
#[derive(Debug, Default)]
struct Flags {
    readable: AtomicBool,
    ending: AtomicBool,
    blocked: AtomicBool,
    /// The client has sent something.
    begun: AtomicBool,
    /// The code of what is wrong with the client's frames, and the last stream before; no code is 0.
    fault: AtomicU32,
    last_stream: AtomicU32,
    /// What may still be read in this turn.
    left: AtomicUsize,
}

/// Makes the leader look after the connection.
struct ConnWaker {
    waker: Arc<Waker>,
    token: u64,
    woken: AtomicBool,
}

impl Wake for ConnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Many streams have news at once; one look is for all of them.
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.waker.look_after(self.token);
        }
    }
}

/// The socket as `h2` reads and writes it.
struct Io {
    socket: Arc<Transport>,
    flags: Arc<Flags>,
    /// Bytes that were read before it was known what they are.
    first: Vec<u8>,
    /// Bytes given to `h2`, until the first frame is known.
    given: usize,
    frames: Frames,
}

#[allow(clippy::large_enum_variant, reason = "one per connection, in a box, nearly always the larger one")]
enum State {
    Handshake(Handshake<Io, Bytes>),
    Open(Connection<Io, Bytes>),
    Over,
}

/// One connection.
pub(crate) struct Http2 {
    state: State,
    socket: Arc<Transport>,
    flags: Arc<Flags>,
    waker: Arc<ConnWaker>,
    counts: Arc<Counts>,
    accepted: usize,
    most_streams: usize,
    leaving: bool,
}

/// What a look at the connection found.
pub(crate) enum Found {
    /// A request.
    Request(Box<Request<RecvStream>>, h2::server::SendResponse<Bytes>),
    /// Nothing more for now.
    Nothing,
    /// The connection is over; why, if it is worth telling.
    Over(Option<&'static str>),
}

impl Http2 {
    /// Begins with what was read already.
    pub(crate) fn new(
        socket: &Arc<Transport>,
        first: Vec<u8>,
        waker: &Arc<Waker>,
        token: u64,
        config: &Config,
    ) -> Http2 {
        let flags = Arc::new(Flags::default());
        let io = Io {
            socket: Arc::clone(socket),
            flags: Arc::clone(&flags),
            first,
            given: 0,
            frames: Frames::default(),
        };
        let mut builder = Builder::new();
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(config.http2_streams)
            .max_header_list_size(u32::try_from(config.limits.head).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER)
            .enable_connect_protocol();
        Http2 {
            state: State::Handshake(builder.handshake(io)),
            socket: Arc::clone(socket),
            flags,
            waker: Arc::new(ConnWaker { waker: Arc::clone(waker), token, woken: AtomicBool::new(false) }),
            counts: Arc::default(),
            accepted: 0,
            most_streams: config.http2_streams as usize,
            leaving: false,
        }
    }

    /// Tells what the poller has said.
    pub(crate) fn tell(&self, readable: bool, ending: bool) {
        if readable {
            self.flags.readable.store(true, Ordering::Relaxed);
        }
        if ending {
            self.flags.ending.store(true, Ordering::Relaxed);
        }
        self.flags.blocked.store(false, Ordering::Relaxed);
        self.flags.left.store(SHARE, Ordering::Relaxed);
        self.waker.woken.store(false, Ordering::Release);
    }

    /// Whether the socket takes no more for now.
    pub(crate) fn is_blocked(&self) -> bool {
        self.flags.blocked.load(Ordering::Relaxed)
    }

    /// Whether it has had its share and there is more to read.
    pub(crate) fn is_hungry(&self) -> bool {
        self.flags.left.load(Ordering::Relaxed) == 0 && self.flags.readable.load(Ordering::Relaxed)
    }

    /// Whether the client has sent its preface.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether requests are under way.
    pub(crate) fn has_streams(&self) -> bool {
        let open = matches!(&self.state, State::Open(connection) if connection.has_streams());
        open || self.counts.live.load(Ordering::Acquire) > 0
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Goes on as far as socket and streams allow.
    pub(crate) fn look(&mut self) -> Found {
        let task = std::task::Waker::from(Arc::clone(&self.waker));
        let mut context = Context::from_waker(&task);
        loop {
            match &mut self.state {
                State::Handshake(handshake) => match Pin::new(handshake).poll(&mut context) {
                    Poll::Pending => return Found::Nothing,
                    Poll::Ready(Ok(connection)) => self.state = State::Open(connection),
                    Poll::Ready(Err(_)) => {
                        self.state = State::Over;
                        // Browsers open connections ahead that they then do not use.
                        let begun = self.flags.begun.load(Ordering::Relaxed);
                        return Found::Over(begun.then_some("the client does not begin as HTTP/2 does"));
                    }
                },
                State::Open(connection) => match connection.poll_accept(&mut context) {
                    Poll::Pending => return Found::Nothing,
                    Poll::Ready(Some(Ok((request, mut respond)))) => {
                        self.accepted += 1;
                        // A request that was taken back may still run: it counts until it is done.
                        if self.counts.live.load(Ordering::Acquire) >= 2 * self.most_streams {
                            respond.send_reset(Reason::REFUSED_STREAM);
                            continue;
                        }
                        return Found::Request(Box::new(request), respond);
                    }
                    Poll::Ready(Some(Err(error))) => {
                        self.state = State::Over;
                        let protocol = self.tell_fault() || (error.is_go_away() && error.is_library());
                        return Found::Over(protocol.then_some("the client breaks the rules of HTTP/2"));
                    }
                    Poll::Ready(None) => {
                        self.state = State::Over;
                        return Found::Over(None);
                    }
                },
                State::Over => return Found::Over(None),
            }
        }
    }

    /// Tells the client which rule its frames break, if that is known; whether it is. `h2` has ended without a word.
    fn tell_fault(&self) -> bool {
        let code = self.flags.fault.load(Ordering::Relaxed);
        // In the middle of a frame nothing else can be said.
        if code != 0 && !self.is_blocked() {
            let mut frame = vec![0, 0, 8, GOAWAY, 0, 0, 0, 0, 0];
            frame.extend(self.flags.last_stream.load(Ordering::Relaxed).to_be_bytes());
            frame.extend(code.to_be_bytes());
            // The connection ends whether the client hears of it or not.
            drop(self.socket.send(&frame, false));
        }
        code != 0
    }

    /// Whether the client takes back too many of its requests.
    pub(crate) fn is_rushing(&self) -> bool {
        let resets = self.counts.resets.load(Ordering::Relaxed);
        resets > RESETS && resets > self.accepted / 2
    }

    /// Lets the client know that no more requests are served here; those that run are finished.
    pub(crate) fn leave(&mut self) {
        if let State::Open(connection) = &mut self.state
            && !std::mem::replace(&mut self.leaving, true)
        {
            connection.graceful_shutdown();
        }
    }

    /// Ends the connection with a last word.
    pub(crate) fn end(&mut self, reason: Reason) {
        if let State::Open(connection) = &mut self.state {
            connection.abrupt_shutdown(reason);
            for _ in 0..self.most_streams {
                if !matches!(self.look(), Found::Request(..)) {
                    break;
                }
            }
        }
        self.state = State::Over;
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let count = self.first.len().min(buffer.remaining());
            let given: Vec<u8> = self.first.drain(..count).collect();
            if self.first.is_empty() {
                self.first = Vec::new();
            }
            return Poll::Ready(self.check(&given, buffer));
        }
        if self.flags.fault.load(Ordering::Relaxed) != 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if !self.flags.readable.load(Ordering::Relaxed) {
            // The poller's next event wakes the connection.
            return Poll::Pending;
        }
        let left = self.flags.left.load(Ordering::Relaxed);
        let most = buffer.remaining().min(left);
        if most == 0 {
            return Poll::Pending;
        }
        let mut bytes = READ.take();
        bytes.clear();
        let received = loop {
            match self.socket.recv(&mut bytes, most) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received,
            }
        };
        let checked = self.check(&bytes, buffer);
        READ.set(bytes);
        match received {
            Ok(count) => {
                self.flags.left.store(left - count.min(left), Ordering::Relaxed);
                if count > 0
                    && count < most
                    && !self.flags.ending.load(Ordering::Relaxed)
                    && !self.socket.is_over()
                {
                    self.flags.readable.store(false, Ordering::Relaxed);
                }
                Poll::Ready(checked)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.flags.readable.store(false, Ordering::Relaxed);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Io {
    /// Gives `h2` what is in order. The first frame is SETTINGS, or this is not HTTP/2 (RFC 9113 §3.4), which `h2` does
    /// not look at.
    fn check(&mut self, bytes: &[u8], buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let mut watched = bytes;
        if self.given <= FIRST_KIND && !bytes.is_empty() {
            self.flags.begun.store(true, Ordering::Relaxed);
            if bytes.get(FIRST_KIND - self.given).is_some_and(|&kind| kind != SETTINGS) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            watched = bytes.get(PREFACE.len().saturating_sub(self.given)..).unwrap_or_default();
            self.given += bytes.len();
        }
        match self.frames.watch(watched) {
            Ok(()) => buffer.put_slice(bytes),
            Err((at, error)) => {
                self.flags.last_stream.store(self.frames.last_stream(), Ordering::Relaxed);
                self.flags.fault.store(error.code(), Ordering::Relaxed);
                self.first = Vec::new();
                let good = bytes.len() - watched.len() + at;
                if good == 0 {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                // What was asked for before is answered or not as `h2` gets to it; the rest is not read.
                buffer.put_slice(bytes.get(..good).unwrap_or_default());
            }
        }
        Ok(())
    }

    fn settle<T>(&self, result: io::Result<T>) -> Poll<io::Result<T>> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.flags.blocked.store(true, Ordering::Relaxed);
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.settle(self.socket.send(bytes, false))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.settle(self.socket.send_slices(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.settle(self.socket.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.farewell();
        Poll::Ready(Ok(()))
    }
}
