//! What is in a plugin.

use tidegate_core::Diagnostic;
use tidegate_rules::sha256;
use wasmparser::{BinaryReaderError, Encoding, Parser, Payload};

use super::file::PluginFile;

/// The contract for plugins, in all its versions.
const CONTRACT: &str = "tidegate:rule/";

/// What is in a plugin, for people and programs.
#[derive(Debug, serde::Serialize)]
pub struct Facts {
    /// without the manifest
    pub bytes: usize,
    /// of the component alone
    pub sha256: String,
    /// the version of the contract that it was built for; `None`: it asks the box for nothing
    pub contract: Option<String>,
    /// what it asks the box for
    pub imports: Vec<String>,
    /// what the box can ask it for
    pub exports: Vec<String>,
    /// whether its manifest has a signature, good or not
    pub signed: bool,
    /// the JSON Schema of its configuration; `None`: it has none, or cannot be asked
    pub config_schema: Option<serde_json::Value>,
    /// the text of its manifest
    pub manifest: Option<String>,
}

/// Looks into `plugin`.
///
/// # Errors
/// When it is no component.
pub fn facts(plugin: &PluginFile) -> Result<Facts, Diagnostic> {
    let (imports, exports) = borders(&plugin.component).map_err(|error| {
        let help = "build it with `tidegate plugin build`".to_owned();
        Diagnostic::new(
            plugin.path.display().to_string(),
            format!("this is no component of WebAssembly: {error}"),
        )
        .help(help)
    })?;
    let version = |name: &String| Some(name.strip_prefix(CONTRACT)?.split_once('@')?.1.to_owned());
    let schema = tidegate_rules::wasm::config_schema(&plugin.component).ok();
    let manifest: Option<toml::Table> = plugin.manifest.as_deref().and_then(|text| text.parse().ok());
    Ok(Facts {
        bytes: plugin.component.len(),
        sha256: sha256(&plugin.component).to_string(),
        contract: imports.iter().find_map(version),
        imports,
        exports,
        signed: manifest.is_some_and(|manifest| manifest.contains_key("signature")),
        config_schema: schema.and_then(|text| serde_json::from_str(&text).ok()),
        manifest: plugin.manifest.clone(),
    })
}

/// The names of what a component imports and exports.
fn borders(component: &[u8]) -> Result<(Vec<String>, Vec<String>), String> {
    let broken = |error: BinaryReaderError| error.to_string();
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(broken)? {
            Payload::Version { encoding, .. } if depth == 0 && encoding != Encoding::Component => {
                return Err("it is a core module".to_owned());
            }
            // What is inside of it has borders of its own.
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(broken)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(broken)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn what_is_no_component_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wasm");
        // A core module: the binary format's version 1 without a layer.
        for bytes in [b"\0asm\x01\0\0\0".as_slice(), b"", b"SELECT 1", b"\0asm\x0d\0\x01\0\x07"] {
            fs::write(&path, bytes).unwrap();
            let error = facts(&PluginFile::read(&path).unwrap()).unwrap_err();
            assert!(error.message.starts_with("this is no component of WebAssembly"), "{bytes:?}: {error}");
        }
        fs::write(&path, b"\0asm\x0d\0\x01\0").unwrap();
        let facts = facts(&PluginFile::read(&path).unwrap()).unwrap();
        assert_eq!((facts.bytes, facts.contract, facts.signed), (8, None, false));
    }
}
