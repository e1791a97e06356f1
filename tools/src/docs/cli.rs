//! docs/cli.md: every command and option, from the help of the program.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _, builder::StyledStr};
use conntrace::cli::Cli;

use super::{NOTICE, escaped};

const HEAD: &str = include_str!("cli_head.md");

/// Returns the document.
pub(crate) fn document() -> String {
    let mut command = Cli::command();
    command.build();
    let mut text = format!("# Command line\n\n{NOTICE}\n\n{HEAD}");
    for command in command.get_subcommands() {
        if command.get_name() != "help" {
            let about = help(command.get_long_about().or(command.get_about()));
            let _ = writeln!(text, "\n## conntrace {}\n\n{about}.", command.get_name());
            add_arguments(&mut text, command);
        }
    }
    text
}

/// Appends a table for each heading, in the order of the help.
fn add_arguments(text: &mut String, command: &Command) {
    let shown = |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help";
    let mut headings = Vec::new();
    for arg in command.get_arguments().filter(shown) {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            let _ = writeln!(text, "\n### {heading}");
        }
        *text += "\n| option | default | effect |\n|---|---|---|\n";
        let arguments = command.get_arguments().filter(shown);
        for arg in arguments.filter(|arg| arg.get_help_heading() == heading) {
            let (name, default, effect) = (spelling(arg), default(arg), effect(arg));
            let _ = writeln!(text, "| {name} | {default} | {effect} |");
        }
    }
}

/// Returns an argument as it is typed.
fn spelling(arg: &Arg) -> String {
    let names = arg.get_value_names().filter(|_| takes_values(arg));
    let names: Vec<_> = names.into_iter().flatten().map(AsRef::as_ref).collect();
    let names: String = names.join(" ");
    let long = arg.get_long().map(|long| format!("--{long}"));
    let long: Vec<_> = long
        .into_iter()
        .chain((!names.is_empty()).then_some(names))
        .collect();
    let short = arg.get_short().map(|short| format!("`-{short}`, "));
    let typed = format!("{}`{}`", short.unwrap_or_default(), long.join(" "));
    typed.replace('|', "\\|")
}

fn default(arg: &Arg) -> String {
    let defaults = arg
        .get_default_values()
        .iter()
        .filter(|_| takes_values(arg));
    let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
    defaults.join(",")
}

fn effect(arg: &Arg) -> String {
    let mut text = help(arg.get_long_help().or(arg.get_help())) + ".";
    let values = arg.get_possible_values();
    let values: Vec<_> = values.iter().filter(|_| takes_values(arg)).collect();
    for (number, value) in values.iter().enumerate() {
        text += if number == 0 { " Values: " } else { ", " };
        let _ = write!(text, "`{}`", value.get_name());
        if let Some(means) = value.get_help() {
            let _ = write!(text, " ({})", help(Some(means)));
        }
    }
    text
}

fn takes_values(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn help(text: Option<&StyledStr>) -> String {
    let text = text.map(ToString::to_string);
    escaped(&text.unwrap_or_default().replace('\n', " "))
}
