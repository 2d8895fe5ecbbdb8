//! Messages of J1939 that are longer than a frame (SAE J1939-21, section 5.10), as they pass between others:
//! broadcasts (BAM) and connections (RTS and CTS). A pure state machine: frames and the time in, messages
//! out.
//!
//! Nothing is ever sent, so a packet that was not heard is only known if it is sent again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use super::id::{GLOBAL, J1939Id};

/// TP.CM: begins and ends a transfer.
pub const TP_CM: u32 = 0xec00;

/// TP.DT: a packet of it.
pub const TP_DT: u32 = 0xeb00;

/// Bytes in a packet.
const PACKET: usize = 7;

/// The longest message: 255 packets.
pub const MOST_BYTES: usize = 255 * PACKET;

/// How long after the last packet of a broadcast the next one may come (T1).
const BROADCAST_TIMEOUT: Duration = Duration::from_millis(750);

/// The same for connections, where the receiver's word is awaited (T2, T3).
const CONNECTION_TIMEOUT: Duration = Duration::from_millis(1250);

/// As many transfers at a time take half a megabyte. A bus at 250 kbit/s carries some forty.
const MOST_TRANSFERS: usize = 256;

/// A message that came in several frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    /// its own group, with the priority and the addresses of the frames
    pub id: J1939Id,
    /// 1 to 1785 bytes
    pub data: Vec<u8>,
}

/// Messages that were begun and not heard to their end, by the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// A packet of a broadcast was not heard.
    pub gaps: u64,
    /// Nothing more was heard of it.
    pub timeouts: u64,
    /// One of the two has given it up, or begun another one.
    pub aborted: u64,
    /// The receiver has confirmed what was not heard as a whole.
    pub unheard: u64,
    /// There were too many at a time.
    pub crowded_out: u64,
    /// It began with a length that does not fit its packets; also frames of the protocol that are none.
    pub malformed: u64,
}

impl Losses {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.gaps + self.timeouts + self.aborted + self.unheard + self.crowded_out + self.malformed
    }
}

/// Messages on their way, by source and destination: there is one between two at a time.
#[derive(Debug, Clone, Default)]
pub struct Reassembly {
    transfers: HashMap<(u8, u8), Transfer>,
    losses: Losses,
}

#[derive(Debug, Clone)]
struct Transfer {
    pgn: u32,
    priority: u8,
    length: usize,
    packets: Vec<Option<[u8; PACKET]>>,
    /// how many packets were heard
    heard: usize,
    /// when it was last heard of
    last: Duration,
}

impl Transfer {
    fn is_over(&self, destination: u8, now: Duration) -> bool {
        let timeout = if destination == GLOBAL { BROADCAST_TIMEOUT } else { CONNECTION_TIMEOUT };
        now.saturating_sub(self.last) > timeout
    }
}

impl Reassembly {
    /// Takes a frame of the groups [`TP_CM`] and [`TP_DT`]; others have no effect. `now`: since any moment.
    pub fn take(&mut self, id: J1939Id, data: &[u8], now: Duration) -> Option<Transferred> {
        let destination = id.destination.unwrap_or(GLOBAL);
        match id.pgn {
            TP_CM => self.control(id, destination, data, now),
            TP_DT => return self.packet((id.source, destination), data, now),
            _ => {}
        }
        None
    }

    /// Gives up what has not been heard of for too long. Of no need for others to go well.
    pub fn expire(&mut self, now: Duration) {
        let before = self.transfers.len();
        self.transfers.retain(|(_, destination), transfer| !transfer.is_over(*destination, now));
        self.losses.timeouts += count(before - self.transfers.len());
    }

