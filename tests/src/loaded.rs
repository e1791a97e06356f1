//! BPF objects that are loaded on this host, its network namespaces, and the holders of both.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};

/// Time limit for the kernel to free objects without holders.
const FREED_MAX: Duration = Duration::from_secs(10);

/// Loaded BPF object: `prog`, `map` or `link`, and its id.
pub type Loaded = (&'static str, u32);

/// Returns all BPF objects that are loaded on this host.
pub fn loaded() -> BTreeSet<Loaded> {
    // What goes away meanwhile is an error.
    let programs = loaded_programs().flatten().map(|info| ("prog", info.id()));
    let maps = loaded_maps().flatten().map(|info| ("map", info.id()));
    let links = loaded_links().flatten().map(|info| ("link", info.id()));
    programs.chain(maps).chain(links).collect()
}

/// Returns the objects that a process holds, by its descriptors and through its programs.
pub fn held_by(pid: u32) -> BTreeSet<Loaded> {
    let mut held = BTreeSet::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let info = fs::read_to_string(fd.unwrap().path()).unwrap_or_default();
        for kind in ["prog", "map", "link"] {
            let id = info
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{kind}_id:")));
            held.extend(id.map(|id| (kind, id.trim().parse().unwrap())));
        }
    }
    for program in loaded_programs().flatten() {
        if held.contains(&("prog", program.id())) {
            let maps = program.map_ids().unwrap().unwrap_or_default();
            held.extend(maps.into_iter().map(|id| ("map", id)));
        }
    }
    held
}

/// Returns every network and mount namespace that a process uses or has open, or that is mounted.
pub fn namespaces() -> BTreeSet<PathBuf> {
    let children = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    let mut links = Vec::new();
    for process in children("/proc".into()) {
        for task in children(process.path().join("task")) {
            links.extend(["net", "mnt"].map(|kind| task.path().join("ns").join(kind)));
        }
        links.extend(children(process.path().join("fd")).map(|fd| fd.path()));
    }
    let is_namespace = |target: &PathBuf| {
        let target = target.to_string_lossy();
        target.starts_with("net:[") || target.starts_with("mnt:[")
    };
    let targets = links
        .into_iter()
        .filter_map(|link| fs::read_link(link).ok());
    targets.filter(is_namespace).collect()
}

/// Waits up to a time limit until none of these objects is left.
pub fn wait_until_freed<T: Ord + Clone + std::fmt::Debug>(
    held: &BTreeSet<T>,
    all: impl Fn() -> BTreeSet<T>,
) {
    let began = Instant::now();
    while !all().is_disjoint(held) {
        assert!(began.elapsed() < FREED_MAX, "{:?}", &all() & held);
        thread::sleep(Duration::from_millis(10));
    }
}
