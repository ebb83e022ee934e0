//! Runs the vectors of `tests/wire` against the parser: whole, byte by byte, in pieces, and with a request behind them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that unwraps says enough")]

mod vectors;

use std::fmt::Write as _;

use hipflask_http::{BodyDecoder, Error, Framing, Limits, RequestHead, Version};
use vectors::{Vector, escape, vectors, word};

/// What is seen of one request, in the words of the vectors.
#[derive(Debug, Default, Clone, PartialEq)]
struct Seen {
    head: String,
    details: Vec<(String, String)>,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<String>,
}

/// A connection as a server would keep it, without a server.
struct Connection {
    limits: Limits,
    buffer: Vec<u8>,
    head: RequestHead,
    decoder: Option<BodyDecoder>,
    seen: Vec<Seen>,
    end: Option<String>,
    most: usize,
}

impl Connection {
    fn new(most: usize) -> Self {
        Connection {
            limits: Limits::default(),
            buffer: Vec::new(),
            head: RequestHead::new(),
            decoder: None,
            seen: Vec::new(),
            end: None,
            most,
        }
    }

    fn feed(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
        while self.end.is_none() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => self.end = Some(format!("refused {} {}", error.name(), error.status())),
            }
        }
    }

    /// Whether something was found.
    fn step(&mut self) -> Result<bool, Error> {
        let Some(decoder) = &mut self.decoder else {
            if self.buffer.is_empty() {
                return Ok(false);
            }
            let Some(taken) = self.head.parse(&self.buffer, &self.limits)? else { return Ok(false) };
            self.buffer.drain(..taken);
            self.seen.push(seen(&self.head));
            self.decoder = Some(BodyDecoder::new(self.head.framing(), &self.limits));
            return Ok(true);
        };
        let seen = self.seen.last_mut().unwrap();
        let before = seen.body.len();
        let taken = decoder.decode(&self.buffer, &mut seen.body, self.most)?;
        assert!(seen.body.len() - before <= self.most);
        self.buffer.drain(..taken);
        if decoder.is_done() {
            assert_eq!(decoder.finish(), Ok(()));
            for (name, value) in decoder.trailers() {
                seen.trailers.push(format!("trailer {}: {}", escape(name), escape(value)));
            }
            self.decoder = None;
            if !self.head.keep_alive() {
                self.end = Some("close".to_owned());
            }
            return Ok(true);
        }
        assert_eq!(decoder.finish(), Err(Error::Truncated));
        Ok(seen.body.len() - before == self.most && taken > 0)
    }

    fn end(&self) -> String {
        match &self.end {
            Some(end) => end.clone(),
            None if self.decoder.is_some() || self.head.is_begun() => "wait".to_owned(),
            None => "done".to_owned(),
        }
    }
}

fn seen(head: &RequestHead) -> Seen {
    let mut line = format!("head {} {} ", escape(head.method()), escape(head.target()));
    line.push_str(if head.version() == Version::Http11 { "1.1 " } else { "1.0 " });
    match head.framing() {
        Framing::None => line.push_str("none"),
        Framing::Length(length) => write!(line, "length={length}").unwrap(),
        Framing::Chunked => line.push_str("chunked"),
    }
    line.push_str(if head.keep_alive() { " keep" } else { " close" });
    for (name, set) in [
        ("continue", head.expects_continue()),
        ("upgrade", head.is_upgrade()),
        ("websocket", head.is_websocket()),
    ] {
        if set {
            line.push(' ');
            line.push_str(name);
        }
    }
    let mut details = vec![
        ("host".to_owned(), escape(head.host())),
        ("path".to_owned(), escape(&head.path())),
        ("query".to_owned(), escape(head.query())),
    ];
    details.extend(head.scheme().map(|scheme| ("scheme".to_owned(), escape(scheme))));
    let fields =
        head.fields().map(|(name, value)| (escape(name).to_ascii_lowercase(), escape(value))).collect();
    Seen { head: line, details, fields, ..Seen::default() }
}

