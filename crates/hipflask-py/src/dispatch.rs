//! One request through a Flask app: the fast lane, and the way into the full one.
//!
//! The order of hooks, signals, error handlers and teardown is that of `Flask.wsgi_app` and
//! `Flask.full_dispatch_request`. What the app does not use costs nothing; what is unusual (an error, a callable
//! response, a replaced method) is done by the methods of `hipflask.app.Flask` in Python.

use std::cell::OnceCell;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use hipflask_http::{Framing, RequestHead};
use hipflask_server::{Body, Compressible, Reply, Request, RouteHistory, Routed};
use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyException, PyKeyError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::answer::{self, Rest};
use crate::asgi;
use crate::background::{self, AfterResponse};
use crate::context::{self, Frame, Part};
use crate::cookie_session::Saving;
use crate::json;
use crate::later::LaterLine;
use crate::plan::{Hooks, Plan, Signal};
use crate::request::{self, EngineRequest, RequestBase};
use crate::router::MapBase;
use crate::routes::{self, Matched, Route, Routes, has_limits, max_content_length};
use crate::unattended;
use crate::{locked, put, read_locked, write_locked};
use crate::{serve, wsgi};

/// What routing found, on its way to the view.
pub(crate) enum Ticket {
    /// A rule of the app, with the values from the path.
    Found(Matched),
    /// No rule answers this request, or only Python can tell: the adapter is asked, attached.
    Ask,
}

/// Dispatches requests to one app.
pub(crate) struct Dispatcher {
    plan: Plan,
    routing: Option<Routing>,
    /// In the full lane, if rules have limits: only for these. What the app's middleware does to paths it does not see.
    limited: Option<Arc<Routes>>,
    /// Run times of what has no rule of its own: routing errors, and the full lane as a whole.
    unrouted: Arc<RouteHistory>,
    /// For handshakes of WebSockets.
    handshakes: Arc<RouteHistory>,
    /// The app is an ASGI application's host: all its requests go to the event loop.
    pub(crate) is_asgi: bool,
    /// Given to the event loop as soon as a view needs it; whether it has been.
    later: Mutex<Option<(Py<LaterLine>, bool)>>,
}

/// The rules of an app in the fast lane.
struct Routing {
    map: Py<MapBase>,
    routes: RwLock<Arc<Routes>>,
}

impl Dispatcher {
    /// Compiles `app`, a Flask app, any WSGI callable, or the host of an ASGI application.
    pub(crate) fn new(app: &Bound<'_, PyAny>) -> PyResult<Self> {
        let is_asgi = asgi::is_host(app)?;
        let plan = Plan::compile(app)?;
        let routing = match &plan.hooks {
            Some(hooks) => {
                let map = app.getattr(intern!(app.py(), "url_map"))?.cast_into::<MapBase>()?.unbind();
                Some(Routing { map, routes: RwLock::new(Arc::new(Routes::of(app, hooks)?)) })
            }
            None => None,
        };
        let limited = match plan.matches_by_path(app)? && plan.hooks.is_none() && has_limits(app)? {
            true => {
                let mut hooks = Hooks::new(app)?;
                // In this lane coroutine views are waited for.
                hooks.has_later = false;
                Some(Arc::new(Routes::of(app, &hooks)?))
            }
            false => None,
        };
        let unrouted = match is_asgi {
            true => RouteHistory::later_with_stream(),
            false => RouteHistory::new(None).compressing(Compressible::Told),
        };
        let unrouted = match max_content_length(app)? {
            Some(most) if plan.is_flask => unrouted.collecting(most),
            // Others look at the length, and nowhere else, to know whether there is a body.
            _ if !plan.is_flask && !is_asgi => unrouted.measuring(),
            _ => unrouted,
        };
        Ok(Self {
            plan,
            routing,
            limited,
            unrouted: Arc::new(unrouted),
            // Who waits for messages has no deadline.
            handshakes: Arc::new(RouteHistory::later().within(Duration::ZERO)),
            is_asgi,
            later: Mutex::new(None),
        })
    }

    /// The app.
    pub(crate) fn app(&self) -> &Py<PyAny> {
        &self.plan.app
    }

