//! Names of the running kernel's packet drop reasons.

use conntrace_btf::Btf;

const PREFIX: &[u8] = b"SKB_DROP_REASON_";
/// Enumerator that every kernel with drop reasons has.
const ANY: &str = "SKB_DROP_REASON_NOT_SPECIFIED";

/// Names of `enum skb_drop_reason`, whose numbers differ between kernels.
#[derive(Debug, Default)]
pub(crate) struct DropReasons(Vec<(u32, String)>);

impl DropReasons {
    /// Reads the drop reasons from BTF; none on a kernel without them.
    pub(super) fn of(btf: &Btf<'_>) -> Self {
        let reasons = btf.enumerators_beside(ANY).into_iter();
        let named = reasons.filter_map(|(name, number)| {
            let name = str::from_utf8(name.strip_prefix(PREFIX)?).ok()?;
            Some((number, name.to_owned()))
        });
        Self(named.collect())
    }

    /// Returns a reason's name without the prefix `SKB_DROP_REASON_`.
    pub(crate) fn name(&self, number: u16) -> Option<String> {
        let found = self.0.iter().find(|(of, _)| *of == u32::from(number));
        found.map(|(_, name)| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_names() {
        let bytes = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        let reasons = DropReasons::of(&Btf::parse(&bytes).unwrap());
        let netfilter = reasons.0.iter().find(|(_, name)| name == "NETFILTER_DROP");
        let number = u16::try_from(netfilter.unwrap().0).unwrap();
        assert_eq!(reasons.name(number).as_deref(), Some("NETFILTER_DROP"));
        assert_eq!(reasons.name(u16::MAX), None);
    }
}
