//! Attempts that this host's policy denied.

use super::{Case, FailedCall};
use crate::record::{Errno, Label};

/// Returns true if connect was denied with this errno.
pub(super) fn by_connect(case: &Case, errno: Errno) -> bool {
    case.label == Label::Denied
        && case.call == Some(FailedCall::Connect)
        && case.errno == Some(errno)
}
