//! Responses and upgraded connections that any thread feeds, at any time, without a thread held by them.
//!
//! An [`Outlet`] is a queue of [`Piece`]s between whoever makes bytes and the connection that sends them. Giving a
//! piece is a push and, if the connection was quiet, a token in the leader's inbox; however many connections get a
//! piece, it is made once, and a leader that sleeps is woken once. `outflow.rs` has the connection's end.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hipflask_http::response::BodyFraming;
use hipflask_http::{Trailers, trailer};

use crate::locked;
use crate::task::Runner;
use crate::waker::Waker;

mod coded;

use coded::Coder;
pub(crate) use coded::Delegate;

/// What ends a chunk, and what ends a body in chunks without trailers.
const CHUNK_END: &[u8] = b"\r\n";
const BODY_END: &[u8] = b"0\r\n\r\n";
/// Room for a chunk's size in hexadecimal and the line's end.
const CHUNK_HEAD: usize = 18;

/// Bytes to be sent, made once for any number of outlets: a clone shares them.
#[derive(Clone)]
pub struct Piece {
    bytes: Arc<Vec<u8>>,
    /// Where the payload begins; before it stands the head of a chunk, and behind it the chunk's end.
    begin: usize,
    framed: bool,
}

impl Piece {
    /// A piece that can be sent in any framing without being copied again.
    pub fn new(payload: &[u8]) -> Piece {
        Piece::join(&[payload])
    }

    /// As [`Piece::new`], of a payload that lies in several places.
    pub fn join(parts: &[&[u8]]) -> Piece {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut bytes = Vec::with_capacity(length + CHUNK_HEAD + CHUNK_END.len());
        // Writing to a vector cannot fail.
        let _ = write!(bytes, "{length:x}\r\n");
        let begin = bytes.len();
        for part in parts {
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(CHUNK_END);
        Piece { bytes: Arc::new(bytes), begin, framed: true }
    }

    /// The bytes, without any framing.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.begin..self.end()).unwrap_or_default()
    }

    fn end(&self) -> usize {
        self.bytes.len() - if self.framed { CHUNK_END.len() } else { 0 }
    }

    fn length(&self) -> usize {
        self.end() - self.begin
    }

    /// The payload as it goes out, cut to so many bytes.
    fn plain(self, most: u64) -> Slice {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.length());
        Slice { from: self.begin, to: self.begin + most, bytes: self.bytes }
    }

    /// The whole chunk.
    fn chunk(self) -> Slice {
        let piece = if self.framed { self } else { Piece::new(self.payload()) };
        Slice { from: 0, to: piece.bytes.len(), bytes: piece.bytes }
    }
}

/// Takes the bytes as they are: nothing is copied, unless they are sent in chunks.
impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Piece {
        Piece { bytes: Arc::new(bytes), begin: 0, framed: false }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("length", &self.length()).finish()
    }
}

/// A part of shared bytes that is still to be sent.
pub(crate) struct Slice {
    bytes: Arc<Vec<u8>>,
    from: usize,
    to: usize,
}

impl Slice {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.from..self.to).unwrap_or_default()
    }

    pub(crate) fn length(&self) -> usize {
        self.to - self.from
    }

    /// Marks bytes as sent.
    pub(crate) fn skip(&mut self, count: usize) {
        self.from = (self.from + count).min(self.to);
    }
}

/// Why an outlet did not take a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutletError {
    /// The client has gone, the response is complete, or the server has ended it: nothing can be sent any more.
    Gone,
    /// The client has not yet taken what was given before: [`Config::outlet_queue`](crate::Config::outlet_queue).
    Full,
}

impl fmt::Display for OutletError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OutletError::Gone => "the connection is no longer there",
            OutletError::Full => "the client does not take what was sent before",
        })
    }
}

impl std::error::Error for OutletError {}

/// The protocol of a connection after `101 Switching Protocols`.
///
/// Its methods are called by the leader, detached, one at a time: they must not block.
pub trait Upgraded: Send {
    /// Takes what it can of `input`, from the front. What it leaves is there again, with more behind it, the next time.
    /// No more is read while 64 KiB are left, or after [`Outlet::pause_reading`].
    ///
    /// Returns whether to go on: if not, the connection ends when all that was sent is out.
    fn receive(&mut self, input: &mut Vec<u8>, outlet: &Outlet) -> bool;

    /// Called at the beginning, and again whenever the time that it gave has passed; not any more after `None`.
    fn tick(&mut self, outlet: &Outlet) -> Option<Duration> {
        let _ = outlet;
        None
    }

