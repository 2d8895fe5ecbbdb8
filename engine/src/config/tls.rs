//! What must hold for TLS.

use std::path::{Path, PathBuf};

use tidegate_connectors::tls::TlsConfig;

use super::document::{Report, Table};

/// Checks the table `tls` in `table`, and resolves its paths against `base_dir`.
pub(super) fn check(tls: &mut TlsConfig, table: &Table<'_>, base_dir: &Path, report: &mut Report<'_>) {
    for (there, there_key, absent, absent_key) in
        [(&tls.cert, "cert", &tls.key, "key"), (&tls.key, "key", &tls.cert, "cert")]
    {
        if there.is_some() && absent.is_none() {
            let help = format!(
                "add `{absent_key} = \"..\"`: a client certificate is always a certificate and its key"
            );
            report.error(
                &table.key_span_of(&["tls", there_key]),
                format!("`{there_key}` is given without `{absent_key}`"),
                help,
            );
        }
    }
    for (key, path) in [("ca", &mut tls.ca), ("cert", &mut tls.cert), ("key", &mut tls.key)] {
        let Some(path) = path else { continue };
        *path = base_dir.join(&*path);
        check_file(path, &table.span_of(&["tls", key]), key, report);
    }
}

fn check_file(path: &PathBuf, span: &std::ops::Range<usize>, key: &str, report: &mut Report<'_>) {
    // A file that cannot be looked at may still be readable for the user that the box runs as.
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            report.error(span, format!("`{key}` names {}, which is not a file", path.display()), None)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let help = "relative paths start at the directory of the configuration file".to_owned();
            report.error(span, format!("`{key}` names {}, which does not exist", path.display()), help);
        }
        _ => {}
    }
}
