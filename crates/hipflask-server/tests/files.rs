//! Files without the handler: headers, conditions, ranges, and no way out of the root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{App, Live, Response};
use hipflask_server::{Config, FileOptions, Root};

/// A directory with a root in it and secrets beside it.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Tree {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("hipflask-files-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let tree = Tree(std::env::temp_dir().join(name));
        fs::create_dir_all(tree.0.join("root/sub")).unwrap();
        fs::write(tree.0.join("secret"), "secret").unwrap();
        tree.write("a.txt", b"0123456789");
        tree.write("sub/b.css", b"b{}");
        tree
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join("root").join(name), bytes).unwrap();
    }

    fn serve(&self, options: FileOptions) -> Live {
        let root = Root::open(&self.0.join("root"), options).unwrap();
        App::default().files("/static/", root).serve(Config::default())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn ask(live: &Live, method: &str, path: &str, fields: &str) -> Response {
    let mut client = live.client();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
    let mut response = client.head();
    if method != "HEAD" && response.status != 304 {
        let length = response.field("Content-Length").unwrap().parse().unwrap();
        response.body = client.exactly(length);
    }
    response.fields.retain(|(name, _)| name != "Server" && name != "Date");
    response.fields.sort();
    // Nothing strayed behind the response.
    client.send("GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response().status, 404);
    response
}

#[test]
fn a_file_comes_with_the_fields_that_flask_sends() {
    let tree = Tree::new();
    let live = tree.serve(FileOptions::default());
    let response = ask(&live, "GET", "/static/a.txt", "");
    assert_eq!((response.status, response.text()), (200, "0123456789"));
    let names: Vec<_> = response.fields.iter().map(|(name, _)| name.as_str()).collect();
    let expected =
        ["Cache-Control", "Content-Disposition", "Content-Length", "Content-Type", "ETag", "Last-Modified"];
    assert_eq!(names, expected);
    assert_eq!(response.field("Cache-Control"), Some("no-cache"));
    assert_eq!(response.field("Content-Disposition"), Some("inline; filename=a.txt"));
    assert_eq!(response.field("Content-Type"), Some("text/plain; charset=utf-8"));
    let head = ask(&live, "HEAD", "/static/a.txt", "");
    assert_eq!((head.status, head.fields), (200, response.fields));
    assert_eq!(ask(&live, "GET", "/static/sub/b.css", "").text(), "b{}");
    assert_eq!(ask(&live, "GET", "/static/s%75b/b.css", "").text(), "b{}");
}

#[test]
fn an_age_is_told_as_flask_tells_it() {
    let tree = Tree::new();
    let live = tree.serve(FileOptions { max_age: Some(60), ..FileOptions::default() });
    let response = ask(&live, "GET", "/static/a.txt", "");
    assert_eq!(response.field("Cache-Control"), Some("public, max-age=60"));
    assert!(response.field("Expires").is_some());
}

#[test]
fn names_are_quoted_where_they_need_it_and_types_follow_the_table() {
    let tree = Tree::new();
    let live = tree.serve(FileOptions::default());
    tree.write("x y.tar.gz", b"z");
    tree.write("q\"q", b"q");
    let response = ask(&live, "GET", "/static/x%20y.tar.gz", "");
    assert_eq!(response.field("Content-Disposition"), Some("inline; filename=\"x y.tar.gz\""));
    assert_eq!(response.field("Content-Type"), Some("application/x-tar"));
    assert_eq!(response.field("Content-Encoding"), Some("gzip"));
    let response = ask(&live, "GET", "/static/q%22q", "");
    assert_eq!(response.field("Content-Disposition"), Some("inline; filename=\"q\\\"q\""));
    assert_eq!(response.field("Content-Type"), Some("application/octet-stream"));
}

#[test]
fn conditions_are_evaluated() {
    let tree = Tree::new();
    let live = tree.serve(FileOptions::default());
    let whole = ask(&live, "GET", "/static/a.txt", "");
    let etag = whole.field("ETag").unwrap();
    let modified = whole.field("Last-Modified").unwrap();
    for (fields, status) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: W/{etag}\r\n"), 304),
        ("If-None-Match: \"other\"\r\n".to_owned(), 200),
        ("If-None-Match: *\r\n".to_owned(), 304),
        (format!("If-Modified-Since: {modified}\r\n"), 304),
        ("If-Modified-Since: Mon, 01 Jan 2001 00:00:00 GMT\r\n".to_owned(), 200),
        ("If-Match: \"other\"\r\n".to_owned(), 412),
        (format!("If-Match: {etag}\r\n"), 200),
        ("If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT\r\n".to_owned(), 412),
    ] {
        let response = ask(&live, "GET", "/static/a.txt", &fields);
        assert_eq!(response.status, status, "{fields}");
        assert_eq!(ask(&live, "HEAD", "/static/a.txt", &fields).status, status, "HEAD {fields}");
        if status == 304 {
            let names: Vec<_> = response.fields.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["Cache-Control", "Content-Disposition", "ETag"]);
        }
    }
}

