//! From a project in Rust to its component.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::file::replace;

/// What plugins are compiled for: no operating system at all.
pub const TARGET: &str = "wasm32-unknown-unknown";
/// Makes a component of what the compiler gives. It comes with Rust.
const LINKER: &str = "wasm-component-ld";
/// How WebAssembly components begin: the magic number, then version and layer.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// Why there is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A tool cannot be run.
    #[error("cannot run {0}: {1}; plugins in Rust need Rust: https://rustup.rs")]
    Run(String, std::io::Error),
    /// It is no project.
    #[error("there is no Cargo.toml in {}; start one with `tidegate plugin new NAME`", .0.display())]
    NoProject(PathBuf),
    /// The standard library for plugins is missing.
    #[error("Rust cannot compile for {TARGET} yet; run: rustup target add {TARGET}")]
    NoTarget,
    /// The linker is missing.
    #[error("there is no {LINKER}, which comes with Rust 1.82 and newer; run: rustup update")]
    NoLinker,
    /// The compiler has said why.
    #[error("the plugin does not compile")]
    Compile,
    /// There is nothing that could be a plugin.
    #[error("{} has no library of the kind `cdylib`; write `[lib]` and `crate-type = [\"cdylib\", \"rlib\"]` \
             into its Cargo.toml", .0.display())]
    NoLibrary(PathBuf),
    /// Something was built, and is no plugin.
    #[error("{} is no component: does the plugin say `export!(..)`?", .0.display())]
    NoComponent(PathBuf),
    /// A file.
    #[error("{0}")]
    File(String),
}

/// A plugin that was built.
#[derive(Debug)]
pub struct Built {
    /// where it is: in the project, beside its manifest
    pub wasm: PathBuf,
    /// how large it is
    pub bytes: u64,
}

/// Builds the project in `dir`. What compilers say goes to standard error.
///
/// # Errors
/// When a tool is missing, or the plugin does not compile.
pub fn build(dir: &Path) -> Result<Built, BuildError> {
    if !dir.join("Cargo.toml").exists() {
        return Err(BuildError::NoProject(dir.to_owned()));
    }
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let library = PathBuf::from(output(dir, &compiler, &["--print", "target-libdir", "--target", TARGET])?);
    if !has_core(&library) {
        return Err(BuildError::NoTarget);
    }
    let path = path_with_linker(dir, &compiler)?;
    let package = package(dir)?;
    // A compiler that was replaced must not find what the other one left.
    let version = output(dir, &compiler, &["--version"])?;
    let version = version.split(' ').nth(1).unwrap_or("rustc").to_owned();
    let target = package.target_dir.join("plugins").join(version);
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--lib", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(dir)
        .env("PATH", path)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", LINKER)
        .status()
        .map_err(|error| BuildError::Run("cargo".to_owned(), error))?;
    if !status.success() {
        return Err(BuildError::Compile);
    }
    let file = format!("{}.wasm", package.library.replace('-', "_"));
    let compiled = target.join(TARGET).join("release").join(file);
    let bytes = fs::read(&compiled).map_err(|_| BuildError::NoLibrary(dir.to_owned()))?;
    if !bytes.starts_with(COMPONENT) {
        return Err(BuildError::NoComponent(compiled));
    }
    let wasm = dir.join(format!("{}.wasm", package.name));
    replace(&wasm, &bytes).map_err(|wrong| BuildError::File(wrong.to_string()))?;
    Ok(Built { wasm, bytes: bytes.len() as u64 })
}

/// Puts a plugin into a rules directory. A manifest that is there stays: it is the box's. Returns whether
/// there was one.
///
/// # Errors
/// When a file cannot be read or written.
pub fn install(wasm: &Path, into: &Path) -> Result<bool, BuildError> {
    let failed =
        |path: &Path, error: std::io::Error| BuildError::File(format!("{}: {error}", path.display()));
    let bytes = fs::read(wasm).map_err(|error| failed(wasm, error))?;
    let name = wasm.file_name().unwrap_or_default();
    let there = into.join(name).with_extension("toml");
    let has_manifest = there.exists();
    if !has_manifest {
        let manifest = wasm.with_extension("toml");
        let text = fs::read(&manifest).map_err(|error| failed(&manifest, error))?;
        replace(&there, &text).map_err(|wrong| BuildError::File(wrong.to_string()))?;
    }
    replace(&into.join(name), &bytes).map_err(|wrong| BuildError::File(wrong.to_string()))?;
    Ok(has_manifest)
}

fn has_core(library: &Path) -> bool {
    fs::read_dir(library).into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

/// `PATH` with the linker on it: it lies in the toolchain, where nothing but the compiler looks for it.
fn path_with_linker(dir: &Path, compiler: &OsStr) -> Result<OsString, BuildError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = Vec::new();
    // A compiler that came without a linker can use that of the one which is on the path.
    for compiler in [compiler, OsStr::new("rustc")] {
        let Ok(root) = output(dir, compiler, &["--print", "sysroot"]) else { continue };
        let host = output(dir, compiler, &["--version", "--verbose"])?;
        let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default().to_owned();
        candidates.push(PathBuf::from(root).join("lib/rustlib").join(host).join("bin"));
    }
    candidates.extend(env::split_paths(&path));
    let Some(found) = candidates.into_iter().find(|candidate| candidate.join(LINKER).exists()) else {
        return Err(BuildError::NoLinker);
    };
    let paths = [found.clone(), found.join("gcc-ld")].into_iter().chain(env::split_paths(&path));
    env::join_paths(paths).map_err(|error| BuildError::File(error.to_string()))
}

/// What cargo knows of the project.
struct Package {
    name: String,
    library: String,
    target_dir: PathBuf,
}

fn package(dir: &Path) -> Result<Package, BuildError> {
    let text = output(dir, OsStr::new("cargo"), &["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: Value =
        serde_json::from_str(&text).map_err(|error| BuildError::File(format!("cargo metadata: {error}")))?;
    let manifest = fs::canonicalize(dir.join("Cargo.toml")).unwrap_or_default();
    let of =
        |package: &&Value| package["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest);
    let no_library = || BuildError::NoLibrary(dir.to_owned());
    let packages = metadata.get("packages").and_then(Value::as_array);
    let package = packages.into_iter().flatten().find(of).ok_or_else(no_library)?;
    let is_library = |target: &&Value| {
        target["crate_types"].as_array().into_iter().flatten().any(|kind| kind.as_str() == Some("cdylib"))
    };
    let library =
        package["targets"].as_array().into_iter().flatten().find(is_library).ok_or_else(no_library)?;
    let text = |of: &Value, key| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Package {
        name: text(package, "name"),
        library: text(library, "name"),
        target_dir: PathBuf::from(text(&metadata, "target_directory")),
    })
}

/// What a tool prints.
fn output(dir: &Path, tool: &OsStr, arguments: &[&str]) -> Result<String, BuildError> {
    let name = || tool.to_string_lossy().into_owned();
    let done = Command::new(tool)
        .args(arguments)
        .current_dir(dir)
        // Asking must not install anything.
        .env("RUSTUP_AUTO_INSTALL", "0")
        .output()
        .map_err(|error| BuildError::Run(name(), error))?;
    if !done.status.success() {
        return Err(BuildError::File(format!(
            "{}: {}",
            name(),
            String::from_utf8_lossy(&done.stderr).trim()
        )));
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}
