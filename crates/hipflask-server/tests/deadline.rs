//! Requests that take longer than they may, and views that run for long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod common;

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{App, Gate, Live, Source};
use hipflask_server::{BodyError, Config, Deferred, Notice, RefusalKind};

const SOON: Duration = Duration::from_millis(60);
const NEVER: Duration = Duration::from_secs(600);

fn until(done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "it did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

fn kinds(live: &Live) -> Vec<RefusalKind> {
    live.app.refusals.lock().unwrap().iter().map(|refusal| refusal.kind).collect()
}

/// Opens the gate however the test ends: the threads are waited for.
struct Opens(Gate);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[test]
fn a_late_view_is_answered_in_its_place_and_its_own_answer_is_thrown_away() {
    for (inline, attached) in [(true, false), (false, false), (false, true)] {
        let gate = Gate::default();
        let (stuck, effects) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&effects);
        let live = App::default()
            .timed("/slow", Some(inline), SOON, move |view| {
                if attached {
                    stuck.pass();
                } else {
                    view.detached(|_| stuck.pass());
                }
                let counted = Arc::clone(&counted);
                view.text("too late");
                view.reply.afterwards(Box::new(move || {
                    counted.fetch_add(1, Ordering::SeqCst);
                }));
            })
            .route("/fast", Some(true), |view| view.text("fast"))
            .serve(Config::default());
        let opens = Opens(gate.clone());
        let mut client = live.client();
        let late = client.get("/slow");
        assert_eq!((late.status, late.text()), (504, "the request took longer than it may"));
        assert_eq!(kinds(&live), [RefusalKind::Deadline]);
        let slow = live.app.slow.lock().unwrap().pop().expect("it is told");
        assert_eq!((slow.answered, slow.request.as_slice()), (Some(504), &b"GET /slow"[..]));
        assert!(slow.took >= SOON);
        let busy = slow.busy.expect("a thread runs it");
        assert_eq!((busy.route.name(), busy.is_late), (Some("/slow"), true));
        assert_eq!(live.running.stuck_threads().0, 1);
        assert_eq!(live.running.busy().len(), 1);
        if !attached {
            assert_eq!(client.get("/fast").text(), "fast", "the connection is kept");
        }
        drop(opens);
        until(|| live.running.stuck_threads().0 == 0);
        assert_eq!(effects.load(Ordering::SeqCst), 1, "what was to be done after it has been done");
        assert_eq!(client.get("/fast").text(), "fast");
        assert!(live.running.busy().is_empty());
    }
}

#[test]
fn a_request_that_waits_for_a_thread_is_turned_away_without_being_run() {
    let (gate, runs) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let (stuck, counted) = (gate.clone(), Arc::clone(&runs));
    let live = App::default()
        .route("/stuck", Some(false), move |view| view.detached(|_| stuck.pass()))
        .timed("/timed", Some(false), SOON, move |view| {
            counted.fetch_add(1, Ordering::SeqCst);
            view.text("ran");
        })
        .serve(Config { threads: 1, ..Config::default() });
    let opens = Opens(gate.clone());
    let mut holder = live.client();
    holder.send("GET /stuck HTTP/1.1\r\nHost: test\r\n\r\n");
    gate.reached(1);
    let mut client = live.client();
    let late = client.get("/timed");
    assert_eq!((late.status, late.field("Retry-After")), (503, Some("1")));
    assert_eq!(kinds(&live), [RefusalKind::QueueDeadline]);
    drop(opens);
    assert_eq!(client.get("/timed").text(), "ran", "the connection is kept");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[test]
fn an_upload_counts_from_its_head_and_its_connection_is_closed() {
    let errors = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&errors);
    let live = App::default()
        .timed("/upload", None, SOON, move |view| {
            let read = view.body();
            seen.lock().unwrap().push(read.map(|_| ()));
            view.text("too late");
        })
        .serve(Config { buffer_body: 0, ..Config::default() });
    let mut client = live.client();
    client.send("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n");
    assert_eq!(client.response().status, 504);
    assert!(client.is_closed());
    until(|| !errors.lock().unwrap().is_empty());
    assert_eq!(*errors.lock().unwrap(), [Err(BodyError::Over)], "the view is told to stop");
    until(|| live.running.stuck_threads().0 == 0);
}

