//! The lab's part in all of them: the folder with the writers, which containers have as a volume, and the containers that run them.

use std::{
    fs,
    future::poll_fn,
    path::{Path, PathBuf},
    process::Command,
    task::Poll,
    time::Duration,
};

use jiff::Timestamp;

use crate::support::{
    Lab, patiently,
    pod::{Container, ContainerSpec, Pod, sealed},
};

/// Where containers have the folder.
const POINT: &str = "/proof";

/// A folder of the lab's, mounted in each container.
pub struct Work {
    folder: PathBuf,
}

impl Work {
    /// In a lab of its own, whose containerd runs.
    pub async fn in_lab() -> (Lab, Self) {
        let lab = Lab::start().await;
        let work = Self::new(&lab, &[]);
        (lab, work)
    }

    /// With the writer compiled, under several names: for the kernel these are several executables.
    pub fn new(lab: &Lab, names: &[String]) -> Self {
        let folder = lab.containerd.path("proof");
        fs::create_dir(&folder).expect("the lab's folder can be written");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/proof/writer.c");
        let compiled = Command::new("gcc")
            .args(["-static", "-O2", "-Wall", "-Werror", "-s", "-o"])
            .args([&folder.join("writer"), &source])
            .status()
            .expect("gcc is installed");
        assert!(compiled.success(), "gcc compiles writer.c");
        for name in names {
            fs::copy(folder.join("writer"), folder.join(name)).expect("the lab's folder can be written");
        }
        Self { folder }
    }

    /// A container to be, with a sealed root and the folder.
    pub fn container<const N: usize>(&self, command: [&str; N]) -> ContainerSpec {
        sealed(command).with_volume(&self.folder, POINT)
    }

    /// Starts one that writes so often with a pause, to a path of its own each time.
    pub async fn probe(&self, pod: &Pod, pause: Duration, writes: usize) -> Probe {
        let report = format!("{POINT}/probe-{}", pod.name);
        let words = [pause.as_micros().to_string(), writes.to_string()];
        let spec = self.container([&format!("{POINT}/writer"), "probe", &pod.name, &words[0], &words[1], &report]);
        let container = pod.start_container(spec).await;
        Probe { report: self.folder.join(format!("probe-{}", pod.name)), container }
    }

    /// What a writer has left here under that name; none yet where it still writes.
    pub fn report(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(name)).ok().filter(|text| text.ends_with('\n'))
    }
}

/// A container that writes now and then.
pub struct Probe {
    report: PathBuf,
    /// The container.
    pub container: Container,
}

impl Probe {
    /// What it was refused up to now: path and time of each.
    pub fn refused(&self) -> Vec<(String, Timestamp)> {
        let text = fs::read_to_string(&self.report).unwrap_or_default();
        let line = |line: &str| {
            let (path, time) = line.split_once(' ')?;
            Some((path.to_owned(), Timestamp::from_nanosecond(time.parse().ok()?).ok()?))
        };
        text.lines().filter_map(line).collect()
    }

    /// Waits for its end, so long at most.
    pub async fn done(&self, patience: Duration) {
        patiently(patience, "the probe is done", async || {
            tokio::time::sleep(Duration::from_millis(50)).await;
            fs::read_to_string(&self.report).is_ok_and(|text| text.ends_with("done\n"))
        })
        .await;
    }
}

/// All at once, on this task.
pub async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(move |context| {
        let mut all = true;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => all = false,
                }
            }
        }
        if all {
            Poll::Ready(futures.iter_mut().filter_map(|(_, output)| output.take()).collect())
        } else {
            Poll::Pending
        }
    })
    .await
}
