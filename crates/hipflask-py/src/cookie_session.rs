//! Opens a session of Flask's default kind, and saves it as two header fields, without a response object.
//!
//! Does what `open_session` and `save_session` of `SecureCookieSessionInterface` do for the common settings. Whatever is uncommon (a deleted
//! session, a cookie for a domain, a value that Python's serializer has to write, a cookie near the size limit) is left
//! to those methods, which are the reference.

use std::sync::{Arc, Mutex};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDelta, PyDeltaAccess, PyDict, PyInt, PyList, PyString, PyType};

use crate::json::Options;
use crate::plan::loaded_module;
use crate::request::RequestBase;
use crate::session::{self, Keys, Opened};
use crate::{locked, put};

/// A cookie longer than this, attributes included, goes through Python, which warns about it in time.
const LONG: usize = 3800;

/// What the session asks of the response.
pub(crate) enum Saving {
    /// These fields.
    Fields {
        /// Whether the response depends on the cookie.
        vary: bool,
        /// The value of `Set-Cookie`.
        cookie: Option<String>,
    },
    /// Something that `save_session` has to do.
    Python,
}

/// Saves the sessions of one app.
pub(crate) struct CookieSessions {
    interface: Py<PyAny>,
    session_class: Py<PyType>,
    null_class: Py<PyType>,
    /// What notes that a session was changed.
    on_update: Py<PyAny>,
    /// The tags of the shared serializer, and how many they were when they were found to be Flask's.
    known_tags: Mutex<Option<(Py<PyList>, usize)>>,
    keys: Mutex<Option<Derived>>,
}

/// Signing keys, and what they were derived from.
struct Derived {
    secret: Py<PyAny>,
    keys: Arc<Keys>,
}

impl CookieSessions {
    /// For an app's session interface. `None` if it is not exactly Flask's default one.
    pub(crate) fn of(interface: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let py = interface.py();
        let sessions = py.import(intern!(py, "hipflask.sessions"))?;
        if !interface.get_type().is(&sessions.getattr(intern!(py, "SecureCookieSessionInterface"))?) {
            return Ok(None);
        }
        Ok(Some(Self {
            interface: interface.clone().unbind(),
            session_class: sessions.getattr(intern!(py, "SecureCookieSession"))?.cast_into()?.unbind(),
            null_class: sessions.getattr(intern!(py, "NullSession"))?.cast_into()?.unbind(),
            on_update: sessions.getattr(intern!(py, "_mark_modified"))?.unbind(),
            known_tags: Mutex::new(None),
            keys: Mutex::new(None),
        }))
    }

