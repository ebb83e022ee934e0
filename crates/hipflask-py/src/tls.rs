//! TLS as Python sets it up, and certificates as Python reads them.

use std::path::PathBuf;
use std::sync::Arc;

use hipflask_server as server;
use hipflask_server::{Certificate, ClientAuth, KeyPair, TlsError, TlsFiles};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

fn sentence(error: &TlsError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// What a server needs to speak TLS.
///
/// Certificates, keys and the rest are files in PEM format. They are read again when they have changed: new connections
/// get the new ones, open ones go on with the old.
///
/// Args:
///     pairs: Certificates, each with its chain, and their keys. The name that a client asks for chooses one, else it is
///         the first.
///     client_certs: Whether clients have to show a certificate: ``none``, ``optional`` or ``required``.
///     client_ca: Who vouches for clients.
///     client_crl: Which certificates of clients have been revoked.
///     only_tls13: Whether TLS 1.2 is refused.
///     http2: Whether HTTP/2 is offered.
///
/// Raises:
///     ValueError: If a file is missing or no good; a sentence says which and why.
#[pyclass(frozen, module = "hipflask._core", name = "Tls")]
pub(crate) struct PyTls {
    pub(crate) tls: Arc<server::Tls>,
}

#[pymethods]
impl PyTls {
    #[new]
    #[pyo3(signature = (pairs, *, client_certs="none", client_ca=None, client_crl=None, only_tls13=false, http2=true))]
    fn new(
        pairs: Vec<(PathBuf, PathBuf)>,
        client_certs: &str,
        client_ca: Option<PathBuf>,
        client_crl: Option<PathBuf>,
        only_tls13: bool,
        http2: bool,
    ) -> PyResult<Self> {
        let client_auth = match client_certs {
            "none" => ClientAuth::None,
            "optional" => ClientAuth::Optional,
            "required" => ClientAuth::Required,
            _ => return Err(PyValueError::new_err("client_certs is one of none, optional, required")),
        };
        let pairs = pairs.into_iter().map(|(certificate, key)| KeyPair { certificate, key }).collect();
        let files = TlsFiles { pairs, client_auth, client_ca, client_crl, only_tls13, http2 };
        let tls = server::Tls::new(files).map_err(|error| sentence(&error))?;
        Ok(Self { tls: Arc::new(tls) })
    }

    /// Read the files again, at once.
    fn reload(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.tls.reload()).map_err(|error| sentence(&error))
    }
}

/// Make a certificate for these names that vouches for itself, and its key, both in PEM format.
#[pyfunction]
fn self_signed_certificate(names: Vec<String>) -> PyResult<(String, String)> {
    server::self_signed(names).map_err(|error| sentence(&error))
}

/// Read what a certificate in DER format says, by the names of ``hipflask.tls.ClientCertificate``.
#[pyfunction]
fn read_certificate<'py>(py: Python<'py>, der: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let certificate =
        Certificate::parse(der).ok_or_else(|| PyValueError::new_err("these bytes are no certificate"))?;
    let parts = PyDict::new(py);
    parts.set_item("subject", certificate.subject)?;
    parts.set_item("issuer", certificate.issuer)?;
    parts.set_item("serial_number", certificate.serial)?;
    parts.set_item("not_before", certificate.not_before)?;
    parts.set_item("not_after", certificate.not_after)?;
    parts.set_item("dns_names", certificate.dns_names)?;
    parts.set_item("emails", certificate.emails)?;
    parts.set_item("uris", certificate.uris)?;
    Ok(parts)
}

/// DER as PEM: lines of 64 characters between two marks.
pub(crate) fn pem(der: &[u8]) -> String {
    use base64::Engine as _;

    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTls>()?;
    module.add_function(wrap_pyfunction!(self_signed_certificate, module)?)?;
    module.add_function(wrap_pyfunction!(read_certificate, module)?)
}
