//! Which names users may give to what rules speak of.

/// Longer names make topics and log lines unreadable, and host names end here too (RFC 1035).
pub const LONGEST: usize = 63;

/// Why `name` cannot be a connection's, stream's, output's or column's name: these are used in SQL without
/// quotes.
///
/// # Errors
/// What to write instead, in words for the user.
pub fn check_identifier(name: &str) -> Result<(), String> {
    let start = name.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    if !start
        || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        || name.len() > LONGEST
    {
        return Err(format!(
            "write at most {LONGEST} lower case letters, digits and underscores, and no digit first{}",
            suggestion(&name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_"), name)
        ));
    }
    Ok(())
}

/// Advice to call it `better` instead of `name`, where that would do.
#[must_use]
pub fn suggestion(better: &str, name: &str) -> String {
    let usable = !better.is_empty()
        && better != name
        && better.len() <= LONGEST
        && !better.starts_with(|c: char| c.is_ascii_digit());
    if usable { format!(", such as `{better}`") } else { String::new() }
}
