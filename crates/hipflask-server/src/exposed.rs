//! Files that are sent without a view's work: directories below a URL path ([`Mount`]), and files that a response names
//! ([`Exposed`], the fields `X-Sendfile` and `X-Accel-Redirect`).

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use hipflask_http::response::Exchange;
use hipflask_http::{RequestHead, query};

use crate::files::{FileOptions, FileReply, Own, Root};
use crate::listing::Listing;
use crate::reply::{Answer, Payload, Reply, Standing};

/// How files are sent.
#[derive(Clone, Debug)]
pub struct Files {
    /// Send `name.br`, `name.zst` or `name.gz` in the place of `name` to clients that take it so. On: whoever puts them
    /// there wants it, and asking for three files that are not there costs less than 2 µs every two seconds.
    pub precompressed: bool,
    /// Names of files that never change their content, such as `*.{hash}.*`: clients may keep them for a year. None: a
    /// file that is taken for one by mistake cannot be replaced.
    pub immutable: Vec<String>,
    /// Directories that are sent without the application. None.
    pub mounts: Vec<Mount>,
    /// Send `index.html` for a mounted directory. Off: nobody sees more than was named.
    pub index: bool,
    /// What responses of the application may name. None: then the fields mean nothing, and go to the client.
    pub exposed: Vec<Exposed>,
}

impl Default for Files {
    fn default() -> Files {
        let (mounts, exposed) = (Vec::new(), Vec::new());
        Files { precompressed: true, immutable: Vec::new(), mounts, index: false, exposed }
    }
}

impl Files {
    /// What of a mounted directory a request is for. What is not there is the application's business.
    pub(crate) fn find(&self, head: &RequestHead) -> Option<Mounted> {
        if self.mounts.is_empty() || !matches!(head.method(), b"GET" | b"HEAD") {
            return None;
        }
        let path = head.path();
        self.mounts.iter().find_map(|mount| {
            let below = path.strip_prefix(mount.prefix.as_slice())?;
            if below.split(|byte| *byte == b'/').any(is_hidden) {
                return None;
            }
            if !matches!(below, [] | [.., b'/']) {
                let file = mount.root.find(below).map(Mounted::File);
                return file.or_else(|| {
                    let is_listed = mount.listing && mount.root.open_directory(below).is_some();
                    is_listed.then(|| Mounted::Slash(with_slash(head)))
                });
            }
            let index = (self.index || mount.index)
                .then(|| mount.root.find(&[below, b"index.html"].concat()))
                .flatten()
                .map(Mounted::File);
            index.or_else(|| {
                let listing = mount.listing.then(|| Listing::open(&mount.root, below)).flatten();
                listing.map(Mounted::Listing)
            })
        })
    }
}

/// What a mount has for a request.
pub(crate) enum Mounted {
    File(FileReply),
    Listing(Listing),
    /// A directory, asked for without the slash at its end: where it is.
    Slash(Vec<u8>),
}

/// The last part of the path with a slash. Relative, so that it can lead to no other host and holds behind proxies that
/// take something off the path.
fn with_slash(head: &RequestHead) -> Vec<u8> {
    let last = head.raw_path().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut location = [b"./", last, b"/"].concat();
    if !head.query().is_empty() {
        location.push(b'?');
        location.extend_from_slice(head.query());
    }
    location
}

/// Settings, keys and version control lie in such files. `.well-known` is meant for others (RFC 8615).
pub(crate) fn is_hidden(part: &[u8]) -> bool {
    part.starts_with(b".") && part != b".well-known"
}

/// A directory that is sent below a URL path: `/assets=./dist`, or with options `/assets=./dist:max_age=1h:listing`.
#[derive(Clone, Debug)]
pub struct Mount {
    prefix: Vec<u8>,
    root: Arc<Root>,
    /// Send `index.html` for a directory.
    index: bool,
    /// Send a list of what is in a directory, if it has no such file or none is to be sent.
    listing: bool,
    text: String,
}

