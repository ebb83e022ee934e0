//! `Headers` and `EnvironHeaders`: an ordered list of header fields with case-insensitive names.
//!
//! Holds Python strings, so that what a view reads back is the object it wrote. Does not validate names (the response
//! writer of `hipflask-http` does) and does not know the meaning of any field.
//!
//! Implements: `werkzeug.datastructures.Headers` and `EnvironHeaders` (3.1).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use pyo3::exceptions::{PyIndexError, PyKeyError, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::pyclass::CompareOp;
use pyo3::types::{PyDict, PyIterator, PyList, PyMapping, PyString, PyTuple};
use pyo3::{IntoPyObjectExt, PyTypeInfo, intern};

use crate::locked_attached;
use crate::multidict::{Given, MultiDict, bad_request_key, each_multi_item, is_many};

/// Where an [`EnvironHeaders`] made by the engine finds its fields without a WSGI environ.
pub(crate) trait FieldSource: Send + Sync {
    /// Calls `each` with every field's name and value as they came over the wire.
    fn each(&self, each: &mut dyn FnMut(&[u8], &[u8]));

    /// The WSGI environ of the same request, made when somebody asks for it.
    fn environ(&self, py: Python<'_>) -> PyResult<Py<PyAny>>;
}

struct Pair {
    name: Py<PyString>,
    value: Py<PyString>,
}

type BoundPair<'py> = (Bound<'py, PyString>, Bound<'py, PyString>);

enum Source {
    Own(Mutex<Vec<Pair>>),
    Environ(Py<PyAny>),
    Fields(Arc<dyn FieldSource>),
}

/// Header fields in order; names compare without regard to case, and a name may occur more than once.
///
/// Args:
///     defaults: Fields to start with: another ``Headers``, a mapping (lists become several fields) or pairs.
#[pyclass(frozen, subclass, weakref, module = "hipflask.werkzeug.datastructures.headers")]
pub(crate) struct Headers {
    source: Source,
}

// What Rust callers use. Each of these works on fields of our own, not on those of an `EnvironHeaders`.
impl Headers {
    /// An object with these fields; values are trusted to hold no line breaks.
    pub(crate) fn from_pairs<'py>(
        py: Python<'py>,
        pairs: impl IntoIterator<Item = BoundPair<'py>>,
    ) -> PyResult<Bound<'py, Self>> {
        let pairs =
            pairs.into_iter().map(|(name, value)| Pair { name: name.unbind(), value: value.unbind() });
        Bound::new(py, Self { source: Source::Own(Mutex::new(pairs.collect())) })
    }

    /// The fields, in order.
    pub(crate) fn pairs<'py>(&self, py: Python<'py>) -> Vec<BoundPair<'py>> {
        match self.own(py) {
            Some(list) => {
                list.iter().map(|pair| (pair.name.bind(py).clone(), pair.value.bind(py).clone())).collect()
            }
            None => Vec::new(),
        }
    }

    /// The first value of `name`.
    pub(crate) fn value_of<'py>(&self, py: Python<'py>, name: &str) -> Option<Bound<'py, PyString>> {
        let list = self.own(py)?;
        let pair = list.iter().find(|pair| named(pair.name.bind(py), name))?;
        Some(pair.value.bind(py).clone())
    }

    /// Adds a field after the others; the value is trusted to hold no line breaks.
    pub(crate) fn push(&self, name: &Bound<'_, PyString>, value: &Bound<'_, PyString>) {
        if let Some(mut list) = self.own(name.py()) {
            list.push(Pair { name: name.clone().unbind(), value: value.clone().unbind() });
        }
    }

    /// Replaces the first field of that name and removes the others; adds it when there is none.
    pub(crate) fn put(&self, name: &Bound<'_, PyString>, value: &Bound<'_, PyString>) {
        let py = name.py();
        let mut dropped = Vec::new();
        if let Some(mut list) = self.own(py) {
            let mut fresh = Some(Pair { name: name.clone().unbind(), value: value.clone().unbind() });
            let mut first = None;
            dropped.extend(list.extract_if(.., |old| {
                same_name(old.name.bind(py), name)
                    && match fresh.take() {
                        Some(fresh) => {
                            first = Some(std::mem::replace(old, fresh));
                            false
                        }
                        None => true,
                    }
            }));
            dropped.extend(first);
            list.extend(fresh);
        }
    }

    /// Removes every field of that name.
    pub(crate) fn discard(&self, name: &Bound<'_, PyString>) {
        let py = name.py();
        let mut dropped = Vec::new();
        if let Some(mut list) = self.own(py) {
            let (gone, kept): (Vec<Pair>, Vec<Pair>) =
                std::mem::take(&mut *list).into_iter().partition(|pair| same_name(pair.name.bind(py), name));
            *list = kept;
            dropped = gone;
        }
        drop(dropped);
    }

    /// How many fields there are.
    pub(crate) fn count(&self, py: Python<'_>) -> usize {
        self.own(py).map_or(0, |list| list.len())
    }

    // The lock is never held while Python code may run: strings are compared, counted and moved, nothing else.
    fn own(&self, py: Python<'_>) -> Option<MutexGuard<'_, Vec<Pair>>> {
        match &self.source {
            Source::Own(list) => Some(locked_attached(py, list)),
            _ => None,
        }
    }

    fn replace(&self, py: Python<'_>, fresh: Vec<Pair>) {
        let old = self.own(py).map(|mut list| std::mem::replace(&mut *list, fresh));
        drop(old);
    }

    fn lookup<'py>(&self, key: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = key.py();
        match &self.source {
            Source::Own(list) => {
                let list = locked_attached(py, list);
                let found = list.iter().find(|pair| same_name(pair.name.bind(py), key));
                Ok(found.map(|pair| pair.value.bind(py).clone().into_any()))
            }
            Source::Environ(environ) => {
                let environ = environ.bind(py);
                let name = environ_name(key)?;
                match environ.cast::<PyDict>() {
                    Ok(dict) => dict.get_item(name),
                    Err(_) => match environ.get_item(name) {
                        Err(error) if error.is_instance_of::<PyKeyError>(py) => Ok(None),
                        found => found.map(Some),
                    },
                }
            }
            Source::Fields(fields) => {
                let Ok(key) = key.to_str() else { return Ok(None) };
                let mut found = None;
                let mut again = false;
                fields.each(&mut |name, value| {
                    if field_named(name, key.as_bytes()) {
                        again = found.is_some();
                        found.get_or_insert_with(|| latin1(py, value).into_any());
                    }
                });
                if !again {
                    return Ok(found);
                }
                let mut joined = None;
                fields.each(&mut |name, value| {
                    if field_named(name, key.as_bytes()) {
                        join(&mut joined, name, value);
                    }
                });
                Ok(joined.map(|value| latin1(py, &value).into_any()))
            }
        }
    }

    // Every field as Python sees it, an `EnvironHeaders`' read anew each time.
    fn entries<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Bound<'py, PyString>, Bound<'py, PyAny>)>> {
        match &self.source {
            Source::Own(_) => {
                Ok(self.pairs(py).into_iter().map(|(name, value)| (name, value.into_any())).collect())
            }
            Source::Environ(environ) => environ_entries(environ.bind(py)),
            Source::Fields(fields) => {
                let mut merged: Vec<(String, Option<Vec<u8>>)> = Vec::new();
                fields.each(&mut |name, value| {
                    if name.contains(&b'_') {
                        return;
                    }
                    let title = title_case(name);
                    match merged.iter_mut().find(|(known, _)| *known == title) {
                        Some((_, joined)) => join(joined, name, value),
                        None => merged.push((title, Some(value.to_vec()))),
                    }
                });
                let bind = |(name, value): (String, Option<Vec<u8>>)| {
                    (PyString::new(py, &name), latin1(py, &value.unwrap_or_default()).into_any())
                };
                Ok(merged.into_iter().map(bind).collect())
            }
        }
    }
}

