//! HTTP/1.0 and 1.1 as RFC 9110 and RFC 9112 define them: bytes in, events out.
//!
//! Knows no socket, clock, thread or Python.
#![forbid(unsafe_code)]
