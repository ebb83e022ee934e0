//! The standalone server: the engine, the Python package and an embedded CPython in one file.
//!
//! The command line is that of the installed command, and Python's own code: this program finds the environment whose
//! packages to use ([`environment`]), starts the interpreter ([`interpreter`]) with the native module linked in, lets it
//! import `hipflask` from the binary itself ([`package`], `importer.py`), and runs `hipflask.cli`.

mod environment;
mod interpreter;
mod package;

use std::env;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let binary = own_path();
    let code = environment::interpreter(env::var_os("VIRTUAL_ENV").as_deref(), &binary)
        .map_err(|error| error.to_string())
        .and_then(|python| interpreter::run(&binary, python.as_deref()));
    code.unwrap_or_else(|message| {
        let _ = writeln!(std::io::stderr(), "hipflask: {message}");
        ExitCode::FAILURE
    })
}

/// The path that this program was started by, made absolute. Links in it stay: a successor (SIGUSR2) follows them anew.
fn own_path() -> PathBuf {
    let named = env::args_os().next().unwrap_or_default();
    let here = env::current_dir().unwrap_or_default();
    if named.as_bytes().contains(&b'/') {
        return here.join(named);
    }
    env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .map(|folder| here.join(folder).join(&named))
        .find(|path| path.is_file())
        .or_else(|| env::current_exe().ok())
        .unwrap_or_else(|| Path::new("/proc/self/exe").to_owned())
}
