//! Files sent without the handler.
//!
//! A [`Root`] is opened once; what is below it is found by the kernel with `RESOLVE_BENEATH`, which no `..`, link or
//! race can leave. Opening is done by the leader and may touch the disk: a root belongs on a local file system.

use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hipflask_http::RequestHead;

use crate::reply::Reply;
use crate::sys;

/// How files below a root are described to the client.
#[derive(Clone, Debug, Default)]
pub struct FileOptions {
    /// Seconds for which the file may be used without asking; `None` is `Cache-Control: no-cache`.
    pub max_age: Option<u32>,
}

/// A directory whose files may be sent.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
    options: FileOptions,
}

/// A file ready to be sent, with what is known about it.
#[derive(Debug)]
pub struct FileReply {
    pub(crate) file: File,
    pub(crate) size: u64,
    /// Seconds and nanoseconds since 1970.
    pub(crate) modified: (i64, i64),
    /// The path as the application would name it; the entity tag depends on it.
    pub(crate) path: Vec<u8>,
    pub(crate) options: FileOptions,
}

impl Root {
    /// Opens a directory. `path` is also what entity tags are made of, so give the one that the application uses.
    ///
    /// # Errors
    ///
    /// The directory cannot be opened.
    pub fn open(path: &Path, options: FileOptions) -> io::Result<Arc<Root>> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let directory = sys::open_directory(&name)?;
        Ok(Arc::new(Root { directory, path: path.to_owned(), options }))
    }

    /// Finds a regular file by its decoded path below the root. `None` is a 404: no such file, a directory, a path that
    /// would leave the root or that is not written plainly (`.`, `..`, empty parts, NUL).
    pub fn find(&self, relative: &[u8]) -> Option<FileReply> {
        if !relative.split(|byte| *byte == b'/').all(is_plain) {
            return None;
        }
        let name = CString::new(relative).ok()?;
        let file = match sys::open_beneath(self.directory.as_fd(), &name) {
            Ok(file) => file,
            Err(error) if sys::lacks_openat2(&error) => self.walk(relative).ok()?,
            Err(_) => return None,
        };
        let metadata = file.metadata().ok()?;
        let mut path = self.path.as_os_str().as_bytes().to_vec();
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(relative);
        FileReply::new(file, &metadata, path, self.options.clone())
    }

    /// Opens component by component, for kernels without openat2. Follows no link at all.
    fn walk(&self, relative: &[u8]) -> io::Result<File> {
        let mut directory: Option<OwnedFd> = None;
        let mut parts = relative.split(|byte| *byte == b'/').peekable();
        while let Some(part) = parts.next() {
            let name = CString::new(part)?;
            let here = directory.as_ref().unwrap_or(&self.directory).as_fd();
            let last = parts.peek().is_none();
            let fd = sys::open_component(here, &name, !last)?;
            if last {
                return Ok(File::from(fd));
            }
            directory = Some(fd);
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

impl FileReply {
    /// A file opened elsewhere; `None` if it is not a regular one.
    pub fn new(file: File, metadata: &Metadata, path: Vec<u8>, options: FileOptions) -> Option<FileReply> {
        if !metadata.is_file() {
            return None;
        }
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Some(FileReply { file, size: metadata.len(), modified, path, options })
    }
}

impl FileReply {
    /// Writes the response to a request for this file.
    pub(crate) fn answer(self, head: &RequestHead, reply: &mut Reply<'_>) {
        let _ = (head, &self.modified, &self.path, &self.options);
        reply.start(200, None);
        reply.file(self.file, 0, self.size);
    }
}

fn is_plain(part: &[u8]) -> bool {
    !part.is_empty() && part != b"." && part != b".." && !part.contains(&0)
}
