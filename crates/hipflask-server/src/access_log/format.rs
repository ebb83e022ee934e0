//! What a line of the log has in it.
//!
//! Implements: the directives of Apache's `mod_log_config` that make sense here, and `%{name}x` for what only this server
//! knows. A directive that does not exist is an error, since a log that lacks a column is found out months later.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

use hipflask_http::Version;

use super::escape::{json, quoted, readable};
use super::moment::Moment;
use crate::exchange::{Address, Answered};

const COMMON: &str = r#"%h %l %u %t "%r" %>s %b"#;
const COMBINED: &str = r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i""#;

/// A format, ready to write.
#[derive(Debug)]
pub(super) struct Format {
    shape: Shape,
    /// The request fields that it needs, in lower case.
    fields: Vec<String>,
}

#[derive(Debug)]
enum Shape {
    /// For people who develop.
    Short {
        coloured: bool,
    },
    Json,
    Items(Vec<Item>),
}

#[derive(Debug)]
enum Item {
    Text(Vec<u8>),
    Client,
    LocalAddress,
    LocalPort,
    Process,
    Time(Stamp),
    RequestLine,
    Method,
    Path,
    Query,
    Protocol,
    Status,
    /// Bytes of the body; whether none are a hyphen.
    Body(bool),
    Sent,
    Received,
    Aborted,
    Took(Unit),
    Field(usize),
    Id,
    Trace,
    Route,
    Scheme,
    Step(Step),
    Nothing,
}

#[derive(Clone, Copy, Debug)]
enum Stamp {
    Common,
    Iso,
    Unit(Unit),
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Receive,
    Queue,
    Gil,
    View,
    Write,
    Total,
}

/// What stands in for what there is not.
const NOTHING: &[u8] = b"-";

impl Format {
    /// Reads a format's name, or its directives.
    pub(super) fn parse(text: &str, coloured: bool) -> Result<Format, String> {
        let mut fields = Vec::new();
        let shape = match text {
            "short" => Shape::Short { coloured },
            "json" => {
                fields = ["referer", "user-agent"].map(str::to_owned).to_vec();
                Shape::Json
            }
            "common" => Shape::Items(items(COMMON, &mut fields)?),
            "combined" => Shape::Items(items(COMBINED, &mut fields)?),
            _ if !text.contains('%') => {
                return Err(format!(
                    "there is no format {text:?}: short, common, combined, json or directives such as %h"
                ));
            }
            _ => Shape::Items(items(text, &mut fields)?),
        };
        Ok(Format { shape, fields })
    }

    pub(super) fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Writes a line, without its end.
    pub(super) fn write(&self, answered: &Answered<'_>, out: &mut Vec<u8>) {
        let begun = Moment::ago(answered.times.total);
        match &self.shape {
            Shape::Short { coloured } => short(answered, *coloured, out),
            Shape::Json => object(answered, begun, out),
            Shape::Items(items) => items.iter().for_each(|item| item.write(answered, begun, out)),
        }
    }
}

/// Reads directives.
fn items(text: &str, fields: &mut Vec<String>) -> Result<Vec<Item>, String> {
    if text.chars().any(|character| character.is_control() && character != '\t') {
        return Err("the format has a control character in it".to_owned());
    }
    let mut items = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        push(&mut items, before);
        let mut after = after.trim_start_matches(['<', '>']);
        let mut name = None;
        if let Some(named) = after.strip_prefix('{') {
            let Some((inside, behind)) = named.split_once('}') else {
                return Err(format!("there is no '}}' behind '%{{{named}'"));
            };
            (name, after) = (Some(inside), behind);
        }
        let mut letters = after.chars();
        let letter = letters.next();
        rest = letters.as_str();
        match (letter, name) {
            (Some('%'), None) => push(&mut items, "%"),
            (Some(letter), name) => match item(letter, name, fields) {
                Some(item) => items.push(item),
                None => {
                    let braces = name.map(|name| format!("{{{name}}}")).unwrap_or_default();
                    return Err(format!("there is no directive '%{braces}{letter}'"));
                }
            },
            (None, _) => return Err("the format ends in the middle of a directive".to_owned()),
        }
    }
    push(&mut items, rest);
    Ok(items)
}

