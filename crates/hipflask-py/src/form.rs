//! Bodies of forms: urlencoded text into pairs, multipart messages into events.
//!
//! Does not keep uploads (the Python side writes each piece to its file) and does not read streams. Both parsers take
//! time linear in their input.
//!
//! Implements: the `application/x-www-form-urlencoded` parser as `urllib.parse.parse_qsl` has it; RFC 7578 and
//! RFC 2046 §5.1 with the leniency of Werkzeug 3.1 (a lone LF or CR is a line break, the first boundary may stand at
//! the very beginning). Unlike Werkzeug's, the events' contents do not depend on how the message is cut into chunks.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hipflask_http::query;
use memchr::memmem::Finder;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyString};

use crate::headers::Headers;
use crate::locked_attached;

/// Parse an ``application/x-www-form-urlencoded`` body or a query string.
///
/// Args:
///     data: The bytes.
///
/// Returns:
///     Names and values in order. Escaped bytes that are not UTF-8 stay percent-encoded.
///
/// Raises:
///     ValueError: If the text itself is not UTF-8.
#[pyfunction]
#[allow(clippy::needless_pass_by_value, reason = "an argument of a Python function")]
fn parse_urlencoded<'py>(py: Python<'py>, data: PyBackedBytes) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for pair in query::parse_pairs(&data).map_err(|error| PyValueError::new_err(error.to_string()))? {
        list.append(pair)?;
    }
    Ok(list)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    Part,
    DataStart,
    Data,
    Epilogue,
    Complete,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Preamble => "PREAMBLE",
            State::Part => "PART",
            State::DataStart => "DATA_START",
            State::Data => "DATA",
            State::Epilogue => "EPILOGUE",
            State::Complete => "COMPLETE",
        }
    }
}

/// What was found, and where in the buffer; it stays there until the next chunk is fed.
pub(crate) enum Found {
    NeedData,
    Preamble(Range<usize>),
    /// The part's header block.
    Part(Range<usize>),
    Data(Range<usize>, bool),
    Epilogue(Range<usize>),
}

/// A boundary line: where it begins (at its line break, if it has one) and ends, and whether it is the last.
struct Boundary {
    start: usize,
    end: usize,
    last: bool,
}

pub(crate) struct Decoder {
    buffer: Vec<u8>,
    at: usize,
    searched: usize,
    state: State,
    complete: bool,
    delimiter: Finder<'static>,
}

impl Decoder {
    fn new(boundary: &[u8]) -> Self {
        let delimiter = [b"--", boundary].concat();
        Self {
            buffer: Vec::new(),
            at: 0,
            searched: 0,
            state: State::Preamble,
            complete: false,
            delimiter: Finder::new(&delimiter).into_owned(),
        }
    }

    /// For a message that has arrived whole.
    pub(crate) fn of_whole(boundary: &[u8], message: Vec<u8>) -> Self {
        Self { buffer: message, complete: true, ..Self::new(boundary) }
    }

