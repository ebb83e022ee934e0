//! The head of a response and the framing of its body (RFC 9112 §6, §7, §9; RFC 9110 §6.6.1, §8.6, §15).
//!
//! Whatever the application says about lengths and codings, what goes out is framed so that the next response on
//! the connection begins where the client expects it: a wrong `Content-Length` is corrected where the body is known,
//! and kept by cutting or closing where it is streamed ([`BodyEncoder`]).

use std::fmt;

pub use crate::status::reason_phrase;
use crate::token::{is_token, is_token_byte, trim};
use crate::{Trailers, Version, date, trailer};

/// What the fields `Date` and `Server` say: made once a second, copied into each response.
#[derive(Debug, Clone)]
pub struct Stamp {
    date: [u8; DATE.len() + 31],
    both: Vec<u8>,
}

const DATE: &[u8] = b"Date: ";

impl Stamp {
    /// A stamp for this second (since 1970-01-01 UTC), with this `Server` field unless it is empty.
    #[must_use]
    pub fn new(server: &str, seconds: i64) -> Self {
        let mut line = [0; DATE.len() + 31];
        let text = date::format(seconds);
        for (place, byte) in line.iter_mut().zip(DATE.iter().chain(&text).chain(b"\r\n")) {
            *place = *byte;
        }
        let mut both = Vec::with_capacity(64);
        if !server.is_empty() && value_is_valid(server.as_bytes()) {
            both.extend_from_slice(b"Server: ");
            both.extend_from_slice(server.as_bytes());
            both.extend_from_slice(b"\r\n");
        }
        both.extend_from_slice(&line);
        Stamp { date: line, both }
    }

    fn server(&self) -> &[u8] {
        self.both.get(..self.both.len() - self.date.len()).unwrap_or_default()
    }
}

/// What of the request and the connection decides about the response.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// The version that the client speaks.
    pub version: Version,
    /// Whether the connection may be kept after this response.
    pub keep_alive: bool,
    /// Whether the request's method is HEAD.
    pub head: bool,
}

/// Why a part of a response head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldError {
    /// The status is not between 100 and 999.
    Status,
    /// The reason phrase holds a control byte.
    Reason,
    /// The field's name is no token.
    Name,
    /// The field's value holds a carriage return, line feed or zero byte.
    Value,
    /// `Content-Length` is not a number.
    Length,
    /// The field has no place among trailers.
    Trailer,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FieldError::Status => "a status code must have three digits",
            FieldError::Reason => "a reason phrase must not hold control characters",
            FieldError::Name => "a field name must be a token",
            FieldError::Value => "a field value must not hold CR, LF or NUL",
            FieldError::Length => "Content-Length must be a number",
            FieldError::Trailer => "the field has no place among trailers",
        })
    }
}

impl std::error::Error for FieldError {}

/// How the body that follows a finished head is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// No byte may follow: HEAD, 1xx, 204, 205, 304, or a complete body is already written.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until the connection is closed.
    Close,
}

/// What a finished head decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// How the rest of the body goes out.
    pub framing: BodyFraming,
    /// Whether the connection may be used again after the body.
    pub keep_alive: bool,
    /// The application's `Content-Length` was not the body's length, and has been replaced. Worth a log line.
    pub corrected: bool,
}

/// Writes a response head, and a short body behind it, to the end of a buffer.
#[derive(Debug)]
pub struct ResponseWriter<'o> {
    out: &'o mut Vec<u8>,
    begin: usize,
    exchange: Exchange,
    status: u16,
    length: Option<u64>,
    dated: bool,
    served: bool,
    close: bool,
    upgrade: bool,
    trailed: bool,
    body: usize,
}

impl<'o> ResponseWriter<'o> {
    /// A writer that appends to `out`. Call [`start`](Self::start) next.
    pub fn new(out: &'o mut Vec<u8>, exchange: Exchange) -> Self {
        ResponseWriter {
            begin: out.len(),
            out,
            exchange,
            status: 0,
            length: None,
            dated: false,
            served: false,
            close: !exchange.keep_alive,
            upgrade: false,
            trailed: false,
            body: 0,
        }
    }

