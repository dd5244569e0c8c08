//! The rules by which an event gets its meaning: category, severity, hint, techniques of ATT&CK, or that it is expected.
//!
//! Rules are data: the built-in ones (`builtin.toml`) and, tried before them, the user's own, in the same form
//! (docs/rules.md). Of category, severity and hint the first rule that fits and sets it decides; techniques add up.

mod compile;
mod facts;
mod hint;
mod pattern;
mod text;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::{compile::Rule, facts::Facts, text::Mistake};
use self::{
    compile::{Compiler, Conditions, Field, Flag},
    pattern::{Hits, Patterns},
};
use super::event::{Category, Event, Kind, Severity};

/// The rules that rosentry comes with.
pub const BUILT_IN: &str = include_str!("builtin.toml");

/// Bytes of a file of rules at most.
const FILE_MAX: u64 = 1 << 20;

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The file can't be read.
    #[error("the rules {path} can't be read: {source}; name another file with --rules, or leave it out")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not as it should be.
    #[error("{path}, {mistake}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        mistake: Mistake,
    },
    /// All patterns together are too large.
    #[error("the rules have too many or too large patterns: {0}")]
    Large(#[from] globset::Error),
}

/// Rules, ready to be tried.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    /// By [`Field`].
    patterns: Vec<Patterns>,
}