    /// The app's tables, in the fast lane.
    pub(crate) fn hooks(&self) -> Option<&Hooks> {
        self.plan.hooks.as_ref()
    }

    /// Says where requests of coroutine views wait, for the event loop to take them.
    pub(crate) fn serve_later(&self, py: Python<'_>, line: Py<LaterLine>) -> PyResult<()> {
        put(&self.later, Some((line, false)));
        self.attend(py)
    }

    /// The event loop's side, while it has been told.
    pub(crate) fn later_line(&self, py: Python<'_>) -> Option<Py<LaterLine>> {
        let later = locked(&self.later);
        later.as_ref().filter(|(_, attended)| *attended).map(|(line, _)| line.clone_ref(py))
    }

    /// Takes the event loop's side back: the server has ended.
    pub(crate) fn serve_no_later(&self, py: Python<'_>) -> PyResult<()> {
        let line = locked(&self.later).take();
        match line {
            Some((line, true)) => py
                .import(intern!(py, "hipflask.loop"))?
                .call_method1(intern!(py, "dismiss"), (line,))
                .map(drop),
            _ => Ok(()),
        }
    }

    /// Brings the event loop in if a view needs it and it has not been told.
    fn attend(&self, py: Python<'_>) -> PyResult<()> {
        if !self.is_asgi && !self.routing.as_ref().is_some_and(|routing| routing.current().has_later) {
            return Ok(());
        }
        self.attend_now(py)
    }

    /// Brings the event loop in if it has not been told.
    pub(crate) fn attend_now(&self, py: Python<'_>) -> PyResult<()> {
        let line = match &mut *locked(&self.later) {
            Some((line, attended)) if !*attended => {
                *attended = true;
                line.clone_ref(py)
            }
            _ => return Ok(()),
        };
        py.import(intern!(py, "hipflask.loop"))?.call_method1(intern!(py, "attend"), (line,)).map(drop)
    }

    /// Whether the view that was found runs on the event loop.
    pub(crate) fn is_later(&self, ticket: &Ticket) -> bool {
        self.is_asgi || matches!(ticket, Ticket::Found(matched) if matched.is_later())
    }

    /// Looks again what may be answered without the app, after a request.
    pub(crate) fn look_again(&self, py: Python<'_>) -> PyResult<()> {
        match (&self.routing, &self.plan.hooks) {
            (Some(routing), Some(hooks)) => routing.current().unattended.refresh(py, hooks),
            _ => Ok(()),
        }
    }

    /// Finds the rule for a request, without the interpreter.
    pub(crate) fn route(&self, head: &RequestHead) -> Routed<Ticket> {
        let route = match &self.routing {
            Some(routing) => {
                let routes = routing.current();
                // After rules were added Python compiles the map anew, with the first request that it gets.
                if routes.is_current(routing.map.get()) { routes.find(head) } else { Route::Ask }
            }
            None => Route::Ask,
        };
        let ticket = match route {
            Route::Matched(matched) => Ticket::Found(matched),
            Route::Ask => Ticket::Ask,
            Route::File(file) => return Routed::File(file),
            Route::NotFound => return Routed::Answer(Box::new(unattended::not_found)),
            Route::MethodNotAllowed(allow) => {
                return Routed::Answer(Box::new(move |reply| unattended::method_not_allowed(reply, &allow)));
            }
        };
        let max_body = match &ticket {
            Ticket::Found(matched) => matched.max_body(),
            Ticket::Ask => None,
        };
        if let Some(limited) = &self.limited
            && !head.is_websocket()
            && let Route::Matched(matched) = limited.find(head)
        {
            let max_body = matched.max_body();
            let history = matched.history().unwrap_or_else(|| Arc::clone(&self.unrouted));
            return Routed::Call { ticket, history, max_body };
        }
        let history = match &ticket {
            // A WebSocket outlives its call: whoever calls the view gets the connection with the request.
            ticket if head.is_websocket() && !self.is_asgi => {
                let named = match ticket {
                    Ticket::Found(matched) => matched.handshake(),
                    Ticket::Ask => None,
                };
                Some(named.unwrap_or_else(|| Arc::clone(&self.handshakes)))
            }
            Ticket::Found(matched) => matched.history(),
            Ticket::Ask => None,
        };
        Routed::Call { ticket, history: history.unwrap_or_else(|| Arc::clone(&self.unrouted)), max_body }
    }

