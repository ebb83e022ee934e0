//! HTTP/1.0 and 1.1 as RFC 9110 and RFC 9112 define them: bytes in, events out.
//!
//! Knows no socket, clock, thread or Python. A server feeds what it has read to [`RequestHead::parse`], then to a
//! [`BodyDecoder`], and writes what [`response::ResponseWriter`] makes. The other modules read and write the values
//! inside fields and bodies: queries and forms, cookies, multipart, ranges, conditions, dates. [`websocket`] is the
//! protocol that a connection may change to.
//!
//! Strict by default: whatever two readers could understand differently is an [`Error`], and an error ends the
//! connection. Leniency is a named member of [`Limits`].
#![forbid(unsafe_code)]

mod accept_encoding;
pub mod body;
pub mod conditional;
pub mod cookie;
pub mod date;
mod error;
pub mod field;
pub mod forwarded;
pub mod frames;
mod framing;
pub mod head;
pub mod http2;
pub mod iri;
mod limits;
pub mod multipart;
pub mod network;
pub mod proxy_protocol;
pub mod query;
pub mod range;
pub mod response;
mod status;
mod target;
mod token;
pub mod trace;
pub mod trailer;
pub mod websocket;

pub use accept_encoding::{Accepted, Coding};
pub use body::BodyDecoder;
pub use error::Error;
pub use framing::Framing;
pub use head::{RequestHead, Version};
pub use limits::{Limits, Underscores};
pub use trace::{TraceId, TraceParent};
pub use trailer::Trailers;
