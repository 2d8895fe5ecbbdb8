//! Versions before layout 5 of the buffer kept copies of what tables held in files of their own:
//! `DATA_DIR/tables/NAME-CONTENT.arrow`. They move to the buffer, under the same names.

use std::path::Path;

use crate::buffer::{Buffer, BufferError, Content};
use crate::disk::Disk;

/// Moves what there is. A crash on the way does no harm: a copy is deleted when the buffer has it.
///
/// # Errors
/// When a copy cannot be read, or the buffer not be written.
pub(crate) async fn adopt_copies(
    disk: &dyn Disk,
    data_dir: &Path,
    buffer: &Buffer,
) -> Result<(), BufferError> {
    let dir = data_dir.join("tables");
    let io = |path: &Path, error| BufferError::Io { path: path.to_owned(), error };
    for path in disk.list(&dir).map_err(|error| io(&dir, error))? {
        let Some(content) = content_of(&path) else { continue };
        let bytes = disk.read(&path).map_err(|error| io(&path, error))?;
        buffer.adopt(Content::named(content, bytes)).await?;
        if let Err(error) = disk.remove(&path) {
            tracing::warn!(
                path = %path.display(),
                %error,
                "the copy of a table is in the buffer now and could not be deleted; delete it"
            );
        }
    }
    Ok(())
}

/// What the journal calls the copy at `path`. Half-written ones end otherwise.
fn content_of(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?.strip_suffix(".arrow")?;
    Some(name.rsplit_once('-')?.1)
}
