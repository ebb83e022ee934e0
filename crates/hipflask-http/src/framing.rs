//! The fields that decide about a message: how many bytes of body follow its head, to whom it goes, and what becomes of
//! the connection.
//!
//! Implements RFC 9112 §3.2, §6.3 and §9.3, RFC 9110 §7.8 and §10.1.1, for requests. Does not read the body (see
//! [`body`](crate::body)). Stricter than the RFC: a head with both `Content-Length` and `Transfer-Encoding` is refused,
//! since two readers that choose differently can be made to disagree (§11.2), and so are lengths given twice.

use crate::target::host_is_valid;
use crate::token::trim;
use crate::{Error, Limits, Version};

/// How the end of a request's body is found (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// There is no body.
    None,
    /// The body has this many bytes.
    Length(u64),
    /// The body comes in chunks.
    Chunked,
}

/// Gathers the fields that decide about a message.
#[derive(Default)]
pub(crate) struct Decisive<'a> {
    host: Option<&'a [u8]>,
    hosts: usize,
    length: Option<u64>,
    lengths: usize,
    coded: bool,
    /// Codings named so far, and how many of them are `chunked`, which must be the last.
    codings: usize,
    chunked: usize,
    chunked_last: bool,
    close: bool,
    keep_alive: bool,
    upgrade_option: bool,
    upgrade: bool,
    websocket: bool,
    expects_continue: bool,
    bad_expectation: bool,
}

/// What the deciding fields say together.
pub(crate) struct Decision<'a> {
    pub(crate) host: Option<&'a [u8]>,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    pub(crate) expects_continue: bool,
    pub(crate) upgrade: bool,
    /// Whether a WebSocket is among the protocols offered.
    pub(crate) websocket: bool,
}

impl<'a> Decisive<'a> {
    /// Takes a field into account.
    pub(crate) fn field(&mut self, name: &'a [u8], value: &'a [u8]) -> Result<(), Error> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.host = Some(value);
                self.hosts += 1;
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                // RFC 9110 §10.1.1; an empty list asks for nothing.
                for item in list(value) {
                    if item.eq_ignore_ascii_case(b"100-continue") {
                        self.expects_continue = true;
                    } else {
                        self.bad_expectation = true;
                    }
                }
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                self.websocket |= list(value).any(|item| item.eq_ignore_ascii_case(b"websocket"));
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.upgrade_option |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.length = Some(content_length(value)?);
                self.lengths += 1;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.coded = true;
                // No empty list elements here, although RFC 9110 §5.6.1 lets a reader skip them.
                for coding in value.split(|&byte| byte == b',') {
                    self.codings += 1;
                    self.chunked_last = trim(coding).eq_ignore_ascii_case(b"chunked");
                    self.chunked += usize::from(self.chunked_last);
                    if trim(coding).is_empty() {
                        return Err(Error::BadCoding);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What the fields say together.
    pub(crate) fn decide(self, version: Version, limits: &Limits) -> Result<Decision<'a>, Error> {
        let new = version == Version::Http11;
        match self.host {
            _ if self.hosts > 1 => return Err(Error::TwoHosts),
            None if new => return Err(Error::NoHost),
            Some(host) if !host_is_valid(host) => return Err(Error::BadHost),
            _ => {}
        }
        let framing = match self.length {
            _ if self.lengths > 1 => return Err(Error::TwoLengths),
            Some(_) if self.coded => return Err(Error::LengthAndCoding),
            Some(length) if length > limits.body => return Err(Error::LongBody),
            Some(length) => Framing::Length(length),
            None if self.coded => self.chunked_framing(new)?,
            None => Framing::None,
        };
        if new && self.bad_expectation {
            return Err(Error::BadExpectation);
        }
        let empty = matches!(framing, Framing::None | Framing::Length(0));
        let upgrade = new && self.upgrade && self.upgrade_option;
        Ok(Decision {
            host: self.host,
            framing,
            keep_alive: !self.close && (new || self.keep_alive),
            expects_continue: new && self.expects_continue && !empty,
            upgrade,
            websocket: upgrade && self.websocket,
        })
    }

    fn chunked_framing(&self, new: bool) -> Result<Framing, Error> {
        if !new {
            Err(Error::OldCoding)
        } else if !self.chunked_last || self.chunked != 1 {
            Err(Error::BadCoding)
        } else if self.codings > 1 {
            Err(Error::UnknownCoding)
        } else {
            Ok(Framing::Chunked)
        }
    }
}

/// The elements of a comma list that are not empty.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|item| !item.is_empty())
}

/// `Content-Length = 1*DIGIT`
fn content_length(value: &[u8]) -> Result<u64, Error> {
    if value.is_empty() {
        return Err(Error::BadLength);
    }
    let mut length = 0_u64;
    for &byte in value {
        if !byte.is_ascii_digit() {
            return Err(if memchr::memchr(b',', value).is_some() {
                Error::TwoLengths
            } else {
                Error::BadLength
            });
        }
        length = length
            .checked_mul(10)
            .and_then(|length| length.checked_add(u64::from(byte - b'0')))
            .ok_or(Error::BadLength)?;
    }
    Ok(length)
}
