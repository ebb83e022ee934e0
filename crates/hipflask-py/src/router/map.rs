//! A map's compiled state, shared between Python and the engine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use hipflask_router::{Found, Router, Rule, Search, Span, Value};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyList, PyString, PyTuple, PyType};

use super::compile::CompiledRule;

use crate::{read_locked, write_locked};

/// The native half of `hipflask.werkzeug.routing.Map`.
#[pyclass(frozen, subclass, dict, weakref, module = "hipflask._core")]
pub(crate) struct MapBase {
    stale: AtomicBool,
    merge_slashes: AtomicBool,
    host_matching: AtomicBool,
    generation: AtomicU64,
    snapshot: RwLock<Option<Arc<Snapshot>>>,
}

/// The rules as they were at one moment.
pub(crate) struct Snapshot {
    /// What matches, detached.
    pub(crate) router: Router,
    rules: Vec<Entry>,
    endpoints: Py<PyDict>,
    /// The same for endpoints that are text, which nearly all are.
    named: HashMap<Box<str>, usize>,
    by_endpoint: Vec<Vec<usize>>,
}

/// What a rule is built for.
#[derive(Clone, Copy)]
pub(crate) enum Endpoint<'a, 'py> {
    Name(&'a str),
    Object(&'a Bound<'py, PyAny>),
}

impl<'a, 'py> Endpoint<'a, 'py> {
    /// An endpoint as Python has it.
    pub(crate) fn of(endpoint: &'a Bound<'py, PyAny>) -> Self {
        match endpoint.cast_exact::<PyString>().map(|name| name.to_str()) {
            Ok(Ok(name)) => Self::Name(name),
            _ => Self::Object(endpoint),
        }
    }
}

/// A rule, as matching and building need it.
pub(crate) struct Entry {
    pub(crate) rule: Py<PyAny>,
    pub(crate) compiled: Py<CompiledRule>,
    endpoint: Py<PyAny>,
    defaults: Option<Py<PyAny>>,
    special: bool,
    pub(crate) websocket: bool,
    /// The subclass has its own `build` or `suitable_for`.
    pub(crate) overridden: bool,
    /// Names that must be given to build it, beside its variables'.
    pub(crate) required: Vec<Py<PyAny>>,
    /// Names that may be given, and their only values.
    pub(crate) fixed: Vec<(Py<PyAny>, Py<PyAny>)>,
}

#[pymethods]
impl MapBase {
    #[new]
    #[pyo3(signature = (*_arguments, **_options))]
    fn new(_arguments: &Bound<'_, PyTuple>, _options: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            stale: AtomicBool::new(true),
            merge_slashes: AtomicBool::new(true),
            host_matching: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            snapshot: RwLock::new(None),
        }
    }

