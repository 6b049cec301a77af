//! Counts of values by their size, as Prometheus has them.

/// Edges of the buckets of durations, in seconds: from an answer on the same host to the longest wait
/// that is usual.
pub const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Those of throughput, in bytes per second: containerd's, of `image_pulling_throughput` (MB/s), which
/// these figures stand beside.
pub const BYTES_PER_SECOND: &[f64] = &[
    0.5e6, 1e6, 2e6, 4e6, 8e6, 16e6, 32e6, 64e6, 128e6, 256e6, 512e6, 1024e6,
];

/// A histogram.
#[derive(Clone, Debug)]
pub struct Histogram {
    edges: &'static [f64],
    /// Of each bucket by itself; the last is that of what is larger than all edges.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub fn new(edges: &'static [f64]) -> Self {
        Self {
            edges,
            counts: vec![0; edges.len() + 1],
            sum: 0.0,
        }
    }

    pub fn observe(&mut self, value: f64) {
        let bucket = self.edges.partition_point(|edge| *edge < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// Each edge with the number of values up to it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        self.edges
            .iter()
            .zip(&self.counts)
            .scan(0, |sum, (edge, count)| {
                *sum += count;
                Some((*edge, *sum))
            })
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum(&self) -> f64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_value_in_all_buckets_above_it() {
        let mut histogram = Histogram::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 3.0] {
            histogram.observe(value);
        }
        let cumulative: Vec<(f64, u64)> = histogram.cumulative().collect();
        assert_eq!(cumulative, [(1.0, 2), (2.0, 3)]);
        assert_eq!(histogram.count(), 4);
        assert!((histogram.sum() - 6.0).abs() < 1e-9);
    }
}
