//! A request's body as a Python file object.
//!
//! One body may have two readers (`wsgi.input` and `request.stream`); they share what is left of it. Waiting for the
//! client releases the GIL. A body that breaks off is an error, never an early end: `ConnectionError` for those who
//! read `wsgi.input`, `ClientDisconnected` (400) and `RequestEntityTooLarge` (413) for those who read `request.stream`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hipflask_http::Trailers;
use hipflask_server::{Body, BodyError, BodyStream};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyConnectionError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::environ::latin1;
use crate::{locked, locked_attached};

const PIECE: usize = 64 * 1024;

/// What is left of a body.
pub(crate) struct Left {
    held: Vec<u8>,
    at: usize,
    stream: Option<BodyStream>,
    broken: Option<BodyError>,
    /// What has followed it, once it has come whole.
    trailers: Trailers,
}

/// A body that several objects may read from.
pub(crate) type Shared = Arc<Mutex<Left>>;

/// Makes a body readable.
pub(crate) fn shared(body: Body) -> Shared {
    let (held, stream, trailers) = match body {
        Body::Empty => (Vec::new(), None, Trailers::new()),
        Body::Buffered(bytes) => (bytes, None, Trailers::new()),
        Body::Trailed(whole) => (whole.0, None, whole.1),
        Body::Stream(stream) => (Vec::new(), Some(stream), Trailers::new()),
    };
    Arc::new(Mutex::new(Left { held, at: 0, stream, broken: None, trailers }))
}

impl Left {
    /// The trailers, once the body has been read to its end; none before.
    pub(crate) fn trailers(&self) -> &[(Vec<u8>, Vec<u8>)] {
        let is_read = self.stream.is_none() && self.broken.is_none() && self.ahead().is_empty();
        if is_read { &self.trailers } else { &[] }
    }

