//! TLS: certificates, their reload, and what a new connection begins with.
//!
//! The protocol is rustls' (RFC 8446, RFC 5246 with extensions), its cryptography ring's. Here is what a server decides:
//! which certificate a name gets, when files are read again, who has to show a certificate. `session.rs` has one
//! connection.

mod certificate;
mod session;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::locked;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, ProducesTickets, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, PeerMisbehaved, RootCertStore, ServerConfig};

pub use certificate::Certificate;
pub(crate) use session::{Greeting, Session};

/// How often the files are looked at, at most: by a connection that comes.
const LOOK: Duration = Duration::from_secs(1);

/// A certificate with its chain, and its key: two files in PEM, or one that has both.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The certificate, followed by those that lead to the root.
    pub certificate: PathBuf,
    /// Its private key, unencrypted.
    pub key: PathBuf,
}

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They may; one that does not verify ends the handshake.
    Optional,
    /// They must.
    Required,
}

/// What a server with TLS is made of.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The certificates. One whose names have the one that the client asks for is chosen, else the first.
    pub pairs: Vec<KeyPair>,
    /// Whether clients have to show a certificate.
    pub client_auth: ClientAuth,
    /// Who vouches for clients: certificates in PEM.
    pub client_ca: Option<PathBuf>,
    /// Certificates of clients that are no longer good: revocation lists in PEM.
    pub client_crl: Option<PathBuf>,
    /// Refuse TLS 1.2. Off: one client in a hundred has no 1.3, and 1.2 as rustls has it is sound.
    pub only_tls13: bool,
    /// Offer HTTP/2.
    pub http2: bool,
}

/// What is known of a connection's encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, by its registered name.
    pub cipher: &'static str,
    /// Whether HTTP/2 was agreed on.
    pub http2: bool,
    /// The certificate that the client has shown, verified, in DER.
    pub client_certificate: Option<Vec<u8>>,
}

/// Why TLS cannot be set up, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// The keys of a server, shared by its connections. Those that are open keep what they began with when it changes.
pub struct Tls {
    files: TlsFiles,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// When the files were changed last, by the last look.
    changed: Vec<Option<SystemTime>>,
    looked: Instant,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// One is missing, or is not what it should be.
    pub fn new(files: TlsFiles) -> Result<Tls, TlsError> {
        let changed = files.changed();
        let config = files.load(None)?;
        Ok(Tls { files, state: Mutex::new(State { config, changed, looked: Instant::now() }) })
    }

    /// Reads the files again; if one of them is no good, everything stays as it is.
    ///
    /// # Errors
    ///
    /// See [`Tls::new`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let changed = self.files.changed();
        let before = Arc::clone(&self.state().config);
        // Not under the lock: a slow disk must not hold up those who connect.
        let loaded = self.files.load(Some(&before));
        let mut state = self.state();
        // Broken files are not read again before they change.
        state.changed = changed;
        state.config = loaded?;
        Ok(())
    }

    /// What the settings say.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Looks now and then whether the files have changed, and reads them again; `None` if they have not.
    pub(crate) fn look(&self, now: Instant) -> Option<Result<(), TlsError>> {
        let mut state = self.state();
        if now.saturating_duration_since(state.looked) < LOOK {
            return None;
        }
        state.looked = now;
        let changed = state.changed != self.files.changed();
        drop(state);
        changed.then(|| self.reload())
    }

    /// A session for a new connection.
    pub(crate) fn accept(&self) -> Result<Session, Error> {
        let config = Arc::clone(&self.state().config);
        Session::new(config)
    }
}

impl TlsFiles {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.pairs.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
        pairs.chain(&self.client_ca).chain(&self.client_crl)
    }

    fn changed(&self) -> Vec<Option<SystemTime>> {
        self.all().map(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok()).collect()
    }

    fn load(&self, before: Option<&ServerConfig>) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut names = Names { by_name: HashMap::new(), first: None };
        for pair in &self.pairs {
            names.add(pair)?;
        }
        if names.first.is_none() {
            return Err(TlsError("TLS needs a certificate and its key.".to_owned()));
        }
        let versions: &[_] =
            if self.only_tls13 { &[&rustls::version::TLS13] } else { rustls::DEFAULT_VERSIONS };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| TlsError(format!("TLS cannot be set up: {error}.")))?;
        let builder = match self.client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            auth => builder.with_client_cert_verifier(self.verifier(auth, &provider)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(names));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if self.http2 {
            config.alpn_protocols.insert(0, b"h2".to_vec());
        }
        // Tickets hold sessions at the clients: any number of them costs no memory here. Those given before a reload
        // stay good, unless they say who vouched for a client: that may be what has changed.
        config.ticketer = match before {
            Some(before) if self.client_auth == ClientAuth::None => Arc::clone(&before.ticketer),
            _ => ticketer()?,
        };
        Ok(Arc::new(config))
    }

    fn verifier(
        &self,
        auth: ClientAuth,
        provider: &Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
        let Some(path) = &self.client_ca else {
            return Err(TlsError(
                "Certificates of clients are asked for, and nothing says who vouches for them.".to_owned(),
            ));
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            let at = path.display();
            roots
                .add(certificate)
                .map_err(|_| TlsError(format!("{at} has a certificate that cannot be read.")))?;
        }
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        if auth == ClientAuth::Optional {
            verifier = verifier.allow_unauthenticated();
        }
        if let Some(path) = &self.client_crl {
            verifier = verifier.with_crls(revocations(path)?);
        }
        verifier.build().map_err(|error| {
            let at = match (&error, &self.client_crl) {
                (VerifierBuilderError::InvalidCrl(_), Some(lists)) => lists,
                _ => path,
            };
            TlsError(format!("{} cannot be used: {error}.", at.display()))
        })
    }
}

