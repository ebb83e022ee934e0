//! Long bodies that arrive slowly: they hold at most half of the threads, whatever the clients do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::{App, Client, Gate, Live};
use hipflask_server::{Config, Timeouts};

const LONG: usize = 300 * 1024;

/// `/length` answers with the length of the body that it reads, and passes the gate before.
fn app(gate: &Gate) -> App {
    let gate = gate.clone();
    App::default().route("/now", Some(false), |view| view.text("now")).route(
        "/length",
        Some(false),
        move |view| {
            view.detached(|_| gate.pass());
            match view.body() {
                Ok(body) => view.text(&body.len().to_string()),
                Err(error) => {
                    view.reply.start(error.status(), None);
                    view.reply.body(error.to_string().as_bytes());
                }
            }
        },
    )
}

fn config(threads: usize) -> Config {
    Config { threads, ..Config::default() }
}

fn begin(live: &Live, fields: &str, part: &[u8]) -> Client {
    let mut client = live.client();
    client.send(format!("POST /length HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
    client.send(part);
    client
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn slow_uploads_leave_threads_to_others_however_many_they_are() {
    let gate = Gate::default();
    let live = app(&gate).serve(config(4));
    let fields = format!("Content-Length: {LONG}\r\n");
    let mut uploads: Vec<_> = (0..40).map(|_| begin(&live, &fields, &[b'x'; 1000])).collect();
    // Two of them have threads.
    gate.reached(2);
    for _ in 0..20 {
        assert_eq!(live.get("/now").text(), "now");
    }
    gate.open();
    // Any of them may end first.
    for client in uploads.iter_mut().rev() {
        client.send(vec![b'x'; LONG - 1000]);
        assert_eq!(client.response().text(), LONG.to_string());
    }
    // And go on.
    for client in &mut uploads {
        client.send("GET /now HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.response().text(), "now");
    }
}

#[test]
fn spooled_bodies_are_whole_in_every_framing() {
    let gate = Gate::default();
    gate.open();
    // One thread is never given to a body that arrives.
    let live = app(&gate).serve(config(1));
    let mut client = live.client();
    for round in 0..3 {
        let body = vec![b'y'; LONG + round];
        client.send(format!("POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
        // The next request stands behind the body.
        client.send([&body[..], b"GET /now HTTP/1.1\r\nHost: test\r\n\r\n"].concat());
        assert_eq!(client.response().text(), body.len().to_string());
        assert_eq!(client.response().text(), "now");
        client.send("POST /length HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(7777) {
            client.send([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        }
        client.send("0\r\n\r\n");
        assert_eq!(client.response().text(), body.len().to_string());
    }
    client.send(format!(
        "POST /length HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: {LONG}\r\n\r\n"
    ));
    assert_eq!(client.response().status, 100);
    client.send(vec![b'z'; LONG]);
    assert_eq!(client.response().text(), LONG.to_string());
}

#[test]
fn spooled_bodies_have_the_limits_of_all_bodies() {
    let gate = Gate::default();
    gate.open();
    let mut config = config(1);
    config.timeouts = Timeouts { body: Duration::from_millis(100), ..Timeouts::default() };
    config.limits.body = 1_000_000;
    let live = app(&gate).serve(config);
    let fields = format!("Content-Length: {LONG}\r\n");
    assert_eq!(begin(&live, &fields, b"late").response().status, 408);
    let mut cut = begin(&live, &fields, b"cut");
    cut.stream.shutdown(Shutdown::Write).unwrap();
    assert!(cut.is_closed());
    let mut long = begin(&live, "Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n");
    for _ in 0..16 {
        long.send([&b"10000\r\n"[..], &[b'x'; 65536], b"\r\n"].concat());
    }
    assert_eq!(long.response().status, 413);
    let mut bad = begin(&live, "Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n");
    bad.send("+1\r\n");
    assert_eq!(bad.response().status, 400);
    wait_until("no word of the body that was cut", || {
        live.app.reasons().contains(&"the connection ended within a body")
    });
    assert_eq!(live.get("/now").text(), "now");
}

#[test]
fn bodies_in_files_have_a_limit_together() {
    let gate = Gate::default();
    gate.open();
    let live = app(&gate).serve(Config { spool_bodies: 500_000, ..config(1) });
    let fields = format!("Content-Length: {LONG}\r\n");
    let mut first = begin(&live, &fields, &[b'x'; LONG - 1]);
    let mut second = begin(&live, &fields, &[]);
    // Whichever comes to the limit.
    second.send(vec![b'x'; LONG - 1]);
    let refused = second.response();
    assert_eq!(refused.status, 503);
    first.send("x");
    assert_eq!(first.response().text(), LONG.to_string());
    // What they held is given back.
    let mut third = begin(&live, &fields, &[b'x'; LONG]);
    assert_eq!(third.response().text(), LONG.to_string());
}
