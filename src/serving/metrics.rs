//! Prometheus' text format, and the declaration and documentation of metric families.

use std::fmt::{self, Write as _};
use std::time::Duration;

use jiff::Timestamp;
use prometheus::TextEncoder;
use prometheus::core::Collector as _;
use prometheus::process_collector::ProcessCollector;

use crate::model::histogram::Histogram;
use crate::model::text::visible;

/// A metric family.
#[derive(Debug)]
pub struct Family {
    /// The name of the metric, with its unit.
    pub name: &'static str,
    /// The type: `gauge`, `counter` or `histogram`.
    pub kind: &'static str,
    /// Names of the labels; series have their values in this order.
    pub labels: &'static [&'static str],
    /// The `# HELP` line, and the meaning in docs/metrics.md.
    pub help: &'static str,
}

/// Declares metric families, and `FAMILIES` with all of them.
macro_rules! families {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(static $id: $crate::serving::metrics::Family = $crate::serving::metrics::Family {
            name: $name,
            kind: stringify!($kind),
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All families, in the order of the documentation.
        pub static FAMILIES: &[&$crate::serving::metrics::Family] = &[$(&$id),*];
    };
}
pub(crate) use families;

#[cfg(test)]
impl Family {
    /// Checks Prometheus' conventions: base units at the end of the name, `_total` for counters only.
    pub(crate) fn check_name(&self) {
        let name = self.name;
        assert!(name.starts_with("pullpath_"), "{name}");
        assert_eq!(name.ends_with("_total"), self.kind == "counter", "{name}");
        for unit in ["_ms", "_milliseconds", "_mbit", "_percent", "_kb"] {
            assert!(!name.ends_with(unit), "{name}");
        }
        assert!(self.help.ends_with('.'), "{name}");
    }
}

/// The value of one series, or the content of one histogram.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// The value of a gauge or counter.
    Number(f64),
    /// Written as the series `_bucket`, `_sum` and `_count`.
    Histogram(&'a Histogram),
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Value<'_> {
    #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
    fn from(count: u64) -> Self {
        Self::Number(count as f64)
    }
}

impl From<usize> for Value<'_> {
    fn from(count: usize) -> Self {
        (count as u64).into()
    }
}

impl From<bool> for Value<'_> {
    fn from(holds: bool) -> Self {
        u64::from(holds).into()
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(at: Timestamp) -> Self {
        Self::Number(at.as_duration().as_secs_f64())
    }
}

impl From<Duration> for Value<'_> {
    fn from(took: Duration) -> Self {
        Self::Number(took.as_secs_f64())
    }
}

impl<'a> From<&'a Histogram> for Value<'a> {
    fn from(histogram: &'a Histogram) -> Self {
        Self::Histogram(histogram)
    }
}

/// A page that is being written. Each series is written at once: a thousand targets have forty thousand series, which
/// the types of the crate `prometheus` would all keep in memory before the first is written.
pub struct Page<'a>(pub &'a mut dyn fmt::Write);

impl fmt::Debug for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

impl Page<'_> {
    /// Adds series, each with the values of its labels in the family's order. A family without series has no
    /// lines at all.
    pub fn add<'a, L: IntoIterator<Item = &'a str>, V: Into<Value<'a>>>(
        &mut self,
        family: &Family,
        all: impl IntoIterator<Item = (L, V)>,
    ) {
        let mut all = all.into_iter().peekable();
        if all.peek().is_none() {
            return;
        }
        let (name, kind) = (family.name, family.kind);
        let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        let mut series = SeriesWriter {
            page: self,
            name,
            labels: String::new(),
            line: String::new(),
        };
        for (labels, value) in all {
            series.set_labels(family.labels, labels);
            match value.into() {
                Value::Number(value) => series.write("", None, value),
                Value::Histogram(histogram) => series.write_histogram(histogram),
            }
        }
    }

    /// Adds the value of a family that has no labels.
    pub fn bare<'a, V: Into<Value<'a>>>(
        &mut self,
        family: &Family,
        value: impl IntoIterator<Item = V>,
    ) {
        self.add(family, value.into_iter().map(|value| ([], value)));
    }
}

/// Writes the series of a family, a line at a time: there may be forty thousand.
struct SeriesWriter<'p, 'w> {
    page: &'p mut Page<'w>,
    name: &'static str,
    /// Labels of the current series: `a="b",c="d"`.
    labels: String,
    line: String,
}

