//! What the server counts about itself, and how it is told: to Prometheus, to probes, to `hipflask top`.
//!
//! The counts lie on a [`Board`], memory that all processes of a server share: whoever is asked reads it and needs
//! nobody else, however busy the others are. A [`Stats`] is one process' pen. A [`Monitor`] answers over HTTP, on
//! sockets of its own.

mod board;
mod health;
mod monitor;
mod prometheus;
mod stats;
mod status;

pub use board::Board;
pub(crate) use board::{Counter, Gauge, State};
pub use monitor::{Monitor, Role, wants_open_metrics};
pub use prometheus::content_type;
pub use stats::Stats;
pub(crate) use stats::{Running, Shown, note_received, note_sent};
