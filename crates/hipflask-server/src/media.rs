//! Which media type a file's name stands for.
//!
//! The answers are those of Python's `mimetypes` (3.12 and newer) for the types that web applications send; a host
//! with an `/etc/mime.types` knows more, and its table can be given in [`FileOptions::types`](crate::FileOptions).

use std::collections::HashMap;

/// Sorted by extension.
const TYPES: &[(&str, &str)] = &[
    ("3g2", "audio/3gpp2"),
    ("3gp", "audio/3gpp"),
    ("3gpp", "audio/3gpp"),
    ("aac", "audio/aac"),
    ("adts", "audio/aac"),
    ("ai", "application/postscript"),
    ("aif", "audio/x-aiff"),
    ("aifc", "audio/x-aiff"),
    ("aiff", "audio/x-aiff"),
    ("au", "audio/basic"),
    ("avi", "video/x-msvideo"),
    ("avif", "image/avif"),
    ("bat", "text/plain"),
    ("bin", "application/octet-stream"),
    ("bmp", "image/bmp"),
    ("c", "text/plain"),
    ("csh", "application/x-csh"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("dll", "application/octet-stream"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("dot", "application/msword"),
    ("eml", "message/rfc822"),
    ("eps", "application/postscript"),
    ("epub", "application/epub+zip"),
    ("etx", "text/x-setext"),
    ("exe", "application/octet-stream"),
    ("gif", "image/gif"),
    ("gtar", "application/x-gtar"),
    ("h", "text/plain"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ief", "image/ief"),
    ("jpe", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("ksh", "text/plain"),
    ("latex", "application/x-latex"),
    ("m1v", "video/mpeg"),
    ("m3u", "application/vnd.apple.mpegurl"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("mht", "message/rfc822"),
    ("mhtml", "message/rfc822"),
    ("mjs", "text/javascript"),
    ("mov", "video/quicktime"),
    ("movie", "video/x-sgi-movie"),
    ("mp2", "audio/mpeg"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpe", "video/mpeg"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("n3", "text/n3"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/opus"),
    ("otf", "font/otf"),
    ("p12", "application/x-pkcs12"),
    ("pbm", "image/x-portable-bitmap"),
    ("pdf", "application/pdf"),
    ("pfx", "application/x-pkcs12"),
    ("pgm", "image/x-portable-graymap"),
    ("pl", "text/plain"),
    ("png", "image/png"),
    ("pnm", "image/x-portable-anymap"),
    ("ppm", "image/x-portable-pixmap"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("ps", "application/postscript"),
    ("py", "text/x-python"),
    ("pyc", "application/x-python-code"),
    ("qt", "video/quicktime"),
    ("ra", "audio/x-pn-realaudio"),
    ("ras", "image/x-cmu-raster"),
    ("rdf", "application/xml"),
    ("rgb", "image/x-rgb"),
    ("rtf", "application/rtf"),
    ("rtx", "text/richtext"),
    ("sgm", "text/x-sgml"),
    ("sgml", "text/x-sgml"),
    ("sh", "application/x-sh"),
    ("snd", "audio/basic"),
    ("so", "application/octet-stream"),
    ("srt", "text/plain"),
    ("svg", "image/svg+xml"),
    ("swf", "application/x-shockwave-flash"),
    ("tar", "application/x-tar"),
    ("tcl", "application/x-tcl"),
    ("tex", "application/x-tex"),
    ("texi", "application/x-texinfo"),
    ("texinfo", "application/x-texinfo"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("tsv", "text/tab-separated-values"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain"),
    ("vcf", "text/x-vcard"),
    ("vtt", "text/vtt"),
    ("wasm", "application/wasm"),
    ("wav", "audio/x-wav"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("wsdl", "application/xml"),
    ("xbm", "image/x-xbitmap"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "text/xml"),
    ("xpdl", "application/xml"),
    ("xpm", "image/x-xpixmap"),
    ("xsl", "application/xml"),
    ("zip", "application/zip"),
];

/// Endings that stand for two.
const SUFFIXES: &[(&str, &str, &str)] = &[
    ("svgz", "svg", "gzip"),
    ("taz", "tar", "gzip"),
    ("tbz2", "tar", "bzip2"),
    ("tgz", "tar", "gzip"),
    ("txz", "tar", "xz"),
    ("tz", "tar", "gzip"),
];

/// The media type and the content coding of a file by its name, as `mimetypes.guess_type` tells them.
pub(crate) fn guess<'a>(
    name: &str,
    types: Option<&'a HashMap<String, String>>,
) -> (Option<&'a str>, Option<&'static str>) {
    let Some((stem, ending)) = split(name) else { return (None, None) };
    let lower = ending.to_ascii_lowercase();
    if let Some((_, ending, coding)) = SUFFIXES.iter().find(|(suffix, ..)| *suffix == lower) {
        return (find(ending, types), Some(coding));
    }
    let coding = match ending {
        "gz" => "gzip",
        "Z" => "compress",
        "bz2" => "bzip2",
        "xz" => "xz",
        "br" => "br",
        _ => return (find(&lower, types), None),
    };
    let inner = split(stem).and_then(|(_, ending)| find(&ending.to_ascii_lowercase(), types));
    (inner, Some(coding))
}

/// Splits the last ending off; a name that only begins with dots has none.
fn split(name: &str) -> Option<(&str, &str)> {
    let (stem, ending) = name.rsplit_once('.')?;
    stem.bytes().any(|byte| byte != b'.').then_some((stem, ending))
}

fn find<'a>(ending: &str, types: Option<&'a HashMap<String, String>>) -> Option<&'a str> {
    match types {
        Some(types) => types.get(ending).map(String::as_str),
        None => {
            let at = TYPES.binary_search_by(|(known, _)| (*known).cmp(ending)).ok()?;
            TYPES.get(at).map(|(_, media)| *media)
        }
    }
}

/// Whether a type is sent with a charset, by Werkzeug's rule.
pub(crate) fn is_text(media: &str) -> bool {
    media.starts_with("text/")
        || media.ends_with("+xml")
        || matches!(
            media,
            "application/ecmascript"
                | "application/javascript"
                | "application/sql"
                | "application/xml"
                | "application/xml-dtd"
                | "application/xml-external-parsed-entity"
        )
}

/// Whether content of a type becomes smaller when it is compressed. Pictures, films, sounds, archives and WOFF fonts are
/// compressed already. Events are not: some clients want to read them line by line, whatever the length of a block.
pub(crate) fn is_compressible(media: &[u8]) -> bool {
    let Ok(media) = std::str::from_utf8(media) else { return false };
    let media = media.to_ascii_lowercase();
    if media == "text/event-stream" {
        return false;
    }
    is_text(&media)
        || media.ends_with("+json")
        || matches!(
            media.as_str(),
            "application/json"
                | "application/x-javascript"
                | "application/x-ndjson"
                | "application/graphql"
                | "application/x-yaml"
                | "application/yaml"
                | "application/toml"
                | "application/rtf"
                | "application/wasm"
                | "application/vnd.ms-fontobject"
                | "font/collection"
                | "font/otf"
                | "font/ttf"
                | "image/bmp"
                | "image/vnd.microsoft.icon"
                | "image/x-icon"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(TYPES.is_sorted());
    }

    #[test]
    fn names_are_read_like_mimetypes_does() {
        for (name, expected) in [
            ("a.html", (Some("text/html"), None)),
            ("A.HTML", (Some("text/html"), None)),
            ("a.b.css", (Some("text/css"), None)),
            ("a.tar.gz", (Some("application/x-tar"), Some("gzip"))),
            ("a.tgz", (Some("application/x-tar"), Some("gzip"))),
            ("a.svgz", (Some("image/svg+xml"), Some("gzip"))),
            ("a.js.br", (Some("text/javascript"), Some("br"))),
            ("a.gz", (None, Some("gzip"))),
            ("a.unheard-of", (None, None)),
            ("noext", (None, None)),
            (".html", (None, None)),
            ("..html", (None, None)),
            ("a.", (None, None)),
        ] {
            assert_eq!(guess(name, None), expected, "{name}");
        }
    }

    #[test]
    fn a_given_table_replaces_the_own_one() {
        let types = HashMap::from([("x".to_owned(), "text/x".to_owned())]);
        assert_eq!(guess("a.x", Some(&types)).0, Some("text/x"));
        assert_eq!(guess("a.html", Some(&types)).0, None);
    }
}
