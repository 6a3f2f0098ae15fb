//! What stands between a worker's process and the machine, tried from within it; and that processes come and go as they should.
//!
//! Where a machine lacks a mechanism, the test says so, and checks that the report does too.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use provider_agent::{
    HostLimits, Isolation, IsolationMode,
    host::{HostError, Mechanism, Report, WorkerHost},
};

use crate::support::{Running, SANDBOXED, World, digest, eventually, guest, isolation};

/// A process's parent, state and CPU time in ticks.
fn stat(process: u32) -> Option<(u32, char, u64)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((number(1)?.try_into().ok()?, fields.first()?.chars().next()?, number(11)? + number(12)?))
}

pub fn cpu_of(process: u32) -> Duration {
    stat(process).map_or(Duration::ZERO, |(_, _, ticks)| Duration::from_millis(ticks * 10))
}

/// A process and all that come from it.
pub fn family(of: u32) -> Vec<u32> {
    let all: Vec<u32> =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    let mut family = vec![of];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|process| stat(**process).is_some_and(|(of, _, _)| of == parent)));
        next += 1;
    }
    family
}

fn is_alive(process: u32) -> bool {
    stat(process).is_some_and(|(_, state, _)| state != 'Z' && state != 'X')
}

fn kill(process: u32) {
    assert!(Command::new("kill").args(["-9", &process.to_string()]).status().unwrap().success());
}

