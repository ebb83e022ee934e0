//! What can be wrong with a request, one variant for each thing found.

/// Makes an enumeration of errors: its variants, each with a code and a sentence.
macro_rules! errors {
    (
        $(#[$about:meta])* $error:ident {
            $(#[$code_doc:meta])* $code_name:ident,
            $(#[$reason_doc:meta])* $reason_name:ident $(,)?
        }
        $($(#[$doc:meta])* $name:ident = $code:literal $reason:literal;)*
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $error {
            $($(#[$doc])* $name,)*
        }

        impl $error {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [$error] = &[$($error::$name,)*];

            $(#[$code_doc])*
            #[must_use]
            pub fn $code_name(self) -> u16 {
                match self { $($error::$name => $code,)* }
            }

            $(#[$reason_doc])*
            #[must_use]
            pub fn $reason_name(self) -> &'static str {
                match self { $($error::$name => $reason,)* }
            }

            /// The variant's name, for tests and counters.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $($error::$name => stringify!($name),)* }
            }
        }

        impl std::fmt::Display for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.$reason_name())
            }
        }

        impl std::error::Error for $error {}
    };
}
pub(crate) use errors;

errors! {
    /// Why a request is refused. "Need more bytes" is never an error.
    Error {
        /// The status code to answer with; the connection is closed after it.
        status,
        /// A sentence for the log. Holds no bytes of the request.
        reason,
    }
    /// More empty lines before the request line than [`Limits::empty_lines`](crate::Limits::empty_lines).
    EmptyLines = 400 "too many empty lines stand before the request line";
    /// The method is empty, or holds a byte that is no token character: `G@T / HTTP/1.1`.
    BadMethod = 400 "the request line does not begin with a method";
    /// The method is longer than [`Limits::method`](crate::Limits::method).
    LongMethod = 501 "the method is longer than any that is implemented";
    /// `CONNECT host:port`: there is no tunnel here.
    Connect = 501 "CONNECT is not implemented";
    /// An extended CONNECT of HTTP/2 for anything but a WebSocket: `:protocol: connect-udp`.
    UnknownProtocol = 501 "the protocol of the CONNECT is not implemented";
    /// The target is missing, in no known form, or holds a space, a control byte or `#`: `GET /a#b HTTP/1.1`.
    BadTarget = 400 "the request target is malformed";
    /// `*` with a method other than OPTIONS.
    Asterisk = 400 "the target * belongs to OPTIONS alone";
    /// The request line is longer than [`Limits::request_line`](crate::Limits::request_line).
    LongRequestLine = 414 "the request line is too long";
    /// No `HTTP/d.d` at the end of the request line.
    BadVersion = 400 "the request line does not end with an HTTP version";
    /// `HTTP/0.9`, `HTTP/2.0`, `HTTP/3.0`.
    UnknownVersion = 505 "the major version of HTTP is not 1";
    /// A carriage return that no line feed follows.
    BareCr = 400 "a carriage return stands without a line feed";
    /// A line feed without a carriage return before it.
    BareLf = 400 "a line feed stands without a carriage return";
    /// A zero byte in the head.
    Nul = 400 "a zero byte stands in the head";
    /// A control byte other than tab in the head.
    Control = 400 "a control byte stands in the head";
    /// A field line that begins with a space or tab: line folding, obsolete since RFC 7230.
    Folded = 400 "a field line begins with white space";
    /// A field line without a colon.
    NoColon = 400 "a field line has no colon";
    /// White space between a field's name and its colon: `Host : a`.
    SpaceBeforeColon = 400 "white space stands before a colon";
    /// An empty field name, or one that holds a byte that is no token character.
    BadName = 400 "a field name is malformed";
    /// `Content_Length`, `X_Forwarded_For`: the same as a trusted name once dashes and underscores are one.
    ShadowingName = 400 "a field name with underscores shadows a trusted one";
    /// A field line longer than [`Limits::field`](crate::Limits::field).
    LongField = 431 "a field is too long";
    /// More fields than [`Limits::fields`](crate::Limits::fields).
    ManyFields = 431 "there are too many fields";
    /// A head longer than [`Limits::head`](crate::Limits::head).
    LongHead = 431 "the head is too long";
    /// HTTP/1.1 without `Host`.
    NoHost = 400 "the Host field is missing";
    /// More than one `Host`.
    TwoHosts = 400 "there is more than one Host field";
    /// `Host: a b`, `Host: u@a`, `Host: a:b`, `Host:` and the like, in the field or in an absolute target.
    BadHost = 400 "the host is malformed";
    /// `Content-Length` twice, or as a list: `5, 5`.
    TwoLengths = 400 "there is more than one Content-Length";
    /// `Content-Length` that is not digits only or exceeds 64 bits: `+5`, `-1`, `0x5`, `abc`.
    BadLength = 400 "the Content-Length is malformed";
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding = 400 "both Content-Length and Transfer-Encoding are given";
    /// `Transfer-Encoding` in an HTTP/1.0 request.
    OldCoding = 400 "Transfer-Encoding does not belong in HTTP/1.0";
    /// `Transfer-Encoding` whose last coding is not `chunked`, or which names `chunked` twice.
    BadCoding = 400 "the Transfer-Encoding does not end in one chunked";
    /// Another coding before `chunked`: `gzip, chunked`.
    UnknownCoding = 501 "a transfer coding other than chunked is asked for";
    /// `Expect` with anything but `100-continue`.
    BadExpectation = 417 "the expectation is not known";
    /// `Forwarded` of a trusted proxy that breaks the grammar of RFC 7239, or names something twice.
    ForwardedSyntax = 400 "the trusted proxy's Forwarded field is malformed";
    /// `X-Forwarded-For: abc`, `Forwarded: for=abc` of a trusted proxy.
    ForwardedFor = 400 "the trusted proxy names no address that can be read";
    /// A scheme other than http, https, ws and wss.
    ForwardedProto = 400 "the trusted proxy names an unknown scheme";
    /// `X-Forwarded-Host: a/b` of a trusted proxy.
    ForwardedHost = 400 "the trusted proxy names a malformed host";
    /// `X-Forwarded-Port: abc` of a trusted proxy.
    ForwardedPort = 400 "the trusted proxy names a malformed port";
    /// `X-Forwarded-Prefix` of a trusted proxy that is no path, or one that a browser takes for a host.
    ForwardedPrefix = 400 "the trusted proxy names a malformed prefix";
    /// More proxies than [`forwarded::MOST_PROXIES`](crate::forwarded::MOST_PROXIES).
    ForwardedTooOften = 400 "the request has come through too many proxies";
    /// A body longer than [`Limits::body`](crate::Limits::body).
    LongBody = 413 "the body is too long";
    /// A chunk size that is not hexadecimal digits only: `+3`, ` 3`, `3 `, `0x3`, nothing.
    BadChunkSize = 400 "a chunk size is malformed";
    /// A chunk size above 64 bits, or written with more than 16 digits.
    LongChunkSize = 400 "a chunk size is too large";
    /// A chunk extension that breaks the grammar.
    BadChunkExtension = 400 "a chunk extension is malformed";
    /// Chunk extensions longer, over the whole body, than [`Limits::chunk_ext`](crate::Limits::chunk_ext).
    LongChunkExtension = 400 "the chunk extensions are too long";
    /// A chunk whose data is not followed by CR LF.
    BadChunkEnd = 400 "a chunk does not end where its size says";
    /// A trailer that breaks the grammar of fields.
    BadTrailer = 400 "a trailer field is malformed";
    /// Trailers longer or more numerous than [`Limits`](crate::Limits) allows.
    LongTrailers = 431 "the trailer section is too long";
    /// The connection ended before the body did.
    Truncated = 400 "the connection ended inside a body";
    /// More pairs than the caller allows in a urlencoded or multipart form.
    ManyParts = 413 "the form has too many fields";
    /// Form fields that take more memory than the caller allows.
    LargeFields = 413 "the form's fields are too large";
    /// `multipart/form-data` without a usable boundary.
    BadBoundary = 400 "the multipart boundary is missing or malformed";
    /// A part's head longer than the limit.
    LongPartHead = 413 "the head of a multipart part is too long";
    /// A part without `Content-Disposition: form-data; name=…`, or with a malformed field.
    BadPart = 400 "the head of a multipart part is malformed";
    /// A multipart body that ends before its closing boundary.
    Unterminated = 400 "the multipart body has no closing boundary";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_status_for_errors_and_a_sentence() {
        for error in Error::ALL {
            assert!((400..600).contains(&error.status()), "{error:?}");
            assert!(error.reason().len() > 10 && !error.reason().ends_with('.'), "{error:?}");
            assert_eq!(error.to_string(), error.reason());
        }
    }
}