fn push(items: &mut Vec<Item>, text: &str) {
    match items.last_mut() {
        _ if text.is_empty() => {}
        Some(Item::Text(before)) => before.extend_from_slice(text.as_bytes()),
        _ => items.push(Item::Text(text.as_bytes().to_vec())),
    }
}

fn item(letter: char, name: Option<&str>, fields: &mut Vec<String>) -> Option<Item> {
    Some(match (letter, name) {
        ('h' | 'a', None) => Item::Client,
        ('A', None) => Item::LocalAddress,
        ('p', None) => Item::LocalPort,
        ('P', None) => Item::Process,
        // Nobody asks by RFC 1413 any more, and who a user is only the application knows.
        ('l' | 'u', None) => Item::Nothing,
        ('t', None) => Item::Time(Stamp::Common),
        ('t', Some("iso")) => Item::Time(Stamp::Iso),
        ('t', Some("sec")) => Item::Time(Stamp::Unit(Unit::Seconds)),
        ('t', Some("msec")) => Item::Time(Stamp::Unit(Unit::Milliseconds)),
        ('t', Some("usec")) => Item::Time(Stamp::Unit(Unit::Microseconds)),
        ('r', None) => Item::RequestLine,
        ('m', None) => Item::Method,
        ('U', None) => Item::Path,
        ('q', None) => Item::Query,
        ('H', None) => Item::Protocol,
        ('s', None) => Item::Status,
        ('b', None) => Item::Body(true),
        ('B', None) => Item::Body(false),
        ('O', None) => Item::Sent,
        ('X', None) => Item::Aborted,
        ('D', None) | ('T', Some("us")) => Item::Took(Unit::Microseconds),
        ('T', None | Some("s")) => Item::Took(Unit::Seconds),
        ('T', Some("ms")) => Item::Took(Unit::Milliseconds),
        ('v' | 'V', None) => Item::Field(field("host", fields)),
        ('i', Some(name)) if !name.is_empty() => Item::Field(field(name, fields)),
        ('x', Some("id")) => Item::Id,
        ('x', Some("trace")) => Item::Trace,
        ('x', Some("route")) => Item::Route,
        ('x', Some("scheme")) => Item::Scheme,
        ('x', Some("received")) => Item::Received,
        ('x', Some("receive")) => Item::Step(Step::Receive),
        ('x', Some("queue")) => Item::Step(Step::Queue),
        ('x', Some("gil")) => Item::Step(Step::Gil),
        ('x', Some("view")) => Item::Step(Step::View),
        ('x', Some("write")) => Item::Step(Step::Write),
        ('x', Some("total")) => Item::Step(Step::Total),
        _ => return None,
    })
}

/// Where a field will be found.
fn field(name: &str, fields: &mut Vec<String>) -> usize {
    let lower = name.to_ascii_lowercase();
    fields.iter().position(|known| *known == lower).unwrap_or_else(|| {
        fields.push(lower);
        fields.len() - 1
    })
}

