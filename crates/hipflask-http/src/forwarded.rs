//! What trusted proxies say about a request: `Forwarded` (RFC 7239) or the older `X-Forwarded-*`.
//!
//! To be asked only about requests from a proxy that is trusted; whoever that is, the caller knows. One family of fields
//! is read and never the other, since what a proxy does not write it passes on as the client sent it.
//!
//! The client is looked for from the right, where the nearest proxy has written: past all addresses that are trusted
//! themselves, to the first that is not. What stands left of it is the client's own text and is not looked at, so that
//! nobody can pose as somebody else by sending such a field. Of the others the last value counts, for the same reason.
//!
//! What cannot be read where it decides is an [`Error`]: a proxy that is trusted writes nothing of the kind, so either
//! the setting is wrong or a client's text has come through, and to go on would be to guess who asks.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::network::Networks;
use crate::query::percent_decode;
use crate::target::host_is_valid;
use crate::token::{is_token_byte, trim};
use crate::{Error, RequestHead};

/// Proxies that a request may have come through, and elements of `Forwarded`. 32: nobody has more than five.
pub const MOST_PROXIES: usize = 32;

/// Which fields are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Believed {
    /// `Forwarded`, and none of the others.
    pub standard: bool,
    /// `X-Forwarded-For`: the client's address.
    pub address: bool,
    /// `X-Forwarded-Proto`: the scheme.
    pub proto: bool,
    /// `X-Forwarded-Host`: host and port.
    pub host: bool,
    /// `X-Forwarded-Port`: the port alone.
    pub port: bool,
    /// `X-Forwarded-Prefix`: the part of the path that the proxy has taken off.
    pub prefix: bool,
}

impl Default for Believed {
    /// The two that proxies write, rather than pass on, in every recipe.
    fn default() -> Self {
        Believed { standard: false, address: true, proto: true, host: false, port: false, prefix: false }
    }
}

impl Believed {
    /// Names of the fields, with which of them each is.
    fn members(&mut self) -> [(&'static str, &mut bool); 6] {
        [
            ("forwarded", &mut self.standard),
            ("x-forwarded-for", &mut self.address),
            ("x-forwarded-proto", &mut self.proto),
            ("x-forwarded-host", &mut self.host),
            ("x-forwarded-port", &mut self.port),
            ("x-forwarded-prefix", &mut self.prefix),
        ]
    }

    /// Reads names of fields; `None` if one of them is none, or if the families are mixed.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Believed> {
        let mut believed = Believed {
            standard: false,
            address: false,
            proto: false,
            host: false,
            port: false,
            prefix: false,
        };
        let mut others = false;
        for name in names {
            let mut members = believed.members();
            let member = members.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
            *member.1 = true;
            others |= member.0 != "forwarded";
        }
        (believed.standard != others).then_some(believed)
    }

    /// The names, as [`Believed::parse`] reads them.
    #[must_use]
    pub fn names(mut self) -> Vec<&'static str> {
        self.members().into_iter().filter(|(_, is)| **is).map(|(name, _)| name).collect()
    }
}

/// Somebody on the way of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// An address, and the port if it is known.
    Ip(IpAddr, Option<u16>),
    /// One that a proxy keeps to itself: `unknown`, or a name that begins with an underscore (RFC 7239 §6.2, §6.3).
    Hidden(Box<str>),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Ip(address, _) => address.fmt(f),
            Node::Hidden(name) => f.write_str(name),
        }
    }
}

/// What proxies say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The client, then the trusted proxies that its request has come through, but for the last one. Empty if nothing
    /// is said.
    pub route: Vec<Node>,
    /// Whether the client speaks to them over TLS.
    pub secure: Option<bool>,
    /// Host and port that it asks for.
    pub host: Option<Vec<u8>>,
    /// What was taken off the path, decoded; begins with a slash and ends without.
    pub prefix: Option<String>,
}

impl Said {
    /// Reads what a request's head has of the fields that are believed.
    ///
    /// # Errors
    /// One of the `Forwarded…` members of [`Error`]: a value that decides cannot be read.
    pub fn of(head: &RequestHead, believed: Believed, trusted: &Networks) -> Result<Said, Error> {
        if believed.standard { standard(head, trusted) } else { older(head, believed, trusted) }
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Said::default()
    }

