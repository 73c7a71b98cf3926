//! Text for a terminal or a file: wrapped at words, painted if wanted, legible whatever it holds.

use std::borrow::Cow;

use anstyle::{AnsiColor, Style};

/// What a piece of text is for; colours follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing special.
    Plain,
    /// It names what the rest is about.
    Strong,
    /// It is as it should be.
    Good,
    /// It is not.
    Bad,
    /// Nobody knows.
    Doubtful,
    /// It is beside the point.
    Faint,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Strong => Style::new().bold(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Doubtful => AnsiColor::Yellow.on_default(),
            Self::Faint => Style::new().dimmed(),
        }
    }
}

/// How far the later lines of a paragraph without a lead are set in, in columns.
const HANG: usize = 4;

/// A page under construction.
#[derive(Debug)]
pub(crate) struct Page {
    width: usize,
    margin: usize,
    colour: bool,
    text: String,
}

impl Page {
    /// An empty page, `width` columns wide. A word that is wider sticks out: names are never cut.
    pub(crate) fn new(width: usize, colour: bool) -> Self {
        Self { width, margin: 0, colour, text: String::new() }
    }

    /// How many blanks stand before every line from here on.
    pub(crate) fn set_margin(&mut self, columns: usize) {
        self.margin = columns;
    }

    /// Adds a paragraph. The lead stands before its first line, and blanks as wide before the
    /// others; without a lead the others are still set in, to be told from a next paragraph.
    pub(crate) fn paragraph(&mut self, lead: &str, tone: Tone, text: &str) {
        let text = legible_words(text);
        let indent = if lead.is_empty() { HANG } else { columns(lead) };
        let room = self.width.saturating_sub(self.margin + columns(lead));
        let hung = self.width.saturating_sub(self.margin + indent);
        for (number, line) in wrap(&text, room, hung).iter().enumerate() {
            if number == 0 {
                self.blanks(self.margin);
                self.paint(Tone::Faint, lead);
            } else {
                self.blanks(self.margin + indent);
            }
            self.paint(tone, line);
            self.end_line();
        }
    }

    /// Adds one line of pieces that stay together, each with its tone.
    pub(crate) fn line(&mut self, pieces: &[(Tone, &str)]) {
        self.blanks(self.margin);
        for (tone, text) in pieces {
            self.paint(*tone, &legible(text));
        }
        self.end_line();
    }

    /// Adds an empty line.
    pub(crate) fn blank(&mut self) {
        self.text.push('\n');
    }

    /// The text, without the end of its last line.
    pub(crate) fn into_text(mut self) -> String {
        self.text.truncate(self.text.trim_end_matches('\n').len());
        self.text
    }

    fn paint(&mut self, tone: Tone, text: &str) {
        let style = tone.style();
        if self.colour && !text.is_empty() && style != Style::new() {
            self.text.extend([&style.to_string(), text, &style.render_reset().to_string()]);
        } else {
            self.text.push_str(text);
        }
    }

    fn blanks(&mut self, count: usize) {
        self.text.extend(std::iter::repeat_n(' ', count));
    }

    fn end_line(&mut self) {
        self.text.truncate(self.text.trim_end_matches(' ').len());
        self.text.push('\n');
    }
}

/// How many columns a text takes.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().count()
}

/// The text with every character spelt out that a terminal obeys, that XML 1.0 has no place for
/// (§2.2, `Char`), or that changes the order in which text is read: `\u{1b}`.
pub(crate) fn legible(text: &str) -> Cow<'_, str> {
    let treacherous = |c: char| {
        c.is_control()
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{2028}' | '\u{2029}')
            || matches!(c, '\u{fffe}' | '\u{ffff}')
    };
    if !text.contains(treacherous) {
        return Cow::Borrowed(text);
    }
    let spell = |c: char| {
        if treacherous(c) { c.escape_unicode().to_string() } else { c.to_string() }
    };
    Cow::Owned(text.chars().map(spell).collect())
}

/// The words of a text, legible, with one blank between them: line ends are no content here.
fn legible_words(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().map(legible).collect();
    words.join(" ")
}

/// Lines broken at blanks alone, the first one of at most `first` columns, the others of at most
/// `rest`. There is always one.
fn wrap(text: &str, first: usize, rest: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let width = if lines.len() == 1 { first } else { rest };
        let line = lines.last_mut().expect("there is one from the start");
        if line.is_empty() {
            line.push_str(word);
        } else if columns(line) + 1 + columns(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_breaks_at_words_and_never_in_a_name() {
        let mut page = Page::new(24, false);
        page.paragraph(
            "place  ",
            Tone::Plain,
            "in CiliumClusterwideNetworkPolicy/block-metadata it is",
        );
        insta::assert_snapshot!(page.into_text(), @"
        place  in
               CiliumClusterwideNetworkPolicy/block-metadata
               it is
        ");
    }

    #[test]
    fn a_narrow_page_still_shows_every_word() {
        let mut page = Page::new(0, false);
        page.paragraph("lead ", Tone::Plain, "a b");
        assert_eq!(page.into_text(), "lead a\n     b");
    }

    #[test]
    fn colour_surrounds_text_and_no_blanks() {
        let mut page = Page::new(80, true);
        page.line(&[(Tone::Good, "PASS"), (Tone::Plain, "  a::b  ")]);
        assert_eq!(page.into_text(), "\u{1b}[32mPASS\u{1b}[0m  a::b");
    }

    #[test]
    fn what_a_terminal_obeys_is_spelt_out() {
        assert_eq!(
            legible("\u{1b}[2J\u{9b}\u{202e}\u{ffff}ä"),
            r"\u{1b}[2J\u{9b}\u{202e}\u{ffff}ä"
        );
        assert!(matches!(legible("ordinary – text"), Cow::Borrowed(_)));
    }
}
