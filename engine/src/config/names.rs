//! Which names users may give.

pub(super) use tidegate_core::names::check_identifier;
use tidegate_core::names::{LONGEST, suggestion};

/// The rule target that stands for the way to the cloud.
pub(super) const UPLINK: &str = "uplink";

/// What the system's own streams start with.
const SYSTEM_PREFIX: &str = "tidegate_";

/// What [`check_identifier`] allows, as a pattern for editors.
pub(super) const IDENTIFIER: &str = "^[a-z_][a-z0-9_]{0,62}$";
/// What [`check_target`] allows.
pub(super) const TARGET: &str = "^(?!uplink$|tidegate_)[a-z_][a-z0-9_]{0,62}$";
/// What [`check_box`] allows.
pub(super) const BOX: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

/// Why `name` cannot be a stream's or output's name.
pub(super) fn check_target(name: &str) -> Result<(), String> {
    check_identifier(name)?;
    if name == UPLINK {
        return Err("`uplink` is where rules write rows for the cloud; choose another name".into());
    }
    if name.starts_with(SYSTEM_PREFIX) {
        return Err("names that start with `tidegate_` belong to the box itself; choose another name".into());
    }
    Ok(())
}

/// Why `name` cannot be a box's name: far sides know the box by it.
pub(super) fn check_box(name: &str) -> Result<(), String> {
    let inner = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if name.is_empty() || !inner || name.starts_with('-') || name.ends_with('-') || name.len() > LONGEST {
        let better = name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        return Err(format!(
            "write at most {LONGEST} lower case letters, digits and hyphens, and no hyphen first or last{}",
            suggestion(better.trim_matches('-'), name)
        ));
    }
    Ok(())
}
