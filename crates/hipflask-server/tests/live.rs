//! The server over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{App, Client, Gate, Source};
use hipflask_server::{Bind, BodyError, Config, Notice, Server, Timeouts};

/// Routes that most tests want.
fn app() -> App {
    App::default()
        .route("/inline", Some(true), |view| view.text("inline"))
        .route("/worker", Some(false), |view| view.text("worker"))
        .route("/learnt", None, |view| view.text("learnt"))
        .route("/panics", Some(true), |_| panic!("expected by this test"))
        .route("/panics-on-worker", Some(false), |_| panic!("expected by this test"))
        .route("/echo", None, |view| match view.body() {
            Ok(body) => {
                view.reply.start(200, None);
                view.reply.body(&body);
            }
            Err(error) => {
                view.reply.start(error.status(), None);
                view.reply.body(error.to_string().as_bytes());
            }
        })
        .route("/ignores-body", Some(false), |view| view.text("ignored"))
}

fn quick(change: impl FnOnce(&mut Timeouts)) -> Config {
    let mut timeouts = Timeouts::default();
    change(&mut timeouts);
    Config { timeouts, ..Config::default() }
}

#[test]
fn a_connection_answers_many_requests() {
    let live = app().serve(Config::default());
    let mut client = live.client();
    for path in ["/inline", "/worker", "/learnt", "/missing", "/inline"].repeat(20) {
        let response = client.get(path);
        assert_eq!(response.status, if path == "/missing" { 404 } else { 200 });
    }
}

