//! The socket is for its owner and group, stands where no live box stands, and takes whatever comes.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::management::client::{AskError, Client};
use crate::management::command::status::Status;
use crate::management::tests::managed;
use crate::management::thread::ManagementThread;

fn open(dir: &Path) -> ManagementThread {
    ManagementThread::open(managed(dir, None), dir, mpsc::channel(1).0)
}

fn connect(dir: &Path) -> BufReader<StdStream> {
    BufReader::new(StdStream::connect(dir.join(NAME)).unwrap())
}

/// The next line, as JSON; none: it has ended.
fn reply(stream: &mut BufReader<StdStream>) -> Option<Value> {
    let mut line = String::new();
    (stream.read_line(&mut line).ok()? > 0).then(|| serde_json::from_str(&line).unwrap())
}

fn name_told(dir: &Path) -> String {
    Client::connect(dir).unwrap().ask(&Status {}, |()| true).unwrap().unwrap().about.name
}

#[test]
fn a_box_answers_its_owner_and_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let management = open(dir.path());
    assert_eq!(name_told(dir.path()), "box-7");
    let mode = fs::metadata(dir.path().join(NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    drop(management);
    assert!(!dir.path().join(NAME).exists());
    assert!(matches!(Client::connect(dir.path()), Err(AskError::NoBox(_))));
}

#[test]
fn a_socket_that_a_dead_box_left_is_replaced_and_that_of_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    drop(StdListener::bind(dir.path().join(NAME)).unwrap());
    let error = Client::connect(dir.path()).err().unwrap();
    assert!(matches!(error, AskError::Left(_)), "{error}");
    let first = open(dir.path());
    assert!(matches!(bind(dir.path()), Err(OpenError::Taken(_))));
    let second = open(dir.path());
    drop(second);
    assert_eq!(name_told(dir.path()), "box-7", "the second takes nothing with it");
    drop(first);
}

#[test]
fn a_directory_may_have_a_longer_path_than_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    let management = open(&deep);
    assert_eq!(name_told(&deep), "box-7");
    drop(management);
}

#[test]
fn garbage_is_refused_and_the_next_request_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let _office = open(dir.path());
    let mut stream = connect(dir.path());
    for garbage in [
        &b"hello\n"[..],
        b"\n",
        b"\xff\xfe\0\n",
        b"[1,2,3]\n",
        b"{\"v\":1}\n",
        b"{\"v\":1,\"op\":\"status\",\"x\":1}\n",
    ] {
        stream.get_mut().write_all(garbage).unwrap();
        let reply = reply(&mut stream).unwrap();
        assert_eq!((&reply["status"], &reply["code"]), (&json!("failed"), &json!("invalid")), "{reply}");
    }
    stream.get_mut().write_all(b"{\"v\":1,\"id\":\"a\\\"7\",\"op\":\"status\"}\n").unwrap();
    let reply = reply(&mut stream).unwrap();
    assert_eq!(
        (&reply["id"], &reply["status"], &reply["v"]),
        (&json!("a\"7"), &json!("successful"), &json!(1))
    );
}

#[test]
fn a_line_without_end_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let _office = open(dir.path());
    let mut stream = connect(dir.path());
    // The box does not read on after that, and lets go: the rest may fail.
    let part = vec![b'x'; 1 << 16];
    for _ in 0..(2 * MAX_REQUEST) >> 16 {
        if stream.get_mut().write_all(&part).is_err() {
            break;
        }
    }
    // What was not read is lost with the connection, and may take the answer with it.
    if let Some(reply) = reply(&mut stream) {
        assert_eq!(reply["code"], json!("invalid"));
    }
    assert_eq!(name_told(dir.path()), "box-7");
}

#[test]
fn whoever_leaves_in_the_middle_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let _office = open(dir.path());
    for n in 0..1_000 {
        let mut stream = connect(dir.path());
        // Some say half of something, some ask and do not wait.
        let said: &[u8] = if n % 2 == 0 {
            b"{\"v\":1,\"op\":"
        } else {
            b"{\"v\":1,\"op\":\"tail\",\"args\":{\"name\":\"tank\"}}\n"
        };
        drop(stream.get_mut().write_all(said));
    }
    // Seats become free as soon as the box has seen that nobody is there.
    loop {
        match Client::connect(dir.path()).unwrap().ask(&Status {}, |()| true) {
            Ok(report) => break assert_eq!(report.unwrap().about.name, "box-7"),
            Err(AskError::Refused(Refusal { code: Code::Busy, .. }) | AskError::Io { .. }) => {
                std::thread::yield_now()
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn too_many_are_told_that_the_box_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let _office = open(dir.path());
    // Each has been answered, so that it has its seat.
    let seated: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut stream = connect(dir.path());
            stream.get_mut().write_all(b"{\"v\":1,\"op\":\"status\"}\n").unwrap();
            reply(&mut stream).unwrap();
            stream
        })
        .collect();
    let mut late = connect(dir.path());
    let refused = reply(&mut late).unwrap();
    assert_eq!((&refused["status"], &refused["code"]), (&json!("failed"), &json!("busy")));
    let mut rest = Vec::new();
    assert_eq!(late.read_to_end(&mut rest).unwrap_or(0), 0);
    drop(seated);
}

#[test]
fn whoever_listens_and_does_not_read_holds_up_neither_rows_nor_the_end() {
    use arrow::array::{Int64Array, RecordBatch};
    use std::sync::Arc;
    use tidegate_core::{Rows, Seqs};

    let dir = tempfile::tempdir().unwrap();
    let managed = managed(dir.path(), None);
    let management = ManagementThread::open(Arc::clone(&managed), dir.path(), mpsc::channel(1).0);
    let mut stream = connect(dir.path());
    stream.get_mut().write_all(b"{\"v\":1,\"op\":\"tail\",\"args\":{\"name\":\"tank\"}}\n").unwrap();
    let tank = managed.status.streams.of("tank");
    let batch =
        RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from_iter_values(0..1_000)) as _)]).unwrap();
    let pass = |first| tank.note(&Rows { batch: batch.clone(), seqs: Seqs::Run { first } }, 0);
    // It listens once the first row has come through.
    stream.get_ref().set_nonblocking(true).unwrap();
    loop {
        pass(0);
        if stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
            break;
        }
    }
    (1..1_000).for_each(|n| pass(n * 1_000));
    drop(management);
    stream.get_ref().set_nonblocking(false).unwrap();
    let mut last = None;
    while let Some(row) = reply(&mut stream) {
        last = Some(row);
    }
    assert!(last.is_some());
}
