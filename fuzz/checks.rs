//! What must hold for any bytes. Run by the fuzz targets, and on generated input by `cargo test`.

use hipflask_http::forwarded::{Believed, MOST_PROXIES, Node, Said};
use hipflask_http::multipart::{self, Multipart, MultipartLimits};
use hipflask_http::network::Networks;
use hipflask_http::proxy_protocol::{self, Header};
use hipflask_http::websocket::{
    self, Control, Decoder, Deflate, DeflatePolicy, Encoder, Event, Kind, Role, SharedMessage,
};
use hipflask_http::{
    BodyDecoder, Error, Framing, Limits, RequestHead, Underscores, cookie, field, query, trailer,
};

/// Small limits, so that short input meets them.
fn limits(small: bool) -> Limits {
    let underscores = Underscores::Keep;
    if small {
        Limits {
            request_line: 24,
            method: 5,
            head: 80,
            field: 20,
            fields: 3,
            body: 40,
            chunk_ext: 6,
            trailers: 20,
            trailer_fields: 2,
            underscores,
            ..Limits::default()
        }
    } else {
        Limits { underscores, ..Limits::default() }
    }
}

/// A head is read alike whole and byte by byte; what is accepted, another parser reads alike.
pub(crate) fn head(data: &[u8]) {
    for limits in [limits(false), limits(true)] {
        let mut whole = RequestHead::new();
        let result = whole.parse(data, &limits);
        let mut slow = RequestHead::new();
        let mut outcome = Ok(None);
        for length in 1..=data.len() {
            outcome = slow.parse(&data[..length], &limits);
            if outcome != Ok(None) {
                break;
            }
        }
        assert_eq!(result, outcome);
        if let Ok(Some(taken)) = result {
            assert!(taken <= data.len());
            assert_eq!(described(&whole), described(&slow));
            let mut fields = [httparse::EMPTY_HEADER; 101];
            let mut other = httparse::Request::new(&mut fields);
            let parsed = other.parse(data);
            if parsed == Err(httparse::Error::Version) {
                // It knows no minor version above 1 (RFC 9110 §2.5 has them read as the highest known).
                continue;
            }
            assert_eq!(parsed, Ok(httparse::Status::Complete(taken)));
            assert_eq!(other.method.map(str::as_bytes), Some(whole.method()));
            assert_eq!(other.path.map(str::as_bytes), Some(whole.target()));
            assert!(
                other.headers.iter().map(|field| (field.name.as_bytes(), field.value)).eq(whole.fields())
            );
        }
    }
}

fn described(head: &RequestHead) -> String {
    let fields: Vec<_> = head.fields().collect();
    format!(
        "{head:?} {:?} {:?} {:?} {:?} {:?} {fields:?} {} {} {} {}",
        head.path(),
        head.raw_path(),
        head.query(),
        head.host(),
        head.scheme(),
        head.keep_alive(),
        head.expects_continue(),
        head.is_upgrade(),
        head.is_websocket(),
    )
}

/// A chunked body is decoded alike whole, byte by byte, and with little room.
pub(crate) fn chunked(data: &[u8]) {
    for limits in [limits(false), limits(true)] {
        let whole = decode(data, &limits, usize::MAX, usize::MAX);
        for (size, most) in [(1, usize::MAX), (usize::MAX, 1), (3, 2)] {
            assert_eq!(whole, decode(data, &limits, size, most));
        }
        let (outcome, body, _) = whole;
        assert!(body.len() as u64 <= limits.body);
        assert!(outcome.is_ok_and(|taken| taken <= data.len()) || outcome.is_err());
    }
}