    /// Writes the status line. Discards what this writer has written before.
    ///
    /// # Errors
    /// The status has not three digits, or the reason holds control bytes; nothing is written then.
    pub fn start(&mut self, status: u16, reason: Option<&str>) -> Result<(), FieldError> {
        self.reset();
        if !(100..1000).contains(&status) {
            return Err(FieldError::Status);
        }
        if let (200, None) = (status, reason) {
            self.out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            let reason = reason.unwrap_or_else(|| reason_phrase(status));
            if reason.bytes().any(|byte| byte != b'\t' && byte.is_ascii_control()) {
                return Err(FieldError::Reason);
            }
            self.out.extend_from_slice(b"HTTP/1.1 ");
            let digits = [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
            self.out.extend_from_slice(&digits);
            self.out.push(b' ');
            self.out.extend_from_slice(reason.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        }
        self.status = status;
        Ok(())
    }

    /// Writes a field.
    ///
    /// `Content-Length` is remembered and written at the end, if it proves right. `Transfer-Encoding`, `Keep-Alive`
    /// and `Connection` are the connection's own business and left out, but `Connection: close` is heeded, and an
    /// `Upgrade` is named in `Connection`.
    ///
    /// # Errors
    /// The name or value could be read as something else; nothing is written then.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldError> {
        if !is_token(name) {
            return Err(FieldError::Name);
        }
        if !value_is_valid(value) {
            return Err(FieldError::Value);
        }
        if self.is_own(name, value)? {
            return Ok(());
        }
        self.out.reserve(name.len() + value.len() + 4);
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Whether the field is one that the writer writes by itself.
    fn is_own(&mut self, name: &[u8], value: &[u8]) -> Result<bool, FieldError> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"date") => self.dated = true,
            6 if name.eq_ignore_ascii_case(b"server") => self.served = true,
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.close |=
                    value.split(|&byte| byte == b',').any(|o| trim(o).eq_ignore_ascii_case(b"close"));
                return Ok(true);
            }
            10 if name.eq_ignore_ascii_case(b"keep-alive") => return Ok(true),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.length = Some(number(trim(value)).ok_or(FieldError::Length)?);
                return Ok(true);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    /// Closes the connection after this response.
    pub fn close(&mut self) {
        self.close = true;
    }

    /// Has the body framed so that trailers can follow it, if it goes out by
    /// [`finish_with_stream`](Self::finish_with_stream) or [`finish_with_trailers`](Self::finish_with_trailers): in
    /// chunks. On HTTP/2, too, for whoever carries the response to undo, and without a length there: some clients
    /// hear nothing that comes behind it. To HTTP/1.0 none can be sent.
    pub fn trail(&mut self) {
        self.trailed = self.exchange.version != Version::Http10;
    }

    /// Takes back everything that this writer has written.
    pub fn reset(&mut self) {
        self.out.truncate(self.begin);
        self.status = 0;
        self.length = None;
        self.dated = false;
        self.served = false;
        self.close = !self.exchange.keep_alive;
        self.upgrade = false;
        self.trailed = false;
        self.body = 0;
    }

    /// The status given to [`start`](Self::start); 0 before.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Where in the buffer the body begins; 0 before the head is finished.
    #[must_use]
    pub fn body_begins(&self) -> usize {
        self.body
    }

