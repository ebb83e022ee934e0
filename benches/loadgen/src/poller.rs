//! A thin layer over epoll.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Which connections have something to read, or room for more to write.
pub(crate) struct Poller(i32);

impl Poller {
    pub(crate) fn new() -> Self {
        // SAFETY: no pointers are involved.
        Poller(unsafe { libc::epoll_create1(0) })
    }

    /// Reports when the stream has something to read and, if asked, when it can be written to.
    pub(crate) fn watch(&self, stream: &TcpStream, token: usize, writable: bool, new: bool) {
        let events = libc::EPOLLIN | if writable { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event { events: events as u32, u64: token as u64 };
        let operation = if new { libc::EPOLL_CTL_ADD } else { libc::EPOLL_CTL_MOD };
        // SAFETY: `event` outlives the call.
        let result = unsafe { libc::epoll_ctl(self.0, operation, stream.as_raw_fd(), &raw mut event) };
        assert_eq!(result, 0);
    }

    /// The tokens of what has happened, after at most so long.
    pub(crate) fn wait(&self, most: Duration) -> Vec<usize> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        let timeout =
            libc::timespec { tv_sec: most.as_secs() as i64, tv_nsec: i64::from(most.subsec_nanos()) };
        // SAFETY: the array has the length that is given, and the time-out outlives the call. `epoll_pwait2` waits
        // with a resolution below a millisecond, which an open loop of many thousand requests a second needs.
        let count = unsafe {
            libc::syscall(libc::SYS_epoll_pwait2, self.0, events.as_mut_ptr(), 256, &raw const timeout, 0, 8)
        };
        events.iter().take(usize::try_from(count).unwrap_or(0)).map(|event| event.u64 as usize).collect()
    }
}
