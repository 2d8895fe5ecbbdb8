//! What `docs/management.md` has people type makes commands that a box does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod site;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use site::{Site, at};
use tidegate_trust::envelope::Kind;
use tidegate_trust::freshness::Clock;
use tidegate_trust::gate::Admission;
use tidegate_trust::key_set::KeySet;
use tidegate_trust::op::Op;
use tidegate_trust::role::Role;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn section() -> String {
    let text = fs::read_to_string(root().join("docs/management.md")).unwrap();
    text.split("\n## ").find(|section| section.starts_with("Signed commands")).unwrap().to_owned()
}

/// Stands for the broker: keeps what was published, and where.
const MOSQUITTO_PUB: &str = "#!/bin/sh\necho \"$@\" > published.options\ncat > published\n";

fn run(dir: &Path, script: &str) {
    let pub_path = dir.join("mosquitto_pub");
    fs::write(&pub_path, MOSQUITTO_PUB).unwrap();
    fs::set_permissions(&pub_path, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", script]).current_dir(dir).env("PATH", path).stdin(Stdio::null());
    let output = bash.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The box takes the key set and the command that were made in `dir`.
fn admitted(dir: &Path) -> Admission {
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let (set, fingerprint) = KeySet::first(read("keys.signed.json").as_slice().trim_ascii()).unwrap();
    assert_eq!(fingerprint.0, tidegate_trust::Digest::sha256(&read("keys.json")));
    let envelope: Value = serde_json::from_slice(&read("published")).unwrap();
    assert_eq!(envelope["payloadType"], Kind::Command.payload_type());
    let payload: Value =
        serde_json::from_slice(&STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap()).unwrap();
    let mut site = Site::default();
    site.trust.keys = Some(set);
    site.clock = Clock::Synchronised(at(payload["issued"].as_str().unwrap()));
    let options = String::from_utf8(read("published.options")).unwrap();
    let topic = options.split_whitespace().find(|word| word.starts_with("tidegate/")).unwrap().to_owned();
    assert!(options.split_whitespace().any(|word| word == "-r"), "retained: {options}");
    site.admit_at(&topic, &read("published")).unwrap()
}

#[test]
fn what_people_type_is_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let section = section();
    let blocks: Vec<&str> =
        section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 4, "keys, key set, envelope, command");
    run(dir.path(), &blocks.concat());
    let Admission::New(admitted) = admitted(dir.path()) else { unreachable!("nothing is remembered") };
    assert_eq!((admitted.command.op, admitted.signers[0].id.as_str()), (Op::RulesDisable, "otto"));
}

#[test]
fn a_program_in_python_makes_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let section = section();
    let keys: Vec<&str> = section.split("```sh\n").skip(1).take(3).collect();
    let made: String = keys.iter().map(|block| block.split("```").next().unwrap()).collect();
    let script = root().join("trust/tests/sign_command.py");
    let publish = "mosquitto_pub -q 1 -r -t tidegate/v1/press-12/cmd/rules.remove/from-python-1 -s";
    run(dir.path(), &format!("{made}\n{} from-python-1 < dora.pem | {publish}", script.display()));
    let Admission::New(admitted) = admitted(dir.path()) else { unreachable!("nothing is remembered") };
    assert_eq!((admitted.command.op, admitted.signers[0].id.as_str()), (Op::RulesRemove, "dora"));
}

#[test]
fn every_role_code_and_live_operation_is_there() {
    let section = section();
    for role in [Role::Viewer, Role::Operator, Role::Deployer, Role::Engineer, Role::Security] {
        assert!(section.contains(&format!("| `{}` |", role.name())), "{}", role.name());
    }
    use tidegate_trust::Code::{
        BadSignature, Expired, Forbidden, IdReused, Invalid, NotFresh, Replayed, UnknownKey, Unsigned,
        WrongBox,
    };
    for code in [
        Unsigned,
        BadSignature,
        UnknownKey,
        Forbidden,
        WrongBox,
        Invalid,
        Replayed,
        Expired,
        NotFresh,
        IdReused,
    ] {
        let name = serde_json::to_value(code).unwrap();
        assert!(section.contains(&format!("| `{}` |", name.as_str().unwrap())), "{name}");
    }
    let nonce = section.lines().find(|line| line.starts_with("| `nonce` |")).unwrap();
    for op in Op::ALL {
        let is_live = op.terms().timing == tidegate_trust::op::Timing::Live;
        assert_eq!(nonce.contains(&format!("`{op}`")), is_live, "{op}");
    }
}
