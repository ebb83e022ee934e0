//! The head of a request: request line and fields (RFC 9112 §2–§6), and what follows from them.
//!
//! Does not read the body (see [`body`](crate::body)) and does not interpret fields that decide nothing about the
//! message itself. Stricter than the RFC where two readers could differ: both `Content-Length` and
//! `Transfer-Encoding`, repeated lengths, line folding, and line feeds without carriage return are refused.
//!
//! The bytes are looked at once for line ends and control bytes, as they arrive, and once more when the head is
//! complete. A head that arrives byte by byte therefore costs no more than one that arrives whole.

use std::borrow::Cow;
use std::fmt;

use crate::framing::{Decisive, Framing};
use crate::query::percent_decode;
use crate::target;
use crate::token::{field_line, is_token_byte};
use crate::{Error, Limits};

/// A version of HTTP. Minor versions above 1 are read as 1 (RFC 9110 §2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2, of which nothing but the fields of a head is here.
    Http2,
}

#[derive(Debug, Clone, Copy, Default)]
struct Span {
    at: u32,
    len: u32,
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        let at = self.at as usize;
        bytes.get(at..at + self.len as usize).unwrap_or_default()
    }

    /// Where `part`, a slice of `whole`, lies. Both come from the same head, which is shorter than 4 GiB.
    fn within(whole: &[u8], part: &[u8]) -> Span {
        let at = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        Span { at: at as u32, len: part.len() as u32 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Field {
    name: Span,
    value: Span,
}

/// What the head says, without its bytes.
#[derive(Debug, Clone, Copy)]
struct Facts {
    version: Version,
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
    upgrade: bool,
    websocket: bool,
    escaped: bool,
    absolute: bool,
    method: Span,
    target: Span,
    scheme: Span,
    path: Span,
    query: Span,
    host: Span,
}

impl Default for Facts {
    fn default() -> Self {
        Facts {
            version: Version::Http11,
            framing: Framing::None,
            keep_alive: false,
            expects_continue: false,
            upgrade: false,
            websocket: false,
            escaped: false,
            absolute: false,
            method: Span::default(),
            target: Span::default(),
            scheme: Span::default(),
            path: Span::default(),
            query: Span::default(),
            host: Span::default(),
        }
    }
}

/// Room for lines that spares most heads from growing a list step by step.
const USUAL_LINES: usize = 24;

/// How far an incomplete head has been looked at.
#[derive(Debug, Clone, Default)]
struct Scan {
    /// Bytes looked at.
    seen: usize,
    /// Where the request line begins: behind the empty lines that were skipped.
    start: usize,
    /// Where the current line begins.
    line: usize,
    /// Where each line before it ends, without its line end.
    ends: Vec<u32>,
    /// Empty lines skipped.
    skipped: usize,
    /// Whether the last call ended this head.
    over: bool,
}

impl Scan {
    fn restart(&mut self) {
        self.seen = 0;
        self.start = 0;
        self.line = 0;
        self.ends.clear();
        self.skipped = 0;
        self.over = false;
    }
}

/// The head of a request. Owns its bytes; reusable, and then it allocates nothing.
#[derive(Clone, Default)]
pub struct RequestHead {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    facts: Facts,
    /// The value of the field that [`identify`](RequestHead::identify) has added; empty if none.
    id: Span,
    scan: Scan,
}

impl RequestHead {
    /// An empty head, ready to [`parse`](Self::parse).
    #[must_use]
    pub fn new() -> Self {
        RequestHead::default()
    }

    /// Reads a head from the beginning of `buf`.
    ///
    /// Returns the number of bytes that the head took, or `None` if it is not complete: then call again with the
    /// same bytes and more behind them. After anything but `None` the next call begins a new head.
    ///
    /// # Errors
    /// See [`Error`]. The connection cannot be used any further. If the request line was good, it can be asked for,
    /// which is of use in a log; nothing else can.
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, Error> {
        if self.scan.over || buf.len() < self.scan.seen {
            self.restart();
        }
        match self.find_end(buf, limits) {
            Ok(None) => Ok(None),
            Ok(Some(end)) => {
                self.scan.over = true;
                self.read(buf.get(self.scan.start..end).unwrap_or_default(), limits)?;
                Ok(Some(end))
            }
            Err(()) => {
                self.scan.over = true;
                Err(first_error(buf, limits))
            }
        }
    }

    /// Notes that the head has come by HTTP/2, which frames the body and keeps the connection by itself.
    pub(crate) fn carried_by_http2(&mut self, framing: Framing, websocket: bool) {
        self.facts.version = Version::Http2;
        self.facts.framing = framing;
        self.facts.keep_alive = false;
        self.facts.upgrade = false;
        self.facts.websocket = websocket;
    }

    /// Forgets everything; the next call of [`parse`](Self::parse) begins a new head.
    pub fn restart(&mut self) {
        self.scan.restart();
        self.bytes.clear();
        self.fields.clear();
        self.facts = Facts::default();
        self.id = Span::default();
    }

    /// Whether [`parse`](Self::parse) has seen the beginning of a head (more than skipped empty lines).
    #[must_use]
    pub fn is_begun(&self) -> bool {
        !self.scan.over && self.scan.seen > self.scan.start
    }

    /// Finds the empty line that ends the head. `Err` says that something is wrong; [`first_error`] says what.
    fn find_end(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, ()> {
        let scan = &mut self.scan;
        if scan.ends.capacity() == 0 {
            scan.ends.reserve_exact(USUAL_LINES);
        }
        let from = scan.seen;
        let mut end = None;
        for at in memchr::memchr_iter(b'\n', buf.get(from..).unwrap_or_default()) {
            let feed = from + at;
            let length = feed - scan.line;
            if length < 2 {
                if !scan.ends.is_empty() {
                    end = Some(feed + 1);
                    break;
                }
                scan.skipped += 1;
                if scan.skipped > limits.empty_lines {
                    return Err(());
                }
                scan.start = feed + 1;
            } else {
                let most = if scan.ends.is_empty() { limits.request_line } else { limits.field };
                if length - 1 > most || scan.ends.len() > limits.fields {
                    return Err(());
                }
                scan.ends.push((feed - 1) as u32);
            }
            scan.line = feed + 1;
        }
        let until = end.unwrap_or(buf.len());
        // One byte of the last call is looked at again: its partner may have arrived now.
        let fresh = buf.get(from.saturating_sub(1)..until).unwrap_or_default();
        if (from == 0 && fresh.first() == Some(&b'\n')) || !bytes_are_clean(fresh) {
            return Err(());
        }
        if until - scan.start > limits.head.min(u32::MAX as usize / 2) {
            return Err(());
        }
        if buf.get(scan.start).is_some_and(|&byte| !is_token_byte(byte) && byte != b'\r') {
            return Err(());
        }
        if end.is_none() {
            let length = buf.len() - scan.line;
            let most = if scan.ends.is_empty() { limits.request_line } else { limits.field };
            // A carriage return at the end may be half of the line end, which does not count.
            let length = length - usize::from(buf.last() == Some(&b'\r') && length > 0);
            if length > most {
                return Err(());
            }
            scan.seen = buf.len();
        }
        Ok(end)
    }

    fn read(&mut self, head: &[u8], limits: &Limits) -> Result<(), Error> {
        self.bytes.extend_from_slice(head);
        self.fields.reserve_exact(self.scan.ends.len());
        let mut decisive = Decisive::default();
        let mut from = 0;
        for &end in &self.scan.ends {
            let end = end as usize - self.scan.start;
            let line = head.get(from..end).unwrap_or_default();
            if from == 0 {
                self.facts = request_line(head, line, limits)?;
            } else {
                let field = field_line(line, limits)?;
                if !field.dropped {
                    self.fields.push(Field {
                        name: Span::within(head, field.name),
                        value: Span::within(head, field.value),
                    });
                    decisive.field(field.name, field.value)?;
                }
            }
            from = end + 2;
        }
        let decision = decisive.decide(self.facts.version, limits)?;
        let facts = &mut self.facts;
        // RFC 9112 §3.2.2: the authority of an absolute target overrides the field.
        if let (Some(host), false) = (decision.host, facts.absolute) {
            facts.host = Span::within(head, host);
        }
        facts.framing = decision.framing;
        facts.keep_alive = decision.keep_alive;
        facts.expects_continue = decision.expects_continue;
        facts.upgrade = decision.upgrade;
        facts.websocket = decision.websocket && facts.method.of(head) == b"GET";
        Ok(())
    }

    /// The method, as sent.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.facts.method.of(&self.bytes)
    }

    /// Whether the method is HEAD.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// The request target, as sent.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.facts.target.of(&self.bytes)
    }

    /// The path, still percent-encoded; `/` where an absolute target has none, `*` for the asterisk form.
    #[must_use]
    pub fn raw_path(&self) -> &[u8] {
        match self.facts.path.of(&self.bytes) {
            // RFC 9112 §3.2.4: OPTIONS for an absolute URI with neither path nor query means the server as a whole.
            [] if self.method() == b"OPTIONS" && self.facts.query.len == 0 => b"*",
            [] => b"/",
            path => path,
        }
    }

    /// The path, percent-decoded: what WSGI calls `PATH_INFO`. Escapes that are no escapes stay as they are.
    #[must_use]
    pub fn path(&self) -> Cow<'_, [u8]> {
        if self.facts.escaped { percent_decode(self.raw_path()) } else { Cow::Borrowed(self.raw_path()) }
    }

    /// The query, still encoded, without its `?`.
    #[must_use]
    pub fn query(&self) -> &[u8] {
        self.facts.query.of(&self.bytes)
    }

    /// Host and port, from an absolute target or else from `Host`; empty for an HTTP/1.0 request without either.
    #[must_use]
    pub fn host(&self) -> &[u8] {
        self.facts.host.of(&self.bytes)
    }

    /// The scheme of an absolute target.
    #[must_use]
    pub fn scheme(&self) -> Option<&[u8]> {
        self.facts.absolute.then(|| self.facts.scheme.of(&self.bytes))
    }

    /// The version that the client speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.facts.version
    }

    /// How the end of the body is found.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.facts.framing
    }

    /// Whether the client wants to keep the connection (RFC 9112 §9.3).
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.facts.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends a body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.facts.expects_continue
    }

    /// Whether the client offers another protocol (RFC 9110 §7.8).
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.facts.upgrade
    }

    /// Whether the client asks for a WebSocket (RFC 6455 §4.1); the handshake's other fields are not checked.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.facts.websocket
    }

    /// The first field of this name, which is given in lower case.
    #[must_use]
    pub fn field(&self, lower_name: &[u8]) -> Option<&[u8]> {
        self.position(lower_name, 0).map(|(_, value)| value)
    }

    /// All fields of this name, which is given in lower case, in order.
    pub fn field_values<'a>(&'a self, lower_name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let (at, value) = self.position(lower_name, from)?;
            from = at + 1;
            Some(value)
        })
    }

    /// The first field of this name from the given one on.
    fn position(&self, lower_name: &[u8], from: usize) -> Option<(usize, &[u8])> {
        for (at, field) in self.fields.iter().enumerate().skip(from) {
            if field.name.len as usize == lower_name.len()
                && field.name.of(&self.bytes).eq_ignore_ascii_case(lower_name)
            {
                return Some((at, field.value.of(&self.bytes)));
            }
        }
        None
    }

    /// Gives the request a name of its own, as a field that takes the place of those of this name that have come.
    /// Name and value are ASCII and fit to be sent; a head has room for 4 GiB of them.
    pub fn identify(&mut self, name: &str, id: &str) {
        let lower = name.to_ascii_lowercase();
        let (bytes, fields) = (&mut self.bytes, &mut self.fields);
        fields.retain(|field| !field.name.of(bytes).eq_ignore_ascii_case(lower.as_bytes()));
        let mut keep = |text: &str| {
            let span = Span { at: bytes.len() as u32, len: text.len() as u32 };
            bytes.extend_from_slice(text.as_bytes());
            span
        };
        let field = Field { name: keep(name), value: keep(id) };
        self.id = field.value;
        fields.push(field);
    }

    /// The name that the request was [given](Self::identify), if it was.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        if self.id.len == 0 { None } else { std::str::from_utf8(self.id.of(&self.bytes)).ok() }
    }

    /// All fields in order, with names as sent.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (field.name.of(&self.bytes), field.value.of(&self.bytes)))
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &String::from_utf8_lossy(self.method()))
            .field("target", &String::from_utf8_lossy(self.target()))
            .field("version", &self.version())
            .field("framing", &self.framing())
            .finish_non_exhaustive()
    }
}

