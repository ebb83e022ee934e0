//! The request target (RFC 9112 §3.2) and the host (RFC 9110 §7.2, RFC 3986 §3.2.2).
//!
//! Does not decode percent-escapes (see [`query`](crate::query)) and resolves no `..`: a path is handed on as it came.

use crate::token::{is_host_byte, is_target_byte};
use crate::{Error, Limits};

/// A target taken apart; all parts are slices of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// Of the absolute form.
    pub(crate) scheme: Option<&'a [u8]>,
    /// Of the absolute form.
    pub(crate) authority: Option<&'a [u8]>,
    /// `*`, or what stands before `?`. Empty where an absolute form has no path.
    pub(crate) path: &'a [u8],
    /// Without its `?`; empty if there is none.
    pub(crate) query: &'a [u8],
    /// Whether the path holds a percent sign.
    pub(crate) escaped: bool,
}

/// Takes a target apart.
///
/// `request-target = origin-form / absolute-form / authority-form / asterisk-form`
pub(crate) fn parse<'a>(method: &[u8], target: &'a [u8], limits: &Limits) -> Result<Target<'a>, Error> {
    let mut question = None;
    let mut escaped = false;
    let mut ascii = true;
    for (at, &byte) in target.iter().enumerate() {
        if !is_target_byte(byte) {
            if byte < 128 {
                return Err(Error::BadTarget);
            }
            ascii = false;
        } else if question.is_none() {
            if byte == b'?' {
                question = Some(at);
            }
            escaped |= byte == b'%';
        }
    }
    if !ascii && (!limits.utf8_target || std::str::from_utf8(target).is_err()) {
        return Err(Error::BadTarget);
    }
    if method == b"CONNECT" {
        return Err(if host_is_valid(target) { Error::Connect } else { Error::BadTarget });
    }
    let (before, query) = match question {
        Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..).unwrap_or_default()),
        None => (target, &target[..0]),
    };
    if before.first() == Some(&b'/') {
        return Ok(Target { scheme: None, authority: None, path: before, query, escaped });
    }
    if target == b"*" {
        let found = Target { scheme: None, authority: None, path: before, query, escaped };
        return if method == b"OPTIONS" { Ok(found) } else { Err(Error::Asterisk) };
    }
    absolute(before, query, escaped)
}

/// `absolute-form = scheme "://" authority path-abempty [ "?" query ]`, for `http` and `https` only.
fn absolute<'a>(before: &'a [u8], query: &'a [u8], escaped: bool) -> Result<Target<'a>, Error> {
    let colon = memchr::memchr(b':', before).ok_or(Error::BadTarget)?;
    let (scheme, rest) = before.split_at_checked(colon).ok_or(Error::BadTarget)?;
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(Error::BadTarget);
    }
    let rest = rest.strip_prefix(b"://").ok_or(Error::BadTarget)?;
    let slash = memchr::memchr(b'/', rest).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(slash).ok_or(Error::BadTarget)?;
    if !host_is_valid(authority) {
        return Err(Error::BadHost);
    }
    Ok(Target { scheme: Some(scheme), authority: Some(authority), path, query, escaped })
}

/// Whether the bytes are `uri-host [ ":" port ]` with a host that is not empty (RFC 9110 §4.2.1) and a port of at
/// most 16 bits.
pub(crate) fn host_is_valid(host: &[u8]) -> bool {
    let rest = match host {
        [b'[', ..] => {
            let Some(close) = memchr::memchr(b']', host) else { return false };
            let literal = host.get(1..close).unwrap_or_default();
            if !address_is_valid(literal) {
                return false;
            }
            host.get(close + 1..).unwrap_or_default()
        }
        _ => {
            let end = memchr::memchr(b':', host).unwrap_or(host.len());
            let name = host.get(..end).unwrap_or_default();
            if name.is_empty() || !name_is_valid(name) {
                return false;
            }
            host.get(end..).unwrap_or_default()
        }
    };
    match rest {
        [] => true,
        [b':', port @ ..] => port_is_valid(port),
        _ => false,
    }
}

/// `reg-name = *( unreserved / pct-encoded / sub-delims )`
fn name_is_valid(mut name: &[u8]) -> bool {
    loop {
        match name {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                name = rest;
            }
            [byte, rest @ ..] if is_host_byte(*byte) => name = rest,
            _ => return false,
        }
    }
}

/// `port = *DIGIT`, kept to the ports that exist.
fn port_is_valid(port: &[u8]) -> bool {
    let mut number = 0_u32;
    for &byte in port {
        if !byte.is_ascii_digit() {
            return false;
        }
        number = number * 10 + u32::from(byte - b'0');
        if number > 65_535 {
            return false;
        }
    }
    true
}

/// `IPv6address / IPvFuture`, as they stand between brackets.
fn address_is_valid(literal: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(literal) else { return false };
    if let Some(future) = text.strip_prefix(['v', 'V']) {
        let Some((version, address)) = future.split_once('.') else { return false };
        return !version.is_empty()
            && version.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !address.is_empty()
            && address.bytes().all(|byte| byte == b':' || is_host_byte(byte));
    }
    text.parse::<std::net::Ipv6Addr>().is_ok()
}
