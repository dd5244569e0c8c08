//! Which kernel this is.

use rustix::system::uname;

/// Major and minor of the kernel that runs; none where its release does not begin with numbers.
pub(crate) fn running() -> Option<(u32, u32)> {
    version(&uname().release().to_string_lossy())
}

/// Major and minor of `6.1.0-13-cloud-amd64`.
pub(crate) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions_are_read() {
        assert_eq!(version("6.1.0-13-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("5.15.153.1-microsoft-standard-WSL2"), Some((5, 15)));
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("next"), None);
        assert!(running().is_some());
    }
}
