//! Error numbers and their names.

use std::{borrow::Cow, fmt};

/// Error number of this host's architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! known {
    ($($name:ident),+ $(,)?) => {
        $(
            #[doc = concat!("Error number `", stringify!($name), "`.")]
            pub const $name: Self = Self(nix::errno::Errno::$name as i32);
        )+

        /// Returns the name in capitals, or `errno N` if libc has none. Common names are not
        /// allocated.
        #[must_use]
        pub fn name(self) -> Cow<'static, str> {
            match self {
                $(Self::$name => stringify!($name).into(),)+
                other => other.to_string().into(),
            }
        }
    };
}

impl Errno {
    known!(
        EACCES,
        EADDRINUSE,
        EADDRNOTAVAIL,
        ECONNABORTED,
        ECONNREFUSED,
        ECONNRESET,
        EHOSTUNREACH,
        EINVAL,
        EMSGSIZE,
        ENETUNREACH,
        EPERM,
        ETIMEDOUT,
    );
}

/// Writes the name in capitals, or `errno N` if libc has none.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = nix::errno::Errno::from_raw(self.0);
        if known == nix::errno::Errno::UnknownErrno {
            write!(f, "errno {}", self.0)
        } else {
            write!(f, "{known:?}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for raw in 0..200 {
            assert_eq!(Errno(raw).name(), Errno(raw).to_string());
        }
        assert_eq!(Errno::ECONNREFUSED.to_string(), "ECONNREFUSED");
        assert_eq!(Errno(4000).to_string(), "errno 4000");
    }
}
