//! Causes, one per file, and the list of them.

// Outside of the macro, within which `cargo fmt` finds no module.
pub(crate) mod accept_queue_full;
pub(crate) mod admin_prohibited;
pub(crate) mod answer_from_elsewhere;
pub(crate) mod answers_sometimes;
pub(crate) mod bad_destination;
pub(crate) mod blackhole_route;
pub(crate) mod cgroup_policy;
pub(crate) mod connected_to_itself;
pub(crate) mod deadline_too_short;
pub(crate) mod dropped_here;
pub(crate) mod ephemeral_range_used_up;
pub(crate) mod host_down;
pub(crate) mod icmp_unreachable;
pub(crate) mod listening_elsewhere;
pub(crate) mod local_firewall;
pub(crate) mod neighbour_unresolved;
pub(crate) mod no_route;
pub(crate) mod no_source_address;
pub(crate) mod not_forwarded;
pub(crate) mod nothing_listening;
pub(crate) mod own_link_down;
pub(crate) mod port_in_use;
pub(crate) mod ports_held_by_bind;
pub(crate) mod private_address_not_local;
pub(crate) mod prohibit_route;
pub(crate) mod proxy_in_path;
pub(crate) mod rejected_by_firewall;
pub(crate) mod remote_filtered;
pub(crate) mod route_went_away;
pub(crate) mod security_module;
pub(crate) mod service_without_endpoints;
pub(crate) mod silent_host;
pub(crate) mod socket_port_range;
pub(crate) mod source_not_local;
pub(crate) mod through_tunnel;
pub(crate) mod tuple_in_use;
pub(crate) mod wrong_network;
pub(crate) mod wrong_port;
pub(crate) mod wrong_source;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use super::{Case, Certainty, Evidence, Finding};
use crate::record::Label;

/// Description of a cause: its texts, and the rule that recognises it.
///
/// The JSON Schema, `conntrace explain` and docs/causes.md are made of it.
pub struct CauseInfo {
    /// Code of the cause.
    pub code: Code,
    /// Labels that the cause explains.
    pub labels: &'static [Label],
    /// Sentence that describes the code in the JSON Schema.
    pub is: &'static str,
    /// Meaning in half a sentence, for overviews.
    pub means: &'static str,
    /// Facts that the cause is recognised by, a sentence for each way.
    pub recognised: &'static [&'static str],
    /// Classic reasons, the most frequent first.
    pub reasons: &'static [&'static str],
    /// Steps to check and mend it, in that order.
    pub steps: &'static [Step],
    /// Function that recognises the cause.
    pub look: fn(&Case, &mut dyn Evidence) -> Finding,
    /// Each certainty that `look` can give, with the fact that proves as much.
    pub proofs: &'static [(Certainty, &'static str)],
}

impl CauseInfo {
    const fn rule(&self) -> CauseRule {
        CauseRule {
            code: self.code,
            look: self.look,
            proofs: self.proofs,
        }
    }
}

/// Command to run, or change to make.
pub struct Step {
    /// Command, to be typed as it stands but for the words in capitals.
    pub command: &'static str,
    /// Outcome: the facts that it shows, or the change that it makes.
    pub shows: &'static str,
}

pub(crate) const fn step(command: &'static str, shows: &'static str) -> Step {
    Step { command, shows }
}

/// Rule that recognises a cause.
pub struct CauseRule {
    /// Code of the cause.
    pub code: Code,
    /// Function that recognises the cause.
    pub look: fn(&Case, &mut dyn Evidence) -> Finding,
    /// Each certainty that `look` can give, with the fact that proves as much.
    pub proofs: &'static [(Certainty, &'static str)],
}

