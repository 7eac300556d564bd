//! What the attempts of a window share: the 65,536 nonces with the same upper half.
//!
//! The nonce begins in the middle of the second compression block's word 12, so its lower half is the upper half of
//! word 13. Within a window the rounds before that word are the same, and so are the words of the message schedule that
//! do not depend on it; the kernels of vectors begin where they differ.

use std::ops::Range;

use super::{NONCE_OFFSET, Search, portable};

/// Nonces that share their upper half.
const SIZE: u64 = 1 << 16;

/// SHA-256 of the second compression block, up to where it takes the nonce's lower half, and what to compare with.
///
/// The lower half counts as 0 here. An attempt adds it, shifted left by 16, wherever a field says so.
pub(super) struct Window {
    /// Words 0 to 19 of the message schedule; to be added to word 13. Words 16 to 19 do not depend on that one.
    pub(super) words: [u32; 20],
    /// The variables `a` to `h` after the rounds 0 to 13; to be added to `a` and `e`, which are sums that hold word 13.
    pub(super) variables: [u32; 8],
    /// What makes the first word of the hash out of `a` after the last round.
    pub(super) addend: u32,
    /// The largest first word of a hash that may meet the target.
    pub(super) first_word_max: u32,
}

/// Returns the lowest nonce from `start` up to `end`, exclusive, whose hash is at most the target.
///
/// `find` returns the lowest of the lower halves given whose hash begins with a word that may meet the window's target.
pub(super) fn scan(
    search: &Search,
    start: u64,
    end: u64,
    find: impl Fn(&Window, Range<u32>) -> Option<u32>,
) -> Option<u32> {
    let mut next = start;
    while next < end {
        let base = next / SIZE * SIZE;
        let stop = end.min(base + SIZE);
        let window = Window::new(search, base as u32);
        while next < stop {
            let Some(lower) = find(&window, (next - base) as u32..(stop - base) as u32) else {
                next = stop;
                break;
            };
            let nonce = base + u64::from(lower);
            // The first word may be equal to the target's and the rest above it.
            if let found @ Some(_) = portable::scan(search, nonce, nonce + 1) {
                return found;
            }
            next = nonce + 1;
        }
    }
    None
}

impl Window {
    /// Computes what the nonces share that begin with the upper half of `base`, whose lower half is 0.
    fn new(search: &Search, base: u32) -> Self {
        let mut second = search.second;
        second[NONCE_OFFSET..NONCE_OFFSET + 4].copy_from_slice(&base.to_be_bytes());
        let mut words = [0; 20];
        for (word, bytes) in words.iter_mut().zip(second.as_chunks().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        // FIPS 180-4, section 6.2.2.
        for t in 16..words.len() {
            let [w2, w7, w15, w16] = [2, 7, 15, 16].map(|back| words[t - back]);
            words[t] = (w2.rotate_right(17) ^ w2.rotate_right(19) ^ (w2 >> 10))
                .wrapping_add(w7)
                .wrapping_add(w15.rotate_right(7) ^ w15.rotate_right(18) ^ (w15 >> 3))
                .wrapping_add(w16);
        }
        let mut variables = search.state;
        for (word, constant) in words.iter().zip(ROUND_CONSTANTS).take(14) {
            let [a, b, c, d, e, f, g, h] = variables;
            let t1 = h
                .wrapping_add(e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25))
                .wrapping_add((e & f) ^ (!e & g))
                .wrapping_add(constant)
                .wrapping_add(*word);
            let t2 = (a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22))
                .wrapping_add((a & b) ^ (a & c) ^ (b & c));
            variables = [t1.wrapping_add(t2), a, b, c, d.wrapping_add(t1), e, f, g];
        }
        Self { words, variables, addend: search.state[0], first_word_max: search.target[0] }
    }
}

// Repeats the body for each constant: as a loop it would keep its arrays in memory and be a fifth slower.
macro_rules! unrolled {
    ($constant:ident in [$($value:literal)*] $body:block) => {
        $({
            const $constant: usize = $value;
            $body
        })*
    };
}
pub(super) use unrolled;

/// FIPS 180-4, section 4.2.2.
pub(super) const ROUND_CONSTANTS: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];
