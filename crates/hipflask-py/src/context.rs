//! Which app and which request the running code belongs to.
//!
//! One context variable holds one immutable [`Frame`] with two slots: the app's context and the request's. The fast
//! lane pushes a bare frame, that is an app and a native request object, and no Python context object exists until
//! somebody asks for one; the full lane sets each slot to an `AppContext` or `RequestContext`, as Flask does.
//! `hipflask.globals._cv_app` and `_cv_request` are [`SlotVar`]s: they look like two context variables, and setting
//! one leaves the other's slot alone. Does not run hooks, signals or teardown functions.
//!
//! What the dispatcher calls:
//!
//! | call | meaning |
//! |---|---|
//! | [`push`] | bind an app and a request object; costs one allocation and one `ContextVar.set` |
//! | [`pop`] | undo that; runs nothing |
//! | [`Frame::owns_app_context`] | false when an outer context of the same app is shared: then its teardown is not ours |
//! | [`Frame::request_ctx`] | the Python object, if anybody asked for it |
//! | [`Frame::session`] | the session, if anybody opened it; saving is needed only then |
//! | [`Frame::end`] | tell the context objects that they are no longer pushed; before [`pop`] |
//! | [`Frame::open_session`] | open it now (a permanent session's cookie is renewed even when it is not touched) |
//!
//! Before [`pop`], when `request_ctx()` is some object, call its Python method `_finish(exc)`: it runs teardown functions,
//! closes the request and pops the app context's part, or puts that off until a `stream_with_context` ends. When
//! it is `None`, the dispatcher runs `do_teardown_request` and `do_teardown_appcontext` itself if there are any.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::{PyLookupError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::cookie_session::CookieSessions;
use crate::url_for::Site;

/// The one context variable.
static VARIABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// What a proxy stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// `app_ctx`
    AppContext,
    /// `current_app`
    App,
    /// `g`
    Globals,
    /// `request_ctx`
    RequestContext,
    /// `request`
    Request,
    /// `session`
    Session,
}

/// What a slot of a frame is bound to.
enum Slot {
    /// Nothing.
    Empty,
    /// The bare objects of the frame itself.
    Own,
    /// The bare objects of an outer frame.
    Of(Py<Frame>),
    /// A Python context object.
    Context(Py<PyAny>),
}

/// The app and request of the fast lane, with what was made of them on demand.
struct Bare {
    app: Py<PyAny>,
    request: Py<PyAny>,
    /// Opens the session natively.
    sessions: Option<Arc<CookieSessions>>,
    session: OnceLock<Py<PyAny>>,
    globals: OnceLock<Py<PyAny>>,
    app_ctx: OnceLock<Py<PyAny>>,
    request_ctx: OnceLock<Py<PyAny>>,
    /// The dispatcher has let go: context objects made from now on are not pushed.
    ended: AtomicBool,
    site: OnceLock<Option<Box<Site>>>,
}

/// One binding of the context: an app's slot and a request's slot.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct Frame {
    app: Slot,
    request: Slot,
    bare: Option<Bare>,
}

/// Undoes one [`push`].
pub(crate) struct Token(Py<PyAny>);

/// Binds `app` and `request` in the current context.
///
/// An app context of the same app that is already there is shared, as Flask does: `g` stays the same object.
pub(crate) fn push(
    py: Python<'_>,
    app: &Bound<'_, PyAny>,
    request: &Bound<'_, PyAny>,
    sessions: Option<&Arc<CookieSessions>>,
) -> PyResult<(Py<Frame>, Token)> {
    let outer = current(py)?;
    let shared = match &outer {
        Some(frame) => match Frame::resolve(frame, Part::App)? {
            Some(bound) if bound.is(app) => Frame::slot(frame, Which::App),
            _ => Slot::Own,
        },
        None => Slot::Own,
    };
    push_with(py, app, request, sessions, shared)
}