type Decoded = (Result<usize, Error>, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

fn decode(data: &[u8], limits: &Limits, size: usize, most: usize) -> Decoded {
    let mut decoder = BodyDecoder::new(Framing::Chunked, limits);
    let mut body = Vec::new();
    let mut taken = 0;
    for piece in data.chunks(size) {
        let mut rest = piece;
        loop {
            let before = body.len();
            match decoder.decode(rest, &mut body, most) {
                Ok(count) => {
                    taken += count;
                    rest = &rest[count..];
                    assert!(body.len() - before <= most);
                    if decoder.is_done() || rest.is_empty() {
                        break;
                    }
                    assert_eq!(body.len() - before, most, "stopped without a reason");
                }
                Err(error) => return (Err(error), body, Vec::new()),
            }
        }
        if decoder.is_done() {
            break;
        }
    }
    assert_eq!(decoder.finish().is_ok(), decoder.is_done());
    let trailers: Vec<_> = decoder.trailers().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    // What was let in may go out, and is the same for whoever reads it there.
    let mut end = Vec::new();
    trailer::write_end(&mut end, decoder.trailers());
    let mut response = BodyDecoder::of_response();
    assert_eq!(response.decode(&end, &mut Vec::new(), 0), Ok(end.len()));
    assert_eq!(response.take_trailers(), trailers);
    (Ok(taken), body, trailers)
}

/// A multipart body is split alike whole and in pieces of any size. The first byte chooses the boundary's length.
pub(crate) fn multipart(data: &[u8]) {
    let boundary = &b"b-b--bbbb"[..data.first().map_or(1, |byte| usize::from(byte % 9) + 1)];
    for limits in [
        MultipartLimits::default(),
        MultipartLimits { parts: Some(2), field: Some(5), part_head: 60 },
        MultipartLimits { parts: None, field: None, part_head: 1000 },
    ] {
        let whole = split(data, boundary, limits, usize::MAX);
        for size in [1, 2, 3, 7] {
            assert_eq!(whole, split(data, boundary, limits, size), "in pieces of {size}");
        }
    }
}

fn split(
    data: &[u8],
    boundary: &[u8],
    limits: MultipartLimits,
    size: usize,
) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut parser = Multipart::new(boundary, limits)?;
    let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
    let mut open = false;
    for mut piece in data.chunks(size) {
        while let Some(event) = parser.next(&mut piece)? {
            match event {
                multipart::Event::Part(part) => {
                    assert!(!open);
                    open = true;
                    parts.push((format!("{part:?}"), Vec::new()));
                }
                multipart::Event::Data(bytes) => {
                    assert!(open && !bytes.is_empty());
                    if let Some((_, data)) = parts.last_mut() {
                        data.extend_from_slice(bytes);
                    }
                }
                multipart::Event::PartEnd => {
                    assert!(open);
                    open = false;
                }
                multipart::Event::End => assert!(!open),
            }
        }
        assert!(piece.is_empty());
    }
    parser.finish()?;
    assert!(!open);
    Ok(parts)
}

/// Cookies come back as they were written.
pub(crate) fn cookies(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for (name, _) in cookie::parse(&text) {
        assert!(!name.is_empty() && !name.contains([';', '=']));
    }
    let mut out = Vec::new();
    cookie::dump(&mut out, "k", &text, &cookie::Attributes::default());
    let out = String::from_utf8(out).unwrap_or_default();
    let mut back = cookie::parse(&out);
    assert_eq!(back.next(), Some(("k", text.as_ref().into())));
    assert_eq!(back.next(), None);
}

/// Queries come back as they were written.
pub(crate) fn queries(data: &[u8]) {
    let _ = query::percent_decode(data);
    let text = String::from_utf8_lossy(data);
    if let Ok(pairs) = query::parse_pairs(data) {
        for (name, value) in pairs {
            assert!(!name.is_empty() || !value.is_empty() || data.contains(&b'='));
        }
    }
    for plus in [false, true] {
        assert_eq!(query::unquote(&query::quote(&text, b"/"), plus), text);
    }
    let written = format!("{}={}", query::quote(&text, b""), query::quote(&text, b""));
    let pairs: Vec<_> = query::parse_pairs(written.as_bytes()).into_iter().flatten().collect();
    assert_eq!(pairs, [(text.clone(), text.clone())]);
}

/// Values with parameters, lists and quoted strings come back as they were written.
pub(crate) fn options(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let options = field::parse_options(&text);
    for (name, _) in options.parameters() {
        assert!(!name.contains([' ', ';', '=', '"']));
    }
    let _ = field::parse_pairs(&text);
    let _ = field::parse_list(&text);
    // A backslash or %22 inside a value is read in more than one way, as in Werkzeug.
    if !text.contains('\\') && !text.contains("%22") {
        let written = field::dump_options("v", [("a", text.as_ref()), ("b", "c")]);
        let back = field::parse_options(&written);
        assert_eq!(
            (back.value.as_str(), back.parameter("a"), back.parameter("b")),
            ("v", Some(&*text), Some("c"))
        );
        assert_eq!(field::unquote(&field::quote(&text, false)), text);
    }
}

