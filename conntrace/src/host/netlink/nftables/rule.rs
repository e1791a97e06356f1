//! Evaluation of a rule for a packet: the verdict and its certainty.

use super::{
    parse::{name_of, nested, number, number_of, value},
    registers::Registers,
    ruleset::{NftRule, RulesetParts},
    seen::{Mark, PacketChange, PacketFacts, UNKNOWN_MARK},
    sets::{self, SetMatches},
    truth::{PartialByte, Truth, bytes, equal, known, order, within},
    xt,
};
use crate::diagnosis::firewall_facts;

/// Verdict of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NftVerdict {
    /// Ends the base chain; later base chains still run.
    Accept,
    /// Ends the packet's path in this hook.
    End(firewall_facts::RuleVerdict),
    /// Takes the packet over; it continues elsewhere.
    Stolen,
    /// Translates the destination and ends the base chain.
    Rewrite,
    Jump(Vec<u8>),
    Goto(Vec<u8>),
    Return,
    /// Continues with the next rule.
    Continue,
}

/// Effect of a rule on a packet that reaches it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RuleEffect {
    /// Possible verdicts with their certainty; empty if the next rule follows.
    pub(super) verdicts: Vec<(Truth, NftVerdict)>,
    /// Changes that the rule may make, but for the mark.
    pub(super) changes: Vec<PacketChange>,
    /// Mark that the rule sets, with the certainty that it does.
    pub(super) mark: Option<(Truth, Mark)>,
    /// Text of an iptables comment.
    pub(super) comment: Option<Vec<u8>>,
    /// Comment of the map's element that gives the verdict.
    pub(super) of_element: Option<Vec<u8>>,
    /// Number of set elements compared.
    pub(super) compared: usize,
}

/// Evaluates a rule of the table.
pub(super) fn evaluate(
    rule: &NftRule,
    (family, table): (u8, &[u8]),
    seen: &PacketFacts,
    sets: &mut dyn RulesetParts,
) -> RuleEffect {
    let mut state = Evaluation {
        family,
        table,
        seen,
        sets,
        registers: Registers::new(),
        holds: Truth::True,
        outcome: RuleEffect::default(),
    };
    for (name, data) in rule.expressions() {
        state.step(name, data);
        if state.holds == Truth::False || !state.outcome.verdicts.is_empty() {
            break;
        }
    }
    state.outcome
}

struct Evaluation<'a> {
    family: u8,
    table: &'a [u8],
    seen: &'a PacketFacts,
    sets: &'a mut dyn RulesetParts,
    registers: Registers,
    /// Conjunction of all conditions so far.
    holds: Truth,
    outcome: RuleEffect,
}

