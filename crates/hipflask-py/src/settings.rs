//! The engine's settings by the names that users give them, each checked for its type and least value.
//!
//! `hipflask/setting_table.py` has the table for people: meaning, unit, reason. A test compares names and defaults.

use std::time::Duration;

use hipflask_http::Underscores;
use hipflask_server::{Config, EarlyHints, Exposed, IdSource, Mount, Scope};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

mod proxies;

/// What can be added to any time without an overflow.
const MOST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A field of [`Config`] that can be set from Python.
trait Field {
    /// Takes a value; one below `least` (milliseconds for a duration) is refused.
    fn take(&mut self, value: &Bound<'_, PyAny>, least: u64) -> PyResult<()>;

    /// Gives the value to Python.
    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>>;
}

fn refused<T>(why: impl Into<String>) -> PyResult<T> {
    Err(PyValueError::new_err(why.into()))
}

macro_rules! number {
    ($($kind:ty),+) => {$(
        impl Field for $kind {
            fn take(&mut self, value: &Bound<'_, PyAny>, least: u64) -> PyResult<()> {
                let number: $kind = value.extract()?;
                if (number as u64) < least {
                    return refused(format!("at least {least} is expected"));
                }
                *self = number;
                Ok(())
            }

            fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
                (*self).into_py_any(py)
            }
        }
    )+};
}

number!(usize, u64, u32);

impl Field for Duration {
    fn take(&mut self, value: &Bound<'_, PyAny>, least: u64) -> PyResult<()> {
        let time = Duration::try_from_secs_f64(value.extract()?);
        match time {
            Ok(time) if time > MOST => return refused("at most ten years are expected"),
            Ok(time) if time < Duration::from_millis(least) => {
                return refused(format!("at least {least} ms is expected"));
            }
            Ok(time) => *self = time,
            Err(error) => return refused(error.to_string()),
        }
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.as_secs_f64().into_py_any(py)
    }
}

impl Field for bool {
    fn take(&mut self, value: &Bound<'_, PyAny>, _least: u64) -> PyResult<()> {
        *self = value.extract()?;
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        (*self).into_py_any(py)
    }
}

/// Zero stands for none.
impl Field for Option<Duration> {
    fn take(&mut self, value: &Bound<'_, PyAny>, least: u64) -> PyResult<()> {
        let mut time = Duration::ZERO;
        time.take(value, least)?;
        *self = Some(time).filter(|time| !time.is_zero());
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.unwrap_or_default().as_secs_f64().into_py_any(py)
    }
}

/// The `Server` field: a hyphen stands for none, since an empty text is easily given by mistake.
impl Field for Option<String> {
    fn take(&mut self, value: &Bound<'_, PyAny>, _least: u64) -> PyResult<()> {
        let text: String = value.extract()?;
        if text.is_empty() || !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return refused("printable ASCII characters are expected");
        }
        *self = (text != "-").then_some(text);
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.as_deref().unwrap_or("-").into_py_any(py)
    }
}

impl Field for Underscores {
    fn take(&mut self, value: &Bound<'_, PyAny>, _least: u64) -> PyResult<()> {
        *self = match value.extract::<&str>()? {
            "guard" => Underscores::Guard,
            "refuse" => Underscores::Refuse,
            "keep" => Underscores::Keep,
            _ => return refused("guard, refuse or keep is expected"),
        };
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let word = match self {
            Underscores::Guard => "guard",
            Underscores::Refuse => "refuse",
            Underscores::Keep => "keep",
        };
        word.into_py_any(py)
    }
}

impl Field for EarlyHints {
    fn take(&mut self, value: &Bound<'_, PyAny>, _least: u64) -> PyResult<()> {
        *self = match value.extract::<&str>()? {
            "off" => EarlyHints::Off,
            "http2" => EarlyHints::Http2,
            "all" => EarlyHints::All,
            _ => return refused("off, http2 or all is expected"),
        };
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let word = match self {
            EarlyHints::Off => "off",
            EarlyHints::Http2 => "http2",
            EarlyHints::All => "all",
        };
        word.into_py_any(py)
    }
}

impl Field for Scope {
    fn take(&mut self, value: &Bound<'_, PyAny>, _least: u64) -> PyResult<()> {
        *self = match value.extract::<&str>()? {
            "routes" => Scope::Routes,
            "static" => Scope::Files,
            "all" => Scope::All,
            _ => return refused("routes, static or all is expected"),
        };
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let word = match self {
            Scope::Routes => "routes",
            Scope::Files => "static",
            Scope::All => "all",
        };
        word.into_py_any(py)
    }
}

impl Field for IdSource {
    fn take(&mut self, value: &Bound<'_, PyAny>, _least: u64) -> PyResult<()> {
        *self = match value.extract::<&str>()? {
            "off" => IdSource::Off,
            "generate" => IdSource::Generate,
            "trust" => IdSource::Trust,
            _ => return refused("off, generate or trust is expected"),
        };
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let word = match self {
            IdSource::Off => "off",
            IdSource::Generate => "generate",
            IdSource::Trust => "trust",
        };
        word.into_py_any(py)
    }
}

/// The name of a header field.
impl Field for String {
    fn take(&mut self, value: &Bound<'_, PyAny>, _least: u64) -> PyResult<()> {
        let text: String = value.extract()?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
            return refused("the name of a header field is expected");
        }
        *self = text;
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.into_py_any(py)
    }
}

