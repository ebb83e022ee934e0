//! The PROXY protocol: what a proxy of the transport layer says about a connection before its first byte.
//!
//! Implements versions 1 and 2 of HAProxy's `proxy-protocol.txt` (2020). Strict: a header that is not exactly as it is
//! written there is an [`Error`], and there is no guessing whether there is one. Of the additions of version 2 only
//! whether the client spoke TLS with the proxy is read; the others are stepped over, their lengths checked. The
//! destination is checked and forgotten.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, with its line end (§2.1).
pub const MOST_V1: usize = 107;
/// The longest header of version 2 that is taken. 4 KiB: addresses of Unix sockets are 216 bytes, additions some 100
/// more, with a client's certificate inside up to 3 KiB.
pub const MOST_V2: usize = 4096;

/// What version 2 begins with (§2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Of that, with version, command, family, protocol and length.
const V2_HEAD: usize = 16;
/// Type of the addition that tells about TLS (§2.2.5), and the bit of its first byte that says that there was any.
const PP2_TYPE_SSL: u8 = 0x20;
const PP2_CLIENT_SSL: u8 = 1;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it takes.
    pub length: usize,
    /// Who is at the other end of the proxy.
    pub source: Source,
    /// Whether the client speaks TLS with the proxy.
    pub secure: bool,
}

/// Who is at the other end of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The proxy itself, which looks whether the server is well (`LOCAL`), or does not know (`UNKNOWN`).
    Proxy,
    /// A client.
    Client(SocketAddr),
    /// A client of a Unix socket of the proxy's.
    Unix,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The bytes do not begin as one.
    Missing,
    /// Version 1: the line is longer than any can be, or ends without `CRLF`.
    BadLine,
    /// Version 1: neither `TCP4`, `TCP6` nor `UNKNOWN`, or not followed by two addresses and two ports.
    BadFields,
    /// A version other than 2, a command other than `LOCAL` and `PROXY`, an unknown family or protocol.
    Unknown,
    /// A length that has no room for the addresses, or additions that do not end where it does.
    BadLength,
    /// Version 2: longer than [`MOST_V2`].
    TooLong,
    /// Not a stream: what is behind it cannot be HTTP.
    Datagram,
}

impl Error {
    /// A sentence for the log.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Error::Missing => "the connection does not begin with a PROXY header",
            Error::BadLine => "the PROXY header's line is too long or not ended well",
            Error::BadFields => "the PROXY header's addresses cannot be read",
            Error::Unknown => "the PROXY header is of an unknown kind",
            Error::BadLength => "the PROXY header's length is wrong",
            Error::TooLong => "the PROXY header is too long",
            Error::Datagram => "the PROXY header speaks of datagrams",
        }
    }
}