/// As [`push`], with an app context and a `g` of its own in any case.
pub(crate) fn push_alone(
    py: Python<'_>,
    app: &Bound<'_, PyAny>,
    request: &Bound<'_, PyAny>,
    sessions: Option<&Arc<CookieSessions>>,
) -> PyResult<(Py<Frame>, Token)> {
    push_with(py, app, request, sessions, Slot::Own)
}

fn push_with(
    py: Python<'_>,
    app: &Bound<'_, PyAny>,
    request: &Bound<'_, PyAny>,
    sessions: Option<&Arc<CookieSessions>>,
    shared: Slot,
) -> PyResult<(Py<Frame>, Token)> {
    let bare = Bare {
        app: app.clone().unbind(),
        request: request.clone().unbind(),
        sessions: sessions.map(Arc::clone),
        session: OnceLock::new(),
        globals: OnceLock::new(),
        app_ctx: OnceLock::new(),
        request_ctx: OnceLock::new(),
        ended: AtomicBool::new(false),
        site: OnceLock::new(),
    };
    let frame = Py::new(py, Frame { app: shared, request: Slot::Own, bare: Some(bare) })?;
    let token = set(py, frame.bind(py))?;
    Ok((frame, Token(token)))
}

/// Restores what was bound before the [`push`] that gave `token`. Must run in the same Python context.
pub(crate) fn pop(py: Python<'_>, token: &Token) -> PyResult<()> {
    reset(py, token.0.bind(py))
}

