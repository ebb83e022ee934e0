//! Sockets, the reactor, threads and timers. Knows no Python and no routes: see `handler.rs`.
