//! Sockets, the reactor, threads and timers. Knows no Python and no routes: see [`Handler`].
//!
//! A [`Server`] binds its listeners, then runs a [`Handler`] on a few identical threads. One of them, the leader,
//! drives the reactor and calls fast views itself; the others run blocking views or stand by. `docs/architecture.md`
//! has the reasons and the measurements.

mod access_log;
mod addresses;
mod body;
mod client;
mod coding;
mod config;
mod conn;
mod crew;
mod deferred;
mod delivery;
mod engine;
mod exchange;
mod exposed;
mod files;
mod handler;
mod held;
mod history;
mod http2;
mod interim;
mod kept;
mod listing;
mod media;
mod metrics;
mod outflow;
mod outlet;
mod pool;
mod reactor;
mod record;
mod refusal;
mod reply;
mod request_id;
mod running;
mod server;
mod spool;
mod sys;
mod task;
mod timer;
mod tls;
mod transport;
mod waker;
mod word;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use access_log::{AccessLog, AccessLogConfig, Place, Writer, WriterConfig, check_format};
pub use body::{Body, BodyError, BodySource, BodyStream};
pub use client::{Client, Trust, Via};
pub use coding::{Effort, compress};
pub use config::{Bind, Compression, Config, EarlyHints, ProxyProtocol, RootPath, Scope, Timeouts};
pub use crew::Crew;
pub use deferred::Deferred;
pub use exchange::{Address, Answered, ConnInfo, Notice, Times};
pub use exposed::{Exposed, Files, Mount};
pub use files::{FileOptions, FileReply, Root};
pub use handler::{Handler, Request, Routed, Stream};
pub use history::{Compressible, Lane, RouteHistory};
pub use interim::{Exchange, TooLate};
pub use metrics::{Board, Monitor, Role, Stats, content_type, wants_open_metrics};
pub use outlet::{Outlet, OutletError, Piece, Upgraded};
pub use refusal::{Refusal, RefusalKind};
pub use reply::{FieldError, Reply};
pub use request_id::{IdSource, RequestId};
pub use running::{Busy, Slow};
pub use server::{Bound, Running, Server};
pub use task::{Runner, Task, Work};
pub use tls::{Certificate, ClientAuth, KeyPair, Tls, TlsError, TlsFiles, TlsInfo, self_signed};

/// Locks; what a thread left that panicked meanwhile is taken as it is.
fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