impl Evaluation<'_> {
    fn step(&mut self, name: &[u8], data: &[u8]) {
        match name {
            b"counter" | b"last" | b"log" | b"dup" | b"flow_offload" => {}
            b"meta" => self.meta(data),
            b"payload" => self.payload(data),
            b"ct" => self.ct(data),
            b"fib" => self.fib(data),
            b"bitwise" => self.bitwise(data),
            b"byteorder" => self.byteorder(data),
            b"cmp" => self.require(self.compare(data)),
            b"range" => self.require(self.range(data)),
            b"lookup" => self.look_up(data),
            b"immediate" => self.immediate(data),
            b"reject" => {
                // NFT_REJECT_TCP_RST
                let resets = number_of(data, 1) == Some(1);
                self.end(NftVerdict::End(reject(resets)));
            }
            b"queue" => self.end(NftVerdict::End(firewall_facts::RuleVerdict::Queue)),
            b"notrack" => self.outcome.changes.push(PacketChange::Untracked),
            b"nat" => {
                // NFT_NAT_DNAT
                let of_destination = number_of(data, 1) == Some(1);
                self.translate(of_destination);
            }
            b"masq" => self.translate(false),
            b"redir" => self.translate(true),
            b"fwd" => self.end(NftVerdict::Stolen),
            b"objref" => {
                // NFT_OBJECT_COUNTER, _CT_HELPER, _CT_TIMEOUT, _SECMARK, _CT_EXPECT
                if !matches!(number_of(data, 1), Some(1 | 3 | 7 | 8 | 9)) {
                    self.doubt();
                }
            }
            b"synproxy" | b"tproxy" => {
                self.doubt();
                self.end(NftVerdict::Stolen);
            }
            b"match" => self.xt_match(data),
            b"target" => self.xt_target(data),
            // Limits and the like, and expressions that load facts unknown here.
            _ => self.doubt(),
        }
    }

    fn require(&mut self, condition: Truth) {
        self.holds = self.holds.and(condition);
    }

    /// Applies an expression of unknown effect.
    fn doubt(&mut self) {
        self.registers = Registers::new();
        self.require(Truth::Unknown);
    }

    fn end(&mut self, verdict: NftVerdict) {
        self.outcome.verdicts.push((self.holds, verdict));
    }

    /// Ends the chain as `nf_nat_setup_info` does.
    fn translate(&mut self, of_destination: bool) {
        let (change, verdict) = if of_destination {
            (PacketChange::Destination, NftVerdict::Rewrite)
        } else {
            (PacketChange::Source, NftVerdict::Accept)
        };
        self.outcome.changes.push(change);
        self.end(verdict);
    }

    fn load(&self, data: &[u8], register: u16, len: usize) -> Vec<PartialByte> {
        let register = number_of(data, register).unwrap_or(u32::MAX);
        self.registers.load(register, len)
    }

    fn store(&mut self, data: &[u8], register: u16, bytes: &[PartialByte]) {
        match number_of(data, register) {
            Some(register) => self.registers.store(register, bytes),
            None => self.doubt(),
        }
    }

    fn meta(&mut self, data: &[u8]) {
        let key = number_of(data, 2).unwrap_or(u32::MAX);
        // With NFTA_META_SREG it writes.
        if value(data, 3).is_none() {
            let bytes = self.seen.meta(key, self.family);
            self.store(data, 1, &bytes);
        } else if key == 3 {
            let bytes = self.load(data, 3, UNKNOWN_MARK.len());
            self.set_mark(bytes.try_into().unwrap_or(UNKNOWN_MARK));
        }
    }

    /// Sets the packet's mark. Of a second one in the same rule nothing is known.
    fn set_mark(&mut self, mark: Mark) {
        let is_second = self.outcome.mark.is_some();
        let mark = if is_second { UNKNOWN_MARK } else { mark };
        self.outcome.mark = Some((self.holds, mark));
    }

    fn payload(&mut self, data: &[u8]) {
        // With NFTA_PAYLOAD_SREG it writes.
        if value(data, 5).is_some() {
            self.outcome.changes.push(PacketChange::Header);
            return;
        }
        let [base, offset, len] = [2, 3, 4].map(|kind| number_of(data, kind));
        let (Some(base), Some(offset), Some(len)) = (base, offset, len) else {
            return self.doubt();
        };
        let bytes = self.seen.payload(base, small(offset), small(len));
        self.store(data, 1, &bytes);
    }

    fn fib(&mut self, data: &[u8]) {
        // NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR and nothing else
        let asks_type = number_of(data, 2) == Some(3) && number_of(data, 3) == Some(2);
        match self.seen.destination_type().filter(|_| asks_type) {
            Some(kind) => self.store(data, 1, &bytes(Some(kind.to_ne_bytes()))),
            None => self.doubt(),
        }
    }

    fn ct(&mut self, data: &[u8]) {
        // With NFTA_CT_SREG it writes.
        if value(data, 4).is_some() {
            return;
        }
        // NFT_CT_STATE
        if number_of(data, 2) == Some(0) && self.family != super::ruleset::NETDEV {
            let state = self.seen.state();
            self.store(data, 1, &state);
        } else {
            self.store(data, 1, &[PartialByte::UNKNOWN; 16]);
        }
    }

    fn bitwise(&mut self, data: &[u8]) {
        let len = small(number_of(data, 3).unwrap_or_default());
        let bytes = self.load(data, 1, len);
        let (mask, xor) = (nested(data, 4, 1), nested(data, 5, 1));
        // NFT_BITWISE_MASK_XOR; the other operations are rare.
        let is_mask = number_of(data, 6).unwrap_or_default() == 0;
        let result = match (mask, xor) {
            (Some(mask), Some(xor)) if is_mask && mask.len() == len && xor.len() == len => {
                let parts = bytes.iter().zip(mask.iter().zip(xor));
                parts
                    .map(|(byte, (mask, xor))| byte.bitwise(*mask, *xor))
                    .collect()
            }
            (_, _) => vec![PartialByte::UNKNOWN; len],
        };
        self.store(data, 2, &result);
    }

    fn byteorder(&mut self, data: &[u8]) {
        let len = small(number_of(data, 4).unwrap_or_default());
        let size = small(number_of(data, 5).unwrap_or_default());
        let mut bytes = self.load(data, 1, len);
        if !matches!(size, 2 | 4 | 8) {
            bytes.fill(PartialByte::UNKNOWN);
        } else if cfg!(target_endian = "little") {
            bytes.chunks_mut(size).for_each(<[PartialByte]>::reverse);
        }
        self.store(data, 2, &bytes);
    }

    fn compare(&self, data: &[u8]) -> Truth {
        let Some(with) = nested(data, 3, 1) else {
            return Truth::Unknown;
        };
        let bytes = self.load(data, 1, with.len());
        let order = || order(&bytes, with);
        match number_of(data, 2) {
            // NFT_CMP_EQ, _NEQ, _LT, _LTE, _GT, _GTE
            Some(0) => equal(&bytes, with),
            Some(1) => equal(&bytes, with).not(),
            Some(2) => order().map(std::cmp::Ordering::is_lt).into(),
            Some(3) => order().map(std::cmp::Ordering::is_le).into(),
            Some(4) => order().map(std::cmp::Ordering::is_gt).into(),
            Some(5) => order().map(std::cmp::Ordering::is_ge).into(),
            Some(_) | None => Truth::Unknown,
        }
    }

    fn range(&self, data: &[u8]) -> Truth {
        let (Some(low), Some(high)) = (nested(data, 3, 1), nested(data, 4, 1)) else {
            return Truth::Unknown;
        };
        let is_within = within(&self.load(data, 1, low.len()), low, high);
        match number_of(data, 2) {
            // NFT_RANGE_EQ, NFT_RANGE_NEQ
            Some(0) => is_within,
            Some(1) => is_within.not(),
            Some(_) | None => Truth::Unknown,
        }
    }

    fn look_up(&mut self, data: &[u8]) {
        let name = name_of(data, 1).unwrap_or_default();
        let name = (self.family, self.table.to_vec(), name.to_vec());
        let register = number_of(data, 2).unwrap_or(u32::MAX);
        let looked = self.set_matches(&name, register);
        let looked = looked.unwrap_or_else(SetMatches::unknown);
        // NFT_LOOKUP_F_INV
        let is_inverted = number_of(data, 5).unwrap_or_default() & 1 != 0;
        let is_found = looked.is_found.invert(is_inverted);
        match number_of(data, 3) {
            None => self.require(is_found),
            // NFT_REG_VERDICT
            Some(0) => {
                let found = looked.values.iter();
                let holds = self.holds;
                let verdicts = found.map(|(is_it, data)| (holds.and(*is_it), verdict(data)));
                let verdicts: Vec<_> = verdicts.collect();
                let lacks = verdicts.is_empty() && is_found != Truth::False;
                self.outcome.verdicts.extend(verdicts);
                self.outcome.of_element = looked.comment;
                if lacks {
                    // The verdict is in an element that was not read.
                    let unknown = NftVerdict::End(firewall_facts::RuleVerdict::Unknown);
                    self.outcome.verdicts.push((Truth::Unknown, unknown));
                }
                self.require(is_found);
            }
            Some(register) => {
                let one = match looked.values.as_slice() {
                    [(Truth::True, data)] => value(data, 1),
                    _ => None,
                };
                let bytes =
                    one.map(|bytes| bytes.iter().copied().map(PartialByte::known).collect());
                let bytes: Vec<_> = bytes.unwrap_or_else(|| vec![PartialByte::UNKNOWN; 16]);
                self.require(is_found);
                self.registers.store(register, &bytes);
            }
        }
    }

    /// Looks up a register in a set. Of a set that is too large to read, the kernel is asked for the
    /// element, which takes the whole key.
    fn set_matches(&mut self, name: &sets::SetName, register: u32) -> Option<SetMatches> {
        let set = self.sets.set(name)?;
        self.outcome.compared += set.len();
        let key = self.registers.load(register, set.key_len());
        let listed = set.look_up(&key);
        let whole_key = known(&key).filter(|_| set.is_cut() && listed.is_found != Truth::True);
        match whole_key {
            Some(key) => Some(self.sets.matching(name, &key)?.look_up_known(&key)),
            None => Some(listed),
        }
    }

    fn immediate(&mut self, data: &[u8]) {
        let contents = value(data, 2).unwrap_or_default();
        if let Some(bytes) = value(contents, 1) {
            let bytes: Vec<_> = bytes.iter().copied().map(PartialByte::known).collect();
            self.store(data, 1, &bytes);
        } else {
            self.end(verdict(contents));
        }
    }

    fn xt_match(&mut self, data: &[u8]) {
        let name = name_of(data, 1).unwrap_or_default();
        let revision = number_of(data, 2).unwrap_or_default();
        let info = value(data, 3).unwrap_or_default();
        if name == b"comment" {
            let comment = super::parse::until_nul(info).to_vec();
            self.outcome.comment = Some(comment);
            return;
        }
        self.require(xt::matches(name, revision, info, self.seen));
    }

    fn xt_target(&mut self, data: &[u8]) {
        let name = name_of(data, 1).unwrap_or_default();
        let info = value(data, 3).unwrap_or_default();
        let target = xt::target(name, info, self.seen);
        match target.change {
            Some(PacketChange::Mark) => {
                let mark = xt::new_mark(name, info, self.seen);
                self.set_mark(mark.unwrap_or(UNKNOWN_MARK));
            }
            change => self.outcome.changes.extend(change),
        }
        if target.verdict != NftVerdict::Continue {
            self.end(target.verdict);
        }
    }
}

