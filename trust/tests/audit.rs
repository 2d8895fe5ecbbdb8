//! Whoever changes an audit is found out, and told where.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod site;

use proptest::prelude::*;
use site::{NOW, at, key};
use tidegate_trust::audit::{
    CHECKPOINT_EVERY, Chain, Event, Fault, Record, Source, Stored, Verified, Who, verify,
};
use tidegate_trust::{Code, Digest};

const BOOT: &str = "3f0c2a2e-6f0f-4d5e-9a53-0d6f3a4b5c6d";

fn record(number: u64) -> Record {
    Record {
        time: i64::try_from(number).unwrap() * 1_000_000_000,
        wall: at(NOW),
        synchronised: true,
        boot: BOOT.into(),
        who: Who::Keys(vec!["dora".into()]),
        what: Event::Command { op: "rules.deploy".into(), id: Some(format!("deploy-{number:04}")) },
        digest: Some(Digest::sha256(&number.to_be_bytes())),
        code: Some(Code::Ok),
        result: None,
    }
}

/// A box's audit, with the checkpoints that it made.
struct Audit {
    records: Vec<Stored>,
    checkpoints: Vec<String>,
}

impl Audit {
    fn long(records: u64) -> Self {
        let (mut chain, mut audit) =
            (Chain::default(), Self { records: Vec::new(), checkpoints: Vec::new() });
        for number in 1..=records {
            audit.records.push(chain.append(&record(number)).unwrap());
            if chain.is_checkpoint_due() {
                audit.checkpoints.push(chain.checkpoint("press-12", BOOT, "press-12", &key("press-12")));
            }
        }
        audit
    }

    fn verified(&self, witness: Option<&str>) -> Result<Verified, Fault> {
        let checkpoints = self.checkpoints.iter().map(String::as_bytes);
        let public = key("press-12").public();
        verify("press-12", public, checkpoints, witness.map(str::as_bytes), self.records.clone())
    }

    /// What root can do who also has the box's key: all hashes and signatures from `from` on are made anew.
    fn forge(&mut self, from: usize) {
        let before = from.checked_sub(1).map(|at| self.records[at].hash);
        let mut hash = before.unwrap_or(Digest([0; 32]));
        for record in &mut self.records[from..] {
            hash = Digest::sha256_joined(&[b"tidegate.audit.v1", &hash.0, &record.bytes]);
            record.hash = hash;
        }
        self.checkpoints.clear();
        for record in self.records.iter().filter(|record| record.seq.is_multiple_of(CHECKPOINT_EVERY)) {
            let mut chain = Chain { seq: record.seq, hash: record.hash, signed: 0 };
            self.checkpoints.push(chain.checkpoint("press-12", BOOT, "press-12", &key("press-12")));
        }
    }

    fn edit(&mut self, at: usize) {
        let text = String::from_utf8(self.records[at].bytes.clone()).unwrap();
        self.records[at].bytes = text.replace("dora", "otto").into_bytes();
    }
}

#[test]
fn a_whole_audit_is_found_whole() {
    let audit = Audit::long(600);
    let witness = audit.checkpoints[1].clone();
    let verified = audit.verified(Some(&witness)).unwrap();
    assert_eq!(
        (verified.first, verified.last, verified.signed, verified.witnessed),
        (1, 600, 512, Some(512))
    );
    assert_eq!(verified.hash, audit.records[599].hash);
    let empty = Audit { records: Vec::new(), checkpoints: Vec::new() };
    assert_eq!(empty.verified(None).unwrap().last, 0);
}

#[test]
fn an_edited_record_is_named() {
    let mut audit = Audit::long(600);
    audit.edit(299);
    assert_eq!(audit.verified(None), Err(Fault::Break { seq: 300 }));
    audit.forge(299);
    assert!(audit.verified(None).is_ok(), "root can make all of it anew, and only a witness knows");
    let witness = Audit::long(600).checkpoints[1].clone();
    assert_eq!(audit.verified(Some(&witness)), Err(Fault::Differs { seq: 512, whose: Source::Witness }));
    // Without the box's key, its own checkpoints tell.
    audit.checkpoints = Audit::long(600).checkpoints;
    assert_eq!(audit.verified(None), Err(Fault::Differs { seq: 512, whose: Source::TheBox }));
}

