//! What must hold for any frames that reach the server by HTTP/2. Run by the fuzz target, and on generated input by
//! `cargo test`.
//!
//! The server is the real one, on a Unix socket: its reactor, its threads and `h2` below it. Input is a list of steps
//! (see [`Script`]), so that most frames are in order and reach what lies behind the first checks. The client here trusts
//! nothing: it counts answers and windows itself.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hipflask_http::RequestHead;
use hipflask_server::{
    Bind, Body, BodyError, BodySource, Config, ConnInfo, Deferred, Handler, Refusal, Reply, Request,
    RouteHistory, Routed, Running, Server,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// What the client asks at the end, to know that all before has been read.
const LAST_WORD: &[u8; 8] = b"finished";
/// The server must do something in this time; it is hung otherwise.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is sent at most: more needs an answer to go on, which nobody reads meanwhile.
const MOST: usize = 64 * 1024;
/// The body of `/big`: more than the windows that a client has at first.
const BIG: usize = 100_000;

/// Sends what the input says, and judges what comes back.
pub(crate) fn streams(data: &[u8]) {
    static SERVER: OnceLock<Served> = OnceLock::new();
    let served = SERVER.get_or_init(Served::new);
    let mut script = Script::of(data);
    script.end();
    let mut socket = UnixStream::connect(&served.path).expect("the server listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    socket.set_write_timeout(Some(PATIENCE)).expect("a time");
    let mut client = Client::new(&script);
    // The server may have closed already; what it said before is read anyhow.
    let _ = socket.write_all(&script.bytes);
    if script.in_order {
        client.read(&mut socket, true);
    }
    let _ = socket.shutdown(std::net::Shutdown::Write);
    client.read(&mut socket, false);
    client.judge();
}

/// The input as bytes for the server.
///
/// A step is three bytes, its kind and two that say more, and for some kinds what follows as they say. Streams are named
/// by a byte: 0 is a new one, others count back from the newest.
struct Script {
    bytes: Vec<u8>,
    newest: u32,
    /// Frames have the lengths that they say, so that a question at the end is understood as one.
    in_order: bool,
    /// The stream whose header block is under way.
    block: Option<u32>,
    /// What the server may send: the largest first window, and what was added to the connection's and to each stream's.
    first_window: u64,
    connection: u64,
    added: HashMap<u32, u64>,
    largest_frame: usize,
    /// Requests that ask for an interim response.
    expects: bool,
}

impl Script {
    fn of(data: &[u8]) -> Script {
        let mut script = Script {
            bytes: PREFACE.to_vec(),
            newest: 0,
            in_order: true,
            block: None,
            first_window: 65_535,
            connection: 65_535,
            added: HashMap::new(),
            largest_frame: 16_384,
            expects: false,
        };
        script.frame(SETTINGS, 0, 0, &[]);
        let mut rest = data;
        while let [kind, one, two, behind @ ..] = rest {
            rest = script.step(*kind, *one, *two, behind);
            if script.bytes.len() > MOST {
                break;
            }
        }
        script
    }

    /// Ends what is under way, and asks a last question.
    fn end(&mut self) {
        if let Some(stream) = self.block.take() {
            self.frame(CONTINUATION, END_HEADERS, stream, &[]);
        }
        self.frame(PING, 0, 0, LAST_WORD);
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        self.bytes.extend_from_slice(&[kind, flags]);
        self.bytes.extend_from_slice(&stream.to_be_bytes());
        self.bytes.extend_from_slice(payload);
    }

    fn stream(&self, name: u8) -> u32 {
        self.newest.saturating_sub(u32::from(name % 8) * 2)
    }

    fn step<'a>(&mut self, kind: u8, one: u8, two: u8, behind: &'a [u8]) -> &'a [u8] {
        let (payload, rest) = behind.split_at(behind.len().min(usize::from(two)));
        match kind % 14 {
            0 | 1 => {
                self.request(one, two);
                return behind;
            }
            2 => {
                let stream = self.stream(one);
                self.frame(DATA, one >> 7, stream, payload);
                return rest;
            }
            3 => {
                // Much of a body at once.
                let stream = self.stream(one);
                self.frame(DATA, one >> 7, stream, &vec![b'x'; usize::from(two) * 64]);
            }
            4 => {
                let amount = u32::from(two) << (one >> 3 & 31).min(23) | u32::from(one & 1);
                let stream = if one & 2 == 0 { 0 } else { self.stream(one >> 5) };
                self.window(stream, amount);
            }
            5 => {
                let settings: Vec<[u8; 6]> = payload.chunks_exact(3).map(setting).collect();
                for [_, name, value @ ..] in &settings {
                    let value = u32::from_be_bytes(*value);
                    match name {
                        4 => self.first_window = self.first_window.max(value.into()),
                        5 => self.largest_frame = self.largest_frame.max(value as usize),
                        _ => {}
                    }
                }
                self.frame(SETTINGS, 0, 0, &settings.concat());
                return rest;
            }
            6 => self.frame(SETTINGS, ACK, 0, &[]),
            7 => {
                let stream = self.stream(one);
                self.frame(RST_STREAM, 0, stream, &u32::from(two).to_be_bytes());
            }
            8 => self.frame(PING, one & ACK, 0, &[one, two, 0, 0, 0, 0, 0, 0]),
            9 => {
                let stream = self.stream(one);
                self.frame(PRIORITY, 0, stream, &[0, 0, 0, one, two]);
            }
            10 => {
                // Any header block, which may go on.
                let new = one & 0x10 == 0;
                self.newest += if new { 1 + self.newest % 2 } else { 0 };
                let stream = self.block.unwrap_or(self.stream(if new { 0 } else { one }));
                let ends = one & END_HEADERS;
                let kind = if self.block.is_some() && one & 0x20 == 0 { CONTINUATION } else { HEADERS };
                self.frame(kind, ends | one >> 7, stream, payload);
                self.block = (ends == 0).then_some(stream);
                return rest;
            }
            11 => self.frame(GOAWAY, 0, 0, &[0, 0, 0, one, 0, 0, 0, two]),
            12 => {
                // Any frame.
                let [frame, flags, payload @ ..] = payload else { return rest };
                let stream = if one & 1 == 0 { u32::from(one >> 1) } else { self.stream(one >> 1) };
                self.in_order &= *frame > CONTINUATION;
                self.allow(*frame, stream, payload);
                self.frame(*frame, *flags, stream, payload);
                return rest;
            }
            _ => {
                // Anything.
                self.in_order = false;
                self.first_window = u64::MAX / 4;
                self.connection = u64::MAX / 4;
                self.largest_frame = 1 << 24;
                self.expects = true;
                self.bytes.extend_from_slice(payload);
                return rest;
            }
        }
        behind
    }

    fn window(&mut self, stream: u32, amount: u32) {
        self.allow(WINDOW_UPDATE, stream, &amount.to_be_bytes());
        self.frame(WINDOW_UPDATE, 0, stream, &amount.to_be_bytes());
    }

    /// Notes what a frame allows the server to send; rather too much than too little.
    fn allow(&mut self, frame: u8, stream: u32, payload: &[u8]) {
        match (frame, payload) {
            (WINDOW_UPDATE, [a, b, c, d, ..]) => {
                let amount = u64::from(u32::from_be_bytes([*a & 0x7f, *b, *c, *d]));
                match stream {
                    0 => self.connection += amount,
                    _ => *self.added.entry(stream).or_default() += amount,
                }
            }
            (SETTINGS, _) => {
                self.first_window = u32::MAX.into();
                self.largest_frame = 1 << 24;
            }
            (HEADERS | CONTINUATION, _) => self.expects = true,
            _ => {}
        }
    }

    /// A request in order. The first byte chooses method, path and whether it ends; the second what else it has.
    fn request(&mut self, one: u8, two: u8) {
        if let Some(stream) = self.block.take() {
            self.frame(CONTINUATION, END_HEADERS, stream, &[]);
        }
        self.newest += 1 + self.newest % 2;
        let stream = self.newest;
        let path = ["/", "/worker", "/echo", "/big", "/pieces", "/later", "/none", "/close"];
        let path = path[usize::from(one % 8)];
        // Indexed `:scheme http`, literal `:path`, `:authority`.
        let mut block = vec![0x86, 0x04, path.len() as u8];
        block.extend_from_slice(path.as_bytes());
        block.extend_from_slice(b"\x01\x01a");
        match one >> 3 & 7 {
            0..3 => block.push(0x82),
            3..5 => block.push(0x83),
            5 => block.extend_from_slice(b"\x02\x04HEAD"),
            6 => block.extend_from_slice(b"\x02\x07OPTIONS"),
            _ => block.extend_from_slice(b"\x02\x07CONNECT\x00\x09:protocol\x09websocket"),
        }
        if two & 1 != 0 {
            self.expects = true;
            block.extend_from_slice(b"\x00\x06expect\x0c100-continue");
        }
        if two & 2 != 0 {
            let length = two >> 4;
            block.extend_from_slice(&[0x0f, 0x0d, 1, b'0' + length % 10]);
        }
        if two & 4 != 0 {
            block.extend_from_slice(b"\x40\x06cookie\x03a=b");
        }
        if two & 8 != 0 {
            block.extend_from_slice(&[0xbe]);
        }
        self.frame(HEADERS, END_HEADERS | one >> 7, stream, &block);
    }
}

