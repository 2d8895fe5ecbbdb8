//! A device on TCP that does as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tidegate_peers::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What has come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Connected,
    Closed,
    /// unit, and the request from its function code on
    Request(u8, Vec<u8>),
}

/// How the device is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nature {
    /// registers that exist, by function code; none of a function: each has its own number
    pub(crate) registers: BTreeMap<u8, BTreeMap<u16, u16>>,
    /// registers that do not exist
    pub(crate) missing: Vec<u16>,
    /// units that do not answer
    pub(crate) silent: Vec<u8>,
    /// functions that it does not know
    pub(crate) lacks: Vec<u8>,
    /// units whose answers have two bytes too many
    pub(crate) garbled: Vec<u8>,
    /// whether it closes the connection after each answer
    pub(crate) hangs_up: bool,
    /// whether it forgets what is written
    pub(crate) forgets: bool,
}

pub(crate) struct Script {
    port: u16,
    pub(crate) nature: Arc<Mutex<Nature>>,
    seen: mpsc::Receiver<Seen>,
    /// answers wait for this
    hold: Arc<tokio::sync::Mutex<()>>,
    task: JoinHandle<()>,
}

impl Script {
    pub(crate) async fn start(nature: Nature) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self::listen(listener, port, nature)
    }

    fn listen(listener: TcpListener, port: u16, nature: Nature) -> Self {
        let (seen_tx, seen) = mpsc::channel(100_000);
        let (nature, hold) = (Arc::new(Mutex::new(nature)), Arc::default());
        let (natures, holds) = (Arc::clone(&nature), Arc::clone(&hold));
        // One after the other, so that it ends with the task.
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                seen_tx.send(Seen::Connected).await.unwrap();
                let _ = serve(stream, &natures, &holds, &seen_tx).await;
                seen_tx.send(Seen::Closed).await.unwrap();
            }
        });
        Self { port, nature, seen, hold, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Goes away, with its connection and its port.
    pub(crate) async fn stop(self) -> u16 {
        self.task.abort();
        let _ = self.task.await;
        self.port
    }

    /// Comes back on a port that was its own.
    pub(crate) async fn come_back(port: u16, nature: Nature) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        Self::listen(listener, port, nature)
    }

    /// Keeps answers back as long as what is returned is there.
    pub(crate) async fn hold(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.hold).lock_owned().await
    }

    pub(crate) async fn seen(&mut self) -> Seen {
        timeout(PATIENCE, self.seen.recv()).await.expect("something comes").unwrap()
    }

    /// The next request.
    pub(crate) async fn request(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Seen::Request(unit, content) = self.seen().await {
                return (unit, content);
            }
        }
    }

    /// The next request that writes.
    pub(crate) async fn write(&mut self) -> Vec<u8> {
        loop {
            let (_, content) = self.request().await;
            if content[0] > 4 {
                return content;
            }
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    nature: &Mutex<Nature>,
    hold: &tokio::sync::Mutex<()>,
    seen: &mpsc::Sender<Seen>,
) -> std::io::Result<()> {
    loop {
        let mut header = [0; 7];
        stream.read_exact(&mut header).await?;
        let mut content = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) - 1];
        stream.read_exact(&mut content).await?;
        seen.send(Seen::Request(header[6], content.clone())).await.unwrap();
        drop(hold.lock().await);
        let (answer, hangs_up) = {
            let mut nature = nature.lock().unwrap();
            let mut answer = nature.answer(header[6], &content);
            if nature.garbled.contains(&header[6]) {
                answer.iter_mut().for_each(|answer| answer.extend([0, 0]));
            }
            (answer, nature.hangs_up)
        };
        let Some(answer) = answer else { continue };
        let length = u16::try_from(answer.len() + 1).unwrap().to_be_bytes();
        header[4..6].copy_from_slice(&length);
        stream.write_all(&[&header[..], &answer].concat()).await?;
        if hangs_up {
            return Ok(());
        }
    }
}

impl Nature {
    fn answer(&mut self, unit: u8, request: &[u8]) -> Option<Vec<u8>> {
        let function = request[0];
        if self.silent.contains(&unit) {
            return None;
        }
        if self.lacks.contains(&function) {
            return Some(vec![function | 0x80, 1]);
        }
        let word = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
        let address = word(1);
        Some(match function {
            1..=4 => {
                let asked = address..address + word(3);
                if self.missing.iter().any(|missing| asked.contains(missing)) {
                    return Some(vec![function | 0x80, 2]);
                }
                self.read(function, asked)
            }
            5 => self.take(request, 1, address, &[word(3) >> 15]),
            6 => self.take(request, 3, address, &[word(3)]),
            15 => {
                let bits: Vec<u16> =
                    (0..usize::from(word(3))).map(|n| u16::from(request[6 + n / 8] >> (n % 8) & 1)).collect();
                self.take(request, 1, address, &bits)[..5].to_vec()
            }
            16 => {
                let words: Vec<u16> = (0..usize::from(word(3))).map(|n| word(6 + 2 * n)).collect();
                self.take(request, 3, address, &words)[..5].to_vec()
            }
            22 => {
                let before = self.register(3, address);
                self.take(request, 3, address, &[before & word(3) | word(5) & !word(3)])
            }
            23 => {
                let words: Vec<u16> = (0..usize::from(word(7))).map(|n| word(10 + 2 * n)).collect();
                self.take(request, 3, word(5), &words);
                let mut answer = self.read(3, address..address + word(3));
                answer[0] = 23;
                answer
            }
            _ => vec![function | 0x80, 1],
        })
    }

    fn register(&self, function: u8, address: u16) -> u16 {
        self.registers.get(&function).and_then(|table| table.get(&address)).copied().unwrap_or(address)
    }

    fn read(&self, function: u8, asked: std::ops::Range<u16>) -> Vec<u8> {
        let words: Vec<u16> = asked.map(|address| self.register(function, address)).collect();
        let data: Vec<u8> = if function < 3 {
            let byte =
                |bits: &[u16]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(bit & 1 == 1));
            words.chunks(8).map(byte).collect()
        } else {
            words.iter().flat_map(|word| word.to_be_bytes()).collect()
        };
        [&[function, u8::try_from(data.len()).unwrap()], &data[..]].concat()
    }

    fn take(&mut self, request: &[u8], function: u8, address: u16, words: &[u16]) -> Vec<u8> {
        if !self.forgets {
            let table = self.registers.entry(function).or_default();
            table.extend((address..).zip(words.iter().copied()));
        }
        request.to_vec()
    }
}