    /// The client, if it is named.
    #[must_use]
    pub fn client(&self) -> Option<&Node> {
        self.route.first()
    }

    /// Notes who has sent a request to whom was noted before; whether that one is trusted.
    fn came_from(&mut self, node: Node, trusted: &Networks) -> Result<bool, Error> {
        if self.route.len() >= MOST_PROXIES {
            return Err(Error::ForwardedTooOften);
        }
        let goes_on = matches!(node, Node::Ip(address, _) if trusted.contains(address));
        self.route.push(node);
        Ok(goes_on)
    }
}

/// The `X-Forwarded-*` fields, which have no specification.
fn older(head: &RequestHead, believed: Believed, trusted: &Networks) -> Result<Said, Error> {
    let mut said = Said::default();
    if believed.address {
        let lines: Vec<_> = head.field_values(b"x-forwarded-for").collect();
        for entry in lines.into_iter().rev().flat_map(entries_from_the_right) {
            let node = bare_node(entry).ok_or(Error::ForwardedFor)?;
            if !said.came_from(node, trusted)? {
                break;
            }
        }
        said.route.reverse();
    }
    let last = |is_believed: bool, name: &'static [u8]| -> Option<&[u8]> {
        let values = is_believed.then(|| head.field_values(name)).into_iter().flatten();
        values.last().and_then(|value| entries_from_the_right(value).next())
    };
    if let Some(proto) = last(believed.proto, b"x-forwarded-proto") {
        said.secure = Some(is_secure(proto)?);
    }
    if let Some(host) = last(believed.host, b"x-forwarded-host") {
        said.host = Some(host_of(host)?);
    }
    if let Some(port) = last(believed.port, b"x-forwarded-port") {
        let number: u16 = decimal(port).ok_or(Error::ForwardedPort)?;
        let name = without_port(said.host.as_deref().unwrap_or(head.host()));
        if !name.is_empty() {
            said.host = Some([name, b":", number.to_string().as_bytes()].concat());
        }
    }
    if let Some(prefix) = last(believed.prefix, b"x-forwarded-prefix") {
        said.prefix = Some(prefix_of(prefix).ok_or(Error::ForwardedPrefix)?);
    }
    Ok(said)
}

/// The members of a list, the last first, without those that are empty.
fn entries_from_the_right(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.rsplit(|&byte| byte == b',').map(trim).filter(|entry| !entry.is_empty())
}

/// An address as `X-Forwarded-For` has it: bare, in brackets, or with a port.
fn bare_node(entry: &[u8]) -> Option<Node> {
    let text = std::str::from_utf8(entry).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Node::Ip(address.to_canonical(), None));
    }
    if text.eq_ignore_ascii_case("unknown") {
        return Some(Node::Hidden("unknown".into()));
    }
    match node(text)? {
        // Obfuscated names are the other family's.
        Node::Hidden(_) => None,
        address => Some(address),
    }
}

/// `node = nodename [ ":" node-port ]` (RFC 7239 §6).
fn node(text: &str) -> Option<Node> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, behind) = rest.split_once(']')?;
            let port = if behind.is_empty() { None } else { Some(behind.strip_prefix(':')?) };
            let address: Ipv6Addr = name.parse().ok()?;
            (Node::Ip(IpAddr::V6(address).to_canonical(), None), port)
        }
        None => {
            let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
            let node = match name.strip_prefix('_') {
                Some(_) if is_obfuscated(name) => Node::Hidden(name.into()),
                None if name.eq_ignore_ascii_case("unknown") => Node::Hidden("unknown".into()),
                _ => Node::Ip(IpAddr::V4(name.parse::<Ipv4Addr>().ok()?), None),
            };
            (node, port)
        }
    };
    let Some(port) = port else { return Some(name) };
    let port = if is_obfuscated(port) { None } else { Some(decimal(port.as_bytes())?) };
    Some(match name {
        Node::Ip(address, _) => Node::Ip(address, port),
        hidden @ Node::Hidden(_) => hidden,
    })
}

/// `"_" 1*( ALPHA / DIGIT / "." / "_" / "-" )`
fn is_obfuscated(text: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_name))
}

/// `1*5DIGIT`, kept to the ports that exist.
fn decimal(digits: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(digits).ok()?;
    let is_number = digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit);
    text.parse().ok().filter(|_| is_number)
}

