//! Clients that vanish. Alone in its process, whose descriptors it counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::App;
use hipflask_server::{Config, Outlet, Piece, Upgraded};

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

/// Counts what is open; says everything twice.
struct Twice(Arc<AtomicUsize>);

impl Upgraded for Twice {
    fn receive(&mut self, input: &mut Vec<u8>, outlet: &Outlet) -> bool {
        let piece = Piece::from(std::mem::take(input));
        outlet.send(piece.clone()).is_ok() && outlet.send(piece).is_ok()
    }

    fn gone(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn clients_of_outlets_that_vanish_leave_nothing() {
    let open = Arc::new(AtomicUsize::new(0));
    let outlets = Arc::new(Mutex::new(Vec::<Outlet>::new()));
    let mut app = App::default().route("/plain", Some(true), |view| view.text("plain"));
    for (path, inline) in [("/events", true), ("/events/worker", false)] {
        let (open, outlets) = (Arc::clone(&open), Arc::clone(&outlets));
        app = app.route(path, Some(inline), move |view| {
            open.fetch_add(1, Ordering::SeqCst);
            let outlet = view.reply.outlet(None);
            let open = Arc::clone(&open);
            outlet.on_gone(Box::new(move || _ = open.fetch_sub(1, Ordering::SeqCst)));
            outlet.heartbeat(Duration::from_millis(50), Piece::new(b":\n\n"));
            outlets.lock().unwrap().push(outlet);
        });
    }
    let upgrades = Arc::clone(&open);
    app = app.route("/twice", Some(true), move |view| {
        upgrades.fetch_add(1, Ordering::SeqCst);
        view.reply.start(101, None);
        view.reply.field(b"Upgrade", b"twice").unwrap();
        view.reply.upgrade(Box::new(Twice(Arc::clone(&upgrades))));
    });
    let live = app.serve(Config::default());
    assert_eq!(live.get("/plain").text(), "plain");
    // Feeds all of them, as a channel would.
    let feeding = Arc::clone(&outlets);
    let over = Arc::new(AtomicUsize::new(0));
    let stop = Arc::clone(&over);
    let feeder = thread::spawn(move || {
        while stop.load(Ordering::SeqCst) == 0 {
            let piece = Piece::new(b"data: x\n\n");
            feeding.lock().unwrap().retain(|outlet| outlet.send(piece.clone()).is_ok());
            thread::sleep(Duration::from_millis(1));
        }
    });
    let before = descriptors();
    let requests: [&[u8]; 5] = [
        b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /events/worker HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /events/worker HTTP/1.1\r\nHost: test\r\n\r\nGET /plain HTT",
        b"GET /twice HTTP/1.1\r\nHost: test\r\nUpgrade: twice\r\n\r\n",
        b"GET /twice HTTP/1.1\r\nHost: test\r\nUpgrade: twice\r\n\r\nsome bytes",
    ];
    let mut kept = Vec::new();
    for at in 0..10_000 {
        let mut stream = TcpStream::connect(live.address).unwrap();
        stream.write_all(requests[at % requests.len()]).unwrap();
        match at % 4 {
            0 => reset_on_close(&stream),
            1 => drop(stream.shutdown(Shutdown::Write)),
            2 => kept.push(stream),
            _ => {}
        }
        if kept.len() == 100 {
            kept.clear();
        }
    }
    drop(kept);
    let begin = Instant::now();
    while descriptors() > before || open.load(Ordering::SeqCst) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(30), "{} open", open.load(Ordering::SeqCst));
        thread::sleep(Duration::from_millis(10));
    }
    over.store(1, Ordering::SeqCst);
    feeder.join().unwrap();
    assert!(outlets.lock().unwrap().iter().all(|outlet| !outlet.is_open()));
    assert_eq!(live.get("/plain").text(), "plain");
}

/// One after the other: both count the descriptors of the process.
#[test]
fn vanishing_clients_leave_no_descriptor() {
    ten_thousand_abrupt_disconnects_leave_no_descriptor();
    clients_of_outlets_that_vanish_leave_nothing();
}

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