/// Enters the sandbox of a worker and tries something there: what holds, what it said, and the signal that ended it.
fn look(arguments: &[&str]) -> (Report, String, Option<i32>) {
    let empty = tempfile::tempdir().unwrap();
    fs::set_permissions(empty.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(SANDBOXED)
        .args(["sandboxed", "look", empty.path().to_str().unwrap()])
        .args(arguments)
        .stdin(Stdio::null())
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    let (report, rest) = said.split_once('\n').unwrap_or_else(|| panic!("it said nothing: {said} {:?}", output.status));
    let signal = output.status.signal().or(output.status.code().filter(|code| *code > 128).map(|code| code - 128));
    (serde_json::from_str(report).unwrap(), rest.to_owned(), signal)
}

/// Whether a mechanism is there to be tested; says so where it is not, and that the report tells why.
fn is_there(report: &Report, mechanism: Mechanism) -> bool {
    let state = &report.0[&mechanism];
    if !state.active {
        let why = state.why.as_deref().unwrap_or_default();
        assert!(!why.is_empty(), "{mechanism:?} is missing for no reason");
        println!("NOT CHECKED, as this machine does not have it: {} ({why})", mechanism.name());
    }
    state.active
}

const SIGSYS: i32 = 31;

#[test]
fn a_worker_reaches_neither_network_nor_files_nor_processes() {
    let (report, said, signal) = look(&[]);
    assert_eq!((said.as_str(), signal), ("", None));
    assert_eq!(report.0.len(), Mechanism::ALL.len(), "every mechanism is told");
    if is_there(&report, Mechanism::Seccomp) {
        for attempt in ["connect", "listen", "fork", "execute", "trace"] {
            let (_, said, signal) = look(&[attempt]);
            assert_eq!((said.as_str(), signal), ("", Some(SIGSYS)), "{attempt}");
        }
        for attempt in ["read", "write", "list"] {
            let (_, said, _) = look(&[attempt]);
            assert!(said.contains("refused"), "{attempt}: {said}");
        }
        // What is allowed works, so that the sandbox is not simply a process that cannot do anything.
        assert_eq!(look(&["thread"]).1, "possible\n");
    }
    let layers = |mechanisms: &[Mechanism]| mechanisms.iter().filter(|one| is_there(&report, **one)).count() > 0;
    let refused_without_seccomp = |attempt: &str| {
        let (_, said, signal) = look(&[attempt, "without-seccomp"]);
        assert!(said.contains("refused") || signal.is_some(), "{attempt}: {said}");
    };
    if layers(&[Mechanism::NetworkNamespace, Mechanism::Landlock]) {
        refused_without_seccomp("connect");
    }
    if layers(&[Mechanism::EmptyRoot, Mechanism::Landlock]) {
        refused_without_seccomp("read");
        refused_without_seccomp("write");
    }
    if is_there(&report, Mechanism::EmptyRoot) && !report.is_active(Mechanism::Landlock) {
        assert!(look(&["list", "without-seccomp"]).1.contains("0 entries"));
    }
    println!("active here: {:?}", report.0.iter().filter(|(_, s)| s.active).map(|(m, _)| m.name()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_worker_is_in_the_sandbox_and_has_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let host = WorkerHost::new(folder.path(), HostLimits::default(), &isolation(IsolationMode::Process)).await.unwrap();
    let worker = start(&host).await;
    let report = worker.report().unwrap();
    assert_eq!(report, host.report(), "the worker's process is isolated as was tried at the start");
    let inner = *family(worker.process_id().unwrap()).last().unwrap();
    let status = fs::read_to_string(format!("/proc/{inner}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    if is_there(report, Mechanism::Seccomp) {
        assert_eq!(field("Seccomp"), "2");
    }
    if is_there(report, Mechanism::NoNewPrivileges) {
        assert_eq!(field("NoNewPrivs"), "1");
    }
    if is_there(report, Mechanism::NoCapabilities) {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(set).trim_start_matches('0'), "", "{set}");
        }
    }
    if is_there(report, Mechanism::UnprivilegedUser) {
        assert!(!field("Uid").split_whitespace().any(|id| id == "0"), "{}", field("Uid"));
    }
    // The rest is for the eyes of root alone, as no worker may look into another.
    let Ok(environment) = fs::read(format!("/proc/{inner}/environ")) else {
        println!("NOT CHECKED, as only root can: environment, descriptors and namespaces of the process");
        return;
    };
    assert!(!String::from_utf8_lossy(&environment).contains("WHARFAGE"));
    assert!(environment.len() < 64, "{:?}", String::from_utf8_lossy(&environment));
    let namespace = |process: &str, kind: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap();
    for (mechanism, kind) in [
        (Mechanism::UserNamespace, "user"),
        (Mechanism::NetworkNamespace, "net"),
        (Mechanism::MountNamespace, "mnt"),
        (Mechanism::IpcNamespace, "ipc"),
        (Mechanism::PidNamespace, "pid"),
    ] {
        if is_there(report, mechanism) {
            assert_ne!(namespace(&inner.to_string(), kind), namespace("self", kind), "{kind}");
        }
    }
    for descriptor in fs::read_dir(format!("/proc/{inner}/fd")).unwrap() {
        let target = fs::read_link(descriptor.unwrap().path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        let is_known = ["socket:", "pipe:", "anon_inode:", "/dev/null", folder.path().to_str().unwrap()];
        assert!(is_known.iter().any(|known| target.starts_with(known)), "{target}");
        assert!(!target.ends_with("compiled.key") && !target.ends_with(".db"), "{target}");
    }
}

async fn start(host: &WorkerHost) -> provider_agent::host::Worker {
    let hello = guest("hello");
    let module = host.load(digest(&hello), hello).await.unwrap();
    let spec = provider_agent::host::WorkerSpec {
        deal: common::ids::DealId([7; 32]),
        region: None,
        size: common::resources::Resources { milli_cpu: 1_000, memory_mib: 16 },
        features: common::feature::FeatureSet::EMPTY,
    };
    host.start(module, spec).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_requires_and_the_machine_lacks_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let open =
        async |isolation: Isolation| WorkerHost::new(folder.path(), HostLimits::default(), &isolation).await.err();
    let required = vec![Mechanism::Seccomp, Mechanism::Landlock];
    let nowhere = Isolation { required: required.clone(), ..isolation(IsolationMode::InProcess) };
    let error = open(nowhere).await.unwrap().to_string();
    assert!(error.contains("seccomp (isolation.mode is in-process), landlock"), "{error}");

    // A machine that lacks one thing, as its look says.
    let pretending = folder.path().join("pretending.sh");
    let script = format!(
        "#!/bin/sh\nif [ \"$2\" = look ]; then echo '{{\"seccomp\":{{\"active\":false,\"why\":\"pretended\"}}}}'; \
         else exec {SANDBOXED} \"$@\"; fi\n"
    );
    fs::write(&pretending, script).unwrap();
    fs::set_permissions(&pretending, fs::Permissions::from_mode(0o755)).unwrap();
    let lacking = Isolation { program: Some(pretending.clone()), ..isolation(IsolationMode::Process) };
    let error = open(Isolation { required: vec![Mechanism::Seccomp], ..lacking.clone() }).await.unwrap().to_string();
    assert!(error.contains("seccomp (pretended)"), "{error}");
    assert!(open(lacking.clone()).await.is_none(), "without being required it is done without");

    let no_program = Isolation { program: Some("/bin/true".into()), ..isolation(IsolationMode::Process) };
    let error = open(no_program).await.unwrap();
    assert!(
        matches!(error, HostError::NoProcesses { .. }) && error.to_string().contains("isolation.program"),
        "{error}"
    );

    let world = World::with_hello().await;
    let mut config = world.config();
    config.isolation = lacking;
    let agent = Running::start(config, world.agent_key.clone()).await.unwrap();
    let status: serde_json::Value = agent.get("/status").await.json().await.unwrap();
    let seccomp = serde_json::json!({ "active": false, "why": "pretended" });
    assert_eq!(status["isolation"]["mechanisms"]["seccomp"], seccomp, "{status}");
    assert_eq!(agent.metric("agent_isolation_active{mechanism=\"seccomp\"}").await, 0.0);
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_told_and_started_again_and_its_neighbour_goes_on() {
    let world = World::with_hello().await;
    let agent = world.start().await;
    let status: serde_json::Value = agent.get("/status").await.json().await.unwrap();
    assert_eq!(status["isolation"]["mode"], "process");
    let mechanisms: BTreeMap<Mechanism, serde_json::Value> =
        serde_json::from_value(status["isolation"]["mechanisms"].clone()).unwrap();
    assert_eq!(mechanisms.len(), Mechanism::ALL.len());
    let (victim, neighbour) = (world.open_deal(1, 20, 2).await, world.open_deal(2, 20, 2).await);
    let process = agent.until_state(victim, "ready").await["processId"].as_u64().unwrap().try_into().unwrap();
    agent.until_state(neighbour, "ready").await;
    let processes = family(process);

    let client = reqwest::Client::new();
    let url = |deal| format!("{}/d/{deal}", agent.url);
    // Under load: requests of both all the time.
    let stop = tokio::sync::watch::Sender::new(false);
    let load = |target: String| {
        let (client, stop) = (client.clone(), stop.subscribe());
        tokio::spawn(async move {
            let mut statuses = BTreeMap::<u16, usize>::new();
            while !*stop.borrow() {
                let status = client.get(&target).send().await.unwrap().status().as_u16();
                *statuses.entry(status).or_default() += 1;
            }
            statuses
        })
    };
    let (victims, neighbours) = (load(format!("{}/", url(victim))), load(format!("{}/", url(neighbour))));
    let spinning = client.get(format!("{}/spin", url(victim))).send();
    let spinning = tokio::spawn(spinning);
    eventually("it spins", || async {
        (agent.state(victim).await["runningRequests"].as_u64() > Some(0)).then_some(())
    })
    .await;
    kill(process);
    let response = spinning.await.unwrap().unwrap();
    assert_eq!(response.status(), 503);
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!(problem["code"], "worker_died", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("SIGKILL"), "{problem}");
    let failed = agent.until_state(victim, "backoff").await;
    assert_eq!(failed["failure"]["cause"], "worker_died", "{failed}");
    eventually("nothing of it is left", || async { (!processes.iter().any(|one| is_alive(*one))).then_some(()) }).await;
    let again = agent.until_state(victim, "ready").await["processId"].as_u64().unwrap();
    assert_ne!(again, u64::from(process));
    assert!(agent.text(&format!("/d/{victim}/")).await.contains("Hello"));
    stop.send_replace(true);
    let (victims, neighbours) = (victims.await.unwrap(), neighbours.await.unwrap());
    assert_eq!(neighbours.keys().copied().collect::<Vec<_>>(), [200], "{neighbours:?}");
    assert!(victims.keys().all(|status| [200, 503].contains(status)), "{victims:?}");
    assert_eq!(agent.metric("agent_replica_failures_total{cause=\"worker_died\"}").await, 1.0);
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_end_with_their_host() {
    let folder = tempfile::tempdir().unwrap();
    let host = WorkerHost::new(folder.path(), HostLimits::default(), &isolation(IsolationMode::Process)).await.unwrap();
    let (closed, dropped) = (start(&host).await, start(&host).await);
    let first = family(closed.process_id().unwrap());
    closed.close().await;
    eventually("it has ended", || async { (!first.iter().any(|one| is_alive(*one))).then_some(()) }).await;
    let second = family(dropped.process_id().unwrap());
    assert!(second.iter().all(|one| is_alive(*one)));
    drop((dropped, host));
    eventually("it has ended", || async { (!second.iter().any(|one| is_alive(*one))).then_some(()) }).await;
}

/// Not a test by itself: with the variable set it is the agent's process that the next test kills.
const HOLD: &str = "WHARFAGE_TEST_HOLD";

#[tokio::test(flavor = "multi_thread")]
async fn hold_a_worker() {
    let Some(folder) = std::env::var_os(HOLD) else { return };
    let host = WorkerHost::new(Path::new(&folder), HostLimits::default(), &isolation(IsolationMode::Process)).await;
    let worker = start(&host.unwrap()).await;
    println!("\nholds {}", worker.process_id().unwrap());
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_leaves_no_process_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "isolation::hold_a_worker", "--nocapture"])
        .env(HOLD, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let worker = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("holds ")?.parse::<u32>().ok()).unwrap();
    let left = family(agent.id());
    assert!(left.contains(&worker) && left.len() > 1);
    kill(agent.id());
    agent.wait().unwrap();
    eventually("all have ended", || async { (!left.iter().any(|one| is_alive(*one))).then_some(()) }).await;
}
