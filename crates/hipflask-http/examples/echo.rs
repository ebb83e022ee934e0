//! A WebSocket echo server on the protocol alone, one thread per connection: what the protocol's conformance is tried
//! on, and how its parts go together.
//!
//! `cargo run --release -p hipflask-http --example echo -- 9001` listens on 127.0.0.1:9001.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use hipflask_http::websocket::{
    self, Close, Control, Decoder, DeflatePolicy, Encoder, Event, Handshake, Kind, Role,
};
use hipflask_http::{Limits, RequestHead};

/// The largest message of the Autobahn testsuite.
const LARGEST: usize = 16 << 20;

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(9001);
    for stream in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        let stream = stream?;
        std::thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::new();
    let Some(handshake) = open(&mut stream, &mut input)? else { return Ok(()) };
    let limits = websocket::Limits { message: LARGEST };
    let mut decoder = Decoder::new(Role::Server, limits, handshake.deflate.as_ref());
    let mut encoder = Encoder::server(handshake.deflate.as_ref());
    let mut out = Vec::new();
    loop {
        let mut rest = &input[..];
        let ended = loop {
            match decoder.next(&mut rest) {
                Ok(None) => break false,
                Ok(Some(Event::Text(text))) => encoder.message(Kind::Text, text.as_bytes(), &mut out),
                Ok(Some(Event::Binary(bytes))) => encoder.message(Kind::Binary, &bytes, &mut out),
                Ok(Some(Event::Ping(bytes))) => drop(encoder.control(Control::Pong, &bytes, &mut out)),
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close(Close { code, .. }))) => {
                    encoder.close(code, "", &mut out);
                    break true;
                }
                Err(error) => {
                    encoder.close(Some(error.code()), error.reason(), &mut out);
                    break true;
                }
            }
        };
        stream.write_all(&out)?;
        out.clear();
        input.resize(64 * 1024, 0);
        if ended {
            // Reading to the end first: a reset would take the close frame from a client that still sends.
            stream.shutdown(std::net::Shutdown::Write)?;
            while stream.read(&mut input)? > 0 {}
            return Ok(());
        }
        let length = stream.read(&mut input)?;
        if length == 0 {
            return Ok(());
        }
        input.truncate(length);
    }
}

/// Answers the handshake; what came behind it stays in `input`.
fn open(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<Option<Handshake>> {
    let mut head = RequestHead::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        input.extend_from_slice(buffer.get(..length).unwrap_or_default());
        match head.parse(input, &Limits::default()) {
            Ok(Some(taken)) => {
                input.drain(..taken);
                break;
            }
            Ok(None) if length > 0 => {}
            _ => return Ok(None),
        }
    }
    let policy = DeflatePolicy { server_takeover: true, client_takeover: true, ..DeflatePolicy::default() };
    match websocket::accept(&head, Some(&policy)) {
        Ok(handshake) => {
            let mut answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n".to_owned();
            for (name, value) in handshake.fields(None) {
                answer.push_str(&format!("{name}: {value}\r\n"));
            }
            answer.push_str("\r\n");
            stream.write_all(answer.as_bytes())?;
            Ok(Some(handshake))
        }
        Err(error) => {
            let status = error.status();
            write!(stream, "HTTP/1.1 {status} \r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
            Ok(None)
        }
    }
}
