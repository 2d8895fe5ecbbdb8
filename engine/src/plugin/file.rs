//! A plugin's file, and the manifest beside or in it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tidegate_core::Diagnostic;
use tidegate_rules::wasm::{pack, unpack};

/// A plugin that was read.
#[derive(Debug)]
pub struct PluginFile {
    /// `NAME.wasm`
    pub path: PathBuf,
    /// without the manifest
    pub component: Vec<u8>,
    /// the text of `NAME.toml`; `None`: there is none
    pub manifest: Option<String>,
    /// whether that is in `NAME.wasm`
    pub is_packed: bool,
}

impl PluginFile {
    /// Reads `NAME.wasm`, and `NAME.toml` beside it, which counts for more than a manifest in the plugin.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn read(path: &Path) -> Result<Self, Diagnostic> {
        let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
        let (component, packed) = unpack(&bytes);
        let beside = path.with_extension("toml");
        let manifest = match fs::read_to_string(&beside) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unreadable(&beside, &error)),
        };
        let is_packed = manifest.is_none() && packed.is_some();
        let manifest = manifest.or_else(|| packed.map(str::to_owned));
        Ok(Self { path: path.to_owned(), component: component.to_vec(), manifest, is_packed })
    }

    /// The plugin as a rule's source: one file.
    ///
    /// # Errors
    /// When it has no manifest.
    pub fn source(&self) -> Result<Vec<u8>, Diagnostic> {
        Ok(pack(&self.component, self.manifest()?))
    }

    /// What the plugin reads and writes.
    ///
    /// # Errors
    /// When it has no manifest.
    pub fn manifest(&self) -> Result<&str, Diagnostic> {
        self.manifest.as_deref().ok_or_else(|| {
            let beside = self.path.with_extension("toml").display().to_string();
            let help = "it says what the plugin reads and writes, such as `reads = [\"tank\"]`".to_owned();
            Diagnostic::new(beside, "the plugin has no manifest").help(help)
        })
    }

    /// Writes another manifest where the plugin has its own.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_manifest(&self, manifest: &str) -> Result<PathBuf, Diagnostic> {
        let (path, bytes) = match self.is_packed {
            true => (self.path.clone(), pack(&self.component, manifest)),
            false => (self.path.with_extension("toml"), manifest.as_bytes().to_vec()),
        };
        replace(&path, &bytes)?;
        Ok(path)
    }
}

/// Writes `path` at once: whoever watches it never sees half of it.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Diagnostic> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = path.with_file_name(format!(".{name}.new"));
    let written = fs::File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&beside); // it may not be there
        Diagnostic::new(path.display().to_string(), format!("cannot be written: {error}"))
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic::new(path.display().to_string(), format!("cannot be read: {error}"))
}
