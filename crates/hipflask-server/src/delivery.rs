//! What becomes of a response on its way to the client: compressed, if the client and the response allow it.
//!
//! Works on what the handler has written, so that it is the same for every kind of answer, of either protocol. Compresses
//! nothing while a thread is attached, and no file on the leader.
//!
//! Compressing what holds a secret beside what a stranger can choose tells the secret by its length (BREACH). So what
//! belongs to one client is left as it is, unless its route says that it holds no secret: answers to requests with a
//! cookie or credentials, and those that set a cookie, depend on one, or are private.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;

use hipflask_http::response::{BodyEncoder, BodyFraming};
use hipflask_http::{Accepted, Coding, RequestHead, Version};

use crate::body::{BodyError, BodySource};
use crate::coding::{self, Compressor, Effort, QUICK};
use crate::config::{Config, Scope};
use crate::history::Compressible;
use crate::kept::{Claim, Kept, Key, Looked};
use crate::media;
use crate::outlet::Delegate;
use crate::reply::{Answer, Payload};

/// What is sent at once of a body that lies in memory.
const PIECE: usize = 64 * 1024;
/// Files above this size are sent as they are: to compress them takes seconds, and much of the memory for all.
const LARGEST_FILE: u64 = 16 << 20;

/// What of a request decides how its response is delivered.
pub(crate) struct Delivery {
    accepted: Accepted,
    version: Version,
    is_head: bool,
    /// It comes with a cookie or with credentials.
    is_personal: bool,
    route: Compressible,
    scope: Scope,
    least: u64,
    if_none_match: Option<Vec<u8>>,
    /// The whole head, where the response may name a file.
    pub(crate) asked: Option<Box<RequestHead>>,
}

impl Delivery {
    /// `None` for a request whose response goes out as it is.
    pub(crate) fn of(head: &RequestHead, config: &Config, route: Compressible) -> Option<Box<Delivery>> {
        let compression = &config.compression;
        let may_name = route != Compressible::File && !config.files.exposed.is_empty();
        // RFC 1945 knows codings, but clients of that age are scripts and monitors.
        let is_wanted = is_wanted(route, compression.scope) && head.version() != Version::Http10;
        if !is_wanted && !may_name {
            return None;
        }
        Some(Box::new(Delivery {
            accepted: Accepted::of(head.field_values(b"accept-encoding")),
            version: head.version(),
            is_head: head.is_head(),
            is_personal: head.field(b"cookie").is_some() || head.field(b"authorization").is_some(),
            route: if is_wanted { route } else { Compressible::Never },
            scope: compression.scope,
            least: compression.least,
            asked: may_name.then(|| Box::new(head.clone())),
            if_none_match: head.field(b"if-none-match").map(<[u8]>::to_vec),
        }))
    }