    /// The buffer that is written to.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.out.get(self.begin..).unwrap_or_default()
    }

    /// Ends the head and writes the whole body, unless this response has none. Then, as after each `finish…`, only
    /// [`reset`](Self::reset) and [`start`](Self::start) make sense: they take the response back.
    pub fn finish(&mut self, stamp: &Stamp, body: &[u8]) -> Finished {
        self.finish_with_pieces(stamp, &[body])
    }

    /// The same for a body that lies in several places.
    pub fn finish_with_pieces(&mut self, stamp: &Stamp, pieces: &[&[u8]]) -> Finished {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let corrected = self.length.is_some_and(|given| given != length) && self.has_body();
        if self.has_body() {
            self.write_length(length);
            self.end_head(stamp);
            for piece in pieces {
                self.out.extend_from_slice(piece);
            }
        } else {
            // An empty body in answer to HEAD is none made, rather than one of length 0.
            self.without_body(stamp, (length > 0).then_some(length));
        }
        Finished { framing: BodyFraming::None, keep_alive: self.keeps(), corrected }
    }

    /// The same with trailers behind the body, if there can be any.
    pub fn finish_with_trailers(&mut self, stamp: &Stamp, pieces: &[&[u8]], trailers: &Trailers) -> Finished {
        self.trail();
        if !self.trailed || !self.has_body() {
            return self.finish_with_pieces(stamp, pieces);
        }
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let corrected = self.length.is_some_and(|given| given != length);
        self.length = Some(length);
        let finished = self.finish_with_stream(stamp);
        let mut encoder = BodyEncoder::new(finished.framing);
        for piece in pieces {
            // Chunks may be as many as there are.
            let _ = encoder.write(piece, self.out);
        }
        let _ = encoder.end_with(trailers, self.out);
        Finished { framing: BodyFraming::None, corrected, ..finished }
    }

    /// Ends the head of a response whose body follows and has this length, for example a file.
    pub fn finish_with_length(&mut self, stamp: &Stamp, length: u64) -> Finished {
        if !self.has_body() {
            self.without_body(stamp, Some(length));
            return Finished { framing: BodyFraming::None, keep_alive: self.keeps(), corrected: false };
        }
        let corrected = self.length.is_some_and(|given| given != length);
        self.write_length(length);
        self.end_head(stamp);
        Finished { framing: BodyFraming::Length(length), keep_alive: self.keeps(), corrected }
    }

    /// Ends the head of a response whose body follows in pieces of unknown length: framed by the application's
    /// `Content-Length` if it gave one, else in chunks, else (HTTP/1.0) by closing.
    pub fn finish_with_stream(&mut self, stamp: &Stamp) -> Finished {
        let framing = if !self.has_body() {
            self.without_body(stamp, None);
            BodyFraming::None
        } else if self.trailed {
            self.out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            self.end_head(stamp);
            BodyFraming::Chunked
        } else if let Some(length) = self.length {
            self.write_length(length);
            self.end_head(stamp);
            BodyFraming::Length(length)
        } else if self.exchange.version == Version::Http11 {
            self.out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            self.end_head(stamp);
            BodyFraming::Chunked
        } else {
            self.close = true;
            self.end_head(stamp);
            BodyFraming::Close
        };
        Finished { framing, keep_alive: self.keeps(), corrected: false }
    }

    /// RFC 9112 §6.3, first rule; 205 too must not have content (RFC 9110 §15.3.6).
    fn has_body(&self) -> bool {
        !self.exchange.head && !matches!(self.status, 100..=199 | 204 | 205 | 304)
    }

    /// Ends a head that no body follows. `length` is what the body of a GET would have had.
    fn without_body(&mut self, stamp: &Stamp, length: Option<u64>) {
        match self.status {
            // RFC 9110 §8.6: these must not have the field.
            100..=199 | 204 => {}
            205 => self.write_length(0),
            // What a 200 would have said; only the application can know.
            304 => {
                if let Some(length) = self.length {
                    self.write_length(length);
                }
            }
            _ => {
                if let Some(length) = self.length.or(length) {
                    self.write_length(length);
                }
            }
        }
        self.end_head(stamp);
    }

    fn write_length(&mut self, length: u64) {
        self.out.extend_from_slice(b"Content-Length: ");
        write_decimal(self.out, length);
        self.out.extend_from_slice(b"\r\n");
    }

    fn end_head(&mut self, stamp: &Stamp) {
        if self.status >= 200 {
            match (self.dated, self.served) {
                (false, false) => self.out.extend_from_slice(&stamp.both),
                (false, true) => self.out.extend_from_slice(&stamp.date),
                (true, false) => self.out.extend_from_slice(stamp.server()),
                (true, true) => {}
            }
        }
        // RFC 9112 §9.3: a 1.1 connection stays open unless said otherwise, a 1.0 connection the other way round.
        // RFC 9110 §7.8: who sends Upgrade names it here.
        let options: &[u8] = match (self.keeps() || self.status < 200, self.exchange.version, self.upgrade) {
            (true, Version::Http11, false) => b"",
            (true, Version::Http11, true) => b"Connection: upgrade\r\n",
            (true, Version::Http10, _) => b"Connection: keep-alive\r\n",
            // Whoever carries the response says so by other means.
            (_, Version::Http2, _) => b"",
            (false, _, false) => b"Connection: close\r\n",
            (false, _, true) => b"Connection: close, upgrade\r\n",
        };
        self.out.extend_from_slice(options);
        self.out.extend_from_slice(b"\r\n");
        self.body = self.out.len();
    }

    fn keeps(&self) -> bool {
        !self.close
    }
}

