//! What a stream remembers of topics, so that a retained message makes a row once.
//!
//! A broker sends the message that it retains for a topic with each SUBSCRIBE (MQTT 3.1.1, section 3.8.4;
//! MQTT 5.0, section 3.8.3.1), with the RETAIN flag; what a device publishes while the box listens comes
//! without the flag, retained or not. So the flag alone does not tell whether a message is new: it is old if
//! its topic's newest row came of the same content, and also if the broker has kept it since before that row,
//! which was published without RETAIN then. Only where rows of the topic are known to be retained, a content
//! that was replaced and is back was published again.
//!
//! What rows were made of counts when they are dealt with, and what counts is kept on disk: soon, where the
//! broker retains something, and now and then otherwise. Of what came since, the journal has marks. Where
//! both are missing, or there are more than [`TOPICS`] topics, a retained message makes another row: better
//! twice than not at all.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use super::acks::Fate;
use super::marks::{Hashes, short};

/// Topics that a stream remembers, at least; at most twice as many.
const TOPICS: usize = 65_536;

/// The pause between two files, where rows came of retained messages, and where others replaced them. A file
/// is some 30 KiB of wear.
const SOON: Duration = Duration::from_secs(1);
const NOW_AND_THEN: Duration = Duration::from_secs(60);

/// Large files are written seldom: a second for so many bytes.
const BYTES_PER_S: u64 = 1_024;

/// How a file begins; it ends with its hash.
const MAGIC: &[u8] = b"tidegate retained 1\n";

/// Bytes of a topic in a file: three hashes, and flags.
const RECORD: usize = 25;

/// What is known of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Topic {
    /// of what came last
    newest: u64,
    /// of what the broker retained when it said so last
    kept: Option<u64>,
    /// Whether what comes while the box listens is retained, too.
    live_is_kept: bool,
}

/// Something that was taken.
#[derive(Debug, Clone, Copy)]
struct Taken {
    topic: u64,
    content: u64,
    retained: bool,
}

/// What one stream remembers.
#[derive(Default)]
pub(super) struct Memory {
    /// What counts, in two generations: when the first is full, it takes the place of the second.
    young: HashMap<u64, Topic>,
    old: HashMap<u64, Topic>,
    /// Topics of which something is not dealt with, as they will be.
    ahead: HashMap<u64, Topic>,
    /// What the rows in the decoder were made of.
    held: Vec<Taken>,
    /// Likewise those that the engine has.
    under_way: VecDeque<(Option<Arc<Fate>>, Vec<Taken>)>,
    /// From the journal: what came last, by shortened hashes, until something comes.
    journaled: HashMap<u16, u32>,
    unsaved: Option<Duration>,
    saved: Option<Instant>,
}

impl Memory {
    /// What `file` says, with what an earlier process has journaled since; `None`: the file is damaged.
    pub(super) fn read(file: &[u8], marks: &[u64]) -> Option<Self> {
        let mut memory =
            Self { journaled: marks.iter().map(|mark| short(*mark)).collect(), ..Self::default() };
        if file.is_empty() {
            return Some(memory);
        }
        let (body, hash) = file.split_at_checked(file.len().checked_sub(8)?)?;
        let records = body.strip_prefix(MAGIC)?;
        if SipHasher13::new().hash(body).to_le_bytes() != *hash || !records.len().is_multiple_of(RECORD) {
            return None;
        }
        for record in records.chunks_exact(RECORD) {
            let (hashes, flags) = record.split_at_checked(24)?;
            let mut hashes =
                hashes.chunks_exact(8).filter_map(|hash| hash.try_into().ok().map(u64::from_le_bytes));
            let (topic, newest, kept, flags) =
                (hashes.next()?, hashes.next()?, hashes.next()?, *flags.first()?);
            memory.put(
                topic,
                Topic { newest, kept: (flags & 1 != 0).then_some(kept), live_is_kept: flags & 2 != 0 },
            );
        }
        Some(memory)
    }

    /// Whether a message that the broker had retained has made a row before.
    pub(super) fn knows(&mut self, of: Hashes) -> bool {
        let known = self.topic(of.topic);
        let (short_topic, short_content) = short(of.mark(0));
        let journaled = self.journaled.get(&short_topic).copied();
        let is_newest = match journaled {
            Some(content) => content == short_content,
            None => known.is_some_and(|topic| topic.newest == of.content),
        };
        let is_kept = known.is_some_and(|topic| topic.kept == Some(of.content) && !topic.live_is_kept);
        if !is_newest && !is_kept {
            return false;
        }
        let mut topic = known.unwrap_or_default();
        if is_newest {
            topic.live_is_kept |= journaled.is_none() && topic.kept != Some(of.content);
            topic.newest = of.content;
            self.journaled.remove(&short_topic);
        }
        topic.kept = Some(of.content);
        if Some(topic) != known {
            self.note(of.topic, topic);
        }
        true
    }