    /// Changes a complete response, of which `out` has the head and perhaps the body from `begin` on. `ready` is called
    /// before something is compressed, and says whether this thread may; `delegate` gives the others their work.
    pub(crate) fn deliver(
        &self,
        answer: &mut Answer,
        out: &mut Vec<u8>,
        begin: usize,
        kept: &Arc<Kept>,
        ready: impl FnOnce() -> bool,
        delegate: impl FnOnce() -> Delegate,
    ) {
        let route = match self.route {
            Compressible::Told => answer.compressible.unwrap_or_default(),
            route => route,
        };
        if answer.is_trailed || !is_wanted(route, self.scope) {
            return;
        }
        let is_file = route == Compressible::File;
        let always = is_file || route == Compressible::Always;
        let (Some(head), Some(body)) = (out.get(begin..answer.body), out.get(answer.body..)) else { return };
        let seen = Seen::read(head);
        if answer.status == 304 {
            if self.knows_weakly(&seen) {
                let head = seen.rewrite(head, &Change { weaken: true, ..Change::default() });
                out.truncate(begin);
                out.extend_from_slice(&head);
                answer.body = out.len();
            }
            return;
        }
        if matches!(answer.status, 0..=199 | 204..=206) || !seen.may_be_compressed(always) {
            return;
        }
        let size = match &answer.payload {
            Payload::Written if self.is_head => seen.length,
            Payload::Written => Some(body.len() as u64),
            Payload::File { length, .. } if *length > LARGEST_FILE => return,
            Payload::File { length, .. } => Some(*length),
            Payload::Stream { .. } => seen.length,
            Payload::Outlet(flow) if flow.is_upgraded() => return,
            Payload::Outlet(_) => seen.length,
        };
        if size.is_some_and(|size| size < self.least) {
            return;
        }
        let order = if is_file { Coding::ALL } else { QUICK };
        let coding = self.accepted.best(order).filter(|_| always || !self.is_personal);
        let framing = match self.version {
            Version::Http2 => BodyFraming::Close,
            _ => BodyFraming::Chunked,
        };
        let plain = Change::default();
        let coded = |framing| Change { coding, framing, weaken: true };
        let Some(coding) = coding else {
            let head = seen.rewrite(head, &plain);
            let body = begin + head.len();
            out.splice(begin..answer.body, head);
            answer.body = body;
            return;
        };
        let (change, source, rest): (Change, Option<Box<dyn BodySource>>, Vec<u8>) = match &mut answer.payload
        {
            Payload::Written if self.is_head => (coded(None), None, Vec::new()),
            Payload::Written if ready() => match coding::compress(coding, Effort::Once, body) {
                Ok(small) if small.len() < body.len() => {
                    (coded(Some(BodyFraming::Length(small.len() as u64))), None, small)
                }
                _ => (plain, None, body.to_vec()),
            },
            Payload::Written => {
                (coded(Some(framing)), Some(Box::new(Whole { body: body.to_vec(), coding })), Vec::new())
            }
            Payload::File { file, offset, length } => match look(kept, file, *offset, *length, coding) {
                None | Some(Looked::Useless) => (plain, None, Vec::new()),
                Some(Looked::Kept(bytes)) => {
                    let framing = BodyFraming::Length(bytes.len() as u64);
                    if bytes.len() <= PIECE {
                        answer.payload = Payload::Written;
                        (coded(Some(framing)), None, bytes.to_vec())
                    } else {
                        (coded(Some(framing)), Some(Box::new(Memory { bytes, at: 0 })), Vec::new())
                    }
                }
                Some(Looked::Missing(claim)) => {
                    let Ok(file) = file.try_clone() else { return };
                    let source = Fresh { file, length: *length, coding, claim: Some(claim), made: None };
                    (coded(Some(framing)), Some(Box::new(source)), Vec::new())
                }
            },
            Payload::Stream { .. } => {
                let (Ok(compressor), Payload::Stream { source, .. }) =
                    (Compressor::new(coding), std::mem::replace(&mut answer.payload, Payload::Written))
                else {
                    return;
                };
                let source = Pieces { source, compressor, owed: seen.length, piece: Vec::new() };
                (coded(Some(framing)), Some(Box::new(source)), Vec::new())
            }
            Payload::Outlet(flow) => {
                if !flow.compress(coding, framing, delegate()) {
                    return;
                }
                answer.keep &= framing != BodyFraming::Close;
                (coded(Some(framing)), None, Vec::new())
            }
        };
        let head = seen.rewrite(head, &change);
        out.truncate(begin);
        out.extend_from_slice(&head);
        answer.body = out.len();
        out.extend_from_slice(&rest);
        if let (Some(source), Some(framing)) = (source, change.framing) {
            answer.keep &= framing != BodyFraming::Close;
            answer.payload = Payload::Stream { source, encoder: BodyEncoder::new(framing) };
        }
    }

    /// Whether the client has the compressed form of what did not change.
    fn knows_weakly(&self, seen: &Seen<'_>) -> bool {
        let (Some(known), Some(etag)) = (&self.if_none_match, seen.etag) else { return false };
        let weak = [b"W/", etag].concat();
        !etag.starts_with(b"W/") && known.windows(weak.len()).any(|part| part == weak)
    }
}

fn is_wanted(route: Compressible, scope: Scope) -> bool {
    match route {
        Compressible::Never => false,
        Compressible::Always | Compressible::Told => true,
        Compressible::File => scope != Scope::Routes,
        Compressible::Maybe => scope == Scope::All,
    }
}

/// What becomes of a head. By default it only says that the response depends on `Accept-Encoding`.
#[derive(Default)]
struct Change {
    coding: Option<Coding>,
    /// How the body is framed then; `None` leaves its length out.
    framing: Option<BodyFraming>,
    /// RFC 9110 §8.8.1: what is not the same byte for byte needs a weak tag.
    weaken: bool,
}

/// What a response's head says.
#[derive(Default)]
struct Seen<'h> {
    media: &'h [u8],
    etag: Option<&'h [u8]>,
    length: Option<u64>,
    /// It has a coding, is a part, forbids changes, or tells the checksum of its bytes.
    is_fixed: bool,
    /// It is for one client.
    is_personal: bool,
    varies: bool,
}

