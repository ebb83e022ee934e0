//! The public face: bind, run, stop, wait.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Bind, Config};
use crate::engine::Engine;
use crate::exchange::Address;
use crate::handler::Handler;
use crate::reactor::{Listener, Reactor};
use crate::running::Busy;
use crate::sys::{self, Bell};

/// How long a wait for the end looks at a time.
const STEP: Duration = Duration::from_secs(1);

/// The way in.
#[derive(Debug)]
pub struct Server;

/// A server that listens but does not serve yet: clients can connect and wait.
pub struct Bound {
    config: Config,
    listeners: Vec<Listener>,
}

/// A server at work.
pub struct Running<H: Handler> {
    engine: Arc<Engine<H>>,
}

impl Server {
    /// Opens the listeners.
    ///
    /// # Errors
    ///
    /// An address is in use or not ours, or there is nothing to bind.
    pub fn bind(mut config: Config) -> io::Result<Bound> {
        if config.binds.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on"));
        }
        let is_value = |text: &String| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !config.hsts.as_ref().is_none_or(is_value) {
            let why = "the value for Strict-Transport-Security has bytes that no field may have";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let main = std::mem::take(&mut config.binds).into_iter().map(|bind| (bind, false));
        let redirects = std::mem::take(&mut config.redirect_binds).into_iter().map(|bind| (bind, true));
        let listeners = main
            .chain(redirects)
            .map(|(bind, redirects)| {
                let mut listener = listen(bind, &config)?;
                listener.redirects = redirects;
                Ok(listener)
            })
            .collect::<io::Result<Vec<_>>>()?;
        if let (None, Some(Address::Tcp(first))) =
            (config.redirect_port, listeners.first().map(|listener| &listener.local))
        {
            config.redirect_port = Some(first.port());
        }
        Ok(Bound { config, listeners })
    }
}

fn listen(bind: Bind, config: &Config) -> io::Result<Listener> {
    let backlog = i32::try_from(config.backlog).unwrap_or(i32::MAX);
    match bind {
        Bind::Tcp(at) => {
            let fd = sys::listen_tcp(at, backlog, config.reuse_port, config.only_v6)?;
            let local = Address::Tcp(sys::local_address(fd.as_raw_fd()).unwrap_or(at));
            Ok(Listener { fd, local, path: None, redirects: false })
        }
        Bind::Unix(path) => {
            let fd = listen_unix(&path, backlog)?;
            Ok(Listener { fd, local: Address::Unix(Some(path.clone())), path: Some(path), redirects: false })
        }
        Bind::Listener(fd) => {
            sys::adopt_listener(fd.as_fd())?;
            let number = fd.as_raw_fd();
            let local = sys::local_address(number)
                .map_or_else(|| Address::Unix(sys::local_path(number)), Address::Tcp);
            Ok(Listener { fd, local, path: None, redirects: false })
        }
    }
}

/// Binds a Unix socket; one that nobody listens on any more is replaced.
fn listen_unix(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    match sys::listen_unix(path, backlog) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            use std::os::unix::fs::FileTypeExt;
            let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            let dead = UnixStream::connect(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if !is_socket || !dead {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            sys::listen_unix(path, backlog)
        }
        result => result,
    }
}

impl Bound {
    /// The addresses listened on, in the order of [`Config::binds`], with the ports that the kernel chose.
    pub fn local_addrs(&self) -> Vec<Address> {
        self.listeners.iter().map(|listener| listener.local.clone()).collect()
    }

    /// Copies of the listening sockets, to be handed to another process.
    ///
    /// # Errors
    ///
    /// Descriptors ran out.
    pub fn listeners(&self) -> io::Result<Vec<OwnedFd>> {
        self.listeners.iter().map(|listener| listener.fd.try_clone()).collect()
    }

    /// Begins to serve.
    ///
    /// # Errors
    ///
    /// The poller or the watchdog's thread could not be made.
    pub fn run<H: Handler>(self, handler: Arc<H>) -> io::Result<Running<H>> {
        let bell = Bell::new()?;
        let reactor = Reactor::new(&self.config, self.listeners, &bell)?;
        Ok(Running { engine: Engine::start(handler, self.config, reactor, bell)? })
    }
}

impl<H: Handler> Running<H> {
    /// Stops: no new connections, running requests may finish within `grace` (`None`: as configured). A second call
    /// ends everything at once. From any thread; returns immediately.
    pub fn stop(&self, grace: Option<Duration>) {
        self.engine.stop(grace);
    }

    /// As [`Running::stop`], and leaves connections that are not accepted yet to the other processes that listen.
    pub fn hand_over(&self, grace: Option<Duration>) {
        self.engine.hand_over(grace);
    }

    /// Looks whether connections wait at listeners that other processes have too. The kernel wakes one process for each
    /// connection, and if that one dies before it accepts, nobody else is told of it.
    pub fn look(&self) {
        self.engine.look();
    }

    /// Waits for the end, which somebody must bring about by [`Running::stop`]. A view that does not come back after
    /// its time is not waited for; its thread ends with the process.
    pub fn wait(&self) {
        while !self.engine.wait(STEP) {}
    }

    /// The views that run at this moment, and have done so for longer than some milliseconds.
    pub fn busy(&self) -> Vec<Busy> {
        self.engine.busy()
    }

    /// Threads whose request has been answered by its deadline while their view goes on, and how many there may be.
    pub fn stuck_threads(&self) -> (usize, usize) {
        self.engine.stuck_threads()
    }

    /// Whether a serving thread lives, after [`Running::wait`] one whose view does not come back.
    pub fn has_threads(&self) -> bool {
        self.engine.has_threads()
    }

    /// As [`Running::wait`], for at most so long; whether it is over.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.engine.wait(timeout)
    }
}

impl<H: Handler> Clone for Running<H> {
    fn clone(&self) -> Running<H> {
        Running { engine: Arc::clone(&self.engine) }
    }
}

impl<H: Handler> fmt::Debug for Running<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running")
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("at", &self.local_addrs()).finish()
    }
}
