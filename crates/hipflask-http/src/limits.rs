//! How much a request may ask for, each limit with its default and the reason for it.

/// Limits on what a client may send. Sizes are in bytes and exclude line ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request line. RFC 9112 §3 asks for at least 8,000; twice that leaves room for long queries.
    pub request_line: usize,
    /// Method. RFC 9112 §3: longer than any implemented is a 501; registered ones end at 17 (UPDATEREDIRECTREF).
    pub method: usize,
    /// Whole head with request line and line ends. Browsers keep at most some 4 KiB of cookies per host and name.
    pub head: usize,
    /// One field line. Several cookies of 4 KiB fit, as do Kerberos tickets.
    pub field: usize,
    /// Number of fields. Browsers send about 20, proxies add a dozen.
    pub fields: usize,
    /// Empty lines skipped before a request line. RFC 9112 §2.2 asks for at least one.
    pub empty_lines: usize,
    /// Body, after decoding. Guards the disk, not memory: bodies are streamed. An application sets its own, lower
    /// one (`MAX_CONTENT_LENGTH`).
    pub body: u64,
    /// Chunk extensions, summed over one body. Nobody uses them; unbounded they are free traffic past the body limit.
    pub chunk_ext: usize,
    /// Trailer section, with line ends.
    pub trailers: usize,
    /// Number of trailer fields.
    pub trailer_fields: usize,
    /// Whether bytes above 127 may stand in a request target if they are valid UTF-8. Not in RFC 3986's grammar,
    /// but command-line clients send what was typed; nothing is corrected, so nothing can be read in two ways.
    pub utf8_target: bool,
    /// What becomes of field names that hold an underscore.
    pub underscores: Underscores,
}

/// What becomes of field names that hold an underscore.
///
/// CGI (and so WSGI) writes `-` and `_` alike, which lets `X_Forwarded_For` pose as the proxy's `X-Forwarded-For`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Underscores {
    /// Names that would shadow one that decides about framing, addresses or identity are refused; the others are
    /// left out of the head, as Werkzeug's server leaves them out.
    #[default]
    Guard,
    /// Every name with an underscore is refused.
    Refuse,
    /// Every name is kept. For servers behind a proxy that already drops them.
    Keep,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_line: 16 * 1024,
            method: 32,
            head: 64 * 1024,
            field: 16 * 1024,
            fields: 100,
            empty_lines: 1,
            body: 4 << 30,
            chunk_ext: 4 * 1024,
            trailers: 8 * 1024,
            trailer_fields: 32,
            utf8_target: true,
            underscores: Underscores::Guard,
        }
    }
}