/// Whether line ends are whole and no control byte but tab stands between them. Branchless, so that it is vectorised.
fn bytes_are_clean(bytes: &[u8]) -> bool {
    let mut bad = false;
    for (&this, &next) in bytes.iter().zip(bytes.get(1..).unwrap_or_default()) {
        bad |= (this == b'\r') != (next == b'\n');
        bad |= (this < b' ') & (this != b'\t') & (this != b'\r') & (this != b'\n');
        bad |= this == 127;
    }
    if let Some(&last) = bytes.last() {
        bad |= is_bad_control(last);
    }
    !bad
}

fn is_bad_control(byte: u8) -> bool {
    byte == 127 || (byte < b' ' && !matches!(byte, b'\t' | b'\r' | b'\n'))
}

/// What is wrong in a head that [`RequestHead::find_end`] refuses: the first fault in the order of bytes, so that it
/// does not depend on how the bytes arrived.
#[cold]
fn first_error(buf: &[u8], limits: &Limits) -> Error {
    let mut line = 0;
    let mut start = 0;
    let mut lines = 0_usize;
    let mut skipped = 0;
    let mut before = 0;
    for (at, &byte) in buf.iter().enumerate() {
        if before == b'\r' && byte != b'\n' {
            return Error::BareCr;
        }
        if before != b'\r' && byte == b'\n' {
            return Error::BareLf;
        }
        if byte == 0 {
            return Error::Nul;
        }
        if is_bad_control(byte) {
            return Error::Control;
        }
        if lines == 0 && at == line && !is_token_byte(byte) && byte != b'\r' {
            return Error::BadMethod;
        }
        if at - start >= limits.head {
            return Error::LongHead;
        }
        if byte == b'\n' {
            if at - line < 2 {
                skipped += 1;
                if skipped > limits.empty_lines {
                    return Error::EmptyLines;
                }
                start = at + 1;
            } else {
                lines += 1;
                if lines > limits.fields + 1 {
                    return Error::ManyFields;
                }
            }
            line = at + 1;
        } else if byte != b'\r' && at - line >= if lines == 0 { limits.request_line } else { limits.field } {
            return if lines == 0 { Error::LongRequestLine } else { Error::LongField };
        }
        before = byte;
    }
    Error::LongHead
}