/// A setting of three bytes: its name, and a value as mantissa and exponent.
fn setting(bytes: &[u8]) -> [u8; 6] {
    let [name, shift, value] = [bytes[0] % 10, bytes[1] % 25, bytes[2]];
    let [a, b, c, d] = (u32::from(value) << shift).to_be_bytes();
    [0, name, a, b, c, d]
}

/// What has come on a stream.
#[derive(Default)]
struct Answer {
    heads: u32,
    data: u64,
    has_data: bool,
    ended: bool,
    reset: bool,
}

/// Counts what the server sends.
struct Client<'a> {
    script: &'a Script,
    unread: Vec<u8>,
    answers: HashMap<u32, Answer>,
    data: u64,
    first: bool,
    gone: bool,
}

impl<'a> Client<'a> {
    fn new(script: &'a Script) -> Client<'a> {
        Client { script, unread: Vec::new(), answers: HashMap::new(), data: 0, first: true, gone: false }
    }

    /// Reads to the end, or to the answer to the last word.
    fn read(&mut self, socket: &mut UnixStream, until_answer: bool) {
        let mut piece = [0; 16_384];
        loop {
            while let Some(frame) = self.take() {
                if self.frame(&frame) && until_answer {
                    return;
                }
            }
            if self.gone && until_answer {
                return;
            }
            match socket.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => self.unread.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer: hung"),
                Err(_) => break,
            }
        }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let [a, b, c, ..] = self.unread[..] else { return None };
        let length = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        assert!(length <= 9 + self.script.largest_frame, "a frame of {length}");
        (self.unread.len() >= length).then(|| self.unread.drain(..length).collect())
    }

