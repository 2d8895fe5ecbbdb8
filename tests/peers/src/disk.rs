//! A disk with a volatile write cache, for a virtual machine whose power is cut.
//!
//! QEMU reaches it as a network block device
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>, fixed newstyle with simple
//! replies). What the machine has written may be read back at once, but is only certain to be there after a
//! power cut if a flush followed it: of later writes, chance keeps some, loses some, and tears some between
//! their sectors, each for itself, so that a later one may be kept and an earlier one lost. That is what
//! disks of good faith do; one that [lies](Disk::lying) also exists.
//!
//! Writes with forced unit access are not offered, so QEMU makes a write and a flush of each.

use std::collections::HashSet;
use std::io::{self, Read, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::PATIENCE;
use crate::dice::Dice;

/// What a disk writes whole or not at all, bytes.
const SECTOR: usize = 512;

/// The disk. Its content lives in memory.
#[derive(Debug)]
pub struct Disk {
    dir: tempfile::TempDir,
    content: Arc<Mutex<Content>>,
    state: watch::Receiver<State>,
    dice: Dice,
}

/// What a power cut did to writes that no flush had followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// they are there
    pub kept: usize,
    /// some of their sectors are there
    pub torn: usize,
    /// they are not there
    pub lost: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    InUse,
    Stalled,
}

#[derive(Debug)]
struct Content {
    /// what reads see
    seen: Vec<u8>,
    /// what is there after a power cut in any case
    certain: Vec<u8>,
    /// written since the last flush, in order
    uncertain: Vec<Write>,
    flushes_work: bool,
    /// stops answering when so many more writes and flushes have been asked for
    stalls_in: Option<u64>,
}

#[derive(Debug)]
struct Write {
    offset: usize,
    data: Vec<u8>,
}

impl Disk {
    /// A disk with this content. `seed` decides what power cuts leave of it.
    #[must_use]
    pub fn new(content: Vec<u8>, seed: u64) -> Self {
        Self::serve(content, seed, true)
    }

    /// A disk that answers a flush and does nothing about it, as bad ones do. A power cut takes all that was
    /// ever written.
    #[must_use]
    pub fn lying(content: Vec<u8>, seed: u64) -> Self {
        Self::serve(content, seed, false)
    }

    fn serve(content: Vec<u8>, seed: u64, flushes_work: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("disk")).unwrap();
        let content = Content {
            seen: content.clone(),
            certain: content,
            uncertain: Vec::new(),
            flushes_work,
            stalls_in: None,
        };
        let content = Arc::new(Mutex::new(content));
        let (sender, state) = watch::channel(State::Idle);
        let disk = Self { dir, content: Arc::clone(&content), state, dice: Dice::new(seed) };
        // It serves until the process ends: one test has few disks.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                sender.send_replace(State::InUse);
                // An error is the end of a machine that was killed in the middle of a request.
                drop(stream.and_then(|stream| Session { stream, content: &content, state: &sender }.run()));
                sender.send_replace(State::Idle);
            }
        });
        disk
    }

    /// The options that make it the machine's first disk, `/dev/vda`.
    #[must_use]
    pub fn qemu_options(&self) -> [String; 4] {
        let socket = self.dir.path().join("disk");
        let drive = format!("driver=nbd,node-name=disk,server.type=unix,server.path={}", socket.display());
        ["-blockdev".into(), drive, "-device".into(), "virtio-blk-pci,drive=disk".into()]
    }

    /// Lets `writes` more writes and flushes pass, then answers nothing any more: the moment at which the
    /// power goes. What is returned waits for that.
    pub fn stall_after(&self, writes: u64) -> impl Future<Output = ()> + use<> {
        self.content().stalls_in = Some(writes);
        let mut state = self.state.clone();
        async move {
            let stalled = timeout(PATIENCE, state.wait_for(|state| *state == State::Stalled)).await;
            stalled.expect("the machine writes").expect("the disk is served");
        }
    }

    /// What the power cut leaves. The machine is dead already.
    pub async fn cut(&mut self) -> Loss {
        timeout(PATIENCE, self.state.wait_for(|state| *state == State::Idle))
            .await
            .expect("the machine is dead")
            .expect("the disk is served");
        let mut content = self.content.lock().unwrap();
        content.stalls_in = None;
        content.cut(&mut self.dice)
    }

    /// What is on it.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.content().seen.clone()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }
}

impl Content {
    /// The place that a request is about; none outside of the disk.
    fn place(&mut self, offset: u64, length: usize) -> Option<&mut [u8]> {
        let offset = usize::try_from(offset).ok()?;
        self.seen.get_mut(offset..offset.checked_add(length)?)
    }

