//! The documents of a Kubernetes manifest file: YAML or JSON, one or several.

use serde_json::Value;

/// Reads them in their order.
///
/// # Errors
/// Where it can't be read. The content is not repeated: it may be a Secret's.
pub fn read(bytes: &[u8]) -> Result<Vec<Value>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no UTF-8".to_owned())?;
    // kubectl writes JSON with what YAML readers may trip over.
    if let Ok(document) = serde_json::from_str(text) {
        return Ok(vec![document]);
    }
    // An error's own words, and its snippet, may repeat the content; its line may not.
    serde_saphyr::from_multiple::<Value>(text).map_err(|error| match error.location() {
        Some(location) => format!("it can't be read as YAML, at line {}", location.line()),
        None => "it can't be read as YAML".to_owned(),
    })
}
