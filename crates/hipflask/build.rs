//! Links the binary with the shared library of Python, and packs the Python package into it.
//!
//! The workspace builds PyO3 as for an extension module, whose interpreter is there already, so that wheel and binary
//! share one build of it; that Python's library is needed here is said by this script instead. The package is packed as
//! source, for tracebacks, and as bytecode, for a quick start, by the Python that the binary is built for.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let config = pyo3_build_config::get();
    link(config);
    let package = Path::new("../../python/hipflask");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let mut files = Vec::new();
    collect(package, &mut files)?;
    files.sort();
    let compiled = compile(config.executable(), &files, &out);
    let mut table = String::from("&[\n");
    for (place, file) in files.iter().enumerate() {
        println!("cargo:rerun-if-changed={}", file.display());
        let name = file.strip_prefix("../../python").unwrap_or(file).display();
        let source = fs::canonicalize(file)?;
        let code = out.join(format!("{place}.code"));
        let code =
            if compiled && code.exists() { format!("include_bytes!({code:?})") } else { "&[]".to_owned() };
        let _ = writeln!(
            table,
            "    File {{ name: {:?}, data: include_bytes!({source:?}), code: {code} }},",
            name.to_string()
        );
    }
    table.push_str("]\n");
    fs::write(out.join("files.rs"), table)?;
    println!("cargo:rustc-env=HIPFLASK_PYTHON={}", config.version());
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/compile.py");
    Ok(())
}

/// Tells the linker where Python's library is, and the binary to look there and in `lib` beside its own folder.
fn link(config: &pyo3_build_config::InterpreterConfig) {
    if !config.shared() {
        println!(
            "cargo:warning=this Python has no shared library (--enable-shared): the standalone binary needs one to link with"
        );
    }
    if let Some(name) = config.lib_name() {
        println!("cargo:rustc-link-lib=dylib={name}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/../lib");
    if let Some(folder) = config.lib_dir() {
        println!("cargo:rustc-link-search=native={folder}");
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{folder}");
    }
}

/// The files of the package that are needed when it runs.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("__pycache__") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|end| end == "py" || end == "css" || end == "js") {
            files.push(path);
        }
    }
    Ok(())
}

/// Writes the bytecode of each module to `<place>.code`; false where that Python cannot be run.
fn compile(python: Option<&str>, files: &[PathBuf], out: &Path) -> bool {
    let Some(python) = python else { return false };
    let status = Command::new(python).args(["-I", "-S", "src/compile.py"]).arg(out).args(files).status();
    let done = status.is_ok_and(|status| status.success());
    if !done {
        println!(
            "cargo:warning={python} cannot compile the package: it is packed as source, which starts more slowly"
        );
    }
    done
}
