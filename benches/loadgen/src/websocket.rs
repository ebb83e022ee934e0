//! Sends messages to a WebSocket echo server and waits for each to come back before the next is sent.
//!
//! usage: `loadgen websocket ADDRESS PATH CONNECTIONS SECONDS SIZE`
//!
//! Each connection has one text message of SIZE bytes on its way. No compression is offered. Prints the figures in the
//! same form as for requests.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hipflask_http::websocket::{Decoder, Encoder, Event, Kind, Limits, Role};

use crate::percentiles;
use crate::poller::Poller;

struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    sent: Instant,
    waiting: bool,
}

pub(crate) fn run(arguments: &[String]) {
    let [address, path, connections, seconds, size] = arguments else {
        panic!("usage: loadgen websocket ADDRESS PATH CONNECTIONS SECONDS SIZE");
    };
    let connections: usize = connections.parse().expect("a number of connections");
    let seconds: f64 = seconds.parse().expect("seconds");
    let size: usize = size.parse().expect("bytes");
    let text: String = ('a'..='z').cycle().take(size).collect();
    let mut frame = Vec::new();
    Encoder::client(None, 1).message(Kind::Text, text.as_bytes(), &mut frame);

    let poller = Poller::new();
    let mut pool: Vec<Connection> = (0..connections)
        .map(|token| {
            let stream = open(address, path);
            stream.set_nonblocking(true).unwrap();
            poller.watch(&stream, token, false, true);
            let decoder = Decoder::new(Role::Client, Limits::default(), None);
            Connection { stream, decoder, sent: Instant::now(), waiting: false }
        })
        .collect();
    let mut latencies = Vec::new();
    let mut buffer = vec![0; 1 << 18];
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds);
    for connection in &mut pool {
        send(connection, &frame);
    }
    let mut waiting = connections;
    while waiting > 0 {
        assert!(Instant::now() < end + Duration::from_secs(5), "{waiting} messages did not come back");
        for token in poller.wait(Duration::from_millis(50)) {
            let connection = &mut pool[token];
            let length = match connection.stream.read(&mut buffer) {
                Ok(0) => panic!("the server closed a connection"),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("{error}"),
            };
            let mut input = &buffer[..length];
            while let Some(event) = connection.decoder.next(&mut input).expect("good frames") {
                match event {
                    Event::Text(back) if back.len() == size && connection.waiting => {
                        latencies
                            .push(u32::try_from(connection.sent.elapsed().as_micros()).unwrap_or(u32::MAX));
                        connection.waiting = false;
                        waiting -= 1;
                    }
                    Event::Ping(_) | Event::Pong(_) => {}
                    event => panic!("{event:?} came back"),
                }
            }
            if !connection.waiting && Instant::now() < end {
                send(connection, &frame);
                waiting += 1;
            }
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    let count = latencies.len();
    println!(
        r#"{{"requests":{count},"seconds":{elapsed:.3},"unanswered":0,"classes":[{{"bad_status":0,{}}}]}}"#,
        percentiles(&mut latencies)
    );
}

/// A message fits into the socket's buffer, since the one before it has come back.
fn send(connection: &mut Connection, frame: &[u8]) {
    connection.sent = Instant::now();
    connection.waiting = true;
    let sent = connection.stream.write(frame).expect("room in the socket");
    assert_eq!(sent, frame.len(), "a message larger than the socket's buffer");
}

fn open(address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).unwrap();
    // In one piece: some servers refuse a head that is cut within its first line.
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    // Byte by byte: what follows the head belongs to the decoder.
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer to the handshake");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}
