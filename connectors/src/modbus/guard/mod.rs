//! The guard: tokio-modbus writes requests and reads answers, and only whole answers that fit the outstanding
//! request reach it. On a bare line it takes late, doubled and echoed answers for those of the next request
//! (its issues 60 and 324).
//!
//! One request at a time. What an answer must look like follows from the request, and what does not look so
//! is never delivered. On TCP the transaction ids that were used are remembered, so that late answers are
//! skipped; whatever else does not fit ends the connection. On RTU nothing but unit, function, length and
//! checksum tells answers apart. So the line is drained before each request, and after a timeout nothing is
//! sent until it was silent for as long. A device that answers even later than that cannot be told from one
//! that answers in time; that is what `timeout` is for.

mod mailbox;
mod rtu;
mod tcp;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_modbus::client::{self, Client};
use tokio_modbus::slave::{Slave, SlaveContext};
use tokio_modbus::{Request, Response};

use super::fault::Fault;
use crate::status::LineStatus;
use mailbox::Mailbox;

/// Bytes that wait for being an answer; the longest frame has 260.
const HELD: usize = 4_096;

/// How frames are told apart.
#[derive(Debug)]
pub(super) enum Framing {
    Tcp(tcp::Transactions),
    Rtu(rtu::Wire),
}

impl Framing {
    /// `any_unit`: answers may carry unit 0 or 255; `first`: the first transaction id.
    pub(super) fn tcp(any_unit: bool, first: u16) -> Self {
        Self::Tcp(tcp::Transactions::new(any_unit, first))
    }

    /// `echo`: what is sent is heard; none: nobody knows yet.
    pub(super) fn rtu(echo: Option<bool>) -> Self {
        Self::Rtu(rtu::Wire::new(echo))
    }
}

/// How fast the line is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// before the first request
    pub(super) after_connect: Duration,
    /// from the last byte of an answer to the next request
    pub(super) between: Duration,
    /// what one byte takes; zero where nobody knows
    pub(super) byte: Duration,
}

