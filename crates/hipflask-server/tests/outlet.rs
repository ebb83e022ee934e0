//! Responses and upgraded connections that other threads feed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{App, Client, Live};
use hipflask_server::{
    Config, Notice, Outlet, OutletError, Piece, RouteHistory, Task, Timeouts, Upgraded, Work,
};

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// The outlets that views have made, in order.
#[derive(Clone, Default)]
struct Outlets(Arc<Mutex<Vec<Outlet>>>);

impl Outlets {
    fn put(&self, outlet: Outlet) {
        self.0.lock().unwrap().push(outlet);
    }

    /// Takes the first one, as soon as there is one.
    fn take(&self) -> Outlet {
        until(|| !self.0.lock().unwrap().is_empty());
        self.0.lock().unwrap().remove(0)
    }
}

fn until(done: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "it did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Counts how often it was called.
#[derive(Clone, Default)]
struct Told(Arc<AtomicUsize>);

impl Told {
    fn call(&self) -> Box<dyn FnOnce() + Send> {
        let count = Arc::clone(&self.0);
        Box::new(move || _ = count.fetch_add(1, Ordering::SeqCst))
    }

    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn piece(text: &str) -> Piece {
    Piece::new(text.as_bytes())
}

/// `/open/inline`, `/open/worker` and `/open/later` leave an outlet to the test.
fn app(outlets: &Outlets) -> App {
    let mut app = App::default().route("/plain", Some(true), |view| view.text("plain"));
    for (path, inline) in [("/open/inline", true), ("/open/worker", false)] {
        let outlets = outlets.clone();
        app = app.route(path, Some(inline), move |view| {
            view.reply.start(200, None);
            outlets.put(view.reply.outlet(None));
        });
    }
    let sized = outlets.clone();
    app = app.route("/sized", Some(true), move |view| {
        view.reply.start(200, None);
        sized.put(view.reply.outlet(Some(10)));
    });
    let later = outlets.clone();
    app = app.later(
        "/open/later",
        |_| {},
        move |_, mut deferred| {
            let later = later.clone();
            thread::spawn(move || {
                let outlet = deferred.write(|reply| Ok::<_, Infallible>(reply.outlet(None)));
                later.put(outlet.unwrap().unwrap());
                deferred.send();
            });
        },
    );
    app.route("/empty", Some(true), |view| {
        view.reply.start(204, None);
        let outlet = view.reply.outlet(None);
        assert_eq!(outlet.send(piece("nothing")), Err(OutletError::Gone));
    })
}

fn ask(live: &Live, path: &str) -> Client {
    let mut client = live.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    client
}

fn is_cut(client: &mut Client) -> bool {
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).is_err() || !rest.ends_with(b"0\r\n\r\n")
}

#[test]
fn a_body_is_fed_from_another_thread_and_the_connection_goes_on() {
    let outlets = Outlets::default();
    let live = app(&outlets).serve(Config { tell_answers: true, ..Config::default() });
    for path in ["/open/inline", "/open/worker", "/open/later"] {
        let mut client = ask(&live, path);
        assert_eq!(client.head().field("Transfer-Encoding"), Some("chunked"));
        let outlet = outlets.take();
        let feeder = thread::spawn(move || {
            for at in 0..1000 {
                outlet.send(piece(&format!("event {at}\n"))).unwrap();
            }
            outlet.finish();
        });
        let expected: String = (0..1000).map(|at| format!("event {at}\n")).collect();
        let mut body = String::new();
        loop {
            let size = String::from_utf8(client.until(b"\r\n")).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            body.push_str(std::str::from_utf8(&client.exactly(size)).unwrap());
            client.exactly(2);
            if size == 0 {
                break;
            }
        }
        feeder.join().unwrap();
        assert_eq!(body, expected);
        assert_eq!(client.get("/plain").text(), "plain");
    }
    until(|| live.app.answers.lock().unwrap().len() == 6);
    let answers = live.app.answers.lock().unwrap();
    assert_eq!(answers[0].0, "GET /open/inline");
    assert!(answers[0].2 > 8000, "{answers:?}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let outlets = Outlets::default();
    let live = app(&outlets).serve(Config::default());
    let mut client = live.client();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    client.send([get("/plain"), get("/open/inline"), get("/empty"), get("/plain")].concat());
    assert_eq!(client.response().text(), "plain");
    let outlet = outlets.take();
    assert_eq!(client.head().status, 200);
    outlet.send(piece("one")).unwrap();
    assert_eq!(client.exactly(8), b"3\r\none\r\n");
    outlet.send(piece("two")).unwrap();
    outlet.finish();
    assert_eq!(client.exactly(13), b"3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(client.response().status, 204);
    assert_eq!(client.response().text(), "plain");
}

#[test]
fn each_framing_ends_as_it_must() {
    let outlets = Outlets::default();
    let live = app(&outlets).serve(Config::default());
    let mut client = ask(&live, "/sized");
    let outlet = outlets.take();
    for text in ["12345", "67890", "too much"] {
        outlet.send(piece(text)).unwrap();
    }
    outlet.finish();
    assert_eq!(client.response().text(), "1234567890");
    assert_eq!(client.get("/plain").text(), "plain");

    let mut client = ask(&live, "/sized");
    let outlet = outlets.take();
    outlet.send(piece("short")).unwrap();
    outlet.finish();
    assert!(is_cut(&mut client), "a body shorter than announced");

    let mut client = live.client();
    client.send("GET /open/inline HTTP/1.0\r\n\r\n");
    let outlet = outlets.take();
    outlet.send(piece("old")).unwrap();
    outlet.finish();
    assert_eq!(client.head().field("Transfer-Encoding"), None);
    assert_eq!(client.exactly(3), b"old");
    assert!(client.is_closed());

    let mut client = live.client();
    client.send("HEAD /open/inline HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.head().status, 200);
    let outlet = outlets.take();
    assert!(!outlet.is_open());
    let told = Told::default();
    outlet.on_gone(told.call());
    assert_eq!(told.times(), 0, "it is complete");
    assert_eq!(client.get("/plain").text(), "plain");
}

#[test]
fn a_body_that_comes_to_nothing_is_cut() {
    let outlets = Outlets::default();
    let live = app(&outlets).serve(Config::default());
    for aborts in [true, false] {
        let mut client = ask(&live, "/open/inline");
        client.head();
        let outlet = outlets.take();
        outlet.send(piece("some")).unwrap();
        client.until(b"some\r\n");
        if aborts {
            outlet.abort();
        }
        drop(outlet);
        assert!(is_cut(&mut client));
    }
}

#[test]
fn a_slow_reader_is_bounded_and_a_producer_can_wait_for_it() {
    let outlets = Outlets::default();
    let live = app(&outlets).serve(Config { outlet_queue: 100_000, ..Config::default() });
    let mut client = ask(&live, "/open/worker");
    client.head();
    let outlet = outlets.take();
    let block = Piece::new(&[b'x'; 50_000]);
    let mut given = 0;
    // The kernel takes some megabytes before the queue fills.
    let full = loop {
        match outlet.send(block.clone()) {
            Ok(()) => given += 1,
            Err(error) => break error,
        }
        if outlet.queued() > 50_000 {
            let _ = outlet.wait_below(50_000, Duration::from_millis(100));
        }
        assert!(given < 10_000, "never full");
    };
    assert_eq!(full, OutletError::Full);
    assert!(outlet.queued() <= 100_020);
    assert_eq!(outlet.wait_below(0, Duration::from_millis(10)), Ok(false));
    let told = Told::default();
    outlet.notify_below(0, told.call());
    assert_eq!(told.times(), 0);
    let reader = thread::spawn(move || {
        for _ in 0..given {
            let size = client.until(b"\r\n");
            assert_eq!(size, b"c350\r\n");
            client.exactly(50_002);
        }
        client
    });
    assert_eq!(outlet.wait_below(0, PATIENCE), Ok(true));
    until(|| told.times() == 1);
    outlet.notify_below(10, told.call());
    until(|| told.times() == 2);
    drop(reader.join().unwrap());
}

#[test]
fn a_reader_that_takes_nothing_is_cut_after_the_write_timeout() {
    let outlets = Outlets::default();
    let timeouts = Timeouts { write: Duration::from_millis(200), ..Timeouts::default() };
    let config = Config { timeouts, outlet_queue: 1 << 30, ..Config::default() };
    let live = app(&outlets).serve(config);
    let mut client = ask(&live, "/open/inline");
    client.head();
    let outlet = outlets.take();
    let told = Told::default();
    outlet.on_gone(told.call());
    outlet.send(Piece::from(vec![b'x'; 32 << 20])).unwrap();
    until(|| told.times() == 1);
    assert_eq!(outlet.send(piece("more")), Err(OutletError::Gone));
    assert!(live.app.reasons().contains(&"the client takes the response too slowly"));
    assert!(is_cut(&mut client));
}

#[test]
fn a_quiet_stream_outlives_the_timeouts_and_beats() {
    let outlets = Outlets::default();
    let short = Duration::from_millis(100);
    let timeouts = Timeouts { idle: short, write: short, header: short, ..Timeouts::default() };
    let live = app(&outlets).serve(Config { timeouts, ..Config::default() });
    let mut quiet = ask(&live, "/open/inline");
    quiet.head();
    let quiet_outlet = outlets.take();
    let mut client = ask(&live, "/open/inline");
    client.head();
    let outlet = outlets.take();
    outlet.heartbeat(Duration::from_millis(100), piece(":\n\n"));
    for _ in 0..5 {
        assert_eq!(client.exactly(8), b"3\r\n:\n\n\r\n");
    }
    quiet_outlet.send(piece("still here")).unwrap();
    quiet_outlet.finish();
    quiet.until(b"still here\r\n0\r\n\r\n");
}

#[test]
fn a_client_that_goes_is_noticed_at_once() {
    let outlets = Outlets::default();
    let live = app(&outlets).serve(Config { tell_answers: true, ..Config::default() });
    for path in ["/open/inline", "/open/worker", "/open/later"] {
        for half in [true, false] {
            let mut client = ask(&live, path);
            client.head();
            let outlet = outlets.take();
            let told = Told::default();
            outlet.on_gone(told.call());
            outlet.notify_below(0, told.call());
            until(|| told.times() == 1);
            if half {
                client.stream.shutdown(Shutdown::Write).unwrap();
            } else {
                drop(client);
            }
            until(|| told.times() == 2);
            assert_eq!(outlet.wait_below(0, PATIENCE), Err(OutletError::Gone));
            assert_eq!(outlet.send(piece("late")), Err(OutletError::Gone));
        }
    }
    until(|| live.app.answers.lock().unwrap().len() == 6);
}

#[test]
fn a_finished_body_reaches_a_client_that_has_closed_its_side() {
    let outlets = Outlets::default();
    let live = app(&outlets).serve(Config::default());
    let mut client = ask(&live, "/open/inline");
    client.head();
    let outlet = outlets.take();
    outlet.send(Piece::from(vec![b'x'; 20 << 20])).unwrap();
    outlet.finish();
    client.stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"x\r\n0\r\n\r\n"));
}

#[test]
fn a_stop_sends_farewells_and_waits_for_the_others() {
    let outlets = Outlets::default();
    let live = app(&outlets).serve(Config::default());
    let mut events = ask(&live, "/open/inline");
    events.head();
    let with_farewell = outlets.take();
    with_farewell.farewell(piece("retry: 1000\n\n"));
    with_farewell.send(piece("last")).unwrap();
    let mut other = ask(&live, "/open/worker");
    other.head();
    let outlet = outlets.take();
    live.running.stop(Some(PATIENCE));
    events.until(b"4\r\nlast\r\nd\r\nretry: 1000\n\n\r\n0\r\n\r\n");
    assert!(events.is_closed());
    outlet.send(piece("done")).unwrap();
    outlet.finish();
    other.until(b"4\r\ndone\r\n0\r\n\r\n");
    assert!(other.is_closed());
    assert!(live.running.wait_timeout(PATIENCE));
}

#[test]
fn a_stop_ends_with_its_last_connection() {
    let outlets = Outlets::default();
    let timeouts = Timeouts { header: 10 * PATIENCE, idle: 10 * PATIENCE, ..Timeouts::default() };
    let live = app(&outlets).serve(Config { timeouts, ..Config::default() });
    let mut client = ask(&live, "/open/inline");
    client.head();
    let outlet = outlets.take();
    live.running.stop(Some(10 * PATIENCE));
    assert!(!live.running.wait_timeout(Duration::from_millis(400)), "the last call is over");
    outlet.finish();
    client.until(b"0\r\n\r\n");
    assert!(live.running.wait_timeout(PATIENCE));
}

#[test]
fn the_end_of_the_grace_cuts_and_tells() {
    let outlets = Outlets::default();
    let live = app(&outlets).serve(Config { tell_answers: true, ..Config::default() });
    let mut client = ask(&live, "/open/inline");
    client.head();
    let outlet = outlets.take();
    let told = Told::default();
    outlet.on_gone(told.call());
    live.running.stop(Some(Duration::from_millis(10)));
    assert!(live.running.wait_timeout(PATIENCE));
    assert_eq!(told.times(), 1);
    assert!(is_cut(&mut client));
    assert_eq!(live.app.answers.lock().unwrap().len(), 1);
}

#[test]
fn a_piece_reaches_a_thousand_clients_beside_requests() {
    let outlets = Outlets::default();
    let live = app(&outlets).serve(Config::default());
    let mut clients: Vec<_> = (0..1000).map(|_| ask(&live, "/open/inline")).collect();
    for client in &mut clients {
        client.head();
    }
    let all: Vec<_> = (0..1000).map(|_| outlets.take()).collect();
    for round in 0..3 {
        let event = piece(&format!("event {round}"));
        for outlet in &all {
            outlet.send(event.clone()).unwrap();
        }
        assert_eq!(live.get("/plain").text(), "plain");
        for client in &mut clients {
            client.until(format!("event {round}\r\n").as_bytes());
        }
    }
}

/// Sends back what it gets, line by line. `pause` stops reading, `end` ends, `panic` panics.
struct Echo {
    gone: Told,
    ticks: usize,
}

impl Upgraded for Echo {
    fn receive(&mut self, input: &mut Vec<u8>, outlet: &Outlet) -> bool {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = input.drain(..=end).collect();
            match line.as_slice() {
                b"end\n" => return false,
                b"panic\n" => panic!("expected by this test"),
                b"pause\n" => {
                    outlet.pause_reading();
                    return true;
                }
                _ => outlet.send(Piece::from(line)).unwrap(),
            }
        }
        true
    }

    fn tick(&mut self, outlet: &Outlet) -> Option<Duration> {
        self.ticks += 1;
        if self.ticks > 1 {
            outlet.send(piece("tick\n")).unwrap();
        }
        (self.ticks < 4).then_some(Duration::from_millis(50))
    }

    fn gone(&mut self) {
        self.gone.call()();
    }
}

fn upgrading(outlets: &Outlets, gone: &Told) -> App {
    let mut app = app(outlets);
    for (path, inline, ticks) in [("/echo", true, 10), ("/echo/worker", false, 10), ("/ticks", true, 0)] {
        let (outlets, gone) = (outlets.clone(), gone.clone());
        app = app.route(path, Some(inline), move |view| {
            view.reply.start(101, None);
            view.reply.field(b"Upgrade", b"echo").unwrap();
            outlets.put(view.reply.upgrade(Box::new(Echo { gone: gone.clone(), ticks })));
        });
    }
    app.route("/half", Some(true), |view| {
        view.reply.start(101, None);
        view.reply.body(b"not upgraded");
    })
}

fn upgrade(live: &Live, path: &str, behind: &str) -> Client {
    let mut client = live.client();
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n{behind}"
    ));
    let head = client.head();
    assert_eq!(head.status, 101);
    assert_eq!(head.field("Connection"), Some("upgrade"));
    assert_eq!(head.field("Content-Length"), None);
    client
}

