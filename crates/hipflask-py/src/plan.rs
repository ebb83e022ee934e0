//! What an app needs per request, found out once: its lane, its tables of hooks, what its answers look like.
//!
//! Compiled when the app first serves. Tables that an app may still change (hooks, view functions, configuration) are
//! held as the live dictionaries themselves and looked up per request, so that no change is missed; what decides the
//! lane (overridden methods, replaced `wsgi_app`) is fixed from then on, as Flask's set-up methods are.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use hipflask_http::RequestHead;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyType};

use crate::cookie_session::CookieSessions;
use crate::ensured::Ensured;
use crate::json;

/// The methods of `Flask` that the fast lane stands in for. An app that overrides one gets the full lane, where each
/// is called exactly as Flask calls it.
const STOOD_IN_FOR: [&str; 16] = [
    "__call__",
    "wsgi_app",
    "request_context",
    "app_context",
    "create_url_adapter",
    "full_dispatch_request",
    "preprocess_request",
    "dispatch_request",
    "raise_routing_exception",
    "make_default_options_response",
    "ensure_sync",
    "finalize_request",
    "make_response",
    "process_response",
    "do_teardown_request",
    "do_teardown_appcontext",
];

/// How requests reach the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Natively.
    Fast,
    /// Through `app(environ, start_response)`, for this reason.
    Full(String),
}

/// An app, compiled.
pub(crate) struct Plan {
    pub(crate) app: Py<PyAny>,
    pub(crate) lane: Lane,
    pub(crate) hooks: Option<Hooks>,
    /// Whether it is a Flask app.
    pub(crate) is_flask: bool,
}

/// The live tables of a Flask app in the fast lane.
pub(crate) struct Hooks {
    pub(crate) request_class: Py<PyType>,
    pub(crate) view_functions: Py<PyDict>,
    pub(crate) url_value_preprocessors: Py<PyDict>,
    pub(crate) before_request: Py<PyDict>,
    pub(crate) after_request: Py<PyDict>,
    pub(crate) after_response: Py<PyDict>,
    pub(crate) teardown_request: Py<PyDict>,
    pub(crate) teardown_appcontext: Py<PyList>,
    pub(crate) config: Py<PyDict>,
    /// Whether a view's text becomes a `hipflask.Response` with its defaults.
    pub(crate) plain_responses: bool,
    /// The class of responses that are written natively; one that overrides how it becomes WSGI is asked instead.
    pub(crate) response_class: Py<PyType>,
    /// There if sessions are the signed cookies of `SecureCookieSessionInterface`: then a request without the cookie
    /// needs no session until somebody asks for it.
    pub(crate) cookie_sessions: Option<Arc<CookieSessions>>,
    pub(crate) signals: Signals,
    pub(crate) ensured: Ensured,
    /// Whether coroutine views run on the process's event loop; not if the app runs coroutines in a way of its own.
    pub(crate) has_later: bool,
    json: OnceLock<StockJson>,
}

/// The settings of an app's JSON provider, while it is Flask's own and nothing was set on it.
struct StockJson {
    sort_keys: bool,
    ensure_ascii: bool,
    default: Option<Py<PyAny>>,
    flask_default: bool,
    compact: Option<bool>,
}

/// The signals that the dispatcher sends, once somebody has asked `hipflask.signals` for one.
pub(crate) struct Signals {
    /// `hipflask.signals._made`: those that exist.
    made: PyOnceLock<Py<PyDict>>,
    found: PyOnceLock<Found>,
}

/// Each signal with its receivers.
type Found = [(Py<PyAny>, Py<PyDict>); Signal::COUNT];

/// Which signal. Those of teardown are sent by `do_teardown_request` and `do_teardown_appcontext`.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "the places in the table count")]
pub(crate) enum Signal {
    AppcontextPushed,
    RequestStarted,
    RequestFinished,
    RequestTearingDown,
    AppcontextTearingDown,
    AppcontextPopped,
}

impl Signal {
    const COUNT: usize = 6;
    const NAMES: [&'static str; Self::COUNT] = [
        "appcontext_pushed",
        "request_started",
        "request_finished",
        "request_tearing_down",
        "appcontext_tearing_down",
        "appcontext_popped",
    ];
}

impl Signals {
    pub(crate) fn new() -> Self {
        Self { made: PyOnceLock::new(), found: PyOnceLock::new() }
    }

    /// Whether anybody listens to any of them.
    ///
    /// Blinker is imported only by those who connect to a signal: while there is none, nobody listens.
    pub(crate) fn any_heard(&self, py: Python<'_>) -> PyResult<bool> {
        let all = self.all(py)?;
        Ok(all.is_some_and(|all| all.iter().any(|(_, receivers)| !receivers.bind(py).is_empty())))
    }

