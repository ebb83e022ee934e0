//! An application for tests, with a lock in the interpreter's place, and a client that reads bytes.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hipflask_http::RequestHead;
use hipflask_server::{
    Address, Answered, Bind, BodyError, BodySource, Config, ConnInfo, Deferred, Handler, Notice, Refusal,
    Reply, Request, RouteHistory, Routed, Running, Server, Slow, Times,
};

/// Something that threads wait for.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        self.0.0.lock().unwrap().0 = true;
        self.0.1.notify_all();
    }

    /// Blocks until the gate is open.
    pub fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.1 += 1;
        self.0.1.notify_all();
        while !state.0 {
            state = self.0.1.wait(state).unwrap();
        }
    }

    /// Blocks until so many have come to the gate.
    pub fn reached(&self, count: usize) {
        let mut state = self.0.0.lock().unwrap();
        while state.1 < count {
            let (next, late) = self.0.1.wait_timeout(state, Duration::from_secs(20)).unwrap();
            assert!(!late.timed_out(), "only {} of {count} came to the gate", next.1);
            state = next;
        }
    }
}

/// Stands for the GIL: one holder, and whoever asks waits.
#[derive(Default)]
pub struct Interpreter(Mutex<bool>, Condvar);

impl Interpreter {
    pub fn take(&self) {
        let mut held = self.0.lock().unwrap();
        while *held {
            held = self.1.wait(held).unwrap();
        }
        *held = true;
    }

    pub fn give(&self) {
        *self.0.lock().unwrap() = false;
        self.1.notify_one();
    }
}

/// What a view sees.
pub struct View<'a, 'r> {
    pub app: &'a App,
    pub request: Request<Arc<Route>>,
    pub reply: &'a mut Reply<'r>,
}

impl View<'_, '_> {
    /// Runs something with the interpreter given back, as a blocking call of Python does.
    pub fn detached<R>(&mut self, run: impl FnOnce(&mut Request<Arc<Route>>) -> R) -> R {
        self.app.interpreter.give();
        let result = run(&mut self.request);
        self.app.interpreter.take();
        result
    }

    pub fn text(&mut self, text: &str) {
        self.reply.start(200, None);
        self.reply.body(text.as_bytes());
    }

    /// The whole body, read from wherever it is.
    pub fn body(&mut self) -> Result<Vec<u8>, BodyError> {
        use hipflask_server::Body;
        match std::mem::replace(&mut self.request.body, Body::Empty) {
            Body::Empty => Ok(Vec::new()),
            Body::Buffered(bytes) => Ok(bytes),
            Body::Trailed(whole) => Ok(whole.0),
            Body::Stream(mut stream) => self.detached(|_| {
                let (mut all, mut piece) = (Vec::new(), [0; 10_000]);
                loop {
                    match stream.read(&mut piece)? {
                        0 => return Ok(all),
                        count => all.extend_from_slice(&piece[..count]),
                    }
                }
            }),
        }
    }
}

type Later = Box<dyn Fn(Request<Arc<Route>>, Deferred) + Send + Sync>;
type Run = Box<dyn Fn(&mut View<'_, '_>) + Send + Sync>;

pub struct Route {
    pub history: Arc<RouteHistory>,
    pub max_body: Option<u64>,
    run: Run,
    later: Option<Later>,
}

/// What is told of an answer.
#[derive(Clone, Debug)]
pub struct Told {
    pub request: String,
    pub route: Option<String>,
    pub status: u16,
    pub sent: u64,
    pub sent_body: u64,
    pub received: u64,
    pub complete: bool,
    pub times: Times,
    pub request_id: Option<String>,
    pub trace_id: Option<String>,
    pub fields: Vec<Option<String>>,
}

#[derive(Default)]
pub struct App {
    routes: HashMap<Vec<u8>, Arc<Route>>,
    files: HashMap<Vec<u8>, Arc<hipflask_server::Root>>,
    pub interpreter: Interpreter,
    pub refusals: Mutex<Vec<Refusal>>,
    pub notices: Mutex<Vec<Notice>>,
    pub answers: Mutex<Vec<(String, u16, u64)>>,
    pub told: Mutex<Vec<Told>>,
    pub gone: Mutex<Vec<u64>>,
    pub slow: Mutex<Vec<Slow>>,
}

