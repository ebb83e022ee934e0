//! The ceiling of the benchmarks: one thread, one epoll loop, a fixed answer, and as little parsing as keeps
//! pipelined requests apart. Not a server: it believes whatever it gets.
//!
//! `cargo run --release --example raw -- 8000`

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 13\r\n\
Server: hipflask\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\n\r\nHello, World!";

fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "8000".to_owned());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    // SAFETY: takes no pointers.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    let watch = |fd: i32, token: u64, mask: i32| {
        let mut event = libc::epoll_event { events: mask as u32, u64: token };
        // SAFETY: `event` is valid for the call.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    };
    watch(listener.as_raw_fd(), u64::MAX, libc::EPOLLIN);
    let mut open: Vec<Option<TcpStream>> = Vec::new();
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
    let mut buffer = vec![0; 16 * 1024];
    let mut out = Vec::new();
    loop {
        // SAFETY: 256 events are writable.
        let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 256, -1) };
        for event in events.iter().take(usize::try_from(count).unwrap_or(0)) {
            let token = event.u64;
            if token == u64::MAX {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                watch(stream.as_raw_fd(), open.len() as u64, libc::EPOLLIN | libc::EPOLLET);
                open.push(Some(stream));
                continue;
            }
            let Some(place) = open.get_mut(token as usize) else { continue };
            let Some(stream) = place else { continue };
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    let read = buffer.get(..count).unwrap_or_default();
                    out.clear();
                    for _ in read.windows(4).filter(|four| four == b"\r\n\r\n") {
                        out.extend_from_slice(ANSWER);
                    }
                    if stream.write(&out).is_err() {
                        *place = None;
                    }
                }
                Ok(_) => *place = None,
                Err(_) => {}
            }
        }
    }
}
