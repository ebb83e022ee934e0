//! Files sent without the handler.
//!
//! A [`Root`] is opened once; what is below it is found by the kernel with `RESOLVE_BENEATH`, which no `..`, link or
//! race can leave. Opening is done by the leader and may touch the disk: a root belongs on a local file system.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hipflask_http::conditional::{self, Outcome, Validators};
use hipflask_http::range::{self, Ranges};
use hipflask_http::{Accepted, Coding, RequestHead, date};

use crate::exposed::{self, Files};
use crate::history::RouteHistory;
use crate::locked;
use crate::media;
use crate::reply::Reply;
use crate::sys;

const UNSATISFIABLE: &[u8] =
    b"<!doctype html>\n<html lang=en>\n<title>416 Requested Range Not Satisfiable</title>\n\
<h1>Requested Range Not Satisfiable</h1>\n<p>The server cannot provide the requested range.</p>\n";

/// RFC 8246: not even a reload asks again. A year, since RFC 2616 asked for no more.
const IMMUTABLE: &[u8] = b"public, max-age=31536000, immutable";

/// What an application has said of a response whose body is a file that it names.
pub(crate) struct Own<'a> {
    pub(crate) status: u16,
    pub(crate) fields: &'a [(Vec<u8>, Vec<u8>)],
}

impl Own<'_> {
    fn field(&self, lower: &[u8]) -> Option<&[u8]> {
        let found = self.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(lower));
        found.map(|(_, value)| value.as_slice())
    }

    fn write(&self, reply: &mut Reply<'_>, left_out: &[&[u8]]) {
        for (name, value) in self.fields {
            if !left_out.iter().any(|lower| name.eq_ignore_ascii_case(lower)) {
                add(reply, name, value);
            }
        }
    }
}

/// How files below a root are described to the client.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// Seconds for which the file may be used without asking; `None` is `Cache-Control: no-cache`.
    pub max_age: Option<u32>,
    /// No file ever changes its content: clients may keep each for a year.
    pub immutable: bool,
    /// Say `Content-Disposition: inline` with the file's name, as Flask does. Names outside ASCII are then left to the
    /// application: [`Root::find`] does not find them.
    pub tell_name: bool,
    /// Media types by extension (lower case, without the dot), in the place of the built-in table.
    pub types: Option<Arc<HashMap<String, String>>>,
}

impl Default for FileOptions {
    fn default() -> FileOptions {
        FileOptions { max_age: None, immutable: false, tell_name: true, types: None }
    }
}

/// A directory whose files may be sent.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
    options: FileOptions,
    siblings: Mutex<Siblings>,
}

/// Which compressed siblings files were seen to have, so that not each request asks the disk for three that are rarely
/// there.
#[derive(Debug, Default)]
struct Siblings {
    /// When what is in `seen` was looked up.
    second: i64,
    seen: HashMap<Vec<u8>, Vec<Coding>>,
}

