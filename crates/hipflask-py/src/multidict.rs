//! `MultiDict`: a dict whose keys have lists of values, and reads as if each had its first alone.
//!
//! The immutable and combined kinds are Python classes over these (`hipflask/werkzeug/datastructures/structures.py`):
//! what they add is refusals and cold paths.
//!
//! Implements: `werkzeug.datastructures.MultiDict` and `TypeConversionDict` (3.1).

use std::convert::Infallible;

use pyo3::exceptions::{PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyIterator, PyList, PyMapping, PySet, PyTuple, PyType};
use pyo3::{IntoPyObjectExt, PyTypeInfo, ffi, intern};

use crate::collector::CollectorPause;

/// An argument that differs from `None` when it is not given.
pub(crate) enum Given<'py> {
    Nothing,
    Value(Bound<'py, PyAny>),
}

impl<'py> FromPyObject<'_, 'py> for Given<'py> {
    type Error = Infallible;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> Result<Self, Infallible> {
        Ok(Self::Value(value.to_owned()))
    }
}

/// The `BadRequestKeyError` for a missing key: a `KeyError` that Flask answers with 400.
pub(crate) fn bad_request_key(key: &Bound<'_, PyAny>) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(key.py(), "hipflask.werkzeug.exceptions", "BadRequestKeyError");
    match class.and_then(|class| class.call1((key,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// The two items of a pair, which may be any iterable of two, as where Python unpacks.
pub(crate) fn unpack<'py>(pair: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    if let Ok(tuple) = pair.cast::<PyTuple>()
        && tuple.len() == 2
    {
        return Ok((tuple.get_item(0)?, tuple.get_item(1)?));
    }
    let items = pair.try_iter()?.take(3).collect::<PyResult<Vec<_>>>()?;
    match <[Bound<'py, PyAny>; 2]>::try_from(items) {
        Ok([first, second]) => Ok((first, second)),
        Err(_) => Err(PyValueError::new_err("a pair has two items")),
    }
}

/// So many pairs are put into a dict with the garbage collector as it is.
const COLLECTED: usize = 1000;

/// A `MultiDict`, or an `ImmutableMultiDict`, of these pairs, whose keys are plain; a key that comes again adds to its list.
pub(crate) fn from_pairs<'py, K, V>(
    py: Python<'py>,
    immutable: bool,
    pairs: impl IntoIterator<Item = (K, V)>,
) -> PyResult<Bound<'py, MultiDict>>
where
    K: IntoPyObject<'py>,
    V: IntoPyObject<'py>,
{
    let class = if immutable { immutable_class(py)? } else { &MultiDict::type_object(py) };
    let made = bare(class)?;
    let mut pause = None;
    for (count, (key, value)) in pairs.into_iter().enumerate() {
        if count == COLLECTED {
            pause = Some(CollectorPause::new(py));
        }
        let key = key.into_bound_py_any(py)?;
        let value = value.into_bound_py_any(py)?;
        append(&made, &key, &value)?;
    }
    drop(pause);
    Ok(made)
}

/// The same as [`from_pairs`] for a class that a user put in its place.
pub(crate) fn of_class<'py, K, V>(
    class: &Bound<'py, PyType>,
    pairs: impl IntoIterator<Item = (K, V)>,
) -> PyResult<Bound<'py, PyAny>>
where
    K: IntoPyObject<'py>,
    V: IntoPyObject<'py>,
{
    let py = class.py();
    if class.is(immutable_class(py)?) {
        return from_pairs(py, true, pairs).map(Bound::into_any);
    }
    if class.is(MultiDict::type_object(py)) {
        return from_pairs(py, false, pairs).map(Bound::into_any);
    }
    let list = PyList::empty(py);
    for pair in pairs {
        list.append(pair)?;
    }
    class.call1((list,))
}

fn immutable_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "hipflask.werkzeug.datastructures.structures", "ImmutableMultiDict")
}

