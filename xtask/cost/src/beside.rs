//! A tool that watches the machine meanwhile: started outside of the container, told when to begin, and asked what it has seen.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// Where its diagnostics go.
const DIAGNOSTICS: &str = "/tmp/diagnostics";
/// How many lines of them are shown.
const SHOWN: usize = 12;
/// Until it has begun. Idle time passes at once where the clock counts instructions.
const BEGUN: Duration = Duration::from_secs(40);
/// Until it has told what it has in its buffers.
const EMPTIED: Duration = Duration::from_secs(5);
/// Until it has ended, in steps.
const ENDED: (u32, Duration) = (200, Duration::from_millis(100));

/// What there is to know of a tool, from the command line: `NAME MARK FILE COMMAND`.
pub struct Tool {
    /// In the table.
    pub name: String,
    /// What is in each line that tells of one of our refused writes.
    mark: String,
    /// The file in which it tells them.
    file: String,
    /// A line of shell script, which becomes the tool.
    command: String,
}

/// A tool, before or after it has begun.
pub struct Beside {
    tool: Tool,
    /// Waits for one line of input before it becomes the tool.
    process: Child,
    told: File,
    diagnostics: File,
}

impl Tool {
    /// Of four words.
    pub fn of(words: &[String]) -> Result<Self> {
        let [name, mark, file, command] = words else { bail!("a tool is told by NAME MARK FILE COMMAND") };
        let [name, mark, file, command] = [name, mark, file, command].map(Clone::clone);
        Ok(Self { name, mark, file, command })
    }

    /// Where it will stand, before this process moves to another root.
    pub fn ready(self) -> Result<Beside> {
        let made = |path: &str| {
            File::create(path)?;
            // To append, for a tool that writes to its standard output; ours to read has its own place in it.
            Ok::<_, std::io::Error>((File::options().append(true).open(path)?, File::open(path)?))
        };
        let (output, told) = made(&self.file).with_context(|| format!("{} could not be made", self.file))?;
        let (errors, diagnostics) = made(DIAGNOSTICS).context("no place for diagnostics")?;
        let process = Command::new("/bin/sh")
            .args(["-c", &format!("read begin; {}", self.command)])
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("{} could not be started", self.name))?;
        Ok(Beside { tool: self, process, told, diagnostics })
    }
}

impl Beside {
    /// Lets it begin, and waits until it has.
    pub fn begin(&mut self) -> Result<()> {
        let input = self.process.stdin.as_mut().context("the tool has no input")?;
        input.write_all(b"\n")?;
        sleep(BEGUN);
        self.check()
    }

    /// Whether it still watches.
    ///
    /// # Errors
    /// What it said, where it has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("{} ended with {status}: {}", self.tool.name, first_of(&all_of(&mut self.diagnostics)?));
        }
        Ok(())
    }

    /// Ends it: how many refused writes it has told, and how many it says that it lost.
    pub fn end(mut self) -> Result<(u64, u64)> {
        sleep(EMPTIED);
        // Some tools write out what they have at the one, others end at the other alone.
        for signal in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: no memory is involved, and the process is ours and not waited for.
            unsafe { libc::kill(self.process.id().cast_signed(), signal) };
            for _ in 0..ENDED.0 {
                if self.process.try_wait()?.is_some() {
                    break;
                }
                sleep(ENDED.1);
            }
            if self.process.try_wait()?.is_some() {
                break;
            }
        }
        if self.process.try_wait()?.is_none() {
            self.process.kill()?;
            self.process.wait()?;
        }
        let (told, said) = (all_of(&mut self.told)?, all_of(&mut self.diagnostics)?);
        let count = counted(&told, &self.tool.mark);
        if count == 0 {
            println!("{} told nothing of it", self.tool.name);
            println!("it said: {} / {}", first_of(&told), first_of(&said));
        }
        Ok((count, said_to_be_lost(&told) + said_to_be_lost(&said)))
    }
}

