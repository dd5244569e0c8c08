//! The table and the picture of what programs that do real work lose, for `cargo xtask bench report`.

use std::fmt::Write as _;

use super::{
    peer_list::BASE,
    publish::kind_of,
    real::{Runs, Worked, median},
    sheet::Sheet,
    svg::{Bar, Panel, Picture},
};
use crate::vm::kernel::Series;

/// Work as the program names it, and as a reader does.
const WORK: [(&str, &str); 3] = [
    ("build", "rustc compiles itoa"),
    ("nginx", "a request of nginx under wrk"),
    ("redis", "redis-benchmark: 4000 SET, 4000 GET"),
];

/// The mode that is meant to cost nothing, and how much of it is nothing, percent.
const LIGHT: (&str, f64) = ("rosentry-fexit", 1.0);

/// The part of the page.
pub fn section(page: &mut String, series: Series, sheet: &Sheet<Worked>) -> Result<(), std::fmt::Error> {
    writeln!(
        page,
        "\n### Programs that do real work\n\n`{}`. How much longer they take beside the tool, in a sealed container: medians of three runs before \
         it was started and three beside it, on one processor, and in brackets what lies between the runs of one kind. \
         The column `{BASE}` is a tool that does nothing: the noise.\n",
        sheet.command
    )?;
    write!(page, "| work | instructions alone |")?;
    for tool in &sheet.tools {
        write!(page, " {} |", tool.name)?;
    }
    writeln!(page, "\n| --- | --- |{}", " --- |".repeat(sheet.tools.len()))?;
    for (work, words) in WORK {
        let alone = runs(sheet, BASE, work).map(|runs| format!("{:.0}", median(&runs.nothing))).unwrap_or_default();
        write!(page, "| {words} | {alone} |")?;
        for tool in &sheet.tools {
            let cell = tool.work.get(work).map(|runs| format!("{:+.2} % ({:.2})", runs.slower(), runs.spread()));
            write!(page, " {} |", cell.unwrap_or_default())?;
        }
        writeln!(page)?;
    }
    let (light, limit) = LIGHT;
    writeln!(page, "\n| of {light} is claimed |{} |", WORK.map(|(work, _)| format!(" {work}")).join(" |"))?;
    writeln!(page, "| --- |{}", " --- |".repeat(WORK.len()))?;
    let small = WORK.map(|(work, _)| match runs(sheet, light, work) {
        Some(runs) if runs.slower() < limit => "held",
        Some(_) => "BROKEN",
        None => "not measured",
    });
    writeln!(page, "| less than {limit} % | {} |", small.join(" | "))?;
    let below = WORK.map(|(work, _)| below_every_peer(sheet, work));
    writeln!(page, "| less than beside every other tool | {} |", below.join(" | "))?;
    writeln!(page, "\n![real work](real-{}.svg)", series.name())
}

/// Whether the light mode costs less than every other tool, and else which ones it does not.
fn below_every_peer(sheet: &Sheet<Worked>, work: &str) -> String {
    let Some(light) = runs(sheet, LIGHT.0, work) else { return "not measured".to_owned() };
    let noise = runs(sheet, BASE, work).map_or(0.0, |runs| runs.slower().abs() + runs.spread());
    let others = || sheet.tools.iter().filter(|tool| tool.name != BASE && !tool.name.starts_with("rosentry"));
    let named = |is_one: &dyn Fn(f64) -> bool| {
        let names =
            others().filter(|tool| tool.work.get(work).is_some_and(|runs| is_one(light.slower() - runs.slower())));
        names.map(|tool| tool.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    if others().all(|tool| !tool.work.contains_key(work)) {
        return "no other was measured".to_owned();
    }
    let (more, level) = (named(&|more| more > noise), named(&|more| more.abs() <= noise));
    match (more.as_str(), level.as_str()) {
        ("", "") => "held".to_owned(),
        ("", level) => format!("level with {level} (noise)"),
        (more, _) => format!("BROKEN by {more}"),
    }
}

fn runs<'a>(sheet: &'a Sheet<Worked>, tool: &str, work: &str) -> Option<&'a Runs> {
    sheet.tool(tool)?.work.get(work)
}

/// Its picture.
pub fn picture(sheet: &Sheet<Worked>) -> Picture {
    let panel = |(work, words): (&str, &str)| {
        let bars = sheet.tools.iter().filter_map(|tool| {
            let slower = tool.work.get(work)?.slower();
            Some(Bar {
                name: tool.name.clone(),
                parts: vec![(kind_of(&tool.name), slower)],
                label: format!("{slower:+.2} %"),
            })
        });
        Panel { title: words.to_owned(), bars: bars.collect() }
    };
    Picture {
        title: format!("How much longer real work takes, Linux {}", sheet.kernel),
        panels: WORK.map(panel).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, with: f64) -> Worked {
        let runs = Runs { nothing: vec![1000.0], with: vec![with] };
        Worked { name: name.to_owned(), work: [("build".to_owned(), runs)].into(), ..Worked::default() }
    }

    fn verdict(light: f64, peer: f64) -> String {
        let tools = vec![tool(BASE, 1001.0), tool(LIGHT.0, light), tool("opensnoop", peer)];
        below_every_peer(&Sheet { tools, ..Sheet::default() }, "build")
    }

    #[test]
    fn a_difference_that_a_machine_without_a_tool_shows_too_is_none() {
        assert_eq!(verdict(1002.0, 1010.0), "held");
        assert_eq!(verdict(1002.0, 1001.5), "level with opensnoop (noise)");
        assert_eq!(verdict(1005.0, 1002.0), "BROKEN by opensnoop");
        let alone = Sheet { tools: vec![tool(BASE, 1001.0), tool(LIGHT.0, 1002.0)], ..Sheet::default() };
        assert_eq!(below_every_peer(&alone, "build"), "no other was measured");
        assert_eq!(below_every_peer(&Sheet::default(), "build"), "not measured");
    }
}
