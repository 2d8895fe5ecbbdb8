//! Bytes for people: in the log, on the command line, in files of other programs.

use std::fmt;

/// How many bytes are shown.
const LONGEST: usize = 64;

/// Bytes as hexadecimal digits, `{:x}` or `{:X}`; with `#` a space between two.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::LowerHex for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, |f, byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::UpperHex for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, |f, byte| write!(f, "{byte:02X}"))
    }
}

impl Hex<'_> {
    fn write(
        self,
        f: &mut fmt::Formatter<'_>,
        write: impl Fn(&mut fmt::Formatter<'_>, u8) -> fmt::Result,
    ) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if f.alternate() && at > 0 {
                f.write_str(" ")?;
            }
            write(f, *byte)?;
        }
        Ok(())
    }
}

/// The beginning of a frame: its digits, and the text beside them.
#[must_use]
pub fn dump(bytes: &[u8]) -> String {
    let start = bytes.get(..LONGEST).unwrap_or(bytes);
    let text: String =
        start.iter().map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' }).collect();
    let more = if bytes.len() > LONGEST { format!(" ({} bytes)", bytes.len()) } else { String::new() };
    format!("{:#x}  {text}{more}", Hex(start))
}

/// The beginning of a payload: as text where it is text, otherwise as digits.
#[must_use]
pub fn excerpt(payload: &[u8]) -> String {
    let start = payload.get(..LONGEST).unwrap_or(payload);
    let more = if payload.len() > LONGEST { format!("... ({} bytes)", payload.len()) } else { String::new() };
    match std::str::from_utf8(start) {
        Ok(text) if !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => format!("{text:?}{more}"),
        _ => format!("hex {:x}{more}", Hex(start)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_show_digits_and_text() {
        assert_eq!(dump(b"ST\r\x02"), "53 54 0d 02  ST..");
        assert!(dump(&[0; 100]).ends_with("(100 bytes)"));
        assert_eq!(dump(&[]), "  ");
    }

    #[test]
    fn payloads_are_shown_as_text_or_as_digits() {
        assert_eq!(excerpt(b"{\"a\":"), r#""{\"a\":""#);
        assert_eq!(excerpt(&[0xff, 0x00]), "hex ff00");
        assert!(excerpt(&[b'x'; 100]).ends_with("... (100 bytes)"));
    }
}
