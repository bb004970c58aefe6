//! How a frame is cut into FEC blocks.
//!
//! A stock client computes the number of parity shards from the percentage it reads, and builds its decoder for that
//! number: a pair that does not agree makes every repair garbage. Here the percentage is chosen first and the count is
//! always derived from it, as the client does.

use crate::media::BlockShape;

/// The data shards a block can have at all: the field that says so has ten bits. spec: gamestream 7.2
pub const MAX_BLOCK_DATA: usize = 1023;

/// The blocks of a frame: the field that says so has two bits. spec: gamestream 7.2
pub const MAX_BLOCKS: usize = 4;

/// The largest percentage: its field has eight bits. spec: gamestream 7.2
const MAX_PERCENTAGE: u32 = 255;

/// The parity of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parity {
    /// What is written into the shards.
    pub percentage: u8,
    /// How many parity shards that means.
    pub count: usize,
}

impl Parity {
    /// A block without parity.
    pub const NONE: Self = Self { percentage: 0, count: 0 };

    /// What a client concludes from a percentage. spec: gamestream 7.5
    pub const fn derive(data: usize, percentage: u8) -> Self {
        Self { percentage, count: (data * percentage as usize).div_ceil(100) }
    }

    /// The parity of a block of `data` shards: `fec_percentage`, but at least `min_parity` shards as far as the
    /// percentage field can say so. A percentage of zero means none. spec: gamestream appendix C
    pub fn plan(data: usize, fec_percentage: u8, min_parity: u8) -> Self {
        if data == 0 || fec_percentage == 0 {
            return Self::NONE;
        }
        let wanted = Self::derive(data, fec_percentage);
        if wanted.count >= usize::from(min_parity) {
            return wanted;
        }
        let data_shards = u32::try_from(data).unwrap_or(u32::MAX);
        let floor = 100 * u32::from(min_parity) / data_shards;
        // Rounding down is enough for up to two shards; for more it may be one percent short.
        [floor, floor + 1]
            .into_iter()
            .map(|percentage| Self::derive(data, percentage.min(MAX_PERCENTAGE) as u8))
            .find(|parity| parity.count >= usize::from(min_parity))
            .unwrap_or(Self::derive(data, MAX_PERCENTAGE as u8))
    }
}

/// How frames of one stream are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePlanner {
    fec_percentage: u8,
    min_parity: u8,
    single_block: bool,
    max_block_data: usize,
}

impl FramePlanner {
    /// The planner for these options; `single_block` is for clients that know no frames of several blocks.
    pub fn new(fec_percentage: u8, min_parity: u8, single_block: bool) -> Self {
        // The largest block up to which every block fits the code: 25500 / (100 + percentage), less if the minimum of
        // parity is large.
        let fits = |data: &usize| {
            let parity = Parity::plan(*data, fec_percentage, min_parity);
            data + parity.count <= crate::fec::MAX_SHARDS
        };
        let max_block_data = if fec_percentage == 0 {
            MAX_BLOCK_DATA
        } else {
            (1..=crate::fec::MAX_SHARDS).take_while(fits).last().unwrap_or(1)
        };
        Self { fec_percentage, min_parity, single_block, max_block_data }
    }

    /// The data shards of the largest frame.
    pub const fn max_frame_data(&self) -> usize {
        self.max_blocks() * MAX_BLOCK_DATA
    }

    /// The data shards of the largest block that gets parity.
    pub const fn max_block_data(&self) -> usize {
        self.max_block_data
    }

    /// The blocks of a frame of `data` shards, or `None` if it is empty or too large. spec: gamestream 7.5
    pub fn plan(&self, data: usize) -> Option<FramePlan> {
        if data == 0 || data > self.max_frame_data() {
            return None;
        }
        let blocks = data.div_ceil(self.max_block_data);
        let protected = blocks <= self.max_blocks();
        let blocks = if protected { blocks } else { self.max_blocks() };
        Some(FramePlan { planner: *self, data, blocks, protected })
    }

    const fn max_blocks(&self) -> usize {
        if self.single_block { 1 } else { MAX_BLOCKS }
    }
}

/// How one frame is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePlan {
    planner: FramePlanner,
    data: usize,
    blocks: usize,
    protected: bool,
}

/// One block of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockPlan {
    /// Its number in the frame.
    pub block: usize,
    /// Its first data shard, counted in the frame.
    pub first: usize,
    /// Its data shards.
    pub data: usize,
    /// Its parity.
    pub parity: Parity,
}

impl BlockPlan {
    /// Its shards, as a trace tells them.
    pub const fn shape(self) -> BlockShape {
        // A block has at most 1023 data shards, and at most 255 shards if it has parity.
        BlockShape { data: self.data as u16, parity: self.parity.count as u16 }
    }
}

