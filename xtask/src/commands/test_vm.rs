//! `cargo xtask test-vm`: the tests of the kernel side, inside other kernels than this machine's.
//!
//! The test program is the one that `cargo xtask test` runs too: same profile, same features, so that it is not built twice.
//!
//! What fails is run once more in a fresh machine, and is named in the count if it passes there: an emulated processor may run
//! what it had translated before the kernel patched it, and then the machine panics, whatever test was running.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    panic,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    commands::setup,
    kernel_object,
    process::probe,
    requirements::Need,
    vm::{
        initramfs,
        kernel::Series,
        machine::{End, Line, MEMORY_MIB, Machine, Time},
        program,
    },
    workspace::Workspace,
};

/// The integration test of the detector that needs nothing but a kernel.
const TEST: &str = "kernel";

/// The agent, which some of the tests start; cargo builds it with them. It is in the root folder there.
const AGENT: &str = "rosentry";

/// The ways to watch a kernel; each test is run with each.
const HOOKS: [&str; 2] = ["tracepoint", "fexit"];

/// Longer than any test may take, which the machine sees to itself: on a busy host an emulated machine is slow.
const SILENCE: Duration = Duration::from_secs(660);

/// Runs the tests whose name contains one of `filters` (none: all) in each of `kernels` (none: all that are known).
pub fn run(workspace: &Workspace, kernels: &[Series], filters: &[String]) -> Result<ExitCode> {
    let tools = setup::ensure(workspace, Need::VirtualMachine)?;
    kernel_object::build(workspace, &tools)?;
    let [built, agent] = program::build_all(
        workspace,
        "building the tests of the kernel side",
        [TEST, AGENT],
        &["test", "--workspace", "--exclude", "detector-ebpf", "--test", TEST, "--no-run"],
    )?;
    let tests = tests_of(&built, filters)?;
    let runs: Vec<String> =
        HOOKS.iter().flat_map(|hooks| tests.iter().map(move |test| format!("{hooks} {test}"))).collect();
    let program = program::stripped(workspace, &built, TEST)?;
    let agent = program::stripped(workspace, &agent, AGENT)?;
    let mut others: Vec<_> = program::libraries(&agent).into_iter().map(|library| (library.clone(), library)).collect();
    others.push((Path::new("/").join(AGENT), agent));

    let kernels = if kernels.is_empty() { &[Series::V6_1, Series::V6_12] } else { kernels };
    let images = kernels.iter().map(|&series| Ok((series, series.image(workspace)?))).collect::<Result<Vec<_>>>()?;
    // At once: a machine hardly ever has work for both its processors.
    let tallies = thread::scope(|scope| {
        let machines: Vec<_> = images
            .iter()
            .map(|(series, kernel)| {
                let initramfs = workspace.target().join(format!("vm/tests-{}.cpio", series.name()));
                let (program, others, runs) = (&program, &others, &runs);
                scope.spawn(move || run_in(*series, kernel, &initramfs, (program, others), runs))
            })
            .collect();
        machines
            .into_iter()
            .map(|machine| machine.join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>>>()
    })?;
    for tally in &tallies {
        println!("{}", tally.sentence());
    }
    let sum = |part: fn(&Tally) -> usize| tallies.iter().map(part).sum::<usize>();
    println!(
        "test-vm: {} passed{}, {} failed, {} not run",
        sum(|tally| tally.passed),
        flaky_words(sum(|tally| tally.flaky)),
        sum(|tally| tally.failed),
        sum(|tally| tally.not_run)
    );
    Ok(if tallies.iter().all(Tally::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests of a program in one kernel, those that fail once more, and reports each as it ends. With the program comes what
/// else is to be in the machine, by its path there.
fn run_in(
    series: Series,
    kernel: &Path,
    initramfs: &Path,
    (program, others): (&Path, &[(PathBuf, PathBuf)]),
    runs: &[String],
) -> Result<Tally> {
    let once = |runs: &[String]| -> Result<Tally> {
        initramfs::write(
            initramfs,
            &initramfs::Contents { program, job: include_str!("../vm/tests.sh"), words: runs, modules: &[], others },
        )?;
        let mut results = Results::new(series, runs);
        let machine = Machine { kernel, initramfs, memory_mib: MEMORY_MIB, time: Time::Real, silence: SILENCE };
        let end = machine.run(|line| results.take(line))?;
        Ok(results.finish(&end))
    };
    let tally = once(runs)?;
    if tally.unpassed.is_empty() {
        return Ok(tally);
    }
    println!("    {}: once more in a fresh machine: {}", series.name(), tally.unpassed.join(", "));
    let again = once(&tally.unpassed)?;
    Ok(tally.with_second_try(again))
}

/// The tests of the program whose name contains one of `filters`, those apart that are ignored. Asked here and not in the
/// machine, so that it can be told whether all were run there.
fn tests_of(program: &Path, filters: &[String]) -> Result<BTreeSet<String>> {
    let listed = |more: &[&str]| {
        probe(Command::new(program).args(["--list", "--format", "terse"]).args(more).args(filters))
            .with_context(|| format!("{} does not list its tests", program.display()))
    };
    let tests: BTreeSet<String> =
        names_among(&listed(&[])?).difference(&names_among(&listed(&["--ignored"])?)).cloned().collect();
    if tests.is_empty() {
        bail!("no test has a name that contains {}: name one of `cargo nextest list`", filters.join(" or "));
    }
    Ok(tests)
}

/// The tests in what libtest lists.
fn names_among(listed: &str) -> BTreeSet<String> {
    listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// What came of the tests in one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tally {
    kernel: String,
    passed: usize,
    failed: usize,
    /// Those that should have been run and were not.
    not_run: usize,
    /// Those of the passed that passed at the second try only.
    flaky: usize,
    /// What failed, then what was not run.
    unpassed: Vec<String>,
    /// Why not all tests were run, where the machine did not come to its end.
    cut_short: Option<&'static str>,
    /// The same of the first of two tries, where the second came to its end.
    at_first: Option<&'static str>,
}

impl Tally {
    fn is_good(&self) -> bool {
        self.cut_short.is_none() && self.failed == 0 && self.not_run == 0 && self.passed > 0
    }

    /// What came of both tries, `again` being that of the tests that had not passed.
    fn with_second_try(self, again: Self) -> Self {
        // Those that failed come first; what was never begun before is no flaky test.
        let failed = self.unpassed.iter().take(self.failed);
        let flaky = failed.filter(|&test| !again.unpassed.contains(test)).count();
        let at_first = again.cut_short.is_none().then_some(self.cut_short).flatten();
        Self { passed: self.passed + again.passed, flaky, at_first, ..again }
    }

    fn sentence(&self) -> String {
        let Self { kernel, passed, failed, not_run, flaky, unpassed: _, cut_short, at_first } = self;
        let mut note = cut_short.map(|why| format!("; {why}")).unwrap_or_default();
        note.extend(at_first.map(|why| format!("; at the first try {why}")));
        format!("kernel {kernel}: {passed} passed{}, {failed} failed, {not_run} not run{note}", flaky_words(*flaky))
    }
}

/// The words that nextest has for it.
fn flaky_words(flaky: usize) -> String {
    if flaky == 0 { String::new() } else { format!(" ({flaky} flaky)") }
}

/// Reads the console of a machine that runs tests, and reports as they come.
struct Results {
    series: Series,
    tally: Tally,
    /// What is to be run yet.
    left: BTreeSet<String>,
    current: Option<Test>,
}

/// The test that is running.
struct Test {
    name: String,
    began: Instant,
    output: Vec<String>,
}

impl Results {
    fn new(series: Series, runs: &[String]) -> Self {
        let tally = Tally {
            kernel: series.name().to_owned(),
            passed: 0,
            failed: 0,
            not_run: 0,
            flaky: 0,
            unpassed: Vec::new(),
            cut_short: None,
            at_first: None,
        };
        Self { series, tally, left: runs.iter().cloned().collect(), current: None }
    }

    fn take(&mut self, line: Line<'_>) {
        match line {
            Line::Message("kernel", release) => {
                release.clone_into(&mut self.tally.kernel);
                println!("kernel {release}");
            }
            Line::Message("test", name) => {
                self.current = Some(Test { name: name.to_owned(), began: Instant::now(), output: Vec::new() });
            }
            Line::Message("exit", code) => self.end_test(code == "0"),
            Line::Message(..) => {}
            Line::Other(text) => {
                if let Some(test) = &mut self.current {
                    test.output.push(text.to_owned());
                }
            }
        }
    }

    fn end_test(&mut self, exited_well: bool) {
        let Some(test) = self.current.take() else { return };
        self.left.remove(&test.name);
        // A program that runs no test exits well, too.
        let ran = test.output.iter().any(|line| line.starts_with("test result: ok. 1 passed"));
        if exited_well && ran {
            self.tally.passed += 1;
            test.report("PASS", self.series, false);
        } else {
            self.tally.failed += 1;
            test.report("FAIL", self.series, true);
            self.tally.unpassed.push(test.name);
        }
    }

    fn finish(mut self, end: &End) -> Tally {
        if let Some(test) = &self.current {
            self.left.remove(&test.name);
        }
        self.tally.not_run = self.left.len();
        self.tally.unpassed.extend(self.current.iter().map(|test| test.name.clone()));
        self.tally.unpassed.extend(self.left.iter().cloned());
        for run in &self.left {
            println!("    NOT RUN {} {run}", self.series.name());
        }
        let (why, last_lines) = match end {
            End::Done => return self.tally,
            End::Early(last_lines) => ("the machine stopped before its tests were done", last_lines),
            End::Silent(last_lines) => ("the machine hung", last_lines),
        };
        self.tally.cut_short = Some(why);
        if let Some(test) = self.current.take() {
            // Its output is among the last lines.
            self.tally.failed += 1;
            Test { output: Vec::new(), ..test }.report("FAIL", self.series, true);
        }
        let mut said = format!("    {}: {why}; its last lines:", self.series.name());
        for line in last_lines {
            let _always_ok = write!(said, "\n    {line}");
        }
        println!("{said}");
        self.tally
    }
}

impl Test {
    /// In one piece: the other kernel's tests report at the same time.
    fn report(&self, word: &str, series: Series, all_output: bool) {
        let mut said =
            format!("    {word} [{:6.1}s] {} {}", self.began.elapsed().as_secs_f32(), series.name(), self.name);
        for line in self.output.iter().filter(|line| all_output || is_of_the_test(line)) {
            let _always_ok = write!(said, "\n        {line}");
        }
        println!("{said}");
    }
}

/// Whether a test has printed this line, rather than libtest around it.
fn is_of_the_test(line: &str) -> bool {
    !line.is_empty() && !["running ", "test "].iter().any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally_of(lines: &[Line<'_>], end: &End) -> Tally {
        let mut results = Results::new(Series::V6_1, &["fexit a::b".to_owned()]);
        for &line in lines {
            results.take(line);
        }
        results.finish(end)
    }

    const OK: Line<'_> = Line::Other("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 16 filtered out");
    const NONE: Line<'_> = Line::Other("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 17 filtered out");
    const BEGINNING: [Line<'_>; 2] =
        [Line::Message("kernel", "6.1.0-1-cloud-amd64"), Line::Message("test", "fexit a::b")];

    #[test]
    fn a_test_that_exits_well_and_ran_has_passed() {
        let [kernel, test] = BEGINNING;
        let tally = tally_of(&[kernel, test, OK, Line::Message("exit", "0")], &End::Done);
        assert_eq!(tally.sentence(), "kernel 6.1.0-1-cloud-amd64: 1 passed, 0 failed, 0 not run");
        assert!(tally.is_good());
    }

    #[test]
    fn a_test_that_exits_badly_has_failed() {
        let [kernel, test] = BEGINNING;
        let passed = [test, OK, Line::Message("exit", "0")];
        let failed = [test, Line::Other("thread 'a::b' panicked"), Line::Message("exit", "101")];
        let tally = tally_of(&[&[kernel], passed.as_slice(), &failed].concat(), &End::Done);
        assert_eq!((tally.passed, tally.failed), (1, 1));
        assert!(!tally.is_good());
    }

    #[test]
    fn a_machine_in_which_a_test_was_not_run_is_not_good() {
        let [kernel, test] = BEGINNING;
        let none = tally_of(&[kernel], &End::Done);
        assert_eq!(none.sentence(), "kernel 6.1.0-1-cloud-amd64: 0 passed, 0 failed, 1 not run");
        assert!(!none.is_good());
        let other = [Line::Message("test", "tracepoint a::b"), OK, Line::Message("exit", "0")];
        assert!(!tally_of(&other, &End::Done).is_good());
        let empty = tally_of(&[kernel, test, NONE, Line::Message("exit", "0")], &End::Done);
        assert_eq!((empty.failed, empty.not_run), (1, 0));
    }

    #[test]
    fn a_machine_that_panics_or_hangs_is_not_good_whatever_passed_before() {
        let [kernel, test] = BEGINNING;
        for end in [End::Early(vec!["Kernel panic".into()]), End::Silent(vec![])] {
            let passed = tally_of(&[kernel, test, OK, Line::Message("exit", "0")], &end);
            assert!(!passed.is_good(), "{end:?}");
            let during = tally_of(&[kernel, test], &end);
            assert_eq!((during.passed, during.failed, during.not_run), (0, 1, 0));
        }
    }

    #[test]
    fn what_passes_at_the_second_try_is_counted_and_named_flaky() {
        let [kernel, test] = BEGINNING;
        let failed = [kernel, test, Line::Other("thread 'a::b' panicked"), Line::Message("exit", "101")];
        let first = tally_of(&failed, &End::Done);
        assert_eq!(first.unpassed, ["fexit a::b"]);
        let both = first.clone().with_second_try(tally_of(&[kernel, test, OK, Line::Message("exit", "0")], &End::Done));
        assert_eq!(both.sentence(), "kernel 6.1.0-1-cloud-amd64: 1 passed (1 flaky), 0 failed, 0 not run");
        assert!(both.is_good());
        let twice = first.with_second_try(tally_of(&failed, &End::Done));
        assert_eq!((twice.passed, twice.failed, twice.is_good()), (0, 1, false));
    }

    #[test]
    fn what_a_machine_that_panicked_left_over_is_not_called_flaky_when_it_passes() {
        let [kernel, test] = BEGINNING;
        let first = tally_of(&[kernel], &End::Early(vec!["Kernel panic".into()]));
        assert_eq!((first.not_run, first.unpassed.len()), (1, 1));
        let both = first.with_second_try(tally_of(&[kernel, test, OK, Line::Message("exit", "0")], &End::Done));
        assert_eq!((both.passed, both.flaky, both.is_good()), (1, 0, true));
        assert!(both.sentence().ends_with("; at the first try the machine stopped before its tests were done"));
        let during = tally_of(&[kernel, test], &End::Early(vec!["Kernel panic".into()]));
        assert_eq!(during.unpassed, ["fexit a::b"]);
    }

    #[test]
    fn the_names_of_tests_are_read_from_what_libtest_lists() {
        let names = names_among("a::b: test\nc: benchmark\n\nd: test\n");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a::b", "d"]);
    }

    #[test]
    fn what_libtest_says_around_a_test_is_not_shown_and_what_the_test_says_is() {
        assert!(is_of_the_test("fchmodat2: skipped, this kernel does not have it"));
        assert!(!is_of_the_test("test result: ok. 1 passed; 0 failed"));
        assert!(!is_of_the_test("running 1 test"));
        assert!(!is_of_the_test(""));
    }
}
