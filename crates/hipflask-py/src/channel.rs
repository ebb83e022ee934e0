//! Channels: what is published reaches all subscribers, whose connections the engine holds.
//!
//! An event is written once for each way of sending it ([`Kind`]), and its bytes are shared by all connections. A
//! subscriber costs an [`Outlet`] and a place in a table: neither a thread, nor a task, nor a Python object. In-process
//! subscribers (the test client, other WSGI servers) wait at a [`Mailbox`] instead. Does not reach other processes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hipflask_server::{Outlet, OutletError, Piece};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::locked;
use crate::sse::{self, Event};

/// How often a thread that waits for an event looks whether Python has a signal for it.
const SLICE: Duration = Duration::from_millis(500);

/// How events are sent to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As server-sent events.
    Events,
    /// Their data as text messages of a WebSocket.
    Messages,
}

/// What is sent for one event, made when the first subscriber needs it.
struct Frames<'a> {
    event: Event<'a>,
    events: Option<Piece>,
    messages: Option<Piece>,
}

impl Frames<'_> {
    fn of(&mut self, kind: Kind) -> Option<Piece> {
        let Frames { event, events, messages } = self;
        match kind {
            Kind::Events => events.clone(),
            Kind::Messages => {
                let data = event.data?;
                Some(messages.get_or_insert_with(|| Piece::from(text_message(data))).clone())
            }
        }
    }
}

