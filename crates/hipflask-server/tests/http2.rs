//! HTTP/2 without Python: a few frames by hand. The long table of cases is `tests/test_http2.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod common;

use std::io::Read;

use common::{App, Client, Gate};
use hipflask_server::Config;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0anything";
/// HEADERS that end stream 1: `GET`, `http`, `/path`, `test`.
fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x44, path.len() as u8];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(b"\x41\x04test");
    let mut frame = vec![0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1];
    frame.extend(block);
    frame
}

/// Kind, flags and payload of the next frame.
fn frame(client: &mut Client) -> (u8, u8, Vec<u8>) {
    let head = client.exactly(9);
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    (head[3], head[4], client.exactly(length))
}

/// The body of stream 1.
fn body(client: &mut Client) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let (kind, flags, payload) = frame(client);
        assert_ne!(kind, 7, "GOAWAY {payload:?}");
        assert_ne!(kind, 3, "RST_STREAM {payload:?}");
        if kind == 0 {
            body.extend(payload);
        }
        if flags & 1 != 0 && kind < 2 {
            return body;
        }
    }
}

fn app() -> App {
    App::default().route("/inline", Some(true), |view| view.text("inline")).route(
        "/worker",
        Some(false),
        |view| view.text("worker"),
    )
}

#[test]
fn requests_run_inline_and_on_workers() {
    let live = app().serve(Config::default());
    for (path, expected) in [("/inline", "inline"), ("/worker", "worker"), ("/none", "no such page")] {
        let mut client = live.client();
        client.send([PREFACE, SETTINGS, &get(path)].concat());
        assert_eq!(body(&mut client), expected.as_bytes(), "{path}");
    }
}

#[test]
fn what_does_not_begin_with_settings_is_closed() {
    let live = app().serve(Config::default());
    for first in [PING.to_vec(), get("/inline")] {
        let mut client = live.client();
        client.send([PREFACE, &first, SETTINGS, &get("/inline")].concat());
        let mut rest = Vec::new();
        let _ = client.stream.read_to_end(&mut rest);
        assert!(!rest.windows(6).any(|window| window == b"inline"), "{rest:?}");
    }
}

/// A body that is longer than its head says: the stream is reset, and the 100 that the view's reading asks for comes too
/// late.
#[test]
fn nothing_interim_follows_a_reset() {
    let gate = Gate::default();
    let (entered, done) = (gate.clone(), Gate::default());
    let read = done.clone();
    let live = App::default()
        .route("/reads", Some(false), move |view| {
            view.detached(|_| entered.pass());
            let _ = view.body();
            read.pass();
            view.text("read");
        })
        .serve(Config { buffer_body: 0, ..Config::default() });
    let mut request = get("/reads");
    request.extend_from_slice(b"\x0f\x0d\x011\x00\x06expect\x0c100-continue");
    request[2] = (request.len() - 9) as u8;
    request[4] = 4;
    let mut client = live.client();
    client.send([PREFACE, SETTINGS, &request].concat());
    gate.reached(1);
    client.send(b"\0\0\x02\0\0\0\0\0\x01ab");
    while frame(&mut client).0 != 3 {}
    gate.open();
    done.reached(1);
    done.open();
    client.send(PING);
    loop {
        match frame(&mut client) {
            (6, ..) => return,
            (kind, ..) => assert!(kind > 3, "frame {kind} behind the reset"),
        }
    }
}
