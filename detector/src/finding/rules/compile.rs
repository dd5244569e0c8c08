//! From a file of rules to rules that can be tried.

use std::{collections::HashSet, sync::Arc};

use detector_common::operation::Operation;
use toml::Spanned;

use super::{
    facts::Facts,
    hint::Hint,
    pattern::{Group, Patterns, PatternsBuilder, Style},
    text::{ConditionsText, Lines, List, Mistake, RuleText, SetText},
};
use crate::finding::{
    event::{Category, Effect, Kind, PlaceKind, Severity},
    seal::Cause,
};

/// Rules of one file at most.
const RULES_MAX: usize = 1000;

/// A rule, ready to be tried.
#[derive(Debug)]
pub struct Rule {
    /// What events call it.
    pub name: Arc<str>,
    /// Whether it came with rosentry.
    pub built_in: bool,
    pub(super) matches: Conditions,
    pub(super) except: Option<Conditions>,
    pub(super) set: Set,
}

/// What a rule says.
#[derive(Debug)]
pub(super) struct Set {
    pub category: Option<Category>,
    pub severity: Option<Severity>,
    pub hint: Option<Hint>,
    pub attack: Vec<Arc<str>>,
    pub expected: bool,
}

/// What has to fit; none of a field: anything does.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    pub kind: Option<Vec<Kind>>,
    pub operation: Option<Vec<&'static str>>,
    pub outcome: Option<Vec<&'static str>>,
    pub errno: Option<Vec<String>>,
    pub effect: Option<Vec<Effect>>,
    pub cause: Option<Vec<&'static str>>,
    pub mount: Option<Vec<PlaceKind>>,
    pub category: Option<Vec<Category>>,
    pub severity: Option<Vec<Severity>>,
    /// By [`Field`].
    pub patterns: Vec<(Field, Group)>,
    /// Patterns of a label's value.
    pub labels: Vec<(String, Patterns, Group)>,
    /// A flag of [`Flag`], and what it has to be.
    pub flags: Vec<(Flag, bool)>,
}

/// A field of [`Facts`](super::Facts) that is matched by patterns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Field {
    Path,
    Source,
    Fstype,
    Volume,
    VolumeType,
    Executable,
    Comm,
    Ancestor,
    Container,
    Image,
    Namespace,
    Pod,
    Workload,
}

impl Field {
    /// Every one, in order.
    pub const ALL: [Self; 13] = [
        Self::Path,
        Self::Source,
        Self::Fstype,
        Self::Volume,
        Self::VolumeType,
        Self::Executable,
        Self::Comm,
        Self::Ancestor,
        Self::Container,
        Self::Image,
        Self::Namespace,
        Self::Pod,
        Self::Workload,
    ];

    const fn style(self) -> Style {
        match self {
            Self::Path | Self::Source => Style::Path,
            Self::Executable | Self::Ancestor => Style::Program,
            _ => Style::Text,
        }
    }
}

/// A yes or no of [`Facts`](super::Facts).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flag {
    InContainer,
    Privileged,
    UserNamespace,
    CapSysAdmin,
    SetsId,
}

/// Collects the rules of several files.
pub(super) struct Compiler {
    fields: Vec<PatternsBuilder>,
    rules: Vec<Rule>,
    names: HashSet<String>,
}

impl Compiler {
    pub fn new() -> Self {
        let fields = Field::ALL.iter().map(|field| PatternsBuilder::new(field.style())).collect();
        Self { fields, rules: Vec::new(), names: HashSet::new() }
    }

    /// The rules, and the patterns by field.
    pub fn finish(self) -> Result<(Vec<Rule>, Vec<Patterns>), globset::Error> {
        let patterns = self.fields.into_iter().map(PatternsBuilder::build).collect::<Result<_, _>>()?;
        Ok((self.rules, patterns))
    }

    /// Takes the rules of a file.
    pub fn add(&mut self, text: &str, built_in: bool) -> Result<(), Mistake> {
        let lines = Lines(text);
        let rules = lines.parse()?.rule;
        if let Some(one_more) = rules.get(RULES_MAX) {
            return Err(lines.mistake(one_more, format!("there are more than {RULES_MAX} rules")));
        }
        for rule in rules {
            let rule = self.rule(lines, rule, built_in)?;
            self.rules.push(rule);
        }
        Ok(())
    }

