//! TCP connections, whatever is spoken on them: how they are made, and how one is found out whose far side has
//! lost its power.

use std::io;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};
use tokio::time::timeout;

use crate::table::Problem;

/// How long an address may take before the next one is tried beside it ("Connection Attempt Delay", RFC 8305
/// section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// After how long a device or server that does not answer TCP is given up.
const GIVE_UP: Duration = Duration::from_secs(30);

/// Connects to a device or a server on the network.
///
/// # Errors
/// In words for the user.
pub(crate) async fn connect(host: &str, port: u16, patience: Duration) -> Result<TcpStream, String> {
    dial((host, port), patience, GIVE_UP).await.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => silent(host),
        io::ErrorKind::ConnectionRefused => format!(
            "{host} does not take connections on port {port}: check the port; many devices take one \
            client at a time"
        ),
        _ => format!("{host}:{port}: {error}"),
    })
}

/// What is said of a host that does not answer.
pub(crate) fn silent(host: &str) -> String {
    format!("{host} does not answer: check host, port, cable and firewall")
}

/// Connects to whichever address answers first, within `patience`. The far side is given up when its TCP has
/// acknowledged nothing for `give_up`, neither data nor probes: TCP by itself takes a quarter of an hour for
/// the one (`tcp_retries2` in tcp(7)), and never asks for the other.
pub(crate) async fn dial(
    address: impl ToSocketAddrs,
    patience: Duration,
    give_up: Duration,
) -> io::Result<TcpStream> {
    let stream = timeout(patience, dial_any(address)).await.map_err(io::Error::from).flatten()?;
    // Messages are small, and wait for each other.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let second = Duration::from_secs(1);
    let probes = TcpKeepalive::new().with_time((give_up / 2).max(second)).with_retries(3);
    socket.set_tcp_keepalive(&probes.with_interval((give_up / 6).max(second)))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(give_up))?;
    Ok(stream)
}

async fn dial_any(address: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let mut addresses = lookup_host(address).await?;
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        match addresses.next() {
            Some(address) => attempts.push(TcpStream::connect(address)),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        match timeout(NEXT_ADDRESS, attempts.next()).await {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => failure = error,
            Ok(None) | Err(_) => {}
        }
    }
}

/// What is wrong with the key `host`.
pub(crate) fn host_problem(host: &str) -> Option<Problem> {
    let problem = |what: &str| Problem::new(&["host"], what);
    let bare = host.rsplit("//").next().unwrap_or(host);
    // An address of IPv6 has more colons, and no port behind them.
    if let Some((name, port)) = bare.split_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
        return Some(
            problem("`host` takes a name or an address, without the port")
                .help(format!("write `host = \"{name}\"` and `port = {port}`")),
        );
    }
    let wrong = host.is_empty() || host.contains("//") || host.contains(char::is_whitespace);
    wrong.then(|| problem(&format!("\"{host}\" is not a host name or address")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_address_that_answers_is_taken_and_watched() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Where localhost is ::1 first, nobody listens there.
        let give_up = Duration::from_secs(14);
        let address = format!("localhost:{}", server.local_addr().unwrap().port());
        let stream = dial(address, PATIENCE, give_up).await.unwrap();
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), give_up / 2);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(give_up));
    }

    #[tokio::test]
    async fn who_does_not_take_connections_is_named_at_once() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let error = dial(("127.0.0.1", port), PATIENCE, GIVE_UP).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let said = connect("127.0.0.1", port, PATIENCE).await.unwrap_err();
        assert!(said.contains(&format!("does not take connections on port {port}")), "{said}");
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for host in ["plc", "10.0.0.1", "fe80::1", "plc.example.org"] {
            assert_eq!(host_problem(host), None, "{host}");
        }
        for (host, words) in [
            ("plc:502", "`host = \"plc\"` and `port = 502`"),
            ("tcp://plc:502", "`host = \"plc\"` and `port = 502`"),
            ("", "is not a host name"),
            ("a b", "is not a host name"),
            ("http://plc/x", "is not a host name"),
        ] {
            let said = host_problem(host).unwrap().to_string();
            assert!(said.contains(words), "{host}: {said}");
        }
    }
}