fn ticketer() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    ring::Ticketer::new().map_err(|error| TlsError(format!("TLS cannot be set up: {error}.")))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError(format!("{} cannot be read: {error}.", path.display())))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError(format!("{} has no certificate in PEM format.", path.display()))),
        Err(error) => Err(TlsError(format!("{} is no good PEM: {error}.", path.display()))),
    }
}

fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let bytes = read(path)?;
    CertificateRevocationListDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError(format!("{} is no good PEM: {error}.", path.display())))
}

/// The certificates by the names in them.
#[derive(Debug)]
struct Names {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl Names {
    fn add(&mut self, pair: &KeyPair) -> Result<(), TlsError> {
        let (at, key_at) = (pair.certificate.display(), pair.key.display());
        let chain = certificates(&pair.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&pair.key)?).map_err(|_| {
            TlsError(format!("{key_at} has no private key in PEM format, or one with a passphrase."))
        })?;
        let key = ring::sign::any_supported_type(&key)
            .map_err(|_| TlsError(format!("{key_at} has a key that is none of ECDSA, Ed25519 and RSA.")))?;
        let leaf = chain.first().and_then(|leaf| Certificate::parse(leaf));
        let pair = CertifiedKey::new(chain, key);
        pair.keys_match().map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                TlsError(format!("The key in {key_at} does not belong to the certificate in {at}."))
            }
            _ => TlsError(format!("{at} has a certificate that cannot be read.")),
        })?;
        let pair = Arc::new(pair);
        for name in leaf.map(|leaf| leaf.dns_names).unwrap_or_default() {
            self.by_name.entry(name.to_ascii_lowercase()).or_insert_with(|| Arc::clone(&pair));
        }
        self.first.get_or_insert(pair);
        Ok(())
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wild = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            self.by_name.get(&name).or_else(|| wild.and_then(|wild| self.by_name.get(&wild)))
        });
        named.or(self.first.as_ref()).cloned()
    }
}

/// Makes a certificate for these names that vouches for itself, good for a year, and its key; both in PEM. For
/// development: no client trusts it unless told to.
///
/// # Errors
///
/// A name is none.
pub fn self_signed(names: Vec<String>) -> Result<(String, String), TlsError> {
    let wrong = |error: rcgen::Error| TlsError(format!("No certificate can be made: {error}."));
    let mut parameters = rcgen::CertificateParams::new(names).map_err(wrong)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "Development Certificate");
    // Some browsers refuse what is good for longer.
    let now = SystemTime::now();
    parameters.not_before = (now - Duration::from_secs(86_400)).into();
    parameters.not_after = (now + Duration::from_secs(365 * 86_400)).into();
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate().map_err(wrong)?;
    let certificate = parameters.self_signed(&key).map_err(wrong)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Why a session ended, for the log.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::InvalidMessage(_) => "the client does not speak TLS, or speaks it badly",
        Error::NoCertificatesPresented => "the client has shown no certificate",
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the client's certificate has expired"
        }
        Error::InvalidCertificate(CertificateError::Revoked) => "the client's certificate has been revoked",
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "nobody that is trusted vouches for the client's certificate"
        }
        Error::InvalidCertificate(_) => "the client's certificate is no good",
        Error::PeerIncompatible(_) => "the client has no version, cipher or group that is on offer",
        Error::NoApplicationProtocol => "the client speaks no protocol that is on offer",
        Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests) => {
            "the client asks to negotiate again and again"
        }
        Error::PeerMisbehaved(_) => "the client breaks the rules of TLS",
        Error::AlertReceived(_) => "the client refused the handshake or ended the session",
        Error::DecryptError => "a record has been damaged or forged",
        _ => "the TLS session failed",
    }
}
