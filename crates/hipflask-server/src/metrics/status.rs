//! A board as JSON, for `hipflask top` and for scripts.

use std::fmt::Write as _;

use super::board::{BOUNDS, Board, Counter, Gauge, Histogram, Kind, Part, Process};
use super::prometheus::{class, resident};

impl Board {
    /// All that is known, as one line of JSON. Times are in seconds, sizes in bytes.
    pub fn status(&self) -> String {
        let processes = self.processes();
        let mut text = String::with_capacity(8 * 1024);
        // Writing to a `String` cannot fail.
        let _ = write!(
            text,
            "{{\"version\":\"{}\",\"started\":{:.3},\"uptime\":{:.6},\"ready\":{},\"restarts\":{},\"bounds\":[{}],",
            env!("CARGO_PKG_VERSION"),
            self.start_time(),
            self.now() as f64 / 1e9,
            self.is_ready(),
            self.restarts(),
            BOUNDS.map(|(_, text)| text).join(","),
        );
        let counters = [
            ("accepted", Counter::Accepted),
            ("tls_handshakes", Counter::Handshakes),
            ("tls_failures", Counter::HandshakeFailures),
            ("http2_connections", Counter::Http2),
            ("requests", Counter::Requests),
            ("received", Counter::Received),
            ("sent", Counter::Sent),
            ("accept_pauses", Counter::AcceptPauses),
            ("retakes", Counter::Retaken),
            ("streams_begun", Counter::Outlets),
        ];
        let counters = counters.map(|(name, which)| format!("\"{name}\":{}", self.total(which)));
        let _ = write!(text, "\"counters\":{{{}}},", counters.join(","));
        let _ = write!(text, "\"workers\":[{}],", list(&processes, worker));
        let series = self.series();
        let refusals: Vec<_> = series.iter().filter(|(label, _)| label.kind == Kind::Refusal).collect();
        let refusals = list(&refusals, |(label, sum)| {
            let (kind, status) = (string(&label.name), class(label.class));
            format!("{{\"kind\":{kind},\"status\":\"{status}\",\"count\":{}}}", sum.count())
        });
        let _ = write!(text, "\"refusals\":[{refusals}],");
        let routes: Vec<_> = series.iter().filter(|(label, _)| label.kind == Kind::Route).collect();
        let routes = list(&routes, |(label, sum)| {
            let (route, status) = (string(&label.name), class(label.class));
            let method = label.method;
            format!(
                "{{\"route\":{route},\"method\":\"{method}\",\"status\":\"{status}\",{}}}",
                histogram(sum)
            )
        });
        let _ = write!(text, "\"routes\":[{routes}],");
        let parts = Part::ALL.map(|(part, word)| format!("\"{word}\":{{{}}}", histogram(&self.part(part))));
        let _ = write!(text, "\"parts\":{{{}}}}}", parts.join(","));
        text
    }
}

fn list<T>(items: &[T], write: impl Fn(&T) -> String) -> String {
    items.iter().map(write).collect::<Vec<_>>().join(",")
}

fn worker(process: &Process) -> String {
    let gauges = [
        ("connections", Gauge::Connections),
        ("http2_streams", Gauge::Http2Streams),
        ("in_flight", Gauge::InFlight),
        ("queue", Gauge::Queue),
        ("queue_limit", Gauge::QueueMost),
        ("threads", Gauge::Threads),
        ("busy", Gauge::Busy),
        ("threads_limit", Gauge::ThreadsMost),
        ("stuck", Gauge::Stuck),
        ("stuck_limit", Gauge::StuckMost),
        ("event_streams", Gauge::Streams),
        ("websockets", Gauge::WebSockets),
    ];
    let gauges = gauges.map(|(name, which)| format!("\"{name}\":{}", process.gauge(which)));
    let running = list(&process.running, |run| {
        let thread = run.thread.map_or_else(|| "null".to_owned(), |thread| thread.to_string());
        let seconds = run.since.as_secs_f64();
        format!("{{\"thread\":{thread},\"view\":{},\"seconds\":{seconds:.6}}}", string(&run.text))
    });
    let slow = list(&process.slow, |slow| {
        let [total, queue, gil, view, write] = slow.times.map(|nanos| nanos as f64 / 1e9);
        format!(
            "{{\"request\":{},\"status\":{},\"at\":{:.3},\"total\":{total:.6},\"queue\":{queue:.6},\"gil\":{gil:.6},\
             \"view\":{view:.6},\"write\":{write:.6}}}",
            string(&slow.text),
            slow.status,
            slow.at as f64 / 1e9,
        )
    });
    format!(
        "{{\"pid\":{},\"state\":\"{}\",\"started\":{},\"memory\":{},{},\"running\":[{running}],\"slow\":[{slow}]}}",
        process.pid,
        process.state.word(),
        process.began,
        resident(process.pid),
        gauges.join(","),
    )
}

fn histogram(sum: &Histogram) -> String {
    let buckets = sum.buckets.map(|count| count.to_string()).join(",");
    format!("\"count\":{},\"seconds\":{:.9},\"buckets\":[{buckets}]", sum.count(), sum.nanos as f64 / 1e9)
}

/// A text in quotation marks (RFC 8259 §7).
fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        assert_eq!(string("a\"b\\c\nd\u{7f}é"), "\"a\\\"b\\\\c\\u000ad\\u007fé\"");
    }

    #[test]
    fn an_empty_board_has_a_status() {
        let status = Board::new(1).unwrap().status();
        assert!(status.starts_with('{') && status.ends_with("]}}}"), "{status}");
        assert!(status.contains("\"workers\":[],\"refusals\":[],\"routes\":[]"), "{status}");
    }
}