    /// Answers a request. Whatever fails inside is logged and answered with a 500.
    pub(crate) fn call(&self, py: Python<'_>, request: Request<Ticket>, reply: &mut Reply<'_>) {
        let Request { head, body, ticket, conn } = request;
        serve::note_body(matches!(body, Body::Stream(_)));
        let engine = EngineRequest { head, body, conn, handoff: None, hints: None };
        let answered = match (&self.plan.hooks, ticket) {
            (Some(hooks), Ticket::Found(found)) => self.fast(py, hooks, engine, Some(&found), reply),
            (Some(hooks), Ticket::Ask) => {
                self.refresh(py).and_then(|()| self.fast(py, hooks, engine, None, reply))
            }
            (None, _) => self.full(py, engine, reply),
        };
        if let Err(error) = answered {
            serve::log_error(py, &error, "in the application");
            reply.reset();
            answer::server_error(reply);
        }
    }

    /// The full lane: the app as a WSGI callable.
    fn full(&self, py: Python<'_>, engine: EngineRequest, reply: &mut Reply<'_>) -> PyResult<()> {
        let measured = match engine.head.framing() {
            Framing::Chunked if !self.plan.is_flask => length_of(&engine.body),
            _ => None,
        };
        let environ = request::environ_from_engine(py, engine)?;
        if let Some(length) = measured {
            environ.set_item(intern!(py, "CONTENT_LENGTH"), length.to_string())?;
            if environ.contains(intern!(py, "HTTP_TRANSFER_ENCODING"))? {
                environ.del_item(intern!(py, "HTTP_TRANSFER_ENCODING"))?;
            }
        }
        let after = AfterResponse::new(py)?;
        environ.set_item(intern!(py, AfterResponse::KEY), &after)?;
        let route = intern!(py, "hipflask.route");
        if reply.is_noted() {
            environ.set_item(route, py.None())?;
        }
        wsgi::call(self.plan.app.bind(py), &environ, reply)?;
        if reply.is_noted()
            && let Some(rule) = environ.get_item(route)?
            && let Ok(rule) = rule.extract()
        {
            reply.route(rule);
        }
        if let Some(wish) = environ.get_item(intern!(py, "hipflask.compress"))? {
            reply.compressing(routes::compressible(&wish));
        }
        after.get().schedule(reply);
        Ok(())
    }

    /// The fast lane.
    fn fast(
        &self,
        py: Python<'_>,
        hooks: &Hooks,
        engine: EngineRequest,
        found: Option<&Matched>,
        reply: &mut Reply<'_>,
    ) -> PyResult<()> {
        let app = self.plan.app.bind(py);
        let is_options = engine.head.method().eq_ignore_ascii_case(b"OPTIONS");
        let has_session_cookie = hooks.has_session_cookie(py, &engine.head)?;
        let request = request::from_engine(py, hooks.request_class.bind(py), engine)?;
        let (frame, token) = context::push(py, app, request.as_any(), hooks.cookie_sessions.as_ref())?;
        let exchange = Exchange {
            py,
            app,
            hooks,
            request,
            frame: frame.into_bound(py),
            is_options,
            is_heard: hooks.signals.any_heard(py)?,
            has_session_cookie,
            blueprints: OnceCell::new(),
        };
        let ran = exchange.run(found, reply);
        if found.is_none()
            && let Some(rule) = exchange.request.getattr_opt(intern!(py, "url_rule"))?
            && let Some(wish) = rule.getattr_opt(intern!(py, "compress"))?
        {
            reply.compressing(routes::compressible(&wish));
        }
        let finished = exchange.finish(&ran);
        exchange.frame.get().end(py)?;
        context::pop(py, &token)?;
        if let Some(routing) = &self.routing {
            routing.current().unattended.refresh(py, hooks)?;
        }
        match (ran, finished) {
            // Not before the context is gone: what the response calls when it is closed has no request any more.
            (Ok(rest) | Err(Failure::Handled(_, rest)), Ok(())) => {
                rest.map_or(Ok(()), |rest| rest.finish(py, reply))
            }
            (Ok(_) | Err(Failure::Handled(..)), Err(error)) => Err(error),
            (Err(Failure::Unhandled(error) | Failure::Unwritable(error)), finished) => {
                if let Err(second) = finished {
                    serve::log_error(py, &second, "while the request ended");
                }
                Err(error)
            }
        }
    }