/// Siblings of so many files are remembered. 1024: more than a page asks for, less than 100 KiB.
const REMEMBERED: usize = 1024;
/// Seconds for which they are: who puts new ones in their place sees them soon.
const FRESH: i64 = 2;

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
    pub(crate) route: Option<Arc<RouteHistory>>,
    /// Where it was found, and under which name.
    found: Option<(Arc<Root>, Vec<u8>)>,
    /// How its content is compressed, if it is a sibling of the one asked for.
    coding: Option<Coding>,
    /// Other requests may get it compressed otherwise.
    varies: bool,
    /// It will never be another.
    is_immutable: bool,
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
        let siblings = Mutex::default();
        Ok(Arc::new(Root { directory, path: path.to_owned(), options, siblings }))
    }

    /// Finds a regular file by its decoded path below the root. `None` is a 404: no such file, a directory, a path that
    /// would leave the root or that is not written plainly (`.`, `..`, empty parts, NUL).
    pub fn find(self: &Arc<Self>, relative: &[u8]) -> Option<FileReply> {
        if self.options.tell_name && !relative.is_ascii() {
            return None;
        }
        let (file, metadata) = self.open_file(relative)?;
        let mut reply = FileReply::new(file, &metadata, self.full_path(relative), self.options.clone())?;
        reply.found = Some((Arc::clone(self), relative.to_vec()));
        Some(reply)
    }

    /// Opens a directory below the root; an empty path is the root itself, and a slash at the end is none of its name.
    pub(crate) fn open_directory(&self, relative: &[u8]) -> Option<File> {
        match relative.strip_suffix(b"/").unwrap_or(relative) {
            [] => sys::open_component(self.directory.as_fd(), c".", true).ok().map(File::from),
            relative => {
                let (file, metadata) = self.open_file(relative)?;
                metadata.is_dir().then_some(file)
            }
        }
    }

    /// Opens what lies below the root under a name that is written plainly.
    pub(crate) fn open_file(&self, relative: &[u8]) -> Option<(File, Metadata)> {
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
        Some((file, metadata))
    }

    fn full_path(&self, relative: &[u8]) -> Vec<u8> {
        let mut path = self.path.as_os_str().as_bytes().to_vec();
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(relative);
        path
    }

    /// The codings in which a file lies beside itself, not older than it.
    fn siblings(&self, relative: &[u8], modified: (i64, i64), now: i64) -> Vec<Coding> {
        let mut siblings = locked(&self.siblings);
        if now.saturating_sub(siblings.second) >= FRESH || siblings.seen.len() > REMEMBERED {
            siblings.seen.clear();
            siblings.second = now;
        }
        if let Some(seen) = siblings.seen.get(relative) {
            return seen.clone();
        }
        let has = |coding: &Coding| self.sibling(relative, modified, *coding).is_some();
        let seen: Vec<_> = Coding::ALL.into_iter().filter(has).collect();
        siblings.seen.insert(relative.to_vec(), seen.clone());
        seen
    }

    /// A file beside another one, which holds the same compressed.
    fn sibling(&self, relative: &[u8], modified: (i64, i64), coding: Coding) -> Option<(File, Metadata)> {
        let name = [relative, b".", coding.extension().as_bytes()].concat();
        let (file, metadata) = self.open_file(&name)?;
        // An empty file is nobody's compressed form; one that is older was made of something else.
        let fits =
            metadata.is_file() && metadata.len() > 0 && (metadata.mtime(), metadata.mtime_nsec()) >= modified;
        fits.then_some((file, metadata))
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
        let size = metadata.len();
        Some(FileReply {
            file,
            size,
            modified,
            path,
            options,
            route: None,
            found: None,
            coding: None,
            varies: false,
            is_immutable: false,
        })
    }

    /// Says which route has led to it.
    #[must_use]
    pub fn of_route(self, route: &Arc<RouteHistory>) -> FileReply {
        FileReply { route: Some(Arc::clone(route)), ..self }
    }
}

impl FileReply {
    /// Takes the sibling in the coding that the client likes best, if there is one.
    fn choose(&mut self, head: &RequestHead, now: i64) {
        let Some((root, relative)) = &self.found else { return };
        if self.media().1.is_some() {
            // The file asked for is compressed itself, and named so.
            return;
        }
        let offered = root.siblings(relative, self.modified, now);
        if offered.is_empty() {
            return;
        }
        self.varies = true;
        let accepted = Accepted::of(head.field_values(b"accept-encoding"));
        if let Some(coding) = accepted.best(offered)
            && let Some((file, metadata)) = root.sibling(relative, self.modified, coding)
        {
            (self.file, self.size) = (file, metadata.len());
            self.modified = (metadata.mtime(), metadata.mtime_nsec());
            self.coding = Some(coding);
        }
    }

    /// Which part of the file is asked for, if the condition on it holds.
    fn ranges(&self, head: &RequestHead, validators: &Validators<'_>, now: i64) -> Ranges {
        match head.field(b"range") {
            Some(field) if conditional::range_applies(head, validators, now) => {
                range::parse(field, self.size)
            }
            _ => Ranges::Ignored,
        }
    }

