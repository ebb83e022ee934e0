//! Values of a URL that is built, as text.

use std::collections::HashSet;
use std::fmt::Write;

use hipflask_router::{quote_path, quote_query};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple};

/// How a variable's value becomes text.
pub(crate) enum Encoder {
    /// `str(value)`, percent-encoded.
    Text,
    /// `str(value)` as it is.
    Plain,
    /// An integer, filled with zeros to this many digits.
    Integer(usize),
    /// A floating-point number, likewise.
    Float(usize),
    /// One of these words.
    Word(HashSet<String>),
    /// By the converter's own `to_url`.
    Own,
}

impl Encoder {
    /// The encoder that `Rule.compile` names.
    pub(crate) fn new(kind: &str, digits: usize, words: Option<Bound<'_, PyFrozenSet>>) -> PyResult<Self> {
        Ok(match kind {
            "text" => Self::Text,
            "uuid" => Self::Plain,
            "int" => Self::Integer(digits),
            "float" => Self::Float(digits),
            "any" => match words {
                Some(words) => Self::Word(words.iter().map(|word| word.extract()).collect::<PyResult<_>>()?),
                None => Self::Own,
            },
            "own" => Self::Own,
            other => return Err(PyValueError::new_err(format!("no encoder {other:?}"))),
        })
    }

    /// Appends a value.
    pub(crate) fn encode(
        &self,
        py: Python<'_>,
        converter: &Py<PyAny>,
        value: &Bound<'_, PyAny>,
        out: &mut String,
    ) -> PyResult<()> {
        match self {
            Self::Text => match value.cast_exact::<PyString>() {
                Ok(text) => quote_path(out, text.to_str()?),
                Err(_) => quote_path(out, value.str()?.to_str()?),
            },
            Self::Plain => out.push_str(value.str()?.to_str()?),
            Self::Integer(digits) => match value.cast_exact::<PyInt>() {
                Ok(number) => push_integer(out, number, *digits)?,
                Err(_) => {
                    let number = py.get_type::<PyInt>().call1((value,))?;
                    push_filled(out, number.str()?.to_str()?, *digits);
                }
            },
            Self::Float(digits) => {
                let number = py.get_type::<PyFloat>().call1((value,))?;
                push_filled(out, number.str()?.to_str()?, *digits);
            }
            Self::Word(words) => match value.cast_exact::<PyString>() {
                Ok(text) if words.contains(text.to_str()?) => out.push_str(text.to_str()?),
                _ => push_own(py, converter, value, out)?,
            },
            Self::Own => push_own(py, converter, value, out)?,
        }
        Ok(())
    }
}

/// Appends `?key=value&…` from pairs, in the map's order.
pub(crate) fn append_unknown(
    extra: &Bound<'_, PyList>,
    map: &Bound<'_, PyAny>,
    out: &mut String,
) -> PyResult<()> {
    let py = extra.py();
    let mut pairs = Vec::with_capacity(extra.len());
    for pair in extra.iter() {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
        if value.is_instance_of::<PyList>()
            || value.is_instance_of::<PyTuple>()
            || value.is_instance_of::<PySet>()
        {
            for one in value.try_iter()? {
                pairs.push((key.clone(), one?));
            }
        } else {
            pairs.push((key, value));
        }
    }
    if map.getattr(intern!(py, "sort_parameters"))?.is_truthy()? {
        let sorted = PyList::new(py, pairs)?;
        let options = PyDict::new(py);
        options.set_item(intern!(py, "key"), map.getattr(intern!(py, "sort_key"))?)?;
        sorted.call_method(intern!(py, "sort"), (), Some(&options))?;
        pairs = sorted.extract()?;
    }
    let mut separator = '?';
    for (key, value) in pairs.into_iter().filter(|(_, value)| !value.is_none()) {
        out.push(separator);
        push_query(out, &key)?;
        out.push('=');
        push_query(out, &value)?;
        separator = '&';
    }
    Ok(())
}

fn push_query(out: &mut String, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        quote_query(out, text.to_str()?.as_bytes());
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        quote_query(out, bytes.as_bytes());
    } else {
        quote_query(out, value.str()?.to_str()?.as_bytes());
    }
    Ok(())
}

fn push_integer(out: &mut String, number: &Bound<'_, PyInt>, digits: usize) -> PyResult<()> {
    match number.extract::<i64>() {
        // Writing to a string cannot fail.
        Ok(number) if digits == 0 => _ = write!(out, "{number}"),
        Ok(number) => push_filled(out, &number.to_string(), digits),
        Err(_) => push_filled(out, number.str()?.to_str()?, digits),
    }
    Ok(())
}

/// As `str.zfill`: zeros go between the sign and the digits.
fn push_filled(out: &mut String, number: &str, digits: usize) {
    let unsigned = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (sign, _) = number.split_at(number.len() - unsigned.len());
    out.push_str(sign);
    out.extend(std::iter::repeat_n('0', digits.saturating_sub(number.len())));
    out.push_str(unsigned);
}

fn push_own(
    py: Python<'_>,
    converter: &Py<PyAny>,
    value: &Bound<'_, PyAny>,
    out: &mut String,
) -> PyResult<()> {
    let text = converter.bind(py).call_method1(intern!(py, "to_url"), (value,))?;
    out.push_str(text.str()?.to_str()?);
    Ok(())
}
