//! Files that are sent without a view's work: directories below a URL path ([`Mount`]), and files that a response names
//! ([`Exposed`], the fields `X-Sendfile` and `X-Accel-Redirect`).

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use hipflask_http::response::Exchange;
use hipflask_http::{RequestHead, query};

use crate::files::{FileOptions, FileReply, Own, Root};
use crate::reply::{Answer, Payload, Reply, Standing};

/// How files are sent.
#[derive(Clone, Debug)]
pub struct Files {
    /// Send `name.br`, `name.zst` or `name.gz` in the place of `name` to clients that take it so. On: whoever puts them
    /// there wants it, and asking for three files that are not there costs 2 µs every two seconds.
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
    /// The file of a mounted directory that a request is for. One that is not there is the application's business.
    pub(crate) fn find(&self, head: &RequestHead) -> Option<FileReply> {
        if self.mounts.is_empty() || !matches!(head.method(), b"GET" | b"HEAD") {
            return None;
        }
        let path = head.path();
        self.mounts.iter().find_map(|mount| {
            let below = path.strip_prefix(mount.prefix.as_slice())?;
            if below.split(|byte| *byte == b'/').any(is_hidden) {
                return None;
            }
            match below {
                [] | [.., b'/'] if self.index => mount.root.find(&[below, b"index.html"].concat()),
                _ => mount.root.find(below),
            }
        })
    }
}

/// Settings, keys and version control lie in such files. `.well-known` is meant for others (RFC 8615).
fn is_hidden(part: &[u8]) -> bool {
    part.starts_with(b".") && part != b".well-known"
}

/// A directory that is sent below a URL path: `/assets=./dist`.
#[derive(Clone, Debug)]
pub struct Mount {
    prefix: Vec<u8>,
    root: Arc<Root>,
    text: String,
}

impl Mount {
    /// Opens the directory.
    ///
    /// # Errors
    ///
    /// The text has another form, or the directory cannot be opened.
    pub fn open(text: &str) -> io::Result<Mount> {
        let (prefix, path) = text
            .split_once('=')
            .filter(|(prefix, path)| prefix.starts_with('/') && !path.is_empty())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "/path=directory is expected"))?;
        let prefix = format!("{}/", prefix.trim_end_matches('/')).into_bytes();
        Ok(Mount { prefix, root: open(path)?, text: text.to_owned() })
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
        Ok(Exposed { prefix, is_url, root: open(path)?, text: text.to_owned() })
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

fn open(path: &str) -> io::Result<Arc<Root>> {
    let options = FileOptions { tell_name: false, ..FileOptions::default() };
    Root::open(Path::new(path), options)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
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