impl<'h> Seen<'h> {
    fn read(head: &'h [u8]) -> Seen<'h> {
        let mut seen = Seen::default();
        for (name, value) in lines(head).filter_map(split) {
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
            let says = |word: &str| {
                value.split(|byte| *byte == b',').any(|item| {
                    let item = item.split(|byte| *byte == b'=').next().unwrap_or_default();
                    item.trim_ascii().eq_ignore_ascii_case(word.as_bytes())
                })
            };
            match name.len() {
                4 if is("etag") => seen.etag = Some(value),
                4 if is("vary") => {
                    seen.varies |= says("accept-encoding") || says("*");
                    seen.is_personal |= says("cookie") || says("authorization") || says("*");
                }
                6 if is("digest") => seen.is_fixed = true,
                10 if is("set-cookie") => seen.is_personal = true,
                11 if is("content-md5") => seen.is_fixed = true,
                12 if is("content-type") => {
                    seen.media = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
                }
                13 if is("cache-control") => {
                    seen.is_fixed |= says("no-transform");
                    seen.is_personal |= says("private") || says("no-store");
                }
                13 if is("content-range") => seen.is_fixed = true,
                14 if is("content-length") => {
                    seen.length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                }
                14 if is("content-digest") => seen.is_fixed = true,
                16 if is("content-encoding") => seen.is_fixed = true,
                _ => {}
            }
        }
        seen
    }

    fn may_be_compressed(&self, always: bool) -> bool {
        !self.is_fixed && (always || !self.is_personal) && media::is_compressible(self.media)
    }

    fn rewrite(&self, head: &[u8], change: &Change) -> Vec<u8> {
        let mut new = Vec::with_capacity(head.len() + 80);
        let mut owes_vary = !self.varies;
        for line in lines(head) {
            let name = split(line).map_or(&b""[..], |(name, _)| name);
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
            let is_framing = is("content-length") || is("transfer-encoding") || is("accept-ranges");
            if change.coding.is_some() && is_framing {
                continue;
            }
            match self.etag {
                Some(etag) if change.weaken && is("etag") && !etag.starts_with(b"W/") => {
                    new.extend_from_slice(name);
                    new.extend_from_slice(b": W/");
                    new.extend_from_slice(etag);
                }
                _ => new.extend_from_slice(line),
            }
            if owes_vary && is("vary") {
                new.extend_from_slice(b", Accept-Encoding");
                owes_vary = false;
            }
            new.extend_from_slice(b"\r\n");
        }
        if let Some(coding) = change.coding {
            new.extend_from_slice(format!("Content-Encoding: {}\r\n", coding.token()).as_bytes());
        }
        if owes_vary {
            new.extend_from_slice(b"Vary: Accept-Encoding\r\n");
        }
        match change.framing {
            Some(BodyFraming::Length(length)) => {
                new.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
            }
            Some(BodyFraming::Chunked) => new.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            _ => {}
        }
        new.extend_from_slice(b"\r\n");
        new
    }
}

/// The lines of a head, without their ends: the status line, then the fields.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty())
}

/// Name and value of a field.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at(colon);
    Some((name, value.get(1..).unwrap_or_default().trim_ascii()))
}

/// What is known of a whole file, compressed. `None` if it is not whole, or has changed since it was opened.
fn look(kept: &Arc<Kept>, file: &File, offset: u64, length: u64, coding: Coding) -> Option<Looked> {
    let metadata = file.metadata().ok()?;
    if offset > 0 || length != metadata.len() {
        return None;
    }
    let key = Key {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: length,
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        coding,
    };
    Some(kept.look(key))
}

/// A body that lies in memory, to be compressed by whoever asks for it.
struct Whole {
    body: Vec<u8>,
    coding: Coding,
}

impl BodySource for Whole {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, BodyError> {
        let small = coding::compress(self.coding, Effort::Once, &self.body).map_err(|_| BodyError::Failed)?;
        out.extend_from_slice(&small);
        Ok(false)
    }
}

/// A compressed body that lies in memory.
struct Memory {
    bytes: Arc<[u8]>,
    at: usize,
}

impl BodySource for Memory {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, BodyError> {
        let end = self.bytes.len().min(self.at + PIECE);
        out.extend_from_slice(self.bytes.get(self.at..end).unwrap_or_default());
        self.at = end;
        Ok(end < self.bytes.len())
    }
}

/// A file that nobody has compressed yet.
struct Fresh {
    file: File,
    length: u64,
    coding: Coding,
    claim: Option<Claim>,
    made: Option<Memory>,
}