    /// What was lost so far.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.losses
    }

    fn control(&mut self, id: J1939Id, destination: u8, data: &[u8], now: Duration) {
        let &[kind, low, high, packets, _, low_pgn, middle_pgn, high_pgn] = data else {
            self.losses.malformed += 1;
            return;
        };
        let pgn = u32::from_le_bytes([low_pgn, middle_pgn, high_pgn, 0]);
        let length = usize::from(u16::from_le_bytes([low, high]));
        let backwards = (destination, id.source);
        match kind {
            REQUEST | BROADCAST => {
                let fits = length > PACKET + 1 && length.div_ceil(PACKET) == usize::from(packets);
                if !fits || (kind == BROADCAST) != (destination == GLOBAL) {
                    self.losses.malformed += 1;
                    return;
                }
                let packets = vec![None; packets.into()];
                let transfer = Transfer { pgn, priority: id.priority, length, packets, heard: 0, last: now };
                self.begin((id.source, destination), transfer, now);
            }
            // The receiver's words go the other way.
            CLEAR => {
                if let Some(transfer) =
                    self.transfers.get_mut(&backwards).filter(|transfer| transfer.pgn == pgn)
                {
                    transfer.last = now;
                }
            }
            END_OF_MESSAGE => self.losses.unheard += self.end(backwards, pgn),
            ABORT => {
                self.losses.aborted += self.end(backwards, pgn) + self.end((id.source, destination), pgn);
            }
            _ => self.losses.malformed += 1,
        }
    }

    fn begin(&mut self, between: (u8, u8), transfer: Transfer, now: Duration) {
        if let Some(other) = self.transfers.insert(between, transfer) {
            let is_over = other.is_over(between.1, now);
            *(if is_over { &mut self.losses.timeouts } else { &mut self.losses.aborted }) += 1;
        }
        if self.transfers.len() > MOST_TRANSFERS {
            self.expire(now);
        }
        if self.transfers.len() > MOST_TRANSFERS {
            let oldest = self.transfers.iter().min_by_key(|(between, transfer)| (transfer.last, **between));
            if let Some(oldest) = oldest.map(|(between, _)| *between) {
                self.transfers.remove(&oldest);
                self.losses.crowded_out += 1;
            }
        }
    }

    /// How many there were: one or none.
    fn end(&mut self, between: (u8, u8), pgn: u32) -> u64 {
        match self.transfers.entry(between) {
            Entry::Occupied(transfer) if transfer.get().pgn == pgn => {
                transfer.remove();
                1
            }
            _ => 0,
        }
    }

    fn packet(&mut self, between: (u8, u8), data: &[u8], now: Duration) -> Option<Transferred> {
        // That nobody has heard its beginning is no loss: one joins a bus in the middle.
        let Entry::Occupied(mut entry) = self.transfers.entry(between) else { return None };
        let (source, destination) = between;
        let transfer = entry.get_mut();
        if transfer.is_over(destination, now) {
            entry.remove();
            self.losses.timeouts += 1;
            return None;
        }
        let Some((number, packet)) = data.split_first().and_then(|(number, rest)| {
            Some((usize::from(*number).checked_sub(1)?, <[u8; PACKET]>::try_from(rest).ok()?))
        }) else {
            self.losses.malformed += 1;
            return None;
        };
        // Nobody can ask for a broadcast's packets again.
        if destination == GLOBAL && number != transfer.heard {
            entry.remove();
            self.losses.gaps += 1;
            return None;
        }
        transfer.last = now;
        let Some(place) = transfer.packets.get_mut(number) else {
            self.losses.malformed += 1;
            return None;
        };
        if place.replace(packet).is_none() {
            transfer.heard += 1;
        }
        if transfer.heard < transfer.packets.len() {
            return None;
        }
        let transfer = entry.remove();
        let mut data: Vec<u8> = transfer.packets.into_iter().flatten().flatten().collect();
        data.truncate(transfer.length);
        let (priority, pgn) = (transfer.priority, transfer.pgn);
        Some(Transferred { id: J1939Id { priority, pgn, source, destination: Some(destination) }, data })
    }
}