impl Mount {
    /// Opens the directory.
    ///
    /// # Errors
    ///
    /// The text has another form, or the directory cannot be opened.
    pub fn open(text: &str) -> io::Result<Mount> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let (prefix, rest) = text
            .split_once('=')
            .filter(|(prefix, _)| prefix.starts_with('/'))
            .ok_or_else(|| invalid("/path=directory is expected".to_owned()))?;
        let mut parts = rest.split(':');
        let path = parts
            .next()
            .filter(|path| !path.is_empty())
            .ok_or_else(|| invalid("/path=directory is expected".to_owned()))?;
        let mut options = FileOptions { tell_name: false, ..FileOptions::default() };
        let (mut index, mut listing) = (false, false);
        for part in parts {
            match part.split_once('=') {
                None if part == "index" => index = true,
                None if part == "listing" => listing = true,
                None if part == "immutable" => options.immutable = true,
                Some(("max_age", age)) => {
                    let age = seconds(age).ok_or_else(|| {
                        invalid(format!(
                            "max_age: a time such as 3600, 90s, 5m, 1h or 30d is expected, not {age:?}"
                        ))
                    })?;
                    options.max_age = Some(age);
                }
                _ => {
                    return Err(invalid(format!(
                        "{part:?} is no option: index, listing, immutable and max_age=TIME are"
                    )));
                }
            }
        }
        if options.immutable && options.max_age.is_some() {
            return Err(invalid("immutable files have no max_age: they are kept for a year".to_owned()));
        }
        let prefix = format!("{}/", prefix.trim_end_matches('/')).into_bytes();
        Ok(Mount { prefix, root: open(path, options)?, index, listing, text: text.to_owned() })
    }

    /// What it was made of.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A directory whose files a response may name: `/srv/files` by their paths in `X-Sendfile`, `/protected=/srv/files` by
/// URL paths in `X-Accel-Redirect`.
#[derive(Clone, Debug)]
pub struct Exposed {
    /// Of URL paths; else of paths.
    prefix: Vec<u8>,
    is_url: bool,
    root: Arc<Root>,
    text: String,
}

impl Exposed {
    /// Opens the directory.
    ///
    /// # Errors
    ///
    /// The text has another form, or the directory cannot be opened.
    pub fn open(text: &str) -> io::Result<Exposed> {
        let (prefix, path, is_url) = match text.split_once('=') {
            Some((prefix, path)) if prefix.starts_with('/') => (prefix.to_owned().into_bytes(), path, true),
            Some(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "/path=directory is expected"));
            }
            None => (std::path::absolute(text)?.as_os_str().as_bytes().to_vec(), text, false),
        };
        let mut prefix = prefix;
        while prefix.last() == Some(&b'/') {
            prefix.pop();
        }
        prefix.push(b'/');
        let options = FileOptions { tell_name: false, ..FileOptions::default() };
        Ok(Exposed { prefix, is_url, root: open(path, options)?, text: text.to_owned() })
    }

    /// What it was made of.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn find(&self, name: &[u8], is_url: bool) -> Option<FileReply> {
        (is_url == self.is_url)
            .then(|| name.strip_prefix(self.prefix.as_slice()))?
            .and_then(|below| self.root.find(below))
    }
}

