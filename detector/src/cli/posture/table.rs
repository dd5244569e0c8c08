//! The report for a person.

use std::io::{self, Write};

use super::{Ready, Report, Row};
use crate::{
    cli::terminal::{Cell, Output, Style},
    export::escape::escape,
    posture::{Memory, Seen, Writable},
    report::{learned::Writes, printable::word},
};

const ROOT_WIDTH: usize = 9;
const POWERS_WIDTH: usize = 10;
const READY_WIDTH: usize = 8;
const GAPS: usize = 3 * 2;
/// By how much the lines below a container stand in.
const INDENT: usize = 2;
/// Writable mounts, breaches and folders that are named of one container; JSON has more.
const NAMED_MAX: usize = 12;
/// Share of a tmpfs, in percent, from which it is shown as to be looked at.
const NEARLY_FULL: u128 = 80;

pub(super) fn tell<W: Write>(report: &Report, output: &mut Output<W>) -> io::Result<()> {
    let heading = |text| Cell::new(Style::Bold, text);
    if report.rows.is_empty() {
        return output.paragraph(&Cell::new(Style::Plain, "containerd knows of no running container."));
    }
    row(output, [&heading("CONTAINER"), &heading("ROOT"), &heading("POWERS"), &heading("READY")])?;
    for of in &report.rows {
        let [root, powers, ready] = [root(of), powers(of), ready(&of.ready)];
        row(output, [&Cell::default().unbroken(Style::Cyan, &name(of)), &root, &powers, &ready])?;
        for detail in details(of) {
            output.row(&[(&Cell::default(), INDENT), (&detail, output.width() - INDENT - 2)])?;
        }
    }
    output.blank()?;
    for sentence in conclusions(report) {
        output.paragraph(&sentence)?;
    }
    Ok(())
}

fn row<W: Write>(output: &mut Output<W>, [name, root, powers, ready]: [&Cell; 4]) -> io::Result<()> {
    let name_width = output.width() - ROOT_WIDTH - POWERS_WIDTH - READY_WIDTH - GAPS;
    output.row(&[(name, name_width), (root, ROOT_WIDTH), (powers, POWERS_WIDTH), (ready, READY_WIDTH)])
}

fn name(row: &Row) -> String {
    let container = &row.container;
    let name = container.name.as_deref().unwrap_or(&container.id);
    let name = match &container.pod {
        Some(pod) => format!("{}/{}/{name}", pod.namespace, pod.name),
        None => name.to_owned(),
    };
    word(&name).into_owned()
}

fn root(row: &Row) -> Cell {
    let declared = row.container.readonly_rootfs;
    match &row.seen {
        Ok(_) if row.is_broken() => Cell::new(Style::Alarm, "BROKEN"),
        Ok(_) if declared == Some(true) => Cell::new(Style::Green, "sealed"),
        // Read-only, though nobody declared it: a filesystem that failed, or that cannot be written at all.
        Ok(seen) if seen.root_readonly => Cell::new(Style::Yellow, "read-only"),
        Ok(_) => Cell::new(Style::Plain, "writable"),
        Err(_) => Cell::new(Style::Dim, "unseen"),
    }
}

fn powers(row: &Row) -> Cell {
    if row.container.privileged == Some(true) {
        Cell::new(Style::Yellow, "privileged")
    } else if row.seen.as_ref().is_ok_and(|seen| seen.cap_sys_admin == Some(true)) {
        Cell::new(Style::Yellow, "SYS_ADMIN")
    } else {
        Cell::new(Style::Dim, "-")
    }
}

fn ready(ready: &Ready) -> Cell {
    match ready {
        Ready::Declared => Cell::new(Style::Dim, "-"),
        Ready::Yes { .. } => Cell::new(Style::Green, "yes"),
        Ready::No(_) => Cell::new(Style::Yellow, "no"),
        Ready::Unknown(_) => Cell::new(Style::Dim, "unknown"),
    }
}

/// The lines below a container.
fn details(row: &Row) -> Vec<Cell> {
    let mut details = Vec::new();
    match &row.seen {
        Ok(seen) => details.extend(of_seen(seen)),
        Err(why) => details.push(Cell::new(Style::Dim, &format!("not looked at: {why}"))),
    }
    match &row.ready {
        Ready::Declared => {}
        Ready::Yes { since, until } => {
            let seconds = until.0.duration_since(since.0).as_secs().max(0);
            let said = format!("wrote to no folder of its root for {}", for_long(seconds));
            details.push(Cell::new(Style::Plain, &said));
        }
        Ready::No(writes) => details.push(written(writes)),
        Ready::Unknown("there is no record of learning mode") => {}
        Ready::Unknown(why) => details.push(Cell::new(Style::Dim, &format!("ready? {why}"))),
    }
    details
}