    fn ahead(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    fn feed(&mut self, data: &[u8]) {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(data);
    }

    /// Takes what lies between `from` and `until`, and goes on at `to`; all counted from here.
    fn consume(&mut self, from: usize, until: usize, to: usize) -> Range<usize> {
        let found = self.at + from..self.at + until.max(from);
        self.at += to;
        self.searched = 0;
        found
    }

    pub(crate) fn bytes(&self, found: Range<usize>) -> &[u8] {
        self.buffer.get(found).unwrap_or_default()
    }

    /// The first boundary line at or after `from`. `bare`: it needs no line break before it.
    fn boundary(&self, from: usize, bare: bool) -> Option<Boundary> {
        let text = self.ahead();
        let mut from = from;
        loop {
            let at = from + self.delimiter.find(text.get(from..)?)?;
            from = at + 1;
            let before = text.get(..at).unwrap_or_default();
            let start = at - line_break_before(before);
            if start == at && !bare {
                continue;
            }
            let after_name = at + self.delimiter.needle().len();
            let after = text.get(after_name..).unwrap_or_default();
            let last = after.starts_with(b"--");
            let blank = if last { 2 } else { 0 };
            let rest = after.get(blank..).unwrap_or_default();
            let space = rest.iter().position(|&byte| !is_blank(byte)).unwrap_or(rest.len());
            let rest = rest.get(space..).unwrap_or_default();
            let end = after_name + blank + space;
            match line_break(rest) {
                // A lone CR at the end may be half of a CRLF.
                _ if !last && rest == b"\r" && !self.complete => return None,
                0 if !last => {}
                length => return Some(Boundary { start, end: end + length, last }),
            }
        }
    }

    pub(crate) fn next(&mut self) -> Result<Found, String> {
        let found = match self.state {
            State::Preamble => match self.boundary(self.searched, true) {
                Some(boundary) => {
                    self.state = if boundary.last { State::Epilogue } else { State::Part };
                    Found::Preamble(self.consume(0, boundary.start, boundary.end))
                }
                None => {
                    self.searched = self.ahead().len().saturating_sub(self.delimiter.needle().len() + 8);
                    Found::NeedData
                }
            },
            State::Part => match blank_line(self.ahead(), self.searched) {
                Some((start, middle)) => {
                    self.state = State::DataStart;
                    Found::Part(self.consume(0, start, middle))
                }
                None => {
                    self.searched = self.ahead().len().saturating_sub(8);
                    Found::NeedData
                }
            },
            State::DataStart | State::Data => self.data(),
            State::Epilogue if self.complete => {
                self.state = State::Complete;
                Found::Epilogue(self.consume(0, self.ahead().len(), self.ahead().len()))
            }
            State::Epilogue | State::Complete => Found::NeedData,
        };
        if self.complete && matches!(found, Found::NeedData) {
            return Err(format!("Invalid form-data cannot parse beyond State.{}", self.state.name()));
        }
        Ok(found)
    }

    fn data(&mut self) -> Found {
        let start = if self.state == State::DataStart { line_break(self.ahead()) } else { 0 };
        if let Some(boundary) = self.boundary(0, false) {
            self.state = if boundary.last { State::Epilogue } else { State::Part };
            return Found::Data(self.consume(start, boundary.start, boundary.end), false);
        }
        let end = self.undecided();
        // The line break that ends the head also begins the boundary of an empty part: keep it until that is known.
        if end <= start {
            return Found::NeedData;
        }
        self.state = State::Data;
        Found::Data(self.consume(start, end, end), true)
    }

    /// Where a boundary line might begin that has not arrived whole.
    fn undecided(&self) -> usize {
        let text = self.ahead();
        let delimiter = self.delimiter.needle();
        let unended = text.strip_suffix(b"\r");
        let line = last_line(unended.unwrap_or(text), delimiter.len() + MOST_BLANKS);
        if let Some((start, line)) = line
            && let Some(rest) = line.strip_prefix(delimiter)
            && (rest.iter().all(|byte| is_blank(*byte)) || (rest == b"-" && unended.is_none()))
        {
            return start;
        }
        if unended.is_some() {
            return text.len() - 1;
        }
        last_line(text, delimiter.len()).map_or(text.len(), |(start, _)| start)
    }
}

/// The longest head of a part, in bytes: browsers send some hundred, and what follows from each line is much larger.
pub(crate) const MOST_HEAD: usize = 16 * 1024;

/// Blanks behind a delimiter that are waited for; more of them are content.
const MOST_BLANKS: usize = 256;

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c)
}

/// The length of the line break that `text` begins with.
fn line_break(text: &[u8]) -> usize {
    match text {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => 0,
    }
}

/// The length of the line break that `text` ends with.
fn line_break_before(text: &[u8]) -> usize {
    match text {
        [.., b'\r', b'\n'] => 2,
        [.., b'\r' | b'\n'] => 1,
        _ => 0,
    }
}

