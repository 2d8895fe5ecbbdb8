//! What is remembered of messages that came with QoS 1, so that a repeat is known and its rows are not taken
//! twice.
//!
//! A broker repeats a message with its packet id and the DUP flag (MQTT 5.0, section 4.4) on the next
//! connection, when it has not seen its acknowledgement. A *mark* is that packet id and a hash of the
//! message. It says the same in the next process, so that the journal can keep it beside the rows.
//!
//! A packet id is used again as soon as its message is acknowledged, by some brokers at once (the lowest that
//! is free), by others after all 65 535. So a mark holds only for a while:
//! * A message without the DUP flag is new, and makes void what was remembered under its packet id. So does
//!   another hash.
//! * But some brokers repeat without the flag. They do it where all do, in a resumed session before anything
//!   new (MQTT 5.0, section 4.6):
//!   until the first message that is new, a known packet id with the same hash is a repeat.
//! * A broker that has lost the session begins anew: everything is void.
//! * A message that was not acknowledged is remembered until it is: its packet id cannot be in use for
//!   another.
//! * Acknowledgements go out in the order of receipt, so that what the broker misses one for is the end of
//!   what it has sent, at most its window. Of acknowledged messages the newest few windows are remembered,
//!   because acknowledgements may be lost on the way.
//!
//! One case cannot be told from a repeat: the acknowledgement arrived, the broker used the packet id again at
//! once, for an equal message, and lost that one on the way. Where a stream was seen to get equal messages
//! under one packet id (counts of a light barrier without a time, from a broker that uses the lowest id),
//! acknowledged messages count as unknown: better twice than not at all.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::acks::Fate;

/// At most this many marks of an earlier process are of use for a stream, the newest: half of all packet ids,
/// so that a broker that counts through them cannot have come round.
pub const KNOWN_MARKS: usize = 32_768;

/// What a 3.1.1 broker's window may be, which nobody tells: brokers come with 10 to 100, and a person raises
/// that to 1000.
const LIKELY_WINDOW: usize = 1_000;

/// All packet ids.
const PACKET_IDS: usize = 65_535;

/// Bits of a mark below the packet id: 16 of the topic's hash, then 32 of the content's.
const HASH_BITS: u32 = 48;
const CONTENT_BITS: u32 = 32;

/// The hashes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hashes {
    pub(super) topic: u64,
    /// of topic and payload
    pub(super) content: u64,
}

impl Hashes {
    /// The mark of a message with this packet id, or with 0, which is none, where it came with QoS 0: then it
    /// only says what came last on its topic.
    pub(super) fn mark(self, packet_id: u16) -> u64 {
        let (topic, content) = (self.topic >> HASH_BITS, self.content >> CONTENT_BITS);
        u64::from(packet_id) << HASH_BITS | topic << CONTENT_BITS | content
    }
}

/// The hashes in a mark, of topic and content.
pub(super) fn short(mark: u64) -> (u16, u32) {
    let [_, _, a, b, c, d, e, f] = mark.to_be_bytes();
    (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]))
}

/// A message under a packet id.
struct Message {
    /// tells it from an earlier message with the same packet id
    serial: u64,
    /// the connection on which it came last; 0: an earlier process had it
    connection: u64,
    /// Whether its acknowledgement was handed to the client, and may have arrived.
    acknowledged: bool,
    taken: Option<Taken>,
    /// Further ones, when it belongs to several streams.
    others: Vec<Taken>,
}

/// A message whose rows a stream has taken.
struct Taken {
    stream: usize,
    hash: u64,
    /// of the batch that its rows are in
    fate: Arc<Fate>,
}

impl Message {
    fn taken(&self) -> impl Iterator<Item = &Taken> {
        self.taken.iter().chain(&self.others)
    }

    fn keep(&mut self, mut keep: impl FnMut(&Taken) -> bool) {
        self.taken = self.taken.take().filter(&mut keep);
        self.others.retain(keep);
    }

