//! Dependencies point one way: `core <- rules <- engine` and `core <- connectors <- engine`.

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::root;

/// A crate of the workspace, and what its manifest names.
#[derive(Debug, Default)]
struct Crate {
    name: String,
    /// what it is built on
    dependencies: Vec<String>,
    /// what only its tests use
    dev_dependencies: Vec<String>,
}

/// The crates whose lints allow unsafe code; Cargo inherits all of a table or nothing.
const UNSAFE_CRATES: &[&str] = &["tidegate-code-memory", "tidegate-vfs"];

/// Lints, but for those that are about unsafe code.
fn without_unsafe_code(lints: &toml::Value) -> toml::Value {
    let mut lints = lints.clone();
    for group in ["rust", "clippy"] {
        lints[group].as_table_mut().unwrap().retain(|name, _| !name.contains("unsafe"));
    }
    lints
}

/// What one crate of the workspace may be built on.
struct Boundary {
    name: &'static str,
    /// the other crates of the workspace that it may name, for its tests too
    may_use: &'static [&'static str],
    /// Crates that it must not be built on; a final `*` stands for any ending.
    must_not_use: &'static [&'static str],
}

const BOUNDARIES: &[Boundary] = &[
    // The words that all share have no runtime, no I/O and no SQL in them.
    Boundary {
        name: "tidegate-core",
        may_use: &[],
        must_not_use: &[
            "tokio*",
            "futures*",
            "mio",
            "rumqttc*",
            "mqtt*",
            "rustls*",
            "rusqlite",
            "notify*",
            "datafusion*",
            "sqlparser",
        ],
    },
    // A rule is a function of its rows: no runtime, files, network, clock or dice. The facade `datafusion`
    // brings all of them. `chrono` is there for calendars and time zones, as Arrow uses it; that nobody reads
    // its clock is looked for in the sources.
    Boundary {
        name: "tidegate-rules",
        may_use: &["tidegate-core", "tidegate-code-memory"],
        must_not_use: &[
            "tokio*",
            "futures*",
            "async-*",
            "mio",
            "rumqttc*",
            "mqtt*",
            "rustls*",
            "rusqlite",
            "notify*",
            "tempfile",
            "fs4",
            "jiff",
            "time",
            "rand*",
            "getrandom",
            "datafusion",
        ],
    },
    // A protocol neither waits for DataFusion to compile nor knows what becomes of its rows.
    Boundary {
        name: "tidegate-connectors",
        may_use: &["tidegate-core", "tidegate-peers"],
        must_not_use: &["tidegate-peers", "datafusion*", "sqlparser", "rusqlite", "notify*"],
    },
    // Whom a box believes is decided by bytes, time and randomness that are handed in.
    Boundary {
        name: "tidegate-trust",
        may_use: &[],
        must_not_use: &[
            "tokio*",
            "futures*",
            "mio",
            "rumqttc*",
            "mqtt*",
            "rustls*",
            "rusqlite",
            "notify*",
            "tempfile",
            "rand*",
            "getrandom",
            "arrow",
            "datafusion*",
        ],
    },
    // DataFusion stays behind the rules crate.
    Boundary {
        name: "tidegate",
        may_use: &["tidegate-core", "tidegate-connectors", "tidegate-rules", "tidegate-trust"],
        must_not_use: &["datafusion*", "sqlparser"],
    },
    Boundary {
        name: "tidegate-tests",
        may_use: &[
            "tidegate-core",
            "tidegate-connectors",
            "tidegate-rules",
            "tidegate-trust",
            "tidegate",
            "tidegate-peers",
        ],
        must_not_use: &["datafusion*"],
    },
    // The simulation is the engine in another world; what it knows of SQLite it has from there.
    Boundary {
        name: "tidegate-sim",
        may_use: &["tidegate", "tidegate-connectors", "tidegate-core", "tidegate-rules", "tidegate-vfs"],
        must_not_use: &["rumqttc*", "mqtt*", "datafusion*", "sqlparser", "rand*", "getrandom"],
    },
    // Unsafe code, and therefore small: memory for code of plugins, and nothing of what a plugin is.
    Boundary {
        name: "tidegate-code-memory",
        may_use: &[],
        must_not_use: &["tokio*", "futures*", "arrow", "datafusion*"],
    },
    // The other unsafe code: SQLite's table of functions, and nothing of what is behind it.
    Boundary {
        name: "tidegate-vfs",
        may_use: &[],
        must_not_use: &["tokio*", "futures*", "arrow", "datafusion*"],
    },
    // Peers know nothing of Tidegate.
    Boundary { name: "tidegate-peers", may_use: &[], must_not_use: &["rumqttc*", "mqtt*", "datafusion*"] },
];

