//! What the server asks of the application behind it.
//!
//! Order of calls for a request: [`Handler::route`] on the thread that parsed the head, never attached to an
//! interpreter; then, unless routing answered by itself, [`Handler::call`] on the same thread or on a worker,
//! attached.
