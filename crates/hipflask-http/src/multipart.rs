//! `multipart/form-data` (RFC 7578), pushed in pieces of any size, with Werkzeug's results.
//!
//! Like Werkzeug and unlike the RFC it takes a lone CR or LF for a line end, since old clients send them. Does not
//! decode text, count a form's total size or write files: it says where parts begin and end and what lies between.

use memchr::memmem::Finder;

use crate::Error;
use crate::field::parse_options;
use crate::token::strip;

/// Limits on a multipart body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultipartLimits {
    /// Number of parts (`max_form_parts`). Each costs objects that are larger than its bytes.
    pub parts: Option<usize>,
    /// Bytes of a part that is no file (`max_form_memory_size`); such parts are kept in memory.
    pub field: Option<u64>,
    /// Head of a part, and white space behind a boundary.
    pub part_head: usize,
}

impl Default for MultipartLimits {
    fn default() -> Self {
        MultipartLimits { parts: Some(1000), field: Some(500_000), part_head: 16 * 1024 }
    }
}

/// The head of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `name` of its Content-Disposition.
    pub name: Option<String>,
    /// `filename` of its Content-Disposition; its presence makes the part a file.
    pub filename: Option<String>,
    /// All its fields.
    pub fields: Vec<(String, String)>,
}

impl Part {
    /// The first field of this name, which is given in lower case.
    #[must_use]
    pub fn field(&self, lower_name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(lower_name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the part is a file rather than a field.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.filename.is_some()
    }
}

/// What [`Multipart::next`] finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A part begins.
    Part(Part),
    /// Bytes of the part. Never empty.
    Data(&'a [u8]),
    /// The part is complete.
    PartEnd,
    /// The body is complete; what follows is ignored.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first boundary.
    Preamble,
    Head,
    /// Behind a head, at the line end before the data, which may at once be a boundary's line end.
    Start,
    Data,
    /// Behind the last boundary, which has yet to be told.
    Last,
    Epilogue,
}

/// What to do with the bytes in view.
enum Step {
    /// Too few to tell.
    Need,
    /// So many are data (or preamble).
    Data(usize),
    /// So many are a line end that belongs to nothing.
    Skip(usize),
    /// So many are a boundary.
    Boundary { end: usize, last: bool },
    /// So many are a part's head, which reaches with its line end up to `end`; then comes one more line end.
    Head { text: usize, end: usize },
}

/// What follows a boundary's bytes.
enum Suffix {
    Unclear,
    No,
    Yes { end: usize, last: bool },
}

/// Longer boundaries are refused; RFC 2046 §5.1.1 allows 70 bytes.
const LONGEST_BOUNDARY: usize = 256;

/// How many bytes are put behind those carried over, until they can be told.
const TOP_UP: usize = 512;

/// Splits one multipart body.
#[derive(Debug)]
pub struct Multipart {
    /// `--boundary`
    delimiter: Finder<'static>,
    state: State,
    limits: MultipartLimits,
    /// Bytes of earlier pieces that could not be told, and some that were put behind them.
    carry: Vec<u8>,
    /// How many bytes of the carry the last event has told.
    told: usize,
    parts: usize,
    in_part: bool,
    /// Bytes that the current part may still have, if it is a field.
    field_left: Option<u64>,
}

/// The boundary that a `Content-Type: multipart/form-data` announces.
#[must_use]
pub fn boundary(content_type: &str) -> Option<String> {
    parse_options(content_type).parameter("boundary").map(str::to_owned)
}

impl Multipart {
    /// A parser for a body with this boundary.
    ///
    /// # Errors
    /// [`Error::BadBoundary`] if it is empty, longer than 256 bytes or holds line ends.
    pub fn new(boundary: &[u8], limits: MultipartLimits) -> Result<Self, Error> {
        let bad = boundary.is_empty()
            || boundary.len() > LONGEST_BOUNDARY
            || memchr::memchr2(b'\r', b'\n', boundary).is_some();
        if bad {
            return Err(Error::BadBoundary);
        }
        Ok(Multipart {
            delimiter: Finder::new(&[b"--", boundary].concat()).into_owned(),
            state: State::Preamble,
            limits,
            carry: Vec::new(),
            told: 0,
            parts: 0,
            in_part: false,
            field_left: None,
        })
    }

