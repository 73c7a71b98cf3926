//! The workflows are as safe and as whole as they have to be: what is run is a script of this repository, actions are
//! pinned, permissions least, and every reference leads somewhere. A linter of these files alone, which needs no network.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use ztc_model::yaml::{Source, strict};

const FOLDER: &str = ".github/workflows";

/// What a workflow, a job and a step may say; another word is a slip, or has to be thought about here first.
const WORKFLOW: [&str; 6] = ["name", "on", "permissions", "concurrency", "env", "jobs"];
const JOB: [&str; 10] = [
    "name",
    "needs",
    "if",
    "runs-on",
    "timeout-minutes",
    "permissions",
    "outputs",
    "strategy",
    "env",
    "steps",
];
const STEP: [&str; 7] = ["id", "name", "if", "uses", "with", "run", "env"];
/// What a workflow may begin on. `pull_request_target` and `workflow_run` give strangers' code rights.
const TRIGGERS: [&str; 4] = ["push", "pull_request", "schedule", "workflow_dispatch"];
/// What expressions may take of the run. Titles, branches and comments are written by strangers.
const OF_THE_RUN: [&str; 3] = ["ref", "run_id", "run_attempt"];
/// The longest that a job may take, minutes.
const LONGEST: u64 = 180;

fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

fn workflows() -> BTreeMap<String, String> {
    let files = fs::read_dir(root().join(FOLDER)).unwrap().map(|it| it.unwrap().path());
    let named = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    files.map(named).collect()
}

#[test]
fn every_workflow_is_as_it_has_to_be() {
    let workflows = workflows();
    assert!(workflows.contains_key("ci.yml") && workflows.contains_key("nightly.yml"));
    for (name, text) in workflows {
        assert_eq!(slips(&text), [""; 0], "{name}");
    }
}

/// What a workflow says, what it shall say instead, and what has to be told.
const SLIPS: [(&str, &str, &str, &str); 24] = [
    ("nightly.yml", "concurrency:", "concurency:", "unknown key `concurency`"),
    ("nightly.yml", "    timeout-minutes: 150\n", "", "job cell has no `timeout-minutes`"),
    (
        "nightly.yml",
        "timeout-minutes: 150",
        "timeout-minutes: 350",
        "job cell may take 350 minutes",
    ),
    (
        "nightly.yml",
        "contents: read",
        "contents: write",
        "permissions are more than `contents: read`",
    ),
    ("nightly.yml", "permissions:\n  contents: read\n", "", "no `permissions`"),
    ("ci.yml", "pull_request:", "pull_request_target:", "begins on `pull_request_target`"),
    ("ci.yml", "ubuntu-24.04", "ubuntu-latest", "runs on `ubuntu-latest`"),
    ("ci.yml", "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7", "is not pinned"),
    ("ci.yml", " # v7.0.1", "", "does not say which version"),
    ("ci.yml", "# v7.0.1", "# v7.0.2", "is another version elsewhere"),
    ("ci.yml", "persist-credentials: false", "persist-credentials: true", "keeps credentials"),
    ("ci.yml", "run: .ci/run", "run: .ci/runs", "`.ci/runs` is no file of the repository"),
    ("ci.yml", "run: .ci/run", "run: Cargo.toml", "`Cargo.toml` cannot be executed"),
    ("ci.yml", "run: .ci/run", "run: ls .ci", "`ls` is no script"),
    ("ci.yml", "run: .ci/run", "run: .ci/run | tee log", "more than a call of a script"),
    ("ci.yml", "run: .ci/run", "run: .ci/run ${{ github.ref }}", "an expression in a command"),
    ("nightly.yml", "run-cell \"$CELL\"", "run-cell \"$SELL\"", "`SELL` is no variable"),
    ("ci.yml", "ci-${{ github.ref }}", "ci-${{ github.head_ref }}", "takes `github.head_ref`"),
    ("nightly.yml", "needs: cells\n", "needs: cell\n", "job cell needs itself"),
    (
        "nightly.yml",
        "needs: [cells, cell, upgrade]",
        "needs: [cells, sell]",
        "needs `sell`, which is no job",
    ),
    (
        "nightly.yml",
        "needs.cells.outputs.matrix",
        "needs.cells.outputs.cells",
        "job cells has no output `cells`",
    ),
    ("nightly.yml", "      - id: cells\n        run:", "      - run:", "no step `cells` before it"),
    (
        "nightly.yml",
        "steps.cells.outputs.matrix",
        "steps.cells.outputs.list",
        "no script of step cells writes `list`",
    ),
    (
        "nightly.yml",
        "hashFiles('clusters/kind.yaml'",
        "hashFiles('clusters/kin.yaml'",
        "`clusters/kin.yaml` is no file",
    ),
];

