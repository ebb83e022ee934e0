//! What the leader owns: the poller, its batch of ready events, the connections that no worker has, and their timers.
//!
//! Knows no handler. The batch and its cursor lie here and not on the leader's stack, so that a thread that takes the
//! reactor over goes on with the next event.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::addresses::Addresses;
use crate::client::Gate;
use crate::config::{Config, Timeouts};
use crate::conn::{Conn, Phase, READ};
use crate::crew::{ASIDE, Place};
use crate::exchange::{Address, ConnInfo};
use crate::held::Lent;
use crate::metrics::{Counter, Gauge, Stats};
use crate::running::InlineCall;
use crate::sys::{self, Bell, Event, Interest, Poller};
use crate::task::Work;
use crate::timer::{Timer, Wheel};
use crate::tls::{Tls, TlsError};
use crate::transport::Transport;

/// Events taken from the poller at once.
const EVENTS: usize = 256;
/// Connections accepted in one go, so that the open ones get their turn.
const ACCEPTS: usize = 64;
/// Of a listener that others have too, one connection more is accepted for each so many events of a batch: a busy process
/// comes by less often.
const SHARE_OF_BATCH: usize = 8;
/// Buffers kept for reuse; 4 MiB at most.
const BUFFERS: usize = 256;
/// How long accepting pauses when descriptors have run out, unless a connection closes before.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who holds an open socket: its place and its connection.
const HOLDERS: usize = 2;

pub(crate) const BELL: u64 = u64::MAX;
/// Another process calls, or asks for a sign of life.
pub(crate) const CALL: u64 = BELL - 1;
/// Tokens from here on are listeners.
const LISTENERS: u64 = u64::MAX - (1 << 16);

struct Slot<T> {
    generation: u32,
    /// The connection, unless a worker has it.
    conn: Option<Box<Conn<T>>>,
    /// Its socket, also while a worker has it, so that a stop can cut it.
    socket: Option<Arc<Transport>>,
    timer: Timer,
    /// Events that came while a worker had it.
    readable: bool,
    ended: bool,
    /// The poller also waits for room to write.
    writing: bool,
    /// Whoever has it wants to hear when the client ends.
    expects_end: bool,
    /// What has a deadline while somebody else has the connection.
    lent: Option<Lent<T>>,
}

pub(crate) struct Listener {
    pub(crate) fd: OwnedFd,
    pub(crate) local: Address,
    /// A Unix socket's file, removed at the end.
    pub(crate) path: Option<PathBuf>,
    /// Sends clients to where TLS is spoken.
    pub(crate) redirects: bool,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            drop(std::fs::remove_file(path));
        }
    }
}

/// Why accepting pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    No,
    /// Enough connections are open.
    Full,
    /// Descriptors or memory ran out.
    Exhausted(Instant),
    /// Another process that has fewer connections comes first.
    Aside(Instant),
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    No,
    /// Requests may still come on open connections until the first time; all ends at the second.
    LastCall(Instant, Instant),
    /// What is running may finish.
    Finishing(Instant),
}

/// What accepting met.
pub(crate) enum Accepted {
    Fine,
    Paused(io::Error),
}

