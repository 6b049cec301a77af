//! A report as it is kept: JSON, deflated (RFC 1951). A report has 11 kB of it, and a sixth of that
//! packed; hundreds are kept, and few are ever read.

use std::sync::Arc;

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// What is packed is ours; no report comes near this.
const LONGEST: usize = 64 << 20;

/// The quickest: a daemon packs each report, and few are read.
const LEVEL: u8 = 1;

/// A report, compressed.
#[derive(Clone, Debug)]
pub struct CompressedReport(Arc<[u8]>);

impl CompressedReport {
    pub fn of(text: &str) -> Self {
        Self(compress_to_vec(text.as_bytes(), LEVEL).into())
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

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
            let packed = CompressedReport::of(text);
            assert_eq!(packed.text().as_deref(), Some(text));
        }
        let packed = CompressedReport::of(&text);
        assert!(packed.size() * 5 < text.len(), "{packed:?}");
    }
}
