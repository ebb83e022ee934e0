//! `LocalProxy`: an object that stands for another one, looked up again at each use.
//!
//! Implements the behaviour of `werkzeug.local.LocalProxy` (3.1). A proxy of a slot of the native frame (see
//! [`context`](crate::context)) finds its object without running Python code. Does not proxy pickling, descriptors
//! or metaclass hooks, as the original does not.

use std::sync::OnceLock;

use pyo3::basic::CompareOp;
use pyo3::exceptions::{PyAttributeError, PyLookupError, PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::context::{self, Part, SlotVar, Which};

/// Where a proxy finds its object.
enum Source {
    /// A part of the current frame.
    Part(Part),
    /// A slot's context object, for names that are no part of it.
    Slot(Part),
    /// A `ContextVar`, through its `get` method.
    Variable,
    /// A `Local` namespace: the name is looked up in it.
    Namespace,
    /// The top of a `LocalStack`.
    Stack,
    /// The result of a call.
    Call,
}

struct Target {
    source: Source,
    wrapped: Py<PyAny>,
    /// The attribute to take of what is found, one element per dotted part.
    names: Vec<Py<PyString>>,
    unbound_message: Option<Py<PyString>>,
}

/// A proxy to the object bound to a context-local variable.
///
/// All operations are forwarded to that object; `RuntimeError` is raised while none is bound. `repr(x)` and
/// `isinstance(x, cls)` see the object too; `issubclass(type(x), LocalProxy)` tells a proxy.
///
/// Args:
///     local: A `ContextVar`, `Local`, `LocalStack` or callable that gives the object.
///     name: Proxy this attribute of what `local` gives.
///     unbound_message: The text of the RuntimeError raised while nothing is bound.
#[pyclass(frozen, subclass, module = "hipflask.werkzeug.local")]
pub(crate) struct LocalProxy {
    target: OnceLock<Target>,
}

fn unbound(py: Python<'_>, message: Option<&Py<PyString>>) -> PyErr {
    match message {
        Some(text) => PyRuntimeError::new_err((text.clone_ref(py),)),
        None => PyRuntimeError::new_err("object is not bound"),
    }
}

impl Target {
    fn new(
        local: &Bound<'_, PyAny>,
        name: Option<&Bound<'_, PyString>>,
        message: Option<Bound<'_, PyString>>,
    ) -> PyResult<Self> {
        let py = local.py();
        let mut names = Vec::new();
        if let Some(name) = name {
            for part in name.to_str()?.split('.') {
                names.push(PyString::intern(py, part).unbind());
            }
        }
        let source = if let Ok(slot) = local.cast::<SlotVar>() {
            let part = match (slot.get().which, name.map(|name| name.to_str()).transpose()?) {
                (Which::App, None) => Some(Part::AppContext),
                (Which::App, Some("app")) => Some(Part::App),
                (Which::App, Some("g")) => Some(Part::Globals),
                (Which::Request, None) => Some(Part::RequestContext),
                (Which::Request, Some("request")) => Some(Part::Request),
                (Which::Request, Some("session")) => Some(Part::Session),
                _ => None,
            };
            match (part, slot.get().which) {
                (Some(part), _) => {
                    names.clear();
                    Source::Part(part)
                }
                (None, Which::App) => Source::Slot(Part::AppContext),
                (None, Which::Request) => Source::Slot(Part::RequestContext),
            }
        // SAFETY: the pointer is that of a live object.
        } else if unsafe { ffi::PyContextVar_CheckExact(local.as_ptr()) } != 0 {
            Source::Variable
        } else {
            let module = py.import(intern!(py, "hipflask.werkzeug.local"))?;
            if local.is_instance(&module.getattr(intern!(py, "Local"))?)? {
                if names.is_empty() {
                    return Err(PyTypeError::new_err("'name' is required when proxying a 'Local' object."));
                }
                Source::Namespace
            } else if local.is_instance(&module.getattr(intern!(py, "LocalStack"))?)? {
                Source::Stack
            } else if local.is_callable() {
                Source::Call
            } else {
                return Err(PyTypeError::new_err(format!(
                    "Don't know how to proxy '{}'.",
                    local.get_type().repr()?
                )));
            }
        };
        Ok(Self {
            source,
            wrapped: local.clone().unbind(),
            names,
            unbound_message: message.map(Bound::unbind),
        })
    }

    fn object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let wrapped = self.wrapped.bind(py);
        let nothing = || unbound(py, self.unbound_message.as_ref());
        let mut found = match self.source {
            Source::Part(part) => return context::resolve(py, part)?.ok_or_else(nothing),
            Source::Slot(part) => context::resolve(py, part)?.ok_or_else(nothing)?,
            Source::Variable => match wrapped.call_method0(intern!(py, "get")) {
                Err(error) if error.is_instance_of::<PyLookupError>(py) => return Err(nothing()),
                other => other?,
            },
            Source::Namespace => wrapped.clone(),
            Source::Stack => {
                let top = wrapped.getattr(intern!(py, "top"))?;
                if top.is_none() {
                    return Err(nothing());
                }
                top
            }
            Source::Call => wrapped.call0()?,
        };
        for name in &self.names {
            found = match found.getattr(name.bind(py)) {
                Err(error)
                    if matches!(self.source, Source::Namespace)
                        && error.is_instance_of::<PyAttributeError>(py) =>
                {
                    return Err(nothing());
                }
                other => other?,
            };
        }
        Ok(found)
    }
}