#[test]
fn ranges_are_cut() {
    let tree = Tree::new();
    let live = tree.serve(FileOptions::default());
    for (field, status, body, content_range) in [
        ("bytes=0-3", 206, "0123", Some("bytes 0-3/10")),
        ("bytes=8-", 206, "89", Some("bytes 8-9/10")),
        ("bytes=-3", 206, "789", Some("bytes 7-9/10")),
        ("bytes=5-100", 206, "56789", Some("bytes 5-9/10")),
        ("lines=1-2", 200, "0123456789", None),
    ] {
        let response = ask(&live, "GET", "/static/a.txt", &format!("Range: {field}\r\n"));
        assert_eq!((response.status, response.text()), (status, body), "{field}");
        assert_eq!(response.field("Content-Range"), content_range);
    }
    for field in ["bytes=10-", "bytes=x", "bytes=-0", "bytes=0-1,4-5"] {
        let response = ask(&live, "GET", "/static/a.txt", &format!("Range: {field}\r\n"));
        assert_eq!((response.status, response.field("Content-Range")), (416, Some("bytes */10")), "{field}");
        assert_eq!(response.body.len(), 177, "the length of Flask's page");
    }
    let response = ask(&live, "GET", "/static/a.txt", "Range: bytes=0-3\r\nIf-Range: \"other\"\r\n");
    assert_eq!(response.status, 200);
    assert_eq!(ask(&live, "HEAD", "/static/a.txt", "Range: bytes=0-3\r\n").status, 200);
}

#[test]
fn large_files_are_whole_and_keep_their_order_with_other_answers() {
    let tree = Tree::new();
    let live = tree.serve(FileOptions::default());
    let bytes: Vec<u8> = (0..5_000_000u32).map(|at| (at / 3) as u8).collect();
    tree.write("big.bin", &bytes);
    let mut client = live.client();
    client.send(
        "GET /static/big.bin HTTP/1.1\r\nHost: a\r\n\r\nGET /static/a.txt HTTP/1.1\r\nHost: a\r\n\r\n\
         GET /static/big.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=1000000-3999999\r\n\r\n",
    );
    assert!(client.response().body == bytes);
    assert_eq!(client.response().text(), "0123456789");
    assert!(client.response().body == bytes[1_000_000..4_000_000]);
    tree.write("empty", b"");
    assert_eq!(client.get("/static/empty").field("Content-Length"), Some("0"));
}

