//! What rules say of events that were told before: for `rosentry rules test`.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write, io};

use serde::Deserialize;

use super::lines::{Input, Line};
use crate::{
    export::escape::{escape, unescape},
    finding::{
        event::{Effect, Kind, PlaceKind},
        rules::{Facts, Judgement, Rule, RuleSet},
    },
};

/// The members of an event that rules ask for.
#[derive(Debug, Deserialize)]
struct Told {
    seq: Option<u64>,
    kind: String,
    operation: Option<String>,
    outcome: Option<String>,
    errno: Option<String>,
    file: Option<FileTold>,
    mount: Option<MountTold>,
    process: Option<ProcessTold>,
    container: Option<ContainerTold>,
    pod: Option<PodTold>,
}

/// Text as an event tells it: escaped.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "String")]
struct Text(Vec<u8>);

impl From<String> for Text {
    fn from(text: String) -> Self {
        // What is not of the form that rosentry writes is taken as it is.
        Self(unescape(&text).unwrap_or_else(|| text.into_bytes()))
    }
}

#[derive(Debug, Deserialize)]
struct FileTold {
    path: Option<Text>,
    new_path: Option<Text>,
    mode: Option<String>,
}

#[derive(Debug, Deserialize)]
struct MountTold {
    kind: Option<String>,
    volume: Option<VolumeTold>,
    fstype: Option<Text>,
    effect: Option<String>,
    target: Option<Text>,
    source: Option<Text>,
    point: Option<Text>,
    cause: Option<String>,
}

#[derive(Debug, Deserialize)]
struct VolumeTold {
    #[serde(rename = "type")]
    kind: Text,
    name: Text,
}

#[derive(Debug, Deserialize)]
struct ProcessTold {
    exe: Option<Text>,
    #[serde(default)]
    comm: Text,
    #[serde(default)]
    cap_sys_admin: bool,
    #[serde(default)]
    user_ns_level: u32,
    #[serde(default)]
    ancestors: Vec<AncestorTold>,
}

#[derive(Debug, Deserialize)]
struct AncestorTold {
    comm: Text,
    exe: Option<Text>,
}

#[derive(Debug, Deserialize)]
struct ContainerTold {
    name: Option<Text>,
    image: Option<Text>,
    privileged: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct PodTold {
    namespace: Text,
    name: Text,
    workload: Option<Text>,
    #[serde(default)]
    labels: BTreeMap<String, Text>,
}

impl Told {
    /// None of a kind that rules are not asked about.
    fn facts(&self) -> Option<Facts<'_>> {
        let kind = *Kind::ALL.iter().find(|kind| kind.name() == self.kind && **kind != Kind::Agent)?;
        let (process, container, pod) = (self.process.as_ref(), self.container.as_ref(), self.pod.as_ref());
        let mut facts = Facts {
            operation: self.operation.as_deref(),
            outcome: self.outcome.as_deref(),
            errno: self.errno.as_deref().map(Cow::Borrowed),
            executable: process.and_then(|process| bytes(process.exe.as_ref())),
            comm: process.map(|process| process.comm.0.as_slice()),
            ancestors: process
                .map(|process| process.ancestors.iter().map(|one| &*one.exe.as_ref().unwrap_or(&one.comm).0).collect())
                .unwrap_or_default(),
            user_namespace: process.is_some_and(|process| process.user_ns_level > 0),
            cap_sys_admin: process.is_some_and(|process| process.cap_sys_admin),
            in_container: container.is_some(),
            privileged: container.is_some_and(|container| container.privileged == Some(true)),
            container: container.and_then(|container| bytes(container.name.as_ref())),
            image: container.and_then(|container| bytes(container.image.as_ref())),
            namespace: pod.map(|pod| pod.namespace.0.as_slice()),
            pod: pod.map(|pod| pod.name.0.as_slice()),
            workload: pod.and_then(|pod| bytes(pod.workload.as_ref())),
            labels: pod
                .map(|pod| pod.labels.iter().map(|(name, value)| (name.as_bytes(), value.0.as_slice())).collect())
                .unwrap_or_default(),
            ..Facts::nothing(kind)
        };
        if let Some(file) = &self.file {
            facts.paths = match self.operation.as_deref() {
                Some("link") => [bytes(file.new_path.as_ref()), None],
                _ => [bytes(file.path.as_ref()), bytes(file.new_path.as_ref())],
            };
            facts.sets_id = Facts::sets_id(file.mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok()));
        }
        if let Some(mount) = &self.mount {
            facts.fstype = bytes(mount.fstype.as_ref());
            facts.effect =
                mount.effect.as_ref().and_then(|name| Effect::ALL.iter().find(|effect| effect.name() == name)).copied();
            match kind {
                Kind::MountAttempt => {
                    facts.paths = [bytes(mount.target.as_ref()), None];
                    facts.source = bytes(mount.source.as_ref());
                }
                Kind::SealBroken | Kind::SealMended => {
                    facts.paths = [bytes(mount.point.as_ref()), None];
                    facts.cause = Some(mount.cause.as_deref().unwrap_or(Facts::UNKNOWN_CAUSE));
                }
                _ => {
                    let place = mount.kind.as_ref();
                    facts.mount =
                        place.and_then(|name| PlaceKind::ALL.iter().find(|kind| kind.name() == name)).copied();
                    facts.volume = mount.volume.as_ref().map(|volume| (&*volume.kind.0, &*volume.name.0));
                }
            }
        }
        Some(facts)
    }
}

