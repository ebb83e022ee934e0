//! The system calls that the standard library does not offer, each behind a safe function.
//!
//! All of the crate's `unsafe` is here and in [`word`](crate::word). The poller is edge-triggered: a connection
//! registers once in its life, and one whose request is on a worker costs no system call to silence. The price is
//! that readers must remember that a socket may hold more. A kqueue version has the same interface: `EV_CLEAR` is
//! the same contract.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

#[cfg(not(target_os = "linux"))]
compile_error!("the poller of this system is not written yet: `sys.rs` is the only module that needs it");

/// Turns the usual -1 into the error that it stands for.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`checked`], for calls that return a length.
fn length(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Makes an owned descriptor of a call's result.
fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    let fd = checked(result)?;
    // SAFETY: the call has just returned this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One ready descriptor: what was registered with it and what happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// The number given at registration.
    pub(crate) token: u64,
    /// Bytes, a connection or an end may be read.
    pub(crate) readable: bool,
    /// The peer has sent its last byte, or the connection is broken.
    pub(crate) ended: bool,
}

/// What a descriptor waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Edge-triggered reading.
    Read,
    /// Edge-triggered reading and writing.
    ReadWrite,
    /// Level-triggered reading: listeners, from which a batch takes only a part.
    Listen,
    /// As `Listen`, for a listener of several processes: a connection wakes one of those that wait. It cannot be
    /// changed, only removed.
    Share,
    /// Nothing for now.
    Nothing,
}

impl Interest {
    fn mask(self) -> u32 {
        let edge = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET;
        (match self {
            Interest::Read => edge,
            Interest::ReadWrite => edge | libc::EPOLLOUT,
            Interest::Listen => libc::EPOLLIN,
            Interest::Share => libc::EPOLLIN | libc::EPOLLEXCLUSIVE,
            Interest::Nothing => 0,
        }) as u32
    }
}

/// An epoll descriptor and its room for one batch.
pub(crate) struct Poller {
    epoll: OwnedFd,
    room: Vec<libc::epoll_event>,
}

impl Poller {
    /// A poller that reports up to `batch` events at once.
    pub(crate) fn new(batch: usize) -> io::Result<Poller> {
        // SAFETY: takes no pointers.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Poller { epoll, room: vec![libc::epoll_event { events: 0, u64: 0 }; batch] })
    }

    /// Can be read when something is ready.
    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.mask(), u64: token };
        // SAFETY: `event` is valid for the call, which does not keep it.
        checked(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) }).map(|_| ())
    }

    /// Starts to watch a descriptor; closing it ends that.
    pub(crate) fn add(&self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    /// Ends to watch a descriptor that stays open.
    pub(crate) fn remove(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, Interest::Nothing)
    }

    /// Changes what a watched descriptor waits for.
    pub(crate) fn change(&self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
    }

    /// Waits for events, at most `timeout` (rounded up to a millisecond; `None` for ever), and appends them.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Event>) -> io::Result<()> {
        let timeout = milliseconds(timeout);
        let room = libc::c_int::try_from(self.room.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `room` events are writable behind the pointer.
        let count =
            unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), self.room.as_mut_ptr(), room, timeout) };
        let count = match checked(count) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        ready.extend(self.room.iter().take(count).map(|event| {
            let mask = event.events;
            let has = |bits: libc::c_int| mask & bits as u32 != 0;
            Event {
                token: event.u64,
                readable: has(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR),
                ended: has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR),
            }
        }));
        Ok(())
    }
}

/// A timeout as poll(2) takes it: rounded up, so that a timer is never early and never spins.
fn milliseconds(timeout: Option<Duration>) -> libc::c_int {
    match timeout {
        None => -1,
        Some(timeout) => {
            libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
        }
    }
}

/// What ends another thread's wait in the poller.
#[derive(Debug)]
pub(crate) struct Bell {
    event: OwnedFd,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        // SAFETY: takes no pointers.
        let event = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        Ok(Bell { event })
    }

    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Ends the wait, now or the next one.
    pub(crate) fn ring(&self) {
        let one = 1u64;
        // SAFETY: eight readable bytes behind the pointer. A full counter (the only failure) rings all the same.
        unsafe { libc::write(self.event.as_raw_fd(), (&raw const one).cast(), mem::size_of::<u64>()) };
    }

    /// Makes the bell silent again.
    pub(crate) fn quiet(&self) {
        let mut count = 0u64;
        // SAFETY: eight writable bytes behind the pointer. Failure means that the bell was silent.
        unsafe { libc::read(self.event.as_raw_fd(), (&raw mut count).cast(), mem::size_of::<u64>()) };
    }
}

