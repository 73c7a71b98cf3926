//! Reading YAML, and saying where it is wrong.
//!
//! The only place that touches the YAML parser: its limits, its scalars and the positions it
//! reports. What a document means is said by the types that are read; this room must not know
//! them, and never opens a file: texts come in with a name for the messages.

#![expect(clippy::unnecessary_box_returns, reason = "diagnostics are large and go into results")]

mod outline;

use std::error::Error as StdError;
use std::fmt;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::de::DeserializeOwned;
use serde_saphyr::{
    Error, Location, MessageFormatter, Options, UserMessageFormatter, from_str_with_options,
};

pub use outline::Outline;
pub use serde_saphyr::Spanned;

/// The longest text that is read, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// A YAML text and the name that messages about it use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name of the file, as messages show it.
    pub file: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// A text under a name.
    pub fn new(file: impl Into<String>, text: impl Into<String>) -> Self {
        Self { file: file.into(), text: text.into() }
    }

    /// What is wrong with a value that was read from the whole of this text by [`strict`].
    pub fn diagnostic_at<T>(
        &self,
        at: &Spanned<T>,
        message: impl Into<String>,
        help: Option<&str>,
    ) -> Box<Diagnostic> {
        Document::whole(self).diagnostic_at(at, message, help)
    }
}

/// What is wrong in a text, and where.
///
/// Displays as rustc does: the message, the place, the line with a caret, and a help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The name of the file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// How many characters the caret underlines, at least 1.
    pub length: usize,
    /// What is wrong, lower-case, without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The line itself.
    pub source_line: String,
    /// Whether it is about a policy that an API server takes and of which Cilium then says that it is not
    /// valid, so that the object exists and enforces nothing.
    pub(crate) taken_and_invalid: bool,
}

impl Diagnostic {
    /// What is wrong at a line and column of a source, both from 1.
    ///
    /// A place outside the text is moved to the nearest one inside.
    pub fn new(
        source: &Source,
        (line, column): (usize, usize),
        length: usize,
        message: impl Into<String>,
        help: Option<&str>,
    ) -> Box<Self> {
        // The parser skips a byte order mark and counts columns after it.
        let text = source.text.trim_start_matches('\u{feff}');
        let line = line.clamp(1, text.lines().count().max(1));
        let source_line = text.lines().nth(line - 1).unwrap_or_default();
        let width = source_line.chars().count();
        let column = column.clamp(1, width + 1);
        let length = length.clamp(1, (width + 1 - column).max(1));
        Box::new(Self {
            file: source.file.clone(),
            line,
            column,
            length,
            message: message.into(),
            help: help.map(str::to_owned),
            source_line: source_line.to_owned(),
            taken_and_invalid: false,
        })
    }

    /// The same about a policy that exists and enforces nothing.
    pub(crate) fn of_invalid(mut self: Box<Self>) -> Box<Self> {
        self.taken_and_invalid = true;
        self
    }

    fn span(&self) -> std::ops::Range<usize> {
        let byte = |character: usize| {
            self.source_line
                .char_indices()
                .nth(character)
                .map_or(self.source_line.len(), |(index, _)| index)
        };
        byte(self.column - 1)..byte(self.column - 1 + self.length)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snippet = Snippet::source(&*self.source_line)
            .line_start(self.line)
            .path(&*self.file)
            .annotation(AnnotationKind::Primary.span(self.span()));
        let mut group = Level::ERROR.primary_title(&*self.message).element(snippet);
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(&**help));
        }
        f.write_str(&Renderer::plain().render(&[group]))
    }
}

impl StdError for Diagnostic {}

/// Reads a file of ours: one document, in which only `true` and `false` are booleans.
pub fn strict<T: DeserializeOwned>(source: &Source) -> Result<T, Box<Diagnostic>> {
    check_size(source)?;
    let mut options = limits();
    options.strict_booleans = true;
    Document::whole(source).read(options, &[])
}

/// The documents of a file that this project or a tool has made, in the form in which `kubectl` reads
/// them: nothing in them is evaluated, and their size is not looked at.
pub fn values(source: &Source) -> Result<Vec<serde_json::Value>, Box<Diagnostic>> {
    Document::split(source).iter().map(|document| document.read_manifest(&[])).collect()
}

/// The documents of a text of manifests, in order, without those that hold nothing.
///
/// They are split at `---` lines as `kubectl` does, so that one bad document is reported by its own
/// line and cannot hide the next.
pub(crate) fn documents(source: &Source) -> Result<Vec<Document<'_>>, Box<Diagnostic>> {
    check_size(source)?;
    Ok(Document::split(source))
}

fn check_size(source: &Source) -> Result<(), Box<Diagnostic>> {
    let size = source.text.len();
    if size <= MAX_BYTES {
        return Ok(());
    }
    let message = format!("the file has {size} bytes; at most {MAX_BYTES} are read");
    Err(Diagnostic::new(source, (1, 1), 1, message, None))
}

/// Room for a thousand cases in a file, and no more: an alias bomb ends at the first limit it meets.
fn limits() -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        reject_unsupported_tags: true,
        reject_tagged_field_names: true,
        budget: serde_saphyr::budget! {
            max_depth: 64,
            max_events: 500_000,
            max_nodes: 200_000,
            max_anchors: 1_000,
            max_aliases: 1_000,
            max_recorded_anchor_events: 50_000,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 50_000,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: 1_000,
        },
    }
}

