//! The local socket: `tidegate.sock` in the data directory, for the owner and the group of the box.
//!
//! Nobody who asks can hold up the box: requests are short, clients are few, and whoever does not read
//! what was asked for is let go.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::command::{Caller, Listener, Right, answer};
use super::managed_box::ManagedBox;
use super::protocol::{Code, Outcome, Refusal, Reply, Request, VERSION};

/// The socket's name in the data directory.
pub const NAME: &str = "tidegate.sock";
/// Owner and group may ask.
const MODE: u32 = 0o660;
/// A whole rule file fits into a request.
const MAX_REQUEST: u64 = 2 << 20;
/// People and programs at one box are few; the rest are told that it is busy.
const CLIENTS: usize = 16;
/// Whoever has nothing to ask for so long makes room for others.
const IDLE: Duration = Duration::from_mins(1);
/// Whoever does not read for so long is let go.
const SLOW: Duration = Duration::from_secs(10);
/// After the system refused a connection, as when there are no more file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a box cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another box has the data directory.
    #[error("another box answers at {}: two boxes cannot share a data_dir", .0.display())]
    Taken(PathBuf),
    /// The socket cannot be made.
    #[error("cannot make the socket {}: {error}", path.display())]
    Io {
        /// the socket
        path: PathBuf,
        /// why
        error: io::Error,
    },
}

/// The socket of a running box. Dropping it takes it away.
pub struct Socket {
    listener: StdListener,
    path: PathBuf,
    /// of the socket: another box may have put its own there
    inode: Option<u64>,
}

impl Socket {
    /// A socket that listens at [`NAME`] in `dir`. One that a dead box has left there is replaced.
    ///
    /// # Errors
    /// When another box answers there, or it cannot be made.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let (listener, path) = (bind(dir)?, dir.join(NAME));
        let inode = fs::metadata(&path).ok().map(|meta| meta.ino());
        Ok(Self { listener, path, inode })
    }

    /// Answers what is asked, for as long as the box runs.
    pub async fn serve(&self, managed: &Arc<ManagedBox>) {
        let listener = self.listener.try_clone().and_then(UnixListener::from_std);
        match listener {
            Ok(listener) => accept(&listener, managed).await,
            Err(error) => tracing::error!(%error, "the box runs, but cannot be asked (`tidegate status`)"),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.inode.is_some_and(|inode| fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == inode)) {
            drop(fs::remove_file(&self.path));
        }
    }
}

fn bind(dir: &Path) -> Result<StdListener, OpenError> {
    let path = dir.join(NAME);
    let failed = |error| OpenError::Io { path: path.clone(), error };
    if reach(dir, NAME, |place| StdStream::connect(place)).is_ok() {
        return Err(OpenError::Taken(path));
    }
    // It appears whole: nobody may connect before it has its mode, and nobody finds none in its place.
    let fresh = format!(".{NAME}.{}", std::process::id());
    drop(fs::remove_file(dir.join(&fresh)));
    let listener = reach(dir, &fresh, |place| StdListener::bind(place)).map_err(failed)?;
    let ready = fs::set_permissions(dir.join(&fresh), fs::Permissions::from_mode(MODE))
        .and_then(|()| fs::rename(dir.join(&fresh), &path))
        .and_then(|()| listener.set_nonblocking(true));
    match ready {
        Ok(()) => Ok(listener),
        Err(error) => {
            drop(fs::remove_file(dir.join(&fresh)));
            Err(failed(error))
        }
    }
}

/// Does something at the socket `name` in `dir`. A socket's address has 107 bytes, and a path may have more:
/// then there is a shorter way.
pub(super) fn reach<T>(dir: &Path, name: &str, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    const LONGEST: usize = 107;
    let path = dir.join(name);
    if path.as_os_str().len() <= LONGEST {
        return act(&path);
    }
    let folder = File::open(dir)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

async fn accept(listener: &UnixListener, managed: &Arc<ManagedBox>) {
    let seats = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a client of the local socket could not be let in");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&seats).try_acquire_owned() {
            Ok(seat) => {
                let managed = Arc::clone(managed);
                tokio::spawn(async move {
                    if let Err(error) = attend(stream, &managed).await {
                        tracing::debug!(%error, "a client of the local socket is gone");
                    }
                    drop(seat);
                });
            }
            Err(_) => turn_away(&stream),
        }
    }
}

