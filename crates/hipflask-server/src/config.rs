//! What can be set, with defaults and their reasons.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hipflask_http::Limits;
use hipflask_http::forwarded::Believed;
use hipflask_http::network::Networks;

use crate::crew::Crew;
use crate::exposed::Files;
use crate::metrics::Stats;
use crate::request_id::RequestId;
use crate::tls::Tls;

/// Where to listen.
#[derive(Debug)]
pub enum Bind {
    /// A TCP address; port 0 takes any free one.
    Tcp(SocketAddr),
    /// A Unix socket at this path. A dead socket that lies there is replaced, a living one is not.
    Unix(PathBuf),
    /// A listening socket made elsewhere: inherited, or activated by systemd.
    Listener(OwnedFd),
}

/// Which connections begin with a PROXY header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None.
    #[default]
    Off,
    /// All of them; those from other addresses than may send one are closed.
    On,
    /// Those from addresses that may send one. The others begin at once.
    Mixed,
}

/// Where a proxy has mounted an application, and what it takes off the path: begins with a slash and ends without, or is
/// empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootPath(String);

impl RootPath {
    /// Takes slashes off the end; `None` if it is no path.
    pub fn new(text: &str) -> Option<RootPath> {
        let root = text.trim_end_matches('/');
        let is_path = text.starts_with('/') && !root.starts_with("//");
        let is_plain = !root.chars().any(|char| char.is_control() || matches!(char, '?' | '#' | '\\'));
        (is_path && is_plain).then(|| RootPath(root.to_owned()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How long each step of a connection may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From a connection's first byte to the end of its TLS handshake. 10 s: two round trips and a signature, even over
    /// a bad line.
    pub handshake: Duration,
    /// From the first byte of a head to its end. 10 s: a head is one to three packets, even over a bad line.
    pub header: Duration,
    /// Grace of a body before its rate counts, and its longest pause. 20 s: a phone may change its cell.
    pub body: Duration,
    /// Least bytes per second of a body, on average after the grace. 500: below a modem, above a trickle attack.
    pub body_rate: u64,
    /// Without a request on an open connection. 75 s, longer than the usual 60 s of the proxy in front, which must be
    /// the one to close.
    pub idle: Duration,
    /// Longest time in which a client takes no byte of a response. 30 s.
    pub write: Duration,
    /// Least bytes per second that a client must take, on average after `write`. 500, as for bodies.
    pub write_rate: u64,
    /// How long a closed connection reads on, so that the client sees the last response rather than a reset. 2 s.
    pub linger: Duration,
    /// After a stop, how long an idle connection may still bring a request that was already under way. 250 ms.
    pub last_call: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            body: Duration::from_secs(20),
            body_rate: 500,
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
            write_rate: 500,
            linger: Duration::from_secs(2),
            last_call: Duration::from_millis(250),
        }
    }
}

/// To whom interim responses are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyHints {
    /// To nobody.
    Off,
    /// To clients of HTTP/2. All of those know them.
    Http2,
    /// To clients of HTTP/1.1 too, some of which take them for the response (RFC 8297 §3).
    All,
}

/// Which responses are compressed. A route may say otherwise for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// None.
    Routes,
    /// Static files.
    Files,
    /// These, and all that is not for one client only.
    All,
}

/// How responses are compressed.
#[derive(Clone, Debug)]
pub struct Compression {
    /// Which are. None: Flask's responses go out as they are, and it costs time of the processor.
    pub scope: Scope,
    /// Shorter ones are not. 1 KiB: what fits into one packet arrives no sooner.
    pub least: u64,
    /// What compressed files may take in memory, all together. 32 MiB: the scripts and styles of a large site.
    pub kept: u64,
}

impl Default for Compression {
    fn default() -> Compression {
        Compression { scope: Scope::Routes, least: 1024, kept: 32 << 20 }
    }
}

