//! BPF programs that decide on connects: cgroup programs and BPF LSM programs.

use std::{fs::File, io, os::unix::ffi::OsStrExt as _, path::Path};

use super::netns::reason;
use crate::{
    diagnosis::{
        Undiagnosed,
        question::{AttachedProgram, BpfProgram},
    },
    record::sanitize,
    sys::{self, CgroupGap, CgroupRoot, OfCgroup, ProgramAttachment},
};

/// Maximum number of BPF links read.
const LINKS_MAX: usize = 4096;
/// Maximum number of programs named in an answer.
const NAMED_MAX: usize = 4;
/// Maximum bytes of a program's name in a line; the kernel keeps 15.
const NAME_JSON_MAX: usize = 96;
/// Maximum bytes of a cgroup's path in a line.
const PATH_JSON_MAX: usize = 160;
/// Maximum number of cgroups above one that are asked.
const ABOVE_MAX: usize = 16;

/// Reads the BPF programs loaded on this host.
pub(super) struct Programs {
    /// Root of the cgroup v2 hierarchy.
    cgroups: Result<&'static CgroupRoot, Undiagnosed>,
    /// BTF id of the function `bpf_lsm_socket_connect`, to which LSM programs attach.
    connect_hook: Option<u32>,
}

impl Programs {
    /// Takes the root of the cgroup v2 hierarchy.
    pub(super) fn open(connect_hook: Option<u32>) -> Self {
        let cgroups = CgroupRoot::get().map_err(|gap| match gap {
            CgroupGap::NotMounted => Undiagnosed::Unsupported,
            CgroupGap::OnlyPart(_) | CgroupGap::Unreadable(_) => Undiagnosed::NoAccess,
        });
        Self {
            cgroups,
            connect_hook,
        }
    }

    /// Returns the programs in effect in a cgroup, inherited ones included.
    pub(super) fn on_connect(
        &self,
        cgroup: u64,
        v6: bool,
    ) -> Result<Vec<AttachedProgram>, Undiagnosed> {
        let root = self.cgroups?;
        let ids = || sys::connect_programs(&root.open(cgroup)?, v6, OfCgroup::InEffect);
        let ids = ids().map_err(|error| reason(&error))?;
        let path = root.path(cgroup).ok();
        let named = ids.into_iter().take(NAMED_MAX).map(|id| AttachedProgram {
            // It may have been replaced meanwhile.
            program: named_program(id).unwrap_or(BpfProgram {
                id,
                name: String::new(),
            }),
            cgroup: path.as_ref().and_then(|path| place(root, path, v6, id)),
        });
        Ok(named.collect())
    }

    /// Returns the BPF LSM programs that decide on every connect.
    ///
    /// # Errors
    /// Fails when the kernel does not report the hook of its programs, or there are too many.
    pub(super) fn of_security(&self) -> Result<Vec<BpfProgram>, Undiagnosed> {
        let hook = self.connect_hook.ok_or(Undiagnosed::Unsupported)?;
        let mut found = Vec::new();
        let mut link = 0;
        for _ in 0..LINKS_MAX {
            let next = sys::next_link(link).map_err(|error| reason(&error))?;
            let Some(next) = next else {
                let named = found.into_iter().take(NAMED_MAX);
                return Ok(named.filter_map(|id| named_program(id).ok()).collect());
            };
            link = next;
            match sys::attached(link) {
                Ok(ProgramAttachment::Security { hook: 0, .. }) => {
                    return Err(Undiagnosed::Unsupported);
                }
                Ok(ProgramAttachment::Security { hook: at, program }) if at == hook => {
                    found.push(program);
                }
                Ok(ProgramAttachment::Security { .. } | ProgramAttachment::Otherwise) => {}
                // The link was closed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(reason(&error)),
            }
        }
        Err(Undiagnosed::Incomplete)
    }
}

/// Finds the nearest cgroup, of one and those above it, to which a program is attached.
fn place(root: &CgroupRoot, cgroup: &Path, v6: bool, id: u32) -> Option<String> {
    let mut all = cgroup.ancestors().take(ABOVE_MAX);
    let found = all.find(|path| {
        let dir = path.to_str().map(|path| File::open(root.join(path)));
        let Some(Ok(dir)) = dir else {
            return false;
        };
        let attached = sys::connect_programs(&dir, v6, OfCgroup::Attached);
        attached.is_ok_and(|attached| attached.contains(&id))
    });
    found.map(|path| sanitize::bounded(path.as_os_str().as_bytes(), PATH_JSON_MAX))
}

fn named_program(id: u32) -> io::Result<BpfProgram> {
    let name = sys::program_name(id)?;
    Ok(BpfProgram {
        id,
        name: sanitize::bounded(&name, NAME_JSON_MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_hook_nothing_is_known() {
        assert_eq!(
            Programs::open(None).of_security(),
            Err(Undiagnosed::Unsupported)
        );
    }
}