/// The object that `part` stands for at this moment; `None` outside of such a context.
pub(crate) fn resolve(py: Python<'_>, part: Part) -> PyResult<Option<Bound<'_, PyAny>>> {
    match current(py)? {
        Some(frame) => Frame::resolve(&frame, part),
        None => Ok(None),
    }
}

/// The frame bound in the current Python context.
pub(crate) fn current(py: Python<'_>) -> PyResult<Option<Bound<'_, Frame>>> {
    let Some(variable) = VARIABLE.get(py) else { return Ok(None) };
    let mut value = std::ptr::null_mut();
    // SAFETY: `variable` is a ContextVar that lives as long as the module; a null default is allowed, and `value`
    // receives a new reference or null.
    let found = unsafe {
        if ffi::PyContextVar_Get(variable.as_ptr(), std::ptr::null_mut(), &raw mut value) < 0 {
            return Err(PyErr::fetch(py));
        }
        Bound::from_owned_ptr_or_opt(py, value)
    };
    match found {
        Some(object) => Ok(Some(object.cast_into::<Frame>()?)),
        None => Ok(None),
    }
}

/// Where the current request's facts are.
pub(crate) enum Requested<'a, 'py> {
    /// In a bare frame: its app, its request, and what building URLs has found out about them.
    Bare(&'a Bound<'py, Frame>),
    /// In a `RequestContext`.
    Context(&'a Bound<'py, PyAny>),
}

/// The request of a frame, if it has one; makes no context object.
pub(crate) fn requested<'a, 'py>(frame: &'a Bound<'py, Frame>) -> Option<Requested<'a, 'py>> {
    let py = frame.py();
    match &frame.get().request {
        Slot::Empty => None,
        Slot::Context(context) => Some(Requested::Context(context.bind(py))),
        Slot::Of(owner) => Some(Requested::Bare(owner.bind(py))),
        Slot::Own => Some(Requested::Bare(frame)),
    }
}

fn set(py: Python<'_>, frame: &Bound<'_, Frame>) -> PyResult<Py<PyAny>> {
    let variable =
        VARIABLE.get(py).ok_or_else(|| PyRuntimeError::new_err("hipflask._core is not initialised"))?;
    // SAFETY: both are live objects, the first one a ContextVar; the result is a new reference to a token or null.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContextVar_Set(variable.as_ptr(), frame.as_ptr())) }
        .map(Bound::unbind)
}

fn reset(py: Python<'_>, token: &Bound<'_, PyAny>) -> PyResult<()> {
    let variable =
        VARIABLE.get(py).ok_or_else(|| PyRuntimeError::new_err("hipflask._core is not initialised"))?;
    // SAFETY: both are live objects of the right types: `token` came from `set`.
    if unsafe { ffi::PyContextVar_Reset(variable.as_ptr(), token.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    Ok(())
}

impl Slot {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::Own => Self::Own,
            Self::Of(frame) => Self::Of(frame.clone_ref(py)),
            Self::Context(context) => Self::Context(context.clone_ref(py)),
        }
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Empty | Self::Own => Ok(()),
            Self::Of(frame) => visit.call(frame),
            Self::Context(context) => visit.call(context),
        }
    }
}

impl Frame {
    /// A slot as another frame would hold it.
    fn slot(this: &Bound<'_, Self>, which: Which) -> Slot {
        let slot = match which {
            Which::App => &this.get().app,
            Which::Request => &this.get().request,
        };
        match slot {
            Slot::Own => Slot::Of(this.clone().unbind()),
            other => other.clone_ref(this.py()),
        }
    }

    pub(crate) fn resolve<'py>(this: &Bound<'py, Self>, part: Part) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = this.py();
        let frame = this.get();
        let slot = match part {
            Part::AppContext | Part::App | Part::Globals => &frame.app,
            Part::RequestContext | Part::Request | Part::Session => &frame.request,
        };
        let owner = match slot {
            Slot::Empty => return Ok(None),
            Slot::Own => this,
            Slot::Of(owner) => owner.bind(py),
            Slot::Context(context) => {
                let context = context.bind(py);
                return match part {
                    Part::AppContext | Part::RequestContext => Ok(context.clone()),
                    Part::App => context.getattr(intern!(py, "app")),
                    Part::Globals => context.getattr(intern!(py, "g")),
                    Part::Request => context.getattr(intern!(py, "request")),
                    Part::Session => context.getattr(intern!(py, "session")),
                }
                .map(Some);
            }
        };
        let Some(bare) = &owner.get().bare else { return Ok(None) };
        match part {
            Part::App => Ok(bare.app.bind(py).clone()),
            Part::Request => Ok(bare.request.bind(py).clone()),
            Part::Globals => bare.globals(py),
            Part::AppContext => bare.app_context(py),
            Part::RequestContext => bare.request_context(owner),
            Part::Session => bare.session_accessed(py),
        }
        .map(Some)
    }

    /// The `RequestContext` of a bare frame, if anybody asked for it.
    pub(crate) fn request_ctx<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.bare.as_ref()?.request_ctx.get().map(|context| context.bind(py).clone())
    }

    /// The end of a bare frame: its context objects count it no longer among their pushes.
    pub(crate) fn end(&self, py: Python<'_>) -> PyResult<()> {
        let Some(bare) = &self.bare else { return Ok(()) };
        bare.ended.store(true, Ordering::Relaxed);
        for context in [&bare.app_ctx, &bare.request_ctx].into_iter().filter_map(OnceLock::get) {
            context.bind(py).getattr(intern!(py, "_cv_tokens"))?.del_item(0)?;
        }
        Ok(())
    }

    /// What building URLs knows of a bare frame's app and request, found out by `find` at first; `None` where Python
    /// has to build them.
    pub(crate) fn site(
        &self,
        find: impl FnOnce(&Py<PyAny>, &Py<PyAny>) -> PyResult<Option<Box<Site>>>,
    ) -> PyResult<Option<&Site>> {
        let Some(bare) = &self.bare else { return Ok(None) };
        if bare.site.get().is_none() {
            let found = find(&bare.app, &bare.request)?;
            drop(bare.site.set(found));
        }
        Ok(bare.site.get().and_then(Option::as_deref))
    }

    /// Whether this is a bare frame of `app`.
    pub(crate) fn is_of(&self, app: &Bound<'_, PyAny>) -> bool {
        self.bare.as_ref().is_some_and(|bare| bare.app.is(app))
    }

    /// Whether the `RequestContext` of a bare frame has bound the map, or was given a bound one.
    pub(crate) fn has_bound_map(&self, py: Python<'_>) -> PyResult<bool> {
        let Some(context) = self.request_ctx(py) else { return Ok(false) };
        let attributes = context.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
        attributes.contains(intern!(py, "url_adapter"))
    }

    /// The session of a bare frame, if anybody opened it.
    pub(crate) fn session<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match &self.bare {
            Some(bare) => bare.session_if_open(py),
            None => Ok(None),
        }
    }
}