/// Compares what was seen with the expected lines; returns the difference.
fn compare(expected: &[String], seen: &[Seen], end: &str) -> Result<(), String> {
    let mut lines = expected.iter().map(String::as_str).peekable();
    for (at, request) in seen.iter().enumerate() {
        let head = lines.next().unwrap_or("nothing");
        if head != request.head {
            return Err(format!("expected {head:?}, saw {:?}", request.head));
        }
        let mut fields = request.fields.iter();
        let mut body = String::new();
        let mut trailers = Vec::new();
        while let Some(line) =
            lines.next_if(|line| !["head", "done", "close", "wait", "refused"].contains(&word(line)))
        {
            let rest = line.split_once(' ').map_or("", |(_, rest)| rest);
            let holds = match word(line) {
                "field" => {
                    let (name, value) = rest.split_once(": ").unwrap();
                    fields.any(|field| field.0 == name && field.1 == value)
                }
                "nofield" => request.fields.iter().all(|field| field.0 != rest),
                "body" => {
                    rest.clone_into(&mut body);
                    true
                }
                "trailer" => {
                    trailers.push(line.to_owned());
                    true
                }
                detail => request.details.contains(&(detail.to_owned(), rest.to_owned())),
            };
            if !holds {
                return Err(format!("{line:?} does not hold for {request:?}"));
            }
        }
        // A body that is cut short or refused has been seen in part.
        let partial = at + 1 == seen.len() && !["done", "close"].contains(&end);
        if (body != escape(&request.body) && !partial) || trailers != request.trailers {
            return Err(format!("expected body {body:?} and {trailers:?}, saw {request:?}"));
        }
    }
    match lines.collect::<Vec<_>>()[..] {
        [line] if line == end => Ok(()),
        ref rest => Err(format!("expected {rest:?}, saw {end:?}")),
    }
}

fn run(pieces: &mut dyn Iterator<Item = &[u8]>, most: usize) -> (Vec<Seen>, String) {
    let mut connection = Connection::new(most);
    for piece in pieces {
        connection.feed(piece);
    }
    let end = connection.end();
    (connection.seen, end)
}

#[test]
fn every_vector_gives_what_it_says_however_it_arrives() {
    let vectors = vectors();
    assert!(vectors.len() >= 250, "the vectors have gone astray");
    let mut failures = Vec::new();
    for Vector { name, bytes, expected } in &vectors {
        for (how, size, most) in [
            ("whole", usize::MAX, usize::MAX),
            ("byte by byte", 1, usize::MAX),
            ("in threes", 3, usize::MAX),
            ("in sevens", 7, 2),
            ("whole, decoded byte by byte", usize::MAX, 1),
        ] {
            let (seen, end) = run(&mut bytes.chunks(size.min(bytes.len().max(1))), most);
            if let Err(difference) = compare(expected, &seen, &end) {
                failures.push(format!("{name}, {how}: {difference}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_vector_leaves_what_follows_it_alone() {
    const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";
    let mut failures = Vec::new();
    for Vector { name, bytes, expected } in vectors() {
        let mut expected = expected;
        match expected.last().map(String::as_str) {
            Some("done") => {
                expected.insert(expected.len() - 1, "head GET /next 1.1 none keep".to_owned());
                expected.insert(expected.len() - 1, "host next".to_owned());
            }
            Some("wait") => continue,
            _ => {}
        }
        let both = [bytes.as_slice(), NEXT].concat();
        for size in [both.len(), 1, 5] {
            let (seen, end) = run(&mut both.chunks(size), usize::MAX);
            if let Err(difference) = compare(&expected, &seen, &end) {
                failures.push(format!("{name}, in pieces of {size}: {difference}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_prefix_of_a_good_vector_waits() {
    for Vector { name, bytes, expected } in vectors() {
        if expected.last().is_some_and(|end| end.starts_with("refused")) || bytes.len() > 4096 {
            continue;
        }
        for length in 0..bytes.len() {
            let (_, end) = run(&mut bytes[..length].chunks(length.max(1)), usize::MAX);
            assert!(["wait", "done", "close"].contains(&end.as_str()), "{name} at {length}: {end}");
        }
    }
}