/// The server's settings.
#[derive(Debug)]
pub struct Config {
    /// Where to listen. Empty is an error of [`Server::bind`](crate::Server::bind).
    pub binds: Vec<Bind>,
    /// Speak TLS on all of them.
    pub tls: Option<Arc<Tls>>,
    /// Where to listen without TLS, only to send clients to the same address with it.
    pub redirect_binds: Vec<Bind>,
    /// The port they are sent to; that of the first of `binds` if `None`.
    pub redirect_port: Option<u16>,
    /// Speak HTTP/2 with clients that begin so, or that choose it in a TLS handshake.
    pub http2: bool,
    /// Requests of one HTTP/2 connection at the same time, at most. 128: RFC 9113 wants no fewer than 100, and a browser
    /// asks for no more.
    pub http2_streams: u32,
    /// Who gets 103 Early Hints and other interim responses of views. Clients of HTTP/2: browsers take no notice of them
    /// elsewhere, and RFC 8297 §3 warns of clients of HTTP/1.1 that break.
    pub early_hints: EarlyHints,
    /// What the `Strict-Transport-Security` field says on encrypted connections; none if `None`. RFC 6797: whoever has
    /// seen it will not come without TLS for as long as it says, so it is not there by default.
    pub hsts: Option<String>,
    /// Views that run at the same time, at most. 32: a thread costs 50 KiB when it has run, and more than that many
    /// blocking views want another design. Two more threads lead and stand by.
    pub threads: usize,
    /// Requests that wait for a worker, at most; further ones get 503. 1024: at 32 threads and 50 ms a view that is
    /// 1.6 s of work, and who waits longer has gone.
    pub queue: usize,
    /// Open connections, at most; further ones wait in the kernel's queue. 16,384.
    pub max_connections: usize,
    /// Open connections of one address, at most, or of one IPv6 network of 64 bits; further ones are closed. 0 for as many
    /// as come: behind one address there may be a whole campus, which only the operator knows.
    pub max_per_address: usize,
    /// The kernel's queue of connections not yet accepted. 1024; the kernel caps it by `net.core.somaxconn`.
    pub backlog: u32,
    /// Share the port with other processes (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The listeners are inherited and other processes accept from them too: they take turns.
    pub shared: bool,
    /// Those processes, so that each gets its share of the connections.
    pub crew: Option<Arc<Crew>>,
    /// Let an IPv6 listener refuse IPv4.
    pub only_v6: bool,
    /// Limits of the protocol.
    pub limits: Limits,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// A body up to this size is read before the view is called; a longer one is read by the view, on a worker. 256 KiB:
    /// what forms and small uploads need.
    pub buffer_body: u64,
    /// All bodies that are being read before their views are called, at most; with more, views read theirs themselves.
    /// 64 MiB: many slow clients together cannot take more.
    pub buffer_bodies: u64,
    /// All bodies that wait in files until they are whole, at most; further ones get 503. Bodies longer than
    /// `buffer_body` do when half of the threads read others. 1 GiB: what a disk has to spare.
    pub spool_bodies: u64,
    /// Bytes that an [`Outlet`](crate::Outlet) holds for a client that does not take them. 1 MiB: seconds of events or
    /// messages; who lags behind further is better cut off than served from memory.
    pub outlet_queue: usize,
    /// What is left of an unread body up to this size is read and dropped to keep the connection. 64 KiB.
    pub drain_body: u64,
    /// What a request may take from the moment in which it is complete enough for its view, until its response is made;
    /// a route's own comes first. `None`: as long as it likes, since what is right for one view is wrong for the next.
    pub request_timeout: Option<Duration>,
    /// A view that runs longer is told of, and again whenever that time has doubled. 30 s: hardly ever on purpose.
    pub slow_request: Option<Duration>,
    /// Threads whose request has been answered by its deadline while their view goes on, at most: others take their place
    /// until then, and beyond it [`Notice::Stuck`](crate::Notice::Stuck) is told. 8: one is a slow peer, many are a fault
    /// that a new process may not have.
    pub stuck_threads: usize,
    /// What [`Running::stop`](crate::Running::stop) waits for requests by default. 30 s.
    pub grace: Duration,
    /// Fill in [`Answered`](crate::Answered) and tell it. Costs a copy of the request line and looks at the clock.
    pub tell_answers: bool,
    /// The request fields that are told, by their names in lower case.
    pub tell_fields: Vec<String>,
    /// Write where the time went into each response, as `Server-Timing`.
    pub server_timing: bool,
    /// Give each request a name. It becomes a field of the request and, unless the application writes one, of the
    /// response.
    pub request_id: RequestId,
    /// Where to count what happens. Wants [`Config::tell_answers`].
    pub stats: Option<Arc<Stats>>,
    /// Who is believed about its clients. Nobody by default: anybody can send such fields.
    pub trusted_proxies: Networks,
    /// The fields that they are believed in.
    pub forwarded_headers: Believed,
    /// Which connections begin with a PROXY header.
    pub proxy_protocol: ProxyProtocol,
    /// Who may send one; `trusted_proxies` if empty.
    pub proxy_protocol_from: Networks,
    /// Where a proxy has mounted the application.
    pub root_path: RootPath,
    /// After so many requests [`Notice::Served`](crate::Notice::Served) is told, once.
    pub tell_after: Option<u64>,
    /// How files are sent.
    pub files: Files,
    /// Which responses are compressed, and how.
    pub compression: Compression,
    /// The `Server` field of responses; `None` for none.
    pub server_name: Option<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            binds: Vec::new(),
            tls: None,
            redirect_binds: Vec::new(),
            redirect_port: None,
            http2: true,
            http2_streams: 128,
            early_hints: EarlyHints::Http2,
            hsts: None,
            threads: 32,
            queue: 1024,
            max_connections: 16_384,
            max_per_address: 0,
            backlog: 1024,
            reuse_port: false,
            shared: false,
            crew: None,
            only_v6: false,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            buffer_body: 256 * 1024,
            buffer_bodies: 64 * 1024 * 1024,
            spool_bodies: 1024 * 1024 * 1024,
            outlet_queue: 1024 * 1024,
            drain_body: 64 * 1024,
            request_timeout: None,
            slow_request: Some(Duration::from_secs(30)),
            stuck_threads: 8,
            grace: Duration::from_secs(30),
            tell_answers: false,
            tell_fields: Vec::new(),
            server_timing: false,
            request_id: RequestId::default(),
            stats: None,
            trusted_proxies: Networks::default(),
            forwarded_headers: Believed::default(),
            proxy_protocol: ProxyProtocol::Off,
            proxy_protocol_from: Networks::default(),
            root_path: RootPath::default(),
            tell_after: None,
            files: Files::default(),
            compression: Compression::default(),
            server_name: Some("hipflask".to_owned()),
        }
    }
}

impl Config {
    /// Whether anything is noted of requests while they are answered.
    pub(crate) fn notes(&self) -> bool {
        self.tell_answers || self.server_timing || self.request_id.is_on()
    }
}
