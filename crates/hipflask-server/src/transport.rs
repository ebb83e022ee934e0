//! What carries a connection's bytes: a socket, a socket with TLS on it, or a stream of an HTTP/2 connection.
//!
//! Has the socket's interface: a connection neither knows nor asks what is below it, except while it begins.

use std::fs::File;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use crate::http2::Pipe;
use crate::locked;
use crate::sys::Socket;
use crate::tls::{Greeting, Session};

/// How much of a file is given to a stream at once.
const PIECE: usize = 32 * 1024;

/// The way to a client. Never blocks, but for the two `wait` functions.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(Socket),
    Tls(Box<Secure>),
    Stream(Box<Pipe>),
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
        locked(&self.session)
    }
}

impl Transport {
    pub(crate) fn secure(socket: Socket, session: Session) -> Transport {
        Transport::Tls(Box::new(Secure { socket, session: Mutex::new(session) }))
    }

    /// What the poller watches; a stream's is its connection's.
    pub(crate) fn raw_fd(&self) -> Option<RawFd> {
        match self {
            Transport::Plain(socket) => Some(socket.as_raw_fd()),
            Transport::Tls(secure) => Some(secure.socket.as_raw_fd()),
            Transport::Stream(_) => None,
        }
    }

    /// What becomes readable when there may be more to read.
    pub(crate) fn awaited(&self) -> Option<RawFd> {
        match self {
            Transport::Stream(pipe) => pipe.awaited(),
            _ => self.raw_fd(),
        }
    }

    /// The stream, if it is one.
    pub(crate) fn stream(&self) -> Option<&Pipe> {
        match self {
            Transport::Stream(pipe) => Some(pipe),
            _ => None,
        }
    }

    /// The socket below whatever is on it; a stream has none.
    fn socket(&self) -> Option<&Socket> {
        match self {
            Transport::Plain(socket) => Some(socket),
            Transport::Tls(secure) => Some(&secure.socket),
            Transport::Stream(_) => None,
        }
    }

    /// The first bytes that have come, before TLS and all, left where they are.
    pub(crate) fn peek(&self, most: usize) -> io::Result<Vec<u8>> {
        self.socket().map_or(Ok(Vec::new()), |socket| socket.peek(most))
    }