    /// The server begins to stop. Called once; what the protocol has to say it says now, and then finishes.
    fn stops(&mut self, outlet: &Outlet) {
        let _ = outlet;
    }

    /// The connection is over, in whatever way. Called once.
    fn gone(&mut self);
}

/// Where a response's body, or what an upgraded connection sends, goes in. Its clones are the same outlet.
///
/// When the last clone is dropped before [`Outlet::finish`], a response counts as aborted.
pub struct Outlet(Arc<Shared>);

/// What an outlet and its connection share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// For threads in [`Outlet::wait_below`].
    sent: Condvar,
    /// How many [`Outlet`]s there are.
    handles: AtomicUsize,
}

/// How pieces are framed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Chunked,
    /// So many bytes are still to come.
    Length(u64),
    /// As they are.
    Plain,
}

/// How far an outlet has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Takes pieces.
    Open,
    /// Has taken the last one.
    Finishing,
    /// The connection is to be cut.
    Aborting,
    /// Nothing goes out any more; whether all did.
    Over(bool),
}

struct State {
    queue: VecDeque<Slice>,
    /// Bytes given and not yet taken by the client.
    queued: usize,
    most: usize,
    framing: Framing,
    stage: Stage,
    /// Its connection, once the response's head is complete.
    place: Option<(Arc<Waker>, u64)>,
    /// The leader knows that something has changed and has not looked yet.
    woken: bool,
    upgraded: bool,
    paused: bool,
    resumed: bool,
    /// Threads in `wait_below`.
    waiting: usize,
    /// Present if the body is compressed.
    coder: Option<Box<Coder>>,
    extras: Option<Box<Extras>>,
}

type Call = Box<dyn FnOnce() + Send>;
type EndCall = Box<dyn FnOnce(bool) + Send>;

/// What most outlets do without.
#[derive(Default)]
struct Extras {
    heartbeat: Option<(Duration, Piece)>,
    farewell: Option<Piece>,
    below: Vec<(usize, Call)>,
    ends: Vec<EndCall>,
}

/// What the connection learns when it looks.
pub(crate) struct Look {
    pub(crate) stage: Stage,
    pub(crate) paused: bool,
    pub(crate) resumed: bool,
    pub(crate) heartbeat: Option<Duration>,
    /// Somebody waits for less to be queued than there is already.
    pub(crate) owes_call: bool,
}