    /// Rows were made of a message.
    pub(super) fn took(&mut self, of: Hashes, retained: bool) {
        self.journaled.remove(&short(of.mark(0)).0);
        let known = self.topic(of.topic);
        if !retained
            && known.is_some_and(|topic| topic.newest == of.content)
            && !self.ahead.contains_key(&of.topic)
        {
            return;
        }
        let taken = Taken { topic: of.topic, content: of.content, retained };
        self.ahead.insert(of.topic, after(known, taken));
        match self.held.last_mut() {
            Some(last) if last.topic == of.topic && !last.retained && !retained => *last = taken,
            _ => self.held.push(taken),
        }
    }

    /// The rows in the decoder go to the engine; with `fate` they count when they are dealt with, without one
    /// now.
    pub(super) fn handed_over(&mut self, fate: Option<Arc<Fate>>) {
        if !self.held.is_empty() {
            self.under_way.push_back((fate, std::mem::take(&mut self.held)));
        }
    }

    /// The rows in the decoder are thrown away.
    pub(super) fn forget(&mut self) {
        for taken in self.held.drain(..) {
            self.ahead.remove(&taken.topic);
        }
    }

    /// Takes note of what is dealt with.
    pub(super) fn settle(&mut self) {
        while let Some((fate, _)) = self.under_way.front() {
            let refused = match fate {
                Some(fate) if fate.is_open() => return,
                Some(fate) => fate.is_refused(),
                None => false,
            };
            let Some((_, taken)) = self.under_way.pop_front() else { return };
            for taken in taken {
                if refused {
                    self.ahead.remove(&taken.topic);
                    continue;
                }
                let topic = after(self.settled(taken.topic), taken);
                self.put(taken.topic, topic);
                self.save_within(if taken.retained { SOON } else { NOW_AND_THEN });
                if self.ahead.get(&taken.topic) == Some(&topic) {
                    self.ahead.remove(&taken.topic);
                }
            }
        }
    }

    /// When there is something to be written, which may be `now`.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let pause = self.unsaved?;
        let size = ((self.young.len() + self.old.len()) * RECORD) as u64;
        let pause = pause.max(Duration::from_secs(size / BYTES_PER_S));
        Some(self.saved.map_or(now, |saved| saved + pause))
    }

    /// What is to be written, if anything is.
    pub(super) fn save(&mut self) -> Option<Vec<u8>> {
        self.unsaved.take()?;
        self.saved = Some(Instant::now());
        let mut file = Vec::with_capacity(MAGIC.len() + (self.young.len() + self.old.len()) * RECORD + 8);
        file.extend_from_slice(MAGIC);
        let old = self.old.iter().filter(|(topic, _)| !self.young.contains_key(topic));
        for (topic, Topic { newest, kept, live_is_kept }) in old.chain(&self.young) {
            for hash in [*topic, *newest, kept.unwrap_or_default()] {
                file.extend_from_slice(&hash.to_le_bytes());
            }
            file.push(u8::from(kept.is_some()) | u8::from(*live_is_kept) << 1);
        }
        let hash = SipHasher13::new().hash(&file);
        file.extend_from_slice(&hash.to_le_bytes());
        Some(file)
    }

    fn topic(&self, topic: u64) -> Option<Topic> {
        self.ahead.get(&topic).copied().or_else(|| self.settled(topic))
    }

    fn settled(&self, topic: u64) -> Option<Topic> {
        self.young.get(&topic).or_else(|| self.old.get(&topic)).copied()
    }

    /// What was learnt without a row.
    fn note(&mut self, key: u64, topic: Topic) {
        let Some(ahead) = self.ahead.get_mut(&key) else {
            self.put(key, topic);
            return self.save_within(SOON);
        };
        *ahead = topic;
        let taken = Taken { topic: key, content: topic.newest, retained: true };
        let batch = if self.held.is_empty() {
            self.under_way.back_mut().map(|(_, batch)| batch)
        } else {
            Some(&mut self.held)
        };
        if let Some(batch) = batch.filter(|_| topic.kept == Some(topic.newest)) {
            batch.push(taken);
        }
    }

    fn put(&mut self, key: u64, topic: Topic) {
        if self.young.len() >= TOPICS && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, topic);
    }

    fn save_within(&mut self, pause: Duration) {
        self.unsaved = Some(self.unsaved.map_or(pause, |unsaved| unsaved.min(pause)));
    }
}

