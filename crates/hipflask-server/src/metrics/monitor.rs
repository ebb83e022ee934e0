//! A small HTTP server of its own for probes, Prometheus and `hipflask top`.
//!
//! It needs neither the interpreter nor the engine, so it answers whatever they do. It is driven by whoever calls
//! [`Monitor::turn`]: a thread in a server of one process, the supervisor of several, which has no threads since it
//! forks.
//!
//! A client that stays without asking is sent away when its place is needed: there are no timers.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hipflask_http::{Limits, RequestHead};

use super::board::Board;
use super::prometheus::content_type;
use crate::locked;
use crate::sys::{self, Bell, Event, Interest, Poller, Socket};

/// Open connections, at most; the oldest one makes room. A Prometheus keeps one, a probe opens one each time.
const PEERS: usize = 64;
/// Events taken at once.
const EVENTS: usize = 32;
/// What one read asks for.
const READ: usize = 4096;
const BELL: u64 = u64::MAX;
/// Tokens from here on are listeners.
const LISTENERS: u64 = 1 << 62;

/// What is told to those who come to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `/metrics`, `/healthz`, `/readyz`.
    Metrics,
    /// All that is known, as JSON.
    Control,
}

/// Answers on sockets of its own.
pub struct Monitor {
    board: Arc<Board>,
    bell: Bell,
    closed: AtomicBool,
    /// Outside of the lock, for those who wait for it elsewhere.
    poller_fd: RawFd,
    state: Mutex<Desk>,
}

struct Desk {
    poller: Poller,
    listeners: Vec<(OwnedFd, Role)>,
    peers: VecDeque<Peer>,
    next: u64,
    limits: Limits,
}

struct Peer {
    token: u64,
    socket: Socket,
    role: Role,
    inbuf: Vec<u8>,
    out: Vec<u8>,
    closing: bool,
}

impl Monitor {
    /// One that has no sockets yet.
    ///
    /// # Errors
    ///
    /// Descriptors ran out.
    pub fn new(board: Arc<Board>) -> io::Result<Monitor> {
        let bell = Bell::new()?;
        let poller = Poller::new(EVENTS)?;
        poller.add(bell.as_raw_fd(), BELL, Interest::Listen)?;
        let limits = Limits { head: 16 * 1024, ..Limits::default() };
        Ok(Monitor {
            board,
            bell,
            closed: AtomicBool::new(false),
            poller_fd: poller.as_raw_fd(),
            state: Mutex::new(Desk {
                poller,
                listeners: Vec::new(),
                peers: VecDeque::new(),
                next: 0,
                limits,
            }),
        })
    }

    /// The board that it reads.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// A descriptor that can be read when [`Monitor::turn`] has something to do.
    pub fn poll_fd(&self) -> RawFd {
        self.poller_fd
    }

    /// Answers at a listening socket. Not while another thread is in [`Monitor::turn`], which would hold this up.
    ///
    /// # Errors
    ///
    /// It is no listening socket.
    pub fn listen(&self, listener: OwnedFd, role: Role) -> io::Result<()> {
        use std::os::fd::AsFd;
        sys::adopt_listener(listener.as_fd())?;
        let mut desk = self.lock();
        let token = LISTENERS + desk.listeners.len() as u64;
        desk.poller.add(listener.as_raw_fd(), token, Interest::Listen)?;
        desk.listeners.push((listener, role));
        Ok(())
    }

    /// Answers at none of the sockets any more.
    pub fn forget_listeners(&self) {
        let mut desk = self.lock();
        for (listener, _) in std::mem::take(&mut desk.listeners) {
            // Closing it does not: others have the same socket open.
            drop(desk.poller.remove(listener.as_raw_fd()));
        }
    }

    /// Does what is there to do, after waiting for it at most so long.
    ///
    /// # Errors
    ///
    /// The poller failed.
    pub fn turn(&self, most: Option<Duration>) -> io::Result<()> {
        let mut desk = self.lock();
        let mut ready = Vec::new();
        desk.poller.wait(most, &mut ready)?;
        if self.closed.load(Ordering::SeqCst) {
            desk.peers.clear();
            desk.listeners.clear();
            return Ok(());
        }
        for event in ready {
            desk.event(event, &self.board);
        }
        Ok(())
    }

