//! Who a request comes from, if a proxy is between: what is believed of whom.
//!
//! A connection's peer is trusted or not from its first byte, or from its PROXY header, which names another. What a
//! request's fields say belongs to that request: its connection information is made anew for it. Where no proxy is
//! trusted nothing of this is looked at.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use hipflask_http::forwarded::{Node, Said};
use hipflask_http::network::Networks;
use hipflask_http::proxy_protocol::{Header, Source};
use hipflask_http::{Error, RequestHead};

use crate::config::{Config, ProxyProtocol};
use crate::exchange::{Address, ConnInfo};

/// Whether what a peer says about its clients is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Nobody is asked: no proxy is trusted.
    #[default]
    Unset,
    /// It is not.
    No,
    /// It is.
    Yes,
}

/// Who sends requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client<'a> {
    /// An address, and the port if it is known.
    Ip(IpAddr, Option<u16>),
    /// A Unix socket's client has no name.
    Unix,
    /// A proxy keeps the address to itself and gives this name instead, perhaps `unknown`.
    Hidden(&'a str),
}

impl Client<'_> {
    /// Its address.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Client::Ip(address, _) => Some(*address),
            _ => None,
        }
    }

    /// Its port.
    pub fn port(&self) -> Option<u16> {
        match self {
            Client::Ip(_, port) => *port,
            _ => None,
        }
    }

    /// What stands for it in a log, without a port.
    pub fn name(&self) -> String {
        match self {
            Client::Ip(address, _) => address.to_string(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Client::Ip(address, Some(port)) => std::net::SocketAddr::new(*address, *port).fmt(f),
            Client::Ip(address, None) => address.fmt(f),
            Client::Unix => f.write_str("unix:"),
            Client::Hidden(name) => f.write_str(name),
        }
    }
}

/// What is known of a client by others than its connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// What the connection's PROXY header says.
    announced: Option<Source>,
    /// It says that the client speaks TLS.
    encrypted: bool,
    /// Where the server's operator says that the application is mounted.
    root: Option<Arc<str>>,
    /// What the request's fields say.
    said: Said,
}

impl ConnInfo {
    /// Of a connection without encryption and without proxies.
    pub fn new(peer: Address, local: Address) -> ConnInfo {
        ConnInfo { peer, local, secure: false, tls: None, trust: Trust::Unset, via: None }
    }

    fn said(&self) -> Option<&Said> {
        self.via.as_deref().map(|via| &via.said)
    }

    /// Who sends the request; for a connection that has none yet, who has opened it.
    pub fn client(&self) -> Client<'_> {
        if let Some(node) = self.said().and_then(Said::client) {
            return match node {
                Node::Ip(address, port) => Client::Ip(*address, *port),
                Node::Hidden(name) => Client::Hidden(name),
            };
        }
        self.announced()
    }

    /// Who is at the other end of the connection, or of the one that a PROXY header speaks of.
    pub(crate) fn announced(&self) -> Client<'_> {
        match (self.via.as_deref().and_then(|via| via.announced), &self.peer) {
            (Some(Source::Client(address)), _) => Client::Ip(address.ip(), Some(address.port())),
            (Some(Source::Unix), _) | (_, Address::Unix(_)) => Client::Unix,
            (_, Address::Tcp(address)) => Client::Ip(address.ip(), Some(address.port())),
        }
    }

    /// Whether the client speaks TLS, be it with us or with a proxy.
    pub fn is_secure(&self) -> bool {
        match self.via.as_deref() {
            Some(via) => via.said.secure.unwrap_or(self.secure || via.encrypted),
            None => self.secure,
        }
    }

    /// Host and port that the client has asked a proxy for, if they are believed.
    pub fn host(&self) -> Option<&[u8]> {
        self.said()?.host.as_deref()
    }

    /// Where the application is mounted, without a slash at the end; usually empty.
    pub fn root_path(&self) -> &str {
        let Some(via) = self.via.as_deref() else { return "" };
        via.said.prefix.as_deref().or(via.root.as_deref()).unwrap_or_default()
    }

    /// The client and the proxies behind it, but for the last one: as far as they are known for certain. `None` where no
    /// proxies are trusted.
    pub fn route(&self) -> Option<Vec<String>> {
        match (self.trust, self.said()) {
            (Trust::Unset, _) => None,
            (_, Some(said)) if !said.route.is_empty() => {
                Some(said.route.iter().map(ToString::to_string).collect())
            }
            _ => Some(self.client().address().iter().map(ToString::to_string).collect()),
        }
    }

    /// The same without what a request said.
    pub(crate) fn without_request(&self) -> Option<ConnInfo> {
        let via = self.via.as_deref().filter(|via| !via.said.is_empty())?;
        let via = Via { said: Said::default(), ..via.clone() };
        Some(ConnInfo { via: Some(Arc::new(via)), ..self.clone() })
    }

    /// The same for another request; `None` if that makes no difference.
    pub(crate) fn for_request(&self, head: &RequestHead, config: &Config) -> Result<Option<ConnInfo>, Error> {
        let said = Said::of(head, config.forwarded_headers, &config.trusted_proxies)?;
        if self.said().map_or(said.is_empty(), |before| *before == said) {
            return Ok(None);
        }
        let via = Via { said, ..self.via.as_deref().cloned().unwrap_or_default() };
        Ok(Some(ConnInfo { via: Some(Arc::new(via)), ..self.clone() }))
    }

    /// The same with what a PROXY header says.
    pub(crate) fn announce(&self, header: &Header, config: &Config) -> ConnInfo {
        let base = self.via.as_deref().cloned().unwrap_or_default();
        let via = Via { announced: Some(header.source), encrypted: header.secure, ..base };
        let mut info = ConnInfo { via: Some(Arc::new(via)), ..self.clone() };
        info.trust = trust(&config.trusted_proxies, info.announced());
        info
    }
}

