//! A plugin as one file: the component, with the text of its manifest in a custom section behind all others.
//!
//! So what is hashed, kept, reloaded and deployed from afar is one thing, as with every other language.

/// What the custom section is called.
const NAME: &[u8] = b"tidegate";
/// What binaries of WebAssembly begin with: the magic number, then version and layer.
const HEADER: usize = 8;
/// A custom section's number.
const CUSTOM: u8 = 0;

/// `component` with `manifest` in it, instead of one that is in it already. One that is not whole stays as it is:
/// with more behind its end it might look whole.
#[must_use]
pub fn pack(component: &[u8], manifest: &str) -> Vec<u8> {
    let (component, _) = unpack(component);
    if !is_whole(component) {
        return component.to_vec();
    }
    let mut name = leb(NAME.len());
    name.extend_from_slice(NAME);
    let mut packed = component.to_vec();
    packed.push(CUSTOM);
    packed.extend(leb(name.len() + manifest.len()));
    packed.extend(name);
    packed.extend_from_slice(manifest.as_bytes());
    packed
}

/// The component in `bytes`, and its manifest, if it has one. What is no WebAssembly is handed back as it is.
#[must_use]
pub fn unpack(bytes: &[u8]) -> (&[u8], Option<&str>) {
    let mut at = HEADER;
    while let Some(section) = bytes.get(at..).and_then(Section::first) {
        let end = at + section.bytes;
        // Only the last one is ours: a tool may have copied others into the component.
        if end == bytes.len()
            && section.number == CUSTOM
            && let Some(manifest) = named(section.content)
        {
            return (bytes.get(..at).unwrap_or(bytes), Some(manifest));
        }
        at = end;
    }
    (bytes, None)
}

/// Whether `bytes` are as long as their sections say.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(HEADER..);
    while let Some(bytes) = rest.filter(|rest| !rest.is_empty()) {
        rest = Section::first(bytes).and_then(|section| bytes.get(section.bytes..));
    }
    rest.is_some()
}

/// A section of a binary.
struct Section<'a> {
    number: u8,
    content: &'a [u8],
    /// of all of it
    bytes: usize,
}

impl<'a> Section<'a> {
    /// The one that `bytes` begin with.
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first()?;
        let (length, size) = unleb(rest)?;
        let content = rest.get(size..)?.get(..length)?;
        Some(Self { number: *number, content, bytes: 1 + size + length })
    }
}

/// The manifest in a custom section, if that is ours.
fn named(content: &[u8]) -> Option<&str> {
    let (length, size) = unleb(content)?;
    let (name, text) = content.get(size..)?.split_at_checked(length)?;
    if name != NAME {
        return None;
    }
    std::str::from_utf8(text).ok()
}

/// Unsigned LEB128, as WebAssembly writes numbers.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A number of at most 32 bits, and how many bytes it takes.
fn unleb(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(u32::try_from(number).ok()?).ok()?, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty component: the component model's specification, "Binary format".
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn what_is_packed_is_unpacked() {
        let long = "x = 1 # ".repeat(100);
        for manifest in ["", "reads = [\"tank\"]\n", &long] {
            let packed = pack(EMPTY, manifest);
            assert_eq!(unpack(&packed), (EMPTY, Some(manifest)));
            assert_eq!(pack(&packed, manifest), packed);
            assert_eq!(unpack(&pack(&packed, "other")), (EMPTY, Some("other")));
        }
        assert_eq!(pack(EMPTY, "a"), b"\0asm\x0d\0\x01\0\0\x0a\x08tidegatea");
    }

    #[test]
    fn any_bytes_are_taken() {
        assert_eq!(unpack(b""), (&b""[..], None));
        assert_eq!(unpack(EMPTY), (EMPTY, None));
        let packed = pack(EMPTY, "reads = []");
        for end in EMPTY.len()..packed.len() {
            assert_eq!(unpack(&packed[..end]), (&packed[..end], None));
            assert_eq!(is_whole(&packed[..end]), end == EMPTY.len());
            if end > EMPTY.len() {
                assert_eq!(pack(&packed[..end], "reads = []"), &packed[..end]);
            }
        }
        assert!(is_whole(&packed) && !is_whole(&EMPTY[..7]) && !is_whole(b""));
        let mut other = packed.clone();
        other.extend_from_slice(b"\0\x05\x04name");
        assert_eq!(unpack(&other), (other.as_slice(), None));
        let mut not_text = EMPTY.to_vec();
        not_text.extend_from_slice(b"\0\x0a\x08tidegate\xff");
        assert_eq!(unpack(&not_text), (not_text.as_slice(), None));
        assert_eq!(unpack(b"\0asm\x0d\0\x01\0\0\xff\xff\xff\xff\xff\xff").1, None);
    }
}
