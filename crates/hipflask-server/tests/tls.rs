//! TLS, with rustls' client on the other side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{App, Client, Gate, Live, Source};
use hipflask_server::{
    Address, Bind, BodyError, ClientAuth, Config, FileOptions, KeyPair, Notice, Root, Server, Timeouts, Tls,
    TlsFiles,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

/// A directory that goes when the test does.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("hipflask-tls-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    /// A self-signed certificate for these names, in files of this name.
    fn pair(&self, file: &str, names: &[&str]) -> (KeyPair, CertificateDer<'static>) {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (certificate, key) = (self.0.join(format!("{file}.crt")), self.0.join(format!("{file}.key")));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (KeyPair { certificate, key }, made.cert.der().clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Secure = Client<StreamOwned<ClientConnection, TcpStream>>;

struct Site {
    live: Live,
    trusted: CertificateDer<'static>,
    _place: Place,
}

fn site(name: &str, app: App, config: Config) -> Site {
    let place = Place::new(name);
    let (pair, trusted) = place.pair("site", &["site.test"]);
    let tls = Tls::new(TlsFiles { pairs: vec![pair], ..TlsFiles::default() }).unwrap();
    let live = app.serve(Config { tls: Some(Arc::new(tls)), ..config });
    Site { live, trusted, _place: place }
}

fn trusting(
    certificates: &[&CertificateDer<'static>],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add((*certificate).clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

fn connect_as(live: &Live, config: &Arc<ClientConfig>, name: &str) -> Secure {
    let stream = TcpStream::connect(live.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
    Client { stream: StreamOwned::new(tls, stream), seen: Vec::new(), reset: false }
}

impl Site {
    fn config(&self) -> Arc<ClientConfig> {
        Arc::new(trusting(&[&self.trusted], rustls::ALL_VERSIONS))
    }

    fn client(&self) -> Secure {
        connect_as(&self.live, &self.config(), "site.test")
    }
}

fn echo() -> App {
    App::default()
        .route("/", Some(true), |view| view.text("hello"))
        .route("/worker", Some(false), |view| view.text("from a worker"))
        .route("/echo", Some(true), |view| {
            let body = view.body();
            match body {
                Ok(body) => view.reply.body(&body),
                Err(error) => {
                    view.reply.start(error.status(), None);
                    view.reply.body(error.to_string().as_bytes());
                }
            }
        })
        .route("/long", Some(true), |view| {
            let body: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
            view.reply.body(&body);
        })
        .route("/stream", Some(true), |view| {
            let mut left = 50;
            view.reply.stream(
                Box::new(Source(move |out: &mut Vec<u8>| {
                    left -= 1;
                    out.extend_from_slice(&[b'x'; 10_000]);
                    Ok(left > 0)
                })),
                None,
            );
        })
        .route("/broken", Some(true), |view| {
            let mut first = true;
            view.reply.stream(
                Box::new(Source(move |out: &mut Vec<u8>| {
                    out.extend_from_slice(b"part");
                    if std::mem::take(&mut first) { Ok(true) } else { Err(BodyError::Failed) }
                })),
                None,
            );
        })
        .route("/who", Some(true), |view| {
            let tls = view.request.conn.tls.clone().unwrap();
            let client = tls.client_certificate.as_deref().and_then(hipflask_server::Certificate::parse);
            let client = client.map_or_else(String::new, |client| client.dns_names.join(","));
            view.text(&format!("{} {} {client}", tls.version, tls.cipher));
        })
}

#[test]
fn both_versions_carry_every_kind_of_body() {
    let site = site("kinds", echo(), Config::default());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(trusting(&[&site.trusted], &[version]));
        let mut client = connect_as(&site.live, &config, "site.test");
        assert_eq!(client.get("/").text(), "hello");
        assert_eq!(client.get("/worker").text(), "from a worker");
        assert_eq!(client.post("/echo", b"abc").text(), "abc");
        let long: Vec<u8> = (0..900_000u32).map(|at| (at % 241) as u8).collect();
        assert_eq!(client.post("/echo", &long[..100_000]).body, &long[..100_000]);
        assert_eq!(client.post("/echo", &long).body, long);
        let body = client.get("/long").body;
        assert_eq!(body.len(), 3_000_000);
        assert!(body.iter().enumerate().all(|(at, &byte)| byte == (at % 251) as u8));
        assert_eq!(client.get("/stream").body.len(), 500_000);
        assert_eq!(client.get("/none").status, 404);
        let name = if version.version == rustls::ProtocolVersion::TLSv1_2 {
            "TLSv1.2 TLS_E"
        } else {
            "TLSv1.3 TLS13_"
        };
        assert!(client.get("/who").text().starts_with(name), "{}", client.get("/who").text());
    }
}

#[test]
fn requests_in_one_record_are_answered_in_order() {
    let site = site("pipelined", echo(), Config::default());
    let mut client = site.client();
    let request = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n";
    let all: String = (0..20).map(|number| format!("{request}{}", number % 10)).collect();
    client.send(all);
    for number in 0..20 {
        assert_eq!(client.response().text(), (number % 10).to_string());
    }
}

#[test]
fn a_client_that_sends_byte_by_byte_is_served() {
    let site = site("bytes", echo(), Config::default());
    let mut stream = TcpStream::connect(site.live.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("site.test").unwrap();
    let mut tls = ClientConnection::new(site.config(), name).unwrap();
    tls.writer().write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    loop {
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out).unwrap();
        }
        for byte in &out {
            stream.write_all(&[*byte]).unwrap();
        }
        if tls.read_tls(&mut stream).unwrap() == 0 {
            break;
        }
        let state = tls.process_new_packets().unwrap();
        let mut piece = vec![0; state.plaintext_bytes_to_read()];
        tls.reader().read_exact(&mut piece).unwrap();
        answer.extend(piece);
        if state.peer_has_closed() {
            break;
        }
    }
    assert!(answer.ends_with(b"hello"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn the_end_is_said_where_the_response_is_whole_and_only_there() {
    let site = site("end", echo(), Config::default());
    let mut client = site.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().text(), "hello");
    // Clean: rustls gives an error at an end without close_notify.
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
    let mut client = site.client();
    client.send("GET /broken HTTP/1.1\r\nHost: test\r\n\r\n");
    client.until(b"4\r\npart\r\n");
    assert!(client.stream.read(&mut [0]).is_err());
}

#[test]
fn a_client_that_says_its_end_still_gets_the_answer() {
    let gate = Gate::default();
    let inner = gate.clone();
    let app = App::default().route("/slow", Some(false), move |view| {
        view.detached(|_| inner.pass());
        view.text("late");
    });
    let site = site("half", app, Config::default());
    let mut client = site.client();
    client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    gate.reached(1);
    client.stream.sock.shutdown(Shutdown::Write).unwrap();
    gate.open();
    assert_eq!(client.response().text(), "late");
}

#[test]
fn a_body_cut_off_without_a_farewell_is_truncated() {
    let site = site("cut", echo(), Config::default());
    for length in [5_000, 5_000_000] {
        let mut client = site.client();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n"));
        client.send(vec![b'x'; 4_000]);
        client.stream.flush().unwrap();
        client.stream.sock.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = client.stream.read_to_end(&mut rest);
        let rest = String::from_utf8_lossy(&rest);
        assert!(rest.is_empty() || rest.contains("400 BAD REQUEST"), "{rest}");
    }
}

#[test]
fn files_go_out_encrypted() {
    let place = Place::new("files");
    let content: Vec<u8> = (0..2_500_000u32).map(|at| (at % 239) as u8).collect();
    fs::write(place.0.join("long.bin"), &content).unwrap();
    fs::write(place.0.join("short.txt"), "short").unwrap();
    let root = Root::open(&place.0, FileOptions::default()).unwrap();
    let site = site("files-site", App::default().files("/files/", root), Config::default());
    let mut client = site.client();
    assert_eq!(client.get("/files/short.txt").text(), "short");
    assert_eq!(client.get("/files/long.bin").body, content);
    assert_eq!(client.get("/files/short.txt").text(), "short");
}

#[test]
fn what_is_no_tls_gets_an_alert_and_what_is_http_a_sentence() {
    let site = site("garbage", echo(), Config::default());
    let cases: &[(&[u8], &[u8])] = &[
        (b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", b"HTTP/1.1 400 BAD REQUEST\r\n"),
        (b"POST / HTTP/1.0\r\n\r\n", b"HTTP/1.1 400 BAD REQUEST\r\n"),
        // Alert, version, length 2, fatal.
        (b"\x16\x03\x01\x00\x05hello", b""),
        (b"\x16\x03\x01\xff\xff", b"\x15\x03"),
        (b"\x17\x03\x03\x00\x10aaaaaaaaaaaaaaaa", b"\x15\x03"),
        (b"\x80\x2e\x01\x00\x02", b"\x15\x03"),
        (b"\0\0\0\0\0\0\0\0\0\0", b"\x15\x03"),
    ];
    for (sent, answer) in cases {
        let mut client = site.live.client();
        client.send(sent);
        let mut got = Vec::new();
        let _ = client.stream.read_to_end(&mut got);
        assert!(got.starts_with(answer), "{sent:?} {got:?}");
    }
    assert!(site.live.app.reasons().iter().any(|reason| reason.contains("https://")));
    assert_eq!(site.client().get("/").text(), "hello");
}

#[test]
fn a_slow_handshake_ends_and_a_silent_client_is_not_told_of() {
    let timeouts = Timeouts { handshake: Duration::from_millis(300), ..Timeouts::default() };
    let site = site("slow", echo(), Config { timeouts, ..Config::default() });
    let mut silent = site.live.client();
    let mut half = site.live.client();
    half.send(b"\x16\x03\x01\x02");
    assert!(half.is_closed());
    assert!(silent.is_closed());
    assert_eq!(site.live.app.reasons(), ["the TLS handshake takes too long"]);
}

#[test]
fn bytes_now_and_then_do_not_prolong_a_handshake() {
    let timeouts = Timeouts { handshake: Duration::from_millis(500), ..Timeouts::default() };
    let site = site("trickle", echo(), Config { timeouts, ..Config::default() });
    let mut client = site.live.client();
    client.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut sent = 0;
    client.send(b"\x16\x03\x01\x20\x00");
    let ended = loop {
        match client.stream.read(&mut [0; 64]) {
            Ok(0) => break true,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && sent < 200 => {
                sent += 1;
                let _ = client.stream.write_all(b"x");
            }
            Ok(_) => {}
            Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    assert!(ended, "still open after {sent} bytes");
}

#[test]
fn the_name_asked_for_chooses_the_certificate() {
    let place = Place::new("names");
    let (one, one_der) = place.pair("one", &["one.test"]);
    let (two, two_der) = place.pair("two", &["two.test", "*.wild.test"]);
    let tls = Tls::new(TlsFiles { pairs: vec![one, two], ..TlsFiles::default() }).unwrap();
    let live = echo().serve(Config { tls: Some(Arc::new(tls)), ..Config::default() });
    let cases = [
        ("one.test", &one_der),
        ("two.test", &two_der),
        ("a.wild.test", &two_der),
        ("A.WILD.TEST", &two_der),
    ];
    for (name, expected) in cases {
        let config = Arc::new(trusting(&[expected], rustls::ALL_VERSIONS));
        let mut client = connect_as(&live, &config, name);
        assert_eq!(client.get("/").text(), "hello", "{name}");
        assert_eq!(client.stream.conn.peer_certificates().unwrap()[0], *expected);
    }
    // A name that nobody has gets the first, and the client refuses it.
    let config = Arc::new(trusting(&[&one_der, &two_der], rustls::ALL_VERSIONS));
    let mut client = connect_as(&live, &config, "three.test");
    assert!(client.stream.write_all(b"GET").is_err());
}

#[test]
fn changed_certificates_serve_new_connections_and_leave_old_ones() {
    let place = Place::new("reload");
    let (pair, old) = place.pair("site", &["site.test"]);
    let tls = Arc::new(Tls::new(TlsFiles { pairs: vec![pair.clone()], ..TlsFiles::default() }).unwrap());
    let live = echo().serve(Config { tls: Some(Arc::clone(&tls)), ..Config::default() });
    let config = Arc::new(trusting(&[&old], rustls::ALL_VERSIONS));
    let mut before = connect_as(&live, &config, "site.test");
    assert_eq!(before.get("/").text(), "hello");

    fs::write(&pair.key, "no key").unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("site.key has no private key"));
    assert_eq!(connect_as(&live, &config, "site.test").get("/").text(), "hello");

    let (_, new) = place.pair("site", &["site.test"]);
    tls.reload().unwrap();
    let renewed = Arc::new(trusting(&[&new], rustls::ALL_VERSIONS));
    assert_eq!(connect_as(&live, &renewed, "site.test").get("/").text(), "hello");
    // Not the same configuration: it has a ticket, which stays good.
    let fresh = Arc::new(trusting(&[&old], rustls::ALL_VERSIONS));
    assert!(connect_as(&live, &fresh, "site.test").stream.write_all(b"GET").is_err());
    assert_eq!(connect_as(&live, &config, "site.test").get("/").text(), "hello");
    assert_eq!(before.get("/").text(), "hello");
}

#[test]
fn changed_files_are_noticed_by_those_who_come() {
    let place = Place::new("notice");
    let (pair, _) = place.pair("site", &["site.test"]);
    let tls = Arc::new(Tls::new(TlsFiles { pairs: vec![pair], ..TlsFiles::default() }).unwrap());
    let live = echo().serve(Config { tls: Some(tls), ..Config::default() });
    let (pair, new) = place.pair("site", &["site.test"]);
    // A clock of files may be coarse.
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    fs::File::open(&pair.certificate).unwrap().set_modified(later).unwrap();
    let config = Arc::new(trusting(&[&new], rustls::ALL_VERSIONS));
    let served = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        connect_as(&live, &config, "site.test").stream.write_all(b"GET / HTTP/1.1\r\n").is_ok()
    });
    assert!(served);
    assert!(live.app.notices.lock().unwrap().contains(&Notice::CertificatesReloaded));
}

#[test]
fn bad_files_are_named_in_a_sentence() {
    let place = Place::new("bad");
    let (good, _) = place.pair("good", &["a.test"]);
    let (other, _) = place.pair("other", &["b.test"]);
    let write = |name: &str, text: &str| {
        let path = place.0.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (empty, torn) = (write("empty.pem", ""), write("torn.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n"));
    let nonsense = write("nonsense.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let missing = place.0.join("missing.pem");
    let key = &good.key;
    let cases: &[(&Path, &Path, &str)] = &[
        (&missing, key, "missing.pem cannot be read: No such file"),
        (&empty, key, "empty.pem has no certificate in PEM format."),
        (&torn, key, "torn.pem is no good PEM"),
        (&nonsense, key, "nonsense.pem has a certificate that cannot be read."),
        (&good.certificate, &empty, "empty.pem has no private key in PEM format"),
        (&good.certificate, &good.certificate, "good.crt has no private key in PEM format"),
        (&good.certificate, &other.key, "other.key does not belong to the certificate in"),
    ];
    for (certificate, key, expected) in cases {
        let pair = KeyPair { certificate: certificate.to_path_buf(), key: key.to_path_buf() };
        let error = Tls::new(TlsFiles { pairs: vec![pair], ..TlsFiles::default() }).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.ends_with('.') && !error.contains('\n'), "{error}");
    }
    let no_ca = TlsFiles { pairs: vec![good], client_auth: ClientAuth::Required, ..TlsFiles::default() };
    assert!(Tls::new(no_ca).unwrap_err().to_string().contains("nothing says who vouches"));
    assert!(Tls::new(TlsFiles::default()).unwrap_err().to_string().contains("needs a certificate"));
}

#[test]
fn clients_show_certificates_where_they_are_asked() {
    let place = Place::new("clients");
    let (pair, trusted) = place.pair("site", &["site.test"]);
    let mut parameters = rcgen::CertificateParams::new(vec!["Root".to_owned()]).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root_key = rcgen::KeyPair::generate().unwrap();
    let root_pem = parameters.self_signed(&root_key).unwrap().pem();
    let root = rcgen::Issuer::new(parameters, root_key);
    let ca = place.0.join("ca.pem");
    fs::write(&ca, root_pem).unwrap();
    let client_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["ada.test".to_owned()]).unwrap();
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let known = parameters.signed_by(&client_key, &root).unwrap().der().clone();
    let (stranger, stranger_der) = place.pair("stranger", &["mallory.test"]);
    let stranger_key = PrivateKeyDer::from_pem_file(&stranger.key).unwrap();
    let known_key = PrivateKeyDer::try_from(client_key.serialize_der()).unwrap();

    let showing = |shown: Option<(&CertificateDer<'static>, &PrivateKeyDer<'static>)>| {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match shown {
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
            }
            None => builder.with_no_client_auth(),
        })
    };
    let clients =
        [showing(None), showing(Some((&known, &known_key))), showing(Some((&stranger_der, &stranger_key)))];
    for (auth, expected) in [
        (ClientAuth::Optional, [Some(""), Some("ada.test"), None]),
        (ClientAuth::Required, [None, Some("ada.test"), None]),
    ] {
        let files = TlsFiles {
            pairs: vec![pair.clone()],
            client_auth: auth,
            client_ca: Some(ca.clone()),
            ..TlsFiles::default()
        };
        let live =
            echo().serve(Config { tls: Some(Arc::new(Tls::new(files).unwrap())), ..Config::default() });
        for (config, expected) in clients.iter().zip(expected) {
            // Twice: the second time may be a resumed session.
            for _ in 0..2 {
                let mut client = connect_as(&live, config, "site.test");
                let _ = client.stream.write_all(b"GET /who HTTP/1.1\r\nHost: test\r\n\r\n");
                let mut piece = [0; 4096];
                match (client.stream.read(&mut piece), expected) {
                    (Ok(count), Some(expected)) => {
                        let text = String::from_utf8_lossy(&piece[..count]).into_owned();
                        assert!(text.ends_with(&format!(" {expected}")), "{auth:?} {text}");
                    }
                    (Err(_), None) => {}
                    (got, expected) => panic!("{auth:?} {got:?} {expected:?}"),
                }
            }
        }
        let reasons = live.app.reasons();
        assert!(reasons.contains(&"the client's certificate is no good"), "{reasons:?}");
        assert_eq!(
            reasons.contains(&"the client has shown no certificate"),
            auth == ClientAuth::Required,
            "{reasons:?}"
        );
    }
}

#[test]
fn sessions_are_resumed() {
    let site = site("resumed", echo(), Config::default());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut config = trusting(&[&site.trusted], &[version]);
        config.resumption = Resumption::in_memory_sessions(16);
        let config = Arc::new(config);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut client = connect_as(&site.live, &config, "site.test");
            assert_eq!(client.get("/").text(), "hello");
            kinds.push(client.stream.conn.handshake_kind().unwrap());
        }
        assert_eq!(kinds[0], HandshakeKind::Full);
        assert_eq!(kinds[1], HandshakeKind::Resumed, "{version:?}");
    }
}

#[test]
fn keys_are_changed_in_the_middle() {
    let site = site("keys", echo(), Config::default());
    let config = Arc::new(trusting(&[&site.trusted], &[&rustls::version::TLS13]));
    let mut client = connect_as(&site.live, &config, "site.test");
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "hello");
        client.stream.conn.refresh_traffic_keys().unwrap();
    }
    assert_eq!(client.get("/long").body.len(), 3_000_000);
}