/// What TP.CM frames begin with.
const REQUEST: u8 = 16;
const CLEAR: u8 = 17;
const END_OF_MESSAGE: u8 = 19;
const BROADCAST: u8 = 32;
const ABORT: u8 = 255;

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::id::Id;
    use super::*;
    use proptest::prelude::*;

    fn feed(reassembly: &mut Reassembly, frames: &[(u32, &[u8])]) -> Vec<Transferred> {
        let frames = frames.iter().map(|(id, data)| (J1939Id::parse(Id::Extended(*id)).unwrap(), *data));
        frames.filter_map(|(id, data)| reassembly.take(id, data, Duration::ZERO)).collect()
    }

    /// The engine broadcasts two active trouble codes (DM1, PGN 65226): 10 bytes in 2 packets.
    const BAM: (u32, &[u8]) = (0x18ec_ff00, &[32, 10, 0, 2, 255, 0xca, 0xfe, 0x00]);
    const FIRST: (u32, &[u8]) = (0x18eb_ff00, &[1, 0x04, 0xff, 0x6e, 0x00, 0x03, 0x01, 0x64]);
    const SECOND: (u32, &[u8]) = (0x18eb_ff00, &[2, 0x00, 0x01, 0x02, 0xff, 0xff, 0xff, 0xff]);

    #[test]
    fn a_broadcast_is_put_together() {
        let mut reassembly = Reassembly::default();
        let id = J1939Id { priority: 6, pgn: 65_226, source: 0, destination: Some(GLOBAL) };
        let data = vec![0x04, 0xff, 0x6e, 0x00, 0x03, 0x01, 0x64, 0x00, 0x01, 0x02];
        assert_eq!(feed(&mut reassembly, &[BAM, FIRST, SECOND]), [Transferred { id, data }]);
        assert_eq!(feed(&mut reassembly, &[FIRST, SECOND]), [], "it is over");
        assert_eq!(reassembly.losses(), Losses::default());
    }

    #[test]
    fn what_is_lost_is_counted_by_its_reason() {
        let losses = |frames: &[(u32, &[u8])]| {
            let mut reassembly = Reassembly::default();
            assert_eq!(feed(&mut reassembly, frames), []);
            reassembly.expire(Duration::from_secs(2));
            reassembly.losses()
        };
        let none = Losses::default();
        assert_eq!(losses(&[BAM, SECOND]), Losses { gaps: 1, ..none });
        assert_eq!(losses(&[BAM, FIRST, FIRST, SECOND]), Losses { gaps: 1, ..none });
        assert_eq!(losses(&[BAM, FIRST]), Losses { timeouts: 1, ..none });
        assert_eq!(losses(&[BAM, BAM]), Losses { aborted: 1, timeouts: 1, ..none });
        let short: (u32, &[u8]) = (0x18ec_ff00, &[32, 10, 0, 3, 255, 0xca, 0xfe, 0x00]);
        assert_eq!(losses(&[short, FIRST]), Losses { malformed: 1, ..none });
        assert_eq!(losses(&[(0x18ec_ff00, &[32, 10])]), Losses { malformed: 1, ..none });
    }

    /// 0x17 sends 20 bytes of group 0xEF00 to 0x28, which asks for two packets, and then for the last two.
    #[test]
    fn a_connection_between_two_others_is_put_together() {
        let request: (u32, &[u8]) = (0x1cec_2817, &[16, 20, 0, 3, 2, 0x00, 0xef, 0x00]);
        let clear: (u32, &[u8]) = (0x1cec_1728, &[17, 2, 1, 255, 255, 0x00, 0xef, 0x00]);
        let again: (u32, &[u8]) = (0x1cec_1728, &[17, 2, 2, 255, 255, 0x00, 0xef, 0x00]);
        let end: (u32, &[u8]) = (0x1cec_1728, &[19, 20, 0, 3, 255, 0x00, 0xef, 0x00]);
        let abort: (u32, &[u8]) = (0x1cec_1728, &[255, 3, 255, 255, 255, 0x00, 0xef, 0x00]);
        let packets: [(u32, &[u8]); 3] = [
            (0x1ceb_2817, &[1, 1, 2, 3, 4, 5, 6, 7]),
            (0x1ceb_2817, &[2, 8, 9, 10, 11, 12, 13, 14]),
            (0x1ceb_2817, &[3, 15, 16, 17, 18, 19, 20, 255]),
        ];
        let [one, two, three] = packets;
        let mut reassembly = Reassembly::default();
        let frames = [request, clear, one, two, again, two, three, end];
        let id = J1939Id { priority: 7, pgn: 0xef00, source: 0x17, destination: Some(0x28) };
        assert_eq!(feed(&mut reassembly, &frames), [Transferred { id, data: (1..=20).collect() }]);
        assert_eq!(reassembly.losses(), Losses::default());
        assert_eq!(feed(&mut reassembly, &[request, one, three, end]), []);
        assert_eq!(feed(&mut reassembly, &[request, one, abort, two, three]), []);
        assert_eq!(reassembly.losses(), Losses { unheard: 1, aborted: 1, ..Losses::default() });
    }

    #[test]
    fn transfers_that_stay_away_make_room() {
        let mut reassembly = Reassembly::default();
        let request = [16, 20, 0, 3, 2, 0x00, 0xef, 0x00];
        for (source, now) in (0..600_u32).zip(0..) {
            let id = J1939Id {
                priority: 7,
                pgn: TP_CM,
                source: source.to_le_bytes()[0],
                destination: Some(source.to_le_bytes()[1]),
            };
            reassembly.take(id, &request, Duration::from_millis(now));
            assert!(reassembly.transfers.len() <= MOST_TRANSFERS);
        }
        assert_eq!(reassembly.losses().crowded_out, 600 - 256);
    }

    fn frames_of(data: &[u8], source: u8, destination: u8) -> Vec<(J1939Id, Vec<u8>)> {
        let id = |pgn| J1939Id { priority: 6, pgn, source, destination: Some(destination) };
        let kind = if destination == GLOBAL { 32 } else { 16 };
        let [low, high, ..] = data.len().to_le_bytes();
        let begin = vec![kind, low, high, data.len().div_ceil(7).to_le_bytes()[0], 255, 0xca, 0xfe, 0];
        let packets = data.chunks(7).zip(1..=255).map(|(chunk, number)| {
            let mut packet = vec![number];
            packet.extend_from_slice(chunk);
            packet.resize(8, 255);
            (id(TP_DT), packet)
        });
        std::iter::once((id(TP_CM), begin)).chain(packets).collect()
    }

    proptest! {
        #[test]
        fn messages_of_several_senders_are_told_apart(
            messages in proptest::collection::btree_map(
                any::<u8>(),
                (proptest::collection::vec(any::<u8>(), 9..=MOST_BYTES), any::<u8>()),
                1..6,
            ),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 2000),
        ) {
            let mut reassembly = Reassembly::default();
            let frames = |(source, (data, to)): (&u8, &(Vec<u8>, u8))| frames_of(data, *source, *to).into_iter();
            let mut sending: Vec<_> = messages.iter().map(frames).collect();
            let mut got = std::collections::BTreeMap::new();
            for index in order {
                let sender = index.index(sending.len());
                let Some((id, data)) = sending[sender].next() else { continue };
                if let Some(transferred) = reassembly.take(id, &data, Duration::ZERO) {
                    got.insert(transferred.id.source, transferred.data);
                }
            }
            prop_assert_eq!(reassembly.losses().total(), 0);
            for (source, data) in got {
                prop_assert_eq!(&data, &messages[&source].0);
            }
        }

        #[test]
        fn any_frames_give_messages_of_their_length(
            frames in proptest::collection::vec(
                (0..8_u8, 0..8_u8, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..=8), 0..300_u64),
                0..300,
            ),
        ) {
            let mut reassembly = Reassembly::default();
            let mut now = Duration::ZERO;
            for (source, destination, is_packet, data, millis) in frames {
                now += Duration::from_millis(millis);
                let pgn = if is_packet { TP_DT } else { TP_CM };
                let id = J1939Id { priority: 7, pgn, source, destination: Some(destination) };
                if let Some(transferred) = reassembly.take(id, &data, now) {
                    prop_assert!((9..=MOST_BYTES).contains(&transferred.data.len()));
                }
            }
        }
    }
}