fn of_seen(seen: &Seen) -> Vec<Cell> {
    let mut lines = Vec::new();
    for breach in seen.breaches.iter().take(NAMED_MAX) {
        let what = if breach.point == b"/" { "the root is writable:" } else { "writable by a mount on it:" };
        let line = Cell::new(Style::Alarm, what).unbroken(Style::Plain, &path(&breach.point));
        lines.push(line.and(Style::Plain, &escape(&breach.fstype)));
    }
    let is_nearly_full = |mount: &Writable| mount.own_memory().is_some_and(|memory| filled(memory).1);
    let (told, usual): (Vec<_>, Vec<_>) =
        seen.writable.iter().partition(|mount| !mount.is_of_runtime() || is_nearly_full(mount));
    let mut parts: Vec<Cell> = told.iter().take(NAMED_MAX).map(|mount| writable(mount)).collect();
    for (count, what) in
        [(told.len().saturating_sub(NAMED_MAX) + seen.beyond, "more"), (usual.len(), "that every container is given")]
    {
        if count > 0 {
            parts.push(Cell::new(Style::Dim, &format!("{count} {what}")));
        }
    }
    if let Some(last) = parts.pop() {
        let listed =
            parts.into_iter().fold(Cell::new(Style::Dim, "writable:"), |line, part| line.join(part.ended(";")));
        lines.push(listed.join(last));
    }
    lines
}

fn writable(mount: &Writable) -> Cell {
    let style = if mount.declared.is_some() { Style::Plain } else { Style::Yellow };
    let mut what = Vec::new();
    if mount.declared.is_none() {
        what.push("undeclared".to_owned());
    }
    what.push(match &mount.volume {
        Some(volume) => format!("{} {}", word(&volume.kind), word(&volume.name)),
        None => escape(&mount.fstype).into_owned(),
    });
    let cell = Cell::default().unbroken(style, &path(&mount.point));
    let Some(memory) = mount.own_memory() else { return cell.and(Style::Dim, &format!("({})", what.join(" "))) };
    let (text, is_nearly_full) = filled(memory);
    let style = if is_nearly_full { Style::Yellow } else { Style::Dim };
    cell.and(Style::Dim, &format!("({},", what.join(" "))).and(style, &format!("{text})"))
}

/// How full a tmpfs is, and whether that is worth a look.
fn filled(memory: Memory) -> (String, bool) {
    let Memory { size_bytes, used_bytes } = memory;
    let Some(used_bytes) = used_bytes else { return ("in memory, no limit".to_owned(), false) };
    let percent = u128::from(used_bytes) * 100 / u128::from(size_bytes).max(1);
    (format!("{} of {} in memory, {percent} %", bytes(used_bytes), bytes(size_bytes)), percent >= NEARLY_FULL)
}

fn written(writes: &Writes) -> Cell {
    let times = if writes.count == 1 { "once".to_owned() } else { format!("{} times", writes.count) };
    let mut line = Cell::new(Style::Yellow, &format!("wrote {times} to its root:"));
    for (folder, count) in writes.folders.iter().take(NAMED_MAX) {
        line = line.unbroken(Style::Plain, &word(folder)).and(Style::Dim, &format!("({count})"));
    }
    if writes.folders.len() > NAMED_MAX || writes.elsewhere > 0 {
        line = line.and(Style::Dim, "and elsewhere");
    }
    line
}

fn conclusions(report: &Report) -> Vec<Cell> {
    let count = |is: &dyn Fn(&Row) -> bool| report.rows.iter().filter(|row| is(row)).count();
    let all = report.rows.len();
    let declared = count(&|row| row.container.readonly_rootfs == Some(true));
    let mut said = vec![format!("{declared} of {all} containers on {} were declared read-only.", word(&report.node))];
    let broken = count(&Row::is_broken);
    if broken > 0 {
        said.push(format!("{broken} of these can be written all the same."));
    }
    let unseen = count(&|row| row.seen.is_err());
    if unseen > 0 {
        said.push(format!("{unseen} could not be looked at."));
    }
    if !report.has_record && declared < all {
        said.push(
            "Whether the others can be sealed is not known without the record of an agent in learning mode: name it with \
             --events."
                .to_owned(),
        );
    }
    let style = if broken > 0 { Style::Alarm } else { Style::Plain };
    vec![Cell::new(style, &said.join(" "))]
}

fn path(point: &[u8]) -> String {
    word(&escape(point)).into_owned()
}

/// As 1024 bytes are counted: `1.5 MiB`.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if count < 1024 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// The two largest units of a time.
fn for_long(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
