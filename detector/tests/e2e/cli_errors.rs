//! Command-line errors: what makes a run impossible is said in one sentence, with exit code 2 and nothing left in the kernel.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, net::UnixListener, process::CommandExt as _},
    path::Path,
    process::Command,
    thread,
};

use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use tempfile::TempDir;

use super::support::{
    Lab,
    agent::{Agent, PATIENCE, PROGRAM, free_address, run_command, run_command_by},
    alone,
    kernel_objects::KernelObjects,
    patiently,
};

/// The tests that need no containerd name a socket that no one has.
const NO_SOCKET: &str = "/nonexistent/containerd.sock";
/// Debian's `nobody`.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn a_user_who_is_not_root_is_told_what_is_missing() {
    let _alone = alone().await;
    // The program may lie where only root may look.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("rosentry");
    fs::copy(PROGRAM, &program).expect("the program is copied");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("the folder is opened to all");
    let program = program.to_str().expect("temporary folders have plain names");
    let mut command = run_command_by(&[program], Path::new(NO_SOCKET), free_address());
    command.uid(NOBODY).gid(NOBODY);

    let sentence = refusal_of(command).await;

    assert!(sentence.contains("root") || sentence.contains("CAP_BPF"), "{sentence}");
}

#[tokio::test]
async fn a_root_without_cap_bpf_is_told_so() {
    let _alone = alone().await;
    let mut command = run_command(Path::new(NO_SOCKET), free_address());
    // SAFETY: between fork and exec the closure only makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            remove_capability_from_bounding_set(CapabilitySet::BPF)?;
            // It would do instead of CAP_BPF.
            remove_capability_from_bounding_set(CapabilitySet::SYS_ADMIN)?;
            Ok(())
        });
    }

    let sentence = refusal_of(command).await;

    assert!(sentence.contains("CAP_BPF"), "{sentence}");
}

#[tokio::test]
async fn a_socket_of_something_else_than_containerd_is_named() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("other.sock");
    let listener = UnixListener::bind(&socket).expect("the socket is free");
    // Ends with the test process; it answers as a web server would.
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });

    let sentence = refusal_of(run_command(&socket, free_address())).await;

    assert!(sentence.contains(&socket.display().to_string()), "{sentence}");
    assert!(sentence.contains("containerd"), "{sentence}");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let lab = Lab::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = listener.local_addr().expect("the listener has an address");

    let sentence = refusal_of(run_command(&lab.containerd.socket(), taken)).await;

    assert!(sentence.contains(&taken.to_string()), "{sentence}");
}

#[tokio::test]
async fn an_unknown_key_of_the_configuration_is_named() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");

    let sentence = refusal_of(with_config(&folder, "hoooks = \"auto\"\n")).await;

    assert!(sentence.contains("hoooks"), "{sentence}");
}

#[tokio::test]
async fn a_configuration_that_is_not_there_is_named() {
    let _alone = alone().await;
    let mut command = run_command(Path::new(NO_SOCKET), free_address());
    command.args(["--config", "/nonexistent/rosentry.toml"]);

    let sentence = refusal_of(command).await;

    assert!(sentence.contains("/nonexistent/rosentry.toml"), "{sentence}");
}

#[tokio::test]
async fn a_kernel_without_btf_is_told_so() {
    let _alone = alone().await;
    let launcher = ["unshare", "--mount", "sh", "-c", &hiding(&["/sys/kernel/btf"]), PROGRAM];

    let sentence = refusal_of(run_command_by(&launcher, Path::new(NO_SOCKET), free_address())).await;

    assert!(sentence.contains("BTF"), "{sentence}");
}

#[tokio::test]
async fn a_node_without_tracefs_is_served_all_the_same_or_told_so() {
    let lab = Lab::start().await;
    let metrics = free_address();
    let script = hiding(&["/sys/kernel/tracing", "/sys/kernel/debug"]);
    let launcher = ["unshare", "--mount", "sh", "-c", &script, PROGRAM];
    let command = run_command_by(&launcher, &lab.containerd.socket(), metrics);
    let mut agent = Agent::from_command(command, metrics);

    let mut ready = false;
    patiently(PATIENCE, "the agent is ready or gives up", async || {
        ready = agent.status("/readyz").await == Some(200);
        ready || agent.has_ended()
    })
    .await;

    if ready {
        let held = agent.kernel_objects();
        agent.stop().await;
        is_released(&held).await;
    } else {
        assert_eq!(agent.ended_within(PATIENCE).await.code(), Some(2));
        assert!(the_sentence(&agent.log()).contains("tracefs"), "{:#?}", agent.log());
    }
}

#[tokio::test]
async fn an_unknown_flag_is_named_with_the_way_to_the_help() {
    let _alone = alone().await;
    let mut command = run_command(Path::new(NO_SOCKET), free_address());
    command.arg("--nonsense");

    let refused = command.output().expect("the agent starts");

    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("--nonsense") && said.contains("--help"), "{said}");
    assert!(refused.stdout.is_empty());
}

/// Runs the agent until it gives up; asserts what holds for every refusal, and returns its sentence.
async fn refusal_of(command: Command) -> String {
    let mut agent = Agent::from_command(command, free_address());
    // It may come as far as to load its programs.
    let mut held = KernelObjects::default();
    patiently(PATIENCE, "the agent gives up", async || {
        agent.note_kernel_objects(&mut held);
        agent.has_ended()
    })
    .await;
    let ended = agent.ended_within(PATIENCE).await;
    let log = agent.log();
    assert_eq!(ended.code(), Some(2), "{log:#?}");
    assert!(agent.so_far().0.is_empty(), "no event of an agent that did not run");
    is_released(&held).await;
    the_sentence(&log)
}

async fn is_released(held: &KernelObjects) {
    patiently(PATIENCE, "the kernel has nothing of the agent's", async || held.left().are_none()).await;
}

/// The only line of a log, but for what the agent noted on its way there.
fn the_sentence(log: &[String]) -> String {
    let lines: Vec<&String> = log.iter().filter(|line| !line.contains(" INFO ")).collect();
    assert_eq!(lines.len(), 1, "one sentence on stderr: {log:#?}");
    let sentence = lines[0].clone();
    assert!(!sentence.contains("panicked") && !sentence.contains("Os {"), "a sentence for people: {sentence}");
    sentence
}

fn with_config(folder: &TempDir, text: &str) -> Command {
    let config = folder.path().join("rosentry.toml");
    fs::write(&config, text).expect("the configuration is written");
    let mut command = run_command(Path::new(NO_SOCKET), free_address());
    command.arg("--config").arg(config);
    command
}

/// A shell script for a mount namespace of its own, where these folders are empty; it becomes the program that follows.
fn hiding(folders: &[&str]) -> String {
    let mounts: String = folders.iter().map(|folder| format!("mount -t tmpfs hidden {folder} && ")).collect();
    format!("{mounts} exec \"$0\" \"$@\"")
}
