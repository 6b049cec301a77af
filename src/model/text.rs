//! Text that came from the network, made fit to be shown.

/// Longest text kept of one field from the network.
pub const MAX_CHARS: usize = 300;

/// Replaces what could move a terminal's cursor or turn a line around (C0, C1, bidirectional and
/// other format characters), and cuts the rest to [`MAX_CHARS`].
pub fn printable(text: &str) -> String {
    let shown = |c: char| if is_hidden(c) { ' ' } else { c };
    let mut out: String = text.chars().take(MAX_CHARS).map(shown).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        out.push('…');
    }
    out.trim().to_owned()
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_the_network_moves_a_cursor() {
        assert_eq!(printable("a\x1b[31mb\r\nc\u{202e}d\u{9b}e"), "a [31mb  c d e");
        assert_eq!(printable(&"x".repeat(400)).chars().count(), MAX_CHARS + 1);
    }
}