#[test]
fn an_upgraded_connection_belongs_to_its_protocol() {
    let (outlets, gone) = (Outlets::default(), Told::default());
    let live = upgrading(&outlets, &gone).serve(Config { tell_answers: true, ..Config::default() });
    for path in ["/echo", "/echo/worker"] {
        let mut client = upgrade(&live, path, "behind the head\n");
        client.until(b"behind the head\n");
        for at in 0..100 {
            client.send(format!("line {at}"));
            client.send("\n");
            client.until(format!("line {at}\n").as_bytes());
        }
        let outlet = outlets.take();
        outlet.send(piece("from outside\n")).unwrap();
        client.until(b"from outside\n");
        client.send("last\nend\n");
        client.until(b"last\n");
        assert!(client.is_closed());
        assert_eq!(outlet.send(piece("late")), Err(OutletError::Gone));
    }
    until(|| gone.times() == 2);
    until(|| live.app.answers.lock().unwrap().len() == 2);
    assert_eq!(live.app.answers.lock().unwrap()[0].1, 101);
    assert_eq!(live.get("/half").status, 500);
}

#[test]
fn a_protocol_can_make_its_client_wait() {
    let (outlets, gone) = (Outlets::default(), Told::default());
    let live = upgrading(&outlets, &gone).serve(Config { outlet_queue: 1 << 30, ..Config::default() });
    let mut client = upgrade(&live, "/echo", "pause\nleft\n");
    let outlet = outlets.take();
    let blocks = 200;
    let mut writer = client.stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        for at in 0..blocks {
            let mut line = format!("{at}:").into_bytes();
            line.resize(60_000, b'x');
            line.push(b'\n');
            writer.write_all(&line).unwrap();
        }
    });
    client.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(client.stream.read(&mut [0; 10]).is_err(), "it is paused");
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(!writing.is_finished(), "12 MB do not fit anywhere");
    outlet.resume_reading();
    client.until(b"left\n");
    for at in 0..blocks {
        assert!(client.until(b"\n").starts_with(format!("{at}:").as_bytes()));
    }
    writing.join().unwrap();
    drop(client);
    until(|| gone.times() == 1);
}

