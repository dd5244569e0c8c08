//! A timeline as text, for a terminal.

use std::{
    io::{self, Write},
    time::Duration,
};

use crate::{
    cli::terminal::{Cell, Output, Style},
    finding::event::{Effect, Kind, Severity},
    report::{
        event::Time,
        printable::word,
        timeline::{Gap, Incident, Place, Step, Timeline, Why, duration},
    },
};

/// Steps of an incident that are told.
const STEPS_MAX: usize = 40;
/// Processes of an incident that are told.
const PROCESSES_MAX: usize = 40;
/// Incidents that are told with their steps; the others in a line each.
const INCIDENTS_MAX: usize = 50;
/// For the time of a step and for its severity.
const TIME_WIDTH: usize = 12;
const SEVERITY_WIDTH: usize = 8;

/// Tells all of it.
///
/// # Errors
/// The system's.
pub fn tell<W: Write>(timeline: &Timeline, output: &mut Output<W>) -> io::Result<()> {
    head(timeline, output)?;
    for gap in &timeline.gaps {
        output.paragraph(&gap_words(gap))?;
    }
    if timeline.gaps_left_out > 0 {
        output.paragraph(&Cell::new(Style::Yellow, &format!("and {} more gaps", timeline.gaps_left_out)))?;
    }
    for (number, incident) in timeline.incidents.iter().enumerate() {
        if number < INCIDENTS_MAX {
            output.blank()?;
            tell_incident(incident, output)?;
        } else {
            output.paragraph(&title(incident))?;
        }
    }
    let left_out = &timeline.incidents_left_out;
    if left_out.incidents > 0 {
        let words = format!(
            "and {}, less severe, with {}",
            many(left_out.incidents, "more incident"),
            many(left_out.count, "attempt")
        );
        output.paragraph(&Cell::new(Style::Dim, &words))?;
    }
    Ok(())
}

fn head<W: Write>(timeline: &Timeline, output: &mut Output<W>) -> io::Result<()> {
    let Some((first, last)) = timeline.first_time.zip(timeline.last_time) else {
        return output.paragraph(&Cell::new(Style::Bold, "no events"));
    };
    let nodes: Vec<_> = timeline.nodes.iter().take(4).map(|node| word(&node.name).into_owned()).collect();
    let more = if timeline.nodes.len() > nodes.len() {
        format!(" and {} more", timeline.nodes.len() - nodes.len())
    } else {
        String::new()
    };
    let incidents = timeline.incidents.len() as u64 + timeline.incidents_left_out.incidents;
    let words = format!(
        "{} from {} to {} UTC on {}{more}: {}",
        many(timeline.events, "event"),
        clock(first),
        clock(last),
        nodes.join(", "),
        many(incidents, "incident")
    );
    let mut cell = Cell::new(Style::Bold, &words);
    for severity in Severity::ALL.iter().rev() {
        let count = timeline.incidents.iter().filter(|incident| incident.severity == *severity).count();
        if count > 0 {
            cell = cell.and(Style::of(*severity), &format!("{count} {}", severity.name()));
        }
    }
    output.paragraph(&cell)
}

fn gap_words(gap: &Gap) -> Cell {
    let why = match gap.why {
        Why::LinesMissing => "lines are missing",
        Why::Changed => "lines are not as they were written",
        Why::NotWatching => "the agent did not run",
        Why::Lost => "events were lost before they were written",
        Why::Blind => "the agent could not see",
    };
    let mut cell = Cell::new(Style::Yellow, "gap:").and(Style::Plain, &format!("{}: {why}", word(&gap.node)));
    if let Some(count) = gap.count {
        cell = cell.and(Style::Bold, &format!("({count})"));
    }
    if let Some(detail) = &gap.detail {
        cell = cell.and(Style::Plain, detail);
    }
    if let Some(after) = gap.after {
        cell = cell.and(Style::Dim, &format!("after {}", clock(after)));
    }
    if let Some(before) = gap.before {
        cell = cell.and(Style::Dim, &format!("before {}", clock(before)));
    }
    cell.and(Style::Dim, &format!("({}, line {})", word(&gap.file), gap.line))
}

fn title(incident: &Incident) -> Cell {
    let owner = match &incident.owner.namespace {
        Some(namespace) => format!("{}/{}", &**namespace, &*incident.owner.name),
        None => incident.owner.name.to_string(),
    };
    Cell::new(Style::of(incident.severity), incident.severity.name())
        .unbroken(Style::Cyan, &word(&owner))
        .and(Style::Plain, &format!("{} UTC, {},", clock(incident.first_time), lasted(duration(incident))))
        .and(Style::Plain, &format!("{} in {}", many(incident.count, "attempt"), many(incident.events, "event")))
}

