//! Paths as texts: which of them a mount can have, and how they lie to each other.

use crate::export::escape::{must_be_escaped, unescape};

/// The longest path that the kernel takes (`PATH_MAX`), less its end.
const PATH_MAX: usize = 4095;

/// Why a path is told and not rendered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unfit {
    /// It is not UTF-8.
    NotText,
    /// It has a character that Kubernetes or YAML can't be trusted with: control characters, marks of direction, a backslash.
    Character,
    /// `:`, which Kubernetes refuses in a mountPath.
    Colon,
    /// It does not begin with `/`, or has `..` in it.
    NotAbsolute,
    /// Longer than any path.
    TooLong,
}

impl Unfit {
    /// Why, in words.
    pub const fn why(self) -> &'static str {
        match self {
            Self::NotText => "its name is not UTF-8, and no mountPath can be",
            Self::Character => "its name has characters that can't be seen or steer, which no mountPath should have",
            Self::Colon => "its name has a colon, which Kubernetes refuses in a mountPath",
            Self::NotAbsolute => "its whole path is not known",
            Self::TooLong => "its path is longer than the kernel takes",
        }
    }
}

/// The path that an event tells, if a mount can have it.
///
/// # Errors
/// Why not.
pub fn of_event(told: &str) -> Result<String, Unfit> {
    let bytes = unescape(told).ok_or(Unfit::Character)?;
    let path = String::from_utf8(bytes).map_err(|_| Unfit::NotText)?;
    mountable(&path)?;
    Ok(path)
}

/// Whether Kubernetes takes it as a mountPath, and it is what it looks like.
///
/// # Errors
/// Why not.
pub fn mountable(path: &str) -> Result<(), Unfit> {
    if path.len() > PATH_MAX {
        return Err(Unfit::TooLong);
    }
    let is_plain = |name: &str| !matches!(name, "" | "." | "..");
    if !path.strip_prefix('/').is_some_and(|names| names.is_empty() || names.split('/').all(is_plain)) {
        return Err(Unfit::NotAbsolute);
    }
    if path.contains(must_be_escaped) {
        return Err(Unfit::Character);
    }
    if path.contains(':') {
        return Err(Unfit::Colon);
    }
    Ok(())
}

/// The folder that holds it; `/` of `/`.
pub fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((folder, _)) if !folder.is_empty() => folder,
        _ => "/",
    }
}

/// The last name.
pub fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Whether it is this folder, or lies in it.
pub fn is_at_or_below(path: &str, folder: &str) -> bool {
    folder == "/" || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A name for it below a volume: `var-cache-nginx` of `/var/cache/nginx`.
pub fn slug(path: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let slug: String = path
        .trim_start_matches('/')
        .chars()
        .take(SLUG_MAX)
        .map(|character| if plain(character) || character == '.' { character } else { '-' })
        .collect();
    // A leading point hides it, and two would lead out.
    let slug = slug.trim_start_matches('.');
    if slug.is_empty() { "root".to_owned() } else { slug.to_owned() }
}

const SLUG_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_no_mount_can_have_is_told_apart() {
        for (told, expected) in [
            ("/tmp", Ok("/tmp".to_owned())),
            ("/srv/Über/a b$(x)'\"#", Ok("/srv/Über/a b$(x)'\"#".to_owned())),
            ("/a:b", Err(Unfit::Colon)),
            ("/a/../b", Err(Unfit::NotAbsolute)),
            ("/a//b", Err(Unfit::NotAbsolute)),
            ("tmp", Err(Unfit::NotAbsolute)),
            ("", Err(Unfit::NotAbsolute)),
            ("/a\\xff", Err(Unfit::NotText)),
            ("/a\\x0ab", Err(Unfit::Character)),
            ("/a\\\\b", Err(Unfit::Character)),
            // As somebody may have put it into a file by hand.
            ("/a\nb", Err(Unfit::Character)),
            ("/a\u{2028}b", Err(Unfit::Character)),
            ("/a\\q", Err(Unfit::Character)),
        ] {
            assert_eq!(of_event(told), expected, "{told:?}");
        }
        assert_eq!(mountable(&format!("/{}", "x".repeat(PATH_MAX))), Err(Unfit::TooLong));
    }

    #[test]
    fn folders_hold_paths() {
        assert_eq!((parent("/a/b"), parent("/a"), parent("/")), ("/a", "/", "/"));
        assert!(is_at_or_below("/tmp", "/tmp") && is_at_or_below("/tmp/x", "/tmp") && is_at_or_below("/x", "/"));
        assert!(!is_at_or_below("/tmpfoo", "/tmp") && !is_at_or_below("/", "/tmp"));
    }

    #[test]
    fn a_name_below_a_volume_leads_nowhere_else() {
        for (path, slug_of) in
            [("/var/cache/nginx", "var-cache-nginx"), ("/", "root"), ("/..a", "a"), ("/.", "root"), ("/a b/ü", "a-b--")]
        {
            assert_eq!(slug(path), slug_of, "{path}");
        }
    }
}