/// Some proxies name a WebSocket's scheme.
fn is_secure(proto: &[u8]) -> Result<bool, Error> {
    match proto.to_ascii_lowercase().as_slice() {
        b"https" | b"wss" => Ok(true),
        b"http" | b"ws" => Ok(false),
        _ => Err(Error::ForwardedProto),
    }
}

fn host_of(host: &[u8]) -> Result<Vec<u8>, Error> {
    if host_is_valid(host) { Ok(host.to_vec()) } else { Err(Error::ForwardedHost) }
}

/// A host without its port. The colons of an IPv6 address are in brackets.
fn without_port(host: &[u8]) -> &[u8] {
    let colon = host.iter().rposition(|&byte| byte == b':');
    let colon = colon.filter(|&at| !host.get(at..).unwrap_or_default().contains(&b']'));
    host.get(..colon.unwrap_or(host.len())).unwrap_or_default()
}

/// A path that begins with one slash, and is nothing that a browser takes for a host.
fn prefix_of(prefix: &[u8]) -> Option<String> {
    let trimmed = prefix.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
    let path = prefix.get(..trimmed).unwrap_or_default();
    let is_plain =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\' | b'"' | b'<' | b'>');
    if !prefix.starts_with(b"/") || !path.iter().all(|&byte| is_plain(byte)) {
        return None;
    }
    let decoded = String::from_utf8(percent_decode(path).into_owned()).ok()?;
    let is_clean =
        !decoded.starts_with("//") && !decoded.chars().any(|char| char.is_control() || char == '\\');
    is_clean.then_some(decoded)
}

/// One element of `Forwarded`: what one proxy says.
#[derive(Default)]
struct Element<'a> {
    node: Option<Cow<'a, [u8]>>,
    by: Option<Cow<'a, [u8]>>,
    host: Option<Cow<'a, [u8]>>,
    proto: Option<Cow<'a, [u8]>>,
}

/// `Forwarded = 1#forwarded-element`; every line has to be well-formed by itself, so that what a client sends cannot
/// swallow what a proxy adds.
fn standard(head: &RequestHead, trusted: &Networks) -> Result<Said, Error> {
    let mut elements = Vec::new();
    for line in head.field_values(b"forwarded") {
        read_line(line, &mut elements)?;
    }
    let mut said = Said::default();
    // What counts is said by the outermost proxy that is trusted: the one that the walk ends at.
    let mut outermost = None;
    for element in elements.iter().rev() {
        outermost = Some(element);
        let Some(text) = &element.node else { break };
        let node = std::str::from_utf8(text).ok().and_then(node).ok_or(Error::ForwardedFor)?;
        if !said.came_from(node, trusted)? {
            break;
        }
    }
    said.route.reverse();
    if let Some(element) = outermost {
        said.secure = element.proto.as_deref().map(is_secure).transpose()?;
        said.host = element.host.as_deref().map(host_of).transpose()?;
    }
    Ok(said)
}

/// `forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )`, with white space around semicolons, as other
/// parameters may have it (RFC 9110 §5.6.6).
fn read_line<'a>(line: &'a [u8], elements: &mut Vec<Element<'a>>) -> Result<(), Error> {
    let mut rest = trim(line);
    let mut element = Element::default();
    let mut said_something = false;
    loop {
        rest = trim(rest);
        if rest.first().is_some_and(|&byte| is_token_byte(byte)) {
            let (name, value, behind) = pair(rest).ok_or(Error::ForwardedSyntax)?;
            rest = trim(behind);
            said_something = true;
            let place = match name.to_ascii_lowercase().as_slice() {
                b"for" => Some(&mut element.node),
                b"by" => Some(&mut element.by),
                b"host" => Some(&mut element.host),
                b"proto" => Some(&mut element.proto),
                _ => None,
            };
            if let Some(place) = place
                && place.replace(value).is_some()
            {
                return Err(Error::ForwardedSyntax);
            }
        }
        match rest.split_first() {
            Some((b';', behind)) => rest = behind,
            Some((b',', _)) | None => {
                if std::mem::take(&mut said_something) {
                    if elements.len() >= MOST_PROXIES {
                        return Err(Error::ForwardedTooOften);
                    }
                    elements.push(std::mem::take(&mut element));
                }
                match rest.split_first() {
                    Some((_, behind)) => rest = behind,
                    None => return Ok(()),
                }
            }
            Some(_) => return Err(Error::ForwardedSyntax),
        }
    }
}