macro_rules! causes {
    ($($code:ident = $number:literal: $file:ident $(, then $later:path)?;)+) => {
        /// Code of a cause.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Code {
            $(
                #[doc = concat!("The cause that causes/", stringify!($file), ".rs describes.")]
                $code = $number,
            )+
        }

        impl Code {
            const COUNT: usize = [$(Self::$code),+].len();

            /// Every code, by the labels it explains.
            #[expect(clippy::indexing_slicing, reason = "a gap in the numbers does not compile")]
            pub const ALL: [Self; Self::COUNT] = {
                let mut all = [Self::NothingListening; Self::COUNT];
                $(all[Self::$code as usize] = Self::$code;)+
                all
            };

            /// Code as lines write it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => stringify!($file),)+
                }
            }

            /// Description of the cause.
            #[must_use]
            pub fn info(self) -> &'static CauseInfo {
                match self {
                    $(Self::$code => &$file::CAUSE,)+
                }
            }
        }

        /// Rules of all causes, in the order they are asked.
        pub const RULES: &[CauseRule] = &[$($file::CAUSE.rule(), $($later,)?)+];

        // A file that has another's code does not compile.
        const _: () = {
            $(assert!($file::CAUSE.code as usize == Code::$code as usize);)+
        };
    };
}

// From what this host or a packet proves to what is only possible. Of two rules that build on
// the same facts the one that says more stands first; what takes long to find out is asked last.
//
// The number is the cause's place in the schema, in `explain` and in the documents, where causes
// stand by label. A new cause takes the next number, wherever its line stands.
causes! {
    ConnectedToItself = 35: connected_to_itself;
    BadDestination = 27: bad_destination;
    ProhibitRoute = 21: prohibit_route;
    BlackholeRoute = 32: blackhole_route;
    OwnLinkDown = 24: own_link_down;
    WrongSource = 25: wrong_source;
    NoRoute = 10: no_route;
    NoSourceAddress = 26: no_source_address;
    SourceNotLocal = 18: source_not_local;
    PortInUse = 36: port_in_use;
    TupleInUse = 17: tuple_in_use;
    RouteWentAway = 23: route_went_away;
    ServiceWithoutEndpoints = 29: service_without_endpoints;
    RejectedByFirewall = 3: rejected_by_firewall;
    LocalFirewall = 5: local_firewall;
    NotForwarded = 33: not_forwarded;
    DroppedHere = 22: dropped_here;
    AnswerFromElsewhere = 30: answer_from_elsewhere;
    DeadlineTooShort = 31: deadline_too_short;
    AcceptQueueFull = 38: accept_queue_full;
    ProxyInPath = 4: proxy_in_path;
    AdminProhibited = 13: admin_prohibited;
    ListeningElsewhere = 1: listening_elsewhere;
    WrongPort = 2: wrong_port;
    NothingListening = 0: nothing_listening, then proxy_in_path::REWRITTEN;
    EphemeralRangeUsedUp = 14: ephemeral_range_used_up;
    PortsHeldByBind = 15: ports_held_by_bind;
    WrongNetwork = 34: wrong_network;
    ThroughTunnel = 37: through_tunnel;
    HostDown = 7: host_down;
    NeighbourUnresolved = 11: neighbour_unresolved;
    AnswersSometimes = 28: answers_sometimes;
    RemoteFiltered = 6: remote_filtered;
    PrivateAddressNotLocal = 9: private_address_not_local;
    IcmpUnreachable = 12: icmp_unreachable, then wrong_source::UNIQUE_LOCAL;
    SocketPortRange = 16: socket_port_range;
    CgroupPolicy = 19: cgroup_policy;
    SecurityModule = 20: security_module;
    SilentHost = 8: silent_host, then proxy_in_path::UNANSWERED;
}

impl JsonSchema for Code {
    fn schema_name() -> Cow<'static, str> {
        "Code".into()
    }

    fn schema_id() -> Cow<'static, str> {
        concat!(module_path!(), "::Code").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes = Self::ALL.map(|code| {
            json_schema!({
                "description": code.info().is,
                "type": "string",
                "const": code,
            })
        });
        // As a vector: serde has no longer arrays than 32.
        json_schema!({
            "description": "Code of a cause.",
            "oneOf": Vec::from(codes),
        })
    }
}
