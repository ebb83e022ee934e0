//! One rule, compiled: its variables, and how its URL is built.

use hipflask_router::{Conversion, Limits, Place, Template, Token, Variable, merge_slashes, tokens};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFrozenSet, PyList, PyString};

use super::encode::{Encoder, append_unknown};

/// A rule's compiled form, made by `Rule.compile`.
#[pyclass(frozen, module = "hipflask._core")]
pub(crate) struct CompiledRule {
    pub(crate) domain: String,
    pub(crate) path: String,
    pub(crate) variables: Vec<Variable>,
    pub(crate) names: Vec<Py<PyString>>,
    pub(crate) converters: Vec<Py<PyAny>>,
    encoders: Vec<Encoder>,
    template: Template,
    /// The variables that the template takes.
    open: Vec<usize>,
    /// Every name that the rule uses: its variables and its defaults.
    used: Vec<Box<str>>,
}

/// What `Rule.compile` tells of a converter.
#[derive(FromPyObject)]
struct Described<'py>(
    Bound<'py, PyAny>,
    String,
    f64,
    bool,
    String,
    String,
    (usize, Option<Bound<'py, PyAny>>, Option<Bound<'py, PyAny>>),
    Option<Bound<'py, PyFrozenSet>>,
);

#[pymethods]
impl CompiledRule {
    /// Parses a rule. `describe(name, converter, arguments)` is called for each variable.
    #[new]
    #[pyo3(signature = (domain, path, merge, defaults, describe))]
    fn new(
        py: Python<'_>,
        domain: &str,
        path: &str,
        merge: bool,
        defaults: Option<&Bound<'_, PyAny>>,
        describe: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let path = if merge { merge_slashes(path).into_owned() } else { path.to_owned() };
        let mut compiled = Self {
            domain: domain.to_owned(),
            path,
            variables: Vec::new(),
            names: Vec::new(),
            converters: Vec::new(),
            encoders: Vec::new(),
            template: Template { domain: Vec::new(), path: Vec::new() },
            open: Vec::new(),
            used: Vec::new(),
        };
        for text in [domain, &compiled.path.clone()] {
            for token in tokens(text).map_err(|_| malformed(py, text))? {
                if let Token::Variable { name, converter, arguments } = token {
                    compiled.add_variable(
                        py,
                        name,
                        describe.call1((name, converter, arguments))?.extract()?,
                    )?;
                }
            }
        }
        let mut constants = Vec::new();
        if let Some(defaults) = defaults {
            let variables = compiled.names.iter().zip(&compiled.encoders).zip(&compiled.converters);
            for ((name, encoder), converter) in variables {
                if defaults.contains(name)? {
                    let mut text = String::new();
                    encoder.encode(py, converter, &defaults.get_item(name)?, &mut text)?;
                    constants.push((name.to_str(py)?.to_owned(), text));
                }
            }
            for key in defaults.try_iter()? {
                let name = key?.str()?.to_str()?.to_owned();
                if !compiled.uses(&name) {
                    compiled.used.push(name.into());
                }
            }
        }
        compiled.template = Template::new(&compiled.domain, &compiled.path, |name| {
            constants.iter().find(|(constant, _)| constant == name).map(|(_, text)| text.clone())
        })
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let places = compiled.template.domain.iter().chain(&compiled.template.path);
        compiled.open = places
            .filter_map(|place| match place {
                Place::Variable(at) => Some(*at),
                Place::Text(_) => None,
            })
            .collect();
        Ok(compiled)
    }

    /// The pieces of domain and path, each with whether it is a variable.
    #[getter]
    fn trace(&self) -> PyResult<Vec<(bool, String)>> {
        let mut trace = Vec::new();
        for (text, end) in [(&self.domain, Some("|")), (&self.path, None)] {
            let found = tokens(text).map_err(|error| PyValueError::new_err(error.to_string()))?;
            trace.extend(found.into_iter().map(|token| match token {
                Token::Slash => (false, "/".to_owned()),
                Token::Literal(text) => (false, text.to_owned()),
                Token::Variable { name, .. } => (true, name.to_owned()),
            }));
            trace.extend(end.map(|end| (false, end.to_owned())));
        }
        Ok(trace)
    }