impl SeriesWriter<'_, '_> {
    fn set_labels<'a>(&mut self, names: &[&str], values: impl IntoIterator<Item = &'a str>) {
        self.labels.clear();
        let mut values = values.into_iter();
        for (name, value) in names.iter().zip(values.by_ref()) {
            if !self.labels.is_empty() {
                self.labels.push(',');
            }
            push_label(&mut self.labels, name, value);
        }
        debug_assert!(values.next().is_none(), "{}", self.name);
    }

    /// Writes a line; `edge` is the label of a histogram's bucket.
    fn write(&mut self, part: &str, edge: Option<&str>, value: f64) {
        let line = &mut self.line;
        line.clear();
        line.push_str(self.name);
        line.push_str(part);
        if !self.labels.is_empty() || edge.is_some() {
            line.push('{');
            line.push_str(&self.labels);
            if let Some(edge) = edge {
                if !self.labels.is_empty() {
                    line.push(',');
                }
                push_label(line, "le", edge);
            }
            line.push('}');
        }
        line.push(' ');
        push_number(line, value);
        line.push('\n');
        let _ = self.page.0.write_str(line);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
    fn write_histogram(&mut self, histogram: &Histogram) {
        let count = histogram.count();
        for (edge, count) in histogram.cumulative() {
            self.write("_bucket", Some(&edge.to_string()), count as f64);
        }
        self.write("_bucket", Some("+Inf"), count as f64);
        self.write("_sum", None, histogram.sum());
        self.write("_count", None, count as f64);
    }
}

/// Adds `name="value"`.
fn push_label(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str("=\"");
    let value = visible(value);
    let is_special = |c: u8| matches!(c, b'\\' | b'"' | b'\n');
    if value.bytes().any(is_special) {
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
    } else {
        text.push_str(&value);
    }
    text.push('"');
}

/// Adds a number, most of which are 0, 1 and other counts.
fn push_number(text: &mut String, value: f64) {
    #[expect(clippy::cast_possible_truncation, reason = "it is compared")]
    let whole = value as i32;
    let _ = if f64::from(whole).to_bits() == value.to_bits() {
        write!(text, "{whole}")
    } else {
        write!(text, "{value}")
    };
}

/// Adds the build info and the standard `process_*` metrics.
pub fn process(page: &mut Page<'_>, build_info: &Family) {
    page.add(build_info, [([crate::VERSION, crate::COMMIT], 1.0)]);
    let families = ProcessCollector::for_self().collect();
    let mut text = String::new();
    // Only a family without series or name fails here.
    if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
        tracing::error!(%error, "the process metrics can't be written");
    }
    let _ = page.0.write_str(&text);
}

/// Appends a table of docs/metrics.md.
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
            family.kind,
            labels.join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use prometheus::core::Collector;
    use prometheus::{GaugeVec, HistogramOpts, HistogramVec, Opts};
    use proptest::prelude::*;

    use super::*;

    const HELP: &str = "A \\ and\na line.";

    fn family(kind: &'static str) -> Family {
        Family {
            name: "pullpath_x",
            kind,
            labels: &["a", "b"],
            help: HELP,
        }
    }

    fn by_the_crate(collector: &impl Collector) -> String {
        let encoder = TextEncoder::new();
        encoder.encode_to_string(&collector.collect()).unwrap()
    }

    proptest! {
        #[test]
        fn the_text_is_that_of_the_crate(
            values in [".{0,9}", "[\\\\\"\n{}=,x]{0,9}"],
            number in any::<f64>(),
            seen in prop::collection::vec(0.0..9.0, 0..9),
        ) {
            let values = values.map(|value| visible(&value).into_owned());
            let labels = || values.iter().map(String::as_str);
            let mut text = String::new();
            Page(&mut text).add(&family("gauge"), [(labels(), number)]);
            let theirs = GaugeVec::new(Opts::new("pullpath_x", HELP), &["a", "b"]).unwrap();
            theirs.with_label_values(&values).set(number);
            prop_assert_eq!(&text, &by_the_crate(&theirs));

            let edges: &[f64] = &[0.25, 1.0, 4.5];
            let mut histogram = Histogram::new(edges);
            let options = HistogramOpts::new("pullpath_x", HELP).buckets(edges.to_vec());
            let theirs = HistogramVec::new(options, &["a", "b"]).unwrap();
            let observer = theirs.with_label_values(&values);
            for value in seen {
                histogram.observe(value);
                observer.observe(value);
            }
            let mut text = String::new();
            Page(&mut text).add(&family("histogram"), [(labels(), &histogram)]);
            prop_assert_eq!(&text, &by_the_crate(&theirs));
        }
    }

    #[test]
    fn a_family_without_series_is_not_there() {
        let family = Family {
            labels: &[],
            ..family("counter")
        };
        let mut text = String::new();
        Page(&mut text).bare(&family, None::<u64>);
        assert_eq!(text, "");
        Page(&mut text).bare(&family, [1.0, 2.0]);
        assert_eq!(text.matches("# TYPE").count(), 1);
        assert!(
            text.ends_with("counter\npullpath_x 1\npullpath_x 2\n"),
            "{text}"
        );
    }
}