/// `request-line = method SP request-target SP HTTP-version`
fn request_line(head: &[u8], line: &[u8], limits: &Limits) -> Result<Facts, Error> {
    let length = line.iter().take_while(|&&byte| is_token_byte(byte)).count();
    let (method, rest) = line.split_at_checked(length).ok_or(Error::BadMethod)?;
    let Some((b' ', rest)) = rest.split_first() else { return Err(Error::BadMethod) };
    if method.is_empty() {
        return Err(Error::BadMethod);
    }
    if method.len() > limits.method {
        return Err(Error::LongMethod);
    }
    let space = memchr::memchr(b' ', rest).ok_or(Error::BadVersion)?;
    let (target, version) = rest.split_at_checked(space).ok_or(Error::BadTarget)?;
    let version = match version.strip_prefix(b" HTTP/").ok_or(Error::BadVersion)? {
        b"1.1" => Version::Http11,
        b"1.0" => Version::Http10,
        [b'1', b'.', minor] if minor.is_ascii_digit() => Version::Http11,
        [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Error::UnknownVersion);
        }
        _ => return Err(Error::BadVersion),
    };
    let parts = target::parse(method, target, limits)?;
    Ok(Facts {
        version,
        escaped: parts.escaped,
        absolute: parts.scheme.is_some(),
        method: Span::within(head, method),
        target: Span::within(head, target),
        scheme: parts.scheme.map_or(Span::default(), |scheme| Span::within(head, scheme)),
        path: Span::within(head, parts.path),
        query: Span::within(head, parts.query),
        host: parts.authority.map_or(Span::default(), |authority| Span::within(head, authority)),
        ..Facts::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<RequestHead, Error> {
        let mut head = RequestHead::new();
        match head.parse(text, &Limits::default())? {
            Some(_) => Ok(head),
            None => panic!("incomplete"),
        }
    }

    #[test]
    fn a_browser_like_head_is_read() {
        let text =
            b"GET /a%20b?c=d&e HTTP/1.1\r\nHost: example.org:8000\r\nCookie: a=b\r\nACCEPT: */*\r\n\r\nrest";
        let mut head = RequestHead::new();
        assert_eq!(head.parse(text, &Limits::default()), Ok(Some(text.len() - 4)));
        assert_eq!(head.method(), b"GET");
        assert_eq!(head.target(), b"/a%20b?c=d&e");
        assert_eq!(head.raw_path(), b"/a%20b");
        assert_eq!(&*head.path(), b"/a b");
        assert_eq!(head.query(), b"c=d&e");
        assert_eq!(head.host(), b"example.org:8000");
        assert_eq!(head.field(b"accept"), Some(b"*/*".as_slice()));
        assert_eq!(head.field(b"accep"), None);
        assert_eq!(head.framing(), Framing::None);
        assert!(head.keep_alive() && !head.is_upgrade());
    }

    #[test]
    fn a_head_is_reusable_after_an_error_and_after_success() {
        let mut head = RequestHead::new();
        let limits = Limits::default();
        assert_eq!(head.parse(b"PUT /1 HTTP/1.1\r\n\r\n", &limits), Err(Error::NoHost));
        assert_eq!((head.method(), head.target()), (b"PUT".as_slice(), b"/1".as_slice()));
        assert_eq!(head.parse(b"\x00", &limits), Err(Error::Nul));
        assert_eq!(
            (head.method(), head.target(), head.host()),
            (b"".as_slice(), b"".as_slice(), b"".as_slice())
        );
        assert_eq!(head.parse(b"GET / HTTP/1.1\r\nHost: a\r\n", &limits), Ok(None));
        assert!(head.is_begun());
        assert_eq!(head.parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", &limits), Ok(Some(27)));
        assert_eq!(head.parse(b"\r\nGET /2 HTTP/1.0\r\n\r\n", &limits), Ok(Some(21)));
        assert_eq!((head.target(), head.host(), head.fields().len()), (b"/2".as_slice(), b"".as_slice(), 0));
    }

    #[test]
    fn fields_keep_order_case_and_repetition() {
        let head = parse(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a:2 \r\n\r\n").unwrap();
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(fields[1..], [(b"X-A".as_slice(), b"1".as_slice()), (b"x-a", b"2")]);
        assert_eq!(head.field_values(b"x-a").collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn names_with_underscores_are_left_out_refused_or_kept() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\nX_A: 1\r\n\r\n";
        assert_eq!(parse(text).unwrap().fields().len(), 1);
        assert_eq!(
            parse(b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1\r\n\r\n").unwrap_err(),
            Error::ShadowingName
        );
        let mut head = RequestHead::new();
        let keep = Limits { underscores: crate::Underscores::Keep, ..Limits::default() };
        assert!(head.parse(text, &keep).is_ok_and(|taken| taken.is_some()));
        assert_eq!(head.field(b"x_a"), Some(b"1".as_slice()));
        let refuse = Limits { underscores: crate::Underscores::Refuse, ..Limits::default() };
        assert_eq!(head.parse(text, &refuse), Err(Error::ShadowingName));
    }
}