/// Whether somebody is among the trusted.
fn trust(trusted: &Networks, who: Client<'_>) -> Trust {
    if trusted.is_empty() {
        return Trust::Unset;
    }
    if contains(trusted, who) { Trust::Yes } else { Trust::No }
}

fn contains(networks: &Networks, who: Client<'_>) -> bool {
    match who {
        Client::Ip(address, _) => networks.contains(address),
        Client::Unix => networks.contains_unix(),
        Client::Hidden(_) => false,
    }
}

/// What there is to do about proxies when a connection comes.
pub(crate) struct Gate {
    trusted: Networks,
    protocol: ProxyProtocol,
    announcers: Networks,
    via: Option<Arc<Via>>,
}

impl Gate {
    /// `None` if nothing is configured.
    pub(crate) fn new(config: &Config) -> Option<Box<Gate>> {
        let root = Some(config.root_path.as_str()).filter(|root| !root.is_empty());
        let via = root.map(|root| Arc::new(Via { root: Some(root.into()), ..Via::default() }));
        let idle = config.trusted_proxies.is_empty() && config.proxy_protocol == ProxyProtocol::Off;
        if idle && via.is_none() {
            return None;
        }
        Some(Box::new(Gate {
            trusted: config.trusted_proxies.clone(),
            protocol: config.proxy_protocol,
            announcers: config.announcers().clone(),
            via,
        }))
    }

    /// Takes a connection in; whether a PROXY header has to come first.
    pub(crate) fn admit(&self, info: &mut ConnInfo) -> bool {
        info.via.clone_from(&self.via);
        info.trust = trust(&self.trusted, info.announced());
        match self.protocol {
            ProxyProtocol::Off => false,
            ProxyProtocol::On => true,
            ProxyProtocol::Mixed => contains(&self.announcers, info.announced()),
        }
    }
}

impl Config {
    /// Who may send a PROXY header.
    fn announcers(&self) -> &Networks {
        if self.proxy_protocol_from.is_empty() { &self.trusted_proxies } else { &self.proxy_protocol_from }
    }

    /// Whether a connection may begin with a PROXY header.
    pub(crate) fn lets_announce(&self, info: &ConnInfo) -> bool {
        contains(self.announcers(), info.announced())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipflask_http::Limits;

    fn config() -> Config {
        Config { trusted_proxies: Networks::parse(["10.0.0.0/8", "unix:"]).unwrap(), ..Config::default() }
    }

    fn head(fields: &str) -> RequestHead {
        let mut head = RequestHead::new();
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        head.parse(text.as_bytes(), &Limits::default()).unwrap().unwrap();
        head
    }

    fn info(peer: &str, config: &Config) -> ConnInfo {
        let peer = peer.parse().map_or(Address::Unix(None), Address::Tcp);
        let mut info = ConnInfo::new(peer.clone(), peer);
        if let Some(gate) = Gate::new(config) {
            gate.admit(&mut info);
        }
        info
    }

    #[test]
    fn what_one_request_says_does_not_stay_for_the_next() {
        let config = config();
        let first = info("10.0.0.1:1", &config);
        let fields = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n";
        let second = first.for_request(&head(fields), &config).unwrap().unwrap();
        assert_eq!(second.client(), Client::Ip("192.0.2.1".parse().unwrap(), None));
        assert!(second.is_secure() && !second.secure);
        assert_eq!(second.for_request(&head(fields), &config), Ok(None));
        let third = second.for_request(&head(""), &config).unwrap().unwrap();
        assert_eq!(third.client(), Client::Ip("10.0.0.1".parse().unwrap(), Some(1)));
        assert!(!third.is_secure());
        assert_eq!(second.without_request(), Some(third));
        assert_eq!(first.for_request(&head(""), &config), Ok(None));
    }

    #[test]
    fn a_proxy_header_names_who_is_trusted_or_not() {
        let config = config();
        let says = |source| Header { length: 16, source, secure: true };
        for (peer, source, trust, client) in [
            ("10.0.0.1:1", Source::Client("192.0.2.1:7".parse().unwrap()), Trust::No, "192.0.2.1:7"),
            ("192.0.2.9:1", Source::Client("10.0.0.2:7".parse().unwrap()), Trust::Yes, "10.0.0.2:7"),
            ("10.0.0.1:1", Source::Proxy, Trust::Yes, "10.0.0.1:1"),
            ("192.0.2.9:1", Source::Proxy, Trust::No, "192.0.2.9:1"),
            ("192.0.2.9:1", Source::Unix, Trust::Yes, "unix:"),
        ] {
            let announced = info(peer, &config).announce(&says(source), &config);
            assert_eq!((announced.trust, announced.client().to_string().as_str()), (trust, client));
            assert!(announced.is_secure());
        }
    }

    #[test]
    fn the_route_is_only_told_where_proxies_are_trusted() {
        assert_eq!(info("10.0.0.1:1", &Config::default()).route(), None);
        assert_eq!(info("192.0.2.1:1", &config()).route(), Some(vec!["192.0.2.1".to_owned()]));
        assert_eq!(info("unix:", &config()).route(), Some(vec![]));
        let config = config();
        let fields = "X-Forwarded-For: 192.0.2.7, 192.0.2.1, 10.0.0.3\r\n";
        let info = info("10.0.0.1:1", &config).for_request(&head(fields), &config).unwrap().unwrap();
        assert_eq!(info.route(), Some(vec!["192.0.2.1".to_owned(), "10.0.0.3".to_owned()]));
    }
}
