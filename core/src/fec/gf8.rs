//! The code that ships: GF(2^8) over 0x11d with vector kernels, and no matrix larger than what is missing.
//!
//! Parity elements are computed where they are used, so that a block of any shape costs no set-up and no allocation.
//! Repair solves only for the missing shards: what is present is subtracted from as many parity shards as are missing,
//! and an inverse of that small square turns the rest into the missing data. The kernels are those of `fec-rs`, which
//! picks GFNI, AVX2, SSSE3 or plain tables at run time.

use fec_rs::galois::{self, MulSliceFn};

use super::{ErasureCode, FecError, Matrix, Shards, plan_repair};

/// The multiplicative inverses of the field. spec: gamestream 7.7
static INVERSES: [u8; 256] = inverses();

/// The inverse of `element`; zero for zero, which no checked shape asks for.
pub(super) fn inverse(element: u8) -> u8 {
    INVERSES[usize::from(element)]
}

/// The vectorised code. Its scratch lists are kept from call to call.
pub struct Gf8 {
    multiply: MulSliceFn,
    multiply_add: MulSliceFn,
    missing: Vec<usize>,
    rows: Vec<usize>,
    /// The square to invert, row by row, each row followed by its row of the identity.
    square: Vec<u8>,
}

impl Gf8 {
    /// A code with the fastest kernels of this processor.
    pub fn new() -> Self {
        let (multiply, multiply_add) = galois::detect_mul_slice();
        Self { multiply, multiply_add, missing: vec![], rows: vec![], square: vec![] }
    }

    /// `output = factor * input`
    fn set(&self, factor: u8, input: &[u8], output: &mut [u8]) {
        match factor {
            0 => output.fill(0),
            1 => output.copy_from_slice(input),
            _ => (self.multiply)(factor, input, output),
        }
    }

    /// `output ^= factor * input`
    fn add(&self, factor: u8, input: &[u8], output: &mut [u8]) {
        match factor {
            0 => {}
            1 => output.iter_mut().zip(input).for_each(|(o, i)| *o ^= i),
            _ => (self.multiply_add)(factor, input, output),
        }
    }

    /// Fills and inverts the square of the elements that link `rows` to `missing`.
    fn invert_square(&mut self, matrix: Matrix, parity: usize) -> Result<(), FecError> {
        let size = self.missing.len();
        let width = 2 * size;
        self.square.clear();
        self.square.resize(size * width, 0);
        for (r, &row) in self.rows.iter().enumerate() {
            for (c, &column) in self.missing.iter().enumerate() {
                self.square[r * width + c] = matrix.element(parity, row, column);
            }
            self.square[r * width + size + r] = 1;
        }
        for pivot in 0..size {
            self.reduce(pivot, size, width)?;
        }
        Ok(())
    }

    /// One step of Gauss-Jordan: makes column `pivot` a column of the identity.
    fn reduce(&mut self, pivot: usize, size: usize, width: usize) -> Result<(), FecError> {
        // Every square of a Cauchy matrix, and of the audio matrix, is invertible; a missing pivot would be a wrong
        // matrix, which the caller learns as a block that cannot be repaired.
        let from = (pivot..size)
            .find(|&r| self.square[r * width + pivot] != 0)
            .ok_or(FecError::TooManyMissing { missing: size, parity: pivot })?;
        if from != pivot {
            for c in 0..width {
                self.square.swap(pivot * width + c, from * width + c);
            }
        }
        let scale = inverse(self.square[pivot * width + pivot]);
        for c in 0..width {
            let cell = &mut self.square[pivot * width + c];
            *cell = galois::mul(scale, *cell);
        }
        for r in (0..size).filter(|&r| r != pivot) {
            let factor = self.square[r * width + pivot];
            if factor == 0 {
                continue;
            }
            for c in 0..width {
                let change = galois::mul(factor, self.square[pivot * width + c]);
                self.square[r * width + c] ^= change;
            }
        }
        Ok(())
    }
}

impl Default for Gf8 {
    fn default() -> Self {
        Self::new()
    }
}

impl ErasureCode for Gf8 {
    fn protect(
        &mut self,
        matrix: Matrix,
        data: usize,
        parity: usize,
        shards: &mut Shards<'_>,
    ) -> Result<(), FecError> {
        matrix.check(data, parity)?;
        shards.require(data + parity)?;
        // Data outside, parity inside: a data shard stays in the first-level cache while every parity row takes it.
        for column in 0..data {
            for row in 0..parity {
                let factor = matrix.element(parity, row, column);
                let (input, output) = shards.pair(column, data + row);
                if column == 0 {
                    self.set(factor, input, output);
                } else {
                    self.add(factor, input, output);
                }
            }
        }
        Ok(())
    }

    fn repair(
        &mut self,
        matrix: Matrix,
        data: usize,
        parity: usize,
        shards: &mut Shards<'_>,
        present: &[bool],
    ) -> Result<(), FecError> {
        matrix.check(data, parity)?;
        shards.require(data + parity)?;
        plan_repair(data, parity, present, &mut self.missing, &mut self.rows)?;
        if self.missing.is_empty() {
            return Ok(());
        }
        self.invert_square(matrix, parity)?;
        // What is left of each parity shard once the present data is taken out depends on the missing data alone.
        for column in (0..data).filter(|&i| present[i]) {
            for &row in &self.rows {
                let factor = matrix.element(parity, row, column);
                let (input, output) = shards.pair(column, data + row);
                self.add(factor, input, output);
            }
        }
        let size = self.missing.len();
        for (m, &column) in self.missing.iter().enumerate() {
            for (r, &row) in self.rows.iter().enumerate() {
                let factor = self.square[m * 2 * size + size + r];
                let (input, output) = shards.pair(data + row, column);
                if r == 0 {
                    self.set(factor, input, output);
                } else {
                    self.add(factor, input, output);
                }
            }
        }
        Ok(())
    }
}

/// Walks the powers of the generator 2 and of its inverse side by side. spec: gamestream 7.7
const fn inverses() -> [u8; 256] {
    let mut powers = [0u8; 255];
    let mut value: u16 = 1;
    let mut exponent = 0;
    while exponent < 255 {
        powers[exponent] = value as u8;
        value <<= 1;
        if value & 0x100 != 0 {
            value ^= 0x11d;
        }
        exponent += 1;
    }
    let mut table = [0u8; 256];
    let mut exponent = 0;
    while exponent < 255 {
        table[powers[exponent] as usize] = powers[(255 - exponent) % 255];
        exponent += 1;
    }
    table
}
