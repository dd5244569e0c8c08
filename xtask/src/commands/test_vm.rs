//! `cargo xtask test-vm`: the tests of the kernel side, inside other kernels than this machine's.
//!
//! The test program is the one that `cargo xtask test` runs too: same profile, same features, so that it is not built twice.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    commands::setup,
    kernel_object,
    requirements::Need,
    vm::{
        initramfs,
        kernel::Series,
        machine::{End, Line, Machine, Time},
        program,
    },
    workspace::Workspace,
};

/// The integration test of the detector that needs nothing but a kernel.
const TEST: &str = "kernel";

/// Longer than any test may take, which the machine sees to itself.
const SILENCE: Duration = Duration::from_secs(180);

/// Runs the tests whose name contains one of `filters` (none: all) in each of `kernels` (none: all that are known).
pub fn run(workspace: &Workspace, kernels: &[Series], filters: &[String]) -> Result<ExitCode> {
    let tools = setup::ensure(workspace, Need::VirtualMachine)?;
    kernel_object::build(workspace, &tools)?;
    let built = program::build(
        workspace,
        "building the tests of the kernel side",
        TEST,
        &["test", "--workspace", "--exclude", "detector-ebpf", "--test", TEST, "--no-run"],
    )?;
    let program = program::stripped(workspace, &built, TEST)?;
    let initramfs = workspace.target().join("vm/tests.cpio");
    initramfs::write(
        &initramfs,
        &initramfs::Contents { program: &program, job: include_str!("../vm/tests.sh"), words: filters, modules: &[] },
    )?;

    let kernels = if kernels.is_empty() { &[Series::V6_1, Series::V6_12] } else { kernels };
    let mut tallies = Vec::new();
    for &series in kernels {
        let kernel = series.image(workspace)?;
        let mut results = Results::new(series);
        let machine = Machine { kernel: &kernel, initramfs: &initramfs, time: Time::Real, silence: SILENCE };
        let end = machine.run(|line| results.take(line))?;
        tallies.push(results.finish(&end));
    }
    for tally in &tallies {
        println!("{}", tally.sentence());
    }
    let all = tallies.iter().fold((0, 0), |(passed, failed), tally| (passed + tally.passed, failed + tally.failed));
    println!("test-vm: {} passed, {} failed", all.0, all.1);
    Ok(if tallies.iter().all(Tally::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of the tests in one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tally {
    kernel: String,
    passed: usize,
    failed: usize,
    /// Why not all tests were run, where the machine did not come to its end.
    cut_short: Option<&'static str>,
}

impl Tally {
    fn is_good(&self) -> bool {
        self.cut_short.is_none() && self.failed == 0 && self.passed > 0
    }

    fn sentence(&self) -> String {
        let Self { kernel, passed, failed, cut_short } = self;
        let note = match cut_short {
            Some(why) => format!("; {why}"),
            None if passed + failed == 0 => "; no test was run".to_owned(),
            None => String::new(),
        };
        format!("kernel {kernel}: {passed} passed, {failed} failed{note}")
    }
}

/// Reads the console of a machine that runs tests, and reports as they come.
struct Results {
    tally: Tally,
    current: Option<Test>,
}

/// The test that is running.
struct Test {
    name: String,
    began: Instant,
    output: Vec<String>,
}

impl Results {
    fn new(series: Series) -> Self {
        let tally = Tally { kernel: series.name().to_owned(), passed: 0, failed: 0, cut_short: None };
        Self { tally, current: None }
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
        // An ignored test exits well, too.
        let ran = test.output.iter().any(|line| line.starts_with("test result: ok. 1 passed"));
        let word = match (exited_well, ran) {
            (true, true) => {
                self.tally.passed += 1;
                "PASS"
            }
            (true, false) => "SKIP",
            (false, _) => {
                self.tally.failed += 1;
                "FAIL"
            }
        };
        test.report(word, !exited_well);
    }

    fn finish(mut self, end: &End) -> Tally {
        let (why, last_lines) = match end {
            End::Done => return self.tally,
            End::Early(last_lines) => ("the machine stopped before its tests were done", last_lines),
            End::Silent(last_lines) => ("the machine hung", last_lines),
        };
        self.tally.cut_short = Some(why);
        if let Some(test) = self.current.take() {
            // Its output is among the last lines.
            self.tally.failed += 1;
            Test { output: Vec::new(), ..test }.report("FAIL", true);
        }
        println!("    {why}; its last lines:");
        for line in last_lines {
            println!("    {line}");
        }
        self.tally
    }
}

impl Test {
    fn report(&self, word: &str, all_output: bool) {
        println!("    {word} [{:6.1}s] {}", self.began.elapsed().as_secs_f32(), self.name);
        for line in self.output.iter().filter(|line| all_output || is_of_the_test(line)) {
            println!("        {line}");
        }
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
        let mut results = Results::new(Series::V6_1);
        for &line in lines {
            results.take(line);
        }
        results.finish(end)
    }

    const OK: Line<'_> = Line::Other("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 16 filtered out");
    const IGNORED: Line<'_> =
        Line::Other("test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 16 filtered out");
    const BEGINNING: [Line<'_>; 2] = [Line::Message("kernel", "6.1.0-1-cloud-amd64"), Line::Message("test", "a::b")];

    #[test]
    fn a_test_that_exits_well_and_ran_has_passed() {
        let [kernel, test] = BEGINNING;
        let tally = tally_of(&[kernel, test, OK, Line::Message("exit", "0")], &End::Done);
        assert_eq!(tally.sentence(), "kernel 6.1.0-1-cloud-amd64: 1 passed, 0 failed");
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
    fn a_machine_in_which_no_test_ran_is_not_good() {
        let [kernel, test] = BEGINNING;
        let none = tally_of(&[kernel], &End::Done);
        assert_eq!(none.sentence(), "kernel 6.1.0-1-cloud-amd64: 0 passed, 0 failed; no test was run");
        assert!(!none.is_good());
        let ignored = tally_of(&[kernel, test, IGNORED, Line::Message("exit", "0")], &End::Done);
        assert!(!ignored.is_good());
    }

    #[test]
    fn a_machine_that_panics_or_hangs_is_not_good_whatever_passed_before() {
        let [kernel, test] = BEGINNING;
        for end in [End::Early(vec!["Kernel panic".into()]), End::Silent(vec![])] {
            let passed = tally_of(&[kernel, test, OK, Line::Message("exit", "0")], &end);
            assert!(!passed.is_good(), "{end:?}");
            let during = tally_of(&[kernel, test], &end);
            assert_eq!((during.passed, during.failed), (0, 1));
        }
    }

    #[test]
    fn what_libtest_says_around_a_test_is_not_shown_and_what_the_test_says_is() {
        assert!(is_of_the_test("fchmodat2: skipped, this kernel does not have it"));
        assert!(!is_of_the_test("test result: ok. 1 passed; 0 failed"));
        assert!(!is_of_the_test("running 1 test"));
        assert!(!is_of_the_test(""));
    }
}
