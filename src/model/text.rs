//! Text that came from the network, made fit to be shown.

/// Longer messages of registries are HTML pages or worse.
pub const MAX_SHOWN: usize = 300;

/// Replaces what could move the cursor, hide text or turn its direction, and cuts to 300
/// characters.
pub fn printable(text: &str) -> String {
    clean(text, MAX_SHOWN)
}

/// The same with another limit.
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

/// How a page for people stands in a fault. Its title is for the operator: whoever it was made for need
/// not be the tenant whose pod gets an Event.
pub fn titled(title: &str) -> String {
    format!("{TITLED}'{title}'")
}

const TITLED: &str = "a page titled ";

/// The same text, for a reader who is not to see the title of a page.
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

/// Control characters (C0, DEL, C1), and those of Unicode that are not seen but change what is:
/// bidi marks, embeddings and isolates (UAX #9), zero-width characters, line separators, tags.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// How many letters must change to make one word of the other (Levenshtein), for short words.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
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
}
