//! A board in the text format of Prometheus (version 0.0.4), or as OpenMetrics 1.0.
//!
//! The two differ in the names of counters' families, and in the last line.

use std::fmt::Write as _;

use super::board::{BOUNDS, Board, Counter, Gauge, Histogram, Kind, Part, Process};

/// What the `Content-Type` field says.
pub fn content_type(open_metrics: bool) -> &'static str {
    if open_metrics {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    }
}

const COUNTERS: [(Counter, &str, &str); Counter::COUNT] = [
    (Counter::Accepted, "hipflask_connections_accepted", "Connections accepted."),
    (Counter::Handshakes, "hipflask_tls_handshakes", "TLS handshakes that came to a good end."),
    (Counter::HandshakeFailures, "hipflask_tls_handshake_failures", "TLS handshakes that did not."),
    (Counter::Http2, "hipflask_http2_connections", "Connections that speak HTTP/2."),
    (Counter::Requests, "hipflask_requests", "Requests whose head has come."),
    (Counter::Received, "hipflask_received_bytes", "Bytes received, before encryption."),
    (Counter::Sent, "hipflask_sent_bytes", "Bytes sent, before encryption."),
    (Counter::AcceptPauses, "hipflask_accept_pauses", "Times that accepting paused for lack of descriptors."),
    (Counter::Retaken, "hipflask_retakes", "Times that the reactor was taken from a view that blocked."),
    (Counter::Outlets, "hipflask_streams_begun", "Event streams and WebSockets that have begun."),
];

const GAUGES: [(Gauge, &str, &str); Gauge::COUNT] = [
    (Gauge::Connections, "hipflask_connections", "Open connections."),
    (Gauge::Http2Streams, "hipflask_http2_streams", "Requests of HTTP/2 connections that have a place."),
    (Gauge::InFlight, "hipflask_requests_in_flight", "Requests whose response is not out."),
    (Gauge::Queue, "hipflask_queue_length", "Requests that wait for a thread."),
    (Gauge::QueueMost, "hipflask_queue_limit", "Requests that may wait for a thread."),
    (Gauge::Threads, "hipflask_threads", "Threads that serve."),
    (Gauge::Busy, "hipflask_threads_busy", "Threads inside views."),
    (Gauge::ThreadsMost, "hipflask_threads_limit", "Views that may run at the same time."),
    (Gauge::Stuck, "hipflask_threads_stuck", "Threads in views whose requests were answered by deadlines."),
    (Gauge::StuckMost, "hipflask_threads_stuck_limit", "Of those, as many as others replace."),
    (Gauge::Streams, "hipflask_event_streams", "Open streams of events."),
    (Gauge::WebSockets, "hipflask_websockets", "Open WebSockets."),
];

impl Board {
    /// All that is counted.
    pub fn prometheus(&self, open_metrics: bool) -> String {
        let mut page = Page { text: String::with_capacity(16 * 1024), open_metrics };
        let processes = self.processes();
        page.info();
        page.family("process_start_time_seconds", "gauge", "When the server began, in seconds since 1970.");
        page.line("process_start_time_seconds", "", self.start_time());
        page.family("hipflask_ready", "gauge", "Whether requests are taken.");
        page.line("hipflask_ready", "", u8::from(self.is_ready()));
        page.family("hipflask_workers", "gauge", "Processes that serve.");
        page.line("hipflask_workers", "", processes.len());
        page.counter("hipflask_worker_restarts", "Workers that took the place of others.", self.restarts());
        page.family("hipflask_memory_bytes", "gauge", "Resident memory of the processes that serve.");
        page.line(
            "hipflask_memory_bytes",
            "",
            processes.iter().map(|process| resident(process.pid)).sum::<u64>(),
        );
        for (which, name, help) in GAUGES {
            page.family(name, "gauge", help);
            page.line(name, "", processes.iter().map(|process: &Process| process.gauge(which)).sum::<u64>());
        }
        for (which, name, help) in COUNTERS {
            page.counter(name, help, self.total(which));
        }
        let series = self.series();
        let name = "hipflask_refusals";
        page.family_of_counter(name, "Requests and connections that the server itself refused, by kind.");
        for (label, sum) in series.iter().filter(|(label, _)| label.kind == Kind::Refusal) {
            let labels = format!("kind=\"{}\",status=\"{}\"", escaped(&label.name), class(label.class));
            page.counter_line(name, &labels, sum.count());
        }
        let routes: Vec<_> = series.iter().filter(|(label, _)| label.kind == Kind::Route).collect();
        let name = "hipflask_responses";
        page.family_of_counter(name, "Responses, by the first digit of their status.");
        for digit in 1..=5 {
            let of_class = routes.iter().filter(|(label, _)| label.class == digit);
            let count = of_class.map(|(_, sum)| sum.count()).sum();
            page.counter_line(name, &format!("status=\"{}\"", class(digit)), count);
        }
        let name = "hipflask_request_duration_seconds";
        page.family(name, "histogram", "From a request's head to the last byte of its response, by rule.");
        for (label, sum) in routes {
            let labels = format!(
                "route=\"{}\",method=\"{}\",status=\"{}\"",
                escaped(&label.name),
                label.method,
                class(label.class)
            );
            page.histogram(name, &labels, sum);
        }
        let name = "hipflask_request_part_seconds";
        page.family(name, "histogram", "Parts of requests' times: queue, gil, view, write.");
        for (part, word) in Part::ALL {
            page.histogram(name, &format!("part=\"{word}\""), &self.part(part));
        }
        if open_metrics {
            page.text.push_str("# EOF\n");
        }
        page.text
    }
}