    fn add(&mut self, taken: Taken) {
        if self.taken.is_none() {
            self.taken = Some(taken);
        } else {
            self.others.push(taken);
        }
    }

    fn is_void(&self) -> bool {
        self.taken().next().is_none()
    }

    /// Whether the broker still has to get its acknowledgement.
    fn is_open(&self) -> bool {
        !self.acknowledged && self.taken().any(|taken| !taken.fate.is_refused())
    }
}

/// The messages of a connection's session that are remembered.
pub(super) struct Marks {
    /// Hash of the client id: a session under another one has packet ids of its own.
    session: u64,
    /// How many acknowledged messages are remembered.
    newest: usize,
    /// by packet id
    messages: HashMap<u16, Message>,
    /// Packet ids and serials in the order of receipt; some belong to messages that are void.
    order: VecDeque<(u16, u64)>,
    serial: u64,
    /// number of the connection
    connection: u64,
    /// Whether the broker resumed the session, and nothing new has come since.
    resuming: bool,
    /// By stream: whether equal messages came under one packet id.
    repeats_itself: Vec<bool>,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coming {
    New,
    /// Some stream has taken it on an earlier connection, or may have.
    Again,
    /// It came before on this connection, and the acknowledgement of then is all that the broker needs.
    AgainHere,
}

impl Marks {
    /// Nothing is remembered yet of the session of `client_id`.
    pub(super) fn new(client_id: &str, in_flight: u16, streams: usize) -> Self {
        Self {
            session: SipHasher13::new().hash(client_id.as_bytes()),
            newest: (2 * usize::from(in_flight).max(LIKELY_WINDOW)).min(KNOWN_MARKS),
            messages: HashMap::new(),
            order: VecDeque::new(),
            serial: 0,
            connection: 0,
            resuming: false,
            repeats_itself: vec![false; streams],
        }
    }

    /// Adds what an earlier process committed of a stream, oldest first. Nobody knows whether it was
    /// acknowledged.
    pub(super) fn know(&mut self, stream: usize, marks: &[u64]) {
        let done = Arc::new(Fate::done());
        let newest = marks.get(marks.len().saturating_sub(KNOWN_MARKS)..).unwrap_or_default();
        for (packet_id, hash) in
            newest.iter().map(|mark| parts(*mark)).filter(|(packet_id, _)| *packet_id != 0)
        {
            if let Some(earlier) = self.messages.get_mut(&packet_id) {
                let mut equal = false;
                earlier.keep(|taken| {
                    equal |= taken.stream == stream && taken.hash == hash;
                    taken.stream != stream
                });
                if earlier.is_void() {
                    self.messages.remove(&packet_id);
                }
                self.note_repetition(stream, equal);
            }
            self.add(packet_id, Taken { stream, hash, fate: Arc::clone(&done) }, true);
        }
    }

    /// The hashes of a message. SipHash-1-3 is one and the same function in every build and release, needs no
    /// allocation, spreads over all bits, of which some are cut off here, and at a byte a nanosecond or less
    /// is lost beside the decoding.
    pub(super) fn hashes(&self, topic: &[u8], payload: &[u8]) -> Hashes {
        let topic = SipHasher13::new_with_keys(self.session, 0).hash(topic);
        Hashes { topic, content: SipHasher13::new_with_keys(self.session, topic).hash(payload) }
    }

    /// A connection is made; `present`: the broker still has the session.
    pub(super) fn connected(&mut self, present: bool) {
        self.connection += 1;
        self.resuming = present;
        if !present {
            self.messages.clear();
            self.order.clear();
        }
    }

