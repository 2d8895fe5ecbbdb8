//! How the socket to a broker is opened.

use std::io;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::client::CONNECT_TIMEOUT;

/// How long an address may take before the next one is tried beside it ("Connection Attempt Delay", RFC 8305
/// section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// How long a host may take to answer: what is left of [`CONNECT_TIMEOUT`] is the broker's, so that it is
/// known who was silent.
const HOST_TIMEOUT: Duration = Duration::from_secs(CONNECT_TIMEOUT.as_secs() * 2 / 3);

/// Connects to `host:port`, by whichever of its addresses answers first. What was sent and is not
/// acknowledged by the far side's TCP for `patience` ends the connection.
///
/// Pings do not find every line that went silent: a line that is written to needs none, and what cannot be
/// written stops the client before its next ping. Then only TCP can tell, which by itself takes a quarter of
/// an hour (`tcp_retries2` in tcp(7)).
pub(super) async fn dial(host: String, patience: Duration) -> io::Result<TcpStream> {
    let silent = || {
        io::Error::new(
            io::ErrorKind::HostUnreachable,
            format!("{host} does not answer: check host, port, cable and firewall"),
        )
    };
    timeout(HOST_TIMEOUT, dial_any(&host, patience)).await.unwrap_or_else(|_| Err(silent()))
}

async fn dial_any(host: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut addresses = lookup_host(host).await?;
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    loop {
        match addresses.next() {
            Some(address) => attempts.push(TcpStream::connect(address)),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        match timeout(NEXT_ADDRESS, attempts.next()).await {
            Ok(Some(Ok(stream))) => return prepared(stream, patience),
            Ok(Some(Err(error))) => failure = error,
            Ok(None) | Err(_) => {}
        }
    }
}

fn prepared(stream: TcpStream, patience: Duration) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(patience))?;
    #[cfg(not(target_os = "linux"))]
    let _ = patience;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(7);

    #[tokio::test]
    async fn the_address_that_answers_is_taken_and_watched() {
        let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Where localhost is ::1 first, nobody listens there.
        let stream =
            dial(format!("localhost:{}", broker.local_addr().unwrap().port()), PATIENCE).await.unwrap();
        assert!(stream.nodelay().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket2::SockRef::from(&stream).tcp_user_timeout().unwrap(), Some(PATIENCE));
    }

    #[tokio::test]
    async fn a_broker_that_is_not_there_is_an_error_at_once() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let error = dial(format!("127.0.0.1:{port}"), PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
