//! Routing for Python: what stands behind `Map`, `Rule` and `MapAdapter`, and what the engine routes with.
//!
//! For the engine: a Python `Map` is a [`MapBase`], frozen, so that `Py::<MapBase>::get` works detached.
//!
//! - [`MapBase::fresh`] (detached) gives the current [`Snapshot`], or `None` after rules were added;
//!   [`MapBase::snapshot`] (attached) then compiles a new one. [`MapBase::generation`] counts snapshots.
//! - `snapshot.router.matches(domain, path, method, websocket)` (detached) finds the rule. `domain` is the subdomain,
//!   or the host if [`MapBase::host_matching`].
//! - [`Snapshot::is_special`]: the rule may redirect by its defaults, as an alias or by `redirect_to`. Let
//!   `MapAdapter.match` decide.
//! - [`Snapshot::rule`] is the Python `Rule`, [`Snapshot::endpoint`] its endpoint, [`Snapshot::values`] the view's
//!   keyword arguments (`Err` with `ValidationError` if a user's converter turned the request down:
//!   `found.otherwise` is the answer).
//! - A redirect's path goes through [`hipflask_router::quote_path`] and [`hipflask_router::redirect_url`].
//!
//! Drop a `Snapshot` while attached, as it holds Python objects.

mod adapter;
mod compile;
mod encode;
mod map;

use pyo3::prelude::*;

pub(crate) use self::adapter::{Form, MapAdapterBase, Wanted, is_plain_host, plain_values, same};
#[allow(unused_imports, reason = "the dispatcher's side of the seam")]
pub(crate) use self::map::{Endpoint, MapBase, Snapshot};

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<compile::CompiledRule>()?;
    module.add_class::<map::MapBase>()?;
    module.add_class::<adapter::MapAdapterBase>()?;
    module.add_function(wrap_pyfunction!(adapter::bind_environ, module)?)?;
    module.add_function(wrap_pyfunction!(redirect_url, module)?)
}

/// Joins the absolute URL of a redirect. Path and query are encoded already.
#[pyfunction]
fn redirect_url(scheme: &str, host: &str, script: &str, path: &str, query: &str) -> String {
    hipflask_router::redirect_url(scheme, host, script, path, query)
}
