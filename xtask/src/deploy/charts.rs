//! Asking Helm: requests and answers of `charts.py`.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// The program that answers.
const PROGRAM: &str = include_str!("charts.py");

/// Helm, in the environment that [`tools`](super::tools) made.
pub struct Charts {
    python: PathBuf,
}

impl Charts {
    /// By the environment's interpreter.
    pub const fn new(python: PathBuf) -> Self {
        Self { python }
    }

    /// The files that a chart's templates become, by their path in the chart.
    ///
    /// # Errors
    /// What Helm says against the values or the templates.
    pub fn files(&self, chart: &Path, namespace: &str, values: &Value) -> Result<BTreeMap<String, String>> {
        let request =
            json!({"op": "render", "chart": chart, "name": "rosentry", "namespace": namespace, "values": values});
        let mut answer = self.ask(&request)?;
        serde_json::from_value(answer["files"].take()).context("Helm's answer has files")
    }

    /// The documents of a YAML text.
    ///
    /// # Errors
    /// Where it is none.
    pub fn documents(&self, text: &str) -> Result<Vec<Value>> {
        let mut answer = self.ask(&json!({"op": "parse", "text": text}))?;
        serde_json::from_value(answer["documents"].take()).context("the answer has documents")
    }

    fn ask(&self, request: &Value) -> Result<Value> {
        let mut program = Command::new(&self.python)
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} could not be run", self.python.display()))?;
        let mut input = program.stdin.take().context("the program has an input")?;
        input.write_all(json!([request]).to_string().as_bytes()).context("Helm takes a request")?;
        drop(input);
        let output = program.wait_with_output().context("Helm answers")?;
        let answers: Vec<Value> = serde_json::from_slice(&output.stdout).context("Helm answers in JSON")?;
        let answer = answers.into_iter().next().context("Helm answers each request")?;
        match answer["error"].as_str() {
            Some(error) => bail!("Helm says: {}", error.trim()),
            None => Ok(answer),
        }
    }
}