    /// Nothing more comes: what has followed is kept.
    fn end(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            self.trailers = stream.take_trailers();
        }
    }

    fn ahead(&self) -> &[u8] {
        self.held.get(self.at..).unwrap_or_default()
    }

    /// Reads on until `most` bytes are held (or `stop` says that they are enough). Blocks.
    fn fill(&mut self, most: usize, mut stop: impl FnMut(&[u8]) -> bool) -> Result<(), BodyError> {
        if self.at > 0 {
            self.held.drain(..self.at);
            self.at = 0;
        }
        let mut seen = 0;
        while self.held.len() < most && !stop(self.held.get(seen..).unwrap_or_default()) {
            seen = self.held.len();
            if let Some(error) = self.broken {
                return Err(error);
            }
            let Some(stream) = self.stream.as_mut() else { return Ok(()) };
            self.held.resize(seen + PIECE.min(most - seen), 0);
            let got = stream.read(self.held.get_mut(seen..).unwrap_or_default());
            self.held.truncate(seen + got.unwrap_or(0));
            match got {
                Ok(0) => self.end(),
                Ok(_) => {}
                Err(error) => {
                    self.broken = Some(error);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Takes what has arrived, up to `most` bytes held; whether there is anything more to wait for.
    fn pull(&mut self, most: usize) -> Result<bool, BodyError> {
        if self.at > 0 {
            self.held.drain(..self.at);
            self.at = 0;
        }
        while self.held.len() < most {
            if let Some(error) = self.broken {
                return Err(error);
            }
            let Some(stream) = self.stream.as_mut() else { return Ok(false) };
            let seen = self.held.len();
            self.held.resize(seen + PIECE.min(most - seen), 0);
            let got = stream.try_read(self.held.get_mut(seen..).unwrap_or_default());
            self.held.truncate(seen + got.unwrap_or(None).unwrap_or(0));
            match got {
                Ok(Some(0)) => self.end(),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(true),
                Err(error) => {
                    self.broken = Some(error);
                    return Err(error);
                }
            }
        }
        Ok(false)
    }

    fn settled(&self, most: usize) -> bool {
        (self.stream.is_none() && self.broken.is_none()) || self.held.len() - self.at >= most
    }
}

enum Want {
    Most(usize),
    Line(usize),
}

/// The body of a request, as a binary file that is read once from front to back.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct InputStream {
    left: Shared,
    /// Most bytes that may be read, and whether errors are HTTP errors.
    limit: Option<u64>,
    guarded: bool,
    read: AtomicU64,
    closed: AtomicBool,
}

impl InputStream {
    /// A reader; `guarded` ones raise HTTP errors and stop at `limit`.
    pub(crate) fn new(left: Shared, guarded: bool, limit: Option<u64>) -> Self {
        Self { left, limit, guarded, read: AtomicU64::new(0), closed: AtomicBool::new(false) }
    }

    /// Everything that is left.
    pub(crate) fn read_all<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.take(py, &Want::Most(usize::MAX))
    }

    /// Everything that is left, without a copy unless some of it has been read.
    pub(crate) fn take_all(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(PyValueError::new_err("I/O operation on closed file."));
        }
        let allowed = self.allowed();
        let most = usize::try_from(allowed.saturating_add(1)).unwrap_or(usize::MAX);
        let ready = self.left.try_lock().is_ok_and(|left| left.settled(most));
        if !ready {
            refuse_to_block()?;
            py.detach(|| {
                let mut left = locked(&self.left);
                left.fill(most, |_| false)
            })
            .map_err(|error| self.broken(py, error))?;
        }
        let mut left = locked_attached(py, &self.left);
        if left.ahead().len() as u64 > allowed {
            drop(left);
            return Err(crate::request::too_large(py));
        }
        let at = std::mem::take(&mut left.at);
        let mut body = std::mem::take(&mut left.held);
        drop(left);
        body.drain(..at);
        self.read.fetch_add(body.len() as u64, Ordering::Relaxed);
        Ok(body)
    }

    /// How many bytes more may be read.
    fn allowed(&self) -> u64 {
        self.limit.map_or(u64::MAX, |limit| limit - self.read.load(Ordering::Relaxed).min(limit))
    }

    /// Takes what is wanted out of the body and counts it.
    fn take<'py>(&self, py: Python<'py>, want: &Want) -> PyResult<Bound<'py, PyBytes>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(PyValueError::new_err("I/O operation on closed file."));
        }
        let allowed = self.allowed();
        // One byte more than allowed tells a body that ends at the limit from one that goes on.
        let ceiling = usize::try_from(allowed.saturating_add(1)).unwrap_or(usize::MAX);
        let most = match *want {
            Want::Most(most) | Want::Line(most) => most.min(ceiling),
        };
        let line = matches!(want, Want::Line(_));
        let ready = |left: &Left| left.settled(most) || (line && left.ahead().contains(&b'\n'));
        if let Ok(left) = self.left.try_lock()
            && ready(&left)
        {
            return self.cut(py, left, most, line, allowed);
        }
        refuse_to_block()?;
        py.detach(|| {
            let mut left = locked(&self.left);
            left.fill(most, |fresh| line && fresh.contains(&b'\n'))
        })
        .map_err(|error| self.broken(py, error))?;
        let left = locked_attached(py, &self.left);
        self.cut(py, left, most, line, allowed)
    }

    fn cut<'py>(
        &self,
        py: Python<'py>,
        mut left: MutexGuard<'_, Left>,
        most: usize,
        line: bool,
        allowed: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let ahead = left.ahead();
        let mut count = ahead.len().min(most);
        if line {
            count = ahead.iter().take(count).position(|&byte| byte == b'\n').map_or(count, |at| at + 1);
        }
        if count as u64 > allowed {
            drop(left);
            return Err(crate::request::too_large(py));
        }
        let bytes = PyBytes::new(py, ahead.get(..count).unwrap_or_default());
        left.at += count;
        if left.at == left.held.len() {
            left.held = Vec::new();
            left.at = 0;
        }
        drop(left);
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    fn broken(&self, py: Python<'_>, error: BodyError) -> PyErr {
        if self.guarded {
            return crate::request::body_error(py, error);
        }
        PyConnectionError::new_err(error.to_string())
    }
}

/// A slow client would hold up everybody's coroutines.
fn refuse_to_block() -> PyResult<()> {
    if crate::later::is_loop_thread() {
        return Err(PyRuntimeError::new_err(
            "The request's body is still arriving, and waiting for it would block the event loop: await it first, with \
             'await request.get_data_async()' or 'async for piece in request.body'.",
        ));
    }
    Ok(())
}

fn bound(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}