    /// Reads on in `input`, which is moved behind what was read. `None` says that all of it has been read.
    ///
    /// # Errors
    /// The body is malformed or exceeds a limit; the parser cannot be used any further.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Event<'s>>, Error> {
        self.carry.drain(..self.told.min(self.carry.len()));
        self.told = 0;
        loop {
            match self.state {
                State::Last => {
                    self.state = State::Epilogue;
                    return Ok(Some(Event::End));
                }
                State::Epilogue => {
                    self.carry.clear();
                    *input = &[];
                    return Ok(None);
                }
                _ => {}
            }
            let direct = self.carry.is_empty();
            match self.step(if direct { input } else { &self.carry })? {
                Step::Need if input.is_empty() => return Ok(None),
                Step::Need => {
                    let count = if direct { input.len() } else { input.len().min(TOP_UP) };
                    self.carry.extend_from_slice(take(input, count));
                }
                Step::Data(count) if self.state == State::Data => {
                    self.count(count)?;
                    if direct {
                        return Ok(Some(Event::Data(take(input, count))));
                    }
                    self.told = count;
                    return Ok(Some(Event::Data(self.carry.get(..count).unwrap_or_default())));
                }
                Step::Data(count) | Step::Skip(count) => {
                    self.consume(count, input);
                    if self.state == State::Start {
                        self.state = State::Data;
                    }
                }
                Step::Boundary { end, last } => {
                    self.consume(end, input);
                    self.state = if last { State::Last } else { State::Head };
                    if std::mem::take(&mut self.in_part) {
                        return Ok(Some(Event::PartEnd));
                    }
                }
                Step::Head { text, end } => {
                    let head = if direct { input.get(..text) } else { self.carry.get(..text) };
                    let part = parse_head(head.unwrap_or_default())?;
                    self.consume(end, input);
                    self.begin(&part)?;
                    self.state = State::Start;
                    return Ok(Some(Event::Part(part)));
                }
            }
        }
    }

    /// To be called at the end of the body.
    ///
    /// # Errors
    /// [`Error::Unterminated`] if the last boundary has not come.
    pub fn finish(&self) -> Result<(), Error> {
        if matches!(self.state, State::Last | State::Epilogue) { Ok(()) } else { Err(Error::Unterminated) }
    }

    fn consume(&mut self, count: usize, input: &mut &[u8]) {
        if self.carry.is_empty() {
            take(input, count);
        } else {
            self.carry.drain(..count.min(self.carry.len()));
        }
    }

    fn begin(&mut self, part: &Part) -> Result<(), Error> {
        self.parts += 1;
        if self.limits.parts.is_some_and(|most| self.parts > most) {
            return Err(Error::ManyParts);
        }
        self.field_left = if part.is_file() { None } else { self.limits.field };
        self.in_part = true;
        Ok(())
    }

    fn count(&mut self, count: usize) -> Result<(), Error> {
        if let Some(left) = self.field_left {
            self.field_left = Some(left.checked_sub(count as u64).ok_or(Error::LargeFields)?);
        }
        Ok(())
    }

    fn step(&self, window: &[u8]) -> Result<Step, Error> {
        match self.state {
            State::Preamble => self.seek(window, false),
            State::Data => self.seek(window, true),
            State::Start => self.start(window),
            State::Head => self.head(window),
            State::Last | State::Epilogue => Ok(Step::Need),
        }
    }

    /// Looks for the next boundary. Behind data it must follow a line end, which belongs to it.
    fn seek(&self, window: &[u8], in_data: bool) -> Result<Step, Error> {
        let length = self.delimiter.needle().len();
        let mut from = 0;
        while let Some(at) = self.delimiter.find(window.get(from..).unwrap_or_default()) {
            let at = from + at;
            let line_end = match window.get(..at) {
                Some([.., b'\r', b'\n']) => 2,
                Some([.., b'\r' | b'\n']) => 1,
                _ => 0,
            };
            from = at + 1;
            if in_data && line_end == 0 {
                continue;
            }
            let begin = at - line_end;
            match self.suffix(window, at + length)? {
                Suffix::No => {}
                Suffix::Unclear | Suffix::Yes { .. } if begin > 0 => return Ok(Step::Data(begin)),
                Suffix::Unclear => return Ok(Step::Need),
                Suffix::Yes { end, last } => return Ok(Step::Boundary { end, last }),
            }
        }
        let safe = self.safe_length(window, in_data);
        Ok(if safe > 0 { Step::Data(safe) } else { Step::Need })
    }

