//! Tests of [`super`].

use proptest::prelude::*;

use super::*;
use crate::finding::testing::{attempt, walk, walk_in};

const FOLLOW: Manner = Manner { follow_last: true, in_root: false };

fn located(base: PathBase, cwd: Option<Walk>, requested: &str, root_of: RootOf) -> Located {
    let process = Process { cwd, ..attempt("mkdir").process };
    let passed = PassedPath { requested: Some(requested.as_bytes().to_vec()), truncated: false, base };
    locate(&passed, &process, FOLLOW, root_of)
}

fn text(located: &Located) -> Option<&str> {
    located.path.as_deref().map(|path| std::str::from_utf8(path).unwrap())
}

#[test]
fn a_relative_path_starts_at_the_working_directory() {
    let located = located(PathBase::Cwd, Some(walk("/usr")), "../etc/x", RootOf::Container);
    assert_eq!(text(&located), Some("/etc/x"));
}

#[test]
fn a_relative_path_starts_at_the_open_folder() {
    let located = located(PathBase::Dirfd(walk("/etc/conf.d")), Some(walk("/")), "./x//y/", RootOf::Container);
    assert_eq!(text(&located), Some("/etc/conf.d/x/y"));
}

#[test]
fn two_dots_stop_at_the_root() {
    let located = located(PathBase::Root(walk("/")), None, "/../../x", RootOf::Container);
    assert_eq!(text(&located), Some("/x"));
}

#[test]
fn two_dots_in_a_chroot_stop_at_the_chroot() {
    let absolute =
        located(PathBase::Root(Walk { in_root: None, ..walk("/srv/jail") }), None, "/../../x", RootOf::Container);
    assert_eq!(text(&absolute), Some("/srv/jail/x"));

    let relative = located(PathBase::Cwd, Some(walk_in("/srv/jail", "/tmp")), "../../../x", RootOf::Container);
    assert_eq!(text(&relative), Some("/srv/jail/x"));

    let without_container = located(PathBase::Cwd, Some(walk_in("/srv/jail", "/tmp")), "../../x", RootOf::Process);
    assert_eq!(text(&without_container), Some("/x"));
}

#[test]
fn a_start_outside_of_the_chroot_is_told_in_the_container_only() {
    let outside = Walk { in_root: None, ..walk("/etc") };
    let in_container = located(PathBase::Dirfd(outside.clone()), None, "x", RootOf::Container);
    assert_eq!(text(&in_container), Some("/etc/x"));
    assert_eq!(located(PathBase::Dirfd(outside), None, "x", RootOf::Process), Located::default());
}

#[test]
fn what_is_missing_is_not_guessed() {
    let cut = Walk { truncated: true, ..walk("/deep/down") };
    assert_eq!(located(PathBase::Dirfd(cut.clone()), None, "x", RootOf::Container), Located::default());
    assert_eq!(located(PathBase::Root(cut), None, "/x", RootOf::Container), Located::default());
    assert_eq!(located(PathBase::Cwd, None, "x", RootOf::Container), Located::default());
    assert_eq!(located(PathBase::None, Some(walk("/")), "x", RootOf::Container), Located::default());

    let cut_text = PassedPath { requested: Some(b"/aaa".to_vec()), truncated: true, base: PathBase::Root(walk("/")) };
    assert_eq!(locate(&cut_text, &attempt("mkdir").process, FOLLOW, RootOf::Container), Located::default());
    let unread = PassedPath { requested: None, truncated: false, base: PathBase::Cwd };
    assert_eq!(locate(&unread, &attempt("mkdir").process, FOLLOW, RootOf::Container), Located::default());
}

#[test]
fn an_open_file_is_where_the_kernel_found_it() {
    let passed = PassedPath { requested: None, truncated: false, base: PathBase::File(walk("/etc/passwd")) };
    let located = locate(&passed, &attempt("fchmod").process, FOLLOW, RootOf::Container);
    assert_eq!(text(&located), Some("/etc/passwd"));
    assert_eq!(located.resolved, Some(Resolution::Kernel));
}

#[test]
fn a_path_is_exact_where_no_link_can_have_been_on_the_way() {
    for (requested, follow_last, exact) in [
        ("", true, true),
        (".", true, true),
        ("..", true, true),
        ("x", false, true),
        ("../x", false, true),
        ("./x", false, true),
        ("x", true, false),
        ("a/x", false, false),
        ("x/..", false, false),
        ("/x", false, true),
        ("/usr/x", false, false),
    ] {
        assert_eq!(is_exact(requested.as_bytes(), follow_last), exact, "{requested:?} followed: {follow_last}");
    }
}

#[test]
fn bytes_that_are_no_text_stay_as_they_are() {
    assert_eq!(join(b"/tmp", b"\xff\x1b[2J/\xfe"), b"/tmp/\xff\x1b[2J/\xfe");
}

#[test]
fn a_folder_holds_what_is_below_it_and_not_what_begins_alike() {
    assert!(is_at_or_below(b"/data/x", b"/data"));
    assert!(is_at_or_below(b"/data", b"/data"));
    assert!(is_at_or_below(b"/data", b"/"));
    assert!(!is_at_or_below(b"/database", b"/data"));
    assert_eq!(parent(b"/etc/x"), b"/etc");
    assert_eq!(parent(b"/x"), b"/");
    assert_eq!(parent(b"/"), b"/");
    assert_eq!(name(b"/etc/x"), b"x");
    assert_eq!(name(b"/"), b"");
}

proptest! {
    #[test]
    fn a_joined_path_is_absolute_and_without_dots(
        start in "(/[a-z.]{0,3}){0,4}",
        requested in "/?(([a-z]{1,3}|\\.|\\.\\.|)/){0,6}([a-z]{0,3}|\\.\\.)",
    ) {
        let path = join(start.as_bytes(), requested.as_bytes());
        prop_assert_eq!(path[0], b'/');
        prop_assert!(path == b"/" || path.last() != Some(&b'/'));
        prop_assert!(components(&path).all(|component| component != b"." && component != b".."));
        // Once normal, always normal.
        prop_assert_eq!(join(b"/", &path), path);
    }

    #[test]
    fn any_bytes_never_climb_above_the_chroot(requested in proptest::collection::vec(any::<u8>(), 0..64)) {
        let process = Process { cwd: Some(walk_in("/srv/jail", "/a/b")), ..attempt("mkdir").process };
        let passed = PassedPath { requested: Some(requested.clone()), truncated: false, base: PathBase::Cwd };
        if requested.first() != Some(&b'/') {
            let path = locate(&passed, &process, FOLLOW, RootOf::Container).path.unwrap();
            prop_assert!(is_at_or_below(&path, b"/srv/jail"));
        }
    }
}
