//! One block of a frame on its way to the socket: one buffer, three types.
//!
//! A block is a pooled buffer of equal slots; each slot has room for a sealer's head and tail around the shard. The
//! stations write into the slots where they lie and nothing is moved: a packetizer fills a [`DataBlock`], parity makes
//! it a [`FecBlock`], sealing makes it a [`SealedBlock`]. Each station consumes the one before, and only the last one
//! yields datagrams, so unsealed bytes cannot be sent by mistake.
//!
//! Deliberately absent: any header's meaning.

use crate::fec::{ErasureCode, FecError, Matrix, Shards};
use crate::media::FrameIndex;
use crate::seal::{CounterExhausted, Sealer};

/// How one slot of a block is laid out, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotLayout {
    /// Room for the sealer in front of the shard.
    pub head: usize,
    /// The shard.
    pub shard: usize,
    /// Room for the sealer behind the shard.
    pub tail: usize,
}

impl SlotLayout {
    /// The layout for shards of `shard` bytes under this sealer.
    pub fn new(shard: usize, sealer: &dyn Sealer) -> Self {
        Self { head: sealer.head_bytes(), shard, tail: sealer.tail_bytes() }
    }

    /// A whole slot, which is also the size of a datagram.
    pub const fn bytes(self) -> usize {
        self.head + self.shard + self.tail
    }
}

/// Buffers that are used again: at rest a stream allocates nothing.
#[derive(Debug)]
pub struct BlockPool {
    layout: SlotLayout,
    free: Vec<Vec<u8>>,
    keep: usize,
}

impl BlockPool {
    /// A pool that keeps at most `keep` unused buffers.
    pub fn new(layout: SlotLayout, keep: usize) -> Self {
        Self { layout, free: Vec::with_capacity(keep), keep }
    }

    /// A block of `data` shards with room for `parity` more. Its bytes are those of an earlier block: the packetizer
    /// writes every byte of every data shard.
    pub fn take(&mut self, data: usize, parity: usize) -> DataBlock {
        let mut bytes = self.free.pop().unwrap_or_default();
        bytes.resize((data + parity) * self.layout.bytes(), 0);
        DataBlock(Slots { bytes, layout: self.layout, data, parity })
    }

    /// Takes the buffer of a block back that has been sent.
    pub fn put(&mut self, block: SealedBlock) {
        if self.free.len() < self.keep {
            self.free.push(block.0.bytes);
        }
    }

    /// How many buffers wait to be used again.
    pub fn idle(&self) -> usize {
        self.free.len()
    }
}

/// A block whose data shards are being written.
#[derive(Debug)]
pub struct DataBlock(Slots);

impl DataBlock {
    /// Data shard `index`.
    pub fn shard_mut(&mut self, index: usize) -> &mut [u8] {
        self.0.shard_mut(index)
    }

    /// Computes the parity shards, if the block has any.
    ///
    /// # Errors
    /// [`FecError::Shape`] if the code does not exist for this block.
    pub fn protect(
        mut self,
        code: &mut dyn ErasureCode,
        matrix: Matrix,
    ) -> Result<FecBlock, FecError> {
        let Slots { bytes, layout, data, parity } = &mut self.0;
        if *parity > 0 {
            let mut shards = Shards::new(bytes, layout.bytes(), layout.head, layout.shard)?;
            code.protect(matrix, *data, *parity, &mut shards)?;
        }
        Ok(FecBlock(self.0))
    }
}

/// A block with its parity, whose headers may still be patched.
#[derive(Debug)]
pub struct FecBlock(Slots);

impl FecBlock {
    /// Shards in the block, parity included.
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// Shard `index`, data first.
    pub fn shard_mut(&mut self, index: usize) -> &mut [u8] {
        self.0.shard_mut(index)
    }

    /// Seals every shard.
    ///
    /// # Errors
    /// [`CounterExhausted`] if the sealer cannot seal all of them; then it seals none.
    pub fn seal(
        mut self,
        sealer: &mut dyn Sealer,
        frame: FrameIndex,
    ) -> Result<SealedBlock, CounterExhausted> {
        let (left, need) = (sealer.left(), self.0.count() as u64);
        if left < need {
            return Err(CounterExhausted { left, need });
        }
        let slot = self.0.layout.bytes();
        for datagram in self.0.bytes.chunks_exact_mut(slot) {
            sealer.seal(frame, datagram)?;
        }
        Ok(SealedBlock(self.0))
    }
}