/// Reads the header that a connection begins with. `Ok(None)` wants more bytes.
///
/// # Errors
/// It is none, or not well-formed: the connection cannot be used.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let begins = |with: &[u8]| {
        let count = bytes.len().min(with.len());
        bytes.get(..count) == with.get(..count)
    };
    if begins(SIGNATURE) {
        binary(bytes)
    } else if begins(b"PROXY ") {
        line(bytes)
    } else {
        Err(Error::Missing)
    }
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 CRLF`.
fn line(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let looked_at = bytes.get(..MOST_V1.min(bytes.len())).unwrap_or_default();
    let Some(feed) = memchr::memchr(b'\n', looked_at) else {
        // Without its second half a line end may still come.
        let stray = memchr::memchr(b'\r', looked_at).is_some_and(|at| at + 1 < looked_at.len());
        return if bytes.len() >= MOST_V1 || stray { Err(Error::BadLine) } else { Ok(None) };
    };
    let line = looked_at.get(..feed).and_then(|line| line.strip_suffix(b"\r")).ok_or(Error::BadLine)?;
    let line = std::str::from_utf8(line).ok().filter(|line| !line.contains('\r')).ok_or(Error::BadLine)?;
    let length = feed + 1;
    let rest = line.strip_prefix("PROXY ").ok_or(Error::Missing)?;
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        // What follows is to be ignored.
        return Ok(Some(Header { length, source: Source::Proxy, secure: false }));
    }
    let mut fields = rest.split(' ');
    let mut next = || fields.next().ok_or(Error::BadFields);
    let (family, source, destination, source_port, destination_port) =
        (next()?, next()?, next()?, next()?, next()?);
    if fields.next().is_some() {
        return Err(Error::BadFields);
    }
    let address = |text: &str| -> Result<IpAddr, Error> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| Error::BadFields),
            "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Error::BadFields),
            _ => Err(Error::BadFields),
        }
    };
    let source = SocketAddr::new(address(source)?.to_canonical(), port(source_port)?);
    address(destination)?;
    port(destination_port)?;
    Ok(Some(Header { length, source: Source::Client(source), secure: false }))
}

/// A decimal number without zeros before it (§2.1).
fn port(text: &str) -> Result<u16, Error> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(Error::BadFields)
}

/// Version 2.
fn binary(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let Some((head, rest)) = bytes.split_first_chunk::<V2_HEAD>() else { return Ok(None) };
    let [.., kind, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if V2_HEAD + length > MOST_V2 {
        return Err(Error::TooLong);
    }
    if kind >> 4 != 2 || kind & 0xf > 1 {
        return Err(Error::Unknown);
    }
    let is_local = kind & 0xf == 0;
    // Wrong in itself, whatever is still to come.
    let addresses = match (family >> 4, family & 0xf) {
        // The receiver of LOCAL ignores the rest (§2.2), even a family that it does not know.
        _ if is_local => 0,
        (0, 0) => 0,
        (1..=3, 2) => return Err(Error::Datagram),
        (1, 1) => 12,
        (2, 1) => 36,
        (3, 1) => 216,
        _ => return Err(Error::Unknown),
    };
    if length < addresses {
        return Err(Error::BadLength);
    }
    let Some(block) = rest.get(..length) else { return Ok(None) };
    let whole = |source, secure| Ok(Some(Header { length: V2_HEAD + length, source, secure }));
    if is_local || family == 0 {
        return whole(Source::Proxy, false);
    }
    let (ends, additions) = block.split_at_checked(addresses).ok_or(Error::BadLength)?;
    let source = match family >> 4 {
        1 => {
            let address: [u8; 4] = part(ends, 0)?;
            Source::Client(SocketAddr::from((address, u16::from_be_bytes(part(ends, 8)?))))
        }
        2 => {
            let address: [u8; 16] = part(ends, 0)?;
            let address = IpAddr::from(address).to_canonical();
            Source::Client(SocketAddr::new(address, u16::from_be_bytes(part(ends, 32)?)))
        }
        _ => Source::Unix,
    };
    whole(source, has_tls(additions)?)
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Error> {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(Error::BadLength)
}

/// Walks over the additions; whether one says that the client speaks TLS.
fn has_tls(mut additions: &[u8]) -> Result<bool, Error> {
    let mut secure = false;
    while let [kind, rest @ ..] = additions {
        let length = usize::from(u16::from_be_bytes(part(rest, 0)?));
        let value = rest.get(2..2 + length).ok_or(Error::BadLength)?;
        if *kind == PP2_TYPE_SSL {
            // A byte of flags, four bytes of the certificate's verification, additions of its own.
            let [flags, _, _, _, _, ..] = value else { return Err(Error::BadLength) };
            secure = flags & PP2_CLIENT_SSL != 0;
        }
        additions = rest.get(2 + length..).unwrap_or_default();
    }
    Ok(secure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Source {
        Source::Client(text.parse().unwrap())
    }

    fn v2(kind: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[kind, family], &length, block].concat()
    }

    const ENDS: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x01, 0xbb];

    #[test]
    fn lines_of_version_1_are_read() {
        for (line, source) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", client("192.0.2.1:56324")),
            ("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", client("0.0.0.0:0")),
            ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", client("[2001:db8::1]:1")),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", client("192.0.2.1:1")),
            ("PROXY UNKNOWN\r\n", Source::Proxy),
            ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", Source::Proxy),
        ] {
            let bytes = [line.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
            let expected = Header { length: line.len(), source, secure: false };
            assert_eq!(parse(&bytes), Ok(Some(expected)), "{line}");
            for cut in 0..line.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{line} cut at {cut}");
            }
        }
    }

    #[test]
    fn the_longest_line_is_read_and_a_longer_one_is_not() {
        let most = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let line = format!("PROXY UNKNOWN {most} {most} 65535 65535\r\n");
        assert_eq!(line.len(), MOST_V1);
        assert_eq!(parse(line.as_bytes()).unwrap().unwrap().length, MOST_V1);
        let longer = line.replace("PROXY UNKNOWN ", "PROXY UNKNOWN  ");
        assert_eq!(parse(longer.as_bytes()), Err(Error::BadLine));
        assert_eq!(parse(&longer.as_bytes()[..MOST_V1]), Err(Error::BadLine));
        assert_eq!(parse(&longer.as_bytes()[..MOST_V1 - 1]), Ok(None));
    }

    #[test]
    fn malformed_lines_are_refused() {
        for (line, error) in [
            ("GET / HTTP/1.1\r\n", Error::Missing),
            ("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Error::Missing),
            ("PROXY\r\n", Error::Missing),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", Error::BadLine),
            ("PROXY TCP4 192.0.2.1\r192.0.2.2 1 2\r\n", Error::BadLine),
            ("PROXY TCP4 192.0.2.1\rx", Error::BadLine),
            ("PROXY TCP4 192.0.2.1\rx\r", Error::BadLine),
            ("PROXY \r\n", Error::BadFields),
            ("PROXY TCP4\r\n", Error::BadFields),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", Error::BadFields),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", Error::BadFields),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", Error::BadFields),
            ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", Error::BadFields),
            ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", Error::BadFields),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", Error::BadFields),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", Error::BadFields),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", Error::BadFields),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 02\r\n", Error::BadFields),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", Error::BadFields),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", Error::BadFields),
            ("PROXY TCP6 [::1] ::1 1 2\r\n", Error::BadFields),
            ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Error::BadFields),
            ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", Error::BadFields),
            ("PROXY UNKNOWNS\r\n", Error::BadFields),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(error), "{line:?}");
        }
        assert_eq!(parse(b"PROXY TCP4 \xff 1 1 1\r\n"), Err(Error::BadLine));
    }

    #[test]
    fn headers_of_version_2_are_read() {
        let mut six = [0; 36];
        six[15] = 1;
        six[32..34].copy_from_slice(&80_u16.to_be_bytes());
        let mut mapped = [0; 36];
        mapped[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        let with = |additions: &[u8]| [ENDS.as_slice(), additions].concat();
        let tls = |flags| with(&[0x20, 0, 8, flags, 0, 0, 0, 0, 0x21, 0, 0]);
        for (bytes, source, secure) in [
            (v2(0x21, 0x11, &ENDS), client("192.0.2.1:56324"), false),
            (v2(0x21, 0x11, &with(&[1, 0, 2, b'h', b'2', 4, 0, 0])), client("192.0.2.1:56324"), false),
            (v2(0x21, 0x11, &tls(0x01)), client("192.0.2.1:56324"), true),
            (v2(0x21, 0x11, &tls(0x06)), client("192.0.2.1:56324"), false),
            (v2(0x21, 0x21, &six), client("[::1]:80"), false),
            (v2(0x21, 0x21, &mapped), client("192.0.2.1:0"), false),
            (v2(0x21, 0x31, &[0; 216]), Source::Unix, false),
            (v2(0x21, 0x00, b""), Source::Proxy, false),
            (v2(0x21, 0x00, b"whatever"), Source::Proxy, false),
            (v2(0x20, 0x00, b""), Source::Proxy, false),
            (v2(0x20, 0x11, &ENDS), Source::Proxy, false),
            (v2(0x20, 0xff, b"\xff\xff"), Source::Proxy, false),
        ] {
            let behind = [bytes.as_slice(), b"\x16\x03\x01"].concat();
            assert_eq!(
                parse(&behind),
                Ok(Some(Header { length: bytes.len(), source, secure })),
                "{bytes:x?}"
            );
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{bytes:x?} cut at {cut}");
            }
        }
    }

    #[test]
    fn malformed_headers_of_version_2_are_refused() {
        let with = |additions: &[u8]| [ENDS.as_slice(), additions].concat();
        let long = u16::try_from(MOST_V2 - V2_HEAD + 1).unwrap().to_be_bytes();
        for (bytes, error) in [
            (b"\r\n\r\n\0\r\nQUIX".to_vec(), Error::Missing),
            (b"\r\nGET".to_vec(), Error::Missing),
            (v2(0x11, 0x11, &ENDS), Error::Unknown),
            (v2(0x31, 0x11, &ENDS), Error::Unknown),
            (v2(0x22, 0x11, &ENDS), Error::Unknown),
            (v2(0x21, 0x41, &ENDS), Error::Unknown),
            (v2(0x21, 0x13, &ENDS), Error::Unknown),
            (v2(0x21, 0x01, &ENDS), Error::Unknown),
            (v2(0x21, 0x10, &ENDS), Error::Unknown),
            (v2(0x21, 0x12, &ENDS), Error::Datagram),
            (v2(0x21, 0x11, &ENDS[..11]), Error::BadLength),
            (v2(0x21, 0x21, &ENDS), Error::BadLength),
            (v2(0x21, 0x31, &[0; 215]), Error::BadLength),
            (v2(0x21, 0x11, &with(&[1])), Error::BadLength),
            (v2(0x21, 0x11, &with(&[1, 0])), Error::BadLength),
            (v2(0x21, 0x11, &with(&[1, 0, 2, b'h'])), Error::BadLength),
            (v2(0x21, 0x11, &with(&[0x20, 0, 4, 1, 0, 0, 0])), Error::BadLength),
            ([SIGNATURE.as_slice(), &[0x21, 0x11], &long].concat(), Error::TooLong),
        ] {
            assert_eq!(parse(&bytes), Err(error), "{bytes:x?}");
        }
    }
}