    /// Drops bytes that [`Transport::peek`] has shown.
    pub(crate) fn skip(&self, count: usize) -> io::Result<()> {
        let mut dropped = Vec::new();
        while let (Some(socket), Some(left @ 1..)) = (self.socket(), count.checked_sub(dropped.len())) {
            if socket.recv(&mut dropped, left)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Appends up to `most` bytes to `into`; 0 is the peer's end. Fewer than `most` mean that the socket is empty.
    pub(crate) fn recv(&self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.recv(into, most),
            Transport::Tls(secure) => secure.session().recv(&secure.socket, into, most),
            Transport::Stream(pipe) => pipe.recv(into, most),
        }
    }

    /// Takes what can be taken now; `more` tells that the rest of the message follows at once. With TLS, what was taken
    /// may still have to go out: see [`Transport::owes`].
    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.send(bytes, more),
            Transport::Tls(secure) => secure.session().send(&secure.socket, bytes, more),
            Transport::Stream(pipe) => pipe.send(bytes),
        }
    }

    /// As [`Transport::send`], of bytes that lie in several places.
    pub(crate) fn send_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.send_slices(slices),
            Transport::Tls(secure) => secure.session().send_slices(&secure.socket, slices),
            Transport::Stream(pipe) => {
                let mut sent = 0;
                for slice in slices {
                    let count = match pipe.send(slice) {
                        Ok(count) => count,
                        Err(error) if sent == 0 => return Err(error),
                        Err(_) => break,
                    };
                    sent += count;
                    if count < slice.len() {
                        break;
                    }
                }
                Ok(sent)
            }
        }
    }

    /// As [`Transport::send`], a part of a file; 0 means that the file has become shorter.
    pub(crate) fn send_file(&self, file: &File, offset: u64, most: u64) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.send_file(file, offset, most),
            Transport::Tls(secure) => secure.session().send_file(&secure.socket, file, offset, most),
            Transport::Stream(pipe) => {
                let wanted = usize::try_from(most).unwrap_or(PIECE).min(PIECE);
                let mut piece = vec![0; wanted];
                match file.read_at(&mut piece, offset)? {
                    0 => Ok(0),
                    count => pipe.send(piece.get(..count).unwrap_or_default()),
                }
            }
        }
    }

    /// Whether the kernel sends files, without a copy.
    pub(crate) fn sends_files(&self) -> bool {
        matches!(self, Transport::Plain(_))
    }

    /// Whether bytes that were taken have not gone out yet.
    pub(crate) fn owes(&self) -> bool {
        match self {
            Transport::Plain(_) | Transport::Stream(_) => false,
            Transport::Tls(secure) => secure.session().owes(),
        }
    }

    /// Sends what [`Transport::owes`].
    pub(crate) fn flush(&self) -> io::Result<()> {
        match self {
            Transport::Plain(_) | Transport::Stream(_) => Ok(()),
            Transport::Tls(secure) => secure.session().flush(&secure.socket),
        }
    }

    /// Whether a read could fail or end now though the socket is empty.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(secure) => secure.session().is_over(),
            Transport::Stream(pipe) => pipe.is_over(),
        }
    }

    /// The trailer section behind a body of a known length: empty if there is none, as always on HTTP/1.1, which has
    /// trailers in chunks only.
    pub(crate) fn tail(&self) -> Poll<io::Result<Vec<u8>>> {
        match self {
            Transport::Stream(pipe) => pipe.tail(),
            _ => Poll::Ready(Ok(Vec::new())),
        }
    }

    /// How far the handshake has come.
    pub(crate) fn greeting(&self) -> Greeting {
        match self {
            Transport::Plain(_) | Transport::Stream(_) => Greeting::Done(None),
            Transport::Tls(secure) => secure.session().greeting(),
        }
    }

    /// Says that nothing more will be sent, as far as that takes no wait.
    pub(crate) fn farewell(&self) {
        match self {
            Transport::Plain(_) => {}
            Transport::Tls(secure) => secure.session().farewell(&secure.socket),
            Transport::Stream(pipe) => pipe.finish(),
        }
    }

    /// Ends one or both directions.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        if how == Shutdown::Write {
            self.farewell();
        }
        match self {
            Transport::Plain(socket) => socket.shutdown(how),
            Transport::Tls(secure) => secure.socket.shutdown(how),
            Transport::Stream(pipe) if how == Shutdown::Both => pipe.reset(),
            Transport::Stream(_) => {}
        }
    }

    /// Makes closing reset the connection, so that the client cannot take a part for the whole.
    pub(crate) fn reset_on_close(&self) {
        match self {
            Transport::Plain(socket) => socket.reset_on_close(),
            Transport::Tls(secure) => secure.socket.reset_on_close(),
            Transport::Stream(pipe) => pipe.reset(),
        }
    }

    /// Blocks until the socket can be read, at most `timeout`. Tells whether it can.
    pub(crate) fn wait_readable(&self, timeout: Duration) -> io::Result<bool> {
        match self {
            Transport::Plain(socket) => socket.wait_readable(timeout),
            Transport::Tls(secure) => secure.socket.wait_readable(timeout),
            Transport::Stream(pipe) => Ok(pipe.wait(timeout)),
        }
    }

    /// Blocks until the socket takes bytes, at most `timeout`. Tells whether it does.
    pub(crate) fn wait_writable(&self, timeout: Duration) -> io::Result<bool> {
        match self {
            Transport::Plain(socket) => socket.wait_writable(timeout),
            Transport::Tls(secure) => secure.socket.wait_writable(timeout),
            Transport::Stream(pipe) => Ok(pipe.wait(timeout)),
        }
    }
}
