//! What the simulated plant sends: numbered messages of one size.

/// Number of the first message. All numbers have seven digits.
pub const FIRST: u64 = 1_000_000;
/// Every so many messages one is hot; the last of a flood is.
pub const MARKER_EVERY: u64 = 1_000;
/// Number of a hot message that belongs to no flood.
pub const PROBE: u64 = 999_999;

/// Message `n`: 77 bytes of JSON.
pub fn message(n: u64) -> Vec<u8> {
    let temperature = if n % MARKER_EVERY == MARKER_EVERY - 1 { 95.25 } else { 20.25 + (n % 60) as f64 };
    let pump = n % 20;
    format!(
        r#"{{"n":{n:>7},"device":"pump-{pump:02}","temperature":{temperature},"pressure":2.5,"ok":true}}"#
    )
    .into_bytes()
}

/// An array of the messages `n .. n + rows`.
pub fn array(n: u64, rows: u64) -> Vec<u8> {
    let mut payload = vec![b'['];
    for n in n..n + rows {
        payload.extend(message(n));
        payload.push(b',');
    }
    payload.pop();
    payload.push(b']');
    payload
}

/// The number of the first row in a payload: of a message, of an output's row or of an uplink's row.
pub fn number(payload: &[u8]) -> Option<u64> {
    let key = br#""n":"#;
    let at = payload.windows(key.len()).position(|window| window == key)? + key.len();
    let digits =
        payload.get(at..)?.iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_one_size_and_say_their_number() {
        for n in [PROBE, FIRST, FIRST + MARKER_EVERY - 1, 9_999_999] {
            assert_eq!((message(n).len(), number(&message(n))), (77, Some(n)));
        }
        assert_eq!(
            number(br#"{"id":"load/load/7/0","rule":"load","row":{"n":1000123,"ok":true}}"#),
            Some(1_000_123)
        );
        assert_eq!(number(&array(FIRST, 3)), Some(FIRST));
    }
}
