use std::sync::Once;

use proptest::prelude::*;

use super::*;
use crate::{
    hash::{BlockHash, Root},
    pow::Bits,
};

fn header(digits: u64) -> Header {
    Header {
        prev_block_hash: BlockHash([3; 32]),
        transactions_root: Root([5; 32]),
        history_root: Root([7; 32]),
        height: 9,
        timestamp_ms: 1_795_345_827_157,
        bits: Difficulty::new(digits).unwrap().bits(),
        nonce: 0,
    }
}

/// All kernels of this machine. Each process says once which it lacks and therefore does not test.
fn kernels() -> Vec<Kernel> {
    static SAID: Once = Once::new();
    let all = Kernel::all();
    SAID.call_once(|| {
        for (name, _) in all.iter().filter(|(_, kernel)| kernel.is_none()) {
            println!("{name}: not on this machine, not tested");
        }
    });
    all.into_iter().filter_map(|(_, kernel)| kernel).collect()
}

fn search(kernel: Kernel, header: &Header, limit: u64, threads: usize) -> Mined {
    mine_with(kernel, header, limit, threads, &AtomicBool::new(false)).unwrap()
}

fn hash(header: &Header, nonce: u32) -> [u8; 32] {
    Header { nonce, ..header.clone() }.compute_hash().0
}

/// The plain way: hash the whole header.
fn lowest_nonce(header: &Header, target: &[u8; 32], start: u64, end: u64) -> Option<u32> {
    (start..end).map(|nonce| nonce as u32).find(|nonce| hash(header, *nonce) <= *target)
}

/// Compares each kernel with the plain way, and returns what all of them found.
fn scan(header: &Header, target: &[u8; 32], start: u64, end: u64) -> Option<u32> {
    let expected = lowest_nonce(header, target, start, end);
    for kernel in kernels() {
        let mut search = Search::new(kernel, header).unwrap();
        search.target = std::array::from_fn(|place| {
            u32::from_be_bytes(std::array::from_fn(|byte| target[4 * place + byte]))
        });
        assert_eq!(
            search.scan(start, end),
            expected,
            "{kernel}, {start}..{end}, target {}",
            hex::encode(target)
        );
    }
    expected
}

fn target(digits: u64) -> [u8; 32] {
    Target::from_bits(header(digits).bits).unwrap().to_be_bytes()
}

/// The number before a hash, which is never zero.
fn minus_one(mut number: [u8; 32]) -> [u8; 32] {
    for byte in number.iter_mut().rev() {
        let borrows = *byte == 0;
        *byte = byte.wrapping_sub(1);
        if !borrows {
            break;
        }
    }
    number
}

#[test]
fn names_the_kernels_that_are_tested_here() {
    let kernels = kernels();
    for kernel in &kernels {
        println!("{kernel}: on this machine, tested");
        assert!(Kernel::all().contains(&(kernel.to_string().as_str(), Some(*kernel))));
    }
    assert_eq!(kernels.last(), Some(&Kernel::best()));
}

#[test]
fn every_kernel_finds_the_lowest_of_a_range_whatever_its_ends() {
    for digits in 0..=2 {
        for start in (0..40).chain(65_500..65_540).chain(ATTEMPTS_MAX - 40..ATTEMPTS_MAX) {
            for count in [0, 1, 2, 3, 15, 16, 17, 31, 33, 40] {
                scan(&header(digits), &target(digits), start, (start + count).min(ATTEMPTS_MAX));
            }
        }
    }
}

#[test]
fn every_kernel_finds_a_hit_in_each_place_and_none_just_outside() {
    let header = header(0);
    for base in [0, 65_536 - 24, ATTEMPTS_MAX - 48] {
        let nonces = base..base + 48;
        let lowest = nonces.clone().min_by_key(|nonce| hash(&header, *nonce as u32)).unwrap();
        let target = hash(&header, lowest as u32);
        for start in base..=lowest {
            assert_eq!(scan(&header, &target, start, lowest + 1), Some(lowest as u32));
            assert_eq!(scan(&header, &target, start, nonces.end), Some(lowest as u32));
            assert_eq!(scan(&header, &target, start, lowest), None);
        }
        assert_eq!(scan(&header, &target, lowest + 1, nonces.end), None);
    }
}

#[test]
fn every_kernel_compares_all_words_of_the_target() {
    let header = header(0);
    for nonce in 0..40u32 {
        let found = |target: &[u8; 32]| scan(&header, target, u64::from(nonce), u64::from(nonce) + 1);
        let exact = hash(&header, nonce);
        assert_eq!(found(&exact), Some(nonce));
        assert_eq!(found(&minus_one(exact)), None);
        for place in (0..32).step_by(4) {
            // The first word that differs decides, whatever follows it.
            let word = u32::from_be_bytes(exact[place..place + 4].try_into().unwrap());
            let (mut above, mut below) = (exact, exact);
            above[place..place + 4].copy_from_slice(&(word + 1).to_be_bytes());
            above[place + 4..].fill(0);
            below[place..place + 4].copy_from_slice(&(word - 1).to_be_bytes());
            below[place + 4..].fill(0xff);
            assert_eq!((found(&above), found(&below)), (Some(nonce), None));
        }
    }
}

