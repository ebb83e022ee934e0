//! A bounded buffer of lines, and the thread that writes them: whoever has a line never waits for its place.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::place::{Opened, Place};
use crate::locked;

/// With so much in the buffer the writer does not wait for more.
const SOON: usize = 64 * 1024;
/// How often what was dropped is told of.
const TELL: Duration = Duration::from_secs(10);
/// How long the end waits for a place that takes nothing.
const END: Duration = Duration::from_secs(1);

/// How lines are written.
#[derive(Clone, Debug)]
pub struct WriterConfig {
    /// Where they go.
    pub place: Place,
    /// Bytes that wait, at most; further lines are dropped. 4 MiB: 20,000 lines, a second of a busy server.
    pub most: usize,
    /// How long a line waits for others to be written with. 100 ms: ten system calls a second, and a reader notices no
    /// delay.
    pub delay: Duration,
}

impl WriterConfig {
    /// With the usual numbers.
    pub fn new(place: Place) -> WriterConfig {
        WriterConfig { place, most: 4 << 20, delay: Duration::from_millis(100) }
    }
}

/// Writes lines on a thread of its own.
pub struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// For the thread.
    wake: Condvar,
    /// For those who wait until all is written.
    done: Condvar,
    most: usize,
    /// Lines that were dropped so far.
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// The thread waits for the first line.
    sleeps: bool,
    /// The thread has lines in its hands.
    writes: bool,
    /// Somebody waits for the end of what is there.
    hurry: bool,
    reopen: bool,
    ending: bool,
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