#[pymethods]
impl Headers {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(defaults=None)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { source: Source::Own(Mutex::new(Vec::new())) }
    }

    #[pyo3(signature = (defaults=None))]
    fn __init__(slf: &Bound<'_, Self>, defaults: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        slf.get().replace(slf.py(), Vec::new());
        match defaults {
            None => Ok(()),
            Some(defaults) if is_plain(slf) => Self::extend(slf, Some(defaults), None),
            Some(defaults) => slf.call_method1(intern!(slf.py(), "extend"), (defaults,)).map(drop),
        }
    }

    fn __getitem__<'py>(slf: &Bound<'py, Self>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        if let Ok(name) = key.cast::<PyString>() {
            return match (this.lookup(name)?, &this.source) {
                (Some(value), _) => Ok(value),
                (None, Source::Own(_)) => Err(bad_request_key(key)),
                (None, _) => Err(PyKeyError::new_err(environ_name(name)?.unbind())),
            };
        }
        if !matches!(this.source, Source::Own(_)) {
            return Err(bad_request_key(key));
        }
        let found = tuples(slf)?.as_any().get_item(key)?;
        if found.is_instance_of::<PyTuple>() { Ok(found) } else { slf.get_type().call1((found,)) }
    }

    fn __setitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(name) = key.cast::<PyString>() {
            if is_plain(slf) {
                return Self::set(slf, name, value, None);
            }
            return slf.call_method1(intern!(slf.py(), "set"), (name, value)).map(drop);
        }
        let list = tuples(slf)?;
        if key.is_instance_of::<pyo3::types::PySlice>() {
            let fresh = PyList::empty(slf.py());
            for pair in value.try_iter()? {
                let (name, value): (Bound<'_, PyString>, Bound<'_, PyAny>) = pair?.extract()?;
                fresh.append((name, header_value(&value)?))?;
            }
            list.as_any().set_item(key, fresh)?;
        } else {
            list.as_any().set_item(key, (value.get_item(0)?, header_value(&value.get_item(1)?)?))?;
        }
        slf.get().replace(slf.py(), untuple(&list)?);
        Ok(())
    }

    fn __delitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(name) = key.cast::<PyString>() {
            slf.get().discard(name);
            return Ok(());
        }
        let list = tuples(slf)?;
        list.as_any().del_item(key)?;
        slf.get().replace(slf.py(), untuple(&list)?);
        Ok(())
    }

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        match key.cast::<PyString>() {
            Ok(key) => Ok(self.lookup(key)?.is_some()),
            Err(_) if matches!(self.source, Source::Own(_)) => Err(not_a_name(key)),
            Err(_) => Ok(false),
        }
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        match &self.source {
            Source::Own(_) => Ok(self.count(py)),
            _ => Ok(self.entries(py)?.len()),
        }
    }

    fn __iter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyIterator>> {
        tuples(slf)?.try_iter()
    }

    // Becomes `__eq__` in `register`: as a slot it would not show its parameter under Werkzeug's name.
    fn _equals<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        match other.cast::<Self>() {
            Ok(other) if slf.get_type().is(other.get_type()) => {
                (lowered(slf)? == lowered(other)?).into_bound_py_any(py)
            }
            _ => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    /// The first value of a field, or ``default``.
    ///
    /// Args:
    ///     key: The field's name, in any case.
    ///     default: What to return when there is none, or ``type`` refuses it with ``ValueError``.
    ///     type: A callable that converts the value.
    #[pyo3(signature = (key, default=None, r#type=None))]
    fn get<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
        r#type: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = key.py();
        let found = match key.cast::<PyString>() {
            Ok(key) => self.lookup(key)?,
            Err(_) if matches!(self.source, Source::Own(_)) => return Err(not_a_name(key)),
            Err(_) => None,
        };
        let converted = match (found, r#type) {
            (None, _) => None,
            (Some(value), None) => Some(value),
            (Some(value), Some(convert)) => match convert.call1((value,)) {
                Err(error) if error.is_instance_of::<PyValueError>(py) => None,
                done => Some(done?),
            },
        };
        Ok(converted.or(default).unwrap_or_else(|| py.None().into_bound(py)))
    }

    /// All values of a field; those that ``type`` refuses with ``ValueError`` are left out.
    #[pyo3(signature = (key, r#type=None))]
    fn getlist<'py>(
        &self,
        key: &Bound<'py, PyString>,
        r#type: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = key.py();
        let list = PyList::empty(py);
        for (name, value) in self.entries(py)? {
            if !same_name(&name, key) {
                continue;
            }
            match r#type.map(|convert| convert.call1((&value,))) {
                None => list.append(value)?,
                Some(Err(error)) if error.is_instance_of::<PyValueError>(py) => {}
                Some(done) => list.append(done?)?,
            }
        }
        Ok(list)
    }

    /// All values of a field, under the name that ``wsgiref.headers.Headers`` has for it.
    fn get_all<'py>(slf: &Bound<'py, Self>, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        slf.call_method1(intern!(slf.py(), "getlist"), (name,))
    }

    /// An iterator over the fields as pairs, their names in lower case if asked.
    #[pyo3(signature = (lower=false))]
    fn items<'py>(slf: &Bound<'py, Self>, lower: bool) -> PyResult<Bound<'py, PyIterator>> {
        let list = PyList::empty(slf.py());
        for pair in listed(slf)?.iter() {
            if lower {
                let (name, value) = crate::multidict::unpack(&pair)?;
                list.append((name.call_method0(intern!(slf.py(), "lower"))?, value))?;
            } else {
                list.append(pair)?;
            }
        }
        list.try_iter()
    }

    /// An iterator over the names, one for each field.
    #[pyo3(signature = (lower=false))]
    fn keys<'py>(slf: &Bound<'py, Self>, lower: bool) -> PyResult<Bound<'py, PyIterator>> {
        let list = PyList::empty(slf.py());
        for pair in Self::items(slf, lower)? {
            list.append(pair?.get_item(0)?)?;
        }
        list.try_iter()
    }

    /// An iterator over the values.
    fn values<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyIterator>> {
        let list = PyList::empty(slf.py());
        for pair in listed(slf)?.iter() {
            list.append(pair.get_item(1)?)?;
        }
        list.try_iter()
    }

    /// Add fields from a mapping, pairs or keyword arguments, keeping those that exist.
    #[pyo3(signature = (arg=None, /, **kwargs))]
    fn extend(
        slf: &Bound<'_, Self>,
        arg: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let plain = is_plain(slf);
        let add = &mut |key: Bound<'_, PyAny>, value: Bound<'_, PyAny>| {
            if plain {
                let key = key.cast::<PyString>().map_err(|_| not_a_name(&key))?;
                slf.get().push(key, &header_value(&value)?);
                Ok(())
            } else {
                slf.call_method1(intern!(slf.py(), "add"), (key, value)).map(drop)
            }
        };
        if let Some(arg) = arg {
            match arg.cast::<Self>() {
                Ok(other) if is_plain(other) => {
                    for (name, value) in other.get().pairs(slf.py()) {
                        add(name.into_any(), value.into_any())?;
                    }
                }
                _ => each_multi_item(arg, add)?,
            }
        }
        match kwargs {
            Some(kwargs) => each_multi_item(kwargs, add),
            None => Ok(()),
        }
    }

    /// Remove every field of that name; it need not exist.
    fn remove(slf: &Bound<'_, Self>, key: &Bound<'_, PyString>) {
        slf.get().discard(key);
    }

    /// Remove and return: by name its value, by index or without a key a pair.
    #[pyo3(signature = (key=None, default=Given::Nothing), text_signature = "($self, key=None, default=...)")]
    fn pop<'py>(
        slf: &Bound<'py, Self>,
        key: Option<&Bound<'py, PyAny>>,
        default: Given<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let Some(key) = key else { return Self::pop_at(slf, -1) };
        if let Ok(index) = key.extract::<isize>() {
            return Self::pop_at(slf, index);
        }
        let name = key.cast::<PyString>().map_err(|_| not_a_name(key))?;
        match (slf.get().lookup(name)?, default) {
            (Some(value), _) => {
                slf.call_method1(intern!(py, "remove"), (name,))?;
                Ok(value)
            }
            (None, Given::Value(default)) => Ok(default),
            (None, Given::Nothing) => Err(bad_request_key(key)),
        }
    }

    /// Remove and return the last field as a pair.
    fn popitem<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::pop_at(slf, -1)
    }

    /// Add a field; keyword arguments become parameters of its value, their underscores dashes.
    #[pyo3(signature = (key, value, /, **kwargs))]
    fn add(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyString>,
        value: &Bound<'_, PyAny>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        slf.get().push(key, &with_options(value, kwargs)?);
        Ok(())
    }

    /// Add a field, under the name that ``wsgiref.headers.Headers`` has for it.
    #[pyo3(signature = (key, value, /, **kwargs))]
    fn add_header(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyString>,
        value: &Bound<'_, PyAny>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        slf.call_method(intern!(slf.py(), "add"), (key, value), kwargs).map(drop)
    }

    /// Remove all fields.
    fn clear(slf: &Bound<'_, Self>) {
        slf.get().replace(slf.py(), Vec::new());
    }

    /// Replace a field: the first keeps its place, others of that name go; added when there is none.
    #[pyo3(signature = (key, value, /, **kwargs))]
    fn set(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyString>,
        value: &Bound<'_, PyAny>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        slf.get().put(key, &with_options(value, kwargs)?);
        Ok(())
    }

    /// Replace all values of a field; no values remove it.
    fn setlist(slf: &Bound<'_, Self>, key: &Bound<'_, PyString>, values: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        if !values.is_truthy()? {
            return slf.call_method1(intern!(py, "remove"), (key,)).map(drop);
        }
        let mut method = intern!(py, "set");
        for value in values.try_iter()? {
            slf.call_method1(method, (key, value?))?;
            method = intern!(py, "add");
        }
        Ok(())
    }

    /// The first value of a field, which is set to ``default`` if there is none.
    fn setdefault<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyString>,
        default: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(value) = slf.get().lookup(key)? {
            return Ok(value);
        }
        slf.call_method1(intern!(slf.py(), "set"), (key, default))?;
        slf.get().lookup(key)?.ok_or_else(|| bad_request_key(key))
    }

    /// All values of a field, which are set to ``default`` if there are none.
    fn setlistdefault<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyString>,
        default: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if slf.get().lookup(key)?.is_none() {
            slf.call_method1(intern!(slf.py(), "setlist"), (key, default))?;
        }
        slf.call_method1(intern!(slf.py(), "getlist"), (key,))
    }

    /// Set fields from a mapping, pairs or keyword arguments, replacing those that exist.
    #[pyo3(signature = (arg=None, /, **kwargs))]
    fn update(
        slf: &Bound<'_, Self>,
        arg: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let assign = |key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>| {
            let method = if is_many(value) { intern!(py, "setlist") } else { intern!(py, "set") };
            slf.call_method1(method, (key, value)).map(drop)
        };
        if let Some(arg) = arg {
            if arg.is_instance_of::<Self>() || arg.is_instance_of::<MultiDict>() {
                for key in arg.call_method0(intern!(py, "keys"))?.try_iter()? {
                    let key = key?;
                    let values = arg.call_method1(intern!(py, "getlist"), (&key,))?;
                    slf.call_method1(intern!(py, "setlist"), (key, values))?;
                }
            } else if let Ok(mapping) = arg.cast::<PyMapping>() {
                for pair in mapping.call_method0(intern!(py, "items"))?.try_iter()? {
                    let (key, value) = crate::multidict::unpack(&pair?)?;
                    assign(&key, &value)?;
                }
            } else {
                for pair in arg.try_iter()? {
                    let (key, value) = crate::multidict::unpack(&pair?)?;
                    slf.call_method1(intern!(py, "set"), (key, value))?;
                }
            }
        }
        if let Some(kwargs) = kwargs {
            for (key, value) in kwargs {
                assign(&key, &value)?;
            }
        }
        Ok(())
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
            return Err(no_operand("|=", slf, other));
        }
        slf.call_method1(intern!(slf.py(), "update"), (other,)).map(drop)
    }

    /// The fields as the list of pairs that a WSGI ``start_response`` takes.
    fn to_wsgi_list<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        listed(slf)
    }

    /// A new object of the same class with the same fields.
    fn copy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        if is_plain(slf) {
            return Ok(Self::from_pairs(slf.py(), slf.get().pairs(slf.py()))?.into_any());
        }
        slf.get_type().call1((tuples(slf)?,))
    }

    fn __copy__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.call_method0(intern!(slf.py(), "copy"))
    }

    fn __reduce_ex__<'py>(
        slf: &Bound<'py, Self>,
        _protocol: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let state = PyDict::new(py);
        if let Some(attributes) = slf.getattr_opt(intern!(py, "__dict__"))? {
            state.update(attributes.cast::<PyMapping>()?)?;
        }
        state.set_item(intern!(py, "_list"), tuples(slf)?)?;
        let make = py.import(intern!(py, "copyreg"))?.getattr(intern!(py, "__newobj__"))?;
        (make, (slf.get_type(),), state).into_pyobject(py)
    }

    fn __setstate__(slf: &Bound<'_, Self>, state: &Bound<'_, PyDict>) -> PyResult<()> {
        for (name, value) in state {
            let name = name.cast::<PyString>()?;
            if name == "_list" {
                slf.get().replace(slf.py(), untuple(value.cast::<PyList>()?)?);
            } else {
                slf.setattr(name, value)?;
            }
        }
        Ok(())
    }

    fn __str__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let mut text = String::new();
        for pair in slf.call_method0(intern!(slf.py(), "to_wsgi_list"))?.try_iter()? {
            let pair = pair?;
            text.push_str(&format!("{}: {}\r\n", pair.get_item(0)?, pair.get_item(1)?));
        }
        text.push_str("\r\n");
        Ok(text)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        Ok(format!("{}({})", slf.get_type().name()?, listed(slf)?.repr()?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match &self.source {
            Source::Environ(environ) => visit.call(environ),
            _ => Ok(()),
        }
    }
}

