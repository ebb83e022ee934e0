//! What is noted of a request while it is answered, for whoever wants to be told: the access log, metrics, and the
//! response itself. Nothing is noted if nobody does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hipflask_http::{RequestHead, TraceId, TraceParent, Version};

use crate::client::Trust;
use crate::config::Config;
use crate::exchange::{Answered, ConnInfo, Times};
use crate::history::RouteHistory;
use crate::metrics::{Gauge, Running};

/// In the place of a field's length: the request has no such field.
const ABSENT: u32 = u32::MAX;

/// One request that is being answered.
pub(crate) struct Record {
    /// Method, target and id, then each field that was asked for behind its length.
    text: Vec<u8>,
    method: u32,
    target: u32,
    id: u32,
    /// `None` if the head could not be read.
    version: Option<Version>,
    trace: Option<TraceId>,
    pub(crate) route: Option<Arc<RouteHistory>>,
    /// Whose request it is, where requests of one connection may be several clients'.
    conn: Option<Arc<ConnInfo>>,
    /// The rule, if only the application knew it.
    pub(crate) rule: Option<Box<str>>,
    pub(crate) status: u16,
    /// Bytes of the body that have come.
    pub(crate) received: u64,
    /// What the connection had sent before this response, and will have before its body.
    sent_before: u64,
    body_from: u64,
    since: Instant,
    /// The body has been collected: nothing is missing but a thread.
    ready: Option<Instant>,
    /// A thread has begun.
    begun: Option<Instant>,
    /// The view was called, with the interpreter.
    called: Option<Instant>,
    /// The response was made.
    made: Option<Instant>,
    /// Counts the request as running until it is told of, or lost.
    _running: Option<Running>,
}

impl Record {
    /// Of a request that has come.
    pub(crate) fn new(head: &RequestHead, config: &Config, now: Instant, sent_before: u64) -> Record {
        let mut record = Record::unread(now, sent_before);
        let (method, target, id) = (head.method(), head.target(), head.id().unwrap_or_default());
        record.version = Some(head.version());
        record._running = config.stats.as_ref().map(|stats| stats.open(Gauge::InFlight));
        record.id = id.len() as u32;
        if config.tell_answers {
            (record.method, record.target) = (method.len() as u32, target.len() as u32);
            record.text = [method, target, id.as_bytes()].concat();
            for name in &config.tell_fields {
                let value = head.field(name.as_bytes());
                let length = value.map_or(ABSENT, |value| value.len() as u32);
                record.text.extend_from_slice(&length.to_le_bytes());
                record.text.extend_from_slice(value.unwrap_or_default());
            }
            record.trace = TraceParent::of(head).map(|parent| parent.trace);
        } else {
            record.text = id.as_bytes().to_vec();
        }
        record
    }

    /// Of a request whose head could not be read.
    pub(crate) fn unread(now: Instant, sent_before: u64) -> Record {
        Record {
            text: Vec::new(),
            method: 0,
            target: 0,
            id: 0,
            version: None,
            trace: None,
            route: None,
            conn: None,
            rule: None,
            status: 0,
            received: 0,
            sent_before,
            body_from: sent_before,
            since: now,
            ready: None,
            begun: None,
            called: None,
            made: None,
            _running: None,
        }
    }

    /// Notes whose request it is.
    pub(crate) fn comes_from(&mut self, conn: &Arc<ConnInfo>) {
        if conn.trust == Trust::Yes {
            self.conn = Some(Arc::clone(conn));
        }
    }

    /// A copy that notes how a view answers, while it is not known whether that is the answer.
    pub(crate) fn copy(&self) -> Record {
        Record {
            text: self.text.clone(),
            route: self.route.clone(),
            rule: self.rule.clone(),
            conn: self.conn.clone(),
            _running: None,
            ..*self
        }
    }

    /// It is the answer.
    pub(crate) fn become_copy(&mut self, copy: Record) {
        let running = self._running.take();
        *self = Record { _running: running, ..copy };
    }

    /// Notes that a view can be called as soon as there is a thread.
    pub(crate) fn is_ready(&mut self, now: Instant, received: u64) {
        self.ready = Some(now);
        self.received = received;
    }

    /// Notes that a thread has begun.
    pub(crate) fn begins(&mut self, now: Instant) {
        self.begun.get_or_insert(now);
    }

    /// Notes when the view was called.
    pub(crate) fn calls(&mut self, now: Instant) {
        self.begun.get_or_insert(now);
        self.called.get_or_insert(now);
    }

    /// Notes that the response is made: what comes now is writing.
    pub(crate) fn is_made(&mut self, now: Instant, status: u16, body_from: u64) {
        self.made = Some(now);
        self.status = status;
        self.body_from = body_from;
    }

    /// Whether a view was called.
    pub(crate) fn is_called(&self) -> bool {
        self.called.is_some()
    }

