//! Samples and what is said of them.

use std::time::Duration;

/// The middle of samples; between two, the higher one.
pub fn median(samples: &[f64]) -> f64 {
    percentile(samples, 50.0)
}

/// The sample below which so many percent lie.
pub fn percentile(samples: &[f64], percent: f64) -> f64 {
    assert!(!samples.is_empty(), "nothing was measured");
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).floor() as usize;
    sorted[rank.min(sorted.len() - 1)]
}

/// The smallest and the largest.
pub fn spread(samples: &[f64]) -> (f64, f64) {
    let fold = |from: f64, pick: fn(f64, f64) -> f64| samples.iter().copied().fold(from, pick);
    (fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max))
}

/// Of each pair, the first by the second.
pub fn ratios(over: &[f64], under: &[f64]) -> Vec<f64> {
    assert_eq!(over.len(), under.len(), "both sides were measured as often");
    over.iter().zip(under).map(|(over, under)| over / under).collect()
}

/// A span in milliseconds.
pub fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}
