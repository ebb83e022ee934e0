//! Where the Python is whose packages the binary uses. Does not start it.
//!
//! Python itself finds its standard library and its packages by the path of the interpreter. A virtual environment's
//! interpreter leads to that environment, so all that is to be found here is that path.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The version of Python that the binary is linked with, as `3.11`.
pub(crate) const PYTHON: &str = env!("HIPFLASK_PYTHON");

/// Why an environment cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// `VIRTUAL_ENV` names a folder without `pyvenv.cfg`.
    NoEnvironment(PathBuf),
    /// The environment's Python is of another version: its packages cannot be used.
    OtherVersion(PathBuf, String),
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEnvironment(folder) => {
                write!(
                    to,
                    "VIRTUAL_ENV is {}, which is no virtual environment: it has no pyvenv.cfg.",
                    folder.display()
                )
            }
            Self::OtherVersion(folder, version) => write!(
                to,
                "this binary is built for Python {PYTHON}, and {} is an environment of Python {version}. Make one with \
                 'python{PYTHON} -m venv', or build the binary with that Python (PYO3_PYTHON).",
                folder.display()
            ),
        }
    }
}

/// The path of the interpreter to go by: of the environment that `VIRTUAL_ENV` names, else of the one that the binary
/// lies in, else none, and Python looks for `python3.x` on the `PATH` and where it was installed.
///
/// # Errors
///
/// What `VIRTUAL_ENV` names is no environment, or one for another version of Python.
pub(crate) fn interpreter(active: Option<&OsStr>, binary: &Path) -> Result<Option<PathBuf>, Error> {
    let folder = if let Some(folder) = active.filter(|folder| !folder.is_empty()) {
        PathBuf::from(folder)
    } else {
        match binary.parent().and_then(Path::parent) {
            Some(folder) if folder.join("pyvenv.cfg").is_file() => folder.to_owned(),
            _ => return Ok(None),
        }
    };
    let Ok(text) = fs::read_to_string(folder.join("pyvenv.cfg")) else {
        return Err(Error::NoEnvironment(folder));
    };
    match version(&text) {
        Some(version) if version != PYTHON => Err(Error::OtherVersion(folder, version)),
        _ => Ok(Some(folder.join("bin/python"))),
    }
}

/// The major and minor version that `pyvenv.cfg` tells: `version` of `venv`, `version_info` of others.
fn version(text: &str) -> Option<String> {
    for line in text.lines() {
        if let Some((key, value)) = line.split_once('=')
            && matches!(key.trim(), "version" | "version_info")
        {
            let mut parts = value.trim().split('.');
            return Some(format!("{}.{}", parts.next()?, parts.next()?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_an_environment_is_read() {
        for (text, expected) in [
            ("home = /usr/bin\nversion = 3.11.7\n", Some("3.11")),
            ("version_info = 3.12.1.final.0", Some("3.12")),
            ("version = 3", None),
            ("home = /usr/bin", None),
        ] {
            assert_eq!(version(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn an_environment_must_be_one() {
        let nowhere = Path::new("/nowhere");
        let error = Err(Error::NoEnvironment(nowhere.to_owned()));
        assert_eq!(interpreter(Some(nowhere.as_os_str()), nowhere), error);
        assert_eq!(interpreter(None, nowhere), Ok(None));
        assert_eq!(interpreter(Some(OsStr::new("")), nowhere), Ok(None));
    }
}
