use super::*;

/// Attempt whose caller is unknown.
const NOBODY: AttemptRef = AttemptRef {
    process: None,
    tid: None,
    netns_mix: 0,
    at_ns: 0,
};

#[test]
fn the_own_namespace_needs_no_way() {
    let mut namespaces = Namespaces::new().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let own = namespaces.home_inode;
    assert_eq!(namespaces.inside(own, &NOBODY, until, || Ok(5)), Ok(5));
    let none = namespaces.inside(1, &NOBODY, until, || Ok(5));
    assert_eq!(
        none,
        Err(Undiagnosed::NoAccess),
        "there is no such namespace"
    );
    assert_eq!(namespaces.all(&NOBODY, until).unwrap()[0], own);
    assert_eq!(namespaces.nsenter_options(own, &NOBODY, until), Ok(None));
    assert_eq!(number(Path::new("net:[123]")), Some(123));
}

#[test]
fn a_look_that_was_cut_short_says_so() {
    let mut namespaces = Namespaces::new().unwrap();
    let late = Instant::now();
    assert_eq!(namespaces.all(&NOBODY, late), Err(Undiagnosed::NoTime));
    assert_eq!(namespaces.seen(late), [namespaces.home_inode]);
    std::thread::sleep(INCOMPLETE_AGE_MAX);
    let until = Instant::now() + Duration::from_secs(10);
    assert!(namespaces.all(&NOBODY, until).is_ok());
    // The list is older than the attempt, and there is no time to renew it.
    let after = AttemptRef {
        at_ns: clock::boot_ns(),
        ..NOBODY
    };
    let late = Instant::now();
    assert_eq!(namespaces.all(&after, late), Err(Undiagnosed::NoTime));
}

#[test]
fn what_is_mounted_comes_first() {
    let mut namespaces = Namespaces::new().unwrap();
    for handle in [
        NetnsHandle::Process(7),
        NetnsHandle::Mounted("/a".into()),
        NetnsHandle::Process(8),
    ] {
        namespaces.add(1, handle).unwrap();
    }
    let options: Vec<_> = namespaces.seen.iter().map(|(_, it)| it.options()).collect();
    assert_eq!(options, [Some("--net=/a".to_owned())]);
}

#[test]
fn mounted_namespaces() {
    let mounts = "30 23 0:26 / /sys rw - sysfs sysfs rw\n\
                  77 30 0:4 net:[4026532001] /run/netns/a rw shared:7 - nsfs nsfs rw\n";
    let found: Vec<_> = mounted(mounts).collect();
    assert_eq!(found, [(4_026_532_001, "/run/netns/a".into())]);
    let options = |path: &str| NetnsHandle::Mounted(path.into()).options();
    assert_eq!(
        options("/run/netns/a"),
        Some("--net=/run/netns/a".to_owned())
    );
    assert_eq!(options("/run/netns/a;b"), None);
    assert_eq!(
        NetnsHandle::Process(812).options(),
        Some("-t 812 -n".to_owned())
    );
}
