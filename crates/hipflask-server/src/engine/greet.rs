//! What the leader does until a PROXY header has come and a TLS handshake is over, and with clients that should have
//! begun one.

use std::io;
use std::sync::Arc;

use hipflask_http::RequestHead;
use hipflask_http::proxy_protocol::{self, MOST_V2};

use crate::conn::{Conn, Filled};
use crate::exchange::ConnInfo;
use crate::handler::Handler;
use crate::metrics::Counter;
use crate::refusal::{Refusal, RefusalKind};
use crate::reply::{asked, asked_unknown};
use crate::tls::Greeting;

use super::leader::{CROWDED, Flow};
use super::{Engine, Helm, Here, Link, plain};

/// What somebody gets who speaks HTTP to the port that has TLS.
const CLEAR: &str = "this port speaks HTTPS: use https:// in the address";

/// How far a PROXY header has come.
enum Announced {
    Done,
    Waits,
    Over,
}

impl<H: Handler> Engine<H> {
    /// Goes on with a handshake as far as the client has.
    pub(super) fn greet(
        self: &Arc<Self>,
        mut lead: Helm<H>,
        mut conn: Link<H>,
        here: &mut Here<H>,
    ) -> Flow<H> {
        if conn.announces {
            match self.announce(&mut conn) {
                Announced::Waits => {
                    lead.park(conn);
                    return Flow::Next(lead);
                }
                Announced::Over => {
                    lead.close(conn);
                    return Flow::Next(lead);
                }
                Announced::Done if !lead.count_in(&mut conn) => {
                    self.tell_refused(&conn.info, CROWDED);
                    lead.close(conn);
                    return Flow::Next(lead);
                }
                Announced::Done if !conn.info.secure => {
                    conn.greeting = false;
                    conn.began = None;
                    return Flow::On(lead, conn);
                }
                Announced::Done => {}
            }
        }
        // A signature takes up to a millisecond: not with the interpreter held.
        here.detach(&*self.handler);
        lead.equip(&mut conn);
        let filled = conn.fill();
        match conn.socket.greeting() {
            Greeting::Waits { begun } => {
                match filled {
                    Filled::Nothing | Filled::Some => lead.park(conn),
                    Filled::End | Filled::Broken => {
                        if begun {
                            let why = "the client left during the TLS handshake";
                            self.refused_silently(&conn, RefusalKind::CutHandshake, why);
                        }
                        lead.close(conn);
                    }
                }
                Flow::Next(lead)
            }
            Greeting::Done(tls) => {
                if let Some(stats) = self.stats() {
                    stats.count(Counter::Handshakes);
                }
                conn.greeting = false;
                conn.began = None;
                let http2 = tls.as_ref().is_some_and(|tls| tls.http2);
                conn.info = Arc::new(ConnInfo { tls, ..ConnInfo::clone(&conn.info) });
                match filled {
                    Filled::Some | Filled::Nothing if http2 => {
                        self.become_http2(&mut conn);
                        Flow::On(lead, conn)
                    }
                    Filled::Some | Filled::Nothing => Flow::On(lead, conn),
                    Filled::End | Filled::Broken => {
                        lead.close(conn);
                        Flow::Next(lead)
                    }
                }
            }
            Greeting::Clear => {
                conn.greeting = false;
                self.refuse_clear(&mut conn, here);
                Flow::On(lead, conn)
            }
            Greeting::Failed(why) => {
                if let Some(stats) = self.stats() {
                    stats.count(Counter::HandshakeFailures);
                }
                self.refused_silently(&conn, RefusalKind::TlsFailed, why);
                // The alert that tells the client why has gone out, or never will.
                lead.close(conn);
                Flow::Next(lead)
            }
        }
    }

