//! The body of a request: so many bytes, or chunks (RFC 9112 §6, §7.1).
//!
//! Never takes a byte that belongs to the next request. Stricter than the RFC in the grammar of chunks: no white space
//! anywhere on a size line, since readers differ about it. Does not undo `Content-Encoding`.

use crate::token::{field_line, is_token_byte};
use crate::trailer::may_trail;
use crate::{Error, Framing, Limits, Trailers, Underscores};

/// Where a chunked body stands.
///
/// ```text
/// chunked-body = *chunk last-chunk trailer-section CRLF
/// chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
/// chunk-ext    = *( ";" chunk-ext-name [ "=" ( token / quoted-string ) ] )
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Exactly `left` more bytes, with no framing around them.
    Plain,
    /// Before or within a chunk size; so many digits seen.
    Size(u8),
    /// Behind `;`, before a name's first byte.
    NameStart,
    Name,
    /// Behind `=`.
    ValueStart,
    Value,
    Quoted,
    QuotedPair,
    /// Behind the closing quote.
    Unquoted,
    /// Behind the CR of a size line.
    SizeEnd,
    Data,
    DataEnd,
    DataFeed,
    /// At the beginning of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    Trailer,
    TrailerFeed,
    LastFeed,
    Done,
}

/// Decodes one body. Reusable through [`reset`](Self::reset).
#[derive(Debug, Clone)]
pub struct BodyDecoder {
    state: State,
    /// Bytes left of the body or of the current chunk.
    left: u64,
    /// Bytes that the body may still have.
    allowed: u64,
    extensions_left: usize,
    trailers_left: usize,
    trailer_fields_left: usize,
    line: Vec<u8>,
    trailers: Trailers,
    refused_trailers: usize,
    /// Trailers are somebody's of ours: all of them are kept.
    keeps_all: bool,
}

impl BodyDecoder {
    /// A decoder for a body framed like this.
    #[must_use]
    pub fn new(framing: Framing, limits: &Limits) -> Self {
        let mut decoder = BodyDecoder {
            state: State::Done,
            left: 0,
            allowed: 0,
            extensions_left: 0,
            trailers_left: 0,
            trailer_fields_left: 0,
            line: Vec::new(),
            trailers: Vec::new(),
            refused_trailers: 0,
            keeps_all: false,
        };
        decoder.reset(framing, limits);
        decoder
    }

    /// A decoder for a response in chunks that this library has written, to be carried by other means.
    #[must_use]
    pub fn of_response() -> Self {
        let limits =
            Limits { body: u64::MAX, trailers: usize::MAX, trailer_fields: usize::MAX, ..Limits::default() };
        BodyDecoder { keeps_all: true, ..BodyDecoder::new(Framing::Chunked, &limits) }
    }

    /// Reads a trailer section, with the empty line at its end, that has come apart from the body.
    ///
    /// # Errors
    /// It is malformed, too long, or not whole.
    pub fn read_trailers(&mut self, section: &[u8]) -> Result<(), Error> {
        self.state = State::TrailerStart;
        let used = self.decode(section, &mut Vec::new(), 0)?;
        if self.is_done() && used == section.len() { Ok(()) } else { Err(Error::BadTrailer) }
    }

    /// Begins another body.
    pub fn reset(&mut self, framing: Framing, limits: &Limits) {
        (self.state, self.left) = match framing {
            Framing::None | Framing::Length(0) => (State::Done, 0),
            Framing::Length(length) => (State::Plain, length),
            Framing::Chunked => (State::Size(0), 0),
        };
        self.allowed = limits.body;
        self.extensions_left = limits.chunk_ext;
        self.trailers_left = limits.trailers;
        self.trailer_fields_left = limits.trailer_fields;
        self.line.clear();
        self.trailers.clear();
        self.refused_trailers = 0;
    }

