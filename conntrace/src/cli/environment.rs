//! Environment variables for options of `run`.

use std::env;

use clap::{ArgAction, builder::BoolishValueParser, error::ContextKind};

use crate::output::stderr;

/// Lets `CONNTRACE_NO_STALLS=1` stand for `--no-stalls`, and so on for every visible long option.
/// An empty variable is ignored. Options on the command line take precedence.
pub(super) fn named(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let Some(long) = arg.get_long().filter(|_| !arg.is_hide_set()) else {
            return arg;
        };
        let name = variable(long);
        if env::var_os(&name).is_some_and(|value| value.is_empty()) {
            return arg;
        }
        let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
        let arg = if is_flag {
            arg.value_parser(BoolishValueParser::new())
        } else {
            arg
        };
        arg.env(name).hide_env(true)
    })
}

/// Returns the environment variable for a long option.
fn variable(long: &str) -> String {
    format!("CONNTRACE_{}", long.to_uppercase().replace('-', "_"))
}

/// Reports the variable and ends the process: the command line alone was valid.
pub(super) fn refuse(error: &clap::Error) -> ! {
    let option = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let long = option
        .as_deref()
        .and_then(|option| option.strip_prefix("--"));
    let long = long.and_then(|long| long.split(' ').next());
    if let Some(name) = long.map(variable) {
        stderr::say(&format!(
            "error: the environment variable {name} makes no sense\n"
        ));
    }
    error.exit()
}