impl Outlet {
    /// An outlet of which nothing has been connected yet; `framing` is that of a finished head.
    pub(crate) fn new(framing: BodyFraming, most: usize, upgraded: bool) -> Outlet {
        let (framing, stage) = match framing {
            BodyFraming::None if !upgraded => (Framing::Plain, Stage::Over(true)),
            BodyFraming::None | BodyFraming::Close => (Framing::Plain, Stage::Open),
            BodyFraming::Length(length) => (Framing::Length(length), Stage::Open),
            BodyFraming::Chunked => (Framing::Chunked, Stage::Open),
        };
        Outlet(Arc::new(Shared {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                queued: 0,
                most,
                framing,
                stage,
                place: None,
                woken: false,
                upgraded,
                paused: false,
                resumed: false,
                waiting: 0,
                coder: None,
                extras: None,
            }),
            sent: Condvar::new(),
            handles: AtomicUsize::new(1),
        }))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Queues a piece. Never blocks; goes out without the caller. Of a body with a length, what is too much is left
    /// out.
    ///
    /// # Errors
    ///
    /// See [`OutletError`]. An outlet of which nothing waits takes a piece of any size.
    pub fn send(&self, piece: Piece) -> Result<(), OutletError> {
        let mut state = self.0.lock();
        if !state.is_open() {
            return Err(OutletError::Gone);
        }
        if state.queued > 0 && state.queued.saturating_add(piece.length()) > state.most {
            return Err(OutletError::Full);
        }
        state.push(piece);
        self.0.wake(state);
        Ok(())
    }

    /// As [`Outlet::send`], however much waits already: for those who look at [`Outlet::queued`] before.
    ///
    /// # Errors
    ///
    /// Nothing can be sent any more.
    pub fn give(&self, piece: Piece) -> Result<(), OutletError> {
        let mut state = self.0.lock();
        if !state.is_open() {
            return Err(OutletError::Gone);
        }
        state.push(piece);
        self.0.wake(state);
        Ok(())
    }

    /// Sets how many bytes may wait for the client, instead of [`Config::outlet_queue`](crate::Config::outlet_queue).
    pub fn limit(&self, bytes: usize) {
        self.0.lock().most = bytes;
    }

    /// Whether it still takes pieces.
    pub fn is_open(&self) -> bool {
        self.0.lock().is_open()
    }

    /// Bytes that the client has not yet taken.
    pub fn queued(&self) -> usize {
        self.0.lock().queued
    }

    /// Waits, for at most so long, until the client has taken all but so many bytes; whether it has. Call it detached,
    /// and not before the response has been handed to the engine.
    ///
    /// # Errors
    ///
    /// The client has gone.
    pub fn wait_below(&self, bytes: usize, most: Duration) -> Result<bool, OutletError> {
        let deadline = Instant::now().checked_add(most);
        let mut state = self.0.lock();
        loop {
            if matches!(state.stage, Stage::Over(_) | Stage::Aborting) {
                return Err(OutletError::Gone);
            }
            if state.queued <= bytes {
                return Ok(true);
            }
            let left = deadline.map_or(most, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(false);
            }
            state.waiting += 1;
            state = self.0.sent.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
    }

    /// Calls a function once, when the client has taken all but so many bytes, or when there is nothing to wait for
    /// any more. It is called by a thread of the engine, detached, and must not block; only for an outlet that is over
    /// already it is called at once.
    pub fn notify_below(&self, bytes: usize, call: Box<dyn FnOnce() + Send>) {
        let mut state = self.0.lock();
        if matches!(state.stage, Stage::Over(_)) {
            drop(state);
            return call();
        }
        state.extras().below.push((bytes, call));
        self.0.wake(state);
    }

    /// Calls a function when the client goes or the server cuts the connection, before all was sent. The same rules
    /// hold as for [`Outlet::notify_below`].
    pub fn on_gone(&self, call: Box<dyn FnOnce() + Send>) {
        self.on_end(Box::new(|complete| {
            if !complete {
                call();
            }
        }));
    }

    /// Calls a function when nothing goes out any more, with whether all has been handed to the kernel. The same rules
    /// hold as for [`Outlet::notify_below`].
    pub fn on_end(&self, call: Box<dyn FnOnce(bool) + Send>) {
        let mut state = self.0.lock();
        if let Stage::Over(complete) = state.stage {
            drop(state);
            return call(complete);
        }
        state.extras().ends.push(call);
    }

    /// Nothing more will be sent: the body is complete. An upgraded connection ends when all is out.
    pub fn finish(&self) {
        self.finish_with(&Trailers::new());
    }

    /// As [`Outlet::finish`]; these fields follow the body, if [`Reply::trail`](crate::Reply::trail) was called.
    pub fn finish_with(&self, trailers: &Trailers) {
        let mut state = self.0.lock();
        if state.is_open() {
            state.finish(trailers);
            self.0.wake(state);
        }
    }

    /// Cuts the connection, so that the client cannot take what it got for the whole.
    pub fn abort(&self) {
        let mut state = self.0.lock();
        if matches!(state.stage, Stage::Open | Stage::Finishing) {
            state.stage = Stage::Aborting;
            self.0.wake(state);
        }
    }

    /// Sends a piece whenever nothing else was sent for so long. Costs a timer of the engine, nothing else.
    pub fn heartbeat(&self, every: Duration, piece: Piece) {
        let mut state = self.0.lock();
        if !matches!(state.stage, Stage::Over(_)) {
            state.extras().heartbeat = Some((every, piece));
            self.0.wake(state);
        }
    }

    /// What is sent last when the server begins to stop; the response is then complete.
    pub fn farewell(&self, piece: Piece) {
        let mut state = self.0.lock();
        if !matches!(state.stage, Stage::Over(_)) {
            state.extras().farewell = Some(piece);
            self.0.wake(state);
        }
    }

    /// What runs tasks for this connection, once it is connected.
    pub fn runner(&self) -> Option<Runner> {
        self.0.lock().place.as_ref().map(|(waker, _)| Runner::new(waker))
    }

    /// Reads no more from an upgraded connection: the client has to wait.
    pub fn pause_reading(&self) {
        self.0.lock().paused = true;
    }

    /// Reads again, beginning with what [`Upgraded::receive`] has left.
    pub fn resume_reading(&self) {
        let mut state = self.0.lock();
        state.resumed |= std::mem::take(&mut state.paused);
        if state.resumed {
            self.0.wake(state);
        }
    }
}

