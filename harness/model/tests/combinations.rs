//! The matrix of versions: what its file may say, and what holds for every selection.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use ztc_model::combination::{Combination, Matrix, Selection, read};
use ztc_model::suite::Part;
use ztc_model::yaml::Source;

const SMALL: &str = "\
about: A test.
profile: kind
versions:
  kubernetes: [1.35.5, 1.36.3]
  cilium: [1.20.2, 1.19.6]
  istio: [1.31.1, 1.29.6]
  gateway-api: [1.6.1, 1.4.1]
incompatible:
  - versions: { istio: \"<1.30.0\", gateway-api: \">=1.5.0\" }
    because: The old one does not know the new one.
    source: https://example.com/1
  - versions: { istio: \">=1.30.0\", gateway-api: \"<1.5.0\" }
    because: The new one wants the new one.
    source: https://example.com/2
bundled:
  - { kubernetes: 1.36.3, cilium: 1.20.2 }
";

fn matrix(text: &str) -> Matrix {
    read(&Source::new("clusters/matrix.yaml", text)).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from:?}");
    let source = Source::new("clusters/matrix.yaml", SMALL.replacen(from, to, 1));
    read(&source).expect_err("it must be refused").to_string()
}

fn names(combinations: &[Combination]) -> Vec<String> {
    combinations.iter().map(ToString::to_string).collect()
}

#[test]
fn all_are_listed_newest_first_without_those_that_do_not_work() {
    insta::assert_snapshot!(names(&matrix(SMALL).select(Selection::All)).join("\n"), @r"
    k8s-1.36.3_cilium-1.20.2_istio-1.31.1_gwapi-1.6.1
    k8s-1.36.3_cilium-1.20.2_istio-1.29.6_gwapi-1.4.1
    k8s-1.36.3_cilium-1.19.6_istio-1.31.1_gwapi-1.6.1
    k8s-1.36.3_cilium-1.19.6_istio-1.29.6_gwapi-1.4.1
    k8s-1.35.5_cilium-1.20.2_istio-1.31.1_gwapi-1.6.1
    k8s-1.35.5_cilium-1.20.2_istio-1.29.6_gwapi-1.4.1
    k8s-1.35.5_cilium-1.19.6_istio-1.31.1_gwapi-1.6.1
    k8s-1.35.5_cilium-1.19.6_istio-1.29.6_gwapi-1.4.1
    ");
}

#[test]
fn pairwise_takes_few_and_the_newest_first() {
    insta::assert_snapshot!(names(&matrix(SMALL).select(Selection::Pairwise)).join("\n"), @r"
    k8s-1.36.3_cilium-1.20.2_istio-1.31.1_gwapi-1.6.1
    k8s-1.36.3_cilium-1.19.6_istio-1.29.6_gwapi-1.4.1
    k8s-1.35.5_cilium-1.20.2_istio-1.29.6_gwapi-1.4.1
    k8s-1.35.5_cilium-1.19.6_istio-1.31.1_gwapi-1.6.1
    ");
}

#[test]
fn the_newest_and_the_oldest_are_one_each() {
    let matrix = matrix(SMALL);
    let one = |selection| names(&matrix.select(selection));
    assert_eq!(one(Selection::Newest), ["k8s-1.36.3_cilium-1.20.2_istio-1.31.1_gwapi-1.6.1"]);
    assert_eq!(one(Selection::Oldest), ["k8s-1.35.5_cilium-1.19.6_istio-1.29.6_gwapi-1.4.1"]);
}

#[test]
fn one_that_only_a_bundle_has_is_found_by_its_name_and_in_no_other_selection() {
    let matrix = matrix(SMALL);
    let name = "k8s-1.36.3_cilium-1.20.2";
    assert_eq!(names(&matrix.select(Selection::Bundled)), [name]);
    let found = matrix.named(name).unwrap();
    assert!(matrix.is_bundled(&found) && found.version(Part::Istio).is_none());
    assert!(!names(&matrix.select(Selection::All)).contains(&name.to_owned()));
    assert_eq!(found.short(), "1-36-3-1-20-2");
}

#[test]
fn one_that_does_not_work_is_none_and_the_reason_is_known() {
    let matrix = matrix(SMALL);
    let name = "k8s-1.36.3_cilium-1.20.2_istio-1.29.6_gwapi-1.6.1";
    assert_eq!(matrix.named(name), None);
    assert_eq!(
        matrix.ruled_out(name).unwrap().to_string(),
        "istio <1.30.0 and gateway-api >=1.5.0: The old one does not know the new one. (https://example.com/1)"
    );
    assert_eq!(matrix.ruled_out("k8s-1.0.0"), None);
}

#[test]
fn versions_that_are_never_together_are_said_with_the_reason() {
    let apart: Vec<String> = matrix(SMALL).apart().iter().map(ToString::to_string).collect();
    assert_eq!(apart.len(), 2, "{apart:?}");
    assert_eq!(
        apart[0],
        "istio 1.29.6 and gateway-api 1.6.1 are never together: The old one does not know the new one. \
         (https://example.com/1)"
    );
}

#[test]
fn what_several_rule_out_together_is_said_too() {
    // Cilium 1.19.6 wants the old Istio, which wants the old definitions: it is never with the new ones.
    let third = "incompatible:\n  - versions: { cilium: \"<1.20.0\", istio: \">=1.30.0\" }\n    because: A test.\n    \
                 source: https://example.com/3\n";
    let apart = matrix(&SMALL.replace("incompatible:\n", third)).apart();
    let told: Vec<String> = apart.iter().map(ToString::to_string).collect();
    let both = "cilium 1.19.6 and gateway-api 1.6.1 are never together: incompatibilities with other parts leave no \
                combination of both";
    assert!(told.iter().any(|it| it == both), "{told:?}");
}

#[test]
fn what_is_wrong_is_shown_where_it_is() {
    insta::assert_snapshot!(refused("\">=1.5.0\"", "\">=1.7.0\""));
}

#[test]
fn slips_are_told() {
    for (from, to, told) in [
        ("about:", "abuot:", "unknown field `abuot`"),
        ("  cilium:", "  cillium:", "unknown value `cillium`"),
        ("  cilium: [1.20.2, 1.19.6]\n", "", "there is no version of cilium"),
        ("  gateway-api: [1.6.1, 1.4.1]\n", "", "a mesh has versions of both"),
        ("[1.20.2, 1.19.6]", "[]", "cilium has no version"),
        ("[1.20.2, 1.19.6]", "[1.20.2, 1.20.2]", "cilium 1.20.2 is here twice"),
        ("[1.20.2, 1.19.6]", "[1.20.2, 1.19.x]", "`1.19.x` is no version"),
        ("\"<1.30.0\"", "\"old\"", "`old` is no range of versions"),
        ("istio: \"<1.30.0\", ", "", "between two parts at least"),
        ("The old one does not know the new one.", "\" \"", "nobody says what goes wrong"),
        ("https://example.com/1", "somebody", "begins with `https://`"),
        (
            "\">=1.30.0\", gateway-api: \"<1.5.0\"",
            "\"<1.30.0\", gateway-api: \">=1.5.0\"",
            "are here twice",
        ),
        (
            "{ kubernetes: 1.36.3, cilium: 1.20.2 }",
            "{ kubernetes: 1.36.3, cilium: 1.20.2, istio: 1.31.1, gateway-api: 1.6.1 }",
            "is in the matrix already",
        ),
        (
            "[1.31.1, 1.29.6]\n  gateway-api: [1.6.1, 1.4.1]",
            "[1.31.1]\n  gateway-api: [1.4.1]",
            "no combination",
        ),
    ] {
        let said = refused(from, to);
        assert!(said.contains(told) && said.contains("clusters/matrix.yaml:"), "{to}: {said}");
    }
}

/// A matrix of three versions a part at most, and some incompatibilities; nothing if it is refused.
fn any_matrix() -> impl Strategy<Value = (String, Option<Matrix>)> {
    const VERSIONS: [&str; 3] = ["1.0.0", "1.1.0", "2.0.0"];
    const PARTS: [&str; 4] = ["kubernetes", "cilium", "istio", "gateway-api"];
    const RANGES: [&str; 4] = ["<1.1.0", ">=1.1.0", "=1.0.0", ">=2.0.0"];
    let versions = subsequence(VERSIONS.to_vec(), 1..=3).prop_shuffle();
    let parts = proptest::array::uniform4(versions);
    let range =
        (subsequence(PARTS.to_vec(), 2..=3), proptest::array::uniform3(select(RANGES.to_vec())));
    let ranges = proptest::collection::vec(range, 0..4);
    (parts, ranges).prop_map(|(parts, ranges)| {
        let mut text = "about: A test.\nprofile: kind\nversions:\n".to_owned();
        for (part, versions) in PARTS.iter().zip(&parts) {
            text.extend(["  ", part, ": [", &versions.join(", "), "]\n"]);
        }
        // Ranges that name no combination are refused: they are left out one by one.
        let mut kept = String::new();
        for (parts, of) in &ranges {
            let ranges: Vec<String> =
                parts.iter().zip(of).map(|(part, range)| format!("{part}: \"{range}\"")).collect();
            let entry = format!(
                "  - versions: {{ {} }}\n    because: A test.\n    source: https://example.com\n",
                ranges.join(", ")
            );
            let tried = format!("{text}incompatible:\n{kept}{entry}");
            if read(&Source::new("m", tried)).is_ok() {
                kept += &entry;
            }
        }
        if !kept.is_empty() {
            text.extend(["incompatible:\n", &kept]);
        }
        let matrix = read(&Source::new("m", text.clone())).ok();
        (text, matrix)
    })
}

fn pairs(combination: &Combination) -> BTreeSet<[(String, String); 2]> {
    let ones: Vec<(String, String)> = combination.versions().into_iter().collect();
    let pair = |one: &(String, String)| {
        let later = ones.iter().filter(|it| *it > one).cloned().collect::<Vec<_>>();
        let one = one.clone();
        later.into_iter().map(move |other| [one.clone(), other])
    };
    ones.iter().flat_map(pair).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn pairwise_has_every_pair_that_can_be_and_each_brings_one((text, matrix) in any_matrix()) {
        let matrix = matrix.ok_or_else(|| TestCaseError::fail(text))?;
        let all = matrix.select(Selection::All);
        let taken = matrix.select(Selection::Pairwise);
        prop_assert!(taken.iter().all(|it| all.contains(it)));
        let possible: BTreeSet<_> = all.iter().flat_map(pairs).collect();
        let mut seen = BTreeSet::new();
        for combination in &taken {
            let before = seen.len();
            seen.extend(pairs(combination));
            prop_assert!(seen.len() > before, "{combination} brings nothing");
        }
        prop_assert_eq!(seen, possible);
        let newest = matrix.select(Selection::Newest);
        prop_assert_eq!(taken.first(), newest.first());
    }

    #[test]
    fn nothing_that_is_selected_is_ruled_out_and_every_name_leads_back((text, matrix) in any_matrix()) {
        let matrix = matrix.ok_or_else(|| TestCaseError::fail(text))?;
        let all = matrix.select(Selection::All);
        for combination in &all {
            let name = combination.to_string();
            prop_assert_eq!(matrix.ruled_out(&name), None);
            prop_assert_eq!(matrix.named(&name), Some(combination.clone()));
        }
        let distinct: BTreeSet<String> = names(&all).into_iter().collect();
        prop_assert_eq!(distinct.len(), all.len());
        let shorts: BTreeSet<String> = all.iter().map(Combination::short).collect();
        prop_assert_eq!(shorts.len(), all.len());
    }

    #[test]
    fn nothing_is_newer_than_the_newest_nor_older_than_the_oldest((text, matrix) in any_matrix()) {
        let matrix = matrix.ok_or_else(|| TestCaseError::fail(text))?;
        let all = matrix.select(Selection::All);
        let at_least = |one: &Combination, other: &Combination| {
            one.versions().iter().all(|(part, version)| version >= &other.versions()[part])
        };
        let (newest, oldest) = (matrix.select(Selection::Newest), matrix.select(Selection::Oldest));
        prop_assert!(all.iter().all(|it| it == &newest[0] || !at_least(it, &newest[0])));
        prop_assert!(all.iter().all(|it| it == &oldest[0] || !at_least(&oldest[0], it)));
    }

    #[test]
    fn the_order_in_the_file_does_not_matter((text, matrix) in any_matrix()) {
        let matrix = matrix.ok_or_else(|| TestCaseError::fail(text.clone()))?;
        let lines = text.lines().map(|line| match line.split_once(": [") {
            Some((part, versions)) => {
                let mut versions: Vec<&str> = versions.trim_end_matches(']').split(", ").collect();
                versions.reverse();
                format!("{part}: [{}]\n", versions.join(", "))
            }
            None => format!("{line}\n"),
        });
        let other = read(&Source::new("m", lines.collect::<String>()));
        let other = other.map_err(|error| TestCaseError::fail(error.to_string()))?;
        for selection in [Selection::All, Selection::Pairwise, Selection::Newest, Selection::Oldest] {
            prop_assert_eq!(matrix.select(selection), other.select(selection));
        }
        prop_assert_eq!(matrix.apart(), other.apart());
    }

    #[test]
    fn a_pair_is_apart_or_together_and_never_both((text, matrix) in any_matrix()) {
        let matrix = matrix.ok_or_else(|| TestCaseError::fail(text))?;
        let all = matrix.select(Selection::All);
        for apart in matrix.apart() {
            let has = |it: &&Combination| {
                let said: Vec<String> = it.versions().iter().map(|(part, it)| format!("{part} {it}")).collect();
                apart.pair.iter().all(|one| said.contains(one))
            };
            prop_assert_eq!(all.iter().find(has), None);
        }
    }
}
