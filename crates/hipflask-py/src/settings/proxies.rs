//! The settings about proxies: networks, names of fields, words, a path.

use hipflask_http::forwarded::Believed;
use hipflask_http::network::Networks;
use hipflask_server::{ProxyProtocol, RootPath};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use super::{Field, refused};

impl Field for Networks {
    fn take(&mut self, value: &Bound<'_, PyAny>, _least: u64) -> PyResult<()> {
        let texts: Vec<String> = value.extract()?;
        match Networks::parse(texts.iter().map(String::as_str)) {
            Ok(networks) => *self = networks,
            Err(error) => return refused(error.to_string()),
        }
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.texts().collect::<Vec<_>>().into_py_any(py)
    }
}

impl Field for Believed {
    fn take(&mut self, value: &Bound<'_, PyAny>, _least: u64) -> PyResult<()> {
        let names: Vec<String> = value.extract()?;
        let Some(believed) = Believed::parse(names.iter().map(String::as_str)) else {
            return refused("forwarded alone, or names of X-Forwarded fields are expected");
        };
        *self = believed;
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.names().into_py_any(py)
    }
}

impl Field for ProxyProtocol {
    fn take(&mut self, value: &Bound<'_, PyAny>, _least: u64) -> PyResult<()> {
        *self = match value.extract::<&str>()? {
            "off" => ProxyProtocol::Off,
            "on" => ProxyProtocol::On,
            "mixed" => ProxyProtocol::Mixed,
            _ => return refused("off, on or mixed is expected"),
        };
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let word = match self {
            ProxyProtocol::Off => "off",
            ProxyProtocol::On => "on",
            ProxyProtocol::Mixed => "mixed",
        };
        word.into_py_any(py)
    }
}

impl Field for RootPath {
    fn take(&mut self, value: &Bound<'_, PyAny>, _least: u64) -> PyResult<()> {
        let Some(root) = RootPath::new(value.extract()?) else {
            return refused("a path that begins with a slash is expected");
        };
        *self = root;
        Ok(())
    }

    fn show(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.as_str() {
            "" => "/".into_py_any(py),
            root => root.into_py_any(py),
        }
    }
}
