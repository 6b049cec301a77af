//! A report in memory: JSON, compressed with DEFLATE (RFC 1951) from 11 kB to a sixth of that. Hundreds are kept,
//! and few are ever read.

use std::sync::Arc;

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// Maximum size of a decompressed report; real ones are far smaller.
const LONGEST: usize = 64 << 20;

/// The fastest level: each report is compressed, and few are read.
const LEVEL: u8 = 1;

/// A report, compressed.
#[derive(Clone, Debug)]
pub struct CompressedReport(Arc<[u8]>);

impl CompressedReport {
    /// Compresses the JSON of a report.
    pub fn of(text: &str) -> Self {
        Self(compress_to_vec(text.as_bytes(), LEVEL).into())
    }

    /// Its compressed size in bytes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// Its compressed bytes.
    pub fn bytes(&self) -> Arc<[u8]> {
        Arc::clone(&self.0)
    }

    /// The JSON of the report; `None` if it can't be decompressed.
    pub fn text(&self) -> Option<String> {
        let bytes = decompress_to_vec_with_limit(&self.0, LONGEST).ok()?;
        String::from_utf8(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out_again_and_takes_less() {
        let text = r#"{"leg":"registry","phase":"connect","took_ms":0.21,"名":"é"},"#.repeat(200);
        for text in [text.as_str(), "", "another", &text] {
            let compressed = CompressedReport::of(text);
            assert_eq!(compressed.text().as_deref(), Some(text));
        }
        let compressed = CompressedReport::of(&text);
        assert!(compressed.size() * 5 < text.len(), "{compressed:?}");
    }
}
