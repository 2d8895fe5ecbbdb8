//! Plugins as their authors make them: from nothing to one that runs, and what `tidegate plugin test` finds.
//!
//! They are built for WebAssembly, so `tests/plugins/prepare` has to have been there:
//!
//!     tests/plugins/prepare && cargo test --workspace --test plugins -- --ignored
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod examples;
mod languages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use tidegate_tests::box_under_test::binary;

/// What `tests/plugins/prepare` has made.
fn prepared() -> PathBuf {
    PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/tidegate/plugins")
}

/// A command that finds `tidegate`, and a compiler for plugins.
fn command(program: impl AsRef<std::ffi::OsStr>, dir: &Path) -> Command {
    let compiler = fs::read_to_string(prepared().join("compiler")).expect("run tests/plugins/prepare first");
    let mut paths = vec![binary().parent().unwrap().to_owned()];
    paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let mut command = Command::new(program);
    command.current_dir(dir).env("RUSTC", compiler.trim()).env("PATH", std::env::join_paths(paths).unwrap());
    // Plugins that differ share what they are built from.
    command.env("CARGO_TARGET_DIR", prepared().join("target"));
    command
}

fn tidegate(dir: &Path, arguments: &[&str]) -> Output {
    command(binary(), dir).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A project called `name`, in which `change` was made to the source.
fn project(name: &str, change: impl Fn(&str) -> String) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let made = tidegate(dir.path(), &["plugin", "new", name]);
    assert!(made.status.success(), "{}", said(&made));
    let project = dir.path().join(name);
    let source = project.join("src/lib.rs");
    let before = fs::read_to_string(&source).unwrap();
    let after = change(&before);
    assert_ne!(before, after, "the change was not made");
    fs::write(source, after).unwrap();
    (dir, project)
}

#[test]
#[ignore = "needs a compiler for plugins"]
fn from_nothing_to_a_plugin_in_the_rules_directory_as_the_documents_say() {
    let document =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plugins.md")).unwrap();
    let steps = document.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    fs::create_dir(&rules).unwrap();
    let steps = steps.replace("/etc/tidegate/rules", rules.to_str().unwrap());
    let done = command("sh", dir.path()).args(["-e", "-x", "-c", &steps]).output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    let text = said(&done);
    assert!(text.contains("8 rows, and 1 written\nas in ./test/expected.jsonl\n"), "{text}");
    assert!(text.contains("the same with other batches and with new instances"), "{text}");
    for file in ["overheat.wasm", "overheat.toml"] {
        assert!(rules.join(file).exists(), "{file}");
    }

    // Its parts, on this machine.
    let project = dir.path().join("overheat");
    let tests = command("cargo", &project).env_remove("RUSTC").args(["test", "--quiet"]).output().unwrap();
    assert!(tests.status.success(), "{}", said(&tests));

    // What is on the box stays there.
    fs::write(rules.join("overheat.toml"), "# the box's\n").unwrap();
    let again = tidegate(&project, &["plugin", "build", "--into", rules.to_str().unwrap()]);
    assert!(said(&again).contains("the manifest there stays as it is"), "{}", said(&again));
    assert_eq!(fs::read_to_string(rules.join("overheat.toml")).unwrap(), "# the box's\n");

    let inspected = tidegate(&project, &["plugin", "inspect", "overheat.wasm", "--format", "json"]);
    let facts: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(facts["contract"], "1.0.0");
    assert_eq!(facts["exports"], serde_json::json!(["config-schema", "configure", "on-batch", "on-timer"]));
}

#[test]
#[ignore = "needs a compiler for plugins"]
fn what_a_plugin_keeps_in_memory_is_found() {
    let (_dir, project) = project("forgetful", |source| {
        source
            .replace(
                "let high = state.entry(device);",
                "let _ = state;\n        let mut high = HIGH.lock().unwrap();",
            )
            .replace(
                "struct Rule {",
                "static HIGH: std::sync::Mutex<u32> = std::sync::Mutex::new(0);\n\nstruct Rule {",
            )
    });
    let tested = tidegate(&project, &["plugin", "test"]);
    let text = said(&tested);
    assert_eq!(tested.status.code(), Some(1), "{text}");
    assert!(text.contains("it keeps something in memory, which may be thrown away"), "{text}");
}

#[test]
#[ignore = "needs a compiler for plugins"]
fn what_depends_on_where_batches_were_cut_is_found() {
    let (_dir, project) = project("cut", |source| {
        let on_batch = "    fn on_batch(&self, batch: Batch<'_>, state: &mut Self::State, out: &mut Out) -> Result<()> {\n        \
            batch.rows().take(1).try_for_each(|row| self.on_row(row, state, out))\n    }\n\n    fn on_row(";
        source.replacen("    fn on_row(", on_batch, 1)
    });
    let tested = tidegate(&project, &["plugin", "test"]);
    let text = said(&tested);
    assert_eq!(tested.status.code(), Some(1), "{text}");
    assert!(text.contains("it depends on where rows were cut into batches"), "{text}");
}

#[test]
#[ignore = "needs a compiler for plugins"]
fn a_panic_costs_its_row_and_says_where_it_was() {
    let (_dir, project) = project("panicky", |source| {
        source.replacen(
            "let high = ",
            "assert!(value > 75.0, \"{value} is too cold\");\n        let high = ",
            1,
        )
    });
    let tested = tidegate(&project, &["plugin", "test"]);
    let text = said(&tested);
    assert!(text.contains("left out: 2 rows, the first since"), "{text}");
    assert!(text.contains("src/lib.rs:") && text.contains("70 is too cold"), "{text}");
    assert_eq!(tested.status.code(), Some(0), "{text}");
}

#[test]
#[ignore = "needs a compiler for plugins"]
fn what_the_compiler_says_is_shown() {
    let (_dir, project) =
        project("broken", |source| source.replacen("Ok(())\n    }\n}", "Ok(1)\n    }\n}", 1));
    let built = tidegate(&project, &["plugin", "build"]);
    let text = said(&built);
    assert_eq!(built.status.code(), Some(1), "{text}");
    assert!(text.contains("mismatched types") && text.contains("the plugin does not compile"), "{text}");
}
