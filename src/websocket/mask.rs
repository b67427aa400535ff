//! Masking (RFC 6455 section 5.3): an XOR with four bytes, done a word at a time.

/// Masks or unmasks `data` in place. The first byte meets the first byte of `key`. The answer is
/// whether the outcome is ASCII, which costs next to nothing here and a pass of its own later.
#[inline]
pub(super) fn apply(data: &mut [u8], key: [u8; 4]) -> bool {
    let word = wide(key);
    let (words, tail) = data.as_chunks_mut::<8>();
    let (mut seen, mut seen_last) = (0, 0);
    for chunk in words {
        let plain = u64::from_ne_bytes(*chunk) ^ word;
        seen |= plain;
        *chunk = plain.to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
        seen_last |= *byte;
    }
    (seen | u64::from(seen_last)) & HIGH_BITS == 0
}

/// The bits that no byte of ASCII has.
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);

/// Masks or unmasks a copy, in one pass over the bytes.
pub(super) fn copy(data: &[u8], key: [u8; 4]) -> Vec<u8> {
    let word = wide(key);
    let (words, tail) = data.as_chunks::<8>();
    let mut copy = Vec::with_capacity(data.len().div_ceil(8));
    copy.extend(words.iter().map(|chunk| (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes()));
    let mut copy = copy.into_flattened();
    copy.extend(tail.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    copy
}

/// The key twice.
#[inline]
fn wide(key: [u8; 4]) -> u64 {
    let word = u64::from(u32::from_ne_bytes(key));
    word | word << 32
}

/// The key for what follows `done` masked bytes.
#[inline]
pub(super) fn advance(mut key: [u8; 4], done: usize) -> [u8; 4] {
    key.rotate_left(done % 4);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_mask_cut_anywhere_equals_the_byte_by_byte_rule(
            data in proptest::collection::vec(any::<u8>(), 0..200),
            key: [u8; 4],
            cut in 0usize..200,
        ) {
            let plain: Vec<u8> =
                data.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            prop_assert_eq!(&copy(&data, key), &plain);
            let mut masked = data;
            let cut = cut.min(masked.len());
            let (left, right) = masked.split_at_mut(cut);
            prop_assert_eq!(apply(left, key), plain[..cut].is_ascii());
            prop_assert_eq!(apply(right, advance(key, cut)), plain[cut..].is_ascii());
            prop_assert_eq!(masked, plain);
        }
    }
}
