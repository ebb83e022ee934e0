//! Pages that list a directory, for mounts that ask for it.
//!
//! Made on a worker, since a directory may be long and its disk slow. Names that begin with a dot are left out, as is
//! what could not be sent: links that lead out of the mount, devices and pipes.

use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use hipflask_http::conditional::{self, Outcome, Validators};
use hipflask_http::{RequestHead, date};

use crate::access_log::write_json;
use crate::exposed::is_hidden;
use crate::files::Root;
use crate::reply::Reply;
use crate::sys;

/// Entries that a page has, at most: about 1 MiB, and a look at so many files. A longer directory shows that it is one.
const LISTED: usize = 10_000;

/// A directory to be listed.
#[derive(Debug)]
pub(crate) struct Listing {
    root: Arc<Root>,
    /// Its path below the root; empty, or with a slash at the end.
    relative: Vec<u8>,
    directory: File,
}

/// A file or a directory in it.
struct Entry {
    name: Vec<u8>,
    is_directory: bool,
    size: u64,
    modified: i64,
}

impl Listing {
    /// Opens a directory by its path below a root. `None` if there is none.
    pub(crate) fn open(root: &Arc<Root>, relative: &[u8]) -> Option<Listing> {
        let directory = root.open_directory(relative)?;
        Some(Listing { root: Arc::clone(root), relative: relative.to_vec(), directory })
    }

    /// Writes the response to a request for it.
    pub(crate) fn answer(self, head: &RequestHead, reply: &mut Reply<'_>) {
        let as_json = wants_json(head);
        let is_top = self.relative.is_empty();
        let Some((entries, is_cut)) = self.entries() else {
            reply.start(500, None);
            // A valid value.
            let _ = reply.field(b"Content-Type", b"text/plain; charset=utf-8");
            return reply.body(b"Internal Server Error");
        };
        let page = if as_json { json(&entries) } else { html(&head.path(), is_top, &entries, is_cut) };
        let mut hasher = DefaultHasher::new();
        page.hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        let validators = Validators { etag: Some(etag.as_bytes()), modified: None };
        let (status, body): (u16, &[u8]) = match conditional::evaluate(head, &validators, reply.seconds()) {
            Outcome::Proceed => (200, &page),
            Outcome::NotModified => (304, b""),
            Outcome::Failed => (412, b""),
        };
        let media: &[u8] = if as_json { b"application/json" } else { b"text/html; charset=utf-8" };
        let fields: [(&[u8], &[u8]); 4] = [
            (b"Cache-Control", b"no-cache"),
            (b"Vary", b"Accept"),
            (b"ETag", etag.as_bytes()),
            (b"Content-Type", media),
        ];
        reply.start(status, None);
        for (name, value) in fields.iter().take(if status == 200 { 4 } else { 3 }) {
            // Valid values.
            let _ = reply.field(name, value);
        }
        reply.body(body);
    }

    /// What is in it, directories first; and whether there is more.
    fn entries(&self) -> Option<(Vec<Entry>, bool)> {
        let mut names = Vec::new();
        let directory = OwnedFd::from(self.directory.try_clone().ok()?);
        let mut is_cut = false;
        sys::read_directory(directory, |name| {
            if is_hidden(name) {
                return true;
            }
            is_cut = names.len() == LISTED;
            if !is_cut {
                names.push(name.to_vec());
            }
            !is_cut
        })
        .ok()?;
        let mut entries: Vec<_> = names.into_iter().filter_map(|name| self.entry(name)).collect();
        entries
            .sort_unstable_by(|a, b| b.is_directory.cmp(&a.is_directory).then_with(|| a.name.cmp(&b.name)));
        Some((entries, is_cut))
    }

    /// What is known of one. `None` if it has gone, or would not be sent.
    fn entry(&self, name: Vec<u8>) -> Option<Entry> {
        let about = sys::stat_at(&self.directory, &name).ok()?;
        let about = if about.is_link {
            // Where it leads decides; the kernel follows it no further than the mount goes.
            let (_, metadata) = self.root.open_file(&[&self.relative, name.as_slice()].concat())?;
            About::of(&metadata)?
        } else {
            About::new(about.mode, about.size, about.modified)?
        };
        let About { is_directory, size, modified } = about;
        Some(Entry { name, is_directory, size, modified })
    }
}

