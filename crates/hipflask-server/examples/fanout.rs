//! What a quiet stream costs in memory, and an event for all of them in time.
//!
//! `cargo run --release --example fanout -- 5000`: opens so many streams to itself, and gives all of them 20 events.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hipflask_http::RequestHead;
use hipflask_server::{
    Address, Bind, Config, ConnInfo, Handler, Outlet, Piece, Refusal, Reply, Request, RouteHistory, Routed,
    Server,
};

const EVENTS: u32 = 20;

struct Streams {
    history: Arc<RouteHistory>,
    outlets: Mutex<Vec<Outlet>>,
}

impl Handler for Streams {
    type Ticket = ();
    type Thread = ();

    fn start_thread(&self) {}
    fn stop_thread(&self, (): ()) {}
    fn attach(&self, (): &mut ()) {}
    fn detach(&self, (): &mut ()) {}

    fn route(&self, _: &RequestHead, _: &ConnInfo) -> Routed<()> {
        Routed::Call { ticket: (), history: Arc::clone(&self.history), max_body: None }
    }

    fn call(&self, (): &mut (), _: Request<()>, reply: &mut Reply<'_>) {
        let outlet = reply.outlet(None);
        outlet.heartbeat(Duration::from_secs(15), Piece::new(b":\n\n"));
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner).push(outlet);
    }

    fn refused(&self, _: &Refusal, _: &ConnInfo) {}
}

/// Bytes of memory in use, without what files share.
fn resident() -> Result<usize, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}

/// Processor time of the process so far.
fn processor() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 =
        [11, 12].iter().filter_map(|at| fields.get(*at)).filter_map(|f| f.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

#[allow(clippy::print_stdout, reason = "its purpose")]
fn main() -> Result<(), Box<dyn Error>> {
    let count: u32 = std::env::args().nth(1).as_deref().unwrap_or("5000").parse()?;
    let binds = vec![Bind::Tcp("127.0.0.1:0".parse()?)];
    let bound = Server::bind(Config { binds, ..Config::default() })?;
    let Some(Address::Tcp(address)) = bound.local_addrs().first().cloned() else { return Ok(()) };
    let streams =
        Arc::new(Streams { history: Arc::new(RouteHistory::new(Some(true))), outlets: Mutex::default() });
    let _running = bound.run(Arc::clone(&streams))?;

    let before = resident()?;
    let mut clients = Vec::new();
    let mut piece = [0; 65_536];
    for _ in 0..count {
        let mut client = TcpStream::connect(address)?;
        client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let got = client.read(&mut piece)?;
        if !piece.get(..got).unwrap_or_default().ends_with(b"\r\n\r\n") {
            return Err("the head came in parts".into());
        }
        clients.push(client);
    }
    let per = (resident()? - before) / count as usize;

    let event = Piece::new(&[b'x'; 100]);
    let (begin, work) = (Instant::now(), processor()?);
    let mut giving = Duration::ZERO;
    for _ in 0..EVENTS {
        let since = Instant::now();
        for outlet in streams.outlets.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            outlet.send(event.clone())?;
        }
        giving += since.elapsed();
    }
    for outlet in streams.outlets.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        outlet.wait_below(0, Duration::from_secs(60))?;
    }
    let (took, work) = (begin.elapsed(), processor()? - work);
    let each = |time: Duration| time.as_nanos() / u128::from(count * EVENTS);
    println!("{count} quiet streams: {per} bytes each");
    println!(
        "an event to one of them: {} ns to give, {} ns until it is out, {} ns of processor time",
        each(giving),
        each(took),
        each(work)
    );
    Ok(())
}
