//! Answers that need no interpreter: static files, 404 and 405.
//!
//! Only while nothing in the app could notice: no hook, signal, error handler or teardown function, no method replaced,
//! no permanent session to renew. Otherwise the same answers come from Python.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hipflask_http::RequestHead;
use hipflask_server::{FileOptions, Reply, Root};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDelta, PyDeltaAccess, PyDict, PyString};

use crate::plan::Hooks;
use crate::session;

/// Whether an app leaves such answers alone, and what must be known to tell that of a request.
pub(crate) struct Unattended {
    /// Whether the engine hears of a changed setting.
    tells: bool,
    /// No hooks, no listeners, responses of Flask's class; looked up anew with each view that is called.
    quiet: AtomicBool,
    /// Neither error handlers nor replaced methods that turn routing errors into pages.
    plain_errors: bool,
    /// The name of the session's cookie, if there are sessions.
    session_cookie: Option<String>,
}

impl Unattended {
    /// Looks at an app in the fast lane.
    pub(crate) fn of(app: &Bound<'_, PyAny>, hooks: &Hooks) -> PyResult<Self> {
        let py = app.py();
        let config = hooks.config.bind(py);
        let secret = config.get_item(intern!(py, "SECRET_KEY"))?;
        let session_cookie = match (&hooks.cookie_sessions, secret) {
            (Some(_), Some(secret)) if secret.is_truthy()? => {
                config.get_item(intern!(py, "SESSION_COOKIE_NAME"))?.map(|name| name.extract()).transpose()?
            }
            _ => None,
        };
        // Another class of settings does not tell when one changes.
        let settings = py.import(intern!(py, "hipflask.config"))?.getattr(intern!(py, "Config"))?;
        let tells = config.is_instance(&settings)?;
        Ok(Self {
            tells,
            quiet: AtomicBool::new(is_quiet(py, hooks)?),
            plain_errors: has_plain_errors(app, config)?,
            session_cookie,
        })
    }

