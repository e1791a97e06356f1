//! Causes of failed attempts. Each classic one is staged, and its certainty and evidence are
//! checked.

mod local_ports;
mod no_answer;
mod processes;
mod refused;

use std::process::{self, ExitCode};

use conntrace_tests::{Live, role, run};
use serde_json::{Value, json};

/// Port on which no testnet has a listener, unless a test starts one.
const PORT: u16 = 5432;

const CERTAIN: &str = "certain";
const LIKELY: &str = "likely";

pub(crate) fn main() -> ExitCode {
    match role().as_deref() {
        Some("connect") => return processes::connect_and_wait(),
        Some("listen") => return refused::listen_elsewhere(),
        Some("wait") => return processes::wait(),
        Some("gateway") => return no_answer::be_gateway(),
        Some("tunnel") => return no_answer::be_node_with_tunnel(),
        _ => {}
    }
    let tests = [
        refused::tests(),
        processes::tests(),
        no_answer::tests(),
        local_ports::tests(),
    ];
    run(tests.into_iter().flatten().collect())
}

fn live() -> std::sync::Arc<Live> {
    Live::get()
}

fn me() -> Value {
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    json!({ "pid": process::id(), "comm": comm.trim_end() })
}

/// Checks that the evidence and the sentences name one rule, in this chain.
fn assert_names_rule(line: &Value, table: &str, chain: &str) {
    let rules = line["cause"]["evidence"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 1, "{line:#}");
    let place = json!({ "family": "inet", "table": table, "chain": chain });
    conntrace_tests::assert_has(&rules[0], &place);
    let name = format!("inet {table} {chain}");
    for sentence in ["why", "fix"] {
        assert!(
            line["cause"][sentence].as_str().unwrap().contains(&name),
            "{line:#}"
        );
    }
}
