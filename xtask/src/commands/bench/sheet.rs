//! What was measured beside other tools: the form in which it is kept in `docs/benchmarks`, and how it is read from a console.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::peer_list::{PEERS, Peer};

/// What is kept of one tool.
pub trait Entry: Serialize + DeserializeOwned {
    /// Nothing is measured yet.
    fn of(peer: &Peer, version: String, date: String) -> Self;

    /// The tool's name.
    fn name(&self) -> &str;

    /// Takes a line of the program that measures; tells whether it is one.
    fn take(&mut self, line: &str) -> bool;

    /// Takes what was measured in the machine without a tool for what nothing costs.
    fn take_base(&mut self, base: &Self);
}

/// All figures of one kernel. Each is a number of instructions, where nothing else is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sheet<T> {
    /// As `uname -r` says it.
    pub kernel: String,
    /// The emulator that counted.
    pub qemu: String,
    /// The command that measured.
    pub command: String,
    /// In the order of the list of peers.
    pub tools: Vec<T>,
}

impl<T> Default for Sheet<T> {
    fn default() -> Self {
        Self { kernel: String::new(), qemu: String::new(), command: String::new(), tools: Vec::new() }
    }
}

/// One tool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    pub name: String,
    /// Of its package; of rosentry its own.
    pub version: String,
    /// The day on which it was measured, UTC.
    pub date: String,
    /// Which attempts it tells.
    pub sees: String,
    /// Whether it tells of refused writes: else there is nothing to count.
    #[serde(skip)]
    tells_refused: bool,
    /// By operation.
    pub costs: BTreeMap<String, Cost>,
    /// What all other processes did for an operation, by operation: the tool, and the kernel's threads that work for it.
    pub agent: BTreeMap<String, f64>,
    /// What they do in a second in which nothing happens, thousandths of the processor's time.
    pub idle_per_mille: f64,
    /// Refused writes while the operations were measured.
    pub attempts: u64,
    /// How many of these it told.
    pub told: u64,
    /// How many it said that it lost.
    pub said_lost: u64,
    pub floods: Vec<Flood>,
}

/// What one operation costs the thread that does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// In the same machine, before the tool was started.
    pub nothing: f64,
    /// Beside it.
    pub with: f64,
}

/// Refused writes as fast as some processes can.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flood {
    /// `again`: each process writes one path. `new`: another each time.
    pub kind: String,
    pub processes: u32,
    pub writes: u64,
    pub told: u64,
    pub said_lost: u64,
    /// What a write cost the process that was refused.
    pub writer: f64,
    /// What it cost all others.
    pub agent: f64,
}

impl Cost {
    /// What it costs more.
    pub fn more(self) -> f64 {
        self.with - self.nothing
    }
}

impl<T: Entry> Sheet<T> {
    /// Reads what was kept; an empty one where nothing was.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path).with_context(|| format!("{} could not be read", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not what this command writes", path.display()))
    }

    /// Keeps it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("{} could not be written", path.display()))
    }

    /// Puts a tool in the place of what was known of it, else where it stands among the peers.
    pub fn put(&mut self, tool: T) {
        match self.tools.iter_mut().find(|other| other.name() == tool.name()) {
            Some(place) => *place = tool,
            None => self.tools.push(tool),
        }
        self.tools.sort_by_key(|tool| PEERS.iter().position(|peer| peer.name == tool.name()));
    }

    /// The tool of this name.
    pub fn tool(&self, name: &str) -> Option<&T> {
        self.tools.iter().find(|tool| tool.name() == name)
    }
}

