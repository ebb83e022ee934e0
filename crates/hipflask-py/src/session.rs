//! Signed session cookies, with the bytes of `itsdangerous.URLSafeTimedSerializer` as Flask sets it up.
//!
//! A cookie is `payload.timestamp.signature`, each in URL-safe base 64 without padding. The payload is tagged JSON,
//! compressed if that makes it shorter, which a leading dot tells. The signature is HMAC-SHA-1 under a key derived from
//! secret key and salt, also by HMAC-SHA-1. Does not know interfaces with another serializer, digest or derivation:
//! those are Python's.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, general_purpose};
use hmac::{Hmac, KeyInit, Mac};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use sha1::Sha1;

use crate::json::{self, Options};

/// A cookie of a few kilobytes that claims to inflate to more is not a session: browsers keep about 4 KiB per cookie.
const INFLATED: usize = 1 << 20;

/// As Python's decoder: the bits behind the last byte do not count.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Base 64 with padding, for the tag of bytes.
pub(crate) fn base64_standard(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What a cookie turned out to be.
pub(crate) enum Opened<'py> {
    /// A session's items; what the payload held, which is a dictionary unless the application signed something else.
    Data(Bound<'py, PyAny>),
    /// Forged, expired or broken: an empty session.
    Empty,
    /// The payload is signed and fresh, but odd: Python's serializer has to read it.
    Odd,
}

/// The keys of an application: the one that signs, and those that also verify.
pub(crate) struct Keys {
    derived: Vec<Hmac<Sha1>>,
}

impl Keys {
    /// Derives the signing keys. None if one of them is neither text nor bytes, which `itsdangerous` then explains.
    pub(crate) fn derive(
        secret: &Bound<'_, PyAny>,
        fallbacks: Option<&Bound<'_, PyAny>>,
        salt: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Self>> {
        let mut derived = Vec::with_capacity(1);
        let Some(key) = derive(secret, salt) else { return Ok(None) };
        derived.push(key);
        if let Some(fallbacks) = fallbacks
            && !fallbacks.is_none()
        {
            for secret in fallbacks.try_iter()? {
                let Some(key) = derive(&secret?, salt) else { return Ok(None) };
                derived.push(key);
            }
        }
        Ok(Some(Self { derived }))
    }

    fn sign(&self, value: &[u8]) -> Option<String> {
        let mut mac = self.derived.first()?.clone();
        mac.update(value);
        Some(URL_SAFE.encode(mac.finalize().into_bytes()))
    }

    /// Compares in constant time.
    fn verify(&self, value: &[u8], signature: &[u8]) -> bool {
        self.derived.iter().any(|key| {
            let mut mac = key.clone();
            mac.update(value);
            mac.verify_slice(signature).is_ok()
        })
    }
}

fn derive(secret: &Bound<'_, PyAny>, salt: &Bound<'_, PyAny>) -> Option<Hmac<Sha1>> {
    let mut mac = with_bytes(secret, |key| Hmac::<Sha1>::new_from_slice(key).ok())??;
    with_bytes(salt, |salt| mac.update(salt))?;
    Hmac::<Sha1>::new_from_slice(&mac.finalize().into_bytes()).ok()
}

fn with_bytes<T>(value: &Bound<'_, PyAny>, use_it: impl FnOnce(&[u8]) -> T) -> Option<T> {
    if let Ok(text) = value.cast::<PyString>() {
        return Some(use_it(text.to_str().ok()?.as_bytes()));
    }
    Some(use_it(value.cast::<PyBytes>().ok()?.as_bytes()))
}

/// Seconds since 1970, as `itsdangerous` counts them.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
}

/// Reads a session from its cookie's value.
///
/// `max_age` is the session's lifetime in seconds. The application's provider must be one for which
/// [`Options::of_provider`] has an answer, since a provider may read JSON in its own way.
pub(crate) fn open<'py>(
    py: Python<'py>,
    keys: &Keys,
    cookie: &str,
    now: i64,
    max_age: i64,
) -> PyResult<Opened<'py>> {
    let Some((signed, signature)) = cookie.rsplit_once('.') else { return Ok(Opened::Empty) };
    let Ok(signature) = URL_SAFE.decode(signature) else { return Ok(Opened::Empty) };
    if !keys.verify(signed.as_bytes(), &signature) {
        return Ok(Opened::Empty);
    }
    let Some((payload, stamp)) = signed.rsplit_once('.') else { return Ok(Opened::Empty) };
    let Some(stamp) = URL_SAFE.decode(stamp).ok().and_then(|bytes| timestamp(&bytes)) else {
        return Ok(Opened::Empty);
    };
    let age = now.saturating_sub(stamp);
    if age > max_age || age < 0 {
        return Ok(Opened::Empty);
    }
    let (payload, compressed) = match payload.strip_prefix('.') {
        Some(rest) => (rest, true),
        None => (payload, false),
    };
    let Ok(mut text) = URL_SAFE.decode(payload) else { return Ok(Opened::Empty) };
    if compressed {
        let Some(inflated) = inflate(py, &text)? else { return Ok(Opened::Empty) };
        text = inflated;
    }
    let read = json::loads_tagged(py, &text, &|tag, value| Ok(untag(tag, value).unwrap_or(None)))?;
    Ok(read.map_or(Opened::Odd, Opened::Data))
}