impl Headers {
    fn pop_at<'py>(slf: &Bound<'py, Self>, index: isize) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let pair = match slf.get().own(py) {
            Some(mut list) if !list.is_empty() => {
                let at =
                    if index < 0 { list.len().checked_add_signed(index) } else { Some(index.unsigned_abs()) };
                match at {
                    Some(at) if at < list.len() => Ok(list.remove(at)),
                    _ => Err("pop index out of range"),
                }
            }
            _ => Err("pop from empty list"),
        };
        match pair {
            Ok(pair) => Ok((pair.name, pair.value).into_pyobject(py)?.into_any()),
            Err(text) => Err(PyIndexError::new_err(text)),
        }
    }
}

/// The header fields of a WSGI environ, read when asked for; nothing can be written.
///
/// Args:
///     environ: The environ, which is kept and not copied.
#[pyclass(frozen, subclass, extends = Headers, module = "hipflask.werkzeug.datastructures.headers")]
pub(crate) struct EnvironHeaders;

impl EnvironHeaders {
    /// The fields of a request that has no environ yet.
    pub(crate) fn from_fields(py: Python<'_>, fields: Arc<dyn FieldSource>) -> PyResult<Bound<'_, Self>> {
        let base = PyClassInitializer::from(Headers { source: Source::Fields(fields) });
        Bound::new(py, base.add_subclass(Self))
    }

    /// The fields of an environ.
    pub(crate) fn from_environ<'py>(
        py: Python<'py>,
        environ: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        let base = PyClassInitializer::from(Headers { source: Source::Environ(environ.clone().unbind()) });
        Bound::new(py, base.add_subclass(Self))
    }
}

