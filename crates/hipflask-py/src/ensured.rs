//! Views and hooks as plain callables: what `Flask.ensure_sync` makes of them, remembered.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::RwLock;

use pyo3::intern;
use pyo3::prelude::*;

use crate::{read_locked, write_locked};

/// Remembers what `ensure_sync` gave for each function.
///
/// An app has as many entries as it has views and hooks; each keeps its function alive, so that an address is never
/// another function's.
#[derive(Default)]
pub(crate) struct Ensured(RwLock<HashMap<usize, Pair, BuildHasherDefault<AddressHasher>>>);

/// A function, and what `ensure_sync` gave for it.
type Pair = (Py<PyAny>, Py<PyAny>);

/// Addresses come from the allocator, not from clients, and need no defence against chosen keys.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) ^ u64::from(*byte);
        }
    }

    fn write_usize(&mut self, address: usize) {
        // Objects are aligned to 16 bytes: the product spreads the rest over the high bits, which the table looks at.
        self.0 = (address as u64 >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// More functions than this are made anew per request (a hook table that is filled with closures), and not remembered.
const MOST: usize = 10_000;

impl Ensured {
    /// `app.ensure_sync(function)`.
    pub(crate) fn sync<'py>(
        &self,
        app: &Bound<'py, PyAny>,
        function: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = app.py();
        let address = function.as_ptr() as usize;
        if let Some((_, ensured)) = read_locked(&self.0).get(&address) {
            return Ok(ensured.bind(py).clone());
        }
        let ensured = app.call_method1(intern!(py, "ensure_sync"), (function,))?;
        let mut known = write_locked(&self.0);
        if known.len() < MOST {
            // Another thread may have been first.
            let old = known.insert(address, (function.clone().unbind(), ensured.clone().unbind()));
            drop(known);
            drop(old);
        }
        Ok(ensured)
    }
}
