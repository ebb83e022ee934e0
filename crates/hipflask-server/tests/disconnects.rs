//! Clients that vanish. Alone in its process, whose descriptors it counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::App;
use hipflask_server::Config;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Makes closing send a reset.
fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = std::mem::size_of_val(&linger) as libc::socklen_t;
    // SAFETY: `linger` is as long as `size` says.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size,
        )
    };
    assert_eq!(result, 0);
}

#[test]
fn ten_thousand_abrupt_disconnects_leave_no_descriptor() {
    let live = App::default()
        .route("/inline", Some(true), |view| view.text("inline"))
        .route("/worker", Some(false), |view| view.text("worker"))
        .route("/echo", None, |view| {
            let body = view.body().unwrap_or_default();
            view.reply.start(200, None);
            view.reply.body(&body);
        })
        .serve(Config::default());
    for path in ["/inline", "/worker"] {
        assert_eq!(live.get(path).status, 200);
    }
    let before = descriptors();
    let requests: [&[u8]; 6] = [
        b"",
        b"GET /inl",
        b"GET /inline HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /worker HTTP/1.1\r\nHost: test\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nabc",
        b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ];
    for at in 0..10_000 {
        let mut stream = TcpStream::connect(live.address).unwrap();
        stream.write_all(requests[at % requests.len()]).unwrap();
        match at % 3 {
            0 => reset_on_close(&stream),
            1 => drop(stream.shutdown(Shutdown::Write)),
            _ => {}
        }
    }
    let begin = Instant::now();
    while descriptors() > before {
        assert!(begin.elapsed() < Duration::from_secs(30), "{} of {before} left", descriptors());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(live.get("/worker").text(), "worker");
}