impl Clone for Outlet {
    fn clone(&self) -> Outlet {
        self.0.handles.fetch_add(1, Ordering::Relaxed);
        Outlet(Arc::clone(&self.0))
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if self.0.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut state = self.0.lock();
            if state.is_open() && !state.upgraded {
                state.stage = Stage::Aborting;
                self.0.wake(state);
            }
        }
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Outlet").field("queued", &state.queued).field("stage", &state.stage).finish()
    }
}

impl State {
    fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_with(Box::default)
    }

    /// Whether it takes pieces.
    fn is_open(&self) -> bool {
        self.stage == Stage::Open && !self.coder.as_ref().is_some_and(|coder| coder.is_finishing())
    }

    fn push(&mut self, piece: Piece) {
        match &mut self.coder {
            Some(coder) => self.queued += coder.take(piece),
            None => self.queue(piece),
        }
    }

    /// Adds what goes out.
    fn queue(&mut self, piece: Piece) {
        let slice = match &mut self.framing {
            // An empty chunk would end the body.
            _ if piece.length() == 0 => return,
            Framing::Length(0) => return,
            Framing::Chunked => piece.chunk(),
            Framing::Plain => piece.plain(u64::MAX),
            Framing::Length(left) => {
                let slice = piece.plain(*left);
                *left -= slice.length() as u64;
                slice
            }
        };
        self.queued += slice.length();
        self.queue.push_back(slice);
    }

    fn finish(&mut self, trailers: &Trailers) {
        if let Some(coder) = &mut self.coder {
            if !coder.finish() {
                self.stage = Stage::Aborting;
            }
            return;
        }
        self.stage = match self.framing {
            Framing::Length(left) if left > 0 => Stage::Aborting,
            _ => Stage::Finishing,
        };
        if self.framing == Framing::Chunked {
            let mut end = Vec::new();
            trailer::write_end(&mut end, trailers.iter().map(|(name, value)| (&name[..], &value[..])));
            let end = Piece::from(end).plain(u64::MAX);
            self.queued += end.length();
            self.queue.push_back(end);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Lets the leader look, unless it is about to; and a worker, if there is something to compress.
    fn wake(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let place = match &state.place {
            Some((waker, token)) if !state.woken => Some((Arc::clone(waker), *token)),
            _ => None,
        };
        state.woken |= place.is_some();
        self.delegate(state);
        if let Some((waker, token)) = place {
            waker.look_after(token);
        }
    }

    /// Tells where the connection is. What was given before goes out at its next step.
    pub(crate) fn connect(&self, waker: &Arc<Waker>, token: u64) {
        self.lock().place = Some((Arc::clone(waker), token));
    }

    /// Whether anything waits to go out that has not been looked at.
    pub(crate) fn has_queued(&self) -> bool {
        !self.lock().queue.is_empty()
    }

    /// Moves what was given behind `going`.
    pub(crate) fn look(&self, going: &mut VecDeque<Slice>) -> Look {
        let mut state = self.lock();
        state.woken = false;
        if going.is_empty() {
            std::mem::swap(going, &mut state.queue);
        } else {
            going.append(&mut state.queue);
        }
        let mut look = Look {
            stage: state.stage,
            paused: state.paused,
            resumed: std::mem::take(&mut state.resumed),
            heartbeat: None,
            owes_call: false,
        };
        if let Some(extras) = &state.extras {
            look.heartbeat = extras.heartbeat.as_ref().map(|(every, _)| *every);
            look.owes_call = extras.below.iter().any(|(bytes, _)| state.queued <= *bytes);
        }
        look
    }

    /// Counts bytes out that the client has taken, and tells those who wait for it. Detached.
    pub(crate) fn took(&self, count: usize) {
        let mut state = self.lock();
        state.queued = state.queued.saturating_sub(count);
        if state.waiting > 0 {
            self.sent.notify_all();
        }
        let queued = state.queued;
        let Some(extras) = &mut state.extras else { return };
        let mut calls = Vec::new();
        for at in (0..extras.below.len()).rev() {
            if extras.below.get(at).is_some_and(|(bytes, _)| queued <= *bytes) {
                calls.push(extras.below.swap_remove(at).1);
            }
        }
        drop(state);
        calls.into_iter().for_each(guarded);
    }

    /// Queues the heartbeat's piece.
    pub(crate) fn beat(self: &Arc<Self>) {
        let mut state = self.lock();
        let heartbeat = state.extras.as_ref().and_then(|extras| extras.heartbeat.as_ref());
        if let Some((_, piece)) = heartbeat
            && state.is_open()
            && state.queued == 0
        {
            let piece = piece.clone();
            state.push(piece);
            self.delegate(state);
        }
    }

    /// The server stops: says what was to be said then, and ends.
    pub(crate) fn say_farewell(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.is_open()
            && let Some(piece) = state.extras.as_mut().and_then(|extras| extras.farewell.take())
        {
            state.push(piece);
            state.finish(&Trailers::new());
            self.delegate(state);
        }
    }

    /// Ends it, and tells those who wait for that. Detached.
    pub(crate) fn end(&self, complete: bool) {
        let mut state = self.lock();
        state.stage = Stage::Over(complete);
        state.place = None;
        state.queued = 0;
        let dropped = (std::mem::take(&mut state.queue), state.coder.take());
        let extras = state.extras.take();
        drop(state);
        self.sent.notify_all();
        drop(dropped);
        if let Some(extras) = extras {
            extras.below.into_iter().for_each(|(_, call)| guarded(call));
            extras.ends.into_iter().for_each(|call| guarded(|| call(complete)));
        }
    }
}

/// Calls a function that is not the engine's own: what is wrong in it must not hurt other connections.
fn guarded(call: impl FnOnce()) {
    drop(catch_unwind(AssertUnwindSafe(call)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(outlet: &Outlet) -> Vec<u8> {
        let mut going = VecDeque::new();
        outlet.shared().look(&mut going);
        going.iter().flat_map(|slice| slice.bytes().to_vec()).collect()
    }

    #[test]
    fn one_piece_goes_out_in_every_framing() {
        let cases: [(BodyFraming, &[u8]); 3] = [
            (BodyFraming::Chunked, b"5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n"),
            (BodyFraming::Length(8), b"hellohel"),
            (BodyFraming::Close, b"hellohello"),
        ];
        for (framing, expected) in cases {
            let outlet = Outlet::new(framing, 100, false);
            for piece in [Piece::join(&[b"hel", b"lo"]), Piece::from(b"hello".to_vec()), Piece::new(b"")] {
                assert_eq!(outlet.send(piece), Ok(()));
            }
            outlet.finish();
            assert_eq!(sent(&outlet), expected);
            assert_eq!(outlet.send(Piece::new(b"late")), Err(OutletError::Gone));
        }
    }

    #[test]
    fn shared_bytes_are_not_copied() {
        let piece = Piece::new(b"event");
        let outlets: Vec<_> = (0..3).map(|_| Outlet::new(BodyFraming::Chunked, 100, false)).collect();
        for outlet in &outlets {
            assert_eq!(outlet.send(piece.clone()), Ok(()));
        }
        assert_eq!(Arc::strong_count(&piece.bytes), 4);
    }

    #[test]
    fn a_queue_is_bounded_but_takes_one_piece_of_any_size() {
        let outlet = Outlet::new(BodyFraming::Close, 10, false);
        assert_eq!(outlet.send(Piece::new(&[0; 50])), Ok(()));
        assert_eq!(outlet.send(Piece::new(b"x")), Err(OutletError::Full));
        assert_eq!(outlet.queued(), 50);
        outlet.shared().took(45);
        assert_eq!(outlet.send(Piece::new(b"12345")), Ok(()));
        assert_eq!(outlet.send(Piece::new(b"6")), Err(OutletError::Full));
    }

    #[test]
    fn those_who_wait_are_told_once_and_at_the_end() {
        let told = Arc::new(AtomicUsize::new(0));
        let outlet = Outlet::new(BodyFraming::Close, 100, false);
        assert_eq!(outlet.send(Piece::new(&[0; 20])), Ok(()));
        for below in [0, 10, 15] {
            let told = Arc::clone(&told);
            outlet.notify_below(below, Box::new(move || _ = told.fetch_add(1, Ordering::SeqCst)));
        }
        outlet.shared().took(10);
        assert_eq!(told.load(Ordering::SeqCst), 2);
        for panics in [true, false] {
            let told = Arc::clone(&told);
            outlet.on_gone(Box::new(move || {
                assert!(!panics, "expected by this test");
                told.fetch_add(10, Ordering::SeqCst);
            }));
        }
        outlet.shared().end(false);
        assert_eq!(told.load(Ordering::SeqCst), 13);
        assert_eq!(outlet.wait_below(0, Duration::from_secs(1)), Err(OutletError::Gone));
    }
}
