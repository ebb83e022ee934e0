//! Calls a WSGI callable (PEP 3333) and turns what it answers into a reply.
//!
//! This is how the full lane runs a Flask app whose dispatch was replaced or wrapped, and how the server hosts any
//! other WSGI application. Does not build the environ (see [`request`](crate::request)).

use std::sync::Mutex;

use hipflask_http::Trailers;
use hipflask_server::{BodyError, BodySource, Reply};
use pyo3::exceptions::{PyAssertionError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyIterator, PyList, PyString, PyTuple};

use crate::answer::is_made_by_loop;
use crate::channel::Subscription;
use crate::feed::Feed;
use crate::locked;
use crate::response;
use crate::sse::EventBody;
use crate::trailers::{self, SendTrailers};

/// What `start_response` was told.
struct Head {
    status: u16,
    reason: String,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Default)]
struct State {
    head: Option<Head>,
    written: Vec<u8>,
    /// The head has gone to the client: too late for `exc_info` to replace it.
    sent: bool,
}

/// The `start_response` of one request.
#[pyclass(frozen, module = "hipflask._core")]
struct StartResponse(Mutex<State>);

/// The `write` callable that PEP 3333 keeps for old applications.
#[pyclass(frozen, module = "hipflask._core")]
struct Write(Py<StartResponse>);

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info=None))]
    fn __call__(
        this: &Bound<'_, Self>,
        status: &Bound<'_, PyString>,
        headers: &Bound<'_, PyList>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Write>> {
        let head = parse_head(status, headers)?;
        let (sent, begun) = {
            let state = locked(&this.get().0);
            (state.sent, state.head.is_some())
        };
        match exc_info {
            Some(error) if sent => return Err(reraise(error)),
            None if begun => {
                return Err(PyAssertionError::new_err("start_response was called twice without exc_info"));
            }
            _ => locked(&this.get().0).head = Some(head),
        }
        Py::new(this.py(), Write(this.clone().unbind()))
    }
}

#[pymethods]
impl Write {
    fn __call__(&self, data: &Bound<'_, PyBytes>) {
        locked(&self.0.get().0).written.extend_from_slice(data.as_bytes());
    }
}