    /// Writes the response to a request for this file.
    pub(crate) fn answer(mut self, head: &RequestHead, reply: &mut Reply<'_>, files: &Files) {
        if files.precompressed {
            self.choose(head, reply.seconds());
        }
        let relative = self.found.as_ref().map_or(&b""[..], |(_, relative)| relative);
        self.is_immutable =
            self.options.immutable || files.immutable.iter().any(|pattern| exposed::fits(pattern, relative));
        let etag = self.etag();
        let validators = Validators { etag: Some(etag.as_bytes()), modified: Some(self.modified.0) };
        let now = reply.seconds();
        match conditional::evaluate(head, &validators, now) {
            Outcome::NotModified => {
                self.describe(reply, 304, &etag, false);
                return reply.body(b"");
            }
            Outcome::Failed => {
                self.describe(reply, 412, &etag, true);
                return reply.file(self.file, 0, self.size);
            }
            Outcome::Proceed => {}
        }
        match self.ranges(head, &validators, now) {
            Ranges::Ignored => {
                self.describe(reply, 200, &etag, true);
                reply.file(self.file, 0, self.size);
            }
            Ranges::Malformed | Ranges::Unsatisfiable => {
                reply.start(416, Some("REQUESTED RANGE NOT SATISFIABLE"));
                add(reply, b"Content-Type", b"text/html; charset=utf-8");
                add(reply, b"Content-Range", range::unsatisfied_range(self.size).as_bytes());
                reply.body(UNSATISFIABLE);
            }
            Ranges::Part(part) => {
                self.describe(reply, 206, &etag, true);
                add(reply, b"Accept-Ranges", b"bytes");
                add(reply, b"Content-Range", range::content_range(&part, self.size).as_bytes());
                reply.file(self.file, part.start, part.end - part.start);
            }
        }
    }

    /// Writes the response of an application that names this file as its body. What it says of the content holds, its
    /// entity tag and time of modification too.
    pub(crate) fn answer_named(self, head: &RequestHead, reply: &mut Reply<'_>, own: &Own<'_>) {
        let now = reply.seconds();
        let etag = own.field(b"etag").map_or_else(|| self.etag().into_bytes(), <[u8]>::to_vec);
        let modified = match own.field(b"last-modified") {
            Some(date) => date::parse(date, now),
            None => Some(self.modified.0),
        };
        let validators = Validators { etag: Some(&etag), modified };
        let describe = |reply: &mut Reply<'_>, left_out: &[&[u8]]| {
            own.write(reply, left_out);
            if own.field(b"etag").is_none() {
                add(reply, b"ETag", &etag);
            }
            if own.field(b"content-type").is_none() && !left_out.contains(&&b"content-type"[..]) {
                add(reply, b"Content-Type", self.content_type().as_bytes());
            }
            if let (None, Some(date)) = (own.field(b"last-modified"), self.last_modified()) {
                add(reply, b"Last-Modified", &date);
            }
        };
        if matches!(own.status, 204 | 205 | 304) {
            reply.start(own.status, None);
            own.write(reply, &[]);
            return reply.body(b"");
        }
        // An application that cuts by itself says which part it means.
        let told = own.field(b"content-range").and_then(|told| told.strip_prefix(b"bytes "));
        let told = told.and_then(|told| told.split(|byte| *byte == b'/').next());
        let part = told.map(|told| range::parse(&[b"bytes=", told].concat(), self.size));
        if let (206, Some(Ranges::Part(part))) = (own.status, part) {
            reply.start(206, None);
            describe(reply, &[]);
            return reply.file(self.file, part.start, part.end - part.start);
        }
        if !matches!(own.status, 200 | 206) {
            reply.start(own.status, None);
            describe(reply, &[]);
            return reply.file(self.file, 0, self.size);
        }
        match conditional::evaluate(head, &validators, now) {
            Outcome::NotModified => {
                reply.start(304, None);
                describe(reply, &[b"content-type", b"content-encoding", b"content-disposition"]);
                return reply.body(b"");
            }
            Outcome::Failed => {
                reply.start(412, None);
                return reply.body(b"");
            }
            Outcome::Proceed => {}
        }
        match self.ranges(head, &validators, now) {
            Ranges::Ignored => {
                reply.start(200, None);
                describe(reply, &[b"content-range"]);
                reply.file(self.file, 0, self.size);
            }
            Ranges::Malformed | Ranges::Unsatisfiable => {
                reply.start(416, None);
                add(reply, b"Content-Range", range::unsatisfied_range(self.size).as_bytes());
                reply.body(b"");
            }
            Ranges::Part(part) => {
                reply.start(206, None);
                describe(reply, &[b"content-range"]);
                add(reply, b"Content-Range", range::content_range(&part, self.size).as_bytes());
                reply.file(self.file, part.start, part.end - part.start);
            }
        }
    }

    /// `"mtime-size-adler32(path)"`, with the time as Python writes a float.
    fn etag(&self) -> String {
        let seconds = self.modified.0 as f64 + 1e-9 * self.modified.1 as f64;
        // A sibling is another representation, and is never confused with one of the same time and size.
        let suffix = self.coding.map_or("", Coding::token);
        let dash = if suffix.is_empty() { "" } else { "-" };
        format!("\"{seconds:?}-{}-{}{dash}{suffix}\"", self.size, adler32(&self.path))
    }

    fn last_modified(&self) -> Option<[u8; 29]> {
        (self.modified.0 >= 0).then(|| date::format(self.modified.0))
    }

    /// The last component of the path.
    fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// Its type and the coding that its name tells of.
    fn media(&self) -> (Option<&str>, Option<&str>) {
        media::guess(&String::from_utf8_lossy(self.name()), self.options.types.as_deref())
    }

    fn content_type(&self) -> String {
        let media = self.media().0.unwrap_or("application/octet-stream");
        if media::is_text(media) { format!("{media}; charset=utf-8") } else { media.to_owned() }
    }

    /// Status line and fields; those that describe the content only where there is some.
    fn describe(&self, reply: &mut Reply<'_>, status: u16, etag: &str, content: bool) {
        reply.start(status, None);
        self.describe_fields(reply, etag, content);
        if content {
            add(reply, b"Content-Type", self.content_type().as_bytes());
            if let Some(modified) = self.last_modified() {
                add(reply, b"Last-Modified", &modified);
            }
        }
    }

    fn describe_fields(&self, reply: &mut Reply<'_>, etag: &str, content: bool) {
        let coding = self.coding.map(Coding::token).or(self.media().1);
        if let Some(coding) = coding.filter(|_| content) {
            add(reply, b"Content-Encoding", coding.as_bytes());
        }
        if self.varies {
            add(reply, b"Vary", b"Accept-Encoding");
        }
        if self.options.tell_name {
            add(reply, b"Content-Disposition", &disposition(self.name()));
        }
        match self.options.max_age {
            _ if self.is_immutable => add(reply, b"Cache-Control", IMMUTABLE),
            None => add(reply, b"Cache-Control", b"no-cache"),
            Some(age) => {
                let public = if age > 0 { "public" } else { "no-cache" };
                add(reply, b"Cache-Control", format!("{public}, max-age={age}").as_bytes());
                add(reply, b"Expires", &date::format(reply.seconds().saturating_add(i64::from(age))));
            }
        }
        add(reply, b"ETag", etag.as_bytes());
    }
}