    /// Reads a connection's PROXY header. It is looked at and left in the socket until it is whole, so that no byte of
    /// what follows it, perhaps a handshake, comes with it.
    fn announce(&self, conn: &mut Conn<H::Ticket>) -> Announced {
        if !conn.readable {
            return Announced::Waits;
        }
        if !self.config.lets_announce(&conn.info) {
            let why = "a PROXY header is needed, and is not believed from this address";
            self.refused_silently(conn, RefusalKind::UntrustedPeer, why);
            return Announced::Over;
        }
        let bytes = match conn.socket.peek(MOST_V2) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                conn.readable = false;
                return Announced::Waits;
            }
            Err(_) => return Announced::Over,
        };
        match proxy_protocol::parse(&bytes) {
            Ok(Some(header)) if conn.socket.skip(header.length).is_ok() => {
                conn.announces = false;
                conn.info = Arc::new(conn.info.announce(&header, &self.config));
                Announced::Done
            }
            Ok(Some(_)) => Announced::Over,
            // A look whether the port is open.
            Ok(None) if bytes.is_empty() => Announced::Over,
            Ok(None) if conn.ending => {
                let why = "the connection ended within its PROXY header";
                self.refused_silently(conn, RefusalKind::CutProxyHeader, why);
                Announced::Over
            }
            Ok(None) => {
                conn.readable = false;
                Announced::Waits
            }
            Err(error) => {
                self.refused_silently(conn, RefusalKind::BadProxyHeader, error.reason());
                Announced::Over
            }
        }
    }

    /// A handshake takes too long. Whoever has not said a word is none to tell of.
    pub(super) fn give_up_greeting(&self, conn: &Conn<H::Ticket>) {
        if conn.announces {
            if conn.socket.peek(1).is_ok_and(|bytes| !bytes.is_empty()) {
                let why = "the PROXY header takes too long";
                self.refused_silently(conn, RefusalKind::SlowProxyHeader, why);
            }
            return;
        }
        if let Greeting::Waits { begun: true } = conn.socket.greeting() {
            self.refused_silently(conn, RefusalKind::SlowHandshake, "the TLS handshake takes too long");
        }
    }

    /// Answers HTTP without TLS where TLS was expected.
    fn refuse_clear(self: &Arc<Self>, conn: &mut Conn<H::Ticket>, here: &Here<H>) {
        let refusal = Refusal { kind: RefusalKind::ClearText, status: 400, reason: CLEAR };
        self.tell_refused(&conn.info, refusal);
        self.answer(conn, asked_unknown(), here, |reply| {
            reply.in_the_clear();
            plain(reply, 400, CLEAR);
        });
        conn.closing = true;
        conn.linger = true;
    }

    /// Sends a client to the same address with TLS.
    pub(super) fn redirect(
        self: &Arc<Self>,
        lead: Helm<H>,
        mut conn: Link<H>,
        head: &RequestHead,
        here: &mut Here<H>,
    ) -> Flow<H> {
        let usable = self.skip_body(&mut conn, head, lead.now);
        let host = conn.info.host().unwrap_or(head.host());
        let place = secure_place(head, host, self.config.redirect_port.unwrap_or(443));
        self.answer(&mut conn, asked(head, usable && !self.is_stopping()), here, |reply| {
            reply.in_the_clear();
            let Some(place) = place else {
                return plain(reply, 400, CLEAR);
            };
            // RFC 9110 §15.4.9: 308 keeps the method. Old clients know 301, and GET stays GET.
            let keeps = matches!(head.method(), b"GET" | b"HEAD");
            reply.start(if keeps { 301 } else { 308 }, None);
            // A host and a target have no bytes that a field could not have.
            let _ = reply.field(b"Location", &place);
            reply.body(b"");
        });
        Flow::On(lead, conn)
    }
}

/// The address with TLS; `None` if the request names no host or no path.
fn secure_place(head: &RequestHead, host: &[u8], port: u16) -> Option<Vec<u8>> {
    let colon = host.iter().rposition(|&byte| byte == b':');
    // The colons of an IPv6 address are in brackets.
    let colon = colon.filter(|&at| !host.get(at..).unwrap_or_default().contains(&b']'));
    let name = host.get(..colon.unwrap_or(host.len())).unwrap_or_default();
    if name.is_empty() || !head.raw_path().starts_with(b"/") {
        return None;
    }
    let mut place = [b"https://", name].concat();
    if port != 443 {
        place.extend_from_slice(format!(":{port}").as_bytes());
    }
    place.extend_from_slice(head.raw_path());
    if head.target().contains(&b'?') {
        place.push(b'?');
        place.extend_from_slice(head.query());
    }
    Some(place)
}