pub(crate) struct Reactor<T> {
    poller: Poller,
    ready: Vec<Event>,
    cursor: usize,
    due: Vec<u64>,
    /// Connections that came back from workers.
    pub(crate) returned: VecDeque<Box<Conn<T>>>,
    /// Connections that have more to do than their share of a batch.
    pub(crate) again: VecDeque<u64>,
    /// Connections whose outlets have been given something.
    pub(crate) woken: VecDeque<u64>,
    /// Work that belongs to no request.
    pub(crate) work: VecDeque<Work>,
    /// Connections that are not read until the workers' queue is shorter.
    pub(crate) throttled: Vec<u64>,
    /// The client of this deferred request ended with the last event.
    pub(crate) gone: Option<u64>,
    /// Connections that somebody has for longer than they should.
    pub(crate) overdue: Vec<u64>,
    /// The call that the leader makes.
    pub(crate) inline: InlineCall,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    pub(crate) open: usize,
    /// Requests of HTTP/2 connections that have a place.
    streams: usize,
    /// Requests that have come.
    pub(crate) served: u64,
    wheel: Wheel,
    start: Instant,
    /// The time at the last return from the poller.
    pub(crate) now: Instant,
    buffers: Vec<Vec<u8>>,
    listeners: Vec<Listener>,
    /// Other processes accept from the listeners too.
    shared: bool,
    /// This process among those.
    place: Option<Box<Place>>,
    /// What waited while this process stood aside is its own to take.
    insists: bool,
    pause: Pause,
    /// The last attempt to accept found no descriptor.
    pub(crate) exhausted: bool,
    most: usize,
    tls: Option<Arc<Tls>>,
    /// What there is to do about proxies.
    gate: Option<Box<Gate>>,
    /// Connections by address, where those are limited.
    addresses: Option<Box<Addresses>>,
    /// Those that were closed for that.
    pub(crate) turned_away: Vec<ConnInfo>,
    /// What came of changed certificates.
    pub(crate) reloaded: Option<Result<(), TlsError>>,
    timeouts: Timeouts,
    stats: Option<Arc<Stats>>,
    pub(crate) stopping: Stopping,
}

fn index(token: u64) -> usize {
    (token & u64::from(u32::MAX)) as usize
}

impl<T> Reactor<T> {
    pub(crate) fn new(config: &Config, listeners: Vec<Listener>, bell: &Bell) -> io::Result<Reactor<T>> {
        let poller = Poller::new(EVENTS)?;
        poller.add(bell.as_raw_fd(), BELL, Interest::Listen)?;
        for (at, listener) in listeners.iter().enumerate() {
            let interest = if config.shared { Interest::Share } else { Interest::Listen };
            poller.add(listener.fd.as_raw_fd(), LISTENERS + at as u64, interest)?;
        }
        let place = config.crew.as_ref().and_then(Place::take);
        if let Some(bell) = place.as_ref().and_then(|place| place.bell()) {
            poller.add(bell, CALL, Interest::Listen)?;
        }
        let now = Instant::now();
        let reactor = Reactor {
            poller,
            ready: Vec::with_capacity(EVENTS),
            cursor: 0,
            due: Vec::new(),
            returned: VecDeque::new(),
            again: VecDeque::new(),
            woken: VecDeque::new(),
            work: VecDeque::new(),
            throttled: Vec::new(),
            gone: None,
            overdue: Vec::new(),
            inline: InlineCall::default(),
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            streams: 0,
            served: 0,
            wheel: Wheel::new(),
            start: now,
            now,
            buffers: Vec::new(),
            listeners,
            shared: config.shared,
            place,
            insists: false,
            pause: Pause::No,
            exhausted: false,
            most: config.max_connections.max(1),
            tls: config.tls.clone(),
            gate: Gate::new(config),
            addresses: Addresses::new(config.max_per_address),
            turned_away: Vec::new(),
            reloaded: None,
            timeouts: config.timeouts.clone(),
            stats: config.stats.clone(),
            stopping: Stopping::No,
        };
        reactor.show();
        Ok(reactor)
    }

