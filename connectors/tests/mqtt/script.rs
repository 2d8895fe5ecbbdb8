//! A broker that says what a test tells it to say, byte by byte: what real ones do on a bad day.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::peer::PATIENCE;

/// CONNACK without session and limits (MQTT 3.1.1, section 3.2; MQTT 5.0, section 3.2).
pub(crate) fn welcome(version: &str) -> &'static [u8] {
    if version == "5" { b"\x20\x03\x00\x00\x00" } else { b"\x20\x02\x00\x00" }
}

/// CONNACK of a session that goes on.
pub(crate) fn welcome_back(version: &str) -> &'static [u8] {
    if version == "5" { b"\x20\x03\x01\x00\x00" } else { b"\x20\x02\x01\x00" }
}

/// PUBLISH with QoS 1, and no flags, of the topic `plant/p/n`.
pub(crate) fn message(version: &str, packet_id: u16, payload: &str) -> Vec<u8> {
    let properties: &[u8] = if version == "5" { &[0] } else { &[] };
    let body = [b"\x00\x09plant/p/n", &packet_id.to_be_bytes()[..], properties, payload.as_bytes()].concat();
    [&[0x32, u8::try_from(body.len()).unwrap()][..], &body].concat()
}

pub(crate) struct Script(TcpListener);

impl Script {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind(("127.0.0.1", 0)).await.unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// The next connection, after its CONNECT.
    pub(crate) async fn connection(&self) -> Connection {
        let (socket, _) = timeout(PATIENCE, self.0.accept()).await.expect("it connects").unwrap();
        let mut connection = Connection(socket);
        assert_eq!(connection.packet().await.0, 0x10, "CONNECT comes first");
        connection
    }
}

pub(crate) struct Connection(TcpStream);

impl Connection {
    /// The next packet: its first byte, and what follows the length.
    pub(crate) async fn packet(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let first = self.0.read_u8().await.unwrap();
            let (mut length, mut shift) = (0, 0);
            loop {
                let byte = self.0.read_u8().await.unwrap();
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.unwrap();
            (first, body)
        };
        timeout(PATIENCE, read).await.expect("the box says something")
    }

    /// The next packet that begins with `first`.
    pub(crate) async fn packet_of(&mut self, first: u8) -> Vec<u8> {
        loop {
            let (found, body) = self.packet().await;
            if found == first {
                return body;
            }
        }
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Waits for SUBSCRIBE and answers with these codes.
    pub(crate) async fn subscribed(&mut self, version: &str, codes: &[u8]) {
        let asked = self.packet_of(0x82).await;
        let properties: &[u8] = if version == "5" { &[0] } else { &[] };
        let body = [&asked[..2], properties, codes].concat();
        self.say(&[&[0x90, u8::try_from(body.len()).unwrap()][..], &body].concat()).await;
    }
}
