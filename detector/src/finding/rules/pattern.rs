//! Patterns of one field, of all rules in one automaton: a value is looked at once, in time linear in its length.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Bytes of a pattern at most.
const PATTERN_MAX: usize = 1024;

/// Values of a field that are remembered, and bytes of one at most: a program that is refused many writes is the same each time, and
/// so are its image and its pod.
const REMEMBERED: usize = 8;
const REMEMBERED_BYTES: usize = 256;

/// What `*` and names without `/` mean in a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Style {
    /// An absolute path: `*` ends at `/`, `**` does not; `/folder/**` is the folder as well.
    Path,
    /// A path, or without `/` the last component of one.
    Program,
    /// Any text: `*` is any of it.
    Text,
}

/// The patterns of a rule in one field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Group(usize);

/// Patterns while they are read.
#[derive(Debug)]
pub struct PatternsBuilder {
    style: Style,
    set: GlobSetBuilder,
    globs: Vec<Member>,
    groups: usize,
}

#[derive(Debug)]
struct Member {
    group: usize,
    base: Option<Vec<u8>>,
}

impl PatternsBuilder {
    /// Without any.
    pub fn new(style: Style) -> Self {
        Self { style, set: GlobSetBuilder::new(), globs: Vec::new(), groups: 0 }
    }

    /// A further rule's.
    pub const fn group(&mut self) -> Group {
        self.groups += 1;
        Group(self.groups - 1)
    }

    /// A further pattern of this rule.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn add(&mut self, Group(group): Group, pattern: &str) -> Result<(), String> {
        if pattern.is_empty() || pattern.len() > PATTERN_MAX {
            return Err(format!("a pattern has 1 to {PATTERN_MAX} bytes"));
        }
        let mut globs = vec![pattern.to_owned()];
        match self.style {
            Style::Path => {
                if !pattern.starts_with('/') && !pattern.starts_with("**") {
                    return Err(format!(
                        "`{}` fits no path, for paths are absolute: begin it with / or **/",
                        pattern.escape_default()
                    ));
                }
                globs.extend(pattern.strip_suffix("/**").filter(|folder| !folder.is_empty()).map(str::to_owned));
            }
            Style::Program if !pattern.contains('/') => globs = vec![format!("**/{pattern}")],
            Style::Program | Style::Text => {}
        }
        for glob in globs {
            self.set.add(self.glob(&glob)?);
            let base = if self.style == Style::Path { base(pattern) } else { None };
            self.globs.push(Member { group, base });
        }
        Ok(())
    }

    fn glob(&self, pattern: &str) -> Result<Glob, String> {
        let glob =
            GlobBuilder::new(pattern).literal_separator(self.style != Style::Text).backslash_escape(true).build();
        glob.map_err(|error| format!("`{}` is no pattern: {}", pattern.escape_default(), error.kind()))
    }

    /// All that were read.
    ///
    /// # Errors
    /// Where they are too many together.
    pub fn build(self) -> Result<Patterns, globset::Error> {
        let remembers = self.style != Style::Path;
        Ok(Patterns { set: self.set.build()?, globs: self.globs, recent: remembers.then(Mutex::default) })
    }
}

/// The folder that a pattern names, up to its first wildcard; none where that is the root.
fn base(pattern: &str) -> Option<Vec<u8>> {
    let fixed = match pattern.find(['*', '?', '[', '{', '\\']) {
        Some(wildcard) => &pattern[..wildcard],
        None => pattern,
    };
    let folder = &fixed[..fixed.rfind('/')?];
    (!folder.is_empty()).then(|| folder.as_bytes().to_vec())
}

/// Values and what fits them, the oldest first.
type Recent = VecDeque<(Vec<u8>, Hits)>;

/// Patterns of one field.
#[derive(Debug)]
pub struct Patterns {
    set: GlobSet,
    globs: Vec<Member>,
    /// The last values and what fits them; none of paths, of which nearly each is another.
    recent: Option<Mutex<Recent>>,
}

impl Patterns {
    /// What fits this value.
    pub fn of(&self, value: &[u8]) -> Hits {
        if self.set.is_empty() {
            return Hits::default();
        }
        let look = || Hits(self.set.matches(Path::new(OsStr::from_bytes(value))));
        let Some(recent) = self.recent.as_ref().filter(|_| value.len() <= REMEMBERED_BYTES) else { return look() };
        let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, hits)) = recent.iter().find(|(known, _)| known == value) {
            return hits.clone();
        }
        let hits = look();
        recent.truncate(REMEMBERED - 1);
        recent.push_front((value.to_vec(), hits.clone()));
        hits
    }

    /// Whether one of the rule's patterns is among those that fit.
    pub fn has(&self, hits: &Hits, group: Group) -> bool {
        self.members(hits, group).next().is_some()
    }

    /// The folder that the rule's fitting patterns begin with: the longest.
    pub fn base(&self, hits: &Hits, group: Group) -> Option<&[u8]> {
        self.members(hits, group).filter_map(|member| member.base.as_deref()).max_by_key(|base| base.len())
    }

    fn members(&self, hits: &Hits, Group(group): Group) -> impl Iterator<Item = &Member> {
        hits.0.iter().filter_map(|&hit| self.globs.get(hit)).filter(move |member| member.group == group)
    }
}