    /// A message comes, with or without the DUP flag. Makes void what it shows to be void, so it must be told
    /// of those, too, that there is no room for.
    pub(super) fn comes(&mut self, mark: u64, dup: bool) -> Coming {
        let (packet_id, hash) = parts(mark);
        if !dup && !self.is_repeat_without_flag(packet_id, hash) {
            self.resuming = false;
            if let Some(earlier) = self.messages.remove(&packet_id) {
                for taken in earlier.taken() {
                    self.note_repetition(taken.stream, taken.hash == hash);
                }
            }
            return Coming::New;
        }
        let Some(earlier) = self.messages.get_mut(&packet_id) else { return Coming::New };
        let again_here = earlier.connection == self.connection;
        // On the connection that it came on, nothing is lost between it and its repeat.
        let doubtful = earlier.acknowledged && !again_here;
        let repeats_itself = &self.repeats_itself;
        earlier.keep(|taken| {
            let in_doubt = doubtful && repeats_itself.get(taken.stream).copied().unwrap_or_default();
            taken.hash == hash && !taken.fate.is_refused() && !in_doubt
        });
        if earlier.is_void() {
            self.messages.remove(&packet_id);
            return Coming::New;
        }
        if again_here { Coming::AgainHere } else { Coming::Again }
    }

    /// Whether a message without the flag is one that came before the session was resumed.
    fn is_repeat_without_flag(&self, packet_id: u16, hash: u64) -> bool {
        self.resuming
            && self.messages.get(&packet_id).is_some_and(|earlier| {
                let is_it = |taken: &Taken| taken.hash == hash && !taken.fate.is_refused();
                earlier.connection != self.connection && earlier.taken().any(is_it)
            })
    }

    /// The fate of a message's rows in a stream that has taken them; none: they are new to the stream.
    pub(super) fn first_copy(&self, stream: usize, mark: u64) -> Option<Arc<Fate>> {
        let (packet_id, hash) = parts(mark);
        let mut taken = self.messages.get(&packet_id)?.taken();
        taken.find(|taken| taken.stream == stream && taken.hash == hash).map(|taken| Arc::clone(&taken.fate))
    }

    /// Remembers that a stream has taken a message's rows.
    pub(super) fn remember(&mut self, stream: usize, mark: u64, fate: Arc<Fate>) {
        let (packet_id, hash) = parts(mark);
        self.add(packet_id, Taken { stream, hash, fate }, false);
        // Two for one, so that also what an earlier process left gets less, but not before the broker has
        // repeated what it has.
        for _ in 0..2 {
            self.forget_oldest();
        }
    }

    /// The acknowledgement of a message is going to be sent on this connection.
    pub(super) fn awaits_acknowledgement(&mut self, packet_id: u16) {
        if let Some(message) = self.messages.get_mut(&packet_id) {
            message.connection = self.connection;
            message.acknowledged = false;
        }
    }

    /// The acknowledgement of a message was sent.
    pub(super) fn acknowledged(&mut self, packet_id: u16) {
        if let Some(message) = self.messages.get_mut(&packet_id) {
            message.acknowledged = true;
        }
    }

    fn add(&mut self, packet_id: u16, taken: Taken, acknowledged: bool) {
        if let Some(message) = self.messages.get_mut(&packet_id) {
            return message.add(taken);
        }
        self.serial += 1;
        let (serial, connection) = (self.serial, if acknowledged { 0 } else { self.connection });
        self.messages.insert(
            packet_id,
            Message { serial, connection, acknowledged, taken: Some(taken), others: Vec::new() },
        );
        self.order.push_back((packet_id, serial));
    }

    fn forget_oldest(&mut self) {
        if self.order.len() <= self.newest {
            return;
        }
        let Some(&(packet_id, serial)) = self.order.front() else { return };
        if let Some(oldest) = self.messages.get(&packet_id).filter(|message| message.serial == serial) {
            if oldest.is_open() && self.order.len() <= PACKET_IDS {
                return;
            }
            self.messages.remove(&packet_id);
        }
        self.order.pop_front();
    }

