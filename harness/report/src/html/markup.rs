//! HTML as it is written here: tags are literals of this program, everything else is text.

use crate::account::Mark;
use crate::escape::push_html;

/// How long a text from the events may get where nothing else is said, characters.
const LONG: usize = 2_000;

/// A piece of a page. What is no literal of this program can only get into it escaped.
#[derive(Debug, Clone, Default)]
pub(super) struct Markup(String);

impl Markup {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds markup.
    pub(super) fn tag(&mut self, literal: &'static str) -> &mut Self {
        self.0.push_str(literal);
        self
    }

    /// Adds a text, escaped.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.clipped(text, LONG)
    }

    /// Adds a text, escaped, or its beginning and how much is left out.
    pub(super) fn clipped(&mut self, text: &str, longest: usize) -> &mut Self {
        push_html(&mut self.0, text, longest);
        self
    }

    /// Adds a text whose direction of reading is its own.
    pub(super) fn name(&mut self, text: &str) -> &mut Self {
        self.short_name(text, LONG)
    }

    /// The same, or its beginning and how much is left out.
    pub(super) fn short_name(&mut self, text: &str, longest: usize) -> &mut Self {
        self.tag("<bdi>").clipped(text, longest).tag("</bdi>")
    }

    /// Adds a number.
    pub(super) fn number(&mut self, number: usize) -> &mut Self {
        self.0.push_str(&number.to_string());
        self
    }

    /// Adds a number of things: `1 cell`, `2 cells`.
    pub(super) fn count(
        &mut self,
        number: usize,
        one: &'static str,
        many: &'static str,
    ) -> &mut Self {
        self.number(number).tag(" ").tag(if number == 1 { one } else { many })
    }

    /// Adds another piece.
    pub(super) fn join(&mut self, piece: &Self) -> &mut Self {
        self.0.push_str(&piece.0);
        self
    }

    /// Adds the sign and the word of a mark.
    pub(super) fn mark(&mut self, mark: Mark) -> &mut Self {
        self.tag("<span class=\"w ").tag(class(mark)).tag("\">").tag(mark.sign());
        self.tag(" ").tag(mark.word()).tag("</span>")
    }

    /// Adds a term and what is told of it, if there is anything.
    pub(super) fn fact(&mut self, term: &'static str, told: Option<&str>) -> &mut Self {
        match told {
            Some(told) => self.tag("<dt>").tag(term).tag("<dd>").text(told),
            None => self,
        }
    }

    /// How long it is, bytes.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// The class of a mark in the style sheet. One letter: there are thousands of them.
pub(super) const fn class(mark: Mark) -> &'static str {
    match mark {
        Mark::FailOpen => "o",
        Mark::FailClosed | Mark::UnexpectedPass => "c",
        Mark::WrongLayer | Mark::WrongPolicy | Mark::WrongCondition => "l",
        Mark::Inconclusive | Mark::ExpectedFailure => "i",
        Mark::Unfinished => "u",
        Mark::Pass => "p",
        Mark::Ignored => "g",
    }
}
