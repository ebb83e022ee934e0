//! Python's garbage collector, kept still while one value of many objects is built.

use std::marker::PhantomData;

use pyo3::ffi;
use pyo3::prelude::*;

/// Keeps the collector from starting by itself while it lives.
///
/// The collector looks at all new containers after every 700th, and at the older ones in between. None of a value that
/// is being built can be garbage, so that is work for nothing: more than the building itself costs, for a few MiB of
/// nested lists. No code of the user's may run meanwhile, since that could look at or change the collector's setting.
pub(crate) struct CollectorPause<'py>(bool, PhantomData<Python<'py>>);

impl<'py> CollectorPause<'py> {
    pub(crate) fn new(_py: Python<'py>) -> Self {
        // SAFETY: attached, by the token.
        Self(unsafe { ffi::PyGC_Disable() } == 1, PhantomData)
    }
}

impl Drop for CollectorPause<'_> {
    fn drop(&mut self) {
        if self.0 {
            // SAFETY: attached, as the lifetime of the token says.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}
