//! `cargo xtask bench report`: the figures that are kept in `docs/benchmarks` as tables and pictures beside them.

use std::{fmt::Write as _, fs, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use super::{
    beside::sheet_of,
    peer_list::BASE,
    peers, publish_real,
    real::{self, Worked},
    sheet::{Flood, Sheet, Tool},
    svg::{Bar, Kind, Panel, Picture},
};
use crate::{vm::kernel::Series, workspace::Workspace};

/// Operations as the program names them, and as a reader does.
const OPERATIONS: [(&str, &str); 10] = [
    ("getppid", "an unrelated call (getppid)"),
    ("write_writable", "write to a writable file"),
    ("open_close_readable", "open and close of a library, to read"),
    ("open_close_readable_tmpfs", "the same of a file in a tmpfs"),
    ("open_close_writable", "open and close of a file in a volume, to write"),
    ("mkdir_rmdir_writable", "mkdir and rmdir in a volume"),
    ("open_refused_again", "refused open, a path that was refused before"),
    ("open_refused_new_path", "refused open, a new path, many in a row"),
    ("open_refused_once", "refused open, a new path, alone after a quiet time"),
    ("remount", "remount of /, read-only as it is"),
];

/// Those that are in the picture.
const PICTURED: [&str; 6] = [
    "getppid",
    "open_close_readable",
    "mkdir_rmdir_writable",
    "open_refused_again",
    "open_refused_new_path",
    "remount",
];

/// Writes them anew, or only tells whether they are as written.
pub fn run(workspace: &Workspace, check: bool) -> Result<ExitCode> {
    let folder = workspace.root().join("docs/benchmarks");
    let read = |series| {
        let (tools, worked) = (sheet_of(workspace, peers::NAME, series), sheet_of(workspace, real::NAME, series));
        Ok((series, Sheet::read(&tools)?, Sheet::read(&worked)?))
    };
    let sheets: Vec<Sheets> = [Series::V6_1, Series::V6_12].into_iter().map(read).collect::<Result<_>>()?;
    if let Some((series, ..)) = sheets.iter().find(|(_, sheet, _)| sheet.tools.is_empty()) {
        bail!("nothing is kept of Linux {}: run `cargo xtask bench peers` first", series.name());
    }
    let mut current = true;
    for (name, text) in files(&sheets)? {
        let path = folder.join(&name);
        if check {
            let is_same = fs::read_to_string(&path).is_ok_and(|kept| kept == text);
            if !is_same {
                println!("docs/benchmarks/{name} is not what its figures say: run `cargo xtask bench report`");
            }
            current &= is_same;
        } else {
            fs::write(&path, text).with_context(|| format!("{} could not be written", path.display()))?;
        }
    }
    Ok(if current { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is kept of a kernel: of operations and floods, and of real work, where that was measured.
type Sheets = (Series, Sheet<Tool>, Sheet<Worked>);

/// What is to be written, by name.
fn files(sheets: &[Sheets]) -> Result<Vec<(String, String)>> {
    let mut page = "# Figures\n\nWritten by `cargo xtask bench report` from the JSON files beside it. \
                    What they mean, and where rosentry falls short: [README](README.md).\n"
        .to_owned();
    let mut files = Vec::new();
    for (series, sheet, worked) in sheets {
        section(&mut page, *series, sheet).context("a table could not be written")?;
        if !worked.tools.is_empty() {
            publish_real::section(&mut page, *series, worked).context("a table could not be written")?;
            files.push((format!("real-{}.svg", series.name()), publish_real::picture(worked).render()));
        }
        files.push((format!("costs-{}.svg", series.name()), costs(sheet).render()));
        files.push((format!("flood-{}.svg", series.name()), floods(sheet).render()));
    }
    files.push(("figures.md".to_owned(), page));
    Ok(files)
}

fn section(page: &mut String, series: Series, sheet: &Sheet<Tool>) -> Result<(), std::fmt::Error> {
    let others: Vec<&Tool> = sheet.tools.iter().filter(|tool| tool.name != BASE).collect();
    writeln!(
        page,
        "\n## Linux {}\n\nDebian's kernel {}, one emulated processor, {}; `{}`.",
        series.name(),
        sheet.kernel,
        sheet.qemu,
        sheet.command
    )?;
    writeln!(page, "\n| tool | version | measured | what it tells |\n| --- | --- | --- | --- |")?;
    for tool in &others {
        writeln!(page, "| {} | {} | {} | {} |", tool.name, tool.version, tool.date, tool.sees)?;
    }

    writeln!(
        page,
        "\n### What an operation costs whoever does it\n\nInstructions more than before the tool was started.\n"
    )?;
    let head = |page: &mut String, first: &str| {
        writeln!(page, "| {first} | nothing | {} |", names(&others))?;
        writeln!(page, "| --- | --- |{}", " --- |".repeat(others.len()))
    };
    head(page, "operation")?;
    for (operation, words) in OPERATIONS {
        let base =
            sheet.tool(BASE).and_then(|tool| tool.costs.get(operation)).map(|cost| format!("{:.0}", cost.nothing));
        write!(page, "| {words} | {} |", base.unwrap_or_default())?;
        for tool in &others {
            let more = tool.costs.get(operation).map(|cost| format!("{:+.0}", cost.more())).unwrap_or_default();
            write!(page, " {more} |")?;
        }
        writeln!(page)?;
    }
    writeln!(page, "\n![costs](costs-{}.svg)", series.name())?;

    writeln!(
        page,
        "\n### What it costs the tool, and what it told\n\nInstructions of all other processes and of the kernel's threads, for one operation.\n"
    )?;
    writeln!(
        page,
        "| tool | getppid | refused, a new path | refused, again | at rest, of the processor | refused | told | said to be lost |"
    )?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for tool in &others {
        let agent = |operation| tool.agent.get(operation).map(|more| format!("{more:.0}")).unwrap_or_default();
        writeln!(
            page,
            "| {} | {} | {} | {} | {:.2} ‰ | {} | {} | {} |",
            tool.name,
            agent("getppid"),
            agent("open_refused_new_path"),
            agent("open_refused_again"),
            tool.idle_per_mille,
            tool.attempts,
            tool.told,
            tool.said_lost,
        )?;
    }

    writeln!(
        page,
        "\n### Refused writes as fast as some processes can\n\nOn one processor, which they share with the tool.\n"
    )?;
    writeln!(
        page,
        "| paths | processes | tool | told | said to be lost | lost without a word | instructions for the writer | for the tool, more than with nothing |"
    )?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for (kind, processes) in floods_of(sheet) {
        for tool in &sheet.tools {
            let Some(flood) = flood_of(tool, &kind, processes) else { continue };
            let base =
                sheet.tool(BASE).and_then(|tool| flood_of(tool, &kind, processes)).map_or(0.0, |base| base.agent);
            let [told, said, silent] = shares(flood);
            let shares = if tool.name == BASE {
                " | |".to_owned()
            } else {
                format!("{told:.1} % | {said:.1} % | {silent:.1} %")
            };
            writeln!(
                page,
                "| {} | {processes} | {} | {} | {:.0} | {:.0} |",
                if kind == "new" { "another each time" } else { "one a process" },
                tool.name,
                shares,
                flood.writer,
                flood.agent - base,
            )?;
        }
    }
    writeln!(page, "\n![flood](flood-{}.svg)", series.name())
}

fn names(tools: &[&Tool]) -> String {
    tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>().join(" | ")
}

/// The kinds of floods, in the order in which they were run.
fn floods_of(sheet: &Sheet<Tool>) -> Vec<(String, u32)> {
    let mut all: Vec<(String, u32)> = Vec::new();
    for flood in sheet.tools.iter().flat_map(|tool| &tool.floods) {
        let kind = (flood.kind.clone(), flood.processes);
        if !all.contains(&kind) {
            all.push(kind);
        }
    }
    all
}

fn flood_of<'a>(tool: &'a Tool, kind: &str, processes: u32) -> Option<&'a Flood> {
    tool.floods.iter().find(|flood| flood.kind == kind && flood.processes == processes)
}

/// Of all writes, percent: told, said to be lost, lost without a word.
fn shares(flood: &Flood) -> [f64; 3] {
    let silent = flood.writes.saturating_sub(flood.told).saturating_sub(flood.said_lost);
    // What a tool says that it lost may be of other events, too.
    let said = flood.said_lost.min(flood.writes.saturating_sub(flood.told));
    [flood.told, said, silent].map(|part| part as f64 / flood.writes as f64 * 100.0)
}

/// Whose tool it is.
pub fn kind_of(tool: &str) -> Kind {
    if tool.starts_with("rosentry") { Kind::Ours } else { Kind::Theirs }
}

fn costs(sheet: &Sheet<Tool>) -> Picture {
    let panel = |operation: &&str| {
        let words = OPERATIONS.iter().find(|(name, _)| name == operation).map_or(*operation, |(_, words)| words);
        let bars = sheet.tools.iter().filter(|tool| tool.name != BASE).filter_map(|tool| {
            let more = tool.costs.get(*operation)?.more();
            Some(Bar {
                name: tool.name.clone(),
                parts: vec![(kind_of(&tool.name), more)],
                label: format!("{more:+.0}"),
            })
        });
        Panel { title: words.to_owned(), bars: bars.collect() }
    };
    Picture {
        title: format!("Instructions more than with nothing attached, Linux {}", sheet.kernel),
        panels: PICTURED.iter().map(panel).collect(),
    }
}

fn floods(sheet: &Sheet<Tool>) -> Picture {
    let panel = |(kind, processes): (String, u32)| {
        let bars = sheet.tools.iter().filter(|tool| tool.name != BASE).filter_map(|tool| {
            let flood = flood_of(tool, &kind, processes)?;
            let [told, said, silent] = shares(flood);
            Some(Bar {
                name: tool.name.clone(),
                parts: vec![(kind_of(&tool.name), told), (Kind::Said, said), (Kind::Silent, silent)],
                label: if said + silent > 0.0 { format!("{told:.1} % told") } else { "all told".to_owned() },
            })
        });
        let paths = if kind == "new" { "another path each time" } else { "the same path" };
        let plural = if processes == 1 { "" } else { "es" };
        Panel { title: format!("{processes} process{plural}, {paths}"), bars: bars.collect() }
    };
    Picture {
        title: format!(
            "Refused writes that were told (yellow: said to be lost; red: lost silently), Linux {}",
            sheet.kernel
        ),
        panels: floods_of(sheet).into_iter().map(panel).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flood(told: u64, said_lost: u64) -> Flood {
        Flood { kind: "new".to_owned(), processes: 1, writes: 1000, told, said_lost, writer: 9000.0, agent: 10.0 }
    }

    #[test]
    fn what_was_neither_told_nor_said_to_be_lost_was_lost_without_a_word() {
        assert_eq!(shares(&flood(400, 500)), [40.0, 50.0, 10.0]);
        assert_eq!(shares(&flood(900, 500)), [90.0, 10.0, 0.0]);
    }

    #[test]
    fn the_page_and_the_pictures_are_those_of_the_figures_beside_them() {
        let workspace = Workspace::locate();
        assert_eq!(run(&workspace, true).unwrap(), ExitCode::SUCCESS);
    }
}
