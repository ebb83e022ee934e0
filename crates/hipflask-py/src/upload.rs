//! Multipart forms that fit into memory, parsed in one go: no events, no parser objects, and of each file one copy.
//!
//! Gives what `hipflask/werkzeug/formparser.py` gives for the same body, whose limits are the same; that parser takes
//! the bodies that are long, of unknown length, or near a limit.

use hipflask_http::field;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyType};

use crate::form::{Decoder, Found, part_headers};
use crate::headers::Headers;

/// Files up to this size stay in memory: so large is what `default_stream_factory` keeps there.
pub(crate) const IN_MEMORY: u64 = 500 * 1024;

/// What a form holds.
#[derive(Default)]
pub(crate) struct Parts<'py> {
    pub(crate) fields: Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>,
    pub(crate) files: Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>,
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
/// `RequestEntityTooLarge` if there are more than `most` parts.
pub(crate) fn parse<'py>(
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
                let Some(begun) = begin(py, decoder.bytes(range))? else { return Ok(None) };
                count += 1;
                if most.is_some_and(|most| count > most) {
                    return Err(crate::request::too_large(py));
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
