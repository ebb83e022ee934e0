//! Sends raw requests over keep-alive connections and prints, as one line of JSON, what came back and how fast.
//!
//! usage: `loadgen ADDRESS CONNECTIONS SECONDS RATE (WEIGHT FILE)...`,
//! or `loadgen websocket ...` (see `websocket.rs`), or `loadgen fanout ...` (see `fanout.rs`).
//!
//! Each FILE holds one whole request. RATE 0 is a closed loop: each connection sends its next request when the answer
//! to the last has come. Any other RATE is an open loop of so many requests a second at random (Poisson) times, and a
//! latency counts from the time at which the request was due, so that a stalled server cannot hide its queue.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::print_stdout, reason = "a tool")]

mod fanout;
mod poller;
mod websocket;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use poller::Poller;

struct Class {
    request: Vec<u8>,
    weight: f64,
    latencies: Vec<u32>,
    bad_status: u64,
}

struct Connection {
    stream: TcpStream,
    class: usize,
    due: Instant,
    answer: Answer,
    unsent: Option<usize>,
}

/// How far the answer on a connection has come.
#[derive(Default)]
struct Answer {
    head: Vec<u8>,
    status: u16,
    body: Body,
}

#[derive(Default, PartialEq)]
enum Body {
    #[default]
    Unknown,
    Left(usize),
    Chunked(Vec<u8>),
}