/// The last line, if it is not longer than `most`, and where the line break before it begins.
fn last_line(text: &[u8], most: usize) -> Option<(usize, &[u8])> {
    let from = text.len().saturating_sub(most + 1);
    let at = from + memchr::memrchr2(b'\r', b'\n', text.get(from..)?)?;
    let (before, line) = text.split_at_checked(at + 1)?;
    Some((before.len() - line_break_before(before), line))
}

/// Where an empty line begins, and where its second line break does.
fn blank_line(text: &[u8], from: usize) -> Option<(usize, usize)> {
    let tail = text.get(from..)?;
    memchr::memchr2_iter(b'\r', b'\n', tail).find_map(|at| {
        let start = from + at;
        match tail.get(at..)? {
            [b'\r', b'\n', b'\r', b'\n', ..] => Some((start, start + 2)),
            [b'\r', b'\r', ..] | [b'\n', b'\n', ..] => Some((start, start + 1)),
            _ => None,
        }
    })
}

/// The lines of a header block, continuation lines joined to the one before.
fn header_lines(block: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = vec![Vec::new()];
    let mut rest = block;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let length = line_break(std::slice::from_ref(&byte));
        if length == 0 {
            if let Some(line) = lines.last_mut() {
                line.push(byte);
            }
            continue;
        }
        if byte == b'\r' && rest.first() == Some(&b'\n') {
            rest = rest.get(1..).unwrap_or_default();
        }
        match rest.split_first() {
            Some((b' ' | b'\t', after)) => {
                if let Some(line) = lines.last_mut() {
                    line.push(b' ');
                }
                rest = after;
            }
            _ => lines.push(Vec::new()),
        }
    }
    lines
}

/// White space as `str.strip` has it.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}

pub(crate) fn part_headers<'py>(py: Python<'py>, block: &[u8]) -> PyResult<Bound<'py, Headers>> {
    let mut pairs = Vec::new();
    for line in header_lines(block) {
        let line =
            std::str::from_utf8(&line).map_err(|_| PyValueError::new_err("Part header is not UTF-8"))?;
        let line = strip(line);
        if !line.is_empty() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            pairs.push((PyString::new(py, strip(name)), PyString::new(py, strip(value))));
        }
    }
    Headers::from_pairs(py, pairs)
}

/// Decodes a multipart message, fed in chunks, into events.
///
/// Args:
///     boundary: What separates the parts, without the dashes.
///     max_form_memory_size: Most bytes that one chunk and what is not yet decided may have together.
///     max_parts: Most parts.
///
/// Implements: werkzeug.sansio.multipart.MultipartDecoder (3.1).
#[pyclass(frozen, subclass, module = "hipflask.werkzeug.sansio.multipart")]
struct MultipartDecoder {
    // Boxed: the searcher holds vector registers, which want an alignment that Python's allocator does not give.
    decoder: Mutex<Box<Decoder>>,
    #[pyo3(get)]
    boundary: Py<PyBytes>,
    #[pyo3(get)]
    max_form_memory_size: Option<u64>,
    #[pyo3(get)]
    max_parts: Option<u64>,
    parts: AtomicU64,
}

impl MultipartDecoder {
    fn part<'py>(&self, py: Python<'py>, block: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        if block.len() > MOST_HEAD {
            return Err(crate::request::too_large(py));
        }
        let headers = part_headers(py, block)?;
        let Some(disposition) = headers.get().value_of(py, "content-disposition") else {
            return Err(PyValueError::new_err("Missing Content-Disposition header"));
        };
        let options = http_module(py)?.call_method1(intern!(py, "parse_options_header"), (disposition,))?;
        let options = options.get_item(1)?;
        let option = |name| options.call_method1(intern!(py, "get"), (name,));
        let name = option("name")?;
        let filename = option("filename")?;
        if self.max_parts.is_some_and(|most| self.parts.fetch_add(1, Ordering::Relaxed) >= most) {
            return Err(crate::request::too_large(py));
        }
        let events = events(py)?;
        if filename.is_none() {
            events.call_method1(intern!(py, "Field"), (name, headers))
        } else {
            events.call_method1(intern!(py, "File"), (name, filename, headers))
        }
    }
}