#[test]
fn every_kernel_goes_on_after_a_hash_that_equals_the_target_in_the_first_word_only() {
    let header = header(0);
    // Of the nonces behind the first, the first with a smaller first word.
    let first = hash(&header, 0);
    let next = (1..).find(|nonce| hash(&header, *nonce)[..4] < first[..4]).unwrap();
    assert_eq!(scan(&header, &minus_one(first), 0, u64::from(next) + 40), Some(next));
    let mut nothing_behind_the_first_word = [0; 32];
    nothing_behind_the_first_word[..4].copy_from_slice(&first[..4]);
    assert_eq!(scan(&header, &nothing_behind_the_first_word, 0, u64::from(next)), None);
}

#[test]
fn every_kernel_finds_none_where_no_hash_can_meet_the_target() {
    assert_eq!(scan(&header(0), &[0; 32], 65_000, 66_000), None);
    assert_eq!(scan(&header(0), &[0xff; 32], 65_000, 66_000), Some(65_000));
}

proptest! {
    #[test]
    fn every_kernel_finds_what_hashing_the_header_finds(
        (prev_block_hash, transactions_root, history_root) in any::<([u8; 32], [u8; 32], [u8; 32])>(),
        (height, timestamp_ms, mantissa) in any::<(u32, u64, u16)>(),
        start in prop_oneof![
            0..ATTEMPTS_MAX,
            (1..ATTEMPTS_MAX >> 16, 0..200u64).prop_map(|(upper, back)| (upper << 16) - back),
            ATTEMPTS_MAX - 200..ATTEMPTS_MAX,
        ],
        count in 0..200u64,
        hit in 0..200u64,
        zero_bits in 0..12u32,
    ) {
        let header = Header {
            prev_block_hash: BlockHash(prev_block_hash),
            transactions_root: Root(transactions_root),
            history_root: Root(history_root),
            height,
            timestamp_ms,
            bits: Bits(0x2000_0000 | u32::from(mantissa)),
            nonce: 0,
        };
        let end = (start + count).min(ATTEMPTS_MAX);
        // The hash of one in the range or beside it, and the number before; and a target that some meet, or none.
        let exact = hash(&header, (start + hit) as u32);
        scan(&header, &exact, start, end);
        scan(&header, &minus_one(exact), start, end);
        let mut some = [0xff; 32];
        some[..4].copy_from_slice(&(u32::MAX >> zero_bits).to_be_bytes());
        scan(&header, &some, start, end);
        scan(&header, &Target::from_bits(header.bits).unwrap().to_be_bytes(), start, end);
    }
}

#[test]
fn finds_the_lowest_nonce_whatever_the_kernel_and_the_threads() {
    for digits in 0..=4 {
        let header = header(digits);
        let nonce = lowest_nonce(&header, &target(digits), 0, ATTEMPTS_MAX).unwrap();
        for kernel in kernels() {
            for threads in [1, 2, 5] {
                let mined = search(kernel, &header, ATTEMPTS_MAX, threads);
                assert_eq!(mined, Mined::Found { nonce }, "{digits} digits, {kernel}, {threads} threads");
            }
        }
        assert_eq!(
            mine(&header, ATTEMPTS_MAX, 1, &AtomicBool::new(false)).unwrap(),
            Mined::Found { nonce },
            "{digits} digits"
        );
    }
}

#[test]
fn stops_at_the_limit_and_not_before() {
    let header = header(4);
    let nonce = u64::from(lowest_nonce(&header, &target(4), 0, ATTEMPTS_MAX).unwrap());
    assert!(nonce > CHUNK, "the search must be long enough to be shared");
    for kernel in kernels() {
        assert_eq!(search(kernel, &header, nonce, 2), Mined::LimitReached { attempts: nonce }, "{kernel}");
        assert_eq!(search(kernel, &header, nonce + 1, 2), Mined::Found { nonce: nonce as u32 }, "{kernel}");
    }
}

#[test]
fn stops_when_told_to() {
    let cancel = AtomicBool::new(true);
    assert_eq!(mine(&header(16), ATTEMPTS_MAX, 2, &cancel), Ok(Mined::Cancelled));
}

#[test]
fn refuses_bits_without_a_target() {
    let header = Header { bits: Bits(0xff12_3456), ..header(0) };
    assert!(mine(&header, 1, 1, &AtomicBool::new(false)).is_err());
}
