//! How the kernel lets its functions be hooked.

use clap::ValueEnum;

/// The tiers, from the least to the best. The tracepoints are the same in all of
/// them; they differ in how functions are hooked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Tier {
    /// Not at all.
    Tracepoint,
    /// By probes.
    Kprobe,
    /// By trampolines (fentry, fexit).
    Full,
}

impl Tier {
    /// As the start line names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Kprobe => "kprobe",
            Self::Full => "full",
        }
    }

    /// Those to try on a function, the best first: all, or only the one asked for.
    pub(super) fn to_try(asked: Option<Self>) -> &'static [Self] {
        match asked {
            None => &[Self::Full, Self::Kprobe],
            Some(Self::Full) => &[Self::Full],
            Some(Self::Kprobe) => &[Self::Kprobe],
            Some(Self::Tracepoint) => &[],
        }
    }
}
