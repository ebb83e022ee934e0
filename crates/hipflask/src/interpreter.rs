//! Starts CPython and runs the command line in it. All of the binary's `unsafe` is here.
//!
//! Uses Python's initialization configuration (PEP 587), so that the environment, encodings, signals and exit statuses
//! are those of `python`.

use std::env;
use std::ffi::{CString, OsStr};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
// Linked for its native module, which is called by its C name.
use _core as _;

use crate::environment::PYTHON;
use crate::package::_hipflask;

/// What Python runs when the importer is there.
const COMMAND: &str = "import _hipflask_importer; _hipflask_importer.run()";

unsafe extern "C" {
    /// Makes `hipflask._core`; PyO3 exports it for Python's loader of shared libraries.
    fn PyInit__core() -> *mut ffi::PyObject;
}

/// Runs the command line with this program's arguments, to the end of the process.
///
/// # Errors
///
/// Python cannot be started; the sentence says why.
pub(crate) fn run(binary: &Path, python: Option<&Path>) -> Result<ExitCode, String> {
    pyo3::append_to_inittab!(_hipflask);
    // SAFETY: Python is not initialized yet; the name is static and the function what PyO3 made for this purpose.
    unsafe { ffi::PyImport_AppendInittab(c"hipflask._core".as_ptr(), Some(PyInit__core)) };
    initialize(binary, python)?;
    Python::attach(|py| {
        PyModule::from_code(
            py,
            c_string(include_str!("importer.py").as_bytes())?.as_c_str(),
            c"<hipflask importer>",
            c"_hipflask_importer",
        )
        .map(drop)
        .map_err(|error| error.to_string())
    })?;
    // SAFETY: Python is initialized and this is the main thread, which holds the interpreter's lock. Ends Python.
    let status = unsafe { ffi::Py_RunMain() };
    Ok(ExitCode::from(u8::try_from(status & 0xff).unwrap_or(1)))
}

fn initialize(binary: &Path, python: Option<&Path>) -> Result<(), String> {
    let fallback = format!("python{PYTHON}");
    let program = python.map_or(OsStr::new(&fallback), Path::as_os_str);
    let arguments: Vec<CString> =
        env::args_os().skip(1).map(|argument| c_string(argument.as_bytes())).collect::<Result<_, _>>()?;
    let mut config = Config::new()?;
    config.set(|config| &raw mut config.program_name, program)?;
    if python.is_some() {
        config.set(|config| &raw mut config.executable, program)?;
    }
    config.set(|config| &raw mut config.run_command, OsStr::new(COMMAND))?;
    // `-c` is how Python knows that there is no script, whose folder would be on `sys.path` instead of the current one.
    config.extend(|config| &raw mut config.argv, c"-c", &arguments)?;
    // What starts this program anew.
    config.extend(
        |config| &raw mut config.orig_argv,
        &c_string(binary.as_os_str().as_bytes())?,
        &arguments,
    )?;
    config.initialize()
}

fn c_string(bytes: &[u8]) -> Result<CString, String> {
    CString::new(bytes).map_err(|_| "a NUL byte where none can be".to_owned())
}

/// What Python gives as the outcome of a step; its messages are static.
fn checked(status: ffi::PyStatus) -> Result<(), String> {
    // SAFETY: the status comes from Python, and a message, if there is one, is a C string that lives for ever.
    unsafe {
        if ffi::PyStatus_Exception(status) == 0 {
            return Ok(());
        }
        let message = if status.err_msg.is_null() {
            "no reason given".into()
        } else {
            std::ffi::CStr::from_ptr(status.err_msg).to_string_lossy()
        };
        Err(format!(
            "Python {PYTHON} cannot be started: {message}. Its standard library must be installed; PYTHONHOME, if set, \
             must name that of this version."
        ))
    }
}

/// A `PyConfig` that frees its strings.
struct Config(Box<ffi::PyConfig>);

impl Config {
    fn new() -> Result<Self, String> {
        let mut before = MaybeUninit::<ffi::PyPreConfig>::uninit();
        // SAFETY: Python fills the structure before it is read. UTF-8 mode and the C locale are then as for `python`;
        // no argument of ours is one of Python's.
        unsafe {
            ffi::PyPreConfig_InitPythonConfig(before.as_mut_ptr());
            let mut before = before.assume_init();
            before.parse_argv = 0;
            checked(ffi::Py_PreInitialize(&raw const before))?;
        }
        // SAFETY: a structure of numbers and pointers, all of which may be zero; Python fills it next.
        let mut config = Box::new(unsafe { MaybeUninit::<ffi::PyConfig>::zeroed().assume_init() });
        // SAFETY: the pointer is valid; Python is preinitialized.
        unsafe { ffi::PyConfig_InitPythonConfig(&raw mut *config) };
        config.parse_argv = 0;
        Ok(Self(config))
    }

    /// Sets a string, decoded as Python decodes arguments.
    fn set(
        &mut self,
        field: impl Fn(&mut ffi::PyConfig) -> *mut *mut libc::wchar_t,
        value: &OsStr,
    ) -> Result<(), String> {
        let value = c_string(value.as_bytes())?;
        let to = field(&mut self.0);
        // SAFETY: `to` is a field of this configuration; the value is a C string.
        checked(unsafe { ffi::PyConfig_SetBytesString(&raw mut *self.0, to, value.as_ptr()) })
    }

    /// Appends to a list of strings.
    fn extend(
        &mut self,
        field: impl Fn(&mut ffi::PyConfig) -> *mut ffi::PyWideStringList,
        first: &std::ffi::CStr,
        rest: &[CString],
    ) -> Result<(), String> {
        for value in std::iter::once(first).chain(rest.iter().map(CString::as_c_str)) {
            // SAFETY: Python is preinitialized, as decoding needs; the text is freed after it was copied.
            unsafe {
                let text = ffi::Py_DecodeLocale(value.as_ptr(), ptr::null_mut());
                if text.is_null() {
                    return Err("no memory for an argument".to_owned());
                }
                let status = ffi::PyWideStringList_Append(field(&mut self.0), text);
                ffi::PyMem_RawFree(text.cast());
                checked(status)?;
            }
        }
        Ok(())
    }

    fn initialize(&self) -> Result<(), String> {
        // SAFETY: the configuration was made by Python's functions.
        checked(unsafe { ffi::Py_InitializeFromConfig(&raw const *self.0) })
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: made by `PyConfig_InitPythonConfig`, and not used after this.
        unsafe { ffi::PyConfig_Clear(&raw mut *self.0) };
    }
}