    fn write(&mut self, offset: u64, data: Vec<u8>) -> Option<()> {
        self.place(offset, data.len())?.copy_from_slice(&data);
        self.uncertain.push(Write { offset: usize::try_from(offset).ok()?, data });
        Some(())
    }

    fn flush(&mut self) {
        if self.flushes_work {
            self.uncertain.drain(..).for_each(|write| write.put(&mut self.certain, |_| true));
        }
    }

    /// Whether a write or flush gets no answer any more.
    fn stalls(&mut self) -> bool {
        let Some(left) = &mut self.stalls_in else { return false };
        let stalls = *left == 0;
        *left = left.saturating_sub(1);
        stalls
    }

    fn cut(&mut self, dice: &mut Dice) -> Loss {
        let mut loss = Loss::default();
        for write in self.uncertain.drain(..) {
            let sectors = write.data.len().div_ceil(SECTOR);
            let kept: HashSet<usize> = match dice.below(3) {
                0 if self.flushes_work => (0..sectors).collect(),
                1 if self.flushes_work => (0..sectors).filter(|_| dice.chance(1, 2)).collect(),
                _ => HashSet::new(),
            };
            match kept.len() {
                0 => loss.lost += 1,
                some if some < sectors => loss.torn += 1,
                _ => loss.kept += 1,
            }
            write.put(&mut self.certain, |sector| kept.contains(&sector));
        }
        self.seen.clone_from(&self.certain);
        loss
    }
}

impl Write {
    /// Puts those of its sectors that are `kept` into `content`.
    fn put(&self, content: &mut [u8], kept: impl Fn(usize) -> bool) {
        let place = content.get_mut(self.offset..).unwrap();
        for (sector, (from, to)) in self.data.chunks(SECTOR).zip(place.chunks_mut(SECTOR)).enumerate() {
            if kept(sector) {
                to.get_mut(..from.len()).unwrap().copy_from_slice(from);
            }
        }
    }
}

/// The numbers of the protocol that are used here, by their names there.
mod nbd {
    pub(super) const IHAVEOPT: u64 = 0x4948_4156_454F_5054;
    pub(super) const REPLY_MAGIC: u64 = 0x0003_E889_0455_65A9;
    pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
    pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
    /// `NBD_FLAG_FIXED_NEWSTYLE`, `NBD_FLAG_NO_ZEROES`
    pub(super) const HANDSHAKE_FLAGS: u16 = 1 | 2;
    /// `NBD_FLAG_HAS_FLAGS`, `NBD_FLAG_SEND_FLUSH`
    pub(super) const TRANSMISSION_FLAGS: u16 = 1 | 4;
    pub(super) const OPT_GO: u32 = 7;
    pub(super) const REP_ACK: u32 = 1;
    pub(super) const REP_INFO: u32 = 3;
    pub(super) const REP_ERR_UNSUP: u32 = 0x8000_0001;
    pub(super) const INFO_EXPORT: u16 = 0;
    pub(super) const CMD_READ: u16 = 0;
    pub(super) const CMD_WRITE: u16 = 1;
    pub(super) const CMD_FLUSH: u16 = 3;
    pub(super) const EINVAL: u32 = 22;
}

/// A machine that uses the disk.
struct Session<'a> {
    stream: UnixStream,
    content: &'a Mutex<Content>,
    state: &'a watch::Sender<State>,
}