#[test]
fn a_protocol_has_a_timer() {
    let (outlets, gone) = (Outlets::default(), Told::default());
    let live = upgrading(&outlets, &gone).serve(Config::default());
    let mut client = upgrade(&live, "/ticks", "");
    for _ in 0..3 {
        client.until(b"tick\n");
    }
    client.send("after the last\n");
    client.until(b"after the last\n");
}

#[test]
fn an_upgraded_connection_ends_in_every_way_and_its_protocol_is_told_once() {
    let (outlets, gone) = (Outlets::default(), Told::default());
    let live = upgrading(&outlets, &gone).serve(Config::default());
    for at in 0..4 {
        let mut client = upgrade(&live, "/echo", "");
        let outlet = outlets.take();
        match at {
            0 => drop(client),
            1 => client.stream.shutdown(Shutdown::Write).unwrap(),
            2 => outlet.abort(),
            _ => client.send("panic\n"),
        }
        until(|| gone.times() == at + 1);
        assert!(!outlet.is_open());
    }
    let mut client = upgrade(&live, "/echo", "");
    outlets.take().farewell(piece("going away\n"));
    live.running.stop(Some(SECOND));
    client.until(b"going away\n");
    assert!(client.is_closed());
    until(|| gone.times() == 5);
    assert!(live.running.wait_timeout(PATIENCE));
}

