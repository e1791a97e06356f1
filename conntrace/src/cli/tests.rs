use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// Returns a command's options with their headings.
fn headings(command: &clap::Command) -> Vec<(String, Option<&str>)> {
    let options = command.get_arguments().filter(|arg| !arg.is_positional());
    let heading = |arg: &clap::Arg| arg.get_id().to_string();
    options
        .map(|arg| (heading(arg), arg.get_help_heading()))
        .collect()
}

#[test]
fn every_option_stands_under_its_heading() {
    let expected = |id: &str| match id {
        "pids" | "comms" | "uids" | "cgroups" | "netns" | "networks" | "ports" => Some(FILTERS),
        "no_diagnosis" | "diagnosis_timeout" => Some(CAUSES),
        "trace_syscalls" | "object" | "tier" => Some(TRACING),
        "all" | "only" | "format" | "output" | "patience" | "no_stalls" | "limit" | "summary"
        | "record" | "verbose" => Some(OUTPUT),
        "help" | "version" => None,
        other => panic!("--{other} has no heading"),
    };
    let mut command = Cli::command();
    command.build();
    let run = command.find_subcommand("run").unwrap();
    for of in [&command, run] {
        let options = headings(of);
        assert!(options.len() >= 20, "{options:?}");
        for (id, heading) in options {
            assert_eq!(heading, expected(&id), "{id}");
        }
    }
    let replay = headings(command.find_subcommand("replay").unwrap());
    assert!(replay.iter().all(|(id, heading)| *heading == expected(id)));
}

#[test]
fn options_of_run_work_without_the_word() {
    let bare = Cli::try_parse_from(["conntrace", "--all", "--patience", "50"]).unwrap();
    assert!(bare.command.is_none() && bare.run.lines.all);
    assert_eq!(bare.run.lines.labelling().patience_ms, 50);
    let worded = Cli::try_parse_from(["conntrace", "run", "--summary", "0"]).unwrap();
    let Some(Command::Run(run)) = worded.command else {
        panic!("run");
    };
    assert_eq!(run.summary_every(), None);
    assert!(Cli::try_parse_from(["conntrace", "--all", "demo"]).is_err());
}

#[test]
fn a_limit_is_a_number_of_lines() {
    let limit = |typed: &str| {
        let typed = Cli::try_parse_from(["conntrace", "--limit", typed]);
        typed.map(|cli| cli.run.lines.labelling().limit)
    };
    assert_eq!(limit("5").unwrap(), NonZeroU64::new(5));
    assert_eq!(limit("0").unwrap(), None);
    for wrong in ["-1", "1.5", "many"] {
        let message = limit(wrong).unwrap_err().to_string();
        assert!(message.contains("a whole number of lines"), "{message}");
    }
}

fn labels(options: &[&str]) -> Vec<Label> {
    let words = ["conntrace"].iter().chain(options);
    Cli::try_parse_from(words).unwrap().run.lines.labels()
}

#[test]
fn failures_are_printed_unless_labels_are_chosen() {
    use Label::{Cancelled, Established, Refused, TimedOut};
    assert_eq!(labels(&["--all"]), Label::ALL);
    let by_default = labels(&[]);
    assert_eq!(by_default.len(), 8);
    assert!(!by_default.iter().any(|label| label.is_hidden()));
    let separate = ["--label", "refused", "--label", "established"];
    assert_eq!(labels(&separate), [Refused, Established]);
    assert_eq!(labels(&["--label=refused,timed_out"]), [Refused, TimedOut]);
    assert_eq!(labels(&["--all", "--label", "cancelled"]), [Cancelled]);
}

#[test]
fn an_unknown_label_is_refused_with_those_there_are() {
    for wrong in ["nonsense", "", "refused,", "Refused", "timed-out"] {
        let error = Cli::try_parse_from(["conntrace", "--label", wrong]).unwrap_err();
        let message = error.to_string();
        for label in Label::ALL {
            assert!(message.contains(label.as_str()), "{message}");
        }
    }
}

#[test]
fn help_has_filters_examples_and_exit_statuses() {
    let help = Cli::command().term_width(100).render_help().to_string();
    for part in ["Filters", "--port <N[-M]>", "Examples:", "Exit status:"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    assert!(
        help.lines().all(|line| line.chars().count() <= 100),
        "{help}"
    );
    let status = |status: usize| help.contains(&format!("\n  {status}  "));
    assert!((0..=4).all(status), "{help}");
}

/// Every example in the help is a valid command line.
#[test]
fn examples_are_taken() {
    let examples = AFTER_HELP
        .lines()
        .filter_map(|line| line.strip_prefix("  conntrace"));
    let mut count = 0;
    for example in examples {
        let (options, _) = example.split_once("  ").unwrap();
        let options = options.split(" | ").next().unwrap();
        let words = ["conntrace"].into_iter().chain(options.split_whitespace());
        assert!(Cli::try_parse_from(words).is_ok(), "{example}");
        count += 1;
    }
    assert!((4..=6).contains(&count));
}