// An empty object without a call to `__new__` and `__init__`, which would do no more and take ten times as long.
fn bare<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, MultiDict>> {
    let py = class.py();
    // SAFETY: `class` is `MultiDict` or `ImmutableMultiDict`, which adds no state to it. `dict`'s `tp_new` makes an object
    // of that type with zeroed memory after the dict, and zeroes are the initial state of what we keep there: a weakref list.
    unsafe {
        let Some(new) = ffi::PyDict_Type.tp_new else {
            return Err(PyTypeError::new_err("dict cannot be made"));
        };
        let empty = PyTuple::empty(py);
        let made = new(class.as_type_ptr(), empty.as_ptr(), std::ptr::null_mut());
        Ok(Bound::from_owned_ptr_or_err(py, made)?.cast_into_unchecked())
    }
}

fn append<'py>(
    dict: &Bound<'py, MultiDict>,
    key: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
) -> PyResult<()> {
    // One look into the dict for both cases: a form may have a great many keys.
    let (fresh, list) = raw(dict).set_default_with_result(key, PyList::new(dict.py(), [value])?)?;
    match list.cast::<PyList>() {
        _ if fresh => Ok(()),
        Ok(list) => list.append(value),
        Err(_) => list.call_method1(intern!(dict.py(), "append"), (value,)).map(drop),
    }
}

fn raw<'a, 'py>(dict: &'a Bound<'py, MultiDict>) -> &'a Bound<'py, PyDict> {
    dict.as_super().as_super()
}

fn first<'py>(list: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    match list.cast::<PyList>() {
        Ok(list) if list.is_empty() => Ok(None),
        Ok(list) => list.get_item(0).map(Some),
        Err(_) if list.len()? == 0 => Ok(None),
        Err(_) => list.get_item(0).map(Some),
    }
}

/// Whether several values are meant, as Werkzeug decides it.
pub(crate) fn is_many(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() || value.is_instance_of::<PySet>()
}

/// Calls `each` with every key and value of a `MultiDict`, a mapping (lists, tuples and sets are many values) or pairs.
pub(crate) fn each_multi_item<'py>(
    items: &Bound<'py, PyAny>,
    each: &mut dyn FnMut(Bound<'py, PyAny>, Bound<'py, PyAny>) -> PyResult<()>,
) -> PyResult<()> {
    let py = items.py();
    let mut pairs = |pairs: Bound<'py, PyAny>, spread: bool| {
        for pair in pairs.try_iter()? {
            let (key, value) = unpack(&pair?)?;
            if spread && is_many(&value) {
                for value in value.try_iter()? {
                    each(key.clone(), value?)?;
                }
            } else {
                each(key, value)?;
            }
        }
        Ok(())
    };
    if items.is_instance_of::<MultiDict>() {
        pairs(items.call_method1(intern!(py, "items"), (true,))?, false)
    } else if items.cast::<PyMapping>().is_ok() {
        pairs(items.call_method0(intern!(py, "items"))?, true)
    } else {
        pairs(items.clone(), false)
    }
}

/// `convert(value)`, or `None` where it raises `ValueError` or `TypeError`.
fn converted<'py>(
    convert: &Bound<'py, PyAny>,
    value: Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = value.py();
    match convert.call1((value,)) {
        Err(error) if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyTypeError>(py) => {
            Ok(None)
        }
        done => done.map(Some),
    }
}

fn or_none<'py>(py: Python<'py>, value: Option<Bound<'py, PyAny>>) -> Bound<'py, PyAny> {
    value.unwrap_or_else(|| py.None().into_bound(py))
}

/// A dict whose ``get`` converts the value.
#[pyclass(
    frozen,
    subclass,
    weakref,
    extends = PyDict,
    module = "hipflask.werkzeug.datastructures.structures"
)]
pub(crate) struct TypeConversionDict;

#[pymethods]
impl TypeConversionDict {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = None)]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self
    }

    /// The value of ``key``, or ``default`` if there is none or ``type`` refuses it.
    ///
    /// Args:
    ///     key: The key.
    ///     default: What to return when there is no value, or none that ``type`` takes.
    ///     type: A callable that converts the value; ``ValueError`` and ``TypeError`` are refusals.
    #[pyo3(signature = (key, default=None, r#type=None))]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
        r#type: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let value = match slf.as_any().get_item(key) {
            Err(error) if error.is_instance_of::<PyKeyError>(py) => return Ok(or_none(py, default)),
            found => found?,
        };
        match r#type {
            None => Ok(value),
            Some(convert) => Ok(or_none(py, converted(convert, value)?.or(default))),
        }
    }

    // The default for the oldest protocols takes a native class for one that cannot be pickled.
    fn __reduce_ex__<'py>(
        slf: &Bound<'py, Self>,
        _protocol: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        (slf.get_type(), (slf.as_super().copy()?,)).into_pyobject(slf.py())
    }
}