/// What was agreed on, from a byte: whether messages are compressed, and how.
fn deflate(choice: u8) -> Option<Deflate> {
    (choice & 1 != 0).then(|| Deflate {
        server_takeover: choice & 2 != 0,
        client_takeover: choice & 4 != 0,
        server_window_bits: 9 + (choice >> 3) % 7,
        client_window_bits: 9 + (choice >> 4) % 7,
        level: 1 + choice % 9,
        threshold: usize::from(choice & 8),
    })
}

type Frames = (Vec<Event>, Result<(), websocket::Error>);

fn frames(mut decoder: Decoder, data: &[u8], size: usize) -> Frames {
    let mut events = Vec::new();
    for mut piece in data.chunks(size) {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Err(error)),
            }
        }
        assert!(piece.is_empty());
    }
    (events, Ok(()))
}

/// Frames are read alike however they arrive, and nothing in them exceeds a limit. The first byte chooses the role and
/// what was agreed on.
pub(crate) fn frame(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let role = if choice & 0x80 == 0 { Role::Server } else { Role::Client };
    let deflate = deflate(choice);
    for message in [20, 1 << 16] {
        let decoder = || Decoder::new(role, websocket::Limits { message }, deflate.as_ref());
        let whole = frames(decoder(), data, usize::MAX);
        for size in [1, 2, 7] {
            assert_eq!(whole, frames(decoder(), data, size), "in pieces of {size}");
        }
        for event in &whole.0 {
            match event {
                Event::Text(text) => assert!(text.len() <= message),
                Event::Binary(bytes) => assert!(bytes.len() <= message),
                Event::Ping(bytes) | Event::Pong(bytes) => assert!(bytes.len() <= websocket::CONTROL),
                Event::Close(close) => assert!(close.reason.len() <= 123),
            }
        }
    }
}

/// Messages come back as they were written, in whatever frames, compressed or not. The first bytes choose how.
pub(crate) fn messages(data: &[u8]) {
    let [choice, size, count, data @ ..] = data else { return };
    let deflate = deflate(*choice);
    let (mut encoder, role) = match choice & 0x80 {
        0 => (Encoder::client(deflate.as_ref(), u64::from(*count)), Role::Server),
        _ => (Encoder::server(deflate.as_ref()), Role::Client),
    };
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for (at, part) in data.chunks(data.len() / (usize::from(*count % 4) + 1) + 1).enumerate() {
        let text = String::from_utf8_lossy(part);
        if at % 2 == 0 {
            encoder.message(Kind::Text, text.as_bytes(), &mut bytes);
        } else {
            encoder.fragmented(Kind::Text, text.as_bytes(), usize::from(*size), &mut bytes);
        }
        expected.push(Event::Text(text.into_owned()));
        encoder.fragmented(Kind::Binary, part, usize::from(*size) + 1, &mut bytes);
        expected.push(Event::Binary(part.to_vec()));
        if role == Role::Client {
            let shared: SharedMessage<Vec<u8>> =
                SharedMessage::new(Kind::Binary, part.to_vec(), &DeflatePolicy::default());
            bytes.extend_from_slice(&encoder.shared(&shared));
            expected.push(Event::Binary(part.to_vec()));
        }
        if encoder.control(Control::Ping, part, &mut bytes).is_ok() {
            expected.push(Event::Ping(part.to_vec()));
        }
    }
    encoder.close(Some(1000), "", &mut bytes);
    expected.push(Event::Close(websocket::Close { code: Some(1000), reason: String::new() }));
    let decoder = || Decoder::new(role, websocket::Limits::default(), deflate.as_ref());
    for piece in [usize::MAX, 1, usize::from(*size) + 1] {
        assert_eq!(frames(decoder(), &bytes, piece), (expected.clone(), Ok(())));
    }
}

