//! Why the engine itself turned a request away, in words that programs can count by.

use hipflask_http::Error;

/// A request that the engine itself refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of reason.
    pub kind: RefusalKind,
    /// The status that was answered, or 0 if the connection was closed without an answer.
    pub status: u16,
    /// Why, as a sentence for the log.
    pub reason: &'static str,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)+) => {
        /// The kinds of reasons for a refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum RefusalKind {
            $($(#[$doc])* $name,)+
        }

        impl RefusalKind {
            /// Every kind, in the order of declaration: a table of counters can be indexed by `kind as usize`.
            pub const ALL: &'static [RefusalKind] = &[$(RefusalKind::$name,)+];

            /// The kind as one word in lower case. Words do not change from version to version.
            pub fn word(self) -> &'static str {
                match self { $(RefusalKind::$name => $word,)+ }
            }
        }
    };
}

kinds! {
    /// The request line is malformed.
    BadRequestLine = "bad_request_line";
    /// A method, version or transfer coding that is not implemented.
    NotImplemented = "not_implemented";
    /// A field of the head is malformed, or shadows a trusted one.
    BadField = "bad_field";
    /// `Host` is missing, malformed or there twice.
    BadHost = "bad_host";
    /// Where the body ends cannot be told for certain: request smuggling looks like this.
    BadFraming = "bad_framing";
    /// `Expect` says something unknown.
    BadExpectation = "bad_expectation";
    /// The request line, a field, or the head as a whole is too long.
    LongHead = "long_head";
    /// The body is longer than allowed.
    LongBody = "long_body";
    /// The body is malformed: a chunk, a trailer, a part of a form.
    BadBody = "bad_body";
    /// The head arrives too slowly.
    SlowHead = "slow_head";
    /// The body arrives too slowly.
    SlowBody = "slow_body";
    /// The client takes its response too slowly.
    SlowReader = "slow_reader";
    /// The connection ended within a head.
    CutHead = "cut_head";
    /// The connection ended within a body.
    CutBody = "cut_body";
    /// All threads are busy, and as many requests wait as may.
    QueueFull = "queue_full";
    /// Bodies that wait to be whole take too much room together.
    SpoolFull = "spool_full";
    /// The deadline passed while a view ran.
    Deadline = "deadline";
    /// The deadline passed before a thread was free to run the view.
    QueueDeadline = "queue_deadline";
    /// The deadline passed while the body of a response was being made.
    StreamDeadline = "stream_deadline";
    /// The TLS handshake failed.
    TlsFailed = "tls_failed";
    /// The TLS handshake takes too long.
    SlowHandshake = "slow_handshake";
    /// The client left during the TLS handshake.
    CutHandshake = "cut_handshake";
    /// HTTP without TLS where TLS is spoken.
    ClearText = "clear_text";
    /// An HTTP/2 connection begins too slowly.
    SlowHttp2 = "slow_http2";
    /// The client breaks the rules of HTTP/2.
    BadHttp2 = "bad_http2";
    /// The client of an HTTP/2 connection takes back too many of its requests.
    RapidReset = "rapid_reset";
    /// What a trusted proxy says about the client cannot be read.
    BadForwarded = "bad_forwarded";
    /// The PROXY header is missing or malformed.
    BadProxyHeader = "bad_proxy_header";
    /// The PROXY header arrives too slowly.
    SlowProxyHeader = "slow_proxy_header";
    /// The connection ended within its PROXY header.
    CutProxyHeader = "cut_proxy_header";
    /// A connection that needs a PROXY header comes from where none is trusted.
    UntrustedPeer = "untrusted_peer";
    /// The client's address has as many connections as it may.
    ManyConnections = "many_connections";
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal { kind: error.into(), status: error.status(), reason: error.reason() }
    }
}

impl From<Error> for RefusalKind {
    fn from(error: Error) -> RefusalKind {
        match error {
            Error::EmptyLines | Error::BadMethod | Error::BadTarget | Error::Asterisk | Error::BadVersion => {
                RefusalKind::BadRequestLine
            }
            Error::LongMethod
            | Error::Connect
            | Error::UnknownProtocol
            | Error::UnknownVersion
            | Error::UnknownCoding => RefusalKind::NotImplemented,
            Error::BareCr
            | Error::BareLf
            | Error::Nul
            | Error::Control
            | Error::Folded
            | Error::NoColon
            | Error::SpaceBeforeColon
            | Error::BadName
            | Error::ShadowingName => RefusalKind::BadField,
            Error::NoHost | Error::TwoHosts | Error::BadHost => RefusalKind::BadHost,
            Error::TwoLengths
            | Error::BadLength
            | Error::LengthAndCoding
            | Error::OldCoding
            | Error::BadCoding => RefusalKind::BadFraming,
            Error::BadExpectation => RefusalKind::BadExpectation,
            Error::ForwardedSyntax
            | Error::ForwardedFor
            | Error::ForwardedProto
            | Error::ForwardedHost
            | Error::ForwardedPort
            | Error::ForwardedPrefix
            | Error::ForwardedTooOften => RefusalKind::BadForwarded,
            Error::LongRequestLine | Error::LongField | Error::ManyFields | Error::LongHead => {
                RefusalKind::LongHead
            }
            Error::LongBody => RefusalKind::LongBody,
            Error::Truncated => RefusalKind::CutBody,
            // What else can be wrong stands in a body.
            _ => RefusalKind::BadBody,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_a_word_of_its_own_in_snake_case() {
        let words: HashSet<_> = RefusalKind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), RefusalKind::ALL.len());
        for (at, kind) in RefusalKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, at);
            let word = kind.word();
            assert!(
                word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
            );
        }
    }

    #[test]
    fn errors_of_a_head_are_not_taken_for_errors_of_a_body() {
        let in_bodies = [
            "BadChunkSize",
            "LongChunkSize",
            "BadChunkExtension",
            "LongChunkExtension",
            "BadChunkEnd",
            "BadTrailer",
            "LongTrailers",
            "ManyParts",
            "LargeFields",
            "BadBoundary",
            "LongPartHead",
            "BadPart",
            "Unterminated",
        ];
        for error in Error::ALL {
            let is_of_body = RefusalKind::from(*error) == RefusalKind::BadBody;
            assert_eq!(is_of_body, in_bodies.contains(&error.name()), "{error:?}");
        }
    }
}