/// What a page says of a file.
struct About {
    is_directory: bool,
    size: u64,
    modified: i64,
}

impl About {
    fn new(mode: u32, size: u64, modified: i64) -> Option<About> {
        let is_directory = mode & libc::S_IFMT == libc::S_IFDIR;
        let is_file = mode & libc::S_IFMT == libc::S_IFREG;
        (is_directory || is_file).then_some(About { is_directory, size, modified })
    }

    fn of(metadata: &Metadata) -> Option<About> {
        About::new(metadata.mode(), metadata.len(), metadata.mtime())
    }
}

/// Programs say so; browsers want a page, and say that.
fn wants_json(head: &RequestHead) -> bool {
    let mut values = head.field_values(b"accept").flat_map(|value| value.split(|byte| *byte == b','));
    values.find_map(|item| {
        let media = item.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        match media.to_ascii_lowercase().as_slice() {
            b"application/json" => Some(true),
            b"text/html" => Some(false),
            _ => None,
        }
    }) == Some(true)
}

fn html(path: &[u8], is_top: bool, entries: &[Entry], is_cut: bool) -> Vec<u8> {
    let title = escaped(path);
    let mut page = format!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<title>Index of {title}</title>\n\
         <h1>Index of {title}</h1>\n<table>\n<tr><th>Name<th>Size<th>Changed\n"
    )
    .into_bytes();
    if !is_top {
        page.extend_from_slice(b"<tr><td><a href=\"../\">../</a><td><td>\n");
    }
    for entry in entries {
        let slash = if entry.is_directory { "/" } else { "" };
        let size = if entry.is_directory { String::new() } else { entry.size.to_string() };
        // Writing to a vector cannot fail.
        let _ = writeln!(
            page,
            "<tr><td><a href=\"./{}{slash}\">{}{slash}</a><td>{size}<td>{}",
            encoded(&entry.name),
            escaped(&entry.name),
            String::from_utf8_lossy(&date::format(entry.modified.max(0))),
        );
    }
    page.extend_from_slice(b"</table>\n");
    if is_cut {
        let _ = writeln!(page, "<p>There is more than these {LISTED} entries.</p>");
    }
    page
}

/// In the form that nginx gives.
fn json(entries: &[Entry]) -> Vec<u8> {
    let mut page = b"[".to_vec();
    for (at, entry) in entries.iter().enumerate() {
        page.extend_from_slice(if at == 0 { b"\n" } else { b",\n" });
        page.extend_from_slice(b"{\"name\":");
        write_json(&entry.name, &mut page);
        let kind = if entry.is_directory { "directory" } else { "file" };
        let modified = date::format(entry.modified.max(0));
        let modified = String::from_utf8_lossy(&modified);
        // Writing to a vector cannot fail.
        let _ = write!(page, ",\"type\":\"{kind}\",\"mtime\":\"{modified}\"");
        if !entry.is_directory {
            let _ = write!(page, ",\"size\":{}", entry.size);
        }
        page.push(b'}');
    }
    page.extend_from_slice(b"\n]\n");
    page
}

/// For text and attributes of HTML.
fn escaped(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ if character.is_control() => out.push('\u{fffd}'),
            _ => out.push(character),
        }
    }
    out
}

/// A name as a part of a URL's path: RFC 3986 §2.3 says what needs no escape.
fn encoded(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let name = b"a&\"<script>'\n\xff:x".to_vec();
        let entries = [Entry { name, is_directory: false, size: 3, modified: 0 }];
        let page = String::from_utf8(html(b"/<b>/", false, &entries, true)).unwrap();
        assert!(page.contains("href=\"./a%26%22%3Cscript%3E%27%0A%FF%3Ax\""), "{page}");
        assert!(
            page.contains("a&amp;&quot;&lt;script&gt;&#39;\u{fffd}\u{fffd}:x</a><td>3<td>Thu, 01 Jan 1970")
        );
        assert!(page.contains("Index of /&lt;b&gt;/</title>") && page.contains("10000 entries"));
        let listed = String::from_utf8(json(&entries)).unwrap();
        assert!(listed.contains(r#""name":"a&\"<script>'\u000a"#), "{listed}");
    }
}
