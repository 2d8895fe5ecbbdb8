//! The line as tokio-modbus sees it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Takes the client's request, and gives it the one answer that the guard delivers. Nobody is woken: the
/// guard looks after the client itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Mailbox(Arc<Mutex<Letters>>);

#[derive(Debug, Default)]
struct Letters {
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Mailbox {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_request(&self) -> Vec<u8> {
        std::mem::take(&mut self.letters().request)
    }

    pub(super) fn deliver(&self, answer: Vec<u8>) {
        self.letters().answer = answer;
    }
}

impl AsyncRead for Mailbox {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut letters = self.letters();
        let count = letters.answer.len().min(buffer.remaining());
        if count == 0 {
            return Poll::Pending;
        }
        buffer.put_slice(&letters.answer.drain(..count).collect::<Vec<u8>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Mailbox {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.letters().request.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
