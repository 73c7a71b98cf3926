//! Truth tables: the compact form of expectations, and what it stands for.
//!
//! A row and a column become one expectation as if it were written under `expect`, so that whatever holds
//! there holds here: this room checks the form of the table and nothing of what is in it.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::outcome::{EnforcementPoint, Form};
use crate::suite::file::{CaseFile, ExpectationFile, Is, OneOrMany};
use crate::yaml::{Diagnostic, Source, Spanned};

/// A truth table: sources down, stimuli across.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatrixFile {
    /// Who denies, wherever the table says `-`.
    #[serde(default)]
    #[schemars(with = "Option<EnforcementPoint>")]
    pub by: Option<Spanned<EnforcementPoint>>,
    /// The form of the denials.
    #[serde(default, rename = "as")]
    #[schemars(with = "Option<Form>")]
    pub form: Option<Spanned<Form>>,
    /// The name of the applied policy that denies; may be left out when the case applies one.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub policy: Option<Spanned<String>>,
    /// The columns: one stimulus each.
    #[schemars(with = "Vec<String>")]
    pub send: Vec<Spanned<String>>,
    /// The rows: one source each.
    #[schemars(with = "Vec<RowFile>")]
    pub rows: Vec<Spanned<RowFile>>,
}

/// A row of a truth table.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowFile {
    /// Who sends: a pod as `namespace/name`.
    #[schemars(with = "String")]
    pub from: Spanned<String>,
    /// A symbol for each stimulus, in the order of the columns: `+` allowed, `-` denied, `.` not asked.
    /// Spaces between them say nothing.
    #[schemars(with = "String")]
    pub is: Spanned<String>,
}

/// The expectations of a case: those that are written out, and those of its table.
///
/// # Errors
/// A diagnostic at a row that does not fit the table, or at a table that asks nothing.
pub(super) fn expectations(
    source: &Source,
    case: &CaseFile,
) -> Result<Vec<Spanned<ExpectationFile>>, Box<Diagnostic>> {
    let mut all = case.expect.clone();
    let Some(matrix) = &case.matrix else { return Ok(all) };
    for row in &matrix.value.rows {
        let symbols: Vec<char> =
            row.value.is.value.chars().filter(|it| !it.is_whitespace()).collect();
        if symbols.len() != matrix.value.send.len() {
            let message =
                format!("{} symbols for {} stimuli", symbols.len(), matrix.value.send.len());
            let help = "a row has a symbol for each entry of `send`, in their order";
            return Err(source.diagnostic_at(&row.value.is, message, Some(help)));
        }
        for (symbol, send) in symbols.into_iter().zip(&matrix.value.send) {
            let is = match symbol {
                '+' => Is::Allowed,
                '-' => Is::Denied,
                '.' => continue,
                other => {
                    let message = format!("`{other}` is no symbol of a table");
                    let help = "`+` is allowed, `-` is denied, `.` is not asked";
                    return Err(source.diagnostic_at(&row.value.is, message, Some(help)));
                }
            };
            all.push(at(row, expectation(&matrix.value, &row.value, send, is)));
        }
    }
    denies_what_it_says(source, matrix, &all[case.expect.len()..])?;
    Ok(all)
}

/// A table without a denial has nobody who denies; one without a cell is none.
fn denies_what_it_says(
    source: &Source,
    matrix: &Spanned<MatrixFile>,
    cells: &[Spanned<ExpectationFile>],
) -> Result<(), Box<Diagnostic>> {
    if cells.is_empty() {
        return Err(source.diagnostic_at(matrix, "a table asks at least one thing", None));
    }
    if cells.iter().any(|it| it.value.is == Is::Denied) {
        return Ok(());
    }
    let wrong = |word| format!("nothing in the table is denied, so it has no `{word}`");
    match &matrix.value {
        MatrixFile { by: Some(by), .. } => Err(source.diagnostic_at(by, wrong("by"), None)),
        MatrixFile { form: Some(form), .. } => Err(source.diagnostic_at(form, wrong("as"), None)),
        MatrixFile { policy: Some(policy), .. } => {
            Err(source.diagnostic_at(policy, wrong("policy"), None))
        }
        _ => Ok(()),
    }
}

fn expectation(
    matrix: &MatrixFile,
    row: &RowFile,
    send: &Spanned<String>,
    is: Is,
) -> ExpectationFile {
    let one = |text: &Spanned<String>| at(text, OneOrMany(vec![text.value.clone()]));
    let denied = is == Is::Denied;
    ExpectationFile {
        from: one(&row.from),
        send: one(send),
        after: None,
        is,
        throughout: None,
        via: None,
        wire: None,
        by: matrix.by.clone().filter(|_| denied),
        form: matrix.form.clone().filter(|_| denied),
        policy: matrix.policy.clone().filter(|_| denied),
        behind: Vec::new(),
        twin: None,
        beside: None,
    }
}

/// A value that stands where another one is written.
fn at<T, U>(place: &Spanned<T>, value: U) -> Spanned<U> {
    Spanned { value, referenced: place.referenced, defined: place.defined }
}
