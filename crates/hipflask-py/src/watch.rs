//! `hipflask._core.Watcher`: waits until the kernel tells that a file has changed (Linux's inotify).
//!
//! Watches directories, not what lies below them: which ones matter is for `hipflask/werkzeug/_reloader.py` to say.
//! Source: inotify(7).

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString, c_int};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Mutex;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::locked;

/// What counts as a change. `IN_MODIFY` does not: a file that is being written is not yet worth reading.
const CHANGES: u32 = libc::IN_CLOSE_WRITE
    | libc::IN_MOVED_TO
    | libc::IN_MOVED_FROM
    | libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_ATTRIB
    | libc::IN_ONLYDIR;

/// Bytes of an event before its name: descriptor, mask, cookie and the name's length.
const EVENT: usize = 16;

/// A path and what happened to it.
type Change = (OsString, &'static str);

/// Tells which files have changed in some directories.
#[pyclass(frozen, module = "hipflask._core")]
struct Watcher {
    queue: File,
    directories: Mutex<HashMap<c_int, PathBuf>>,
}

#[pymethods]
impl Watcher {
    /// Watch nothing yet.
    ///
    /// Raises:
    ///     OSError: If the system gives no further watcher.
    #[new]
    fn new() -> PyResult<Self> {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(Self { queue: unsafe { File::from_raw_fd(fd) }, directories: Mutex::default() })
    }

    /// Watch a directory from now on.
    ///
    /// Raises:
    ///     OSError: If it is none, may not be read, or the system's limit of watches is reached.
    fn add(&self, path: PathBuf) -> PyResult<()> {
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| PyValueError::new_err("a path with a NUL"))?;
        // SAFETY: `name` is a text that ends in NUL and outlives the call; the descriptor is open.
        let watch = unsafe { libc::inotify_add_watch(self.queue.as_raw_fd(), name.as_ptr(), CHANGES) };
        if watch < 0 {
            return Err(io::Error::last_os_error().into());
        }
        locked(&self.directories).insert(watch, path);
        Ok(())
    }

    /// Wait for changes.
    ///
    /// Args:
    ///     timeout: The most seconds to wait; forever if None.
    ///
    /// Returns:
    ///     What has changed: a path, and ``created``, ``written``, ``gone`` or ``attributes``. Empty after the
    ///     timeout, and when a signal has interrupted the waiting.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Vec<Change>> {
        let milliseconds = timeout.map_or(-1, |seconds| (seconds * 1000.0).ceil() as c_int);
        let mut poll = libc::pollfd { fd: self.queue.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor is told, and one is there for the length of the call.
        let ready = py.detach(|| unsafe { libc::poll(&raw mut poll, 1, milliseconds) });
        py.check_signals()?;
        if ready <= 0 {
            return Ok(Vec::new());
        }
        let mut events = [0; 16 * 1024];
        match (&self.queue).read(&mut events) {
            Ok(length) => Ok(self.paths(events.get(..length).unwrap_or_default())),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Watcher {
    /// The paths that a run of events names, each once.
    fn paths(&self, mut events: &[u8]) -> Vec<Change> {
        let directories = locked(&self.directories);
        let mut found = Vec::new();
        while let (Some(watch), Some(mask), Some(length)) =
            (word(events, 0), word(events, 4), word(events, 12))
        {
            let end = EVENT.saturating_add(length as usize);
            let name = events.get(EVENT..end).unwrap_or_default();
            // The kernel fills the name up with NULs; without a name, the directory itself is meant.
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            if let Some(directory) = directories.get(&watch.cast_signed())
                && !name.is_empty()
            {
                let change = (directory.join(OsStr::from_bytes(name)).into_os_string(), what(mask));
                if !found.contains(&change) {
                    found.push(change);
                }
            }
            events = events.get(end..).unwrap_or_default();
        }
        found
    }
}

/// What a mask tells about a file. A directory that was moved here is as good as made here.
fn what(mask: u32) -> &'static str {
    let is = |bits| mask & bits != 0;
    match () {
        () if is(libc::IN_CREATE) || is(libc::IN_MOVED_TO) && is(libc::IN_ISDIR) => "created",
        () if is(libc::IN_MOVED_FROM | libc::IN_DELETE) => "gone",
        () if is(libc::IN_ATTRIB) => "attributes",
        () => "written",
    }
}

/// The native word at a place.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Watcher>()
}
