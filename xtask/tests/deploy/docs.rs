//! The documentation: its links lead somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::support::root;

#[test]
fn every_link_to_a_place_in_the_checkout_leads_somewhere() {
    let mut pages = vec![root().join("README.md")];
    for folder in ["docs", "deploy"] {
        collect(&root().join(folder), &mut pages);
    }
    let mut seen = 0;
    for page in &pages {
        let text = fs::read_to_string(page).expect("the page can be read");
        for link in text.split("](").skip(1).filter_map(|after| after.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let place = if path.is_empty() { page.clone() } else { page.parent().expect("a folder").join(path) };
            assert!(place.exists(), "{} leads to {link}", page.display());
            assert!(heading.is_empty() || headings(&place).contains(heading), "{} leads to {link}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen} links");
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

/// The anchors of a page, as forges make them of its headings.
fn headings(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).expect("the page can be read");
    let titles = text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |title: &str| {
        let kept = title
            .to_lowercase()
            .chars()
            .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-'))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    titles.map(anchor).collect()
}