fn all_of(file: &mut File) -> Result<String> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn first_of(text: &str) -> String {
    text.lines().take(SHOWN).collect::<Vec<_>>().join(" / ")
}

/// What stands before and behind the numbers in the words in which a tool says what it lost. auditd says it to nobody who does not ask.
const LOST: [(&str, &str); 3] = [
    // bpftrace and libbpf-tools: `Lost 64 events on CPU #0!`.
    ("Lost ", " events"),
    // ftrace, between two lines of trace_pipe (`print_trace_line` of kernel/trace/trace_output.c, 6.18): `CPU:0 [LOST 6 EVENTS]`.
    ("[LOST ", " EVENTS]"),
    // rosentry, by stage (docs/events.md): `"what":"lost","events":{"budget":30,"ring":2}`.
    ("\"what\":\"lost\",\"events\":{", "}"),
];

/// The sum of what a tool says that it lost.
fn said_to_be_lost(text: &str) -> u64 {
    let between = |line: &str| {
        let numbers = LOST.iter().find_map(|(before, behind)| {
            let (numbers, _) = line.split_once(before)?.1.split_once(behind)?;
            Some(numbers.to_owned())
        })?;
        Some(numbers.split(|character: char| !character.is_ascii_digit()).flat_map(str::parse::<u64>).sum::<u64>())
    };
    text.lines().filter_map(between).sum()
}

/// Writes in lines with this mark: one each, or as many as the line says in its member `count`.
fn counted(told: &str, mark: &str) -> u64 {
    const COUNT: &str = "\"count\":";
    let of_line = |line: &str| {
        let after = line.split_once(COUNT)?.1;
        after.split(|character: char| !character.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    told.lines().filter(|line| line.contains(mark)).map(|line| of_line(line).unwrap_or(1)).sum()
}

/// The processor's time of all other processes, the kernel's threads among them.
pub fn time_of_others() -> Duration {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = std::process::id().cast_signed();
    numbers.filter(|&process| process != ours).filter_map(time_of).sum()
}

/// That of one process, exact to the nanosecond; none when it has ended meanwhile.
pub fn time_of(process: i32) -> Option<Duration> {
    // CPUCLOCK_SCHED of a whole process, as clock_getcpuclockid(3) makes it (include/linux/posix-timers.h, 6.18).
    const SCHEDULED: i32 = 2;
    let clock = (!process << 3) | SCHEDULED;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a clock's number, and a place for its time.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    (result == 0).then(|| Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_once_or_as_often_as_it_says() {
        let told = "TIME COMM\n12 program -30\n13 other -30\n{\"x\":\"program\",\"count\":41,\"y\":2}\n";
        assert_eq!(counted(told, "program"), 42);
        assert_eq!(counted(told, "nobody"), 0);
    }

    #[test]
    fn what_a_tool_says_in_its_own_words_that_it_lost_is_summed_up() {
        for (said, lost) in [
            ("Lost 64 events\nrefused program 71 257\nLost 5 events\n", 69),
            ("Lost 12 events on CPU #0!\n71 program -1 30 /var/cache/app/lost+found 17\n", 12),
            ("CPU:0 [LOST 6 EVENTS]\n program-71 [000] ..... 41.270861: sys_exit: NR 257 = -30\n", 6),
            (
                r#"{"kind":"agent","agent":{"what":"lost","events":{"budget":30,"ring_writes":4},"kinds":{"write_denied":34}}}"#,
                34,
            ),
            (r#"{"kind":"write_denied","count":3,"file":{"path":"/var/cache/app/Lost 9"}}"#, 0),
        ] {
            assert_eq!(said_to_be_lost(said), lost, "{said}");
        }
    }

    #[test]
    fn the_time_of_a_process_is_that_which_it_has_used() {
        let ours = std::process::id().cast_signed();
        let before = time_of(ours).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while time_of(ours).unwrap() == before && std::time::Instant::now() < deadline {}
        assert!(time_of(ours).unwrap() > before);
        assert_eq!(time_of(i32::MAX >> 4), None);
    }
}
