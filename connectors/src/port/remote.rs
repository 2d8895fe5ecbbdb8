//! A port of a serial server as tokio sees it: RFC 2217 over TCP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::rfc2217::Client;

/// Bytes that wait to be sent; then nothing more is taken, neither from the box nor, as it may have to be
/// answered, from the server.
const WAITING: usize = 16 << 10;

/// A port of a serial server.
#[derive(Debug)]
pub struct Remote {
    stream: TcpStream,
    client: Client,
    /// from the line, not read yet
    inbox: Vec<u8>,
    read: usize,
    /// for the server, not sent yet
    outbox: Vec<u8>,
    sent: usize,
    /// whoever waits for the server to take data again
    writer: Option<Waker>,
}

impl Remote {
    /// Agrees with the server on how the port is set.
    pub(super) async fn open(
        mut stream: TcpStream,
        mut client: Client,
        patience: Duration,
    ) -> Result<Self, String> {
        let agreeing = agree(&mut stream, &mut client);
        let inbox = match timeout(patience, agreeing).await {
            Ok(agreed) => agreed?,
            Err(_) => {
                let (open, because) = (client.unanswered(), client.unanswered_because());
                return Err(format!("the server does not answer {open}: {because}"));
            }
        };
        for remark in client.remarks() {
            tracing::warn!("{remark}");
        }
        Ok(Self { stream, client, inbox, read: 0, outbox: Vec::new(), sent: 0, writer: None })
    }

    /// Sends what waits for the server.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.outbox.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.outbox.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    fn has_room(&self) -> bool {
        self.outbox.len() < WAITING
    }
}

/// Returns what came from the line behind the last answer.
async fn agree(stream: &mut TcpStream, client: &mut Client) -> Result<Vec<u8>, String> {
    let (mut inbox, mut outbox) = (Vec::new(), Vec::new());
    client.begin(&mut outbox);
    let mut buffer = [0; 512];
    while !client.is_ready() {
        stream.write_all(&outbox).await.map_err(|error| error.to_string())?;
        outbox.clear();
        let count = match stream.read(&mut buffer).await {
            Ok(0) => return Err("the server has closed the connection: it may have another client".into()),
            Ok(count) => count,
            Err(error) => return Err(error.to_string()),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        client.take(bytes, &mut inbox, &mut outbox).map_err(|refusal| refusal.to_string())?;
    }
    stream.write_all(&outbox).await.map_err(|error| error.to_string())?;
    Ok(inbox)
}

impl AsyncRead for Remote {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Poll::Ready(Err(error)) = this.poll_send(context) {
                return Poll::Ready(Err(error));
            }
            let waiting = this.inbox.get(this.read..).unwrap_or_default();
            if !waiting.is_empty() {
                let taken = waiting.get(..buffer.remaining()).unwrap_or(waiting);
                buffer.put_slice(taken);
                this.read += taken.len();
                return Poll::Ready(Ok(()));
            }
            this.inbox.clear();
            this.read = 0;
            if !this.has_room() {
                // Sending has been asked to wake.
                return Poll::Pending;
            }
            let mut raw = [0; 4096];
            let mut raw = ReadBuf::new(&mut raw);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut raw))?;
            if raw.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let taken = this.client.take(raw.filled(), &mut this.inbox, &mut this.outbox);
            taken.map_err(|refusal| io::Error::other(refusal.to_string()))?;
            if !this.client.is_suspended()
                && let Some(writer) = this.writer.take()
            {
                writer.wake();
            }
        }
    }
}

impl AsyncWrite for Remote {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.client.is_suspended() {
            // Reading finds out when that is over.
            this.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        if !this.has_room() {
            ready!(this.poll_send(context))?;
        }
        let taken = bytes.get(..WAITING).unwrap_or(bytes);
        Client::escape(taken, &mut this.outbox);
        if let Poll::Ready(Err(error)) = this.poll_send(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}