fn immutable(slf: &Bound<'_, EnvironHeaders>) -> PyErr {
    match slf.get_type().name() {
        Ok(name) => PyTypeError::new_err(format!("'{name}' objects are immutable")),
        Err(error) => error,
    }
}

fn no_copies(slf: &Bound<'_, EnvironHeaders>) -> PyErr {
    match slf.get_type().name() {
        Ok(name) => PyTypeError::new_err(format!("cannot create '{name}' copies")),
        Err(error) => error,
    }
}

#[pymethods]
#[allow(unused_variables, reason = "what a refused change would have been does not matter")]
impl EnvironHeaders {
    #[new]
    #[pyo3(signature = (*args, **kwargs), text_signature = "(environ)")]
    fn new(
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let named = match kwargs {
            Some(kwargs) => kwargs.get_item(intern!(args.py(), "environ"))?,
            None => None,
        };
        let environ = args.get_item(0).ok().or(named);
        let environ = environ.unwrap_or_else(|| PyDict::new(args.py()).into_any());
        let base = PyClassInitializer::from(Headers { source: Source::Environ(environ.unbind()) });
        Ok(base.add_subclass(Self))
    }

    fn __init__(slf: &Bound<'_, Self>, environ: &Bound<'_, PyAny>) {}

    /// The environ that the fields are read from.
    #[getter]
    fn environ(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        match &slf.as_super().get().source {
            Source::Environ(environ) => Ok(environ.clone_ref(py)),
            Source::Fields(fields) => fields.environ(py),
            Source::Own(_) => Ok(PyDict::new(py).into_any().unbind()),
        }
    }