impl App {
    pub fn route(
        self,
        path: &str,
        inline: Option<bool>,
        run: impl Fn(&mut View<'_, '_>) + Send + Sync + 'static,
    ) -> App {
        self.route_as(path, RouteHistory::new(inline).named(path), run)
    }

    /// A route whose requests may take so long.
    pub fn timed(
        self,
        path: &str,
        inline: Option<bool>,
        timeout: Duration,
        run: impl Fn(&mut View<'_, '_>) + Send + Sync + 'static,
    ) -> App {
        self.route_as(path, RouteHistory::new(inline).named(path).within(timeout), run)
    }

    fn route_as(
        mut self,
        path: &str,
        history: RouteHistory,
        run: impl Fn(&mut View<'_, '_>) + Send + Sync + 'static,
    ) -> App {
        let history = Arc::new(history);
        let route = Route { history, max_body: None, run: Box::new(run), later: None };
        self.routes.insert(path.as_bytes().to_vec(), Arc::new(route));
        self
    }

    /// A route whose requests are deferred; the view is for those that cannot be.
    pub fn later(
        mut self,
        path: &str,
        run: impl Fn(&mut View<'_, '_>) + Send + Sync + 'static,
        later: impl Fn(Request<Arc<Route>>, Deferred) + Send + Sync + 'static,
    ) -> App {
        let history = Arc::new(RouteHistory::later().named(path));
        let route = Route { history, max_body: None, run: Box::new(run), later: Some(Box::new(later)) };
        self.routes.insert(path.as_bytes().to_vec(), Arc::new(route));
        self
    }

    pub fn files(mut self, prefix: &str, root: Arc<hipflask_server::Root>) -> App {
        self.files.insert(prefix.as_bytes().to_vec(), root);
        self
    }

    pub fn lane(&self, path: &str) -> hipflask_server::Lane {
        self.routes[path.as_bytes()].history.lane()
    }

    pub fn reasons(&self) -> Vec<&'static str> {
        self.refusals.lock().unwrap().iter().map(|refusal| refusal.reason).collect()
    }

    /// Serves with these settings on a free port.
    pub fn serve(self, config: Config) -> Live {
        let app = Arc::new(self);
        let binds = vec![Bind::Tcp("127.0.0.1:0".parse().unwrap())];
        let bound = Server::bind(Config { binds, ..config }).unwrap();
        let Address::Tcp(address) = bound.local_addrs()[0].clone() else { panic!("not TCP") };
        let running = bound.run(Arc::clone(&app)).unwrap();
        Live { app, address, running }
    }
}

impl Handler for App {
    type Ticket = Arc<Route>;
    type Thread = ();

    fn start_thread(&self) {
        self.interpreter.take();
        self.interpreter.give();
    }

    fn stop_thread(&self, (): ()) {}

    fn attach(&self, (): &mut ()) {
        self.interpreter.take();
    }

    fn detach(&self, (): &mut ()) {
        self.interpreter.give();
    }

    fn route(&self, head: &RequestHead, _: &ConnInfo) -> Routed<Arc<Route>> {
        let path = head.path();
        if path.as_ref() == b"/route-panics" {
            panic!("expected by this test");
        }
        if let Some(route) = self.routes.get(path.as_ref()) {
            let (ticket, history) = (Arc::clone(route), Arc::clone(&route.history));
            return Routed::Call { ticket, history, max_body: route.max_body };
        }
        for (prefix, root) in &self.files {
            if let Some(file) = path.strip_prefix(prefix.as_slice()).and_then(|rest| root.find(rest)) {
                return Routed::File(file);
            }
        }
        Routed::Answer(Box::new(|reply| {
            reply.start(404, None);
            reply.body(b"no such page");
        }))
    }

    fn call(&self, (): &mut (), request: Request<Arc<Route>>, reply: &mut Reply<'_>) {
        let route = Arc::clone(&request.ticket);
        (route.run)(&mut View { app: self, request, reply });
    }

