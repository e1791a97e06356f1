//! Ways in which kernel functions are hooked.

use clap::ValueEnum;

/// Way to hook kernel functions, from the least to the best. All tiers use the same
/// tracepoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Tier {
    /// Tracepoints only; functions are not hooked.
    Tracepoint,
    /// Kprobes and kretprobes on functions.
    Kprobe,
    /// BPF trampolines on functions (fentry, fexit).
    Full,
}

impl Tier {
    /// Returns the name used in the start line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Kprobe => "kprobe",
            Self::Full => "full",
        }
    }

    /// Returns the tiers to try on a function, best first, or only the requested one.
    pub(super) fn to_try(asked: Option<Self>) -> &'static [Self] {
        match asked {
            None => &[Self::Full, Self::Kprobe],
            Some(Self::Full) => &[Self::Full],
            Some(Self::Kprobe) => &[Self::Kprobe],
            Some(Self::Tracepoint) => &[],
        }
    }
}
