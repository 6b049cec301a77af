//! A report as it is kept: JSON, deflated (RFC 1951). A report has 11 kB of it, and a sixth of that
//! packed; hundreds are kept, and few are ever read.

use std::fmt;
use std::sync::Arc;

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output, create_comp_flags_from_zip_params,
};
use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// What is packed is ours; no report comes near this.
const LONGEST: usize = 64 << 20;

/// The quickest: a daemon packs each report, and few are read.
const LEVEL: i32 = 1;

/// Packs one report after another with the same tables: 300 kB, which are not to be asked of the
/// kernel again for each.
pub struct Compressor(Box<CompressorOxide>);

impl Default for Compressor {
    fn default() -> Self {
        // Without a header, by the default strategy.
        let flags = create_comp_flags_from_zip_params(LEVEL, 0, 0);
        Self(Box::new(CompressorOxide::new(flags)))
    }
}

impl Compressor {
    /// `None` where that can't be: nobody is to read half a report.
    pub fn compress(&mut self, text: &str) -> Option<CompressedReport> {
        let mut packed = Vec::with_capacity(text.len() / 4);
        self.0.reset();
        let take = |some: &[u8]| {
            packed.extend_from_slice(some);
            true
        };
        let (status, _) =
            compress_to_output(&mut self.0, text.as_bytes(), TDEFLFlush::Finish, take);
        (status == TDEFLStatus::Done).then(|| CompressedReport(packed.into()))
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

/// A report, compressed.
#[derive(Clone, Debug)]
pub struct CompressedReport(Arc<[u8]>);

impl CompressedReport {
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
        let mut into = Compressor::default();
        for text in [text.as_str(), "", "another", &text] {
            let packed = into.compress(text).unwrap();
            assert_eq!(packed.text().as_deref(), Some(text));
        }
        let packed = into.compress(&text).unwrap();
        assert!(packed.size() * 5 < text.len(), "{packed:?}");
    }
}