/// Whether a cookie's value may be that of a permanent session. Checks no signature; unsure is true.
pub(crate) fn may_be_permanent(cookie: &[u8]) -> bool {
    let payload = cookie.split(|byte| *byte == b'.').next().unwrap_or_default();
    // An empty payload is the dot before a compressed one.
    match URL_SAFE.decode(payload) {
        Ok(text) if !text.is_empty() => memchr::memmem::find(&text, b"_permanent").is_some(),
        _ => true,
    }
}

/// Writes a session into a cookie's value; None if Python's serializer has to, because of what the session holds.
pub(crate) fn seal<'py>(
    session: &Bound<'py, PyDict>,
    keys: &Keys,
    now: i64,
    options: &Options<'py>,
) -> PyResult<Option<String>> {
    let py = session.py();
    let mut text = Vec::with_capacity(128);
    if !json::dumps_tagged_into(session.as_any(), &mut text, options)? {
        return Ok(None);
    }
    let mut value = String::with_capacity(text.len() * 4 / 3 + 48);
    match compress(py, &text)? {
        Some(compressed) => {
            value.push('.');
            URL_SAFE.encode_string(compressed.as_bytes(), &mut value);
        }
        None => URL_SAFE.encode_string(&text, &mut value),
    }
    value.push('.');
    let stamp = now.to_be_bytes();
    let start = stamp.iter().position(|byte| *byte != 0).unwrap_or(stamp.len());
    URL_SAFE.encode_string(stamp.get(start..).unwrap_or_default(), &mut value);
    let Some(signature) = keys.sign(value.as_bytes()) else { return Ok(None) };
    value.push('.');
    value.push_str(&signature);
    Ok(Some(value))
}

/// A JSON object's text compressed, if that makes it shorter.
fn compress<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
    // Setting zlib up costs several microseconds, and it cannot win here: six bytes are its frame, and an object has
    // at least six bytes `{"":` … `}` that cost eight bits each unless codes are sent for them, which takes seven.
    const HOPELESS: usize = 16;
    if text.len() <= HOPELESS {
        return Ok(None);
    }
    let compressed =
        py.import(intern!(py, "zlib"))?.call_method1(intern!(py, "compress"), (PyBytes::new(py, text),))?;
    let compressed = compressed.cast_into::<PyBytes>()?;
    Ok((compressed.as_bytes().len() + 1 < text.len()).then_some(compressed))
}

fn timestamp(bytes: &[u8]) -> Option<i64> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let digits = bytes.get(start..)?;
    let mut stamp = [0_u8; 8];
    stamp.get_mut(8_usize.checked_sub(digits.len())?..)?.copy_from_slice(digits);
    i64::try_from(u64::from_be_bytes(stamp)).ok()
}

