//! What is told of answers: to whoever logs them, and in the responses themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::{App, Live, Source, Told};
use hipflask_server::{Config, IdSource, Outlet, Piece, RequestId};

/// What each request of these tests is about.
struct Case {
    request: &'static str,
    status: u16,
    route: Option<&'static str>,
    received: u64,
    body: u64,
}

const fn case(request: &'static str, status: u16, route: &'static str, received: u64, body: u64) -> Case {
    Case { request, status, route: if route.is_empty() { None } else { Some(route) }, received, body }
}

fn app() -> App {
    App::default()
        .route("/inline", Some(true), |view| view.text("inline"))
        .route("/worker", Some(false), |view| {
            view.detached(|_| thread::sleep(Duration::from_millis(3)));
            view.text("worker");
        })
        .route("/echo", Some(false), |view| {
            let body = view.body().unwrap_or_default();
            view.reply.start(200, None);
            view.reply.body(&body);
        })
        .route("/stream", Some(false), |view| {
            let mut left = 3;
            view.reply.start(200, None);
            view.reply.stream(
                Box::new(Source(move |out: &mut Vec<u8>| {
                    out.extend_from_slice(b"piece");
                    left -= 1;
                    Ok(left > 0)
                })),
                Some(15),
            );
        })
        .route("/outlet", Some(true), |view| {
            let outlet: Outlet = view.reply.outlet(Some(4));
            outlet.send(Piece::from(b"word".to_vec())).unwrap();
            outlet.finish();
        })
        .later(
            "/later",
            |view| view.text("too long"),
            |_, mut deferred| {
                deferred.begins();
                thread::sleep(Duration::from_millis(3));
                let _ = deferred.write(|reply| {
                    reply.body(b"later");
                    Ok::<_, ()>(())
                });
                deferred.send();
            },
        )
        .route("/panics", Some(true), |_| panic!("expected by this test"))
}

fn told(live: &Live, count: usize) -> Vec<Told> {
    let begin = Instant::now();
    loop {
        let told = live.app.told.lock().unwrap();
        if told.len() >= count {
            return told.clone();
        }
        drop(told);
        assert!(begin.elapsed() < Duration::from_secs(20));
        thread::yield_now();
    }
}

#[test]
fn every_kind_of_answer_is_told_with_its_numbers() {
    let fields = ["user-agent", "x-none"].map(str::to_owned).to_vec();
    let live = app().serve(Config { tell_answers: true, tell_fields: fields, ..Config::default() });
    let cases = [
        case("GET /inline?a=1", 200, "/inline", 0, 6),
        case("HEAD /inline", 200, "/inline", 0, 0),
        case("GET /worker", 200, "/worker", 0, 6),
        case("POST /echo", 200, "/echo", 5, 5),
        case("GET /stream", 200, "/stream", 0, 15),
        case("GET /outlet", 200, "/outlet", 0, 4),
        case("GET /later", 200, "/later", 0, 5),
        case("GET /missing", 404, "", 0, 12),
        case("GET /route-panics", 500, "", 0, 21),
    ];
    for (at, case) in cases.iter().enumerate() {
        let mut client = live.client();
        let body = if case.received > 0 { "Content-Length: 5\r\n\r\nabcde" } else { "\r\n" };
        client.send(format!("{} HTTP/1.1\r\nHost: test\r\nUser-Agent: test/{at}\r\n{body}", case.request));
        match case.request.starts_with("HEAD") {
            true => drop(client.head()),
            false => drop(client.response()),
        }
        let told = told(&live, at + 1);
        let found = &told[at];
        assert_eq!((found.request.as_str(), found.status), (case.request, case.status));
        assert_eq!(found.route.as_deref(), case.route, "{}", case.request);
        assert_eq!((found.received, found.sent_body), (case.received, case.body), "{}", case.request);
        assert!(found.sent > found.sent_body + 50 && found.complete, "{found:?}");
        assert_eq!(found.fields, [Some(format!("test/{at}")), None]);
        let times = found.times;
        let sum = times.receive + times.queue + times.gil + times.view + times.write;
        assert!(sum <= times.total, "{found:?}");
        if ["GET /worker", "GET /later"].contains(&case.request) {
            assert!(times.view >= Duration::from_millis(3), "{found:?}");
        }
    }
}

#[test]
fn a_body_that_is_read_by_the_view_is_counted() {
    let live = app().serve(Config { tell_answers: true, buffer_body: 10, ..Config::default() });
    let mut client = live.client();
    assert_eq!(client.post("/echo", &[b'x'; 100_000]).body.len(), 100_000);
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n");
    client.send("14\r\n01234567890123456789\r\n0\r\n\r\n");
    assert_eq!(client.response().body.len(), 25);
    let told = told(&live, 2);
    assert_eq!((told[0].received, told[1].received), (100_000, 25));
    assert_eq!((told[0].sent_body, told[1].sent_body), (100_000, 25));
}

