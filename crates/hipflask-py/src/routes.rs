//! The engine's side of an app's URL map: finds rules detached, and remembers how long each one's view takes.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hipflask_http::RequestHead;
use hipflask_router::{Found, Outcome, Refusal, Value};
use hipflask_server::{Compressible, FileReply, Lane, Root, RouteHistory};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};

use crate::plan::Hooks;
use crate::router::{MapBase, Snapshot};
use crate::unattended::{Unattended, static_root};

/// Counts what set-up methods and changed settings have done, in all apps of the process.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Tell the engine that an app's set-up or a setting has changed.
#[pyfunction]
fn app_changed() {
    CHANGES.fetch_add(1, Ordering::AcqRel);
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(app_changed, module)?)
}

/// A compiled URL map, with what the engine learns about its rules.
pub(crate) struct Routes {
    /// What `CHANGES` was before anything was looked up.
    changes: u64,
    /// Which compilation of the map this is.
    generation: u64,
    snapshot: Arc<Snapshot>,
    /// Whether the app may be left out of an answer.
    pub(crate) unattended: Unattended,
    rules: Vec<Known>,
    /// Whether any view runs on the event loop.
    pub(crate) has_later: bool,
    /// What pages of a single-page application are answered with.
    fallback: Option<(Arc<Root>, String)>,
    /// The subdomain that every request is taken to be for.
    domain: String,
}

/// What `hipflask.limits.RouteLimits` says about a rule.
#[derive(Default)]
struct Limits {
    timeout: Option<Duration>,
    max_body: Option<u64>,
    inline: Option<bool>,
}

impl Limits {
    fn of(rule: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = rule.py();
        let Some(limits) = rule.getattr_opt(intern!(py, "limits"))? else { return Ok(Self::default()) };
        let timeout: Option<f64> = limits.getattr(intern!(py, "timeout"))?.extract()?;
        Ok(Self {
            // Checked by the class.
            timeout: timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            max_body: limits.getattr(intern!(py, "max_body"))?.extract()?,
            inline: limits.getattr(intern!(py, "inline"))?.extract()?,
        })
    }
}

/// The app's `MAX_CONTENT_LENGTH`: longer bodies are not read before the view, which alone can say that it wants more.
pub(crate) fn max_content_length(app: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    let py = app.py();
    let Some(config) = app.getattr_opt(intern!(py, "config"))? else { return Ok(None) };
    match config.call_method1(intern!(py, "get"), (intern!(py, "MAX_CONTENT_LENGTH"),)) {
        // What is no number is for the request to complain about.
        Ok(most) => Ok(most.extract().unwrap_or(None)),
        Err(_) => Ok(None),
    }
}