impl Item {
    fn write(&self, answered: &Answered<'_>, begun: Moment, out: &mut Vec<u8>) {
        match self {
            Item::Text(text) => out.extend_from_slice(text),
            Item::Client => number(client(answered), out),
            Item::LocalAddress => address(&answered.conn.local, out),
            Item::LocalPort => match &answered.conn.local {
                Address::Tcp(local) => number(local.port(), out),
                Address::Unix(_) => out.extend_from_slice(NOTHING),
            },
            Item::Process => number(std::process::id(), out),
            Item::Time(Stamp::Common) => {
                out.push(b'[');
                begun.common(out);
                out.push(b']');
            }
            Item::Time(Stamp::Iso) => begun.iso(out),
            Item::Time(Stamp::Unit(unit)) => number(unit.of(begun.since_epoch()), out),
            Item::RequestLine => match answered.version {
                Some(version) => {
                    quoted(answered.method, out);
                    out.push(b' ');
                    quoted(answered.target, out);
                    out.push(b' ');
                    out.extend_from_slice(protocol(version).as_bytes());
                }
                None => out.extend_from_slice(NOTHING),
            },
            Item::Method => text_or_nothing(Some(answered.method), out),
            Item::Path => text_or_nothing(Some(parts(answered.target).0), out),
            Item::Query => quoted(parts(answered.target).1, out),
            Item::Protocol => {
                out.extend_from_slice(answered.version.map_or(NOTHING, |v| protocol(v).as_bytes()));
            }
            Item::Status => number(answered.status, out),
            Item::Body(true) if answered.sent_body == 0 => out.extend_from_slice(NOTHING),
            Item::Body(_) => number(answered.sent_body, out),
            Item::Sent => number(answered.sent, out),
            Item::Received => number(answered.received, out),
            Item::Aborted => out.push(if answered.complete { b'+' } else { b'X' }),
            Item::Took(unit) => number(unit.of(answered.times.total), out),
            Item::Field(index) => text_or_nothing(answered.field(*index), out),
            Item::Id => text_or_nothing(answered.request_id.map(str::as_bytes), out),
            Item::Trace => match answered.trace_id {
                Some(trace) => number(trace, out),
                None => out.extend_from_slice(NOTHING),
            },
            Item::Route => text_or_nothing(answered.route.map(str::as_bytes), out),
            Item::Scheme => out.extend_from_slice(scheme(answered).as_bytes()),
            Item::Step(step) => milliseconds(step.of(answered), out),
            Item::Nothing => out.extend_from_slice(NOTHING),
        }
    }
}

impl Unit {
    fn of(self, time: Duration) -> u128 {
        match self {
            Unit::Seconds => u128::from(time.as_secs()),
            Unit::Milliseconds => time.as_millis(),
            Unit::Microseconds => time.as_micros(),
        }
    }
}

impl Step {
    fn of(self, answered: &Answered<'_>) -> Duration {
        let times = &answered.times;
        match self {
            Step::Receive => times.receive,
            Step::Queue => times.queue,
            Step::Gil => times.gil,
            Step::View => times.view,
            Step::Write => times.write,
            Step::Total => times.total,
        }
    }
}

/// Who has asked.
fn client(answered: &Answered<'_>) -> String {
    answered.conn.client().name()
}

fn address(address: &Address, out: &mut Vec<u8>) {
    let text = match address {
        Address::Tcp(address) => address.ip().to_string(),
        unix @ Address::Unix(_) => unix.to_string(),
    };
    quoted(text.as_bytes(), out);
}

/// Anything that has no characters to be wary of.
fn number(value: impl Display, out: &mut Vec<u8>) {
    // A vector takes whatever is written.
    let _ = write!(out, "{value}");
}

fn text_or_nothing(text: Option<&[u8]>, out: &mut Vec<u8>) {
    match text {
        None | Some([]) => out.extend_from_slice(NOTHING),
        Some(text) => quoted(text, out),
    }
}

fn milliseconds(time: Duration, out: &mut Vec<u8>) {
    let micros = time.as_micros();
    let _ = write!(out, "{}.{:03}", micros / 1000, micros % 1000);
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2.0",
    }
}

