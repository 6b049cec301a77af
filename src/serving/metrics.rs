//! Prometheus' text format, and how families are declared and documented.

use std::fmt::Write as _;

use jiff::Timestamp;
use prometheus::TextEncoder;
use prometheus::core::Collector as _;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as HistogramProto, LabelPair, Metric, MetricFamily,
    MetricType,
};

use crate::model::histogram::Histogram;

/// What a family is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// A family of series.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// Makes a table of families, and `FAMILIES` of all.
macro_rules! families {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(static $id: $crate::serving::metrics::Family = $crate::serving::metrics::Family {
            name: $name,
            kind: $crate::serving::metrics::Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All, in the order of the documentation.
        pub static FAMILIES: &[&$crate::serving::metrics::Family] = &[$(&$id),*];
    };
}
pub(crate) use families;

impl Family {
    /// Prometheus' own conventions: base units at the end of the name, `_total` for counters alone.
    #[cfg(test)]
    pub(crate) fn check_name(&self) {
        let name = self.name;
        assert!(name.starts_with("pullpath_"), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            self.kind == Kind::Counter,
            "{name}"
        );
        for unit in ["_ms", "_milliseconds", "_mbit", "_percent", "_kb"] {
            assert!(!name.ends_with(unit), "{name}");
        }
        assert!(self.help.ends_with('.'), "{name}");
    }
}

/// Series of a family that are written at a time.
const AT_ONCE: usize = 256;

/// Those of `# HELP` and `# TYPE`.
const HEAD_LINES: usize = 2;

/// The text so far. One family is made and written at a time: a thousand targets have forty thousand
/// series.
#[derive(Debug, Default)]
pub struct Page(pub String);

impl Page {
    /// A few series at a time: as the crate has them they take ten times the room of their lines.
    pub fn add(&mut self, family: &Family, metrics: impl IntoIterator<Item = Metric>) {
        let mut proto = MetricFamily::default();
        proto.set_name(family.name.to_owned());
        proto.set_help(family.help.to_owned());
        proto.set_field_type(match family.kind {
            Kind::Gauge => MetricType::GAUGE,
            Kind::Counter => MetricType::COUNTER,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        let mut metrics = metrics.into_iter();
        let mut is_first = true;
        loop {
            let some: Vec<Metric> = metrics.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                return;
            }
            proto.set_metric(some);
            let start = self.0.len();
            self.write(&proto);
            if !is_first {
                let head = self.0[start..].match_indices('\n').nth(HEAD_LINES - 1);
                let end = start + head.map_or(0, |(at, _)| at + 1);
                self.0.drain(start..end);
            }
            is_first = false;
        }
    }

    pub fn write(&mut self, family: &MetricFamily) {
        if family.get_metric().is_empty() {
            return;
        }
        // Only a family without series or name can't be written.
        if let Err(error) =
            TextEncoder::new().encode_utf8(std::slice::from_ref(family), &mut self.0)
        {
            tracing::error!(%error, family = family.name(), "metrics can't be written");
        }
    }
}

pub fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

pub fn gauge(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::default();
    metric.set_label(labels);
    metric.set_gauge(gauge);
    metric
}

pub fn counter(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::default();
    metric.set_label(labels);
    metric.set_counter(counter);
    metric
}

pub fn histogram_of(labels: Vec<LabelPair>, histogram: &Histogram) -> Metric {
    let buckets = histogram.cumulative().map(|(edge, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(edge);
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut proto = HistogramProto::default();
    proto.set_bucket(buckets.collect());
    proto.set_sample_count(histogram.count());
    proto.set_sample_sum(histogram.sum());
    let mut metric = Metric::default();
    metric.set_label(labels);
    metric.set_histogram(proto);
    metric
}

pub fn truth(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

pub fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

/// The program and its process.
pub fn process(page: &mut Page, build_info: &Family) {
    let build = vec![
        label("version", crate::VERSION),
        label("commit", crate::COMMIT),
    ];
    page.add(build_info, vec![gauge(build, 1.0)]);
    for family in ProcessCollector::for_self().collect() {
        page.write(&family);
    }
}

/// A table of docs/metrics.md.
pub fn table<'a>(text: &mut String, title: &str, families: impl Iterator<Item = &'a &'a Family>) {
    let _ = writeln!(
        text,
        "\n## {title}\n\n| name | type | labels | meaning |\n|---|---|---|---|"
    );
    for family in families {
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let help = family.help.replace('|', "\\|");
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {help} |",
            family.name,
            family.kind.as_str(),
            labels.join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static REQUESTS: Family = Family {
        name: "pullpath_requests_total",
        kind: Kind::Counter,
        labels: &["registry"],
        help: "Requests.",
    };

    #[test]
    fn a_family_of_many_series_has_one_head_and_all_of_them() {
        let names: Vec<String> = (0..=3 * AT_ONCE).map(|n| n.to_string()).collect();
        let mut page = Page(String::new());
        page.add(
            &REQUESTS,
            names
                .iter()
                .map(|name| counter(vec![label("registry", name)], 1.0)),
        );
        let (heads, series): (Vec<&str>, Vec<&str>) =
            page.0.lines().partition(|line| line.starts_with('#'));
        assert_eq!(heads.len(), HEAD_LINES, "{heads:?}");
        let wanted = names
            .iter()
            .map(|name| format!("pullpath_requests_total{{registry=\"{name}\"}} 1"));
        assert_eq!(series, wanted.collect::<Vec<_>>());
    }
}