/// Name and value of a parameter, and what is behind it.
type Pair<'a> = (&'a [u8], Cow<'a, [u8]>, &'a [u8]);

/// `forwarded-pair = token "=" ( token / quoted-string )`
fn pair(bytes: &[u8]) -> Option<Pair<'_>> {
    let (name, rest) = token(bytes)?;
    let rest = rest.strip_prefix(b"=")?;
    let Some(quoted) = rest.strip_prefix(b"\"") else {
        let (value, rest) = token(rest)?;
        return Some((name, Cow::Borrowed(value), rest));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter();
    loop {
        match *bytes.next()? {
            b'"' => return Some((name, Cow::Owned(value), bytes.as_slice())),
            b'\\' => value.push(*bytes.next()?),
            byte => value.push(byte),
        }
    }
}

fn token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = bytes.iter().take_while(|&&byte| is_token_byte(byte)).count();
    bytes.split_at_checked(length).filter(|_| length > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    fn head(fields: &str) -> RequestHead {
        let mut head = RequestHead::new();
        let text = format!("GET / HTTP/1.1\r\nHost: inner.test:8000\r\n{fields}\r\n");
        assert!(head.parse(text.as_bytes(), &Limits::default()).unwrap().is_some());
        head
    }

    fn said(names: &[&str], fields: &str) -> Result<Said, Error> {
        let trusted = Networks::parse(["10.0.0.0/8", "2001:db8::/32"]).unwrap();
        Said::of(&head(fields), Believed::parse(names.iter().copied()).unwrap(), &trusted)
    }

    fn route(said: &Said) -> Vec<String> {
        said.route.iter().map(ToString::to_string).collect()
    }

    const FOR: &[&str] = &["x-forwarded-for"];
    const ALL: &[&str] = &[
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
    ];
    const STANDARD: &[&str] = &["forwarded"];

    #[test]
    fn the_walk_goes_from_the_right_past_trusted_addresses_and_no_further() {
        for (value, expected) in [
            ("192.0.2.1", &["192.0.2.1"][..]),
            ("192.0.2.9, 192.0.2.1", &["192.0.2.1"]),
            ("evil, \"<script>\", 192.0.2.1", &["192.0.2.1"]),
            ("192.0.2.1, 10.0.0.1", &["192.0.2.1", "10.0.0.1"]),
            ("192.0.2.9,192.0.2.1,10.0.0.1,10.0.0.2", &["192.0.2.1", "10.0.0.1", "10.0.0.2"]),
            ("10.0.0.7, 10.0.0.1", &["10.0.0.7", "10.0.0.1"]),
            ("10.0.0.9, 192.0.2.1", &["192.0.2.1"]),
            ("192.0.2.1, ::ffff:10.0.0.1", &["192.0.2.1", "10.0.0.1"]),
            ("192.0.2.1, [2001:db8::1]:80", &["192.0.2.1", "2001:db8::1"]),
            ("192.0.2.1:4711", &["192.0.2.1"]),
            ("[2001:dead::1]", &["2001:dead::1"]),
            ("2001:dead::1, 2001:db8::1", &["2001:dead::1", "2001:db8::1"]),
            ("192.0.2.1, unknown", &["unknown"]),
            ("192.0.2.1, Unknown, 10.0.0.1", &["unknown", "10.0.0.1"]),
            ("192.0.2.1,, ,", &["192.0.2.1"]),
            (",", &[]),
            ("", &[]),
        ] {
            let said = said(FOR, &format!("X-Forwarded-For: {value}\r\n")).unwrap();
            assert_eq!(route(&said), expected, "{value}");
        }
        let lines =
            "X-Forwarded-For: 192.0.2.9\r\nx-forwarded-for: 192.0.2.1\r\nX-FORWARDED-FOR: 10.0.0.1\r\n";
        assert_eq!(route(&said(FOR, lines).unwrap()), ["192.0.2.1", "10.0.0.1"]);
        assert_eq!(
            said(FOR, "X-Forwarded-For: 192.0.2.1:4711\r\n").unwrap().client(),
            Some(&Node::Ip("192.0.2.1".parse().unwrap(), Some(4711)))
        );
    }

    #[test]
    fn an_entry_that_decides_and_is_no_address_is_refused() {
        for value in [
            "x",
            "192.0.2.1, x",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:65536",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[192.0.2.1]",
            "::1:80:",
            "fe80::1%eth0",
            "_hidden",
            "\"192.0.2.1\"",
            "192.0.2.1 10.0.0.1",
            "\u{661}.2.3.4",
        ] {
            assert_eq!(
                said(FOR, &format!("X-Forwarded-For: {value}\r\n")),
                Err(Error::ForwardedFor),
                "{value}"
            );
        }
        let many = vec!["10.0.0.1"; MOST_PROXIES + 1].join(",");
        assert_eq!(said(FOR, &format!("X-Forwarded-For: {many}\r\n")), Err(Error::ForwardedTooOften));
        let junk = format!("{},192.0.2.1", ",x".repeat(5000));
        assert_eq!(route(&said(FOR, &format!("X-Forwarded-For: {junk}\r\n")).unwrap()), ["192.0.2.1"]);
    }

    #[test]
    fn the_last_value_of_the_others_counts() {
        let fields = "X-Forwarded-Proto: http, https\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Host: a.test:81\r\n\
                      X-Forwarded-Port: 1, 8443\r\nX-Forwarded-Prefix: //evil.test, /a%20b/\r\n";
        let all = said(ALL, fields).unwrap();
        assert_eq!(all.secure, Some(true));
        assert_eq!(all.host.as_deref(), Some(b"a.test:8443".as_slice()));
        assert_eq!(all.prefix.as_deref(), Some("/a b"));
        assert_eq!(said(FOR, fields).unwrap(), Said::default());
        assert_eq!(said(STANDARD, fields).unwrap(), Said::default());
        let port = said(&["x-forwarded-port"], "X-Forwarded-Port: 81\r\n").unwrap();
        assert_eq!(port.host.as_deref(), Some(b"inner.test:81".as_slice()));
        let six = said(ALL, "X-Forwarded-Host: [::1]\r\nX-Forwarded-Port: 81\r\n").unwrap();
        assert_eq!(six.host.as_deref(), Some(b"[::1]:81".as_slice()));
        assert_eq!(said(ALL, "X-Forwarded-Prefix: /\r\n").unwrap().prefix.as_deref(), Some(""));
        assert_eq!(said(ALL, "X-Forwarded-Proto: WSS\r\n").unwrap().secure, Some(true));
    }

    #[test]
    fn others_that_cannot_be_read_are_refused() {
        for (field, error) in [
            ("Proto: ftp", Error::ForwardedProto),
            ("Proto: https https", Error::ForwardedProto),
            ("Host: a b", Error::ForwardedHost),
            ("Host: a/b", Error::ForwardedHost),
            ("Host: a@b", Error::ForwardedHost),
            ("Host: a:99999", Error::ForwardedHost),
            ("Port: 99999", Error::ForwardedPort),
            ("Port: +80", Error::ForwardedPort),
            ("Prefix: a", Error::ForwardedPrefix),
            ("Prefix: //evil.test", Error::ForwardedPrefix),
            ("Prefix: /%2fevil.test", Error::ForwardedPrefix),
            ("Prefix: /\\evil.test", Error::ForwardedPrefix),
            ("Prefix: /%5Cevil.test", Error::ForwardedPrefix),
            ("Prefix: /a?b", Error::ForwardedPrefix),
            ("Prefix: /a%0d%0ab", Error::ForwardedPrefix),
            ("Prefix: /a%ff", Error::ForwardedPrefix),
        ] {
            assert_eq!(said(ALL, &format!("X-Forwarded-{field}\r\n")), Err(error), "{field}");
        }
    }

    #[test]
    fn elements_of_the_standard_field_are_read() {
        for (value, expected, secure, host) in [
            ("for=192.0.2.1", &["192.0.2.1"][..], None, None),
            ("For=192.0.2.1;Proto=https;by=10.0.0.1;HOST=a.test", &["192.0.2.1"], Some(true), Some("a.test")),
            ("for=\"192.0.2.1:47011\"", &["192.0.2.1"], None, None),
            ("for=\"[2001:dead::17]:4711\"", &["2001:dead::17"], None, None),
            (
                "for=\"[2001:dead::17]\"; proto=http ;host=\"a.test:81\"",
                &["2001:dead::17"],
                Some(false),
                Some("a.test:81"),
            ),
            ("for=\"192\\.0.2.1\"", &["192.0.2.1"], None, None),
            ("for=_gazonk", &["_gazonk"], None, None),
            ("for=\"_gazonk:_p0rt\"", &["_gazonk"], None, None),
            ("for=\"192.0.2.1:_p0rt\"", &["192.0.2.1"], None, None),
            ("for=UNKNOWN", &["unknown"], None, None),
            ("for=192.0.2.9;proto=https, for=192.0.2.1;proto=http", &["192.0.2.1"], Some(false), None),
            (
                "for=192.0.2.1;proto=https, for=10.0.0.1;proto=http",
                &["192.0.2.1", "10.0.0.1"],
                Some(true),
                None,
            ),
            ("for=192.0.2.1, for=_hidden, for=10.0.0.1", &["_hidden", "10.0.0.1"], None, None),
            ("for=x;proto=ftp, for=192.0.2.1", &["192.0.2.1"], None, None),
            ("proto=https", &[], Some(true), None),
            ("for=192.0.2.1, proto=https", &[], Some(true), None),
            ("secret=\"a, b; c\";;for=192.0.2.1;", &["192.0.2.1"], None, None),
            (",, for=192.0.2.1 ,,", &["192.0.2.1"], None, None),
            ("", &[], None, None),
        ] {
            let said = said(STANDARD, &format!("Forwarded: {value}\r\n")).unwrap();
            assert_eq!(route(&said), expected, "{value}");
            assert_eq!(
                (said.secure, said.host),
                (secure, host.map(|host| host.as_bytes().to_vec())),
                "{value}"
            );
        }
        let lines = "Forwarded: for=192.0.2.9\r\nForwarded: for=192.0.2.1\r\nForwarded: for=10.0.0.1\r\n";
        assert_eq!(route(&said(STANDARD, lines).unwrap()), ["192.0.2.1", "10.0.0.1"]);
    }

    #[test]
    fn malformed_elements_are_refused() {
        for value in [
            "for",
            "for=",
            "=a",
            "for=a b",
            "for=a,b",
            "for=a;b",
            "for =a",
            "for= a",
            "for=\"a",
            "for=\"a\\",
            "for=\"a\"b",
            "for=\"a\"\"b\"",
            "for=192.0.2.1:80",
            "for=[::1]",
            "for=192.0.2.1;for=192.0.2.2",
            "for=a;FOR=a",
            "a/b=c",
            // A quote that a client opens does not swallow what a proxy adds.
            "for=\", for=192.0.2.1",
            "for=\"x, for=\"[2001:dead::1]:4711\"",
            "for=\"x\\, for=\"[2001:dead::1]\"",
        ] {
            assert_eq!(
                said(STANDARD, &format!("Forwarded: {value}\r\n")),
                Err(Error::ForwardedSyntax),
                "{value}"
            );
        }
        for (value, error) in [
            ("for=x", Error::ForwardedFor),
            ("for=\"::1\"", Error::ForwardedFor),
            ("for=\"192.0.2.1:99999\"", Error::ForwardedFor),
            ("for=\"\"", Error::ForwardedFor),
            ("for=_", Error::ForwardedFor),
            ("for=192.0.2.1;proto=ftp", Error::ForwardedProto),
            ("for=192.0.2.1;host=\"a b\"", Error::ForwardedHost),
            (&vec!["for=a"; MOST_PROXIES + 1].join(","), Error::ForwardedTooOften),
        ] {
            assert_eq!(said(STANDARD, &format!("Forwarded: {value}\r\n")), Err(error), "{value}");
        }
        let split = "Forwarded: for=\"192.0.2.1\r\nForwarded: \"\r\n";
        assert_eq!(said(STANDARD, split), Err(Error::ForwardedSyntax));
    }

    #[test]
    fn the_families_are_not_mixed() {
        assert_eq!(Believed::parse(["forwarded", "x-forwarded-for"]), None);
        assert_eq!(Believed::parse(["x-real-ip"]), None);
        assert_eq!(Believed::parse([]), None);
        assert_eq!(Believed::parse(Believed::default().names()), Some(Believed::default()));
        assert_eq!(Believed::default().names(), ["x-forwarded-for", "x-forwarded-proto"]);
    }
}
