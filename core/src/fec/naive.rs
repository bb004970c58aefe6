//! The same code by hand: bitwise multiplication, the whole matrix, Gauss over all shards.
//!
//! Nothing here is shared with [`gf8`](super::gf8) except the parity matrix's definition in words, so that an agreement
//! of the two means something. It is slow and ships in no product.

use super::{ErasureCode, FecError, Matrix, Shards, plan_repair};

/// The reference code.
#[derive(Debug, Default, Clone, Copy)]
pub struct Naive;

/// The product of two elements of GF(2^8) over 0x11d.
pub fn multiply(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (u16::from(a), b, 0u16);
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a <<= 1;
        if a & 0x100 != 0 {
            a ^= 0x11d;
        }
        b >>= 1;
    }
    product as u8
}

/// The element that makes 1 of `a`, by trying; zero for zero.
pub fn invert(a: u8) -> u8 {
    (1..=255).find(|&b| multiply(a, b) == 1).unwrap_or(0)
}

/// One row of the whole matrix: a row of the identity for data, a row of parity elements behind.
fn row(matrix: Matrix, data: usize, parity: usize, index: usize) -> Vec<u8> {
    (0..data)
        .map(|column| match (index.checked_sub(data), matrix) {
            (None, _) => u8::from(index == column),
            (Some(j), Matrix::Cauchy) => invert(((parity + column) ^ j) as u8),
            (Some(j), Matrix::Audio) => super::AUDIO_ROWS[j][column],
        })
        .collect()
}

impl ErasureCode for Naive {
    fn protect(
        &mut self,
        matrix: Matrix,
        data: usize,
        parity: usize,
        shards: &mut Shards<'_>,
    ) -> Result<(), FecError> {
        matrix.check(data, parity)?;
        shards.require(data + parity)?;
        for index in data..data + parity {
            let row = row(matrix, data, parity, index);
            let mut sum = vec![0; shards.length];
            for (column, factor) in row.iter().enumerate() {
                for (s, d) in sum.iter_mut().zip(shards.shard(column)) {
                    *s ^= multiply(*factor, *d);
                }
            }
            shards.shard_mut(index).copy_from_slice(&sum);
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
        plan_repair(data, parity, present, &mut vec![], &mut vec![])?;
        let used: Vec<usize> = (0..data + parity).filter(|&i| present[i]).take(data).collect();
        let mut rows: Vec<Vec<u8>> = used.iter().map(|&i| row(matrix, data, parity, i)).collect();
        let mut values: Vec<Vec<u8>> = used.iter().map(|&i| shards.shard(i).to_vec()).collect();
        for pivot in 0..data {
            let from = (pivot..data)
                .find(|&r| rows[r][pivot] != 0)
                .ok_or(FecError::TooManyMissing { missing: data, parity: pivot })?;
            rows.swap(pivot, from);
            values.swap(pivot, from);
            let scale = invert(rows[pivot][pivot]);
            for cell in rows[pivot].iter_mut().chain(values[pivot].iter_mut()) {
                *cell = multiply(scale, *cell);
            }
            let (pivot_row, pivot_value) = (rows[pivot].clone(), values[pivot].clone());
            for r in (0..data).filter(|&r| r != pivot) {
                let factor = rows[r][pivot];
                let cells = rows[r].iter_mut().zip(&pivot_row);
                for (cell, p) in cells.chain(values[r].iter_mut().zip(&pivot_value)) {
                    *cell ^= multiply(factor, *p);
                }
            }
        }
        for (index, value) in values.iter().enumerate() {
            shards.shard_mut(index).copy_from_slice(value);
        }
        Ok(())
    }
}