    fn __richcmp__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        let same = slf.is(other) || Self::environ(slf)?.is(&Self::environ(other)?);
        match op {
            CompareOp::Eq => same.into_py_any(py),
            CompareOp::Ne => (!same).into_py_any(py),
            _ => Ok(py.NotImplemented()),
        }
    }

    fn __reduce_ex__<'py>(
        slf: &Bound<'py, Self>,
        _protocol: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        (slf.get_type(), (Self::environ(slf)?,)).into_pyobject(slf.py())
    }

    fn copy(slf: &Bound<'_, Self>) -> PyResult<()> {
        Err(no_copies(slf))
    }

    fn __or__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(no_copies(slf))
    }

    fn __ior__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(immutable(slf))
    }

    fn __setitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(immutable(slf))
    }

    fn __delitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(immutable(slf))
    }

    #[pyo3(signature = (key, value, /, **kwargs))]
    fn set(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Err(immutable(slf))
    }

    fn setlist(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, values: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(immutable(slf))
    }

    #[pyo3(signature = (key, value, /, **kwargs))]
    fn add(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Err(immutable(slf))
    }

    #[pyo3(signature = (key, value, /, **kwargs))]
    fn add_header(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Err(immutable(slf))
    }

    fn clear(slf: &Bound<'_, Self>) -> PyResult<()> {
        Err(immutable(slf))
    }

    fn remove(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(immutable(slf))
    }

    #[pyo3(signature = (arg, /, **kwargs))]
    fn extend(
        slf: &Bound<'_, Self>,
        arg: &Bound<'_, PyAny>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Err(immutable(slf))
    }

    #[pyo3(signature = (arg, /, **kwargs))]
    fn update(
        slf: &Bound<'_, Self>,
        arg: &Bound<'_, PyAny>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Err(immutable(slf))
    }

    fn insert(slf: &Bound<'_, Self>, pos: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(immutable(slf))
    }

    #[pyo3(signature = (key=None, default=None))]
    fn pop(
        slf: &Bound<'_, Self>,
        key: Option<&Bound<'_, PyAny>>,
        default: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        Err(immutable(slf))
    }

    fn popitem(slf: &Bound<'_, Self>) -> PyResult<()> {
        Err(immutable(slf))
    }

    fn setdefault(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, default: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(immutable(slf))
    }

    fn setlistdefault(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        default: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        Err(immutable(slf))
    }
}

