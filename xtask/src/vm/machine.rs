//! QEMU: a machine is started, its console is read line by line, and it is ended when it falls silent.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// Enough for one program of ours.
pub const MEMORY_MIB: u32 = 1024;

/// QEMU's program for this machine.
pub const QEMU: &str = "qemu-system-x86_64";

/// Lines to the host begin so.
const PREFIX: &str = "vm: ";

/// How the processor's time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// As outside; two processors.
    Real,
    /// One nanosecond an instruction, on one processor: a figure that is timed is a number of instructions.
    Instructions,
}

/// One machine.
pub struct Machine<'a> {
    /// Its kernel.
    pub kernel: &'a Path,
    /// Its root filesystem.
    pub initramfs: &'a Path,
    /// Its memory, half of which its root filesystem may take.
    pub memory_mib: u32,
    /// Its clock.
    pub time: Time,
    /// For how long it may say nothing before it counts as hung.
    pub silence: Duration,
}

/// A line of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Of the init: a word and what belongs to it.
    Message(&'a str, &'a str),
    /// Of anything else.
    Other(&'a str),
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its job was done.
    Done,
    /// It stopped before that: a panic of the kernel, or of QEMU. Its last lines.
    Early(Vec<String>),
    /// It was ended because it said nothing any more. Its last lines.
    Silent(Vec<String>),
}

impl Machine<'_> {
    /// Runs it, and hands on each line as it comes.
    pub fn run(&self, mut on_line: impl FnMut(Line<'_>)) -> Result<End> {
        let mut qemu = self.command().spawn().with_context(|| format!("{QEMU} could not be run"))?;
        let console = qemu.stdout.take().context("the console of the virtual machine cannot be read")?;
        let end = follow(console, self.silence, &mut on_line);
        end_of(&mut qemu)?;
        Ok(end)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(QEMU);
        command
            // No disk, no network card, no display: the console alone, on our pipe.
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-m"])
            .arg(self.memory_mib.to_string())
            // A kernel that panics reboots at once, and a machine that reboots ends.
            .args(["-no-reboot", "-append", "console=ttyS0 quiet panic=-1"])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        match self.time {
            Time::Real => command.args(["-accel", "tcg,thread=multi", "-smp", "2"]),
            Time::Instructions => command.args(["-accel", "tcg", "-icount", "shift=0,sleep=off", "-smp", "1"]),
        };
        command
    }
}

/// Whether or not it has ended by itself, it has now.
fn end_of(qemu: &mut Child) -> Result<()> {
    // Fails where it has ended, which is what we want.
    let _ended = qemu.kill();
    qemu.wait().map(drop).with_context(|| format!("{QEMU} could not be waited for"))
}

fn follow(console: ChildStdout, silence: Duration, on_line: &mut impl FnMut(Line<'_>)) -> End {
    const LAST_LINES: usize = 40;
    let (sender, lines) = mpsc::channel();
    // On a thread of its own, because a pipe can't be read with a time limit. It ends with the pipe.
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let mut last = VecDeque::with_capacity(LAST_LINES);
    loop {
        match lines.recv_timeout(silence) {
            Ok(line) => {
                let parsed = parse(&line);
                if parsed == Line::Message("end", "") {
                    return End::Done;
                }
                on_line(parsed);
                if last.len() == LAST_LINES {
                    last.pop_front();
                }
                last.push_back(line);
            }
            Err(RecvTimeoutError::Disconnected) => return End::Early(last.into()),
            Err(RecvTimeoutError::Timeout) => return End::Silent(last.into()),
        }
    }
}

fn parse(line: &str) -> Line<'_> {
    match line.strip_prefix(PREFIX) {
        Some(message) => {
            let (word, rest) = message.split_once(' ').unwrap_or((message, ""));
            Line::Message(word, rest)
        }
        None => Line::Other(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of a machine that prints what this piece of shell prints.
    fn followed(script: &str, silence: Duration) -> (End, Vec<String>) {
        let mut shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = Vec::new();
        let end = follow(shell.stdout.take().unwrap(), silence, &mut |line| lines.push(format!("{line:?}")));
        end_of(&mut shell).unwrap();
        (end, lines)
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn a_machine_that_says_that_it_has_ended_is_done() {
        let (end, lines) = followed("echo 'vm: passed a::b'; echo other; echo 'vm: end'; exec sleep 60", PATIENCE);
        assert_eq!(end, End::Done);
        assert_eq!(lines, [r#"Message("passed", "a::b")"#, r#"Other("other")"#]);
    }

    #[test]
    fn a_machine_that_stops_before_its_end_has_panicked_and_its_last_words_are_kept() {
        let (end, _) = followed("echo 'vm: kernel 6'; echo 'Kernel panic - not syncing: \u{fffd}'", PATIENCE);
        assert_eq!(end, End::Early(vec!["vm: kernel 6".into(), "Kernel panic - not syncing: \u{fffd}".into()]));
    }

    #[test]
    fn a_machine_that_falls_silent_is_ended() {
        // On a busy machine the shell may not come to say anything in the shortest time.
        let end = [200, 2_000, 20_000]
            .into_iter()
            .map(|silence_ms| followed("echo on; exec sleep 600", Duration::from_millis(silence_ms)).0)
            .find(|end| *end != End::Silent(vec![]));
        assert_eq!(end, Some(End::Silent(vec!["on".into()])));
    }
}
