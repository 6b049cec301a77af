//! Recognizes texts that a tool or a shell was to replace. Pure.

/// Whether a template or a shell variable was left unexpanded, as a whole or in a longer text.
pub(super) fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    let between = |start, end| text.strip_prefix(start)?.strip_suffix(end);
    let variable = between("${", "}").or_else(|| between("$(", ")"));
    let template = text.split_once("{{");
    text.contains("<no value>")
        || template.is_some_and(|(_, rest)| rest.contains("}}"))
        || variable.is_some_and(is_name)
        || between("<", ">").is_some_and(|inner| is_words(inner) || inner.starts_with("path:"))
        // What SOPS has encrypted, and a reference of vals.
        || text.starts_with("ENC[AES256_GCM,")
        || text.starts_with("ref+")
}

/// A name between braces, also of Terraform: `var.password`.
fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(is_part)
}

/// `%PASSWORD%` and `$env:PASSWORD`, as Windows has variables, or `$PASSWORD`.
pub(super) fn is_like_variable(text: &str) -> bool {
    let windows = text
        .strip_prefix('%')
        .and_then(|rest| rest.strip_suffix('%'));
    let other = text
        .strip_prefix("$env:")
        .or_else(|| text.strip_prefix('$'));
    windows.or(other).is_some_and(is_variable)
}

/// What programs print where they have no value, or hide it.
pub(super) fn is_no_value(text: &str) -> bool {
    let is_hidden = text.len() >= 3 && text.bytes().all(|b| b == b'*');
    is_hidden || ["null", "undefined", "None", "nil", "REDACTED"].contains(&text)
}

/// The name of a variable of a shell, in capitals.
pub(super) fn is_variable(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_') && name.chars().all(is_part)
}

/// `your-password`, as documents write it between angle brackets.
fn is_words(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphabetic() || " -_".contains(c);
    text.len() > 2 && text.chars().all(is_part)
}