/// What a lookup of a special name on a proxy does.
enum Special {
    /// Ask the proxied object.
    Forward,
    /// The proxy's own type knows it.
    Own,
}

fn special(name: &str) -> Special {
    match name {
        "__dict__" | "__weakref__" | "__enter__" | "__exit__" | "__await__" | "__aiter__" | "__anext__"
        | "__aenter__" | "__aexit__" | "__format__" => Special::Forward,
        _ => Special::Own,
    }
}

impl LocalProxy {
    fn current<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.target.get() {
            Some(target) => target.object(py),
            None => Err(PyRuntimeError::new_err("LocalProxy.__init__ was not called")),
        }
    }

    /// The object, or `None` where it is unbound: errors of other kinds pass.
    fn current_if_bound<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.current(py) {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_instance_of::<PyRuntimeError>(py) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An attribute whose name begins with an underscore, or any attribute of a subclass' proxy.
    #[cold]
    fn own_attribute<'py>(
        this: &Bound<'py, Self>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let proxy = this.get();
        match name.to_str()? {
            "__class__" => {
                return Ok(match proxy.current_if_bound(py)? {
                    Some(object) => object.getattr(name)?,
                    None => this.get_type().into_any(),
                });
            }
            "__doc__" => {
                return match proxy.current_if_bound(py)? {
                    Some(object) => object.getattr(name),
                    None => this.get_type().getattr(name),
                };
            }
            "__wrapped__" => {
                return match (proxy.current_if_bound(py)?, proxy.target.get()) {
                    (Some(object), _) => object.getattr(name),
                    (None, Some(target)) => Ok(target.wrapped.bind(py).clone()),
                    (None, None) => Err(PyAttributeError::new_err("__wrapped__")),
                };
            }
            "_LocalProxy__wrapped" => {
                if let Some(target) = proxy.target.get() {
                    return Ok(target.wrapped.bind(py).clone());
                }
            }
            text => {
                if matches!(special(text), Special::Forward) {
                    return proxy.current(py)?.getattr(name);
                }
            }
        }
        // SAFETY: both are live objects, the second a str; the result is a new reference or null with an error set.
        let own = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyObject_GenericGetAttr(this.as_ptr(), name.as_ptr()))
        };
        match own {
            Err(error) if error.is_instance_of::<PyAttributeError>(py) => proxy.current(py)?.getattr(name),
            other => other,
        }
    }
}

/// Methods of one operand that call a function of the `operator` kind on the object.
macro_rules! call_on {
    ($self:ident, $py:ident, $method:literal $(, $argument:expr)*) => {
        $self.current($py)?.call_method1(intern!($py, $method), ($($argument,)*))
    };
}

