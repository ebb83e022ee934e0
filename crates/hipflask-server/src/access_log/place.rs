//! Where lines go: a stream, a file, or syslog.
//!
//! Implements: RFC 5424 messages over a Unix datagram socket or UDP (RFC 5426).

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::moment::Moment;
use crate::sys;

/// What a pipe takes in one piece: so the lines of several processes do not mix (pipe(7), PIPE_BUF).
const PIPE: usize = 4096;
/// How often a file is looked for under its name.
const LOOK: Duration = Duration::from_secs(1);
/// How long a descriptor that does not block may take nothing before the writer looks whether it shall end.
const WAIT: Duration = Duration::from_millis(200);
/// The longest message for syslog; RFC 5424 §6.1 asks for 2 KiB, and daemons take 8.
const MESSAGE: usize = 8192;
/// Facility daemon, severity informational (RFC 5424 §6.2.1).
const PRIORITY: u8 = 3 * 8 + 6;
/// Permissions of a new file: others have no business with who has visited what.
const MODE: u32 = 0o640;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, which is appended to.
    File(PathBuf),
    /// Syslog, by a Unix datagram socket.
    Syslog(PathBuf),
    /// Syslog, by UDP: host and port.
    SyslogUdp(String),
}

impl FromStr for Place {
    type Err = std::convert::Infallible;

    /// `-` or `stdout`, `stderr`, `syslog`, `syslog:/path`, `syslog:host:port`, or else a path.
    fn from_str(text: &str) -> Result<Place, Self::Err> {
        Ok(match text {
            "-" | "stdout" => Place::Stdout,
            "stderr" => Place::Stderr,
            "syslog" | "syslog:" => Place::Syslog("/dev/log".into()),
            _ => match text.strip_prefix("syslog:") {
                Some(path) if path.contains('/') => Place::Syslog(path.into()),
                Some(host) if has_port(host) => Place::SyslogUdp(host.to_owned()),
                Some(host) => Place::SyslogUdp(format!("{host}:514")),
                None => Place::File(text.into()),
            },
        })
    }
}

