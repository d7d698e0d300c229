//! A whole lab of its own name and index, so that it can run beside others. Needs root, and `xtask` built.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::database::{Database, SwitchContext};
use lab::fault::{self, Cut};
use lab::wait::{Look, until};
use lab::{Application, Facts, Lab, Options, Place, ProcessStatus, Region};

const NAME: &str = "selftest";
const INDEX: u8 = 7;

/// What a second `up` may take.
const SECOND_UP: Duration = Duration::from_secs(30);
/// How long a fault may take to be seen.
const SEEN: Duration = Duration::from_secs(30);

/// Ends the lab also when the test fails.
struct Ended(Lab);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Err(error) = lab::down(&self.0) {
            eprintln!("the lab of the test is left behind: {error}");
        }
    }
}

#[test]
fn a_lab_comes_up_whole_survives_faults_moves_its_database_and_leaves_nothing() {
    let options = Options::new(NAME, INDEX).unwrap();
    let lab = Lab::new(options.plan.clone());
    lab::down(&lab).unwrap();
    {
        let _ended = Ended(lab.clone());
        let facts = lab::up(&options).unwrap();
        all_processes_live(&lab);
        every_application_begins_in_the_first_region(&lab);
        a_second_up_changes_nothing_and_is_quick(&options, &facts);
        a_bundle_has_logs_and_no_password(&lab, &facts);
        a_killed_process_is_seen_and_restored(&lab);
        a_cut_link_loses_packets_until_it_is_mended(&lab);
        for application in Application::ALL {
            only_its_own_database_moves_and_returns(&lab, &facts, application);
        }
        a_pod_runs(&facts);
        a_dead_region_returns_with_its_pods(&lab, &facts);
        an_up_after_a_lab_that_was_broken_off_starts_anew(&options, &facts);
        // What pods leave (mounts, cgroups, namespaces) is what `down` has most to do with.
        a_pod_runs(&facts);
    }
    assert_eq!(lab::left(&lab).unwrap(), Vec::<String>::new(), "down left something");
}

fn every_application_begins_in_the_first_region(lab: &Lab) {
    let standings = lab::standings(lab).unwrap();
    assert_eq!(standings.iter().map(|one| one.application).collect::<Vec<_>>(), Application::ALL);
    for standing in standings {
        assert_eq!(standing.writer, Region::UsEast1.name());
        assert_eq!(standing.broker, lab.plan.address(Region::UsEast1).to_string());
        assert!(standing.controls.iter().all(|(_, on)| *on == [Region::UsEast1]), "{standing}");
    }
}

fn all_processes_live(lab: &Lab) {
    let processes = lab::status(lab).unwrap();
    for place in Place::ALL {
        assert!(processes.iter().any(|process| process.place == place), "nothing runs in {place}");
    }
    let dead: Vec<_> = processes.iter().filter(|process| !process.alive).collect();
    assert!(dead.is_empty(), "{dead:?}");
}

fn a_second_up_changes_nothing_and_is_quick(options: &Options, facts: &Facts) {
    let before = lab::status(&facts.lab()).unwrap();
    let began = Instant::now();
    let again = lab::up(options).unwrap();
    assert!(began.elapsed() < SECOND_UP, "a second up took {:?}", began.elapsed());
    assert_eq!(again.credentials, facts.credentials);
    assert_eq!(lab::status(&facts.lab()).unwrap(), before);
}

fn a_bundle_has_logs_and_no_password(lab: &Lab, facts: &Facts) {
    let folder = tempfile::tempdir().unwrap();
    lab::bundle(lab, folder.path()).unwrap();
    let databases = facts.credentials.database.values().flat_map(|roles| roles.values());
    let passwords = databases.chain(facts.credentials.broker.values());
    let keys = facts.credentials.aws.values().map(|key| &key.secret_access_key);
    let secrets: Vec<&String> = passwords.chain(keys).collect();
    let mut files = 0;
    visit(folder.path(), &mut |path| {
        files += 1;
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        assert!(
            !secrets.iter().any(|secret| text.contains(secret.as_str())),
            "a password stands in {}",
            path.display()
        );
    });
    assert!(files > 10, "the bundle has {files} files only");
}

fn visit(folder: &Path, file: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() { visit(&entry.path(), file) } else { file(&entry.path()) }
    }
}

fn a_killed_process_is_seen_and_restored(lab: &Lab) {
    let place = Place::Region(Region::UsWest2);
    let alive = |name: &str| {
        lab::status(lab).unwrap().iter().any(|one| one.place == place && one.name == name && one.alive)
    };
    fault::kill(lab, place, "kube-scheduler").unwrap();
    assert!(!alive("kube-scheduler"));
    fault::restore(lab, place, "kube-scheduler").unwrap();
    assert!(alive("kube-scheduler"));
}