/// A handshake is judged without a panic, and its answer holds nothing that would end a field.
pub(crate) fn handshake(data: &[u8]) {
    let text = |name: &str| {
        let start = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{name}"
        );
        [start.as_bytes(), data, b"\r\n\r\n"].concat()
    };
    let names = [
        "",
        "Sec-WebSocket-Extensions: ",
        "Sec-WebSocket-Protocol: ",
        "Sec-WebSocket-Extensions: \
        permessage-deflate; ",
    ];
    for bytes in names.iter().map(|name| text(name)).chain([data.to_vec()]) {
        let mut head = RequestHead::new();
        if !matches!(head.parse(&bytes, &Limits::default()), Ok(Some(_))) {
            continue;
        }
        for policy in [None, Some(DeflatePolicy::default())] {
            let Ok(handshake) = websocket::accept(&head, policy.as_ref()) else { continue };
            for protocol in &handshake.protocols {
                assert_eq!(handshake.choose([protocol.as_str()]), Some(protocol.as_str()));
            }
            assert!(handshake.deflate.is_none() || policy.is_some());
            for (_, value) in handshake.fields(handshake.protocols.first().map(String::as_str)) {
                assert!(value.bytes().all(|byte| (b' '..127).contains(&byte)), "{value:?}");
            }
        }
    }
}

/// What a client puts in front of what a proxy writes changes nothing, or is refused; the first byte chooses the field.
pub(crate) fn forwarded(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let Ok(trusted) = Networks::parse(["10.0.0.0/8"]) else { return };
    let (name, written, believed) = match choice % 6 {
        0 => ("Forwarded", "for=192.0.2.1;proto=https", "forwarded"),
        1 => ("X-Forwarded-For", "192.0.2.1", "x-forwarded-for"),
        2 => ("X-Forwarded-Proto", "https", "x-forwarded-proto"),
        3 => ("X-Forwarded-Host", "a.test", "x-forwarded-host"),
        4 => ("X-Forwarded-Port", "81", "x-forwarded-port"),
        _ => ("X-Forwarded-Prefix", "/a", "x-forwarded-prefix"),
    };
    let Some(believed) = Believed::parse([believed]) else { return };
    let read = |value: &[u8]| {
        let start = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: ");
        let mut head = RequestHead::new();
        match head.parse(&[start.as_bytes(), value, b"\r\n\r\n"].concat(), &limits(false)) {
            Ok(Some(_)) => Some(Said::of(&head, believed, &trusted)),
            _ => None,
        }
    };
    let alone = read(written.as_bytes());
    assert!(matches!(alone, Some(Ok(_))));
    if let Some(Ok(said)) = read(&[data, b", ", written.as_bytes()].concat())
        && !data.contains(&b'\n')
    {
        assert_eq!(Some(Ok(said)), alone);
    }
    if let Some(Ok(said)) = read(data) {
        assert!(said.route.len() <= MOST_PROXIES);
        for node in said.route.iter().skip(1) {
            assert!(matches!(node, Node::Ip(address, _) if trusted.contains(*address)));
        }
        let prefix = said.prefix.unwrap_or_default();
        assert!(prefix.is_empty() || (prefix.starts_with('/') && !prefix.starts_with("//")));
        assert!(!prefix.ends_with('/') || prefix.contains('%') || data.contains(&b'%'));
        assert!(!prefix.contains(char::is_control));
        assert!(!said.host.unwrap_or_default().iter().any(|byte| b"/?#@\\ \r\n".contains(byte)));
    }
}

/// A PROXY header is read alike whole and byte by byte, and takes no byte of what follows it.
pub(crate) fn proxy_protocol(data: &[u8]) {
    let result = proxy_protocol::parse(data);
    let mut outcome = Ok(None);
    for length in 0..=data.len() {
        outcome = proxy_protocol::parse(&data[..length]);
        if outcome != Ok(None) {
            break;
        }
    }
    assert_eq!(result.is_ok(), outcome.is_ok());
    if let Ok(Some(Header { length, .. })) = result {
        assert_eq!(result, outcome);
        assert!(length <= data.len() && length <= proxy_protocol::MOST_V2);
        assert_eq!(proxy_protocol::parse(&data[..length]), result);
    }
}