/// A connection, and what must not be forgotten of it from one request to the next.
pub(super) struct Guard<T> {
    line: T,
    framing: Framing,
    pace: Pace,
    status: Arc<LineStatus>,
    client: Option<(client::Context, Mailbox)>,
    /// what has come and is no answer yet
    heard: Vec<u8>,
    /// when the next request may go out
    ready: Instant,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Guard<T> {
    /// A connection that was just made.
    pub(super) fn new(line: T, framing: Framing, pace: Pace, status: Arc<LineStatus>) -> Self {
        let ready = Instant::now() + pace.after_connect;
        Self { line, framing, pace, status, client: None, heard: Vec::new(), ready }
    }

    /// The transaction id that comes next, for the connection that follows this one.
    pub(super) fn next_transaction(&self) -> u16 {
        if let Framing::Tcp(transactions) = &self.framing { transactions.next() } else { 0 }
    }

    /// Waits until the line may be used. Not safe to cancel.
    pub(super) async fn rest(&mut self) -> Result<(), Fault> {
        if let Framing::Rtu(_) = self.framing {
            self.settle().await?;
        }
        // A timer rounds up to its next millisecond, also where there is nothing to wait for.
        if self.ready > Instant::now() {
            sleep_until(self.ready).await;
        }
        Ok(())
    }

    /// Sends a request and waits for its answer. Not safe to cancel.
    pub(super) async fn call(
        &mut self,
        unit: u8,
        request: Request<'_>,
        timeout: Duration,
    ) -> Result<Response, Fault> {
        let (mut client, mailbox) = self.client.take().unwrap_or_else(|| self.new_client());
        client.set_slave(Slave(unit));
        let asked = request.clone();
        let result = {
            let mut answer = client.call(request);
            // It writes the request at once, and then has nothing to read.
            if let Poll::Ready(result) = poll_once(&mut answer).await {
                let why =
                    result.err().map_or_else(|| "it has an answer already".into(), |error| error.to_string());
                return Err(Fault::Request(format!("this request cannot be sent: {why}")));
            }
            let answer_frame = self.exchange(unit, &mailbox.take_request(), timeout).await?;
            mailbox.deliver(answer_frame);
            match poll_once(&mut answer).await {
                Poll::Ready(result) => result.map_err(|error| Fault::Garbled(error.to_string()))?,
                Poll::Pending => return Err(Fault::Garbled("it ends too early".into())),
            }
        };
        self.client = Some((client, mailbox));
        let response = result.map_err(|exception| Fault::Exception(exception.into()))?;
        if !fits(&asked, &response) {
            return Err(Fault::Garbled("it is not what was asked for".into()));
        }
        Ok(response)
    }

    fn new_client(&self) -> (client::Context, Mailbox) {
        let mailbox = Mailbox::default();
        let client = match self.framing {
            Framing::Tcp(_) => client::tcp::attach(mailbox.clone()),
            Framing::Rtu(_) => client::rtu::attach(mailbox.clone()),
        };
        (client, mailbox)
    }

    /// Brings a frame to the device, and the frame that answers it back.
    async fn exchange(&mut self, unit: u8, request: &[u8], timeout: Duration) -> Result<Vec<u8>, Fault> {
        match self.framing {
            Framing::Tcp(_) => self.exchange_tcp(unit, request, timeout).await,
            Framing::Rtu(_) => self.exchange_rtu(unit, request, timeout).await,
        }
    }

    /// Sends a frame when the pauses are over, and what has come meanwhile is taken from the line.
    async fn send(&mut self, frame: &[u8], timeout: Duration) -> Result<(), Fault> {
        self.rest().await?;
        self.drain().await?;
        let sent = async {
            self.line.write_all(frame).await?;
            self.line.flush().await
        };
        match timeout_at(Instant::now() + timeout, sent).await {
            Ok(sent) => Ok(sent?),
            // A part of it may be on the way.
            Err(_) => Err(Fault::Io("the request could not be sent in time".into())),
        }
    }

    /// Waits for bytes. False: none came until then.
    async fn hear(&mut self, deadline: Instant) -> Result<bool, Fault> {
        match timeout_at(deadline, self.line.read_buf(&mut self.heard)).await {
            Err(_) => Ok(false),
            Ok(Ok(0)) => Err(Fault::Closed),
            Ok(Ok(_)) => {
                self.ready = Instant::now() + self.pace.between;
                Ok(true)
            }
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// Takes what has come unasked.
    async fn drain(&mut self) -> Result<(), Fault> {
        let mut chunk = [0; 1_024];
        loop {
            let mut buffer = ReadBuf::new(&mut chunk);
            match poll_fn(|context| Poll::Ready(Pin::new(&mut self.line).poll_read(context, &mut buffer)))
                .await
            {
                Poll::Pending => break,
                Poll::Ready(result) => result?,
            }
            if buffer.filled().is_empty() {
                return Err(Fault::ClosedBefore);
            }
            self.heard.extend_from_slice(buffer.filled());
            if self.heard.len() > HELD {
                self.heard.clear();
            }
        }
        let unasked = match &mut self.framing {
            Framing::Tcp(transactions) => transactions.discard(&mut self.heard),
            Framing::Rtu(_) => !std::mem::take(&mut self.heard).is_empty(),
        };
        if unasked {
            self.skipped();
        }
        Ok(())
    }

    /// Something was skipped that is no answer to what was asked.
    fn skipped(&self) {
        self.status.counter("strays").add(1);
        tracing::debug!("skipped what is no answer to the request");
    }
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// Whether an answer has the length, or repeats the content, of what was asked. The frames were compared
/// before; this is what tokio-modbus made of them.
fn fits(asked: &Request<'_>, answer: &Response) -> bool {
    match (asked, answer) {
        (Request::ReadCoils(_, count), Response::ReadCoils(bits))
        | (Request::ReadDiscreteInputs(_, count), Response::ReadDiscreteInputs(bits)) => {
            bits.len() == usize::from(*count).next_multiple_of(8)
        }
        (Request::ReadHoldingRegisters(_, count), Response::ReadHoldingRegisters(registers))
        | (Request::ReadInputRegisters(_, count), Response::ReadInputRegisters(registers))
        | (
            Request::ReadWriteMultipleRegisters(_, count, ..),
            Response::ReadWriteMultipleRegisters(registers),
        ) => registers.len() == usize::from(*count),
        (Request::WriteSingleCoil(at, on), Response::WriteSingleCoil(there, is_on)) => {
            at == there && on == is_on
        }
        (Request::WriteSingleRegister(at, word), Response::WriteSingleRegister(there, is)) => {
            at == there && word == is
        }
        (Request::WriteMultipleCoils(at, bits), Response::WriteMultipleCoils(there, count)) => {
            at == there && bits.len() == usize::from(*count)
        }
        (Request::WriteMultipleRegisters(at, words), Response::WriteMultipleRegisters(there, count)) => {
            at == there && words.len() == usize::from(*count)
        }
        (Request::MaskWriteRegister(at, and, or), Response::MaskWriteRegister(there, is_and, is_or)) => {
            at == there && and == is_and && or == is_or
        }
        (Request::ReadDeviceIdentification(..), Response::ReadDeviceIdentification(_)) => true,
        _ => false,
    }
}

fn unknown() -> Fault {
    Fault::Request("nobody knows what an answer to this function looks like".into())
}

#[cfg(test)]
mod tests;