fn reaches(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

fn a_cut_link_loses_packets_until_it_is_mended(lab: &Lab) {
    let broker = |region| SocketAddr::from((lab.plan.address(region), lab::address::port::AMQPS));
    let cut = Cut::Link(Region::UsWest2.into());
    assert!(reaches(broker(Region::UsWest2)));
    fault::cut(lab, cut).unwrap();
    assert!(!reaches(broker(Region::UsWest2)), "the cut region answers");
    assert!(reaches(broker(Region::UsEast1)), "the cut of one region took the other with it");
    fault::mend(lab, cut).unwrap();
    assert!(reaches(broker(Region::UsWest2)));
}

/// The database servers of the other applications, in both regions.
fn others(lab: &Lab, application: Application) -> Vec<ProcessStatus> {
    let names: Vec<&str> = Application::ALL
        .into_iter()
        .filter(|other| *other != application)
        .map(Application::database_process)
        .collect();
    let mut all = lab::status(lab).unwrap();
    all.retain(|process| names.contains(&process.name.as_str()));
    all
}

fn only_its_own_database_moves_and_returns(lab: &Lab, facts: &Facts, application: Application) {
    let before = others(lab, application);
    assert_eq!(before.len(), 2 * (Application::ALL.len() - 1));
    the_database_moves_and_returns(lab, facts, application);
    assert_eq!(others(lab, application), before, "a server of another application was touched");
}

fn the_database_moves_and_returns(lab: &Lab, facts: &Facts, application: Application) {
    let [east, west] =
        Region::ALL.map(|region| Database::new(lab, application, region, &facts.credentials).unwrap());
    east.sql("create table moved (n int); insert into moved values (1)").unwrap();
    switch(&east, &west);
    west.sql("insert into moved values (2)").unwrap();
    assert!(east.sql("insert into moved values (9)").is_err(), "the standby took a write");
    switch(&west, &east);
    assert_eq!(east.sql("select string_agg(n::text, ',' order by n) from moved").unwrap(), "1,2");

    // After a crash both servers may have gone their own ways: the old one is rewound.
    fault::kill(lab, Region::UsEast1.into(), application.database_process()).unwrap();
    west.promote(&SwitchContext::default()).unwrap();
    west.sql("insert into moved values (3)").unwrap();
    east.follow(&SwitchContext::default()).unwrap();
    until("the old primary to have what the new one wrote", SEEN, || {
        let rows = east.sql("select count(*) from moved")?;
        Ok(if rows == "3" { Look::Ready(()) } else { Look::NotYet(rows) })
    })
    .unwrap();
}

fn kubectl(facts: &Facts, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(&facts.programs["kubectl"]);
    command.arg("--kubeconfig").arg(&facts.kubeconfig).args([
        "--context",
        "us-west-2",
        "--namespace",
        "trading",
    ]);
    let output = command.args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn a_pod_runs(facts: &Facts) {
    kubectl(facts, &["run", "pause", "--image=localhost/pause:1", "--image-pull-policy=IfNotPresent"])
        .unwrap();
    kubectl(facts, &["wait", "pod/pause", "--for=condition=Ready", "--timeout=30s"]).unwrap();
}

fn a_dead_region_returns_with_its_pods(lab: &Lab, facts: &Facts) {
    let place = Place::Region(Region::UsWest2);
    let restarts = ["get", "pod", "pause", "--output=jsonpath={.status.containerStatuses[0].restartCount}"];
    assert_eq!(kubectl(facts, &restarts).unwrap(), "0");
    fault::kill_place(lab, place).unwrap();
    let wrong: Vec<_> =
        lab::status(lab).unwrap().into_iter().filter(|one| one.alive == (one.place == place)).collect();
    assert_eq!(wrong, [], "only {place} was killed");
    fault::restore_place(lab, place).unwrap();
    until("the pod to run again", SEEN, || {
        let answer = kubectl(facts, &restarts);
        Ok(if answer == Ok("1".into()) { Look::Ready(()) } else { Look::NotYet(format!("{answer:?}")) })
    })
    .unwrap();
}

fn an_up_after_a_lab_that_was_broken_off_starts_anew(options: &Options, facts: &Facts) {
    // `lab.json` is written last: without it, `up` was broken off.
    std::fs::remove_file(facts.lab().facts_file()).unwrap();
    let anew = lab::up(options).unwrap();
    assert_ne!(anew.credentials, facts.credentials);
    all_processes_live(&facts.lab());
}

fn switch(from: &Database<'_>, to: &Database<'_>) {
    let position = from.stop().unwrap();
    assert!(position.is_some(), "a primary tells its last position");
    to.promote(&SwitchContext { old_primary_position: position, ..SwitchContext::default() }).unwrap();
    from.follow(&SwitchContext::default()).unwrap();
    // Asking twice changes nothing.
    to.promote(&SwitchContext::default()).unwrap();
    from.follow(&SwitchContext::default()).unwrap();
}
