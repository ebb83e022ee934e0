//! Prints what the parts cost: `cargo run --release -p hipflask-http --example cost`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement that fails says so")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use hipflask_http::multipart::{Event, Multipart, MultipartLimits};
use hipflask_http::response::{Exchange, ResponseWriter, Stamp};
use hipflask_http::{BodyDecoder, Framing, Limits, RequestHead, Version, cookie, field, query};

const WRK: &[u8] = b"GET /json HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";

const BROWSER: &[u8] = b"GET /blog/posts/42?page=2&sort=date HTTP/1.1\r\nHost: example.org\r\nConnection: keep-alive\r\n\
Cache-Control: max-age=0\r\nsec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n\
Referer: https://example.org/blog\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n\
Cookie: session=eyJ1c2VyX2lkIjoxfQ.ZxYzAA.0123456789abcdefghijklmnopq; theme=dark\r\n\r\n";

/// The best of many short rounds, in nanoseconds per call: what it costs when nothing else runs.
fn measure(mut call: impl FnMut()) -> f64 {
    let begin = Instant::now();
    call();
    let calls = (500_000 / begin.elapsed().as_nanos().max(1)).clamp(1, 10_000) as u32;
    let mut best = f64::MAX;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(300) {
        let round = Instant::now();
        for _ in 0..calls {
            call();
        }
        best = best.min(round.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    best
}

fn report(what: &str, nanoseconds: f64, bytes: usize) {
    let rate = bytes as f64 / nanoseconds * 1000.0;
    println!("{what:<46} {nanoseconds:>11.0} ns {rate:>9.0} MB/s");
}

fn main() {
    let limits = Limits::default();
    let mut head = RequestHead::new();
    for (what, text) in [("head, wrk", WRK), ("head, browser", BROWSER)] {
        let cost = measure(|| {
            assert!(head.parse(black_box(text), &limits).unwrap().is_some());
        });
        report(what, cost, text.len());
        let cost = measure(|| {
            let mut head = Box::new(RequestHead::new());
            assert!(head.parse(black_box(text), &limits).unwrap().is_some());
            black_box(&head);
        });
        report("  in a new RequestHead", cost, text.len());
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let cost = measure(|| {
            let mut other = httparse::Request::new(&mut fields);
            assert!(other.parse(black_box(text)).unwrap().is_complete());
        });
        report("  (httparse alone, fewer checks)", cost, text.len());
    }
    let cost = measure(|| {
        for end in 1..=BROWSER.len() {
            black_box(head.parse(&BROWSER[..end], &limits).unwrap());
        }
    });
    report("head, browser, byte by byte", cost, BROWSER.len());
    let cost = measure(|| {
        black_box(head.field(black_box(b"accept-language")));
    });
    report("a field by name, the 16th of 17", cost, 0);
    responses();
    bodies(&limits);
    values();
    frames();
}

fn responses() {
    let stamp = Stamp::new("hipflask", 1_795_000_000);
    let exchange = Exchange { version: Version::Http11, keep_alive: true, head: false };
    let mut out = Vec::with_capacity(4096);
    let cost = measure(|| {
        out.clear();
        let mut writer = ResponseWriter::new(&mut out, exchange);
        writer.start(200, None).unwrap();
        writer.field(b"Content-Type", b"text/html; charset=utf-8").unwrap();
        writer.field(b"Content-Length", b"13").unwrap();
        black_box(writer.finish(&stamp, b"Hello, World!"));
    });
    report("response, two fields, 13 bytes", cost, out.len());
}

fn bodies(limits: &Limits) {
    let mut out = Vec::with_capacity(1 << 20);
    for (size, what) in
        [(16 * 1024, "chunked, 64 KiB in chunks of 16 KiB"), (64, "chunked, 64 KiB in chunks of 64 bytes")]
    {
        let mut body = Vec::new();
        for _ in 0..64 * 1024 / size {
            body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
            body.resize(body.len() + size, b'x');
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        let cost = measure(|| {
            out.clear();
            let mut decoder = BodyDecoder::new(Framing::Chunked, limits);
            decoder.decode(black_box(&body), &mut out, usize::MAX).unwrap();
            assert!(decoder.is_done());
        });
        report(what, cost, body.len());
    }
    let boundary = b"----WebKitFormBoundary7MA4YWxkTrZu0gW";
    let mut body = Vec::new();
    for name in
        ["note\"\r\n\r\nhello", "file\"; filename=\"f\"\r\nContent-Type: application/octet-stream\r\n\r\n"]
    {
        body.extend_from_slice(b"--");
        body.extend_from_slice(boundary);
        body.extend_from_slice(format!("\r\nContent-Disposition: form-data; name=\"{name}").as_bytes());
        if name.starts_with("file") {
            // Binary data with line ends in it, as in compressed files.
            body.extend((0..1_u32 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 16) as u8));
        }
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(&[b"--", &boundary[..], b"--\r\n"].concat());
    let cost = measure(|| {
        let mut parser = Multipart::new(boundary, MultipartLimits::default()).unwrap();
        for mut piece in body.chunks(64 * 1024) {
            while let Some(event) = parser.next(&mut piece).unwrap() {
                if let Event::Data(data) = event {
                    black_box(data);
                }
            }
        }
        parser.finish().unwrap();
    });
    report("multipart, a field and a file of 1 MiB", cost, body.len());
}

fn frames() {
    use hipflask_http::websocket::{Decoder, Deflate, Encoder, Event, Kind, Limits, Role, message};
    let deflate = Deflate {
        server_takeover: false,
        client_takeover: false,
        server_window_bits: 15,
        client_window_bits: 15,
        level: 3,
        threshold: 128,
    };
    let words = "{\"id\": 17, \"name\": \"Ada\", \"text\": \"a message of the usual kind\"} ";
    for (size, agreed, what) in [
        (64, None, "64 bytes"),
        (4096, None, "4 KiB"),
        (1 << 20, None, "1 MiB"),
        (4096, Some(&deflate), "4 KiB, compressed"),
    ] {
        let text = &words.repeat(1 + size / words.len())[..size];
        let mut bytes = Vec::new();
        Encoder::client(agreed, 1).message(Kind::Text, text.as_bytes(), &mut bytes);
        let mut decoder = Decoder::new(Role::Server, Limits::default(), agreed);
        let cost = measure(|| {
            let event = decoder.next(&mut black_box(&bytes[..])).unwrap();
            assert!(matches!(event, Some(Event::Text(_))));
        });
        report(&format!("WebSocket, read a text of {what}"), cost, size);
        let mut encoder = Encoder::server(agreed);
        let cost = measure(|| {
            bytes.clear();
            encoder.message(Kind::Text, black_box(text.as_bytes()), &mut bytes);
        });
        report(&format!("WebSocket, write a text of {what}"), cost, size);
        if agreed.is_none() {
            let cost = measure(|| drop(black_box(message(Kind::Text, black_box(text.as_bytes())))));
            report("  in a new piece", cost, size);
        }
    }
}

fn values() {
    for (what, text) in [
        ("query, 3 plain pairs", "page=2&sort=date&q=flask".to_owned()),
        (
            "form, 4 pairs with escapes",
            "name=J%C3%B6rg+M%C3%BCller&city=K%C3%B6ln&a=1&note=hello+world%21".to_owned(),
        ),
        ("form, 5 MiB of %", "%".repeat(5 << 20)),
        ("form, 5 MiB of &a", "&a".repeat(5 << 19)),
    ] {
        let cost = measure(|| {
            for pair in query::parse_pairs(black_box(text.as_bytes())).unwrap() {
                black_box(pair);
            }
        });
        report(what, cost, text.len());
    }
    let text = "session=eyJ1c2VyX2lkIjoxfQ.ZxYzAA.0123456789abcdefghijklmnopq; theme=dark";
    report("cookies, two", measure(|| assert_eq!(cookie::parse(black_box(text)).count(), 2)), text.len());
    let text = "form-data; name=\"file\"; filename=\"report.pdf\"";
    let cost = measure(|| {
        black_box(field::parse_options(black_box(text)));
    });
    report("options, Content-Disposition", cost, text.len());
}
