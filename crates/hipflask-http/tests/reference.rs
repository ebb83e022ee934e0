//! Compares queries, cookies, field values and multipart bodies with what Werkzeug made of them.
//!
//! The answers were written by `reference.py`. Set `HIPFLASK_REFERENCE` to a folder to compare with more of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that unwraps says enough")]

use std::path::PathBuf;
use std::{env, fs};

use hipflask_http::multipart::{Event, Multipart, MultipartLimits};
use hipflask_http::{Error, cookie, field, query};

/// Calls `ours` with the input of each case and compares what it returns.
fn compare(name: &str, ours: impl Fn(&[u8]) -> Vec<Option<Vec<u8>>>) {
    let folder = env::var_os("HIPFLASK_REFERENCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference"), PathBuf::from);
    let text = fs::read_to_string(folder.join(name).with_extension("txt")).unwrap();
    let mut count = 0;
    let mut failures = Vec::new();
    for line in text.lines() {
        let mut columns = line.split('\t');
        let input = unescape(columns.next().unwrap()).unwrap();
        let expected: Vec<_> = columns.map(unescape).collect();
        let found = ours(&input);
        if found != expected {
            let show = |items: &[Option<Vec<u8>>]| -> Vec<String> {
                let text = |item: &Vec<u8>| String::from_utf8_lossy(item).into_owned();
                items.iter().map(|item| item.as_ref().map_or_else(|| "None".to_owned(), text)).collect()
            };
            let input = String::from_utf8_lossy(&input).into_owned();
            failures.push(format!(
                "{input:?}\n  expected {:?}\n     found {:?}",
                show(&expected),
                show(&found)
            ));
        }
        count += 1;
    }
    assert!(count >= 100, "the answers have gone astray");
    let shown = failures.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {count}:\n{shown}", failures.len());
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    if text == "\\N" {
        return None;
    }
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'\\' {
            assert_eq!(bytes.next(), Some(b'x'));
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn items<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T>) -> Vec<Option<Vec<u8>>> {
    items.into_iter().map(|item| Some(item.as_ref().to_vec())).collect()
}

#[test]
fn queries_are_read_as_werkzeug_reads_them() {
    compare("query", |input| {
        items(
            query::parse_pairs(input)
                .unwrap()
                .flat_map(|(name, value)| [name.into_owned(), value.into_owned()]),
        )
    });
}

#[test]
fn paths_are_decoded_as_python_decodes_them() {
    compare("path", |input| items([query::percent_decode(input)]));
}

#[test]
fn cookies_are_read_as_werkzeug_reads_them() {
    compare("cookie", |input| {
        items(cookie::parse(text(input)).flat_map(|(name, value)| [name.to_owned(), value.into_owned()]))
    });
}

#[test]
fn cookie_values_are_quoted_as_werkzeug_quotes_them() {
    compare("cookie_value", |input| {
        let path = query::quote(text(input), b"%!$&'()*+,/:=@").into_owned();
        items([cookie::quote_value(text(input)).into_owned(), path])
    });
}

#[test]
fn options_are_read_as_werkzeug_reads_them() {
    compare("options", |input| {
        let options = field::parse_options(text(input));
        let pairs = options.parameters().flat_map(|(name, value)| [name, value]);
        items(std::iter::once(options.value.as_str()).chain(pairs))
    });
}

#[test]
fn lists_are_read_as_werkzeug_reads_them() {
    compare("list", |input| items(field::parse_list(text(input))));
}

#[test]
fn pairs_in_lists_are_read_as_werkzeug_reads_them() {
    compare("pairs", |input| {
        let pairs = field::parse_pairs(text(input)).into_iter();
        pairs.flat_map(|(name, value)| [Some(name.into_bytes()), value.map(String::into_bytes)]).collect()
    });
}

#[test]
fn values_are_quoted_as_werkzeug_quotes_them() {
    compare("quote", |input| {
        let input = text(input);
        items(
            [field::quote(input, true), field::quote(input, false), field::unquote(input)]
                .map(|out| out.into_owned()),
        )
    });
}

/// The events of a body that comes in pieces of this size, in the form of the answers.
fn events(body: &[u8], size: usize) -> Vec<Option<Vec<u8>>> {
    let mut found = Vec::new();
    let end = split(body, size, &mut found);
    if end.is_err() {
        return items(["error"]);
    }
    found.push(Some(b"end".to_vec()));
    found
}

fn split(body: &[u8], size: usize, found: &mut Vec<Option<Vec<u8>>>) -> Result<(), Error> {
    let mut parser = Multipart::new(b"b", MultipartLimits::default())?;
    for mut piece in body.chunks(size) {
        while let Some(event) = parser.next(&mut piece)? {
            match event {
                Event::Part(part) => {
                    let count = part.fields.len().to_string();
                    found.push(Some(b"part".to_vec()));
                    found.push(part.name.map(String::into_bytes));
                    found.push(part.filename.map(String::into_bytes));
                    found.push(Some(count.into_bytes()));
                    for (name, value) in part.fields {
                        found.extend([Some(name.into_bytes()), Some(value.into_bytes())]);
                    }
                    found.push(Some(Vec::new()));
                }
                Event::Data(data) => {
                    assert!(!data.is_empty());
                    found.last_mut().unwrap().as_mut().unwrap().extend_from_slice(data);
                }
                Event::PartEnd | Event::End => {}
            }
        }
        assert!(piece.is_empty());
    }
    parser.finish()
}

#[test]
fn multipart_bodies_are_split_as_werkzeug_splits_them_however_they_arrive() {
    for size in [usize::MAX, 1, 2, 5] {
        compare("multipart", |input| events(input, size));
    }
}
