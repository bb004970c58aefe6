//! A reader of H.264 sequence parameter sets, so that tests can see what an encoder announced.
//!
//! After ITU-T H.264 sec. 7.3.2.1.1 and E.1.1. It reads what encoders of progressive 4:2:0 write and panics on anything
//! else, which is what a test wants.

/// What a sequence parameter set says.
#[derive(Debug)]
pub(super) struct Sps {
    pub(super) profile: u32,
    pub(super) level: u32,
    pub(super) max_num_ref_frames: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) colour: Option<Colour>,
    pub(super) restriction: Option<Restriction>,
}

/// The colour description of the VUI.
#[derive(Debug)]
pub(super) struct Colour {
    pub(super) full_range: bool,
    pub(super) primaries: u32,
    pub(super) transfer: u32,
    pub(super) matrix: u32,
}

/// The bitstream restriction of the VUI.
#[derive(Debug)]
pub(super) struct Restriction {
    pub(super) max_num_reorder_frames: u32,
    pub(super) max_dec_frame_buffering: u32,
}

impl Sps {
    /// Reads a NAL unit with its start code.
    pub(super) fn parse(unit: &[u8]) -> Self {
        let body = unit.windows(3).position(|three| three == [0, 0, 1]).unwrap() + 4;
        let mut bits = Bits::new(&unit[body..]);
        let profile = bits.read(8);
        bits.read(8);
        let level = bits.read(8);
        bits.unsigned();
        if profile == 100 {
            assert_eq!(bits.unsigned(), 1, "chroma is 4:2:0");
            assert_eq!((bits.unsigned(), bits.unsigned()), (0, 0), "eight bits");
            assert_eq!((bits.read(1), bits.read(1)), (0, 0), "no scaling lists");
        }
        bits.unsigned();
        match bits.unsigned() {
            0 => drop(bits.unsigned()),
            2 => {}
            other => panic!("picture order count type {other}"),
        }
        let max_num_ref_frames = bits.unsigned();
        bits.read(1);
        let columns = bits.unsigned() + 1;
        let rows = bits.unsigned() + 1;
        assert_eq!(bits.read(1), 1, "progressive");
        bits.read(1);
        let crop = if bits.read(1) == 1 { [0; 4].map(|_| bits.unsigned() * 2) } else { [0; 4] };
        let [left, right, top, bottom] = crop;
        let mut sps = Self {
            profile,
            level,
            max_num_ref_frames,
            width: columns * 16 - left - right,
            height: rows * 16 - top - bottom,
            colour: None,
            restriction: None,
        };
        if bits.read(1) == 1 {
            sps.read_vui(&mut bits);
        }
        sps
    }

    fn read_vui(&mut self, bits: &mut Bits) {
        if bits.read(1) == 1 && bits.read(8) == 255 {
            bits.read(32);
        }
        if bits.read(1) == 1 {
            bits.read(1);
        }
        if bits.read(1) == 1 {
            bits.read(3);
            let full_range = bits.read(1) == 1;
            let [primaries, transfer, matrix] =
                if bits.read(1) == 1 { [0; 3].map(|_| bits.read(8)) } else { [2; 3] };
            self.colour = Some(Colour { full_range, primaries, transfer, matrix });
        }
        if bits.read(1) == 1 {
            bits.unsigned();
            bits.unsigned();
        }
        if bits.read(1) == 1 {
            bits.read(32);
            bits.read(32);
            bits.read(1);
        }
        assert_eq!((bits.read(1), bits.read(1)), (0, 0), "no HRD parameters");
        bits.read(1);
        if bits.read(1) == 1 {
            bits.read(1);
            for _ in 0..4 {
                bits.unsigned();
            }
            self.restriction = Some(Restriction {
                max_num_reorder_frames: bits.unsigned(),
                max_dec_frame_buffering: bits.unsigned(),
            });
        }
    }
}

/// Bits of a raw byte sequence payload, most significant first, emulation prevention removed.
struct Bits {
    bytes: Vec<u8>,
    at: usize,
}

impl Bits {
    fn new(escaped: &[u8]) -> Self {
        let mut bytes: Vec<u8> = Vec::new();
        let mut zeros = 0;
        for &byte in escaped {
            if zeros >= 2 && byte == 3 {
                zeros = 0;
                continue;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            bytes.push(byte);
        }
        Self { bytes, at: 0 }
    }

    fn read(&mut self, count: u32) -> u32 {
        (0..count).fold(0, |value, _| {
            let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
            self.at += 1;
            value << 1 | u32::from(bit)
        })
    }

    /// An Exp-Golomb number, ue(v).
    fn unsigned(&mut self) -> u32 {
        let mut zeros = 0;
        while self.read(1) == 0 {
            zeros += 1;
        }
        (1 << zeros) - 1 + self.read(zeros)
    }
}