#[test]
fn nothing_outside_the_root_is_reached() {
    let tree = Tree::new();
    let live = tree.serve(FileOptions::default());
    let root = tree.0.join("root");
    symlink("../secret", root.join("up")).unwrap();
    symlink(tree.0.join("secret"), root.join("absolute")).unwrap();
    symlink("..", root.join("dir-up")).unwrap();
    symlink("sub/../../secret", root.join("winding")).unwrap();
    symlink("/proc/self/fd", root.join("magic")).unwrap();
    symlink("a.txt", root.join("inside")).unwrap();
    let refused = [
        "../secret",
        "..%2fsecret",
        "%2e%2e/secret",
        "%2e%2e%2fsecret",
        "sub/../../secret",
        "sub/../a.txt",
        "sub/..%2f..%2fsecret",
        "./a.txt",
        "sub//b.css",
        "/etc/passwd",
        "%2fetc/passwd",
        "..%5csecret",
        "up",
        "absolute",
        "dir-up/secret",
        "winding",
        "magic/0",
        "sub",
        "sub/",
        "",
        "missing",
        "a.txt/",
        "a.txt/b",
        "..",
        ".",
        "a.txt%00.css",
        "a.txt%00",
    ];
    for path in refused {
        assert_eq!(ask(&live, "GET", &format!("/static/{path}"), "").status, 404, "{path}");
    }
    assert_eq!(ask(&live, "GET", "/static/inside", "").text(), "0123456789");
}

#[test]
fn a_fifo_is_no_file_and_does_not_hang_the_leader() {
    let tree = Tree::new();
    let live = tree.serve(FileOptions::default());
    let path = tree.0.join("root/fifo");
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: `name` ends with a NUL.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert_eq!(ask(&live, "GET", "/static/fifo", "").status, 404);
}

/// Sets when a file was changed last.
fn touch(path: &std::path::Path, seconds: u64) {
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
}

/// A root with a style sheet and its siblings, each with a text of its own.
fn with_siblings(endings: &[(&str, u64)]) -> (Tree, Live) {
    let tree = Tree::new();
    tree.write("s.css", b"plain");
    touch(&tree.0.join("root/s.css"), 1_000_000_000);
    for (ending, second) in endings {
        tree.write(&format!("s.css.{ending}"), format!("as {ending}").as_bytes());
        touch(&tree.0.join(format!("root/s.css.{ending}")), *second);
    }
    let live = tree.serve(FileOptions::default());
    (tree, live)
}

const NOW: u64 = 1_000_000_000;

#[test]
fn a_compressed_sibling_is_sent_to_whom_likes_it() {
    let (_tree, live) = with_siblings(&[("br", NOW), ("zst", NOW + 1), ("gz", NOW)]);
    for (accept, text, coding) in [
        ("gzip, deflate, br, zstd", "as br", Some("br")),
        ("gzip, deflate", "as gz", Some("gzip")),
        ("gzip;q=0.5, zstd;q=0.8", "as zst", Some("zstd")),
        ("*;q=0.3", "as br", Some("br")),
        ("br;q=0, *", "as zst", Some("zstd")),
        ("identity;q=0, gzip;q=0.1", "as gz", Some("gzip")),
        ("identity, gzip;q=0.1", "plain", None),
        ("identity", "plain", None),
        ("deflate", "plain", None),
        ("", "plain", None),
        ("gzip;q=0", "plain", None),
    ] {
        let fields = format!("Accept-Encoding: {accept}\r\n");
        let response = ask(&live, "GET", "/static/s.css", &fields);
        assert_eq!((response.status, response.text()), (200, text), "{accept}");
        assert_eq!(response.field("Content-Encoding"), coding, "{accept}");
        assert_eq!(response.field("Vary"), Some("Accept-Encoding"), "{accept}");
        assert_eq!(response.field("Content-Type"), Some("text/css; charset=utf-8"));
        assert_eq!(response.field("Content-Disposition"), Some("inline; filename=s.css"));
        let head = ask(&live, "HEAD", "/static/s.css", &fields);
        assert_eq!((head.status, head.fields), (200, response.fields), "{accept}");
    }
    let plain = ask(&live, "GET", "/static/s.css", "");
    assert_eq!((plain.text(), plain.field("Vary")), ("plain", Some("Accept-Encoding")));
    // The sibling itself is an ordinary file.
    let gz = ask(&live, "GET", "/static/s.css.gz", "Accept-Encoding: br, gzip\r\n");
    assert_eq!((gz.text(), gz.field("Content-Encoding"), gz.field("Vary")), ("as gz", Some("gzip"), None));
    // Nothing is said of codings where there is nothing to choose from.
    assert_eq!(ask(&live, "GET", "/static/a.txt", "Accept-Encoding: br\r\n").field("Vary"), None);
}

