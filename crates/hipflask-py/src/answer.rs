//! What a view returned, as bytes: the common types directly, a `Response` object natively or as a WSGI callable.

use hipflask_server::Reply;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};
use pyo3::{PyTypeInfo, intern};

use crate::feed::Feed;
use crate::json;
use crate::plan::{Hooks, loaded_module};
use crate::request::RequestBase;
use crate::response::{self, ResponseBase, WireBody};
use crate::serve;
use crate::sse::EventBody;
use crate::trailers;
use crate::wsgi::{self, Begun, Pieces};

const HTML: &[u8] = b"text/html; charset=utf-8";
const JSON: &[u8] = b"application/json";
const CONTENT_TYPE: &[u8] = b"Content-Type";

/// What a session adds to a response.
pub(crate) struct SessionFields {
    /// `Vary: Cookie`.
    pub(crate) vary: bool,
    /// The value of `Set-Cookie`.
    pub(crate) cookie: Option<String>,
}

/// Writes a value that needs no response object: text, bytes, a dict or a list, alone or with a status.
///
/// Gives false, having written nothing, for anything else: then `Flask.make_response` decides.
pub(crate) fn simple(
    app: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    hooks: &Hooks,
    session: &SessionFields,
    reply: &mut Reply<'_>,
) -> PyResult<bool> {
    if !hooks.plain_responses {
        return Ok(false);
    }
    if let Ok(pair) = value.cast_exact::<PyTuple>() {
        if pair.len() != 2 {
            return Ok(false);
        }
        let (body, status) = (pair.get_borrowed_item(0)?, pair.get_borrowed_item(1)?);
        return match status.cast_exact::<PyInt>().ok().and_then(|status| status.extract::<u16>().ok()) {
            // An interim or a bodiless status has rules of its own.
            Some(status) if (200..600).contains(&status) && status != 204 && status != 304 => {
                body_alone(app, &body, status, hooks, session, reply)
            }
            _ => Ok(false),
        };
    }
    body_alone(app, value, 200, hooks, session, reply)
}

fn body_alone(
    app: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    status: u16,
    hooks: &Hooks,
    session: &SessionFields,
    reply: &mut Reply<'_>,
) -> PyResult<bool> {
    let kind = value.get_type();
    if kind.is(PyString::type_object(value.py())) {
        whole(reply, status, HTML, session, value.cast::<PyString>()?.to_str()?.as_bytes())
    } else if kind.is(PyDict::type_object(value.py())) || kind.is(PyList::type_object(value.py())) {
        let mut text = Vec::with_capacity(256);
        let Some(options) = hooks.json_options(app)? else { return Ok(false) };
        if !json::dumps_into(value, &mut text, &options)? {
            return Ok(false);
        }
        text.push(b'\n');
        whole(reply, status, JSON, session, &text)
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        whole(reply, status, HTML, session, bytes.as_bytes())
    } else {
        Ok(false)
    }
}

fn whole(
    reply: &mut Reply<'_>,
    status: u16,
    kind: &[u8],
    session: &SessionFields,
    body: &[u8],
) -> PyResult<bool> {
    reply.start(status, None);
    wsgi::write_field(reply, CONTENT_TYPE, kind)?;
    if session.vary {
        wsgi::write_field(reply, b"Vary", b"Cookie")?;
    }
    if let Some(cookie) = &session.cookie {
        wsgi::write_field(reply, b"Set-Cookie", cookie.as_bytes())?;
    }
    if body.is_empty() && reply.is_head() {
        // Else the server could not tell whether there was none or none made.
        wsgi::write_field(reply, b"Content-Length", b"0")?;
    }
    reply.body(body);
    Ok(true)
}

/// What is left to do with a response object once the request's context is gone.
pub(crate) enum Rest {
    /// Close it, or its body.
    Close(Py<PyAny>),
    /// Take the pieces that its class makes.
    Pieces(Begun),
    /// Have the event loop make its body: the pieces, where they go, and the response.
    Feed(Py<PyAny>, Feed, Py<PyAny>),
}

impl Rest {
    pub(crate) fn finish(self, py: Python<'_>, reply: &mut Reply<'_>) -> PyResult<()> {
        match self {
            Self::Close(closed) => close(closed.bind(py)),
            Self::Pieces(begun) => begun.write(py, reply),
            feed @ Self::Feed(..) => feed.begin_feed(py),
        }
    }

