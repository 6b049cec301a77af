//! Reads the documents of a Kubernetes manifest file: YAML or JSON, one or several.

use serde_json::Value;

/// Returns the documents in the order of the file.
///
/// # Errors
///
/// If the file is not UTF-8 or can't be read as YAML or JSON. The error never repeats the content, which may be
/// a Secret.
pub fn read(bytes: &[u8]) -> Result<Vec<Value>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    // kubectl writes JSON that some YAML readers reject.
    if let Ok(document) = serde_json::from_str(text) {
        return Ok(vec![document]);
    }
    // The parser's message and its snippet may repeat the content; its line number does not.
    serde_saphyr::from_multiple::<Value>(text).map_err(|error| match error.location() {
        Some(location) => format!("it can't be read as YAML, at line {}", location.line()),
        None => "it can't be read as YAML".to_owned(),
    })
}