    fn rule(&mut self, lines: Lines<'_>, rule: Spanned<RuleText>, built_in: bool) -> Result<Rule, Mistake> {
        let RuleText { name, matches, except, set } = rule.into_inner();
        let is_name = |name: &str| {
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            (1..=63).contains(&name.len()) && name.bytes().all(is_letter)
        };
        if !is_name(name.get_ref()) {
            return Err(lines.mistake(&name, "a rule's name has 1 to 63 letters, digits, `-`, `_` and `.`"));
        }
        if !self.names.insert(name.get_ref().clone()) {
            let other = if built_in { "another rule" } else { "another rule, or of a built-in one" };
            return Err(lines.mistake(&name, format!("`{}` is the name of {other}", name.get_ref())));
        }
        let at = matches.span();
        let matches = self.conditions(lines, matches)?;
        if let Some(except) = except.as_ref().filter(|except| {
            let ConditionsText { category, severity, .. } = except.get_ref();
            category.is_some() || severity.is_some()
        }) {
            return Err(lines.mistake(except, "`category` and `severity` can be matched, and not excepted"));
        }
        let except = except.map(|except| self.conditions(lines, except)).transpose()?;
        let set_at = set.span();
        let set = read_set(lines, set.into_inner())?;
        let problem = if set.category.is_some() && (matches.category.is_some() || matches.severity.is_some()) {
            Some("a rule that sets the category can't match category or severity")
        } else if set.severity.is_some() && matches.severity.is_some() {
            Some("a rule that sets the severity can't match it")
        } else if set.expected && set.severity.is_some() {
            Some("what is expected is of severity info: leave out `severity`")
        } else if set.category.is_none()
            && set.severity.is_none()
            && set.hint.is_none()
            && set.attack.is_empty()
            && !set.expected
        {
            Some("the rule sets nothing: give it category, severity, hint, attack or expected")
        } else {
            None
        };
        match problem {
            Some(problem) => Err(lines.mistake(&Spanned::new(set_at.start.max(at.start)..set_at.end, ()), problem)),
            None => Ok(Rule { name: name.into_inner().into(), built_in, matches, except, set }),
        }
    }

    fn conditions(&mut self, lines: Lines<'_>, text: Spanned<ConditionsText>) -> Result<Conditions, Mistake> {
        let at = Spanned::new(text.span(), ());
        let ConditionsText {
            kind,
            operation,
            outcome,
            errno,
            effect,
            cause,
            mount,
            category,
            severity,
            path,
            source,
            fstype,
            volume,
            volume_type,
            executable,
            comm,
            ancestor,
            container,
            image,
            namespace,
            pod,
            workload,
            labels,
            in_container,
            privileged,
            user_namespace,
            cap_sys_admin,
            sets_id,
        } = text.into_inner();
        let kinds = Kind::ALL.iter().filter(|kind| **kind != Kind::Agent).map(|kind| (kind.name(), *kind));
        let operations = Operation::ALL.iter().map(|operation| (operation.name(), operation.name()));
        let outcomes = ["denied", "failed", "succeeded"].map(|name| (name, name));
        let causes = [Cause::Remount.name(), Cause::Mount.name(), Cause::Runtime.name(), Facts::UNKNOWN_CAUSE];
        let mut conditions = Conditions {
            kind: words(lines, "kind", kind, kinds)?,
            operation: words(lines, "operation", operation, operations)?,
            outcome: words(lines, "outcome", outcome, outcomes)?,
            errno: errno.map(|names| names.into_iter().map(Spanned::into_inner).collect()),
            effect: words(lines, "effect", effect, Effect::ALL.iter().map(|effect| (effect.name(), *effect)))?,
            cause: words(lines, "cause", cause, causes.map(|name| (name, name)))?,
            mount: words(lines, "mount", mount, PlaceKind::ALL.iter().map(|kind| (kind.name(), *kind)))?,
            category: words(lines, "category", category, categories())?,
            severity: words(lines, "severity", severity, severities())?,
            ..Conditions::default()
        };
        for (field, list) in [
            (Field::Path, path),
            (Field::Source, source),
            (Field::Fstype, fstype),
            (Field::Volume, volume),
            (Field::VolumeType, volume_type),
            (Field::Executable, executable),
            (Field::Comm, comm),
            (Field::Ancestor, ancestor),
            (Field::Container, container),
            (Field::Image, image),
            (Field::Namespace, namespace),
            (Field::Pod, pod),
            (Field::Workload, workload),
        ] {
            let (Some(list), Some(builder)) = (list, self.fields.get_mut(field as usize)) else { continue };
            conditions.patterns.push((field, group(lines, builder, &list)?));
        }
        for (name, list) in labels.into_iter().flatten() {
            let mut builder = PatternsBuilder::new(Style::Text);
            let group = group(lines, &mut builder, &list)?;
            let patterns = builder.build().map_err(|error| lines.mistake(&at, error.to_string()))?;
            conditions.labels.push((name, patterns, group));
        }
        for (flag, given) in [
            (Flag::InContainer, in_container),
            (Flag::Privileged, privileged),
            (Flag::UserNamespace, user_namespace),
            (Flag::CapSysAdmin, cap_sys_admin),
            (Flag::SetsId, sets_id),
        ] {
            conditions.flags.extend(given.map(|value| (flag, value)));
        }
        if conditions.is_empty() {
            return Err(lines.mistake(&at, "it has no conditions, and so would fit everything"));
        }
        Ok(conditions)
    }
}

