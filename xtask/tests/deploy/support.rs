//! Asking Helm, promtool and kubectl.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

/// xtask itself.
pub const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// The program that answers for Helm.
const CHARTS: &str = include_str!("../../src/deploy/charts.py");

/// The namespace that everything is rendered for.
pub const NAMESPACE: &str = "rosentry";

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in a workspace").to_path_buf()
}

/// The chart.
pub fn chart() -> PathBuf {
    root().join("deploy/charts/rosentry")
}

/// A file of the checkout.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files in a folder of the checkout whose names end so, by name.
pub fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.retain(|file| file.to_string_lossy().ends_with(ending));
    files.sort();
    files
}

/// What Helm makes of the chart with these values.
#[derive(Debug)]
pub struct Rendered {
    /// The text of each template, by its path in the chart.
    pub files: BTreeMap<String, String>,
    /// The objects in them.
    pub documents: Vec<Value>,
}

impl Rendered {
    /// The objects of a kind.
    pub fn all(&self, kind: &str) -> Vec<&Value> {
        self.documents.iter().filter(|document| document["kind"] == kind).collect()
    }

    /// The only object of a kind.
    pub fn one(&self, kind: &str) -> &Value {
        let [one] = self.all(kind)[..] else { panic!("there is one {kind}, but: {:?}", self.all(kind)) };
        one
    }
}

/// Renders the chart with each of these values; an error is what Helm says against them.
pub fn try_render(values: &[Value]) -> Vec<Result<Rendered, String>> {
    let request = |values| json!({"op": "render", "chart": chart(), "name": "rosentry", "namespace": NAMESPACE, "values": values});
    let rendered = |answer: Value| match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(Rendered {
            files: serde_json::from_value(answer["files"].clone()).expect("Helm renders files"),
            documents: answer["documents"].as_array().expect("Helm renders objects").clone(),
        }),
    };
    ask(values.iter().map(request).collect()).into_iter().map(rendered).collect()
}

/// Renders the chart.
pub fn render(values: &Value) -> Rendered {
    let rendered = try_render(std::slice::from_ref(values)).remove(0);
    rendered.unwrap_or_else(|error| panic!("{values}: {error}"))
}

/// What Helm's lint finds with each of these values, at least a warning.
pub fn lint(values: &[Value]) -> Vec<Vec<String>> {
    let request = |values| json!({"op": "lint", "chart": chart(), "values": values});
    ask(values.iter().map(request).collect()).iter().map(|answer| texts(&answer["findings"])).collect()
}

/// What the schemas of a version of Kubernetes say against objects, and which objects they don't know; of each such pair.
pub fn validate(pairs: &[(Vec<Value>, &str)]) -> Vec<(Vec<String>, Vec<String>)> {
    let request = |(documents, version): &(Vec<Value>, &str)| json!({"op": "validate", "documents": documents, "version": version});
    let told = |answer: &Value| (texts(&answer["problems"]), texts(&answer["unknown"]));
    ask(pairs.iter().map(request).collect()).iter().map(told).collect()
}

/// The documents of a YAML text.
pub fn yaml(text: &str) -> Vec<Value> {
    let answer = ask(vec![json!({"op": "parse", "text": text})]).remove(0);
    answer["documents"].as_array().unwrap_or_else(|| panic!("it is YAML: {}", answer["error"])).clone()
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().expect("a list of texts").iter();
    texts.map(|text| text.as_str().expect("a text").to_owned()).collect()
}

/// One start of Helm answers all requests.
fn ask(requests: Vec<Value>) -> Vec<Value> {
    // Beside the profile's folder in which cargo puts programs.
    let target = Path::new(XTASK).ancestors().nth(2).expect("programs are in the target folder");
    let python = target.join("xtask/deploy-tools/bin/python");
    assert!(python.exists(), "Helm is not installed: run `cargo xtask setup`");
    let asked = requests.len();
    let output = run(Command::new(python).args(["-c", CHARTS]), &Value::from(requests).to_string());
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).expect("Helm answers in JSON");
    assert_eq!(answers.len(), asked, "Helm answers each request");
    answers
}

/// Runs a program that must end well.
pub fn run(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // A program that does not read its input ends before it is all written.
    let _ = child.stdin.take().expect("the input is a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    let told = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{command:?} ended with {}:\n{told}", output.status);
    output
}
