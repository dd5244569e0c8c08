//! A timeline as one page by itself: no other file, no network, no markup made of what others chose.
//!
//! The data stand in a JSON block, in which `<`, `>`, `&` and the separators of lines are escaped, so that nothing in them ends
//! the block or begins another. The page's own script reads them and makes text nodes of them. A Content-Security-Policy names
//! the script and the style by their hashes: nothing else is run, loaded or sent.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use super::Timeline;

/// Steps of all incidents that a page has; a browser draws and lists each.
pub const STEPS_MAX: usize = 3000;

const STYLE: &str = include_str!("page/page.css");
const BODY: &str = include_str!("page/page.html");
const SCRIPT: &str = include_str!("page/page.js");

/// The page.
///
/// # Errors
/// Where the timeline can't be told in JSON.
pub fn page(timeline: &mut Timeline) -> Result<String, serde_json::Error> {
    timeline.keep_steps(STEPS_MAX);
    let data = in_script(&serde_json::to_string(timeline)?);
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; base-uri 'none'; form-action 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>rosentry: incident timeline</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{BODY}\
         <script id=\"data\" type=\"application/json\">{data}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    ))
}

/// Source of a policy (CSP level 3, 2.3.1).
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

/// JSON that ends no script and breaks no line. These characters stand in strings alone, where JSON takes escapes.
fn in_script(json: &str) -> String {
    let mut safe = String::with_capacity(json.len() + 64);
    for character in json.chars() {
        match character {
            '<' => safe.push_str("\\u003c"),
            '>' => safe.push_str("\\u003e"),
            '&' => safe.push_str("\\u0026"),
            '\u{2028}' => safe.push_str("\\u2028"),
            '\u{2029}' => safe.push_str("\\u2029"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_in_the_data_ends_the_block_they_stand_in() {
        let safe = in_script(r#"["</script><!--<script>","a&b","\u2028"]"#);
        assert!(!safe.contains(['<', '>', '&']), "{safe}");
    }

    #[test]
    fn the_page_s_own_parts_can_stand_where_they_are_put() {
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</script") && !SCRIPT.contains("<!--"));
        for way_out in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "fetch(",
            "XMLHttpRequest",
            "import(",
        ] {
            assert!(!SCRIPT.contains(way_out), "{way_out}");
        }
        assert!(!BODY.contains("http") && !STYLE.contains("url(") && !STYLE.contains("@import"));
    }

    proptest! {
        #[test]
        fn the_data_stay_what_they_were(texts in proptest::collection::vec(any::<String>(), 0..8)) {
            let safe = in_script(&serde_json::to_string(&texts).unwrap());
            let breaks_out = safe.contains(['<', '>', '&', '\u{2028}', '\u{2029}']);
            prop_assert!(!breaks_out);
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&safe).unwrap(), texts);
        }
    }
}
