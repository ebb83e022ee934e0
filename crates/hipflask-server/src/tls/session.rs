//! The TLS session of one connection.
//!
//! Uses rustls without its buffers: what is encrypted is taken from the socket into a buffer that belongs to the thread,
//! and an idle connection keeps none. Never blocks.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};

use super::TlsInfo;
use crate::sys::Socket;

/// What one read of the socket asks for: a full record with its head and tail.
const RECORD: usize = 16 * 1024 + 256 + 5;
/// What is encrypted at once: a few records in one system call.
const CHUNK: usize = 64 * 1024;
/// What records add to a chunk, at most.
const OVERHEAD: usize = 1024;

thread_local! {
    static INCOMING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static OUTGOING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static FILE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How far a handshake has come.
#[derive(Debug)]
pub(crate) enum Greeting {
    /// It goes on; whether the client has begun.
    Waits { begun: bool },
    /// It is over; there is nothing to tell of a connection without TLS.
    Done(Option<Box<TlsInfo>>),
    /// The client speaks HTTP without TLS. What is sent now goes out as it is.
    Clear,
    /// It failed.
    Failed(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not a byte has come.
    Fresh,
    Handshake,
    Open,
    /// The client has said that it will send no more.
    Ended,
    /// Nothing can be read any more.
    Failed(io::ErrorKind, &'static str),
    /// No TLS after all.
    Clear,
}

/// TLS between a socket and a connection.
pub(crate) struct Session {
    tls: UnbufferedServerConnection,
    stage: Stage,
    /// Encrypted, and not a whole record yet.
    incoming: Vec<u8>,
    /// Decrypted, and not asked for yet: those from `given` on.
    plain: Vec<u8>,
    given: usize,
    /// Encrypted, and not taken by the socket yet: those from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    said_farewell: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Session, rustls::Error> {
        Ok(Session {
            tls: UnbufferedServerConnection::new(config)?,
            stage: Stage::Fresh,
            incoming: Vec::new(),
            plain: Vec::new(),
            given: 0,
            outgoing: Vec::new(),
            sent: 0,
            said_farewell: false,
        })
    }

    pub(crate) fn greeting(&self) -> Greeting {
        match self.stage {
            Stage::Fresh => Greeting::Waits { begun: false },
            Stage::Handshake => Greeting::Waits { begun: true },
            Stage::Open | Stage::Ended => Greeting::Done(Some(Box::new(self.info()))),
            Stage::Failed(_, why) => Greeting::Failed(why),
            Stage::Clear => Greeting::Clear,
        }
    }

    fn info(&self) -> TlsInfo {
        let version = match self.tls.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        };
        let suite = self.tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let client = self.tls.peer_certificates().and_then(<[_]>::first);
        TlsInfo {
            version,
            cipher: suite.unwrap_or_default(),
            http2: self.tls.alpn_protocol() == Some(b"h2"),
            client_certificate: client.map(|certificate| certificate.to_vec()),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Ended | Stage::Failed(..))
    }

    pub(crate) fn owes(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    /// See [`Transport::recv`](crate::transport::Transport::recv).
    pub(crate) fn recv(&mut self, socket: &Socket, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        if self.stage == Stage::Clear {
            return socket.recv(into, most);
        }
        let before = into.len();
        let full = before + most;
        loop {
            self.hand_out(into, full);
            let had = into.len() > before;
            if into.len() >= full || self.is_over() {
                break;
            }
            let mut incoming = std::mem::take(&mut self.incoming);
            if incoming.capacity() < RECORD {
                let mut spare = INCOMING.take();
                spare.extend_from_slice(&incoming);
                incoming = spare;
            }
            let received = socket.recv(&mut incoming, RECORD);
            match &received {
                Ok(0) => {
                    self.stage =
                        Stage::Failed(io::ErrorKind::UnexpectedEof, "the client left without a word");
                }
                Ok(_) => self.process(socket, &mut incoming, into, full),
                Err(_) => {}
            }
            self.keep(incoming);
            match received {
                // A short read has emptied the socket; but nothing at all may be told only by the socket itself.
                Ok(count) if count < RECORD && (had || into.len() > before) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if into.len() == before => return Err(error),
                Err(error) => self.stage = Stage::Failed(error.kind(), "the connection failed"),
            }
        }
        let count = into.len() - before;
        match self.stage {
            _ if count > 0 => Ok(count),
            Stage::Ended => Ok(0),
            Stage::Failed(kind, _) => Err(kind.into()),
            Stage::Clear => Err(io::ErrorKind::InvalidData.into()),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Gives what was decrypted before.
    fn hand_out(&mut self, into: &mut Vec<u8>, full: usize) {
        let ready = self.plain.get(self.given..).unwrap_or_default();
        let count = ready.len().min(full.saturating_sub(into.len()));
        into.extend_from_slice(ready.get(..count).unwrap_or_default());
        self.given += count;
        if self.given >= self.plain.len() && self.given > 0 {
            self.plain = Vec::new();
            self.given = 0;
        }
    }

    /// Keeps the beginning of a record, and gives the buffer back.
    fn keep(&mut self, mut incoming: Vec<u8>) {
        if incoming.is_empty() {
            INCOMING.set(incoming);
        } else if incoming.len() < RECORD / 4 {
            self.incoming = incoming.as_slice().to_vec();
            incoming.clear();
            INCOMING.set(incoming);
        } else {
            self.incoming = incoming;
        }
    }

    /// Decrypts what has come, and goes on with the handshake.
    fn process(&mut self, socket: &Socket, incoming: &mut Vec<u8>, into: &mut Vec<u8>, full: usize) {
        if self.stage == Stage::Fresh && incoming.first().is_some_and(u8::is_ascii_uppercase) {
            // No record begins so, but every method of HTTP that anybody uses does.
            self.stage = Stage::Clear;
            incoming.clear();
            return;
        }
        if self.stage == Stage::Fresh {
            self.stage = Stage::Handshake;
        }
        let mut at = 0;
        loop {
            let rest = incoming.get_mut(at..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(rest);
            let mut goes_on = true;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        let fits = record.payload.len().min(full.saturating_sub(into.len()));
                        let (now, later) = record.payload.split_at(fits);
                        into.extend_from_slice(now);
                        self.plain.extend_from_slice(later);
                    }
                }
                Ok(ConnectionState::ReadEarlyData(mut early)) => {
                    // Never offered, since it can be replayed.
                    while let Some(Ok(record)) = early.next_record() {
                        discard += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.outgoing),
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed) if self.stage == Stage::Open => self.stage = Stage::Ended,
                Ok(ConnectionState::PeerClosed) => {
                    self.stage =
                        Stage::Failed(io::ErrorKind::UnexpectedEof, "the client gave up the handshake");
                    goes_on = false;
                }
                Ok(_) => goes_on = false,
                Err(error) => {
                    self.stage = Stage::Failed(io::ErrorKind::InvalidData, super::reason(&error));
                    incoming.drain(..(at + discard).min(incoming.len()));
                    self.encode_alert(incoming);
                    incoming.clear();
                    at = 0;
                    break;
                }
            }
            at += discard;
            // With version 1.3 the server may send before the client has proven anything.
            if self.stage == Stage::Handshake && !self.tls.is_handshaking() {
                self.stage = Stage::Open;
            }
            if !goes_on {
                break;
            }
        }
        incoming.drain(..at.min(incoming.len()));
        if self.owes() {
            // What does not go out now is owed.
            let _ = self.flush(socket);
        }
    }

    /// After an error: what the client is to be told of it.
    fn encode_alert(&mut self, incoming: &mut [u8]) {
        // Only while something waits: the broken bytes must not be looked at again.
        while self.tls.wants_write()
            && let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } =
                self.tls.process_tls_records(incoming)
        {
            encode(&mut data, &mut self.outgoing);
        }
    }

    /// Does something with the session when it may send.
    fn with_traffic<R>(
        &mut self,
        act: impl FnOnce(&mut WriteTraffic<'_, rustls::server::ServerConnectionData>, &mut Vec<u8>) -> R,
    ) -> Option<R> {
        loop {
            match self.tls.process_tls_records(&mut self.incoming).state.ok()? {
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, &mut self.outgoing),
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    return Some(act(&mut traffic, &mut self.outgoing));
                }
                _ => return None,
            }
        }
    }

    /// See [`Transport::send`](crate::transport::Transport::send).
    pub(crate) fn send(&mut self, socket: &Socket, bytes: &[u8], more: bool) -> io::Result<usize> {
        match self.stage {
            Stage::Clear => return socket.send(bytes, more),
            Stage::Failed(..) | Stage::Fresh | Stage::Handshake => {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Stage::Open | Stage::Ended => self.flush(socket)?,
        }
        let part = bytes.get(..bytes.len().min(CHUNK)).unwrap_or_default();
        if self.outgoing.capacity() == 0 {
            self.outgoing = OUTGOING.take();
        }
        let encrypted = self.with_traffic(|traffic, outgoing| encrypt(traffic, part, outgoing));
        if encrypted != Some(true) {
            self.stage = Stage::Failed(io::ErrorKind::BrokenPipe, "the session can send no more");
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match self.write(socket, more) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(part.len()),
        }
    }

    /// See [`Transport::send_slices`](crate::transport::Transport::send_slices).
    pub(crate) fn send_slices(&mut self, socket: &Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [] => return Ok(0),
            [only] => return self.send(socket, only, false),
            [first, ..] if first.len() >= CHUNK => return self.send(socket, first, false),
            _ => {}
        }
        self.flush(socket)?;
        // One record for several small pieces: a record each would cost more than the copy.
        let mut piece = FILE.take();
        piece.clear();
        for slice in slices {
            let room = CHUNK - piece.len();
            piece.extend_from_slice(slice.get(..slice.len().min(room)).unwrap_or_default());
        }
        let result = self.send(socket, &piece, false);
        FILE.set(piece);
        result
    }

    /// See [`Transport::send_file`](crate::transport::Transport::send_file).
    pub(crate) fn send_file(
        &mut self,
        socket: &Socket,
        file: &File,
        offset: u64,
        most: u64,
    ) -> io::Result<usize> {
        self.flush(socket)?;
        let mut piece = FILE.take();
        piece.resize(CHUNK, 0);
        let wanted = usize::try_from(most).unwrap_or(CHUNK).min(CHUNK);
        let result = match file.read_at(piece.get_mut(..wanted).unwrap_or_default(), offset) {
            Ok(0) => Ok(0),
            Ok(count) => self.send(socket, piece.get(..count).unwrap_or_default(), false),
            Err(error) => Err(error),
        };
        FILE.set(piece);
        result
    }

    /// See [`Transport::flush`](crate::transport::Transport::flush).
    pub(crate) fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        if self.owes() { self.write(socket, false) } else { Ok(()) }
    }

    fn write(&mut self, socket: &Socket, more: bool) -> io::Result<()> {
        while let Some(rest) = self.outgoing.get(self.sent..)
            && !rest.is_empty()
        {
            match socket.send(rest, more) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut done = std::mem::take(&mut self.outgoing);
        self.sent = 0;
        done.clear();
        OUTGOING.set(done);
        Ok(())
    }

    /// See [`Transport::farewell`](crate::transport::Transport::farewell).
    pub(crate) fn farewell(&mut self, socket: &Socket) {
        if matches!(self.stage, Stage::Open | Stage::Ended)
            && !std::mem::replace(&mut self.said_farewell, true)
        {
            self.with_traffic(|traffic, outgoing| {
                let at = outgoing.len();
                outgoing.resize(at + OVERHEAD, 0);
                let room = outgoing.get_mut(at..).unwrap_or_default();
                let count = traffic.queue_close_notify(room).unwrap_or(0);
                outgoing.truncate(at + count);
            });
        }
        let _ = self.flush(socket);
    }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) {
    let at = outgoing.len();
    let mut room = OVERHEAD;
    loop {
        outgoing.resize(at + room, 0);
        match data.encode(outgoing.get_mut(at..).unwrap_or_default()) {
            Ok(count) => return outgoing.truncate(at + count),
            Err(EncodeError::InsufficientSize(error)) => room = error.required_size,
            Err(EncodeError::AlreadyEncoded) => return outgoing.truncate(at),
        }
    }
}

fn encrypt<D>(traffic: &mut WriteTraffic<'_, D>, bytes: &[u8], outgoing: &mut Vec<u8>) -> bool {
    let at = outgoing.len();
    let mut room = bytes.len() + OVERHEAD;
    loop {
        outgoing.resize(at + room, 0);
        match traffic.encrypt(bytes, outgoing.get_mut(at..).unwrap_or_default()) {
            Ok(count) => {
                outgoing.truncate(at + count);
                return true;
            }
            Err(EncryptError::InsufficientSize(error)) => room = error.required_size,
            Err(EncryptError::EncryptExhausted) => return false,
        }
    }
}
