use std::{
    net::TcpListener,
    process::{Child, Command},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::*;
use crate::{host::netlink::sock_diag, record::clock};

/// Attempt whose caller is unknown, and that ended before everything else.
const NOBODY: AttemptRef = AttemptRef {
    process: None,
    tid: None,
    netns_mix: 0,
    at_ns: 0,
    client: None,
};

fn namespaces() -> Namespaces {
    Namespaces::with(NetnsList::default()).unwrap()
}

fn now() -> AttemptRef {
    AttemptRef {
        at_ns: clock::boot_ns(),
        ..NOBODY
    }
}

#[test]
fn the_own_namespace_needs_no_way() {
    let mut namespaces = namespaces();
    let until = Instant::now() + Duration::from_secs(10);
    let own = namespaces.home_inode;
    assert_eq!(namespaces.inside(own, &NOBODY, until, || Ok(5)), Ok(5));
    let none = namespaces.inside(1, &now(), until, || Ok(5));
    assert_eq!(
        none,
        Err(Undiagnosed::NoAccess),
        "there is no such namespace"
    );
    assert_eq!(namespaces.nsenter_options(own, &NOBODY, until), Ok(None));
}

#[test]
fn a_look_that_was_cut_short_says_so() {
    let mut namespaces = namespaces();
    let late = Instant::now();
    let seen = others(&mut namespaces, (1, 9), &now(), late, |_| Ok(Some(())));
    assert_eq!(seen.missed, Some(Undiagnosed::NoTime));
    assert!(seen.some_or_unknown().is_err());
    let until = Instant::now() + Duration::from_secs(10);
    let seen = others(&mut namespaces, (1, 9), &now(), until, |_| Ok(None::<()>));
    assert_eq!(seen.all(), Ok(vec![]));
    let seen = others(&mut namespaces, (1, 1), &now(), until, |_| Ok(Some(())));
    assert_eq!(seen.all(), Ok(vec![(namespaces.home_inode, ())]));
    // Something that was found is so, whatever was not looked at.
    let found = FoundElsewhere {
        found: vec![(7, ())],
        missed: Some(Undiagnosed::NoTime),
        as_of_ns: 1,
    };
    assert!(found.some_or_unknown().is_ok());
    let found = FoundElsewhere {
        found: vec![(7, ())],
        missed: Some(Undiagnosed::NoTime),
        as_of_ns: 1,
    };
    assert_eq!(found.all(), Err(Undiagnosed::NoTime));
}

/// Looks in the others than a namespace, until so many are found.
fn others<T>(
    namespaces: &mut Namespaces,
    (than, max): (u32, usize),
    about: &AttemptRef,
    until: Instant,
    look: impl Fn(u32) -> io::Result<Option<T>>,
) -> FoundElsewhere<T> {
    let others = OtherNamespaces {
        than,
        about,
        until,
        max,
        age: ListAge::Current,
    };
    namespaces.others(others, |_| false, look)
}

fn all(namespaces: &Namespaces, since_ns: u64, until: Instant) -> Vec<u32> {
    let all = namespaces.list.all(since_ns, ListAge::Current, until);
    all.numbers
}

/// Starts a process that sleeps in a namespace of its own.
fn elsewhere() -> (u32, Child) {
    let started = conntrace_testnet::run("elsewhere", |_| {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let own = File::open(OWN).unwrap();
        (inode(&own).unwrap(), child)
    });
    started.expect("this test needs root")
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn other_namespaces_are_found_and_entered() {
    let (netns, child) = elsewhere();
    let mut namespaces = namespaces();
    let until = Instant::now() + Duration::from_secs(10);
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = port.local_addr().unwrap().port();
    let listens = || {
        let mut listens = false;
        sock_diag::listeners(port, |_| {
            listens = true;
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(listens)
    };
    assert_eq!(namespaces.inside(netns, &now(), until, listens), Ok(false));
    assert_eq!(
        namespaces.nsenter_options(netns, &now(), until),
        Ok(Some(format!("-t {} -n", child.id())))
    );
    let is_it = |_| Ok((inode(&File::open(OWN)?) == Some(netns)).then_some(()));
    let own = namespaces.home_inode;
    let seen = others(&mut namespaces, (own, 9), &now(), until, is_it);
    assert_eq!(seen.all(), Ok(vec![(netns, ())]));
    // Its process is younger than the attempt, so the namespace may be as well.
    let seen = others(&mut namespaces, (own, 9), &NOBODY, until, is_it);
    assert_eq!(seen.all(), Err(Undiagnosed::Incomplete));
    end(child);
}

#[test]
fn a_namespace_that_ends_is_not_missed() {
    let (netns, child) = elsewhere();
    let mut namespaces = namespaces();
    let until = Instant::now() + Duration::from_secs(10);
    let about = now();
    // It is listed, and then it ends.
    assert!(all(&namespaces, about.at_ns, until).contains(&netns));
    end(child);
    let seen = others(&mut namespaces, (1, 9), &about, until, |_| Ok(None::<()>));
    assert_eq!(seen.all(), Ok(vec![]));
    let inside = namespaces.inside(netns, &now(), until, || Ok(()));
    assert_eq!(inside, Err(Undiagnosed::NoAccess));
}

/// Another process leads into a namespace whose first one has ended.
#[test]
fn a_namespace_is_found_by_its_other_processes() {
    let (netns, first) = elsewhere();
    let mut namespaces = namespaces();
    let until = Instant::now() + Duration::from_secs(10);
    let about = now();
    assert!(all(&namespaces, about.at_ns, until).contains(&netns));
    let file = File::open(format!("/proc/{}/ns/net", first.id())).unwrap();
    let second = thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
            Command::new("sleep").arg("600").spawn().unwrap()
        });
        inside.join().unwrap()
    });
    drop(file);
    end(first);
    let is_it = |_| Ok((inode(&File::open(OWN)?) == Some(netns)).then_some(()));
    let seen = others(&mut namespaces, (1, 9), &now(), until, is_it);
    assert_eq!(seen.all(), Ok(vec![(netns, ())]));
    end(second);
}

/// One namespace is created and deleted without a pause.
#[test]
fn churn_makes_nothing_unknown() {
    let stop = AtomicBool::new(false);
    let (netns, child) = elsewhere();
    thread::scope(|scope| {
        let churn = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                end(elsewhere().1);
            }
        });
        let mut namespaces = namespaces();
        let is_it = |_| Ok((inode(&File::open(OWN)?) == Some(netns)).then_some(()));
        for _ in 0..100 {
            let until = Instant::now() + Duration::from_secs(10);
            let seen = others(&mut namespaces, (1, 9), &now(), until, is_it);
            assert_eq!(seen.all(), Ok(vec![(netns, ())]));
        }
        stop.store(true, Ordering::Relaxed);
        churn.join().unwrap();
    });
    end(child);
}