#[pymethods]
impl InputStream {
    /// Read up to ``size`` bytes, fewer only at the end; all of them without ``size``.
    #[pyo3(signature = (size=-1, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.take(py, &Want::Most(bound(size)))
    }

    /// Like ``read``.
    #[pyo3(signature = (size=-1, /))]
    fn read1<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let most = bound(size).min(PIECE);
        self.take(py, &Want::Most(most))
    }

    /// Read what is left.
    fn readall<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.read_all(py)
    }

    /// Read a line with its line end, at most ``size`` bytes of it.
    #[pyo3(signature = (size=-1, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.take(py, &Want::Line(bound(size)))
    }

    /// Read lines until the end, or until they have ``hint`` bytes together.
    #[pyo3(signature = (hint=-1, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let enough = hint.and_then(|hint| usize::try_from(hint).ok()).filter(|&hint| hint > 0);
        let lines = PyList::empty(py);
        let mut total = 0;
        while enough.is_none_or(|enough| total < enough) {
            let line = self.take(py, &Want::Line(usize::MAX))?;
            if line.as_bytes().is_empty() {
                break;
            }
            total += line.as_bytes().len();
            lines.append(line)?;
        }
        Ok(lines)
    }

    /// Read into a writable buffer; returns the number of bytes.
    fn readinto(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let view = PyBuffer::<u8>::get(buffer)?;
        if view.readonly() || !view.is_c_contiguous() {
            return Err(PyValueError::new_err("a writable, contiguous buffer is needed"));
        }
        let bytes = self.take(py, &Want::Most(view.len_bytes()))?;
        let bytes = bytes.as_bytes();
        // SAFETY: the buffer is writable, contiguous and at least as long as what was asked for; its memory stays
        // where it is while `view` lives, and `bytes` is an object of its own.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), view.buf_ptr().cast::<u8>(), bytes.len()) };
        Ok(bytes.len())
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.take(py, &Want::Line(usize::MAX))?;
        Ok((!line.as_bytes().is_empty()).then_some(line))
    }

    /// Take what has arrived, up to ``size`` bytes, and keep it for those who read.
    ///
    /// Returns:
    ///     None if so much is there, or all of it. Else the descriptor that becomes readable when there may be more, and
    ///     for how many seconds at most to wait for that.
    #[pyo3(signature = (size=None))]
    fn pull(&self, py: Python<'_>, size: Option<usize>) -> PyResult<Option<(i32, f64)>> {
        let ceiling = usize::try_from(self.allowed().saturating_add(1)).unwrap_or(usize::MAX);
        let most = size.unwrap_or(usize::MAX).min(ceiling);
        let pulled = py.detach(|| {
            let mut left = locked(&self.left);
            let waits = left.pull(most)? && (size.is_none() || left.held.is_empty());
            Ok(waits.then(|| left.stream.as_ref().and_then(BodyStream::awaited)).flatten())
        });
        let awaited = pulled.map_err(|error| self.broken(py, error))?;
        Ok(awaited.map(|(descriptor, patience)| (descriptor, patience.as_secs_f64())))
    }

    /// Read what has been pulled, at most ``size`` bytes; nothing at the end.
    fn pulled<'py>(&self, py: Python<'py>, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        let allowed = self.allowed();
        let most = size.min(usize::try_from(allowed.saturating_add(1)).unwrap_or(usize::MAX));
        let left = locked_attached(py, &self.left);
        self.cut(py, left, most, false, allowed)
    }

    /// Whether all has been read, or all that is left has arrived and is nothing.
    #[getter]
    fn is_over(&self) -> bool {
        self.left.try_lock().is_ok_and(|left| left.stream.is_none() && left.ahead().is_empty())
    }

    /// The fields that have followed the body: names and values. None before it has been read to its end.
    fn trailers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let fields = locked_attached(py, &self.left).trailers().to_vec();
        let pairs = PyList::empty(py);
        for (name, value) in fields {
            pairs.append((latin1(py, &name)?, latin1(py, &value)?))?;
        }
        Ok(pairs)
    }

    /// The same body, read with HTTP errors and at most ``limit`` bytes of it.
    #[pyo3(signature = (limit=None))]
    fn guarded(&self, limit: Option<u64>) -> Self {
        Self::new(Arc::clone(&self.left), true, limit)
    }

    /// How many bytes have been read.
    fn tell(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Refuse further reads.
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Do nothing: there is nothing to write.
    fn flush(&self) {}

    /// Whether the stream was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// True.
    fn readable(&self) -> bool {
        true
    }

    /// False.
    fn writable(&self) -> bool {
        false
    }

    /// False.
    fn seekable(&self) -> bool {
        false
    }

    /// False.
    fn isatty(&self) -> bool {
        false
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(&self, _kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _trace: &Bound<'_, PyAny>) {
        self.close();
    }
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<InputStream>()
}