#[test]
fn a_stream_is_cut_off_whether_its_source_or_its_client_is_slow() {
    for fills in [false, true] {
        let gate = Gate::default();
        let stuck = gate.clone();
        let live = App::default()
            .timed("/stream", Some(false), SOON * 4, move |view| {
                let (stuck, mut first) = (stuck.clone(), true);
                view.reply.start(200, None);
                let source = Source(move |out: &mut Vec<u8>| {
                    if fills {
                        out.resize(1 << 20, b'x');
                    } else if std::mem::take(&mut first) {
                        out.extend_from_slice(b"first");
                    } else {
                        stuck.pass();
                        return Ok(false);
                    }
                    Ok(true)
                });
                view.reply.stream(Box::new(source), None);
            })
            .serve(Config::default());
        let opens = Opens(gate.clone());
        let mut client = live.client();
        client.send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
        let head = client.head();
        assert_eq!(head.field("Transfer-Encoding"), Some("chunked"));
        if fills {
            until(|| kinds(&live) == [RefusalKind::StreamDeadline]);
        } else {
            assert_eq!(client.until(b"first\r\n"), b"5\r\nfirst\r\n");
            assert!(client.is_closed(), "without the last chunk");
            assert_eq!(kinds(&live), [RefusalKind::StreamDeadline]);
        }
        drop(opens);
    }
}

#[test]
fn a_deferred_request_is_answered_at_its_deadline_and_its_connection_is_kept() {
    let kept: Arc<Mutex<Vec<Deferred>>> = Arc::default();
    let keeps = Arc::clone(&kept);
    let live = App::default()
        .later("/later", |_| {}, move |_, deferred| keeps.lock().unwrap().push(deferred))
        .route("/fast", Some(true), |view| view.text("fast"))
        .serve(Config { request_timeout: Some(SOON), ..Config::default() });
    let mut client = live.client();
    assert_eq!(client.get("/later").status, 504);
    assert_eq!(client.get("/fast").text(), "fast");
    let mut late = kept.lock().unwrap().pop().unwrap();
    let written = late.write(|reply| {
        reply.start(200, None);
        reply.body(b"too late");
        Ok::<_, Infallible>(())
    });
    assert_eq!(written, Ok(Some(())), "nobody needs to know");
    late.send();
    // What came too late reaches nobody.
    assert_eq!(client.get("/fast").text(), "fast");
    assert_eq!(live.get("/fast").text(), "fast");
    let slow = live.app.slow.lock().unwrap().pop().unwrap();
    assert!(slow.busy.is_none());
    assert_eq!(slow.answered, Some(504));
}

#[test]
fn pipelined_requests_are_answered_in_order_around_a_late_one() {
    let gate = Gate::default();
    let stuck = gate.clone();
    let live = App::default()
        .timed("/slow", Some(false), SOON, move |view| {
            view.detached(|_| stuck.pass());
            view.text("too late");
        })
        .route("/fast", Some(true), |view| view.text("fast"))
        .serve(Config::default());
    let opens = Opens(gate.clone());
    let mut client = live.client();
    let requests = ["/fast", "/slow", "/fast", "/slow", "/fast"];
    for path in requests {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    }
    assert_eq!(requests.map(|_| client.response().status), [200, 504, 200, 504, 200]);
    drop(opens);
    until(|| live.running.stuck_threads().0 == 0);
}

#[test]
fn others_take_the_places_of_stuck_threads_up_to_a_number_that_is_told() {
    let gate = Gate::default();
    let stuck = gate.clone();
    let live = App::default()
        .timed("/slow", Some(false), SOON, move |view| view.detached(|_| stuck.pass()))
        .route("/worker", Some(false), |view| view.text("worker"))
        .serve(Config { threads: 1, stuck_threads: 2, ..Config::default() });
    let opens = Opens(gate.clone());
    for _ in 0..2 {
        assert_eq!(live.get("/slow").status, 504);
        assert_eq!(live.get("/worker").text(), "worker", "another thread has its place");
    }
    let is_told = || live.app.notices.lock().unwrap().iter().any(|notice| matches!(notice, Notice::Stuck(_)));
    assert!(!is_told());
    assert_eq!(live.get("/slow").status, 504);
    assert!(is_told());
    assert_eq!(live.running.stuck_threads(), (3, 2));
    drop(opens);
    until(|| live.running.stuck_threads().0 == 0);
    assert_eq!(live.get("/worker").text(), "worker", "the threads are used again");
}