    /// Whether it is the answer to the last word.
    fn frame(&mut self, frame: &[u8]) -> bool {
        let [_, _, _, kind, flags, a, b, c, d, payload @ ..] = frame else { return false };
        let stream = u32::from_be_bytes([*a, *b, *c, *d]);
        assert!(!self.first || *kind == SETTINGS || *kind == GOAWAY, "begins with {kind}");
        self.first = false;
        let is_first_frame_of_answer = matches!(*kind, DATA | HEADERS);
        if is_first_frame_of_answer {
            assert!(stream % 2 == 1, "an answer on stream {stream}");
            let answer = self.answers.entry(stream).or_default();
            assert!(!answer.ended && !answer.reset, "frame {kind} behind the end of stream {stream}");
            let ends = flags & END_STREAM != 0;
            if *kind == HEADERS {
                assert!(!answer.has_data || ends, "a second answer on stream {stream}");
                answer.heads += u32::from(!ends || !answer.has_data);
                assert!(
                    answer.heads <= 1 + u32::from(self.script.expects),
                    "stream {stream}: answered twice"
                );
            } else {
                assert!(answer.heads > 0, "a body without a head on stream {stream}");
                answer.has_data = true;
                answer.data += payload.len() as u64;
                self.data += payload.len() as u64;
            }
            answer.ended = ends;
        }
        match *kind {
            RST_STREAM => self.answers.entry(stream).or_default().reset = true,
            GOAWAY => self.gone = true,
            PING => return flags & ACK != 0 && payload == LAST_WORD,
            _ => {}
        }
        false
    }

