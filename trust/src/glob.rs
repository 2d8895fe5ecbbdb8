//! Patterns for names: `*` stands for any characters, also none, and `?` for one.

/// Whether all of `name` is what `pattern` says. Its time is at most the product of the lengths.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Behind the last star, and the name's byte at which what follows it was tried last.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, n));
            }
            Some(byte) if *byte == b'?' || name.get(n) == Some(byte) => {
                p += 1;
                n += 1;
            }
            _ => match &mut star {
                Some((behind, tried)) => {
                    *tried += 1;
                    (p, n) = (*behind, *tried);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_for_whole_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "press-12", true),
            ("press-*", "press-12", true),
            ("press-*", "press-", true),
            ("press-*", "xpress-12", false),
            ("press-1", "press-12", false),
            ("press-?", "press-1", true),
            ("press-?", "press-12", false),
            ("*-valve-*", "a-valve-valve-b", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("", "", true),
            ("", "a", false),
            ("Press", "press", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        assert!(!matches(&format!("{}b", "a*".repeat(100)), &"a".repeat(10_000)));
        assert!(matches(&format!("{}b", "a*".repeat(100)), &format!("{}b", "a".repeat(10_000))));
    }
}
