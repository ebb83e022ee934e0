//! Reads the vectors of `tests/wire`; their format is told there.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// A vector: what is sent, and the lines that are expected.
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Vec<String>,
}

/// All vectors, by name.
pub(crate) fn vectors() -> Vec<Vector> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/wire/vectors");
    let mut vectors: Vec<Vector> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            let (title, rest) = text.split_once('\n').unwrap();
            assert!(title.starts_with("# "), "{name} has no title");
            let (bytes, expected) =
                rest.strip_prefix("---\n").map_or_else(|| rest.split_once("\n---\n").unwrap(), |e| ("", e));
            Vector { name, bytes: unescape(bytes), expected: expected.lines().map(str::to_owned).collect() }
        })
        .collect();
    vectors.sort_by(|one, other| one.name.cmp(&other.name));
    vectors
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\n' => {}
            '\\' => match chars.next().unwrap() {
                'r' => out.push(b'\r'),
                'n' => out.push(b'\n'),
                't' => out.push(b'\t'),
                '\\' => out.push(b'\\'),
                'x' => {
                    let digits: String = chars.by_ref().take(2).collect();
                    out.push(u8::from_str_radix(&digits, 16).unwrap());
                }
                other => panic!("unknown escape {other}"),
            },
            _ => out.push(u8::try_from(char).unwrap()),
        }
    }
    out
}

/// Bytes as the vectors write them.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    for &byte in bytes {
        match byte {
            b'\r' => out.push_str("\\r"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\\' => out.push_str("\\\\"),
            b' '..=b'~' => out.push(byte as char),
            _ => write!(out, "\\x{byte:02x}").unwrap(),
        }
    }
    out
}

/// The first word of an expected line.
pub(crate) fn word(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}
