//! Makes text from the network fit to be shown, and formats text for people.

use std::borrow::Cow;

/// Maximum number of characters shown of a message. Longer messages of registries are usually HTML pages.
pub const MAX_SHOWN: usize = 300;

/// Escapes characters that could move the cursor, hide text or change its direction, and cuts the text to 300
/// characters.
pub fn printable(text: &str) -> String {
    clean(text, MAX_SHOWN)
}

/// The same with another limit, in characters.
pub fn clean(text: &str, limit: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(limit));
    // How much is used of the limit, and where the text can be cut so that the ellipsis fits.
    let (mut used, mut cut) = (0, 0);
    for c in text.chars() {
        let before = shown.len();
        match c {
            '\t' | '\n' | '\r' => shown.push(' '),
            c => push_visible(&mut shown, c),
        }
        used += shown[before..].chars().count();
        if used > limit {
            shown.truncate(cut);
            shown.push('…');
            break;
        }
        if used < limit {
            cut = shown.len();
        }
    }
    shown
}

/// The text of several lines, with the same characters escaped and nothing cut.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_kept = |c: char| matches!(c, '\n' | '\t');
    let is_shown = |c: char| is_kept(c) || !is_deceptive(c);
    // Most texts are plain ASCII, which is quicker to see.
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_kept(c) {
            shown.push(c);
        } else {
            push_visible(&mut shown, c);
        }
    }
    Cow::Owned(shown)
}

/// Adds a character, as `\u{202e}` if it would deceive a reader.
fn push_visible(shown: &mut String, c: char) {
    if is_deceptive(c) {
        shown.extend(c.escape_unicode());
    } else {
        shown.push(c);
    }
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

/// How a fault names a web page.
pub fn titled(title: &str) -> String {
    format!("a page titled '{title}'")
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

/// Control characters (C0, DEL, C1), line separators, interlinear annotations, and what Unicode has no glyph for
/// (`Default_Ignorable_Code_Point`): marks of direction (UAX #9), characters of no width, fillers, variation
/// selectors, tags. Two names that differ only in these look the same.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_the_network_moves_a_cursor() {
        assert_eq!(
            printable("a\x1b[31mb\r\nc\u{202e}d\u{9b}e"),
            "a\\u{1b}[31mb  c\\u{202e}d\\u{9b}e"
        );
        assert_eq!(printable(&"x".repeat(400)).chars().count(), MAX_SHOWN);
        assert_eq!(visible("a\u{202e}\nb\tc\r"), "a\\u{202e}\nb\tc\\u{d}");
    }

    #[test]
    fn what_a_reader_can_t_see_is_escaped() {
        let marks = [
            '\u{61c}', '\u{200e}', '\u{200f}', '\u{feff}', '\u{ad}', '\u{fe0f}', '\u{7f}',
        ];
        let ranges = [
            ('\u{202a}', '\u{202e}'),
            ('\u{2066}', '\u{2069}'),
            ('\u{200b}', '\u{200d}'),
        ];
        let ranges = ranges
            .into_iter()
            .chain([('\u{2060}', '\u{2064}'), ('\u{e0001}', '\u{e007f}')]);
        for c in marks
            .into_iter()
            .chain(ranges.flat_map(|(from, to)| from..=to))
        {
            let escaped = format!("\\u{{{:x}}}", u32::from(c));
            assert_eq!(printable(&format!("a{c}b")), format!("a{escaped}b"));
        }
        for name in [
            "镜像仓库",
            "реестр",
            "سجل",
            "レジストリ",
            "दर्पण",
            "größe",
            "👍",
            "a\u{3000}b",
        ] {
            assert_eq!(printable(name), name);
        }
    }

    #[test]
    fn no_escape_is_cut_in_two() {
        let text = "ab\u{202e}cd";
        for (limit, shown) in [
            (12, "ab\\u{202e}cd"),
            (11, "ab\\u{202e}…"),
            (10, "ab…"),
            (3, "ab…"),
            (2, "a…"),
            (0, "…"),
        ] {
            assert_eq!(clean(text, limit), shown, "{limit}");
        }
        assert_eq!(clean("ab", 2), "ab");
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
