//! Which files of the directory are rules, and what is in them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_core::Diagnostic;
use tidegate_rules::wasm::pack;
use tidegate_rules::{Language, Source};

/// Files by the name of the rule that they are.
pub(super) type Listed = BTreeMap<Arc<str>, Vec<PathBuf>>;

/// The rule files of `dir`.
pub(super) fn list(dir: &Path) -> io::Result<Listed> {
    let paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(by_name(paths, |path| Language::from_path(path).is_some()))
}

/// Those of `paths` that have the ending of a rule.
pub(super) fn by_name(mut paths: Vec<PathBuf>, is_rule: impl Fn(&Path) -> bool) -> Listed {
    paths.sort();
    let mut files = Listed::new();
    for path in paths.into_iter().filter(|path| is_rule(path)) {
        if let Some(name) = visible_stem(&path) {
            files.entry(Arc::from(name)).or_default().push(path);
        }
    }
    files
}

/// Hidden files are not rules.
fn visible_stem(path: &Path) -> Option<&str> {
    path.file_stem().and_then(OsStr::to_str).filter(|name| !name.starts_with('.'))
}

/// What looks like rules in `dir`, and is not read: other spellings of the ending, and rules in folders.
#[must_use]
pub fn strays(dir: &Path) -> Vec<Diagnostic> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.iter().filter_map(|path| stray(path)).collect()
}

fn stray(path: &Path) -> Option<Diagnostic> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let is_rule = |path: &Path| rule_name(path).is_some();
    if name.starts_with('.') || is_rule(path) {
        return None;
    }
    let (what, help) = if touched_rule(path).is_some() && path.is_file() {
        if Language::ALL.iter().any(|language| path.with_extension(language.extension()).is_file()) {
            return None;
        }
        ("there is no plugin beside this manifest".to_owned(), "put it there, or delete the manifest")
    } else if path.is_dir() {
        let mut inside = fs::read_dir(path).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        inside.find(|path| is_rule(path))?;
        ("rules in folders are not read".to_owned(), "move them into the rules directory itself")
    } else {
        let meant = Path::new(name.strip_suffix(".txt").unwrap_or(&name));
        let ending = Language::from_path(meant)?.extension();
        let what =
            format!("this is not read as a rule: the names of rules end with `.{ending}`, in lower case");
        (what, "rename it")
    };
    Some(Diagnostic::new(path.display().to_string(), what).help(help.to_owned()).warning())
}

/// The rule that a change of the file at `path` may be a change of.
pub(super) fn touched_rule(path: &Path) -> Option<&str> {
    let of_manifest = || {
        let extension = path.extension()?;
        let has_such =
            |language: &Language| language.manifest_extension().is_some_and(|ending| extension == ending);
        Language::ALL.iter().find(|language| has_such(language)).and_then(|_| visible_stem(path))
    };
    rule_name(path).or_else(of_manifest)
}

pub(super) fn rule_name(path: &Path) -> Option<&str> {
    visible_stem(path).filter(|_| Language::from_path(path).is_some())
}

/// Several files would be the rule `name`.
pub(super) fn ambiguous(name: &str, paths: &[PathBuf]) -> Diagnostic {
    let names = paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(" and ");
    let file = paths.first().map_or_else(String::new, |path| path.display().to_string());
    Diagnostic::new(file, format!("{names} would both be the rule `{name}`"))
        .help("give one of them another name, or delete it".to_owned())
}

/// What tells a changed rule without reading it.
#[derive(PartialEq, Eq, Clone, Copy)]
pub(super) struct Stamp {
    file: FileStamp,
    manifest: Option<FileStamp>,
}

#[derive(PartialEq, Eq, Clone, Copy)]
struct FileStamp {
    inode: u64,
    len: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    /// Whether it is that of the same file with the same content, wherever it lies by now and whoever may
    /// read it.
    pub(super) fn is_of_same_file(&self, other: &Self) -> bool {
        let what = |stamp: &Self| (stamp.file.inode, stamp.file.len, stamp.file.mtime);
        what(self) == what(other)
    }
}

pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|meta| stamp_of(path, &meta))
}

fn stamp_of(path: &Path, meta: &fs::Metadata) -> Stamp {
    let manifest = manifest_path(path).and_then(|path| fs::metadata(path).ok());
    Stamp { file: file_stamp(meta), manifest: manifest.as_ref().map(file_stamp) }
}

fn file_stamp(meta: &fs::Metadata) -> FileStamp {
    FileStamp {
        inode: meta.ino(),
        len: meta.len(),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        ctime: (meta.ctime(), meta.ctime_nsec()),
    }
}

pub(super) fn read(path: &Path) -> Result<(Source, Stamp), Diagnostic> {
    let file = path.display().to_string();
    let cannot = |why: String| Diagnostic::new(file.clone(), why);
    let name = rule_name(path).unwrap_or_default();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return Err(cannot(format!("`{name}` cannot name a rule"))
            .help(Some("use letters, digits, `_` and `-` in the file's name".to_owned())));
    }
    let meta = fs::metadata(path).map_err(|error| cannot(format!("cannot read the rule: {error}")))?;
    // Reading a pipe or a device would wait for ever.
    if !meta.is_file() {
        return Err(cannot("the rule is no file".into())
            .help(Some("only files, and links to files, are rules".to_owned())));
    }
    let Some(language) = Language::from_path(path) else {
        return Err(cannot("its ending names no language of rules".into()));
    };
    let most = language.max_bytes();
    if meta.len() > most {
        return Err(cannot(format!("the rule is {} bytes long; more than {most} are not read", meta.len())));
    }
    // Before what it says: what is written meanwhile is read again.
    let stamp = stamp_of(path, &meta);
    let mut bytes = fs::read(path).map_err(|error| cannot(format!("cannot read the rule: {error}")))?;
    if let Some(manifest) = manifest_path(path).filter(|manifest| manifest.exists()) {
        bytes = pack(&bytes, &read_manifest(&manifest)?);
    }
    Ok((Source::new(language, bytes), stamp))
}

/// Where the manifest of the rule at `path` is, if rules of its language have one.
fn manifest_path(path: &Path) -> Option<PathBuf> {
    Some(path.with_extension(Language::from_path(path)?.manifest_extension()?))
}

/// Longer manifests are not read: nobody means them.
const LONGEST_MANIFEST: u64 = 1 << 20;

fn read_manifest(path: &Path) -> Result<String, Diagnostic> {
    let cannot = |why: String| {
        let what = format!("cannot read the plugin's manifest: {why}");
        Diagnostic::new(path.display().to_string(), what)
    };
    let meta = fs::metadata(path).map_err(|error| cannot(error.to_string()))?;
    if !meta.is_file() || meta.len() > LONGEST_MANIFEST {
        return Err(cannot(format!("it is no file of at most {LONGEST_MANIFEST} bytes")));
    }
    fs::read_to_string(path).map_err(|error| cannot(error.to_string()))
}

pub(super) fn unreadable(dir: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic::new(dir.display().to_string(), format!("the rules directory cannot be read: {error}"))
        .help(Some("create it, or set `dir` in [rules]".to_owned()))
}
