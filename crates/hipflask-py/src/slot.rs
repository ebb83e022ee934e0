//! A place in a native object for one Python value that is worked out late, replaced or deleted.
//!
//! Does not run Python code while it is looked into: the value that goes is dropped after the slot holds the new one.

use std::cell::UnsafeCell;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;

/// A place for one Python value; empty at first.
#[derive(Default)]
pub(crate) struct Slot(UnsafeCell<Option<Py<PyAny>>>);

// SAFETY: every access below happens attached, within the critical section of the object that owns the slot (the GIL
// where there is one), and runs no Python code.
unsafe impl Sync for Slot {}

impl Slot {
    /// The value, if there is one. `owner` is the object that the slot belongs to.
    #[inline]
    pub(crate) fn get<'py>(&self, owner: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        with_critical_section(owner, || {
            // SAFETY: see `Sync`; cloning counts a reference and nothing else.
            unsafe { (*self.0.get()).as_ref() }.map(|value| value.bind(owner.py()).clone())
        })
    }

    /// Whether there is a value.
    #[inline]
    pub(crate) fn is_set(&self, owner: &Bound<'_, PyAny>) -> bool {
        // SAFETY: see `Sync`.
        with_critical_section(owner, || unsafe { (*self.0.get()).is_some() })
    }

    /// Puts a value in, or takes it out with `None`; returns the one before.
    #[inline]
    pub(crate) fn set(&self, owner: &Bound<'_, PyAny>, value: Option<Py<PyAny>>) -> Option<Py<PyAny>> {
        // SAFETY: see `Sync`; the old value is moved out, not dropped.
        with_critical_section(owner, || unsafe { std::mem::replace(&mut *self.0.get(), value) })
    }

    /// For the owner's `__traverse__`.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: the collector runs while no other thread is attached (or all are stopped).
        match unsafe { &*self.0.get() } {
            Some(value) => visit.call(value),
            None => Ok(()),
        }
    }

    /// For the owner's `__clear__`.
    pub(crate) fn clear(&self) {
        // SAFETY: see `traverse`; the old value is dropped after the slot is empty.
        let old = unsafe { (*self.0.get()).take() };
        drop(old);
    }
}
