//! Serves a directory: `cargo run --release --example files -- 8000 DIRECTORY` answers `/static/…`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use hipflask_http::RequestHead;
use hipflask_server::{
    Bind, Config, ConnInfo, FileOptions, Handler, Refusal, Reply, Request, Root, Routed, Server,
};

struct Files(Arc<Root>);

impl Handler for Files {
    type Ticket = ();
    type Thread = ();

    fn start_thread(&self) {}
    fn stop_thread(&self, (): ()) {}
    fn attach(&self, (): &mut ()) {}
    fn detach(&self, (): &mut ()) {}

    fn route(&self, head: &RequestHead, _: &ConnInfo) -> Routed<()> {
        let path = head.path();
        match path.strip_prefix(b"/static/").and_then(|path| self.0.find(path)) {
            Some(file) => Routed::File(file),
            None => Routed::Answer(Box::new(|reply| {
                reply.start(404, None);
                reply.body(b"no such file");
            })),
        }
    }

    fn call(&self, (): &mut (), _: Request<()>, _: &mut Reply<'_>) {}
    fn refused(&self, _: &Refusal, _: &ConnInfo) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().unwrap_or_else(|| "8000".to_owned());
    let directory = arguments.next().unwrap_or_else(|| ".".to_owned());
    let binds = vec![Bind::Tcp(format!("127.0.0.1:{port}").parse()?)];
    let root = Root::open(Path::new(&directory), FileOptions::default())?;
    Server::bind(Config { binds, ..Config::default() })?.run(Arc::new(Files(root)))?.wait();
    Ok(())
}
