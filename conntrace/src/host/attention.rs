//! Processes and namespaces that a thread looks at, and those that must not be looked at.
//!
//! A process can keep its entries in /proc shut for as long as it likes (`exec_update_lock`), and a
//! network namespace its lock (`rtnl_mutex`). A thread that waits there is abandoned, and no other
//! one goes there until it has returned.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::sys;

/// Number of hanging processes and namespaces from which no process is looked at: causes that need
/// none are still found.
const HANGING_MAX: usize = 16;
/// Number of a user's hanging processes from which none of that user's is looked at. Root owns the
/// processes of most containers, so that its processes are only left alone one by one.
const OF_USER_MAX: usize = 3;

/// Process or namespace that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// Process with this pid.
    Process(u32),
    /// Network namespace with this inode number.
    Namespace(u32),
}

/// Subject of a thread's present look, and its beginning.
#[derive(Debug, Default)]
pub(super) struct Gaze(Mutex<Option<(Subject, Instant)>>);

impl Gaze {
    /// Returns what the thread looks at, and the beginning of that look.
    pub(super) fn now(&self) -> Option<(Subject, Instant)> {
        *lock(&self.0)
    }
}

/// Subjects at which threads hang.
#[derive(Debug, Default)]
pub(super) struct Quarantine(Mutex<HashMap<Subject, Held>>);

#[derive(Debug, Default)]
struct Held {
    /// Number of threads that hang there.
    threads: usize,
    user: User,
}

/// Real user of a process in quarantine.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum User {
    /// Nobody has looked yet.
    #[default]
    NotRead,
    /// Root, the user of no process, or unknown.
    None,
    /// This user id.
    Id(u32),
}

impl Quarantine {
    /// Adds the subject of a thread that hangs.
    pub(super) fn add(&self, subject: Subject) {
        lock(&self.0).entry(subject).or_default().threads += 1;
    }

    /// Removes the subject of a thread that has returned.
    pub(super) fn remove(&self, subject: Subject) {
        let mut all = lock(&self.0);
        if let Some(held) = all.get_mut(&subject) {
            held.threads = held.threads.saturating_sub(1);
            if held.threads == 0 {
                all.remove(&subject);
            }
        }
    }

    /// Returns true if the subject must not be looked at.
    fn has(&self, subject: Subject) -> bool {
        let all = lock(&self.0);
        if all.is_empty() {
            return false;
        }
        if all.contains_key(&subject) {
            return true;
        }
        if matches!(subject, Subject::Process(_)) && all.len() >= HANGING_MAX {
            return true;
        }
        let unread = all.iter().filter(|(_, held)| held.user == User::NotRead);
        let unread: Vec<Subject> = unread.map(|(subject, _)| *subject).collect();
        drop(all);
        // Read without the lock: the thread that adds a subject must not wait for it.
        let read: Vec<_> = unread.into_iter().map(|it| (it, user(it))).collect();
        let mut all = lock(&self.0);
        for (subject, user) in read {
            if let Some(held) = all.get_mut(&subject) {
                held.user = user;
            }
        }
        let hanging_of = |user| all.values().filter(|held| held.user == user).count();
        let is_avoided = |user| matches!(user, User::Id(_)) && hanging_of(user) >= OF_USER_MAX;
        if !all.values().any(|held| is_avoided(held.user)) {
            return false;
        }
        is_avoided(user(subject))
    }
}

/// Reads the real user of a process. Root owns the directory in /proc of one that may not be dumped,
/// so that is no help. The status file is never shut.
fn user(subject: Subject) -> User {
    let Subject::Process(pid) = subject else {
        return User::None;
    };
    let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let real = status.lines().find_map(|line| {
        let users = line.strip_prefix("Uid:")?;
        users.split_ascii_whitespace().next()?.parse().ok()
    });
    match real {
        Some(0) | None => User::None,
        Some(user) => User::Id(user),
    }
}