/// A connected stream socket, never blocking.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Appends up to `most` bytes from the socket to `into`; 0 is the peer's end.
    pub(crate) fn recv(&self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        into.reserve(most);
        let spare = into.spare_capacity_mut();
        let most = spare.len().min(most);
        // Not `recv`: as a cancellation point it costs 1 % of a small request in a process with threads.
        // SAFETY: `most` bytes of spare capacity are writable behind the pointer; no address is asked for.
        let got = unsafe {
            let (address, size) = (ptr::null_mut::<u8>(), ptr::null_mut::<u8>());
            libc::syscall(libc::SYS_recvfrom, self.fd.as_raw_fd(), spare.as_mut_ptr(), most, 0, address, size)
        };
        let got = length(got as libc::ssize_t)?;
        // SAFETY: the kernel has initialised `got` bytes, at most `most`, right behind the old length.
        unsafe { into.set_len(into.len() + got) };
        Ok(got)
    }

    /// As [`Socket::recv`], and leaves the bytes where they are.
    pub(crate) fn peek(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(most);
        let spare = bytes.spare_capacity_mut();
        // SAFETY: `spare` is writable for its length.
        let got = unsafe {
            libc::recv(self.fd.as_raw_fd(), spare.as_mut_ptr().cast(), spare.len(), libc::MSG_PEEK)
        };
        let got = length(got)?;
        // SAFETY: the kernel has initialised `got` bytes, at most the capacity.
        unsafe { bytes.set_len(got) };
        Ok(bytes)
    }

    /// Sends what the socket takes now; `more` tells that the rest of the message follows at once.
    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        let flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
        // Not `send`, for the reason given at `recv`.
        // SAFETY: `bytes` is readable for its length; no address is given.
        let sent = unsafe {
            let address = ptr::null::<u8>();
            libc::syscall(
                libc::SYS_sendto,
                self.fd.as_raw_fd(),
                bytes.as_ptr(),
                bytes.len(),
                flags,
                address,
                0,
            )
        };
        length(sent as libc::ssize_t)
    }

    /// Sends what the socket takes now of bytes that lie in several places.
    pub(crate) fn send_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // SAFETY: zeroed memory is a valid `msghdr`: no address, nothing to send.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        // The standard library promises that an `IoSlice` is laid out as an `iovec`; sending does not write to it.
        message.msg_iov = slices.as_ptr().cast_mut().cast();
        message.msg_iovlen = slices.len() as _;
        // SAFETY: `message` names as many readable buffers as `slices` has, all borrowed for the call.
        length(unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) })
    }

    /// Sends a part of a file without copying it here; 0 means that the file has become shorter.
    pub(crate) fn send_file(&self, file: &File, offset: u64, most: u64) -> io::Result<usize> {
        let mut at =
            libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // Linux moves at most 0x7ffff000 bytes at once; a megabyte keeps the leader responsive.
        let most = usize::try_from(most.min(1 << 20)).unwrap_or(1 << 20);
        // SAFETY: both descriptors are open and `at` is writable.
        length(unsafe { libc::sendfile(self.fd.as_raw_fd(), file.as_raw_fd(), &raw mut at, most) })
    }

    /// Ends one or both directions.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let how = match how {
            Shutdown::Read => libc::SHUT_RD,
            Shutdown::Write => libc::SHUT_WR,
            Shutdown::Both => libc::SHUT_RDWR,
        };
        // SAFETY: takes no pointers. An error means that the peer was faster.
        unsafe { libc::shutdown(self.fd.as_raw_fd(), how) };
    }

    /// Makes closing reset the connection, so that the client cannot take a part for the whole.
    pub(crate) fn reset_on_close(&self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let size = mem::size_of_val(&linger) as libc::socklen_t;
        // SAFETY: `linger` is as long as `size` says. Unix sockets refuse, and need it not.
        unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size,
            )
        };
    }

    /// Blocks until the socket can be read, at most `timeout`. Tells whether it can.
    pub(crate) fn wait_readable(&self, timeout: Duration) -> io::Result<bool> {
        let mut entry =
            libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN | libc::POLLRDHUP, revents: 0 };
        // SAFETY: one valid entry behind the pointer.
        match checked(unsafe { libc::poll(&raw mut entry, 1, milliseconds(Some(timeout))) }) {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Blocks until the socket takes bytes, at most `timeout`. Tells whether it does.
    pub(crate) fn wait_writable(&self, timeout: Duration) -> io::Result<bool> {
        wait_to_write(self.fd.as_fd(), timeout)
    }

    /// The address at our end; `None` for a Unix socket.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        local_address(self.fd.as_raw_fd())
    }
}

