//! Forward error correction: parity that restores lost shards.
//!
//! A block is a row of equal shards in one buffer, data first, parity behind. [`ErasureCode`] computes the parity in
//! place and restores missing data in place; [`Matrix`] says which parity, and both sides must mean the same one.
//! [`gf8`] is the code that ships; [`naive`] computes the same by hand and exists to be compared with.
//!
//! Deliberately absent: any notion of packets, and the check that a shard is intact - a damaged shard must be counted
//! as missing before it comes here.

pub mod gf8;
#[cfg(any(test, feature = "sim"))]
pub mod naive;

/// The most shards, data and parity together, that a block of GF(2^8) has. spec: gamestream 7.7
pub const MAX_SHARDS: usize = 255;

/// Which parity belongs to which data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Matrix {
    /// Row j, column i is the inverse of `(parity + i) XOR j`: the video code. spec: gamestream 7.7
    Cauchy,
    /// The fixed two rows over four columns of the audio code. spec: gamestream 8.2
    Audio,
}

/// The audio code's rows. spec: gamestream 8.2
const AUDIO_ROWS: [[u8; 4]; 2] = [[0x77, 0x40, 0x38, 0x0e], [0xc7, 0xa7, 0x0d, 0x6c]];

impl Matrix {
    /// Checks that the code exists for this many shards.
    ///
    /// # Errors
    /// [`FecError::Shape`] if it does not.
    pub fn check(self, data: usize, parity: usize) -> Result<(), FecError> {
        let fits = match self {
            Self::Cauchy => data >= 1 && parity >= 1 && data.saturating_add(parity) <= MAX_SHARDS,
            Self::Audio => (data, parity) == (4, 2),
        };
        if fits { Ok(()) } else { Err(FecError::Shape { data, parity }) }
    }

    /// The factor of data shard `column` in parity shard `row`, for a checked shape of `parity` parity shards.
    fn element(self, parity: usize, row: usize, column: usize) -> u8 {
        match self {
            // Below 256 because the shape was checked, never zero because column + parity exceeds every row.
            Self::Cauchy => gf8::inverse(((parity + column) ^ row) as u8),
            Self::Audio => AUDIO_ROWS[row][column],
        }
    }
}

/// Why parity could not be computed or a block not be repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FecError {
    /// The code does not exist for this many shards.
    #[error("there is no code with {data} data and {parity} parity shards")]
    Shape {
        /// Data shards.
        data: usize,
        /// Parity shards.
        parity: usize,
    },
    /// The buffer is not what the shape says.
    #[error("the buffer holds {got} shards, the block has {need}")]
    Buffer {
        /// Whole shards in the buffer.
        got: usize,
        /// Shards of the block.
        need: usize,
    },
    /// More shards are missing than parity shards have arrived.
    #[error("{missing} data shards are missing and only {parity} parity shards are there")]
    TooManyMissing {
        /// Missing data shards.
        missing: usize,
        /// Parity shards that are there.
        parity: usize,
    },
}

/// The shards of one block inside a larger buffer: equal slots, of which the code covers the same bytes in each.
#[derive(Debug)]
pub struct Shards<'a> {
    buffer: &'a mut [u8],
    stride: usize,
    offset: usize,
    length: usize,
}

impl<'a> Shards<'a> {
    /// Slots of `stride` bytes each, of which the code covers `length` bytes from `offset` on.
    ///
    /// # Errors
    /// [`FecError::Buffer`] if the covered bytes do not lie within a slot.
    pub fn new(
        buffer: &'a mut [u8],
        stride: usize,
        offset: usize,
        length: usize,
    ) -> Result<Self, FecError> {
        let fits = length > 0 && offset.checked_add(length).is_some_and(|end| end <= stride);
        if !fits {
            return Err(FecError::Buffer { got: 0, need: 1 });
        }
        Ok(Self { buffer, stride, offset, length })
    }

    /// Shards that fill their slots.
    ///
    /// # Errors
    /// [`FecError::Buffer`] if `length` is zero.
    pub fn packed(buffer: &'a mut [u8], length: usize) -> Result<Self, FecError> {
        Self::new(buffer, length, 0, length)
    }

    /// How many whole slots the buffer holds.
    fn count(&self) -> usize {
        self.buffer.len() / self.stride
    }

    fn require(&self, need: usize) -> Result<(), FecError> {
        let got = self.count();
        if got < need { Err(FecError::Buffer { got, need }) } else { Ok(()) }
    }

    #[cfg(any(test, feature = "sim"))]
    fn shard(&self, index: usize) -> &[u8] {
        let start = index * self.stride + self.offset;
        &self.buffer[start..start + self.length]
    }

    #[cfg(any(test, feature = "sim"))]
    fn shard_mut(&mut self, index: usize) -> &mut [u8] {
        let start = index * self.stride + self.offset;
        &mut self.buffer[start..start + self.length]
    }

    /// One shard to read and another to write; the two differ.
    fn pair(&mut self, read: usize, write: usize) -> (&[u8], &mut [u8]) {
        let (low, high) = (read.min(write), read.max(write));
        let (left, right) = self.buffer.split_at_mut(high * self.stride);
        let left = &mut left[low * self.stride + self.offset..][..self.length];
        let right = &mut right[self.offset..][..self.length];
        if read < write { (left, right) } else { (right, left) }
    }
}

/// An erasure code over shards in place.
pub trait ErasureCode: Send {
    /// Computes `parity` parity shards from the first `data` shards, into the slots behind them.
    ///
    /// # Errors
    /// [`FecError::Shape`] and [`FecError::Buffer`]; nothing is written then.
    fn protect(
        &mut self,
        matrix: Matrix,
        data: usize,
        parity: usize,
        shards: &mut Shards<'_>,
    ) -> Result<(), FecError>;

    /// Restores the data shards that `present` says are missing. `present` has one entry per shard, data first.
    /// Parity slots serve as scratch and hold nothing of use afterwards.
    ///
    /// # Errors
    /// [`FecError`]; nothing is written then.
    fn repair(
        &mut self,
        matrix: Matrix,
        data: usize,
        parity: usize,
        shards: &mut Shards<'_>,
        present: &[bool],
    ) -> Result<(), FecError>;
}

/// Checks a repair and lists what is missing and which parity shards replace it.
fn plan_repair(
    data: usize,
    parity: usize,
    present: &[bool],
    missing: &mut Vec<usize>,
    rows: &mut Vec<usize>,
) -> Result<(), FecError> {
    let need = data + parity;
    if present.len() != need {
        return Err(FecError::Buffer { got: present.len(), need });
    }
    missing.clear();
    missing.extend((0..data).filter(|&i| !present[i]));
    rows.clear();
    rows.extend((0..parity).filter(|&j| present[data + j]));
    if missing.len() > rows.len() {
        return Err(FecError::TooManyMissing { missing: missing.len(), parity: rows.len() });
    }
    rows.truncate(missing.len());
    Ok(())
}

#[cfg(test)]
mod tests;
