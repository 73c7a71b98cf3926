//! `ztc matrix`: the cells of the version matrix, for people, for programs, and as the job matrix of a workflow.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use ztc_model::combination::{Combination, Matrix, Selection};

use crate::ground::{Ground, GroundError, Place};
use crate::project::Project;

pub(crate) const AFTER_HELP: &str = "\
A cell is a cluster of the matrix's profile with one supported version of every part. Its name is a profile, too: \
`--cluster NAME` takes it wherever a profile is taken. A bundle of other versions is refused, and so is a cluster on \
which other versions are found than the cell has.

Exit codes: as `ztc run` has them; 2 there is no such cell, or the bundle is of another one.";

/// Which cells are listed, and how.
#[derive(Debug, Args)]
pub(crate) struct Order {
    /// Which cells.
    #[arg(long, value_enum, default_value = "all")]
    select: Select,
    /// How to list them.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Which cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Select {
    /// All whose versions are not known not to work together.
    All,
    /// So many that any two versions that can be together are together in one; the newest comes first.
    Pairwise,
    /// The one with the newest versions.
    Newest,
    /// The one with the oldest.
    Oldest,
    /// Those that no registry has; with a bundle, the one that it makes.
    Bundled,
    /// No cells but pairs of them, for `ztc upgrade`: to the newest, from each that has another version of one part alone.
    Upgrades,
}

/// How cells are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Their names, one a line; after `all` and `pairwise`, which versions are never together, as comments.
    Text,
    /// An array of their versions with their names.
    Json,
    /// What `strategy.matrix` of a GitHub workflow takes: `{"include": [...]}` in one line.
    Github,
}

/// The lines of a list.
pub(crate) fn list(
    project: &Project,
    order: &Order,
    place: &Place,
) -> Result<Vec<String>, GroundError> {
    let matrix = project.the_matrix()?;
    let mut cells = matrix.select(match order.select {
        Select::Upgrades => return Ok(upgrades(&matrix, order.format)),
        Select::All => Selection::All,
        Select::Pairwise => Selection::Pairwise,
        Select::Newest => Selection::Newest,
        Select::Oldest => Selection::Oldest,
        Select::Bundled => Selection::Bundled,
    });
    let has_bundle = place.bundle.as_ref().is_some_and(|it| !it.as_os_str().is_empty());
    if order.select == Select::Bundled && has_bundle {
        cells = of_the_bundle(project, cells, place)?;
    }
    let all: Vec<Value> = cells.iter().map(cell).collect();
    Ok(match order.format {
        Format::Text => text(&matrix, &cells, order.select),
        Format::Json => vec![format!("{:#}", Value::from(all))],
        Format::Github => vec![json!({ "include": all }).to_string()],
    })
}

/// The lines of a list of upgrades.
fn upgrades(matrix: &Matrix, format: Format) -> Vec<String> {
    let pairs = matrix.upgrades();
    let all = || -> Vec<Value> {
        let names = pairs.iter().map(|pair| pair.each_ref().map(ToString::to_string));
        names.map(|[from, to]| json!({ "from": from, "to": to })).collect()
    };
    match format {
        Format::Text => pairs.iter().map(|[from, to]| format!("{from} {to}")).collect(),
        Format::Json => vec![format!("{:#}", Value::from(all()))],
        Format::Github => vec![json!({ "include": all() }).to_string()],
    }
}

/// The cells that a bundle makes. One that leaves out what the bundle has is made of less than there is, and is not meant.
fn of_the_bundle(
    project: &Project,
    cells: Vec<Combination>,
    place: &Place,
) -> Result<Vec<Combination>, GroundError> {
    let mut made = Vec::new();
    for cell in cells {
        match Ground::find(project, &Place { cluster: cell.to_string(), ..place.clone() }) {
            Ok(_) => made.push(cell),
            Err(GroundError::OtherVersions { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let parts = |cell: &Combination| cell.versions().len();
    let most = made.iter().map(parts).max();
    made.retain(|it| Some(parts(it)) == most);
    Ok(made)
}

fn text(matrix: &Matrix, cells: &[Combination], select: Select) -> Vec<String> {
    let mut lines: Vec<String> = cells.iter().map(ToString::to_string).collect();
    if matches!(select, Select::All | Select::Pairwise) {
        lines.extend(matrix.apart().iter().map(|it| format!("# {it}")));
    }
    lines
}

fn cell(cell: &Combination) -> Value {
    let mut fields = json!({ "cell": cell.to_string() });
    for (part, version) in cell.versions() {
        fields[part] = version.into();
    }
    fields
}