fn scheme(answered: &Answered<'_>) -> &'static str {
    if answered.conn.is_secure() { "https" } else { "http" }
}

/// Path and query; the latter with its question mark.
fn parts(target: &[u8]) -> (&[u8], &[u8]) {
    let at = target.iter().position(|&byte| byte == b'?').unwrap_or(target.len());
    target.split_at(at)
}

fn short(answered: &Answered<'_>, coloured: bool, out: &mut Vec<u8>) {
    let (before, after) = match (coloured, answered.status) {
        (false, _) => ("", ""),
        (_, ..=299) => ("\x1b[32m", "\x1b[0m"),
        (_, ..=399) => ("\x1b[36m", "\x1b[0m"),
        (_, ..=499) => ("\x1b[33m", "\x1b[0m"),
        (_, _) => ("\x1b[1;31m", "\x1b[0m"),
    };
    out.push(b'[');
    Moment::ago(Duration::ZERO).clock(out);
    let _ = write!(out, "] {} ", client(answered));
    match answered.version {
        Some(_) => {
            readable(answered.method, out);
            out.push(b' ');
            readable(answered.target, out);
        }
        None => out.extend_from_slice(NOTHING),
    }
    let _ = write!(out, " {before}{}{after} ", answered.status);
    let micros = answered.times.total.as_micros() + 50;
    let _ = write!(out, "{}.{} ms", micros / 1000, micros % 1000 / 100);
    if !answered.complete {
        out.extend_from_slice(b" (cut off)");
    }
}

/// A line of JSON. What a request does not have is left out.
fn object(answered: &Answered<'_>, begun: Moment, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    begun.iso(out);
    out.extend_from_slice(b"\",\"client\":");
    json(client(answered).as_bytes(), out);
    let mut text = |name: &str, value: Option<&[u8]>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = write!(out, ",\"{name}\":");
            json(value, out);
        }
    };
    text("scheme", Some(scheme(answered).as_bytes()));
    text("method", Some(answered.method));
    text("target", Some(answered.target));
    text("protocol", answered.version.map(|version| protocol(version).as_bytes()));
    text("route", answered.route.map(str::as_bytes));
    text("referer", answered.field(0));
    text("user_agent", answered.field(1));
    text("request_id", answered.request_id.map(str::as_bytes));
    if let Some(trace) = answered.trace_id {
        let _ = write!(out, ",\"trace_id\":\"{trace}\"");
    }
    let Answered { status, sent, sent_body, received, complete, times, .. } = answered;
    let _ = write!(out, ",\"status\":{status},\"bytes\":{sent_body},\"sent\":{sent},\"received\":{received}");
    let _ = write!(out, ",\"complete\":{complete},\"pid\":{}", std::process::id());
    for (name, time) in [
        ("receive", times.receive),
        ("queue", times.queue),
        ("gil", times.gil),
        ("view", times.view),
        ("write", times.write),
        ("total", times.total),
    ] {
        let _ = write!(out, ",\"{name}_ms\":");
        milliseconds(time, out);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::exchange::ConnInfo;
    use crate::record::Record;
    use hipflask_http::{Limits, RequestHead};
    use std::time::Instant;

    const REQUEST: &str = "GET /a%20b?q=1 HTTP/1.1\r\nHost: example.org\r\nReferer: https://x.example/\r\n\
        User-Agent: test \"1\"\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";

    fn line(format: &str) -> String {
        let format = Format::parse(format, false).unwrap();
        let config =
            Config { tell_answers: true, tell_fields: format.fields().to_vec(), ..Config::default() };
        let mut head = RequestHead::new();
        head.parse(REQUEST.as_bytes(), &Limits::default()).unwrap().unwrap();
        head.identify("X-Request-ID", "name-1");
        let now = Instant::now();
        let mut record = Record::new(&head, &config, now, 1000);
        record.route = Some(std::sync::Arc::new(crate::RouteHistory::new(None).named("/<name>")));
        record.is_ready(now, 7);
        record.begins(now + Duration::from_micros(1500));
        record.calls(now + Duration::from_micros(1501));
        record.is_made(now + Duration::from_millis(31), 200, 1100);
        let peer = Address::Tcp("192.0.2.7:40000".parse().unwrap());
        let local = Address::Tcp("[2001:db8::1]:8443".parse().unwrap());
        let conn = ConnInfo { secure: true, ..ConnInfo::new(peer, local) };
        let mut out = Vec::new();
        record.tell(&conn, now + Duration::from_millis(1234), (1150, 1150), |answered| {
            format.write(answered, &mut out);
        });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_directive_writes_what_its_name_says() {
        for (directive, wanted) in [
            ("%h|%a|%l|%u", "192.0.2.7|192.0.2.7|-|-"),
            ("%A %p", "2001:db8::1 8443"),
            ("%r", "GET /a%20b?q=1 HTTP/1.1"),
            ("%m %U %q %H", "GET /a%20b ?q=1 HTTP/1.1"),
            ("%s %>s %<s", "200 200 200"),
            ("%b %B %O %{received}x", "50 50 150 7"),
            ("%D %T %{s}T %{ms}T %{us}T", "1234000 1 1 1234 1234000"),
            ("%{Referer}i %{referer}i", "https://x.example/ https://x.example/"),
            ("\"%{User-Agent}i\" %{X-None}i", "\"test \\\"1\\\"\" -"),
            ("%v %V", "example.org example.org"),
            ("%{id}x %{route}x %{scheme}x", "name-1 /<name> https"),
            ("%{trace}x", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ("%{receive}x %{queue}x %{gil}x", "0.000 1.500 0.001"),
            ("%{view}x %{write}x %{total}x", "29.499 1203.000 1234.000"),
            ("100%% %X\t.", "100% +\t."),
        ] {
            assert_eq!(line(directive), wanted, "{directive}");
        }
        assert_eq!(line("%P"), std::process::id().to_string());
        for directive in ["%{sec}t", "%{msec}t", "%{usec}t"] {
            assert!(line(directive).parse::<u64>().unwrap() > 1_700_000_000);
        }
    }

    #[test]
    fn named_formats_are_what_others_read() {
        let common = line("common");
        assert!(common.starts_with("192.0.2.7 - - ["), "{common}");
        assert!(common.ends_with("] \"GET /a%20b?q=1 HTTP/1.1\" 200 50"), "{common}");
        let combined = line("combined");
        assert!(combined.ends_with(" 200 50 \"https://x.example/\" \"test \\\"1\\\"\""), "{combined}");
        let short = line("short");
        assert!(short.ends_with("] 192.0.2.7 GET /a%20b?q=1 200 1234.0 ms"), "{short}");
        let json = line("json");
        for part in [
            "{\"time\":\"2",
            "\"client\":\"192.0.2.7\"",
            "\"user_agent\":\"test \\\"1\\\"\"",
            "\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"",
            "\"queue_ms\":1.500",
            "\"complete\":true",
        ] {
            assert!(json.contains(part), "{json}");
        }
    }

    #[test]
    fn what_does_not_exist_is_an_error_in_one_sentence() {
        for (format, why) in [
            (
                "apache",
                "there is no format \"apache\": short, common, combined, json or directives such as %h",
            ),
            ("%h %k", "there is no directive '%k'"),
            ("%{Set-Cookie}o", "there is no directive '%{Set-Cookie}o'"),
            ("%{nonsense}x", "there is no directive '%{nonsense}x'"),
            ("%{%H}t", "there is no directive '%{%H}t'"),
            ("%400{Referer}i", "there is no directive '%4'"),
            ("%{}i", "there is no directive '%{}i'"),
            ("%{Referer", "there is no '}' behind '%{Referer'"),
            ("%h %", "the format ends in the middle of a directive"),
            ("%{a}", "the format ends in the middle of a directive"),
            ("%h\n", "the format has a control character in it"),
        ] {
            assert_eq!(Format::parse(format, false).unwrap_err(), why);
        }
    }
}