#[test]
fn fast_routes_and_the_router_answer_while_every_thread_is_stuck_and_the_queue_is_full() {
    let gate = Gate::default();
    let (stuck, also_stuck) = (gate.clone(), gate.clone());
    let live = App::default()
        .route("/stuck", Some(false), move |view| view.detached(|_| stuck.pass()))
        // A fast route that is slow for once, and takes the lead with it.
        .route("/turns", None, move |view| {
            if view.request.head.query() == b"slow" {
                view.detached(|_| also_stuck.pass());
            }
            view.text("turns");
        })
        .route("/health", Some(true), |view| view.text("well"))
        .serve(Config { threads: 2, queue: 2, ..Config::default() });
    let opens = Opens(gate.clone());
    for _ in 0..20 {
        assert_eq!(live.get("/turns").text(), "turns");
    }
    let mut clients: Vec<_> = (0..6).map(|_| live.client()).collect();
    clients[0].send("GET /turns?slow HTTP/1.1\r\nHost: test\r\n\r\n");
    gate.reached(1);
    clients[1].send("GET /stuck HTTP/1.1\r\nHost: test\r\n\r\n");
    gate.reached(2);
    for client in &mut clients[2..] {
        client.send("GET /stuck HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    until(|| !kinds(&live).is_empty());
    for _ in 0..3 {
        assert_eq!(live.get("/health").text(), "well");
        assert_eq!(live.get("/missing").status, 404);
        assert_eq!(live.get("/stuck").status, 503);
    }
    drop(opens);
}

#[test]
fn each_request_has_one_answer_however_close_the_deadline_is() {
    let live = App::default()
        .timed("/a", Some(true), Duration::from_millis(50), |view| {
            let wait =
                view.request.head.query().iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            view.detached(|_| thread::sleep(Duration::from_millis(wait)));
            view.text("in time");
        })
        .timed("/b", Some(false), Duration::from_millis(50), |view| {
            let wait =
                view.request.head.query().iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            view.detached(|_| thread::sleep(Duration::from_millis(wait)));
            view.text("in time");
        })
        .serve(Config { stuck_threads: 64, ..Config::default() });
    let address = live.address;
    let threads: Vec<_> = (0..8u64)
        .map(|number| {
            thread::spawn(move || {
                let mut client = common::Client::connect(address);
                let (mut good, mut late) = (0, 0);
                for round in 0..12 {
                    let path = if number % 2 == 0 { "a" } else { "b" };
                    let response = client.get(&format!("/{path}?{}", 40 + (number * 7 + round * 11) % 90));
                    match (response.status, response.text()) {
                        (200, "in time") => good += 1,
                        (504, "the request took longer than it may") => late += 1,
                        other => panic!("{other:?}"),
                    }
                }
                (good, late)
            })
        })
        .collect();
    let both = threads.into_iter().map(|thread| thread.join().unwrap());
    let (good, late) = both.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert_eq!(good + late, 96);
    assert_eq!(kinds(&live).len(), late);
    until(|| live.running.stuck_threads().0 == 0);
}

#[test]
fn a_view_that_runs_for_long_is_told_of_again_and_again_wherever_it_runs() {
    for inline in [true, false] {
        let gate = Gate::default();
        let stuck = gate.clone();
        let live = App::default()
            .timed("/slow", Some(inline), NEVER, move |view| view.detached(|_| stuck.pass()))
            .serve(Config { slow_request: Some(SOON), ..Config::default() });
        let opens = Opens(gate.clone());
        let mut client = live.client();
        client.send("GET /slow?a=1 HTTP/1.1\r\nHost: test\r\n\r\n");
        until(|| live.app.slow.lock().unwrap().len() == 2);
        let told = live.app.slow.lock().unwrap().clone();
        assert!(told[0].took >= SOON && told[1].took >= told[0].took * 2, "{told:?}");
        assert_eq!(told[0].answered, None);
        assert_eq!(told[0].route.as_deref(), Some("/slow"));
        let busy = live.running.busy();
        assert_eq!(busy.len(), 1);
        assert_eq!(busy[0].request, b"GET /slow?a=1");
        drop(opens);
        assert_eq!(client.response().status, 500);
    }
}