/// Writes an interim response (RFC 9110 §15.2), such as 103 Early Hints. Fields that frame a message or speak about the
/// connection are left out.
///
/// # Errors
/// The status is no interim one, or a name or value cannot be sent; then nothing is written.
pub fn interim<'a>(
    out: &mut Vec<u8>,
    code: u16,
    fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), FieldError> {
    const NOT_HERE: [&[u8]; 8] = [
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ];
    if !(100..200).contains(&code) || code == 101 {
        return Err(FieldError::Status);
    }
    let mut head = format!("HTTP/1.1 {code} {}\r\n", reason_phrase(code)).into_bytes();
    for (name, value) in fields {
        if !is_token(name) {
            return Err(FieldError::Name);
        }
        if !value_is_valid(value) {
            return Err(FieldError::Value);
        }
        if !NOT_HERE.iter().any(|other| name.eq_ignore_ascii_case(other)) {
            for part in [name, b": ", value, b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
    }
    head.extend_from_slice(b"\r\n");
    out.append(&mut head);
    Ok(())
}

/// What `Expect: 100-continue` waits for.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Writes a streamed body so that it keeps to its framing.
#[derive(Debug, Clone, Copy)]
pub struct BodyEncoder {
    framing: BodyFraming,
    left: u64,
    ended: bool,
}

/// A streamed body that does not have the length announced for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongLength {
    /// Whether it had more bytes (which were dropped) or fewer (so that the connection must be closed).
    pub too_long: bool,
}

impl BodyEncoder {
    /// An encoder for what a finished head decided.
    #[must_use]
    pub fn new(framing: BodyFraming) -> Self {
        let left = match framing {
            BodyFraming::None => 0,
            BodyFraming::Length(length) => length,
            BodyFraming::Chunked | BodyFraming::Close => u64::MAX,
        };
        BodyEncoder { framing, left, ended: false }
    }

    /// Whether nothing more can be sent: the source of the body need not be asked again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.left == 0 || self.ended
    }

    /// Writes a piece. An empty piece writes nothing.
    ///
    /// # Errors
    /// The piece goes beyond the length announced; what fits is written, and the connection stays usable.
    pub fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), WrongLength> {
        match self.framing {
            BodyFraming::None => {}
            BodyFraming::Close => out.extend_from_slice(piece),
            BodyFraming::Chunked if piece.is_empty() || self.ended => {}
            BodyFraming::Chunked => {
                write_hex(out, piece.len() as u64);
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
            }
            BodyFraming::Length(_) => {
                let fits = usize::try_from(self.left).unwrap_or(usize::MAX).min(piece.len());
                out.extend_from_slice(piece.get(..fits).unwrap_or_default());
                self.left -= fits as u64;
                if fits < piece.len() {
                    return Err(WrongLength { too_long: true });
                }
            }
        }
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// The body is shorter than announced: the connection must be closed, so that the client notices.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), WrongLength> {
        self.end_with(&Trailers::new(), out)
    }

    /// Ends the body with trailers, where its framing has room for them.
    ///
    /// # Errors
    /// As [`end`](Self::end).
    pub fn end_with(&mut self, trailers: &Trailers, out: &mut Vec<u8>) -> Result<(), WrongLength> {
        if self.framing == BodyFraming::Chunked && !self.ended {
            trailer::write_end(out, trailers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())));
        }
        self.ended = true;
        match self.framing {
            BodyFraming::Length(_) if self.left > 0 => Err(WrongLength { too_long: false }),
            _ => Ok(()),
        }
    }
}

/// Whether a field's value cannot be read as more than a value.
#[must_use]
pub fn value_is_valid(value: &[u8]) -> bool {
    let mut bad = false;
    for &byte in value {
        bad |= (byte == b'\r') | (byte == b'\n') | (byte == 0);
    }
    !bad
}

/// Whether a field's name is a token.
#[must_use]
pub fn name_is_valid(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| is_token_byte(byte))
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut count = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - count..).unwrap_or_default());
}