fn bytes(text: Option<&Text>) -> Option<&[u8]> {
    text.map(|text| text.0.as_slice())
}

/// Why rules could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The events can't be read.
    #[error("{input} can't be read: {source}")]
    Read {
        /// Its name.
        input: String,
        /// Why not.
        source: io::Error,
    },
    /// What was found out can't be written.
    #[error("can't write what was found out: {0}")]
    Write(#[source] io::Error),
}

/// What became of the events of an input.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Tried {
    /// Events that rules were asked about.
    pub events: u64,
    /// Of them, expected.
    pub expected: u64,
    /// Lines that are no such event: of the agent about itself, or no event at all.
    pub others: u64,
    /// How many events each of the user's rules took, in the order of the rules.
    pub by_rule: Vec<(String, u64)>,
}

/// Tries the rules on each event of the input, and tells of each, in a line, what they say and which of them says it.
///
/// # Errors
/// Where the input can't be read, or `out` takes no more.
pub fn test(rules: &RuleSet, input: &Input, out: &mut impl io::Write) -> Result<Tried, TestError> {
    let unreadable = |source| TestError::Read { input: input.name(), source };
    let mut tried = Tried::default();
    let mut taken: BTreeMap<&str, u64> = BTreeMap::new();
    let mut lines = input.open().map_err(unreadable)?;
    loop {
        let told = match lines.read().map_err(unreadable)? {
            None => break,
            // One that is cut may be all there but its end.
            Some(Line::Whole(line) | Line::Cut(line)) => serde_json::from_slice::<Told>(line).ok(),
            Some(Line::Long) => {
                return Err(unreadable(io::Error::other("it has a line that is longer than any of rosentry's")));
            }
        };
        let Some((told, facts)) = told.as_ref().and_then(|told| Some((told, told.facts()?))) else {
            tried.others += 1;
            continue;
        };
        let judgement = rules.explain(&facts);
        tried.events += 1;
        tried.expected += u64::from(judgement.expected.is_some());
        for rule in by(&judgement) {
            *taken.entry(&rule.name).or_default() += 1;
        }
        writeln!(out, "{}", sentence(lines.number(), told, &facts, &judgement)).map_err(TestError::Write)?;
    }
    let of_user = rules.rules().iter().filter(|rule| !rule.built_in);
    tried.by_rule =
        of_user.map(|rule| (rule.name.to_string(), taken.get(&*rule.name).copied().unwrap_or_default())).collect();
    Ok(tried)
}

/// The rules that have a say, each once.
fn by<'r>(judgement: &Judgement<'r>) -> Vec<&'r Rule> {
    let Judgement { category, severity, hint, attack, expected } = judgement;
    let mut rules: Vec<&Rule> = Vec::new();
    let all = category.iter().map(|(_, rule)| *rule);
    let all = all.chain(severity.iter().map(|(_, rule)| *rule)).chain(hint.iter().map(|(_, rule)| *rule));
    for rule in all.chain(attack.iter().map(|(_, rule)| *rule)).chain(*expected) {
        if !rules.iter().any(|seen| std::ptr::eq(*seen, rule)) {
            rules.push(rule);
        }
    }
    rules
}

