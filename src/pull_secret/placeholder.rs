//! Recognizes texts that a tool or a shell was to replace. Pure.

/// Whether a template or a shell variable was left unexpanded, as a whole or in a longer text.
pub(super) fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    let between = |start, end| text.strip_prefix(start)?.strip_suffix(end);
    let variable = between("${", "}").or_else(|| between("$(", ")"));
    let template = text.split_once("{{");
    text.contains("<no value>")
        || template.is_some_and(|(_, rest)| rest.contains("}}"))
        || variable.is_some_and(is_variable)
        || between("<", ">").is_some_and(is_words)
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
