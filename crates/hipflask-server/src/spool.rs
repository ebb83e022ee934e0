//! Bodies that wait in a file for their view.
//!
//! A view that reads a long body holds a thread for as long as the client takes to send it, and some clients take their
//! time. So only half of the threads may be held that way. Bodies that come when they are are written to a file first,
//! which takes no thread, and their views called when they are whole. The file has no name: it goes with its last owner.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hipflask_http::{BodyDecoder, RequestHead};

use crate::body::Pace;
use crate::conn::Reserved;
use crate::history::RouteHistory;

/// A routed request whose body goes to a file first.
pub(crate) struct Spooling<T> {
    pub(crate) head: Box<RequestHead>,
    pub(crate) ticket: T,
    pub(crate) history: Arc<RouteHistory>,
    pub(crate) decoder: BodyDecoder,
    pub(crate) pace: Pace,
    pub(crate) file: Spool,
}

/// A body in a file: written first, then read once.
pub(crate) struct Spool {
    file: File,
    length: u64,
    at: u64,
    /// Its part of what all of them may hold, given back when this is dropped.
    reserved: Reserved,
}

impl Spool {
    /// An empty one in the directory for temporary files.
    pub(crate) fn new(held: &Arc<AtomicU64>) -> io::Result<Spool> {
        let file = unnamed(&std::env::temp_dir())?;
        let reserved = Reserved::take(held, 0, u64::MAX)
            .ok_or_else(|| io::Error::other("the counter of spooled bytes is full"))?;
        Ok(Spool { file, length: 0, at: 0, reserved })
    }

    /// Writes more, unless all of them would hold more than `most` together: then false.
    pub(crate) fn write(&mut self, bytes: &[u8], most: u64) -> io::Result<bool> {
        if !self.reserved.grow(bytes.len() as u64, most) {
            return Ok(false);
        }
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(true)
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Reads on; 0 is the end.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length - self.at).unwrap_or(usize::MAX);
        let most = left.min(into.len());
        let count = self.file.read_at(into.get_mut(..most).unwrap_or_default(), self.at)?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}

/// A new file without a name.
fn unnamed(folder: &Path) -> io::Result<File> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE).open(folder) {
        // Not every file system can (open(2)).
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) =>
        {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!(".hipflask-{}-{number}", std::process::id()));
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        result => result,
    }
}

/// One of the threads that views hold which read a body that arrives. Counted until it is dropped.
pub(crate) struct Reader(Arc<AtomicUsize>);

impl Reader {
    /// Counts one more, unless there are `most` already.
    pub(crate) fn admit(readers: &Arc<AtomicUsize>, most: usize) -> Option<Reader> {
        let reader = Reader(Arc::clone(readers));
        (readers.fetch_add(1, Ordering::Relaxed) < most).then_some(reader)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_was_written_is_read_once_and_given_back() {
        let held = Arc::new(AtomicU64::new(0));
        let mut spool = Spool::new(&held).unwrap();
        assert!(spool.write(b"one two ", 11).unwrap());
        assert!(spool.write(b"six", 11).unwrap());
        assert!(!spool.write(b"!", 11).unwrap());
        assert_eq!((spool.len(), held.load(Ordering::Relaxed)), (11, 11));
        let mut into = [0; 6];
        assert_eq!((spool.read(&mut into).unwrap(), &into), (6, b"one tw"));
        assert_eq!(spool.read(&mut into).unwrap(), 5);
        assert_eq!(&into[..5], b"o six");
        assert_eq!(spool.read(&mut into).unwrap(), 0);
        drop(spool);
        assert_eq!(held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn readers_are_counted_as_long_as_they_live() {
        let readers = Arc::new(AtomicUsize::new(0));
        let first = Reader::admit(&readers, 1);
        assert!(first.is_some());
        assert!(Reader::admit(&readers, 1).is_none());
        drop(first);
        assert!(Reader::admit(&readers, 1).is_some());
        assert!(Reader::admit(&readers, 0).is_none());
        assert_eq!(readers.load(Ordering::Relaxed), 0);
    }
}