/// One document of a source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Document<'a> {
    source: &'a Source,
    first_line: usize,
    text: &'a str,
}

impl<'a> Document<'a> {
    fn whole(source: &'a Source) -> Self {
        Self { source, first_line: 1, text: &source.text }
    }

    fn split(source: &'a Source) -> Vec<Self> {
        let mut documents = Vec::new();
        let (mut first_line, mut start, mut end) = (1, 0, 0);
        let mut close = |first_line, start, end| {
            let text = source.text.get(start..end).expect("lines end at character boundaries");
            let document = Self { source, first_line, text };
            if !document.is_blank() {
                documents.push(document);
            }
        };
        for (index, line) in source.text.split_inclusive('\n').enumerate() {
            if is_separator(line) && index > 0 {
                close(first_line, start, end);
                (first_line, start) = (index + 1, end);
            }
            end += line.len();
        }
        close(first_line, start, end);
        documents
    }

    /// Whether it holds nothing but comments and marks.
    fn is_blank(&self) -> bool {
        self.text.lines().all(|line| {
            let line = line.trim_start_matches('\u{feff}');
            let line = line.strip_prefix("---").unwrap_or(line).trim();
            line.is_empty() || line == "..." || line.starts_with('#')
        })
    }

    /// Reads it as `kubectl` does: `yes` and `on` are booleans, `0755` is octal, and a string field
    /// with a bare number or boolean is an error, as the API server would refuse it.
    ///
    /// A field among `not_evaluated` that the type does not have is refused as such.
    pub(crate) fn read_manifest<T: DeserializeOwned>(
        &self,
        not_evaluated: &[&str],
    ) -> Result<T, Box<Diagnostic>> {
        let mut options = limits();
        options.legacy_octal_numbers = true;
        options.no_schema = true;
        self.read(options, not_evaluated)
    }

    fn read<T: DeserializeOwned>(
        &self,
        options: Options,
        not_evaluated: &[&str],
    ) -> Result<T, Box<Diagnostic>> {
        from_str_with_options(self.text, options)
            .map_err(|error| self.explain(&error, not_evaluated))
    }

    fn explain(&self, error: &Error, not_evaluated: &[&str]) -> Box<Diagnostic> {
        let error = match error.without_snippet() {
            Error::AliasError { error, .. } => error,
            error => error,
        };
        let (message, help) = match error {
            Error::SerdeUnknownField { field, .. } if not_evaluated.contains(&field.as_str()) => {
                let help = "a field that is ignored would make verdicts wrong";
                (format!("this version does not evaluate `{field}`"), Some(help.to_owned()))
            }
            error => reason(error),
        };
        self.diagnostic(error.location().unwrap_or(Location::UNKNOWN), message, help.as_deref())
    }

    /// What is wrong with a value that was read from this document.
    pub(crate) fn diagnostic_at<T>(
        &self,
        at: &Spanned<T>,
        message: impl Into<String>,
        help: Option<&str>,
    ) -> Box<Diagnostic> {
        self.diagnostic(at.referenced, message, help)
    }

    /// What is wrong at a place of this document.
    pub(crate) fn diagnostic(
        &self,
        at: Location,
        message: impl Into<String>,
        help: Option<&str>,
    ) -> Box<Diagnostic> {
        let place = (self.line(at), number(at.column()));
        Diagnostic::new(self.source, place, number(at.span().len()), message, help)
    }

    /// Its lines, without those that begin or end it.
    pub(crate) fn text(&self) -> &'a str {
        self.text.trim_start_matches("---").trim()
    }

    /// The line of the file that a value is on, from 1.
    pub(crate) fn line_of<T>(&self, at: &Spanned<T>) -> usize {
        self.line(at.referenced)
    }

    fn line(&self, at: Location) -> usize {
        // A place that the parser does not know is line 0.
        self.first_line - 1 + number(at.line()).max(1)
    }

    /// The name of the file it is in.
    pub(crate) fn file(&self) -> &'a str {
        &self.source.file
    }
}

fn number(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Whether a line starts a document: `---` alone or before a space.
fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// The parser's error in our words, with a help.
fn reason(error: &Error) -> (String, Option<String>) {
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown field `{field}`"), Some(expectation(expected)))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("unknown value `{variant}`"), Some(expectation(expected)))
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("`{key}` is here twice"), None)
        }
        Error::QuotingRequired { value, .. } => {
            (format!("`{value}` is no text without quotes"), Some(format!("write `\"{value}\"`")))
        }
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            let help = "nesting, nodes and what aliases repeat are limited";
            ("the document is too large here".to_owned(), Some(help.to_owned()))
        }
        error => (UserMessageFormatter.format_message(error).into_owned(), None),
    }
}

fn expectation(expected: &[&str]) -> String {
    match expected {
        [] => "nothing is expected here".to_owned(),
        [one] => format!("only `{one}` is expected here"),
        many => format!("expected one of `{}`", many.join("`, `")),
    }
}
