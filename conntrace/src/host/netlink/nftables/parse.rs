//! Attributes of `nf_tables` messages.

use crate::host::netlink::attributes;

/// Bits of an attribute's type that are not flags (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// The value of the first attribute of this type.
pub(super) fn value(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut found = attributes(bytes).filter(|(kind, _)| kind & TYPE_MASK == wanted);
    found.next().map(|(_, value)| value)
}

/// The value of an attribute inside an attribute.
pub(super) fn nested(bytes: &[u8], outer: u16, inner: u16) -> Option<&[u8]> {
    value(value(bytes, outer)?, inner)
}

/// A number in network order, as `nf_tables` has them.
pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

/// The number that is an attribute's value.
pub(super) fn number_of(bytes: &[u8], wanted: u16) -> Option<u32> {
    value(bytes, wanted).and_then(number)
}

/// The elements of a list (`NFTA_LIST_ELEM`).
pub(super) fn elements(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    attributes(bytes).filter_map(|(kind, value)| (kind & TYPE_MASK == 1).then_some(value))
}

/// The bytes before the first NUL.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The name that is an attribute's value.
pub(super) fn name_of(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    value(bytes, wanted).map(until_nul)
}
