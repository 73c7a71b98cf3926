//! What cases apply, as it is written: each manifest once, however many cases apply it, with the rules marked that decided.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use ztc_engine::event::{CaseReport, PolicyText};
use ztc_model::place::Place;
use ztc_model::ruling::{Part, Ruling};
use ztc_model::yaml::{Outline, Source};

use super::markup::Markup;
use crate::redact::redacted;

/// How long a manifest may get, characters.
const LONG: usize = 20_000;

/// The manifests of a run, by their places.
#[derive(Debug)]
pub(super) struct Policies<'a>(BTreeMap<&'a str, Shown<'a>>);

/// A manifest on the page.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    number: usize,
    it: &'a PolicyText,
    /// The line of its file that its text begins with.
    begins: usize,
    /// Whether there is room for its text.
    is_there: bool,
    /// What of it decided about some cell.
    marks: BTreeMap<Place, Marked>,
}

/// Something in a manifest that decided.
#[derive(Debug)]
struct Marked {
    number: usize,
    /// Its lines in the text, from 1.
    lines: RangeInclusive<usize>,
    label: &'static str,
    /// How many cells it decided about.
    cells: usize,
    /// The first of them.
    first: usize,
}

/// Those that one case applies, by what they are called.
pub(super) type Links<'a> = BTreeMap<&'a str, &'a Shown<'a>>;

impl<'a> Policies<'a> {
    /// What of them decided is what rulings about the cells of these cases say; cells are numbered through.
    pub(super) fn of(
        texts: impl IntoIterator<Item = &'a PolicyText>,
        reports: &[&CaseReport],
    ) -> Self {
        let by_place: BTreeMap<&str, &PolicyText> =
            texts.into_iter().map(|it| (it.place.as_str(), it)).collect();
        let mut marks = Marks::default();
        let cells =
            reports.iter().flat_map(|report| report.cells.iter().map(move |it| (report, it)));
        for (number, (report, cell)) in cells.enumerate() {
            for ruling in cell.evidence.iter().flat_map(|it| &it.rulings) {
                let name = ruling.policy.to_string();
                let texts = report.applied.iter().filter_map(|it| by_place.get(it.as_str()));
                if let Some(text) = texts.into_iter().find(|it| it.policy == name) {
                    marks.add(&text.place, ruling, number);
                }
            }
        }
        let shown = by_place.into_iter().enumerate().map(|(number, (place, it))| {
            (place, Shown::new(number, it, marks.0.remove(place).unwrap_or_default()))
        });
        Self(shown.collect())
    }

