#![no_main]

#[path = "../http2.rs"]
mod http2;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    http2::head(data);
    http2::frames(data);
});
