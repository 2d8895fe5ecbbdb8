//! Records on their string, as they are stored and exported.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::digest::Digest;
use crate::envelope::{Envelope, Kind, seal};
use crate::json;
use crate::key::{PublicKey, SecretKey};
use crate::outcome::Code;
use crate::refusal::Refusal;

/// After as many records, a checkpoint is due.
pub const CHECKPOINT_EVERY: u64 = 256;

/// After that time, a checkpoint is due, if there is a new record.
pub const CHECKPOINT_PERIOD: Duration = Duration::from_secs(5 * 60);

const DOMAIN: &[u8] = b"tidegate.audit.v1";

/// Where the chain ends: all that is needed to go on. The caller stores it with the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// the last record's number; 0: there is none
    pub seq: u64,
    /// the last record's hash
    pub hash: Digest,
    /// up to which record a checkpoint was signed
    pub signed: u64,
}

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// its number, from 1, also in `bytes`
    pub seq: u64,
    /// what is hashed: never written anew, so that nobody has to agree on how JSON is written
    pub bytes: Vec<u8>,
    /// of this record and all before it
    pub hash: Digest,
}

/// What a box says of its chain, signed with its key. Whoever keeps one can prove what was in the audit then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// the box's name
    #[serde(rename = "box")]
    pub box_name: String,
    /// the last record
    pub seq: u64,
    /// its hash
    pub hash: Digest,
    /// which start of the machine that record belongs to
    pub boot: String,
}

/// A record with its number, as it is written.
#[derive(Serialize)]
struct Numbered<'a> {
    seq: u64,
    #[serde(flatten)]
    record: &'a Record,
}

pub(super) fn next_hash(before: &Digest, bytes: &[u8]) -> Digest {
    Digest::sha256_joined(&[DOMAIN, &before.0, bytes])
}

impl Default for Chain {
    fn default() -> Self {
        Self { seq: 0, hash: Digest([0; 32]), signed: 0 }
    }
}

impl Chain {
    /// Puts `record` behind the last one.
    ///
    /// # Errors
    /// When it cannot be written as JSON, or there are no numbers left: nothing has been changed then.
    pub fn append(&mut self, record: &Record) -> Result<Stored, String> {
        let seq = self.seq.checked_add(1).ok_or("the audit has no numbers left")?;
        let bytes = serde_json::to_vec(&Numbered { seq, record }).map_err(|error| error.to_string())?;
        let hash = next_hash(&self.hash, &bytes);
        (self.seq, self.hash) = (seq, hash);
        Ok(Stored { seq, bytes, hash })
    }

    /// Whether a checkpoint is due by the number of records.
    #[must_use]
    pub fn is_checkpoint_due(&self) -> bool {
        self.seq.saturating_sub(self.signed) >= CHECKPOINT_EVERY
    }

    /// Signs where the chain is. `key_id` is a name for people.
    pub fn checkpoint(&mut self, box_name: &str, boot: &str, key_id: &str, key: &SecretKey) -> String {
        self.signed = self.seq;
        let (seq, hash) = (self.seq, self.hash);
        let checkpoint = Checkpoint { box_name: box_name.into(), seq, hash, boot: boot.into() };
        seal(Kind::Checkpoint, serde_json::json!(checkpoint).to_string().as_bytes(), &[(key_id, key)])
    }
}

impl Checkpoint {
    /// What a box has signed.
    ///
    /// # Errors
    /// When it is none, or another key signed it.
    pub fn open(envelope: &[u8], key: PublicKey) -> Result<Self, Refusal> {
        let opened = Envelope::read(Kind::Checkpoint, envelope)?.open(&[("", key)]).map_err(|refusal| {
            Refusal { reason: format!("the key {key} has not signed the checkpoint"), ..refusal }
                .help("is it of another box, or had the box another key then?")
        })?;
        json::read_as(&opened.payload).map_err(|why| {
            Refusal::new(Code::Invalid, format!("the checkpoint is signed, and cannot be read: {why}"))
        })
    }
}

impl Stored {
    /// A line of an export: the hash in hexadecimal, a space, and the bytes, which have no line break in
    /// them.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = self.hash.hex().into_bytes();
        line.push(b' ');
        line.extend_from_slice(&self.bytes);
        line.push(b'\n');
        line
    }

    /// Reads a line of an export, with or without its end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let (hash, rest) = line.split_at_checked(64).ok_or("the line is shorter than a hash")?;
        let hash = str::from_utf8(hash).ok().and_then(|hash| Digest::from_hex(hash).ok());
        let hash = hash.ok_or("the line does not begin with 64 hexadecimal digits")?;
        let bytes = rest.strip_prefix(b" ").ok_or("there is no space behind the hash")?;
        let (seq, _) = number_and_boot(bytes)?;
        Ok(Self { seq, bytes: bytes.to_vec(), hash })
    }
}

/// All that is looked at of a record to verify the chain; newer programs may have written more into it.
pub(super) fn number_and_boot(bytes: &[u8]) -> Result<(u64, String), String> {
    let value = json::read(bytes)?;
    let seq = value.get("seq").and_then(serde_json::Value::as_u64).ok_or("it has no number `seq`")?;
    let boot = value.get("boot").and_then(serde_json::Value::as_str).ok_or("it has no `boot`")?;
    Ok((seq, boot.to_owned()))
}