    /// Those at these places.
    pub(super) fn at(&'a self, places: &[String]) -> Links<'a> {
        let found = places.iter().filter_map(|place| self.0.get(place.as_str()));
        found.map(|shown| (shown.it.policy.as_str(), shown)).collect()
    }

    /// All of them, as far as there is room for their texts: those first that decided something.
    pub(super) fn told(&mut self, room: usize) -> Markup {
        let mut page = Markup::new();
        if self.0.is_empty() {
            return page;
        }
        page.tag("<section aria-labelledby=policies><h2 id=policies>Policies</h2>");
        page.tag("<p class=faint>What the cases apply, as it is written.");
        if self.0.values().any(|it| !it.marks.is_empty()) {
            page.tag(" What of it decided about a cell is marked, and says so.");
        }
        let mut pieces: Vec<(&mut Shown<'_>, Markup)> = Vec::with_capacity(self.0.len());
        for shown in self.0.values_mut() {
            let mut piece = Markup::new();
            shown.write(&mut piece);
            pieces.push((shown, piece));
        }
        let mut rest = room;
        for decided in [true, false] {
            for (shown, piece) in &mut pieces {
                if shown.marks.is_empty() != decided && piece.len() <= rest {
                    rest -= piece.len();
                    shown.is_there = true;
                }
            }
        }
        let mut left_out = 0;
        for (shown, piece) in &pieces {
            if shown.is_there {
                page.join(piece);
            } else {
                left_out += 1;
            }
        }
        if left_out > 0 {
            page.tag("<p class=note><b>Left out to keep this page small:</b> ");
            page.count(left_out, "policy", "policies").tag("; their files have them.");
        }
        page.tag("</section>");
        page
    }
}

/// What decided, by the places of manifests, and about which cells.
#[derive(Default)]
struct Marks<'a>(BTreeMap<&'a str, BTreeMap<Place, (&'static str, BTreeSet<usize>)>>);

impl<'a> Marks<'a> {
    fn add(&mut self, text: &'a str, ruling: &Ruling, cell: usize) {
        let (label, places) = match &ruling.part {
            Part::Rules(places) => ("deciding rule", places.as_slice()),
            Part::Isolation { at, .. } => ("isolates, and no rule allows it", at.as_slice()),
            Part::Names(places) => ("none of these names", places.as_slice()),
        };
        let marks = self.0.entry(text).or_default();
        for place in places {
            marks.entry(place.clone()).or_insert((label, BTreeSet::new())).1.insert(cell);
        }
    }
}

impl<'a> Shown<'a> {
    fn new(
        number: usize,
        it: &'a PolicyText,
        marks: BTreeMap<Place, (&'static str, BTreeSet<usize>)>,
    ) -> Self {
        // What nobody asks about need not be read.
        let outline = (!marks.is_empty())
            .then(|| Outline::of(&Source::new(it.place.clone(), it.text.clone())).ok())
            .flatten();
        let lines = |place: &Place| outline.as_ref()?.lines(place);
        let found = marks.into_iter().filter_map(|(place, (label, cells))| {
            let (lines, first) = (lines(&place)?, *cells.first()?);
            Some((place, Marked { number: 0, lines, label, cells: cells.len(), first }))
        });
        let mut marks: BTreeMap<Place, Marked> = found.collect();
        for (number, marked) in marks.values_mut().enumerate() {
            marked.number = number;
        }
        // A place is that of the line which names the kind.
        let of_kind = lines(&Place::root().field("kind")).map(|it| *it.start());
        let written = it.place.rsplit_once(':').and_then(|(_, line)| line.parse::<usize>().ok());
        let before = written.zip(of_kind).and_then(|(file, text)| file.checked_sub(text));
        Self { number, it, begins: before.unwrap_or_default() + 1, is_there: false, marks }
    }

    fn write(&self, page: &mut Markup) {
        let text = redacted(&self.it.text);
        // What was taken out may have been several lines; nobody knows where what follows them was.
        let is_whole = text.lines().count() == self.it.text.lines().count();
        let is_told = !self.marks.is_empty() && is_whole && text.chars().count() <= LONG;
        page.tag(if is_told { "<details class=policy id=p" } else { "<details class=tool id=p" });
        page.number(self.number).tag("><summary>").name(&self.it.policy).tag(" <small>");
        page.name(&self.it.place).tag("</small></summary><pre>");
        if is_told {
            self.write_lines(page, &text);
        } else {
            page.clipped(&text, LONG);
        }
        page.tag("</pre></details>");
    }

    /// The text with the numbers of its lines. What decided is marked, and says what it is at the end of its first line.
    fn write_lines(&self, page: &mut Markup, text: &str) {
        let is_marked = |line: usize| self.marks.values().any(|it| it.lines.contains(&line));
        let mut within = None;
        for (line, written) in (1..).zip(text.lines()) {
            let marked = is_marked(line);
            if within != Some(marked) {
                page.tag(match within {
                    Some(true) => "</mark>",
                    Some(false) => "</span>",
                    None => "",
                });
                page.tag(if marked { "<mark>" } else { "<span>" });
                within = Some(marked);
            }
            page.tag("<i>").number(self.begins + line - 1).tag("</i>").text(written);
            for marked in self.marks.values().filter(|it| *it.lines.start() == line) {
                page.tag(" <b id=p").number(self.number).tag("r").number(marked.number).tag(">◂ ");
                page.tag(marked.label).tag(": <a href=#c").number(marked.first).tag(">");
                page.count(marked.cells, "cell", "cells").tag("</a></b>");
            }
            page.tag("\n");
        }
        page.tag(match within {
            Some(true) => "</mark>",
            Some(false) => "</span>",
            None => "",
        });
    }

    /// Writes a place of it, as a link to the text where that is marked, and its lines.
    fn write_place(&self, page: &mut Markup, place: &Place) {
        let Some(marked) = self.marks.get(place) else {
            page.name(&place.to_string());
            return;
        };
        if self.is_there {
            page.tag("<a href=#p").number(self.number).tag("r").number(marked.number).tag(">");
            page.name(&place.to_string()).tag("</a> (");
        } else {
            page.name(&place.to_string()).tag(" (");
        }
        let (first, last) = (marked.lines.start(), marked.lines.end());
        page.tag(if first == last { "line " } else { "lines " });
        page.number(self.begins + first - 1);
        if first != last {
            page.tag("–").number(self.begins + last - 1);
        }
        page.tag(")");
    }
}

/// Writes the name of a policy, as a link where its text is on the page.
pub(super) fn write_name(page: &mut Markup, name: &str, links: &Links<'_>) {
    match links.get(name).filter(|it| it.is_there) {
        Some(shown) => {
            page.tag("<a href=#p").number(shown.number).tag(">").name(name).tag("</a>");
        }
        None => drop(page.name(name)),
    }
}

/// Writes what of a policy decided.
pub(super) fn write_ruling(page: &mut Markup, ruling: &Ruling, links: &Links<'_>) {
    let name = ruling.policy.to_string();
    let places = |page: &mut Markup, places: &[Place]| {
        for (index, place) in places.iter().enumerate() {
            page.tag(if index == 0 { "" } else { ", " });
            match links.get(name.as_str()) {
                Some(shown) => shown.write_place(page, place),
                None => drop(page.name(&place.to_string())),
            }
        }
    };
    match &ruling.part {
        Part::Rules(rules) => {
            page.tag(if rules.len() == 1 { "deciding rule: " } else { "deciding rules: " });
            places(page, rules);
        }
        Part::Isolation { whom, at } => {
            page.tag("no rule of it allows this: it isolates ").name(whom);
            if let Some(at) = at {
                page.tag(" by ");
                places(page, std::slice::from_ref(at));
            }
        }
        Part::Names(lists) => {
            page.tag("it lets other names pass: ");
            places(page, lists);
        }
    }
    page.tag(", by ").text(&ruling.by.to_string());
}