#[test]
fn http_1_0_closes_unless_asked_to_keep() {
    let live = app().serve(Config::default());
    let mut client = live.client();
    client.send("GET /inline HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.response().field("Connection"), Some("keep-alive"));
    client.send("GET /inline HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().field("Connection"), Some("close"));
    assert!(client.is_closed());
}

#[test]
fn connection_close_is_obeyed() {
    let live = app().serve(Config::default());
    for path in ["/inline", "/worker", "/missing"] {
        let mut client = live.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
        assert_eq!(client.response().field("Connection"), Some("close"));
        assert!(client.is_closed());
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_whoever_runs_them() {
    let live = app().serve(Config::default());
    let mut client = live.client();
    let paths = ["inline", "worker", "inline", "inline", "worker", "worker", "learnt", "inline"].repeat(25);
    let requests: String =
        paths.iter().map(|path| format!("GET /{path} HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
    client.send(requests);
    for path in paths {
        assert_eq!(client.response().text(), path);
    }
}

#[test]
fn a_request_that_arrives_byte_by_byte_is_answered() {
    let live = app().serve(Config::default());
    let mut client = live.client();
    for byte in b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello" {
        client.send([*byte]);
    }
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let live = app().serve(Config::default());
    for path in ["/inline", "/worker"] {
        let mut client = live.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").repeat(3));
        client.stream.shutdown(Shutdown::Write).unwrap();
        for _ in 0..3 {
            assert_eq!(client.response().status, 200);
        }
        assert!(client.is_closed());
    }
}

#[test]
fn a_unix_socket_serves_and_goes_away() {
    let path = std::env::temp_dir().join(format!("hipflask-test-{}.sock", std::process::id()));
    for _ in 0..2 {
        let binds = vec![Bind::Unix(path.clone())];
        let running =
            Server::bind(Config { binds, ..Config::default() }).unwrap().run(Arc::new(app())).unwrap();
        assert!(Server::bind(Config { binds: vec![Bind::Unix(path.clone())], ..Config::default() }).is_err());
        let mut client =
            Client { stream: UnixStream::connect(&path).unwrap(), seen: Vec::new(), reset: false };
        assert_eq!(client.get("/inline").text(), "inline");
        assert_eq!(client.get("/worker").text(), "worker");
        drop(client);
        running.stop(None);
        running.wait();
        assert!(!path.exists());
    }
}

#[test]
fn a_port_in_use_is_an_error() {
    let live = app().serve(Config::default());
    let error =
        Server::bind(Config { binds: vec![Bind::Tcp(live.address)], ..Config::default() }).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn a_malformed_head_is_refused_with_a_reason_and_the_next_client_is_served() {
    let live = app().serve(Config::default());
    for bad in ["GET / HTTP/1.1\r\nHost : x\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\x00\x01\r\n\r\n"] {
        let mut client = live.client();
        client.send(bad);
        assert_eq!(client.response().status, 400);
        assert!(client.is_closed());
    }
    assert_eq!(live.app.reasons().len(), 3);
    assert_eq!(live.get("/inline").status, 200);
}

#[test]
fn a_late_head_is_refused_with_408() {
    let live = app().serve(quick(|timeouts| timeouts.header = Duration::from_millis(100)));
    let mut client = live.client();
    client.send("GET / HTTP/1.1\r\nHos");
    assert_eq!(client.response().status, 408);
    assert!(client.is_closed());
    assert_eq!(live.app.reasons(), ["the head arrives too slowly"]);
}

#[test]
fn a_head_does_not_gain_time_by_trickling() {
    let live = app().serve(quick(|timeouts| timeouts.header = Duration::from_millis(150)));
    let mut client = live.client();
    let mut stream = client.stream.try_clone().unwrap();
    client.send("GET / HTTP/1.1\r\n");
    let trickle = thread::spawn(move || {
        while stream.write_all(b"a").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let begin = Instant::now();
    assert_eq!(client.response().status, 408);
    assert!(begin.elapsed() < Duration::from_secs(2));
    drop(client);
    trickle.join().unwrap();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let live = app().serve(quick(|timeouts| timeouts.idle = Duration::from_millis(100)));
    let mut client = live.client();
    client.get("/inline");
    assert!(client.is_closed());
    assert!(live.app.reasons().is_empty());
}

#[test]
fn a_late_body_is_refused_whether_buffered_or_streamed() {
    let live = app().serve(quick(|timeouts| timeouts.body = Duration::from_millis(100)));
    for length in [10, 1_000_000] {
        let mut client = live.client();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\nabc"));
        assert_eq!(client.response().status, 408, "{length}");
        assert!(client.is_closed());
    }
}

#[test]
fn bodies_arrive_whole_whatever_their_framing() {
    let live = app().serve(Config::default());
    let mut client = live.client();
    for length in [0, 1, 65_536, 65_537, 262_144, 262_145, 3_000_000] {
        let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        assert_eq!(client.post("/echo", &body).body, body);
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(7919) {
            client.send(format!("{:x}\r\n", piece.len()));
            client.send(piece);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        assert_eq!(client.response().body, body);
    }
    assert!(live.app.reasons().is_empty());
}

#[test]
fn a_truncated_body_is_an_error_never_a_short_body() {
    let got = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (seen, gate) = (Arc::clone(&got), Gate::default());
    let passed = gate.clone();
    gate.open();
    let live = App::default()
        .route("/upload", None, move |view| {
            let body = view.body();
            seen.lock().unwrap().push(body);
            passed.pass();
        })
        .serve(Config::default());
    let chunked = "POST /upload HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let long = "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nhello";
    for request in [chunked, long] {
        let mut client = live.client();
        client.send(request);
        client.stream.shutdown(Shutdown::Write).unwrap();
        client.head();
    }
    gate.reached(2);
    assert_eq!(*got.lock().unwrap(), [Err(BodyError::Truncated), Err(BodyError::Truncated)]);
    // A short one that the engine reads never reaches the view.
    let mut client = live.client();
    client.send("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(client.is_closed());
    assert_eq!(got.lock().unwrap().len(), 2);
}

#[test]
fn a_malformed_chunk_is_an_error_and_ends_the_connection() {
    let live = app().serve(Config::default());
    for chunks in ["zz\r\n", "3\r\nabcd", "+3\r\nabc\r\n0\r\n\r\n"] {
        for split in [false, true] {
            let mut client = live.client();
            client.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
            if split {
                thread::sleep(Duration::from_millis(20));
            }
            client.send(chunks);
            assert_eq!(client.response().status, 400);
            assert!(client.is_closed());
        }
    }
    assert_eq!(live.get("/inline").status, 200);
}

#[test]
fn expect_continue_is_answered_when_the_body_is_read() {
    let live = app().serve(Config::default());
    let mut client = live.client();
    for length in [5, 100_000] {
        client.send(format!(
            "POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        ));
        assert_eq!(client.until(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n");
        client.send(vec![b'x'; length]);
        assert_eq!(client.response().body.len(), length);
    }
}

#[test]
fn expect_continue_is_not_answered_when_the_body_is_not_wanted() {
    let live = app().serve(Config::default());
    for path in ["/missing", "/ignores-body"] {
        let mut client = live.client();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n"
        ));
        let response = client.response();
        assert_ne!(response.status, 100);
        assert_eq!(response.field("Connection"), Some("close"), "{path}");
        assert!(client.is_closed());
    }
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_read_and_the_client_sees_it() {
    let mut config = Config::default();
    config.limits.body = 1000;
    let live = app().serve(config);
    let mut client = live.client();
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 500000\r\n\r\n");
    // The client goes on sending all the same; closing at once would reset the connection.
    client.send(vec![b'x'; 500_000]);
    assert_eq!(client.response().status, 413);
    assert_eq!(live.app.reasons(), ["the body is too long"]);
}

#[test]
fn an_unread_body_is_dropped_when_short_and_ends_the_connection_when_long() {
    let live = app().serve(Config::default());
    let mut client = live.client();
    for path in ["/ignores-body", "/missing"] {
        client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 60000\r\n\r\n"));
        client.send(vec![b'x'; 60_000]);
        assert_ne!(client.response().status, 0);
        assert_eq!(client.get("/inline").text(), "inline");
    }
    for path in ["/ignores-body", "/missing"] {
        let mut client = live.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 600000\r\n\r\nabc"));
        assert_eq!(client.response().field("Connection"), Some("close"));
        assert!(client.is_closed());
    }
}

#[test]
fn a_panic_becomes_500_and_the_threads_live() {
    let live = app().serve(Config::default());
    for path in ["/panics", "/panics-on-worker", "/route-panics"].repeat(20) {
        let response = live.get(path);
        assert_eq!((response.status, response.text()), (500, "Internal Server Error"));
    }
    assert_eq!(live.get("/inline").status, 200);
    assert_eq!(live.get("/worker").status, 200);
    assert!(live.app.notices.lock().unwrap().contains(&Notice::Panic("expected by this test".to_owned())));
}

#[test]
fn a_complete_response_is_taken_back_whole() {
    struct Never;
    impl hipflask_server::BodySource for Never {
        fn next(&mut self, _: &mut Vec<u8>) -> Result<bool, BodyError> {
            panic!("a stream that was taken back is not asked")
        }
    }
    let live = app()
        .route("/body", None, |view| {
            view.reply.start(200, None);
            view.reply.field(b"Connection", b"close").unwrap();
            view.reply.body(b"first");
            view.reply.reset();
            view.reply.start(503, None);
            view.reply.body(b"second");
        })
        .route("/stream", None, |view| {
            view.reply.start(200, None);
            view.reply.stream(Box::new(Never), None);
            view.reply.reset();
            view.reply.start(503, None);
            view.reply.body(b"second");
        })
        .serve(Config::default());
    let mut client = live.client();
    for path in ["/body", "/stream", "/body"] {
        let response = client.get(path);
        assert_eq!((response.status, response.text()), (503, "second"));
    }
}

#[test]
fn a_view_that_blocks_inline_loses_the_reactor_and_stalls_nobody() {
    let gate = Gate::default();
    let passed = gate.clone();
    let live = app()
        .route("/blocks", Some(true), move |view| {
            let gate = passed.clone();
            view.detached(|_| gate.pass());
            view.text("late");
        })
        .serve(Config::default());
    let mut blocked = live.client();
    blocked.send("GET /blocks HTTP/1.1\r\nHost: test\r\n\r\nGET /inline HTTP/1.1\r\nHost: test\r\n\r\n");
    gate.reached(1);
    for _ in 0..10 {
        assert_eq!(live.get("/inline").text(), "inline");
        assert_eq!(live.get("/worker").text(), "worker");
    }
    assert!(live.app.notices.lock().unwrap().contains(&Notice::Retaken));
    gate.open();
    assert_eq!(blocked.response().text(), "late");
    assert_eq!(blocked.response().text(), "inline");
    assert_eq!(blocked.get("/inline").text(), "inline");
}

#[test]
fn several_blocking_inline_views_lose_the_reactor_one_after_another() {
    let gate = Gate::default();
    let mut app = app();
    for at in 0..8 {
        let gate = gate.clone();
        app = app.route(&format!("/blocks/{at}"), Some(true), move |view| {
            let gate = gate.clone();
            view.detached(|_| gate.pass());
            view.text("late");
        });
    }
    let live = app.serve(Config { threads: 16, ..Config::default() });
    let mut blocked: Vec<_> = (0..8).map(|_| live.client()).collect();
    for (at, client) in blocked.iter_mut().enumerate() {
        client.send(format!("GET /blocks/{at} HTTP/1.1\r\nHost: test\r\n\r\n"));
    }
    gate.reached(8);
    assert_eq!(live.get("/inline").text(), "inline");
    gate.open();
    for client in &mut blocked {
        assert_eq!(client.response().text(), "late");
        assert_eq!(client.get("/inline").text(), "inline");
    }
}

#[test]
fn a_blocking_view_on_workers_leaves_the_fast_ones_alone() {
    let gate = Gate::default();
    let passed = gate.clone();
    let live = app()
        .route("/blocks", None, move |view| {
            let gate = passed.clone();
            view.detached(|_| gate.pass());
            view.text("late");
        })
        .serve(Config { threads: 2, ..Config::default() });
    let mut blocked: Vec<_> = (0..4).map(|_| live.client()).collect();
    for client in &mut blocked {
        client.send("GET /blocks HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    gate.reached(2);
    for _ in 0..10 {
        assert_eq!(live.get("/inline").text(), "inline");
    }
    gate.open();
    for client in &mut blocked {
        assert_eq!(client.response().text(), "late");
    }
}

#[test]
fn a_full_queue_is_503_with_retry_after_and_reading_waits_for_room() {
    let gate = Gate::default();
    let passed = gate.clone();
    let live = app()
        .route("/blocks", Some(false), move |view| {
            let gate = passed.clone();
            view.detached(|_| gate.pass());
            view.text("late");
        })
        .serve(Config { threads: 1, queue: 2, ..Config::default() });
    let mut blocked = live.client();
    blocked.send("GET /blocks HTTP/1.1\r\nHost: test\r\n\r\n");
    gate.reached(1);
    let mut refused = None;
    let mut queued = Vec::new();
    for _ in 0..10 {
        let mut client = live.client();
        client.send("GET /worker HTTP/1.1\r\nHost: test\r\n\r\n");
        client.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut first = [0; 4096];
        match client.stream.read(&mut first) {
            Ok(count) => {
                let text = String::from_utf8_lossy(&first[..count]).into_owned();
                assert!(text.starts_with("HTTP/1.1 503") && text.contains("Retry-After: 1"), "{text}");
                refused = Some(client);
                break;
            }
            Err(_) => queued.push(client),
        }
    }
    assert_eq!(queued.len(), 2, "as many wait as the queue takes");
    let mut refused = refused.expect("the queue is bounded");
    refused.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    refused.send("GET /inline HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(live.get("/inline").text(), "inline", "fast views are answered all the same");
    gate.open();
    assert_eq!(refused.response().text(), "inline");
    assert_eq!(blocked.response().text(), "late");
    for client in &mut queued {
        assert_eq!(client.response().text(), "worker");
    }
}

#[test]
fn a_slow_reader_of_a_finished_response_holds_no_thread() {
    const BIG: usize = 16 << 20;
    let live = app()
        .route("/big", Some(false), |view| {
            view.reply.start(200, None);
            view.reply.body(&vec![b'x'; BIG]);
        })
        .serve(Config { threads: 1, ..Config::default() });
    let mut slow: Vec<_> = (0..4).map(|_| live.client()).collect();
    for client in &mut slow {
        client.send("GET /big HTTP/1.1\r\nHost: test\r\n\r\n");
        client.head();
    }
    assert_eq!(live.get("/worker").text(), "worker");
    for client in &mut slow {
        assert_eq!(client.exactly(BIG).len(), BIG);
        assert_eq!(client.get("/worker").text(), "worker");
    }
}

#[test]
fn a_client_that_takes_nothing_is_cut_off() {
    let live = App::default()
        .route("/big", Some(false), |view| {
            view.reply.start(200, None);
            view.reply.body(&vec![b'x'; 64 << 20]);
        })
        .serve(quick(|timeouts| timeouts.write = Duration::from_millis(100)));
    let mut client = live.client();
    client.send("GET /big HTTP/1.1\r\nHost: test\r\n\r\n");
    client.head();
    let begin = Instant::now();
    while live.app.reasons().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(10));
        thread::yield_now();
    }
    assert_eq!(live.app.reasons(), ["the client takes the response too slowly"]);
}

#[test]
fn a_stream_arrives_piece_by_piece() {
    let gate = Gate::default();
    let passed = gate.clone();
    let live = App::default()
        .route("/stream", Some(true), move |view| {
            view.reply.start(200, None);
            let (mut at, gate) = (0, passed.clone());
            view.reply.stream(
                Box::new(Source(move |out: &mut Vec<u8>| {
                    if at == 1 {
                        gate.pass();
                    }
                    at += 1;
                    out.extend_from_slice(format!("piece {at};").as_bytes());
                    Ok(at < 3)
                })),
                None,
            );
        })
        .serve(Config::default());
    let mut client = live.client();
    client.send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(client.until(b"piece 1;\r\n").ends_with(b"8\r\npiece 1;\r\n"), "before the second is made");
    gate.open();
    assert_eq!(client.until(b"0\r\n\r\n"), b"8\r\npiece 2;\r\n8\r\npiece 3;\r\n0\r\n\r\n");
    assert_eq!(client.get("/stream").text(), "piece 1;piece 2;piece 3;");
    client.send("GET /stream HTTP/1.0\r\n\r\n");
    client.head();
    assert_eq!(client.until(b"piece 3;"), b"piece 1;piece 2;piece 3;");
    assert!(client.is_closed());
}

#[test]
fn a_stream_that_fails_is_500_before_its_first_piece_and_cut_after() {
    let live = App::default()
        .route("/at-once", Some(true), |view| {
            view.reply.start(200, None);
            view.reply.stream(Box::new(Source(|_: &mut Vec<u8>| Err(BodyError::Failed))), None);
        })
        .route("/later", Some(true), |view| {
            view.reply.start(200, None);
            let mut at = 0;
            let next = move |out: &mut Vec<u8>| {
                at += 1;
                out.push(b'x');
                if at > 1 { panic!("expected by this test") } else { Ok(true) }
            };
            view.reply.stream(Box::new(Source(next)), None);
        })
        .route("/short", Some(true), |view| {
            view.reply.start(200, None);
            let next = |out: &mut Vec<u8>| {
                out.push(b'x');
                Ok(false)
            };
            view.reply.stream(Box::new(Source(next)), Some(5));
        })
        .serve(Config::default());
    assert_eq!(live.get("/at-once").status, 500);
    let mut client = live.client();
    client.send("GET /later HTTP/1.1\r\nHost: test\r\n\r\n");
    client.until(b"x\r\n");
    let mut rest = Vec::new();
    let _ = client.stream.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"));
    let mut client = live.client();
    client.send("GET /short HTTP/1.1\r\nHost: test\r\n\r\n");
    client.until(b"\r\n\r\nx");
    assert!(client.is_closed());
}

#[test]
fn streams_never_hold_the_last_threads() {
    let gate = Gate::default();
    let passed = gate.clone();
    let live = app()
        .route("/stream", None, move |view| {
            view.reply.start(200, None);
            let gate = passed.clone();
            view.reply.stream(
                Box::new(Source(move |out: &mut Vec<u8>| {
                    gate.pass();
                    out.push(b'x');
                    Ok(false)
                })),
                None,
            );
        })
        .serve(Config { threads: 4, ..Config::default() });
    let mut clients: Vec<_> = (0..10).map(|_| live.client()).collect();
    for client in &mut clients {
        client.send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    gate.reached(3);
    assert_eq!(live.get("/worker").text(), "worker");
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().text(), "x");
    }
}

#[test]
fn a_slow_reader_of_a_stream_holds_no_thread() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let live = app()
        .route("/stream", None, move |view| {
            view.reply.start(200, None);
            let (mut at, made) = (0, Arc::clone(&count));
            view.reply.stream(
                Box::new(Source(move |out: &mut Vec<u8>| {
                    at += 1;
                    made.fetch_add(1, Ordering::Relaxed);
                    out.resize(1 << 20, b'x');
                    Ok(at < 64)
                })),
                None,
            );
        })
        .serve(Config { threads: 1, ..Config::default() });
    let mut slow: Vec<_> = (0..3).map(|_| live.client()).collect();
    for client in &mut slow {
        client.send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
        client.head();
    }
    assert_eq!(live.get("/worker").text(), "worker");
    assert!(made.load(Ordering::Relaxed) < 3 * 32, "pieces are made when the client takes them");
    for client in &mut slow {
        let mut bytes = 0;
        loop {
            let size = usize::from_str_radix(std::str::from_utf8(&client.until(b"\r\n")).unwrap().trim(), 16)
                .unwrap();
            client.exactly(size + 2);
            bytes += size;
            if size == 0 {
                break;
            }
        }
        assert_eq!(bytes, 64 << 20);
    }
}

#[test]
fn a_stop_finishes_what_runs_and_loses_nothing() {
    let gate = Gate::default();
    let passed = gate.clone();
    let live = app()
        .route("/blocks", Some(false), move |view| {
            let gate = passed.clone();
            view.detached(|_| gate.pass());
            view.text("late");
        })
        .serve(Config::default());
    let mut running = live.client();
    running.send("GET /blocks HTTP/1.1\r\nHost: test\r\n\r\n");
    gate.reached(1);
    let mut idle = live.client();
    idle.get("/inline");
    // Connected, perhaps not accepted yet, and silent so far.
    let mut fresh = live.client();
    live.running.stop(Some(Duration::from_secs(20)));
    let response = fresh.get("/worker");
    assert_eq!((response.text(), response.field("Connection")), ("worker", Some("close")));
    let response = idle.get("/inline");
    assert_eq!((response.text(), response.field("Connection")), ("inline", Some("close")));
    assert!(!live.running.wait_timeout(Duration::from_millis(50)), "one request still runs");
    gate.open();
    assert_eq!(running.response().text(), "late");
    live.running.wait();
    assert!(std::net::TcpStream::connect(live.address).is_err());
}

#[test]
fn a_stop_under_load_answers_every_request_that_was_accepted() {
    let live = app().serve(Config::default());
    let (address, begun) = (live.address, Gate::default());
    let clients: Vec<_> = (0..8)
        .map(|at| {
            let begun = begun.clone();
            thread::spawn(move || {
                let mut client = Client::connect(address);
                begun.open();
                let mut answered = 0;
                loop {
                    let path = if at % 2 == 0 { "/inline" } else { "/worker" };
                    let response = client.get(path);
                    assert_eq!(response.status, 200);
                    answered += 1;
                    if answered == 50 {
                        begun.pass();
                    }
                    if response.field("Connection") == Some("close") {
                        return answered;
                    }
                }
            })
        })
        .collect();
    begun.reached(8);
    live.running.stop(None);
    for client in clients {
        assert!(client.join().expect("every request is answered") >= 50);
    }
    live.running.wait();
}

#[test]
fn a_stop_cuts_what_does_not_end_in_time() {
    let gate = Gate::default();
    let passed = gate.clone();
    let live = App::default()
        .route("/blocks", Some(false), move |view| {
            let gate = passed.clone();
            view.detached(|_| gate.pass());
        })
        .serve(Config::default());
    let mut client = live.client();
    client.send("GET /blocks HTTP/1.1\r\nHost: test\r\n\r\n");
    gate.reached(1);
    live.running.stop(Some(Duration::from_millis(100)));
    assert!(client.is_closed());
    live.running.wait();
    gate.open();
}

#[test]
fn a_second_stop_ends_at_once() {
    let live = app().serve(Config::default());
    let mut client = live.client();
    client.get("/inline");
    let begin = Instant::now();
    live.running.stop(Some(Duration::from_secs(60)));
    live.running.stop(None);
    live.running.wait();
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(client.is_closed());
}

#[test]
fn too_many_connections_wait_their_turn() {
    let live = app().serve(Config { max_connections: 2, ..Config::default() });
    let (mut first, mut second) = (live.client(), live.client());
    first.get("/inline");
    second.get("/inline");
    let mut third = live.client();
    third.send("GET /inline HTTP/1.1\r\nHost: test\r\n\r\n");
    third.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(third.stream.read(&mut [0]).is_err());
    drop(first);
    third.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(third.response().text(), "inline");
}

#[test]
fn answers_are_told_with_status_and_size() {
    let live = app().serve(Config { tell_answers: true, ..Config::default() });
    let mut client = live.client();
    client.send("GET /inline?a=1 HTTP/1.1\r\nHost: test\r\n\r\nGET /missing HTTP/1.1\r\nHost: test\r\n\r\n");
    client.response();
    client.response();
    client.get("/worker");
    let begin = Instant::now();
    while live.app.answers.lock().unwrap().len() < 3 {
        assert!(begin.elapsed() < Duration::from_secs(10));
        thread::yield_now();
    }
    let answers = live.app.answers.lock().unwrap();
    let told: Vec<_> = answers.iter().map(|(request, status, _)| (request.as_str(), *status)).collect();
    let mut sorted = told.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [("GET /inline?a=1", 200), ("GET /missing", 404), ("GET /worker", 200)]);
    assert!(answers.iter().all(|(_, _, sent)| (50..300).contains(sent)), "{answers:?}");
}

#[test]
fn a_fast_route_comes_inline_and_a_slow_one_goes_to_workers() {
    use hipflask_server::Lane;
    let app = app().route("/sleeps", None, |view| {
        view.detached(|_| thread::sleep(Duration::from_millis(2)));
        view.text("slept");
    });
    let live = app.serve(Config::default());
    let mut client = live.client();
    for _ in 0..12 {
        client.get("/learnt");
        client.get("/sleeps");
    }
    assert_eq!(live.app.lane("/learnt"), Lane::Inline);
    assert_eq!(live.app.lane("/sleeps"), Lane::Worker);
}

#[test]
fn one_who_waits_for_the_end_takes_no_wake_up_from_the_workers() {
    let live = app().serve(Config::default());
    let running = live.running.clone();
    let waiting = thread::spawn(move || running.wait());
    let mut client = live.client();
    for _ in 0..500 {
        assert_eq!(client.get("/worker").text(), "worker");
    }
    live.running.stop(None);
    drop(client);
    waiting.join().unwrap();
}

#[test]
fn reactors_that_change_hands_all_the_time_lose_no_request_and_no_order() {
    let mut app = app();
    for at in 0..16u64 {
        // Some always lose the reactor, some sometimes, some never.
        app = app.route(&format!("/{at}"), Some(true), move |view| {
            view.detached(|_| thread::sleep(Duration::from_micros(at * at * 20)));
            view.text(&at.to_string());
        });
    }
    let live = app.serve(Config { threads: 16, ..Config::default() });
    let address = live.address;
    let clients: Vec<_> = (0..12)
        .map(|seed| {
            thread::spawn(move || {
                let mut client = Client::connect(address);
                for round in 0..10 {
                    let order: Vec<_> = (0..16).map(|at| (at * 7 + seed + round) % 16).collect();
                    let requests: String =
                        order.iter().map(|at| format!("GET /{at} HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
                    client.send(requests);
                    for at in order {
                        assert_eq!(client.response().text(), at.to_string());
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every request is answered in its turn");
    }
    assert!(live.app.notices.lock().unwrap().contains(&Notice::Retaken));
}

#[test]
fn bodies_beyond_the_common_room_are_read_by_their_views() {
    // Room for one of them: while it is being collected, the second goes to its view as a stream.
    let live = app().serve(Config { buffer_bodies: 100_000, ..Config::default() });
    let mut first = live.client();
    first.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 90000\r\n\r\n");
    first.send(vec![b'a'; 80_000]);
    let mut second = live.client();
    second.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 90000\r\n\r\n");
    second.send(vec![b'b'; 90_000]);
    assert_eq!(second.response().body, vec![b'b'; 90_000]);
    first.send(vec![b'a'; 10_000]);
    assert_eq!(first.response().body, vec![b'a'; 90_000]);
}