    /// Decodes from the beginning of `input`, appending at most `most` bytes to `out`.
    ///
    /// Returns how much of `input` was taken: all of it, unless the body has ended or `most` is reached.
    ///
    /// # Errors
    /// The body is malformed or too long. The connection cannot be used any further.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>, most: usize) -> Result<usize, Error> {
        let mut rest = input;
        let mut room = most;
        loop {
            match self.state {
                State::Done => break,
                State::Plain | State::Data => {
                    let count = rest.len().min(room).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    let Some((taken, behind)) = rest.split_at_checked(count) else { break };
                    out.extend_from_slice(taken);
                    rest = behind;
                    room -= count;
                    self.left -= count as u64;
                    if self.left > 0 {
                        break;
                    }
                    self.state = if self.state == State::Plain { State::Done } else { State::DataEnd };
                }
                _ => {
                    let Some((&byte, behind)) = rest.split_first() else { break };
                    self.state = self.step(byte)?;
                    rest = behind;
                }
            }
        }
        Ok(input.len() - rest.len())
    }

    /// One byte of chunked framing.
    fn step(&mut self, byte: u8) -> Result<State, Error> {
        match (self.state, byte) {
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => {
                if digits == 16 {
                    return Err(Error::LongChunkSize);
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                self.left = self.left << 4 | u64::from(digit);
                return Ok(State::Size(digits + 1));
            }
            (State::Size(1..), b'\r') => return self.size_read(State::SizeEnd),
            (State::Size(1..), b';') => {
                self.count_extension()?;
                return self.size_read(State::NameStart);
            }
            (State::Size(_), _) => return Err(Error::BadChunkSize),
            (State::SizeEnd, b'\n') => {
                return Ok(if self.left == 0 { State::TrailerStart } else { State::Data });
            }
            (State::SizeEnd, _) => return Err(Error::BadChunkSize),
            (State::DataEnd, b'\r') => return Ok(State::DataFeed),
            (State::DataFeed, b'\n') => return Ok(State::Size(0)),
            (State::DataEnd | State::DataFeed, _) => return Err(Error::BadChunkEnd),
            (State::TrailerStart | State::Trailer | State::TrailerFeed | State::LastFeed, _) => {
                return self.trailer_byte(byte);
            }
            _ => {}
        }
        self.extension_byte(byte)
    }

    /// The digits of a size are complete.
    fn size_read(&mut self, next: State) -> Result<State, Error> {
        self.allowed = self.allowed.checked_sub(self.left).ok_or(Error::LongBody)?;
        Ok(next)
    }

    fn count_extension(&mut self) -> Result<(), Error> {
        self.extensions_left = self.extensions_left.checked_sub(1).ok_or(Error::LongChunkExtension)?;
        Ok(())
    }

    fn extension_byte(&mut self, byte: u8) -> Result<State, Error> {
        if byte == b'\r' && matches!(self.state, State::Name | State::Value | State::Unquoted) {
            return Ok(State::SizeEnd);
        }
        self.count_extension()?;
        let token = is_token_byte(byte);
        Ok(match (self.state, byte) {
            (State::NameStart | State::Name, _) if token => State::Name,
            (State::Name, b'=') => State::ValueStart,
            (State::ValueStart | State::Value, _) if token => State::Value,
            (State::ValueStart, b'"') => State::Quoted,
            (State::Name | State::Value | State::Unquoted, b';') => State::NameStart,
            (State::Quoted, b'"') => State::Unquoted,
            (State::Quoted, b'\\') => State::QuotedPair,
            (State::Quoted | State::QuotedPair, b'\t' | b' '..=b'~' | 128..) => State::Quoted,
            _ => return Err(Error::BadChunkExtension),
        })
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, Error> {
        self.trailers_left = match (self.state, byte) {
            // The empty line that ends the body counts for nothing.
            (State::TrailerStart, b'\r') | (State::LastFeed, b'\n') => self.trailers_left,
            _ => self.trailers_left.checked_sub(1).ok_or(Error::LongTrailers)?,
        };
        Ok(match (self.state, byte) {
            (State::TrailerStart, b'\r') => State::LastFeed,
            (State::LastFeed, b'\n') => State::Done,
            (State::Trailer, b'\r') => State::TrailerFeed,
            (State::TrailerFeed, b'\n') => {
                self.end_trailer()?;
                State::TrailerStart
            }
            (State::TrailerStart | State::Trailer, b'\t' | b' '..=b'~' | 128..) => {
                self.line.push(byte);
                State::Trailer
            }
            _ => return Err(Error::BadTrailer),
        })
    }

    fn end_trailer(&mut self) -> Result<(), Error> {
        self.trailer_fields_left = self.trailer_fields_left.checked_sub(1).ok_or(Error::LongTrailers)?;
        // Names with underscores are never of use here, and counting them as refused needs no limit of its own.
        let underscores = if self.keeps_all { Underscores::Keep } else { Underscores::Guard };
        let limits = Limits { underscores, ..Limits::default() };
        let field = field_line(&self.line, &limits).map_err(|_| Error::BadTrailer)?;
        if !self.keeps_all && (field.dropped || !may_trail(field.name)) {
            self.refused_trailers += 1;
        } else {
            self.trailers.push((field.name.to_vec(), field.value.to_vec()));
        }
        self.line.clear();
        Ok(())
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes that are still to come, if the length is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Plain => Some(self.left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// To be called when the client has closed its side: an incomplete body is an error, never a short one.
    ///
    /// # Errors
    /// [`Error::Truncated`] unless the body is complete.
    pub fn finish(&self) -> Result<(), Error> {
        if self.is_done() { Ok(()) } else { Err(Error::Truncated) }
    }

    /// The trailer fields, apart from those that have no place there. They are never merged into the head's fields
    /// (RFC 9110 §6.5.1).
    pub fn trailers(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.trailers.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// The same, to be kept; there are none any more afterwards.
    pub fn take_trailers(&mut self) -> Trailers {
        std::mem::take(&mut self.trailers)
    }

    /// How many trailer fields were left out because they have no place in a trailer section.
    #[must_use]
    pub fn refused_trailers(&self) -> usize {
        self.refused_trailers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(framing: Framing, limits: &Limits, input: &[u8]) -> Result<(Vec<u8>, usize, bool), Error> {
        let mut decoder = BodyDecoder::new(framing, limits);
        let mut out = Vec::new();
        let taken = decoder.decode(input, &mut out, usize::MAX)?;
        Ok((out, taken, decoder.is_done()))
    }

    #[test]
    fn a_body_takes_its_own_bytes_and_no_more() {
        let limits = Limits::default();
        for (framing, input, expected) in [
            (Framing::None, &b"GET"[..], (&b""[..], 0, true)),
            (Framing::Length(0), b"GET", (b"", 0, true)),
            (Framing::Length(2), b"hiGET", (b"hi", 2, true)),
            (Framing::Length(9), b"hi", (b"hi", 2, false)),
            (Framing::Chunked, b"2\r\nhi\r\n0\r\n\r\nGET", (b"hi", 12, true)),
            (Framing::Chunked, b"2\r\nhi\r\n0\r\n", (b"hi", 10, false)),
        ] {
            let (body, taken, done) = decode(framing, &limits, input).unwrap();
            assert_eq!((body.as_slice(), taken, done), expected, "{framing:?} {input:?}");
        }
    }

    #[test]
    fn most_is_never_exceeded_and_nothing_is_lost() {
        let limits = Limits::default();
        let mut decoder = BodyDecoder::new(Framing::Chunked, &limits);
        let mut rest = &b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"[..];
        let mut out = Vec::new();
        while !decoder.is_done() {
            let before = out.len();
            let taken = decoder.decode(rest, &mut out, 3).unwrap();
            assert!(taken > 0 && out.len() - before <= 3);
            rest = &rest[taken..];
        }
        assert_eq!((out.as_slice(), rest), (&b"hello world"[..], &b""[..]));
    }

    #[test]
    fn what_is_left_is_known_where_the_length_is() {
        let mut decoder = BodyDecoder::new(Framing::Length(5), &Limits::default());
        assert_eq!(decoder.remaining(), Some(5));
        decoder.decode(b"abc", &mut Vec::new(), 2).unwrap();
        assert_eq!((decoder.remaining(), decoder.finish()), (Some(3), Err(Error::Truncated)));
        decoder.reset(Framing::Chunked, &Limits::default());
        assert_eq!(decoder.remaining(), None);
        decoder.decode(b"0\r\na: b\r\nHost: c\r\n\r\n", &mut Vec::new(), 2).unwrap();
        assert_eq!((decoder.remaining(), decoder.finish()), (Some(0), Ok(())));
        assert_eq!((decoder.trailers().len(), decoder.refused_trailers()), (1, 1));
        assert_eq!(decoder.take_trailers(), [(b"a".to_vec(), b"b".to_vec())]);
        assert_eq!(decoder.trailers().len(), 0);
        decoder.reset(Framing::Length(1), &Limits::default());
        assert_eq!((decoder.trailers().len(), decoder.refused_trailers()), (0, 0));
    }

    #[test]
    fn a_trailer_section_can_come_apart_from_its_body() {
        let limits = Limits { trailers: 12, ..Limits::default() };
        let cases: [(&[u8], Result<Trailers, Error>); 5] = [
            (b"\r\n", Ok(vec![])),
            (b"a: b\r\nHost: c\r\n\r\n", Err(Error::LongTrailers)),
            (b"a: b\r\nTE: c\r\n\r\n", Err(Error::LongTrailers)),
            (b"a: b\r\nTE:\r\n\r\n", Ok(vec![(b"a".to_vec(), b"b".to_vec())])),
            (b"a: b\r\n", Err(Error::BadTrailer)),
        ];
        for (section, expected) in cases {
            let mut decoder = BodyDecoder::new(Framing::Length(2), &limits);
            decoder.decode(b"hi", &mut Vec::new(), 9).unwrap();
            let read = decoder.read_trailers(section).map(|()| decoder.take_trailers());
            assert_eq!(read, expected, "{section:?}");
        }
        let mut decoder = BodyDecoder::of_response();
        let mut out = Vec::new();
        decoder.decode(b"1\r\nx\r\n0\r\ncontent_length: 5\r\n\r\n", &mut out, 9).unwrap();
        assert_eq!((decoder.is_done(), decoder.trailers().len(), out.as_slice()), (true, 1, &b"x"[..]));
    }

    #[test]
    fn limits_hold_at_the_byte() {
        let limits = Limits { body: 4, chunk_ext: 4, trailers: 8, trailer_fields: 1, ..Limits::default() };
        for (input, expected) in [
            ("4\r\nabcd\r\n0\r\n\r\n", None),
            ("2\r\nab\r\n3\r\n", Some(Error::LongBody)),
            ("5\r\n", Some(Error::LongBody)),
            ("1;a\r\nx\r\n1;b\r\nx\r\n0\r\n\r\n", None),
            ("1;a\r\nx\r\n1;bc\r\n", Some(Error::LongChunkExtension)),
            ("0\r\na: bcd\r\n\r\n", None),
            ("0\r\na: bcde\r\n\r\n", Some(Error::LongTrailers)),
            ("0\r\na:\r\nb:\r\n\r\n", Some(Error::LongTrailers)),
        ] {
            assert_eq!(decode(Framing::Chunked, &limits, input.as_bytes()).err(), expected, "{input:?}");
        }
    }
}
