//! The whole server with a handler that does next to nothing: what the engine itself costs.
//!
//! `cargo run --release --example hello -- 8000`; see `raw.rs` for the ceiling.

use std::error::Error;
use std::sync::Arc;

use hipflask_http::RequestHead;
use hipflask_server::{
    Bind, Config, ConnInfo, Handler, Refusal, Reply, Request, RouteHistory, Routed, Server,
};

struct Hello(Arc<RouteHistory>);

impl Handler for Hello {
    type Ticket = ();
    type Thread = ();

    fn start_thread(&self) {}
    fn stop_thread(&self, (): ()) {}
    fn attach(&self, (): &mut ()) {}
    fn detach(&self, (): &mut ()) {}

    fn route(&self, _: &RequestHead, _: &ConnInfo) -> Routed<()> {
        Routed::Call { ticket: (), history: Arc::clone(&self.0), max_body: None }
    }

    fn call(&self, (): &mut (), _: Request<()>, reply: &mut Reply<'_>) {
        reply.start(200, None);
        if reply.field(b"Content-Type", b"text/html; charset=utf-8").is_ok() {
            reply.body(b"Hello, World!");
        }
    }

    fn refused(&self, _: &Refusal, _: &ConnInfo) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "8000".to_owned());
    let binds = vec![Bind::Tcp(format!("127.0.0.1:{port}").parse()?)];
    let bound = Server::bind(Config { binds, ..Config::default() })?;
    bound.run(Arc::new(Hello(Arc::new(RouteHistory::new(None)))))?.wait();
    Ok(())
}