#[test]
fn each_form_of_a_file_has_an_entity_tag_of_its_own() {
    let (_tree, live) = with_siblings(&[("br", NOW), ("gz", NOW)]);
    let forms = ["br", "gzip", "identity"].map(|coding| {
        let fields = format!("Accept-Encoding: {coding}\r\n");
        let response = ask(&live, "GET", "/static/s.css", &fields);
        (fields, response.field("ETag").unwrap().to_owned(), response.body)
    });
    for (fields, etag, body) in &forms {
        for (_, other, _) in &forms {
            let status = if etag == other { 304 } else { 200 };
            let asked = format!("{fields}If-None-Match: {other}\r\n");
            let response = ask(&live, "GET", "/static/s.css", &asked);
            assert_eq!(response.status, status, "{asked}");
            assert_eq!(response.field("Vary"), Some("Accept-Encoding"), "{asked}");
            assert_eq!(response.field("ETag"), Some(etag.as_str()));
            let ranged = format!("{fields}Range: bytes=1-2\r\nIf-Range: {other}\r\n");
            let response = ask(&live, "GET", "/static/s.css", &ranged);
            if etag == other {
                let size = format!("bytes 1-2/{}", body.len());
                assert_eq!((response.status, response.field("Content-Range")), (206, Some(size.as_str())));
                assert_eq!(response.body, body[1..3], "{ranged}");
            } else {
                assert_eq!((response.status, &response.body), (200, body), "{ranged}");
            }
        }
    }
}

#[test]
fn a_sibling_that_is_no_compressed_form_is_not_used() {
    let (tree, live) = with_siblings(&[("br", NOW - 1), ("zst", NOW)]);
    tree.write("s.css.zst", b"");
    symlink("../../secret", tree.0.join("root/sub/b.css.gz")).unwrap();
    fs::create_dir(tree.0.join("root/a.txt.br")).unwrap();
    tree.write("x.tar.gz", b"archive");
    tree.write("x.tar.gz.br", b"twice");
    for (path, text) in
        [("s.css", "plain"), ("sub/b.css", "b{}"), ("a.txt", "0123456789"), ("x.tar.gz", "archive")]
    {
        let response = ask(&live, "GET", &format!("/static/{path}"), "Accept-Encoding: br, zstd, gzip\r\n");
        assert_eq!((response.status, response.text()), (200, text), "{path}");
        assert_eq!(response.field("Vary"), None, "{path}");
    }
}

#[test]
fn a_sibling_that_goes_is_missed_by_nobody() {
    let (tree, live) = with_siblings(&[("gz", NOW)]);
    let fields = "Accept-Encoding: gzip\r\n";
    assert_eq!(ask(&live, "GET", "/static/s.css", fields).text(), "as gz");
    fs::remove_file(tree.0.join("root/s.css.gz")).unwrap();
    let response = ask(&live, "GET", "/static/s.css", fields);
    assert_eq!((response.text(), response.field("Content-Encoding")), ("plain", None));
}

#[test]
fn siblings_can_be_left_alone() {
    let tree = Tree::new();
    tree.write("s.css", b"plain");
    tree.write("s.css.gz", b"as gz");
    let root = Root::open(&tree.0.join("root"), FileOptions::default()).unwrap();
    let files = hipflask_server::Files { precompressed: false, ..hipflask_server::Files::default() };
    let live = App::default().files("/static/", root).serve(Config { files, ..Config::default() });
    let response = ask(&live, "GET", "/static/s.css", "Accept-Encoding: gzip\r\n");
    assert_eq!((response.text(), response.field("Vary")), ("plain", None));
}
