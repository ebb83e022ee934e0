//! Forms that fit into memory, parsed in one go: no events, no parser objects, and of each file one copy.
//!
//! Gives what `hipflask/werkzeug/formparser.py` gives for the same body, whose limits are the same; that parser takes
//! the bodies that are long, of unknown length, or near a limit.

use hipflask_http::{field, query};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyType};

use crate::body::InputStream;
use crate::form::{Decoder, Found, MOST_HEAD, part_headers};
use crate::headers::Headers;
use crate::multidict;
use crate::request::{Parsed, RequestBase, This, read_all, too_large};
use crate::response::inherits;

/// Files up to this size stay in memory: so large is what `default_stream_factory` keeps there.
const IN_MEMORY: u64 = 500 * 1024;

/// An urlencoded form, or no form at all, without a parser object, where nobody has replaced the parser.
pub(crate) fn without_parser<'py>(slf: This<'_, 'py>, this: &RequestBase) -> PyResult<Option<Parsed<'py>>> {
    let py = slf.py();
    let mimetype = slf.getattr(intern!(py, "mimetype"))?;
    let mimetype: &str = mimetype.extract()?;
    if !has_own_parser(slf)? {
        return Ok(None);
    }
    if mimetype == "multipart/form-data" {
        return small_multipart(slf, this);
    }
    if mimetype != "application/x-www-form-urlencoded" {
        let stream = slf.call_method0(intern!(py, "_get_stream_for_parsing"))?;
        let class = slf.getattr(intern!(py, "parameter_storage_class"))?;
        return Ok(Some((stream, class.call0()?, class.call0()?)));
    }
    let limit: Option<u64> = slf.getattr(intern!(py, "max_form_memory_size"))?.extract()?;
    let length: Option<u64> = slf.getattr(intern!(py, "content_length"))?.extract()?;
    let stream = slf.call_method0(intern!(py, "_get_stream_for_parsing"))?;
    if let (Some(limit), Some(length)) = (limit, length)
        && length > limit
    {
        return Err(too_large(py));
    }
    let class = slf.getattr(intern!(py, "parameter_storage_class"))?.cast_into::<PyType>()?;
    let mut body = match stream.cast::<InputStream>() {
        Ok(input) => input.get().take_all(py)?,
        Err(_) => read_all(&stream)?.extract()?,
    };
    // A body of unknown length is held to the same limit as one that announces its length.
    if limit.is_some_and(|limit| body.len() as u64 > limit) {
        return Err(too_large(py));
    }
    let form = match query::parse_pairs_in_place(&mut body) {
        Ok(pairs) => multidict::of_class(&class, pairs)?,
        // Not a form after all; Werkzeug's parser is silent, too.
        Err(_) => class.call0()?,
    };
    Ok(Some((stream, form, class.call0()?)))
}

/// A multipart form that fits into memory, where nobody has replaced the files that uploads are written to.
fn small_multipart<'py>(slf: This<'_, 'py>, this: &RequestBase) -> PyResult<Option<Parsed<'py>>> {
    static FILES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = slf.py();
    let name = intern!(py, "_get_file_stream");
    let ours = FILES.get_or_try_init(py, || {
        let class = py.import("hipflask.werkzeug.wrappers.request")?.getattr("Request")?;
        class.getattr(name).map(Bound::unbind)
    })?;
    let limit: Option<u64> = slf.getattr(intern!(py, "max_form_memory_size"))?.extract()?;
    let length: Option<u64> = slf.getattr(intern!(py, "content_length"))?.extract()?;
    // Within these bounds neither limit can be passed.
    if length.is_none_or(|length| length > limit.unwrap_or(length).min(IN_MEMORY)) {
        return Ok(None);
    }
    let kind = this.field(slf, b"content-type", intern!(py, "CONTENT_TYPE"))?;
    let Some(kind) = kind.and_then(|kind| kind.cast_into::<PyString>().ok()) else { return Ok(None) };
    let boundary = field::parse_options(kind.to_str()?)
        .into_parameters()
        .into_iter()
        .find(|(key, _)| *key == "boundary");
    let Some((_, boundary)) = boundary else { return Ok(None) };
    if boundary.is_empty() || !boundary.is_ascii() || !inherits(&slf.get_type(), name, ours) {
        return Ok(None);
    }
    let most: Option<u64> = slf.getattr(intern!(py, "max_form_parts"))?.extract()?;
    let stream = slf.call_method0(intern!(py, "_get_stream_for_parsing"))?;
    let Ok(input) = stream.cast::<InputStream>() else { return Ok(None) };
    let body = input.get().take_all(py)?;
    let class = slf.getattr(intern!(py, "parameter_storage_class"))?.cast_into::<PyType>()?;
    Ok(Some(match parse(py, body, boundary.as_bytes(), most)? {
        Some(parts) => {
            (stream, multidict::of_class(&class, parts.fields)?, multidict::of_class(&class, parts.files)?)
        }
        // Werkzeug's parser is silent about what is no form.
        None => (stream, class.call0()?, class.call0()?),
    }))
}

