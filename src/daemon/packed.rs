//! A report as it is kept: JSON, deflated (RFC 1951). A report has 11 kB of it, and a sixth of that
//! packed; hundreds are kept, and few are ever read.

use std::fmt;
use std::sync::Arc;

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// What is packed is ours; no report comes near this.
const LONGEST: usize = 64 << 20;

/// Quick: the next levels take twice as long for a tenth of the size.
const LEVEL: u8 = 3;

#[derive(Clone)]
pub struct Packed(Arc<[u8]>);

impl Packed {
    pub fn new(text: &str) -> Self {
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

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({} bytes)", self.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out_again_and_takes_less() {
        let text = r#"{"leg":"registry","phase":"connect","took_ms":0.21,"名":"é"},"#.repeat(200);
        let packed = Packed::new(&text);
        assert_eq!(packed.text().as_deref(), Some(text.as_str()));
        assert!(packed.size() * 5 < text.len(), "{packed:?}");
        assert_eq!(Packed::new("").text().as_deref(), Some(""));
    }
}