#[test]
fn pipelined_answers_are_told_in_order_with_their_own_sizes() {
    let live = app().serve(Config { tell_answers: true, ..Config::default() });
    let mut client = live.client();
    let names = ["/inline", "/missing", "/worker", "/inline", "/later", "/inline"];
    client.send(names.map(|name| format!("GET {name} HTTP/1.1\r\nHost: test\r\n\r\n")).concat());
    let bodies = names.map(|_| client.response().body.len() as u64);
    let told = told(&live, names.len());
    let found: Vec<_> = told.iter().map(|told| (told.request.as_str(), told.sent_body)).collect();
    let wanted: Vec<_> = names.iter().map(|name| format!("GET {name}")).collect();
    let wanted: Vec<_> = wanted.iter().map(String::as_str).zip(bodies).collect();
    assert_eq!(found, wanted);
}

#[test]
fn an_answer_that_is_cut_off_is_told_as_such() {
    let kept: &'static Mutex<Vec<Outlet>> = Box::leak(Box::default());
    let live = app()
        .route("/waits", Some(true), |view| {
            let outlet = view.reply.outlet(None);
            outlet.send(Piece::from(b"begun".to_vec())).unwrap();
            kept.lock().unwrap().push(outlet);
        })
        .serve(Config { tell_answers: true, ..Config::default() });
    let mut client = live.client();
    client.send("GET /waits HTTP/1.1\r\nHost: test\r\n\r\n");
    client.until(b"begun");
    drop(client);
    let told = told(&live, 1);
    assert_eq!((told[0].status, told[0].complete), (200, false));
    assert!(told[0].sent_body >= 5);
}

#[test]
fn a_head_that_cannot_be_read_is_told_without_a_request() {
    let live = app().serve(Config { tell_answers: true, ..Config::default() });
    let mut client = live.client();
    client.send("GET /inline HTTP/1.1\r\nHost: test\r\n\r\nnonsense\r\n\r\n");
    client.response();
    assert_eq!(client.response().status, 400);
    let told = told(&live, 2);
    let found: Vec<_> = told.iter().map(|told| (told.request.as_str(), told.status)).collect();
    assert_eq!(found, [("GET /inline", 200), (" ", 400)]);
}

#[test]
fn responses_say_where_the_time_went() {
    let live = app().serve(Config { server_timing: true, ..Config::default() });
    let mut client = live.client();
    for path in ["/inline", "/worker", "/stream", "/outlet", "/later"] {
        let response = client.get(path);
        let value = response.field("Server-Timing").unwrap_or_else(|| panic!("{path} has none"));
        let names: Vec<_> = value.split(", ").map(|part| part.split(";dur=").next().unwrap()).collect();
        assert_eq!(names, ["queue", "gil", "view"], "{path}");
        let view: f64 = value.rsplit('=').next().unwrap().parse().unwrap();
        assert!(view >= if path == "/worker" || path == "/later" { 3.0 } else { 0.0 });
    }
    assert_eq!(client.get("/missing").field("Server-Timing"), None);
    assert_eq!(live.app.told.lock().unwrap().len(), 0);
    let live = app().serve(Config::default());
    assert_eq!(live.get("/inline").field("Server-Timing"), None);
}

#[test]
fn requests_get_a_name_and_the_response_has_it() {
    let request_id = RequestId { source: IdSource::Trust, ..RequestId::default() };
    let live = app()
        .route("/seen", Some(true), |view| {
            let id = view.request.head.id().unwrap().to_owned();
            assert_eq!(view.request.head.field(b"x-request-id"), Some(id.as_bytes()));
            view.text(&id);
        })
        .route("/own", Some(true), |view| {
            view.reply.start(200, None);
            view.reply.field(b"x-request-id", b"mine").unwrap();
            view.reply.body(b"");
        })
        .serve(Config { tell_answers: true, request_id, ..Config::default() });
    let mut client = live.client();
    let fresh = client.get("/seen");
    assert_eq!((fresh.text().len(), fresh.field("X-Request-ID")), (32, Some(fresh.text())));
    client.send("GET /seen HTTP/1.1\r\nHost: test\r\nX-Request-ID: brought\r\n\r\n");
    let brought = client.response();
    assert_eq!((brought.text(), brought.field("X-Request-ID")), ("brought", Some("brought")));
    let ids = |response: &common::Response| {
        response.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-request-id")).count()
    };
    let own = client.get("/own");
    assert_eq!((own.field("x-request-id"), ids(&own)), (Some("mine"), 1));
    for path in ["/missing", "/later", "/panics"] {
        assert_eq!(live.get(path).field("X-Request-ID").map(str::len), Some(32), "{path}");
    }
    let told = told(&live, 6);
    assert_eq!(told[0].request_id.as_deref(), Some(fresh.text()));
    assert_eq!(told[1].request_id.as_deref(), Some("brought"));
}

#[test]
fn the_trace_is_told() {
    let live = app().serve(Config { tell_answers: true, ..Config::default() });
    let mut client = live.client();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    for value in [&*format!("00-{trace}-00f067aa0ba902b7-01"), "00-nonsense"] {
        client.send(format!("GET /inline HTTP/1.1\r\nHost: test\r\ntraceparent: {value}\r\n\r\n"));
        client.response();
    }
    let told = told(&live, 2);
    assert_eq!((told[0].trace_id.as_deref(), told[1].trace_id.as_deref()), (Some(trace), None));
}