impl Fresh {
    fn make(&mut self) -> Result<Memory, BodyError> {
        let length = usize::try_from(self.length).map_err(|_| BodyError::Failed)?;
        let mut plain = vec![0; length];
        self.file.read_exact_at(&mut plain, 0).map_err(|error| BodyError::Io(error.kind()))?;
        let small = coding::compress(self.coding, Effort::Kept, &plain).map_err(|_| BodyError::Failed)?;
        let is_smaller = small.len() < plain.len();
        let bytes: Arc<[u8]> = small.into();
        if let Some(claim) = self.claim.take() {
            claim.settle(is_smaller.then(|| Arc::clone(&bytes)));
        }
        Ok(Memory { bytes, at: 0 })
    }
}

impl BodySource for Fresh {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, BodyError> {
        if self.made.is_none() {
            self.made = Some(self.make()?);
        }
        self.made.as_mut().map_or(Ok(false), |made| made.next(out))
    }
}

/// A stream, compressed piece by piece: the client can read each as soon as it is there.
struct Pieces {
    source: Box<dyn BodySource>,
    compressor: Compressor,
    /// What the source still has to give, if it has said how much that is.
    owed: Option<u64>,
    piece: Vec<u8>,
}

impl BodySource for Pieces {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, BodyError> {
        self.piece.clear();
        let mut more = self.source.next(&mut self.piece)?;
        if let Some(owed) = &mut self.owed {
            let fits = usize::try_from(*owed).unwrap_or(usize::MAX).min(self.piece.len());
            self.piece.truncate(fits);
            *owed -= fits as u64;
            more &= *owed > 0;
            if !more && *owed > 0 {
                return Err(BodyError::Failed);
            }
        }
        let compressor = &mut self.compressor;
        let mut compress = || {
            compressor.write(&self.piece, out)?;
            match more {
                true if self.piece.is_empty() => Ok(()),
                true => compressor.flush(out),
                false => compressor.finish(out),
            }
        };
        let compressed: std::io::Result<()> = compress();
        compressed.map(|()| more).map_err(|_| BodyError::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nETag: \"x\"\r\n\
        Accept-Ranges: bytes\r\nContent-Length: 5\r\nX-Odd: a:b \r\n\r\n";

    #[test]
    fn a_head_is_rewritten_and_nothing_else_in_it() {
        let seen = Seen::read(HEAD);
        assert_eq!((seen.media, seen.length, seen.etag), (&b"text/html"[..], Some(5), Some(&b"\"x\""[..])));
        let framing = Some(BodyFraming::Length(3));
        let change = Change { coding: Some(Coding::Gzip), framing, weaken: true };
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nETag: W/\"x\"\r\n\
            X-Odd: a:b\r\nContent-Encoding: gzip\r\nVary: Accept-Encoding\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(String::from_utf8(seen.rewrite(HEAD, &change)).unwrap(), expected);
        let plain = String::from_utf8(seen.rewrite(HEAD, &Change::default())).unwrap();
        assert_eq!(
            plain,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nETag: \"x\"\r\nAccept-Ranges: bytes\r\n\
             Content-Length: 5\r\nX-Odd: a:b\r\nVary: Accept-Encoding\r\n\r\n"
        );
    }

    #[test]
    fn what_belongs_to_one_client_or_must_stay_as_it_is_is_seen() {
        for (field, once, always) in [
            ("X: y", true, true),
            ("Set-Cookie: a=b", false, true),
            ("Vary: Cookie", false, true),
            ("vary: accept, COOKIE", false, true),
            ("Vary: *", false, true),
            ("Vary: Accept", true, true),
            ("Cache-Control: max-age=5, Private", false, true),
            ("Cache-Control: private=\"x\"", false, true),
            ("Cache-Control: no-store", false, true),
            ("Cache-Control: no-cache, no-transform", false, false),
            ("Content-Encoding: br", false, false),
            ("Content-Encoding: identity", false, false),
            ("Content-Range: bytes 0-4/10", false, false),
            ("Content-Digest: sha-256=:x:", false, false),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{field}\r\n\r\n");
            let seen = Seen::read(head.as_bytes());
            assert_eq!(
                (seen.may_be_compressed(false), seen.may_be_compressed(true)),
                (once, always),
                "{field}"
            );
        }
    }

    #[test]
    fn a_vary_is_joined_and_not_said_twice() {
        for (vary, expected) in [
            ("Vary: Accept\r\n", "Vary: Accept, Accept-Encoding\r\n"),
            ("Vary: accept-encoding\r\n", "Vary: accept-encoding\r\n"),
            ("Vary: *\r\n", "Vary: *\r\n"),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{vary}\r\n");
            let new = Seen::read(head.as_bytes()).rewrite(head.as_bytes(), &Change::default());
            assert_eq!(String::from_utf8(new).unwrap(), format!("HTTP/1.1 200 OK\r\n{expected}\r\n"));
        }
    }
}
