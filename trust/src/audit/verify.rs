//! Whether an audit is whole, as far as its box and those who kept checkpoints can tell.

use std::collections::BTreeMap;

use super::chain::{CHECKPOINT_EVERY, Checkpoint, Stored, next_hash, number_and_boot};
use crate::digest::Digest;
use crate::key::PublicKey;

/// What is wrong with an audit, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A record is no JSON any more.
    #[error("record {seq} cannot be read: {why}; it was written over, or the disk is damaged")]
    Unreadable {
        /// the record
        seq: u64,
        /// what was found
        why: String,
    },
    /// The number outside says otherwise than the number inside.
    #[error("the record that is stored as {stored} says of itself that it is {written}: records were moved")]
    Renumbered {
        /// outside
        stored: u64,
        /// inside
        written: u64,
    },
    /// Records are missing, or in another order.
    #[error("record {expected} is missing: {found} comes next; records were taken out or moved")]
    Gap {
        /// the first that is not there
        expected: u64,
        /// what is there instead
        found: u64,
    },
    /// A record is not the one that was written.
    #[error("record {seq} does not fit the one before it: it, or its hash, was changed after it was written")]
    Break {
        /// the record
        seq: u64,
    },
    /// The audit does not begin at its first record, nor behind a checkpoint.
    #[error(
        "the audit begins at record {first}, and there is no signed checkpoint of the one before: its \
         beginning was taken away"
    )]
    NoBeginning {
        /// the first that is there
        first: u64,
    },
    /// The audit is not the one of which somebody kept a checkpoint.
    #[error(
        "at record {seq} the audit differs from {whose} checkpoint: at or before it, records were changed \
         and all hashes made anew"
    )]
    Differs {
        /// the checkpoint's record
        seq: u64,
        /// who kept it
        whose: Source,
    },
    /// There were more records once.
    #[error(
        "the audit ends at record {last}, and {whose} checkpoint is of record {seq}: its end was taken away"
    )]
    Short {
        /// the last that is there
        last: u64,
        /// the checkpoint's record
        seq: u64,
        /// who kept it
        whose: Source,
    },
    /// The checkpoint is of records that are no longer kept.
    #[error(
        "the witnessed checkpoint is of record {seq}, and the audit was rotated up to record {first}: take a \
         newer checkpoint, or the part that was put away"
    )]
    WitnessTooOld {
        /// the checkpoint's record
        seq: u64,
        /// the first that is there
        first: u64,
    },
    /// More records than a box leaves without a signature.
    #[error(
        "the records {from} to {to} have no signed checkpoint, and a box signs each {CHECKPOINT_EVERY}: \
         checkpoints were taken away, or the records were not written by the box"
    )]
    Unsigned {
        /// the first of them
        from: u64,
        /// the last of them
        to: u64,
    },
    /// A checkpoint that the box did not sign.
    #[error("{whose} checkpoint{} counts for nothing: {why}", place(*.number))]
    NoCheckpoint {
        /// which of the stored ones, from 1
        number: Option<usize>,
        /// who kept it
        whose: Source,
        /// what is wrong with it
        why: String,
    },
}

fn place(number: Option<usize>) -> String {
    number.map_or(String::new(), |number| format!(" number {number}"))
}

/// Who kept a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// the box, beside its audit
    TheBox,
    /// somebody else
    Witness,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TheBox => "the box's own",
            Self::Witness => "the witnessed",
        })
    }
}

/// An audit in which nothing wrong was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// the first record that is there; 0: there is none
    pub first: u64,
    /// the last one
    pub last: u64,
    /// its hash
    pub hash: Digest,
    /// The last one that a checkpoint covers. What is behind it, its owner can still change.
    pub signed: u64,
    /// The last one that a witness knows. What is behind it, whoever owns the box can still change.
    pub witnessed: Option<u64>,
}

/// Goes along an audit, record by record.
#[derive(Debug)]
pub struct Verifier {
    box_name: String,
    box_key: PublicKey,
    checkpoints: BTreeMap<u64, Checkpoint>,
    witness: Option<Checkpoint>,
    /// the first record; 0: none was there yet
    first: u64,
    last: u64,
    hash: Digest,
    signed: u64,
}

impl Verifier {
    /// For the audit of the box of that name. Its key comes from whoever knows the box, not from beside the
    /// audit.
    #[must_use]
    pub fn new(box_name: &str, box_key: PublicKey) -> Self {
        Self {
            box_name: box_name.into(),
            box_key,
            checkpoints: BTreeMap::new(),
            witness: None,
            first: 0,
            last: 0,
            hash: Digest([0; 32]),
            signed: 0,
        }
    }

    fn open(&self, envelope: &[u8], number: Option<usize>, whose: Source) -> Result<Checkpoint, Fault> {
        let wrong = |why: String| Fault::NoCheckpoint { number, whose, why };
        let checkpoint =
            Checkpoint::open(envelope, self.box_key).map_err(|refusal| wrong(refusal.to_string()))?;
        if checkpoint.box_name != self.box_name {
            let (is, should) = (&checkpoint.box_name, &self.box_name);
            return Err(wrong(format!("it is of the box {is}, and this is the audit of {should}")));
        }
        Ok(checkpoint)
    }

