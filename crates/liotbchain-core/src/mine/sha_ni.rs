//! Attempts side by side, each with the processor's own SHA-256 instructions.
//!
//! An instruction that does two rounds waits for the one before it, and two streams fill each other's gaps. There are
//! not the registers for more: four were slower.

#![allow(
    unsafe_code,
    reason = "a function for one kind of processor is called, after the processor was found to be it"
)]

use std::{arch::x86_64::*, ops::Range};

use super::window::{ROUND_CONSTANTS, Window, unrolled};

/// Proof that the processor can run this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShaNi(());

impl ShaNi {
    /// Looks whether the processor can.
    pub(super) fn detect() -> Option<Self> {
        // Without the second there is no unsigned minimum and no byte alignment.
        (is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1")).then_some(Self(()))
    }

    /// Returns the lowest of the lower halves whose hash begins with a word that may meet the target.
    pub(super) fn find(self, window: &Window, lower: Range<u32>) -> Option<u32> {
        // SAFETY: only `detect` makes a `Self`, so the processor has the features that the function is compiled for.
        unsafe { find(window, lower) }
    }
}

const STREAMS: usize = 2;

#[target_feature(enable = "sha,sse4.1")]
fn find(window: &Window, lower: Range<u32>) -> Option<u32> {
    let [addend, max] = [window.addend, window.first_word_max].map(|word| four([word; 4]));
    for start in lower.clone().step_by(STREAMS) {
        let [even, odd] = last_abef(window, [start, start + 1]);
        // Places 2 and 3 hold `a` of both; 0 and 1 are not looked at.
        let words = _mm_add_epi32(_mm_unpackhi_epi32(even, odd), addend);
        let at_most_max = _mm_cmpeq_epi32(_mm_min_epu32(words, max), words);
        let hits = _mm_movemask_ps(_mm_castsi128_ps(at_most_max)) >> 2;
        if hits != 0 {
            let lowest = start + hits.trailing_zeros();
            // The last stream may be beyond the range.
            return (lowest < lower.end).then_some(lowest);
        }
    }
    None
}

/// Computes the variables `f`, `e`, `b` and `a` after the last round. The compiler takes out of the caller's loop what
/// is the same in each turn.
#[inline]
#[target_feature(enable = "sha,sse4.1")]
fn last_abef(window: &Window, lower: [u32; STREAMS]) -> [__m128i; STREAMS] {
    let zero = _mm_setzero_si128();
    let (mut abef, mut cdgh) = ([zero; STREAMS], [zero; STREAMS]);
    let mut w = [[zero; 16]; STREAMS];
    let constants = ROUND_CONSTANTS.as_chunks().0;
    for stream in 0..STREAMS {
        let shifted = lower[stream] << 16;
        for (quad, words) in window.words.as_chunks().0.iter().enumerate() {
            w[stream][quad] = four(*words);
        }
        w[stream][3] = _mm_add_epi32(w[stream][3], four([0, shifted, 0, 0]));
        let [a, b, c, d, e, f, g, h] = window.variables;
        abef[stream] = _mm_add_epi32(four([f, e, b, a]), four([0, shifted, 0, shifted]));
        cdgh[stream] = four([h, g, d, c]);
        // Rounds 14 and 15.
        let upper = _mm_shuffle_epi32::<0b1110>(_mm_add_epi32(w[stream][3], four(constants[3])));
        cdgh[stream] = _mm_sha256rnds2_epu32(cdgh[stream], abef[stream], upper);
        (abef[stream], cdgh[stream]) = (cdgh[stream], abef[stream]);
    }
    unrolled!(QUAD in [4 5 6 7 8 9 10 11 12 13 14 15] {
        for stream in 0..STREAMS {
            let w = &mut w[stream];
            if QUAD > 4 {
                let minus_7 = _mm_alignr_epi8::<4>(w[QUAD - 1], w[QUAD - 2]);
                let partial = _mm_add_epi32(_mm_sha256msg1_epu32(w[QUAD - 4], w[QUAD - 3]), minus_7);
                w[QUAD] = _mm_sha256msg2_epu32(partial, w[QUAD - 1]);
            }
            let sum = _mm_add_epi32(w[QUAD], four(constants[QUAD]));
            // The old `abef` is the new `cdgh`.
            cdgh[stream] = _mm_sha256rnds2_epu32(cdgh[stream], abef[stream], sum);
            let upper = _mm_shuffle_epi32::<0b1110>(sum);
            abef[stream] = _mm_sha256rnds2_epu32(abef[stream], cdgh[stream], upper);
        }
    });
    abef
}

/// Packs words, the first into the lowest place.
#[inline]
#[target_feature(enable = "sse4.1")]
fn four(words: [u32; 4]) -> __m128i {
    let [a, b, c, d] = words.map(u32::cast_signed);
    _mm_setr_epi32(a, b, c, d)
}
