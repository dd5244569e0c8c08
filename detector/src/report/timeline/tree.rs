//! The processes of an incident, as a tree.

use std::collections::HashMap;

use serde::Serialize;

use super::{
    name::Name,
    step::{Actor, Step},
};

/// Processes of a tree.
const PROCESSES_MAX: usize = 256;

/// A process of the tree.
#[derive(Clone, Debug, Serialize)]
pub struct Branch {
    /// Its node.
    pub node: Name,
    /// Process id.
    pub pid: u32,
    /// What it was called: several names where it executed another program.
    pub comms: Vec<Name>,
    /// The executable, of the last that is known.
    pub exe: Option<Name>,
    /// Its arguments, where an event was its own.
    pub args: Vec<Name>,
    /// User id on the node, where an event was its own.
    pub uid: Option<u32>,
    /// The place of the one above, in this list.
    pub parent: Option<usize>,
    /// How deep it stands; 0 has none above.
    pub depth: usize,
    /// The places of its steps in the incident.
    pub steps: Vec<usize>,
}

/// The processes of these steps, each before those below it, by the time of their first step.
pub fn tree(steps: &[Step]) -> Vec<Branch> {
    let mut found: Vec<Branch> = Vec::new();
    let mut at: HashMap<(Name, u32), usize> = HashMap::new();
    for (number, step) in steps.iter().enumerate() {
        let Some(actor) = &step.process else { continue };
        let mut parent = None;
        let above = actor.ancestors.iter().rev().map(|it| (it.pid, &it.comm, &it.exe));
        for (pid, comm, exe) in above.chain([(actor.pid, &actor.comm, &actor.exe)]) {
            let known = at.get(&(step.node.clone(), pid)).copied();
            let Some(place) = known.or_else(|| {
                (found.len() < PROCESSES_MAX).then(|| {
                    found.push(Branch {
                        node: step.node.clone(),
                        pid,
                        comms: Vec::new(),
                        exe: None,
                        args: Vec::new(),
                        uid: None,
                        parent,
                        depth: 0,
                        steps: Vec::new(),
                    });
                    at.insert((step.node.clone(), pid), found.len() - 1);
                    found.len() - 1
                })
            }) else {
                break;
            };
            if let Some(branch) = found.get_mut(place) {
                if branch.comms.last() != Some(comm) && branch.comms.len() < 4 {
                    branch.comms.push(comm.clone());
                }
                branch.exe = exe.clone().or(branch.exe.take());
                if pid == actor.pid {
                    own(branch, actor, number);
                }
            }
            parent = Some(place);
        }
    }
    in_order(found)
}

fn own(branch: &mut Branch, actor: &Actor, step: usize) {
    branch.args.clone_from(&actor.args);
    branch.uid = Some(actor.uid);
    branch.steps.push(step);
}

/// Each process before those below it.
fn in_order(found: Vec<Branch>) -> Vec<Branch> {
    let mut below: HashMap<Option<usize>, Vec<usize>> = HashMap::new();
    for (place, branch) in found.iter().enumerate() {
        below.entry(branch.parent).or_default().push(place);
    }
    let mut ordered: Vec<Branch> = Vec::new();
    // Processes that are still to be told, the next one last: their place, depth, and the new place of the one above.
    let mut next: Vec<(usize, usize, Option<usize>)> = Vec::new();
    let put = |next: &mut Vec<_>, of: Option<usize>, depth: usize, parent: Option<usize>| {
        next.extend(below.get(&of).into_iter().flatten().rev().map(|place| (*place, depth, parent)));
    };
    put(&mut next, None, 0, None);
    while let Some((place, depth, parent)) = next.pop() {
        if let Some(branch) = found.get(place) {
            ordered.push(Branch { depth, parent, ..branch.clone() });
            put(&mut next, Some(place), depth + 1, Some(ordered.len() - 1));
        }
    }
    ordered
}