#[test]
fn every_slip_is_found() {
    let workflows = workflows();
    for (file, from, to, told) in SLIPS {
        let text = &workflows[file];
        assert!(text.contains(from), "{file} holds no {from:?}");
        let mut found = slips(&text.replacen(from, to, 1));
        if told.contains("elsewhere") {
            // The other file has the same action.
            found = one_version_each(
                &[text.replacen(from, to, 1), workflows["nightly.yml"].clone()].concat(),
            );
        }
        assert!(found.iter().any(|it| it.contains(told)), "{to:?}: {found:?}");
    }
}

#[test]
fn an_action_has_one_version_in_all_workflows() {
    let all: String = workflows().into_values().collect();
    assert_eq!(one_version_each(&all), [""; 0]);
}

/// The scripts of the repository are found by bash to be such.
#[test]
fn the_scripts_can_be_read_by_bash() {
    let nightly = root().join("scripts/nightly");
    for script in fs::read_dir(nightly).unwrap().map(|it| it.unwrap().path()) {
        let read = std::process::Command::new("bash").arg("-n").arg(&script).output().unwrap();
        assert!(read.status.success(), "{}: {read:?}", script.display());
    }
}

/// Actions of one repository that are pinned to different commits, or one commit that is called differently.
fn one_version_each(text: &str) -> Vec<String> {
    let mut pins: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
        let Some((_, uses)) = line.split_once("uses: ") else { continue };
        let Some((action, pin)) = uses.split_once('@') else { continue };
        let repository: Vec<&str> = action.split('/').take(2).collect();
        pins.entry(repository.join("/")).or_default().insert(pin.to_owned());
    }
    let several = pins.into_iter().filter(|(_, pins)| pins.len() > 1);
    several.map(|(action, _)| format!("{action} is another version elsewhere")).collect()
}