/// What is made of a text that says which directory, and where.
trait Opened: Sized {
    fn open(text: &str) -> std::io::Result<Self>;
    fn text(&self) -> &str;
}

macro_rules! opened {
    ($($kind:ty),+) => {$(
        impl Opened for $kind {
            fn open(text: &str) -> std::io::Result<Self> {
                <$kind>::open(text)
            }

            fn text(&self) -> &str {
                <$kind>::text(self)
            }
        }
    )+};
}

opened!(Mount, Exposed);

impl Opened for String {
    fn open(text: &str) -> std::io::Result<Self> {
        Ok(text.to_owned())
    }

    fn text(&self) -> &str {
        self
    }
}

/// Several texts; None stands for no text.
impl<T: Opened> Field for Vec<T> {
    fn take(&mut self, value: &Bound<'_, PyAny>, _least: u64) -> PyResult<()> {
        let texts: Vec<String> = value.extract()?;
        match texts.iter().map(|text| T::open(text)).collect() {
            Ok(all) => *self = all,
            Err(error) => return refused(error.to_string()),
        }
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let texts: Vec<_> = self.iter().map(T::text).collect();
        if texts.is_empty() { Ok(py.None()) } else { texts.into_py_any(py) }
    }
}

/// Makes the table: name, field, least value.
macro_rules! settings {
    ($($name:literal => $($field:ident).+, $least:literal;)+) => {
        const NAMES: &[&str] = &[$($name),+];

        fn field<'c>(config: &'c mut Config, name: &str) -> Option<(&'c mut dyn Field, u64)> {
            match name {
                $($name => Some((&mut config.$($field).+, $least)),)+
                _ => None,
            }
        }
    };
}

settings! {
    "grace" => grace, 0;
    "threads" => threads, 1;
    "stuck_threads" => stuck_threads, 0;
    "request_timeout" => request_timeout, 0;
    "slow_request" => slow_request, 0;
    "queue" => queue, 1;
    "max_connections" => max_connections, 1;
    "max_connections_per_address" => max_per_address, 0;
    "http2" => http2, 0;
    "http2_streams" => http2_streams, 1;
    "early_hints" => early_hints, 0;
    "handshake_timeout" => timeouts.handshake, 1;
    "hsts" => hsts, 0;
    "header_timeout" => timeouts.header, 1;
    "body_timeout" => timeouts.body, 1;
    "body_rate" => timeouts.body_rate, 1;
    "idle_timeout" => timeouts.idle, 1;
    "write_timeout" => timeouts.write, 1;
    "write_rate" => timeouts.write_rate, 1;
    "linger_timeout" => timeouts.linger, 0;
    "last_call" => timeouts.last_call, 0;
    "max_request_line" => limits.request_line, 16;
    "max_method" => limits.method, 3;
    "max_field" => limits.field, 16;
    "max_fields" => limits.fields, 1;
    "max_head" => limits.head, 64;
    "max_empty_lines" => limits.empty_lines, 0;
    "max_body" => limits.body, 0;
    "max_chunk_extensions" => limits.chunk_ext, 0;
    "max_trailers" => limits.trailers, 0;
    "max_trailer_fields" => limits.trailer_fields, 0;
    "buffer_body" => buffer_body, 0;
    "buffer_bodies" => buffer_bodies, 0;
    "spool_bodies" => spool_bodies, 0;
    "drain_body" => drain_body, 0;
    "utf8_target" => limits.utf8_target, 0;
    "underscores" => limits.underscores, 0;
    "compression" => compression.scope, 0;
    "compression_min" => compression.least, 0;
    "compression_cache" => compression.kept, 0;
    "mount" => files.mounts, 0;
    "mount_index" => files.index, 0;
    "immutable" => files.immutable, 0;
    "sendfile" => files.exposed, 0;
    "precompressed" => files.precompressed, 0;
    "server_timing" => server_timing, 0;
    "request_id" => request_id.source, 0;
    "request_id_header" => request_id.field, 0;
    "server_header" => server_name, 0;
    "trusted_proxies" => trusted_proxies, 0;
    "forwarded_headers" => forwarded_headers, 0;
    "proxy_protocol" => proxy_protocol, 0;
    "proxy_protocol_from" => proxy_protocol_from, 0;
    "root_path" => root_path, 0;
}

/// Sets what a dictionary says.
pub(crate) fn apply(config: &mut Config, settings: &Bound<'_, PyDict>) -> PyResult<()> {
    for (key, value) in settings {
        let name: String = key.extract()?;
        let Some((field, least)) = field(config, &name) else {
            return refused(format!("the engine has no setting {name:?}"));
        };
        field.take(&value, least).map_err(|error| {
            let why = error.value(value.py()).to_string();
            PyValueError::new_err(format!("{name}: {why}"))
        })?;
    }
    Ok(())
}

/// The engine's settings with their defaults.
#[pyfunction]
fn engine_settings(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let mut config = Config::default();
    let defaults = PyDict::new(py);
    for name in NAMES {
        if let Some((field, _)) = field(&mut config, name) {
            defaults.set_item(name, field.show(py)?)?;
        }
    }
    Ok(defaults)
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(engine_settings, module)?)
}