/// A block ready for the socket.
#[derive(Debug)]
pub struct SealedBlock(Slots);

impl SealedBlock {
    /// Datagrams in the block.
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// The size of each datagram in bytes.
    pub fn datagram_bytes(&self) -> usize {
        self.0.layout.bytes()
    }

    /// Up to `count` datagrams from number `first` on, one after the other.
    pub fn datagrams(&self, first: usize, count: usize) -> &[u8] {
        let first = first.min(self.count());
        let last = first.saturating_add(count).min(self.count());
        let slot = self.0.layout.bytes();
        &self.0.bytes[first * slot..last * slot]
    }
}

/// What the three types share.
#[derive(Debug)]
struct Slots {
    bytes: Vec<u8>,
    layout: SlotLayout,
    data: usize,
    parity: usize,
}

impl Slots {
    fn count(&self) -> usize {
        self.data + self.parity
    }

    fn shard_mut(&mut self, index: usize) -> &mut [u8] {
        let start = index * self.layout.bytes() + self.layout.head;
        &mut self.bytes[start..start + self.layout.shard]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fec::gf8::Gf8;
    use crate::seal::Clear;

    /// Marks what it may touch, and counts down.
    struct Frame(u64);

    impl Sealer for Frame {
        fn head_bytes(&self) -> usize {
            2
        }

        fn tail_bytes(&self) -> usize {
            1
        }

        fn left(&self) -> u64 {
            self.0
        }

        fn seal(&mut self, frame: FrameIndex, slot: &mut [u8]) -> Result<(), CounterExhausted> {
            self.0 -= 1;
            slot[0] = frame.0 as u8;
            slot[1] = self.0 as u8;
            if let Some(last) = slot.last_mut() {
                *last = 0xff;
            }
            Ok(())
        }
    }

    fn protected(pool: &mut BlockPool) -> FecBlock {
        let mut block = pool.take(3, 2);
        for i in 0..3 {
            block.shard_mut(i).iter_mut().enumerate().for_each(|(k, b)| *b = (16 * i + k) as u8);
        }
        block.protect(&mut Gf8::new(), Matrix::Cauchy).unwrap()
    }

    #[test]
    fn stations_write_where_the_bytes_lie() {
        let mut sealer = Frame(5);
        let mut pool = BlockPool::new(SlotLayout::new(8, &sealer), 1);
        let sealed = protected(&mut pool).seal(&mut sealer, FrameIndex(9)).unwrap();
        assert_eq!((sealed.count(), sealed.datagram_bytes()), (5, 11));
        // The parity of the vector of spec 7.7 with three data shards, between head and tail.
        let parity = [0xf3, 0xce, 0x89, 0xb4, 0x07, 0x3a, 0x7d, 0x40];
        assert_eq!(sealed.datagrams(3, 1), [&[9, 1][..], &parity, &[0xff]].concat());
        assert_eq!(sealed.datagrams(4, 9).len(), 11);
        assert!(sealed.datagrams(5, 1).is_empty());
    }

    #[test]
    fn a_sealer_without_room_seals_nothing() {
        let mut sealer = Frame(4);
        let mut pool = BlockPool::new(SlotLayout::new(8, &sealer), 1);
        let result = protected(&mut pool).seal(&mut sealer, FrameIndex(1)).map(|_| ());
        assert_eq!(result, Err(CounterExhausted { left: 4, need: 5 }));
        assert_eq!(sealer.0, 4);
    }

    #[test]
    fn buffers_come_back() {
        let mut pool = BlockPool::new(SlotLayout::new(8, &Clear), 1);
        let blocks = [protected(&mut pool), protected(&mut pool)];
        let mut place = None;
        for block in blocks {
            let sealed = block.seal(&mut Clear, FrameIndex(1)).unwrap();
            place = place.or(Some(sealed.0.bytes.as_ptr()));
            pool.put(sealed);
        }
        assert_eq!(pool.idle(), 1);
        // The second one found the pool full and was let go.
        assert_eq!(Some(pool.take(1, 0).0.bytes.as_ptr()), place);
    }
}