fn sentence(number: u64, told: &Told, facts: &Facts<'_>, judgement: &Judgement<'_>) -> String {
    let mut line = match told.seq {
        Some(seq) => format!("{number} (seq {seq}): {}", facts.kind.name()),
        None => format!("{number}: {}", facts.kind.name()),
    };
    let shown = |bytes: &[u8]| escape(bytes).into_owned();
    if let Some(operation) = facts.operation {
        let _ = write!(line, " {}", shown(operation.as_bytes()));
    }
    for path in facts.paths.iter().flatten() {
        let _ = write!(line, " {}", shown(path));
    }
    if let (Some(namespace), Some(pod)) = (facts.namespace, facts.pod) {
        let _ = write!(line, " of {}/{}", shown(namespace), shown(pod));
    }
    let why =
        |rule: &Rule| if rule.built_in { format!("(built-in {})", rule.name) } else { format!("({})", rule.name) };
    line.push_str(" →");
    let mut parts = Vec::new();
    if let Some(rule) = judgement.expected {
        parts.push(format!("expected {}", why(rule)));
    }
    match judgement.severity {
        Some((severity, rule)) => parts.push(format!("severity {} {}", severity.name(), why(rule))),
        None => parts.push("severity info (no rule says more)".to_owned()),
    }
    parts.extend(judgement.category.map(|(category, rule)| format!("category {} {}", category.name(), why(rule))));
    parts.extend(judgement.attack.iter().map(|(technique, rule)| format!("attack {technique} {}", why(rule))));
    if let Some((hint, rule)) = &judgement.hint {
        parts.push(format!("hint `{}` {}", shown(hint), why(rule)));
    }
    let _ = write!(line, " {}", parts.join(", "));
    line
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::{
        export::{
            NativeEncoder,
            format::Format,
            testing::{event_in, remount, start, touch},
        },
        finding::{
            Event,
            event::Effect,
            seal::{self, Breach, Change},
            testing::{attempt, judged, sealed},
        },
    };

    fn told(rules: &RuleSet, events: &[Event]) -> (Vec<String>, Tried) {
        let mut encoder = NativeEncoder::new("n1");
        let mut lines = Vec::new();
        for event in events {
            encoder.encode(event, &mut lines).unwrap();
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&lines).unwrap();
        let mut out = Vec::new();
        let tried = test(rules, &Input::of(file.path()), &mut out).unwrap();
        (String::from_utf8(out).unwrap().lines().map(str::to_owned).collect(), tried)
    }

    #[test]
    fn an_event_that_was_told_means_what_it_meant_when_it_happened() {
        let rules = RuleSet::load(None).unwrap();
        let breach = Breach { point: b"/".to_vec(), fstype: b"overlay".to_vec(), effect: Effect::Unseal, cause: None };
        let mut hostile = attempt("rename").path("/tmp/x").path2("/usr/bin/y");
        hostile.process.comm = b"\xff\n\\x41".to_vec();
        let mut wget = attempt("openat").arg(2, 1).path("/etc/app/x").by("wget", &["wget"]);
        wget.process.user_ns_level = 1;
        for event in [
            touch(),
            remount(),
            event_in(&hostile, Some(&sealed())),
            event_in(&wget, None),
            event_in(&attempt("chmod").arg(1, 0o4755).path("/srv/x"), Some(&sealed())),
            event_in(&attempt("link").path("/data/a").path2("/etc/shadow"), Some(&sealed())),
            event_in(&attempt("mount").path("/etc").source("/dev/sda1"), Some(&sealed())),
            judged(seal::event(&sealed(), Change { breach, since_unix_ns: 0, mended_unix_ns: None })),
        ] {
            let mut lines = Vec::new();
            NativeEncoder::new("n1").encode(&event, &mut lines).unwrap();
            let told: Told = serde_json::from_slice(&lines).unwrap();
            let facts = told.facts().unwrap();
            let judgement = rules.explain(&facts);
            let expected = rules.explain(&Facts::of(&event));
            assert_eq!(format!("{judgement:?}"), format!("{expected:?}"));
            assert_eq!(judgement.severity(), event.severity);
        }
    }

    #[test]
    fn each_event_is_told_with_the_rules_that_took_it_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.toml");
        std::fs::write(
            &path,
            "[[rule]]\nname = \"mine\"\nmatch.namespace = [\"prod\"]\nmatch.path = [\"/etc/*\"]\nset.expected = true\n\
             [[rule]]\nname = \"never\"\nmatch.namespace = [\"none\"]\nset.expected = true\n",
        )
        .unwrap();
        let (lines, tried) = told(&RuleSet::load(Some(&path)).unwrap(), &[start(), touch(), remount()]);
        assert_eq!(
            lines[0],
            "2 (seq 2): write_denied open /etc/x of prod/web-abc12-x → expected (mine), severity low (built-in \
             configuration), category config (built-in configuration), hint `bring the configuration in with a \
             ConfigMap, or render it into an emptyDir` (built-in configuration)"
        );
        assert!(lines[1].contains("mount_attempt remount / of"), "{}", lines[1]);
        assert!(lines[1].contains("severity high (built-in unseal-tried), attack T1562"), "{}", lines[1]);
        let by_rule = vec![("mine".to_owned(), 1), ("never".to_owned(), 0)];
        assert_eq!(tried, Tried { events: 2, expected: 1, others: 1, by_rule });
    }

    #[test]
    fn a_last_event_that_lacks_only_its_line_s_end_is_tried_in_every_format() {
        let mut line = Vec::new();
        NativeEncoder::new("n1").encode(&touch(), &mut line).unwrap();
        for format in [Format::Native, Format::Ecs, Format::Ocsf] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&format.render(line.trim_ascii_end())).unwrap();
            let tried = test(&RuleSet::load(None).unwrap(), &Input::of(file.path()), &mut Vec::new()).unwrap();
            assert_eq!((tried.events, tried.others), (1, 0), "{format:?}");
        }
    }

    #[test]
    fn a_line_that_is_no_event_is_counted_and_steers_no_terminal() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let line = r#"{"kind":"write_denied","operation":"\u001b[2J","file":{"path":"/\u001b[2J"}}"#;
        writeln!(file, "no event\n{line}").unwrap();
        let mut out = Vec::new();
        let tried = test(&RuleSet::load(None).unwrap(), &Input::of(file.path()), &mut out).unwrap();
        assert_eq!((tried.events, tried.others), (1, 1));
        assert!(!out.contains(&0x1b));
    }
}