    fn defer(&self, request: Request<Arc<Route>>, deferred: Deferred) {
        let route = Arc::clone(&request.ticket);
        if let Some(later) = &route.later {
            later(request, deferred);
        }
    }

    fn gone(&self, token: u64) {
        self.gone.lock().unwrap().push(token);
    }

    fn refused(&self, refusal: &Refusal, _: &ConnInfo) {
        self.refusals.lock().unwrap().push(*refusal);
    }

    fn slow(&self, slow: &Slow) {
        self.slow.lock().unwrap().push(slow.clone());
    }

    fn answered(&self, answered: &Answered<'_>) {
        let request = [answered.method, b" ", answered.target].concat();
        let request = String::from_utf8_lossy(&request).into_owned();
        self.answers.lock().unwrap().push((request.clone(), answered.status, answered.sent));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.told.lock().unwrap().push(Told {
            request,
            route: answered.route.map(str::to_owned),
            status: answered.status,
            sent: answered.sent,
            sent_body: answered.sent_body,
            received: answered.received,
            complete: answered.complete,
            times: answered.times,
            request_id: answered.request_id.map(str::to_owned),
            trace_id: answered.trace_id.map(|trace| trace.to_string()),
            fields: (0..2).map(|at| answered.field(at).map(text)).collect(),
        });
    }

    fn notice(&self, notice: &Notice) {
        self.notices.lock().unwrap().push(notice.clone());
    }
}

pub struct Live {
    pub app: Arc<App>,
    pub address: SocketAddr,
    pub running: Running<App>,
}

impl Live {
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn get(&self, path: &str) -> Response {
        self.client().get(path)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.running.stop(Some(Duration::ZERO));
        if !std::thread::panicking() {
            assert!(self.running.wait_timeout(Duration::from_secs(10)), "threads that do not end");
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub struct Client<S = TcpStream> {
    pub stream: S,
    pub seen: Vec<u8>,
    pub reset: bool,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, seen: Vec::new(), reset: false }
    }
}

impl<S: Read + Write> Client<S> {
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.response()
    }

    pub fn post(&mut self, path: &str, body: &[u8]) -> Response {
        self.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
        self.send(body);
        self.response()
    }

    fn more(&mut self) -> usize {
        let mut piece = [0; 65_536];
        let count = self.stream.read(&mut piece).expect("the server answers");
        self.seen.extend_from_slice(&piece[..count]);
        count
    }

    pub fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.seen.windows(end.len()).position(|window| window == end) {
                return self.seen.drain(..at + end.len()).collect();
            }
            assert!(self.more() > 0, "closed after {:?}", String::from_utf8_lossy(&self.seen));
        }
    }

    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.seen.len() < count {
            assert!(self.more() > 0, "closed {} bytes too early", count - self.seen.len());
        }
        self.seen.drain(..count).collect()
    }

    pub fn head(&mut self) -> Response {
        let head = String::from_utf8(self.until(b"\r\n\r\n")).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let fields = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Response { status, fields, body: Vec::new() }
    }

    /// One whole response.
    pub fn response(&mut self) -> Response {
        let mut response = self.head();
        if let Some(length) = response.field("Content-Length") {
            let length = length.parse().unwrap();
            response.body = self.exactly(length);
        } else if response.field("Transfer-Encoding") == Some("chunked") {
            loop {
                let size = String::from_utf8(self.until(b"\r\n")).unwrap();
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                let piece = self.exactly(size);
                assert_eq!(self.exactly(2), b"\r\n");
                response.body.extend(piece);
                if size == 0 {
                    break;
                }
            }
        }
        response
    }

    /// Whether the server has closed the connection, with nothing more to read.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(count) => count == 0 && self.seen.is_empty(),
            Err(error) => {
                self.reset = error.kind() == std::io::ErrorKind::ConnectionReset;
                false
            }
        }
    }

    /// Whether the last look found a connection that was reset.
    pub fn was_reset(&self) -> bool {
        self.reset && self.seen.is_empty()
    }
}

/// A stream made of a function.
pub struct Source<F>(pub F);

impl<F: FnMut(&mut Vec<u8>) -> Result<bool, BodyError> + Send> BodySource for Source<F> {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, BodyError> {
        (self.0)(out)
    }
}