/// Means of the calling thread to make its looks known.
#[derive(Debug, Clone)]
struct Watch {
    gaze: Arc<Gaze>,
    quarantine: Arc<Quarantine>,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Makes the looks of the calling thread known to `gaze`, and keeps it from what is in quarantine.
pub(super) fn watch(gaze: Arc<Gaze>, quarantine: Arc<Quarantine>) {
    WATCH.set(Some(Watch { gaze, quarantine }));
}

/// Look of the calling thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Look {
    watch: Option<Watch>,
    before: Option<(Subject, Instant)>,
}

/// Begins a look of the calling thread. Every read of another process's files in /proc, and every
/// stay in another network namespace, is one.
///
/// # Errors
/// `ResourceBusy` if another thread hangs there.
pub(super) fn look_at(subject: Subject) -> io::Result<Look> {
    let watch = WATCH.with_borrow(Clone::clone);
    let Some(watch) = watch else {
        return Ok(Look {
            watch: None,
            before: None,
        });
    };
    if watch.quarantine.has(subject) {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let before = lock(&watch.gaze.0).replace((subject, Instant::now()));
    Ok(Look {
        watch: Some(watch),
        before,
    })
}

/// Notes that the present look of the calling thread goes on: it does not hang.
pub(super) fn goes_on() {
    WATCH.with_borrow(|watch| {
        if let Some(watch) = watch
            && let Some((_, since)) = lock(&watch.gaze.0).as_mut()
        {
            *since = Instant::now();
        }
    });
}

/// Looks at a process through its folder in /proc.
///
/// # Errors
/// The error of `look`; `ResourceBusy` if another thread hangs there, and `PermissionDenied` where
/// /proc has the pids of another namespace than the records.
pub(super) fn visit<T>(pid: u32, look: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if !sys::proc_pids_are_global() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let _look = look_at(Subject::Process(pid))?;
    look(&PathBuf::from(format!("/proc/{pid}")))
}

impl Drop for Look {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            *lock(&watch.gaze.0) = self.before;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::MetadataExt as _, process::CommandExt as _},
        process::{Child, Command},
    };

    use super::*;

    /// Starts a process of another user than root.
    fn sleeper() -> Child {
        let mut command = Command::new("sleep");
        command.arg("60");
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(65_534);
        }
        command.spawn().unwrap()
    }

    #[test]
    fn a_look_is_known_while_it_lasts() {
        let (gaze, quarantine) = (Arc::<Gaze>::default(), Arc::<Quarantine>::default());
        watch(Arc::clone(&gaze), Arc::clone(&quarantine));
        let now = || gaze.now().map(|(subject, _)| subject);
        let outer = look_at(Subject::Namespace(7)).unwrap();
        {
            let _inner = look_at(Subject::Process(1)).unwrap();
            assert_eq!(now(), Some(Subject::Process(1)));
        }
        assert_eq!(now(), Some(Subject::Namespace(7)));
        drop(outer);
        assert_eq!(now(), None);
        quarantine.add(Subject::Namespace(7));
        quarantine.add(Subject::Namespace(7));
        quarantine.remove(Subject::Namespace(7));
        assert!(look_at(Subject::Namespace(7)).is_err());
        assert!(look_at(Subject::Namespace(8)).is_ok());
        quarantine.remove(Subject::Namespace(7));
        assert!(look_at(Subject::Namespace(7)).is_ok());
    }

    #[test]
    fn a_user_with_many_hanging_processes_is_left_alone() {
        let quarantine = Quarantine::default();
        let mut all: Vec<Child> = (0..=OF_USER_MAX).map(|_| sleeper()).collect();
        let of = |child: &Child| Subject::Process(child.id());
        let (other, hanging) = all.split_last_mut().unwrap();
        for child in hanging.iter() {
            assert!(!quarantine.has(of(other)));
            quarantine.add(of(child));
        }
        assert!(quarantine.has(of(other)));
        // Every other user's are looked at as before.
        assert!(!quarantine.has(Subject::Process(1)));
        quarantine.remove(of(hanging.first().unwrap()));
        assert!(!quarantine.has(of(other)));
        for child in &mut all {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