/// Calls a function of a standard module on the object.
fn apply<'py>(object: &Bound<'py, PyAny>, module: &str, function: &str) -> PyResult<Bound<'py, PyAny>> {
    object.py().import(module)?.getattr(function)?.call1((object,))
}

/// One binary operation of the C API, with the object on the left or on the right.
macro_rules! binary {
    ($py:expr, $function:ident, $left:expr, $right:expr) => {{
        // SAFETY: both operands are live objects; the result is a new reference or null with an error set.
        unsafe { Bound::from_owned_ptr_or_err($py, ffi::$function($left.as_ptr(), $right.as_ptr())) }
    }};
}

/// One unary operation of the C API.
macro_rules! unary {
    ($py:expr, $function:ident, $operand:expr) => {{
        // SAFETY: the operand is a live object; the result is a new reference or null with an error set.
        unsafe { Bound::from_owned_ptr_or_err($py, ffi::$function($operand.as_ptr())) }
    }};
}

#[pymethods]
impl LocalProxy {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { target: OnceLock::new() }
    }

    #[pyo3(signature = (local, name = None, *, unbound_message = None))]
    fn __init__(
        &self,
        local: &Bound<'_, PyAny>,
        name: Option<&Bound<'_, PyString>>,
        unbound_message: Option<Bound<'_, PyString>>,
    ) -> PyResult<()> {
        let target = Target::new(local, name, unbound_message)?;
        // A second call changes nothing: other threads may be reading.
        let _ = self.target.set(target);
        Ok(())
    }

    #[classmethod]
    fn __class_getitem__<'py>(
        cls: &Bound<'py, PyType>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        cls.py()
            .import(intern!(cls.py(), "types"))?
            .call_method1(intern!(cls.py(), "GenericAlias"), (cls, item))
    }

    /// Return the object that this proxy stands for at this moment.
    ///
    /// Raises:
    ///     RuntimeError: If nothing is bound.
    fn _get_current_object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.current(py)
    }

    fn __getattribute__<'py>(
        this: &Bound<'py, Self>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let plain =
            this.get_type().is(py.get_type::<Self>()) && !name.to_str().unwrap_or("_").starts_with('_');
        if plain { this.get().current(py)?.getattr(name) } else { Self::own_attribute(this, name) }
    }

    fn __setattr__(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyString>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.current(py)?.setattr(name, value)
    }

    fn __delattr__(&self, py: Python<'_>, name: &Bound<'_, PyString>) -> PyResult<()> {
        self.current(py)?.delattr(name)
    }

    fn __dir__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.current_if_bound(py)? {
            Some(object) => Ok(object.dir()?.into_any()),
            None => Ok(pyo3::types::PyList::empty(py).into_any()),
        }
    }

    fn __repr__(this: &Bound<'_, Self>) -> PyResult<String> {
        match this.get().current_if_bound(this.py())? {
            Some(object) => Ok(object.repr()?.to_str()?.to_owned()),
            None => Ok(format!("<{} unbound>", this.get_type().name()?)),
        }
    }

    fn __str__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.current(py)?.str()
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        unary!(py, PyObject_Bytes, self.current(py)?)
    }

    fn __format__<'py>(&self, py: Python<'py>, spec: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(py, PyObject_Format, self.current(py)?, spec)
    }

    fn __richcmp__<'py>(&self, other: &Bound<'py, PyAny>, op: CompareOp) -> PyResult<Bound<'py, PyAny>> {
        self.current(other.py())?.rich_compare(other, op)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.current(py)?.hash()
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        match self.current_if_bound(py)? {
            Some(object) => object.is_truthy(),
            None => Ok(false),
        }
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.current(py)?.call(args, kwargs)
    }

    fn __instancecheck__(&self, instance: &Bound<'_, PyAny>) -> PyResult<bool> {
        instance.is_instance(&self.current(instance.py())?)
    }

    fn __subclasscheck__<'py>(&self, subclass: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = subclass.py();
        py.import(intern!(py, "builtins"))?
            .call_method1(intern!(py, "issubclass"), (subclass, self.current(py)?))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.current(py)?.len()
    }

    fn __length_hint__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        apply(&self.current(py)?, "operator", "length_hint")
    }

    fn __getitem__<'py>(&self, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.current(key.py())?.get_item(key)
    }

    fn __setitem__(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.current(key.py())?.set_item(key, value)
    }

    fn __delitem__(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        self.current(key.py())?.del_item(key)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.current(py)?.try_iter()?.into_any())
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let object = self.current(py)?;
        // SAFETY: the operand is a live object, checked to be an iterator; null without an error means the end.
        unsafe {
            if ffi::PyIter_Check(object.as_ptr()) == 0 {
                return Err(PyTypeError::new_err(format!(
                    "'{}' object is not an iterator",
                    object.get_type().name()?
                )));
            }
            match Bound::from_owned_ptr_or_opt(py, ffi::PyIter_Next(object.as_ptr())) {
                Some(item) => Ok(Some(item)),
                None => PyErr::take(py).map_or(Ok(None), Err),
            }
        }
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        apply(&self.current(py)?, "builtins", "reversed")
    }

    fn __contains__(&self, item: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.current(item.py())?.contains(item)
    }

    fn __add__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        // `operator.add` also joins sequences, which the number protocol alone would do as well.
        binary!(other.py(), PyNumber_Add, self.current(other.py())?, other)
    }
    fn __sub__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Subtract, self.current(other.py())?, other)
    }
    fn __mul__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Multiply, self.current(other.py())?, other)
    }
    fn __matmul__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_MatrixMultiply, self.current(other.py())?, other)
    }
    fn __truediv__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_TrueDivide, self.current(other.py())?, other)
    }
    fn __floordiv__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_FloorDivide, self.current(other.py())?, other)
    }
    fn __mod__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Remainder, self.current(other.py())?, other)
    }
    fn __divmod__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Divmod, self.current(other.py())?, other)
    }
    fn __lshift__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Lshift, self.current(other.py())?, other)
    }
    fn __rshift__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Rshift, self.current(other.py())?, other)
    }
    fn __and__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_And, self.current(other.py())?, other)
    }
    fn __xor__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Xor, self.current(other.py())?, other)
    }
    fn __or__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Or, self.current(other.py())?, other)
    }
    fn __pow__<'py>(
        &self,
        other: &Bound<'py, PyAny>,
        modulo: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.current(other.py())?.pow(other, modulo)
    }

    fn __radd__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Add, other, self.current(other.py())?)
    }
    fn __rsub__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Subtract, other, self.current(other.py())?)
    }
    fn __rmul__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Multiply, other, self.current(other.py())?)
    }
    fn __rmatmul__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_MatrixMultiply, other, self.current(other.py())?)
    }
    fn __rtruediv__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_TrueDivide, other, self.current(other.py())?)
    }
    fn __rfloordiv__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_FloorDivide, other, self.current(other.py())?)
    }
    fn __rmod__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Remainder, other, self.current(other.py())?)
    }
    fn __rdivmod__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Divmod, other, self.current(other.py())?)
    }
    fn __rlshift__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Lshift, other, self.current(other.py())?)
    }
    fn __rrshift__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Rshift, other, self.current(other.py())?)
    }
    fn __rand__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_And, other, self.current(other.py())?)
    }
    fn __rxor__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Xor, other, self.current(other.py())?)
    }
    fn __ror__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary!(other.py(), PyNumber_Or, other, self.current(other.py())?)
    }
    fn __rpow__<'py>(
        &self,
        other: &Bound<'py, PyAny>,
        modulo: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        other.pow(self.current(other.py())?, modulo)
    }

    // Augmented assignment changes the object and keeps the name bound to the proxy: the result is dropped.
    fn __iadd__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        binary!(other.py(), PyNumber_InPlaceAdd, self.current(other.py())?, other).map(drop)
    }
    fn __isub__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        binary!(other.py(), PyNumber_InPlaceSubtract, self.current(other.py())?, other).map(drop)
    }
    fn __imul__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        binary!(other.py(), PyNumber_InPlaceMultiply, self.current(other.py())?, other).map(drop)
    }
    fn __imatmul__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        binary!(other.py(), PyNumber_InPlaceMatrixMultiply, self.current(other.py())?, other).map(drop)
    }
    fn __itruediv__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        binary!(other.py(), PyNumber_InPlaceTrueDivide, self.current(other.py())?, other).map(drop)
    }
    fn __ifloordiv__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        binary!(other.py(), PyNumber_InPlaceFloorDivide, self.current(other.py())?, other).map(drop)
    }
    fn __imod__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        binary!(other.py(), PyNumber_InPlaceRemainder, self.current(other.py())?, other).map(drop)
    }
    fn __ilshift__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        binary!(other.py(), PyNumber_InPlaceLshift, self.current(other.py())?, other).map(drop)
    }
    fn __irshift__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        binary!(other.py(), PyNumber_InPlaceRshift, self.current(other.py())?, other).map(drop)
    }
    fn __iand__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        binary!(other.py(), PyNumber_InPlaceAnd, self.current(other.py())?, other).map(drop)
    }
    fn __ixor__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        binary!(other.py(), PyNumber_InPlaceXor, self.current(other.py())?, other).map(drop)
    }
    fn __ior__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        binary!(other.py(), PyNumber_InPlaceOr, self.current(other.py())?, other).map(drop)
    }
    fn __ipow__(&self, other: &Bound<'_, PyAny>, _modulo: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = other.py();
        py.import(intern!(py, "operator"))?
            .call_method1(intern!(py, "ipow"), (self.current(py)?, other))
            .map(drop)
    }

    fn __neg__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        unary!(py, PyNumber_Negative, self.current(py)?)
    }
    fn __pos__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        unary!(py, PyNumber_Positive, self.current(py)?)
    }
    fn __abs__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        unary!(py, PyNumber_Absolute, self.current(py)?)
    }
    fn __invert__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        unary!(py, PyNumber_Invert, self.current(py)?)
    }
    fn __int__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        unary!(py, PyNumber_Long, self.current(py)?)
    }
    fn __float__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        unary!(py, PyNumber_Float, self.current(py)?)
    }
    fn __index__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        unary!(py, PyNumber_Index, self.current(py)?)
    }
    fn __complex__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        apply(&self.current(py)?, "builtins", "complex")
    }
    #[pyo3(signature = (*digits))]
    fn __round__<'py>(&self, py: Python<'py>, digits: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.current(py)?.call_method1(intern!(py, "__round__"), digits.clone())
    }
    fn __trunc__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        apply(&self.current(py)?, "math", "trunc")
    }
    fn __floor__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        apply(&self.current(py)?, "math", "floor")
    }
    fn __ceil__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        apply(&self.current(py)?, "math", "ceil")
    }

    fn __enter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call_on!(self, py, "__enter__")
    }
    fn __exit__<'py>(
        &self,
        kind: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = kind.py();
        call_on!(self, py, "__exit__", kind, value, traceback)
    }
    fn __await__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call_on!(self, py, "__await__")
    }
    fn __aiter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call_on!(self, py, "__aiter__")
    }
    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call_on!(self, py, "__anext__")
    }
    fn __aenter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call_on!(self, py, "__aenter__")
    }
    fn __aexit__<'py>(
        &self,
        kind: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = kind.py();
        call_on!(self, py, "__aexit__", kind, value, traceback)
    }

    fn __copy__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        apply(&self.current(py)?, "copy", "copy")
    }
    fn __deepcopy__<'py>(&self, memo: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = memo.py();
        py.import(intern!(py, "copy"))?.call_method1(intern!(py, "deepcopy"), (self.current(py)?, memo))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.target.get() {
            Some(target) => visit.call(&target.wrapped),
            None => Ok(()),
        }
    }
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<LocalProxy>()
}