    /// What `open_session` returns; `None` where it has to be asked.
    pub(crate) fn open<'py>(
        &self,
        app: &Bound<'py, PyAny>,
        request: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = app.py();
        let interface = self.interface.bind(py);
        if !app.getattr(intern!(py, "session_interface"))?.is(interface)
            || !interface.getattr(intern!(py, "session_class"))?.is(&self.session_class)
            || !self.is_stock(py)?
        {
            return Ok(None);
        }
        let (Ok(config), Ok(request)) =
            (app.getattr(intern!(py, "config"))?.cast_into::<PyDict>(), request.cast::<RequestBase>())
        else {
            return Ok(None);
        };
        let Some(name) = config.get_item(intern!(py, "SESSION_COOKIE_NAME"))? else { return Ok(None) };
        let Ok(name) = name.cast_into::<PyString>() else { return Ok(None) };
        match config.get_item(intern!(py, "SECRET_KEY"))? {
            Some(secret) if secret.is_truthy()? => {}
            _ => return Ok(None),
        }
        let cookie = match RequestBase::cookie(request, &name)? {
            Some(cookie) if !cookie.is_empty() => cookie,
            _ => return self.made(py, None).map(Some),
        };
        let (Some(max_age), Some(keys)) = (lifetime(&config)?, self.all_keys(&config)?) else {
            return Ok(None);
        };
        if Options::of_provider(&app.getattr(intern!(py, "json"))?)?.is_none() {
            return Ok(None);
        }
        Ok(match session::open(py, &keys, &cookie, session::now(), max_age)? {
            Opened::Data(data) => match data.cast_into::<PyDict>() {
                Ok(data) => Some(self.made(py, Some(&data))?),
                Err(_) => None,
            },
            Opened::Empty => Some(self.made(py, None)?),
            Opened::Odd => None,
        })
    }

    /// A `SecureCookieSession`, as its constructor makes it.
    fn made<'py>(&self, py: Python<'py>, data: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
        let class = self.session_class.bind(py);
        let made = class.call_method1(intern!(py, "__new__"), (class,))?;
        if let Some(data) = data {
            made.cast::<PyDict>()?.update(data.as_mapping())?;
        }
        made.setattr(intern!(py, "on_update"), &self.on_update)?;
        Ok(made)
    }

    /// The keys that verify.
    fn all_keys(&self, config: &Bound<'_, PyDict>) -> PyResult<Option<Arc<Keys>>> {
        let py = config.py();
        match config.get_item(intern!(py, "SECRET_KEY_FALLBACKS"))? {
            Some(fallbacks) if fallbacks.is_truthy()? => {
                let Some(secret) = config.get_item(intern!(py, "SECRET_KEY"))? else { return Ok(None) };
                let salt = intern!(py, "cookie-session");
                Ok(Keys::derive(&secret, Some(&fallbacks), salt.as_any())?.map(Arc::new))
            }
            _ => self.keys(config),
        }
    }

    /// What saving `session` asks of the response.
    pub(crate) fn save<'py>(
        &self,
        session: &Bound<'py, PyAny>,
        config: &Bound<'py, PyDict>,
        options: Option<&Options<'py>>,
    ) -> PyResult<Saving> {
        let py = session.py();
        let class = session.get_type();
        if class.is(&self.null_class) {
            return Ok(Saving::Fields { vary: false, cookie: None });
        }
        if !class.is(&self.session_class) || !self.is_stock(py)? {
            return Ok(Saving::Python);
        }
        let items = session.cast::<PyDict>()?;
        let modified = session.getattr(intern!(py, "modified"))?.is_truthy()?;
        let vary = session.getattr(intern!(py, "accessed"))?.is_truthy()?;
        if items.is_empty() {
            // One that was emptied is deleted, by Python.
            return Ok(if modified { Saving::Python } else { Saving::Fields { vary, cookie: None } });
        }
        let flag = |name: &Bound<'py, PyString>| match config.get_item(name)? {
            Some(value) => value.is_truthy(),
            None => Ok(false),
        };
        let permanent = match items.get_item(intern!(py, "_permanent"))? {
            Some(permanent) => permanent.is_truthy()?,
            None => false,
        };
        if !(modified || permanent && flag(intern!(py, "SESSION_REFRESH_EACH_REQUEST"))?) {
            return Ok(Saving::Fields { vary, cookie: None });
        }
        let (Some(options), Some(attributes)) = (options, Attributes::of(config)?) else {
            return Ok(Saving::Python);
        };
        let Some(keys) = self.keys(config)? else { return Ok(Saving::Python) };
        let now = session::now();
        // A copy of the exact type `dict` is what the writer knows.
        let Some(value) = session::seal(&items.copy()?, &keys, now, options)? else {
            return Ok(Saving::Python);
        };
        let expires = match permanent {
            true => match lifetime(config)? {
                Some(lifetime) => Some(now + lifetime),
                None => return Ok(Saving::Python),
            },
            false => None,
        };
        let cookie = attributes.cookie(&value, expires);
        Ok(if cookie.len() > LONG {
            Saving::Python
        } else {
            Saving::Fields { vary: true, cookie: Some(cookie) }
        })
    }

    /// Whether nobody has set anything on the interface, and no tag was added to the serializer.
    fn is_stock(&self, py: Python<'_>) -> PyResult<bool> {
        let interface = self.interface.bind(py);
        if !interface.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?.is_empty() {
            return Ok(false);
        }
        if loaded_module(py, intern!(py, "hipflask.json.tag"))?.is_none() {
            return Ok(true);
        }
        // Whoever has loaded the tags may have registered one more with the shared serializer.
        let sessions = py.import(intern!(py, "hipflask.sessions"))?;
        let Some(serializer) = sessions.dict().get_item(intern!(py, "session_json_serializer"))? else {
            return Ok(true);
        };
        let Ok(tags) = serializer.getattr(intern!(py, "order"))?.cast_into::<PyList>() else {
            return Ok(false);
        };
        let known = locked(&self.known_tags);
        if known.as_ref().is_some_and(|(list, length)| tags.is(list) && tags.len() == *length) {
            return Ok(true);
        }
        drop(known);
        if !interface.call_method0(intern!(py, "_signs_natively"))?.is_truthy()? {
            return Ok(false);
        }
        let length = tags.len();
        let mut known = locked(&self.known_tags);
        let old = known.replace((tags.unbind(), length));
        drop(known);
        drop(old);
        Ok(true)
    }

    /// The keys of the app, derived anew whenever its secret key is another object.
    fn keys(&self, config: &Bound<'_, PyDict>) -> PyResult<Option<Arc<Keys>>> {
        let py = config.py();
        let Some(secret) = config.get_item(intern!(py, "SECRET_KEY"))? else { return Ok(None) };
        let derived = locked(&self.keys);
        if let Some(known) = &*derived
            && known.secret.is(&secret)
        {
            return Ok(Some(Arc::clone(&known.keys)));
        }
        // Reading the secret may run Python; two threads may derive the same keys.
        drop(derived);
        // Only the secret key signs; the fallbacks verify.
        let salt = PyString::intern(py, "cookie-session");
        let Some(keys) = Keys::derive(&secret, None, salt.as_any())? else { return Ok(None) };
        let keys = Arc::new(keys);
        put(&self.keys, Some(Derived { secret: secret.unbind(), keys: Arc::clone(&keys) }));
        Ok(Some(keys))
    }
}

