//! Opens many streams of server-sent events, has events published, and counts what arrives.
//!
//! usage: `loadgen fanout ADDRESS SUBSCRIBERS SECONDS RATE SUBSCRIBE_FILE PUBLISH_FILE`
//!
//! Prints `ready` when every stream has begun and waits for a line on its standard input: time to look at the server's
//! memory. Then it publishes: with RATE 0 the next event when the last has reached every subscriber, else so many a
//! second. A latency is the time from the publishing request to the event's arrival at the last subscriber.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::percentiles;
use crate::poller::Poller;

struct Subscriber {
    stream: TcpStream,
    /// Whether the last byte that came was a line feed: two in a row end an event.
    feed: bool,
    begun: bool,
    events: u64,
}

impl Subscriber {
    /// Takes bytes that have come; returns how many events they ended. The framing of chunks holds no two line feeds
    /// in a row, so it need not be understood.
    fn take(&mut self, bytes: &[u8]) -> u64 {
        let before = self.events;
        for &byte in bytes {
            self.events += u64::from(self.feed && byte == b'\n');
            self.feed = byte == b'\n';
        }
        self.events - before
    }
}

pub(crate) fn run(arguments: &[String]) {
    let [address, subscribers, seconds, rate, subscribe, publish] = arguments else {
        panic!("usage: loadgen fanout ADDRESS SUBSCRIBERS SECONDS RATE SUBSCRIBE_FILE PUBLISH_FILE");
    };
    let subscribers: usize = subscribers.parse().expect("a number of subscribers");
    let seconds: f64 = seconds.parse().expect("seconds");
    let rate: f64 = rate.parse().expect("events a second");
    let subscribe = std::fs::read(subscribe).expect("a file with a request");
    let publish = std::fs::read(publish).expect("a file with a request");

    let poller = Poller::new();
    let mut pool: Vec<Subscriber> = (0..subscribers)
        .map(|token| {
            let mut stream = TcpStream::connect(address).expect("the server listens");
            stream.write_all(&subscribe).unwrap();
            stream.set_nonblocking(true).unwrap();
            poller.watch(&stream, token, false, true);
            Subscriber { stream, feed: false, begun: false, events: 0 }
        })
        .collect();
    let mut buffer = vec![0; 1 << 16];
    let mut begun = 0;
    let give_up = Instant::now() + Duration::from_secs(60);
    while begun < subscribers {
        assert!(Instant::now() < give_up, "only {begun} streams have begun");
        for token in poller.wait(Duration::from_millis(50)) {
            let subscriber = &mut pool[token];
            let length = read(&mut subscriber.stream, &mut buffer);
            if length > 0 && !subscriber.begun {
                subscriber.begun = true;
                begun += 1;
                assert!(
                    buffer.starts_with(b"HTTP/1.1 200 "),
                    "{}",
                    String::from_utf8_lossy(&buffer[..length])
                );
            }
            subscriber.take(&buffer[..length]);
        }
    }
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new()).expect("a line");

    // What came so far, such as a greeting, does not count.
    for subscriber in &mut pool {
        subscriber.events = 0;
    }
    let mut publisher = TcpStream::connect(address).expect("the server listens");
    publisher.set_nodelay(true).unwrap();
    publisher.set_nonblocking(true).unwrap();
    poller.watch(&publisher, subscribers, false, true);
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds);
    let (mut published, mut arrived, mut latencies) = (0_u64, 0_u64, Vec::new());
    let (mut sent, mut due) = (start, start);
    loop {
        let now = Instant::now();
        let complete = arrived >= published * subscribers as u64;
        if complete && now >= end {
            break;
        }
        assert!(now < end + Duration::from_secs(10), "{arrived} of {published} x {subscribers} events came");
        if complete && now < end && now >= due {
            publisher.write_all(&publish).expect("room in the socket");
            (sent, published) = (now, published + 1);
            due = if rate > 0.0 { due + Duration::from_secs_f64(1.0 / rate) } else { now };
        }
        let most = due.saturating_duration_since(now).min(Duration::from_millis(50));
        for token in poller.wait(if complete { most } else { Duration::from_millis(50) }) {
            let Some(subscriber) = pool.get_mut(token) else {
                read(&mut publisher, &mut buffer);
                continue;
            };
            let length = read(&mut subscriber.stream, &mut buffer);
            arrived += subscriber.take(&buffer[..length]);
        }
        if !complete && arrived >= published * subscribers as u64 {
            latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    println!(
        r#"{{"requests":{arrived},"seconds":{elapsed:.3},"unanswered":0,"classes":[{{"bad_status":0,{}}}]}}"#,
        percentiles(&mut latencies)
    );
}

fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> usize {
    match stream.read(buffer) {
        Ok(0) => panic!("the server closed a connection"),
        Ok(length) => length,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}
