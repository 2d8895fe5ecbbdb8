//! CBOR (RFC 8949).
//!
//! A number with tag 1 is a time (section 3.4.2) and becomes RFC 3339 text, as a text with tag 0 is one;
//! other tags say nothing about the value that a column could keep, and are passed over.

use ciborium_ll::{Decoder, Header, simple};

use super::tokens::{Fault, Token, Tokens};
use super::write_rfc3339;

/// Time in seconds since 1970.
const EPOCH_TIME: u64 = 1;
const NS: i64 = 1_000_000_000;
/// Bytes of a text that are read at a time.
const PIECE: usize = 256;

pub(super) struct Cbor<'p> {
    decoder: Decoder<&'p [u8]>,
    size: usize,
    /// the text or the bytes that were read last
    scratch: Vec<u8>,
}

impl<'p> Cbor<'p> {
    pub(super) fn new(payload: &'p [u8]) -> Self {
        Self { decoder: Decoder::from(payload), size: payload.len(), scratch: Vec::new() }
    }

    fn pull(&mut self) -> Result<Header, Fault> {
        self.decoder.pull().map_err(fault)
    }

    /// Reads bytes, in one piece or in several.
    fn read_bytes(&mut self, length: Option<usize>) -> Result<(), Fault> {
        self.scratch.clear();
        let mut buffer = [0; PIECE];
        let mut segments = self.decoder.bytes(length);
        while let Some(mut segment) = segments.pull().map_err(fault)? {
            while let Some(bytes) = segment.pull(&mut buffer).map_err(fault)? {
                self.scratch.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// Reads text, likewise.
    fn read_text(&mut self, length: Option<usize>) -> Result<(), Fault> {
        self.scratch.clear();
        let mut buffer = [0; PIECE];
        let mut segments = self.decoder.text(length);
        while let Some(mut segment) = segments.pull().map_err(fault)? {
            while let Some(text) = segment.pull(&mut buffer).map_err(fault)? {
                self.scratch.extend_from_slice(text.as_bytes());
            }
        }
        Ok(())
    }

    fn text(&self) -> Result<Token<'_>, Fault> {
        let text = std::str::from_utf8(&self.scratch);
        text.map(Token::Text).map_err(|_| Fault::Malformed("a text is not UTF-8".into()))
    }
}

impl Tokens for Cbor<'_> {
    fn next(&mut self) -> Result<Token<'_>, Fault> {
        let mut is_time = false;
        loop {
            let header = self.pull()?;
            if is_time && let Some(ns) = nanoseconds(header) {
                self.scratch.clear();
                write_rfc3339(ns, &mut self.scratch);
                return self.text();
            }
            return Ok(match header {
                Header::Tag(tag) => {
                    is_time = tag == EPOCH_TIME;
                    continue;
                }
                Header::Positive(value) => Token::unsigned(value),
                Header::Negative(bits) => match i64::try_from(bits) {
                    Ok(bits) => Token::Int(!bits),
                    #[allow(clippy::cast_precision_loss)]
                    Err(_) => Token::Float(-1.0 - bits as f64),
                },
                Header::Float(value) => Token::Float(value),
                Header::Simple(simple::FALSE) => Token::Bool(false),
                Header::Simple(simple::TRUE) => Token::Bool(true),
                Header::Simple(simple::NULL | simple::UNDEFINED) => Token::Null,
                Header::Simple(value) => {
                    return Err(Fault::Malformed(format!("the simple value {value} has no meaning")));
                }
                Header::Break => return Err(Fault::Malformed("a break stands where a value belongs".into())),
                Header::Bytes(length) => {
                    self.read_bytes(length)?;
                    return Ok(Token::Bytes(&self.scratch));
                }
                Header::Text(length) => {
                    self.read_text(length)?;
                    return self.text();
                }
                Header::Array(length) => Token::Seq(length),
                Header::Map(length) => Token::Map(length),
            });
        }
    }

    fn ends_here(&mut self) -> Result<bool, Fault> {
        let header = self.pull()?;
        if header != Header::Break {
            self.decoder.push(header);
        }
        Ok(header == Header::Break)
    }

    fn is_empty(&mut self) -> bool {
        self.decoder.offset() >= self.size
    }
}

fn fault<E>(error: ciborium_ll::Error<E>) -> Fault {
    match error {
        ciborium_ll::Error::Io(_) => Fault::ends_early(),
        ciborium_ll::Error::Syntax(at) => Fault::Malformed(format!("there is no value at byte {at}")),
    }
}

/// A number of seconds since 1970 in nanoseconds, where 64 bits hold it.
fn nanoseconds(seconds: Header) -> Option<i64> {
    match seconds {
        Header::Positive(seconds) => i64::try_from(seconds).ok()?.checked_mul(NS),
        Header::Negative(bits) => (!i64::try_from(bits).ok()?).checked_mul(NS),
        #[allow(clippy::cast_possible_truncation)]
        Header::Float(seconds) if seconds.abs() < 9.0e9 => {
            // Apart, since the fraction of the product would be lost.
            let fraction = ((seconds - seconds.floor()) * 1e9).round() as i64;
            (seconds.floor() as i64).checked_mul(NS)?.checked_add(fraction)
        }
        _ => None,
    }
}