fn open(path: &str, options: FileOptions) -> io::Result<Arc<Root>> {
    Root::open(Path::new(path), options)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

/// A time in seconds, or with a unit.
fn seconds(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match text.strip_prefix(digits)? {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    // `parse` would take a sign.
    let number: u32 = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    number.checked_mul(unit)
}

const SENDFILE: &str = "x-sendfile";
const REDIRECT: &str = "x-accel-redirect";

/// Puts the file that a response names in the place of its body. Gives what could not be found: the answer is a 404 then.
pub(crate) fn send_named(
    exposed: &[Exposed],
    asked: &RequestHead,
    answer: &mut Answer,
    (out, begin): (&mut Vec<u8>, usize),
    standing: &Standing,
) -> Option<String> {
    let head = out.get(begin..answer.body)?;
    let mut named = None;
    let mut own = Vec::new();
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let lower = name.to_ascii_lowercase();
        match lower.as_slice() {
            lower if lower == SENDFILE.as_bytes() => named = Some((value, false)),
            lower if lower == REDIRECT.as_bytes() => named = Some((value, true)),
            // nginx' other words to itself, and what is written anew.
            lower if lower.starts_with(b"x-accel-") => {}
            b"content-length" | b"transfer-encoding" | b"connection" | b"date" | b"server" => {}
            _ => own.push((name.to_vec(), value.to_vec())),
        }
    }
    let (name, is_url) = named?;
    let plain = match name.split(|byte| *byte == b'?').next() {
        Some(path) if is_url => query::percent_decode(path).into_owned(),
        _ => name.to_vec(),
    };
    let find = |name: &[u8]| exposed.iter().find_map(|exposed| exposed.find(name, is_url));
    let found = find(&plain).or_else(|| find(&as_utf8(&plain)?));
    let missing = found.is_none().then(|| String::from_utf8_lossy(name).into_owned());
    let exchange = Exchange { version: asked.version(), keep_alive: answer.keep, head: asked.is_head() };
    let mut new = Vec::new();
    let mut reply = Reply::new(&mut new, exchange, standing, None, None);
    match found {
        Some(file) => file.answer_named(asked, &mut reply, &Own { status: answer.status, fields: &own }),
        None => {
            reply.start(404, None);
            // A valid value.
            let _ = reply.field(b"Content-Type", b"text/plain; charset=utf-8");
            reply.body(b"Not Found");
        }
    }
    let made = reply.finish();
    out.truncate(begin);
    out.extend_from_slice(&new);
    (answer.status, answer.body, answer.payload) = (made.status, begin + made.body, made.payload);
    answer.keep &= made.keep || matches!(answer.payload, Payload::Written | Payload::File { .. });
    missing
}

/// Fields of Python applications are latin-1, names of files are UTF-8. `None` if that makes no difference.
fn as_utf8(name: &[u8]) -> Option<Vec<u8>> {
    let text: String = name.iter().copied().map(char::from).collect();
    (!name.is_ascii()).then(|| text.into_bytes())
}

/// Whether a name fits a pattern: `*` is any number of characters but `/`, `{hash}` eight or more letters and digits, of
/// both at least one. A pattern without `/` is one of the last part.
pub(crate) fn fits(pattern: &str, path: &[u8]) -> bool {
    let path = match pattern.contains('/') {
        true => path,
        false => path.rsplit(|byte| *byte == b'/').next().unwrap_or_default(),
    };
    fits_from(pattern.as_bytes(), path)
}

fn fits_from(pattern: &[u8], text: &[u8]) -> bool {
    const HASH: &[u8] = b"{hash}";
    if let Some(rest) = pattern.strip_prefix(HASH) {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let longest = text.iter().take_while(|byte| is_part(byte)).count();
        return (8..=longest).rev().any(|length| {
            let (hash, after) = text.split_at(length);
            hash.iter().any(u8::is_ascii_digit)
                && hash.iter().any(u8::is_ascii_alphabetic)
                && fits_from(rest, after)
        });
    }
    match (pattern, text) {
        ([], text) => text.is_empty(),
        ([b'*', rest @ ..], text) => {
            let longest = text.iter().take_while(|byte| **byte != b'/').count();
            (0..=longest).any(|length| fits_from(rest, text.get(length..).unwrap_or_default()))
        }
        ([expected, rest @ ..], [byte, text @ ..]) => expected == byte && fits_from(rest, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_latin_1_are_those_of_files_in_utf_8() {
        assert_eq!(as_utf8(b"/srv/\xe4.txt").as_deref(), Some("/srv/\u{e4}.txt".as_bytes()));
        assert_eq!(as_utf8(b"/srv/a.txt"), None);
    }

    #[test]
    fn times_have_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("90", Some(90)),
            ("90s", Some(90)),
            ("5m", Some(300)),
            ("1h", Some(3600)),
            ("365d", Some(31_536_000)),
            ("", None),
            ("h", None),
            ("-1", None),
            ("+1", None),
            ("1.5h", None),
            ("1 h", None),
            ("1x", None),
            ("5000000000", None),
            ("999999d", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn patterns_know_a_hash_from_a_word_and_a_date() {
        for (pattern, path, expected) in [
            ("*.{hash}.*", "app.3f2a9c1b.js", true),
            ("*.{hash}.*", "js/app.3f2a9c1b0d.chunk.js", true),
            ("*.{hash}.*", "app.js", false),
            ("*.{hash}.*", "app.20240101.js", false),
            ("*.{hash}.*", "app.bootstrap.js", false),
            ("*.{hash}.*", "app.3f2a9c.js", false),
            ("*-{hash}.*", "index-BkH3x_9a.js", true),
            ("*-{hash}.*", "index-BkH3x-9a.css", true),
            ("*-{hash}.*", "index.js", false),
            ("assets/*", "assets/a.js", true),
            ("assets/*", "assets/b/a.js", false),
            ("assets/*", "other/assets/a.js", false),
            ("*", "anything", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, path.as_bytes()), expected, "{pattern} {path}");
        }
    }
}