#[pymethods]
impl Frame {
    /// The app of a bare frame.
    #[getter]
    fn app<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.bare.as_ref().map(|bare| bare.app.bind(py).clone())
    }

    /// The request object of a bare frame.
    #[getter]
    fn request<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.bare.as_ref().map(|bare| bare.request.bind(py).clone())
    }

    /// Whether popping this frame ends its app's context.
    #[getter]
    pub(crate) fn owns_app_context(&self) -> bool {
        matches!(self.app, Slot::Own)
    }

    /// Open the session of a bare frame unless it is open, and return it.
    pub(crate) fn open_session<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &self.bare {
            Some(bare) => bare.open_session(py),
            None => Err(PyRuntimeError::new_err("this frame has no request")),
        }
    }

    /// The session of a bare frame, or None while nobody has opened it.
    #[getter(session)]
    fn session_or_none<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.session(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.app.visit(&visit)?;
        self.request.visit(&visit)?;
        if let Some(bare) = &self.bare {
            visit.call(&bare.app)?;
            visit.call(&bare.request)?;
            for cell in [&bare.session, &bare.globals, &bare.app_ctx, &bare.request_ctx] {
                if let Some(object) = cell.get() {
                    visit.call(object)?;
                }
            }
            if let Some(Some(site)) = bare.site.get() {
                site.traverse(&visit)?;
            }
        }
        Ok(())
    }
}

impl Bare {
    fn globals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(context) = self.app_ctx.get() {
            return context.bind(py).getattr(intern!(py, "g"));
        }
        if let Some(globals) = self.globals.get() {
            return Ok(globals.bind(py).clone());
        }
        let fresh = self.app.bind(py).call_method0(intern!(py, "app_ctx_globals_class"))?;
        Ok(kept(&self.globals, fresh))
    }

    fn app_context<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(context) = self.app_ctx.get() {
            return Ok(context.bind(py).clone());
        }
        let globals = self.globals(py)?;
        let make = py.import(intern!(py, "hipflask.ctx"))?.getattr(intern!(py, "_app_context_of"))?;
        let fresh = make.call1((&self.app, globals, !self.ended.load(Ordering::Relaxed)))?;
        Ok(kept(&self.app_ctx, fresh))
    }

    fn request_context<'py>(&self, owner: &Bound<'py, Frame>) -> PyResult<Bound<'py, PyAny>> {
        let py = owner.py();
        if let Some(context) = self.request_ctx.get() {
            return Ok(context.bind(py).clone());
        }
        let make = py.import(intern!(py, "hipflask.ctx"))?.getattr(intern!(py, "_request_context_of"))?;
        let is_pushed = !self.ended.load(Ordering::Relaxed);
        let fresh = make.call1((owner, &self.app, &self.request, is_pushed))?;
        Ok(kept(&self.request_ctx, fresh))
    }

    fn session_if_open<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(context) = self.request_ctx.get() {
            // A session that somebody assigned to the context object counts before the one that we opened.
            let attributes = context.bind(py).getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
            if let Some(session) = attributes.get_item(intern!(py, "_session"))? {
                return Ok(Some(session));
            }
        }
        Ok(self.session.get().map(|session| session.bind(py).clone()))
    }

    fn open_session<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(session) = self.session_if_open(py)? {
            return Ok(session);
        }
        let app = self.app.bind(py);
        if let Some(sessions) = &self.sessions
            && let Some(fresh) = sessions.open(app, self.request.bind(py))?
        {
            return Ok(kept(&self.session, fresh));
        }
        let interface = app.getattr(intern!(py, "session_interface"))?;
        let mut fresh = interface.call_method1(intern!(py, "open_session"), (app, &self.request))?;
        if fresh.is_none() {
            fresh = interface.call_method1(intern!(py, "make_null_session"), (app,))?;
        }
        Ok(kept(&self.session, fresh))
    }

    fn session_accessed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let session = self.open_session(py)?;
        session.setattr(intern!(py, "accessed"), true)?;
        Ok(session)
    }
}