/// Adds a field made of checked parts; one that cannot be sent (a control character in a file's name) is left out.
fn add(reply: &mut Reply<'_>, name: &[u8], value: &[u8]) {
    let _ = reply.field(name, value);
}

/// `inline; filename=name`, quoted where the name is no token (RFC 6266).
fn disposition(name: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let mut value = b"inline; filename=".to_vec();
    if name.iter().all(plain) {
        value.extend_from_slice(name);
        return value;
    }
    value.push(b'"');
    for byte in name {
        if matches!(byte, b'"' | b'\\') {
            value.push(b'\\');
        }
        value.push(*byte);
    }
    value.push(b'"');
    value
}

/// RFC 1950 §8.2.
fn adler32(bytes: &[u8]) -> u32 {
    const PRIME: u32 = 65_521;
    let (mut a, mut b) = (1, 0);
    // 5552 is the most bytes whose sums fit.
    for chunk in bytes.chunks(5552) {
        for byte in chunk {
            a += u32::from(*byte);
            b += a;
        }
        a %= PRIME;
        b %= PRIME;
    }
    b << 16 | a
}

fn is_plain(part: &[u8]) -> bool {
    !part.is_empty() && part != b"." && part != b".." && !part.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_zlib() {
        for (bytes, expected) in [(&b""[..], 1), (b"a", 0x0062_0062), (b"Wikipedia", 0x11E6_0398)] {
            assert_eq!(adler32(bytes), expected);
        }
    }

    #[test]
    fn the_walk_for_old_kernels_finds_files_and_follows_no_link() {
        let path = std::env::temp_dir().join(format!("hipflask-walk-{}", std::process::id()));
        std::fs::create_dir_all(path.join("sub")).unwrap();
        std::fs::write(path.join("sub/a"), "a").unwrap();
        std::os::unix::fs::symlink("sub", path.join("link")).unwrap();
        std::os::unix::fs::symlink("sub/a", path.join("file-link")).unwrap();
        let root = Root::open(&path, FileOptions::default()).unwrap();
        assert!(root.walk(b"sub/a").is_ok());
        for refused in [&b"link/a"[..], b"file-link", b"sub/b", b"a", b"sub/a/b"] {
            assert!(root.walk(refused).is_err(), "{refused:?}");
        }
        std::fs::remove_dir_all(&path).unwrap();
    }
}
