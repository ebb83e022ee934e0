//! What the server tells the application about connections, refusals and answers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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
    /// The client.
    pub peer: Address,
    /// The end at our side.
    pub local: Address,
    /// Whether the connection is encrypted.
    pub secure: bool,
    /// How it is encrypted, if it is so here.
    pub tls: Option<Box<crate::TlsInfo>>,
}

/// A response that has been handed to the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The client.
    pub conn: &'a ConnInfo,
    /// Method and target with a space between them, as they came.
    pub request: &'a [u8],
    /// The response's status.
    pub status: u16,
    /// Bytes sent, head included.
    pub sent: u64,
    /// From the parsed head to the last byte given to the kernel.
    pub took: Duration,
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
    /// A stop has begun: this process accepts no more connections.
    Closed,
    /// A panic was caught.
    Panic(String),
}
