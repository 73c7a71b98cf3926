//! What cases apply, as it is written: each manifest once, however many cases apply it.

use std::collections::BTreeMap;

use ztc_engine::event::PolicyText;

use super::markup::Markup;

/// How long a manifest may get, characters.
const LONG: usize = 20_000;

/// The manifests of a run, by their places.
#[derive(Debug)]
pub(super) struct Policies<'a>(BTreeMap<&'a str, (usize, &'a PolicyText)>);

/// The numbers of those that one case applies, by what they are called.
pub(super) type Links<'a> = BTreeMap<&'a str, usize>;

impl<'a> Policies<'a> {
    pub(super) fn of(texts: impl IntoIterator<Item = &'a PolicyText>) -> Self {
        let by_place: BTreeMap<&str, &PolicyText> =
            texts.into_iter().map(|it| (it.place.as_str(), it)).collect();
        let numbered = by_place.into_iter().enumerate();
        Self(numbered.map(|(number, (place, it))| (place, (number, it))).collect())
    }

    /// Those at these places.
    pub(super) fn at(&self, places: &[String]) -> Links<'a> {
        let found = places.iter().filter_map(|place| self.0.get(place.as_str()));
        found.map(|(number, it)| (it.policy.as_str(), *number)).collect()
    }

    /// All of them, as far as there is room for their texts.
    pub(super) fn write(&self, page: &mut Markup, room: &mut usize) {
        if self.0.is_empty() {
            return;
        }
        page.tag("<section aria-labelledby=policies><h2 id=policies>Policies</h2>");
        page.tag("<p class=faint>What the cases apply, as it is written.");
        let mut left_out = 0;
        for (place, (number, it)) in &self.0 {
            let mut piece = Markup::new();
            piece.tag("<details class=tool id=p").number(*number).tag("><summary>");
            piece.name(&it.policy).tag(" <small>").name(place).tag("</small></summary><pre>");
            piece.clipped(&it.text, LONG).tag("</pre></details>");
            if piece.len() > *room {
                left_out += 1;
                continue;
            }
            *room -= piece.len();
            page.join(&piece);
        }
        if left_out > 0 {
            page.tag("<p class=note><b>Left out to keep this page small:</b> ");
            page.count(left_out, "policy", "policies").tag("; their files have them.");
        }
        page.tag("</section>");
    }
}

/// Writes the name of a policy, as a link where its text is on the page.
pub(super) fn write_name(page: &mut Markup, name: &str, links: &Links<'_>) {
    match links.get(name) {
        Some(number) => page.tag("<a href=#p").number(*number).tag(">").name(name).tag("</a>"),
        None => page.name(name),
    };
}
