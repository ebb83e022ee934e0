//! What a match costs, with 20, 200 and 2,000 routes: `cargo run --release -p hipflask-router --example cost`.

#![allow(clippy::print_stdout, reason = "it prints its result")]

use std::hint::black_box;
use std::time::Instant;

use hipflask_router::{Conversion, Error, Outcome, Router, Rule, Variable};

fn main() -> Result<(), Error> {
    println!(
        "{:>7} {:>10} {:>10} {:>10} {:>10} {:>10}   ns per match",
        "routes", "static", "int", "two", "path", "none"
    );
    for routes in [20, 200, 2_000] {
        let router = Router::new(&rules(routes)?, true)?;
        let last = routes / 4 - 1;
        let costs = [
            format!("/page{last}/about"),
            format!("/user{last}/1234"),
            format!("/blog{last}/2026/a-title-of-some-length"),
            format!("/files{last}/css/site/main.css"),
            format!("/nowhere{last}/at/all"),
        ]
        .map(|path| cost(&router, &path));
        let [one, two, three, four, five] = costs;
        println!("{routes:>7} {one:>10.1} {two:>10.1} {three:>10.1} {four:>10.1} {five:>10.1}");
    }
    Ok(())
}

fn rules(count: usize) -> Result<Vec<Rule>, Error> {
    let text = |name| Variable::new(name, "[^/]{1,}", Conversion::Text);
    let number = |name| Variable::new(name, r"\d+", Conversion::integer()).with_weight(50.0);
    let path = |name| Variable::new(name, "[^/].*?", Conversion::Text).with_weight(200.0).with_slashes();
    let mut rules = Vec::with_capacity(count);
    for at in 0..count / 4 {
        rules.push(Rule::new("", &format!("/page{at}/about"), &[])?);
        rules.push(Rule::new("", &format!("/user{at}/<int:id>"), &[number("id")])?);
        rules.push(Rule::new(
            "",
            &format!("/blog{at}/<int:year>/<title>"),
            &[number("year"), text("title")],
        )?);
        rules.push(Rule::new("", &format!("/files{at}/<path:name>"), &[path("name")])?);
    }
    for rule in &mut rules {
        rule.methods = Some(["GET", "HEAD", "OPTIONS"].map(Into::into).to_vec());
    }
    Ok(rules)
}

/// The least of several rounds, in nanoseconds.
fn cost(router: &Router, path: &str) -> f64 {
    const TIMES: u32 = 100_000;
    let mut least = f64::MAX;
    for _ in 0..7 {
        let start = Instant::now();
        for _ in 0..TIMES {
            let outcome = router.matches(black_box(""), black_box(path), black_box("GET"), false);
            black_box(matches!(outcome, Outcome::Found(_)));
        }
        least = least.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES));
    }
    least
}
