//! What the service manager hears.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram as Datagram;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::*;
use crate::management::tests::managed;

/// The next thing that it hears.
async fn hear(manager: &tokio::net::UnixDatagram) -> String {
    let mut text = vec![0; 4_096];
    let len = manager.recv(&mut text).await.unwrap();
    text.truncate(len);
    String::from_utf8(text).unwrap()
}

fn listening(socket: Datagram) -> tokio::net::UnixDatagram {
    socket.set_nonblocking(true).unwrap();
    tokio::net::UnixDatagram::from_std(socket).unwrap()
}

#[tokio::test]
async fn it_is_told_at_a_path_and_at_an_abstract_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let name = format!("tidegate-test-{}", std::process::id());
    let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
    for (socket, address) in [
        (Datagram::bind(&path).unwrap(), path.clone().into_os_string()),
        (Datagram::bind_addr(&abstract_name).unwrap(), format!("@{name}").into()),
    ] {
        let manager = listening(socket);
        Service::at(&address, None).unwrap().stops();
        assert_eq!(hear(&manager).await, "STOPPING=1\nSTATUS=stops: what has come in is dealt with");
    }
}

#[tokio::test]
async fn the_watchdog_is_fed_when_the_sequencer_answers_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = listening(Datagram::bind(&path).unwrap());
    let service = Service::at(path.as_os_str(), Some(Duration::from_millis(3))).unwrap();
    let managed = managed(dir.path(), None);
    managed.status.streams.of("tank").rows.add(7);
    let (heartbeat, mut beats) = mpsc::channel(1);
    let running = tokio::spawn({
        let managed = Arc::clone(&managed);
        async move { service.run(&managed, heartbeat).await }
    });
    assert_eq!(hear(&manager).await, "READY=1\nSTATUS=7 rows in, 0 written, 0 wait for the cloud");
    for _ in 0..3 {
        let beat = beats.recv().await.unwrap();
        // It asks once and waits. Whatever it says meanwhile, it is not that the box is alive.
        while let Ok(text) = manager.try_recv(&mut [0; 4_096]) {
            assert!(text > "WATCHDOG=1".len(), "it was fed too early");
        }
        beat.send(()).unwrap();
        while hear(&manager).await != "WATCHDOG=1" {}
    }
    let beat = beats.recv().await.unwrap();
    // Whoever waits for room because the configuration says so does not hang.
    let held = managed.status.outputs.of("pump");
    let _held = held.held.one_more();
    while hear(&manager).await != "WATCHDOG=1" {}
    drop(beat);
    running.abort();
}