#[pymethods]
impl MultipartDecoder {
    #[new]
    #[pyo3(signature = (boundary, max_form_memory_size=None, *, max_parts=None))]
    fn new(boundary: Bound<'_, PyBytes>, max_form_memory_size: Option<u64>, max_parts: Option<u64>) -> Self {
        Self {
            decoder: Mutex::new(Box::new(Decoder::new(boundary.as_bytes()))),
            boundary: boundary.unbind(),
            max_form_memory_size,
            max_parts,
            parts: AtomicU64::new(0),
        }
    }

    /// Feed the next chunk; None tells that there are no more.
    ///
    /// Raises:
    ///     RequestEntityTooLarge: If more is held than ``max_form_memory_size``.
    #[pyo3(signature = (data))]
    fn receive_data(&self, py: Python<'_>, data: Option<PyBackedBytes>) -> PyResult<()> {
        let mut decoder = locked_attached(py, &self.decoder);
        let Some(data) = data else {
            decoder.complete = true;
            return Ok(());
        };
        let held = (decoder.ahead().len() + data.len()) as u64;
        if self.max_form_memory_size.is_some_and(|most| held > most) {
            drop(decoder);
            return Err(crate::request::too_large(py));
        }
        decoder.feed(&data);
        Ok(())
    }

    /// The next event; ``NeedData`` until more is fed.
    ///
    /// Raises:
    ///     ValueError: If the message is malformed or ends early.
    ///     RequestEntityTooLarge: If there are more than ``max_parts`` parts, or a part's head has more than 16 KiB.
    fn next_event<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mut decoder = locked_attached(py, &self.decoder);
        let found = decoder.next().map_err(PyValueError::new_err)?;
        let (name, range, more) = match found {
            Found::NeedData => {
                let endless = decoder.state == State::Part && decoder.ahead().len() > MOST_HEAD;
                drop(decoder);
                if endless {
                    return Err(crate::request::too_large(py));
                }
                return events(py)?.getattr(intern!(py, "NEED_DATA"));
            }
            Found::Part(range) => {
                let block = decoder.bytes(range).to_vec();
                drop(decoder);
                return self.part(py, &block);
            }
            Found::Preamble(range) => (intern!(py, "Preamble"), range, None),
            Found::Data(range, more) => (intern!(py, "Data"), range, Some(more)),
            Found::Epilogue(range) => (intern!(py, "Epilogue"), range, None),
        };
        let data = PyBytes::new(py, decoder.bytes(range));
        drop(decoder);
        let event = events(py)?.getattr(name)?;
        match more {
            Some(more) => event.call1((data, more)),
            None => event.call1((data,)),
        }
    }

    /// Where in the message the decoder is.
    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let state = locked_attached(py, &self.decoder).state;
        events(py)?.getattr(intern!(py, "State"))?.getattr(state.name())
    }

    /// Whether the end was fed.
    #[getter]
    fn complete(&self, py: Python<'_>) -> bool {
        locked_attached(py, &self.decoder).complete
    }

    /// What was fed and not yet decoded.
    #[getter]
    fn buffer<'py>(&self, py: Python<'py>) -> Bound<'py, PyByteArray> {
        let decoder = locked_attached(py, &self.decoder);
        PyByteArray::new(py, decoder.ahead())
    }
}

fn events(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    import(py, &MODULE, "hipflask.werkzeug.sansio.multipart")
}

fn http_module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    import(py, &MODULE, "hipflask.werkzeug.http")
}

/// A module imported when first needed.
pub(crate) fn import<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyModule>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyModule>> {
    Ok(cell.get_or_try_init(py, || py.import(name).map(Bound::unbind))?.bind(py))
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<MultipartDecoder>()?;
    module.add_function(wrap_pyfunction!(parse_urlencoded, module)?)
}