    /// Looks again whether hooks or listeners were added.
    pub(crate) fn refresh(&self, py: Python<'_>, hooks: &Hooks) -> PyResult<()> {
        self.quiet.store(is_quiet(py, hooks)?, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the app could not tell if this request were answered without it. Detached.
    pub(crate) fn allows(&self, head: &RequestHead) -> bool {
        self.tells
            && self.quiet.load(Ordering::Relaxed)
            && match &self.session_cookie {
                Some(name) => !head.field_values(b"cookie").any(|cookies| may_renew(cookies, name)),
                None => true,
            }
    }

    /// The same for a request that no rule matches.
    pub(crate) fn allows_error(&self, head: &RequestHead) -> bool {
        self.plain_errors && self.allows(head)
    }
}

/// Whether cookies hold a session that might be permanent, whose cookie each answer renews.
fn may_renew(cookies: &[u8], name: &str) -> bool {
    let mut found = memchr::memmem::find_iter(cookies, name.as_bytes());
    found.any(|at| {
        let value = cookies.get(at + name.len()..).unwrap_or_default();
        match value.strip_prefix(b"=") {
            Some(value) => {
                let end = memchr::memchr2(b';', b',', value).unwrap_or(value.len());
                session::may_be_permanent(value.get(..end).unwrap_or_default())
            }
            None => false,
        }
    })
}

fn is_quiet(py: Python<'_>, hooks: &Hooks) -> PyResult<bool> {
    let tables = [
        &hooks.url_value_preprocessors,
        &hooks.before_request,
        &hooks.after_request,
        &hooks.after_response,
        &hooks.teardown_request,
    ];
    if tables.iter().any(|table| !table.bind(py).is_empty())
        || !hooks.teardown_appcontext.bind(py).is_empty()
        || hooks.cookie_sessions.is_none()
        || !hooks.plain_responses
    {
        return Ok(false);
    }
    if hooks.signals.any_heard(py)? {
        return Ok(false);
    }
    let trusted = hooks.config.bind(py).get_item(intern!(py, "TRUSTED_HOSTS"))?;
    Ok(trusted.is_none_or(|hosts| hosts.is_none()))
}

/// Whether a routing error becomes Werkzeug's page: nobody handles it, nobody wants it raised.
fn has_plain_errors(app: &Bound<'_, PyAny>, config: &Bound<'_, PyDict>) -> PyResult<bool> {
    let py = app.py();
    let handlers = app.getattr(intern!(py, "error_handler_spec"))?.cast_into::<PyDict>()?;
    for (_, by_code) in handlers.iter() {
        for (_, by_class) in by_code.cast_into::<PyDict>()?.iter() {
            if by_class.len()? > 0 {
                return Ok(false);
            }
        }
    }
    if config
        .get_item(intern!(py, "TRAP_HTTP_EXCEPTIONS"))?
        .is_some_and(|trap| trap.is_truthy().unwrap_or(true))
    {
        return Ok(false);
    }
    let replaced = ["handle_http_exception", "handle_user_exception", "handle_exception"];
    is_stock(app, "hipflask.app", "Flask", &replaced)
}

/// Whether an object uses a class's own methods.
fn is_stock(object: &Bound<'_, PyAny>, module: &str, class: &str, methods: &[&str]) -> PyResult<bool> {
    let class = object.py().import(module)?.getattr(class)?;
    let own = object.getattr(intern!(object.py(), "__dict__"))?.cast_into::<PyDict>()?;
    for method in methods {
        if own.contains(method)? || !object.get_type().getattr(*method)?.is(&class.getattr(*method)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The folder behind a rule, if its view is Flask's own for static files. `types` is made when first needed.
pub(crate) fn static_root<'py>(
    app: &Bound<'py, PyAny>,
    view: &Bound<'py, PyAny>,
    types: &mut Option<Arc<HashMap<String, String>>>,
) -> PyResult<Option<Arc<Root>>> {
    let py = app.py();
    let methods = ["send_static_file", "get_send_file_max_age"];
    let (owner, stock) = if view.getattr_opt(intern!(py, "sends_static_files"))?.is_some() {
        (app.clone(), is_stock(app, "hipflask.app", "Flask", &methods)?)
    } else {
        // A blueprint's is the bound method itself.
        let blueprint = py.import(intern!(py, "hipflask.blueprints"))?.getattr(intern!(py, "Blueprint"))?;
        match view.getattr_opt(intern!(py, "__self__"))? {
            Some(owner) if owner.is_instance(&blueprint)? => {
                let function = view.getattr(intern!(py, "__func__"))?;
                let stock = function.is(&blueprint.getattr(intern!(py, "send_static_file"))?)
                    && is_stock(&owner, "hipflask.blueprints", "Blueprint", &methods)?;
                (owner, stock)
            }
            _ => return Ok(None),
        }
    };
    let config = app.getattr(intern!(py, "config"))?.cast_into::<PyDict>()?;
    let by_proxy =
        config.get_item(intern!(py, "USE_X_SENDFILE"))?.is_some_and(|on| on.is_truthy().unwrap_or(true));
    let folder = owner.getattr(intern!(py, "static_folder"))?;
    let (true, false, Ok(folder)) = (stock, by_proxy, folder.cast::<PyString>()) else { return Ok(None) };
    let max_age = match config.get_item(intern!(py, "SEND_FILE_MAX_AGE_DEFAULT"))? {
        None => None,
        Some(age) if age.is_none() => None,
        Some(age) => match age.cast::<PyDelta>() {
            Ok(age) => u32::try_from(i64::from(age.get_days()) * 86_400 + i64::from(age.get_seconds())).ok(),
            Err(_) => match age.extract::<u32>() {
                Ok(age) => Some(age),
                Err(_) => return Ok(None),
            },
        },
    };
    let folder = Path::new(folder.to_str()?);
    // A folder that is not there yet may be made later: until the next start Python looks for it.
    if !folder.is_dir() {
        return Ok(None);
    }
    let types = match types {
        Some(types) => Arc::clone(types),
        None => Arc::clone(types.insert(Arc::new(media_types(py)?))),
    };
    let options = FileOptions { max_age, types: Some(types), ..FileOptions::default() };
    Ok(Root::open(folder, options).ok())
}

/// The media types that `mimetypes` knows, by extension without the dot.
fn media_types(py: Python<'_>) -> PyResult<HashMap<String, String>> {
    let mimetypes = py.import(intern!(py, "mimetypes"))?;
    if !mimetypes.getattr(intern!(py, "inited"))?.is_truthy()? {
        mimetypes.call_method0(intern!(py, "init"))?;
    }
    let map: HashMap<String, String> = mimetypes.getattr(intern!(py, "types_map"))?.extract()?;
    Ok(map
        .into_iter()
        .map(|(extension, kind)| (extension.trim_start_matches('.').to_owned(), kind))
        .collect())
}

const NOT_FOUND: &str = "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n\
    <p>The requested URL was not found on the server. If you entered the URL manually please check your spelling and \
    try again.</p>\n";
const METHOD_NOT_ALLOWED: &str = "<!doctype html>\n<html lang=en>\n<title>405 Method Not Allowed</title>\n\
    <h1>Method Not Allowed</h1>\n<p>The method is not allowed for the requested URL.</p>\n";

/// Writes the page of a 404.
pub(crate) fn not_found(reply: &mut Reply<'_>) {
    page(reply, 404, "NOT FOUND", None, NOT_FOUND);
}

/// Writes the page of a 405; `allow` is the value of the field.
pub(crate) fn method_not_allowed(reply: &mut Reply<'_>, allow: &str) {
    page(reply, 405, "METHOD NOT ALLOWED", Some(allow), METHOD_NOT_ALLOWED);
}

fn page(reply: &mut Reply<'_>, status: u16, reason: &str, allow: Option<&str>, text: &str) {
    reply.start(status, Some(reason));
    let mut fields = vec![("Content-Type", "text/html; charset=utf-8")];
    fields.extend(allow.map(|allow| ("Allow", allow)));
    for (name, value) in fields {
        if reply.field(name.as_bytes(), value.as_bytes()).is_err() {
            // A method's name that cannot stand in a field: the rule's author wrote it, and a page without is better.
            continue;
        }
    }
    reply.body(text.as_bytes());
}