    fn note_repetition(&mut self, stream: usize, equal: bool) {
        if let Some(repeats_itself) = self.repeats_itself.get_mut(stream) {
            *repeats_itself |= equal;
        }
    }
}

/// Packet id and hash of a mark.
fn parts(mark: u64) -> (u16, u64) {
    let [high, low, ..] = mark.to_be_bytes();
    (u16::from_be_bytes([high, low]), mark & ((1 << HASH_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TANK: usize = 0;
    const LOG: usize = 1;

    impl Marks {
        fn mark(&self, packet_id: u16, topic: &[u8], payload: &[u8]) -> u64 {
            self.hashes(topic, payload).mark(packet_id)
        }
    }

    fn marks() -> Marks {
        let mut marks = Marks::new("box", 10, 2);
        marks.connected(true);
        marks
    }

    /// A new message, taken by the tank.
    fn take(marks: &mut Marks, packet_id: u16, payload: &str) -> (u64, Arc<Fate>) {
        let mark = marks.mark(packet_id, b"plant/tank", payload.as_bytes());
        marks.comes(mark, false);
        let fate = Arc::new(Fate::default());
        marks.remember(TANK, mark, Arc::clone(&fate));
        marks.awaits_acknowledgement(packet_id);
        (mark, fate)
    }

    /// Whether the tank knows a message that comes with the DUP flag.
    fn knows(marks: &mut Marks, mark: u64) -> bool {
        marks.comes(mark, true);
        marks.first_copy(TANK, mark).is_some()
    }

    #[test]
    fn a_mark_is_the_same_in_every_build() {
        let marks = marks();
        let mark = marks.mark(0x1234, b"plant/tank", br#"{"n": 1}"#);
        // As a SipHash-1-3 of another make says.
        assert_eq!(mark, 0x1234_2d36_9f73_010c, "{mark:#x}");
        assert_ne!(marks.mark(0x1234, b"plant/tan", br#"k{"n": 1}"#), mark);
        assert_ne!(Marks::new("another box", 10, 2).mark(0x1234, b"plant/tank", br#"{"n": 1}"#), mark);
    }

    #[test]
    fn a_repeat_follows_the_fate_of_the_first_copy_and_is_new_when_that_was_refused() {
        let mut marks = marks();
        let (mark, fate) = take(&mut marks, 7, "a");
        marks.connected(true);
        assert_eq!(marks.comes(mark, true), Coming::Again, "nothing waits for it on this connection");
        assert!(Arc::ptr_eq(&marks.first_copy(TANK, mark).unwrap(), &fate));
        assert!(marks.first_copy(LOG, mark).is_none(), "each stream for itself");
        marks.awaits_acknowledgement(7);

        // Decided later: done, acknowledged, and still known in case the acknowledgement is lost.
        let guard = fate.guard(&Arc::default());
        drop(guard);
        marks.acknowledged(7);
        marks.connected(true);
        assert!(knows(&mut marks, mark));

        let (mark, fate) = take(&mut marks, 8, "b");
        fate.refuse();
        marks.connected(true);
        assert!(!knows(&mut marks, mark));
    }

    #[test]
    fn a_refusal_in_one_stream_brings_the_rows_to_that_stream_only() {
        let mut marks = marks();
        let (mark, fate) = take(&mut marks, 7, "a");
        let refused = Arc::new(Fate::default());
        marks.remember(LOG, mark, Arc::clone(&refused));
        refused.refuse();
        marks.connected(true);
        marks.comes(mark, true);
        assert!(Arc::ptr_eq(&marks.first_copy(TANK, mark).unwrap(), &fate));
        assert!(marks.first_copy(LOG, mark).is_none());
        let again = Arc::new(Fate::default());
        marks.remember(LOG, mark, Arc::clone(&again));
        assert!(Arc::ptr_eq(&marks.first_copy(LOG, mark).unwrap(), &again));
    }

    #[test]
    fn a_repeat_on_the_same_connection_is_not_acknowledged_a_second_time() {
        let mut marks = marks();
        let (mark, _) = take(&mut marks, 7, "a");
        assert_eq!(marks.comes(mark, true), Coming::AgainHere);
        marks.acknowledged(7);
        assert_eq!(marks.comes(mark, true), Coming::AgainHere);
        marks.connected(true);
        assert_eq!(marks.comes(mark, true), Coming::Again);
    }

    #[test]
    fn a_message_without_the_flag_makes_its_packet_id_void_in_every_stream() {
        let mut marks = marks();
        let (mark, _) = take(&mut marks, 7, "a");
        marks.acknowledged(7);
        let other = marks.mark(7, b"plant/log", b"a");
        // There may be no room for it: then nothing is remembered of it, and it comes again with the flag.
        marks.comes(other, false);
        marks.connected(true);
        assert!(!knows(&mut marks, other));
        assert!(!knows(&mut marks, mark));
    }

    #[test]
    fn a_repeat_without_the_flag_is_known_where_a_session_is_resumed_and_only_there() {
        let mut marks = marks();
        let taken: Vec<u64> = (1..=3).map(|id| take(&mut marks, id, &format!("n {id}")).0).collect();
        marks.acknowledged(1);
        marks.connected(true);
        assert!(taken.iter().all(
            |mark| marks.comes(*mark, false) == Coming::Again && marks.first_copy(TANK, *mark).is_some()
        ));
        // A new one ends it: what is equal from now on is another message.
        take(&mut marks, 9, "new");
        assert_eq!(marks.comes(taken[0], false), Coming::New);
        assert!(marks.first_copy(TANK, taken[0]).is_none());
        // A broker that has lost the session has nothing to repeat.
        marks.connected(false);
        assert_eq!(marks.comes(taken[1], false), Coming::New);
    }

    #[test]
    fn a_repeat_without_the_flag_is_known_by_the_next_process_unless_the_stream_repeats_itself() {
        let mut marks = Marks::new("box", 10, 2);
        let [one, pulse] =
            [(1, "a"), (2, "pulse")].map(|(id, payload)| marks.mark(id, b"plant/tank", payload.as_bytes()));
        marks.know(TANK, &[one]);
        marks.know(LOG, &[pulse, pulse]);
        marks.connected(true);
        assert_eq!((marks.comes(one, false), marks.comes(pulse, false)), (Coming::Again, Coming::New));
    }

    #[test]
    fn a_packet_id_that_is_used_again_for_another_message_is_not_mistaken() {
        let mut marks = marks();
        let (first, _) = take(&mut marks, 1, "a");
        marks.acknowledged(1);
        marks.connected(true);
        // The second one was lost on the way, and is seen only now.
        let second = marks.mark(1, b"plant/tank", b"b");
        assert!(!knows(&mut marks, second));
        assert!(!knows(&mut marks, first), "the packet id is the second one's now");
    }

    #[test]
    fn where_equal_messages_come_under_one_packet_id_acknowledged_ones_are_not_trusted() {
        let mut marks = marks();
        let (pulse, _) = take(&mut marks, 1, "pulse");
        marks.acknowledged(1);
        let (again, _) = take(&mut marks, 1, "pulse");
        assert_eq!(again, pulse);
        marks.connected(true);
        assert!(knows(&mut marks, pulse), "it was not acknowledged, so it can be no other");
        marks.awaits_acknowledgement(1);
        marks.acknowledged(1);
        assert!(knows(&mut marks, pulse), "on one connection nothing is lost");
        marks.connected(true);
        assert!(!knows(&mut marks, pulse));
    }

    #[test]
    fn what_an_earlier_process_committed_counts_as_done() {
        let mut marks = Marks::new("box", 10, 2);
        let known: Vec<u64> = (1..=3).map(|id| marks.mark(id, b"plant/tank", b"x")).collect();
        marks.know(TANK, &known);
        let log = marks.mark(2, b"plant/log", b"y");
        marks.know(LOG, &[log]);
        marks.connected(true);
        assert!(known.iter().all(|mark| knows(&mut marks, *mark)));

        // Two streams have something of packet id 2: one of them is older, and the broker says which.
        let mut marks = Marks::new("box", 10, 2);
        marks.know(TANK, &known);
        marks.know(LOG, &[log]);
        marks.connected(true);
        marks.comes(log, true);
        assert!(marks.first_copy(LOG, log).is_some());
        assert!(!knows(&mut marks, known[1]));
    }

    #[test]
    fn the_newest_of_an_earlier_process_counts_and_pulses_are_not_trusted() {
        let mut marks = Marks::new("box", 10, 2);
        let [first, second] = ["a", "b"].map(|payload| marks.mark(1, b"plant/tank", payload.as_bytes()));
        marks.know(TANK, &[first, second]);
        marks.connected(true);
        assert!(!knows(&mut marks, first));

        let mut marks = Marks::new("box", 10, 2);
        marks.know(TANK, &[first, second]);
        marks.connected(true);
        assert!(knows(&mut marks, second));

        let mut marks = Marks::new("box", 10, 2);
        marks.know(TANK, &[first, second, second]);
        marks.connected(true);
        assert!(!knows(&mut marks, second));
    }

    #[test]
    fn a_broker_without_the_session_makes_everything_void() {
        let mut marks = Marks::new("box", 10, 2);
        let known = marks.mark(1, b"plant/tank", b"x");
        marks.know(TANK, &[known]);
        marks.connected(true);
        let (mark, _) = take(&mut marks, 7, "a");
        marks.connected(false);
        assert!(!knows(&mut marks, known));
        assert!(!knows(&mut marks, mark));
        assert!(marks.order.is_empty());
    }

    #[test]
    fn of_acknowledged_messages_the_newest_are_remembered() {
        let mut marks = marks();
        let newest = u16::try_from(marks.newest).unwrap();
        let taken: Vec<u64> = (1..=newest + 1)
            .map(|id| {
                let (mark, _) = take(&mut marks, id, "a");
                marks.acknowledged(id);
                mark
            })
            .collect();
        assert_eq!((marks.messages.len(), marks.order.len()), (marks.newest, marks.newest));
        marks.connected(true);
        assert!(!knows(&mut marks, taken[0]));
        assert!(taken.iter().skip(1).all(|mark| knows(&mut marks, *mark)));
    }

    #[test]
    fn what_is_not_acknowledged_is_never_forgotten_and_goes_when_it_is() {
        let mut marks = marks();
        let taken: Vec<u64> = (1..=u16::MAX).map(|id| take(&mut marks, id, "a").0).collect();
        marks.connected(true);
        assert!(taken.iter().all(|mark| knows(&mut marks, *mark)));
        for round in 0..3_u16 {
            for id in 1..=u16::MAX {
                marks.acknowledged(id);
                take(&mut marks, id, &round.to_string());
            }
            assert!(marks.messages.len() <= PACKET_IDS);
            assert!(marks.order.len() <= PACKET_IDS + 1, "{}", marks.order.len());
        }
        for id in 1..=u16::MAX {
            marks.acknowledged(id);
        }
        for id in 1..=u16::MAX {
            take(&mut marks, id, "the last");
            marks.acknowledged(id);
        }
        assert_eq!((marks.messages.len(), marks.order.len()), (marks.newest, marks.newest));
    }

    #[test]
    fn refused_messages_do_not_keep_others_in_memory() {
        let mut marks = marks();
        for id in 1..=5_000 {
            let (_, fate) = take(&mut marks, id, "a");
            if id % 2 == 0 {
                fate.refuse();
            } else {
                marks.acknowledged(id);
            }
        }
        assert!(marks.order.len() <= marks.newest);
    }

    #[test]
    fn what_an_earlier_process_left_shrinks_to_the_usual_number() {
        let mut marks = Marks::new("box", 10, 2);
        let known: Vec<u64> = (0..40_000_u32)
            .map(|n| marks.mark(u16::try_from(n % 60_000).unwrap(), b"plant/tank", b"x"))
            .collect();
        marks.know(TANK, &known);
        assert_eq!(marks.order.len(), KNOWN_MARKS);
        marks.connected(true);
        for id in 1..=u16::MAX {
            take(&mut marks, id, "a");
            marks.acknowledged(id);
        }
        assert_eq!((marks.messages.len(), marks.order.len()), (marks.newest, marks.newest));
    }
}
