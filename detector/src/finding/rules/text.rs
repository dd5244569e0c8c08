//! A file of rules as it is written: TOML, of which every mistake is told with its line.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// What is wrong with rules, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what was expected.
    pub problem: String,
}

/// A file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesText {
    /// Its rules, in order.
    #[serde(default)]
    pub rule: Vec<Spanned<RuleText>>,
}

/// A rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// What events call it.
    pub name: Spanned<String>,
    /// When it fits: all of these.
    #[serde(rename = "match")]
    pub matches: Spanned<ConditionsText>,
    /// When it does not fit all the same: all of these.
    pub except: Option<Spanned<ConditionsText>>,
    /// What it says.
    pub set: Spanned<SetText>,
}

/// Words or patterns, of which one has to fit.
pub type List = Option<Vec<Spanned<String>>>;

/// What has to fit.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConditionsText {
    /// Words.
    pub kind: List,
    /// Words.
    pub operation: List,
    /// Words.
    pub outcome: List,
    /// Words.
    pub errno: List,
    /// Words.
    pub effect: List,
    /// Words.
    pub cause: List,
    /// Words.
    pub mount: List,
    /// Words.
    pub category: List,
    /// Words.
    pub severity: List,
    /// Patterns of paths.
    pub path: List,
    /// Patterns of paths.
    pub source: List,
    /// Patterns.
    pub fstype: List,
    /// Patterns.
    pub volume: List,
    /// Patterns.
    pub volume_type: List,
    /// Patterns of programs.
    pub executable: List,
    /// Patterns.
    pub comm: List,
    /// Patterns of programs.
    pub ancestor: List,
    /// Patterns.
    pub container: List,
    /// Patterns.
    pub image: List,
    /// Patterns.
    pub namespace: List,
    /// Patterns.
    pub pod: List,
    /// Patterns.
    pub workload: List,
    /// Patterns, by the label's name; all have to fit.
    pub labels: Option<BTreeMap<String, Vec<Spanned<String>>>>,
    /// Yes or no.
    pub in_container: Option<bool>,
    /// Yes or no.
    pub privileged: Option<bool>,
    /// Yes or no.
    pub user_namespace: Option<bool>,
    /// Yes or no.
    pub cap_sys_admin: Option<bool>,
    /// Yes or no.
    pub sets_id: Option<bool>,
}

/// What a rule says of what fits it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetText {
    /// A word.
    pub category: Option<Spanned<String>>,
    /// A word.
    pub severity: Option<Spanned<String>>,
    /// A sentence.
    pub hint: Option<Spanned<String>>,
    /// Techniques of MITRE ATT&CK.
    #[serde(default)]
    pub attack: Vec<Spanned<String>>,
    /// Whether it is expected: counted, and nothing to look at.
    #[serde(default)]
    pub expected: bool,
}

/// Text with its lines.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a>(pub &'a str);

impl Lines<'_> {
    /// What is wrong with this.
    pub fn mistake<T>(self, at: &Spanned<T>, problem: impl Into<String>) -> Mistake {
        Mistake { line: self.line(at.span().start), problem: problem.into() }
    }

    fn line(self, at: usize) -> usize {
        self.0.get(..at).unwrap_or_default().matches('\n').count() + 1
    }

    /// Reads it.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(self) -> Result<RulesText, Mistake> {
        toml::from_str(self.0).map_err(|error| Mistake {
            line: self.line(error.span().map_or(0, |span| span.start)),
            problem: error.message().trim_end().replace('\n', "; "),
        })
    }
}