/// Takes the next connection of a listener.
pub(crate) fn accept(listener: RawFd) -> io::Result<(Socket, Option<SocketAddr>)> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut size = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` is as large as `size` says and both outlive the call.
    let fd = owned(unsafe {
        libc::accept4(
            listener,
            storage.as_mut_ptr().cast(),
            &raw mut size,
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        )
    })?;
    // SAFETY: zeroed memory is a valid `sockaddr_storage`, and the kernel wrote an address over it.
    let storage = unsafe { storage.assume_init() };
    Ok((Socket { fd }, address(&storage)))
}

/// The address that a socket is bound to.
pub(crate) fn local_address(fd: RawFd) -> Option<SocketAddr> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut size = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` is as large as `size` says and both outlive the call.
    checked(unsafe { libc::getsockname(fd, storage.as_mut_ptr().cast(), &raw mut size) }).ok()?;
    // SAFETY: zeroed memory is a valid `sockaddr_storage`, and the kernel wrote an address over it.
    address(&unsafe { storage.assume_init() })
}

fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a `sockaddr_in`, which is smaller than the storage.
            let v4 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this is a `sockaddr_in6`, which is smaller than the storage.
            let v6 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            // A v4 client of a dual-stack listener is told by its v4 address.
            let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
            Some(SocketAddr::new(ip, u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

fn option(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` is an int, as long as `size` says.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) })
        .map(|_| ())
}

/// A listening TCP socket.
pub(crate) fn listen_tcp(
    at: SocketAddr,
    backlog: i32,
    reuse_port: bool,
    only_v6: bool,
) -> io::Result<OwnedFd> {
    let family = if at.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointers.
    let fd = owned(unsafe { libc::socket(family, kind, 0) })?;
    option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if reuse_port {
        option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    // Accepted sockets inherit it: no call per connection.
    option(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    let result = match at {
        SocketAddr::V4(at) => {
            // SAFETY: all-zero is a valid `sockaddr_in`.
            let mut name: libc::sockaddr_in = unsafe { mem::zeroed() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = at.port().to_be();
            name.sin_addr.s_addr = u32::from(*at.ip()).to_be();
            let size = mem::size_of_val(&name) as libc::socklen_t;
            // SAFETY: `name` is as long as `size` says.
            unsafe { libc::bind(fd.as_raw_fd(), (&raw const name).cast(), size) }
        }
        SocketAddr::V6(at) => {
            option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, libc::c_int::from(only_v6))?;
            // SAFETY: all-zero is a valid `sockaddr_in6`.
            let mut name: libc::sockaddr_in6 = unsafe { mem::zeroed() };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = at.port().to_be();
            name.sin6_addr.s6_addr = at.ip().octets();
            name.sin6_scope_id = at.scope_id();
            let size = mem::size_of_val(&name) as libc::socklen_t;
            // SAFETY: `name` is as long as `size` says.
            unsafe { libc::bind(fd.as_raw_fd(), (&raw const name).cast(), size) }
        }
    };
    checked(result)?;
    // SAFETY: takes no pointers.
    checked(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(fd)
}

/// A listening Unix socket.
pub(crate) fn listen_unix(at: &Path, backlog: i32) -> io::Result<OwnedFd> {
    let bytes = at.as_os_str().as_bytes();
    // SAFETY: all-zero is a valid `sockaddr_un`.
    let mut name: libc::sockaddr_un = unsafe { mem::zeroed() };
    if bytes.len() >= name.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path of a Unix socket is too long or has a NUL",
        ));
    }
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointers.
    let fd = owned(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    name.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (slot, byte) in name.sun_path.iter_mut().zip(bytes) {
        *slot = *byte as libc::c_char;
    }
    let size = mem::size_of_val(&name) as libc::socklen_t;
    // SAFETY: `name` is as long as `size` says.
    checked(unsafe { libc::bind(fd.as_raw_fd(), (&raw const name).cast(), size) })?;
    // SAFETY: takes no pointers.
    checked(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(fd)
}

/// Where a Unix socket lies, if it has a name in the file system.
pub(crate) fn local_path(fd: RawFd) -> Option<PathBuf> {
    let mut storage = MaybeUninit::<libc::sockaddr_un>::zeroed();
    let mut size = mem::size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `storage` is as large as `size` says and both outlive the call.
    checked(unsafe { libc::getsockname(fd, storage.as_mut_ptr().cast(), &raw mut size) }).ok()?;
    // SAFETY: zeroed memory is a valid `sockaddr_un`, and the kernel wrote a name over it.
    let name = unsafe { storage.assume_init() };
    if libc::c_int::from(name.sun_family) != libc::AF_UNIX {
        return None;
    }
    let bytes: Vec<u8> =
        name.sun_path.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8).collect();
    (!bytes.is_empty()).then(|| PathBuf::from(OsString::from_vec(bytes)))
}

/// Makes an inherited listening socket fit for the poller.
pub(crate) fn adopt_listener(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointers.
    let flags = checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: takes no pointers.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    // SAFETY: takes no pointers.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(())
}

/// Seconds since 1970 by the kernel's coarse clock: some nanoseconds to read, late by at most a tick.
pub(crate) fn seconds() -> u64 {
    // SAFETY: all-zero is a valid `timespec`.
    let mut now: libc::timespec = unsafe { mem::zeroed() };
    // SAFETY: `now` is writable. The clock exists on every Linux that has epoll_create1.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0)
}

/// A time of day, where the server is or at Greenwich.
pub(crate) struct LocalTime {
    pub(crate) year: i64,
    /// From 1.
    pub(crate) month: i64,
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
    /// Seconds east of Greenwich.
    pub(crate) offset: i64,
}

type Breaks = unsafe extern "C" fn(*const libc::time_t, *mut libc::tm) -> *mut libc::tm;

fn broken_down(seconds: u64, how: Breaks) -> LocalTime {
    let seconds = libc::time_t::try_from(seconds).unwrap_or_default();
    // SAFETY: a `tm` is plain numbers and a pointer that is never followed here; both pointers are to living locals.
    let tm = unsafe {
        let mut tm: libc::tm = mem::zeroed();
        how(&raw const seconds, &raw mut tm);
        tm
    };
    LocalTime {
        year: i64::from(tm.tm_year) + 1900,
        month: i64::from(tm.tm_mon) + 1,
        day: i64::from(tm.tm_mday),
        hour: i64::from(tm.tm_hour),
        minute: i64::from(tm.tm_min),
        second: i64::from(tm.tm_sec),
        offset: tm.tm_gmtoff,
    }
}

/// The time of day where the server is, so many seconds after 1970.
pub(crate) fn local_time(seconds: u64) -> LocalTime {
    broken_down(seconds, libc::localtime_r)
}

/// The same at Greenwich.
pub(crate) fn utc_time(seconds: u64) -> LocalTime {
    broken_down(seconds, libc::gmtime_r)
}

/// Writes what the descriptor takes.
pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer is to so many living bytes.
    length(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// Waits until a descriptor takes bytes; whether it does.
pub(crate) fn wait_to_write(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid entry behind the pointer.
    match checked(unsafe { libc::poll(&raw mut entry, 1, milliseconds(Some(timeout))) }) {
        Ok(count) => Ok(count > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether something waits at a descriptor.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry behind the pointer.
    checked(unsafe { libc::poll(&raw mut entry, 1, 0) }).is_ok_and(|count| count > 0)
}

/// The name of this machine.
pub(crate) fn host_name() -> String {
    let mut name = [0_u8; 256];
    // SAFETY: the pointer is to so many bytes, less one that stays zero.
    let result = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let name = CStr::from_bytes_until_nul(&name).ok().filter(|_| result == 0);
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The calling thread's number.
pub(crate) fn this_thread() -> u64 {
    // SAFETY: nothing is passed, and it cannot fail (pthread_self(3)).
    unsafe { libc::pthread_self() }
}

/// Opens a directory for [`open_beneath`].
pub(crate) fn open_directory(path: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: `path` ends with a NUL.
    owned(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) })
}

/// Opens a file below a directory; the kernel refuses every path that leaves it, by `..`, by a link or by a mount's
/// magic. Fails with `ENOSYS` on kernels before 5.6.
pub(crate) fn open_beneath(root: BorrowedFd<'_>, path: &CStr) -> io::Result<File> {
    // SAFETY: all-zero is a valid `open_how`.
    let mut how: libc::open_how = unsafe { mem::zeroed() };
    // Non-blocking, so that opening a FIFO cannot hang; regular files do not care.
    how.flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    let size = mem::size_of_val(&how);
    // SAFETY: `path` ends with a NUL and `how` is as long as `size` says.
    let fd =
        unsafe { libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size) };
    Ok(File::from(owned(libc::c_int::try_from(fd).unwrap_or(-1))?))
}

/// Opens one component, which must not be a link.
pub(crate) fn open_component(
    directory: BorrowedFd<'_>,
    name: &CStr,
    is_directory: bool,
) -> io::Result<OwnedFd> {
    let kind = if is_directory { libc::O_DIRECTORY } else { libc::O_NONBLOCK | libc::O_NOCTTY };
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW | kind;
    // SAFETY: `name` ends with a NUL.
    owned(unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags) })
}

/// Gives the names in a directory to `each`, without `.` and `..`, until it wants no more.
pub(crate) fn read_directory(directory: OwnedFd, mut each: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    // SAFETY: the descriptor is open; on success the stream owns it.
    let stream = unsafe { libc::fdopendir(directory.as_raw_fd()) };
    if stream.is_null() {
        return Err(io::Error::last_os_error());
    }
    mem::forget(directory);
    loop {
        // SAFETY: the stream is open, and no other thread has it.
        let entry = unsafe { libc::readdir64(stream) };
        if entry.is_null() {
            break;
        }
        // SAFETY: an entry has a name that ends with a NUL, valid until the next one is read.
        let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_bytes();
        if name != b"." && name != b".." && !each(name) {
            break;
        }
    }
    // SAFETY: the stream is open, and not used again.
    unsafe { libc::closedir(stream) };
    Ok(())
}

/// What is known of a file without opening it.
pub(crate) struct Stat {
    pub(crate) mode: u32,
    pub(crate) is_link: bool,
    pub(crate) size: u64,
    pub(crate) modified: i64,
}

/// Looks at a name in a directory; follows no link.
pub(crate) fn stat_at(directory: &File, name: &[u8]) -> io::Result<Stat> {
    let name = CString::new(name)?;
    let mut stat = MaybeUninit::<libc::stat64>::uninit();
    // SAFETY: `name` ends with a NUL, and `stat` has room for what is written.
    checked(unsafe {
        libc::fstatat64(directory.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    })?;
    // SAFETY: the call has succeeded, and so written it.
    let stat = unsafe { stat.assume_init() };
    Ok(Stat {
        mode: stat.st_mode,
        is_link: stat.st_mode & libc::S_IFMT == libc::S_IFLNK,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: stat.st_mtime,
    })
}

/// Whether an accept failed because descriptors or memory ran out.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Whether openat2 is missing or forbidden, so that the component walk must do.
pub(crate) fn lacks_openat2(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

/// Bytes of a page of memory.
pub(crate) fn page_size() -> u64 {
    // SAFETY: takes no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Words that this process shares with those that are forked from it; zero at first. Pages take memory when they are
/// first looked at.
#[derive(Debug)]
pub(crate) struct SharedWords {
    start: ptr::NonNull<AtomicU64>,
    count: usize,
}

impl SharedWords {
    pub(crate) fn new(count: usize) -> io::Result<SharedWords> {
        let bytes = count.saturating_mul(mem::size_of::<AtomicU64>());
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new mapping, at a place that the kernel chooses; no descriptor is read.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match ptr::NonNull::new(start.cast()) {
            Some(start) => Ok(SharedWords { start, count }),
            None => Err(io::Error::from(io::ErrorKind::OutOfMemory)),
        }
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `count` words, aligned to a page, zeroed by the kernel and there until this is dropped;
        // everybody, in other processes too, reads and writes them as atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nobody can refer to any more in this process.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * mem::size_of::<AtomicU64>()) };
    }
}

// SAFETY: it only lends atomics, which any thread may use.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}