    /// How many bytes at the beginning cannot belong to a boundary that is not yet complete.
    fn safe_length(&self, window: &[u8], in_data: bool) -> usize {
        let delimiter = self.delimiter.needle();
        let mut at = window.len().saturating_sub(delimiter.len() + 1);
        while let Some(tail) = window.get(at..).filter(|tail| !tail.is_empty()) {
            let rest = match tail {
                [b'\r', b'\n', rest @ ..] | [b'\r' | b'\n', rest @ ..] => Some(rest),
                _ if in_data => None,
                _ => Some(tail),
            };
            if rest.is_some_and(|rest| delimiter.starts_with(rest)) {
                break;
            }
            at += 1;
        }
        at
    }

    /// `[ "--" ] *LWSP line-end` behind a boundary. Behind the last one anything may follow.
    fn suffix(&self, window: &[u8], at: usize) -> Result<Suffix, Error> {
        let rest = window.get(at..).unwrap_or_default();
        if let [b'-', second, ..] = rest {
            return Ok(if *second == b'-' { Suffix::Yes { end: at + 2, last: true } } else { Suffix::No });
        }
        let space = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | 0x0b | 0x0c)).count();
        if space > self.limits.part_head {
            return Err(Error::LongPartHead);
        }
        Ok(match rest.get(space..).unwrap_or_default() {
            [] | [b'\r'] => Suffix::Unclear,
            [b'-'] if space == 0 => Suffix::Unclear,
            [b'\r', b'\n', ..] => Suffix::Yes { end: at + space + 2, last: false },
            [b'\r' | b'\n', ..] => Suffix::Yes { end: at + space + 1, last: false },
            _ => Suffix::No,
        })
    }

    /// The beginning of a part's data: its line end, or a boundary that shares that line end.
    fn start(&self, window: &[u8]) -> Result<Step, Error> {
        let line_end = match window {
            [] | [b'\r'] => return Ok(Step::Need),
            [b'\r', b'\n', ..] => 2,
            _ => 1,
        };
        let delimiter = self.delimiter.needle();
        let Some(data) = window.get(line_end..) else { return Ok(Step::Need) };
        if data.len() < delimiter.len() && delimiter.starts_with(data) {
            return Ok(Step::Need);
        }
        if !data.starts_with(delimiter) {
            return Ok(Step::Skip(line_end));
        }
        Ok(match self.suffix(window, line_end + delimiter.len())? {
            Suffix::Unclear => Step::Need,
            Suffix::No => Step::Skip(line_end),
            Suffix::Yes { end, last } => Step::Boundary { end, last },
        })
    }

    fn head(&self, window: &[u8]) -> Result<Step, Error> {
        for at in memchr::memchr2_iter(b'\r', b'\n', window) {
            let line_end = match window.get(at..).unwrap_or_default() {
                [b'\r', b'\n', b'\r', b'\n', ..] => 2,
                [b'\r', b'\r', ..] | [b'\n', b'\n', ..] => 1,
                _ => continue,
            };
            if at > self.limits.part_head {
                break;
            }
            return Ok(Step::Head { text: at, end: at + line_end });
        }
        // Up to four bytes of the blank line are not counted.
        if window.len() > self.limits.part_head.saturating_add(4) {
            return Err(Error::LongPartHead);
        }
        Ok(Step::Need)
    }
}

/// Takes so many bytes from the beginning.
fn take<'i>(input: &mut &'i [u8], count: usize) -> &'i [u8] {
    let (taken, rest) = input.split_at(count.min(input.len()));
    *input = rest;
    taken
}