fn write_hex(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 16];
    let mut count = 0;
    for place in digits.iter_mut().rev() {
        let digit = (number & 15) as u8;
        *place = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        number >>= 4;
        count += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(16 - count..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Exchange = Exchange { version: Version::Http11, keep_alive: true, head: false };
    const HEAD: Exchange = Exchange { head: true, ..KEEP };
    const CLOSE: Exchange = Exchange { keep_alive: false, ..KEEP };
    const OLD: Exchange = Exchange { version: Version::Http10, ..KEEP };
    const OLD_CLOSE: Exchange = Exchange { keep_alive: false, ..OLD };
    const STAMP: &str = "Server: hipflask\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    fn stamp() -> Stamp {
        Stamp::new("hipflask", 784_111_777)
    }

    /// What is written for these fields; the stamp is left out of it.
    fn write(
        exchange: Exchange,
        status: u16,
        fields: &[(&str, &str)],
        finish: impl FnOnce(ResponseWriter<'_>, &Stamp) -> Finished,
    ) -> (String, Finished) {
        let mut out = b"before".to_vec();
        let mut writer = ResponseWriter::new(&mut out, exchange);
        writer.start(status, None).unwrap();
        for (name, value) in fields {
            writer.field(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let finished = finish(writer, &stamp());
        let text = String::from_utf8(out).unwrap();
        (text.strip_prefix("before").unwrap().replace(STAMP, ""), finished)
    }

    fn body(bytes: &'static [u8]) -> impl FnOnce(ResponseWriter<'_>, &Stamp) -> Finished {
        move |mut writer, stamp| writer.finish(stamp, bytes)
    }

    #[test]
    fn a_plain_answer_is_written_whole() {
        let mut out = Vec::new();
        let mut writer = ResponseWriter::new(&mut out, KEEP);
        writer.start(200, None).unwrap();
        writer.field(b"Content-Type", b"text/plain").unwrap();
        let finished = writer.finish_with_pieces(&stamp(), &[b"a", b"", b"bc"]);
        let expected =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n{STAMP}\r\nabc");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(finished, Finished { framing: BodyFraming::None, keep_alive: true, corrected: false });
    }

    #[test]
    fn a_buffered_body_has_its_own_length_whatever_the_application_says() {
        for (given, corrected) in [("2", false), ("5", true), ("0", true), ("18446744073709551615", true)] {
            let (text, finished) = write(KEEP, 200, &[("Content-Length", given)], body(b"hi"));
            assert_eq!(text, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
            assert_eq!(finished.corrected, corrected);
        }
    }

    #[test]
    fn answers_without_a_body_have_none() {
        for (exchange, status, fields, expected) in [
            (HEAD, 200, vec![], "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
            (HEAD, 200, vec![("Content-Length", "99")], "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
            (KEEP, 204, vec![("Content-Length", "2")], "HTTP/1.1 204 NO CONTENT\r\n\r\n"),
            (KEEP, 205, vec![], "HTTP/1.1 205 RESET CONTENT\r\nContent-Length: 0\r\n\r\n"),
            (KEEP, 304, vec![], "HTTP/1.1 304 NOT MODIFIED\r\n\r\n"),
            (
                KEEP,
                304,
                vec![("Content-Length", "7")],
                "HTTP/1.1 304 NOT MODIFIED\r\nContent-Length: 7\r\n\r\n",
            ),
            (KEEP, 103, vec![("Link", "</a>")], "HTTP/1.1 103 EARLY HINTS\r\nLink: </a>\r\n\r\n"),
        ] {
            let (text, finished) = write(exchange, status, &fields, body(b"hi"));
            assert_eq!(text, expected);
            assert_eq!(finished, Finished { framing: BodyFraming::None, keep_alive: true, corrected: false });
            let (text, finished) =
                write(exchange, status, &fields, |mut writer, stamp| writer.finish_with_length(stamp, 2));
            assert_eq!((text.as_str(), finished.framing), (expected, BodyFraming::None));
            let (text, finished) =
                write(exchange, status, &fields, |mut writer, stamp| writer.finish_with_stream(stamp));
            assert!(!text.contains("chunked") && text.ends_with("\r\n\r\n"), "{text}");
            assert_eq!(finished.framing, BodyFraming::None);
        }
        let (text, _) = write(HEAD, 200, &[], body(b""));
        assert_eq!(text, "HTTP/1.1 200 OK\r\n\r\n");
    }

    #[test]
    fn the_connection_is_named_where_the_version_needs_it() {
        for (exchange, fields, expected, keeps) in [
            (KEEP, vec![], "", true),
            (CLOSE, vec![], "Connection: close\r\n", false),
            (OLD, vec![], "Connection: keep-alive\r\n", true),
            (OLD_CLOSE, vec![], "Connection: close\r\n", false),
            (KEEP, vec![("Connection", "foo, Close")], "Connection: close\r\n", false),
            (CLOSE, vec![("Connection", "keep-alive")], "Connection: close\r\n", false),
            (KEEP, vec![("Keep-Alive", "timeout=5")], "", true),
        ] {
            let (text, finished) = write(exchange, 200, &fields, body(b""));
            assert_eq!(text, format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{expected}\r\n"));
            assert_eq!(finished.keep_alive, keeps);
        }
        let (text, _) = write(KEEP, 101, &[("Upgrade", "websocket"), ("Connection", "Upgrade")], body(b""));
        assert_eq!(
            text,
            "HTTP/1.1 101 SWITCHING PROTOCOLS\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
        );
    }

    #[test]
    fn a_stream_is_framed_by_length_chunks_or_closing() {
        let stream = |mut writer: ResponseWriter<'_>, stamp: &Stamp| writer.finish_with_stream(stamp);
        let (text, finished) = write(KEEP, 200, &[("Transfer-Encoding", "gzip")], stream);
        assert_eq!(text, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(finished, Finished { framing: BodyFraming::Chunked, keep_alive: true, corrected: false });
        let (text, finished) = write(OLD, 200, &[], stream);
        assert_eq!(text, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        assert_eq!(finished, Finished { framing: BodyFraming::Close, keep_alive: false, corrected: false });
        let (text, finished) = write(KEEP, 200, &[("content-length", " 5 ")], stream);
        assert_eq!(text, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(finished.framing, BodyFraming::Length(5));
        let (text, finished) = write(KEEP, 200, &[("Content-Length", "4")], |mut writer, stamp| {
            writer.finish_with_length(stamp, 5)
        });
        assert_eq!(text, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        assert!(finished.corrected);
    }

    #[test]
    fn trailers_follow_a_body_in_chunks() {
        const HTTP2: Exchange = Exchange { version: Version::Http2, ..KEEP };
        let trailers = vec![(b"X-Sum".to_vec(), b"5".to_vec())];
        let whole = |mut writer: ResponseWriter<'_>, stamp: &Stamp| {
            writer.finish_with_trailers(stamp, &[b"hi", b"", b"!"], &trailers)
        };
        let chunks = "2\r\nhi\r\n1\r\n!\r\n0\r\nX-Sum: 5\r\n\r\n";
        let length = "Content-Length: 3\r\n";
        for (exchange, status, expected) in [
            (KEEP, 200, format!("Transfer-Encoding: chunked\r\n\r\n{chunks}")),
            (HTTP2, 200, format!("Transfer-Encoding: chunked\r\n\r\n{chunks}")),
            (OLD, 200, format!("{length}Connection: keep-alive\r\n\r\nhi!")),
            (HEAD, 200, format!("{length}\r\n")),
            (KEEP, 204, "\r\n".to_owned()),
        ] {
            let (text, finished) = write(exchange, status, &[("Content-Length", "3")], whole);
            let (_, rest) = text.split_once("\r\n").unwrap();
            assert_eq!(rest, expected);
            assert_eq!(finished, Finished { framing: BodyFraming::None, keep_alive: true, corrected: false });
        }
        let stream = |mut writer: ResponseWriter<'_>, stamp: &Stamp| {
            writer.trail();
            writer.finish_with_stream(stamp)
        };
        for (exchange, framing) in
            [(KEEP, BodyFraming::Chunked), (HTTP2, BodyFraming::Chunked), (OLD, BodyFraming::Length(3))]
        {
            let (_, finished) = write(exchange, 200, &[("Content-Length", "3")], stream);
            assert_eq!(finished.framing, framing);
        }
    }

    #[test]
    fn a_stream_keeps_to_its_framing() {
        let mut out = Vec::new();
        let mut encoder = BodyEncoder::new(BodyFraming::Chunked);
        for piece in [&b"hello"[..], b"", &[b'x'; 26]] {
            encoder.write(piece, &mut out).unwrap();
        }
        encoder.end(&mut out).unwrap();
        encoder.end(&mut out).unwrap();
        assert_eq!(out, [&b"5\r\nhello\r\n1a\r\n"[..], &[b'x'; 26], b"\r\n0\r\n\r\n"].concat());

        out.clear();
        let mut encoder = BodyEncoder::new(BodyFraming::Length(5));
        assert_eq!(encoder.write(b"hel", &mut out), Ok(()));
        assert_eq!(encoder.end(&mut out), Err(WrongLength { too_long: false }));
        let mut encoder = BodyEncoder::new(BodyFraming::Length(5));
        out.clear();
        assert_eq!(encoder.write(b"hello world", &mut out), Err(WrongLength { too_long: true }));
        assert!(encoder.is_full());
        assert_eq!((encoder.end(&mut out), out.as_slice()), (Ok(()), &b"hello"[..]));

        out.clear();
        let mut encoder = BodyEncoder::new(BodyFraming::None);
        assert_eq!((encoder.write(b"hello", &mut out), encoder.end(&mut out)), (Ok(()), Ok(())));
        assert!(encoder.is_full() && out.is_empty());
        let mut encoder = BodyEncoder::new(BodyFraming::Close);
        assert_eq!((encoder.write(b"hello", &mut out), encoder.end(&mut out)), (Ok(()), Ok(())));
        assert_eq!(out, b"hello");
    }

    #[test]
    fn what_could_be_read_as_more_than_a_field_is_refused() {
        let mut out = Vec::new();
        let mut writer = ResponseWriter::new(&mut out, KEEP);
        assert_eq!(writer.start(99, None), Err(FieldError::Status));
        assert_eq!(writer.start(1000, None), Err(FieldError::Status));
        assert_eq!(writer.start(200, Some("OK\r\nX: y")), Err(FieldError::Reason));
        writer.start(299, Some("Fine\tindeed é")).unwrap();
        for (name, value, error) in [
            ("", "a", FieldError::Name),
            ("X Y", "a", FieldError::Name),
            ("X:", "a", FieldError::Name),
            ("X\r\nY", "a", FieldError::Name),
            ("X", "a\r\nY: b", FieldError::Value),
            ("X", "a\nY: b", FieldError::Value),
            ("X", "a\rb", FieldError::Value),
            ("X", "a\0b", FieldError::Value),
            ("Content-Length", "+5", FieldError::Length),
            ("Content-Length", "", FieldError::Length),
            ("Content-Length", "5, 5", FieldError::Length),
        ] {
            assert_eq!(writer.field(name.as_bytes(), value.as_bytes()), Err(error), "{name:?} {value:?}");
        }
        assert_eq!(writer.written(), "HTTP/1.1 299 Fine\tindeed é\r\n".as_bytes());
    }

    #[test]
    fn the_applications_own_date_and_server_win() {
        let mut out = Vec::new();
        let mut writer = ResponseWriter::new(&mut out, KEEP);
        writer.start(204, None).unwrap();
        writer.field(b"date", b"today").unwrap();
        writer.finish(&stamp(), b"");
        assert_eq!(out, b"HTTP/1.1 204 NO CONTENT\r\ndate: today\r\nServer: hipflask\r\n\r\n");
        out.clear();
        let mut writer = ResponseWriter::new(&mut out, KEEP);
        writer.start(204, None).unwrap();
        writer.field(b"Server", b"mine").unwrap();
        writer.finish(&stamp(), b"");
        assert!(out.starts_with(b"HTTP/1.1 204 NO CONTENT\r\nServer: mine\r\nDate: Sun"));
    }

    #[test]
    fn a_response_begun_anew_forgets_the_old_one() {
        let mut out = b"before".to_vec();
        let mut writer = ResponseWriter::new(&mut out, KEEP);
        writer.start(200, None).unwrap();
        writer.field(b"Content-Length", b"5").unwrap();
        writer.field(b"Connection", b"close").unwrap();
        writer.start(500, None).unwrap();
        assert_eq!(writer.status(), 500);
        assert!(writer.finish(&Stamp::new("", 0), b"x").keep_alive);
        assert_eq!(
            out,
            b"beforeHTTP/1.1 500 INTERNAL SERVER ERROR\r\nContent-Length: 1\r\n\
              Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nx"
        );
    }
}