/// How a status class is written.
pub(super) fn class(digit: u8) -> &'static str {
    match digit {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "none",
    }
}

/// A label's value between its quotation marks.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Bytes of memory that a process holds; 0 where that cannot be told.
pub(super) fn resident(pid: u64) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm"));
    let pages = pages.ok().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * crate::sys::page_size()
}

struct Page {
    text: String,
    open_metrics: bool,
}

// Writing to a `String` cannot fail.
impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn family_of_counter(&mut self, name: &str, help: &str) {
        match self.open_metrics {
            true => self.family(name, "counter", help),
            false => self.family(&format!("{name}_total"), "counter", help),
        }
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = match labels {
            "" => writeln!(self.text, "{name} {value}"),
            labels => writeln!(self.text, "{name}{{{labels}}} {value}"),
        };
    }

    fn counter_line(&mut self, name: &str, labels: &str, value: u64) {
        self.line(&format!("{name}_total"), labels, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family_of_counter(name, help);
        self.counter_line(name, "", value);
    }

    fn info(&mut self) {
        let name = "hipflask_build_info";
        let (family, kind) = if self.open_metrics { ("hipflask_build", "info") } else { (name, "gauge") };
        self.family(family, kind, "The version of the server.");
        self.line(name, concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
    }

    fn histogram(&mut self, name: &str, labels: &str, sum: &Histogram) {
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        let mut count = 0;
        for (bound, bucket) in bounds.zip(sum.buckets) {
            count += bucket;
            let _ = writeln!(self.text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(self.text, "{name}_sum{{{labels}}} {:?}", sum.nanos as f64 / 1e9);
        let _ = writeln!(self.text, "{name}_count{{{labels}}} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
    }

    #[test]
    fn buckets_are_cumulative_and_the_count_is_the_last() {
        let board = Board::new(1).unwrap();
        for ms in [1, 2, 20_000] {
            let took = Duration::from_millis(ms);
            board.observe_series(board.region(0), Kind::Route, b"/x", b"GET", 2, took);
        }
        let text = board.prometheus(false);
        let labels = "route=\"/x\",method=\"GET\",status=\"2xx\"";
        let name = "hipflask_request_duration_seconds";
        for line in [
            format!("{name}_bucket{{{labels},le=\"0.0005\"}} 0"),
            format!("{name}_bucket{{{labels},le=\"0.001\"}} 1"),
            format!("{name}_bucket{{{labels},le=\"10.0\"}} 2"),
            format!("{name}_bucket{{{labels},le=\"+Inf\"}} 3"),
            format!("{name}_count{{{labels}}} 3"),
            format!("{name}_sum{{{labels}}} 20.003"),
            "hipflask_responses_total{status=\"2xx\"} 3".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("# EOF"));
        assert!(board.prometheus(true).ends_with("# EOF\n"));
    }
}