/// Whether any rule of an app has limits of its own.
pub(crate) fn has_limits(app: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = app.py();
    for rule in app.getattr(intern!(py, "url_map"))?.call_method0(intern!(py, "iter_rules"))?.try_iter()? {
        if rule?.getattr_opt(intern!(py, "limits"))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is kept about one rule.
struct Known {
    history: Arc<RouteHistory>,
    /// For WebSockets, which outlive the call of their view.
    handshake: Arc<RouteHistory>,
    automatic_options: bool,
    /// Most bytes of a body, if the rule says so.
    max_body: Option<u64>,
    /// The folder, if the view is Flask's own for static files.
    files: Option<Arc<Root>>,
}

/// What routing found without the interpreter.
pub(crate) enum Route {
    /// A view.
    Matched(Matched),
    /// A static file.
    File(FileReply),
    /// Nothing.
    NotFound,
    /// Rules for other methods only; the value of `Allow`.
    MethodNotAllowed(String),
    /// Only Python can tell: a redirect, a rule with a default redirect or an alias, a user's converter.
    Ask,
}

/// A rule that a request matched.
pub(crate) struct Matched {
    routes: Arc<Routes>,
    found: Found<'static>,
}

impl Routes {
    /// Compiles an app's map.
    pub(crate) fn of(app: &Bound<'_, PyAny>, hooks: &Hooks) -> PyResult<Self> {
        let py = app.py();
        let changes = CHANGES.load(Ordering::Acquire);
        let map = app.getattr(intern!(py, "url_map"))?;
        let domain: Option<String> = map.getattr(intern!(py, "default_subdomain"))?.extract()?;
        let map = map.cast::<MapBase>()?;
        let snapshot = MapBase::snapshot(map)?;
        // Were rules added just now, by another thread, then this is out of date and made again for the next request.
        let generation = map.get().generation().unwrap_or(u64::MAX);
        let views = app.getattr(intern!(py, "view_functions"))?.cast_into::<PyDict>()?;
        let ahead = max_content_length(app)?;
        let mut types = None;
        let mut has_later = false;
        let is_coroutine =
            py.import(intern!(py, "hipflask.app"))?.getattr(intern!(py, "_is_coroutine_view"))?;
        let rules = (0..snapshot.len())
            .map(|rule| {
                let automatic_options = match snapshot.rule(rule) {
                    Some(rule) => {
                        match rule.bind(py).getattr_opt(intern!(py, "provide_automatic_options"))? {
                            Some(flag) => flag.is_truthy()?,
                            None => false,
                        }
                    }
                    None => false,
                };
                let view =
                    snapshot.endpoint(rule).map(|endpoint| views.get_item(endpoint)).transpose()?.flatten();
                let files = match &view {
                    Some(view) => static_root(app, view, &mut types)?,
                    None => None,
                };
                let takes_stream = match &view {
                    Some(view) => view.getattr_opt(intern!(py, "streams_request_body"))?.is_some(),
                    None => false,
                };
                let is_later = match view {
                    Some(view) if hooks.has_later => is_coroutine.call1((view,))?.is_truthy()?,
                    _ => false,
                };
                has_later |= is_later;
                let compressible = match (&files, snapshot.rule(rule)) {
                    (Some(_), _) => Compressible::File,
                    (None, Some(rule)) => match rule.bind(py).getattr_opt(intern!(py, "compress"))? {
                        Some(wish) => compressible(&wish),
                        None => Compressible::Maybe,
                    },
                    (None, None) => Compressible::Maybe,
                };
                let limits = match snapshot.rule(rule) {
                    Some(rule) => Limits::of(rule.bind(py))?,
                    None => Limits::default(),
                };
                let history = match (is_later, takes_stream) {
                    (true, true) => RouteHistory::later_with_stream(),
                    (true, false) => RouteHistory::later(),
                    (false, _) => RouteHistory::new(limits.inline),
                }
                .compressing(compressible);
                let history = match limits.timeout {
                    Some(timeout) => history.within(timeout),
                    None => history,
                };
                let history = match ahead {
                    Some(most) => history.collecting(most),
                    None => history,
                };
                let (history, handshake) = match snapshot.rule(rule) {
                    Some(rule) => {
                        let name = rule.bind(py).getattr(intern!(py, "rule"))?;
                        let name = name.extract()?;
                        (history.named(name), RouteHistory::later().named(name))
                    }
                    None => (history, RouteHistory::later()),
                };
                let (history, handshake) = (Arc::new(history), Arc::new(handshake));
                Ok(Known { history, handshake, automatic_options, max_body: limits.max_body, files })
            })
            .collect::<PyResult<_>>()?;
        let fallback = match app.getattr_opt(intern!(py, "_static_fallback"))? {
            Some(name) if !name.is_none() => match views.get_item(intern!(py, "static"))? {
                Some(view) => static_root(app, &view, &mut types)?.zip(name.extract().ok()),
                None => None,
            },
            _ => None,
        };
        let unattended = Unattended::of(app, hooks)?;
        let domain = domain.unwrap_or_default();
        Ok(Self { changes, generation, snapshot, unattended, rules, has_later, fallback, domain })
    }

    /// Whether this is how the map and the app are now. Works detached.
    pub(crate) fn is_current(&self, map: &MapBase) -> bool {
        self.changes == CHANGES.load(Ordering::Acquire) && map.generation() == Some(self.generation)
    }

    /// Finds the rule for a request, or the file behind one. Detached.
    pub(crate) fn find(self: &Arc<Self>, head: &RequestHead) -> Route {
        let path = head.path();
        let path = text_of(&path);
        // `MapAdapter.match` sees the path with one slash before it.
        let slashes = path.bytes().take_while(|byte| *byte == b'/').count();
        let path = slashes.checked_sub(1).and_then(|extra| path.get(extra..));
        let (Some(path), Ok(method)) = (path, std::str::from_utf8(head.method())) else { return Route::Ask };
        if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            // Werkzeug reads methods in any case.
            return Route::Ask;
        }
        let router = &self.snapshot.router;
        match router.matches(&self.domain, path, method, head.is_websocket()) {
            Outcome::Found(found) if !self.snapshot.is_special(found.rule) && !has_deferred(&found) => {
                if matches!(method, "GET" | "HEAD")
                    && is_ordinary(head)
                    && let Some(file) = self.file(&found)
                    && self.unattended.allows(head)
                {
                    return Route::File(file);
                }
                Route::Matched(Matched { routes: Arc::clone(self), found: found.into_owned() })
            }
            Outcome::Refused(Refusal::NotFound) if self.unattended.allows_error(head) => match &self.fallback
            {
                None => Route::NotFound,
                Some((root, name)) if is_ordinary(head) && is_for_a_page(head, path) => {
                    root.find(name.as_bytes()).map_or(Route::NotFound, Route::File)
                }
                Some(_) => Route::Ask,
            },
            Outcome::Refused(Refusal::Method(methods)) if self.unattended.allows_error(head) => {
                Route::MethodNotAllowed(router.method_names(methods).join(", "))
            }
            _ => Route::Ask,
        }
    }

    /// The static file that a request is for. One that is not there is for Python to tell about.
    fn file(&self, found: &Found<'_>) -> Option<FileReply> {
        let known = self.rules.get(found.rule)?;
        let root = known.files.as_ref()?;
        match found.values.as_slice() {
            [Value::Text(name)] => Some(root.find(name.as_bytes())?.of_route(&known.history)),
            _ => None,
        }
    }
}

/// Whether a rule's responses may be compressed, by its option `compress`.
pub(crate) fn compressible(wish: &Bound<'_, PyAny>) -> Compressible {
    match wish.cast::<PyBool>() {
        Ok(wish) if wish.is_true() => Compressible::Always,
        Ok(_) => Compressible::Never,
        Err(_) if wish.is_none() => Compressible::Maybe,
        Err(_) => Compressible::File,
    }
}

/// Whether Werkzeug evaluates the conditions of a request for a file as RFC 9110 §13 and §14 have it, and so the server.
///
/// It ignores `If-Unmodified-Since`, refuses `If-Match: *` and several or odd ranges, and gives parts to HEAD: such
/// requests go to Python, so that both lanes answer alike.
fn is_ordinary(head: &RequestHead) -> bool {
    if head.field(b"if-match").is_some() || head.field(b"if-unmodified-since").is_some() {
        return false;
    }
    let Some(range) = head.field(b"range") else { return true };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let range = std::str::from_utf8(range).ok().and_then(|range| range.strip_prefix("bytes="));
    head.method() == b"GET"
        && range.and_then(|range| range.split_once('-')).is_some_and(|(first, last)| match (first, last) {
            ("", last) => digits(last) && last.bytes().any(|digit| digit != b'0'),
            (first, "") => digits(first),
            (first, last) => digits(first) && digits(last),
        })
}

/// Whether a request is for a page, and not for data or a file: it is a GET or HEAD, asks for HTML by name, and the last
/// part of its path has no dot. As `Flask._is_for_a_page` has it.
fn is_for_a_page(head: &RequestHead, path: &str) -> bool {
    let is_html = |value: &[u8]| {
        value.split(|byte| *byte == b',').any(|item| {
            let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let is_html = parts.next().is_some_and(|media| media.eq_ignore_ascii_case(b"text/html"));
            is_html && !parts.any(|part| matches!(part, b"q=0" | b"q=0.0" | b"q=0.00" | b"q=0.000"))
        })
    };
    matches!(head.method(), b"GET" | b"HEAD")
        && !path.rsplit('/').next().unwrap_or_default().contains('.')
        && head.field_values(b"accept").any(is_html)
}

/// A value that a user's converter is to make may still be turned down: then the adapter looks for another rule.
fn has_deferred(found: &Found<'_>) -> bool {
    found.values.iter().any(|value| matches!(value, Value::Deferred(_)))
}

/// A path's bytes as text, as Werkzeug decodes `PATH_INFO`: what is not UTF-8 becomes U+FFFD.
fn text_of(path: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(path)
}

impl Matched {
    /// The run times of the rule's view.
    pub(crate) fn history(&self) -> Option<Arc<RouteHistory>> {
        self.routes.rules.get(self.found.rule).map(|known| Arc::clone(&known.history))
    }

    /// Most bytes of a body, if the rule says so.
    pub(crate) fn max_body(&self) -> Option<u64> {
        self.routes.rules.get(self.found.rule).and_then(|known| known.max_body)
    }

    /// The same for a WebSocket, whose connection goes to whoever calls the view.
    pub(crate) fn handshake(&self) -> Option<Arc<RouteHistory>> {
        self.routes.rules.get(self.found.rule).map(|known| Arc::clone(&known.handshake))
    }

    /// Whether the view runs on the event loop.
    pub(crate) fn is_later(&self) -> bool {
        self.history().is_some_and(|history| history.lane() == Lane::Later)
    }

    /// Whether OPTIONS is answered for the view.
    pub(crate) fn automatic_options(&self) -> bool {
        self.routes.rules.get(self.found.rule).is_some_and(|known| known.automatic_options)
    }

    /// The Python `Rule`.
    pub(crate) fn rule<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.routes.snapshot.rule(self.found.rule).map(|rule| rule.bind(py).clone())
    }

    /// The endpoint, if it is text as Flask has it.
    pub(crate) fn endpoint<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        self.routes.snapshot.endpoint(self.found.rule)?.bind(py).cast::<PyString>().ok().cloned()
    }

    /// The view's keyword arguments.
    pub(crate) fn kwargs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.routes.snapshot.values(py, &self.found)
    }
}