/// Everything that is wrong with a workflow.
fn slips(text: &str) -> Vec<String> {
    let workflow: Value = match strict(&Source::new("workflow", text)) {
        Ok(workflow) => workflow,
        Err(error) => return vec![error.to_string()],
    };
    let mut found = Vec::new();
    let top = map(&workflow);
    found.extend(unknown("the workflow", &top, &WORKFLOW));
    let triggers = map(&workflow["on"]);
    let others = triggers.keys().filter(|it| !TRIGGERS.contains(&it.as_str()));
    found.extend(others.map(|it| format!("it begins on `{it}`")));
    if triggers.is_empty() {
        found.push("it never begins".to_owned());
    }
    match top.get("permissions") {
        None => found.push("there are no `permissions`".to_owned()),
        Some(permissions) => found.extend(too_many(permissions)),
    }
    if !top.contains_key("concurrency") {
        found.push("nothing keeps two of them apart: there is no `concurrency`".to_owned());
    }
    found.extend(pins(text));
    let inputs: BTreeSet<String> =
        map(&workflow["on"]["workflow_dispatch"]["inputs"]).keys().cloned().collect();
    let jobs = map(&workflow["jobs"]);
    let outside = Names { inputs: &inputs, jobs: &jobs, job: None, steps: Vec::new() };
    for part in ["concurrency", "env"] {
        found.extend(outside.of_all(&workflow[part]));
    }
    for (name, job) in &jobs {
        found.extend(slips_of_job(name, job, &workflow, &inputs, &jobs));
    }
    found
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn unknown(of: &str, said: &Map<String, Value>, known: &[&str]) -> Vec<String> {
    let others = said.keys().filter(|key| !known.contains(&key.as_str()));
    others.map(|key| format!("{of} has an unknown key `{key}`")).collect()
}

fn too_many(permissions: &Value) -> Option<String> {
    let least = serde_json::json!({ "contents": "read" });
    (permissions != &least && permissions != &serde_json::json!({}))
        .then(|| "its permissions are more than `contents: read`".to_owned())
}

/// Every action is pinned by the whole digest of a commit, and says in words which version that is.
fn pins(text: &str) -> Vec<String> {
    let uses = text.lines().filter_map(|line| Some(line.split_once("uses: ")?.1));
    let slip = |uses: &str| {
        let (action, words) = uses.split_once(" # ").unwrap_or((uses, ""));
        let commit = action.split_once('@').map_or("", |it| it.1);
        if commit.len() != 40
            || !commit.chars().all(|it| it.is_ascii_digit() || ('a'..='f').contains(&it))
        {
            return Some(format!("{action} is not pinned"));
        }
        let version = words.strip_prefix('v').unwrap_or_default();
        let is_version = version.split('.').filter(|it| it.parse::<u32>().is_ok()).count() == 3;
        (!is_version).then(|| format!("{action} does not say which version it is"))
    };
    uses.filter_map(slip).collect()
}

fn slips_of_job(
    name: &str,
    job: &Value,
    workflow: &Value,
    inputs: &BTreeSet<String>,
    jobs: &Map<String, Value>,
) -> Vec<String> {
    let mut found = unknown(&format!("job {name}"), &map(job), &JOB);
    match job["timeout-minutes"].as_u64() {
        None => found.push(format!("job {name} has no `timeout-minutes`")),
        Some(minutes) if minutes > LONGEST => {
            found.push(format!("job {name} may take {minutes} minutes"));
        }
        Some(_) => {}
    }
    let on = job["runs-on"].as_str().unwrap_or_default();
    if on.is_empty() || on.ends_with("-latest") {
        found.push(format!("job {name} runs on `{on}`, which changes with time"));
    }
    if let Some(permissions) = job.get("permissions") {
        found.extend(too_many(permissions));
    }
    for needed in needs(job) {
        if needed == name {
            found.push(format!("job {name} needs itself"));
        } else if !jobs.contains_key(&needed) {
            found.push(format!("job {name} needs `{needed}`, which is no job"));
        }
    }
    let steps = job["steps"].as_array().cloned().unwrap_or_default();
    if steps.is_empty() {
        found.push(format!("job {name} has no steps"));
    }
    let mut names = Names { inputs, jobs, job: Some(job), steps: Vec::new() };
    for part in ["if", "strategy", "env", "name"] {
        found.extend(names.of_all(&job[part]));
    }
    for step in &steps {
        found.extend(unknown(&format!("a step of {name}"), &map(step), &STEP));
        found.extend(names.of_all(step));
        if step.get("uses").is_some() == step.get("run").is_some() {
            found.push(format!("a step of {name} either uses an action or runs a script"));
        }
        let action = step["uses"].as_str().unwrap_or_default();
        if action.starts_with("actions/checkout@") && step["with"]["persist-credentials"] != false {
            found.push(format!("the checkout of {name} keeps credentials"));
        }
        if let Some(command) = step["run"].as_str() {
            let set = [&workflow["env"], &job["env"], &step["env"]];
            let variables: BTreeSet<String> =
                set.iter().flat_map(|it| map(it)).map(|it| it.0).collect();
            found.extend(slip_of_command(command, &variables));
        }
        names.steps.push(step.clone());
    }
    found.extend(names.of_all(&job["outputs"]));
    found
}

fn needs(job: &Value) -> Vec<String> {
    let all = match &job["needs"] {
        Value::Array(all) => all.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    all.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

/// A command is a script of this repository with plain words and variables behind it.
fn slip_of_command(command: &str, variables: &BTreeSet<String>) -> Option<String> {
    if command.contains("${{") {
        return Some(format!("an expression in a command, which a stranger may fill: {command}"));
    }
    let mut words = command.split_whitespace();
    let script = words.next().unwrap_or_default();
    let plain =
        |word: &str| word.chars().all(|it| it.is_ascii_alphanumeric() || "-_./=".contains(it));
    for word in words {
        let variable = word.strip_prefix("\"$").and_then(|it| it.strip_suffix('"'));
        match variable {
            Some(name) if !variables.contains(name) => {
                return Some(format!("`{name}` is no variable of {script}"));
            }
            None if !plain(word) => {
                return Some(format!("more than a call of a script: {command}"));
            }
            Some(_) | None => {}
        }
    }
    if command.trim().lines().count() != 1 || !plain(script) {
        return Some(format!("more than a call of a script: {command}"));
    }
    if !script.contains(['/', '.']) {
        return Some(format!("`{script}` is no script of the repository"));
    }
    match fs::metadata(root().join(script)) {
        Err(_) => Some(format!("`{script}` is no file of the repository")),
        Ok(it) if it.permissions().mode() & 0o111 == 0 => {
            Some(format!("`{script}` cannot be executed"))
        }
        Ok(_) => None,
    }
}

/// What expressions can name at a place.
struct Names<'a> {
    inputs: &'a BTreeSet<String>,
    jobs: &'a Map<String, Value>,
    job: Option<&'a Value>,
    /// The steps before it.
    steps: Vec<Value>,
}

impl Names<'_> {
    /// What is wrong with the expressions in a value, wherever in it they are.
    fn of_all(&self, value: &Value) -> Vec<String> {
        match value {
            Value::Object(fields) => fields
                .iter()
                .flat_map(|(key, value)| match value {
                    // A condition is an expression without braces.
                    Value::String(text) if key == "if" => self.of_expression(text),
                    value => self.of_all(value),
                })
                .collect(),
            Value::Array(items) => items.iter().flat_map(|it| self.of_all(it)).collect(),
            Value::String(text) => {
                let inside =
                    text.split("${{").skip(1).filter_map(|it| Some(it.split_once("}}")?.0));
                inside.flat_map(|it| self.of_expression(it)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn of_expression(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        // Every second piece is a text in quotes; only names of files are among them, and words.
        for (index, piece) in text.split('\'').enumerate() {
            if index % 2 == 1 {
                let folder = piece.trim_end_matches("/*");
                if text.contains("hashFiles(") && !root().join(folder).exists() {
                    found.push(format!("`{piece}` is no file"));
                }
                continue;
            }
            let is_of_a_name = |it: char| it.is_ascii_alphanumeric() || "._-".contains(it);
            let words = piece.split(|it: char| !is_of_a_name(it)).filter(|it| it.contains('.'));
            found.extend(words.filter_map(|word| self.slip_of_name(word)));
        }
        found
    }

    fn slip_of_name(&self, name: &str) -> Option<String> {
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            ["github", of_the_run] if OF_THE_RUN.contains(of_the_run) => None,
            ["runner", "os"] => None,
            ["inputs", input] if self.inputs.contains(*input) => None,
            ["matrix", _] if self.job.is_some_and(|it| !it["strategy"]["matrix"].is_null()) => None,
            ["needs", job, "result"] => self.needed(job).err(),
            ["needs", job, "outputs", output] => match self.needed(job) {
                Err(slip) => Some(slip),
                Ok(job) if job["outputs"].get(*output).is_some() => None,
                Ok(_) => Some(format!("job {job} has no output `{output}`")),
            },
            ["steps", id, "outputs", output] => {
                let Some(step) = self.steps.iter().find(|it| it["id"] == **id) else {
                    return Some(format!("there is no step `{id}` before it"));
                };
                let script = step["run"].as_str().unwrap_or_default();
                let text = fs::read_to_string(root().join(script)).unwrap_or_default();
                let writes =
                    text.contains(&format!("\"{output}=")) && text.contains("GITHUB_OUTPUT");
                (!writes).then(|| format!("no script of step {id} writes `{output}`"))
            }
            _ => Some(format!("an expression takes `{name}`")),
        }
    }

    fn needed(&self, name: &str) -> Result<&Value, String> {
        let is_needed = self.job.is_some_and(|job| needs(job).iter().any(|it| it == name));
        match self.jobs.get(name) {
            Some(job) if is_needed => Ok(job),
            _ => Err(format!("an expression takes what job `{name}` came to, which is not needed")),
        }
    }
}