    /// The request's own name, if it has one.
    pub(crate) fn id(&self) -> Option<&str> {
        let at = (self.method + self.target) as usize;
        let id = self.text.get(at..at + self.id as usize).unwrap_or_default();
        if id.is_empty() { None } else { std::str::from_utf8(id).ok() }
    }

    /// How long each step took, with one that is not over going on until `now`.
    pub(crate) fn times(&self, now: Instant) -> Times {
        let between = |from: Option<Instant>, to: Instant| {
            from.map_or(Duration::ZERO, |from| to.saturating_duration_since(from))
        };
        let ready = self.ready.unwrap_or(self.since);
        let made = self.made.unwrap_or(now);
        Times {
            receive: between(Some(self.since), ready),
            queue: self.begun.map_or(Duration::ZERO, |begun| begun.saturating_duration_since(ready)),
            gil: between(self.begun, self.called.unwrap_or(made)),
            view: between(self.called, made),
            write: between(self.made, now),
            total: between(Some(self.since), now),
        }
    }

    /// Tells it: the connection has sent so many bytes, and this response ends, or would have ended, at `end`.
    pub(crate) fn tell(
        &self,
        conn: &ConnInfo,
        now: Instant,
        (sent, end): (u64, u64),
        tell: impl FnOnce(&Answered<'_>),
    ) {
        let reached = end.min(sent);
        let (method, rest) = self.text.split_at_checked(self.method as usize).unwrap_or_default();
        let (target, rest) = rest.split_at_checked(self.target as usize).unwrap_or_default();
        tell(&Answered {
            conn: self.conn.as_deref().unwrap_or(conn),
            method,
            target,
            version: self.version,
            route: self.rule.as_deref().or_else(|| self.route.as_ref().and_then(|route| route.name())),
            status: self.status,
            sent: reached.saturating_sub(self.sent_before),
            sent_body: reached.saturating_sub(self.body_from),
            received: self.received,
            complete: end <= sent,
            times: self.times(now),
            request_id: self.id(),
            trace_id: self.trace,
            fields: rest.get(self.id as usize..).unwrap_or_default(),
        });
    }

    /// What the connection had sent before this response.
    pub(crate) fn sent_before(&self) -> u64 {
        self.sent_before
    }
}

/// One of the fields that [`Record::new`] has kept.
pub(crate) fn kept(mut fields: &[u8], index: usize) -> Option<&[u8]> {
    for at in 0..=index {
        let (length, rest) = fields.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length);
        if length == ABSENT {
            if at == index {
                return None;
            }
            fields = rest;
            continue;
        }
        let (value, rest) = rest.split_at_checked(length as usize)?;
        if at == index {
            return Some(value);
        }
        fields = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Address;

    fn head(text: &str) -> Box<RequestHead> {
        let mut head = Box::new(RequestHead::new());
        head.parse(text.as_bytes(), &hipflask_http::Limits::default()).unwrap().unwrap();
        head
    }

    #[test]
    fn fields_are_kept_in_the_order_they_were_asked_for() {
        let names = ["b", "missing", "a", "empty"].map(str::to_owned).to_vec();
        let config = Config { tell_answers: true, tell_fields: names, ..Config::default() };
        let mut head = head("GET /x HTTP/1.1\r\nHost: h\r\nA: 1\r\nEmpty:\r\nB: two\r\nB: 3\r\n\r\n");
        head.identify("X-Request-ID", "name");
        let now = Instant::now();
        let record = Record::new(&head, &config, now, 10);
        let peer = Address::Unix(None);
        let conn = ConnInfo::new(peer.clone(), peer);
        let mut told = 0;
        record.tell(&conn, now, (110, 120), |answered| {
            let fields: Vec<_> = (0..5).map(|at| answered.field(at)).collect();
            assert_eq!(fields, [Some(&b"two"[..]), None, Some(b"1"), Some(b""), None]);
            assert_eq!((answered.method, answered.target), (&b"GET"[..], &b"/x"[..]));
            assert_eq!((answered.request_id, answered.sent, answered.complete), (Some("name"), 100, false));
            told += 1;
        });
        assert_eq!(told, 1);
    }

    #[test]
    fn steps_that_never_came_took_no_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut record = Record::unread(start, 0);
        assert_eq!(record.times(at(5)).total, Duration::from_millis(5));
        record.is_ready(at(1), 3);
        record.begins(at(3));
        record.calls(at(7));
        let steps = |times: Times| {
            [times.receive, times.queue, times.gil, times.view, times.write, times.total]
                .map(|time| time.as_millis())
        };
        assert_eq!(steps(record.times(at(10))), [1, 2, 4, 3, 0, 10]);
        record.is_made(at(15), 200, 0);
        assert_eq!(steps(record.times(at(31))), [1, 2, 4, 8, 16, 31]);
        let mut own = Record::unread(start, 0);
        own.is_made(at(1), 404, 0);
        assert_eq!(steps(own.times(at(3))), [0, 0, 0, 0, 2, 3]);
    }
}
