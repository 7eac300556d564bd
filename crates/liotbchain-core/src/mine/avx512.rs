//! Sixteen attempts at a time, each in a lane of AVX-512's vectors.

#![allow(
    unsafe_code,
    reason = "a function for one kind of processor is called, after the processor was found to be it"
)]

use std::{arch::x86_64::*, ops::Range};

use super::window::{ROUND_CONSTANTS, Window, unrolled};

/// Proof that the processor can run this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Avx512(());

impl Avx512 {
    /// Looks whether the processor can.
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }

    /// Returns the lowest of the lower halves whose hash begins with a word that may meet the target.
    pub(super) fn find(self, window: &Window, lower: Range<u32>) -> Option<u32> {
        // SAFETY: only `detect` makes a `Self`, so the processor has the feature that the function is compiled for.
        unsafe { find(window, lower) }
    }
}

const LANES: usize = 16;

#[target_feature(enable = "avx512f")]
fn find(window: &Window, lower: Range<u32>) -> Option<u32> {
    let places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for start in lower.clone().step_by(LANES) {
        let words = first_words(window, _mm512_add_epi32(splat(start), places));
        let hits = _mm512_cmple_epu32_mask(words, splat(window.first_word_max));
        if hits != 0 {
            let lowest = start + hits.trailing_zeros();
            // The last vector may reach beyond the range.
            return (lowest < lower.end).then_some(lowest);
        }
    }
    None
}

/// Computes the first words of the hashes. The compiler takes out of the caller's loop what is the same in each turn.
#[inline]
#[target_feature(enable = "avx512f")]
fn first_words(window: &Window, lower: __m512i) -> __m512i {
    let shifted = _mm512_slli_epi32::<16>(lower);
    let mut w = [_mm512_setzero_si512(); 64];
    for (word, known) in w.iter_mut().zip(window.words) {
        *word = splat(known);
    }
    w[13] = _mm512_add_epi32(w[13], shifted);
    let [a, b, c, d, e, f, g, h] = window.variables;
    let (a, e) = (_mm512_add_epi32(splat(a), shifted), _mm512_add_epi32(splat(e), shifted));
    let mut variables = [a, splat(b), splat(c), splat(d), e, splat(f), splat(g), splat(h)];
    for t in 14..20 {
        variables = round(variables, w[t], ROUND_CONSTANTS[t]);
    }
    unrolled!(FOUR in [5 6 7 8 9 10 11 12 13 14 15] {
        for t in 4 * FOUR..4 * FOUR + 4 {
            w[t] = sum([w[t - 16], small_sigma_0(w[t - 15]), w[t - 7], small_sigma_1(w[t - 2])]);
            variables = round(variables, w[t], ROUND_CONSTANTS[t]);
        }
    });
    _mm512_add_epi32(variables[0], splat(window.addend))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn round([a, b, c, d, e, f, g, h]: [__m512i; 8], word: __m512i, constant: u32) -> [__m512i; 8] {
    let t1 = sum([h, _mm512_add_epi32(word, splat(constant)), choose(e, f, g), big_sigma_1(e)]);
    let t2 = _mm512_add_epi32(majority(a, b, c), big_sigma_0(a));
    [_mm512_add_epi32(t1, t2), a, b, c, _mm512_add_epi32(d, t1), e, f, g]
}

// FIPS 180-4, section 4.1.2. The number of a ternary function is its column of results, for 111 down to 000.

#[inline]
#[target_feature(enable = "avx512f")]
fn choose(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0b1100_1010>(x, y, z)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn majority(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0b1110_1000>(x, y, z)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0b1001_0110>(x, y, z)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn big_sigma_0(x: __m512i) -> __m512i {
    xor(_mm512_ror_epi32::<2>(x), _mm512_ror_epi32::<13>(x), _mm512_ror_epi32::<22>(x))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn big_sigma_1(x: __m512i) -> __m512i {
    xor(_mm512_ror_epi32::<6>(x), _mm512_ror_epi32::<11>(x), _mm512_ror_epi32::<25>(x))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn small_sigma_0(x: __m512i) -> __m512i {
    xor(_mm512_ror_epi32::<7>(x), _mm512_ror_epi32::<18>(x), _mm512_srli_epi32::<3>(x))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn small_sigma_1(x: __m512i) -> __m512i {
    xor(_mm512_ror_epi32::<17>(x), _mm512_ror_epi32::<19>(x), _mm512_srli_epi32::<10>(x))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn sum([a, b, c, d]: [__m512i; 4]) -> __m512i {
    _mm512_add_epi32(_mm512_add_epi32(_mm512_add_epi32(a, b), c), d)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn splat(word: u32) -> __m512i {
    _mm512_set1_epi32(word.cast_signed())
}