/// Everything that is wrong with the graph.
fn violations(crates: &[Crate]) -> Vec<String> {
    let is_member = |name: &str| crates.iter().any(|member| member.name == name);
    let mut wrong = Vec::new();
    for member in crates {
        let name = &member.name;
        let Some(boundary) = BOUNDARIES.iter().find(|boundary| boundary.name == name) else {
            wrong.push(format!("{name} is not in BOUNDARIES: write down what it may be built on"));
            continue;
        };
        for dependency in member
            .dependencies
            .iter()
            .chain(&member.dev_dependencies)
            .filter(|dependency| is_member(dependency))
        {
            if !boundary.may_use.contains(&dependency.as_str()) {
                wrong.push(format!(
                    "{name} must not depend on {dependency}: dependencies point the other way"
                ));
            }
        }
        for dependency in &member.dependencies {
            if let Some(pattern) = boundary.must_not_use.iter().find(|pattern| matches(pattern, dependency)) {
                wrong.push(format!("{name} must not be built on {dependency} (`{pattern}`)"));
            }
        }
    }
    wrong
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

fn workspace() -> Vec<Package> {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    metadata.workspace_packages().into_iter().cloned().collect()
}

fn of_package(package: &Package) -> Crate {
    let named = |dev: bool| {
        let of_kind = package
            .dependencies
            .iter()
            .filter(move |dependency| (dependency.kind == DependencyKind::Development) == dev);
        of_kind.map(|dependency| dependency.name.clone()).collect()
    };
    Crate { name: package.name.to_string(), dependencies: named(false), dev_dependencies: named(true) }
}

#[test]
fn dependencies_point_one_way() {
    let crates: Vec<Crate> = workspace().iter().map(of_package).collect();
    assert!(
        crates.iter().any(|member| member.dependencies.iter().any(|name| name == "tidegate-core")),
        "the graph was not read: {crates:?}"
    );
    assert_eq!(violations(&crates), Vec::<String>::new());
}

#[test]
fn every_boundary_is_that_of_a_crate() {
    let names: Vec<String> = workspace().iter().map(|package| package.name.to_string()).collect();
    let gone: Vec<&str> = BOUNDARIES
        .iter()
        .map(|boundary| boundary.name)
        .filter(|name| !names.iter().any(|n| n == name))
        .collect();
    assert!(gone.is_empty(), "BOUNDARIES speaks of crates that are not there: {gone:?}");
}

#[test]
fn every_crate_obeys_the_lints_and_names_the_licence_of_the_workspace() {
    let workspace_manifest: toml::Table =
        std::fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let workspace_lints = workspace_manifest["workspace"]["lints"].clone();
    for package in workspace() {
        let manifest: toml::Table = std::fs::read_to_string(&package.manifest_path).unwrap().parse().unwrap();
        let inherits = |table: &str, key: Option<&str>| {
            let value = manifest.get(table).and_then(|value| key.map_or(Some(value), |key| value.get(key)));
            value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
        };
        if UNSAFE_CRATES.contains(&package.name.as_str()) {
            assert_eq!(
                without_unsafe_code(&manifest["lints"]),
                without_unsafe_code(&workspace_lints),
                "{}",
                package.manifest_path
            );
        } else {
            assert!(inherits("lints", None), "{} lacks `[lints] workspace = true`", package.manifest_path);
        }
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            assert!(
                inherits("package", Some(key)),
                "{} lacks `{key}.workspace = true`",
                package.manifest_path
            );
        }
        assert_eq!(package.license.as_deref(), Some("Apache-2.0"), "{}", package.manifest_path);
    }
}

/// A graph as it should be.
fn good() -> Vec<Crate> {
    let member = |name: &str, dependencies: &[&str], dev: &[&str]| Crate {
        name: name.to_owned(),
        dependencies: dependencies.iter().map(ToString::to_string).collect(),
        dev_dependencies: dev.iter().map(ToString::to_string).collect(),
    };
    vec![
        member("tidegate-core", &["arrow", "serde"], &["proptest"]),
        member("tidegate-rules", &["tidegate-core", "datafusion-sql"], &["datafusion", "tokio"]),
        member("tidegate-connectors", &["tidegate-core", "tokio", "rumqttc-v5-next"], &[]),
        member("tidegate", &["tidegate-core", "tidegate-connectors", "tidegate-rules", "rusqlite"], &[]),
    ]
}

/// What is wrong with the good graph once crate `name` depends on `on` too.
fn with(name: &str, on: &str) -> Vec<String> {
    let mut crates = good();
    crates.iter_mut().find(|member| member.name == name).unwrap().dependencies.push(on.to_owned());
    violations(&crates)
}

#[test]
fn a_made_up_graph_that_is_right_passes() {
    assert_eq!(violations(&good()), Vec::<String>::new());
}

#[test]
fn a_dependency_that_points_the_wrong_way_is_found() {
    for (name, on) in [
        ("tidegate-core", "tidegate-rules"),
        ("tidegate-rules", "tidegate"),
        ("tidegate-rules", "tidegate-connectors"),
        ("tidegate-connectors", "tidegate-rules"),
    ] {
        assert_eq!(
            with(name, on),
            [format!("{name} must not depend on {on}: dependencies point the other way")]
        );
    }
    let mut crates = good();
    crates[0].dev_dependencies.push("tidegate-connectors".to_owned());
    assert_eq!(violations(&crates).len(), 1, "for tests neither");
}

#[test]
fn what_brings_the_outside_world_is_found() {
    for (name, on) in [
        ("tidegate-rules", "tokio-util"),
        ("tidegate-rules", "rusqlite"),
        ("tidegate-rules", "datafusion"),
        ("tidegate-core", "datafusion-sql"),
        ("tidegate-connectors", "datafusion-common"),
        ("tidegate", "datafusion-physical-expr"),
    ] {
        assert!(
            with(name, on)[0].starts_with(&format!("{name} must not be built on {on} ")),
            "{name} on {on}"
        );
    }
}

#[test]
fn a_crate_that_nobody_has_thought_about_is_found() {
    let mut crates = good();
    crates.push(Crate { name: "tidegate-utils".to_owned(), ..Crate::default() });
    assert_eq!(
        violations(&crates),
        ["tidegate-utils is not in BOUNDARIES: write down what it may be built on"]
    );
}
