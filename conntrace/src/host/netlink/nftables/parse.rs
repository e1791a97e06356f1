//! Parsers for the attributes of `nf_tables` messages.

use crate::host::netlink::attributes;

/// Mask of an attribute's type without its flags (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// Returns the value of the first attribute of this type.
pub(super) fn value(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut found = attributes(bytes).filter(|(kind, _)| kind & TYPE_MASK == wanted);
    found.next().map(|(_, value)| value)
}

/// Returns the value of an attribute nested in another one.
pub(super) fn nested(bytes: &[u8], outer: u16, inner: u16) -> Option<&[u8]> {
    value(value(bytes, outer)?, inner)
}

/// Parses a number in network byte order, as `nf_tables` stores it.
pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

/// Returns an attribute's value as a number.
pub(super) fn number_of(bytes: &[u8], wanted: u16) -> Option<u32> {
    value(bytes, wanted).and_then(number)
}

/// Iterates over the elements of a list (`NFTA_LIST_ELEM`).
pub(super) fn elements(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    attributes(bytes).filter_map(|(kind, value)| (kind & TYPE_MASK == 1).then_some(value))
}

/// Returns the bytes before the first NUL.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Returns an attribute's value as a name.
pub(super) fn name_of(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    value(bytes, wanted).map(until_nul)
}

/// Returns the comment in the user data that `nft` stores with a rule or an element: type 0
/// (`NFTNL_UDATA_RULE_COMMENT`, `NFTNL_UDATA_SET_ELEM_COMMENT`), length, text.
pub(super) fn comment_in(user_data: &[u8]) -> Option<&[u8]> {
    let mut rest = user_data;
    while let [kind, len, after @ ..] = rest {
        let (text, next) = after.split_at_checked(usize::from(*len))?;
        if *kind == 0 {
            return Some(until_nul(text));
        }
        rest = next;
    }
    None
}