fn reraise(exc_info: &Bound<'_, PyAny>) -> PyErr {
    match exc_info.get_item(1) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

fn parse_head(status: &Bound<'_, PyString>, headers: &Bound<'_, PyList>) -> PyResult<Head> {
    let text = status.to_str()?;
    let (code, reason) = text.split_once(' ').unwrap_or((text, ""));
    let status = code.parse::<u16>().ok().filter(|code| (100..=999).contains(code)).ok_or_else(|| {
        PyValueError::new_err(format!("status {text:?} does not begin with a three-digit code"))
    })?;
    let fields = headers
        .iter()
        .map(|pair| {
            let pair = pair.cast_into::<PyTuple>()?;
            let (name, value) =
                (pair.get_item(0)?.cast_into::<PyString>()?, pair.get_item(1)?.cast_into::<PyString>()?);
            Ok((latin1(&name)?, latin1(&value)?))
        })
        .collect::<PyResult<Vec<_>>>()?;
    Ok(Head { status, reason: reason.to_owned(), fields })
}

/// A status that can end an exchange; an interim one cannot (RFC 9110 §15.2).
pub(crate) fn final_status(code: i64) -> PyResult<u16> {
    u16::try_from(code).ok().filter(|code| (200..=999).contains(code)).ok_or_else(|| {
        PyValueError::new_err(format!("a response cannot have the status {code}: it must be 200 to 999"))
    })
}

/// A header's text as bytes: latin-1, as PEP 3333 has it.
pub(crate) fn latin1(text: &Bound<'_, PyString>) -> PyResult<Vec<u8>> {
    let utf8 = text.to_str()?;
    if utf8.is_ascii() {
        return Ok(utf8.as_bytes().to_vec());
    }
    utf8.chars()
        .map(|c| u8::try_from(u32::from(c)))
        .collect::<Result<_, _>>()
        .map_err(|_| PyValueError::new_err(format!("header {utf8:?} has a character beyond latin-1")))
}

/// Calls `app(environ, start_response)` and writes its answer.
///
/// On an error nothing of a head has left `reply` for the client yet: the caller may `reset` it and answer 500.
pub(crate) fn call(
    app: &Bound<'_, PyAny>,
    environ: &Bound<'_, PyDict>,
    reply: &mut Reply<'_>,
) -> PyResult<()> {
    Begun::new(app, environ)?.write(app.py(), reply)
}

/// What `app(environ, start_response)` has returned, not yet iterated over.
pub(crate) struct Begun {
    start: Py<StartResponse>,
    body: Pieces,
    /// There if the client takes trailers.
    trailers: Option<Py<PyAny>>,
}

impl Begun {
    /// Calls `app`.
    pub(crate) fn new(app: &Bound<'_, PyAny>, environ: &Bound<'_, PyDict>) -> PyResult<Self> {
        let start = Bound::new(app.py(), StartResponse(Mutex::default()))?;
        let iterable = app.call1((environ, &start))?;
        let trailers = environ.get_item(intern!(app.py(), trailers::SENT))?.map(Bound::unbind);
        Ok(Self { start: start.unbind(), body: Pieces::new(iterable)?, trailers })
    }

    /// Writes the answer, or hands its iterable on to be streamed.
    pub(crate) fn write(self, py: Python<'_>, reply: &mut Reply<'_>) -> PyResult<()> {
        finish(
            self.start.bind(py),
            self.body,
            self.trailers.as_ref().map(|trailers| trailers.bind(py)),
            reply,
        )
    }
}

fn finish(
    start: &Bound<'_, StartResponse>,
    mut body: Pieces,
    trailers: Option<&Bound<'_, PyAny>>,
    reply: &mut Reply<'_>,
) -> PyResult<()> {
    let trailers = || {
        let given = trailers.and_then(|trailers| trailers.cast::<SendTrailers>().ok());
        given.and_then(|given| given.get().take())
    };
    let py = start.py();
    if let Some(iterable) = body.iterable.as_ref().map(|iterable| iterable.bind(py).clone())
        && is_fed(&iterable)
        && let Some(head) = locked(&start.get().0).head.take()
    {
        write_head(reply, &head)?;
        let mut body = Some(body);
        feed(&iterable, reply, || Ok(body.take()))?;
        return Ok(());
    }
    // Those of a file's response were given before it was returned.
    if let Some(iterable) = &body.iterable
        && iterable.bind(py).get_type().is(response::file_classes(py)?.0)
    {
        body.trailers = trailers();
    }
    if body.trailers.is_none()
        && let Some(iterable) = &body.iterable
        && let Some((file, offset, size)) = response::wrapped_file(iterable.bind(py))?
        && let Some(head) = {
            let mut state = locked(&start.get().0);
            if state.written.is_empty() { state.head.take() } else { None }
        }
    {
        let there = size.saturating_sub(offset);
        let length = write_head(reply, &head)?.map_or(there, |told| told.min(there));
        // The wrapper is closed when it is dropped here; the engine has a descriptor of its own.
        reply.file(file, offset, length);
        return Ok(());
    }
    // A generator may call `start_response` as late as for its first piece.
    let mut first = Vec::new();
    let mut ended = false;
    while !ended && (first.is_empty() || body.is_short) {
        match body.take(py)? {
            Some(piece) => first.extend_from_slice(piece.as_bytes()),
            None => ended = true,
        }
    }
    let head = {
        let mut state = locked(&start.get().0);
        state.sent = true;
        let written = std::mem::take(&mut state.written);
        first.splice(0..0, written);
        state.head.take()
    };
    let Some(head) = head else {
        return Err(PyAssertionError::new_err("the application did not call start_response"));
    };
    let length = write_head(reply, &head)?;
    if body.trailers.is_none() {
        body.trailers = trailers();
    }
    if ended {
        match &body.trailers {
            Some(source) => reply.pieces_with_trailers(&[&first], &trailers::given(source.bind(py))?),
            None => reply.body(&first),
        }
        // Dropped here, the body closes itself.
        Ok(())
    } else {
        if body.trailers.is_some() {
            reply.trail();
        }
        body.begun = Some(Box::new((first, start.clone().unbind())));
        reply.stream(Box::new(body), length);
        Ok(())
    }
}

/// Writes status and fields; gives the length that they tell.
fn write_head(reply: &mut Reply<'_>, head: &Head) -> PyResult<Option<u64>> {
    reply.start(head.status, Some(&head.reason));
    let mut length = None;
    for (name, value) in &head.fields {
        if name.eq_ignore_ascii_case(b"content-length") {
            length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
        }
        write_field(reply, name, value)?;
    }
    Ok(length)
}

/// Whether the engine sends this body through an outlet: a channel's events, or those of an iterator.
pub(crate) fn is_fed(body: &Bound<'_, PyAny>) -> bool {
    body.is_instance_of::<Subscription>() || body.is_instance_of::<EventBody>()
}

/// Completes a response with such a body; `pieces` is asked for one that has to be iterated over.
pub(crate) fn feed(
    body: &Bound<'_, PyAny>,
    reply: &mut Reply<'_>,
    pieces: impl FnOnce() -> PyResult<Option<Pieces>>,
) -> PyResult<()> {
    if let Ok(subscription) = body.cast::<Subscription>() {
        let outlet = reply.outlet(None);
        if !subscription.get().attach(&outlet) {
            outlet.finish();
        }
    } else if let Ok(events) = body.cast::<EventBody>() {
        let py = body.py();
        let source = events.get().source(py)?;
        if is_made_by_loop(source.bind(py))? {
            let outlet = reply.outlet(None);
            events.get().prepare(&outlet);
            source.call_method1(py, intern!(py, "_feed"), (Feed::new(outlet), body))?;
            return Ok(());
        }
        let Some(pieces) = pieces()? else { return Ok(()) };
        let outlet = reply.pump(Box::new(pieces), None);
        events.get().prepare(&outlet);
    }
    Ok(())
}

/// Writes a header field; a name or value that could break the head apart is an error.
pub(crate) fn write_field(reply: &mut Reply<'_>, name: &[u8], value: &[u8]) -> PyResult<()> {
    reply.field(name, value).map_err(|_| {
        PyValueError::new_err(format!(
            "header {:?} with value {:?} has characters that are not allowed in a header",
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value)
        ))
    })
}

