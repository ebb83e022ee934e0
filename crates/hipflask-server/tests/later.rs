//! Responses that come later, from threads that are not the engine's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::App;
use hipflask_server::{Body, Config, Deferred};

type Kept = Arc<Mutex<Vec<Deferred>>>;

fn answer(mut deferred: Deferred, body: &[u8]) {
    let written = deferred.write(|reply| {
        reply.start(200, None);
        reply.body(body);
        Ok::<_, Infallible>(())
    });
    assert_eq!(written, Ok(Some(())));
    deferred.send();
}

/// `/later` is answered by a thread of its own after a moment, with the body; `/kept` by the test.
fn app(kept: &Kept) -> App {
    let kept = Arc::clone(kept);
    App::default()
        .route("/inline", Some(true), |view| view.text("inline"))
        .later(
            "/later",
            |view| view.text("too long"),
            |request, deferred| {
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(5));
                    match request.body {
                        Body::Empty => answer(deferred, b"later"),
                        Body::Buffered(body) => answer(deferred, &body),
                        Body::Trailed(whole) => answer(deferred, &whole.0),
                        Body::Stream(_) => panic!("a deferred request has its body"),
                    }
                });
            },
        )
        .later("/kept", |_| {}, move |_, deferred| kept.lock().unwrap().push(deferred))
        .later("/dropped", |_| {}, |_, deferred| drop(deferred))
        .later("/panics", |_| {}, |_, _deferred| panic!("expected by this test"))
}

fn until(done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "it did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let live = app(&Kept::default()).serve(Config::default());
    let mut client = live.client();
    let paths = ["later", "inline", "later", "later", "inline"].repeat(20);
    for path in &paths {
        client.send(format!("GET /{path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    }
    for path in &paths {
        assert_eq!(client.response().text(), *path);
    }
}

#[test]
fn many_wait_without_threads() {
    let kept = Kept::default();
    let live = app(&kept).serve(Config { threads: 1, ..Config::default() });
    let mut clients: Vec<_> = (0..200).map(|_| live.client()).collect();
    for client in &mut clients {
        client.send("GET /kept HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    until(|| kept.lock().unwrap().len() == clients.len());
    assert_eq!(live.get("/inline").text(), "inline");
    for deferred in kept.lock().unwrap().drain(..) {
        answer(deferred, b"at last");
    }
    for client in &mut clients {
        assert_eq!(client.response().text(), "at last");
        assert_eq!(client.get("/inline").text(), "inline");
    }
}

#[test]
fn what_is_dropped_or_panics_is_a_500() {
    let live = app(&Kept::default()).serve(Config::default());
    let mut client = live.client();
    for path in ["/dropped", "/panics", "/dropped"] {
        assert_eq!(client.get(path).status, 500);
    }
    assert_eq!(client.get("/later").text(), "later");
}

#[test]
fn what_was_written_can_be_replaced_until_it_is_sent() {
    let kept = Kept::default();
    let live = app(&kept).serve(Config::default());
    let mut client = live.client();
    client.send("GET /kept HTTP/1.1\r\nHost: test\r\n\r\n");
    until(|| !kept.lock().unwrap().is_empty());
    let mut deferred = kept.lock().unwrap().pop().unwrap();
    for text in ["first", "second"] {
        let written = deferred.write(|reply| {
            reply.start(200, None);
            reply.body(text.as_bytes());
            Ok::<_, Infallible>(())
        });
        assert_eq!(written, Ok(Some(())));
    }
    let failed = deferred.write(|reply| {
        reply.start(404, None);
        Err::<(), _>("failed")
    });
    assert_eq!(failed, Err("failed"));
    answer(deferred, b"third");
    assert_eq!(client.response().text(), "third");
    assert_eq!(client.get("/inline").text(), "inline");
}

#[test]
fn a_body_that_is_still_arriving_is_read_ahead() {
    let live = app(&Kept::default()).serve(Config::default());
    let mut client = live.client();
    for length in [0, 1, 100_000, 1_000_000] {
        let body = vec![b'x'; length];
        let expected: &[u8] = if length == 0 { b"later" } else { &body };
        assert_eq!(client.post("/later", &body).body, expected);
    }
    client.send("POST /later HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    thread::sleep(Duration::from_millis(20));
    client.send("3\r\ndef\r\n0\r\n\r\n");
    assert_eq!(client.response().text(), "abcdef");
    assert_eq!(client.get("/inline").text(), "inline");
}

#[test]
fn a_body_too_long_to_be_held_goes_to_a_worker() {
    let live = app(&Kept::default()).serve(Config::default());
    let mut client = live.client();
    assert_eq!(client.post("/later", &vec![b'x'; 17 << 20]).text(), "too long");
}

#[test]
fn the_end_of_a_client_is_told() {
    let kept = Kept::default();
    let live = app(&kept).serve(Config::default());
    let mut client = live.client();
    client.send("GET /kept HTTP/1.1\r\nHost: test\r\n\r\n");
    until(|| !kept.lock().unwrap().is_empty());
    drop(client);
    until(|| !live.app.gone.lock().unwrap().is_empty());
    let deferred = kept.lock().unwrap().pop().unwrap();
    assert_eq!(*live.app.gone.lock().unwrap(), [deferred.token()]);
    answer(deferred, b"nobody hears this");
    assert_eq!(live.get("/inline").text(), "inline");
}

#[test]
fn a_stop_waits_for_what_is_owed() {
    let kept = Kept::default();
    let live = app(&kept).serve(Config::default());
    let mut client = live.client();
    client.send("GET /kept HTTP/1.1\r\nHost: test\r\n\r\n");
    until(|| !kept.lock().unwrap().is_empty());
    live.running.stop(Some(Duration::from_secs(20)));
    assert!(!live.running.wait_timeout(Duration::from_millis(400)));
    answer(kept.lock().unwrap().pop().unwrap(), b"in time");
    assert_eq!(client.response().text(), "in time");
    assert!(live.running.wait_timeout(Duration::from_secs(10)));
    assert!(live.app.gone.lock().unwrap().is_empty());
}

#[test]
fn a_stop_that_waits_no_longer_tells() {
    let kept = Kept::default();
    let live = app(&kept).serve(Config::default());
    let mut client = live.client();
    client.send("GET /kept HTTP/1.1\r\nHost: test\r\n\r\n");
    until(|| !kept.lock().unwrap().is_empty());
    live.running.stop(Some(Duration::from_millis(50)));
    until(|| !live.app.gone.lock().unwrap().is_empty());
    assert!(live.running.wait_timeout(Duration::from_secs(10)));
    answer(kept.lock().unwrap().pop().unwrap(), b"too late");
}
