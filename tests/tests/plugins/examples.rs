//! The examples, built by `wasm-plugins/build`, on their recorded rows.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{prepared, said, tidegate};

fn examples() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-plugins/examples")).unwrap()
}

/// What the example `name` makes of its recorded rows: for each row that it writes, the line that led to it, and
/// the row.
fn results(name: &str) -> Vec<(u64, Value)> {
    let test = examples().join(name).join("test");
    let built = prepared().join("examples");
    let mut arguments = vec![
        "plugin".to_owned(),
        "test".to_owned(),
        built.join(format!("{name}.wasm")).display().to_string(),
        "--config".to_owned(),
        test.join("tidegate.toml").display().to_string(),
    ];
    for recording in recordings(&test) {
        let stream = recording.file_stem().unwrap().to_str().unwrap();
        arguments.push(format!("--input={stream}={}", recording.display()));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = tidegate(&built, &arguments);
    let text = said(&output);
    assert!(output.status.success(), "{name}: {text}");
    assert!(text.contains("the same with other batches and with new instances"), "{name}: {text}");
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let (_, number) = line["cause"].as_str().unwrap().rsplit_once(':').unwrap();
            (number.parse().unwrap(), line["row"].clone())
        })
        .collect()
}

fn recordings(test: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(test).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).collect()
}

fn assert_near(row: &Value, name: &str, expected: f64, tolerance: f64) {
    let found = row[name].as_f64().unwrap();
    assert!((found - expected).abs() < tolerance, "{row}: {name} should be {expected}");
}

#[test]
#[ignore = "needs a compiler for plugins"]
fn anomalies_are_as_far_from_the_mean_as_another_program_says() {
    // Reckoned in Python by the same recurrence.
    let expected = [(601, "1", 15.782_040_134_641_456), (702, "2", 35.461_240_320_507_1)];
    let found = results("anomaly");
    assert_eq!(found.len(), expected.len());
    for ((line, row), (expected_line, key, score)) in found.iter().zip(expected) {
        assert_eq!(
            (*line, row["key"].as_str(), row["value"].as_f64()),
            (expected_line, Some(key), Some(150.0))
        );
        assert_near(row, "score", score, 1e-9);
    }
}

#[test]
#[ignore = "needs a compiler for plugins"]
fn sines_vibrate_in_their_bands_and_blocks_have_no_gap() {
    // Device 1 vibrates at 40 Hz with amplitude 2, device 2 at 200 Hz with 0.5, and has lost its sample 100.
    let found = results("vibration");
    let of = |key: &str| found.iter().filter(|(_, row)| row["key"] == key).collect::<Vec<_>>();
    assert_eq!((of("1").len(), of("2").len()), (2, 1));
    for (key, rms, band) in [("1", 2.0_f64.sqrt(), "low"), ("2", 0.125_f64.sqrt(), "high")] {
        for (_, row) in of(key) {
            assert_near(row, "rms", rms, 1e-5);
            assert_near(row, band, rms, 1e-5);
            assert_near(row, "crest", 2.0_f64.sqrt(), 1e-5);
        }
    }
}

#[test]
#[ignore = "needs a compiler for plugins"]
fn labels_are_read_as_gs1_writes_them() {
    // The strings are put together by the General Specifications; both codes have good check digits.
    let expected: [(u64, &[(&str, &str)]); 5] = [
        (1, &[("gtin", "09506000134352"), ("expires", "2026-08-31"), ("lot", "AB-123"), ("serial", "12345")]),
        (2, &[("sscc", "106141412345678908")]),
        (3, &[("problem", "the check digit of (01) 09506000134353 is wrong")]),
        (5, &[("lot", "lot\u{e9}"), ("problem", "there is no identifier 99")]),
        (6, &[("expires", "1999-12-31")]),
    ];
    let found = results("labels");
    assert_eq!(found.len(), expected.len());
    for ((line, row), (expected_line, columns)) in found.iter().zip(expected) {
        assert_eq!(*line, expected_line);
        for name in ["gtin", "lot", "expires", "serial", "sscc", "problem"] {
            let expected = columns.iter().find(|(column, _)| *column == name).map(|(_, text)| *text);
            assert_eq!(row[name].as_str(), expected, "{row}: {name}");
        }
    }
}

type Matrix = [[f64; 2]; 2];

fn product(a: Matrix, b: Matrix) -> Matrix {
    let cell = |i: usize, j: usize| a[i][0] * b[0][j] + a[i][1] * b[1][j];
    [[cell(0, 0), cell(0, 1)], [cell(1, 0), cell(1, 1)]]
}

/// The filter as textbooks write it, in matrices: x = Fx, P = FPF' + Q; K = PH'/(HPH' + R), x += K(z - Hx),
/// P = (1 - KH)P.
#[test]
#[ignore = "needs a compiler for plugins"]
fn the_kalman_filter_does_what_its_equations_say() {
    let (q, r) = (0.0001, 0.01);
    let test = examples().join("kalman/test");
    let mut filters: HashMap<String, (i64, [f64; 2], Matrix)> = HashMap::new();
    let mut reckoned = Vec::new();
    let text = fs::read_to_string(test.join("level.jsonl")).unwrap();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
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
    let found = results("kalman");
    assert_eq!(found.len(), reckoned.len());
    for ((_, row), (device, [value, rate])) in found.iter().zip(reckoned) {
        assert_eq!(row["device"], device.as_str());
        assert_near(row, "value", value, 1e-9);
        assert_near(row, "rate", rate, 1e-9);
    }
}