/// Inflates at most [`INFLATED`] bytes; None if there would be more, or the data is broken.
fn inflate(py: Python<'_>, data: &[u8]) -> PyResult<Option<Vec<u8>>> {
    let stream = py.import(intern!(py, "zlib"))?.call_method0(intern!(py, "decompressobj"))?;
    let Ok(text) = stream.call_method1(intern!(py, "decompress"), (PyBytes::new(py, data), INFLATED)) else {
        return Ok(None);
    };
    if !stream.getattr(intern!(py, "eof"))?.is_truthy()? {
        return Ok(None);
    }
    Ok(Some(text.cast::<PyBytes>()?.as_bytes().to_vec()))
}

/// Turns what a tag held back into its value; None or an error if Python's serializer has to look at it.
fn untag<'py>(tag: &str, value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = value.py();
    Ok(match tag {
        " t" => Some(value.cast::<PyList>()?.to_tuple().into_any()),
        " b" => general_purpose::STANDARD
            .decode(value.cast::<PyString>()?.to_str()?)
            .ok()
            .map(|bytes| PyBytes::new(py, &bytes).into_any()),
        " m" => Some(py.import(intern!(py, "markupsafe"))?.call_method1(intern!(py, "Markup"), (value,))?),
        " u" => Some(py.import(intern!(py, "uuid"))?.call_method1(intern!(py, "UUID"), (value,))?),
        " d" => Some(
            py.import(intern!(py, "hipflask.werkzeug.http"))?
                .call_method1(intern!(py, "parse_date"), (value,))?,
        ),
        " di" => {
            let inner = value.cast::<PyDict>()?;
            let Some((key, value)) = inner.iter().next().filter(|_| inner.len() == 1) else {
                return Ok(None);
            };
            let key = key.extract::<String>()?;
            let Some(key) = key.strip_suffix("__") else { return Ok(None) };
            let dict = PyDict::new(py);
            dict.set_item(key, value)?;
            Some(dict.into_any())
        }
        _ => None,
    })
}

/// Read a session from its cookie.
///
/// Args:
///     value: The cookie's value.
///     secret_key: Text or bytes.
///     fallbacks: Further keys, which also verify, or None.
///     salt: Text or bytes.
///     max_age: The lifetime in seconds.
///     provider: The application's JSON provider.
///
/// Returns:
///     The session's items, None if the cookie is forged, expired or broken, NotImplemented if `itsdangerous` has to
///     read it.
#[pyfunction]
fn session_open<'py>(
    py: Python<'py>,
    value: &Bound<'py, PyAny>,
    secret_key: &Bound<'py, PyAny>,
    fallbacks: Option<&Bound<'py, PyAny>>,
    salt: &Bound<'py, PyAny>,
    max_age: i64,
    provider: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let odd = || py.NotImplemented().into_bound(py);
    let Ok(cookie) = value.cast::<PyString>() else { return Ok(odd()) };
    let Ok(cookie) = cookie.to_str() else { return Ok(odd()) };
    let Some(keys) = Keys::derive(secret_key, fallbacks, salt)? else { return Ok(odd()) };
    if Options::of_provider(provider)?.is_none() {
        return Ok(odd());
    }
    Ok(match open(py, &keys, cookie, now(), max_age)? {
        Opened::Data(data) => data,
        Opened::Empty => py.None().into_bound(py),
        Opened::Odd => odd(),
    })
}

/// Write a session into a cookie's value.
///
/// Args:
///     data: The session's items.
///     secret_key: Text or bytes.
///     salt: Text or bytes.
///     provider: The application's JSON provider.
///
/// Returns:
///     The value, or None if `itsdangerous` has to write it.
#[pyfunction]
fn session_seal<'py>(
    data: &Bound<'py, PyDict>,
    secret_key: &Bound<'py, PyAny>,
    salt: &Bound<'py, PyAny>,
    provider: &Bound<'py, PyAny>,
) -> PyResult<Option<String>> {
    let Some(keys) = Keys::derive(secret_key, None, salt)? else { return Ok(None) };
    let Some(options) = Options::of_provider(provider)? else { return Ok(None) };
    seal(data, &keys, now(), &options)
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(session_open, module)?)?;
    module.add_function(wrap_pyfunction!(session_seal, module)?)
}