    /// Rules may still be added while the app serves; the engine sees them with the next request.
    pub(crate) fn refresh(&self, py: Python<'_>) -> PyResult<()> {
        if let (Some(routing), Some(hooks)) = (&self.routing, &self.plan.hooks)
            && !routing.current().is_current(routing.map.get())
        {
            let fresh = Arc::new(Routes::of(self.plan.app.bind(py), hooks)?);
            let old = {
                let mut routes = write_locked(&routing.routes);
                std::mem::replace(&mut *routes, fresh)
            };
            drop(old);
            self.attend(py)?;
        }
        Ok(())
    }
}

/// The length of a body of which all has come.
fn length_of(body: &Body) -> Option<u64> {
    match body {
        Body::Empty => Some(0),
        Body::Buffered(bytes) => Some(bytes.len() as u64),
        Body::Trailed(whole) => Some(whole.0.len() as u64),
        Body::Stream(stream) => stream.length(),
    }
}

impl Routing {
    fn current(&self) -> Arc<Routes> {
        Arc::clone(&read_locked(&self.routes))
    }
}

/// How a request went wrong.
enum Failure {
    /// An error that `handle_exception` turned into a response; teardown functions get to know it.
    Handled(PyErr, Option<Rest>),
    /// One that nobody handled: the server answers.
    Unhandled(PyErr),
    /// The response cannot be sent: the server answers. Flask has no hand in this, so that nobody is told.
    Unwritable(PyErr),
}

/// What a request matched.
pub(crate) struct View<'py> {
    pub(crate) kwargs: Bound<'py, PyDict>,
    pub(crate) endpoint: Bound<'py, PyString>,
    /// Whether OPTIONS is answered for the view.
    pub(crate) automatic_options: bool,
}

/// One request in the fast lane, its context pushed.
pub(crate) struct Exchange<'a, 'py> {
    py: Python<'py>,
    app: &'a Bound<'py, PyAny>,
    hooks: &'a Hooks,
    request: Bound<'py, RequestBase>,
    frame: Bound<'py, Frame>,
    is_options: bool,
    /// Whether anybody listened to a signal when the request came.
    is_heard: bool,
    /// Whether the session's cookie came with the request; then a permanent session is to be renewed.
    has_session_cookie: bool,
    /// The request's blueprints, innermost first, as `request.blueprints` has them.
    blueprints: OnceCell<Vec<Bound<'py, PyString>>>,
}

impl<'a, 'py> Exchange<'a, 'py> {
    /// A request whose context is bound already. The flags: it is an OPTIONS request, somebody listens to signals, it
    /// has the session's cookie.
    pub(crate) fn new(
        py: Python<'py>,
        app: &'a Bound<'py, PyAny>,
        hooks: &'a Hooks,
        (request, frame): (Bound<'py, RequestBase>, Bound<'py, Frame>),
        (is_options, is_heard, has_session_cookie): (bool, bool, bool),
    ) -> Self {
        let blueprints = OnceCell::new();
        Self { py, app, hooks, request, frame, is_options, is_heard, has_session_cookie, blueprints }
    }

