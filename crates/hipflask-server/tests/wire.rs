//! The vectors of `tests/wire`, sent to a server over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;
#[path = "../../hipflask-http/tests/vectors/mod.rs"]
mod vectors;

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use common::{Client, Response};
use hipflask_http::RequestHead;
use hipflask_server::{
    Address, Bind, Body, Config, ConnInfo, Handler, Refusal, Reply, Request, RouteHistory, Routed, Server,
};
use vectors::{Vector, escape, vectors, word};

/// Answers every request with its body, or with the status of what is wrong with it.
struct Echo {
    history: Arc<RouteHistory>,
}

impl Handler for Echo {
    type Ticket = ();
    type Thread = ();

    fn start_thread(&self) {}
    fn stop_thread(&self, (): ()) {}
    fn attach(&self, (): &mut ()) {}
    fn detach(&self, (): &mut ()) {}

    fn route(&self, _: &RequestHead, _: &ConnInfo) -> Routed<()> {
        Routed::Call { ticket: (), history: Arc::clone(&self.history), max_body: None }
    }

    fn call(&self, (): &mut (), request: Request<()>, reply: &mut Reply<'_>) {
        let mut all = Vec::new();
        match request.body {
            Body::Empty => {}
            Body::Buffered(bytes) => all = bytes,
            Body::Trailed(whole) => all = whole.0,
            Body::Stream(mut stream) => {
                let mut piece = [0; 4096];
                loop {
                    match stream.read(&mut piece) {
                        Ok(0) => break,
                        Ok(count) => all.extend_from_slice(&piece[..count]),
                        Err(error) => {
                            reply.start(error.status(), None);
                            reply.body(b"");
                            return;
                        }
                    }
                }
            }
        }
        reply.start(200, None);
        reply.body(&all);
    }

    fn refused(&self, _: &Refusal, _: &ConnInfo) {}
}

/// One response that is not an interim one.
fn response(client: &mut Client, head: bool) -> Response {
    loop {
        let response = if head { client.head() } else { client.response() };
        if response.status >= 200 {
            return response;
        }
    }
}

/// Sends a vector in pieces of this size and checks what comes back.
fn check(address: SocketAddr, vector: &Vector, size: usize) {
    let mut client = Client::connect(address);
    for piece in vector.bytes.chunks(size) {
        // A server that has refused may have closed already.
        if client.stream.write_all(piece).is_err() {
            break;
        }
    }
    let (end, lines) = vector.expected.split_last().unwrap();
    let mut requests: Vec<(&str, &str)> = Vec::new();
    for line in lines {
        match (word(line), requests.last_mut()) {
            ("head", _) => requests.push((line, "")),
            ("body", Some(request)) => request.1 = line.strip_prefix("body ").unwrap(),
            _ => {}
        }
    }
    // A request whose body is refused or cut short gets no answer of its own.
    let in_body = ["refused", "wait"].contains(&word(end))
        && requests.last().is_some_and(|(head, _)| is_open(head, end));
    if in_body {
        requests.pop();
    }
    for (head, body) in requests {
        let is_head = head.starts_with("head HEAD ");
        let found = response(&mut client, is_head);
        assert_eq!(found.status, 200, "{head}");
        assert_eq!(escape(&found.body), if is_head { "" } else { body }, "{head}");
    }
    match word(end) {
        "done" => {
            let found = client.post("/next", b"next");
            assert_eq!((found.status, found.text()), (200, "next"));
        }
        // A client that goes on sending behind `Connection: close` may meet a reset instead (RFC 9112 §9.6).
        "close" => assert!(client.is_closed() || client.was_reset()),
        "refused" => {
            let status = response(&mut client, false).status;
            assert_eq!(status.to_string(), end.rsplit(' ').next().unwrap());
            assert!(client.is_closed());
        }
        _ => {
            client.stream.shutdown(Shutdown::Write).unwrap();
            if !client.is_closed() {
                let status = response(&mut client, false).status;
                assert!((400..500).contains(&status), "{status}");
                assert!(client.is_closed());
            }
        }
    }
}

/// Whether the body of the last request is what `end` speaks of, rather than a request behind it.
fn is_open(head: &str, end: &str) -> bool {
    const OF_BODIES: [&str; 5] = ["Chunk", "Trailer", "LongBody", "wait", "Truncated"];
    !head.contains(" none ") && OF_BODIES.iter().any(|name| end.contains(name))
}

#[test]
fn every_vector_is_answered_as_it_says() {
    let binds = vec![Bind::Tcp("127.0.0.1:0".parse().unwrap())];
    // With HTTP/2 its preface is no error.
    let bound = Server::bind(Config { binds, http2: false, ..Config::default() }).unwrap();
    let Address::Tcp(address) = bound.local_addrs()[0].clone() else { panic!("not TCP") };
    let running = bound.run(Arc::new(Echo { history: Arc::new(RouteHistory::new(None)) })).unwrap();
    let mut failures = Vec::new();
    for vector in vectors() {
        for size in [usize::MAX, 7] {
            if size < vector.bytes.len() / 200 {
                continue;
            }
            let checked =
                std::panic::catch_unwind(|| check(address, &vector, size.min(vector.bytes.len().max(1))));
            if let Err(panic) = checked {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                failures.push(format!("{}: {}", vector.name, text.unwrap_or_default()));
            }
        }
    }
    running.stop(None);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