impl Session<'_> {
    fn run(mut self) -> io::Result<()> {
        self.handshake()?;
        loop {
            self.request()?;
        }
    }

    fn handshake(&mut self) -> io::Result<()> {
        self.stream.write_all(b"NBDMAGIC")?;
        self.stream.write_all(&nbd::IHAVEOPT.to_be_bytes())?;
        self.stream.write_all(&nbd::HANDSHAKE_FLAGS.to_be_bytes())?;
        let _client_flags: [u8; 4] = self.take()?;
        loop {
            let _magic: [u8; 8] = self.take()?;
            let option = u32::from_be_bytes(self.take()?);
            let length = u32::from_be_bytes(self.take()?);
            self.data(length)?;
            if option != nbd::OPT_GO {
                self.option_reply(option, nbd::REP_ERR_UNSUP, &[])?;
                continue;
            }
            let size = self.content.lock().unwrap().seen.len() as u64;
            let info = [
                &nbd::INFO_EXPORT.to_be_bytes()[..],
                &size.to_be_bytes(),
                &nbd::TRANSMISSION_FLAGS.to_be_bytes(),
            ]
            .concat();
            self.option_reply(option, nbd::REP_INFO, &info)?;
            return self.option_reply(option, nbd::REP_ACK, &[]);
        }
    }

    fn option_reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        self.stream.write_all(
            &[&nbd::REPLY_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes(), &length, data]
                .concat(),
        )
    }

    /// Answers one request. A disk that has stalled takes what was under way, and gives no answer.
    fn request(&mut self) -> io::Result<()> {
        let magic = u32::from_be_bytes(self.take()?);
        assert_eq!(magic, nbd::REQUEST_MAGIC, "QEMU speaks the protocol");
        let _flags: [u8; 2] = self.take()?;
        let command = u16::from_be_bytes(self.take()?);
        let cookie: [u8; 8] = self.take()?;
        let offset = u64::from_be_bytes(self.take()?);
        let length = u32::from_be_bytes(self.take()?);
        let data = if command == nbd::CMD_WRITE { self.data(length)? } else { Vec::new() };
        let mut content = self.content.lock().unwrap();
        let stalled = matches!(command, nbd::CMD_WRITE | nbd::CMD_FLUSH) && content.stalls();
        let answer = match command {
            nbd::CMD_READ => content.place(offset, length as usize).map(|place| place.to_vec()),
            nbd::CMD_WRITE => content.write(offset, data).map(|()| Vec::new()),
            nbd::CMD_FLUSH if stalled => None,
            nbd::CMD_FLUSH => {
                content.flush();
                Some(Vec::new())
            }
            // NBD_CMD_DISC, which has no answer
            _ => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        drop(content);
        if stalled {
            self.state.send_replace(State::Stalled);
            return Ok(());
        }
        let error = if answer.is_some() { 0 } else { nbd::EINVAL };
        let answer = answer.unwrap_or_default();
        self.stream.write_all(
            &[&nbd::SIMPLE_REPLY_MAGIC.to_be_bytes()[..], &error.to_be_bytes(), &cookie, &answer].concat(),
        )
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).map(|()| bytes)
    }

    fn data(&mut self, length: u32) -> io::Result<Vec<u8>> {
        let mut data = vec![0; length as usize];
        self.stream.read_exact(&mut data).map(|()| data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64 * SECTOR;

    fn content(flushes_work: bool) -> Content {
        Content {
            seen: vec![0; SIZE],
            certain: vec![0; SIZE],
            uncertain: Vec::new(),
            flushes_work,
            stalls_in: None,
        }
    }

    #[test]
    fn what_was_flushed_is_there_after_any_cut_and_what_follows_may_be_lost_kept_or_torn() {
        let mut dice = Dice::new(1);
        let mut sum = Loss::default();
        for _ in 0..200 {
            let mut content = content(true);
            for n in 0..8 {
                content.write(n * 4 * SECTOR as u64, vec![1; 4 * SECTOR]).unwrap();
            }
            content.flush();
            for n in 4..12 {
                content.write(n * 4 * SECTOR as u64, vec![2; 4 * SECTOR]).unwrap();
            }
            assert!(
                content.seen[16 * SECTOR..48 * SECTOR].iter().all(|byte| *byte == 2),
                "it is read back at once"
            );
            let loss = content.cut(&mut dice);
            assert_eq!(loss.kept + loss.torn + loss.lost, 8);
            assert_eq!(content.seen, content.certain);
            assert!(
                content.seen[..16 * SECTOR].iter().all(|byte| *byte == 1),
                "it was flushed, and not written again"
            );
            for sector in content.seen[16 * SECTOR..].chunks(SECTOR) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
            }
            sum = Loss { kept: sum.kept + loss.kept, torn: sum.torn + loss.torn, lost: sum.lost + loss.lost };
        }
        assert!(sum.kept > 400 && sum.torn > 400 && sum.lost > 400, "{sum:?}");
    }

    #[test]
    fn a_lying_disk_loses_what_was_flushed() {
        let mut content = content(false);
        content.write(0, vec![1; SECTOR]).unwrap();
        content.flush();
        assert_eq!(content.cut(&mut Dice::new(1)), Loss { kept: 0, torn: 0, lost: 1 });
        assert_eq!(content.seen, vec![0; SIZE]);
    }

    #[test]
    fn a_write_beyond_the_end_is_refused() {
        let mut content = content(true);
        assert!(content.write(SIZE as u64 - 1, vec![1; 2]).is_none());
        assert!(content.write(u64::MAX, vec![1; 2]).is_none());
        assert!(content.uncertain.is_empty());
    }
}