impl Entry for Tool {
    fn of(peer: &Peer, version: String, date: String) -> Self {
        let (name, sees) = (peer.name.to_owned(), peer.sees.to_owned());
        Self { name, version, date, sees, tells_refused: peer.tells_refused, ..Self::default() }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn take(&mut self, line: &str) -> bool {
        self.parsed(line).is_some()
    }

    fn take_base(&mut self, base: &Self) {
        for (operation, cost) in &mut self.costs {
            if let Some(of_base) = base.costs.get(operation) {
                cost.nothing = of_base.nothing;
            }
        }
    }
}

impl Tool {
    fn parsed(&mut self, line: &str) -> Option<()> {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["cost", name, operation, alone, _] if self.costs.contains_key(*operation) && *name == self.name => {
                self.costs.get_mut(*operation)?.with = alone.parse().ok()?;
            }
            ["cost", "nothing", operation, alone, _] => {
                self.costs.entry((*operation).to_owned()).or_default().nothing = alone.parse().ok()?;
            }
            ["agent", name, operation, more] if *name == self.name => {
                self.agent.insert((*operation).to_owned(), more.parse().ok()?);
            }
            ["idle", name, per_mille] if *name == self.name => self.idle_per_mille = per_mille.parse().ok()?,
            ["told", name, _, _, _] if *name == self.name && !self.tells_refused => {}
            ["told", name, attempts, told, lost] if *name == self.name => {
                (self.attempts, self.told) = (attempts.parse().ok()?, told.parse().ok()?);
                self.said_lost = lost.parse().ok()?;
            }
            ["flood", name, kind, processes, writes, told, lost, writer, agent] if *name == self.name => {
                self.floods.push(Flood {
                    kind: (*kind).to_owned(),
                    processes: processes.parse().ok()?,
                    writes: writes.parse().ok()?,
                    told: told.parse().ok()?,
                    said_lost: lost.parse().ok()?,
                    writer: writer.parse().ok()?,
                    agent: agent.parse().ok()?,
                });
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(lines: &[&str]) -> Tool {
        let peer = PEERS.iter().find(|peer| peer.name == "opensnoop").unwrap();
        let mut tool = Tool::of(peer, "1".to_owned(), "2026-01-01".to_owned());
        for line in lines {
            assert!(tool.take(line), "{line}");
        }
        tool
    }

    #[test]
    fn what_an_operation_costs_more_is_told_beside_what_it_cost_in_the_same_machine_before() {
        let tool = tool(&["cost nothing getppid 300.0 300.0", "cost opensnoop getppid 450.5 500.0"]);
        assert_eq!(tool.costs["getppid"].more(), 150.5);
    }

    #[test]
    fn the_lines_of_another_tool_are_none_of_this_ones() {
        let mut tool = tool(&["told opensnoop 100 99 1", "flood opensnoop new 2 1000 400 600 9000.0 50.5"]);
        assert_eq!((tool.told, tool.floods[0].told, tool.floods[0].said_lost), (99, 400, 600));
        assert!(!tool.take("told bpftrace 100 99 1"));
        assert!(!tool.take("cost opensnoop unknown 1.0 1.0"));
    }

    #[test]
    fn what_costs_before_it_begins_is_compared_with_a_machine_without_it() {
        let mut audited = tool(&["cost nothing getppid 500.0 500.0", "cost opensnoop getppid 510.0 510.0"]);
        audited.take_base(&tool(&["cost nothing getppid 300.0 300.0"]));
        assert_eq!(audited.costs["getppid"].more(), 210.0);
    }

    #[test]
    fn a_tool_that_is_measured_again_takes_its_old_place_and_a_new_one_that_of_the_list() {
        let of = |name: &str, told| Tool { name: name.to_owned(), told, ..Tool::default() };
        let mut sheet = Sheet { tools: vec![of("nothing", 1), of("ftrace", 2)], ..Sheet::default() };
        sheet.put(of("nothing", 3));
        sheet.put(of("auditd", 4));
        assert_eq!(sheet.tools, [of("nothing", 3), of("auditd", 4), of("ftrace", 2)]);
        assert_eq!(serde_json::from_str::<Sheet<Tool>>(&serde_json::to_string(&sheet).unwrap()).unwrap(), sheet);
    }
}
