//! Prints what each coding and level makes of a file, and the processor's time for it: `levels file...`, one line each of
//! name, coding, level, size before, size after, microseconds. The least time of several, to leave out what others did.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::time::{Duration, Instant};

use hipflask_http::Coding;
use hipflask_server::{Effort, compress};

/// Each is repeated for so long.
const LONG_ENOUGH: Duration = Duration::from_millis(60);

fn main() -> std::io::Result<()> {
    let levels: [(Coding, &[i32]); 3] = [
        (Coding::Gzip, &[1, 4, 6, 9]),
        (Coding::Zstd, &[1, 3, 6, 9, 12, 19]),
        (Coding::Brotli, &[1, 3, 4, 5, 6, 9, 11]),
    ];
    for path in std::env::args().skip(1) {
        let body = std::fs::read(&path)?;
        let name = path.rsplit('/').next().unwrap_or_default();
        for (coding, levels) in levels {
            for level in levels {
                let mut least = Duration::MAX;
                let mut size = 0;
                let began = Instant::now();
                while least == Duration::MAX || began.elapsed() < LONG_ENOUGH {
                    let start = Instant::now();
                    size = compress(coding, Effort::Level(*level), &body)?.len();
                    least = least.min(start.elapsed());
                }
                let micros = least.as_nanos() as f64 / 1e3;
                println!("{name} {} {level} {} {size} {micros:.1}", coding.token(), body.len());
            }
        }
    }
    Ok(())
}