/// An unmasked text message in one frame (RFC 6455 §5.2).
fn text_message(text: &str) -> Vec<u8> {
    let length = text.len();
    let mut frame = Vec::with_capacity(length + 10);
    frame.push(0x81);
    match (u16::try_from(length), length) {
        (_, 0..=125) => frame.push(length as u8),
        (Ok(short), _) => {
            frame.push(126);
            frame.extend_from_slice(&short.to_be_bytes());
        }
        (Err(_), _) => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Where a subscriber's events go.
enum Sink {
    Outlet(Outlet, Kind),
    Mailbox(Arc<Mailbox>),
}

/// The events of a subscriber in this process.
#[derive(Default)]
struct Mailbox {
    state: Mutex<Letters>,
    arrived: Condvar,
}

#[derive(Default)]
struct Letters {
    queue: VecDeque<Piece>,
    bytes: usize,
    /// No more will come.
    over: bool,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Letters> {
        locked(&self.state)
    }

    /// Adds a piece; false if there is no room for it, which ends the subscription.
    fn add(&self, piece: Piece, most: usize) -> bool {
        let mut letters = self.lock();
        if letters.over {
            return true;
        }
        let length = piece.payload().len();
        let fits = letters.bytes == 0 || letters.bytes + length <= most;
        if fits {
            letters.bytes += length;
            letters.queue.push_back(piece);
        } else {
            letters.over = true;
        }
        drop(letters);
        self.arrived.notify_all();
        fits
    }

    fn end(&self) {
        self.lock().over = true;
        self.arrived.notify_all();
    }
}

/// A place in the table. Its number is used again; the generation tells the users apart.
#[derive(Default)]
struct Slot {
    generation: u32,
    sink: Option<Sink>,
}

/// Names a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    slot: usize,
    generation: u32,
}

struct State {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// The last events, with their ids.
    ring: VecDeque<(String, Piece)>,
    published: u64,
    dropped: u64,
    closed: bool,
    /// When something was published, or a subscriber left.
    used: Instant,
}

/// A channel.
pub(crate) struct Channel {
    state: Mutex<State>,
    history: usize,
    /// Bytes that may wait for a subscriber.
    queue: usize,
    /// Tells the ids of this channel from those of its namesake before a restart.
    epoch: u64,
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Gives an event to all. Detached, since it takes its time with thousands.
    fn publish(&self, event: Event<'_>) -> Result<usize, &'static str> {
        let mut state = self.lock();
        let made;
        let mut event = event;
        if self.history > 0 && event.id.is_none() {
            made = format!("{:x}-{}", self.epoch, state.published);
            event.id = Some(&made);
        }
        let piece = Piece::new(&event.encode()?);
        state.published += 1;
        state.used = Instant::now();
        if let Some(id) = event.id
            && self.history > 0
        {
            if state.ring.len() >= self.history {
                state.ring.pop_front();
            }
            state.ring.push_back((id.to_owned(), piece.clone()));
        }
        let mut frames = Frames { event, events: Some(piece), messages: None };
        let (mut reached, mut dropped) = (0, 0);
        for slot in &state.slots {
            let taken = match &slot.sink {
                None => continue,
                Some(Sink::Mailbox(mailbox)) => {
                    frames.of(Kind::Events).is_none_or(|piece| mailbox.add(piece, self.queue))
                }
                Some(Sink::Outlet(outlet, kind)) => match frames.of(*kind).map(|piece| outlet.send(piece)) {
                    // Its place becomes free when its end is told.
                    Some(Err(OutletError::Gone)) => continue,
                    Some(Err(OutletError::Full)) => {
                        // Cut off, it comes back and asks for what it has missed.
                        outlet.abort();
                        false
                    }
                    Some(Ok(())) | None => true,
                },
            };
            if taken {
                reached += 1;
            } else {
                dropped += 1;
            }
        }
        state.dropped += dropped;
        Ok(reached)
    }

    /// What a subscriber is to get that has missed what came after an event, or that comes anew.
    fn missed(state: &State, last: Option<&str>, replay: usize) -> Vec<Piece> {
        let from = match last {
            // Who names an event that is not known any more has missed all of those that are.
            Some(last) => state.ring.iter().rposition(|(id, _)| id == last).map_or(0, |at| at + 1),
            None => state.ring.len().saturating_sub(replay),
        };
        state.ring.iter().skip(from).map(|(_, piece)| piece.clone()).collect()
    }

    fn insert(state: &mut State, sink: Sink) -> Key {
        let slot = state.free.pop().unwrap_or_else(|| {
            state.slots.push(Slot::default());
            state.slots.len() - 1
        });
        let mut generation = 0;
        if let Some(place) = state.slots.get_mut(slot) {
            place.sink = Some(sink);
            generation = place.generation;
        }
        Key { slot, generation }
    }

    fn remove(&self, key: Key) {
        let mut state = self.lock();
        let Some(place) = state.slots.get_mut(key.slot) else { return };
        if place.generation != key.generation {
            return;
        }
        let sink = place.sink.take();
        place.generation = place.generation.wrapping_add(1);
        state.free.push(key.slot);
        state.used = Instant::now();
        if state.free.len() == state.slots.len() && state.slots.len() > 64 {
            state.slots = Vec::new();
            state.free = Vec::new();
        }
        drop(state);
        drop(sink);
    }

    fn count(state: &State) -> usize {
        state.slots.len() - state.free.len()
    }

    /// Subscribes an outlet, until its connection ends or the membership is ended.
    fn admit(self: &Arc<Self>, outlet: &Outlet, kind: Kind) -> Membership {
        outlet.limit(self.queue);
        let mut state = self.lock();
        let is_closed = state.closed;
        let key = Self::insert(&mut state, Sink::Outlet(outlet.clone(), kind));
        drop(state);
        if is_closed {
            outlet.finish();
        }
        self.follow(outlet, key);
        Membership { channel: Arc::clone(self), key }
    }

    /// Frees a subscriber's place when its connection ends.
    fn follow(self: &Arc<Self>, outlet: &Outlet, key: Key) {
        let channel = Arc::clone(self);
        outlet.on_end(Box::new(move |_| channel.remove(key)));
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for sink in state.slots.iter().filter_map(|slot| slot.sink.as_ref()) {
            match sink {
                Sink::Outlet(outlet, Kind::Events) => outlet.finish(),
                // A WebSocket may have other things to say.
                Sink::Outlet(_, Kind::Messages) => {}
                Sink::Mailbox(mailbox) => mailbox.end(),
            }
        }
    }
}

/// A WebSocket's part in a channel.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct Membership {
    channel: Arc<Channel>,
    key: Key,
}

#[pymethods]
impl Membership {
    /// Get no further events; the connection stays.
    fn leave(&self, py: Python<'_>) {
        py.detach(|| self.channel.remove(self.key));
    }
}

/// Has a WebSocket's outlet get the data of each event of a `hipflask.Channel` as a text message.
///
/// # Errors
///
/// `channel` is no channel.
pub(crate) fn join(channel: &Bound<'_, PyAny>, outlet: &Outlet) -> PyResult<Membership> {
    let core = channel
        .getattr_opt(intern!(channel.py(), "_core"))?
        .and_then(|core| core.cast_into::<ChannelCore>().ok())
        .ok_or_else(|| PyTypeError::new_err("a hipflask.Channel is needed"))?;
    Ok(core.get().0.admit(outlet, Kind::Messages))
}

/// The native half of `hipflask.Channel`.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct ChannelCore(Arc<Channel>);

#[pymethods]
impl ChannelCore {
    /// Make a channel that keeps ``history`` events, with at most ``queue`` bytes waiting for each subscriber.
    #[new]
    fn new(history: usize, queue: usize) -> PyResult<Self> {
        if queue == 0 {
            return Err(PyValueError::new_err("a subscriber's queue needs room"));
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self(Arc::new(Channel {
            state: Mutex::new(State {
                slots: Vec::new(),
                free: Vec::new(),
                ring: VecDeque::new(),
                published: 0,
                dropped: 0,
                closed: false,
                used: Instant::now(),
            }),
            history,
            queue,
            epoch: since_1970.as_micros() as u64,
        })))
    }

    /// Give an event to all subscribers; returns to how many.
    #[pyo3(signature = (data, event, id))]
    fn publish(
        &self,
        py: Python<'_>,
        data: Option<&str>,
        event: Option<&str>,
        id: Option<&str>,
    ) -> PyResult<usize> {
        let event = Event { data, event, id, ..Event::default() };
        py.detach(|| self.0.publish(event)).map_err(PyValueError::new_err)
    }

    /// Subscribe, from now on or from an event on.
    #[pyo3(signature = (last_event_id, replay, heartbeat, first))]
    fn subscribe(
        &self,
        py: Python<'_>,
        last_event_id: Option<&str>,
        replay: usize,
        heartbeat: Option<f64>,
        first: Option<&[u8]>,
    ) -> PyResult<Subscription> {
        let heartbeat = sse::interval(heartbeat)?;
        let mailbox = Arc::new(Mailbox::default());
        let key = py.detach(|| {
            let mut state = self.0.lock();
            {
                let mut letters = mailbox.lock();
                letters.queue.extend(first.map(Piece::new));
                letters.queue.extend(Channel::missed(&state, last_event_id, replay));
                letters.over = state.closed;
            }
            Channel::insert(&mut state, Sink::Mailbox(Arc::clone(&mailbox)))
        });
        Ok(Subscription { channel: Arc::clone(&self.0), key, mailbox, heartbeat, open: Mutex::new(true) })
    }

    /// How many subscribers there are, how many events were published, how many subscribers were cut off for being slow.
    fn counts(&self) -> (usize, u64, u64) {
        let state = self.0.lock();
        (Channel::count(&state), state.published, state.dropped)
    }

    /// For how many seconds nothing has been published and nobody has been there; None while somebody is.
    fn idle_seconds(&self) -> Option<f64> {
        let state = self.0.lock();
        (Channel::count(&state) == 0).then(|| state.used.elapsed().as_secs_f64())
    }

    /// End all subscriptions, and those to come.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

/// One subscriber's events, as an iterator of bytes; by the engine they are sent without one.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct Subscription {
    channel: Arc<Channel>,
    key: Key,
    mailbox: Arc<Mailbox>,
    heartbeat: Option<Duration>,
    /// Until it is closed, or an outlet has its place.
    open: Mutex<bool>,
}

impl Subscription {
    /// Takes the subscription over to an outlet, with what has come meanwhile; false if it was closed or is taken.
    pub(crate) fn attach(&self, outlet: &Outlet) -> bool {
        if !std::mem::take(&mut *locked(&self.open)) {
            return false;
        }
        sse::prepare(outlet, self.heartbeat, self.key.slot);
        outlet.limit(self.channel.queue);
        let mut state = self.channel.lock();
        let (over, pieces) = {
            let mut letters = self.mailbox.lock();
            (letters.over, std::mem::take(&mut letters.queue))
        };
        if !pieces.is_empty() {
            let payloads: Vec<&[u8]> = pieces.iter().map(Piece::payload).collect();
            // The first piece may have any size; one that is gone already tells its end below.
            let _ = outlet.send(Piece::join(&payloads));
        }
        if let Some(place) = state.slots.get_mut(self.key.slot)
            && place.generation == self.key.generation
        {
            place.sink = Some(Sink::Outlet(outlet.clone(), Kind::Events));
        }
        drop(state);
        if over {
            outlet.finish();
        }
        self.channel.follow(outlet, self.key);
        true
    }

    fn leave(&self) {
        if std::mem::take(&mut *locked(&self.open)) {
            self.channel.remove(self.key);
            self.mailbox.end();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.leave();
    }
}

#[pymethods]
impl Subscription {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let quiet_until = self.heartbeat.map(|every| Instant::now() + every);
        loop {
            let now = Instant::now();
            let slice = quiet_until.map_or(SLICE, |until| until.saturating_duration_since(now).min(SLICE));
            let (piece, over) = py.detach(|| {
                let mut letters = self.mailbox.lock();
                if letters.queue.is_empty() && !letters.over {
                    let waited = self.mailbox.arrived.wait_timeout(letters, slice);
                    letters = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                let piece = letters.queue.pop_front();
                let length = piece.as_ref().map_or(0, |piece| piece.payload().len());
                letters.bytes = letters.bytes.saturating_sub(length);
                (piece, letters.over)
            });
            match piece {
                Some(piece) => return Ok(Some(PyBytes::new(py, piece.payload()))),
                None if over => return Ok(None),
                None => {}
            }
            py.check_signals()?;
            if quiet_until.is_some_and(|until| until <= Instant::now()) {
                return Ok(Some(PyBytes::new(py, sse::heartbeat().payload())));
            }
        }
    }

    /// End the subscription.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.leave());
    }
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ChannelCore>()?;
    module.add_class::<Subscription>()?;
    module.add_class::<Membership>()
}