    /// Lets the event loop make the body, if it does. Dropped without this, the client's connection is cut.
    pub(crate) fn begin_feed(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Feed(pieces, feed, response) => {
                pieces.call_method1(py, intern!(py, "_feed"), (feed, response)).map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// Closes a response, or its body. What goes wrong is logged: a WSGI server has sent everything by then.
pub(crate) fn close(closed: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = closed.py();
    if let Some(close) = closed.getattr_opt(intern!(py, "close"))?
        && let Err(error) = close.call0()
    {
        serve::log_error(py, &error, "while a response was being closed");
    }
    Ok(())
}

/// Writes a response object: natively, or through its WSGI side if its class changed that.
///
/// The object is closed once its body has been sent; where the body is all there, that is the rest to do.
pub(crate) fn response<'py>(
    response: &Bound<'py, PyAny>,
    request: &Bound<'py, RequestBase>,
    reply: &mut Reply<'_>,
) -> PyResult<Option<Rest>> {
    let py = response.py();
    let environ = || request.getattr(intern!(py, "environ"));
    let base = match response.cast::<ResponseBase>() {
        Ok(base) if response::is_plain(base)? => base,
        _ => return Ok(Some(Rest::Pieces(Begun::new(response, environ()?.cast::<PyDict>()?)?))),
    };
    let wire = response::wire(base, reply.is_head(), environ)?;
    let status = wsgi::final_status(wire.code)?;
    reply.start(status, wire.phrase.as_deref());
    let mut length = None;
    for (name, value) in &wire.fields {
        let (name, value) = (wsgi::latin1(name)?, wsgi::latin1(value)?);
        if name.eq_ignore_ascii_case(b"content-length") {
            length = std::str::from_utf8(&value).ok().and_then(|digits| digits.parse().ok());
        }
        wsgi::write_field(reply, &name, &value)?;
    }
    let trailers = match response::trailers(base) {
        Some(trailers) if has_end(&wire.body) && trailers::are_taken(request)? => {
            if !wire.fields.iter().any(|(name, _)| name.to_string_lossy().eq_ignore_ascii_case("trailer"))
                && let names = trailers.call_method0(intern!(py, "names"))?.cast_into::<PyString>()?
                && names.len()? > 0
            {
                wsgi::write_field(reply, b"Trailer", &wsgi::latin1(&names)?)?;
            }
            Some(trailers)
        }
        _ => None,
    };
    // The WSGI side of a body that is passed through is closed itself, and not the response.
    let is_passed = || base.getattr(intern!(py, "direct_passthrough"))?.is_truthy();
    let mut closed = response.clone();
    match wire.body {
        WireBody::Empty => reply.body(b""),
        WireBody::Bytes(bytes) => match trailers {
            Some(source) => reply.pieces_with_trailers(&[bytes.as_bytes()], &trailers::given(&source)?),
            None => reply.body(bytes.as_bytes()),
        },
        WireBody::Pieces(pieces) => {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            match trailers {
                Some(source) => reply.pieces_with_trailers(&pieces, &trailers::given(&source)?),
                None => reply.pieces(&pieces),
            }
        }
        WireBody::File { .. } if let Some(trailers) = trailers.as_ref() => {
            // The kernel sends files without chunks.
            let pieces = base.getattr(intern!(py, "response"))?;
            if is_passed()? {
                closed = pieces.clone();
            }
            let pieces = Pieces::of_response(closed, &pieces)?.with_trailers(trailers.clone().unbind());
            reply.trail();
            reply.stream(Box::new(pieces), length);
            return Ok(None);
        }
        WireBody::File { file, offset, length } => {
            reply.file(file, offset, length);
            if is_passed()? {
                closed = base.getattr(intern!(py, "response"))?;
            }
        }
        WireBody::Iterable(iterable) => {
            if is_passed()? {
                closed = base.getattr(intern!(py, "response"))?;
            }
            if let Ok(events) = iterable.cast::<EventBody>()
                && let source = events.get().source(py)?
                && is_made_by_loop(source.bind(py))?
            {
                let outlet = reply.outlet(None);
                events.get().prepare(&outlet);
                return Ok(Some(Rest::Feed(source, Feed::new(outlet), closed.unbind())));
            }
            if wsgi::is_fed(&iterable) {
                wsgi::feed(&iterable, reply, || Pieces::of_response(closed, &iterable).map(Some))?;
                return Ok(None);
            }
            if is_made_by_loop(&iterable)? {
                let feed = match trailers {
                    Some(trailers) => {
                        reply.trail();
                        Feed::new(reply.outlet(length)).with_trailers(trailers.unbind())
                    }
                    None => Feed::new(reply.outlet(length)),
                };
                reply.keep_deadline();
                return Ok(Some(Rest::Feed(iterable.unbind(), feed, closed.unbind())));
            }
            let mut pieces = Pieces::of_response(closed, &iterable)?;
            if let Some(trailers) = trailers {
                reply.trail();
                pieces = pieces.with_trailers(trailers.unbind());
            }
            reply.stream(Box::new(pieces), length);
            return Ok(None);
        }
    }
    Ok(Some(Rest::Close(closed.unbind())))
}

/// Whether trailers can follow a body: there is one, and it is no event stream, which ends when the server stops.
fn has_end(body: &WireBody<'_>) -> bool {
    match body {
        WireBody::Empty => false,
        WireBody::Iterable(iterable) => !wsgi::is_fed(iterable),
        _ => true,
    }
}

/// Whether a body is made by the event loop. Its class is imported by whoever has made such a body.
pub(crate) fn is_made_by_loop(body: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = body.py();
    Ok(match loaded_module(py, intern!(py, "hipflask.streaming"))? {
        Some(module) => body.get_type().is(&module.getattr(intern!(py, "AsyncPieces"))?),
        None => false,
    })
}

/// The answer to what nobody handled; says nothing about what happened.
pub(crate) fn server_error(reply: &mut Reply<'_>) {
    const PAGE: &str = "<!doctype html>\n<html lang=en>\n<title>500 Internal Server Error</title>\n\
        <h1>Internal Server Error</h1>\n<p>The server encountered an internal error and was unable to complete your \
        request. Either the server is overloaded or there is an error in the application.</p>\n";
    reply.start(500, None);
    // Cannot fail: the value is a constant without control characters.
    if reply.field(CONTENT_TYPE, HTML).is_ok() {
        reply.body(PAGE.as_bytes());
    }
}