/// Whether the form parser and what makes it are the ones we ship.
fn has_own_parser(slf: This<'_, '_>) -> PyResult<bool> {
    static OURS: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
    let py = slf.py();
    let (class, make) = OURS.get_or_try_init(py, || {
        let class = py.import("hipflask.werkzeug.formparser")?.getattr("FormDataParser")?.unbind();
        let request = py.import("hipflask.werkzeug.wrappers.request")?.getattr("Request")?;
        PyResult::Ok((class, request.getattr("make_form_data_parser")?.unbind()))
    })?;
    Ok(slf.getattr(intern!(py, "form_data_parser_class"))?.is(class)
        && inherits(&slf.get_type(), intern!(py, "make_form_data_parser"), make))
}

/// What a form holds.
#[derive(Default)]
struct Parts<'py> {
    fields: Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>,
    files: Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>,
}

/// The part that is being read.
struct Part<'py> {
    name: Bound<'py, PyAny>,
    filename: Option<Bound<'py, PyString>>,
    headers: Bound<'py, Headers>,
}

/// Parses a whole body. `None` if it is malformed.
///
/// # Errors
/// `RequestEntityTooLarge` if there are more than `most` parts, or a part's head is longer than [`MOST_HEAD`].
fn parse<'py>(
    py: Python<'py>,
    body: Vec<u8>,
    boundary: &[u8],
    most: Option<u64>,
) -> PyResult<Option<Parts<'py>>> {
    let mut decoder = Decoder::of_whole(boundary, body);
    let mut parts = Parts::default();
    let mut part = None;
    let mut count = 0;
    loop {
        match decoder.next() {
            Err(_) => return Ok(None),
            Ok(Found::Preamble(_) | Found::NeedData) => {}
            Ok(Found::Epilogue(_)) => return Ok(Some(parts)),
            Ok(Found::Part(range)) => {
                if range.len() > MOST_HEAD {
                    return Err(too_large(py));
                }
                let Some(begun) = begin(py, decoder.bytes(range))? else { return Ok(None) };
                count += 1;
                if most.is_some_and(|most| count > most) {
                    return Err(too_large(py));
                }
                part = Some(begun);
            }
            Ok(Found::Data(range, more)) => {
                // All is there: content that goes on has no end.
                let (false, Some(part)) = (more, part.take()) else { return Ok(None) };
                part.end(py, decoder.bytes(range), &mut parts)?;
            }
        }
    }
}

/// Reads the head of a part; `None` if it is malformed.
fn begin<'py>(py: Python<'py>, block: &[u8]) -> PyResult<Option<Part<'py>>> {
    let Ok(headers) = part_headers(py, block) else { return Ok(None) };
    let Some(disposition) = headers.get().value_of(py, "content-disposition") else { return Ok(None) };
    let (mut name, mut filename) = (None, None);
    for (key, value) in field::parse_options(disposition.to_str()?).into_parameters() {
        match key.as_str() {
            "name" => name = Some(PyString::new(py, &value).into_any()),
            "filename" => filename = Some(PyString::new(py, &value)),
            _ => {}
        }
    }
    let name = name.unwrap_or_else(|| py.None().into_bound(py));
    Ok(Some(Part { name, filename, headers }))
}

impl<'py> Part<'py> {
    fn end(self, py: Python<'py>, content: &[u8], parts: &mut Parts<'py>) -> PyResult<()> {
        match self.filename {
            None => {
                let text = text(py, content, &self.headers)?;
                parts.fields.push((self.name, text));
            }
            Some(filename) => {
                let file = storage(py, content, &self.name, &filename, &self.headers)?;
                parts.files.push((self.name, file));
            }
        }
        Ok(())
    }
}

/// A field's text, in the character set that its part names if that is a harmless one.
fn text<'py>(py: Python<'py>, content: &[u8], headers: &Bound<'py, Headers>) -> PyResult<Bound<'py, PyAny>> {
    if let Some(kind) = headers.get().value_of(py, "content-type") {
        let options = field::parse_options(kind.to_str()?);
        let charset = options.into_parameters().into_iter().find(|(key, _)| *key == "charset");
        if let Some((_, charset)) = charset
            && matches!(&*charset.to_lowercase(), "ascii" | "us-ascii" | "iso-8859-1")
        {
            let bytes = PyBytes::new(py, content);
            return bytes.call_method1(intern!(py, "decode"), (charset.to_lowercase(), "replace"));
        }
    }
    Ok(PyString::new(py, &String::from_utf8_lossy(content)).into_any())
}

/// A `FileStorage`, as its constructor makes it.
fn storage<'py>(
    py: Python<'py>,
    content: &[u8],
    name: &Bound<'py, PyAny>,
    filename: &Bound<'py, PyString>,
    headers: &Bound<'py, Headers>,
) -> PyResult<Bound<'py, PyAny>> {
    static STORAGE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static FILE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = STORAGE.import(py, "hipflask.werkzeug.datastructures.file_storage", "FileStorage")?;
    // The file shares the bytes until it is written to, and gives them out again when it is read whole.
    let stream =
        FILE.import(py, "hipflask.werkzeug.formparser", "MemoryFile")?.call1((PyBytes::new(py, content),))?;
    let made = class.call_method1(intern!(py, "__new__"), (class,))?;
    made.setattr(intern!(py, "name"), name)?;
    made.setattr(intern!(py, "stream"), stream)?;
    made.setattr(intern!(py, "filename"), filename)?;
    made.setattr(intern!(py, "headers"), headers)?;
    Ok(made)
}