/// The pieces of a response's iterable, with its `close`.
pub(crate) struct Pieces {
    iterable: Option<Py<PyAny>>,
    iterator: Py<PyIterator>,
    /// A list or tuple: all of it is there, and is sent in one write.
    is_short: bool,
    /// A response's body may have text, sent as UTF-8; a WSGI iterable may not.
    may_be_text: bool,
    /// Of a stream: the first piece until it is sent, and who may still be given bytes by `write`.
    begun: Option<Box<(Vec<u8>, Py<StartResponse>)>>,
    /// What is asked for trailers once the last piece is made.
    trailers: Option<Py<PyAny>>,
}

impl Pieces {
    /// Iterates over a response's body; closing it closes the response.
    pub(crate) fn of_response(response: Bound<'_, PyAny>, body: &Bound<'_, PyAny>) -> PyResult<Self> {
        let iterator = body.try_iter()?.unbind();
        Ok(Self {
            iterable: Some(response.unbind()),
            iterator,
            is_short: false,
            may_be_text: true,
            begun: None,
            trailers: None,
        })
    }

    /// Takes over a WSGI iterable.
    pub(crate) fn new(iterable: Bound<'_, PyAny>) -> PyResult<Self> {
        let is_short = iterable.is_instance_of::<PyList>() || iterable.is_instance_of::<PyTuple>();
        let iterator = match iterable.try_iter() {
            Ok(iterator) => iterator.unbind(),
            Err(_) => {
                let kind = iterable.get_type().name()?;
                return Err(PyTypeError::new_err(format!(
                    "the application returned {kind}, which is not iterable"
                )));
            }
        };
        Ok(Self {
            iterable: Some(iterable.unbind()),
            iterator,
            is_short,
            may_be_text: false,
            begun: None,
            trailers: None,
        })
    }

    /// The same, followed by trailers.
    pub(crate) fn with_trailers(mut self, source: Py<PyAny>) -> Self {
        self.trailers = Some(source);
        self
    }

    fn take<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        match self.iterator.bind(py).clone().next() {
            None => Ok(None),
            Some(piece) => {
                let piece = piece?;
                if self.may_be_text
                    && let Ok(text) = piece.cast::<PyString>()
                {
                    return text.encode_utf8().map(Some);
                }
                let piece = match piece.cast_into::<PyBytes>() {
                    Ok(piece) => return Ok(Some(piece)),
                    Err(error) => error.into_inner(),
                };
                if let Ok(piece) = piece.cast::<PyByteArray>() {
                    return Ok(Some(PyBytes::new(py, &piece.to_vec())));
                }
                Err({
                    let kind = piece.get_type();
                    PyTypeError::new_err(format!(
                        "a response's body yielded {kind}, but its pieces must be bytes"
                    ))
                })
            }
        }
    }

    /// Calls the iterable's `close`, once.
    fn close(&mut self, py: Python<'_>) -> PyResult<()> {
        if let Some(iterable) = self.iterable.take()
            && let Ok(close) = iterable.bind(py).getattr(intern!(py, "close"))
        {
            close.call0()?;
        }
        Ok(())
    }
}

impl BodySource for Pieces {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, BodyError> {
        if let Some(begun) = &mut self.begun
            && !begun.0.is_empty()
        {
            out.append(&mut begun.0);
            return Ok(true);
        }
        Python::attach(|py| match self.take(py) {
            Ok(piece) => {
                let begin = out.len();
                if let Some(begun) = &self.begun {
                    out.append(&mut locked(&begun.1.get().0).written);
                }
                let goes_on = piece.is_some();
                if let Some(piece) = piece {
                    out.extend_from_slice(piece.as_bytes());
                }
                Ok(goes_on || out.len() > begin)
            }
            Err(error) => {
                crate::serve::log_error(py, &error, "while a response's body was being sent");
                Err(BodyError::Failed)
            }
        })
    }

    fn trailers(&mut self) -> Result<Trailers, BodyError> {
        let Some(source) = self.trailers.take() else { return Ok(Trailers::new()) };
        Python::attach(|py| {
            trailers::given(source.bind(py)).map_err(|error| {
                crate::serve::log_error(py, &error, "while a response's trailers were being made");
                BodyError::Failed
            })
        })
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        Python::attach(|py| {
            if let Err(error) = self.close(py) {
                crate::serve::log_error(py, &error, "while a response was being closed");
            }
        });
    }
}
