//! What the server tells the application about connections, refusals and answers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hipflask_http::{TraceId, Version};

use crate::client::{Trust, Via};
use crate::record;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP, version 4 or 6. A v4 client of a v6 listener shows its v4 address.
    Tcp(SocketAddr),
    /// A Unix socket; the client's end has no name.
    Unix(Option<PathBuf>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Address::Unix(None) => f.write_str("unix:"),
        }
    }
}

/// A connection's ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// The other end of the socket: the client, or a proxy. [`ConnInfo::client`] tells who sends a request.
    pub peer: Address,
    /// The end at our side.
    pub local: Address,
    /// Whether the connection is encrypted.
    pub secure: bool,
    /// How it is encrypted, if it is so here.
    pub tls: Option<Box<crate::TlsInfo>>,
    /// Whether what requests say about their clients is believed.
    pub trust: Trust,
    /// What proxies say about the client.
    pub via: Option<Arc<Via>>,
}

/// How long the steps of a request took, one after the other. A step that a request does not go through takes no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From the parsed head until as much of the body had come as is read before the view.
    pub receive: Duration,
    /// Until a thread, or the event loop, began with it.
    pub queue: Duration,
    /// Until that thread was attached to the interpreter. The event loop's waiting is not known.
    pub gil: Duration,
    /// Until the response was made, with hooks and all; of one that is made piece by piece, its head.
    pub view: Duration,
    /// Until the last byte was given to the kernel, with the making of pieces; of a WebSocket, its life.
    pub write: Duration,
    /// All of that.
    pub total: Duration,
}

/// A request whose response has been handed to the kernel, or was cut off.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The client.
    pub conn: &'a ConnInfo,
    /// The method, as it came; empty if the head could not be read.
    pub method: &'a [u8],
    /// The target, as it came; empty if the head could not be read.
    pub target: &'a [u8],
    /// The version; `None` if the head could not be read.
    pub version: Option<Version>,
    /// The name of the rule that matched; see [`RouteHistory::named`](crate::RouteHistory::named).
    pub route: Option<&'a str>,
    /// The response's status; for a connection that has changed its protocol 101, or 200 for a stream of HTTP/2 that has
    /// (RFC 8441 §5).
    pub status: u16,
    /// Bytes sent, head included. An HTTP/2 stream's are counted as HTTP/1.1 would have them.
    pub sent: u64,
    /// Bytes sent of the body, with its framing.
    pub sent_body: u64,
    /// Bytes of the request's body that were read.
    pub received: u64,
    /// Whether all of the response went out.
    pub complete: bool,
    /// Where the time went.
    pub times: Times,
    /// The request's own name; see [`Config::request_id`](crate::Config::request_id).
    pub request_id: Option<&'a str>,
    /// The trace that the request belongs to.
    pub trace_id: Option<TraceId>,
    pub(crate) fields: &'a [u8],
}

impl<'a> Answered<'a> {
    /// The request's first field with the name at this place in [`Config::tell_fields`](crate::Config::tell_fields).
    pub fn field(&self, index: usize) -> Option<&'a [u8]> {
        record::kept(self.fields, index)
    }
}

/// Something about the server itself that its operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Accepting pauses: descriptors or memory ran out.
    AcceptPaused(String),
    /// Accepting goes on.
    AcceptResumed,
    /// A view holds a leader; the reactor goes to another thread.
    Retaken,
    /// As many requests have come as [`Config::tell_after`](crate::Config::tell_after) says.
    Served,
    /// Certificates have changed and are used for new connections.
    CertificatesReloaded,
    /// Certificates have changed and cannot be used: those from before stay.
    CertificatesKept(String),
    /// More threads than [`Config::stuck_threads`](crate::Config::stuck_threads) are held by views whose requests have
    /// been answered by their deadline; so many.
    Stuck(usize),
    /// A stop has begun: this process accepts no more connections.
    Closed,
    /// A response named a file that is not there, or not where files may be named.
    NotSent(String),
    /// A panic was caught.
    Panic(String),
}