impl Writer {
    /// Opens the place and starts the thread.
    ///
    /// # Errors
    ///
    /// The place cannot be opened, or the thread not be started.
    pub fn open(config: &WriterConfig, report: Box<dyn Fn(&str) + Send>) -> io::Result<Writer> {
        let opened = Opened::open(&config.place)?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            done: Condvar::new(),
            most: config.most,
            dropped: AtomicU64::new(0),
        });
        let work = Work { shared: Arc::clone(&shared), opened, delay: config.delay, report, told: None };
        thread::Builder::new().name("hipflask-log".to_owned()).spawn(move || work.run())?;
        Ok(Writer { shared })
    }

    /// Takes a line, with its end, unless too many wait. Does not block.
    pub fn put(&self, line: &[u8]) {
        let mut state = self.shared.lock();
        if state.lines.len() + line.len() > self.shared.most {
            drop(state);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let had = state.lines.len();
        state.lines.extend_from_slice(line);
        let is_much = had < SOON && state.lines.len() >= SOON;
        let wake = std::mem::take(&mut state.sleeps) || is_much;
        drop(state);
        if wake {
            self.shared.wake.notify_one();
        }
    }

    /// Opens a file anew, before the next line is written.
    pub fn reopen(&self) {
        self.shared.lock().reopen = true;
        self.shared.wake.notify_one();
    }

    /// Waits until all that was put is written, for at most so long; whether it is.
    pub fn flush(&self, most: Duration) -> bool {
        let deadline = Instant::now() + most;
        let mut state = self.shared.lock();
        while (!state.lines.is_empty() || state.writes || state.reopen) && !state.over {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state.hurry = true;
            self.shared.wake.notify_one();
            (state, _) = self.shared.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        state.lines.is_empty()
    }

    /// How many lines were dropped, since they came faster than they were taken or could not be written.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

/// The end waits a moment for what is left.
impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.flush(END);
        self.shared.wake.notify_one();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

/// What the thread has.
struct Work {
    shared: Arc<Shared>,
    opened: Opened,
    delay: Duration,
    report: Box<dyn Fn(&str) + Send>,
    /// When something was last told, and how many lines had been dropped until then.
    told: Option<(Instant, u64)>,
}

impl Work {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut lines = Vec::new();
        loop {
            let mut state = shared.lock();
            while state.lines.is_empty() && !state.reopen && !state.ending {
                state.sleeps = true;
                state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.sleeps = false;
            let waits = |state: &mut State| {
                state.lines.len() < SOON && !state.hurry && !state.ending && !state.reopen
            };
            if waits(&mut state) {
                (state, _) = shared
                    .wake
                    .wait_timeout_while(state, self.delay, waits)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut lines, &mut state.lines);
            let reopen = std::mem::take(&mut state.reopen);
            state.writes = true;
            state.hurry = false;
            let ending = state.ending;
            drop(state);
            self.write(&lines, reopen);
            if lines.capacity() > 4 * SOON {
                lines = Vec::new();
            }
            lines.clear();
            let mut state = shared.lock();
            state.writes = false;
            let over = ending && state.lines.is_empty();
            state.over = over;
            drop(state);
            shared.done.notify_all();
            if over {
                return;
            }
        }
    }

    fn write(&mut self, lines: &[u8], reopen: bool) {
        let mut trouble = None;
        if reopen && let Err(error) = self.opened.reopen() {
            trouble = Some(format!("the access log cannot be opened anew: {error}"));
        }
        let shared = &self.shared;
        if let Err((lost, error)) = self.opened.write(lines, &|| !shared.lock().ending) {
            shared.dropped.fetch_add(lost as u64, Ordering::Relaxed);
            trouble = Some(format!("the access log cannot be written: {error}"));
        }
        let dropped = shared.dropped.load(Ordering::Relaxed);
        let before = self.told.map_or(0, |(_, before)| before);
        let is_due = self.told.is_none_or(|(at, _)| at.elapsed() >= TELL) || shared.lock().ending;
        if (dropped > before || trouble.is_some()) && is_due {
            self.told = Some((Instant::now(), dropped));
            let lost = match dropped - before {
                0 => String::new(),
                lost => format!("{lost} lines of the access log were lost"),
            };
            let why = trouble.unwrap_or_else(|| "they came faster than they were taken".to_owned());
            let what = [lost, why].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
            (self.report)(&what.join(": "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixDatagram;

    fn writer(place: Place, most: usize) -> (Writer, Arc<Mutex<Vec<String>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let report = Arc::clone(&told);
        let config = WriterConfig { most, delay: Duration::from_millis(1), ..WriterConfig::new(place) };
        let report = Box::new(move |text: &str| report.lock().unwrap().push(text.to_owned()));
        (Writer::open(&config, report).unwrap(), told)
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("hipflask-log-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn read(path: &std::path::Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_file_is_appended_to_and_opened_anew() {
        let (path, moved) = (scratch("file"), scratch("moved"));
        std::fs::write(&path, "before\n").unwrap();
        let (writer, told) = writer(Place::File(path.clone()), 1000);
        writer.put(b"one\n");
        assert!(writer.flush(LONG));
        assert_eq!(read(&path), "before\none\n");
        std::fs::rename(&path, &moved).unwrap();
        writer.reopen();
        writer.put(b"two\n");
        assert!(writer.flush(LONG));
        assert_eq!((read(&moved).as_str(), read(&path).as_str()), ("before\none\n", "two\n"));
        drop(writer);
        assert!(told.lock().unwrap().is_empty());
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(moved).unwrap();
    }

    #[test]
    fn a_file_that_was_moved_away_is_noticed() {
        let (path, moved) = (scratch("noticed"), scratch("away"));
        let (writer, _) = writer(Place::File(path.clone()), 1 << 20);
        writer.put(b"one\n");
        assert!(writer.flush(LONG));
        std::fs::rename(&path, &moved).unwrap();
        let end = Instant::now() + LONG;
        while !path.exists() {
            assert!(Instant::now() < end, "it was not noticed");
            writer.put(b"more\n");
            assert!(writer.flush(LONG));
            thread::sleep(Duration::from_millis(20));
        }
        drop(writer);
        assert!(read(&moved).starts_with("one\n"));
        assert!(read(&path).starts_with("more\n"));
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(moved).unwrap();
    }

    #[test]
    fn what_is_put_is_written_before_the_end() {
        let path = scratch("end");
        let config = WriterConfig { delay: LONG, ..WriterConfig::new(Place::File(path.clone())) };
        let writer = Writer::open(&config, Box::new(|_| {})).unwrap();
        writer.put(b"last words\n");
        drop(writer);
        assert_eq!(read(&path), "last words\n");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_at_once() {
        let config = WriterConfig::new(Place::File("/nowhere/at/all.log".into()));
        let error = Writer::open(&config, Box::new(|_| {})).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_place_that_takes_nothing_costs_lines_and_not_time() {
        let path = scratch("stuck");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let (writer, told) = writer(Place::Syslog(path.clone()), 1000);
        let mut count = 0_usize;
        // As many as the socket's own queue takes, then those of the buffer, then none.
        while writer.dropped() == 0 {
            writer.put(b"a line of the log\n");
            count += 1;
            assert!(count < 10_000_000, "nothing was ever dropped");
        }
        let mut message = [0; 1000];
        daemon.set_read_timeout(Some(LONG)).unwrap();
        let length = daemon.recv(&mut message).unwrap();
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        assert!(text.starts_with("<30>1 2") && text.ends_with(" - - a line of the log"), "{text}");
        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        drop(writer);
        let told = told.lock().unwrap();
        assert!(told.iter().any(|line| line.contains("lines of the access log were lost")), "{told:?}");
    }

    #[test]
    fn syslog_that_was_started_again_is_found() {
        let path = scratch("again");
        let mut daemon = UnixDatagram::bind(&path).unwrap();
        let (writer, _) = writer(Place::Syslog(path.clone()), 1000);
        for name in ["one", "two"] {
            if name == "two" {
                std::fs::remove_file(&path).unwrap();
                daemon = UnixDatagram::bind(&path).unwrap();
            }
            writer.put(format!("{name}\n").as_bytes());
            daemon.set_read_timeout(Some(LONG)).unwrap();
            let mut message = [0; 1000];
            let length = daemon.recv(&mut message).unwrap();
            assert!(message[..length].ends_with(name.as_bytes()));
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn syslog_is_told_by_udp_too() {
        let daemon = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        daemon.set_read_timeout(Some(LONG)).unwrap();
        let (writer, _) = writer(Place::SyslogUdp(daemon.local_addr().unwrap().to_string()), 100_000);
        writer.put(&[b"x".repeat(20_000), b"\n".to_vec()].concat());
        writer.put(b"second\n");
        let mut message = [0; 60_000];
        let length = daemon.recv(&mut message).unwrap();
        assert_eq!(length, 8192, "a long one is cut");
        let length = daemon.recv(&mut message).unwrap();
        assert!(message[..length].ends_with(b" - - second"));
    }

    #[test]
    fn lines_of_several_writers_stay_whole_in_one_file() {
        let path = scratch("shared");
        let writers: Vec<_> = (0..3).map(|_| writer(Place::File(path.clone()), 1 << 20).0).collect();
        thread::scope(|scope| {
            for (at, writer) in writers.iter().enumerate() {
                scope.spawn(move || {
                    for count in 0..5000 {
                        writer.put(format!("{at} {count} {}\n", "x".repeat(count % 90)).as_bytes());
                    }
                });
            }
        });
        drop(writers);
        let mut text = String::new();
        std::fs::File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        let mut next = [0; 3];
        for line in text.lines() {
            let mut parts = line.split(' ');
            let at: usize = parts.next().unwrap().parse().unwrap();
            let count: usize = parts.next().unwrap().parse().unwrap();
            assert_eq!((count, parts.next().unwrap().len()), (next[at], count % 90));
            next[at] += 1;
        }
        assert_eq!(next, [5000; 3]);
        std::fs::remove_file(path).unwrap();
    }
}