    /// The request.
    pub(crate) fn request(&self) -> &Bound<'py, RequestBase> {
        &self.request
    }

    /// `Flask.wsgi_app`, between push and pop.
    fn run(&self, found: Option<&Matched>, reply: &mut Reply<'_>) -> Result<Option<Rest>, Failure> {
        let error = match self.begin(found).and_then(|view| self.full_dispatch(view.as_ref(), reply)) {
            Ok(None) => return Ok(None),
            Ok(Some(response)) => {
                return self.write(&response, reply).map_err(Failure::Unwritable);
            }
            Err(error) => error,
        };
        let response = match self.rescue(&error, intern!(self.py, "handle_exception")) {
            Ok(response) => response,
            Err(error) => return Err(Failure::Unhandled(error)),
        };
        reply.reset();
        match self.write(&response, reply) {
            Ok(rest) => Err(Failure::Handled(error, rest)),
            Err(error) => Err(Failure::Unwritable(error)),
        }
    }

    /// Writes a response object, and hands the engine what is to be done after it.
    fn write(&self, response: &Bound<'py, PyAny>, reply: &mut Reply<'_>) -> PyResult<Option<Rest>> {
        let rest = answer::response(response, &self.request, reply)?;
        if let Some(done) = self.after_response(response)? {
            reply.afterwards(done);
        }
        Ok(rest)
    }

    /// What is to be done once a response is out.
    pub(crate) fn after_response(
        &self,
        response: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Box<dyn FnOnce() + Send>>> {
        let py = self.py;
        let of_app = !self.hooks.after_response.bind(py).is_empty();
        let context = match self.frame.get().request_ctx(py) {
            None if of_app => Frame::resolve(&self.frame, Part::RequestContext)?,
            context => context,
        };
        match context {
            Some(context) if of_app || background::is_wanted(&context)? => {
                background::after_response(self.app, &context, response)
            }
            _ => Ok(None),
        }
    }

    /// What Flask's push does beside binding: the signal, the session, the match.
    fn begin(&self, found: Option<&Matched>) -> PyResult<Option<View<'py>>> {
        if self.frame.get().owns_app_context() {
            self.send(Signal::AppcontextPushed, None)?;
        }
        self.open(found)
    }

    /// Opens the session, if it has to be open, and matches.
    pub(crate) fn open(&self, found: Option<&Matched>) -> PyResult<Option<View<'py>>> {
        if self.hooks.cookie_sessions.is_none() {
            self.frame.get().open_session(self.py)?;
        }
        match found {
            Some(found) if self.trusts_every_host()? => {
                match (found.rule(self.py), found.endpoint(self.py)) {
                    (Some(rule), Some(endpoint)) => {
                        let kwargs = found.kwargs(self.py)?;
                        RequestBase::set_matched(&self.request, rule, kwargs.clone().into_any());
                        Ok(Some(View { kwargs, endpoint, automatic_options: found.automatic_options() }))
                    }
                    _ => self.ask(),
                }
            }
            _ => self.ask(),
        }
    }

    /// Whether requests may name any host; else the adapter checks it.
    fn trusts_every_host(&self) -> PyResult<bool> {
        let trusted = self.hooks.config.bind(self.py).get_item(intern!(self.py, "TRUSTED_HOSTS"))?;
        Ok(trusted.is_none_or(|hosts| hosts.is_none()))
    }

    /// Matches through the app's URL adapter; an HTTP error becomes the request's routing exception.
    fn ask(&self) -> PyResult<Option<View<'py>>> {
        let py = self.py;
        let options = PyDict::new(py);
        options.set_item(intern!(py, "return_rule"), true)?;
        let matched = self
            .app
            .call_method1(intern!(py, "create_url_adapter"), (&self.request,))
            .and_then(|adapter| adapter.call_method(intern!(py, "match"), (), Some(&options)));
        match matched {
            Ok(pair) => {
                let (rule, kwargs): (Bound<'py, PyAny>, Bound<'py, PyDict>) = pair.extract()?;
                RequestBase::set_matched(&self.request, rule.clone(), kwargs.clone().into_any());
                let automatic = rule.getattr(intern!(py, "provide_automatic_options"))?.is_truthy()?;
                let endpoint = rule.getattr(intern!(py, "endpoint"))?.cast_into()?;
                Ok(Some(View { kwargs, endpoint, automatic_options: automatic }))
            }
            Err(error) => {
                let http = py
                    .import(intern!(py, "hipflask.werkzeug.exceptions"))?
                    .getattr(intern!(py, "HTTPException"))?;
                if !error.value(py).is_instance(&http)? {
                    return Err(error);
                }
                RequestBase::set_routing_exception(&self.request, error.value(py).clone().into_any());
                Ok(None)
            }
        }
    }

    /// `Flask.full_dispatch_request`. Gives nothing when the answer is written already.
    fn full_dispatch(
        &self,
        view: Option<&View<'py>>,
        reply: &mut Reply<'_>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let tried = self.send(Signal::RequestStarted, None).and_then(|()| match self.preprocess(view)? {
            Some(value) => Ok(value),
            None => self.call_view(view),
        });
        let value = match tried {
            Ok(value) => value,
            Err(error) => self.rescue(&error, intern!(self.py, "handle_user_exception"))?,
        };
        self.finalize(&value, reply)
    }

    /// `Flask.preprocess_request`: the functions of the app, then of the blueprints from the outermost in.
    fn preprocess(&self, view: Option<&View<'py>>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = self.py;
        let preprocessors = self.hooks.url_value_preprocessors.bind(py);
        if !preprocessors.is_empty() {
            let endpoint = view.map(|view| &view.endpoint);
            let kwargs = view.map(|view| &view.kwargs);
            self.each_inwards(preprocessors, |function| function.call1((endpoint, kwargs)).map(|_| None))?;
        }
        let before = self.hooks.before_request.bind(py);
        if before.is_empty() {
            return Ok(None);
        }
        self.each_inwards(before, |function| {
            let value = self.hooks.ensured.sync(self.app, &function)?.call0()?;
            Ok((!value.is_none()).then_some(value))
        })
    }

    /// Calls `each` with the app's functions in a table of hooks and then with the blueprints', until one gives
    /// something.
    fn each_inwards(
        &self,
        table: &Bound<'py, PyDict>,
        mut each: impl FnMut(Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let none = self.py.None();
        let blueprints = self.blueprints()?;
        let scopes =
            std::iter::once(none.bind(self.py)).chain(blueprints.iter().rev().map(|name| name.as_any()));
        for scope in scopes {
            if let Some(functions) = table.get_item(scope)? {
                for function in functions.try_iter()? {
                    if let Some(found) = each(function?)? {
                        return Ok(Some(found));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Calls `each` with the blueprints' functions in a table of hooks, from the innermost out, and then with the app's,
    /// of each scope the last first.
    fn each_outwards(
        &self,
        table: &Bound<'py, PyDict>,
        mut each: impl FnMut(Bound<'py, PyAny>) -> PyResult<()>,
    ) -> PyResult<()> {
        if table.is_empty() {
            return Ok(());
        }
        let none = self.py.None();
        let blueprints = self.blueprints()?;
        let scopes = blueprints.iter().map(|name| name.as_any()).chain(std::iter::once(none.bind(self.py)));
        for scope in scopes {
            if let Some(functions) = table.get_item(scope)? {
                self.each_backwards(functions.cast::<PyList>()?, &mut each)?;
            }
        }
        Ok(())
    }

    /// Calls `each` with the functions of a list of hooks, the last first.
    fn each_backwards(
        &self,
        functions: &Bound<'py, PyList>,
        mut each: impl FnMut(Bound<'py, PyAny>) -> PyResult<()>,
    ) -> PyResult<()> {
        for index in (0..functions.len()).rev() {
            // A function may have taken others out.
            let Ok(function) = functions.get_item(index) else { continue };
            each(self.hooks.ensured.sync(self.app, &function)?)?;
        }
        Ok(())
    }

    /// The request's blueprints; only asked for where some hook is registered.
    fn blueprints(&self) -> PyResult<&[Bound<'py, PyString>]> {
        if let Some(known) = self.blueprints.get() {
            return Ok(known);
        }
        let names: Vec<Bound<'py, PyString>> =
            self.request.getattr(intern!(self.py, "blueprints"))?.extract()?;
        Ok(self.blueprints.get_or_init(|| names))
    }

    /// `Flask.dispatch_request`.
    fn call_view(&self, view: Option<&View<'py>>) -> PyResult<Bound<'py, PyAny>> {
        self.call_view_as(view, |function| self.hooks.ensured.sync(self.app, &function))
    }

    /// As [`Self::call_view`], but a coroutine function gives its coroutine.
    pub(crate) fn call_bare_view(&self, view: Option<&View<'py>>) -> PyResult<Bound<'py, PyAny>> {
        self.call_view_as(view, Ok)
    }

    fn call_view_as(
        &self,
        view: Option<&View<'py>>,
        dress: impl FnOnce(Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let Some(view) = view else {
            return self.app.call_method0(intern!(py, "dispatch_request"));
        };
        if view.automatic_options && self.is_options {
            return self.app.call_method0(intern!(py, "make_default_options_response"));
        }
        let functions = self.hooks.view_functions.bind(py);
        let Some(function) = functions.get_item(&view.endpoint)? else {
            return Err(PyKeyError::new_err(view.endpoint.clone().unbind()));
        };
        let function = dress(function)?;
        if view.kwargs.is_empty() { function.call0() } else { function.call((), Some(&view.kwargs)) }
    }

    /// `Flask.finalize_request`: writes what a view returned, or gives a response object if somebody wants one.
    pub(crate) fn finalize(
        &self,
        value: &Bound<'py, PyAny>,
        reply: &mut Reply<'_>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = self.py;
        let finished =
            if self.is_heard { self.hooks.signals.heard(py, Signal::RequestFinished)? } else { None };
        if finished.is_none()
            && let Some(fields) = self.without_response()?
            && answer::simple(self.app, value, self.hooks, &fields, reply)?
        {
            return Ok(None);
        }
        let class = self.hooks.response_class.bind(py);
        let kind = value.get_type();
        let mut response = if kind.is(class) {
            value.clone()
        } else if self.hooks.plain_responses && kind.is(PyString::type_object(py)) {
            class.call1((value,))?
        } else {
            self.app.call_method1(intern!(py, "make_response"), (value,))?
        };
        response = self.process_response(response)?;
        if finished.is_some() {
            self.send(Signal::RequestFinished, Some(("response", &response)))?;
        }
        Ok(Some(response))
    }

    /// The fields that the session adds, if nothing else wants to see or change the response object.
    fn without_response(&self) -> PyResult<Option<answer::SessionFields>> {
        let none = answer::SessionFields { vary: false, cookie: None };
        if !self.hooks.after_request.bind(self.py).is_empty()
            || !self.hooks.after_response.bind(self.py).is_empty()
            || self.frame.get().request_ctx(self.py).is_some()
        {
            return Ok(None);
        }
        if !self.has_session()? {
            return Ok(Some(none));
        }
        let Some(sessions) = &self.hooks.cookie_sessions else { return Ok(None) };
        let session = self.frame.get().open_session(self.py)?;
        let config = self.hooks.config.bind(self.py);
        let options = self.hooks.json_options(self.app)?.map(json::Options::compact);
        Ok(match sessions.save(&session, config, options.as_ref())? {
            Saving::Fields { vary, cookie } => Some(answer::SessionFields { vary, cookie }),
            Saving::Python => None,
        })
    }

    /// Whether the session may have to be saved: it was opened, or its cookie came (a permanent one is renewed).
    fn has_session(&self) -> PyResult<bool> {
        Ok(self.has_session_cookie || self.frame.get().session(self.py)?.is_some())
    }

    /// `Flask.process_response`.
    fn process_response(&self, mut response: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        if self.frame.get().request_ctx(py).is_some() {
            // It may have functions of `after_this_request`.
            return self.app.call_method1(intern!(py, "process_response"), (response,));
        }
        self.each_outwards(self.hooks.after_request.bind(py), |function| {
            response = function.call1((&response,))?;
            Ok(())
        })?;
        self.save_session(&response)?;
        Ok(response)
    }

    /// Saves the session in a response, if there is one to save.
    pub(crate) fn save_session(&self, response: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py;
        if self.has_session()? {
            let session = self.frame.get().open_session(py)?;
            let interface = self.app.getattr(intern!(py, "session_interface"))?;
            if !interface.call_method1(intern!(py, "is_null_session"), (&session,))?.is_truthy()? {
                interface.call_method1(intern!(py, "save_session"), (self.app, &session, response))?;
            }
        }
        Ok(())
    }

    /// `RequestContext.pop`, less the unbinding: teardown functions, signals, open files.
    fn finish(&self, ran: &Result<Option<Rest>, Failure>) -> PyResult<()> {
        let py = self.py;
        let error = match ran {
            Ok(_) | Err(Failure::Unwritable(_)) => None,
            Err(Failure::Handled(error, _) | Failure::Unhandled(error)) => {
                let value = error.value(py).as_any();
                let ignored = self.app.call_method1(intern!(py, "should_ignore_error"), (value,))?;
                (!ignored.is_truthy()?).then_some(value)
            }
        };
        if let Some(context) = self.frame.get().request_ctx(py) {
            return context.call_method1(intern!(py, "_finish"), (error,)).map(drop);
        }
        let hooks = self.hooks;
        // The view may have been the first to connect to a signal.
        let is_heard = hooks.signals.any_heard(py)?;
        let mut ended;
        if is_heard {
            ended = self.app.call_method1(intern!(py, "do_teardown_request"), (error,)).map(drop);
        } else {
            let functions = hooks.teardown_request.bind(py);
            ended = self.each_outwards(functions, |function| function.call1((error,)).map(drop));
        }
        ended = ended.and_then(|()| RequestBase::close_files(&self.request));
        if self.frame.get().owns_app_context() {
            if is_heard {
                self.app.call_method1(intern!(py, "do_teardown_appcontext"), (error,))?;
            } else {
                let functions = hooks.teardown_appcontext.bind(py);
                self.each_backwards(functions, |function| function.call1((error,)).map(drop))?;
            }
            if is_heard {
                self.send(Signal::AppcontextPopped, None)?;
            }
        }
        ended
    }

    /// Sends a signal if anybody listens.
    fn send(&self, which: Signal, with: Option<(&str, &Bound<'py, PyAny>)>) -> PyResult<()> {
        let py = self.py;
        if (self.is_heard || matches!(which, Signal::AppcontextPopped))
            && let Some(signal) = self.hooks.signals.heard(py, which)?
        {
            let options = PyDict::new(py);
            options.set_item(intern!(py, "_async_wrapper"), self.app.getattr(intern!(py, "ensure_sync"))?)?;
            if let Some((name, value)) = with {
                options.set_item(name, value)?;
            }
            signal.call_method(intern!(py, "send"), (self.app,), Some(&options))?;
        }
        Ok(())
    }

    /// Lets a method of the app handle an error, as inside an `except` clause: `sys.exc_info()` tells it, and an
    /// error raised meanwhile has it as context. What is no `Exception` (a KeyboardInterrupt) is nobody's to handle.
    fn rescue(&self, error: &PyErr, method: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        if !error.is_instance_of::<PyException>(py) {
            return Err(error.clone_ref(py));
        }
        let value = error.value(py);
        let _handling = Handling::begin(error.clone_ref(py), py);
        self.app.call_method1(method, (value,))
    }
}

/// Makes an error the one being handled on this thread, until dropped.
struct Handling([*mut ffi::PyObject; 3]);

impl Handling {
    fn begin(error: PyErr, py: Python<'_>) -> Self {
        let mut before = [std::ptr::null_mut(); 3];
        let [kind, value, traceback] = &mut before;
        let new_kind = error.get_type(py).into_ptr();
        let new_traceback = error.traceback(py).map_or(std::ptr::null_mut(), Bound::into_ptr);
        // SAFETY: attached (`py`); the getter fills in three new references or nulls; the setter takes over three new
        // references, of which the traceback may be null.
        unsafe {
            ffi::PyErr_GetExcInfo(kind, value, traceback);
            ffi::PyErr_SetExcInfo(new_kind, error.into_value(py).into_ptr(), new_traceback);
        }
        Self(before)
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        let [kind, value, traceback] = self.0;
        // SAFETY: attached, since this lives on the stack of an attached function; the three references are those
        // that the getter gave, and the setter takes them over.
        unsafe { ffi::PyErr_SetExcInfo(kind, value, traceback) }
    }
}