    /// Whether rules were added since the last update.
    #[getter]
    #[pyo3(name = "_remap")]
    fn remap(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    #[setter]
    #[pyo3(name = "_remap")]
    fn set_remap(&self, stale: bool) {
        self.stale.store(stale, Ordering::Release);
    }

    /// Whether a path with doubled slashes is redirected to the same with single ones, if that matches.
    #[getter]
    fn get_merge_slashes(&self) -> bool {
        self.merge_slashes.load(Ordering::Acquire)
    }

    #[setter]
    fn set_merge_slashes(&self, merge: &Bound<'_, PyAny>) -> PyResult<()> {
        let merge = merge.is_truthy()?;
        if self.merge_slashes.swap(merge, Ordering::AcqRel) != merge {
            self.stale.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether rules are told apart by their whole host instead of their subdomain.
    #[getter]
    fn get_host_matching(&self) -> bool {
        self.host_matching()
    }

    #[setter]
    fn set_host_matching(&self, matching: &Bound<'_, PyAny>) -> PyResult<()> {
        self.host_matching.store(matching.is_truthy()?, Ordering::Release);
        Ok(())
    }

    /// Compiles rules, given in the order of their adding, and by endpoint in the order of building.
    fn _compile(
        &self,
        py: Python<'_>,
        rules: &Bound<'_, PyList>,
        by_endpoint: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let merge = self.merge_slashes.load(Ordering::Acquire);
        let snapshot = Arc::new(Snapshot::new(py, rules, by_endpoint, merge)?);
        let old = {
            let mut current = write_locked(&self.snapshot);
            self.generation.fetch_add(1, Ordering::AcqRel);
            current.replace(snapshot)
        };
        drop(old);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Another holder of the snapshot keeps its objects alive in a way that the collector cannot see.
        match self.snapshot.try_read().as_deref() {
            Ok(Some(snapshot)) if Arc::strong_count(snapshot) == 1 => snapshot.traverse(&visit),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let old = write_locked(&self.snapshot).take();
        drop(old);
    }
}

#[allow(dead_code, reason = "the dispatcher's side of the seam")]
impl MapBase {
    /// Whether `domain` in matching is the whole host.
    pub(crate) fn host_matching(&self) -> bool {
        self.host_matching.load(Ordering::Acquire)
    }

    /// How often the map has been compiled; `None` if it changed since. Works detached.
    pub(crate) fn generation(&self) -> Option<u64> {
        (!self.stale.load(Ordering::Acquire)).then(|| self.generation.load(Ordering::Acquire))
    }

    /// The current snapshot; `None` if the map changed since. Works detached.
    pub(crate) fn fresh(&self) -> Option<Arc<Snapshot>> {
        if self.stale.load(Ordering::Acquire) {
            return None;
        }
        read_locked(&self.snapshot).clone()
    }

    /// The current snapshot of a map, compiled now if need be.
    pub(crate) fn snapshot(map: &Bound<'_, Self>) -> PyResult<Arc<Snapshot>> {
        if let Some(snapshot) = map.get().fresh() {
            return Ok(snapshot);
        }
        map.call_method0(intern!(map.py(), "update"))?;
        let current = read_locked(&map.get().snapshot).clone();
        current.ok_or_else(|| PyTypeError::new_err("Map.update did not compile the map"))
    }
}

#[allow(dead_code, reason = "the dispatcher's side of the seam")]
impl Snapshot {
    /// The Python `Rule`.
    pub(crate) fn rule(&self, rule: usize) -> Option<&Py<PyAny>> {
        self.rules.get(rule).map(|entry| &entry.rule)
    }

    /// The rule's endpoint.
    pub(crate) fn endpoint(&self, rule: usize) -> Option<&Py<PyAny>> {
        self.rules.get(rule).map(|entry| &entry.endpoint)
    }

    /// How many rules there are.
    pub(crate) fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether the rule may redirect by its defaults, as an alias, or by `redirect_to`.
    pub(crate) fn is_special(&self, rule: usize) -> bool {
        self.rules.get(rule).is_some_and(|entry| entry.special)
    }

    /// The view's keyword arguments.
    ///
    /// # Errors
    /// What a user's converter raises; `ValidationError` means that the rule does not match.
    pub(crate) fn values<'py>(&self, py: Python<'py>, found: &Found<'_>) -> PyResult<Bound<'py, PyDict>> {
        let values = PyDict::new(py);
        let Some(entry) = self.rules.get(found.rule) else { return Ok(values) };
        let compiled = entry.compiled.get();
        for (at, value) in found.values.iter().enumerate() {
            if let (Some(name), Some(converter)) = (compiled.names.get(at), compiled.converters.get(at)) {
                values.set_item(name, to_python(py, converter, value)?)?;
            }
        }
        if let Some(defaults) = &entry.defaults {
            values.call_method1(intern!(py, "update"), (defaults,))?;
        }
        Ok(values)
    }

    /// The rules of an endpoint, in the order of building.
    pub(crate) fn rules_of(
        &self,
        endpoint: Endpoint<'_, '_>,
    ) -> PyResult<impl Iterator<Item = (usize, &Entry)>> {
        let place = match endpoint {
            Endpoint::Name(name) => self.named.get(name).copied(),
            Endpoint::Object(endpoint) => match self.endpoints.bind(endpoint.py()).get_item(endpoint)? {
                Some(place) => Some(place.extract()?),
                None => None,
            },
        };
        let rules =
            place.and_then(|place| self.by_endpoint.get(place)).map(Vec::as_slice).unwrap_or_default();
        Ok(rules.iter().filter_map(|&rule| Some((rule, self.rules.get(rule)?))))
    }

    fn new(
        py: Python<'_>,
        rules: &Bound<'_, PyList>,
        by_endpoint: &Bound<'_, PyDict>,
        merge: bool,
    ) -> PyResult<Self> {
        let mut places = HashMap::with_capacity(rules.len());
        let mut entries = Vec::with_capacity(rules.len());
        let mut natives = Vec::with_capacity(rules.len());
        for rule in rules.iter() {
            let (entry, native) = Entry::new(&rule)?;
            places.insert(rule.as_ptr() as usize, entries.len());
            entries.push(entry);
            natives.push(native);
        }
        let endpoints = PyDict::new(py);
        let mut named = HashMap::with_capacity(by_endpoint.len());
        let mut grouped = Vec::with_capacity(by_endpoint.len());
        for (endpoint, group) in by_endpoint.iter() {
            let group: Vec<Bound<'_, PyAny>> = group.extract()?;
            let group: Vec<usize> =
                group.iter().filter_map(|rule| places.get(&(rule.as_ptr() as usize)).copied()).collect();
            mark_specials(&mut entries, &group);
            if let Endpoint::Name(name) = Endpoint::of(&endpoint) {
                named.insert(name.into(), grouped.len());
            }
            endpoints.set_item(endpoint, grouped.len())?;
            grouped.push(group);
        }
        let mut failure = None;
        let mut search = |regex: &str, suffixed: bool| match Foreign::new(py, regex, suffixed) {
            Ok(search) => Some(Arc::new(search) as Arc<dyn Search>),
            Err(error) => {
                failure = Some(error);
                None
            }
        };
        match Router::with_search(&natives, merge, &mut search) {
            Ok(router) => {
                let endpoints = endpoints.unbind();
                Ok(Self { router, rules: entries, endpoints, named, by_endpoint: grouped })
            }
            Err(error) => Err(failure.unwrap_or_else(|| PyValueError::new_err(error.to_string()))),
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.endpoints)?;
        for entry in &self.rules {
            visit.call(&entry.rule)?;
            visit.call(&entry.compiled)?;
            visit.call(&entry.endpoint)?;
            visit.call(&entry.defaults)?;
            for (_, value) in &entry.fixed {
                visit.call(value)?;
            }
        }
        Ok(())
    }
}

/// A rule of the same endpoint that has defaults may have to take over: see `MapAdapter.get_default_redirect`.
fn mark_specials(entries: &mut [Entry], group: &[usize]) {
    let mut defaults_before = false;
    for &rule in group {
        if let Some(entry) = entries.get_mut(rule) {
            entry.special |= defaults_before;
            defaults_before |= !entry.fixed.is_empty();
        }
    }
}

impl Entry {
    fn new(rule: &Bound<'_, PyAny>) -> PyResult<(Self, Rule)> {
        let py = rule.py();
        let compiled: Py<CompiledRule> =
            rule.getattr(intern!(py, "_compiled"))?.cast_into::<CompiledRule>()?.unbind();
        let flag = |name: &Bound<'_, PyString>| rule.getattr(name)?.is_truthy();
        let methods: Option<Bound<'_, PyAny>> = rule.getattr(intern!(py, "methods"))?.extract()?;
        let methods = match methods {
            Some(methods) => {
                let names: PyResult<Vec<String>> =
                    methods.try_iter()?.map(|method| method?.extract()).collect();
                Some(names?.into_iter().map(String::into_boxed_str).collect())
            }
            None => None,
        };
        let defaults = Some(rule.getattr(intern!(py, "defaults"))?);
        let defaults = defaults.filter(|defaults| defaults.is_truthy().unwrap_or(false));
        let mut fixed = Vec::new();
        if let Some(defaults) = &defaults {
            for key in defaults.try_iter()? {
                let key = key?;
                fixed.push((key.clone().unbind(), defaults.get_item(key)?.unbind()));
            }
        }
        let mut required = Vec::new();
        for name in rule.getattr(intern!(py, "arguments"))?.try_iter()? {
            let name = name?;
            let asked_for = name
                .cast::<PyString>()
                .is_ok_and(|name| name.to_str().is_ok_and(|name| compiled.get().asks_for(name)));
            if !asked_for && !defaults.as_ref().map_or(Ok(false), |defaults| defaults.contains(&name))? {
                required.push(name.unbind());
            }
        }
        let special = flag(intern!(py, "alias"))? || !rule.getattr(intern!(py, "redirect_to"))?.is_none();
        let websocket = flag(intern!(py, "websocket"))?;
        let source = compiled.get();
        let mut native = Rule::new(&source.domain, &source.path, &source.variables)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        native.methods = methods;
        native.websocket = websocket;
        native.strict_slashes = flag(intern!(py, "strict_slashes"))?;
        native.merge_slashes = flag(intern!(py, "merge_slashes"))?;
        native.build_only = flag(intern!(py, "build_only"))?;
        let entry = Self {
            rule: rule.clone().unbind(),
            compiled,
            endpoint: rule.getattr(intern!(py, "endpoint"))?.unbind(),
            defaults: defaults.map(Bound::unbind),
            special,
            websocket,
            overridden: rule.getattr(intern!(py, "_overridden"))?.is_truthy()?,
            required,
            fixed,
        };
        Ok((entry, native))
    }
}

/// A value as Python sees it.
pub(crate) fn to_python<'py>(
    py: Python<'py>,
    converter: &Py<PyAny>,
    value: &Value<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    static UUID: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    Ok(match value {
        Value::Text(text) => PyString::new(py, text).into_any(),
        Value::Integer(number) => number.into_pyobject(py)?.into_any(),
        Value::Long(digits) => py.get_type::<PyInt>().call1((digits,))?,
        Value::Float(number) => number.into_pyobject(py)?.into_any(),
        Value::Uuid(number) => {
            let options = PyDict::new(py);
            options.set_item(intern!(py, "int"), *number)?;
            UUID.import(py, "uuid", "UUID")?.call((), Some(&options))?
        }
        Value::Deferred(text) => converter.bind(py).call_method1(intern!(py, "to_python"), (&**text,))?,
    })
}

/// A part that Python's `re` matches.
struct Foreign {
    search: Py<PyAny>,
    groups: Vec<usize>,
}

impl Foreign {
    fn new(py: Python<'_>, regex: &str, suffixed: bool) -> PyResult<Self> {
        let compiled = py.import(intern!(py, "re"))?.call_method1(intern!(py, "compile"), (regex,))?;
        let index = compiled.getattr(intern!(py, "groupindex"))?;
        let mut groups = Vec::new();
        loop {
            let name = format!("v{}", groups.len());
            if !index.contains(&name)? {
                break;
            }
            groups.push(index.get_item(name)?.extract()?);
        }
        if suffixed {
            groups.push(compiled.getattr(intern!(py, "groups"))?.extract()?);
        }
        Ok(Self { search: compiled.getattr(intern!(py, "match"))?.unbind(), groups })
    }

    fn spans(&self, py: Python<'_>, text: &str, spans: &mut Vec<Span>) -> PyResult<bool> {
        let found = self.search.bind(py).call1((text,))?;
        if found.is_none() {
            return Ok(false);
        }
        // Python counts characters.
        let byte = |at: usize| match text.is_ascii() {
            true => at,
            false => text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte),
        };
        for group in &self.groups {
            let (start, end): (usize, usize) =
                found.call_method1(intern!(py, "span"), (*group,))?.extract()?;
            spans.push(byte(start)..byte(end));
        }
        Ok(true)
    }
}

impl Search for Foreign {
    fn search(&self, text: &str, spans: &mut Vec<Span>) -> bool {
        let before = spans.len();
        Python::attach(|py| {
            self.spans(py, text, spans).unwrap_or_else(|error| {
                error.write_unraisable(py, Some(self.search.bind(py)));
                spans.truncate(before);
                false
            })
        })
    }
}