#[test]
fn a_record_that_is_gone_is_named() {
    let mut audit = Audit::long(600);
    audit.records.remove(299);
    assert_eq!(audit.verified(None), Err(Fault::Gap { expected: 300, found: 301 }));
    let mut moved = Audit::long(600);
    moved.records.swap(99, 100);
    assert_eq!(moved.verified(None), Err(Fault::Gap { expected: 100, found: 101 }));
    moved.records[99].seq = 100;
    moved.records[100].seq = 101;
    assert_eq!(moved.verified(None), Err(Fault::Renumbered { stored: 100, written: 101 }));
    let mut doubled = Audit::long(600);
    doubled.records.insert(100, doubled.records[99].clone());
    assert_eq!(doubled.verified(None), Err(Fault::Gap { expected: 101, found: 100 }));
}

#[test]
fn a_shortened_audit_is_told_from_a_short_one() {
    let whole = Audit::long(600);
    let witness = whole.checkpoints[1].clone();
    let mut audit = Audit::long(600);
    audit.records.truncate(511);
    let own = Fault::Short { last: 511, seq: 512, whose: Source::TheBox };
    assert_eq!(audit.verified(None), Err(own));
    audit.checkpoints.pop();
    assert!(audit.verified(None).is_ok(), "again, only a witness knows");
    let witnessed = Fault::Short { last: 511, seq: 512, whose: Source::Witness };
    assert_eq!(audit.verified(Some(&witness)), Err(witnessed));
    audit.records.clear();
    audit.checkpoints.clear();
    let all_gone = Fault::Short { last: 0, seq: 512, whose: Source::Witness };
    assert_eq!(audit.verified(Some(&witness)), Err(all_gone));
}

#[test]
fn a_stretch_that_nobody_signed_is_named() {
    let mut audit = Audit::long(600);
    audit.checkpoints.remove(0);
    assert_eq!(audit.verified(None), Err(Fault::Unsigned { from: 1, to: 257 }));
    audit.checkpoints.clear();
    assert_eq!(audit.verified(None), Err(Fault::Unsigned { from: 1, to: 257 }), "an audit without any");
    assert_eq!(Audit::long(256).verified(None).unwrap().signed, 256);
    let young = Audit { checkpoints: Vec::new(), ..Audit::long(256) };
    assert_eq!(young.verified(None).unwrap().signed, 0, "it says how much is not signed yet");
}

#[test]
fn a_rotated_audit_begins_behind_a_checkpoint() {
    let whole = Audit::long(800);
    let mut rotated =
        Audit { records: whole.records[256..].to_vec(), checkpoints: whole.checkpoints.clone() };
    assert_eq!(rotated.verified(Some(&whole.checkpoints[2])).unwrap().first, 257);
    assert_eq!(rotated.verified(Some(&whole.checkpoints[0])).unwrap().witnessed, Some(256));
    rotated.checkpoints.remove(0);
    assert_eq!(rotated.verified(None), Err(Fault::NoBeginning { first: 257 }));
    assert!(rotated.verified(Some(&whole.checkpoints[0])).is_ok(), "the witness has it");
    let later = Audit { records: whole.records[512..].to_vec(), checkpoints: whole.checkpoints.clone() };
    assert_eq!(
        later.verified(Some(&whole.checkpoints[0])),
        Err(Fault::WitnessTooOld { seq: 256, first: 513 })
    );
    let cut = Audit { records: whole.records[300..].to_vec(), checkpoints: whole.checkpoints.clone() };
    assert_eq!(cut.verified(None), Err(Fault::NoBeginning { first: 301 }));
}

