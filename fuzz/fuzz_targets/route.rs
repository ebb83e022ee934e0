#![no_main]

#[path = "../route.rs"]
mod route;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    route::path(data);
    route::rule(data);
});