    /// The signal, if anybody listens.
    pub(crate) fn heard<'py>(&self, py: Python<'py>, which: Signal) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(all) = self.all(py)? else { return Ok(None) };
        let (signal, receivers) = &all[which as usize];
        Ok((!receivers.bind(py).is_empty()).then(|| signal.bind(py).clone()))
    }

    fn all(&self, py: Python<'_>) -> PyResult<Option<&Found>> {
        if let Some(all) = self.found.get(py) {
            return Ok(Some(all));
        }
        if self.made.get(py).is_some_and(|made| made.bind(py).is_empty()) {
            return Ok(None);
        }
        let Some(module) = loaded_module(py, intern!(py, "hipflask.signals"))? else { return Ok(None) };
        // A module that is still being imported has not all of its names yet.
        let Ok(made) = module.getattr(intern!(py, "_made")) else { return Ok(None) };
        let made = made.cast_into::<PyDict>()?.unbind();
        if self.made.get_or_init(py, || made).bind(py).is_empty() {
            return Ok(None);
        }
        let mut found = Vec::with_capacity(Signal::COUNT);
        for name in Signal::NAMES {
            let Ok(signal) = module.getattr(name) else { return Ok(None) };
            let receivers = signal.getattr(intern!(py, "receivers"))?.cast_into::<PyDict>()?;
            found.push((signal.unbind(), receivers.unbind()));
        }
        let Ok(found) = <[_; Signal::COUNT]>::try_from(found) else { return Ok(None) };
        Ok(Some(self.found.get_or_init(py, || found)))
    }
}

/// A module, if somebody has imported it.
pub(crate) fn loaded_module<'py>(
    py: Python<'py>,
    name: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let modules = MODULES.get_or_try_init(py, || {
        PyResult::Ok(py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?.unbind())
    })?;
    modules.bind(py).get_item(name)
}

impl Plan {
    /// Finds out how `app` is to be served.
    pub(crate) fn compile(app: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = app.py();
        let flask =
            py.import(intern!(py, "hipflask.app"))?.getattr(intern!(py, "Flask"))?.cast_into::<PyType>()?;
        if !app.is_instance(&flask)? {
            return Ok(Self {
                app: app.clone().unbind(),
                lane: Lane::Full("not a Flask app, but a WSGI callable".to_owned()),
                hooks: None,
                is_flask: false,
            });
        }
        let lane = match reason_for_full_lane(app, &flask)? {
            Some(reason) => Lane::Full(reason),
            None => Lane::Fast,
        };
        let hooks = (lane == Lane::Fast).then(|| Hooks::new(app)).transpose()?;
        Ok(Self { app: app.clone().unbind(), lane, hooks, is_flask: true })
    }

    /// Whether it is a Flask app whose rules are found by their paths alone.
    pub(crate) fn matches_by_path(&self, app: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = app.py();
        Ok(self.is_flask
            && !app.getattr(intern!(py, "subdomain_matching"))?.is_truthy()?
            && !app.getattr(intern!(py, "url_map"))?.getattr(intern!(py, "host_matching"))?.is_truthy()?)
    }
}

/// Why the fast lane cannot stand in for this app's methods, if it cannot.
fn reason_for_full_lane(app: &Bound<'_, PyAny>, flask: &Bound<'_, PyType>) -> PyResult<Option<String>> {
    let py = app.py();
    let class = app.get_type();
    let own = app.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
    for name in STOOD_IN_FOR {
        if own.contains(name)? {
            return Ok(Some(match name {
                "wsgi_app" => "app.wsgi_app is wrapped by middleware".to_owned(),
                _ => format!("app.{name} is replaced"),
            }));
        }
        if !class.getattr(name)?.is(flask.getattr(name)?) {
            return Ok(Some(format!("{} overrides {name}", class.name()?)));
        }
    }
    let map = app.getattr(intern!(py, "url_map"))?;
    if map.getattr(intern!(py, "host_matching"))?.is_truthy()? {
        return Ok(Some("rules match by host".to_owned()));
    }
    if app.getattr(intern!(py, "subdomain_matching"))?.is_truthy()? {
        return Ok(Some("rules match by subdomain".to_owned()));
    }
    Ok(None)
}

