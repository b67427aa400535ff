//! Masking (RFC 6455 section 5.3): an XOR with four bytes, done a word at a time.

/// Masks or unmasks `data` in place. The first byte meets the first byte of `key`.
#[inline]
pub(super) fn apply(data: &mut [u8], key: [u8; 4]) {
    let word = wide(key);
    let (words, tail) = data.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

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
            apply(left, key);
            apply(right, advance(key, cut));
            prop_assert_eq!(masked, plain);
        }
    }
}
