//! The side that asks: `tidegate status` and its like.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::command::ManagementCommand;
use super::protocol::{Outcome, Refusal, Reply, Request, VERSION};
use super::socket::{NAME, reach};

/// Why a box gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no socket.
    #[error("no box runs here: there is no {}; start one with `tidegate run`, or name its configuration \
        with `--config FILE`", .0.display())]
    NoBox(PathBuf),
    /// Nobody listens at the socket.
    #[error(
        "no box runs here: {} was left behind by one that has ended; start it with `tidegate run`",
        .0.display()
    )]
    Left(PathBuf),
    /// The socket is not for this user.
    #[error("{} is not for this user: {who}", path.display())]
    Forbidden {
        /// the socket, or a directory on the way to it
        path: PathBuf,
        /// for whom it is
        who: String,
    },
    /// The box refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection broke.
    #[error("cannot ask the box at {}: {error}", path.display())]
    Io {
        /// the socket
        path: PathBuf,
        /// why
        error: io::Error,
    },
    /// What came back is no reply.
    #[error(
        "the box gave an answer that cannot be understood ({0}): use the `tidegate` that is as old as the box"
    )]
    Strange(serde_json::Error),
}

/// A way to a running box.
pub struct Client {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the box that keeps its state in `data_dir`.
    ///
    /// # Errors
    /// When none runs there, or it is not for this user.
    pub fn connect(data_dir: &Path) -> Result<Self, AskError> {
        let path = data_dir.join(NAME);
        match reach(data_dir, NAME, |place| UnixStream::connect(place)) {
            Ok(stream) => Ok(Self { path, reader: BufReader::new(stream) }),
            Err(error) => Err(explain(path, error)),
        }
    }

    /// Runs `command`, and hands what it tells meanwhile to `part`, until that says false.
    ///
    /// # Errors
    /// When the box refuses, or the connection breaks.
    pub fn ask<C: ManagementCommand>(
        &mut self,
        command: &C,
        mut part: impl FnMut(C::Part) -> bool,
    ) -> Result<Option<C::Answer>, AskError> {
        let args = serde_json::to_value(command).map_err(AskError::Strange)?;
        let request = Request { v: VERSION, id: None, op: C::OP.to_owned(), args: Some(args) };
        let mut line = serde_json::to_vec(&request).map_err(AskError::Strange)?;
        line.push(b'\n');
        let sent = self.reader.get_mut().write_all(&line);
        sent.map_err(|error| AskError::Io { path: self.path.clone(), error })?;
        loop {
            match self.reply::<C>()? {
                Outcome::Executing { result } => {
                    if !part(result) {
                        return Ok(None);
                    }
                }
                Outcome::Successful { result } => return Ok(Some(result)),
                Outcome::Failed(refusal) => return Err(refusal.into()),
            }
        }
    }

    fn reply<C: ManagementCommand>(&mut self) -> Result<Outcome<C::Part, C::Answer>, AskError> {
        let failed = |error| AskError::Io { path: self.path.clone(), error };
        let mut line = String::new();
        if self.reader.read_line(&mut line).map_err(failed)? == 0 {
            return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended")));
        }
        let reply: Reply<C::Part, C::Answer> = serde_json::from_str(&line).map_err(AskError::Strange)?;
        Ok(reply.outcome)
    }
}

fn explain(path: PathBuf, error: io::Error) -> AskError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => AskError::NoBox(path),
        io::ErrorKind::ConnectionRefused => AskError::Left(path),
        io::ErrorKind::PermissionDenied => {
            // The nearest place that this user can see, if it cannot see the socket itself.
            let seen = path
                .ancestors()
                .find_map(|place| fs::metadata(place).ok().map(|meta| (place.to_owned(), meta)));
            let who = seen.map_or_else(String::new, |(place, meta)| {
                let (owner, group) = (name_in("/etc/passwd", meta.uid()), name_in("/etc/group", meta.gid()));
                format!(
                    "{} belongs to the user {owner} and the group {group}; ask as that user or as root \
                    (`sudo`), or join the group",
                    place.display()
                )
            });
            AskError::Forbidden { path, who }
        }
        _ => AskError::Io { path, error },
    }
}

/// The name of user or group `id` in `file` (passwd(5), group(5)); the number, if it has none there.
fn name_in(file: &str, id: u32) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let named = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    };
    text.lines().find_map(named).unwrap_or_else(|| id.to_string())
}