/// What an event means, with the rules that say so.
#[derive(Debug, Default)]
pub struct Judgement<'r> {
    /// Of a write: why.
    pub category: Option<(Category, &'r Rule)>,
    /// How bad; none: nobody says that it is bad at all.
    pub severity: Option<(Severity, &'r Rule)>,
    /// What mends it, as bytes that may be hostile.
    pub hint: Option<(Vec<u8>, &'r Rule)>,
    /// Techniques of ATT&CK, in order.
    pub attack: Vec<(&'r Arc<str>, &'r Rule)>,
    /// Who says that it is expected.
    pub expected: Option<&'r Rule>,
}

impl Judgement<'_> {
    /// How bad it is: what is expected, not at all.
    pub fn severity(&self) -> Severity {
        match self.severity {
            Some((severity, _)) if self.expected.is_none() => severity,
            _ => Severity::Info,
        }
    }
}

/// What fits the fields of an event that do not depend on which of its paths is looked at.
struct FieldHits(Vec<Hits>);

impl RuleSet {
    /// The built-in rules, and before them those of this file.
    ///
    /// # Errors
    /// Where the file can't be read, or has a mistake.
    pub fn load(path: Option<&Path>) -> Result<Self, RulesError> {
        let Some(path) = path else { return Self::of(None) };
        let unreadable = |source| RulesError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_MAX {
            return Err(unreadable(io::ErrorKind::FileTooLarge.into()));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::of(Some((path, &text)))
    }

    fn of(user: Option<(&Path, &str)>) -> Result<Self, RulesError> {
        let wrong = |path: &Path| {
            let path = path.to_owned();
            move |mistake| RulesError::File { path, mistake }
        };
        // Names of built-in rules are taken; the user's rules go first.
        let mut compiler = Compiler::new();
        compiler.add(BUILT_IN, true).map_err(wrong(Path::new("builtin.toml")))?;
        if let Some((path, text)) = user {
            compiler.add(text, false).map_err(wrong(path))?;
        }
        let (mut rules, patterns) = compiler.finish()?;
        rules.sort_by_key(|rule| rule.built_in);
        Ok(Self { rules, patterns })
    }

    /// The rules, in the order in which they are tried.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Writes into the event what it means. What rosentry says of itself is left as it is.
    pub fn judge(&self, event: &mut Event) {
        if event.kind == Kind::Agent {
            return;
        }
        let judgement = self.explain(&Facts::of(event));
        let severity = judgement.severity();
        let category = judgement.category.map(|(category, _)| category);
        let attack = judgement.attack.iter().map(|(technique, _)| Arc::clone(technique)).collect();
        let rule = judgement.expected.or(judgement.severity.map(|(_, rule)| rule)).map(|rule| Arc::clone(&rule.name));
        let expected = judgement.expected.is_some();
        let hint = judgement.hint.map(|(hint, _)| hint);
        event.severity = severity;
        event.category = category;
        event.attack = attack;
        event.rule = rule;
        event.expected = expected;
        event.hint = hint;
    }

    /// What an event means, and which rules say so. Of two paths the worse counts, the techniques of both are told, and it is
    /// expected where both are.
    pub fn explain(&self, facts: &Facts<'_>) -> Judgement<'_> {
        let fields = self.hits(facts);
        let [first, second] = facts.paths;
        let mut of_first = self.of_path(facts, &fields, first);
        let Some(second) = second else { return of_first };
        let mut of_second = self.of_path(facts, &fields, Some(second));
        let bad = |judgement: &Judgement<'_>| judgement.severity.map(|(severity, _)| severity);
        if bad(&of_second) > bad(&of_first) {
            std::mem::swap(&mut of_first, &mut of_second);
        }
        of_first.expected = of_first.expected.filter(|_| of_second.expected.is_some());
        of_first.attack.extend(of_second.attack);
        sort(&mut of_first.attack);
        of_first
    }

    fn hits(&self, facts: &Facts<'_>) -> FieldHits {
        let one = |field: Field, value: Option<&[u8]>| {
            let patterns = self.patterns.get(field as usize).filter(|_| value.is_some());
            patterns.map(|patterns| patterns.of(value.unwrap_or_default())).unwrap_or_default()
        };
        let of = |field: Field| match field {
            // By each path.
            Field::Path => Hits::default(),
            Field::Source => one(field, facts.source),
            Field::Fstype => one(field, facts.fstype),
            Field::Volume => one(field, facts.volume.map(|(_, name)| name)),
            Field::VolumeType => one(field, facts.volume.map(|(kind, _)| kind)),
            Field::Executable => one(field, facts.executable),
            Field::Comm => one(field, facts.comm),
            Field::Ancestor => {
                facts.ancestors.iter().fold(Hits::default(), |hits, ancestor| hits.and(one(field, Some(ancestor))))
            }
            Field::Container => one(field, facts.container),
            Field::Image => one(field, facts.image),
            Field::Namespace => one(field, facts.namespace),
            Field::Pod => one(field, facts.pod),
            Field::Workload => one(field, facts.workload),
        };
        FieldHits(Field::ALL.map(of).into())
    }

    /// What it means where this is its path.
    fn of_path(&self, facts: &Facts<'_>, fields: &FieldHits, path: Option<&[u8]>) -> Judgement<'_> {
        let paths = self.patterns.get(Field::Path as usize).zip(path).map(|(patterns, path)| patterns.of(path));
        let paths = paths.unwrap_or_default();
        let fits = |conditions: &Conditions| self.fits(conditions, facts, fields, &paths);
        let fitting: Vec<_> =
            self.rules.iter().filter(|rule| fits(&rule.matches) && !rule.except.as_ref().is_some_and(fits)).collect();
        let mut judgement = Judgement::default();
        // Each of these may be asked for by rules that set what comes after it.
        let is_write = facts.is_write();
        judgement.category = fitting.iter().find_map(|&rule| Some((rule.set.category?, rule))).filter(|_| is_write);
        let category = judgement.category.map(|(category, _)| category);
        let of_category = |rule: &Rule| allows(rule.matches.category.as_deref(), category);
        judgement.severity =
            fitting.iter().filter(|rule| of_category(rule)).find_map(|&rule| Some((rule.set.severity?, rule)));
        let severity = judgement.severity.map_or(Severity::Info, |(severity, _)| severity);
        let last = fitting
            .iter()
            .copied()
            .filter(|rule| of_category(rule) && allows(rule.matches.severity.as_deref(), Some(severity)));
        for rule in last {
            if judgement.hint.is_none()
                && let Some(hint) = &rule.set.hint
            {
                judgement.hint = hint.of(facts, path, self.base(rule, &paths)).map(|hint| (hint, rule));
            }
            judgement.attack.extend(rule.set.attack.iter().map(|technique| (technique, rule)));
            if judgement.expected.is_none() && rule.set.expected {
                judgement.expected = Some(rule);
            }
        }
        sort(&mut judgement.attack);
        judgement
    }

    /// Whether all conditions fit but those on category and severity.
    fn fits(&self, conditions: &Conditions, facts: &Facts<'_>, fields: &FieldHits, paths: &Hits) -> bool {
        let Conditions {
            kind,
            operation,
            outcome,
            errno,
            effect,
            cause,
            mount,
            category: _,
            severity: _,
            patterns,
            labels,
            flags,
        } = conditions;
        allows(kind.as_deref(), Some(facts.kind))
            && allows(operation.as_deref(), facts.operation)
            && allows(outcome.as_deref(), facts.outcome)
            && errno
                .as_deref()
                .is_none_or(|names| facts.errno.as_deref().is_some_and(|errno| names.iter().any(|name| name == errno)))
            && allows(effect.as_deref(), facts.effect)
            && allows(cause.as_deref(), facts.cause)
            && allows(mount.as_deref(), facts.mount)
            && flags.iter().all(|&(flag, wanted)| is_set(flag, facts) == wanted)
            && patterns.iter().all(|&(field, group)| {
                let hits = if field == Field::Path { Some(paths) } else { fields.0.get(field as usize) };
                let patterns = self.patterns.get(field as usize);
                patterns.zip(hits).is_some_and(|(patterns, hits)| patterns.has(hits, group))
            })
            && labels.iter().all(|(name, patterns, group)| {
                let value = facts.labels.iter().find(|(label, _)| *label == name.as_bytes());
                value.is_some_and(|(_, value)| patterns.has(&patterns.of(value), *group))
            })
    }

    /// The folder that the pattern begins with by which the rule fits.
    fn base(&self, rule: &Rule, paths: &Hits) -> Option<&[u8]> {
        let (_, group) = rule.matches.patterns.iter().find(|(field, _)| *field == Field::Path)?;
        self.patterns.get(Field::Path as usize)?.base(paths, *group)
    }
}

fn allows<T: PartialEq>(wanted: Option<&[T]>, is: Option<T>) -> bool {
    wanted.is_none_or(|wanted| is.is_some_and(|is| wanted.contains(&is)))
}

const fn is_set(flag: Flag, facts: &Facts<'_>) -> bool {
    match flag {
        Flag::InContainer => facts.in_container,
        Flag::Privileged => facts.privileged,
        Flag::UserNamespace => facts.user_namespace,
        Flag::CapSysAdmin => facts.cap_sys_admin,
        Flag::SetsId => facts.sets_id,
    }
}

/// In order, each once, by the first rule that says so.
fn sort(attack: &mut Vec<(&Arc<str>, &Rule)>) {
    attack.sort_by_key(|(technique, _)| *technique);
    attack.dedup_by_key(|(technique, _)| *technique);
}

#[cfg(test)]
mod tests;