    /// Nothing was sent for which there was no window.
    fn judge(&self) {
        assert!(self.data <= self.script.connection, "{} bytes on the connection", self.data);
        for (stream, answer) in &self.answers {
            let added = self.script.added.get(stream).copied().unwrap_or_default();
            let most = self.script.first_window + added;
            assert!(answer.data <= most, "{} bytes on stream {stream}, {most} allowed", answer.data);
        }
    }
}

/// The server, which lives as long as the process.
struct Served {
    path: std::path::PathBuf,
    _running: Running<App>,
}

impl Served {
    fn new() -> Served {
        let path = std::env::temp_dir().join(format!("hipflask-fuzz-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let listener: OwnedFd = listener.as_fd().try_clone_to_owned().expect("a descriptor");
        let config = Config {
            binds: vec![Bind::Listener(listener)],
            threads: 4,
            http2_streams: 20,
            buffer_body: 1024,
            ..Config::default()
        };
        let bound = Server::bind(config).expect("it binds");
        let running = bound.run(Arc::new(App::new())).expect("it runs");
        Served { path, _running: running }
    }
}

/// An application with a view for each way to answer.
struct App {
    inline: Arc<RouteHistory>,
    worker: Arc<RouteHistory>,
    later: Arc<RouteHistory>,
}

impl App {
    fn new() -> App {
        App {
            inline: Arc::new(RouteHistory::new(Some(true))),
            worker: Arc::new(RouteHistory::new(Some(false))),
            later: Arc::new(RouteHistory::later()),
        }
    }
}

/// A body in a hundred pieces.
struct Pieces(u32);

impl BodySource for Pieces {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, BodyError> {
        out.extend_from_slice(&[b'p'; 100]);
        self.0 -= 1;
        Ok(self.0 > 0)
    }

    fn trailers(&mut self) -> Result<hipflask_http::Trailers, BodyError> {
        Ok(vec![(b"x-end".to_vec(), b"1".to_vec())])
    }
}

/// The whole body; nothing if it breaks off.
fn body(body: Body) -> Vec<u8> {
    match body {
        Body::Empty => Vec::new(),
        Body::Buffered(bytes) => bytes,
        Body::Trailed(whole) => whole.0,
        Body::Stream(mut stream) => {
            let (mut all, mut piece) = (Vec::new(), [0; 1000]);
            while let Ok(count @ 1..) = stream.read(&mut piece) {
                all.extend_from_slice(&piece[..count]);
            }
            all
        }
    }
}

impl Handler for App {
    type Ticket = String;
    type Thread = ();

    fn start_thread(&self) {}
    fn stop_thread(&self, (): ()) {}
    fn attach(&self, (): &mut ()) {}
    fn detach(&self, (): &mut ()) {}

    fn route(&self, head: &RequestHead, _: &ConnInfo) -> Routed<String> {
        let ticket = String::from_utf8_lossy(&head.path()).into_owned();
        let history = match ticket.as_str() {
            "/" | "/big" | "/close" => &self.inline,
            "/worker" | "/echo" | "/pieces" => &self.worker,
            "/later" => &self.later,
            _ => {
                return Routed::Answer(Box::new(|reply| {
                    reply.start(404, None);
                    reply.body(b"nothing");
                }));
            }
        };
        Routed::Call { ticket, history: Arc::clone(history), max_body: None }
    }

    fn call(&self, (): &mut (), request: Request<String>, reply: &mut Reply<'_>) {
        reply.start(200, None);
        match request.ticket.as_str() {
            "/big" => reply.body(&[b'b'; BIG]),
            "/echo" => reply.body(&body(request.body)),
            "/pieces" => {
                reply.trail();
                reply.stream(Box::new(Pieces(100)), None);
            }
            "/close" => {
                reply.close();
                reply.body(b"bye");
            }
            path => reply.body(path.as_bytes()),
        }
    }

    fn defer(&self, request: Request<String>, mut deferred: Deferred) {
        let path = request.ticket;
        let _ = deferred.write(|reply| {
            reply.start(200, None);
            reply.body(path.as_bytes());
            Ok::<(), ()>(())
        });
        deferred.send();
    }

    fn refused(&self, _: &Refusal, _: &ConnInfo) {}
}