impl Hooks {
    pub(crate) fn new(app: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = app.py();
        let dict =
            |name: &Bound<'_, PyString>| PyResult::Ok(app.getattr(name)?.cast_into::<PyDict>()?.unbind());
        let response_class = app.getattr(intern!(py, "response_class"))?.cast_into::<PyType>()?;
        let stock_response = py.import(intern!(py, "hipflask.wrappers"))?.getattr(intern!(py, "Response"))?;
        let interface = app.getattr(intern!(py, "session_interface"))?;
        let flask = py.import(intern!(py, "hipflask.app"))?.getattr(intern!(py, "Flask"))?;
        let own = app.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
        Ok(Self {
            request_class: app.getattr(intern!(py, "request_class"))?.cast_into::<PyType>()?.unbind(),
            view_functions: dict(intern!(py, "view_functions"))?,
            url_value_preprocessors: dict(intern!(py, "url_value_preprocessors"))?,
            before_request: dict(intern!(py, "before_request_funcs"))?,
            after_request: dict(intern!(py, "after_request_funcs"))?,
            after_response: dict(intern!(py, "after_response_funcs"))?,
            teardown_request: dict(intern!(py, "teardown_request_funcs"))?,
            teardown_appcontext: app
                .getattr(intern!(py, "teardown_appcontext_funcs"))?
                .cast_into::<PyList>()?
                .unbind(),
            config: dict(intern!(py, "config"))?,
            plain_responses: response_class.is(&stock_response),
            response_class: response_class.unbind(),
            cookie_sessions: CookieSessions::of(&interface)?.map(Arc::new),
            signals: Signals::new(),
            ensured: Ensured::default(),
            has_later: !own.contains(intern!(py, "async_to_sync"))?
                && app
                    .get_type()
                    .getattr(intern!(py, "async_to_sync"))?
                    .is(flask.getattr(intern!(py, "async_to_sync"))?),
            json: OnceLock::new(),
        })
    }

    /// Whether no function is registered to run before or after a view.
    pub(crate) fn has_no_functions(&self, py: Python<'_>) -> bool {
        let tables = [
            &self.url_value_preprocessors,
            &self.before_request,
            &self.after_request,
            &self.after_response,
            &self.teardown_request,
        ];
        tables.iter().all(|table| table.bind(py).is_empty()) && self.teardown_appcontext.bind(py).is_empty()
    }

    /// How this app writes a JSON response; `None` if its provider does so in a way of its own.
    ///
    /// Settings are looked up per response once somebody has set one on the provider; until then those of its class,
    /// as they were at first, hold.
    pub(crate) fn json_options<'py>(&self, app: &Bound<'py, PyAny>) -> PyResult<Option<json::Options<'py>>> {
        let py = app.py();
        let provider = app.getattr(intern!(py, "json"))?;
        let debug = match self.config.bind(py).get_item(intern!(py, "DEBUG"))? {
            Some(debug) => debug.is_truthy()?,
            None => false,
        };
        let stock = provider.get_type().is(json::default_provider(py)?)
            && provider.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?.len() == 1;
        if !stock {
            let kind = provider.getattr_opt(intern!(py, "mimetype"))?;
            let is_plain =
                kind.is_some_and(|kind| kind.cast::<PyString>().is_ok_and(|kind| kind == "application/json"));
            return if is_plain { json::Options::of_response(&provider, debug) } else { Ok(None) };
        }
        let settings = match self.json.get() {
            Some(settings) => settings,
            None => {
                let Some(options) = json::Options::of_provider(&provider)? else { return Ok(None) };
                let compact = provider.getattr(intern!(py, "compact"))?;
                let compact = if compact.is_none() { None } else { Some(compact.is_truthy()?) };
                self.json.get_or_init(|| StockJson {
                    sort_keys: options.sort_keys,
                    ensure_ascii: options.ensure_ascii,
                    default: options.default.map(Bound::unbind),
                    flask_default: options.flask_default,
                    compact,
                })
            }
        };
        let pretty = !settings.compact.unwrap_or(!debug);
        Ok(Some(json::Options {
            sort_keys: settings.sort_keys,
            ensure_ascii: settings.ensure_ascii,
            item: Cow::Borrowed(","),
            key: Cow::Borrowed(if pretty { ": " } else { ":" }),
            indent: pretty.then_some(Cow::Borrowed("  ")),
            default: settings.default.as_ref().map(|default| default.bind(py).clone()),
            flask_default: settings.flask_default,
        }))
    }

    /// Whether a request has a cookie of the session's name. May be wrong in the direction of true.
    pub(crate) fn has_session_cookie(&self, py: Python<'_>, head: &RequestHead) -> PyResult<bool> {
        let Some(cookies) = head.field(b"cookie") else { return Ok(false) };
        let Some(name) = self.config.bind(py).get_item(intern!(py, "SESSION_COOKIE_NAME"))? else {
            return Ok(false);
        };
        let name = name.cast::<PyString>()?.to_str()?;
        // A second Cookie field is rare (RFC 6265 §5.4 forbids it to browsers): then Python looks.
        Ok(memchr::memmem::find(cookies, name.as_bytes()).is_some()
            || head.field_values(b"cookie").nth(1).is_some())
    }
}

/// Tells the lane in which an app would be served now, and why.
///
/// Returns:
///     ``("fast", "")`` or ``("full", reason)``.
#[pyfunction]
fn lane_of(app: &Bound<'_, PyAny>) -> PyResult<(&'static str, String)> {
    Ok(match Plan::compile(app)?.lane {
        Lane::Fast => ("fast", String::new()),
        Lane::Full(reason) => ("full", reason),
    })
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(lane_of, module)?)
}