/// A dict whose keys may have several values; reading gives the first.
///
/// Args:
///     mapping: What to start with: another ``MultiDict``, a mapping (lists become several values) or pairs.
#[pyclass(
    frozen,
    subclass,
    extends = TypeConversionDict,
    module = "hipflask.werkzeug.datastructures.structures"
)]
pub(crate) struct MultiDict;

#[pymethods]
impl MultiDict {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(mapping=None)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(TypeConversionDict).add_subclass(Self)
    }

    #[pyo3(signature = (mapping=None))]
    fn __init__(slf: &Bound<'_, Self>, mapping: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let Some(mapping) = mapping else { return Ok(()) };
        let (py, this) = (slf.py(), raw(slf));
        if let Ok(other) = mapping.cast::<Self>() {
            for pair in Self::virtual_lists(other)?.try_iter()? {
                let (key, values) = unpack(&pair?)?;
                this.set_item(key, values)?;
            }
        } else if mapping.cast::<PyMapping>().is_ok() {
            for pair in mapping.call_method0(intern!(py, "items"))?.try_iter()? {
                let (key, value) = unpack(&pair?)?;
                if !is_many(&value) {
                    this.set_item(key, PyList::new(py, [value])?)?;
                } else if value.len()? > 0 {
                    this.set_item(key, value.try_iter()?.collect::<PyResult<Vec<_>>>()?)?;
                }
            }
        } else {
            for pair in mapping.try_iter()? {
                let (key, value) = unpack(&pair?)?;
                append(slf, &key, &value)?;
            }
        }
        Ok(())
    }

    // Python copies a dict subclass by its raw values (lists, here) unless the class has an `__iter__` of its own.
    fn __iter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyIterator>> {
        // SAFETY: `dict` has this slot, and it returns a new reference or null with an exception set.
        unsafe {
            let iter = ffi::PyDict_Type.tp_iter;
            let made = iter.map_or(std::ptr::null_mut(), |iter| iter(slf.as_ptr()));
            Ok(Bound::from_owned_ptr_or_err(slf.py(), made)?.cast_into_unchecked())
        }
    }

    fn __getitem__<'py>(slf: &Bound<'py, Self>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match raw(slf).get_item(key)? {
            Some(list) => first(&list)?.ok_or_else(|| bad_request_key(key)),
            None => Err(bad_request_key(key)),
        }
    }

    fn __setitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        raw(slf).set_item(key, PyList::new(slf.py(), [value])?)
    }

    fn __delitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        raw(slf).del_item(key)
    }

    /// The first value of ``key``, or ``default`` if there is none or ``type`` refuses it.
    ///
    /// Args:
    ///     key: The key.
    ///     default: What to return when there is no value, or none that ``type`` takes.
    ///     type: A callable that converts the value; ``ValueError`` and ``TypeError`` are refusals.
    #[pyo3(signature = (key, default=None, r#type=None))]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
        r#type: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if !Self::reads_natively(slf) {
            return TypeConversionDict::get(slf.as_super(), key, default, r#type);
        }
        let found = match raw(slf).get_item(key)? {
            Some(list) => first(&list)?,
            None => None,
        };
        match (found, r#type) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(convert)) => Ok(or_none(py, converted(convert, value)?.or(default))),
            (None, _) => Ok(or_none(py, default)),
        }
    }

    /// Add a value to those that ``key`` has.
    fn add(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        append(slf, key, value)
    }

    /// All values of ``key`` in a new list; those that ``type`` refuses are left out.
    #[pyo3(signature = (key, r#type=None))]
    fn getlist<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        r#type: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(slf.py());
        let Some(values) = raw(slf).get_item(key)? else { return Ok(list) };
        for value in values.try_iter()? {
            match r#type {
                None => list.append(value?)?,
                Some(convert) => {
                    if let Some(value) = converted(convert, value?)? {
                        list.append(value)?;
                    }
                }
            }
        }
        Ok(list)
    }

    /// Replace all values of ``key``.
    fn setlist(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, new_list: &Bound<'_, PyAny>) -> PyResult<()> {
        raw(slf).set_item(key, new_list.try_iter()?.collect::<PyResult<Vec<_>>>()?)
    }

    /// The first value of ``key``, which becomes ``default`` if there is none.
    #[pyo3(signature = (key, default=None))]
    fn setdefault<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        default: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.as_any();
        if !this.contains(key)? {
            this.set_item(key, default)?;
        }
        this.get_item(key)
    }

    /// The list of values of ``key`` itself, which becomes ``default_list`` if there is none.
    #[pyo3(signature = (key, default_list=None))]
    fn setlistdefault<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        default_list: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = raw(slf);
        if let Some(list) = this.get_item(key)? {
            return Ok(list);
        }
        let list = PyList::empty(slf.py());
        let given = match default_list {
            Some(values) if values.is_truthy()? => Some(values),
            _ => None,
        };
        if let Some(values) = given {
            values.try_iter()?.try_for_each(|value| list.append(value?))?;
        }
        this.set_item(key, &list)?;
        Ok(list.into_any())
    }

    /// An iterator over keys and first values, or with ``multi`` over keys and every value.
    #[pyo3(signature = (multi=false))]
    fn items<'py>(slf: &Bound<'py, Self>, multi: bool) -> PyResult<Bound<'py, PyIterator>> {
        let items = PyList::empty(slf.py());
        for (key, values) in raw(slf) {
            if multi {
                for value in values.try_iter()? {
                    items.append((&key, value?))?;
                }
            } else {
                items.append((key, values.get_item(0)?))?;
            }
        }
        items.try_iter()
    }

    /// An iterator over keys and copies of their lists.
    fn lists<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyIterator>> {
        let items = PyList::empty(slf.py());
        for (key, values) in raw(slf) {
            let values = values.try_iter()?.collect::<PyResult<Vec<_>>>()?;
            items.append((key, values))?;
        }
        items.try_iter()
    }

    /// An iterator over the first values.
    fn values<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyIterator>> {
        let items = PyList::empty(slf.py());
        for (_, values) in raw(slf) {
            items.append(values.get_item(0)?)?;
        }
        items.try_iter()
    }

    /// A view of the lists of values.
    fn listvalues<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        base(slf.py()).call_method1(intern!(slf.py(), "values"), (slf,))
    }

    /// A new object of the same class with copies of the lists.
    fn copy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get_type().call1((slf,))
    }

    /// A new object of the same class with deep copies of the values.
    #[pyo3(signature = (memo=None))]
    fn deepcopy<'py>(
        slf: &Bound<'py, Self>,
        memo: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let lists = slf.call_method1(intern!(py, "to_dict"), (false,))?;
        let copy = py.import(intern!(py, "copy"))?.call_method1(intern!(py, "deepcopy"), (lists, memo))?;
        slf.get_type().call1((copy,))
    }

    /// A plain dict of first values, or of lists if not ``flat``.
    #[pyo3(signature = (flat=true))]
    fn to_dict<'py>(slf: &Bound<'py, Self>, flat: bool) -> PyResult<Bound<'py, PyDict>> {
        let method = if flat { intern!(slf.py(), "items") } else { intern!(slf.py(), "lists") };
        let dict = PyDict::new(slf.py());
        for pair in slf.call_method0(method)?.try_iter()? {
            let (key, value) = unpack(&pair?)?;
            dict.set_item(key, value)?;
        }
        Ok(dict)
    }

    /// Add the items of a ``MultiDict``, a mapping (lists become several values) or pairs; nothing is replaced.
    fn update(slf: &Bound<'_, Self>, mapping: &Bound<'_, PyAny>) -> PyResult<()> {
        let add = intern!(slf.py(), "add");
        each_multi_item(mapping, &mut |key, value| slf.call_method1(add, (key, value)).map(drop))
    }

    fn __or__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if other.cast::<PyMapping>().is_err() {
            return Ok(py.NotImplemented().into_bound(py));
        }
        let copy = slf.call_method0(intern!(py, "copy"))?;
        copy.call_method1(intern!(py, "update"), (other,))?;
        Ok(copy)
    }

    fn __ior__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> PyResult<()> {
        if other.cast::<PyMapping>().is_err() && !other.hasattr(intern!(slf.py(), "__iter__"))? {
            let kind = other.get_type().name()?;
            let text =
                format!("unsupported operand type(s) for |=: '{}' and '{kind}'", slf.get_type().name()?);
            return Err(PyTypeError::new_err(text));
        }
        slf.call_method1(intern!(slf.py(), "update"), (other,)).map(drop)
    }

    /// Remove ``key`` and return the first of its values, or ``default`` if it is not there.
    #[pyo3(signature = (key, default=Given::Nothing), text_signature = "($self, key, default=...)")]
    fn pop<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        default: Given<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = raw(slf);
        if let Some(list) = this.get_item(key)? {
            this.del_item(key)?;
            if let Some(value) = first(&list)? {
                return Ok(value);
            }
        }
        match default {
            Given::Value(default) => Ok(default),
            Given::Nothing => Err(bad_request_key(key)),
        }
    }

    /// Remove the last key and return it with the first of its values.
    fn popitem<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let (key, list): (Bound<'py, PyAny>, Bound<'py, PyAny>) = Self::popitemlist(slf)?.extract()?;
        match first(&list)? {
            Some(value) => Ok((key, value)),
            None => Err(bad_request_key(&key)),
        }
    }

    /// Remove ``key`` and return its list of values, which is empty if it is not there.
    fn poplist<'py>(slf: &Bound<'py, Self>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let this = raw(slf);
        match this.get_item(key)? {
            Some(list) => {
                this.del_item(key)?;
                Ok(list)
            }
            None => Ok(PyList::empty(slf.py()).into_any()),
        }
    }

    /// Remove the last key and return it with its list of values.
    fn popitemlist<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        match base(py).call_method1(intern!(py, "popitem"), (slf,)) {
            Err(error) if error.is_instance_of::<PyKeyError>(py) => {
                Err(bad_request_key(&error.value(py).getattr(intern!(py, "args"))?.get_item(0)?))
            }
            popped => popped,
        }
    }

    fn __copy__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.call_method0(intern!(slf.py(), "copy"))
    }

    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, memo: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        slf.call_method1(intern!(slf.py(), "deepcopy"), (memo,))
    }

    fn __getstate__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.call_method1(intern!(slf.py(), "to_dict"), (false,))
    }

    fn __setstate__(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let this = raw(slf);
        this.clear();
        this.update(value.cast::<PyMapping>()?)
    }

    fn __reduce_ex__<'py>(
        slf: &Bound<'py, Self>,
        _protocol: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let make = py.import(intern!(py, "copyreg"))?.getattr(intern!(py, "__newobj__"))?;
        (make, (slf.get_type(),), slf.call_method0(intern!(py, "__getstate__"))?).into_pyobject(py)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let list = PyList::empty(slf.py());
        for pair in slf.call_method1(intern!(slf.py(), "items"), (true,))?.try_iter()? {
            list.append(pair?)?;
        }
        Ok(format!("{}({})", slf.get_type().name()?, list.repr()?))
    }
}

impl MultiDict {
    // Whether `self[key]` is ours: a subclass in Python that has its own has another slot.
    fn reads_natively(slf: &Bound<'_, Self>) -> bool {
        let subscript = |class: *mut ffi::PyTypeObject| {
            // SAFETY: a type's slots live as long as the type, and both types are alive here.
            unsafe { (*class).tp_as_mapping.as_ref().and_then(|mapping| mapping.mp_subscript) }
        };
        let class = slf.get_type_ptr();
        let ours = Self::type_object_raw(slf.py());
        std::ptr::eq(class, ours)
            || match (subscript(class), subscript(ours)) {
                (Some(a), Some(b)) => std::ptr::fn_addr_eq(a, b),
                _ => false,
            }
    }

    fn virtual_lists<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.call_method0(intern!(slf.py(), "lists"))
    }
}

fn base(py: Python<'_>) -> Bound<'_, PyType> {
    PyDict::type_object(py)
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<TypeConversionDict>()?;
    module.add_class::<MultiDict>()
}