    /// The converters by their variables' names.
    #[getter]
    fn converters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let found = PyDict::new(py);
        for (name, converter) in self.names.iter().zip(&self.converters) {
            found.set_item(name, converter)?;
        }
        Ok(found)
    }

    /// Builds domain and path from all the variables' values; others go to the query.
    fn build(
        &self,
        py: Python<'_>,
        values: &Bound<'_, PyDict>,
        unknown: bool,
        map: &Bound<'_, PyAny>,
    ) -> PyResult<(String, String)> {
        self.assemble(py, Some(values), unknown, map)?.ok_or_else(|| {
            PyTypeError::new_err(format!("{:?} needs a value for each of its variables", self.path))
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.converters.iter().try_for_each(|converter| visit.call(converter))
    }
}

impl CompiledRule {
    fn add_variable(&mut self, py: Python<'_>, name: &str, described: Described<'_>) -> PyResult<()> {
        let Described(converter, regex, weight, isolating, decode, encode, (digits, min, max), words) =
            described;
        if self.variables.iter().any(|variable| *variable.name == *name) {
            return Err(PyValueError::new_err(format!("variable name '{name}' used twice.")));
        }
        let conversion = match decode.as_str() {
            "text" => Conversion::Text,
            "int" => Conversion::Integer(Limits { digits, min: extract(min)?, max: extract(max)? }),
            "float" => Conversion::Float(Limits { digits, min: extract(min)?, max: extract(max)? }),
            "uuid" => Conversion::Uuid,
            _ => Conversion::Deferred,
        };
        self.encoders.push(Encoder::new(&encode, digits, words)?);
        self.variables.push(Variable { name: name.into(), regex, weight, isolating, conversion });
        self.names.push(PyString::intern(py, name).unbind());
        self.converters.push(converter.unbind());
        self.used.push(name.into());
        Ok(())
    }

    /// Whether the rule has a use for a value of this name.
    fn uses(&self, name: &str) -> bool {
        self.used.iter().any(|used| **used == *name)
    }

    /// Builds domain and path; `None` if a variable has no value.
    pub(crate) fn assemble(
        &self,
        py: Python<'_>,
        values: Option<&Bound<'_, PyDict>>,
        unknown: bool,
        map: &Bound<'_, PyAny>,
    ) -> PyResult<Option<(String, String)>> {
        let mut query = String::new();
        let extra = values.filter(|values| unknown && values.len() > self.open.len());
        if let Some(values) = values
            && (extra.is_some() || self.open.len() > 1)
        {
            // A value that cannot be encoded is no error if another is missing.
            for name in self.open.iter().filter_map(|&at| self.names.get(at)) {
                if !values.contains(name)? {
                    return Ok(None);
                }
            }
        }
        if let Some(values) = extra {
            self.append_query(values, map, &mut query)?;
        }
        let mut domain = String::new();
        let mut path = String::with_capacity(64 + query.len());
        for (places, out) in [(&self.template.domain, &mut domain), (&self.template.path, &mut path)] {
            for place in places {
                let at = match place {
                    Place::Text(text) => {
                        out.push_str(text);
                        continue;
                    }
                    Place::Variable(at) => *at,
                };
                if let (Some(name), Some(encoder), Some(converter)) =
                    (self.names.get(at), self.encoders.get(at), self.converters.get(at))
                {
                    let Some(value) = values.map_or(Ok(None), |values| values.get_item(name))? else {
                        return Ok(None);
                    };
                    encoder.encode(py, converter, &value, out)?;
                }
            }
        }
        path.push_str(&query);
        Ok(Some((domain, path)))
    }

    /// Whether [`CompiledRule::assemble`] asks for this value.
    pub(crate) fn asks_for(&self, name: &str) -> bool {
        self.open.iter().any(|&at| self.variables.get(at).is_some_and(|variable| *variable.name == *name))
    }

    fn append_query(
        &self,
        values: &Bound<'_, PyDict>,
        map: &Bound<'_, PyAny>,
        path: &mut String,
    ) -> PyResult<()> {
        let extra = PyList::empty(values.py());
        for (key, value) in values.iter() {
            if !key.cast::<PyString>().is_ok_and(|key| key.to_str().is_ok_and(|key| self.uses(key))) {
                extra.append((key, value))?;
            }
        }
        if extra.is_empty() { Ok(()) } else { append_unknown(&extra, map, path) }
    }
}

fn extract<'py, T>(value: Option<Bound<'py, PyAny>>) -> PyResult<Option<T>>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    value.map(|value| value.extract()).transpose()
}

fn malformed(py: Python<'_>, rule: &str) -> PyErr {
    let shown = PyString::new(py, rule).repr().map_or_else(|_| rule.to_owned(), |shown| shown.to_string());
    PyValueError::new_err(format!("malformed url rule: {shown}"))
}