/// How many seconds a session lasts; `None` if the setting is none that we know.
fn lifetime(config: &Bound<'_, PyDict>) -> PyResult<Option<i64>> {
    let Some(lifetime) = config.get_item(intern!(config.py(), "PERMANENT_SESSION_LIFETIME"))? else {
        return Ok(None);
    };
    Ok(match lifetime.cast::<PyDelta>() {
        Ok(lifetime) => Some(i64::from(lifetime.get_days()) * 86_400 + i64::from(lifetime.get_seconds())),
        Err(_) => match lifetime.is_exact_instance_of::<PyInt>() {
            true => lifetime.extract().ok(),
            false => None,
        },
    })
}

/// The cookie's attributes, from the app's configuration.
struct Attributes<'py> {
    name: Bound<'py, PyString>,
    path: Bound<'py, PyString>,
    secure: bool,
    http_only: bool,
    same_site: Option<&'static str>,
    partitioned: bool,
}

impl<'py> Attributes<'py> {
    /// `None` where a value needs quoting, checking or a domain.
    fn of(config: &Bound<'py, PyDict>) -> PyResult<Option<Self>> {
        let py = config.py();
        let get = |name: &Bound<'py, PyString>| {
            PyResult::Ok(config.get_item(name)?.filter(|value| !value.is_none()))
        };
        let flag = |name: &Bound<'py, PyString>| get(name)?.map_or(Ok(false), |value| value.is_truthy());
        if get(intern!(py, "SESSION_COOKIE_DOMAIN"))?.is_some() {
            return Ok(None);
        }
        let path = match get(intern!(py, "SESSION_COOKIE_PATH"))? {
            Some(path) if path.is_truthy()? => Some(path),
            _ => get(intern!(py, "APPLICATION_ROOT"))?,
        };
        let (Some(name), Some(path)) = (get(intern!(py, "SESSION_COOKIE_NAME"))?, path) else {
            return Ok(None);
        };
        let (Ok(name), Ok(path)) = (name.cast_into_exact::<PyString>(), path.cast_into_exact::<PyString>())
        else {
            return Ok(None);
        };
        let same_site = match get(intern!(py, "SESSION_COOKIE_SAMESITE"))? {
            None => None,
            Some(value) => match value.cast::<PyString>().ok().and_then(|text| text.to_str().ok()) {
                Some("Lax") => Some("Lax"),
                Some("Strict") => Some("Strict"),
                Some("None") => Some("None"),
                _ => return Ok(None),
            },
        };
        let plain = |text: &str, also: &[u8]| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
        };
        if !plain(name.to_str()?, b"-_") || !plain(path.to_str()?, b"/-_") {
            return Ok(None);
        }
        Ok(Some(Self {
            name,
            path,
            secure: flag(intern!(py, "SESSION_COOKIE_SECURE"))?,
            http_only: flag(intern!(py, "SESSION_COOKIE_HTTPONLY"))?,
            same_site,
            partitioned: flag(intern!(py, "SESSION_COOKIE_PARTITIONED"))?,
        }))
    }

    /// The value of `Set-Cookie`, its attributes in the order of Werkzeug's `dump_cookie`.
    fn cookie(&self, value: &str, expires: Option<i64>) -> String {
        let mut out = String::with_capacity(value.len() + 128);
        out.push_str(&self.name.to_string_lossy());
        out.push('=');
        out.push_str(value);
        if let Some(expires) = expires {
            out.push_str("; Expires=");
            out.push_str(&String::from_utf8_lossy(&hipflask_http::date::format(expires)));
        }
        // A partitioned cookie has to be a secure one (CHIPS).
        if self.secure || self.partitioned {
            out.push_str("; Secure");
        }
        if self.http_only {
            out.push_str("; HttpOnly");
        }
        out.push_str("; Path=");
        out.push_str(&self.path.to_string_lossy());
        if let Some(same_site) = self.same_site {
            out.push_str("; SameSite=");
            out.push_str(same_site);
        }
        if self.partitioned {
            out.push_str("; Partitioned");
        }
        out
    }
}