/// The text of a header value, which must be a single line.
pub(crate) fn header_value<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    let text = match value.cast::<PyString>() {
        Ok(text) => text.clone(),
        Err(_) => value.str()?,
    };
    let broken = match text.to_str() {
        Ok(text) => memchr::memchr2(b'\r', b'\n', text.as_bytes()).is_some(),
        Err(_) => text.as_any().contains("\r")? || text.as_any().contains("\n")?,
    };
    if broken {
        return Err(PyValueError::new_err("Header values must not contain newline characters."));
    }
    Ok(text)
}

fn with_options<'py>(
    value: &Bound<'py, PyAny>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyString>> {
    let Some(kwargs) = kwargs.filter(|kwargs| !kwargs.is_empty()) else { return header_value(value) };
    let py = value.py();
    let options = PyDict::new(py);
    for (key, option) in kwargs {
        options.set_item(key.extract::<String>()?.replace('_', "-"), option)?;
    }
    let http = py.import(intern!(py, "hipflask.werkzeug.http"))?;
    header_value(&http.call_method1(intern!(py, "dump_options_header"), (value, options))?)
}

fn is_plain(headers: &Bound<'_, Headers>) -> bool {
    headers.get_type().as_type_ptr() == Headers::type_object_raw(headers.py())
}

