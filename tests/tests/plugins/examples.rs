//! The examples, built by `wasm-plugins/build`, on their recorded rows.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{prepared, said, tidegate};

fn examples() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-plugins/examples")).unwrap()
}

/// Runs `tidegate plugin test` for the example `name`, and returns what is said.
fn tested(name: &str) -> String {
    let test = examples().join(name).join("test");
    let mut arguments: Vec<String> = ["plugin", "test", "--config"].into_iter().map(str::to_owned).collect();
    arguments.push(test.join("tidegate.toml").display().to_string());
    arguments.push("--expected".to_owned());
    arguments.push(test.join("expected.jsonl").display().to_string());
    for entry in fs::read_dir(&test).unwrap() {
        let path = entry.unwrap().path();
        let stream = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|extension| extension == "jsonl") && stream != "expected" {
            arguments.push(format!("--input={stream}={}", path.display()));
        }
    }
    let built = prepared().join("examples");
    arguments.push("--".to_owned());
    arguments.push(built.join(format!("{name}.wasm")).display().to_string());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = tidegate(&built, &arguments);
    let text = said(&output);
    assert!(output.status.success(), "{name}: {text}");
    assert!(text.contains("the same with other batches and with new instances"), "{name}: {text}");
    text
}

#[test]
#[ignore = "needs a compiler for plugins"]
fn each_example_does_what_it_should() {
    let mut names: Vec<String> = fs::read_dir(examples())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["anomaly", "kalman", "labels", "vibration"]);
    for name in names {
        let text = tested(&name);
        assert!(text.contains("expected.jsonl\n"), "{name}: {text}");
    }
}

fn lines(file: &Path) -> Vec<Value> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

type Matrix = [[f64; 2]; 2];

fn product(a: Matrix, b: Matrix) -> Matrix {
    let cell = |i: usize, j: usize| a[i][0] * b[0][j] + a[i][1] * b[1][j];
    [[cell(0, 0), cell(0, 1)], [cell(1, 0), cell(1, 1)]]
}

/// The filter as textbooks write it, in matrices: x = Fx, P = FPF' + Q; K = PH'/(HPH' + R), x += K(z - Hx),
/// P = (1 - KH)P.
#[test]
fn what_is_expected_of_the_kalman_filter_is_what_its_equations_say() {
    let (q, r) = (0.0001, 0.01);
    let test = examples().join("kalman/test");
    let mut filters: HashMap<String, (i64, [f64; 2], Matrix)> = HashMap::new();
    let mut reckoned = Vec::new();
    for line in lines(&test.join("level.jsonl")) {
        let (ts, device) = (line["ts"].as_i64().unwrap(), line["device"].as_str().unwrap());
        let Some(z) = line["metres"].as_f64() else { continue };
        let filter = match filters.get(device) {
            None => (ts, [z, 0.0], [[r, 0.0], [0.0, r]]),
            Some((before, x, p)) => {
                let dt = (ts - before) as f64 / 1e9;
                let f = [[1.0, dt], [0.0, 1.0]];
                let (cubed, squared) = (q * dt.powi(3) / 3.0, q * dt.powi(2) / 2.0);
                let noise = [[cubed, squared], [squared, q * dt]];
                let x = [x[0] + dt * x[1], x[1]];
                let mut p = product(product(f, *p), [[1.0, 0.0], [dt, 1.0]]);
                (0..4).for_each(|at| p[at / 2][at % 2] += noise[at / 2][at % 2]);
                let k = [p[0][0] / (p[0][0] + r), p[1][0] / (p[0][0] + r)];
                let off = z - x[0];
                let p = product([[1.0 - k[0], 0.0], [-k[1], 1.0]], p);
                (ts, [x[0] + k[0] * off, x[1] + k[1] * off], p)
            }
        };
        reckoned.push((device.to_owned(), filter.1));
        filters.insert(device.to_owned(), filter);
    }
    let expected = lines(&test.join("expected.jsonl"));
    assert_eq!(expected.len(), reckoned.len());
    for (line, (device, [value, rate])) in expected.iter().zip(reckoned) {
        let row = &line["row"];
        assert_eq!(row["device"], device.as_str());
        for (name, reckoned) in [("value", value), ("rate", rate)] {
            assert!((row[name].as_f64().unwrap() - reckoned).abs() < 1e-9, "{line}: {name} is {reckoned}");
        }
    }
}