impl Answer {
    /// Takes bytes that have come; true when the answer is complete.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        if self.body == Body::Unknown {
            let searched = self.head.len().saturating_sub(3);
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head[searched..].windows(4).position(|four| four == b"\r\n\r\n") else {
                return false;
            };
            let end = searched + end + 4;
            let surplus = self.head.len() - end;
            bytes = &bytes[bytes.len() - surplus..];
            let head = String::from_utf8_lossy(&self.head[..end]).to_ascii_lowercase();
            self.status = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
            let field =
                |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(name)).map(str::trim);
            self.body = match field("content-length:") {
                Some(length) => Body::Left(length.parse().expect("a length")),
                None if field("transfer-encoding:").is_some() => Body::Chunked(Vec::new()),
                None => Body::Left(0),
            };
        }
        match &mut self.body {
            Body::Left(left) => {
                *left = left.checked_sub(bytes.len()).expect("no bytes beyond the answer");
                *left == 0
            }
            Body::Chunked(seen) => {
                seen.extend_from_slice(bytes);
                seen.ends_with(b"0\r\n\r\n")
            }
            Body::Unknown => false,
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("websocket") => return websocket::run(&arguments[1..]),
        Some("fanout") => return fanout::run(&arguments[1..]),
        _ => {}
    }
    let [address, connections, seconds, rate, requests @ ..] = &arguments[..] else {
        panic!("usage: loadgen ADDRESS CONNECTIONS SECONDS RATE (WEIGHT FILE)...");
    };
    let connections: usize = connections.parse().expect("a number of connections");
    let seconds: f64 = seconds.parse().expect("seconds");
    let rate: f64 = rate.parse().expect("requests a second");
    let mut classes: Vec<Class> = requests
        .chunks(2)
        .map(|pair| Class {
            weight: pair[0].parse().expect("a weight"),
            request: std::fs::read(&pair[1]).expect("a file with a request"),
            latencies: Vec::new(),
            bad_status: 0,
        })
        .collect();

    let poller = Poller::new();
    let mut pool: Vec<Connection> = (0..connections)
        .map(|token| {
            let stream = TcpStream::connect(address).expect("the server listens");
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
            poller.watch(&stream, token, false, true);
            Connection { stream, class: 0, due: Instant::now(), answer: Answer::default(), unsent: None }
        })
        .collect();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut idle: VecDeque<usize> = (0..connections).collect();
    let mut backlog: VecDeque<(Instant, usize)> = VecDeque::new();
    let (start, mut in_flight) = (Instant::now(), 0usize);
    let end = start + Duration::from_secs_f64(seconds);
    // What is still unanswered this long after the end is given up.
    let give_up = end + Duration::from_secs(5);
    let mut next_due = start;
    let mut buffer = vec![0u8; 1 << 18];

    loop {
        let now = Instant::now();
        if rate > 0.0 {
            while next_due <= now && next_due < end {
                backlog.push_back((next_due, random.class(&classes)));
                next_due += Duration::from_secs_f64(-(1.0 - random.unit()).ln() / rate);
            }
        } else if now < end {
            backlog.extend((0..idle.len()).map(|_| (now, random.class(&classes))));
        }
        while let (Some(&token), Some(&(due, class))) = (idle.front(), backlog.front()) {
            idle.pop_front();
            backlog.pop_front();
            let connection = &mut pool[token];
            (connection.class, connection.due, connection.answer) = (class, due, Answer::default());
            connection.unsent = Some(0);
            in_flight += 1;
            send(connection, &classes[class].request, &poller, token);
        }
        if (now >= end && in_flight == 0 && (rate == 0.0 || backlog.is_empty())) || now >= give_up {
            break;
        }
        let wait = if rate > 0.0 && now < end && backlog.is_empty() {
            next_due.saturating_duration_since(now)
        } else {
            Duration::from_millis(50)
        };
        for token in poller.wait(wait) {
            let connection = &mut pool[token];
            let class = &mut classes[connection.class];
            if connection.unsent.is_some() {
                send(connection, &class.request, &poller, token);
            }
            match connection.stream.read(&mut buffer) {
                Ok(0) => {
                    panic!(
                        "the server closed a connection after {:?}",
                        String::from_utf8_lossy(&connection.answer.head)
                    );
                }
                Ok(count) => {
                    if connection.answer.take(&buffer[..count]) {
                        let latency = connection.due.elapsed();
                        class.latencies.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
                        class.bad_status += u64::from(connection.answer.status / 100 != 2);
                        in_flight -= 1;
                        idle.push_back(token);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    report(&mut classes, start.elapsed().min(Duration::from_secs_f64(seconds)), in_flight + backlog.len());
}

fn send(connection: &mut Connection, request: &[u8], poller: &Poller, token: usize) {
    let sent = connection.unsent.take().unwrap_or(0);
    match connection.stream.write(&request[sent..]) {
        Ok(count) if sent + count == request.len() => {
            if sent > 0 {
                poller.watch(&connection.stream, token, false, false);
            }
            return;
        }
        Ok(count) => connection.unsent = Some(sent + count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => connection.unsent = Some(sent),
        Err(error) => panic!("{error}"),
    }
    poller.watch(&connection.stream, token, true, false);
}

fn report(classes: &mut [Class], elapsed: Duration, unanswered: usize) {
    let total: usize = classes.iter().map(|class| class.latencies.len()).sum();
    let rows: Vec<String> = classes
        .iter_mut()
        .map(|class| {
            format!(r#"{{"bad_status":{},{}}}"#, class.bad_status, percentiles(&mut class.latencies))
        })
        .collect();
    println!(
        r#"{{"requests":{total},"seconds":{:.3},"unanswered":{unanswered},"classes":[{}]}}"#,
        elapsed.as_secs_f64(),
        rows.join(",")
    );
}

/// Members of a JSON object that describe latencies in microseconds.
pub(crate) fn percentiles(latencies: &mut [u32]) -> String {
    latencies.sort_unstable();
    let at = |part: f64| {
        let index = (latencies.len() as f64 * part) as usize;
        latencies.get(index.min(latencies.len().saturating_sub(1))).copied().unwrap_or(0)
    };
    format!(
        r#""requests":{},"p50":{},"p90":{},"p99":{},"p999":{},"max":{}"#,
        latencies.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    )
}

struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn class(&mut self, classes: &[Class]) -> usize {
        let mut left = self.unit() * classes.iter().map(|class| class.weight).sum::<f64>();
        for (index, class) in classes.iter().enumerate() {
            left -= class.weight;
            if left < 0.0 {
                return index;
            }
        }
        classes.len() - 1
    }
}