/// Stores `fresh` unless another thread was first, and gives what is stored.
fn kept<'py>(cell: &OnceLock<Py<PyAny>>, fresh: Bound<'py, PyAny>) -> Bound<'py, PyAny> {
    let py = fresh.py();
    match cell.set(fresh.clone().unbind()) {
        Ok(()) => fresh,
        Err(_) => cell.get().map_or(fresh, |first| first.bind(py).clone()),
    }
}

/// Which of the two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The app's context.
    App,
    /// The request's context.
    Request,
}

/// A look-alike of `contextvars.ContextVar` over one slot of the current frame.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct SlotVar {
    pub(crate) which: Which,
}

/// What `SlotVar.set` returns, for `SlotVar.reset`.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct SlotToken {
    which: Which,
    before: Slot,
    frame: Py<Frame>,
    inner: Py<PyAny>,
    used: AtomicBool,
}

#[pymethods]
impl SlotVar {
    /// The variable's name.
    #[getter]
    fn name(&self) -> &'static str {
        match self.which {
            Which::App => "flask.app_ctx",
            Which::Request => "flask.request_ctx",
        }
    }

    /// The context object bound in this slot, else the default, else LookupError.
    #[pyo3(signature = (*default))]
    fn get<'py>(this: &Bound<'py, Self>, default: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let part = match this.get().which {
            Which::App => Part::AppContext,
            Which::Request => Part::RequestContext,
        };
        if let Some(found) = resolve(py, part)? {
            return Ok(found);
        }
        match default.len() {
            0 => Err(PyLookupError::new_err((this.clone().unbind(),))),
            1 => default.get_item(0),
            n => Err(PyTypeError::new_err(format!("get expected at most 1 argument, got {n}"))),
        }
    }

    /// Whether anything is bound in this slot; makes no context object.
    fn bound(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(match current(py)? {
            None => false,
            Some(frame) => {
                let frame = frame.get();
                let slot = match self.which {
                    Which::App => &frame.app,
                    Which::Request => &frame.request,
                };
                !matches!(slot, Slot::Empty)
            }
        })
    }

    /// Bind a context object in this slot, leaving the other slot as it is.
    fn set(&self, py: Python<'_>, value: Bound<'_, PyAny>) -> PyResult<SlotToken> {
        let (before, frame) = self.replaced(py, Slot::Context(value.unbind()))?;
        let frame = Py::new(py, frame)?;
        let inner = set(py, frame.bind(py))?;
        Ok(SlotToken { which: self.which, before, frame, inner, used: AtomicBool::new(false) })
    }

    /// Bind what was bound before the `set` that gave the token.
    fn reset(&self, py: Python<'_>, token: &Bound<'_, SlotToken>) -> PyResult<()> {
        let state = token.get();
        if state.which != self.which {
            return Err(PyValueError::new_err(format!(
                "the token was created by a different variable than {}",
                self.name()
            )));
        }
        if state.used.swap(true, Ordering::AcqRel) {
            return Err(PyRuntimeError::new_err("the token has already been used once"));
        }
        if let Some(now) = current(py)?
            && now.is(&state.frame)
        {
            // Nothing was bound since: the real variable goes back too, and refuses a token of another Python context.
            return reset(py, state.inner.bind(py))
                .inspect_err(|_| state.used.store(false, Ordering::Release));
        }
        let (_, frame) = self.replaced(py, state.before.clone_ref(py))?;
        set(py, Py::new(py, frame)?.bind(py))?;
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("<ContextVar name='{}'>", self.name())
    }
}