impl FramePlan {
    /// Data shards of the frame.
    pub const fn data(&self) -> usize {
        self.data
    }

    /// Blocks of the frame.
    pub const fn block_count(&self) -> usize {
        self.blocks
    }

    /// The blocks in the order of sending; they are contiguous, and earlier ones are never smaller than later ones.
    pub fn blocks(self) -> impl Iterator<Item = BlockPlan> {
        let (share, extra) = (self.data / self.blocks, self.data % self.blocks);
        (0..self.blocks).map(move |block| {
            let data = share + usize::from(block < extra);
            let parity = if self.protected {
                Parity::plan(data, self.planner.fec_percentage, self.planner.min_parity)
            } else {
                Parity::NONE
            };
            BlockPlan { block, first: block * share + block.min(extra), data, parity }
        })
    }

    /// Datagrams of the frame, parity included.
    pub fn datagrams(self) -> usize {
        self.blocks().map(|block| block.data + block.parity.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: gamestream 13 item 96
    #[test]
    fn the_client_always_derives_the_parity_we_send() {
        for fec in 1..=100u8 {
            let planner = FramePlanner::new(fec, 2, false);
            assert_eq!(planner.max_block_data(), 25_500 / (100 + usize::from(fec)), "fec {fec}");
            for data in 1..=planner.max_block_data() {
                let parity = Parity::plan(data, fec, 2);
                let theirs = (data * usize::from(parity.percentage)).div_ceil(100);
                assert_eq!(parity.count, theirs, "fec {fec}, {data} data");
                assert!(parity.count >= 2, "fec {fec}, {data} data");
                assert!(data + parity.count <= 255, "fec {fec}, {data} data");
                // The formula of appendix C, in its own words.
                let mut pct = u32::from(fec);
                if (data as u32 * pct).div_ceil(100) < 2 {
                    pct = 200 / data as u32;
                }
                assert_eq!(u32::from(parity.percentage), pct, "fec {fec}, {data} data");
            }
        }
    }

    #[test]
    fn larger_minima_hold_as_far_as_the_field_reaches() {
        for min in 3..=64u8 {
            let planner = FramePlanner::new(20, min, false);
            for data in 1..=planner.max_block_data() {
                let parity = Parity::plan(data, 20, min);
                assert_eq!(parity, Parity::derive(data, parity.percentage));
                assert!(data + parity.count <= 255);
                assert!(parity.count >= usize::from(min) || parity.percentage == 255);
            }
        }
    }

    // spec: gamestream 13 item 103
    #[test]
    fn frames_beyond_the_code_go_without_parity_and_larger_ones_not_at_all() {
        let planner = FramePlanner::new(20, 2, false);
        let shape = |data| {
            let plan: FramePlan = planner.plan(data)?;
            let blocks: Vec<_> = plan.blocks().map(|b| (b.data, b.parity.count)).collect();
            Some(blocks)
        };
        assert_eq!(shape(1), Some(vec![(1, 2)]));
        assert_eq!(shape(212), Some(vec![(212, 43)]));
        assert_eq!(shape(213), Some(vec![(107, 22), (106, 22)]));
        assert_eq!(shape(848), Some(vec![(212, 43); 4]));
        assert_eq!(shape(849), Some(vec![(213, 0), (212, 0), (212, 0), (212, 0)]));
        assert_eq!(shape(4092), Some(vec![(1023, 0); 4]));
        assert_eq!((shape(4093), shape(0)), (None, None));
    }

    // spec: gamestream 7.5
    #[test]
    fn old_clients_get_one_block() {
        let planner = FramePlanner::new(20, 2, true);
        let shape = |data| planner.plan(data).map(|p: FramePlan| p.blocks().collect::<Vec<_>>());
        assert_eq!(shape(212).unwrap()[0].parity.count, 43);
        let large = shape(213).unwrap();
        assert_eq!((large.len(), large[0].data, large[0].parity), (1, 213, Parity::NONE));
        assert_eq!(shape(1023).unwrap().len(), 1);
        assert_eq!(shape(1024), None);
    }

    #[test]
    fn blocks_follow_each_other_without_gap() {
        for fec in [0, 1, 20, 100] {
            let planner = FramePlanner::new(fec, 2, false);
            for data in 1..=4092 {
                let (mut next, mut before) = (0, usize::MAX);
                for block in planner.plan(data).unwrap().blocks() {
                    assert_eq!(block.first, next);
                    assert!(block.data >= 1 && block.data <= before);
                    (next, before) = (next + block.data, block.data);
                }
                assert_eq!(next, data);
            }
        }
    }
}