/// Which patterns of a field fit a value.
#[derive(Clone, Debug, Default)]
pub struct Hits(Vec<usize>);

impl Hits {
    /// Those of another value as well.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(style: Style, pattern: &str, value: &[u8]) -> bool {
        let mut builder = PatternsBuilder::new(style);
        let group = builder.group();
        builder.add(group, pattern).unwrap();
        let patterns = builder.build().unwrap();
        patterns.has(&patterns.of(value), group)
    }

    #[test]
    fn a_folder_with_all_below_it_is_the_folder_too_and_nothing_that_begins_like_it() {
        for path in ["/tmp", "/tmp/a", "/tmp/a/b"] {
            assert!(fits(Style::Path, "/tmp/**", path.as_bytes()), "{path}");
        }
        assert!(!fits(Style::Path, "/tmp/**", b"/tmpfoo"));
        assert!(fits(Style::Path, "**/logs/**", b"/logs") && fits(Style::Path, "**/logs/**", b"/a/logs/b/c"));
        assert!(!fits(Style::Path, "**/logs/**", b"/a/mylogs/b"));
    }

    #[test]
    fn a_star_ends_at_a_slash_in_paths_and_nowhere_in_texts() {
        assert!(fits(Style::Path, "/srv/*", b"/srv/x") && !fits(Style::Path, "/srv/*", b"/srv/x/y"));
        assert!(fits(Style::Text, "docker.io/*", b"docker.io/library/nginx:1"));
    }

    #[test]
    fn a_program_is_named_by_its_name_or_its_path() {
        assert!(fits(Style::Program, "apt", b"/usr/bin/apt") && fits(Style::Program, "apt", b"apt"));
        assert!(fits(Style::Program, "/usr/bin/apt", b"/usr/bin/apt"));
        assert!(
            !fits(Style::Program, "/usr/bin/apt", b"/tmp/apt") && !fits(Style::Program, "apt", b"/usr/bin/apt-get")
        );
    }

    #[test]
    fn what_fits_a_value_is_the_same_each_time_and_no_more_values_are_remembered_than_a_few() {
        let mut builder = PatternsBuilder::new(Style::Program);
        let group = builder.group();
        builder.add(group, "apt").unwrap();
        let patterns = builder.build().unwrap();
        for _ in 0..2 {
            for number in 0..2 * REMEMBERED {
                assert!(patterns.has(&patterns.of(format!("/{number}/apt").as_bytes()), group));
                assert!(!patterns.has(&patterns.of(format!("/{number}/apt-get").as_bytes()), group));
            }
            patterns.of(&[b'x'; REMEMBERED_BYTES + 1]);
        }
        let recent = patterns.recent.as_ref().unwrap().lock().unwrap();
        assert_eq!(recent.len(), REMEMBERED);
        assert!(recent.iter().all(|(value, _)| value.len() <= REMEMBERED_BYTES));
    }

    #[test]
    fn any_bytes_are_fitted() {
        for name in [b"/tmp/\xff\xfe".as_slice(), b"/tmp/a\nb", b"/tmp/\x00"] {
            assert!(fits(Style::Path, "/tmp/*", name) && fits(Style::Path, "**/tmp/**", name), "{name:?}");
        }
        assert!(fits(Style::Path, "**/*.log", b"/a/\xff\n.log"));
    }

    #[test]
    fn the_base_is_the_folder_before_the_first_wildcard() {
        for (pattern, expected) in [
            ("/tmp/**", Some("/tmp")),
            ("/var/log/*.log", Some("/var/log")),
            ("/srv/a*/b", Some("/srv")),
            ("/etc/passwd", Some("/etc")),
            ("/*", None),
            ("**/x", None),
        ] {
            assert_eq!(base(pattern).as_deref(), expected.map(str::as_bytes), "{pattern}");
        }
    }

    #[test]
    fn what_can_fit_nothing_is_a_mistake() {
        let wrong = |style, pattern: &str| {
            let mut builder = PatternsBuilder::new(style);
            let group = builder.group();
            builder.add(group, pattern).unwrap_err()
        };
        assert!(wrong(Style::Path, "tmp/*").contains("begin it with / or **/"));
        assert!(wrong(Style::Path, "/a[").contains("is no pattern"));
        assert!(wrong(Style::Text, "").contains("1 to"));
    }
}