impl Conditions {
    fn is_empty(&self) -> bool {
        let Self { kind, operation, outcome, errno, effect, cause, mount, category, severity, patterns, labels, flags } =
            self;
        let no_words = kind.is_none()
            && operation.is_none()
            && outcome.is_none()
            && errno.is_none()
            && effect.is_none()
            && cause.is_none()
            && mount.is_none()
            && category.is_none()
            && severity.is_none();
        no_words && patterns.is_empty() && labels.is_empty() && flags.is_empty()
    }
}

fn categories() -> impl Iterator<Item = (&'static str, Category)> + Clone {
    Category::ALL.iter().map(|category| (category.name(), *category))
}

fn severities() -> impl Iterator<Item = (&'static str, Severity)> + Clone {
    Severity::ALL.iter().map(|severity| (severity.name(), *severity))
}

fn group(lines: Lines<'_>, builder: &mut PatternsBuilder, list: &[Spanned<String>]) -> Result<Group, Mistake> {
    let group = builder.group();
    for pattern in list {
        builder.add(group, pattern.get_ref()).map_err(|problem| lines.mistake(pattern, problem))?;
    }
    Ok(group)
}

fn words<T>(
    lines: Lines<'_>,
    what: &str,
    list: List,
    known: impl IntoIterator<Item = (&'static str, T)> + Clone,
) -> Result<Option<Vec<T>>, Mistake> {
    let Some(list) = list else { return Ok(None) };
    let mut values = Vec::new();
    for given in &list {
        // One name may stand for several: `bind` is an operation on sockets and on mounts.
        let before = values.len();
        values.extend(known.clone().into_iter().filter(|(name, _)| name == given.get_ref()).map(|(_, value)| value));
        if values.len() == before {
            let mut names: Vec<_> = known.into_iter().map(|(name, _)| name).collect();
            names.dedup();
            let given_name = given.get_ref().escape_default();
            return Err(lines.mistake(given, format!("`{given_name}` is no {what}; take of {}", names.join(", "))));
        }
    }
    Ok(Some(values))
}

fn word<T>(
    lines: Lines<'_>,
    what: &str,
    given: Option<Spanned<String>>,
    known: impl IntoIterator<Item = (&'static str, T)> + Clone,
) -> Result<Option<T>, Mistake> {
    let list = given.map(|given| vec![given]);
    Ok(words(lines, what, list, known)?.and_then(|mut values| values.pop()))
}

fn read_set(lines: Lines<'_>, text: SetText) -> Result<Set, Mistake> {
    let SetText { category, severity, hint, attack, expected } = text;
    let hint = match hint {
        Some(hint) => Some(Hint::parse(hint.get_ref()).map_err(|problem| lines.mistake(&hint, problem))?),
        None => None,
    };
    if let Some(wrong) = attack.iter().find(|id| !is_technique(id.get_ref())) {
        let problem = format!("`{}` is no technique of ATT&CK, such as T1105", wrong.get_ref().escape_default());
        return Err(lines.mistake(wrong, problem));
    }
    Ok(Set {
        category: word(lines, "category", category, categories())?,
        severity: word(lines, "severity", severity, severities())?,
        hint,
        attack: attack.into_iter().map(|id| id.into_inner().into()).collect(),
        expected,
    })
}

/// `T` and four digits, of a part of a technique `.` and three more.
fn is_technique(id: &str) -> bool {
    let is_number = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(rest) = id.strip_prefix('T') else { return false };
    match rest.split_once('.') {
        Some((technique, part)) => is_number(technique, 4) && is_number(part, 3),
        None => is_number(rest, 4),
    }
}