    /// Turns until [`Monitor::close`].
    pub fn run(&self) {
        while !self.closed.load(Ordering::SeqCst) {
            if self.turn(None).is_err() {
                return;
            }
        }
    }

    /// Ends it, in this process.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.bell.ring();
        if let Ok(mut desk) = self.state.try_lock() {
            desk.peers.clear();
            desk.listeners.clear();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Desk> {
        locked(&self.state)
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("board", &self.board).finish_non_exhaustive()
    }
}

impl Desk {
    fn event(&mut self, event: Event, board: &Board) {
        if event.token == BELL {
            return;
        }
        if event.token >= LISTENERS {
            return self.accept((event.token - LISTENERS) as usize);
        }
        let Some(at) = self.peers.iter().position(|peer| peer.token == event.token) else { return };
        let Some(peer) = self.peers.get_mut(at) else { return };
        if !peer.go_on(&self.limits, board) {
            // Closing the socket takes it out of the poller.
            self.peers.remove(at);
        }
    }

    fn accept(&mut self, at: usize) {
        let Some((listener, role)) = self.listeners.get(at) else { return };
        let role = *role;
        let Ok((socket, _)) = sys::accept(listener.as_raw_fd()) else {
            // Descriptors may have run out: closing the oldest one makes room for the next.
            self.peers.pop_front();
            return;
        };
        let token = self.next;
        self.next = (self.next + 1) % LISTENERS;
        if self.poller.add(socket.as_raw_fd(), token, Interest::ReadWrite).is_err() {
            return;
        }
        if self.peers.len() >= PEERS {
            self.peers.pop_front();
        }
        let (inbuf, out) = (Vec::new(), Vec::new());
        self.peers.push_back(Peer { token, socket, role, inbuf, out, closing: false });
    }
}

impl Peer {
    /// Reads, answers and writes as far as it goes; whether the connection stays.
    fn go_on(&mut self, limits: &Limits, board: &Board) -> bool {
        loop {
            while !self.out.is_empty() {
                match self.socket.send(&self.out, false) {
                    Ok(count) => drop(self.out.drain(..count)),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                }
            }
            if self.closing {
                return false;
            }
            if self.answer(limits, board) {
                continue;
            }
            match self.socket.recv(&mut self.inbuf, READ) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Answers the next request, if all of it is there.
    fn answer(&mut self, limits: &Limits, board: &Board) -> bool {
        if self.inbuf.is_empty() {
            return false;
        }
        let mut head = RequestHead::new();
        match head.parse(&self.inbuf, limits) {
            Ok(None) => return false,
            Ok(Some(used)) => {
                self.inbuf.drain(..used);
                // Nobody asks with a body; what follows one could not be told from it.
                self.closing = !head.keep_alive() || !matches!(head.framing(), hipflask_http::Framing::None);
                self.respond(&head, board);
            }
            Err(error) => {
                self.closing = true;
                self.write(error.status(), "text/plain; charset=utf-8", error.reason(), false);
            }
        }
        true
    }

    fn respond(&mut self, head: &RequestHead, board: &Board) {
        const PLAIN: &str = "text/plain; charset=utf-8";
        if !matches!(head.method(), b"GET" | b"HEAD") {
            return self.write(405, PLAIN, "only GET is answered here\n", false);
        }
        let only_head = head.is_head();
        match (self.role, head.raw_path()) {
            (Role::Metrics, b"/metrics") => {
                let open = wants_open_metrics(head);
                self.write(200, content_type(open), &board.prometheus(open), only_head);
            }
            (_, b"/healthz") => match board.health() {
                Ok(text) => self.write(200, PLAIN, &text, only_head),
                Err(text) => self.write(503, PLAIN, &text, only_head),
            },
            (_, b"/readyz") => match board.readiness() {
                Ok(()) => self.write(200, PLAIN, "ready\n", only_head),
                Err(text) => self.write(503, PLAIN, &text, only_head),
            },
            (Role::Control, b"/" | b"/status") => {
                self.write(200, "application/json", &board.status(), only_head);
            }
            (Role::Control, b"/metrics") => {
                self.write(200, content_type(false), &board.prometheus(false), only_head);
            }
            _ => self.write(404, PLAIN, "there are /metrics, /healthz and /readyz\n", only_head),
        }
    }

    fn write(&mut self, status: u16, kind: &str, body: &str, only_head: bool) {
        let reason = match status {
            200 => "OK",
            404 => "NOT FOUND",
            405 => "METHOD NOT ALLOWED",
            503 => "SERVICE UNAVAILABLE",
            _ => "BAD REQUEST",
        };
        let close = if self.closing { "Connection: close\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{close}\
             Cache-Control: no-store\r\n\r\n",
            body.len()
        );
        self.out.extend_from_slice(head.as_bytes());
        if !only_head {
            self.out.extend_from_slice(body.as_bytes());
        }
    }
}

/// Whether a client asks for OpenMetrics. A weight is of no matter: who names it can read it.
pub fn wants_open_metrics(head: &RequestHead) -> bool {
    head.field_values(b"accept").any(|value| {
        value
            .split(|byte| *byte == b',')
            .any(|kind| kind.trim_ascii().starts_with(b"application/openmetrics-text"))
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn serve(role: Role) -> (Arc<Monitor>, std::net::SocketAddr) {
        let monitor = Arc::new(Monitor::new(Arc::new(Board::new(1).unwrap())).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        monitor.listen(listener.as_fd().try_clone_to_owned().unwrap(), role).unwrap();
        let runs = Arc::clone(&monitor);
        std::thread::spawn(move || runs.run());
        (monitor, at)
    }

    fn ask(at: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(at: std::net::SocketAddr, path: &str) -> String {
        ask(at, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    #[test]
    fn each_path_has_its_answer() {
        let (monitor, at) = serve(Role::Metrics);
        for (path, status, body) in [
            ("/metrics", "200", "hipflask_ready 0"),
            ("/healthz", "200", "ok"),
            ("/readyz", "503", "not ready"),
            ("/", "404", "there are"),
            ("/status", "404", "there are"),
        ] {
            let answer = get(at, path);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
            assert!(answer.contains(body), "{path}: {answer}");
        }
        monitor.close();
    }

    #[test]
    fn requests_that_come_together_are_answered_in_order() {
        let (monitor, at) = serve(Role::Control);
        let one = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        let last = "GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = ask(at, &format!("{one}{one}{last}"));
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 3, "{answer}");
        assert!(answer.contains("\"workers\":[]"), "{answer}");
        monitor.close();
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let (monitor, at) = serve(Role::Metrics);
        assert!(ask(at, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx";
        assert!(ask(at, post).starts_with("HTTP/1.1 405 "));
        let head = ask(at, "HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
        monitor.close();
    }

    #[test]
    fn the_same_sockets_can_be_listened_to_anew() {
        let monitor = Monitor::new(Arc::new(Board::new(1).unwrap())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..3 {
            monitor.forget_listeners();
            monitor.listen(listener.as_fd().try_clone_to_owned().unwrap(), Role::Metrics).unwrap();
        }
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        monitor.forget_listeners();
        // Nobody is told of who comes to a socket that was forgotten.
        monitor.turn(Some(Duration::ZERO)).unwrap();
        assert!(monitor.lock().peers.is_empty());
        drop(client);
    }

    #[test]
    fn those_who_ask_for_it_get_openmetrics() {
        let (monitor, at) = serve(Role::Metrics);
        let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1";
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        let answer = ask(at, &request);
        assert!(
            answer.contains("application/openmetrics-text; version=1.0.0") && answer.ends_with("# EOF\n")
        );
        monitor.close();
    }

    #[test]
    fn clients_that_say_nothing_are_sent_away_by_those_who_do() {
        let (monitor, at) = serve(Role::Metrics);
        let silent: Vec<_> = (0..2 * PEERS).map(|_| TcpStream::connect(at).unwrap()).collect();
        assert!(get(at, "/healthz").starts_with("HTTP/1.1 200 "));
        drop(silent);
        monitor.close();
    }
}