/// Says that all seats are taken, if that can be done at once.
fn turn_away(stream: &UnixStream) {
    let reason = format!("{CLIENTS} others are asking this box");
    let refusal =
        Refusal::new(Code::Busy, reason).help("try again, or end a `tidegate tail` or `tidegate top`");
    let line = line(&Reply { v: VERSION, id: None, outcome: Outcome::Failed(refusal) });
    drop(stream.try_write(&line));
}

/// Answers one client until it has no more to ask.
async fn attend(stream: UnixStream, managed: &Arc<ManagedBox>) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    // The mode of the socket has let it in: it is root, the owner, or of the group.
    let caller = Caller { name: format!("uid {}", peer.uid()), right: Right::Operate };
    let (read, write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let mut writer = Writer(write);
    loop {
        let request = match timeout(IDLE, next_line(&mut reader)).await {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                let reason = format!("a request may have {MAX_REQUEST} bytes, and ends with its line");
                let outcome = Outcome::Failed(Refusal::new(Code::Invalid, reason));
                return writer.send(&Reply { v: VERSION, id: None, outcome }).await;
            }
            Ok(Err(error)) => return Err(error),
        };
        let reply = match serde_json::from_slice::<Request>(&request) {
            Ok(request) => {
                let id = request.id.clone();
                let mut progress = Progress { id, writer: &mut writer, reader: &mut reader };
                answer(managed, &caller, request, &mut progress).await
            }
            Err(error) => {
                let refusal =
                    Refusal::new(Code::Invalid, format!("the request cannot be understood: {error}"));
                let refusal =
                    refusal.help("write one JSON object a line, such as {\"v\":1,\"op\":\"status\"}");
                Reply { v: VERSION, id: None, outcome: Outcome::Failed(refusal) }
            }
        };
        writer.send(&reply).await?;
    }
}

/// The next line, without its end; none: there are no more. `InvalidData`: it is too long.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    reader.take(MAX_REQUEST).read_until(b'\n', &mut request).await?;
    match request.pop() {
        Some(b'\n') => Ok(Some(request)),
        None => Ok(None),
        Some(_) if request.len() as u64 + 1 == MAX_REQUEST => Err(io::ErrorKind::InvalidData.into()),
        // It went away in the middle.
        Some(_) => Ok(None),
    }
}

fn line(reply: &Reply) -> Vec<u8> {
    let mut line = serde_json::to_vec(reply).unwrap_or_default();
    line.push(b'\n');
    line
}

struct Writer(OwnedWriteHalf);

impl Writer {
    async fn send(&mut self, reply: &Reply) -> io::Result<()> {
        self.write(&line(reply)).await
    }

    async fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match timeout(SLOW, self.0.write_all(line)).await {
            Ok(written) => written,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Whoever has asked, while the command goes on.
struct Progress<'a> {
    id: Option<String>,
    writer: &'a mut Writer,
    reader: &'a mut BufReader<OwnedReadHalf>,
}

impl Listener for Progress<'_> {
    fn tell(&mut self, part: String) -> BoxFuture<'_, bool> {
        let id =
            self.id.as_ref().map_or_else(String::new, |id| format!("\"id\":{},", Value::from(id.as_str())));
        let line = format!("{{\"v\":{VERSION},{id}\"status\":\"executing\",\"result\":{part}}}\n");
        Box::pin(async move { self.writer.write(line.as_bytes()).await.is_ok() })
    }

    fn gone(&mut self) -> BoxFuture<'_, ()> {
        // Nobody has anything to say meanwhile: whatever comes, and be it the end, ends the command.
        Box::pin(async move { drop(self.reader.fill_buf().await) })
    }
}

#[cfg(test)]
mod tests;