/// Gives each line to a task, which sends it back; one at a time.
struct Delegating {
    lines: Arc<Lines>,
    history: Arc<RouteHistory>,
}

struct Lines {
    waiting: Mutex<(Vec<Vec<u8>>, bool)>,
    outlet: Mutex<Option<Outlet>>,
}

impl Task for Lines {
    fn run(&self) {
        loop {
            let mut waiting = self.waiting.lock().unwrap();
            if waiting.0.is_empty() {
                waiting.1 = false;
                return;
            }
            let line = waiting.0.remove(0);
            drop(waiting);
            if line == b"panic\n" {
                self.waiting.lock().unwrap().1 = false;
                panic!("expected by this test");
            }
            if line == b"sleep\n" {
                thread::sleep(Duration::from_millis(50));
            }
            self.outlet.lock().unwrap().as_ref().unwrap().send(Piece::from(line)).unwrap();
        }
    }
}

impl Upgraded for Delegating {
    fn receive(&mut self, input: &mut Vec<u8>, outlet: &Outlet) -> bool {
        self.lines.outlet.lock().unwrap().get_or_insert_with(|| outlet.clone());
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            let mut waiting = self.lines.waiting.lock().unwrap();
            waiting.0.push(input.drain(..=end).collect());
            if !std::mem::replace(&mut waiting.1, true) {
                let task: Arc<dyn Task> = Arc::clone(&self.lines) as Arc<dyn Task>;
                outlet.runner().unwrap().run(Work { task, history: Arc::clone(&self.history) });
            }
        }
        true
    }

    fn gone(&mut self) {}
}

