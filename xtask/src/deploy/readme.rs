//! The table of values in the chart's README, made of the comments in `values.yaml`.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// What begins and ends the part of the README that is written.
const BEGIN: &str = "<!-- Values, written by `cargo xtask render` -->\n";
const END: &str = "<!-- End of values -->";

/// The README with the table in its place.
///
/// # Errors
/// Where the README has no place for it, or `values.yaml` is not laid out as it is read here: two blanks a level, and a line
/// `# -- …` before each value that is told.
pub fn with_values(readme: &str, source: &str, values: &Value) -> Result<String> {
    let (before, rest) = readme.split_once(BEGIN).context("the README lacks the mark where values begin")?;
    let (_, after) = rest.split_once(END).context("the README lacks the mark where values end")?;
    Ok(format!("{before}{BEGIN}{}{END}{after}", table(source, values)?))
}

fn table(source: &str, values: &Value) -> Result<String> {
    let mut table = String::from("| value | default | what it does |\n| --- | --- | --- |\n");
    let (mut path, mut told): (Vec<&str>, Option<&str>) = (Vec::new(), None);
    for line in source.lines() {
        let text = line.trim_start();
        if let Some(comment) = text.strip_prefix("# -- ") {
            told = Some(comment);
            continue;
        }
        let Some((key, _)) = text.split_once(':').filter(|(key, _)| !key.starts_with(['#', '-'])) else { continue };
        let depth = (line.len() - text.len()) / 2;
        // Below a value that was told stands its default.
        if depth > path.len() {
            continue;
        }
        path.truncate(depth);
        path.push(key);
        if let Some(comment) = told.take() {
            let value = path.iter().try_fold(values, |value, key| value.get(key));
            let Some(value) = value else { bail!("values.yaml has no {}", path.join(".")) };
            table.push_str(&format!("| `{}` | `{value}` | {} |\n", path.join("."), comment.replace('|', "\\|")));
            path.pop();
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SOURCE: &str = "# -- A name.\nname: x\n\nimage:\n  # -- A tag, `a|b`.\n  tag: \"\"\n# -- Limits.\nresources:\n  limits:\n    memory: 1Mi\n# -- Last.\nlast: [1]\n";

    #[test]
    fn each_value_that_is_told_gets_a_row_with_its_default() {
        let values =
            json!({"name": "x", "image": {"tag": ""}, "resources": {"limits": {"memory": "1Mi"}}, "last": [1]});
        let table = table(SOURCE, &values).expect("the source is well laid out");
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| `name` | `\"x\"` | A name. |",
                "| `image.tag` | `\"\"` | A tag, `a\\|b`. |",
                r#"| `resources` | `{"limits":{"memory":"1Mi"}}` | Limits. |"#,
                "| `last` | `[1]` | Last. |",
            ]
        );
    }

    #[test]
    fn the_rest_of_the_readme_stays() {
        let readme = format!("before\n{BEGIN}old{END}\nafter\n");
        let written = with_values(&readme, "# -- A.\na: 1\n", &json!({"a": 1})).expect("there is a place");
        assert!(written.starts_with("before\n") && written.ends_with("\nafter\n"), "{written}");
        assert!(written.contains("| `a` | `1` | A. |") && !written.contains("old"), "{written}");
    }
}