fn tell_incident<W: Write>(incident: &Incident, output: &mut Output<W>) -> io::Result<()> {
    output.paragraph(&title(incident))?;
    let mut story = Cell::default();
    for (number, phase) in incident.story.iter().enumerate() {
        if number > 0 {
            story = story.and(Style::Dim, "→");
        }
        story = story.and(Style::of(phase.severity), &format!("{} {}", phase.count, phase.what.words(phase.count)));
    }
    let techniques: Vec<_> = incident.attack.iter().map(|technique| word(technique)).collect();
    output.paragraph(&story.and(Style::Yellow, &techniques.join(" ")))?;
    for place in incident.places.iter().take(8) {
        output.paragraph(&place_words(place))?;
    }
    if incident.places.len() > 8 || incident.events_in_other_places > 0 {
        output.paragraph(&Cell::new(Style::Dim, "and more containers"))?;
    }
    let width = output.width();
    let skipped = incident.steps.len().saturating_sub(STEPS_MAX);
    for (number, step) in incident.steps.iter().enumerate() {
        // The first half and the last half of those that are told.
        if number >= STEPS_MAX / 2 && number < STEPS_MAX / 2 + skipped {
            if number == STEPS_MAX / 2 {
                output.paragraph(&Cell::new(Style::Dim, &format!("  … {skipped} more steps …")))?;
            }
            continue;
        }
        let offset = format!("+{}", lasted(since(incident.first_time, step.first_time)));
        output.row(&[
            (&Cell::default().unbroken(Style::Dim, &format!("{offset:>TIME_WIDTH$}")), TIME_WIDTH),
            (&Cell::new(Style::of(step.severity), step.severity.name()), SEVERITY_WIDTH),
            (&deed(step), width.saturating_sub(TIME_WIDTH + SEVERITY_WIDTH + 4)),
        ])?;
    }
    if incident.events_left_out > 0 {
        output.paragraph(&Cell::new(
            Style::Dim,
            &format!("and {} of lesser severity", many(incident.events_left_out, "event")),
        ))?;
    }
    processes(incident, output)
}

fn place_words(place: &Place) -> Cell {
    let names = [("pod", &place.pod), ("container", &place.container)];
    let mut cell = Cell::default();
    for (what, name) in names {
        if let Some(name) = name {
            cell = cell.and(Style::Dim, what).unbroken(Style::Plain, &word(name));
        }
    }
    cell = cell.and(Style::Dim, "on").unbroken(Style::Plain, &word(&place.node));
    for name in [&place.image, &place.image_digest].into_iter().flatten() {
        cell = cell.unbroken(Style::Dim, &word(name));
    }
    if place.privileged == Some(true) {
        cell = cell.and(Style::Red, "privileged");
    }
    cell
}

/// What was done, to what, with what result, by whom.
fn deed(step: &Step) -> Cell {
    let mut cell = Cell::new(
        if step.known_kind == Some(Kind::SealBroken) { Style::Alarm } else { Style::Plain },
        &word(&step.kind),
    );
    if let Some(operation) = &step.operation {
        cell = cell.unbroken(Style::Plain, &word(operation));
    }
    if let Some(path) = &step.path {
        cell = cell.unbroken(Style::Bold, &word(path));
    }
    if let Some(new_path) = &step.new_path {
        cell = cell.and(Style::Plain, "to").unbroken(Style::Bold, &word(new_path));
    }
    if let Some(fstype) = &step.fstype {
        cell = cell.unbroken(Style::Plain, &word(fstype));
    }
    if let Some(effect) = step.effect.filter(|effect| *effect != Effect::None) {
        cell = cell.and(Style::Yellow, effect.name());
    }
    match (step.outcome.as_deref(), &step.errno) {
        (Some("succeeded"), _) => cell = cell.and(Style::Red, "succeeded"),
        (_, Some(errno)) => cell = cell.unbroken(Style::Plain, &word(errno)),
        _ => {}
    }
    if step.count > 1 {
        cell = cell.and(Style::Yellow, &format!("×{}", step.count));
    }
    if let Some(actor) = &step.process {
        cell = cell.and(Style::Dim, "by").unbroken(Style::Plain, &format!("{}[{}]", word(&actor.comm), actor.pid));
    }
    for technique in &step.attack {
        cell = cell.unbroken(Style::Yellow, &word(technique));
    }
    cell
}

fn processes<W: Write>(incident: &Incident, output: &mut Output<W>) -> io::Result<()> {
    for branch in incident.processes.iter().take(PROCESSES_MAX) {
        let names: Vec<_> = branch.comms.iter().map(|comm| word(comm)).collect();
        let style = if branch.steps.is_empty() { Style::Dim } else { Style::Plain };
        let indent = "  ".repeat(branch.depth.min(16) + 1);
        let mut cell = Cell::default()
            .unbroken(Style::Dim, &format!("{indent}└"))
            .unbroken(style, &format!("{}[{}]", names.join("→"), branch.pid));
        if let Some(exe) = &branch.exe {
            cell = cell.unbroken(Style::Dim, &word(exe));
        }
        output.paragraph(&cell)?;
    }
    if incident.processes.len() > PROCESSES_MAX {
        let more = incident.processes.len() - PROCESSES_MAX;
        output.paragraph(&Cell::new(Style::Dim, &format!("and {more} more processes")))?;
    }
    Ok(())
}

fn since(begin: Time, time: Time) -> Duration {
    time.0.duration_since(begin.0).try_into().unwrap_or_default()
}

fn clock(time: Time) -> String {
    format!("{:.3}", time.0).trim_end_matches('Z').replace('T', " ")
}

fn many(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// A length of time with two or three digits that count.
fn lasted(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match duration.as_secs() {
        0 => format!("{:.1} ms", seconds * 1e3),
        1..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{:.1} min", seconds / 60.0),
        3600..86_400 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} d", seconds / 86_400.0),
    }
}
