//! What carries a connection's bytes: a socket, or a socket with TLS on it.
//!
//! Has the socket's interface: a connection neither knows nor asks what is below it, except while it begins.

use std::fs::File;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys::Socket;
use crate::tls::{Greeting, Session};

/// The way to a client. Never blocks, but for the two `wait` functions.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(Socket),
    Tls(Box<Secure>),
}

/// A socket and the TLS session on it.
#[derive(Debug)]
pub(crate) struct Secure {
    socket: Socket,
    /// One thread has the connection; but a body may be read by one thread while another writes the response. Held for
    /// a system call and the arithmetic, never for a wait.
    session: Mutex<Session>,
}

impl Secure {
    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport {
    pub(crate) fn secure(socket: Socket, session: Session) -> Transport {
        Transport::Tls(Box::new(Secure { socket, session: Mutex::new(session) }))
    }

    fn socket(&self) -> &Socket {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(secure) => &secure.socket,
        }
    }

    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.socket().as_raw_fd()
    }

    /// Appends up to `most` bytes to `into`; 0 is the peer's end. Fewer than `most` mean that the socket is empty.
    pub(crate) fn recv(&self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.recv(into, most),
            Transport::Tls(secure) => secure.session().recv(&secure.socket, into, most),
        }
    }

    /// Takes what can be taken now; `more` tells that the rest of the message follows at once. With TLS, what was taken
    /// may still have to go out: see [`Transport::owes`].
    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.send(bytes, more),
            Transport::Tls(secure) => secure.session().send(&secure.socket, bytes, more),
        }
    }

    /// As [`Transport::send`], of bytes that lie in several places.
    pub(crate) fn send_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.send_slices(slices),
            Transport::Tls(secure) => secure.session().send_slices(&secure.socket, slices),
        }
    }

    /// As [`Transport::send`], a part of a file; 0 means that the file has become shorter.
    pub(crate) fn send_file(&self, file: &File, offset: u64, most: u64) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.send_file(file, offset, most),
            Transport::Tls(secure) => secure.session().send_file(&secure.socket, file, offset, most),
        }
    }

    /// Whether bytes that were taken have not gone out yet.
    pub(crate) fn owes(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(secure) => secure.session().owes(),
        }
    }

    /// Sends what [`Transport::owes`].
    pub(crate) fn flush(&self) -> io::Result<()> {
        match self {
            Transport::Plain(_) => Ok(()),
            Transport::Tls(secure) => secure.session().flush(&secure.socket),
        }
    }

    /// Whether a read could fail or end now though the socket is empty.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(secure) => secure.session().is_over(),
        }
    }

    /// How far the handshake has come.
    pub(crate) fn greeting(&self) -> Greeting {
        match self {
            Transport::Plain(_) => Greeting::Done(None),
            Transport::Tls(secure) => secure.session().greeting(),
        }
    }

    /// Says that nothing more will be sent, as far as that takes no wait.
    pub(crate) fn farewell(&self) {
        if let Transport::Tls(secure) = self {
            secure.session().farewell(&secure.socket);
        }
    }

    /// Ends one or both directions.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        if how == Shutdown::Write {
            self.farewell();
        }
        self.socket().shutdown(how);
    }

    /// Makes closing reset the connection, so that the client cannot take a part for the whole.
    pub(crate) fn reset_on_close(&self) {
        self.socket().reset_on_close();
    }

    /// Blocks until the socket can be read, at most `timeout`. Tells whether it can.
    pub(crate) fn wait_readable(&self, timeout: Duration) -> io::Result<bool> {
        self.socket().wait_readable(timeout)
    }

    /// Blocks until the socket takes bytes, at most `timeout`. Tells whether it does.
    pub(crate) fn wait_writable(&self, timeout: Duration) -> io::Result<bool> {
        self.socket().wait_writable(timeout)
    }
}