/// Whether a port follows; the colons of an IPv6 address are in brackets.
fn has_port(host: &str) -> bool {
    host.rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// A place that has been opened.
pub(super) enum Opened {
    Stdout,
    Stderr,
    File { path: PathBuf, file: File, looked: Instant },
    Syslog(Syslog),
}

pub(super) struct Syslog {
    to: SyslogTo,
    host: String,
    message: Vec<u8>,
}

enum SyslogTo {
    Unix(PathBuf, Option<UnixDatagram>),
    Udp(UdpSocket),
}

impl Opened {
    /// Opens a place.
    pub(super) fn open(place: &Place) -> io::Result<Opened> {
        Ok(match place {
            Place::Stdout => Opened::Stdout,
            Place::Stderr => Opened::Stderr,
            Place::File(path) => {
                Opened::File { file: append(path)?, path: path.clone(), looked: Instant::now() }
            }
            Place::Syslog(path) => Opened::syslog(SyslogTo::Unix(path.clone(), Some(connect(path)?))),
            Place::SyslogUdp(host) => Opened::syslog(SyslogTo::Udp(connect_udp(host)?)),
        })
    }

    fn syslog(to: SyslogTo) -> Opened {
        let host = sys::host_name();
        let host = if host.is_empty() { "-".to_owned() } else { host };
        Opened::Syslog(Syslog { to, host, message: Vec::new() })
    }

    /// Opens a file anew, since somebody says that it has been moved.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Opened::File { path, file, looked } = self {
            *looked = Instant::now();
            *file = append(path)?;
        }
        Ok(())
    }

    /// Writes whole lines. `goes_on` says, when the place takes nothing, whether to wait on.
    ///
    /// # Errors
    ///
    /// How many of the lines were not written, and why.
    pub(super) fn write(
        &mut self,
        lines: &[u8],
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), (usize, io::Error)> {
        match self {
            Opened::Stdout => write_lines(io::stdout().as_fd(), lines, goes_on),
            Opened::Stderr => write_lines(io::stderr().as_fd(), lines, goes_on),
            Opened::File { path, file, looked } => {
                if looked.elapsed() >= LOOK {
                    *looked = Instant::now();
                    if is_elsewhere(path, file)
                        && let Ok(fresh) = append(path)
                    {
                        *file = fresh;
                    }
                }
                write_all(file.as_fd(), lines, goes_on).map_err(|(left, error)| (count(left), error))
            }
            Opened::Syslog(syslog) => syslog.write(lines),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

/// Whether the file of this name is another one, or none.
fn is_elsewhere(path: &Path, file: &File) -> bool {
    let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(named), Ok(open)) => identity(named) != identity(open),
        (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

fn count(lines: &[u8]) -> usize {
    lines.iter().filter(|&&byte| byte == b'\n').count()
}

/// Writes to what may be a pipe, in pieces that it takes as a whole.
fn write_lines(
    fd: BorrowedFd<'_>,
    mut lines: &[u8],
    goes_on: &dyn Fn() -> bool,
) -> Result<(), (usize, io::Error)> {
    while !lines.is_empty() {
        let room = lines.get(..PIPE).unwrap_or(lines);
        let whole = room.iter().rposition(|&byte| byte == b'\n').map(|at| at + 1);
        let whole = whole.or_else(|| lines.iter().position(|&byte| byte == b'\n').map(|at| at + 1));
        let (piece, rest) = lines.split_at(whole.unwrap_or(lines.len()));
        write_all(fd, piece, goes_on).map_err(|(left, error)| (count(left) + count(rest), error))?;
        lines = rest;
    }
    Ok(())
}

/// Writes all; a descriptor that does not block is waited for.
fn write_all<'a>(
    fd: BorrowedFd<'_>,
    mut bytes: &'a [u8],
    goes_on: &dyn Fn() -> bool,
) -> Result<(), (&'a [u8], io::Error)> {
    while !bytes.is_empty() {
        match sys::write(fd, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && goes_on() => {
                sys::wait_to_write(fd, WAIT).map_err(|error| (bytes, error))?;
            }
            Err(error) => return Err((bytes, error)),
        }
    }
    Ok(())
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(LOOK))?;
    Ok(socket)
}

fn connect_udp(host: &str) -> io::Result<UdpSocket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in host.to_socket_addrs()? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        match UdpSocket::bind(any).and_then(|socket| socket.connect(address).map(|()| socket)) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Syslog {
    fn write(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut lines = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        while let Some(line) = lines.next() {
            self.message.clear();
            self.head();
            self.message.extend_from_slice(line);
            self.message.truncate(MESSAGE);
            if let Err(error) = self.to.send(&self.message) {
                // The others would wait as long for the same.
                return Err((1 + lines.count(), error));
            }
        }
        Ok(())
    }

    /// RFC 5424 §6.2: priority, version, time, host, name, process; neither a kind nor structured data.
    fn head(&mut self) {
        let out = &mut self.message;
        // A vector takes whatever is written.
        let _ = io::Write::write_fmt(out, format_args!("<{PRIORITY}>1 "));
        Moment::ago(Duration::ZERO).iso(out);
        let process = std::process::id();
        let _ = io::Write::write_fmt(out, format_args!(" {} hipflask {process} - - ", self.host));
    }
}

impl SyslogTo {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            // One error may be about the message before: ICMP has told that nobody listened.
            SyslogTo::Udp(socket) => socket.send(message).or_else(|_| socket.send(message)).map(drop),
            SyslogTo::Unix(path, socket) => {
                if let Some(open) = &socket {
                    match open.send(message) {
                        Ok(_) => return Ok(()),
                        // The daemon takes nothing, and another connection would not change that.
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                        Err(_) => *socket = None,
                    }
                }
                // It may have been started again.
                socket.insert(connect(path)?).send(message).map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_by_their_names() {
        for (text, place) in [
            ("-", Place::Stdout),
            ("stdout", Place::Stdout),
            ("stderr", Place::Stderr),
            ("/var/log/app.log", Place::File("/var/log/app.log".into())),
            ("app.log", Place::File("app.log".into())),
            ("syslog", Place::Syslog("/dev/log".into())),
            ("syslog:/run/log", Place::Syslog("/run/log".into())),
            ("syslog:loghost", Place::SyslogUdp("loghost:514".into())),
            ("syslog:loghost:5140", Place::SyslogUdp("loghost:5140".into())),
            ("syslog:[::1]", Place::SyslogUdp("[::1]:514".into())),
            ("syslog:[::1]:5140", Place::SyslogUdp("[::1]:5140".into())),
        ] {
            assert_eq!(text.parse(), Ok(place), "{text}");
        }
    }
}