/// Reads a part's fields. Lines may be folded; a line without a colon is a name without a value.
fn parse_head(text: &[u8]) -> Result<Part, Error> {
    let text = std::str::from_utf8(text).map_err(|_| Error::BadPart)?;
    let mut lines: Vec<String> = Vec::new();
    for line in text.replace("\r\n", "\n").split(['\r', '\n']) {
        match lines.last_mut() {
            Some(folded) if line.starts_with([' ', '\t']) => {
                folded.push(' ');
                folded.push_str(line.get(1..).unwrap_or_default());
            }
            _ => lines.push(line.to_owned()),
        }
    }
    let mut part = Part { name: None, filename: None, fields: Vec::new() };
    for line in lines.iter().map(|line| strip(line)).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        part.fields.push((strip(name).to_owned(), strip(value).to_owned()));
    }
    let disposition = parse_options(part.field("content-disposition").ok_or(Error::BadPart)?);
    part.name = disposition.parameter("name").map(str::to_owned);
    part.filename = disposition.parameter("filename").map(str::to_owned);
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELD: &str = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n12345\r\n";
    const FILE: &str = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"g\"\r\n\r\n1234567\r\n";

    fn run(body: &str, limits: MultipartLimits) -> Result<usize, Error> {
        let mut parser = Multipart::new(b"b", limits)?;
        let mut input = body.as_bytes();
        let mut events = 0;
        while parser.next(&mut input)?.is_some() {
            events += 1;
        }
        parser.finish()?;
        Ok(events)
    }

    #[test]
    fn a_form_is_told_part_by_part() {
        let body = format!("{FIELD}{FILE}--b--\r\nepilogue");
        let mut parser = Multipart::new(b"b", MultipartLimits::default()).unwrap();
        let mut input = body.as_bytes();
        let Ok(Some(Event::Part(part))) = parser.next(&mut input) else { panic!("no part") };
        assert_eq!((part.name.as_deref(), part.is_file()), (Some("a"), false));
        assert_eq!(part.field("content-disposition"), Some("form-data; name=\"a\""));
        assert_eq!(parser.next(&mut input), Ok(Some(Event::Data(b"12345"))));
        assert_eq!(parser.next(&mut input), Ok(Some(Event::PartEnd)));
        let Ok(Some(Event::Part(part))) = parser.next(&mut input) else { panic!("no part") };
        assert_eq!((part.name.as_deref(), part.filename.as_deref()), (Some("f"), Some("g")));
        assert_eq!(parser.next(&mut input), Ok(Some(Event::Data(b"1234567"))));
        assert_eq!(parser.next(&mut input), Ok(Some(Event::PartEnd)));
        assert_eq!(parser.next(&mut input), Ok(Some(Event::End)));
        assert_eq!(parser.next(&mut input), Ok(None));
        assert_eq!(parser.finish(), Ok(()));
    }

    #[test]
    fn limits_hold_and_files_are_no_fields() {
        let body = format!("{FIELD}{FILE}--b--");
        let limits = MultipartLimits { parts: Some(2), field: Some(5), part_head: 60 };
        assert_eq!(run(&body, limits), Ok(7));
        assert_eq!(run(&body, MultipartLimits { parts: Some(1), ..limits }), Err(Error::ManyParts));
        assert_eq!(run(&body, MultipartLimits { field: Some(4), ..limits }), Err(Error::LargeFields));
        assert_eq!(run(&body, MultipartLimits { part_head: 40, ..limits }), Err(Error::LongPartHead));
        assert_eq!(run(&format!("--b{}", " ".repeat(61)), limits), Err(Error::LongPartHead));
    }

    #[test]
    fn an_incomplete_or_malformed_body_is_an_error() {
        let limits = MultipartLimits::default();
        for (body, error) in [
            ("", Error::Unterminated),
            (FIELD, Error::Unterminated),
            ("--b\r\nX: y\r\n\r\n1\r\n--b--", Error::BadPart),
            ("--b\r\n\r\n\r\n\r\n1\r\n--b--", Error::BadPart),
        ] {
            assert_eq!(run(body, limits), Err(error), "{body:?}");
        }
        for end in 0..FIELD.len() {
            assert_eq!(run(&FIELD[..end], limits), Err(Error::Unterminated));
        }
    }

    #[test]
    fn a_boundary_must_be_usable() {
        let limits = MultipartLimits::default();
        for bad in [&b""[..], b"a\r\nb", &[b'a'; 257]] {
            assert_eq!(Multipart::new(bad, limits).err(), Some(Error::BadBoundary));
        }
        assert_eq!(boundary("multipart/form-data; boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(boundary("multipart/form-data"), None);
    }

    #[test]
    fn near_boundaries_take_linear_time() {
        for piece in ["\r\n--b x", "\r\n--bb", "\r\r\n", "x--b", "\n--"] {
            let body = format!("{FILE}{}", piece.repeat((4 << 20) / piece.len()));
            assert_eq!(run(&body, MultipartLimits::default()), Err(Error::Unterminated), "{piece:?}");
        }
    }
}