#[test]
fn tasks_run_as_views_do() {
    for inline in [Some(true), Some(false), None] {
        let app = App::default().route("/delegate", Some(true), move |view| {
            view.reply.start(101, None);
            let lines = Lines { waiting: Mutex::default(), outlet: Mutex::default() };
            let history = Arc::new(RouteHistory::new(inline));
            view.reply.upgrade(Box::new(Delegating { lines: Arc::new(lines), history }));
        });
        let live = app.serve(Config::default());
        let mut clients: Vec<_> = (0..10).map(|_| live.client()).collect();
        for client in &mut clients {
            client.send("GET /delegate HTTP/1.1\r\nHost: test\r\nUpgrade: x\r\n\r\n");
            client.head();
        }
        for round in 0..5 {
            for client in &mut clients {
                client.send(format!("{round}\nsleep\n{round} again\n"));
            }
            for client in &mut clients {
                let expected = format!("{round}\nsleep\n{round} again\n");
                assert_eq!(client.exactly(expected.len()), expected.as_bytes());
            }
        }
        clients[0].send("panic\n");
        let is_panic = |notice: &Notice| matches!(notice, Notice::Panic(_));
        until(|| live.app.notices.lock().unwrap().iter().any(is_panic));
        clients[0].send("after\n");
        clients[0].until(b"after\n");
    }
}