fn tuples<'py>(headers: &Bound<'py, Headers>) -> PyResult<Bound<'py, PyList>> {
    PyList::new(headers.py(), headers.get().entries(headers.py())?)
}

// What iterating gives, which a subclass in Python may have changed.
fn listed<'py>(headers: &Bound<'py, Headers>) -> PyResult<Bound<'py, PyList>> {
    if is_plain(headers) {
        return tuples(headers);
    }
    let list = PyList::empty(headers.py());
    for pair in headers.try_iter()? {
        list.append(pair?)?;
    }
    Ok(list)
}

fn untuple(list: &Bound<'_, PyList>) -> PyResult<Vec<Pair>> {
    let mut pairs = Vec::with_capacity(list.len());
    for pair in list {
        let (name, value): (Bound<'_, PyString>, Bound<'_, PyString>) = pair.extract()?;
        pairs.push(Pair { name: name.unbind(), value: value.unbind() });
    }
    Ok(pairs)
}

// What equality is about: the pairs as a set, names in lower case.
fn lowered(headers: &Bound<'_, Headers>) -> PyResult<HashSet<(String, String)>> {
    let entries = headers.get().entries(headers.py())?;
    let pair = |(name, value): &(Bound<'_, PyString>, Bound<'_, PyAny>)| {
        (name.to_string_lossy().to_lowercase(), value.to_string())
    };
    Ok(entries.iter().map(pair).collect())
}