    /// The next event of the batch.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        let event = self.ready.get(self.cursor).copied();
        self.cursor += usize::from(event.is_some());
        event
    }

    /// Waits for the next batch, at most so long.
    pub(crate) fn wait(&mut self, most: Option<Duration>) -> io::Result<()> {
        self.ready.clear();
        self.cursor = 0;
        let timeout = if most == Some(Duration::ZERO) { most } else { self.patience(most) };
        let result = self.poller.wait(timeout, &mut self.ready);
        self.now = Instant::now();
        self.wheel.advance(self.now - self.start, &mut self.due);
        if let Pause::Exhausted(until) = self.pause
            && until <= self.now
        {
            self.resume();
        }
        if let Pause::Aside(until) = self.pause
            && until <= self.now
        {
            self.come_back();
        }
        result
    }

    /// How long the poller may wait.
    fn patience(&self, most: Option<Duration>) -> Option<Duration> {
        let now = Instant::now();
        let until = |then: Instant| then.saturating_duration_since(now);
        let stop = match self.stopping {
            Stopping::No => None,
            Stopping::LastCall(first, last) => Some(until(first.min(last))),
            Stopping::Finishing(last) => Some(until(last)),
        };
        let resume = match self.pause {
            Pause::Exhausted(then) | Pause::Aside(then) => Some(until(then)),
            Pause::No | Pause::Full => None,
        };
        [most, stop, resume, self.wheel.next(now - self.start)].into_iter().flatten().min()
    }

    /// Whether a token is a listener's.
    pub(crate) fn is_listener(token: u64) -> bool {
        (LISTENERS..CALL).contains(&token)
    }

    /// The next connection whose time is over.
    pub(crate) fn next_due(&mut self) -> Option<Box<Conn<T>>> {
        while let Some(token) = self.due.pop() {
            let Some(slot) = self.slots.get_mut(index(token)) else { continue };
            if u64::from(slot.generation) == token >> 32 && self.wheel.is_due(&mut slot.timer, token) {
                match slot.conn.take() {
                    Some(conn) => return Some(conn),
                    None => self.overdue.push(token),
                }
            }
        }
        None
    }

    /// Accepts what waits at a listener, up to a share.
    pub(crate) fn accept(&mut self, token: u64, most: usize) -> Accepted {
        for _ in 0..most {
            if self.open >= self.most {
                self.pause(Pause::Full);
                return Accepted::Fine;
            }
            let Some(listener) = self.listeners.get((token - LISTENERS) as usize) else {
                return Accepted::Fine;
            };
            match sys::accept(listener.fd.as_raw_fd()) {
                Ok((socket, peer)) => {
                    let redirects = listener.redirects;
                    let secure = self.tls.is_some() && !redirects;
                    let (peer, local) = match peer {
                        Some(peer) => {
                            let local = socket.local().map_or_else(|| listener.local.clone(), Address::Tcp);
                            (Address::Tcp(peer), local)
                        }
                        None => (Address::Unix(None), listener.local.clone()),
                    };
                    let mut info = ConnInfo { secure, ..ConnInfo::new(peer, local) };
                    let announces = self.gate.as_ref().is_some_and(|gate| gate.admit(&mut info));
                    let mut counted = false;
                    if let Some(addresses) = self.addresses.as_mut().filter(|_| !announces) {
                        match addresses.enter(&info) {
                            Ok(yes) => counted = yes,
                            Err(()) => {
                                self.turned_away.push(info);
                                continue;
                            }
                        }
                    }
                    let transport = match &self.tls {
                        Some(tls) if secure => {
                            self.reloaded = tls.look(self.now).or(self.reloaded.take());
                            // Fails only where memory or random bytes have run out.
                            let Ok(session) = tls.accept() else {
                                if let Some(addresses) = self.addresses.as_mut().filter(|_| counted) {
                                    addresses.leave(&info);
                                }
                                continue;
                            };
                            Transport::secure(socket, session)
                        }
                        _ => Transport::Plain(socket),
                    };
                    if let Err(error) = self.insert(transport, info, redirects, announces, counted) {
                        self.pause(Pause::Exhausted(self.now + ACCEPT_PAUSE));
                        return Accepted::Paused(error);
                    }
                    if self.shared && self.open >= self.most {
                        // Before the kernel wakes this process for a connection that another could take.
                        self.pause(Pause::Full);
                        return Accepted::Fine;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Accepted::Fine,
                Err(error) if sys::is_exhausted(&error) => {
                    self.pause(Pause::Exhausted(self.now + ACCEPT_PAUSE));
                    return Accepted::Paused(error);
                }
                // The client is gone already, or a signal came: the next one may be fine (accept(2)).
                Err(_) => {}
            }
        }
        Accepted::Fine
    }

    /// As [`Reactor::accept`], a usual share.
    ///
    /// Of a listener that others have too, an idle process takes one, and then stands at the end of the line: the kernel
    /// always wakes the one that has stood there longest, and without that it would be the same one each time. One that
    /// has more connections than another stands aside.
    pub(crate) fn accept_some(&mut self, token: u64) -> Accepted {
        if !self.shared {
            return self.accept(token, ACCEPTS);
        }
        let mut most = 1 + self.ready.len() / SHARE_OF_BATCH;
        if std::mem::take(&mut self.insists) {
            most = 1;
        } else if let Some(place) = &mut self.place {
            most = most.min(place.share(self.open));
            if most == 0 {
                if self.pause == Pause::No {
                    self.pause(Pause::Aside(self.now + ASIDE));
                }
                return Accepted::Fine;
            }
        }
        let accepted = self.accept(token, most);
        if self.pause == Pause::No
            && let Some(listener) = self.listeners.get((token - LISTENERS) as usize)
        {
            let fd = listener.fd.as_raw_fd();
            drop(self.poller.remove(fd));
            drop(self.poller.add(fd, token, Interest::Share));
        }
        accepted
    }

    /// Another process calls this one to accept, or asks whether it turns.
    pub(crate) fn answer_call(&mut self) -> Accepted {
        let Some(place) = &self.place else { return Accepted::Fine };
        if !place.answer() {
            return Accepted::Fine;
        }
        if let Pause::Aside(_) = self.pause {
            self.resume();
        }
        for at in 0..self.listeners.len() {
            if !self.shared || self.pause != Pause::No {
                break;
            }
            if let Accepted::Paused(error) = self.accept_some(LISTENERS + at as u64) {
                return Accepted::Paused(error);
            }
        }
        Accepted::Fine
    }

    /// Has stood aside for long enough: what waits now waits for nobody else.
    fn come_back(&mut self) {
        self.insists = self.listeners.iter().any(|listener| sys::is_readable(listener.fd.as_fd()));
        if let (true, Some(place)) = (self.insists, &mut self.place) {
            place.was_not_heard();
        }
        self.resume();
    }

    /// Registers the listeners that others have too anew: that tells of what waits at them already.
    pub(crate) fn listen_anew(&mut self) {
        if self.shared && self.pause == Pause::No {
            for (at, listener) in self.listeners.iter().enumerate() {
                let fd = listener.fd.as_raw_fd();
                drop(self.poller.remove(fd));
                drop(self.poller.add(fd, LISTENERS + at as u64, Interest::Share));
            }
        }
    }

    fn insert(
        &mut self,
        transport: Transport,
        info: ConnInfo,
        redirects: bool,
        announces: bool,
        counted: bool,
    ) -> io::Result<()> {
        let info = Arc::new(info);
        let mut conn = match self.seat(transport, Arc::clone(&info)) {
            Ok(conn) => conn,
            Err(error) => {
                if let Some(addresses) = self.addresses.as_mut().filter(|_| counted) {
                    addresses.leave(&info);
                }
                return Err(error);
            }
        };
        conn.announces = announces;
        conn.counted = counted;
        conn.greeting = announces || conn.info.secure;
        conn.redirects = redirects;
        self.park(conn);
        Ok(())
    }

    /// Counts a connection whose PROXY header has named its client; false if that has as many as it may.
    pub(crate) fn count_in(&mut self, conn: &mut Conn<T>) -> bool {
        let Some(addresses) = &mut self.addresses else { return true };
        match addresses.enter(&conn.info) {
            Ok(counted) => conn.counted = counted,
            Err(()) => return false,
        }
        true
    }

    /// Has a connection be known by another name, so that whoever still knows the old one means nobody.
    pub(crate) fn rename(&mut self, conn: &mut Conn<T>) {
        let Some(slot) = self.slot(conn.token) else { return };
        Wheel::clear(&mut slot.timer);
        slot.generation = slot.generation.wrapping_add(1);
        let interest = if slot.writing { Interest::ReadWrite } else { Interest::Read };
        let token = u64::from(slot.generation) << 32 | index(conn.token) as u64;
        conn.token = token;
        if let Some(fd) = conn.socket.raw_fd() {
            // That tells anew of what has happened meanwhile.
            drop(self.poller.change(fd, token, interest));
        }
    }

    /// Gives a connection, or a stream of one, its place.
    pub(crate) fn seat(&mut self, transport: Transport, info: Arc<ConnInfo>) -> io::Result<Box<Conn<T>>> {
        let socket = Arc::new(transport);
        let at = match self.free.last() {
            Some(at) => *at as usize,
            None => self.slots.len(),
        };
        let generation = self.slots.get(at).map_or(1, |slot| slot.generation);
        let token = u64::from(generation) << 32 | at as u64;
        if let Some(fd) = socket.raw_fd() {
            self.poller.add(fd, token, Interest::Read)?;
        }
        let conn = Box::new(Conn::new(Arc::clone(&socket), token, info));
        let slot = Slot {
            generation,
            conn: None,
            socket: Some(socket),
            timer: Timer::default(),
            readable: false,
            ended: false,
            writing: false,
            expects_end: false,
            lent: None,
        };
        match self.slots.get_mut(at) {
            Some(place) => {
                // A timer's entry of the last connection may still be in the wheel: the old token no longer fits it.
                *place = slot;
                self.free.pop();
            }
            None => self.slots.push(slot),
        }
        match conn.socket.stream() {
            Some(stream) => {
                stream.name(token);
                self.streams += 1;
            }
            None => {
                self.open += 1;
                if let Some(stats) = &self.stats {
                    stats.count(Counter::Accepted);
                }
            }
        }
        self.show();
        Ok(conn)
    }

    /// Lets those who ask know how many connections there are.
    fn show(&self) {
        if let Some(place) = &self.place {
            let accepts = matches!(self.pause, Pause::No | Pause::Aside(_)) && !self.listeners.is_empty();
            place.show(accepts.then_some(self.open));
        }
        if let Some(stats) = &self.stats {
            stats.set(Gauge::Connections, self.open);
            stats.set(Gauge::Http2Streams, self.streams);
        }
    }

    fn pause(&mut self, pause: Pause) {
        if self.pause == Pause::No {
            for (at, listener) in self.listeners.iter().enumerate() {
                let fd = listener.fd.as_raw_fd();
                drop(match self.shared {
                    true => self.poller.remove(fd),
                    false => self.poller.change(fd, LISTENERS + at as u64, Interest::Nothing),
                });
            }
        }
        self.pause = pause;
        self.show();
    }

    fn resume(&mut self) {
        self.pause = Pause::No;
        self.show();
        for (at, listener) in self.listeners.iter().enumerate() {
            let (fd, token) = (listener.fd.as_raw_fd(), LISTENERS + at as u64);
            drop(match self.shared {
                true => self.poller.add(fd, token, Interest::Share),
                false => self.poller.change(fd, token, Interest::Listen),
            });
        }
    }

    fn slot(&mut self, token: u64) -> Option<&mut Slot<T>> {
        self.slots.get_mut(index(token)).filter(|slot| u64::from(slot.generation) == token >> 32)
    }

    /// Takes a connection out for an event; `None` if a worker has it or it is gone.
    pub(crate) fn check_out(&mut self, event: Event) -> Option<Box<Conn<T>>> {
        let slot = self.slot(event.token)?;
        let Some(mut conn) = slot.conn.take() else {
            slot.readable |= event.readable;
            slot.ended |= event.ended;
            let gone = event.ended && std::mem::take(&mut slot.expects_end);
            self.gone = gone.then_some(event.token);
            return None;
        };
        conn.readable |= event.readable;
        conn.ending |= event.ended;
        Some(conn)
    }

    /// Takes a connection out because something has happened to its stream or outlet; `None` if a worker has it or it is
    /// gone.
    pub(crate) fn check_out_woken(&mut self, token: u64) -> Option<Box<Conn<T>>> {
        let slot = self.slot(token)?;
        match slot.socket.as_deref().and_then(Transport::stream) {
            Some(stream) => {
                let ended = stream.watch();
                self.check_out(Event { token, readable: true, ended })
            }
            None => self.check_out_again(token),
        }
    }

    /// Takes a connection out to go on with it; `None` if a worker has it or it is gone.
    pub(crate) fn check_out_again(&mut self, token: u64) -> Option<Box<Conn<T>>> {
        self.slot(token)?.conn.take()
    }

    /// Tells a connection that comes back what the poller said meanwhile.
    pub(crate) fn catch_up(&mut self, conn: &mut Conn<T>) {
        if let Some(slot) = self.slot(conn.token) {
            conn.readable |= std::mem::take(&mut slot.readable);
            conn.ending |= std::mem::take(&mut slot.ended);
            slot.expects_end = false;
            slot.lent = None;
        }
    }

    /// Lets a worker have the connection: no timer runs for it meanwhile.
    pub(crate) fn lend(&mut self, conn: &Conn<T>) {
        if let Some(slot) = self.slot(conn.token) {
            Wheel::clear(&mut slot.timer);
        }
        if let Some(stream) = conn.socket.stream()
            && stream.watch()
            && let Some(slot) = self.slot(conn.token)
        {
            slot.ended = true;
        }
    }

    /// Notes what has a deadline while the connection is lent.
    pub(crate) fn note_lent(&mut self, token: u64, lent: Lent<T>) {
        if let Some(slot) = self.slot(token) {
            slot.lent = Some(lent);
        }
    }

    /// A connection is back before anybody else had it.
    pub(crate) fn unlend(&mut self, token: u64) {
        if let Some(slot) = self.slot(token) {
            slot.lent = None;
        }
    }

    /// What has a deadline while somebody has this connection; `None` as well if nobody has it.
    pub(crate) fn lent(&mut self, token: u64) -> Option<&mut Option<Lent<T>>> {
        self.slot(token).filter(|slot| slot.conn.is_none()).map(|slot| &mut slot.lent)
    }

    /// Has a connection that is lent become overdue.
    pub(crate) fn wake_at(&mut self, token: u64, when: Instant) {
        let when = when.saturating_duration_since(self.start);
        if let Some(slot) =
            self.slots.get_mut(index(token)).filter(|slot| u64::from(slot.generation) == token >> 32)
        {
            self.wheel.set(&mut slot.timer, token, when);
        }
    }

    /// Cuts off the client of a connection that is lent.
    pub(crate) fn cut_off(&mut self, token: u64) {
        if let Some(socket) = self.slot(token).and_then(|slot| slot.socket.as_ref()) {
            socket.shutdown(Shutdown::Both);
        }
    }

    /// Asks for the end of a client whose connection is lent.
    pub(crate) fn expect_end(&mut self, conn: &Conn<T>) {
        if let Some(slot) = self.slot(conn.token) {
            slot.expects_end = true;
        }
    }

    /// Puts a connection back until an event or its deadline comes.
    pub(crate) fn park(&mut self, mut conn: Box<Conn<T>>) {
        if conn.is_idle() {
            conn.began = if conn.greeting { conn.began.or(Some(self.now)) } else { None };
            self.reclaim(std::mem::take(&mut conn.inbuf));
            self.reclaim(std::mem::take(&mut conn.out));
        } else if matches!(conn.phase, Phase::Outlet(_) | Phase::Spool(_)) {
            self.slim(&mut conn);
        } else if matches!(&conn.phase, Phase::Http2(http2) if http2.has_streams()) {
            conn.began = None;
        } else if matches!(conn.phase, Phase::Ready | Phase::Http2(_)) && conn.began.is_none() {
            conn.began = Some(self.now);
        }
        let deadline = self.deadline(&conn).map(|deadline| deadline.saturating_duration_since(self.start));
        let wants_write = conn.has_output();
        let token = conn.token;
        let Some(slot) = self.slots.get_mut(index(token)) else { return };
        match deadline {
            Some(deadline) => self.wheel.set(&mut slot.timer, token, deadline),
            None => Wheel::clear(&mut slot.timer),
        }
        if wants_write != slot.writing {
            slot.writing = wants_write;
            let interest = if wants_write { Interest::ReadWrite } else { Interest::Read };
            if let Some(fd) = conn.socket.raw_fd() {
                drop(self.poller.change(fd, token, interest));
            }
        }
        slot.conn = Some(conn);
    }

    /// Lets a connection that may stay open for hours hold no more memory than it needs.
    fn slim(&mut self, conn: &mut Conn<T>) {
        if !conn.has_output() {
            self.reclaim(std::mem::take(&mut conn.out));
        }
        let left = conn.unread();
        if left.is_empty() {
            self.reclaim(std::mem::take(&mut conn.inbuf));
        } else if conn.inbuf.capacity() >= READ && left.len() < READ / 4 {
            let left = left.to_vec();
            self.reclaim(std::mem::replace(&mut conn.inbuf, left));
            conn.at = 0;
        }
    }

    /// When a connection's patience with its client ends.
    pub(crate) fn patience_ends(&self, conn: &Conn<T>) -> Option<Instant> {
        let timeouts = &self.timeouts;
        if conn.has_output() {
            let fresh = self.now + timeouts.write;
            let paced = conn.writing.map(|pace| pace.deadline(timeouts.write, timeouts.write_rate));
            return Some(paced.unwrap_or(fresh));
        }
        Some(match &conn.phase {
            Phase::Ready => match conn.began {
                Some(began) if conn.greeting => began + timeouts.handshake,
                Some(began) => began + timeouts.header,
                None if conn.used => self.now + timeouts.idle,
                None => self.now + timeouts.header,
            },
            Phase::Collect(pending) => pending.pace.deadline(timeouts.body, timeouts.body_rate),
            Phase::Spool(spooling) => spooling.pace.deadline(timeouts.body, timeouts.body_rate),
            Phase::Drain(drain) => drain.1.deadline(timeouts.body, timeouts.body_rate),
            Phase::Stream(_) => self.now + timeouts.write,
            Phase::Linger(_, since) => *since + timeouts.linger,
            // A quiet stream may stay quiet.
            Phase::Outlet(_) => return None,
            Phase::Arrived(_) => self.now + timeouts.header,
            Phase::Http2(http2) if !http2.is_open() => conn.began.unwrap_or(self.now) + timeouts.header,
            // Each of them has deadlines of its own.
            Phase::Http2(http2) if http2.has_streams() => return None,
            // Since the last request, whatever else the client sends.
            Phase::Http2(_) => conn.began.unwrap_or(self.now) + timeouts.idle,
        })
    }

    /// When a connection wants to be looked after though nothing happens.
    fn deadline(&self, conn: &Conn<T>) -> Option<Instant> {
        let due = match &conn.phase {
            Phase::Outlet(flow) => flow.due().into_iter().chain(flow.deadline).min(),
            Phase::Stream(stream) => stream.deadline,
            _ => None,
        };
        self.patience_ends(conn).into_iter().chain(due).min()
    }

    /// Closes a connection.
    pub(crate) fn close(&mut self, mut conn: Box<Conn<T>>) {
        if conn.broken {
            conn.socket.reset_on_close();
        } else {
            conn.socket.farewell();
        }
        if Arc::strong_count(&conn.socket) > HOLDERS && conn.socket.stream().is_none() {
            // Whoever was overtaken by a deadline still holds it: only this tells the client.
            conn.socket.shutdown(Shutdown::Both);
        }
        self.reclaim(std::mem::take(&mut conn.inbuf));
        self.reclaim(std::mem::take(&mut conn.out));
        if let Some(addresses) = self.addresses.as_mut().filter(|_| conn.counted) {
            addresses.leave(&conn.info);
        }
        let at = index(conn.token);
        if let Some(slot) = self.slot(conn.token) {
            slot.generation = slot.generation.wrapping_add(1);
            slot.socket = None;
            slot.timer = Timer::default();
            self.free.push(at as u32);
            match conn.socket.stream() {
                Some(_) => self.streams -= 1,
                None => self.open -= 1,
            }
            self.show();
        }
        drop(conn);
        let is_over = match self.pause {
            Pause::No | Pause::Aside(_) => false,
            Pause::Full | Pause::Exhausted(_) => self.open < self.most,
        };
        if is_over {
            self.resume();
        }
    }

    /// A buffer with some room.
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(READ))
    }

    /// Gives a connection that is about to read a buffer, unless it has one.
    pub(crate) fn equip(&mut self, conn: &mut Conn<T>) {
        if conn.readable && conn.inbuf.capacity() == 0 {
            conn.inbuf = self.buffer();
        }
    }

    /// Takes a buffer back.
    fn reclaim(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        // Small ones would grow again, big ones would hold memory that nobody needs.
        if (READ..=4 * READ).contains(&capacity) && self.buffers.len() < BUFFERS {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    /// Whether the batch is done and nothing else waits.
    pub(crate) fn has_work(&self) -> bool {
        self.cursor < self.ready.len()
            || !self.due.is_empty()
            || !self.overdue.is_empty()
            || !self.returned.is_empty()
            || !self.again.is_empty()
            || !self.woken.is_empty()
            || !self.work.is_empty()
    }

    /// Takes in what has reached the listeners, unless that is left to others, and closes them.
    pub(crate) fn stop_listening(&mut self, hand_over: bool) {
        self.most = usize::MAX;
        // More than any backlog holds; whoever comes later comes too late. When others go on, one: the connection for
        // which the kernel has woken this process, and no other, would wait until the next one comes.
        let most = if hand_over { 1 } else { 1 << 16 };
        for at in 0..self.listeners.len() {
            self.accept(LISTENERS + at as u64, most);
        }
        self.listeners.clear();
        self.place = None;
    }

    /// The connections on which nothing is happening.
    pub(crate) fn idle(&self) -> Vec<u64> {
        let idle = |slot: &&Slot<T>| slot.conn.as_ref().is_some_and(|conn| conn.is_idle());
        self.slots.iter().filter(idle).filter_map(|slot| slot.conn.as_ref()).map(|conn| conn.token).collect()
    }

    /// Whether anything is open, be it a connection or a request that has outlived its own.
    pub(crate) fn is_empty(&self) -> bool {
        self.open + self.streams == 0
    }

    /// The HTTP/2 connections.
    pub(crate) fn http2(&self) -> Vec<u64> {
        let conns = self.slots.iter().filter_map(|slot| slot.conn.as_ref());
        conns.filter(|conn| matches!(conn.phase, Phase::Http2(_))).map(|conn| conn.token).collect()
    }

    /// The connections that outlets feed.
    pub(crate) fn outlets(&self) -> Vec<u64> {
        let conns = self.slots.iter().filter_map(|slot| slot.conn.as_deref());
        conns.filter(|conn| matches!(conn.phase, Phase::Outlet(_))).map(|conn| conn.token).collect()
    }

    /// Ends all connections, those that workers have as well; gives the names of those that are deferred.
    pub(crate) fn cut(&mut self) -> Vec<u64> {
        let mut deferred = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if std::mem::take(&mut slot.expects_end) {
                deferred.push(u64::from(slot.generation) << 32 | at as u64);
            }
            if let Some(socket) = &slot.socket {
                socket.shutdown(Shutdown::Both);
            }
            slot.conn = None;
        }
        self.returned.clear();
        deferred
    }
}