impl SlotVar {
    /// This slot's content, and a frame like the current one with `slot` in its place.
    fn replaced(&self, py: Python<'_>, slot: Slot) -> PyResult<(Slot, Frame)> {
        let now = current(py)?;
        let held = |which| now.as_ref().map_or(Slot::Empty, |frame| Frame::slot(frame, which));
        Ok(match self.which {
            Which::App => (held(Which::App), Frame { app: slot, request: held(Which::Request), bare: None }),
            Which::Request => {
                (held(Which::Request), Frame { app: held(Which::App), request: slot, bare: None })
            }
        })
    }
}

#[pymethods]
impl SlotToken {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.before.visit(&visit)?;
        visit.call(&self.frame)?;
        visit.call(&self.inner)
    }
}

/// Bind an app and a request object as the fast lane does; for tests and for code that has no engine.
#[pyfunction]
fn push_bare(
    py: Python<'_>,
    app: &Bound<'_, PyAny>,
    request: &Bound<'_, PyAny>,
) -> PyResult<(Py<Frame>, Py<PyAny>)> {
    let sessions = CookieSessions::of(&app.getattr(intern!(py, "session_interface"))?)?.map(Arc::new);
    let (frame, token) = push(py, app, request, sessions.as_ref())?;
    Ok((frame, token.0))
}

/// Add `g` and `request` to a template's variables, where they are bound and not among them.
#[pyfunction]
fn add_template_names(py: Python<'_>, context: &Bound<'_, PyDict>) -> PyResult<()> {
    let Some(frame) = current(py)? else { return Ok(()) };
    for (name, part) in [(intern!(py, "g"), Part::Globals), (intern!(py, "request"), Part::Request)] {
        if !context.contains(name)?
            && let Some(object) = Frame::resolve(&frame, part)?
        {
            context.set_item(name, object)?;
        }
    }
    Ok(())
}

/// Bind nothing any more in the current context: neither app nor request. For a copy of a context that outlives them.
#[pyfunction]
fn unbind_contexts(py: Python<'_>) -> PyResult<()> {
    let nothing = Py::new(py, Frame { app: Slot::Empty, request: Slot::Empty, bare: None })?;
    set(py, nothing.bind(py)).map(drop)
}

/// The current app itself, or None where there is none.
#[pyfunction]
fn bound_app(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    resolve(py, Part::App)
}

/// Undo `push_bare`.
#[pyfunction]
fn pop_bare(py: Python<'_>, token: Py<PyAny>) -> PyResult<()> {
    pop(py, &Token(token))
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    VARIABLE.get_or_try_init(py, || {
        // SAFETY: the name is a C string and a null default means none; the result is a new reference or null.
        unsafe {
            Bound::from_owned_ptr_or_err(
                py,
                ffi::PyContextVar_New(c"hipflask.frame".as_ptr(), std::ptr::null_mut()),
            )
        }
        .map(Bound::unbind)
    })?;
    module.add_class::<Frame>()?;
    module.add_class::<SlotVar>()?;
    module.add_class::<SlotToken>()?;
    module.add(PyString::new(py, "app_slot"), SlotVar { which: Which::App })?;
    module.add(PyString::new(py, "request_slot"), SlotVar { which: Which::Request })?;
    module.add_function(wrap_pyfunction!(add_template_names, module)?)?;
    module.add_function(wrap_pyfunction!(bound_app, module)?)?;
    module.add_function(wrap_pyfunction!(push_bare, module)?)?;
    module.add_function(wrap_pyfunction!(unbind_contexts, module)?)?;
    module.add_function(wrap_pyfunction!(pop_bare, module)?)
}