/// Parses the verdict in attributes of data (`NFTA_DATA_VERDICT`).
fn verdict(data: &[u8]) -> NftVerdict {
    let verdict = value(data, 2).unwrap_or_default();
    let chain = || name_of(verdict, 2).unwrap_or_default().to_vec();
    match value(verdict, 1).and_then(number).map(u32::cast_signed) {
        // NFT_CONTINUE, NFT_BREAK, NFT_JUMP, NFT_GOTO, NFT_RETURN
        Some(-1 | -2) => NftVerdict::Continue,
        Some(-3) => NftVerdict::Jump(chain()),
        Some(-4) => NftVerdict::Goto(chain()),
        Some(-5) => NftVerdict::Return,
        Some(0) => NftVerdict::End(firewall_facts::RuleVerdict::Drop),
        Some(1) => NftVerdict::Accept,
        // NF_QUEUE, with the queue's number in the upper bits.
        Some(code) if code > 0 && code & 0xff == 3 => {
            NftVerdict::End(firewall_facts::RuleVerdict::Queue)
        }
        Some(_) | None => NftVerdict::End(firewall_facts::RuleVerdict::Unknown),
    }
}

pub(super) fn reject(resets: bool) -> firewall_facts::RuleVerdict {
    if resets {
        firewall_facts::RuleVerdict::RejectByReset
    } else {
        firewall_facts::RuleVerdict::RejectByIcmp
    }
}

/// Converts a number of bytes, limited to more than any register holds.
fn small(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).min(256)
}
