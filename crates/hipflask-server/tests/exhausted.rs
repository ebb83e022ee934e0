//! What happens when descriptors run out. Alone in its process, whose limit it lowers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::fs::File;
use std::time::{Duration, Instant};

use common::App;
use hipflask_server::{Config, Notice};

fn limit_descriptors(most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: `limit` is a valid rlimit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

#[test]
fn running_out_of_descriptors_does_not_close_the_port() {
    let live = App::default().route("/", Some(true), |view| view.text("here")).serve(Config::default());
    let mut client = live.client();
    assert_eq!(client.get("/").text(), "here");
    limit_descriptors(100);
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    // One for the client's end; the server's end finds none.
    taken.pop();
    let mut waiting = live.client();
    waiting.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let begin = Instant::now();
    while !live.app.notices.lock().unwrap().iter().any(|notice| matches!(notice, Notice::AcceptPaused(_))) {
        assert!(begin.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    assert_eq!(client.get("/").text(), "here", "open connections are served");
    taken.truncate(taken.len() - 5);
    assert_eq!(waiting.response().text(), "here");
    assert_eq!(live.get("/").text(), "here");
    let notices = live.app.notices.lock().unwrap();
    assert!(matches!(notices.as_slice(), [Notice::AcceptPaused(_), Notice::AcceptResumed]), "{notices:?}");
}