#[test]
fn a_checkpoint_of_another_box_or_by_another_key_counts_for_nothing() {
    let audit = Audit::long(600);
    let sign = |name: &str, by: &str| {
        let mut chain = Chain { seq: 512, hash: audit.records[511].hash, signed: 0 };
        chain.checkpoint(name, BOOT, "press-12", &key(by))
    };
    assert!(audit.verified(Some(&sign("press-12", "press-12"))).is_ok());
    for (name, by) in [("press-12", "mallory"), ("press-13", "press-12")] {
        let fault = audit.verified(Some(&sign(name, by))).unwrap_err();
        assert!(matches!(fault, Fault::NoCheckpoint { whose: Source::Witness, .. }), "{fault}");
    }
    let other_boot = Chain { seq: 512, hash: audit.records[511].hash, signed: 0 }.checkpoint(
        "press-12",
        "another",
        "press-12",
        &key("press-12"),
    );
    let differs = Fault::Differs { seq: 512, whose: Source::Witness };
    assert_eq!(audit.verified(Some(&other_boot)), Err(differs));
}

#[test]
fn a_chain_goes_on_after_a_restart() {
    let mut chain = Chain::default();
    let mut records = vec![chain.append(&record(1)).unwrap()];
    let mut chain: Chain = serde_json::from_str(&serde_json::to_string(&chain).unwrap()).unwrap();
    records.push(chain.append(&record(2)).unwrap());
    assert_eq!(Audit { records, checkpoints: Vec::new() }.verified(None).unwrap().last, 2);
}

#[test]
fn every_kind_of_record_is_written_as_it_is_read() {
    let events = [
        Event::Command { op: "nonsense".into(), id: None },
        Event::Trust { version: 7 },
        Event::Configuration,
        Event::Rule { name: "cooling".into() },
        Event::Override { output: "valve".into() },
        Event::Trip { output: "valve".into() },
        Event::Start { version: "0.1.0".into() },
        Event::Stop,
        Event::Login,
        Event::Gap { missing: Some(3) },
    ];
    let people = [Who::Keys(vec!["sara".into(), "sven".into()]), Who::Uid(1000), Who::Anybody, Who::TheBox];
    for (what, who) in events.into_iter().zip(people.into_iter().cycle()) {
        let record = Record { what, who, ..record(1) };
        let stored = Chain::default().append(&record).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&stored.bytes).unwrap();
        assert_eq!(value.as_object_mut().unwrap().remove("seq"), Some(1.into()));
        assert_eq!(serde_json::from_value::<Record>(value).unwrap(), record);
        assert_eq!(Stored::from_line(&stored.to_line()).unwrap(), stored);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done to the stored records of an audit, short of making hashes anew, is found.
    #[test]
    fn no_damage_goes_unnoticed(
        length in 1u64..300,
        damage in 0usize..4,
        place in any::<prop::sample::Index>(),
        bit in 0usize..8,
        byte in any::<prop::sample::Index>(),
    ) {
        let mut audit = Audit::long(length);
        let witness = {
            let last = audit.records.last().unwrap();
            let mut chain = Chain { seq: last.seq, hash: last.hash, signed: 0 };
            chain.checkpoint("press-12", BOOT, "", &key("press-12"))
        };
        prop_assert!(audit.verified(Some(&witness)).is_ok());
        let at = place.index(audit.records.len());
        match damage {
            0 => {
                let bytes = &mut audit.records[at].bytes;
                let byte = byte.index(bytes.len());
                bytes[byte] ^= 1 << bit;
            }
            1 => audit.records[at].hash.0[byte.index(32)] ^= 1 << bit,
            2 => drop(audit.records.remove(at)),
            _ => audit.records.truncate(at),
        }
        let fault = audit.verified(Some(&witness));
        prop_assert!(fault.is_err(), "{damage} at {at}");
    }

    #[test]
    fn a_line_of_an_export_is_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(stored) = Stored::from_line(&line) {
            let written = stored.to_line();
            prop_assert_eq!(written.strip_suffix(b"\n"), Some(line.strip_suffix(b"\n").unwrap_or(&line)));
        }
    }
}
