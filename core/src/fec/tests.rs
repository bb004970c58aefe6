//! The vectors of the wire, and the shipped code against the reference and against `fec-rs`.

use proptest::prelude::*;

use super::gf8::Gf8;
use super::naive::Naive;
use super::*;

/// Parity of `data` by both engines, which must agree.
fn parity_of(matrix: Matrix, data: &[Vec<u8>], parity: usize) -> Vec<Vec<u8>> {
    let length = data[0].len();
    let mut outcomes = vec![];
    let engines: [Box<dyn ErasureCode>; 2] = [Box::new(Gf8::new()), Box::new(Naive)];
    for mut engine in engines {
        let mut buffer = data.concat();
        // Stale bytes, as a pooled buffer has them.
        buffer.resize((data.len() + parity) * length, 0xee);
        let mut shards = Shards::packed(&mut buffer, length).unwrap();
        engine.protect(matrix, data.len(), parity, &mut shards).unwrap();
        outcomes.push(buffer.split_off(data.len() * length));
    }
    assert_eq!(outcomes[0], outcomes[1], "the engines disagree");
    outcomes[0].chunks(length).map(<[u8]>::to_vec).collect()
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// Data shard i, byte k: 16 i + k, eight bytes.
fn short(data: usize) -> Vec<Vec<u8>> {
    (0..data).map(|i| (0..8).map(|k| (16 * i + k) as u8).collect()).collect()
}

/// Data shard i, byte k: 7 i + 13 k + 1, sixteen bytes.
fn long(data: usize) -> Vec<Vec<u8>> {
    (0..data).map(|i| (0..16).map(|k| (7 * i + 13 * k + 1) as u8).collect()).collect()
}

/// Data shards, the number of parity shards, and some of these by row.
type Case = (Vec<Vec<u8>>, usize, &'static [(usize, &'static str)]);

// spec: gamestream 13 item 95
#[test]
fn video_parity_equals_the_vectors() {
    let cases: [Case; 7] = [
        (short(3), 2, &[(0, "f3 ce 89 b4 07 3a 7d 40"), (1, "51 8c f6 2b 02 df a5 78")]),
        (short(4), 2, &[(0, "08 92 21 bb 5a c0 73 e9"), (1, "5d c7 74 ee 0f 95 26 bc")]),
        (short(1), 2, &[(0, "00 8e 01 8f 02 8c 03 8d"), (1, "00 f4 f5 01 f7 03 02 f6")]),
        (short(2), 2, &[(0, "fb 81 0f 75 0e 74 fa 80"), (1, "08 72 fc 86 fd 87 09 73")]),
        (short(5), 1, &[(0, "5d c6 76 ed 0b 90 20 bb")]),
        (
            long(10),
            2,
            &[
                (0, "81 b4 d1 cd fb 3c d6 21 67 1d f1 75 14 c3 47 9e"),
                (1, "0f c2 35 e7 fc 43 d4 0e de d7 d9 c1 03 10 29 f9"),
            ],
        ),
        (
            long(212),
            43,
            &[
                (0, "4b 14 1c c5 d6 b9 7f 05 50 18 29 62 b0 42 cd 54"),
                (1, "be 6f 84 8a 0b 53 13 12 e2 32 7c c7 a1 23 c9 74"),
                (42, "4a c0 67 6e 1b 6d 79 68 9c 3f 08 fc 83 99 93 09"),
            ],
        ),
    ];
    for (data, parity, rows) in cases {
        let got = parity_of(Matrix::Cauchy, &data, parity);
        for (row, bytes) in rows {
            assert_eq!(got[*row], hex(bytes), "{} data, parity row {row}", data.len());
        }
    }
}

// spec: gamestream 13 item 95
#[test]
fn a_block_of_256_shards_is_refused() {
    let mut buffer = vec![0; 256 * 4];
    let engines: [Box<dyn ErasureCode>; 2] = [Box::new(Gf8::new()), Box::new(Naive)];
    for mut engine in engines {
        let mut shards = Shards::packed(&mut buffer, 4).unwrap();
        let refused = Err(FecError::Shape { data: 213, parity: 43 });
        assert_eq!(engine.protect(Matrix::Cauchy, 213, 43, &mut shards), refused);
        assert_eq!(engine.repair(Matrix::Cauchy, 213, 43, &mut shards, &[true; 256]), refused);
        assert!(engine.protect(Matrix::Cauchy, 212, 43, &mut shards).is_ok());
    }
}