    /// A checkpoint that the box has stored; all of them come before the records.
    ///
    /// # Errors
    /// When the box did not sign it, or has signed another one for the same record.
    pub fn checkpoint(&mut self, envelope: &[u8]) -> Result<(), Fault> {
        let number = Some(self.checkpoints.len() + 1);
        let checkpoint = self.open(envelope, number, Source::TheBox)?;
        let seq = checkpoint.seq;
        match self.checkpoints.insert(seq, checkpoint) {
            Some(other) if Some(&other) != self.checkpoints.get(&seq) => {
                Err(Fault::Differs { seq, whose: Source::TheBox })
            }
            _ => Ok(()),
        }
    }

    /// A checkpoint that somebody else has kept; it comes before the records.
    ///
    /// # Errors
    /// When the box did not sign it.
    pub fn witness(&mut self, envelope: &[u8]) -> Result<(), Fault> {
        self.witness = Some(self.open(envelope, None, Source::Witness)?);
        Ok(())
    }

    /// The next record.
    ///
    /// # Errors
    /// When it is not the next one, or not as it was written.
    pub fn record(&mut self, stored: &Stored) -> Result<(), Fault> {
        let seq = stored.seq;
        if self.first == 0 {
            self.begin(seq)?;
        }
        let expected = self.last.saturating_add(1);
        if seq != expected {
            return Err(Fault::Gap { expected, found: seq });
        }
        let (written, boot) = number_and_boot(&stored.bytes).map_err(|why| Fault::Unreadable { seq, why })?;
        if written != seq {
            return Err(Fault::Renumbered { stored: seq, written });
        }
        if next_hash(&self.hash, &stored.bytes) != stored.hash {
            return Err(Fault::Break { seq });
        }
        (self.last, self.hash) = (seq, stored.hash);
        let checkpoints = [
            (self.checkpoints.get(&seq), Source::TheBox),
            (self.witness.as_ref().filter(|witness| witness.seq == seq), Source::Witness),
        ];
        for (checkpoint, whose) in checkpoints {
            let Some(checkpoint) = checkpoint else { continue };
            if checkpoint.hash != self.hash || checkpoint.boot != boot {
                return Err(Fault::Differs { seq, whose });
            }
            self.signed = seq;
        }
        if seq - self.signed > CHECKPOINT_EVERY {
            return Err(Fault::Unsigned { from: self.signed + 1, to: seq });
        }
        Ok(())
    }

    /// Where the audit begins: at its first record, or behind one that was rotated away with a checkpoint.
    fn begin(&mut self, first: u64) -> Result<(), Fault> {
        if let Some(before) = first.checked_sub(1).filter(|before| *before > 0) {
            if let Some(seq) = self.witness.as_ref().map(|witness| witness.seq).filter(|seq| *seq < before) {
                return Err(Fault::WitnessTooOld { seq, first });
            }
            let stored = self.checkpoints.get(&before);
            let witnessed = self.witness.as_ref().filter(|witness| witness.seq == before);
            let start = stored.or(witnessed).ok_or(Fault::NoBeginning { first })?;
            if witnessed.is_some_and(|witnessed| witnessed != start) {
                return Err(Fault::Differs { seq: before, whose: Source::Witness });
            }
            (self.last, self.hash, self.signed) = (before, start.hash, before);
        }
        self.first = first;
        Ok(())
    }

    /// There are no more records.
    ///
    /// # Errors
    /// When there were more once.
    pub fn finish(self) -> Result<Verified, Fault> {
        let last = self.last;
        let witnessed = self.witness.map(|witness| witness.seq);
        let stored = self.checkpoints.last_key_value().map(|(seq, _)| *seq);
        for (seq, whose) in [(witnessed, Source::Witness), (stored, Source::TheBox)] {
            if let Some(seq) = seq.filter(|seq| *seq > last) {
                return Err(Fault::Short { last, seq, whose });
            }
        }
        Ok(Verified { first: self.first, last, hash: self.hash, signed: self.signed, witnessed })
    }
}

/// Whether the audit of a box is whole: its records in their order, the checkpoints that it stored beside
/// them, and the one that somebody else has kept.
///
/// # Errors
/// The first thing that is wrong, and where.
pub fn verify<'a>(
    box_name: &str,
    box_key: PublicKey,
    checkpoints: impl IntoIterator<Item = &'a [u8]>,
    witness: Option<&[u8]>,
    records: impl IntoIterator<Item = Stored>,
) -> Result<Verified, Fault> {
    let mut verifier = Verifier::new(box_name, box_key);
    for checkpoint in checkpoints {
        verifier.checkpoint(checkpoint)?;
    }
    if let Some(witness) = witness {
        verifier.witness(witness)?;
    }
    for record in records {
        verifier.record(&record)?;
    }
    verifier.finish()
}
