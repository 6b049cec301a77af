//! Makes text from the network fit to be shown, and formats text for people.

/// Maximum number of characters shown of a message. Longer messages of registries are usually HTML pages.
pub const MAX_SHOWN: usize = 300;

/// Replaces characters that could move the cursor, hide text or change its direction, and cuts the text to 300
/// characters.
pub fn printable(text: &str) -> String {
    clean(text, MAX_SHOWN)
}

/// The same with another limit, in characters.
pub fn clean(text: &str, limit: usize) -> String {
    let mut characters = text.chars().map(|c| match c {
        '\t' | '\n' | '\r' => ' ',
        c if is_deceptive(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    });
    let mut shown: String = characters.by_ref().take(limit).collect();
    if characters.next().is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// The items, separated by commas.
pub fn joined(items: impl IntoIterator<Item: ToString>) -> String {
    let words: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    words.join(", ")
}

/// A text that a server sent, or what to say if it is empty.
pub(crate) fn or<'a>(text: &'a str, instead: &'a str) -> &'a str {
    if text.trim().is_empty() {
        instead
    } else {
        text
    }
}

/// How a fault names a web page. Its title is for the operator; it may not be meant for the tenant whose pod
/// gets an Event.
pub fn titled(title: &str) -> String {
    format!("{TITLED}'{title}'")
}

const TITLED: &str = "a page titled ";

/// The same text without the title of a page, for a reader who must not see it.
pub fn without_title(text: &str) -> String {
    match text.split_once(TITLED) {
        Some((before, _)) => format!("{before}a page"),
        None => text.to_owned(),
    }
}

/// Bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Prose in lines of at most `width` columns, broken at words. The first line begins with `first`, the others
/// with `hang` blanks. A word that is longer than a line has a line of its own.
pub fn wrapped(first: &str, hang: usize, width: usize, prose: &str) -> String {
    let (mut text, mut line) = (String::new(), first.to_owned());
    let mut used = first.chars().count();
    for (index, word) in prose.split_whitespace().enumerate() {
        let length = word.chars().count();
        if index > 0 && used + 1 + length > width {
            text += line.trim_end();
            text.push('\n');
            line = " ".repeat(hang);
            used = hang;
        } else if index > 0 {
            line.push(' ');
            used += 1;
        }
        line += word;
        used += length;
    }
    text += line.trim_end();
    text.push('\n');
    text
}

/// Control characters (C0, DEL, C1), and those of Unicode that are invisible and change what is shown: bidi
/// marks, embeddings and isolates (UAX #9), zero-width characters, line separators, tags.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_the_network_moves_a_cursor() {
        assert_eq!(
            printable("a\x1b[31mb\r\nc\u{202e}d\u{9b}e"),
            "a�[31mb  c�d�e"
        );
        assert_eq!(printable(&"x".repeat(400)).chars().count(), MAX_SHOWN);
    }

    #[test]
    fn prose_is_broken_at_words() {
        assert_eq!(
            wrapped("- ", 2, 10, "one two  three überlanges four"),
            "- one two\n  three\n  überlanges\n  four\n"
        );
        assert_eq!(wrapped("  ", 4, 10, ""), "\n");
    }
}