fn same_name(a: &Bound<'_, PyString>, b: &Bound<'_, PyString>) -> bool {
    a.is(b) || b.to_str().is_ok_and(|b| named(a, b))
}

fn named(a: &Bound<'_, PyString>, b: &str) -> bool {
    let Ok(a) = a.to_str() else { return false };
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && a.to_lowercase() == b.to_lowercase())
}

fn not_a_name(key: &Bound<'_, PyAny>) -> PyErr {
    let kind = key.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
    PyTypeError::new_err(format!("a header's name is a str, not '{kind}'"))
}

fn no_operand(operator: &str, a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>) -> PyErr {
    let kind =
        |value: &Bound<'_, PyAny>| value.get_type().name().map_or_else(|_| String::new(), |n| n.to_string());
    PyTypeError::new_err(format!(
        "unsupported operand type(s) for {operator}: '{}' and '{}'",
        kind(a),
        kind(b)
    ))
}

fn environ_name<'py>(key: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyString>> {
    let py = key.py();
    let name = match key.to_str() {
        Ok(key) if key.is_ascii() => key.to_ascii_uppercase().replace('-', "_"),
        _ => key.call_method0(intern!(py, "upper"))?.extract::<String>()?.replace('-', "_"),
    };
    Ok(match name.as_str() {
        "CONTENT_TYPE" | "CONTENT_LENGTH" => PyString::new(py, &name),
        _ => PyString::new(py, &format!("HTTP_{name}")),
    })
}

fn environ_entries<'py>(
    environ: &Bound<'py, PyAny>,
) -> PyResult<Vec<(Bound<'py, PyString>, Bound<'py, PyAny>)>> {
    let py = environ.py();
    let mut entries = Vec::new();
    for pair in environ.call_method0(intern!(py, "items"))?.try_iter()? {
        let (key, value) = crate::multidict::unpack(&pair?)?;
        let Ok(key) = key.cast::<PyString>() else { continue };
        let Ok(text) = key.to_str() else { continue };
        let name = match text {
            "HTTP_CONTENT_TYPE" | "HTTP_CONTENT_LENGTH" => continue,
            "CONTENT_TYPE" | "CONTENT_LENGTH" if !value.is_truthy()? => continue,
            "CONTENT_TYPE" | "CONTENT_LENGTH" => text,
            _ => match text.strip_prefix("HTTP_") {
                Some(name) => name,
                None => continue,
            },
        };
        let name = if name.is_ascii() {
            PyString::new(py, &title_case(name.as_bytes()))
        } else {
            PyString::new(py, &name.replace('_', "-")).call_method0(intern!(py, "title"))?.cast_into()?
        };
        entries.push((name, value));
    }
    Ok(entries)
}

/// `content_type` and `CONTENT-TYPE` as `Content-Type`.
pub(crate) fn title_case(name: &[u8]) -> String {
    let mut inside = false;
    let each = |byte: &u8| {
        let byte = if *byte == b'_' { b'-' } else { *byte };
        let cased = if inside { byte.to_ascii_lowercase() } else { byte.to_ascii_uppercase() };
        inside = byte.is_ascii_alphabetic();
        char::from(cased)
    };
    name.iter().map(each).collect()
}

// A name with an underscore would pass for the one with a dash in a WSGI environ, and so let a client override what a
// proxy set. It is neither found nor listed.
fn field_named(name: &[u8], key: &[u8]) -> bool {
    // Lengths first: most fields need no look at their names.
    name.len() == key.len()
        && name.iter().zip(key).all(|(a, b)| a.eq_ignore_ascii_case(if *b == b'_' { &b'-' } else { b }))
}

fn join(joined: &mut Option<Vec<u8>>, name: &[u8], value: &[u8]) {
    match joined {
        None => *joined = Some(value.to_vec()),
        Some(joined) => {
            joined.extend_from_slice(if name.eq_ignore_ascii_case(b"cookie") { b"; " } else { b"," });
            joined.extend_from_slice(value);
        }
    }
}

fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => PyString::new(py, text),
        _ => PyString::new(py, &bytes.iter().map(|byte| char::from(*byte)).collect::<String>()),
    }
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Headers>()?;
    let class = Headers::type_object(module.py());
    class.setattr("__eq__", class.getattr("_equals")?)?;
    class.setattr("__hash__", module.py().None())?;
    module.add_class::<EnvironHeaders>()
}