/// What is known of a topic after something was taken.
fn after(known: Option<Topic>, taken: Taken) -> Topic {
    let before = known.unwrap_or_default();
    if !taken.retained {
        return Topic { newest: taken.content, ..before };
    }
    let confirms = known.is_some() && before.newest == taken.content;
    let live_is_kept = if confirms {
        before.live_is_kept || before.kept != Some(taken.content)
    } else {
        before.live_is_kept
    };
    // What is back although it was replaced may never have been: it counts as replaced again when that is
    // seen again.
    let is_back = before.kept == Some(taken.content) && !confirms;
    Topic { newest: taken.content, kept: Some(taken.content), live_is_kept: live_is_kept && !is_back }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALVE: u64 = 0x1234 << 48;
    const ON: u64 = 7 << 32;
    const OFF: u64 = 8 << 32;

    fn of(content: u64) -> Hashes {
        Hashes { topic: VALVE, content }
    }

    /// A message comes while the box listens, and its rows are dealt with.
    fn live(memory: &mut Memory, content: u64) {
        memory.took(of(content), false);
        memory.handed_over(None);
        memory.settle();
    }

    /// Whether a message makes a row that the broker had retained; if so, it is dealt with.
    fn is_new(memory: &mut Memory, content: u64) -> bool {
        let new = !memory.knows(of(content));
        if new {
            memory.took(of(content), true);
            memory.handed_over(None);
            memory.settle();
        }
        new
    }

    fn restarted(memory: &mut Memory) -> Memory {
        Memory::read(&memory.save().unwrap_or_default(), &[]).unwrap()
    }

    #[test]
    fn a_retained_message_is_new_once_and_when_its_content_has_changed() {
        let mut memory = Memory::default();
        let seen = [ON, ON, OFF, OFF, ON].map(|content| is_new(&mut memory, content));
        assert_eq!(seen, [true, false, true, false, true]);
        let mut memory = restarted(&mut memory);
        assert_eq!([ON, OFF].map(|content| is_new(&mut memory, content)), [false, true]);
    }

    #[test]
    fn what_came_live_is_not_new_when_it_comes_retained() {
        let mut memory = Memory::default();
        live(&mut memory, ON);
        let mut memory = restarted(&mut memory);
        assert!(!is_new(&mut memory, ON));
    }

    #[test]
    fn what_somebody_retained_once_stays_old_among_messages_that_are_not_retained() {
        let mut memory = Memory::default();
        assert!(is_new(&mut memory, ON));
        for content in 100..103 {
            live(&mut memory, content << 32);
            assert!(!is_new(&mut memory, ON));
        }
    }

    #[test]
    fn where_live_messages_are_retained_a_value_that_is_back_is_new() {
        let mut memory = Memory::default();
        assert!(is_new(&mut memory, ON));
        live(&mut memory, OFF);
        assert!(!is_new(&mut memory, OFF), "the broker keeps what comes live");
        live(&mut memory, ON);
        assert!(is_new(&mut memory, OFF), "it was switched off while the box was away");
    }

    #[test]
    fn what_is_not_dealt_with_does_not_count_after_a_crash_and_what_is_refused_never() {
        let mut memory = Memory::default();
        assert!(is_new(&mut memory, ON));
        let fate = Arc::new(Fate::default());
        memory.took(of(OFF), true);
        memory.handed_over(Some(Arc::clone(&fate)));
        memory.settle();
        assert!(memory.knows(of(OFF)), "its rows are under way");
        let mut after_crash = restarted(&mut memory);
        assert!(!after_crash.knows(of(OFF)));
        fate.refuse();
        memory.settle();
        assert!(!memory.knows(of(OFF)));
        memory.took(of(OFF), true);
        memory.forget();
        assert!(!memory.knows(of(OFF)));
    }

    #[test]
    fn the_journal_says_what_came_after_the_last_file() {
        let mut memory = Memory::default();
        assert!(is_new(&mut memory, ON));
        let file = memory.save().unwrap();
        let mut memory = Memory::read(&file, &[of(ON).mark(1), of(OFF).mark(0)]).unwrap();
        assert!(memory.knows(of(OFF)));
        let mut memory = Memory::read(&file, &[of(OFF).mark(1)]).unwrap();
        assert!(memory.knows(of(ON)), "that it was retained is in the file");
        let mut memory = Memory::read(&[], &[of(ON).mark(1), of(OFF).mark(2)]).unwrap();
        assert!(!memory.knows(of(ON)), "something came after it");
    }

    #[test]
    fn a_damaged_file_is_not_believed() {
        let mut memory = Memory::default();
        is_new(&mut memory, ON);
        let file = memory.save().unwrap();
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            assert!(Memory::read(&damaged, &[]).is_none(), "byte {at}");
        }
        assert!(Memory::read(&file[..file.len() - 1], &[]).is_none());
        assert!(Memory::read(&file, &[]).is_some());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_stays() {
        let mut memory = Memory::default();
        for topic in 0..3 * TOPICS as u64 {
            memory.took(Hashes { topic, content: 1 }, false);
            memory.handed_over(None);
            memory.settle();
        }
        assert!(memory.young.len() + memory.old.len() <= 2 * TOPICS && memory.ahead.is_empty());
        assert!(memory.knows(Hashes { topic: 3 * TOPICS as u64 - 1, content: 1 }));
        assert!(!memory.knows(Hashes { topic: 0, content: 1 }));
    }

    #[test]
    fn files_are_written_soon_after_retained_messages_and_seldom_otherwise() {
        let mut memory = Memory::default();
        let now = Instant::now();
        assert_eq!(memory.due(now), None);
        live(&mut memory, ON);
        assert_eq!(memory.due(now), Some(now), "the first one at once");
        memory.save();
        live(&mut memory, ON);
        assert_eq!(memory.due(now), None, "nothing has changed");
        let saved = memory.saved.unwrap();
        live(&mut memory, OFF);
        assert_eq!(memory.due(now), Some(saved + NOW_AND_THEN));
        is_new(&mut memory, ON);
        assert_eq!(memory.due(now), Some(saved + SOON));
    }
}