// spec: gamestream 7.7
#[test]
fn elements_equal_the_worked_example() {
    let row = |j| (0..3).map(|i| Matrix::Cauchy.element(2, j, i)).collect::<Vec<_>>();
    assert_eq!((row(0), row(1)), (hex("8e f4 47"), hex("f4 8e a7")));
}

// spec: gamestream 13 item 113
#[test]
fn audio_parity_equals_the_vector() {
    let got = parity_of(Matrix::Audio, &short(4), 2);
    assert_eq!(got[0], hex("1a 1b 18 19 1e 1f 1c 1d"));
    assert_eq!(got[1], hex("90 91 92 93 94 95 96 97"));
}

// spec: gamestream 13 item 116
#[test]
fn any_two_lost_of_an_audio_block_are_restored() {
    let data = short(4);
    let parity = parity_of(Matrix::Audio, &data, 2);
    let whole = [data.concat(), parity.concat()].concat();
    for (a, b) in (0..6).flat_map(|a| (0..6).map(move |b| (a, b))) {
        let mut present = [true; 6];
        (present[a], present[b]) = (false, false);
        check_repair(Matrix::Audio, 4, 2, 8, &whole, &present);
    }
}

#[test]
fn a_hopeless_block_is_named_and_left_alone() {
    let mut buffer: Vec<u8> = (0..6 * 8).collect();
    let before = buffer.clone();
    let mut shards = Shards::packed(&mut buffer, 8).unwrap();
    let present = [false, false, true, true, true, false];
    let result = Gf8::new().repair(Matrix::Cauchy, 4, 2, &mut shards, &present);
    assert_eq!(result, Err(FecError::TooManyMissing { missing: 2, parity: 1 }));
    assert_eq!(buffer, before);
}

#[test]
fn slots_that_do_not_fit_are_refused() {
    let mut buffer = [0; 64];
    assert!(Shards::new(&mut buffer, 16, 8, 9).is_err());
    assert!(Shards::new(&mut buffer, 16, usize::MAX, 2).is_err());
    let mut shards = Shards::new(&mut buffer, 16, 8, 8).unwrap();
    let result = Gf8::new().protect(Matrix::Cauchy, 4, 1, &mut shards);
    assert_eq!(result, Err(FecError::Buffer { got: 4, need: 5 }));
}

/// Poisons what is missing and demands it back from both engines.
fn check_repair(
    matrix: Matrix,
    data: usize,
    parity: usize,
    length: usize,
    whole: &[u8],
    present: &[bool],
) {
    let engines: [Box<dyn ErasureCode>; 2] = [Box::new(Gf8::new()), Box::new(Naive)];
    for mut engine in engines {
        let mut buffer = whole.to_vec();
        for lost in (0..data + parity).filter(|&i| !present[i]) {
            buffer[lost * length..(lost + 1) * length].fill(0xa5);
        }
        let mut shards = Shards::packed(&mut buffer, length).unwrap();
        engine.repair(matrix, data, parity, &mut shards, present).unwrap();
        assert_eq!(buffer[..data * length], whole[..data * length]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    // spec: gamestream 7.7
    #[test]
    fn what_is_lost_within_the_parity_comes_back(
        data in 1usize..40,
        parity in 1usize..12,
        length in 1usize..70,
        seed: u64,
        order in proptest::collection::vec(any::<u16>(), 52),
    ) {
        let bytes: Vec<u8> = (0..data * length)
            .map(|i| (seed.wrapping_mul(i as u64 * 2 + 1) >> 29) as u8)
            .collect();
        let rows: Vec<Vec<u8>> = bytes.chunks(length).map(<[u8]>::to_vec).collect();
        let ours = parity_of(Matrix::Cauchy, &rows, parity);

        // `fec-rs` builds its own matrix: a third opinion on the parity.
        let mut theirs = rows.clone();
        theirs.resize(data + parity, vec![0; length]);
        fec_rs::ReedSolomon::new(data, parity).unwrap().encode(&mut theirs).unwrap();
        prop_assert_eq!(&ours, &theirs[data..]);

        let mut lost: Vec<usize> = (0..data + parity).collect();
        lost.sort_by_key(|&i| order[i]);
        let mut present = vec![true; data + parity];
        lost.iter().take(parity).for_each(|&i| present[i] = false);
        let whole = [bytes, ours.concat()].concat();
        check_repair(Matrix::Cauchy, data, parity, length, &whole, &present);
    }
}
