//! Histograms of the kind that Prometheus scrapes.

/// Upper bounds of the buckets for durations, in seconds: from an answer on the same host to the longest usual
/// wait.
pub const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Upper bounds of the buckets for throughput, in bytes per second: those of containerd's
/// `image_pulling_throughput` (MB/s), which is shown beside it.
pub const BYTES_PER_SECOND: &[f64] = &[
    0.5e6, 1e6, 2e6, 4e6, 8e6, 16e6, 32e6, 64e6, 128e6, 256e6, 512e6, 1024e6,
];

/// Counts of values in buckets, with their sum.
#[derive(Clone, Debug)]
pub struct Histogram {
    edges: &'static [f64],
    /// The count of each bucket alone; the last one counts values above all bounds.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// An empty histogram with these upper bounds, in ascending order.
    pub fn new(edges: &'static [f64]) -> Self {
        Self {
            edges,
            counts: vec![0; edges.len() + 1],
            sum: 0.0,
        }
    }

    /// Counts a value; one that equals a bound belongs to the bucket below it.
    pub fn observe(&mut self, value: f64) {
        let bucket = self.edges.partition_point(|edge| *edge < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// Each upper bound with the number of values up to it (`le` of Prometheus), without `+Inf`.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        self.edges
            .iter()
            .zip(&self.counts)
            .scan(0, |sum, (edge, count)| {
                *sum += count;
                Some((*edge, *sum))
            })
    }

    /// Number of all values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of all values.
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