#[test]
fn only_the_newest_version_where_that_is_asked_for() {
    let place = Place::new("only13");
    let (pair, trusted) = place.pair("site", &["site.test"]);
    let tls = Tls::new(TlsFiles { pairs: vec![pair], only_tls13: true, ..TlsFiles::default() }).unwrap();
    let live = echo().serve(Config { tls: Some(Arc::new(tls)), ..Config::default() });
    let old = Arc::new(trusting(&[&trusted], &[&rustls::version::TLS12]));
    assert!(connect_as(&live, &old, "site.test").stream.write_all(b"GET").is_err());
    let new = Arc::new(trusting(&[&trusted], &[&rustls::version::TLS13]));
    assert_eq!(connect_as(&live, &new, "site.test").get("/").text(), "hello");
}

#[test]
fn clients_without_tls_are_sent_to_where_it_is() {
    let place = Place::new("redirect");
    let (pair, _) = place.pair("site", &["site.test"]);
    let tls = Tls::new(TlsFiles { pairs: vec![pair], ..TlsFiles::default() }).unwrap();
    let any = || vec![Bind::Tcp("127.0.0.1:0".parse().unwrap())];
    for (port, shown) in [(None, None), (Some(443), Some(String::new()))] {
        let tls = Tls::new(tls.files().clone()).unwrap();
        let config = Config {
            binds: any(),
            redirect_binds: any(),
            redirect_port: port,
            hsts: Some("max-age=60".to_owned()),
            tls: Some(Arc::new(tls)),
            ..Config::default()
        };
        let bound = Server::bind(config).unwrap();
        let addresses = bound.local_addrs();
        let (Address::Tcp(main), Address::Tcp(plain)) = (&addresses[0], &addresses[1]) else { panic!() };
        let shown = shown.unwrap_or_else(|| format!(":{}", main.port()));
        let running = bound.run(Arc::new(echo())).unwrap();
        let mut client = Client::connect(*plain);
        let cases = [
            ("GET /a%20b?c=d HTTP/1.1\r\nHost: site.test:8080\r\n\r\n", 301, "site.test", "/a%20b?c=d"),
            (
                "POST /form HTTP/1.1\r\nHost: site.test\r\nContent-Length: 2\r\n\r\nab",
                308,
                "site.test",
                "/form",
            ),
            ("GET //evil.test/ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 301, "[::1]", "//evil.test/"),
            ("GET http://other.test/x HTTP/1.1\r\nHost: site.test\r\n\r\n", 301, "other.test", "/x"),
        ];
        for (request, status, host, path) in cases {
            client.send(request);
            let response = client.response();
            assert_eq!(response.status, status, "{request}");
            assert_eq!(response.field("Location"), Some(format!("https://{host}{shown}{path}").as_str()));
            assert_eq!(response.field("Strict-Transport-Security"), None);
        }
        client.send("OPTIONS * HTTP/1.1\r\nHost: site.test\r\n\r\n");
        assert_eq!(client.response().status, 400);
        running.stop(Some(Duration::ZERO));
        running.wait();
    }
}

#[test]
fn strict_transport_security_is_said_where_it_holds() {
    let app = echo().route("/own", Some(true), |view| {
        view.reply.start(200, None);
        view.reply.field(b"strict-transport-security", b"max-age=0").unwrap();
        view.reply.body(b"own");
    });
    let hsts = Some("max-age=31536000; includeSubDomains".to_owned());
    let site = site("hsts", app, Config { hsts, ..Config::default() });
    let mut client = site.client();
    for path in ["/", "/worker", "/none", "/stream"] {
        let response = client.get(path);
        let said = response.field("Strict-Transport-Security");
        assert_eq!(said, Some("max-age=31536000; includeSubDomains"), "{path}");
    }
    let own = client.get("/own");
    let all = own.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Strict-Transport-Security"));
    assert_eq!(all.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["max-age=0"]);
    let mut clear = site.live.client();
    clear.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(clear.response().field("Strict-Transport-Security"), None);
}

#[test]
fn a_client_that_takes_nothing_is_ended() {
    let timeouts = Timeouts { write: Duration::from_millis(300), ..Timeouts::default() };
    let app = App::default().route("/huge", Some(true), |view| view.reply.body(&vec![b'x'; 64 << 20]));
    let site = site("reader", app, Config { timeouts, ..Config::default() });
    let mut client = site.client();
    client.send("GET /huge HTTP/1.1\r\nHost: test\r\n\r\n");
    client.head();
    // Waits without reading until the server has given up.
    for _ in 0..400 {
        if !site.live.app.reasons().is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    assert_eq!(site.live.app.reasons(), ["the client takes the response too slowly"]);
}

#[test]
fn a_stop_waits_for_the_answer_and_says_the_end() {
    let gate = Gate::default();
    let inner = gate.clone();
    let app = App::default().route("/slow", Some(false), move |view| {
        view.detached(|_| inner.pass());
        view.text("late");
    });
    let site = site("stop", app, Config::default());
    let mut client = site.client();
    client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut idle = site.live.client();
    idle.send(b"\x16");
    gate.reached(1);
    site.live.running.stop(Some(Duration::from_secs(20)));
    gate.open();
    assert_eq!(client.response().text(), "late");
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
    assert!(site.live.running.wait_timeout(Duration::from_secs(10)));
}
